//! Connections to nodes that break or fall silent: what surely did not run goes again, the rest says that it may have run.

use std::time::{Duration, Instant};

use crate::client::{Client, bulk};
use crate::fake::{Act, Node};
use crate::random::Random;
use crate::rig::{Rig, rig, until};

/// Longer than the proxy waits until it holds a silent node for suspect.
const SUSPECT: Duration = Duration::from_millis(450);

fn lost(node: &Node) -> String {
    format!("-ERR proxy: upstream connection lost, outcome unknown ({})\r\n", node.address())
}

fn timed_out(node: &Node) -> String {
    format!("-ERR proxy: upstream timeout, outcome unknown ({})\r\n", node.address())
}

/// The ways in which a node can fail to answer.
fn failures() -> [Act; 4] {
    [Act::Close, Act::RunAndClose, Act::Cut(b"+".to_vec()), Act::Cut(b"$5\r\nhal".to_vec())]
}

#[test]
fn a_write_whose_reply_was_lost_is_not_sent_again() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        for (n, failure) in failures().into_iter().enumerate() {
            let set = format!("SET {key} {n}");
            rig.node(0).next("SET", failure);
            assert_eq!(client.ask(&set).await, lost(rig.node(0)));
            assert_eq!(rig.node(0).count(&set), 1);
        }
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
    });
}

#[test]
fn a_read_whose_reply_was_lost_is_sent_again_once() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        for (n, failure) in failures().into_iter().enumerate() {
            let key = rig.cluster.key(0, n);
            rig.cluster.model().stores[0].set(&key, "value");
            rig.node(0).next("GET", failure);
            assert_eq!(client.ask(&format!("GET {key}")).await, "$5\r\nvalue\r\n");
            assert_eq!(rig.node(0).count(&format!("GET {key}")), 2);
        }
    });
}

#[test]
fn a_read_whose_reply_was_lost_twice_is_given_up() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).next("GET", Act::Close);
        rig.node(0).next("GET", Act::Close);
        assert_eq!(client.ask(&format!("GET {key}")).await, lost(rig.node(0)));
        assert_eq!(rig.node(0).seen().len(), 2);
    });
}

#[test]
fn each_request_of_a_lost_pipeline_is_answered_once_and_in_order() {
    rig(1).run(async |rig| {
        let (key, other, mut client) = (rig.key(0), rig.cluster.key(0, 1), rig.client().await);
        let lines = [
            format!("SET {key} 1"),
            format!("GET {key}"),
            format!("SET {other} 2"),
            format!("GET {other}"),
        ];
        rig.node(0).next("GET", Act::Close);
        let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        lines.push("PING");
        let replies = client.ask_all(&lines).await;
        assert_eq!(
            replies[..3],
            ["+OK\r\n".to_owned(), "$1\r\n1\r\n".to_owned(), lost(rig.node(0))]
        );
        assert_eq!(replies[4], "+PONG\r\n");
        assert_eq!(rig.node(0).count(lines[0]), 1);
        assert!(rig.node(0).count(lines[2]) <= 1);
    });
}

#[test]
fn a_connection_that_closes_while_idle_costs_no_request() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        for n in 0..20 {
            let set = format!("SET {key} {n}");
            assert_eq!(client.ask(&set).await, "+OK\r\n");
            assert_eq!(rig.node(0).count(&set), 1);
            rig.node(0).drop_connections();
            until("the connections are closed", || rig.node(0).lanes() == 0).await;
        }
    });
}

#[test]
fn what_was_held_back_from_a_silent_node_goes_again_when_the_connection_is_lost() {
    rig(1).run(async |rig| {
        let (key, mut first, mut second) = (rig.key(0), rig.client().await, rig.client().await);
        first.ask("PING").await;
        let lines = [format!("APPEND {key} 1"), format!("APPEND {key} 2")];
        rig.node(0).next(&lines[0], Act::Hold);
        first.send_all(&[&lines[0]]).await;
        assert!(first.is_silent_for(SUSPECT).await);
        second.send_all(&[&lines[1]]).await;
        assert!(second.is_silent_for(Duration::from_millis(50)).await);
        assert_eq!(rig.node(0).count(&lines[1]), 0, "nothing is written to a suspect");
        rig.node(0).drop_connections();
        assert_eq!(second.read().await, ":2\r\n");
        assert_eq!(first.read().await, lost(rig.node(0)));
        assert_eq!(rig.cluster.ran(), lines);
    });
}

#[test]
fn a_silent_node_that_speaks_again_gets_what_was_held_back() {
    rig(1).run(async |rig| {
        let (key, mut first, mut second) = (rig.key(0), rig.client().await, rig.client().await);
        rig.node(0).next("GET", Act::Hold);
        first.send_all(&[&format!("GET {key}")]).await;
        assert!(first.is_silent_for(SUSPECT).await);
        second.send_all(&[&format!("SET {key} v")]).await;
        assert!(second.is_silent_for(Duration::from_millis(50)).await);
        rig.node(0).release();
        assert_eq!(
            (first.read().await, second.read().await),
            ("$-1\r\n".to_owned(), "+OK\r\n".to_owned())
        );
        assert_eq!(rig.node(0).seen().len(), 2);
    });
}

#[test]
fn a_silent_node_is_given_up_after_the_response_timeout() {
    let options = |options: &mut slotway::proxy::Options| {
        options.backend.response_timeout = Duration::from_millis(600);
    };
    rig(1).with(options).run(async |rig| {
        let (key, other) = (rig.key(0), rig.cluster.key(0, 1));
        let (mut writer, mut reader) = (rig.client().await, rig.client().await);
        rig.node(0).hold();
        let started = Instant::now();
        writer.send_all(&[&format!("SET {key} v")]).await;
        reader.send_all(&[&format!("GET {other}")]).await;
        assert_eq!(writer.read().await, timed_out(rig.node(0)));
        assert!((550..1200).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        assert_eq!(reader.read().await, timed_out(rig.node(0)));
        assert_eq!(rig.node(0).count(&format!("SET {key} v")), 1);
        assert_eq!(rig.node(0).count(&format!("GET {other}")), 2);
        rig.node(0).release();
        assert_eq!(writer.ask(&format!("GET {key}")).await, "$1\r\nv\r\n");
    });
}

#[test]
fn a_request_that_waited_elsewhere_has_the_whole_response_timeout() {
    let options = |options: &mut slotway::proxy::Options| {
        options.backend.response_timeout = Duration::from_millis(600);
    };
    rig(2).with(options).run(async |rig| {
        let (key, other, mut client) = (rig.key(0), rig.key(1), rig.client().await);
        client.ask(&format!("GET {other}")).await;
        rig.node(0).always("SET", "LOADING Redis is loading the dataset in memory");
        client.send_all(&[&format!("SET {key} v")]).await;
        assert!(client.is_silent_for(Duration::from_millis(700)).await);
        rig.node(1).next("SET", Act::Hold);
        rig.cluster.model().give(&key, 1);
        rig.announce().await;
        rig.node(0).obey();
        until("it has gone to the other node", || rig.cluster.ran().len() == 2).await;
        assert!(client.is_silent_for(Duration::from_millis(150)).await);
        rig.node(1).release();
        assert_eq!(client.read().await, "+OK\r\n");
    });
}

#[test]
fn what_waits_for_a_silent_node_longer_than_the_budget_was_not_executed() {
    rig(1).budget(Duration::from_millis(300)).run(async |rig| {
        let (key, mut first, mut second) = (rig.key(0), rig.client().await, rig.client().await);
        rig.node(0).next("GET", Act::Hold);
        first.send_all(&[&format!("GET {key}")]).await;
        assert!(first.is_silent_for(SUSPECT).await);
        let reply = second.ask(&format!("SET {key} v")).await;
        assert!(
            reply.starts_with(&format!(
                "-CLUSTERDOWN node {} did not become reachable within 3",
                rig.node(0).address()
            )),
            "{reply}"
        );
        rig.node(0).release();
        assert_eq!(first.read().await, "$-1\r\n");
        assert_eq!(second.ask(&format!("GET {key}")).await, "$-1\r\n");
        assert_eq!(rig.node(0).count(&format!("SET {key} v")), 0);
    });
}

#[test]
fn a_stopped_primary_is_replaced_by_its_replica() {
    rig(2).replicas(1).run(async |rig| {
        let (key, mut first, mut second) = (rig.key(0), rig.client().await, rig.client().await);
        first.ask(&format!("SET {key} 0")).await;
        rig.node(0).freeze();
        let lines = [format!("SET {key} 1"), format!("SET {key} 2")];
        first.send_all(&[&lines[0]]).await;
        assert!(first.is_silent_for(SUSPECT).await);
        second.send_all(&[&lines[1], &format!("GET {key}")]).await;
        assert!(second.is_silent_for(Duration::from_millis(50)).await);
        rig.cluster.model().fail_over(0, 2);
        let started = Instant::now();
        rig.announce().await;
        assert_eq!(second.read_n(2).await, ["+OK\r\n", "$1\r\n2\r\n"]);
        assert_eq!(first.read().await, lost(rig.node(0)));
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert_eq!(rig.node(2).seen(), [lines[1].clone(), format!("GET {key}")]);
    });
}

#[test]
fn a_primary_that_stops_just_before_its_failover_is_known_is_given_up_soon() {
    rig(2).replicas(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        client.ask(&format!("SET {key} 0")).await;
        rig.node(0).freeze();
        client.send_all(&[&format!("SET {key} 1")]).await;
        let started = Instant::now();
        rig.cluster.model().fail_over(0, 2);
        rig.announce().await;
        assert_eq!(client.read().await, lost(rig.node(0)));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    });
}

#[test]
fn a_node_that_stops_in_the_middle_of_a_request_is_given_up() {
    let options = |options: &mut slotway::proxy::Options| {
        options.backend.response_timeout = Duration::from_secs(1);
        options.backend.request_budget = Duration::from_secs(1);
    };
    rig(1).with(options).run(async |rig| {
        let (key, mut first, mut second) = (rig.key(0), rig.client().await, rig.client().await);
        first.ask(&format!("SET {key} 0")).await;
        rig.node(0).freeze();
        // More than the buffers of a connection take.
        let large = format!("SET {key} {}", "x".repeat(40_000_000));
        first.send_all(&[&large]).await;
        second.send_all(&[&format!("SET {key} 2")]).await;
        for reply in [first.read().await, second.read().await] {
            assert!(reply.starts_with("-CLUSTERDOWN") || reply.contains("unknown"), "{reply}");
        }
    });
}

#[test]
fn a_node_that_accepts_but_never_greets_is_not_written_to() {
    rig(2).replicas(1).run_from(
        async |cluster| cluster.node(0).freeze(),
        async |rig| {
            rig.proxy().ready().await;
            let (key, mut client) = (rig.key(0), rig.client().await);
            client.send_all(&[&format!("SET {key} v")]).await;
            assert!(client.is_silent_for(Duration::from_millis(700)).await);
            rig.cluster.model().fail_over(0, 2);
            rig.cluster.announce();
            assert_eq!(client.read().await, "+OK\r\n");
            rig.node(0).thaw();
            assert_eq!(rig.node(2).seen(), [format!("SET {key} v")]);
            until("the stopped node has read its backlog", || {
                !rig.node(0).seen_by_connection().is_empty()
            })
            .await;
            assert!(rig.node(0).seen().is_empty(), "{:?}", rig.node(0).seen());
        },
    );
}

#[test]
fn a_node_that_is_still_loading_is_connected_to() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).next("PING", Act::error("LOADING Redis is loading the dataset in memory"));
        rig.node(0).next("PING", Act::error("LOADING Redis is loading the dataset in memory"));
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
    });
}

#[test]
fn a_greeting_that_is_refused_is_tried_again() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        for act in
            [Act::error("ERR max number of clients reached"), Act::Close, Act::Cut(b"+PO".to_vec())]
        {
            rig.node(0).next("PING", act);
        }
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
        assert_eq!(rig.node(0).count(&format!("SET {key} v")), 1);
    });
}

#[test]
fn a_reply_to_no_request_ends_the_connection() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).next("GET", Act::Reply(b"$1\r\na\r\n$1\r\nb\r\n".to_vec()));
        assert_eq!(client.ask(&format!("GET {key}")).await, "$1\r\na\r\n");
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
        assert_eq!(client.ask(&format!("GET {key}")).await, "$1\r\nv\r\n");
        let data = rig.node(0).seen_by_connection();
        let data = data.iter().filter(|lines| lines.iter().any(|line| line.contains(&key)));
        assert_eq!(data.count(), 2);
    });
}

#[test]
fn a_reply_to_no_request_is_not_given_to_one_that_was_not_written() {
    rig(1).run(async |rig| {
        let (key, mut first, mut second) = (rig.key(0), rig.client().await, rig.client().await);
        rig.node(0).next("GET", Act::HoldReply(b"$1\r\na\r\n$1\r\nb\r\n".to_vec()));
        first.send_all(&[&format!("GET {key}")]).await;
        assert!(first.is_silent_for(SUSPECT).await);
        let set = format!("SET {key} v");
        second.send_all(&[&set]).await;
        assert!(second.is_silent_for(Duration::from_millis(50)).await);
        assert_eq!(rig.node(0).count(&set), 0, "the request is held back");
        rig.node(0).release();
        assert_eq!(first.read().await, "$1\r\na\r\n");
        assert_eq!(second.read().await, "+OK\r\n");
    });
}

/// Increments its own counter and counts what was answered and what is unknown.
async fn increment(mut client: Client, key: String, rounds: usize) -> (usize, usize) {
    let (mut done, mut unknown, mut last) = (0, 0, 0);
    for _ in 0..rounds {
        let reply = client.ask(&format!("INCR {key}")).await;
        if let Some(number) = reply.strip_prefix(':') {
            let number: usize = number.trim_end().parse().expect("a number");
            assert!(last < number && number <= last + 1 + unknown, "{reply} after {last}");
            (done, last) = (done + 1, number);
        } else {
            assert!(reply.contains("outcome unknown"), "{reply}");
            unknown += 1;
        }
    }
    (done, unknown)
}

#[test]
fn nothing_runs_twice_when_connections_break_all_the_time() {
    rig(2).run(async |rig: &mut Rig| {
        let keys: Vec<String> = (0..6).map(|n| rig.cluster.key(n % 2, n)).collect();
        let mut tasks = Vec::new();
        for key in &keys {
            tasks.push(tokio::spawn(increment(rig.client().await, key.clone(), 150)));
        }
        let mut random = Random::new();
        while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
            rig.node(random.below(2)).drop_connections();
            tokio::time::sleep(Duration::from_millis(3 + random.below(10) as u64)).await;
        }
        for (n, task) in tasks.into_iter().enumerate() {
            let (done, unknown) = task.await.expect("the counting succeeds");
            let key = &keys[n];
            let ran =
                rig.cluster.ran().iter().filter(|line| **line == format!("INCR {key}")).count();
            let sent = rig.node(n % 2).count(&format!("INCR {key}"));
            assert_eq!(rig.cluster.model().stores[n % 2].text(key), Some(ran.to_string()));
            assert!(
                (done..=done + unknown).contains(&ran),
                "{done} done, {unknown} unknown, {ran} ran"
            );
            assert!(sent <= 150, "{sent} requests reached the node");
        }
    });
}

#[test]
fn replies_are_not_mixed_up_when_connections_break_all_the_time() {
    rig(2).run(async |rig: &mut Rig| {
        let mut tasks = Vec::new();
        for number in 0..12 {
            let key = rig.cluster.key(number % 2, number);
            rig.cluster.model().stores[number % 2].set(&key, &format!("value of {key}"));
            let mut client = rig.client().await;
            tasks.push(tokio::spawn(async move {
                let (get, value) = (format!("GET {key}"), bulk(&format!("value of {key}")));
                for _ in 0..60 {
                    for reply in
                        client.ask_all(&[&get, &get, &get, "PING"]).await.into_iter().take(3)
                    {
                        assert!(
                            reply == value || reply.contains("outcome unknown"),
                            "{reply} for {key}"
                        );
                    }
                }
            }));
        }
        let mut random = Random::new();
        while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
            rig.node(random.below(2)).drop_connections();
            tokio::time::sleep(Duration::from_millis(3 + random.below(10) as u64)).await;
        }
        for task in tasks {
            task.await.expect("the replies are right");
        }
    });
}
