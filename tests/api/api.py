#!/usr/bin/env python3
"""Lets schemathesis loose on the administration over HTTP of a proxy before a real cluster of 3+3.

    api.py PROGRAM SCHEMATHESIS      `run.sh` installs what this needs
"""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "suites"))
from servers import HOST, Administered  # noqa: E402

# What an answer may not be. Whether an order can be carried out depends on the cluster, so that one is refused is no fault.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
]
# The same requests each time; those that boundaries and combinations call for, then some at random for as long.
SECONDS, EXAMPLES = 20, 20


def main():
    program, schemathesis = sys.argv[1:]
    stage = Administered("redis-server", program)
    try:
        command = [
            schemathesis, "run", f"http://{HOST}:{stage.http}/v1/openapi.json",
            "--header", f"Authorization: Bearer {stage.password}", "--phases", "coverage,fuzzing",
            "--checks", ",".join(CHECKS), "--max-examples", EXAMPLES, "--generation-deterministic",
            "--suppress-health-check", "all", "--max-time", SECONDS, "--continue-on-failure",
            "--warnings", "off",
        ]
        done = subprocess.run([str(word) for word in command], cwd=stage.folder)
        fault = stage.is_well()
        if fault:
            sys.exit(f"api: {fault}")
        sys.exit(done.returncode)
    finally:
        stage.stop()


if __name__ == "__main__":
    main()
