#!/usr/bin/env python3
"""Runs the clients that `run.sh` has installed, and prints a table: table.py DIR HOST PORT [CLIENT...]

Fails if a step fails that is not awaited, and if one passes that is: then it has come, and leaves the list.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# Seconds that one client may take.
LIMIT = 180

# Steps that cannot pass yet, as CLIENT:STEP, with * for any; they must fail today.
AWAITED = """
"""


def clients(folder, host, port):
    """Name and command line of each."""
    python, node, rust = folder / "python/bin/python", ["node"], folder / "rust/debug"
    for style in ("sync", "asyncio"):
        for version in ("2", "3"):
            yield f"redis-py-{style}-resp{version}", [python, HERE / "redis_py.py", host, port, style, version]
    yield "ioredis", [*node, HERE / "ioredis.js", host, port]
    for version in ("2", "3"):
        yield f"node-redis-resp{version}", [*node, HERE / "node_redis.js", host, port, version]
        yield f"redis-rs-resp{version}", [rust / "redis_rs", host, port, version]
        yield f"fred-resp{version}", [rust / "fred", host, port, version]
    yield "redis-cli", [HERE / "redis_cli.sh", host, port]
    yield "redis-benchmark", [HERE / "redis_benchmark.sh", host, port]


def run(command, folder):
    """The client's version, and its steps with what went wrong, or None."""
    environment = dict(os.environ, NODE_PATH=str(folder / "node/node_modules"))
    try:
        done = subprocess.run(list(map(str, command)), env=environment, timeout=LIMIT, capture_output=True, text=True)
        output, errors, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        output, errors, code = (late.stdout or b"").decode(), f"no end within {LIMIT} s", 1
    version, steps = "", {}
    for line in output.splitlines():
        if line.startswith("version "):
            version = line.split()[1]
        elif line.startswith("ok "):
            steps[line[3:]] = None
        elif line.startswith("failed "):
            name, _, why = line[7:].partition(": ")
            steps[name] = why
    # One that breaks off half-way has not done its steps; a failed step is the only reason to end with a failure.
    if not steps or (code != 0 and not any(steps.values())):
        steps["program"] = f"ended with {code}: {' '.join(errors.split())[-300:]}"
    return version, steps


def rust_versions():
    """A library does not know its version: the lock file of those that were built does."""
    lock = HERE / "rust/Cargo.lock"
    found = re.findall(r'name = "(redis|fred)"\nversion = "(.*)"', lock.read_text() if lock.exists() else "")
    return {name.replace("redis", "redis-rs"): version for name, version in found}


def main():
    folder, host, port, *only = sys.argv[1:]
    awaited = {line.split("#")[0].strip() for line in AWAITED.splitlines()} - {""}
    failed, early, waiting = [], [], []
    built = rust_versions()
    for name, command in clients(Path(folder).absolute(), host, port):
        if only and not any(name.startswith(word) for word in only):
            continue
        version, steps = run(command, Path(folder).absolute())
        version = version or built.get(name.split("-resp")[0], "")
        for step, why in steps.items():
            is_awaited = any(matches(pattern, f"{name}:{step}") for pattern in awaited)
            if why and is_awaited:
                waiting.append((name, step, why))
            elif why:
                failed.append((name, step, why))
            elif is_awaited:
                early.append((name, step, "passes: take it off the list of awaited steps"))
        good = [step for step, why in steps.items() if why is None]
        bad = [step for step, why in steps.items() if why]
        print(f"{name:24} {version:8} {len(good):2} of {len(steps):2} steps  {'without ' + ' '.join(bad) if bad else ''}".rstrip(), flush=True)
    for title, rows in (("awaited", waiting), ("PASSES ALREADY", early), ("FAILED", failed)):
        for name, step, why in rows:
            print(f"{title}: {name}:{step}: {why[:220]}")
    sys.exit(1 if failed or early else 0)


def matches(pattern, name):
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name)


if __name__ == "__main__":
    main()
