#!/usr/bin/env python3
"""Runs other people's test suites through the proxy, and on a standalone server to compare with.

    tests/suites/run.py tcl --checkout /path/to/redis            Redis' own suite, version 7.0 (needs tclsh)
    tests/suites/run.py redis-py --checkout /path/to/redis-py    the suite of redis-py, version 5 (makes a virtual environment)

The proxy is `target/release/slotway` before a 3+3 cluster that this starts. Each file of a suite gets a new proxy and clean
nodes. What counts are the tests that pass on the standalone server (and do not pass without any server); the last lines say
how many of them pass through the proxy, and why the others do not (`reasons.py`). All of it goes to a JSON file as well.

To see more while mending something:

    tests/suites/run.py tcl --checkout … --only unit/type/list unit/sort --baseline suites-tcl.json --list
"""

import argparse
import collections
import json
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

import reasons
import redis_py
import servers
import tcl

SUITES = {"tcl": tcl.Suite, "redis-py": redis_py.Suite}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--checkout", required=True, help="the folder with the suite")
    servers.options(parser)
    parser.add_argument("--only", nargs="+", metavar="UNIT", help="these files only, such as unit/type/list or test_pubsub")
    parser.add_argument("--json", type=Path, help="where the outcome goes (default: suites-SUITE.json)")
    parser.add_argument("--baseline", type=Path, help="the JSON of an earlier run, for what passes on a standalone server")
    parser.add_argument("--list", action="store_true", help="print each test that fails through the proxy only")
    parser.add_argument("--tags", default="-needs:repl -needs:debug", help="tcl: the suite's own option (default: %(default)s)")
    parser.add_argument("--protocol", choices=["2", "3"], default="2", help="redis-py: version of RESP (default: %(default)s)")
    parser.add_argument("--venv", help="redis-py: folder of the virtual environment (default: target/suites-venv)")
    return parser.parse_args()


def main():
    args = arguments()
    args.json = args.json or Path(f"suites-{args.suite}.json")
    with tempfile.TemporaryDirectory(prefix="suites-") as scratch:
        suite = SUITES[args.suite](args, Path(scratch))
        units = args.only or suite.units()
        units = {unit: {} for unit in units}
        if args.baseline:
            take_baseline(units, args.baseline)
        missing = [unit for unit in units if "standalone" not in units[unit]]
        if suite.needs_nothing:
            for unit in missing:
                units[unit]["nothing"], _ = suite.run(unit, "nothing", servers.free_port())
        # Servers are stopped by `finally`, also when this is told to end.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("broken off"))
        for kind, to_run in ((servers.Standalone, missing), (servers.Front, list(units))):
            if to_run:
                run_all(suite, kind, args, units, to_run)
    report = summary(args.suite, units)
    write(args, {"suite": args.suite, **report, "units": units})
    show(report, args)
    print(f"\nall of it: {args.json}")


def write(args, outcome):
    args.json.write_text(json.dumps(outcome, indent=1))


def take_baseline(units, path):
    for unit, earlier in json.loads(path.read_text())["units"].items():
        if unit in units and "standalone" in earlier:
            units[unit] = {key: value for key, value in earlier.items() if key in ("standalone", "nothing", "standalone_remark")}


def run_all(suite, kind, args, units, to_run):
    """Runs the files against a server of this kind, and notes in `units` how each test went."""
    server = kind(args.server, args.proxy)
    try:
        for n, unit in enumerate(to_run):
            if n:
                server.renew()
            start = time.monotonic()
            outcomes, remark = suite.run(unit, server.name, server.port)
            complaint = server.is_well()
            remark = "; ".join(filter(None, [f"!!! {complaint}" if complaint else None, remark]))
            units[unit][server.name] = outcomes
            units[unit][f"{server.name}_remark"] = remark
            counts = collections.Counter(status for status, _ in outcomes.values())
            words = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
            seconds = time.monotonic() - start
            print(f"{server.name:10} {unit:35} {seconds:5.0f} s  {words}  {remark[:200]}", file=sys.stderr, flush=True)
            # So far, as a baseline for another run should this one be broken off.
            write(args, {"suite": args.suite, "units": units})
    finally:
        server.stop()


def summary(suite, units):
    """Counts by file, and the tests that fail through the proxy only."""
    rows, only = [], []
    for unit, run in units.items():
        nothing = {name for name, (status, _) in run.get("nothing", {}).items() if status == "ok"}
        passed = [name for name, (status, _) in run["standalone"].items() if status == "ok" and name not in nothing]
        good = 0
        for name in passed:
            status, said = run["proxy"].get(name, ("not run", run["proxy_remark"]))
            if status == "ok":
                good += 1
                continue
            kind, reason = reasons.explain(suite, unit, name, said)
            only.append({"unit": unit, "test": name, "status": status, "said": said, "kind": kind, "reason": reason})
        rows.append({"unit": unit, "standalone": len(passed), "proxy": good, "remark": run["proxy_remark"]})
    return {"rows": rows, "only_through_proxy": only}


def show(report, args):
    rows, only = report["rows"], report["only_through_proxy"]
    print(f"\n{'file':35} {'standalone':>10} {'proxy':>6} {'ratio':>7}")
    for row in [*rows, total(rows)]:
        print(f"{row['unit']:35} {row['standalone']:10} {row['proxy']:6} {ratio(row):>7}  {row['remark'][:120]}".rstrip())
    print("\nfailing through the proxy only, by reason:")
    for (kind, reason), count in counted((test["kind"] or "unexplained", test["reason"]) for test in only):
        print(f"{count:5}  {kind}: {reason}")
    print("\n... by what they said:")
    for (said, status), count in counted((pattern(test["said"]), test["status"]) for test in only)[:40]:
        print(f"{count:5}  {status}: {said}")
    if args.list:
        print()
        for test in only:
            print(f"{test['unit']}: {test['test']}\n    {test['status']}: {test['said'][:300]}")


def total(rows):
    sums = {key: sum(row[key] for row in rows) for key in ("standalone", "proxy")}
    return {"unit": "all", "remark": "", **sums}


def ratio(row):
    return f"{100 * row['proxy'] / row['standalone']:.1f} %" if row["standalone"] else "-"


def counted(things):
    return collections.Counter(things).most_common()


def pattern(said):
    """What a test said without what differs from test to test."""
    said = re.sub(r"\d+", "N", re.sub(r"\(context:.*", "", said))
    return said[:160]


if __name__ == "__main__":
    main()
