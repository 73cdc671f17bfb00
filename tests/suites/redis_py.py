"""The suite of redis-py, one file at a time, as against a standalone server."""

import json
import os
import subprocess
import sys
from pathlib import Path

from servers import HOST, ROOT, end

# Seconds for one test, and for a whole file.
ONE, WHOLE = 20, 900
# What the suite's own list asks for, without linters, in versions of the time of redis-py 5.
PACKAGES = ["pytest<8", "pytest-asyncio<0.22", "pytest-timeout", "mock", "packaging", "numpy", "ujson", "cachetools", "pyjwt"]
# Tests of clusters, modules and TLS need servers that are not there.
MARKS = "not onlycluster and not redismod and not ssl"


class Suite:
    """Run in the checkout, whose `redis` package is the one that is imported."""

    name = "redis-py"
    # Many tests pass without any server: they say nothing, and are left out.
    needs_nothing = True

    def __init__(self, args, scratch):
        self.checkout, self.scratch, self.protocol = Path(args.checkout).resolve(), scratch, args.protocol
        if not (self.checkout / "tests/conftest.py").exists():
            raise SystemExit(f"{self.checkout} has no tests/conftest.py: not a checkout of redis-py")
        self.python = Path(args.venv or ROOT / "target/suites-venv").absolute() / "bin/python"
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", self.python.parents[1]], check=True)
            subprocess.run([self.python, "-m", "pip", "install", "-q", *PACKAGES], check=True)

    def units(self):
        files = sorted((self.checkout / "tests").rglob("test_*.py"))
        return [str(file.relative_to(self.checkout / "tests").with_suffix("")) for file in files]

    def run(self, unit, target, port):
        """The outcome of each test, as {name: (status, what it said)}, and a remark on the file, or None."""
        log = self.scratch / f"{target}.jsonl"
        log.write_text("")
        command = [self.python, "-m", "pytest", f"tests/{unit}.py", f"--redis-url=redis://{HOST}:{port}/0",
                   f"--protocol={self.protocol}", "-q", "-o", "addopts=", "-m", MARKS, "--tb=line", f"--timeout={ONE}",
                   "-p", "no:cacheprovider", "-p", "report"]
        environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parent), PYTHONDONTWRITEBYTECODE="1",
                           SUITES_REPORT=str(log))
        process = subprocess.Popen(list(map(str, command)), cwd=self.checkout, env=environment, start_new_session=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        remark = None
        try:
            output = process.communicate(timeout=WHOLE)[0].decode("utf-8", "replace")
            # 0: all passed; 1: some failed; 5: none selected.
            if process.returncode not in (0, 1, 5):
                remark = f"pytest ended with {process.returncode}: {output.strip()[-300:]}"
        except subprocess.TimeoutExpired:
            remark = f"not done within {WHOLE} s"
        finally:
            end(process)
        outcomes = {}
        for line in log.read_text().splitlines():
            name, status, said = json.loads(line)
            # A test passes if its set-up, itself and its cleaning up do.
            if outcomes.get(name, ("ok",))[0] == "ok":
                outcomes[name] = (status, said)
        return outcomes, remark
