//! `client.queueing = "nodes"`: commands are looked at by their nodes when they are queued, and nothing is left of that.

use std::time::Duration;

use slotway::session::{Queueing, Transactions};

use crate::client::bulk;
use crate::fake::Act;
use crate::rig::{Setup, rig, until};

const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";
const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";
const OK: &str = "+OK\r\n";
const QUEUED: &str = "+QUEUED\r\n";

fn nodes(primaries: usize) -> Setup {
    rig(primaries).with(|options| options.session.queueing = Queueing::Nodes)
}

/// The node's words, to the client whose command it does not take; with several slots, too.
#[test]
fn what_a_node_refuses_is_refused_when_it_is_queued() {
    let per_slot = || nodes(2).with(|options| options.session.transactions = Transactions::PerSlot);
    for (setup, other) in [(nodes(2), 0), (per_slot(), 1)] {
        setup.run(async move |rig| {
            let (a, b) = (rig.key(0), rig.key(other));
            let (at_a, at_b) = (format!("APPEND {a} x"), format!("APPEND {b} y"));
            let lines = ["MULTI", &at_a, "PING", &at_b, &at_a, "EXEC"];
            for mut client in [rig.client().await, rig.resp3_client().await] {
                rig.node(other).next(&at_b, Act::error(OOM));
                let refused = format!("-{OOM}\r\n");
                let replies = client.ask_all(&lines).await;
                assert_eq!(replies, [OK, QUEUED, QUEUED, &refused, QUEUED, ABORTED]);
                assert_eq!(rig.cluster.ran(), [""; 0]);
            }
            let mut client = rig.client().await;
            let replies = client.ask_all(&lines).await;
            let counts = if a == b { [1, 2, 3] } else { [1, 1, 2] };
            let [first, second, third] = counts.map(|count| format!(":{count}\r\n"));
            let exec = format!("*4\r\n{first}+PONG\r\n{second}{third}");
            assert_eq!(replies, [OK, QUEUED, QUEUED, QUEUED, QUEUED, &exec]);
            let rehearsal = ["MULTI", &at_a, "DISCARD"];
            assert_eq!(rig.node(0).seen()[..3], rehearsal);
        });
    }
}

/// Unless told otherwise nodes see nothing of a transaction before `EXEC`.
#[test]
fn nodes_are_asked_only_if_told() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let set = format!("SET {key} 1");
        assert_eq!(client.ask_all(&["MULTI", &set]).await, [OK, QUEUED]);
        assert_eq!(client.ask("EXEC").await, "*1\r\n+OK\r\n");
        assert_eq!(rig.node(0).seen(), ["MULTI", &set, "EXEC"]);
    });
}

/// Where a slot is, or that its node cannot serve now, is no word on the command.
#[test]
fn what_says_nothing_of_the_command_is_for_exec() {
    nodes(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let set = format!("SET {key} 1");
        let lines = ["MULTI", &set, "EXEC"];
        let done = [OK, QUEUED, "*1\r\n+OK\r\n"];
        for word in [
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "CLUSTERDOWN The cluster is down",
            "LOADING Redis is loading the dataset in memory",
        ] {
            rig.node(0).next(&set, Act::error(word));
            assert_eq!(client.ask_all(&lines).await, done, "{word}");
            // The same, and to `MULTI` as well.
            for name in ["MULTI", &set] {
                rig.node(0).next(name, Act::error(word));
            }
            assert_eq!(client.ask_all(&lines).await, done, "{word}");
        }
        rig.cluster.model().give(&key, 1);
        assert_eq!(client.ask_all(&lines).await, done);
        rig.cluster.model().open(&key, 0);
        assert_eq!(client.ask_all(&lines).await, done);
    });
}

/// The connection is lost with a rehearsal on it, which is held twice at most.
#[test]
fn a_lost_rehearsal_is_for_exec() {
    nodes(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let set = format!("SET {key} 1");
        for lost in [1, 2] {
            for _ in 0..lost {
                rig.node(0).next("DISCARD", Act::Close);
            }
            let replies = client.ask_all(&["MULTI", &set, "EXEC"]).await;
            assert_eq!(replies, [OK, QUEUED, "*1\r\n+OK\r\n"]);
        }
        assert_eq!(rig.node(0).seen().iter().filter(|line| *line == "DISCARD").count(), 4);
    });
}

/// A node that keeps a transaction open would queue what other clients send.
#[test]
fn a_connection_in_a_transaction_is_given_up() {
    nodes(1).run(async |rig| {
        let (key, [mut client, mut other]) = (rig.key(0), [rig.client().await, rig.client().await]);
        let set = format!("SET {key} 1");
        let denied = "NOPERM this user has no permissions to run the 'discard' command";
        rig.node(0).next("DISCARD", Act::error(denied));
        rig.node(0).next("DISCARD", Act::error(denied));
        assert_eq!(client.ask_all(&["MULTI", &set]).await, [OK, QUEUED]);
        assert_eq!(other.ask(&format!("GET {key}")).await, "$-1\r\n");
        assert_eq!(client.ask("EXEC").await, "*1\r\n+OK\r\n");
        assert_eq!(other.ask(&format!("GET {key}")).await, bulk("1"));
        // Of one that was never opened nothing is left.
        let lanes = || rig.node(0).seen_by_connection().len();
        let before = lanes();
        for name in ["MULTI", &set] {
            rig.node(0).next(name, Act::error("BUSY Redis is busy running a script."));
        }
        let busy = "-BUSY Redis is busy running a script.\r\n";
        assert_eq!(client.ask_all(&["MULTI", &set, "DISCARD"]).await, [OK, busy, OK]);
        assert_eq!(other.ask(&format!("GET {key}")).await, bulk("1"));
        assert_eq!(lanes(), before);
    });
}

/// What is sent in one packet is answered in order, and only the transactions are held up by what nodes have not said yet.
#[test]
fn replies_come_in_order_while_nodes_are_slow() {
    nodes(2).run(async |rig| {
        let ([a, b], mut client) = ([rig.key(0), rig.key(1)], rig.client().await);
        let (at_a, get_b) = (format!("SET {a} 1"), format!("GET {b}"));
        rig.node(0).hold();
        client
            .send_all(&["MULTI", &at_a, &at_a, "DISCARD", &get_b, "MULTI", &at_a, "EXEC", &get_b])
            .await;
        assert_eq!(client.read().await, OK);
        until("node 1 is asked", || rig.node(1).count(&get_b) == 1).await;
        assert!(client.is_silent_for(Duration::from_millis(50)).await);
        assert_eq!(rig.node(0).count("EXEC"), 0);
        rig.node(0).release();
        rig.node(0).thaw();
        until("the transaction is run", || {
            rig.node(0).release();
            rig.node(0).count("EXEC") == 1
        })
        .await;
        rig.node(0).release();
        let nil = "$-1\r\n";
        let replies = [QUEUED, QUEUED, OK, nil, OK, QUEUED, "*1\r\n+OK\r\n", nil];
        assert_eq!(client.read_n(8).await, replies);
    });
}

/// A node that is busy when a transaction is given up says so, as it does to one that it is to run.
#[test]
fn an_exec_that_does_not_run_is_refused_in_the_words_of_its_node() {
    nodes(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let set = format!("SET {key} 1");
        let busy = "EXECABORT Transaction discarded because of: BUSY Redis is busy.";
        for (act, reply) in [
            (Act::error(busy), format!("-{busy}\r\n")),
            (Act::Run, ABORTED.to_owned()),
            (Act::error("CLUSTERDOWN The cluster is down"), ABORTED.to_owned()),
            (Act::Close, ABORTED.to_owned()),
        ] {
            rig.node(0).next(&set, Act::error(OOM));
            rig.node(0).next("EXEC", act);
            assert_eq!(client.ask_all(&["MULTI", &set, "EXEC"]).await[2], reply);
        }
        assert_eq!(rig.cluster.ran(), [""; 0]);
    });
}

/// Who leaves while nodes look at a command leaves nothing behind.
#[test]
fn a_client_that_is_gone_disturbs_nobody() {
    nodes(1).run(async |rig| {
        let (key, mut other) = (rig.key(0), rig.client().await);
        let set = format!("SET {key} 1");
        rig.node(0).hold();
        for _ in 0..3 {
            let mut client = rig.client().await;
            let before = rig.node(0).count(&set);
            // One alone: while redirects or losses are about, a second would wait for it.
            client.send_all(&["MULTI", &set]).await;
            until("the node is asked", || rig.node(0).count(&set) > before).await;
            client.vanish();
        }
        rig.node(0).release();
        assert_eq!(other.ask(&format!("GET {key}")).await, "$-1\r\n");
        assert_eq!(rig.cluster.ran().len(), 1);
    });
}
