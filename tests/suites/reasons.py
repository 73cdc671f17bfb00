"""Why tests pass on a standalone server and fail through the proxy: the first row that fits a failure explains it.

A row is (kind, suite or "", pattern of "unit: test", pattern of what the test said, reason); patterns are searched for.
"""

import re

CANNOT, SECOND, NOT_DONE = "cluster cannot", "second part", "not done"

REASONS = [
    # Second part of the work: cross-slot commands, client-side caching, users, replica reads.
    (SECOND, "", "", "CLIENT TRACKING is not supported", "client-side caching"),
    (SECOND, "tcl", "^unit/tracking:", "", "client-side caching"),
    (SECOND, "", "", r"command 'acl\|", "users and rules for them"),
    (SECOND, "", "", "(BY|GET) option of SORT denied in Cluster mode", "SORT by keys of other slots"),
    (SECOND, "", "", "CROSSSLOT", "keys of several slots in one command or transaction"),
    (SECOND, "redis-py", "test_transaction_with_empty_error_command|test_exec_error_raised", "", "a transaction over several slots"),
    # What one address before a cluster has no use for, or must not let its clients do.
    (CANNOT, "", "", "DB index is out of range", "a cluster has database 0 only"),
    (CANNOT, "", "", "is not allowed through the proxy", "a command for one node, which clients of a cluster must not have"),
    (CANNOT, "", "test_readonly_invalid_cluster_state", "", "READONLY is accepted, for clients that send it to whatever they meet"),
    (CANNOT, "", "", "access a non local key in a cluster node", "a script with keys that it does not declare"),
    (CANNOT, "", "MIGRATE|test_command_list|test_command_parser", "doesn't exist|movablekeys|assert .* > 300", "COMMAND knows what the proxy lets through"),
    (CANNOT, "tcl", "Blocking XREADGROUP: key deleted$|BRPOPLPUSH with multiple blocked clients", "",
     "sent by two clients at once, without waiting for the first to block: now and then the second comes first"),
    # The rest is to come.
    (NOT_DONE, "", "", "outside of tests: ERR command '(config|client|latency)", "the file needs a command around its tests that is coming"),
    (NOT_DONE, "", "", r"command '\S+' is not supported by this proxy( yet)?", "the command is coming"),
    (NOT_DONE, "", "^unit/functions:", "Function not found|ERR Function", "FUNCTION LOAD is coming"),
    (NOT_DONE, "", "Script return recursive object", "", "FUNCTION LOAD is coming: the test reads on for ever after its error"),
    (NOT_DONE, "", "", "blocked clients", "INFO does not count blocked clients"),
    (NOT_DONE, "", "^unit/type/list: (BRPOP|BLMPOP|RPOPLPUSH)", "Expected", "a client that an earlier test left blocked takes the element"),
    (NOT_DONE, "", "^unit/(info-command|lazyfree|bitops|dump):|trim on SET", "", "INFO lacks fields"),
    (NOT_DONE, "", "", "slowlog-log-slower-than|hash-max-listpack-entries|config get|dict exists maxmemory", "CONFIG GET knows few names"),
    (NOT_DONE, "", "CLIENT (LIST|INFO)|query buffer", "", "CLIENT LIST: cmd lacks the subcommand, qbuf is 0"),
    (NOT_DONE, "", "COMMAND LIST", "", "COMMAND LIST lacks subcommands"),
    (NOT_DONE, "redis-py", "health_check_in_pubsub|test_pubsub: ", "", "publish and subscribe are coming"),
]


def explain(suite, unit, test, said):
    """(kind, reason), or (None, "")."""
    for kind, of, where, what, reason in REASONS:
        if of in ("", suite) and re.search(where, f"{unit}: {test}") and re.search(what, said):
            return kind, reason
    return None, ""
