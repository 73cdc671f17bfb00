"""A pytest plugin: writes each step of each test to the file SUITES_REPORT at once, so that it is there whatever follows."""

import json
import os


def pytest_runtest_logreport(report):
    name = report.nodeid.split("::", 1)[1]
    status = {"passed": "ok", "failed": "failed", "skipped": "skipped"}[report.outcome]
    said = ""
    if status == "failed":
        crash = getattr(report.longrepr, "reprcrash", None)
        said = (crash.message if crash else str(report.longrepr)).strip().split("\n")[0][:300]
        if "Timeout >" in said:
            status = "stuck"
    with open(os.environ["SUITES_REPORT"], "a") as log:
        log.write(json.dumps([name, status, said]) + "\n")
