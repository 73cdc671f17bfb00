//! Who owns a slot, when the nodes have different answers, or too few of them are left to decide: `fix` and `failover`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use slotway::resp::value;
use tempfile::TempDir;

use crate::cluster::{Cluster, Node};
use crate::job::{control, count, fill, key, tag};
use crate::relay::{Fate, Relay};
use crate::tool::{Told, cluster, text};
use crate::{beside_others, until};

/// Slots of node 0 in a cluster of two.
const STRAY: usize = 7;
const HALF: usize = 8;
const ALL: usize = 9;
/// One of node 1 in a cluster of three.
const CLAIMED: usize = 6000;

async fn fix(nodes: &Cluster, state: &TempDir, how: &str) -> Told {
    cluster(&format!("fix {} {how} --state-dir {}", nodes.address(0), state.path().display())).await
}

async fn set(nodes: &Cluster, node: Node, slot: usize, state: &[&str]) {
    nodes.call(node, &[&["CLUSTER", "SETSLOT", &slot.to_string()], state].concat()).await;
}

/// Writes keys of a slot to a node that takes it in.
async fn write(nodes: &Cluster, node: Node, slot: usize, keys: std::ops::Range<usize>) {
    let (tag, mut control) = (tag(slot), control(nodes, node).await);
    for n in keys {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let both = [words("ASKING"), words(&format!("SET {} old", key(&tag, n)))];
        let replies = control.pipeline(&both).await.expect("the node answers");
        assert_eq!(value::text(&replies[1]), Some("OK"));
    }
}

/// Values of a slot's keys `0..keys`, and how many of each there are; keys that are not there are empty.
async fn values(nodes: &Cluster, node: Node, slot: usize, keys: usize) -> BTreeMap<String, usize> {
    let (tag, mut found) = (tag(slot), BTreeMap::new());
    for n in 0..keys {
        let value = nodes.call(node, &["GET", &key(&tag, n)]).await;
        let value = value::text(&value).unwrap_or_default();
        let value = if value == n.to_string() { "its own" } else { value };
        *found.entry(value.to_owned()).or_default() += 1;
    }
    found
}

/// Scenario 66 with a restart: a node that is started with keys of a slot that is not its own says that it takes the slot in.
/// And scenario 63 with that alone on the target's side, and keys that had been given away.
#[tokio::test]
async fn keys_come_home_from_a_node_that_took_them_in() {
    let _turn = beside_others().await;
    let (mut nodes, state) = (Cluster::start(2, 0).await, tempfile::tempdir().expect("a folder"));
    nodes.make_durable(1).await;
    for slot in [STRAY, HALF, ALL] {
        set(&nodes, 1, slot, &["IMPORTING", nodes.id(0)]).await;
    }
    write(&nodes, 1, STRAY, 0..50).await;
    fill(&nodes, 0, STRAY, 10).await;
    set(&nodes, 1, STRAY, &["STABLE"]).await;
    for (slot, gone) in [(HALF, 50), (ALL, 100)] {
        fill(&nodes, 0, slot, 100).await;
        set(&nodes, 0, slot, &["MIGRATING", nodes.id(1)]).await;
        let keys: Vec<_> = (0..gone).map(|n| key(&tag(slot), n)).collect();
        let address = nodes.address(1);
        let port = address.split_once(':').expect("a port").1;
        let head = ["MIGRATE", "127.0.0.1", port, "", "0", "5000", "KEYS"];
        nodes
            .call(0, &head.into_iter().chain(keys.iter().map(String::as_str)).collect::<Vec<_>>())
            .await;
        set(&nodes, 0, slot, &["STABLE"]).await;
    }
    nodes.kill9(1);
    nodes.restart(1).await;
    // It does not give keys away yet: who repairs waits for that.
    let told = text(&nodes.address(1), "CLUSTER NODES").await;
    let takes_in = |slot: usize| told.contains(&format!("[{slot}-<-{}]", nodes.id(0)));
    assert!(takes_in(HALF) && takes_in(ALL), "{told}");
    // Redis 8.4 and Valkey 9 do not say so of strays; what they do with them is not to be seen.
    let has_strays = takes_in(STRAY);

    let told = fix(&nodes, &state, "--yes").await.ends(if has_strays { 5 } else { 0 });
    told.says("[OK] All 16384 slots covered.");
    nodes.agreed().await;
    for slot in [STRAY, HALF, ALL] {
        assert_eq!(count(&nodes, 1, slot).await, 0, "slot {slot}");
    }
    let of = |pairs: &[(&str, usize)]| -> BTreeMap<String, usize> {
        pairs.iter().map(|(value, count)| ((*value).to_owned(), *count)).collect()
    };
    if has_strays {
        told.mentions("[WARNING] 10 copies that differed from the owner's are kept in ");
        assert_eq!(values(&nodes, 0, STRAY, 50).await, of(&[("its own", 10), ("old", 40)]));
    }
    for slot in [HALF, ALL] {
        assert_eq!(values(&nodes, 0, slot, 100).await, of(&[("its own", 100)]), "slot {slot}");
    }
}

/// Where the message of a node says who sent it.
const SENDER: std::ops::Range<usize> = 40..80;

/// Two nodes that find each other through relays, which let nothing through between the two once they are told to.
async fn estrange(nodes: &Cluster, pair: [Node; 2], is_cut: &Arc<AtomicBool>) -> Vec<Relay> {
    let mut relays = Vec::new();
    for (node, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
        let address = nodes.address(node);
        let port: u16 =
            address.split_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        let (stranger, is_cut) = (nodes.id(other).to_owned(), Arc::clone(is_cut));
        let judge = move |sent: &[u8]| {
            let is_stranger = sent.get(SENDER) == Some(stranger.as_bytes());
            if is_cut.load(Relaxed) && is_stranger { Fate::Lost } else { Fate::Arrives }
        };
        let relay = Relay::start(format!("127.0.0.1:{}", port + 10_000), judge).await;
        nodes.announce_bus(node, relay.port).await;
        relays.push(relay);
    }
    relays
}

async fn epoch(nodes: &Cluster, node: Node) -> String {
    let info = text(&nodes.address(node), "CLUSTER INFO").await;
    let line = info.lines().find_map(|line| line.strip_prefix("cluster_my_epoch:"));
    line.expect("its epoch").to_owned()
}

/// Scenario 67. Two nodes that do not hear from each other have the same epoch, and both say that a slot is theirs: the nodes
/// would not settle that. It is whose the others say, and no key of either is lost.
#[tokio::test]
async fn a_slot_that_two_claim_by_the_same_epoch_gets_one_owner() {
    let _turn = beside_others().await;
    let (mut nodes, state) = (Cluster::start(3, 0).await, tempfile::tempdir().expect("a folder"));
    fill(&nodes, 1, CLAIMED, 20).await;
    // Nobody is to be held for dead.
    for node in 0..3 {
        nodes.call(node, &["CONFIG", "SET", "cluster-node-timeout", "60000"]).await;
    }
    let is_cut = Arc::new(AtomicBool::new(false));
    let _relays = estrange(&nodes, [0, 1], &is_cut).await;
    is_cut.store(true, Relaxed);
    until(Duration::from_secs(20), "they lose each other", async || {
        for (node, other) in [(0, 1), (1, 0)] {
            let told = text(&nodes.address(node), "CLUSTER NODES").await;
            let is_lost =
                |line: &str| line.starts_with(nodes.id(other)) && line.contains(" disconnected");
            if !told.lines().any(is_lost) {
                return Err(told);
            }
        }
        Ok(())
    })
    .await;
    // And not through the third one, until both have raised their epochs.
    nodes.freeze(2);
    for node in [0, 1] {
        nodes.call(node, &["CLUSTER", "BUMPEPOCH"]).await;
    }
    nodes.thaw(2);
    let shared = epoch(&nodes, 0).await;
    assert_eq!(shared, epoch(&nodes, 1).await);
    until(Duration::from_secs(20), "the third one knows of both", async || {
        let told = text(&nodes.address(2), "CLUSTER NODES").await;
        let count = told.matches(&format!(" {shared} connected")).count();
        if count == 2 { Ok(()) } else { Err(told) }
    })
    .await;
    set(&nodes, 0, CLAIMED, &["NODE", nodes.id(0)]).await;
    for n in 15..30 {
        nodes.call(0, &["SET", &key(&tag(CLAIMED), n), "old"]).await;
    }

    let told = cluster(&format!("check {}", nodes.address(2))).await.ends(1);
    told.mentions(&format!("have the same config epoch {shared}"));
    let told = fix(&nodes, &state, "--yes").await.ends(5);
    told.mentions(&format!("raise the config epoch of {}", nodes.id(1)))
        .mentions("[WARNING] 5 copies that differed from the owner's are kept in ");
    assert_eq!(epoch(&nodes, 0).await, shared, "it was not the owner who raised its epoch");
    assert_ne!(epoch(&nodes, 1).await, shared);
    is_cut.store(false, Relaxed);
    nodes.agreed().await;
    assert_eq!(nodes.owners().await[CLAIMED], 1);
    let expected = [("its own".to_owned(), 20), ("old".to_owned(), 10)];
    assert_eq!(values(&nodes, 1, CLAIMED, 30).await, BTreeMap::from(expected));
}

/// Scenario 62 without a majority: two of three primaries die at once, and no replica can be elected.
#[tokio::test]
async fn a_replica_takes_over_without_a_majority_when_told_to() {
    let _turn = beside_others().await;
    let mut nodes = Cluster::start(3, 1).await;
    nodes.kill9(1);
    nodes.kill9(2);
    nodes.down(0).await;
    let line = format!("failover {} {} --wait 2", nodes.address(0), nodes.id(1));
    cluster(&line).await.ends(3).mentions("has no link to its primary");
    let told = cluster(&format!("{line} --force")).await.ends(1);
    told.mentions(&format!("{} is still a replica", nodes.address(4)));
    cluster(&format!("{line} --wait 30 --takeover")).await.ends(0);
    // Two of three are a majority again.
    nodes.promoted(5).await;
    nodes.agreed().await;
    cluster(&format!("check {}", nodes.address(0))).await.ends(0);
}
