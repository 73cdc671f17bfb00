//! What one client does to one slot happens in the order it was asked for, whatever the cluster does meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Client, bulk};
use crate::fake::{Act, Cluster, Model};
use crate::random::Random;
use crate::rig::{rig, until};

const LOADING: &str = "LOADING Redis is loading the dataset in memory";

/// Runs `SET k 1; SET k 2; GET k` while `change` happens to the slot just before one of them runs.
fn moving(change: fn(&mut Model, &str), together: bool) {
    rig(3).run(async |rig| {
        let mut client = rig.client().await;
        for point in 0..3 {
            let key = rig.cluster.key(0, point);
            let lines = [format!("SET {key} 1"), format!("SET {key} 2"), format!("GET {key}")];
            let moved = key.clone();
            let first = Act::First(Box::new(move |model: &mut Model| change(model, &moved)));
            rig.node(0).next(&lines[point], first);
            let before = rig.cluster.ran().len();
            let lines = lines.each_ref().map(String::as_str);
            let replies = if together {
                client.ask_all(&lines).await
            } else {
                for line in lines {
                    client.send_all(&[line]).await;
                    tokio::task::yield_now().await;
                }
                client.read_n(3).await
            };
            assert_eq!(
                replies,
                ["+OK\r\n", "+OK\r\n", "$1\r\n2\r\n"],
                "moved before {}",
                lines[point]
            );
            assert_eq!(rig.cluster.ran()[before..], lines, "moved before {}", lines[point]);
        }
    });
}

fn give(model: &mut Model, key: &str) {
    model.give(key, 1);
}

fn migrate(model: &mut Model, key: &str) {
    model.open(key, 1);
    model.migrate(key);
}

/// Given away twice: the redirect is out of date when it arrives.
fn pass_on(model: &mut Model, key: &str) {
    model.give(key, 1);
    model.give(key, 2);
}

#[test]
fn a_pipeline_keeps_its_order_when_the_slot_moves() {
    moving(give, true);
}

#[test]
fn requests_one_by_one_keep_their_order_when_the_slot_moves() {
    moving(give, false);
}

#[test]
fn a_pipeline_keeps_its_order_when_the_key_migrates() {
    moving(migrate, true);
}

#[test]
fn requests_one_by_one_keep_their_order_when_the_key_migrates() {
    moving(migrate, false);
}

#[test]
fn a_pipeline_keeps_its_order_when_the_slot_moves_twice() {
    moving(pass_on, true);
}

#[test]
fn a_pipeline_keeps_its_order_when_the_slot_comes_back() {
    rig(2).run(async |rig| {
        let mut client = rig.client().await;
        for point in 0..3 {
            let key = rig.cluster.key(0, point);
            let lines = [format!("SET {key} 1"), format!("SET {key} 2"), format!("GET {key}")];
            for (node, to) in [(0, 1), (1, 0)] {
                let moved = key.clone();
                let first = Act::First(Box::new(move |model: &mut Model| model.give(&moved, to)));
                rig.node(node).next(&lines[point], first);
            }
            let lines = lines.each_ref().map(String::as_str);
            let replies = client.ask_all(&lines).await;
            // What was overtaken must say so; it may not run late.
            let value = rig.cluster.model().stores[0].text(&key);
            assert!(replies[0] == "+OK\r\n" || replies[0].starts_with("-TRYAGAIN"), "{replies:?}");
            assert!(
                replies[1] == "+OK\r\n" && value.as_deref() == Some("2")
                    || replies[1].starts_with("-TRYAGAIN"),
                "{replies:?}, {value:?}"
            );
        }
    });
}

#[test]
fn a_new_map_waits_for_what_is_under_way_on_the_old_one() {
    rig(2).run(async |rig| {
        let (key, other, mut client) = (rig.key(0), rig.key(1), rig.client().await);
        let lines = [
            format!("SET {key} 1"),
            format!("SET {key} 2"),
            format!("GET {key}"),
            format!("SET {other} 3"),
        ];
        rig.node(0).next(&lines[0], Act::Hold);
        client.send_all(&[&lines[0]]).await;
        until("the request is out", || rig.node(0).count(&lines[0]) == 1).await;
        rig.cluster.model().give(&key, 1);
        rig.announce().await;
        client.send_all(&[&lines[1], &lines[2], &lines[3]]).await;
        assert!(client.is_silent_for(Duration::from_millis(60)).await);
        assert!(rig.node(1).seen().is_empty(), "{:?}", rig.node(1).seen());
        rig.node(0).release();
        assert_eq!(client.read_n(4).await, ["+OK\r\n", "+OK\r\n", "$1\r\n2\r\n", "+OK\r\n"]);
        assert_eq!(rig.cluster.ran(), lines);
        assert_eq!(rig.node(0).seen(), lines[..1]);
    });
}

#[test]
fn a_new_map_holds_up_only_the_client_that_has_something_under_way() {
    rig(2).run(async |rig| {
        let (key, mut busy, mut idle) = (rig.key(0), rig.client().await, rig.client().await);
        rig.node(0).next("GET", Act::Hold);
        busy.send_all(&[&format!("GET {key}")]).await;
        until("the request is out", || !rig.node(0).seen().is_empty()).await;
        rig.cluster.model().give(&key, 1);
        rig.announce().await;
        assert_eq!(idle.ask(&format!("SET {key} v")).await, "+OK\r\n");
        assert_eq!(rig.node(1).seen(), [format!("SET {key} v")]);
        rig.node(0).release();
        assert_eq!(busy.read().await, "$-1\r\n");
    });
}

#[test]
fn while_a_request_waits_later_ones_of_its_slot_wait_and_others_do_not() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        let (key, other) = (rig.cluster.key(0, 0), rig.cluster.key(0, 1));
        let (first, second, free) =
            (format!("SET {key} 1"), format!("SET {key} 2"), format!("SET {other} 3"));
        rig.node(0).always(&first, LOADING);
        client.send_all(&[&first]).await;
        until("the request waits", || rig.node(0).count(&first) > 1).await;
        client.send_all(&[&free]).await;
        until("the other slot is served", || rig.cluster.ran() == [free.clone()]).await;
        client.send_all(&[&second]).await;
        let tries = rig.node(0).count(&first);
        until("it is tried again", || rig.node(0).count(&first) > tries + 2).await;
        assert_eq!(rig.node(0).count(&second), 0);
        rig.node(0).obey();
        assert_eq!(client.read_n(3).await, ["+OK\r\n"; 3]);
        assert_eq!(rig.cluster.ran(), [free, first, second]);
    });
}

#[test]
fn a_request_that_was_overtaken_in_the_pipeline_says_so_and_does_not_run() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let lines = [format!("SET {key} 1"), format!("SET {key} 2")];
        let loading = format!("-{LOADING}\r\n").into_bytes();
        rig.node(0).next(&lines[0], Act::HoldReply(loading));
        client.send_all(&lines.each_ref().map(String::as_str)).await;
        until("both are there", || rig.node(0).seen().len() == 2).await;
        rig.node(0).release();
        let replies = client.read_n(2).await;
        let overtaken =
            "-TRYAGAIN a later command of this client ran first, the request was not executed\r\n";
        assert_eq!(replies, [overtaken, "+OK\r\n"]);
        assert_eq!(rig.cluster.ran(), [lines[1].clone()]);
    });
}

#[test]
fn requests_that_all_wait_run_in_order() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let lines: Vec<String> = (0..9).map(|n| format!("APPEND {key} {n}")).collect();
        rig.node(0).always("APPEND", LOADING);
        client.send_all(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
        until("they wait", || rig.node(0).seen().len() > 12).await;
        rig.node(0).obey();
        let replies: Vec<String> = (1..=9).map(|n| format!(":{n}\r\n")).collect();
        assert_eq!(client.read_n(9).await, replies);
        assert_eq!(rig.cluster.ran(), lines);
    });
}

#[test]
fn a_pipeline_that_waited_is_run_whole_once_the_node_can() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let lines: Vec<String> = (0..100).map(|n| format!("RPUSH {key} {n}")).collect();
        rig.node(0).always("RPUSH", LOADING);
        client.send_all(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
        until("they wait", || rig.node(0).seen().len() > 102).await;
        rig.node(0).obey();
        let replies: Vec<String> = (1..=100).map(|n| format!(":{n}\r\n")).collect();
        assert_eq!(client.read_n(100).await, replies);
        assert_eq!(rig.cluster.ran(), lines);
    });
}

#[test]
fn large_requests_are_held_and_follow_in_order() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let value = |letter: &str| letter.repeat(100_000);
        let lines = ["a", "b", "c"].map(|letter| format!("SET {key} {}", value(letter)));
        rig.node(0).next(&lines[0], Act::Hold);
        client.send_all(&[&lines[0]]).await;
        until("the first is out", || rig.node(0).seen().len() == 1).await;
        rig.cluster.model().give(&key, 1);
        rig.announce().await;
        client.send_all(&[&lines[1], "PING", &lines[2], &format!("GET {key}")]).await;
        assert!(client.is_silent_for(Duration::from_millis(60)).await);
        rig.node(0).release();
        let replies = client.read_n(5).await;
        assert_eq!(replies[..4], ["+OK\r\n", "+OK\r\n", "+PONG\r\n", "+OK\r\n"]);
        assert!(replies[4] == bulk(&value("c")));
        assert_eq!(rig.cluster.ran()[..3], lines);
    });
}

/// What a client may see of `SET k 1` and then something else that sets `k` to 2: the first failed, or 2 stays.
fn assert_in_order(cluster: &Cluster, key: &str, replies: &[String]) {
    let value = cluster.model().stores[0].text(key);
    assert!(
        replies[0].starts_with('-') || value.as_deref() == Some("2"),
        "{replies:?} left {value:?}; ran {:?}",
        cluster.ran()
    );
}

#[test]
fn a_request_that_waits_does_not_run_behind_a_later_one_in_flight() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let lines = [format!("SET {key} 1"), format!("SET {key} 2")];
        rig.node(0).next(&lines[0], Act::error(LOADING));
        rig.node(0).next(&lines[1], Act::Hold);
        client.send_all(&lines.each_ref().map(String::as_str)).await;
        assert!(client.is_silent_for(Duration::from_millis(100)).await);
        rig.node(0).release();
        assert_in_order(&rig.cluster, &key, &client.read_n(2).await);
    });
}

#[test]
fn a_request_that_waits_does_not_run_behind_a_split_one_that_ran() {
    rig(2).run(async |rig| {
        let (key, other, mut client) = (rig.key(0), rig.key(1), rig.client().await);
        let lines = [format!("SET {key} 1"), format!("MSET {key} 2 {other} 3")];
        rig.node(0).next(&lines[0], Act::error(LOADING));
        let replies = client.ask_all(&lines.each_ref().map(String::as_str)).await;
        assert_in_order(&rig.cluster, &key, &replies);
    });
}

#[test]
fn a_flush_that_waits_does_not_take_away_what_was_set_after_it() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).next("FLUSHALL", Act::error(LOADING));
        let replies = client.ask_all(&["FLUSHALL", &format!("SET {key} 2")]).await;
        assert_in_order(&rig.cluster, &key, &replies);
    });
}

#[test]
fn a_request_that_waited_for_a_node_does_not_run_late_when_it_is_sent_back() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(1).down().await;
        rig.cluster.model().give(&key, 1);
        client.send_all(&[&format!("SET {key} 1")]).await;
        until("the request was redirected", || !rig.node(0).seen().is_empty()).await;
        rig.cluster.model().give(&key, 0);
        client.send_all(&[&format!("SET {key} 2")]).await;
        until("the later one was run", || rig.cluster.ran().len() == 2).await;
        rig.node(1).up().await;
        assert_in_order(&rig.cluster, &key, &client.read_n(2).await);
    });
}

#[test]
fn a_read_that_is_sent_again_does_not_overtake_a_write_that_waits() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let lines = [format!("SET {key} 1"), format!("GET {key}")];
        client.ask(&format!("EXISTS {key}")).await;
        rig.node(0).next(&lines[0], Act::error(LOADING));
        rig.node(0).next(&lines[1], Act::Close);
        // The next connection takes longer than the wait.
        rig.node(0).next("PING", Act::Hold);
        client.send_all(&lines.each_ref().map(String::as_str)).await;
        assert!(client.is_silent_for(Duration::from_millis(60)).await);
        rig.node(0).release();
        let replies = client.read_n(2).await;
        assert!(replies[0].starts_with('-') || replies[1] == "$1\r\n1\r\n", "{replies:?}");
    });
}

#[test]
fn replies_come_in_the_order_of_the_requests_whichever_node_is_first() {
    rig(3).run(async |rig| {
        let mut client = rig.client().await;
        let keys: Vec<String> = (0..3).map(|node| rig.key(node)).collect();
        for (n, key) in keys.iter().enumerate() {
            client.ask(&format!("SET {key} value{n}")).await;
        }
        for slow in 0..3 {
            let slow_get = format!("GET {}", keys[slow]);
            let before = rig.node(slow).count(&slow_get);
            rig.node(slow).hold();
            let lines: Vec<String> = (0..30).map(|n| format!("GET {}", keys[n % 3])).collect();
            client.send_all(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
            client.send_all(&["PING", "ECHO hello"]).await;
            until("all is out", || rig.node(slow).count(&slow_get) == before + 10).await;
            rig.node(slow).release();
            let replies = client.read_n(32).await;
            for (n, reply) in replies[..30].iter().enumerate() {
                assert_eq!(*reply, bulk(&format!("value{}", n % 3)));
            }
            assert_eq!(replies[30..], ["+PONG\r\n", "$5\r\nhello\r\n"]);
        }
    });
}

/// Appends its own numbers to its own key, several at a time, and checks every reply.
async fn append(mut client: Client, key: String, mut random: Random, rounds: usize) -> String {
    let mut written = String::new();
    for round in 0..rounds {
        let lines: Vec<String> =
            (0..=random.below(6)).map(|n| format!("APPEND {key} [{round}.{n}]")).collect();
        let mut wire: Vec<&str> = lines.iter().map(String::as_str).collect();
        let get = format!("GET {key}");
        wire.push(&get);
        client.send_all(&wire).await;
        for line in &lines {
            written.push_str(line.rsplit(' ').next().expect("three words"));
            assert_eq!(client.read().await, format!(":{}\r\n", written.len()), "{line}");
        }
        assert_eq!(client.read().await, bulk(&written), "{get}");
    }
    written
}

/// Moves the slots of these keys about, and lets the proxy know of it now and then.
async fn stir(cluster: Arc<Cluster>, keys: Vec<String>) {
    let mut random = Random::new();
    loop {
        let key = &keys[random.below(keys.len())];
        {
            let mut model = cluster.model();
            let slot = slotway::cluster::Slot::of(key.as_bytes()).index();
            let owner = model.truth.owners[slot].expect("an owner");
            let to = (owner + 1 + random.below(2)) % 3;
            match (model.truth.open.get(&slot).copied(), random.below(3)) {
                (Some((_, to)), 0) => model.give(key, to),
                (Some(_), _) => model.migrate(key),
                (None, 0) => model.give(key, to),
                (None, _) if model.is_asked(key) => {}
                (None, _) => model.open(key, to),
            }
        }
        if random.below(4) == 0 {
            cluster.announce();
        }
        sleep(Duration::from_millis(random.below(4) as u64)).await;
    }
}

#[test]
fn many_clients_see_their_own_order_while_slots_move_all_the_time() {
    rig(3).with(|options| options.workers = 2).run(async |rig| {
        let keys: Vec<String> = (0..8).map(|n| rig.cluster.key(n % 3, n)).collect();
        let mut appending = JoinSet::new();
        for key in &keys {
            appending.spawn(append(rig.client().await, key.clone(), Random::new(), 60));
        }
        let stirring = tokio::spawn(stir(Arc::clone(&rig.cluster), keys.clone()));
        while let Some(done) = appending.join_next().await {
            done.expect("the appending succeeds");
        }
        stirring.abort();
        for key in keys {
            let line = format!("APPEND {key} ");
            let count = rig.cluster.ran().iter().filter(|ran| ran.starts_with(&line)).count();
            let stores = rig.cluster.model().stores.clone();
            let texts: Vec<String> = stores.iter().filter_map(|store| store.text(&key)).collect();
            assert_eq!(texts.len(), 1, "{key} is in one place");
            assert_eq!(texts[0].matches('[').count(), count, "each was run once");
        }
    });
}

#[test]
fn an_early_reply_does_not_wait_for_the_rest_of_its_pipeline_for_good() {
    rig(2).run(async |rig| {
        let mut client = rig.client().await;
        let (early, late) = (rig.cluster.key(0, 0), rig.cluster.key(1, 0));
        let lines = [format!("SET {early} 1"), format!("SET {late} 2"), format!("GET {early}")];
        rig.node(1).next(&lines[1], Act::Hold);
        client.send_all(&lines.each_ref().map(String::as_str)).await;
        assert_eq!(client.read_n(1).await, ["+OK\r\n"], "while the other is on its way");
        until("the other is out", || rig.node(1).count(&lines[1]) == 1).await;
        rig.node(1).release();
        assert_eq!(client.read_n(2).await, ["+OK\r\n", "$1\r\n1\r\n"]);
    });
}
