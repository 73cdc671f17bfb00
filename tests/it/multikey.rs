//! Commands on keys of several slots: cut into parts, and one reply made of theirs.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::client::bulk;
use crate::fake::Act;
use crate::rig::{Rig, rig, until};

/// A key of each of three nodes.
fn keys(rig: &Rig) -> [String; 3] {
    [rig.key(0), rig.key(1), rig.key(2)]
}

#[test]
fn mget_keeps_order_duplicates_and_nil() {
    rig(3).run(async |rig| {
        let ([a, b, c], mut client) = (keys(rig), rig.client().await);
        assert_eq!(client.ask(&format!("MSET {a} 1 {c} 3")).await, "+OK\r\n");
        let reply = client.ask(&format!("MGET {c} {b} {a} {c} {a} {a}")).await;
        assert_eq!(reply, "*6\r\n$1\r\n3\r\n$-1\r\n$1\r\n1\r\n$1\r\n3\r\n$1\r\n1\r\n$1\r\n1\r\n");
        let mut resp3 = rig.resp3_client().await;
        assert_eq!(resp3.ask(&format!("MGET {c} {b}")).await, "*2\r\n$1\r\n3\r\n_\r\n");
    });
}

#[test]
fn the_last_value_of_a_key_wins() {
    rig(3).run(async |rig| {
        let ([a, b, _], mut client) = (keys(rig), rig.client().await);
        assert_eq!(client.ask(&format!("MSET {a} 1 {b} 2 {a} 3 {b} 4")).await, "+OK\r\n");
        assert_eq!(client.ask(&format!("MGET {a} {b}")).await, "*2\r\n$1\r\n3\r\n$1\r\n4\r\n");
    });
}

#[test]
fn numbers_are_added() {
    rig(3).run(async |rig| {
        let ([a, b, c], mut client) = (keys(rig), rig.client().await);
        client.ask(&format!("MSET {a} 1 {b} 2 {c} 3")).await;
        for (line, sum) in [
            (format!("EXISTS {a} {a} {b} none"), 3),
            (format!("TOUCH {a} {b} {c}"), 3),
            ("DBSIZE".to_owned(), 3),
            (format!("DEL {a} {a} {b}"), 2),
            (format!("UNLINK {a} {b} {c}"), 1),
            ("DBSIZE".to_owned(), 0),
        ] {
            assert_eq!(client.ask(&line).await, format!(":{sum}\r\n"), "{line}");
        }
    });
}

#[test]
fn keys_of_one_slot_go_as_they_came() {
    rig(3).run(async |rig| {
        let (key, mut client) = (rig.key(1), rig.client().await);
        let lines = [format!("mSet {key} 1 {{{key}}}a 2"), format!("mget {key} {{{key}}}a {key}")];
        client.ask_all(&lines.each_ref().map(String::as_str)).await;
        assert_eq!(rig.node(1).seen(), lines);
    });
}

#[test]
fn each_slot_gets_one_part_even_on_one_node() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        let keys: Vec<String> = (0..5).map(|n| rig.cluster.key(0, n)).collect();
        client.ask(&format!("DEL {} {}", keys.join(" "), keys.join(" "))).await;
        let mut seen = rig.node(0).seen();
        let mut expected: Vec<String> = keys.iter().map(|key| format!("DEL {key} {key}")).collect();
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected);
    });
}

#[test]
fn one_failing_part_makes_one_error() {
    rig(3).run(async |rig| {
        let ([a, b, c], mut client) = (keys(rig), rig.client().await);
        for node in 0..3 {
            rig.node(node).next(
                "MSET",
                Act::error("OOM command not allowed when used memory > 'maxmemory'."),
            );
            let reply = client.ask_all(&[&format!("MSET {a} 1 {b} 2 {c} 3"), "PING"]).await;
            assert_eq!(
                reply,
                ["-OOM command not allowed when used memory > 'maxmemory'.\r\n", "+PONG\r\n"]
            );
        }
        rig.node(1).next("DEL", Act::Close);
        let reply = client.ask_all(&[&format!("DEL {a} {b} {c}"), "PING"]).await;
        let lost = format!(
            "-ERR proxy: upstream connection lost, outcome unknown ({})\r\n",
            rig.node(1).address()
        );
        assert_eq!(reply, [lost, "+PONG\r\n".to_owned()]);
        assert_eq!(rig.node(1).count(&format!("DEL {b}")), 1);
    });
}

#[test]
fn a_part_that_makes_no_sense_is_an_error_and_not_a_panic() {
    rig(2).run(async |rig| {
        let (a, b, mut client) = (rig.key(0), rig.key(1), rig.client().await);
        let part_lost =
            "-ERR proxy: a part of the command failed to come back, outcome unknown\r\n";
        for reply in [
            "*0\r\n",
            "*2\r\n$1\r\nx\r\n$1\r\ny\r\n",
            "+OK\r\n",
            "$-1\r\n",
            "*-1\r\n",
            ":1\r\n",
            "_\r\n",
            "%1\r\n+a\r\n+b\r\n",
            "~1\r\n+a\r\n",
        ] {
            rig.node(0).next("MGET", Act::Reply(reply.as_bytes().to_vec()));
            let answer = client.ask(&format!("MGET {a} {b}")).await;
            // More elements than asked for do no harm.
            assert!(
                answer == part_lost || answer.starts_with("*2\r\n"),
                "{reply:?} became {answer:?}"
            );
        }
        for reply in [
            ":99999999999999999999\r\n",
            ":9223372036854775807\r\n",
            ":x\r\n",
            ":\r\n",
            "+1\r\n",
            "$1\r\n1\r\n",
            "*1\r\n:1\r\n",
        ] {
            client.ask(&format!("MSET {a} 1 {b} 2")).await;
            rig.node(0).next("DEL", Act::Reply(reply.as_bytes().to_vec()));
            assert_eq!(client.ask(&format!("DEL {a} {b}")).await, part_lost, "{reply:?}");
        }
        assert_eq!(client.ask("PING").await, "+PONG\r\n");
    });
}

#[test]
fn parts_follow_redirects_and_wait_by_themselves() {
    rig(3).run(async |rig| {
        let ([a, b, c], mut client) = (keys(rig), rig.client().await);
        client.ask(&format!("MSET {a} 1 {b} 2 {c} 3")).await;
        rig.cluster.model().give(&a, 1);
        rig.cluster.model().open(&b, 2);
        rig.cluster.model().migrate(&b);
        for _ in 0..3 {
            rig.node(2).next("MGET", Act::error("LOADING Redis is loading the dataset in memory"));
        }
        assert_eq!(
            client.ask(&format!("MGET {a} {b} {c}")).await,
            "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n"
        );
    });
}

#[test]
fn a_split_command_is_answered_once_its_slowest_part_is() {
    rig(3).run(async |rig| {
        let ([a, b, c], mut client) = (keys(rig), rig.client().await);
        rig.node(1).next("MSET", Act::Hold);
        client
            .send_all(&[
                &format!("MSET {a} 1 {b} 2 {c} 3"),
                &format!("GET {a}"),
                &format!("MGET {a} {b} {c}"),
                "DBSIZE",
            ])
            .await;
        until("all parts are out", || rig.node(1).seen().len() == 2).await;
        assert!(client.is_silent_for(Duration::from_millis(30)).await);
        rig.node(1).release();
        assert_eq!(
            client.read_n(4).await,
            ["+OK\r\n", "$1\r\n1\r\n", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n", ":3\r\n"]
        );
    });
}

#[test]
fn a_dead_node_fails_only_what_needs_it() {
    rig(3).budget(Duration::from_millis(800)).run(async |rig| {
        let ([a, b, c], mut client) = (keys(rig), rig.client().await);
        client.ask(&format!("MSET {a} 1 {b} 2 {c} 3")).await;
        rig.node(1).down().await;
        let replies = client
            .ask_all(&[
                &format!("MGET {a} {c}"),
                &format!("MGET {a} {b}"),
                &format!("MGET {c} {a}"),
            ])
            .await;
        assert_eq!(replies[0], "*2\r\n$1\r\n1\r\n$1\r\n3\r\n");
        assert!(
            replies[1].starts_with(&format!("-CLUSTERDOWN node {}", rig.node(1).address())),
            "{}",
            replies[1]
        );
        assert_eq!(replies[2], "*2\r\n$1\r\n3\r\n$1\r\n1\r\n");
    });
}

#[test]
fn a_write_of_which_a_part_ran_does_not_claim_that_it_was_not_executed() {
    rig(2).budget(Duration::from_millis(250)).run(async |rig| {
        let (a, b, mut client) = (rig.key(0), rig.key(1), rig.client().await);
        rig.node(1).down().await;
        let reply = client.ask(&format!("MSET {a} 1 {b} 2")).await;
        assert_eq!(rig.cluster.ran(), [format!("MSET {a} 1")]);
        assert!(!reply.starts_with("-CLUSTERDOWN") && !reply.contains("not executed"), "{reply}");
    });
}

#[test]
fn commands_for_every_primary_are_merged() {
    rig(3).run(async |rig| {
        let ([a, b, c], mut client) = (keys(rig), rig.client().await);
        client.ask(&format!("MSET {a} 1 {b} 2 {c} 3")).await;
        let mut found: Vec<String> = client
            .ask("KEYS *")
            .await
            .split("\r\n")
            .map(str::to_owned)
            .filter(|line| line.starts_with('k'))
            .collect();
        found.sort();
        let mut expected = vec![a.clone(), b.clone(), c.clone()];
        expected.sort();
        assert_eq!(found, expected);
        let random = client.ask("RANDOMKEY").await;
        assert!(expected.iter().any(|key| random == bulk(key)), "{random}");
        let info = client.ask("INFO").await;
        assert!(
            info.contains("db0:keys=3,")
                && info.contains("used_memory:3000\r\n")
                && info.contains("redis_version:7.2.4\r\n"),
            "{info}"
        );
        assert_eq!(
            client.ask_all(&["FLUSHALL", "DBSIZE", "RANDOMKEY"]).await,
            ["+OK\r\n", ":0\r\n", "$-1\r\n"]
        );
    });
}

/// Keys of the same length, so that the replies of all nodes are equally long.
#[test]
fn a_random_key_is_not_always_the_same_nodes() {
    rig(3).run(async |rig| {
        let (keys, mut client) = (keys(rig), rig.client().await);
        assert!(keys.iter().all(|key| key.len() == keys[0].len()), "{keys:?}");
        for key in &keys {
            client.ask(&format!("SET {key} v")).await;
        }
        let found: BTreeSet<String> =
            client.ask_all(&["RANDOMKEY"; 100]).await.into_iter().collect();
        // Of a hundred fair draws every node misses all with a chance of 10⁻¹⁷.
        assert_eq!(found, keys.iter().map(|key| bulk(key)).collect());
    });
}

#[test]
fn a_command_for_every_primary_waits_for_earlier_ones() {
    rig(3).run(async |rig| {
        let ([a, ..], mut client) = (keys(rig), rig.client().await);
        rig.node(0).next("SET", Act::Hold);
        client.send_all(&[&format!("SET {a} 1"), "FLUSHALL", "DBSIZE"]).await;
        until("it is out", || rig.node(0).seen().len() == 1).await;
        assert!(client.is_silent_for(Duration::from_millis(30)).await);
        assert!(rig.node(1).seen().is_empty());
        rig.node(0).release();
        assert_eq!(client.read_n(3).await, ["+OK\r\n", "+OK\r\n", ":0\r\n"]);
    });
}

#[test]
fn thousands_of_keys_are_split_and_merged() {
    rig(3).run(async |rig| {
        let mut client = rig.client().await;
        let names: Vec<String> = (0..3000).map(|n| format!("key:{n}")).collect();
        let pairs: Vec<String> =
            names.iter().map(|name| format!("{name} value-of-{name}")).collect();
        assert_eq!(client.ask(&format!("MSET {}", pairs.join(" "))).await, "+OK\r\n");
        let expected: String = names.iter().map(|name| bulk(&format!("value-of-{name}"))).collect();
        assert_eq!(
            client.ask(&format!("MGET {}", names.join(" "))).await,
            format!("*3000\r\n{expected}")
        );
        assert_eq!(client.ask(&format!("DEL {}", names.join(" "))).await, ":3000\r\n");
    });
}
