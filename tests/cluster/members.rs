//! `add-node`, `del-node`, `failover`.

use std::time::Duration;

use slotway::cluster::{NodeId, Slot};
use slotway::manage::apply::{ApplyError, Crew};
use slotway::manage::plan::{Consent, Step};

use crate::beside_others;
use crate::cluster::Cluster;
use crate::job::{Office, control};
use crate::patience::until;
use crate::tool::{ask, cluster, known, text};

/// Everybody knows so many nodes.
async fn all_know(nodes: &Cluster, members: &[usize], count: usize) {
    for node in members {
        assert_eq!(known(&nodes.address(*node)).await, count, "node {node}");
    }
}

#[tokio::test]
async fn add_node_says_ok_only_when_all_nodes_agree_even_soon_after_del_node() {
    let _turn = beside_others().await;
    let mut nodes = Cluster::start(3, 0).await;
    let (new, more) = (nodes.start_node().await, nodes.start_node().await);
    let (entry, new_at, more_at) = (nodes.address(0), nodes.address(new), nodes.address(more));
    let library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    for node in 0..3 {
        nodes.call(node, &["FUNCTION", "LOAD", library]).await;
    }

    // Another slot is on its way: refused, and nothing is done.
    nodes.call(0, &["CLUSTER", "SETSLOT", "0", "MIGRATING", nodes.id(1)]).await;
    cluster(&format!("add-node {new_at} {entry}")).await.ends(3);
    nodes.call(0, &["CLUSTER", "SETSLOT", "0", "STABLE"]).await;
    let unknown = format!("add-node --slave --master-id nobody {new_at} {entry}");
    cluster(&unknown).await.ends(3).says("[ERR] No such master ID nobody");
    assert_eq!(known(&new_at).await, 1);

    let (host_new, host_entry) =
        (new_at.replace("127.0.0.1", "localhost"), entry.replace("127.0.0.1", "localhost"));
    let told = cluster(&format!("add-node {host_new} {host_entry}")).await.ends(0);
    told.says(&format!(">>> Adding node {host_new} to cluster {host_entry}"))
        .says(">>> Getting functions from cluster")
        .says(&format!(">>> Send CLUSTER MEET to node {host_new} to make it join the cluster."))
        .says("[OK] New node added correctly.");
    all_know(&nodes, &[0, 1, 2, new], 4).await;
    let dump = async |node: &str| ask(node, "FUNCTION DUMP").await.expect("a dump");
    assert_eq!(dump(&new_at).await, dump(&entry).await);
    let told = cluster(&format!("add-node {new_at} {entry}")).await.ends(0);
    told.says(&format!("[OK] Node {new_at} is already a member of the cluster."));

    let line = format!("add-node --slave --master-id {} {more_at} {entry}", nodes.id(new));
    let told = cluster(&line).await.ends(0);
    told.says(&format!(">>> Configure node as replica of {new_at}."));
    let info = text(&more_at, "INFO replication").await;
    assert!(info.contains("master_link_status:up"), "{info}");
    cluster(&line).await.ends(0).mentions("is already a member");

    // As redis-cli removes it: soft, so that it keeps its name, which the others hear of no more for a minute.
    for node in [0, 1, 2, new] {
        nodes.call(node, &["CLUSTER", "FORGET", nodes.id(more)]).await;
    }
    nodes.call(more, &["CLUSTER", "RESET", "SOFT"]).await;
    cluster(&format!("add-node {more_at} {entry}"))
        .await
        .ends(0)
        .says("[OK] New node added correctly.");
    all_know(&nodes, &[0, 1, 2, new, more], 5).await;
    cluster(&format!("check {more_at}")).await.ends(0);
}

#[tokio::test]
async fn del_node_removes_masters_without_slots_and_dead_nodes() {
    let _turn = beside_others().await;
    let mut nodes = Cluster::start(3, 1).await;
    let entry = nodes.address(0);
    let told = cluster(&format!("del-node {entry} {}", nodes.id(1))).await.ends(1);
    told.says(&format!(
        "[ERR] Node {} is not empty! Reshard data away and try again.",
        nodes.address(1)
    ));
    cluster(&format!("del-node {entry} nobody")).await.ends(3).says("[ERR] No such node ID nobody");
    all_know(&nodes, &[0, 1, 2, 3, 4, 5], 6).await;

    // An empty primary with a replica, asked through itself: it must not be the new primary of its own replica.
    let (empty, follower) = (nodes.start_node().await, nodes.start_node().await);
    let (empty_at, follower_at) = (nodes.address(empty), nodes.address(follower));
    cluster(&format!("add-node {empty_at} {entry}")).await.ends(0);
    cluster(&format!("add-node {follower_at} {entry} --slave --master-id {}", nodes.id(empty)))
        .await
        .ends(0);
    let told = cluster(&format!("del-node {empty_at} {}", nodes.id(empty))).await.ends(0);
    told.mentions(&format!(">>> {follower_at} as replica of "))
        .says(">>> Sending CLUSTER FORGET messages to the cluster...");
    all_know(&nodes, &[0, 1, 2, 3, 4, 5, follower], 7).await;
    all_know(&nodes, &[empty], 1).await;
    assert_ne!(
        text(&empty_at, "CLUSTER MYID").await,
        nodes.id(empty),
        "it would come back as the node it was"
    );

    // Dead: a replica goes, a primary with slots stays.
    nodes.kill9(follower);
    let told =
        cluster(&format!("del-node {entry} {}", nodes.id(follower).to_uppercase())).await.ends(0);
    told.says(&format!("[OK] Node {} removed from the cluster.", nodes.id(follower)));
    all_know(&nodes, &[0, 1, 2, 3, 4, 5], 6).await;
    cluster(&format!("check {entry}")).await.ends(0);
    for node in [2, 5] {
        nodes.kill9(node);
    }
    let told = cluster(&format!("del-node {entry} {}", nodes.id(2))).await.ends(3);
    told.mentions(&format!("[ERR] Node {} is not empty!", nodes.address(2)))
        .mentions("It does not answer");

    // Who cannot be told of it is named, and the exit code says so.
    nodes.call(5 - 1, &["PING"]).await;
    let told = cluster(&format!("del-node {entry} {}", nodes.id(5))).await.ends(5);
    told.mentions(&format!(">>> Skipping unreachable node {}.", nodes.address(2)));
}

#[tokio::test]
async fn del_node_leaves_no_keys_behind_and_tells_of_a_node_that_was_not_reset() {
    let _turn = beside_others().await;
    let mut nodes = Cluster::start(3, 0).await;
    let empty = nodes.start_node().await;
    let (entry, empty_at, id) =
        (nodes.address(0), nodes.address(empty), nodes.id(empty).to_owned());
    cluster(&format!("add-node {empty_at} {entry}")).await.ends(0);
    let owner = nodes.owners().await[Slot::of(b"stray").index()];
    let slot = Slot::of(b"stray").to_string();
    nodes.call(empty, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", nodes.id(owner)]).await;
    let stray = [vec!["ASKING"], vec!["SET", "stray", "only here"]];
    control(&nodes, empty).await.pipeline(&stray).await.expect("the node answers");
    nodes.call(empty, &["CLUSTER", "SETSLOT", &slot, "STABLE"]).await;
    for how in ["", " --drain --yes"] {
        let told = cluster(&format!("del-node {entry} {id}{how}")).await.ends(3);
        told.mentions(&format!(
            "[ERR] Node {empty_at} owns no slots, but has keys that may be nowhere else: 1."
        ))
        .mentions("slotway cluster fix brings stray keys home");
    }
    all_know(&nodes, &[0, 1, 2, empty], 4).await;

    nodes.call(empty, &["FLUSHALL"]).await;
    nodes.call(empty, &["ACL", "SETUSER", "default", "-cluster|reset"]).await;
    let told = cluster(&format!("del-node {entry} {id}")).await.ends(5);
    told.mentions("it was removed, but not reset: ");
    all_know(&nodes, &[0, 1, 2], 3).await;
}

/// Charts take a shard's replicas away before they drain its primary, with the words of redis-cli and no others.
#[tokio::test]
async fn del_node_takes_the_last_replica_of_a_primary_and_not_one_of_three_primaries() {
    let _turn = beside_others().await;
    let nodes = Cluster::start(3, 1).await;
    let entry = nodes.address(0);
    let lack = |primary| format!("{} would be left without replicas", nodes.address(primary));
    let told = cluster(&format!("del-node {entry} {}", nodes.id(4))).await.ends(0);
    told.says(&format!("[WARNING] {}.", lack(1)))
        .says(&format!("[OK] Node {} removed from the cluster.", nodes.id(4)));
    let told = cluster(&format!("del-node {entry} {} --drain --json", nodes.id(5))).await.ends(0);
    let told: serde_json::Value = serde_json::from_str(&told.out).expect("JSON");
    assert_eq!(told["warnings"], serde_json::json!([lack(2)]), "{told}");
    all_know(&nodes, &[0, 1, 2, 3], 4).await;

    // Two primaries cannot replace one that fails: scenario 59.
    let state = tempfile::tempdir().expect("a folder");
    let drain = format!(
        "del-node {entry} {} --drain --yes --state-dir {}",
        nodes.id(2),
        state.path().display()
    );
    let told = cluster(&drain).await.ends(3);
    told.says("[ERR] only 2 masters with slots would be left; if that is meant, pass --force");
    assert_eq!(nodes.slots_of(2).await.len(), 5462);
    let told = cluster(&format!("{drain} --force")).await.ends(0);
    told.says("[WARNING] only 2 masters with slots would be left.");
    all_know(&nodes, &[0, 1, 3], 3).await;
    let told = cluster(&format!("check {entry}")).await.ends(0);
    told.says("[OK] All 16384 slots covered.");
}

#[tokio::test]
async fn failover_ends_when_all_know_of_it() {
    let _turn = beside_others().await;
    let mut nodes = Cluster::start(3, 1).await;
    let entry = nodes.address(1);
    let told = cluster(&format!("failover {entry} {} --dry-run", nodes.id(0))).await.ends(0);
    told.mentions("\"step\":\"failover\"");
    let told = cluster(&format!("failover {entry} {}", nodes.id(0))).await.ends(0);
    told.says(&format!("[OK] {} is a master now, and all nodes know.", nodes.address(3)));
    let role = text(&nodes.address(0), "INFO replication").await;
    assert!(role.contains("role:slave") && role.contains("master_link_status:up"), "{role}");
    cluster(&format!("check {entry}")).await.ends(0);
    let alone = format!("failover {entry} {} --to {}", nodes.id(0), nodes.id(4));
    cluster(&alone).await.ends(3).mentions("is no replica of that node");

    // Its primary is frozen, which the others do not notice so soon: nothing without force.
    cluster(&format!("set-timeout {entry} 60000")).await.mentions("(live, not persisted)");
    nodes.freeze(2);
    let line = format!("failover {entry} {} -t 1", nodes.id(5));
    let told = cluster(&format!("{line} --wait 2")).await.ends(1);
    told.mentions(&format!("{} is still a replica", nodes.address(5)));
    cluster(&format!("{line} --force")).await.ends(0);
    nodes.thaw(2);
}

#[tokio::test]
async fn failover_waits_for_a_replica_that_loads_and_lets_one_be_that_went_over() {
    let _turn = beside_others().await;
    let nodes = Cluster::start(3, 1).await;
    let office = Office::new();
    let view = office.view(&nodes, 0).await;
    let mut crew = Crew::new(&view, &office.access, office.options.patience);
    let failover =
        |node| [Step::Failover { node: NodeId(nodes.id(node).into()), consent: Consent::All }];

    // It takes two seconds to load, and looks up now and then.
    nodes.call(3, &["DEBUG", "POPULATE", "2000"]).await;
    nodes.call(3, &["CONFIG", "SET", "key-load-delay", "1000"]).await;
    nodes.call(3, &["CONFIG", "SET", "loading-process-events-interval-bytes", "1024"]).await;
    let mut busy = control(&nodes, 3).await;
    let replaced = async {
        until(Duration::from_secs(10), "it loads", async || {
            let answer = control(&nodes, 3).await.call(&[b"CLUSTER", b"MYID"]).await;
            let is_loading = matches!(&answer, Err(error) if error.to_string().contains("LOADING"));
            if is_loading { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
        crew.apply(&failover(3), &mut |_| {}).await
    };
    let (loaded, replaced) = tokio::join!(busy.call(&[b"DEBUG", b"RELOAD"]), replaced);
    loaded.expect("it is loaded");
    replaced.expect("it is waited for");
    let role = text(&nodes.address(3), "INFO replication").await;
    assert!(role.contains("role:master"), "{role}");

    nodes.call(4, &["CLUSTER", "REPLICATE", nodes.id(2)]).await;
    let refused = crew.apply(&failover(4), &mut |_| {}).await;
    let Err(ApplyError::WentOver(_, primary)) = refused else { panic!("{refused:?}") };
    assert_eq!(*primary.0, *nodes.id(2));
    let role = text(&nodes.address(2), "INFO replication").await;
    assert!(role.contains("role:master"), "{role}");
}
