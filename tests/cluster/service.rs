//! What an operator does to a cluster that is in use: nodes come, take their share and leave, primaries change places, the data
//! are saved; and some of it is cut off.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::{Cluster, Node};
use crate::job::{count, fill};
use crate::load::{Load, Plan};
use crate::tool::{Special, begin, cluster, ended, known, signal, text};
use crate::{alone, beside_others, front, until};

/// Batches that every client of a load does before something happens, and after it.
const BATCHES: u64 = 5;
/// Slots of the first primary, with keys that the tests know.
const SLOTS: [usize; 3] = [7, 2000, 5000];
const KEYS: usize = 100;

/// Scenarios 17, 47, 54, 55 and 62 under load.
#[tokio::test]
async fn clients_notice_nothing_of_what_is_done_to_their_cluster() {
    let (mut nodes, state) = (Cluster::start(3, 1).await, tempfile::tempdir().expect("a folder"));
    let _turn = alone().await;
    let (entry, folder) = (nodes.address(1), state.path().display());
    for slot in SLOTS {
        fill(&nodes, 0, slot, KEYS).await;
    }
    let proxy = front::start(front::patient(nodes.addresses())).await;
    let mut load = Load::start(Plan { clients: 4, ..Plan::light(proxy.data) });
    load.advance(BATCHES).await;

    // A node comes, with a replica, and gets its share.
    let (new, follower) = (nodes.start_node().await, nodes.start_node().await);
    let (new_at, follower_at) = (nodes.address(new), nodes.address(follower));
    cluster(&format!("add-node {new_at} {entry}")).await.ends(0);
    cluster(&format!("add-node {follower_at} {entry} --slave --master-id {}", nodes.id(new)))
        .await
        .ends(0);
    nodes.admit(new);
    nodes.admit(follower);
    let line = format!("rebalance {entry} --use-empty-masters --state-dir {folder}");
    cluster(&line).await.ends(0);
    nodes.agreed().await;
    for node in [0, 1, 2, new] {
        assert_eq!(nodes.slots_of(node).await.len(), 4096, "node {node}");
    }
    load.advance(BATCHES).await;

    // A replica takes over, and the data are saved.
    let begun = Instant::now();
    cluster(&format!("failover {entry} {}", nodes.id(0))).await.ends(0);
    eprintln!("a failover, with all told of it, took {:?}", begun.elapsed());
    nodes.agreed().await;
    assert_eq!(nodes.slots_of(3).await.len(), 4096);
    let saved = tempfile::tempdir().expect("a folder");
    cluster(&format!("backup {entry} {}", saved.path().display())).await.ends(0);

    // The node leaves: not with nobody behind a primary, unless that is meant. Its replica takes its place, and its slots.
    let owned = nodes.slots_of(new).await;
    let promote = format!("del-node {entry} {} --promote", nodes.id(new));
    let told = cluster(&promote).await.ends(3);
    told.says(&format!(
        "[ERR] {follower_at} would be left without replicas; if that is meant, pass --force"
    ));
    cluster(&format!("{promote} --force")).await.ends(0);
    nodes.dismiss(new);
    nodes.agreed().await;
    assert_eq!(nodes.slots_of(follower).await, owned);
    load.advance(BATCHES).await;

    // That one leaves as well, and gives its slots to the others, none of whom gets more than its share.
    let drain =
        format!("del-node {entry} {} --drain --yes --state-dir {folder}", nodes.id(follower));
    cluster(&drain).await.ends(0);
    nodes.dismiss(follower);
    nodes.agreed().await;
    for node in [1, 2, 3] {
        assert!([5461, 5462].contains(&nodes.slots_of(node).await.len()), "node {node}");
    }
    assert_eq!((known(&entry).await, known(&new_at).await, known(&follower_at).await), (6, 1, 1));
    load.advance(BATCHES).await;
    let tally = load.stop().await;
    eprintln!("{tally}");
    tally.expect_flawless();
    // A failover and the promotion stop writes of one primary, for much less than this.
    tally.expect_no_stall_of(Duration::from_secs(1));
    proxy.shutdown().await;
    drop(nodes);
    comes_back(saved.path()).await;
}

/// A cluster of other nodes with the data and the layout of a backup.
async fn comes_back(saved: &Path) {
    let layout = std::fs::read_to_string(saved.join("nodes.json")).expect("the layout");
    let layout: Vec<BTreeMap<String, Value>> = serde_json::from_str(&layout).expect("JSON");
    let mut primaries: Vec<(Special, TempDir)> = Vec::new();
    for node in layout.iter().filter(|node| node["replicate"].is_null()) {
        let folder = tempfile::tempdir().expect("a folder");
        let (host, id) =
            (node["host"].as_str().expect("text"), node["name"].as_str().expect("text"));
        let port = &node["port"];
        let files = ["redis", "valkey"]
            .map(|kind| saved.join(format!("{kind}-node-{host}-{port}-{id}.rdb")));
        let file = files.iter().find(|file| file.exists()).expect("the data is there");
        std::fs::copy(file, folder.path().join("dump.rdb")).expect("it is there");
        let ranges = node["slots"].as_array().expect("ranges").iter().map(|range| {
            let ends: Vec<String> =
                range.as_array().expect("ends").iter().map(ToString::to_string).collect();
            ends.join("-")
        });
        let slots: Vec<String> = ranges.collect();
        let epoch = primaries.len() + 1;
        let known = format!(
            "{id} 127.0.0.1:1@1 myself,master - 0 0 {epoch} connected {}\nvars currentEpoch 9 lastVoteEpoch 0\n",
            slots.join(" ")
        );
        std::fs::write(folder.path().join("nodes.conf"), known).expect("it can be written");
        let dir = folder.path().to_str().expect("text");
        let options = ["--cluster-enabled", "yes", "--dir", dir];
        primaries.push((Special::start("127.0.0.1", &options).await, folder));
    }
    let addresses: Vec<String> = primaries.iter().map(|(server, _)| server.address()).collect();
    for (server, _) in &primaries[1..] {
        let meet = format!("CLUSTER MEET 127.0.0.1 {}", server.port);
        crate::tool::ask(&addresses[0], &meet).await.expect("they meet");
    }
    until(Duration::from_secs(20), "it serves", async || {
        for address in &addresses {
            let info = text(address, "CLUSTER INFO").await;
            if !info.contains("cluster_state:ok") || known(address).await < addresses.len() {
                return Err(info);
            }
        }
        Ok(())
    })
    .await;
    cluster(&format!("check {}", addresses[0])).await.ends(0).says("[OK] All 16384 slots covered.");
    let mut found = 0;
    for slot in SLOTS {
        for address in &addresses {
            let count = crate::tool::ask(address, &format!("CLUSTER COUNTKEYSINSLOT {slot}")).await;
            let count = count.ok().as_ref().and_then(slotway::resp::value::integer);
            found += usize::try_from(count.expect("a count")).expect("a count");
        }
    }
    assert!(found >= SLOTS.len() * KEYS, "{found} keys came back");
}

/// Scenario 52: the node that slots are given to dies, and there is nobody in its place. Scenario 60: it is drained, and that is
/// stopped, softly and at once.
#[tokio::test]
async fn a_change_that_is_cut_off_is_gone_on_with() {
    let _turn = beside_others().await;
    let (mut nodes, state) = (Cluster::start(3, 0).await, tempfile::tempdir().expect("a folder"));
    let (entry, folder) = (nodes.address(0), format!("--state-dir {}", state.path().display()));
    fill(&nodes, 0, SLOTS[0], 2000).await;
    let new = nodes.start_node().await;
    cluster(&format!("add-node {} {entry}", nodes.address(new))).await.ends(0);
    nodes.admit(new);
    nodes.agreed().await;
    nodes.make_durable(new).await;
    let line = format!("rebalance {entry} --use-empty-masters --rate 1000 --wait 1 {folder}");
    let mut process = begin(&line);
    half_way(&nodes, 0, SLOTS[0], 2000).await;
    nodes.kill9(new);
    assert_eq!(ended(&mut process).await, Some(4));
    // What is not to be had is named, and nobody else is given it unless that is meant.
    cluster(&format!("check {entry}")).await.ends(1).mentions("slots are open");
    let told = cluster(&format!("fix {entry} --yes {folder}")).await.ends(3);
    told.mentions("may lose data").mentions("--accept-data-loss");
    nodes.restart(new).await;
    let told = cluster(&format!("fix {entry} --yes {folder}")).await.ends(0);
    told.says("[OK] All 16384 slots covered.");
    nodes.agreed().await;
    assert_eq!(count(&nodes, new, SLOTS[0]).await, 2000);
    cluster(&format!("rebalance {entry} {folder}")).await.ends(0);
    nodes.agreed().await;
    assert_eq!(nodes.slots_of(new).await.len(), 4096);

    // Told once, it ends with no slot open.
    let drain = format!("del-node {entry} {} --drain --yes --rate 1000 {folder}", nodes.id(new));
    let mut process = begin(&drain);
    half_way(&nodes, new, SLOTS[0], 2000).await;
    signal(&process, Signal::INT);
    assert_eq!(ended(&mut process).await, Some(4));
    nodes.agreed().await;
    let left = nodes.slots_of(new).await.len();
    assert!(left > 0 && left < 4096, "{left} slots are left");
    assert_eq!(count(&nodes, 0, SLOTS[0]).await, 2000, "the slot on its way was finished");
    // Told twice, it leaves one open, and says how to go on.
    let next = nodes.slots_of(new).await[0];
    fill(&nodes, new, next, 2000).await;
    let jobs = cluster(&format!("jobs {folder}")).await.ends(0);
    let stopped = jobs.out.lines().find(|line| line.ends_with("stopped")).expect("a job");
    let id = stopped.split(' ').next().expect("its name");
    let mut process = begin(&format!("resume {id} --rate 1000 {folder}"));
    half_way(&nodes, new, next, 2000).await;
    // Two of a kind might be taken for one.
    signal(&process, Signal::INT);
    signal(&process, Signal::TERM);
    assert_eq!(ended(&mut process).await, Some(4));
    cluster(&format!("check {entry}")).await.ends(1).mentions("slots are open");
    cluster(&format!("jobs {folder}")).await.ends(0).mentions("cut off");
    cluster(&format!("resume {folder}")).await.ends(0);
    nodes.agreed().await;
    assert_eq!(nodes.slots_of(new).await, [0_usize; 0]);
    let role = text(&nodes.address(new), "INFO replication").await;
    assert!(role.contains("role:master"), "it lost its last slot, and its place: {role}");
    cluster(&format!("del-node {entry} {} {folder}", nodes.id(new))).await.ends(0);
    nodes.dismiss(new);
    let told = cluster(&format!("check {entry}")).await.ends(0);
    told.says("[OK] 4000 keys in 3 masters.");
}

/// Scenario 52 with a replica: it takes the place of the node that slots are given to, and the slots.
#[tokio::test]
async fn a_node_that_dies_while_it_is_filled_is_followed_by_its_replica() {
    let _turn = beside_others().await;
    let (mut nodes, state) = (Cluster::start(3, 0).await, tempfile::tempdir().expect("a folder"));
    let entry = nodes.address(0);
    fill(&nodes, 0, SLOTS[0], 2000).await;
    let (new, follower) = (nodes.start_node().await, nodes.start_node().await);
    cluster(&format!("add-node {} {entry}", nodes.address(new))).await.ends(0);
    let line = format!("add-node {} {entry} --slave --master-id", nodes.address(follower));
    cluster(&format!("{line} {}", nodes.id(new))).await.ends(0);
    nodes.admit(new);
    nodes.admit(follower);
    nodes.agreed().await;
    let folder = state.path().display();
    let line = format!("rebalance {entry} --use-empty-masters --rate 1000 --state-dir {folder}");
    let mut process = begin(&line);
    // Nobody takes the place of a primary that has no slots yet.
    let owns = async || match nodes.slots_of(new).await.len() {
        0 => Err("no slots yet".to_owned()),
        _ => Ok(()),
    };
    until(Duration::from_secs(30), "it owns slots", owns).await;
    half_way(&nodes, 0, SLOTS[0], 2000).await;
    nodes.kill9(new);
    assert_eq!(ended(&mut process).await, Some(0));
    nodes.agreed().await;
    assert_eq!(nodes.slots_of(follower).await.len(), 4096);
    // What had not reached the replica yet: no more than was on its way at that moment.
    let lost = 2000 - count(&nodes, follower, SLOTS[0]).await;
    assert!(lost < 500, "{lost} keys are lost");
}

/// Waits until some keys of a slot have left a node, of so many.
async fn half_way(nodes: &Cluster, from: Node, slot: usize, all: usize) {
    until(Duration::from_secs(30), "keys are on their way", async || {
        let left = count(nodes, from, slot).await;
        assert!(left > 0, "it was too quick");
        if left < all { Ok(()) } else { Err("none yet".to_owned()) }
    })
    .await;
}
