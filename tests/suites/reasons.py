"""Why tests pass on a standalone server and fail through the proxy: the first row that fits a failure explains it.

A row is (kind, suite or "", pattern of "unit: test", pattern of what the test said, reason); patterns are searched for.
"""

import re

CANNOT, SECOND, NOT_DONE = "cluster cannot", "second part", "not done"

REASONS = [
    (NOT_DONE, "", "", "not supported by this proxy yet", "the command is coming"),
    (CANNOT, "", "", "CROSSSLOT", "keys of several slots in one command"),
]


def explain(suite, unit, test, said):
    """(kind, reason), or (None, "")."""
    for kind, of, where, what, reason in REASONS:
        if of in ("", suite) and re.search(where, f"{unit}: {test}") and re.search(what, said):
            return kind, reason
    return None, ""
