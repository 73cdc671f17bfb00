//! `SCAN` over all nodes, while they stay as they are and while they do not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::client::Client;
use crate::random::Random;
use crate::rig::{Rig, rig};

const KEYS: usize = 60;

/// Gives every key a value; the keys are of all nodes.
async fn fill(rig: &Rig, client: &mut Client) -> BTreeSet<String> {
    let nodes = rig.cluster.nodes().len().min(3);
    let keys: BTreeSet<String> = (0..KEYS).map(|n| rig.cluster.key(n % nodes, n / nodes)).collect();
    for key in &keys {
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
    }
    keys
}

/// The cursor and the keys of a page.
fn read(reply: &str) -> (u64, Vec<String>) {
    let lines: Vec<&str> = reply.split("\r\n").collect();
    assert_eq!(lines[0], "*2", "{reply}");
    let cursor: u64 = lines[2].parse().expect("a cursor");
    assert_eq!(cursor.to_string(), lines[2], "no zeros in front");
    assert!(cursor < 1 << 53, "{cursor}");
    let keys = lines[4..].iter().skip(1).step_by(2).map(|&key| key.to_owned());
    (cursor, keys.collect())
}

/// Scans to the end, and says how often each key came. `between` is called after each page.
async fn scan(client: &mut Client, mut between: impl FnMut(usize)) -> BTreeMap<String, usize> {
    let (mut cursor, mut found) = (0, BTreeMap::new());
    for page in 0.. {
        assert!(page < 5000, "it ends");
        let (next, keys) = read(&client.ask(&format!("SCAN {cursor}")).await);
        for key in keys {
            *found.entry(key).or_default() += 1;
        }
        if next == 0 {
            break;
        }
        between(page);
        cursor = next;
    }
    found
}

#[test]
fn every_key_comes_once() {
    rig(3).run(async |rig| {
        let mut client = rig.client().await;
        let keys = fill(rig, &mut client).await;
        let found = scan(&mut client, |_| {}).await;
        assert_eq!(found, keys.into_iter().map(|key| (key, 1)).collect());
        let (cursor, whole) = read(&client.ask("SCAN 0 COUNT 1000").await);
        assert_eq!((cursor, whole.len()), (0, KEYS), "a page that has room for all");
        let half = client.ask(&format!("SCAN 0 COUNT {}", KEYS / 3)).await;
        assert_eq!(read(&half).1.len(), KEYS / 3, "options are passed on");
    });
}

#[test]
fn keys_that_move_to_nodes_that_were_visited_are_not_missed() {
    rig(3).run(async |rig| {
        let mut client = rig.client().await;
        let keys = fill(rig, &mut client).await;
        let late = rig.cluster.key(2, 0);
        let found = scan(&mut client, |page| {
            if page == 15 {
                rig.cluster.model().give(&late, 0);
                rig.cluster.announce();
            }
        })
        .await;
        assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), keys);
    });
}

#[test]
fn keys_of_a_slot_that_is_half_way_are_not_missed() {
    rig(3).run(async |rig| {
        let mut client = rig.client().await;
        let keys = fill(rig, &mut client).await;
        let late = rig.cluster.key(2, 0);
        let found = scan(&mut client, |page| {
            if page == 15 {
                rig.cluster.model().open(&late, 0);
                rig.cluster.model().migrate(&late);
                rig.cluster.announce();
            }
        })
        .await;
        assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), keys);
    });
}

#[test]
fn nothing_is_missed_however_slots_move() {
    rig(3).run(async |rig| {
        let mut client = rig.client().await;
        let keys = fill(rig, &mut client).await;
        let all: Vec<String> = keys.iter().cloned().collect();
        let mut random = Random::new();
        for _ in 0..3 {
            let mut moves = 0;
            let found = scan(&mut client, |_| {
                moves += 1;
                if moves < 100 {
                    let key = &all[random.below(all.len())];
                    rig.cluster.model().give(key, random.below(3));
                    rig.cluster.announce();
                }
            })
            .await;
            assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), keys);
        }
    });
}

#[test]
fn nothing_is_missed_when_a_primary_is_replaced() {
    rig(3).replicas(1).run(async |rig| {
        let mut client = rig.client().await;
        let keys = fill(rig, &mut client).await;
        for (page, primary) in [(3, 0), (14, 1), (25, 2)] {
            let found = scan(&mut client, |now| {
                if now == page {
                    rig.cluster.model().fail_over(primary, primary + 3);
                    rig.cluster.announce();
                }
            })
            .await;
            assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), keys);
        }
    });
}

#[test]
fn a_cursor_outlives_the_loss_of_a_node() {
    rig(2).budget(Duration::from_millis(200)).run(async |rig| {
        let mut client = rig.client().await;
        let keys = fill(rig, &mut client).await;
        let (cursor, first) = read(&client.ask("SCAN 0 COUNT 5").await);
        rig.node(0).down().await;
        let reply = client.ask(&format!("SCAN {cursor} COUNT 1000")).await;
        assert!(reply.starts_with("-CLUSTERDOWN "), "{reply}");
        rig.node(0).up().await;
        let (end, second) = read(&client.ask(&format!("SCAN {cursor} COUNT 1000")).await);
        assert_eq!(end, 0);
        assert_eq!([first, second].concat().into_iter().collect::<BTreeSet<_>>(), keys);
        rig.node(1).down().await;
        let (cursor, first) = read(&client.ask("SCAN 0 COUNT 1000").await);
        assert_eq!(first.len(), KEYS / 2, "what was found before the loss is told");
        rig.node(1).up().await;
        let (end, second) = read(&client.ask(&format!("SCAN {cursor} COUNT 1000")).await);
        assert_eq!((end, second.len()), (0, KEYS / 2));
    });
}

#[test]
fn a_pattern_for_one_slot_goes_to_its_owner() {
    rig(3).run(async |rig| {
        let (key, mut client) = (rig.key(1), rig.client().await);
        client.ask(&format!("SET {key} v")).await;
        let (cursor, keys) = read(&client.ask(&format!("SCAN 0 MATCH {{{key}}}*")).await);
        assert_eq!((cursor, keys), (0, vec![key]));
        assert!([0, 2].iter().all(|node| rig.node(*node).seen().is_empty()));
    });
}

#[test]
fn cursors_that_are_none() {
    rig(3).run(async |rig| {
        let mut client = rig.client().await;
        let keys = fill(rig, &mut client).await;
        for cursor in ["x", "-1", "1.5", "9007199254740992", "99999999999999999999"] {
            let reply = client.ask(&format!("SCAN {cursor}")).await;
            assert_eq!(reply, "-ERR invalid cursor\r\n", "{cursor}");
        }
        let (_, first) = read(&client.ask("SCAN 9007199254740991 COUNT 1000").await);
        assert_eq!(first.len(), keys.len(), "one that is not known begins anew");
        let replies = client.ask_all(&["MULTI", "SCAN 0", "RANDOMKEY", "EXEC"]).await;
        let refused = "-ERR Command not allowed inside a transaction\r\n";
        assert_eq!(replies[1..3], [refused, refused]);
    });
}

#[test]
fn cursors_go_on_with_any_worker() {
    rig(2).with(|options| options.workers = 3).run(async |rig| {
        let mut client = rig.client().await;
        let keys = fill(rig, &mut client).await;
        let (mut cursor, mut found) = (0, Vec::new());
        loop {
            let mut client = rig.client().await;
            let (next, page) = read(&client.ask(&format!("SCAN {cursor}")).await);
            found.extend(page);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(found.len(), keys.len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), keys);
    });
}

/// `RANDOMKEY` asks the nodes by the number of their keys, and one without keys only if it has to.
#[test]
fn a_random_key_is_drawn_by_weight() {
    rig(3).run(async |rig| {
        let mut client = rig.client().await;
        assert_eq!(client.ask("RANDOMKEY").await, "$-1\r\n");
        assert!((0..3).all(|node| rig.node(node).count("RANDOMKEY") == 1));
        let key = rig.key(1);
        client.ask(&format!("SET {key} v")).await;
        let expected = crate::client::bulk(&key);
        assert_eq!(client.ask("RANDOMKEY").await, expected);
        let sizes = || (0..3).map(|node| rig.node(node).count("DBSIZE")).sum::<usize>();
        while sizes() < 6 {
            assert_eq!(client.ask("RANDOMKEY").await, expected);
        }
        let before = rig.node(1).count("RANDOMKEY");
        for _ in 0..20 {
            assert_eq!(client.ask("RANDOMKEY").await, expected);
        }
        assert_eq!(rig.node(1).count("RANDOMKEY"), before + 20);
        assert!(sizes() <= 9, "the sizes are asked for once a second");
    });
}
