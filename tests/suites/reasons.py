"""Why tests pass on a standalone server and fail through the proxy: the first row that fits a failure explains it.

A row is (kind, suite or "", pattern of "unit: test", pattern of what the test said, reason); patterns are searched for.
"""

import re

CANNOT, NOT_DONE = "cluster cannot", "not done"

REASONS = [
    (CANNOT, "", "", "(BY|GET) option of SORT denied in Cluster mode", "a script cannot sort by keys of other slots"),
    (CANNOT, "redis-py", "test_pipeline: .*(watch|test_transaction_callable)", "CROSSSLOT", "WATCH on keys of several slots, which nobody can compare and set at once"),
    # What one address before a cluster has no use for, or must not let its clients do.
    (CANNOT, "", "", "DB index is out of range", "a cluster has database 0 only"),
    (CANNOT, "tcl", "", "SELECT is not allowed in cluster mode", "a cluster has database 0 only"),
    (CANNOT, "", "", "is not allowed through the proxy", "a command for one node, which clients of a cluster must not have"),
    (CANNOT, "", "", "Unknown option or number of arguments for CONFIG SET", "a setting that is not for the clients of a cluster to change"),
    (CANNOT, "", "test_readonly_invalid_cluster_state", "", "READONLY is accepted, for clients that send it to whatever they meet"),
    (CANNOT, "", "", "access a non local key in a cluster node", "a script with keys that it does not declare"),
    (CANNOT, "", "MIGRATE command|test_command_parser", r"doesn't exist|movablekeys|\[''\] == \['key1'", "COMMAND knows what the proxy lets through"),
    (CANNOT, "tcl", "COMMAND LIST FILTERBY PATTERN", "config.rewrite", "COMMAND knows what the proxy lets through"),
    (CANNOT, "tcl", "MIGRATE cached connections", "", "the nodes' own affair: their connections among themselves"),
    # A script that runs keeps one node busy, and nothing else.
    (CANNOT, "tcl", "^unit/(functions|scripting): ", "^BUSY ", "a script that an earlier test has left running"),
    (CANNOT, "tcl", "expires are skipped during client pause", "", "CLIENT PAUSE holds clients back, not the nodes, where keys expire"),
    (CANNOT, "tcl", "^unit/multi: .*script timeout", "Expected '2", "a script that runs makes one node busy, not the proxy"),
    (CANNOT, "tcl", "EVAL does not leave", "Expected '1 0'", "the proxy remembers scripts of EVAL"),
    (CANNOT, "tcl", "EVAL does not leak", "used_memory_lua", "memory is that of all nodes, three times that of one"),
    (CANNOT, "tcl", "Script ACL check", "Expected '1'", "what a script does is checked by its node, for which it is the proxy's own user"),
    (CANNOT, "tcl", "not enough good replicas", "NOREPLICAS", "each node has the replica that it is to lack"),
    (CANNOT, "", "MONITOR can log commands issued by|monitor: TestMonitor::test_lua_script", "", "what a script does is seen within its node only"),
    # Nodes look at a command when it is queued, and are sent the transaction when it is complete.
    (CANNOT, "tcl", "EXEC with only read commands should not be rejected when OOM", "",
     "a node without memory takes nothing in MULTI, also reads, and is sent them at EXEC"),
    (CANNOT, "tcl", "^unit/querybuf:", "qbuf", "what the proxy reads into is its own, and lent to a client only as long as it sends"),
    (CANNOT, "tcl", "Blocking XREAD(GROUP)?: key |B(RPOPLPUSH|LMPOP) with multiple blocked clients|after P?UNSUBSCRIBE without arguments|"
     "BRPOPLPUSH does not affect WATCH while still blocked", "",
     "sent by two clients at once, without waiting for the first to be served: now and then the second comes first"),
    (CANNOT, "tcl", "ZRANDMEMBER - listpack", "", "a client that an earlier test left blocked takes the element"),
    # Nodes tell of changed keys, sorted.
    (CANNOT, "tcl", "^unit/tracking: Tracking only occurs for scripts", "", "keys that change at once are told of in their own order"),
    (CANNOT, "tcl", "^unit/tracking: .*(eviction keys should be before|Unblocked BLMOVE)", "",
     "a node tells of a change on a connection of its own: when is not tied to the reply of the command that made it"),
    (CANNOT, "tcl", "^unit/tracking: flushdb .* transaction", "", "FLUSHDB is for all nodes, a transaction for one"),
    # The rest is to come.
    (NOT_DONE, "", "", r"command '\S+' is not supported by this proxy( yet)?", "the command is coming"),
]


def explain(suite, unit, test, said):
    """(kind, reason), or (None, "")."""
    for kind, of, where, what, reason in REASONS:
        if of in ("", suite) and re.search(where, f"{unit}: {test}") and re.search(what, said):
            return kind, reason
    return None, ""
