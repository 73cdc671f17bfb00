//! Transactions: one slot's go to its node in one piece, and those over several slots, where that is wanted, slot by slot.

use std::time::Duration;

use slotway::session::Transactions;

use crate::client::{Client, bulk};
use crate::fake::Act;
use crate::rig::{Rig, Setup, rig, until};

const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";
const CROSS_SLOT: &str = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";
const OK: &str = "+OK\r\n";

/// Three nodes, and transactions slot by slot.
fn per_slot() -> Setup {
    rig(3).with(|options| options.session.transactions = Transactions::PerSlot)
}

/// A key of each node.
fn keys(rig: &Rig) -> [String; 3] {
    [rig.key(0), rig.key(1), rig.key(2)]
}

/// The reply to `EXEC` behind these commands, of which all are queued.
async fn exec(client: &mut Client, lines: &[&str]) -> String {
    let lines: Vec<&str> = [&["MULTI"], lines, &["EXEC"]].concat();
    let mut replies = client.ask_all(&lines).await;
    let reply = replies.pop().expect("one for each");
    assert!(replies[1..].iter().all(|reply| reply == "+QUEUED\r\n"), "{lines:?}: {replies:?}");
    reply
}

/// An array of these replies.
fn array(replies: &[&str]) -> String {
    format!("*{}\r\n{}", replies.len(), replies.concat())
}

#[test]
fn replies_come_in_the_order_of_the_commands() {
    per_slot().run(async |rig| {
        let [a, b, c] = keys(rig);
        for mut client in [rig.client().await, rig.resp3_client().await] {
            client.ask_all(&["FLUSHALL"]).await;
            let lines = [
                &format!("SET {a} 1"),
                &format!("RPUSH {b} x y"),
                "PING",
                &format!("APPEND {a} 2"),
                &format!("GET {c}"),
                &format!("LRANGE {b} 0 -1"),
                &format!("INCR {b}"),
                &format!("GET {a}"),
                "ECHO end",
            ];
            let reply = exec(&mut client, &lines).await;
            let nil = if client.ask("GET none").await == "_\r\n" { "_\r\n" } else { "$-1\r\n" };
            let list = array(&["$1\r\nx\r\n", "$1\r\ny\r\n"]);
            let wrong = reply.split_inclusive("\r\n").find(|line| line.starts_with('-'));
            let wrong = wrong.expect("a list is not counted up");
            let replies = [
                OK,
                ":2\r\n",
                "+PONG\r\n",
                ":2\r\n",
                nil,
                &list,
                wrong,
                "$2\r\n12\r\n",
                "$3\r\nend\r\n",
            ];
            assert_eq!(reply, array(&replies));
        }
        let sent =
            ["MULTI", &format!("SET {a} 1"), &format!("APPEND {a} 2"), &format!("GET {a}"), "EXEC"];
        let seen = rig.node(0).seen();
        assert_eq!(seen.windows(sent.len()).filter(|lines| *lines == sent).count(), 2, "{seen:?}");
    });
}

/// Keys of one slot are one transaction, whatever the setting; and nothing else changes with it.
#[test]
fn one_slot_is_one_transaction_as_ever() {
    for setup in [rig(3), per_slot()] {
        setup.run(async |rig| {
            let (key, mut client) = (rig.key(1), rig.client().await);
            let lines = [format!("SET {key} 1"), format!("SET {{{key}}}x 2"), format!("GET {key}")];
            let lines = lines.each_ref().map(String::as_str);
            let script = "EVAL s 0";
            let lines = [script, lines[0], lines[1], script, lines[2]];
            let unknown = "-ERR the fake node does not know EVAL\r\n";
            let reply = array(&[unknown, OK, OK, unknown, "$1\r\n1\r\n"]);
            assert_eq!(exec(&mut client, &lines).await, reply);
            assert_eq!(rig.node(1).seen(), [&["MULTI"], &lines[..], &["EXEC"]].concat());
            assert_eq!(exec(&mut client, &[]).await, "*0\r\n");
            assert_eq!(exec(&mut client, &["PING"]).await, array(&["+PONG\r\n"]));
            rig.node(1).next("SET", Act::error(OOM));
            let why = format!("-EXECABORT Transaction discarded because of: {OOM}\r\n");
            assert_eq!(exec(&mut client, &[lines[1], lines[4]]).await, why);
        });
    }
}

#[test]
fn several_slots_are_refused_unless_told() {
    rig(3).run(async |rig| {
        let ([a, b, _], mut client) = (keys(rig), rig.client().await);
        let lines = ["MULTI", &format!("SET {a} 1"), &format!("SET {b} 1"), "EXEC"];
        assert_eq!(client.ask_all(&lines).await[2..], [CROSS_SLOT, ABORTED]);
    });
}

/// What cannot be taken apart: a single command, and what is to run only if nothing has changed.
#[test]
fn one_command_and_what_is_watched_stay_in_one_slot() {
    per_slot().run(async |rig| {
        let ([a, b, _], mut client) = (keys(rig), rig.client().await);
        for line in [format!("MGET {a} {b}"), format!("DEL {a} {b}"), format!("RENAME {a} {b}")] {
            let lines = ["MULTI", &format!("SET {a} 1"), &line, "EXEC"];
            assert_eq!(client.ask_all(&lines).await[2..], [CROSS_SLOT, ABORTED], "{line}");
        }
        assert_eq!(client.ask(&format!("WATCH {a} {b}")).await, CROSS_SLOT);
        rig.node(0).next("WATCH", Act::Reply(OK.into()));
        let lines = [&format!("WATCH {a}"), "MULTI", &format!("SET {b} 1"), "EXEC"];
        assert_eq!(client.ask_all(&lines).await[2..], [CROSS_SLOT, ABORTED]);
        assert_eq!(rig.cluster.ran(), [""; 0]);
    });
}

/// A command without keys runs between those that it was sent between, as far as these are of one slot.
#[test]
fn a_command_without_keys_goes_with_the_one_before_it() {
    per_slot().run(async |rig| {
        let ([a, b, _], mut client) = (keys(rig), rig.client().await);
        let (at_a, at_b) = (format!("SET {a} 1"), format!("SET {b} 1"));
        exec(&mut client, &["EVAL 1 0", &at_a, &at_b, "EVAL 2 0", &at_a, "EVAL 3 0"]).await;
        assert_eq!(rig.node(0).seen(), ["MULTI", "EVAL 1 0", &at_a, &at_a, "EVAL 3 0", "EXEC"]);
        assert_eq!(rig.node(1).seen(), ["MULTI", &at_b, "EVAL 2 0", "EXEC"]);
    });
}

/// A script without keys goes with those of the key that it names, unless all have to be of another slot.
#[test]
fn a_script_goes_with_the_key_that_it_names() {
    per_slot().run(async |rig| {
        let ([a, b, _], mut client) = (keys(rig), rig.client().await);
        let (at_a, at_b) = (format!("SET {a} 1"), format!("SET {b} 1"));
        let script = format!("EVAL redis.call([[incr]],[[{a}]]) 0");
        exec(&mut client, &[&at_a, &at_b, &script]).await;
        assert_eq!(rig.node(0).seen(), ["MULTI", &at_a, &script, "EXEC"]);
    });
    rig(3).run(async |rig| {
        let ([a, b, _], mut client) = (keys(rig), rig.client().await);
        let (at_b, script) = (format!("SET {b} 1"), format!("EVAL redis.call([[incr]],[[{a}]]) 0"));
        exec(&mut client, &[&script, &at_b]).await;
        assert_eq!(rig.node(1).seen(), ["MULTI", &script, &at_b, "EXEC"]);
        exec(&mut client, &[&script]).await;
        assert_eq!(rig.node(0).seen(), ["MULTI", &script, "EXEC"]);
    });
}

#[test]
fn a_part_follows_its_slot() {
    per_slot().run(async |rig| {
        let ([a, b, c], mut client) = (keys(rig), rig.client().await);
        rig.cluster.model().give(&b, 2);
        rig.cluster.model().open(&c, 0);
        let lines = [
            &format!("SET {a} 1"),
            &format!("APPEND {b} x"),
            &format!("APPEND {c} y"),
            &format!("APPEND {b} x"),
            &format!("APPEND {c} y"),
            &format!("GET {a}"),
        ];
        let replies = [OK, ":1\r\n", ":1\r\n", ":2\r\n", ":2\r\n", "$1\r\n1\r\n"];
        assert_eq!(exec(&mut client, &lines.map(String::as_str)).await, array(&replies));
        let (moved, asked) = (lines[1].as_str(), lines[2].as_str());
        assert_eq!(rig.node(1).seen(), ["MULTI", moved, moved, "EXEC"]);
        assert!(rig.node(2).seen().windows(4).any(|run| run == ["MULTI", moved, moved, "EXEC"]));
        let asked = ["ASKING", "MULTI", asked, asked, "EXEC"];
        assert!(rig.node(0).seen().windows(5).any(|run| run == asked), "{:?}", rig.node(0).seen());
        assert_eq!(rig.cluster.ran().len(), lines.len());
    });
}

#[test]
fn what_one_part_comes_to_is_said_of_its_commands_alone() {
    per_slot().run(async |rig| {
        let ([a, b, c], mut client) = (keys(rig), rig.client().await);
        let lines = [
            &format!("SET {b} 1"),
            &format!("SET {a} 1"),
            &format!("GET {b}"),
            &format!("GET {c}"),
            &format!("GET {a}"),
        ];
        let lines = lines.map(String::as_str);
        let said = |word: &str| array(&[word, OK, word, "$-1\r\n", "$1\r\n1\r\n"]);
        rig.node(1).next("SET", Act::error(OOM));
        let why = format!("-EXECABORT Transaction discarded because of: {OOM}\r\n");
        assert_eq!(exec(&mut client, &lines).await, said(&why));
        let address = rig.node(1).address();
        let lost = format!("-ERR proxy: upstream connection lost, outcome unknown ({address})\r\n");
        for failure in [Act::Close, Act::RunAndClose, Act::Cut(b"*2\r\n+OK\r\n".to_vec())] {
            rig.node(1).next("EXEC", failure);
            assert_eq!(exec(&mut client, &lines).await, said(&lost));
        }
        // What only reads is sent again.
        rig.node(2).next("EXEC", Act::Close);
        let (set, get) = (lines[1], lines[3]);
        assert_eq!(exec(&mut client, &[get, set]).await, array(&["$-1\r\n", OK]));
        assert_eq!(rig.node(2).seen().iter().rev().take(6).filter(|line| *line == get).count(), 2);
    });
}

/// A part that waits in vain did not run, which is no word on the others.
#[test]
fn a_slot_that_nobody_serves_fails_alone() {
    per_slot().budget(Duration::from_millis(200)).run(async |rig| {
        let ([a, b, _], mut client) = (keys(rig), rig.client().await);
        rig.node(1).always("SET", "CLUSTERDOWN The cluster is down");
        let (at_a, at_b) = (format!("SET {a} 1"), format!("SET {b} 1"));
        let down = "-CLUSTERDOWN The cluster is down\r\n";
        assert_eq!(exec(&mut client, &[&at_a, &at_b, &at_a]).await, array(&[OK, down, OK]));
        assert_eq!(rig.cluster.ran(), [at_a.clone(), at_a.clone()]);
        // If that goes for all of it, it is the transaction that did not run.
        rig.node(0).always("SET", "CLUSTERDOWN The cluster is down");
        assert_eq!(exec(&mut client, &[&at_a, &at_b, "PING"]).await, down);
    });
}

/// Of a transaction that has to wait for one of its slots nothing is sent.
#[test]
fn all_parts_wait_for_what_was_sent_before() {
    per_slot().run(async |rig| {
        let ([a, b, _], mut client) = (keys(rig), rig.client().await);
        rig.node(1).hold();
        let both = format!("MSET {b} 1 {{{b}}}x 1");
        let (at_a, at_b) = (format!("GET {a}"), format!("GET {b}"));
        client.send_all(&[&both, "MULTI", &at_a, &at_b, "EXEC"]).await;
        until("the node is asked", || rig.node(1).count(&both) == 1).await;
        assert!(client.is_silent_for(Duration::from_millis(50)).await);
        assert_eq!(rig.node(0).seen(), [""; 0]);
        rig.node(1).release();
        let reply = array(&["$-1\r\n", "$1\r\n1\r\n"]);
        assert_eq!(client.read_n(5).await[4], reply);
        // And what is sent behind it waits for the part of its slot.
        rig.node(1).hold();
        client.send_all(&["MULTI", &at_a, &at_b, "EXEC", &at_b]).await;
        client.read_n(3).await;
        until("the node is asked", || rig.node(1).count(&at_b) == 2).await;
        assert!(client.is_silent_for(Duration::from_millis(50)).await);
        assert_eq!(rig.node(1).count(&at_b), 2);
        rig.node(1).release();
        assert_eq!(client.read_n(2).await, [reply, bulk("1")]);
    });
}

#[test]
fn rights_that_change_count_in_every_part() {
    per_slot().run(async |rig| {
        let ([a, b, c], mut admin) = (keys(rig), rig.client().await);
        assert_eq!(admin.ask("ACL SETUSER me on >secret ~* +@all").await, OK);
        let mut client = rig.client().await;
        assert_eq!(client.ask("AUTH me secret").await, OK);
        let lines = [
            &format!("SET {a} 1"),
            &format!("DEL {b}"),
            &format!("SET {c} 1"),
            "PING",
            &format!("DEL {a}"),
            &format!("INCR {c}"),
        ];
        client.ask_all(&[&["MULTI"], &lines[..]].concat()).await;
        admin.ask("ACL SETUSER me -set -del").await;
        let lost = "-NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no longer allowed for the following reason: no permission to execute the command or subcommand\r\n";
        let replies = [lost, lost, lost, "+PONG\r\n", lost, ":1\r\n"];
        assert_eq!(client.ask("EXEC").await, array(&replies));
        assert_eq!(rig.cluster.ran(), [format!("INCR {c}")]);
        assert_eq!(rig.node(0).seen(), [""; 0], "nothing is left for it");
    });
}

#[test]
fn there_may_be_very_many_slots() {
    per_slot().run(async |rig| {
        let mut client = rig.client().await;
        let keys: Vec<String> = (0..1500).map(|n| format!("key{n}")).collect();
        let sets: Vec<String> = keys.iter().map(|key| format!("SET {key} {key}")).collect();
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        assert_eq!(exec(&mut client, &sets).await, array(&vec![OK; sets.len()]));
        let gets: Vec<String> = keys.iter().rev().map(|key| format!("GET {key}")).collect();
        let gets: Vec<&str> = gets.iter().map(String::as_str).collect();
        let values: Vec<String> = keys.iter().rev().map(|key| bulk(key)).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        assert_eq!(exec(&mut client, &gets).await, array(&values));
    });
}
