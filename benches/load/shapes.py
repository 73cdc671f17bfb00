"""Shapes of load, and the load generators that make them: memtier_benchmark where there is one, else redis-benchmark."""

import csv
import io
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace

KEYS, BIG_KEYS, HUGE_KEYS = 100_000, 2_000, 20
BIG, HUGE = 16 * 1024, 1024 * 1024
MEMTIER = os.environ.get("MEMTIER") or shutil.which("memtier_benchmark")


@dataclass(frozen=True)
class Shape:
    """`clients` connections with `pipeline` requests each under way; `mix` is sets:gets or a command with __key__ in it;
    `bytes` of a value; `rate` in requests per second over all connections, 0 for as fast as it goes."""

    clients: int
    pipeline: int
    mix: str
    bytes: int = 64
    rate: int = 0
    resp3: bool = False

    def keys(self):
        """What the names of the keys begin with, and how many there are."""
        return {BIG: ("big-", BIG_KEYS), HUGE: ("huge-", HUGE_KEYS)}.get(self.bytes, ("memtier-", KEYS))

    def at(self, rate):
        return replace(self, rate=rate)


SHAPES = {
    "get_p1": Shape(50, 1, "0:1"),
    "set_p1": Shape(50, 1, "1:0"),
    "lat_20k": Shape(50, 1, "1:10", rate=20_000),
    "mix_p16": Shape(50, 16, "1:10"),
    "get_p64": Shape(16, 64, "0:1"),
    "set1k_p16": Shape(50, 16, "1:0", 1024),
    "mget10": Shape(50, 1, "MGET" + " __key__" * 10),
    "get16k": Shape(50, 1, "0:1", BIG),
    "conns1k": Shape(1000, 1, "1:10"),
    # Large and odd ones.
    "mget100": Shape(50, 1, "MGET" + " __key__" * 100),
    "get1m": Shape(8, 1, "0:1", HUGE),
    "set1m": Shape(8, 1, "1:0", HUGE),
    "conns10k": Shape(10_000, 1, "1:10"),
    "mix_p1000": Shape(16, 1000, "1:10"),
    "hot": Shape(1, 64, "1:10"),
    "mix_p16_resp3": Shape(50, 16, "1:10", resp3=True),
}


class LoadFailed(Exception):
    """The load generator did not do its work."""


def load(port, shape, seconds, cpu, direct=0, tls=()):
    """Requests per second, number of requests, and p50, p99, p99.9 of their times in milliseconds. `direct`: the generator
    itself finds the nodes, of which there are so many (memtier only); `tls`: options by which it speaks TLS."""
    if MEMTIER and direct:
        # Each of its clients has a connection to each node.
        return memtier(port, replace(shape, clients=max(1, shape.clients // direct)), seconds, cpu, ["--cluster-mode"], direct)
    if MEMTIER:
        return memtier(port, shape, seconds, cpu, tls)
    if direct or shape.rate or shape.resp3 or "__key__" not in shape.mix and shape.mix not in ("0:1", "1:0"):
        raise LoadFailed("this shape needs memtier_benchmark: install it, or name it in $MEMTIER")
    return redis_benchmark(port, shape, seconds, cpu, tls)


def memtier(port, shape, seconds, cpu, more, connections=1):
    """`connections` of each client, which share the rate."""
    prefix, count = shape.keys()
    command = [MEMTIER, "-s", "127.0.0.1", "-p", port, "-t", 1, "-c", shape.clients, "--pipeline", shape.pipeline]
    command += ["-d", shape.bytes, "--test-time", seconds, "--hide-histogram", "--key-prefix", prefix, "--key-maximum", count]
    if "__key__" in shape.mix:
        command += ["--command", shape.mix, "--command-key-pattern=R"]
    else:
        command += ["--ratio", shape.mix]
    command += ["--rate-limiting", max(1, shape.rate // (shape.clients * connections))] if shape.rate else []
    command += ["--protocol", "resp3"] if shape.resp3 else []
    command += more
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        done = run(cpu, [*command, "--json-out-file", out.name], seconds + 120)
        try:
            totals = json.load(open(out.name))["ALL STATS"]["Totals"]
        except (ValueError, KeyError):
            raise LoadFailed(done.stderr[-300:]) from None
    times = totals["Percentile Latencies"]
    ms = {name: times[key] for name, key in (("p50", "p50.00"), ("p99", "p99.00"), ("p999", "p99.90"))}
    return {"rps": totals["Ops/sec"], "count": totals["Count"], **ms}


def redis_benchmark(port, shape, seconds, cpu, more):
    prefix, count = shape.keys()
    key = f"{prefix}__rand_int__"
    words = {"0:1": ["GET", key], "1:0": ["SET", key, "x" * shape.bytes]}.get(shape.mix) or shape.mix.replace("__key__", key).split()
    requests = seconds * 40_000 * min(shape.pipeline, 4)
    options = ["-p", port, "-c", shape.clients, "-P", shape.pipeline, "-r", count, "-n", requests, "--csv", *more]
    begun = time.monotonic()
    done = run(cpu, ["redis-benchmark", *options, *words], 600)
    if '"test"' not in done.stdout:
        raise LoadFailed((done.stderr or done.stdout)[-300:])
    row = next(csv.DictReader(io.StringIO(done.stdout[done.stdout.index('"test"'):])))
    ms = {name: float(row[f"{key}_latency_ms"]) for name, key in (("p50", "p50"), ("p99", "p99"), ("p999", "max"))}
    return {"rps": requests / (time.monotonic() - begun), "count": requests, **ms}


def run(cpu, command, timeout):
    pinned = ["taskset", "-c", cpu] if cpu else []
    done = subprocess.run([str(word) for word in [*pinned, *command]], capture_output=True, text=True, timeout=timeout)
    return done
