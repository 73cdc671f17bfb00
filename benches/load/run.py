#!/usr/bin/env python3
"""What a proxy costs and how fast it is, beside others in the same run, on a real cluster.

  run.py table    [--shapes get_p1,mix_p16]     each shape of load; the targets take turns in each round
  run.py curve    --over clients=1,10,100,1000  the cost as one thing grows: clients, nodes, workers, or shards asked
  run.py latency  [--shares 20,50,80]           time that a proxy adds at parts of its greatest rate
  run.py idle     [--held 5000]                 memory of a connection that does nothing

  --target slotway                              target/release/slotway, with one worker
  --target 'NAME=COMMAND with {port} {nodes} {nodes_csv} {first} {workers} {conf}'   started here; --conf NAME=TEMPLATE makes {conf}
  --target NAME=127.0.0.1:6380[#PID]            one that listens already; with PID its processor time is told too
  --target direct                               no proxy: the load generator finds the nodes itself (memtier_benchmark)
  --cluster 127.0.0.1:7001,…                    a cluster that is there, instead of one started here
  --tls nodes|clients                           slotway speaks TLS with its nodes, or with the load

Proxies that are started here are pinned to one processor, nodes and load to another: on a machine with two, that is all there
is. Figures: requests/s, processor microseconds per request of the proxy's process (user and system), times in milliseconds.
Ratios to the first target (or --base) are taken round by round and their median is shown: they travel between machines, times
do not. --out writes all figures as JSON, --plot a chart as SVG.
"""

import argparse
import json
import os
import resource
import socket
import statistics
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from papers import Papers  # noqa: E402
from plot import chart  # noqa: E402
from shapes import SHAPES, LoadFailed, load  # noqa: E402
from targets import ROOT, Cluster, Failed, Given, SecureCluster, Target, port_of  # noqa: E402

SLOTWAY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "slotway"
KNOWN = {
    "slotway": "serve {nodes} {tls} --listen 127.0.0.1:{port} --http off --admin off --workers {workers}",
    "direct": "direct",
}


def measure(target, shape, asked):
    """One run of a load, and what the proxy spent on it."""
    if target == "direct":
        return load(port_of(asked.nodes[0]), shape, asked.seconds, asked.load_cpu, direct=len(asked.nodes))
    before = target.cpu_seconds()
    tls = asked.papers.load_options() if asked.papers else ()
    figures = load(target.load_port, shape, asked.seconds, asked.load_cpu, tls=tls)
    if before is not None:
        spent = target.cpu_seconds() - before
        figures |= {"cpu_us": 1e6 * spent / max(1, figures["count"]), "rss_kib": target.rss_kib()}
    return figures


def rounds(targets, shape, asked):
    """{target: [figures of each round]}; of one that fails there are none, which is told."""
    results = {name: [] for name in targets}
    for _ in range(asked.rounds):
        for name, target in targets.items():
            try:
                results[name].append(measure(target, shape, asked))
            except (LoadFailed, OSError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                results[name].append({})
    return results


def middle(runs, figure):
    values = [run[figure] for run in runs if run.get(figure) is not None]
    return statistics.median(values) if values else None


def ratio(runs, base, figure):
    pairs = [(run.get(figure), other.get(figure)) for run, other in zip(runs, base)]
    values = [mine / its for mine, its in pairs if mine and its]
    return statistics.median(values) if values else None


def shown(value, digits=2):
    return f"{value:.{digits}f}" if value is not None else "-"


def tell(title, results, base):
    print(f"\n{title}\n  {'target':10} {'req/s':>9} {'cpu us':>7} {'p50 ms':>7} {'p99':>7} {'p99.9':>7} {'MiB':>6}   ratio to {base}: req/s, cpu")
    for name, runs in results.items():
        if any(runs):
            rss = middle(runs, "rss_kib")
            cells = [shown(middle(runs, figure)) for figure in ("cpu_us", "p50", "p99", "p999")]
            ratios = [shown(ratio(runs, results.get(base, []), figure)) for figure in ("rps", "cpu_us")]
            print(f"  {name:10} {middle(runs, 'rps'):9.0f} {cells[0]:>7} {cells[1]:>7} {cells[2]:>7} {cells[3]:>7} {shown(rss and rss / 1024, 1):>6}   {ratios[0]:>8} {ratios[1]:>6}", flush=True)


def started(stack, asked, workers=1):
    """The targets, by name; `stack` stops them."""
    targets = {}
    for name, command in asked.targets.items():
        if name == "direct":
            targets[name] = name
            continue
        target = Target(name, command, asked.nodes, asked.proxy_cpu, asked.confs.get(name), workers, asked.papers)
        stack.callback(target.stop)
        targets[name] = target
    return targets


def cluster(stack, asked, nodes=3):
    asked.papers = stack.enter_context(Papers(asked.tls)) if asked.tls else None
    if asked.cluster:
        there = Given(asked.cluster.split(","))
    elif asked.tls == "nodes":
        there = SecureCluster(asked.program, nodes, asked.load_cpu, asked.papers)
    else:
        there = Cluster(asked.program, nodes, asked.load_cpu)
    there = stack.enter_context(there)
    there.fill()
    if asked.redirected:
        there.redirect_half()
    asked.nodes = there.nodes


def table(asked):
    found = {}
    with ExitStack() as stack:
        cluster(stack, asked, asked.count)
        targets = started(stack, asked)
        for name in asked.shapes:
            found[name] = rounds(targets, SHAPES[name], asked)
            tell(f"{name}  {SHAPES[name]}", found[name], asked.base)
    return found, None


def curve(asked):
    """{value: {target: figures}}, and the chart of processor time."""
    over, values = asked.over.split("=")
    values, shape, found = [int(value) for value in values.split(",")], SHAPES[asked.shapes[0]], {}
    stack = ExitStack()
    with stack:
        for value in values:
            if over in ("nodes", "workers") or not found:
                stack.close()
                cluster(stack, asked, value if over == "nodes" else asked.count)
                targets = started(stack, asked, value if over == "workers" else 1)
            loaded = replace(shape, clients=value) if over == "clients" else shape
            found[value] = rounds(targets, loaded, asked)
            tell(f"{over} = {value}  {loaded}", found[value], asked.base)
    lines = {
        name: [(value, middle(results[name], "cpu_us")) for value, results in found.items() if middle(results[name], "cpu_us")]
        for name in asked.targets
    }
    lines = {name: line for name, line in lines.items() if line}
    return found, chart(f"{asked.shapes[0]}: processor time of a request", over, "microseconds", lines)


def latency(asked):
    """{share: {target: figures}} at parts of the first target's greatest rate, and the chart of p99."""
    shape, found = SHAPES[asked.shapes[0]], {}
    with ExitStack() as stack:
        cluster(stack, asked, asked.count)
        targets = started(stack, asked)
        most = middle(rounds({asked.base: targets[asked.base]}, shape, asked)[asked.base], "rps")
        for share in (int(share) for share in asked.shares.split(",")):
            loaded = shape.at(int(most * share / 100))
            found[share] = rounds(targets, loaded, asked)
            tell(f"{share} % of {most:.0f} requests/s", found[share], asked.base)
    lines = {name: [(share, middle(results[name], "p99")) for share, results in found.items() if any(results[name])] for name in targets}
    return found, chart(f"{asked.shapes[0]}: time of a request", "percent of the greatest rate", "p99, milliseconds", lines)


def idle(asked):
    """KiB of memory for each connection that is held open after one request."""
    found, most = {}, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        cluster(stack, asked, asked.count)
        for name, target in started(stack, asked).items():
            if target == "direct" or target.pid is None:
                continue
            before, held = target.rss_kib(), []
            for _ in range(asked.held):
                held.append(socket.create_connection(("127.0.0.1", target.port), 5))
                held[-1].sendall(b"*2\r\n$3\r\nGET\r\n$9\r\nmemtier-1\r\n")
                held[-1].recv(128)
            found[name] = (target.rss_kib() - before) / asked.held
            print(f"{name:10} {found[name]:6.2f} KiB each of {asked.held} connections, from {before} KiB on", flush=True)
            for stream in held:
                stream.close()
    return found, None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["table", "curve", "latency", "idle"])
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--conf", action="append", default=[])
    parser.add_argument("--base", help="the target that ratios are taken to (the first one)")
    parser.add_argument("--cluster")
    parser.add_argument("--count", type=int, default=3, help="nodes of the cluster that is started (%(default)s)")
    parser.add_argument("--tls", choices=["nodes", "clients"])
    parser.add_argument("--redirected", action="store_true", help="half of all slots are on their way, their keys gone ahead")
    parser.add_argument("--shapes", help="with commas between; of " + ", ".join(SHAPES))
    parser.add_argument("--over", default="clients=1,10,100,1000")
    parser.add_argument("--shares", default="20,50,80")
    parser.add_argument("--held", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--program", default=SLOTWAY, help="slotway, also for the cluster (%(default)s)")
    two = (os.cpu_count() or 1) > 1
    parser.add_argument("--proxy-cpu", default="1" if two else "", help="processor of each proxy, as taskset has it (%(default)s)")
    parser.add_argument("--load-cpu", default="0" if two else "", help="processors of nodes and load (%(default)s)")
    asked = parser.parse_args()
    known = {**KNOWN, "slotway": f"{asked.program} {KNOWN['slotway']}"}
    pairs = [target.split("=", 1) for target in asked.target or ["slotway"]]
    asked.targets = {pair[0]: pair[1] if len(pair) > 1 else known.get(pair[0]) for pair in pairs}
    for name in (name for name, command in asked.targets.items() if command is None):
        parser.error(f"--target {name}: which command or address? --target '{name}=…'")
    asked.confs = dict(conf.split("=", 1) for conf in asked.conf)
    asked.base = asked.base or next(iter(asked.targets))
    if asked.base not in asked.targets:
        parser.error(f"--base {asked.base}: not one of the targets")
    if asked.redirected and asked.cluster:
        parser.error("--redirected: only on a cluster that is started here, as it leaves slots open")
    if asked.tls and ("direct" in asked.targets or asked.what == "idle" or asked.tls == "nodes" and (asked.cluster or asked.redirected)):
        parser.error("--tls: with slotway only, not idle, and with nodes that are started here")
    usual = "table" if asked.what == "table" else asked.what
    asked.shapes = asked.shapes.split(",") if asked.shapes else list(SHAPES)[:9] if asked.what == "table" else ["get_p1"]
    for name in asked.shapes:
        if name not in SHAPES:
            parser.error(f"--shapes {name}: not one of {', '.join(SHAPES)}")
    return asked


def main():
    asked = arguments()
    try:
        found, picture = {"table": table, "curve": curve, "latency": latency, "idle": idle}[asked.what](asked)
    except Failed as error:
        sys.exit(f"run.py: {error}")
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
    if asked.plot:
        if not picture:
            sys.exit(f"run.py: --plot: there is no chart of {asked.what}")
        asked.plot.write_text(picture)


if __name__ == "__main__":
    main()
