//! What a node did not run because it could not just then: tried again within the budget, and shown only when it is spent.

use std::time::{Duration, Instant};

use slotway::proxy::Options;
use slotway::session::CrossSlot;
use tokio::time::timeout;

use crate::fake::Act;
use crate::rig::{Rig, rig, until};

/// What nodes say when they cannot serve for now.
const NOT_NOW: [&str; 5] = [
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CLUSTERDOWN The cluster is down",
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "READONLY You can't write against a read only replica.",
];

#[test]
fn what_a_node_cannot_do_now_is_tried_again() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        for (value, text) in NOT_NOW.iter().enumerate() {
            for _ in 0..4 {
                rig.node(0).next("SET", Act::error(text));
            }
            let set = format!("SET {key} {value}");
            assert_eq!(client.ask(&set).await, "+OK\r\n", "{text}");
            assert_eq!(rig.node(0).count(&set), 5, "{text}");
        }
    });
}

#[test]
fn the_nodes_own_words_are_shown_when_the_budget_is_spent() {
    rig(1).budget(Duration::from_millis(150)).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        for text in NOT_NOW {
            rig.node(0).always("GET", text);
            let started = Instant::now();
            assert_eq!(client.ask(&format!("GET {key}")).await, format!("-{text}\r\n"));
            assert!(
                started.elapsed() >= Duration::from_millis(150),
                "{text}: {:?}",
                started.elapsed()
            );
            rig.node(0).obey();
            assert_eq!(client.ask(&format!("GET {key}")).await, "$-1\r\n", "{text}");
        }
    });
}

#[test]
fn attempts_are_spread_out() {
    rig(1).budget(Duration::from_millis(400)).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).always("GET", NOT_NOW[2]);
        client.ask(&format!("GET {key}")).await;
        let tries = rig.node(0).seen().len();
        assert!((3..=14).contains(&tries), "{tries} tries in 400 ms");
    });
}

#[test]
fn keys_on_both_sides_of_a_migration_are_waited_for() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let other = format!("{{{key}}}other");
        client.ask(&format!("MSET {key} 1 {other} 2")).await;
        rig.cluster.model().open(&key, 1);
        rig.cluster.model().migrate(&key);
        let mget = format!("MGET {key} {other}");
        client.send_all(&[&mget]).await;
        until("the node has said TRYAGAIN", || rig.node(0).count(&mget) > 1).await;
        rig.cluster.model().migrate(&other);
        assert_eq!(client.read().await, "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    });
}

#[test]
fn ask_is_followed_after_any_number_of_waits() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let other = format!("{{{key}}}other");
        client.ask(&format!("MSET {key} 1 {other} 2")).await;
        rig.cluster.model().open(&key, 1);
        rig.cluster.model().migrate(&key);
        let mget = format!("MGET {key} {other}");
        client.send_all(&[&mget]).await;
        until("the node has said TRYAGAIN often", || rig.node(0).count(&mget) > 6).await;
        rig.cluster.model().migrate(&other);
        assert_eq!(client.read().await, "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    });
}

#[test]
fn a_slot_without_owner_is_waited_for() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let slot = usize::from(slotway::cluster::Slot::of(key.as_bytes()).number());
        rig.cluster.model().truth.owners[slot] = None;
        rig.announce().await;
        client.send_all(&[&format!("SET {key} v")]).await;
        assert!(client.is_silent_for(Duration::from_millis(50)).await);
        rig.cluster.model().give(&key, 1);
        rig.cluster.announce();
        assert_eq!(client.read().await, "+OK\r\n");
        assert_eq!(rig.cluster.ran(), [format!("SET {key} v")]);
    });
}

#[test]
fn a_slot_that_never_gets_an_owner_is_not_served() {
    rig(2).budget(Duration::from_millis(150)).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let slot = usize::from(slotway::cluster::Slot::of(key.as_bytes()).number());
        rig.cluster.model().truth.owners[slot] = None;
        rig.announce().await;
        let started = Instant::now();
        assert_eq!(
            client.ask(&format!("SET {key} v")).await,
            "-CLUSTERDOWN Hash slot not served\r\n"
        );
        assert!(started.elapsed() >= Duration::from_millis(150));
    });
}

#[test]
fn a_node_that_stays_down_is_named_when_the_budget_is_spent() {
    rig(2).budget(Duration::from_millis(300)).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).down().await;
        let reply = client.ask(&format!("SET {key} v")).await;
        let address = rig.node(0).address();
        let waited = reply
            .strip_prefix(&format!("-CLUSTERDOWN node {address} did not become reachable within "));
        let waited =
            waited.and_then(|rest| rest.strip_suffix(" ms, the request was not executed\r\n"));
        let waited: u64 =
            waited.and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("{reply}"));
        assert!((300..1500).contains(&waited), "{reply}");
    });
}

#[test]
fn a_node_that_comes_back_in_time_gets_what_waited_in_order() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).down().await;
        let lines: Vec<String> = (0..10).map(|n| format!("APPEND {key} {n}")).collect();
        client.send_all(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(client.is_silent_for(Duration::from_millis(100)).await);
        rig.node(0).up().await;
        let lengths: Vec<String> = (1..=10).map(|n| format!(":{n}\r\n")).collect();
        assert_eq!(client.read_n(10).await, lengths);
        assert_eq!(rig.cluster.ran(), lines);
    });
}

#[test]
fn other_errors_are_the_clients_and_are_not_tried_again() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let texts = [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "NOSCRIPT No matching script. Please use EVAL.",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "NOAUTH Authentication required.",
            "NOREPLICAS Not enough good replicas to write.",
            "ERR TRYAGAIN",
            "TRYAGAINX y",
            "",
        ];
        for text in texts {
            rig.node(0).next("GET", Act::error(text));
            assert_eq!(client.ask(&format!("GET {key}")).await, format!("-{text}\r\n"));
        }
        assert_eq!(rig.node(0).seen().len(), texts.len());
    });
}

#[test]
fn what_waits_does_not_delay_other_clients_or_other_nodes() {
    let patient = rig(2).with(|options| options.backend.request_budget = Duration::from_secs(60));
    patient.run(async |rig| {
        let (key, other) = (rig.key(0), rig.key(1));
        let (mut waiting, mut free) = (rig.client().await, rig.client().await);
        rig.node(0).always("GET", NOT_NOW[2]);
        waiting.send_all(&[&format!("GET {key}")]).await;
        for n in 0..20 {
            assert_eq!(free.ask(&format!("SET {other} {n}")).await, "+OK\r\n");
            assert_eq!(free.ask(&format!("SET {key} {n}")).await, "+OK\r\n");
        }
        assert!(waiting.is_silent_for(Duration::from_millis(10)).await, "it waits no longer");
        rig.node(0).obey();
        assert_eq!(waiting.read().await, "$2\r\n19\r\n");
    });
}

#[test]
fn a_client_gone_while_its_request_waits_disturbs_nobody() {
    rig(1).run(async |rig: &mut Rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).always("GET", NOT_NOW[0]);
        client.send_all(&[&format!("GET {key}")]).await;
        until("it waits", || rig.node(0).seen().len() > 2).await;
        client.vanish();
        rig.node(0).obey();
        let mut client = rig.client().await;
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
    });
}

#[test]
fn on_a_migrating_slot_a_pipeline_is_waited_out_without_errors() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let other = format!("{{{key}}}other");
        client.ask(&format!("MSET {key} 1 {other} 2")).await;
        rig.cluster.model().open(&key, 1);
        rig.cluster.model().migrate(&key);
        let mget = format!("MGET {key} {other}");
        client.send_all(&[&mget, &format!("GET {other}")]).await;
        until("the node has said TRYAGAIN", || rig.node(0).count(&mget) > 0).await;
        rig.cluster.model().migrate(&other);
        assert_eq!(client.read_n(2).await, ["*2\r\n$1\r\n1\r\n$1\r\n2\r\n", "$1\r\n2\r\n"]);
    });
}

/// What comes for a client that others see wait must not be missed, so nobody sees it before the ends of the streams are known.
#[test]
fn a_wait_is_not_seen_before_it_has_begun() {
    let emulating = |options: &mut Options| options.session.cross_slot = CrossSlot::Emulate;
    rig(2).with(emulating).run(async |rig| {
        let (mut client, mut other) = (rig.client().await, rig.client().await);
        let (a, b) = (rig.key(0), rig.key(1));
        rig.node(0).next("XREVRANGE", Act::Reply(b"*0\r\n".to_vec()));
        rig.node(1).next("XREVRANGE", Act::HoldReply(b"*0\r\n".to_vec()));
        for _ in 0..500 {
            rig.node(0).next("XREAD", Act::Reply(b"*-1\r\n".to_vec()));
            rig.node(1).next("XREAD", Act::Reply(b"*-1\r\n".to_vec()));
        }
        client.send_all(&[&format!("XREAD BLOCK 0 STREAMS {a} {b} $ $")]).await;
        let last = format!("XREVRANGE {b} + - COUNT 1");
        until("the last node is asked", || rig.node(1).count(&last) == 1).await;
        assert!(!other.ask("CLIENT LIST").await.contains("flags=b"));
        rig.node(1).release();
        let waits = async { while !other.ask("CLIENT LIST").await.contains("flags=b") {} };
        timeout(Duration::from_secs(10), waits).await.expect("it waits");
    });
}
