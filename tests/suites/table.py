#!/usr/bin/env python3
"""Writes what the suites found into docs/compatibility.md, between the two marks there.

    tests/suites/table.py suites-tcl.json suites-redis-py.json

Several files of one suite are taken together, a later run of a unit instead of an earlier one.
"""

import collections
import json
import sys
from pathlib import Path

import reasons
import run

PAGE = run.servers.ROOT / "docs" / "compatibility.md"
BEGIN, END = "<!-- suites: begin (tests/suites/table.py) -->", "<!-- suites: end -->"
NAMES = {"tcl": "Redis' own (Tcl, 7.0.15)", "redis-py": "redis-py's (v5.0.8)"}
KINDS = {
    reasons.CANNOT: "What a cluster behind one address cannot do",
    reasons.NOT_DONE: "What is to come",
}


def collected(paths):
    """{suite: {unit: its runs}}."""
    suites = collections.defaultdict(dict)
    for path in paths:
        outcome = json.loads(Path(path).read_text())
        suites[outcome["suite"]].update(outcome["units"])
    return {suite: run.summary(suite, units) for suite, units in suites.items()}


def counts(suites):
    yield "| suite | pass on one server | and through slotway | |\n|---|--:|--:|--:|"
    for suite, report in suites.items():
        total = run.total(report["rows"])
        yield f"| {NAMES[suite]} | {total['standalone']} | {total['proxy']} | {run.ratio(total)} |"


def failing(suites):
    rows = collections.defaultdict(lambda: collections.defaultdict(list))
    for suite, report in suites.items():
        for test in report["only_through_proxy"]:
            rows[test["kind"]][test["reason"]].append((suite, test["unit"]))
    for kind, title in KINDS.items():
        if rows[kind]:
            yield f"\n{title}:\n\n| reason | tests | where |\n|---|--:|---|"
            by_count = sorted(rows[kind].items(), key=lambda row: -len(row[1]))
            yield from (f"| {reason} | {len(tests)} | {places(tests)} |" for reason, tests in by_count)


def places(tests):
    units = collections.Counter(f"{suite} `{unit}`" for suite, unit in tests).most_common()
    shown = [f"{unit} {count}" if count > 1 else unit for unit, count in units[:6]]
    return ", ".join(shown) + (f" and {len(units) - 6} more" if len(units) > 6 else "")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    suites = collected(sys.argv[1:])
    unexplained = [test for report in suites.values() for test in report["only_through_proxy"] if not test["kind"]]
    for test in unexplained:
        print(f"{test['unit']}: {test['test']}\n    {test['status']}: {test['said'][:300]}", file=sys.stderr)
    if unexplained:
        sys.exit(f"{len(unexplained)} tests fail for reasons that reasons.py does not know: nothing is written")
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    table = "\n".join([*counts(suites), *failing(suites)])
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


if __name__ == "__main__":
    main()
