//! Clients that vanish, do not read, send too much, or idle: each disturbs itself alone.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Client, bulk, request};
use crate::fake::Act;
use crate::rig::{rig, until};

#[test]
fn clients_that_vanish_do_not_mix_up_the_replies_of_others() {
    rig(2).with(|options| options.workers = 2).run(async |rig| {
        let keys: Vec<String> = (0..40).map(|n| rig.cluster.key(n % 2, n)).collect();
        for (n, key) in keys.iter().enumerate() {
            rig.cluster.model().stores[n % 2].set(key, &format!("value of {key}").repeat(n + 1));
        }
        for round in 0..6 {
            let seen = || rig.node(0).seen().len() + rig.node(1).seen().len();
            let mut clients = Vec::new();
            for _ in &keys {
                clients.push(rig.client().await);
            }
            let before = seen();
            for node in rig.cluster.nodes() {
                node.hold();
            }
            let (mut staying, mut vanishing) = (Vec::new(), Vec::new());
            for ((n, key), mut client) in keys.iter().enumerate().zip(clients) {
                client.send_all(&[format!("GET {key}").as_str()].repeat(20)).await;
                if (n + round) % 2 == 0 {
                    staying.push((n, client));
                } else {
                    vanishing.push(client);
                }
            }
            until("some are under way", || seen() > before + 100).await;
            vanishing.into_iter().for_each(Client::vanish);
            for node in rig.cluster.nodes() {
                node.release();
            }
            for (n, mut client) in staying {
                let expected = bulk(&format!("value of {}", keys[n]).repeat(n + 1));
                assert!(
                    client.read_n(20).await.iter().all(|reply| *reply == expected),
                    "client {n}"
                );
            }
        }
    });
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_a_large_reply_disturbs_nobody() {
    rig(1).run(async |rig| {
        let (key, other) = (rig.key(0), rig.cluster.key(0, 1));
        rig.cluster.model().stores[0].set(&key, &"x".repeat(5_000_000));
        rig.cluster.model().stores[0].set(&other, "small");
        for _ in 0..5 {
            let (mut vanishing, mut staying) =
                (Client::connect_narrow(rig.data).await, rig.client().await);
            vanishing.send_all(&[&format!("GET {key}")]).await;
            staying.send_all(&[&format!("GET {other}")]).await;
            assert_eq!(staying.read().await, "$5\r\nsmall\r\n");
            vanishing.vanish();
            assert_eq!(staying.ask(&format!("GET {other}")).await, "$5\r\nsmall\r\n");
        }
    });
}

/// A client asks for far more than it reads for a while; another one goes on; then it reads so many replies.
fn read_late(replies: usize) {
    rig(1).with(|options| options.session.window = 128).run(async |rig| {
        let (key, other) = (rig.key(0), rig.cluster.key(0, 1));
        let value = "v".repeat(100_000);
        rig.cluster.model().stores[0].set(&key, &value);
        let (mut slow, mut quick) = (Client::connect_narrow(rig.data).await, rig.client().await);
        let get = request(&format!("GET {key}"));
        let sent = slow.flood(&get.repeat(1_000_000), Duration::from_millis(300)).await;
        assert!(sent < 16_000_000, "{sent} bytes were taken in");
        let asked = rig.node(0).seen().len();
        assert!(asked < 180, "{asked} requests were sent on");
        for n in 0..50 {
            assert_eq!(quick.ask(&format!("SET {other} {n}")).await, "+OK\r\n");
        }
        for n in 0..replies {
            assert_eq!(slow.read().await, bulk(&value), "reply {n}");
        }
    });
}

#[test]
fn a_client_that_does_not_read_is_not_read_from_and_delays_nobody() {
    read_late(60);
}

#[test]
fn a_client_that_reads_late_gets_more_than_a_window_of_replies() {
    read_late(300);
}

#[test]
fn a_slow_node_delays_only_what_it_was_asked() {
    rig(2).run(async |rig| {
        let (slow, quick) = (rig.key(0), rig.key(1));
        let (mut waiting, mut free) = (rig.client().await, rig.client().await);
        rig.node(0).hold();
        waiting.send_all(&[&format!("SET {slow} v")]).await;
        until("it is out", || !rig.node(0).seen().is_empty()).await;
        for n in 0..100 {
            assert_eq!(free.ask(&format!("SET {quick} {n}")).await, "+OK\r\n");
        }
        assert!(waiting.is_silent_for(Duration::from_millis(20)).await);
        rig.node(0).release();
        assert_eq!(waiting.read().await, "+OK\r\n");
    });
}

#[test]
fn no_more_than_the_window_is_under_way() {
    rig(1).with(|options| options.session.window = 4).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).hold();
        let lines: Vec<String> = (0..10).map(|n| format!("APPEND {key} {n}")).collect();
        client.send_all(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
        until("the window is full", || rig.node(0).seen().len() == 4).await;
        assert!(client.is_silent_for(Duration::from_millis(50)).await);
        assert_eq!(rig.node(0).seen().len(), 4);
        for _ in 0..3 {
            rig.node(0).release();
        }
        let replies: Vec<String> = (1..=10).map(|n| format!(":{n}\r\n")).collect();
        assert_eq!(client.read_n(10).await, replies);
        assert_eq!(rig.cluster.ran(), lines);
    });
}

#[test]
fn a_client_whose_replies_reached_the_output_limit_goes_on() {
    rig(1).with(|options| options.session.output_limit = 64).run(async |rig| {
        let mut client = rig.client().await;
        assert_eq!(client.ask_all(&["PING"; 100]).await, ["+PONG\r\n"; 100]);
    });
}

#[test]
fn a_request_held_behind_a_large_reply_is_answered() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.cluster.model().stores[0].set(&key, &"x".repeat(1_100_000));
        rig.node(0).next("GET", Act::Hold);
        client.send_all(&[&format!("GET {key}")]).await;
        until("it is out", || !rig.node(0).seen().is_empty()).await;
        // The second one changes how requests travel and so is held until the first is answered.
        client.send_all(&["HELLO 3", "PING"]).await;
        rig.node(0).release();
        assert_eq!(client.read().await.len(), 1_100_000 + 12);
        assert!(client.read().await.starts_with("%7\r\n"));
        assert_eq!(client.read().await, "+PONG\r\n");
    });
}

#[test]
fn a_client_whose_replies_wait_behind_a_slow_one_is_not_read_from_for_ever() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).hold();
        client.send_all(&[&format!("GET {key}")]).await;
        until("it is out", || !rig.node(0).seen().is_empty()).await;
        let echo = request(&format!("ECHO {}", "e".repeat(100_000)));
        let sent = client.flood(&echo.repeat(600), Duration::from_millis(500)).await;
        assert!(
            sent < 32_000_000,
            "{sent} bytes of replies are kept; the limit of output is 1 MiB"
        );
        rig.node(0).release();
    });
}

#[test]
fn a_client_that_sends_no_more_still_gets_all_replies() {
    rig(1).with(|options| options.session.window = 3).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).hold();
        let lines: Vec<String> = (0..10).map(|n| format!("APPEND {key} {n}")).collect();
        client.send_all(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
        client.finish().await;
        until("the window is full", || rig.node(0).seen().len() == 3).await;
        rig.node(0).release();
        let replies: Vec<String> = (1..=10).map(|n| format!(":{n}\r\n")).collect();
        assert_eq!(client.rest().await, replies.concat());
    });
}

#[test]
fn half_a_request_waits_for_its_other_half_and_delays_nobody() {
    rig(1).run(async |rig| {
        let (key, mut slow, mut quick) = (rig.key(0), rig.client().await, rig.client().await);
        let value = "v".repeat(300);
        for byte in request(&format!("SET {key} {value}")) {
            slow.send([byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(slow.read().await, "+OK\r\n");
        let large = request(&format!("SET {key} {}", "w".repeat(3_000_000)));
        slow.send(&large[..1_500_000]).await;
        assert_eq!(quick.ask(&format!("GET {key}")).await, bulk(&value));
        slow.send(&large[1_500_000..]).await;
        assert_eq!(slow.read().await, "+OK\r\n");
        assert_eq!(quick.ask(&format!("GET {key}")).await.len(), 3_000_000 + 12);
    });
}

#[test]
fn idle_clients_are_closed_and_waiting_ones_are_not() {
    let options = |options: &mut slotway::proxy::Options| {
        options.session.idle_timeout = Duration::from_millis(300);
    };
    rig(1).with(options).run(async |rig| {
        let (key, mut idle, mut waiting) = (rig.key(0), rig.client().await, rig.client().await);
        rig.node(0).next("GET", Act::Hold);
        waiting.send_all(&[&format!("GET {key}")]).await;
        assert_eq!(idle.ask("PING").await, "+PONG\r\n");
        assert_eq!(idle.rest().await, "");
        rig.node(0).release();
        assert_eq!(waiting.read().await, "$-1\r\n");
    });
}

#[test]
fn a_client_too_many_is_told_so_and_closed() {
    rig(1).with(|options| options.max_clients = 2).run(async |rig| {
        let (mut first, mut second) = (rig.client().await, rig.client().await);
        assert_eq!(
            (first.ask("PING").await, second.ask("PING").await),
            ("+PONG\r\n".to_owned(), "+PONG\r\n".to_owned())
        );
        let mut third = rig.client().await;
        assert_eq!(third.rest().await, "-ERR max number of clients reached\r\n");
    });
}

#[test]
fn a_client_too_many_is_closed_and_there_is_room_again_when_one_leaves() {
    rig(1).with(|options| options.max_clients = 2).run(async |rig| {
        let (mut first, second) = (rig.client().await, rig.client().await);
        assert_eq!(first.ask("PING").await, "+PONG\r\n");
        rig.client().await.rest().await;
        second.vanish();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if rig.client().await.try_ask("PING").await.is_some() {
                break;
            }
            assert!(Instant::now() < deadline, "no room for a new client");
        }
        assert_eq!(first.ask("PING").await, "+PONG\r\n");
    });
}

#[test]
fn many_clients_on_several_workers_each_get_their_own() {
    rig(3).with(|options| options.workers = 3).run(async |rig| {
        let mut tasks = JoinSet::new();
        for number in 0..60 {
            let (mut client, key) = (rig.client().await, rig.cluster.key(number % 3, number));
            tasks.spawn(async move {
                for round in 0..15 {
                    let (set, get) = (format!("SET {key} {number}.{round}"), format!("GET {key}"));
                    let value = bulk(&format!("{number}.{round}"));
                    assert_eq!(
                        client.ask_all(&[&set, &get, "PING", &get]).await,
                        ["+OK\r\n", &value, "+PONG\r\n", &value]
                    );
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("the replies are right");
        }
        let lanes: usize = rig.cluster.nodes().iter().map(crate::fake::Node::lanes).sum();
        assert!(lanes <= 9, "{lanes} connections for 3 workers and 3 nodes");
    });
}

#[test]
fn requests_for_a_node_that_is_down_are_refused_beyond_the_queue() {
    let options = |options: &mut slotway::proxy::Options| {
        options.backend.queue_requests = 3;
        options.backend.request_budget = Duration::from_secs(2);
    };
    rig(2).with(options).run(async |rig| {
        let (key, other, mut client) = (rig.key(0), rig.key(1), rig.client().await);
        rig.node(0).down().await;
        let lines: Vec<String> = (0..5).map(|n| format!("APPEND {key} {n}")).collect();
        client.send_all(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
        client.send_all(&[&format!("SET {other} v")]).await;
        until("the other node is served", || !rig.node(1).seen().is_empty()).await;
        rig.node(0).up().await;
        let full = format!(
            "-CLUSTERDOWN too many requests wait for node {}, the request was not executed\r\n",
            rig.node(0).address()
        );
        assert_eq!(client.read_n(6).await, [":1\r\n", ":2\r\n", ":3\r\n", &full, &full, "+OK\r\n"]);
        assert_eq!(rig.cluster.ran().len(), 4);
    });
}

#[test]
fn bytes_that_wait_for_a_node_that_is_down_are_limited_too() {
    let options = |options: &mut slotway::proxy::Options| options.backend.queue_bytes = 100_000;
    rig(2).with(options).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).down().await;
        let (small, large) = (format!("SET {key} s"), format!("SET {key} {}", "l".repeat(60_000)));
        client.send_all(&[&large, &large, &small]).await;
        assert!(client.is_silent_for(Duration::from_millis(50)).await);
        rig.node(0).up().await;
        let replies = client.read_n(3).await;
        assert_eq!((replies[0].as_str(), replies[2].as_str()), ("+OK\r\n", "+OK\r\n"));
        assert!(
            replies[1].starts_with("-CLUSTERDOWN too many requests wait for node"),
            "{}",
            replies[1]
        );
    });
}
