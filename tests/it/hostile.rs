//! Nodes that send what no node should: the connection ends, the proxy goes on.

use std::time::Duration;

use crate::fake::Act;
use crate::rig::{rig, until};

/// A node answers a write with these bytes and stays connected; the proxy gives the connection up and the next is fine.
fn nonsense(reply: &[u8]) {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).next("SET", Act::Reply(reply.to_vec()));
        let lost = format!(
            "-ERR proxy: upstream connection lost, outcome unknown ({})\r\n",
            rig.node(0).address()
        );
        let shown = reply[..reply.len().min(40)].escape_ascii();
        assert_eq!(client.ask(&format!("SET {key} 1")).await, lost, "{shown}");
        assert_eq!(client.ask(&format!("SET {key} 2")).await, "+OK\r\n", "{shown}");
        assert_eq!(rig.client().await.ask(&format!("GET {key}")).await, "$1\r\n2\r\n", "{shown}");
    });
}

#[test]
fn what_is_not_resp_ends_the_connection() {
    for reply in [
        &b"nonsense\r\n"[..],
        b"\r\n",
        b"\0\0\0\0",
        b"$x\r\n",
        b"$-2\r\n",
        b"$3\r\nabcd\r\n",
        b"*-2\r\n",
        b"*99999999999\r\n",
        b"*4294967295\r\n*4294967295\r\n",
        b"$99999999999999999999999\r\n",
        b"=-1\r\n",
        b"$?\r\n",
        b"+a\rb\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ] {
        nonsense(reply);
    }
}

/// Of this length a vector panics, which ends a task; a little less, such as `$99999999999999`, ends the process.
#[test]
fn a_bulk_string_longer_than_memory_ends_the_connection() {
    nonsense(b"$9223372036854775800\r\n");
}

#[test]
fn a_line_without_end_ends_the_connection() {
    nonsense(&[&b"+"[..], &b"a".repeat(32 << 20)].concat());
}

#[test]
fn a_reply_that_nests_deeply_is_as_good_as_any() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let reply = [&b"*1\r\n".repeat(200_000)[..], b":1\r\n"].concat();
        rig.node(0).next("GET", Act::Reply(reply.clone()));
        client.send_all(&[&format!("GET {key}"), "PING"]).await;
        assert!(client.read_bytes().await == reply);
        assert_eq!(client.read().await, "+PONG\r\n");
    });
}

#[test]
fn numbers_in_info_that_overflow_do_no_harm() {
    rig(2).run(async |rig| {
        let mut client = rig.client().await;
        let info = format!("db0:keys={0},expires={0},avg_ttl={0}\r\nused_memory:{0}\r\n", u64::MAX);
        for node in 0..2 {
            let reply = format!("${}\r\n{info}\r\n", info.len()).into_bytes();
            // Discovery asks for INFO, too, but names a section.
            rig.node(node).next("=INFO", Act::Reply(reply));
        }
        let reply = client.ask("INFO").await;
        assert!(reply.contains("redis_version"), "{reply}");
        let (a, b) = (rig.key(0), rig.key(1));
        assert_eq!(client.ask(&format!("MSET {a} 1 {b} 2")).await, "+OK\r\n");
    });
}

#[test]
fn views_that_make_no_sense_are_left_out() {
    let nonsense = async |cluster: &crate::fake::Cluster| {
        for reply in [
            &b"+OK\r\n"[..],
            b"$3\r\nabc\r\n",
            b"*0\r\n",
            b"-ERR no\r\n",
            b"$-1\r\n",
            b"$30\r\na b c d e f g h 99999-1 1-99999 [[\r\n",
            b"%1\r\n+a\r\n+b\r\n",
        ] {
            cluster.node(0).next("CLUSTER NODES", Act::Reply(reply.to_vec()));
            cluster.node(1).next("CLUSTER SLOTS", Act::Reply(reply.to_vec()));
        }
        cluster.node(0).next("COMMAND", Act::Reply(b"$3\r\nabc\r\n".to_vec()));
        cluster
            .node(1)
            .next("COMMAND", Act::Reply([&b"*1\r\n".repeat(100_000)[..], b":1\r\n"].concat()));
    };
    rig(2).run_from(nonsense, async |rig| {
        rig.proxy().ready().await;
        let mut client = rig.client().await;
        until("both nodes are understood", || rig.proxy().topology().nodes().len() == 2).await;
        for node in 0..2 {
            assert_eq!(client.ask(&format!("SET {} v", rig.key(node))).await, "+OK\r\n");
        }
    });
}

#[test]
fn a_node_that_answers_too_slowly_for_discovery_does_not_hold_it_up() {
    rig(3).run(async |rig| {
        let (key, mut client) = (rig.key(1), rig.client().await);
        rig.node(0).freeze();
        rig.cluster.model().give(&key, 2);
        let before = rig.proxy().topology();
        rig.cluster.announce();
        until("the map is new", || *rig.proxy().topology() != *before).await;
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
        assert_eq!(rig.node(2).seen().len(), 1);
        rig.node(0).thaw();
    });
}

#[test]
fn a_stale_view_does_not_win() {
    rig(3).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.cluster.model().give(&key, 1);
        let before = rig.proxy().topology();
        // Only the new owner knows of it so far.
        rig.cluster.announce_at(1);
        until("the map is new", || *rig.proxy().topology() != *before).await;
        let after = rig.proxy().topology();
        assert!(client.is_silent_for(Duration::from_millis(150)).await);
        assert!(*rig.proxy().topology() == *after, "the map flaps");
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
        assert!(rig.node(0).seen().is_empty());
    });
}
