//! `reshard`, `rebalance`, `resume`: their words, plans and refusals. What happens to keys meanwhile is shown by `moves`.

use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::tool::{Told, begin, call, known, signal, text};
use crate::{beside_others, until, within};

/// `slotway cluster` with journals in a folder of the test's own, and this typed into it.
async fn typed(state: &TempDir, line: &str, input: &str) -> Told {
    let words: Vec<&str> = ["cluster"].into_iter().chain(line.split_whitespace()).collect();
    call(&words, input, &[("XDG_STATE_HOME", state.path().to_str().expect("text"))]).await
}

async fn cluster(state: &TempDir, line: &str) -> Told {
    typed(state, line, "").await
}

/// How many times each node was asked to move anything.
async fn moved(nodes: &Cluster, members: usize) -> usize {
    let mut count = 0;
    for node in 0..members {
        let stats = text(&nodes.address(node), "INFO commandstats").await;
        count += stats
            .lines()
            .filter(|line| line.contains("setslot") || line.contains("_migrate"))
            .count();
    }
    count
}

#[tokio::test]
async fn reshard_refuses_what_makes_no_sense_and_changes_nothing() {
    let _turn = beside_others().await;
    let (nodes, state) = (Cluster::start(3, 1).await, tempfile::tempdir().expect("a directory"));
    let (entry, from, to) = (nodes.address(0), nodes.id(0), nodes.id(1));
    for slots in ["0", "-1", "16385"] {
        let line = format!(
            "reshard {entry} --cluster-from {from} --cluster-to {to} --cluster-slots {slots} --cluster-yes"
        );
        cluster(&state, &line).await.ends(2).says("[ERR] --cluster-slots must be from 1 to 16384");
    }
    let file = state.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let line = format!(
        "reshard {entry} --from {from} --to {to} --slots 5 --state-dir {}/x",
        file.display()
    );
    let told = cluster(&state, &line).await.ends(1);
    told.mentions(&format!("no journal can be kept in {}/x: ", file.display()))
        .mentions("--state-dir");
    assert!(!told.out.contains("Performing Cluster Check"), "{}", told.out);
    let try_it = async |from: &str, to: &str| {
        cluster(&state, &format!("reshard {entry} --from {from} --to {to} --slots 5 --yes"))
            .await
            .ends(3)
    };
    let unknown = |id: &str| {
        format!("*** The specified node ({id}) is not known or not a master, please retry.")
    };
    try_it(from, from)
        .await
        .says("*** It is not possible to use the target node as source node.")
        .says("*** No source nodes given, operation aborted.");
    try_it(from, nodes.id(3)).await.says(&unknown(nodes.id(3)));
    try_it(from, "nobody").await.says(&unknown("nobody"));
    try_it(&from[..8], to).await.says(&unknown(&from[..8]));

    // Nobody is there to answer: it ends at once, while redis-cli asks for ever.
    let open = format!("reshard {entry}");
    cluster(&state, &open).await.ends(2).mentions("nobody is there to answer");
    typed(&state, &open, &format!("99999\nx\n5\n{to}\n{from}\ndone\nno\n"))
        .await
        .ends(1)
        .mentions("Ready to move 5 slots.");
    assert_eq!(moved(&nodes, 3).await, 0);
}

#[tokio::test]
async fn plans_are_shown_written_and_done_as_they_stand() {
    let _turn = beside_others().await;
    let (nodes, state) = (Cluster::start(3, 0).await, tempfile::tempdir().expect("a directory"));
    let file = state.path().join("plan.json");
    let (entry, file) = (nodes.address(0), file.to_str().expect("text"));
    let line = format!("reshard {entry} --from all --to {} --slots 30", nodes.id(2));
    cluster(&state, &format!("{line} --dry-run"))
        .await
        .ends(0)
        .says(&format!("Moving 15 slots from {entry} to {}", nodes.address(2)));
    cluster(&state, &format!("{line} --plan-out {file}")).await.ends(0);
    assert_eq!(moved(&nodes, 3).await, 0);
    cluster(&state, &format!("reshard {entry} --plan-in {file}")).await.ends(0);
    assert_eq!(nodes.slots_of(2).await.len(), 5462 + 30);
    nodes.agreed().await;
    let told = cluster(&state, &format!("reshard {entry} --plan-in {file}")).await.ends(3);
    told.mentions("the owners of slots have changed since this plan was made");
    let told = cluster(&state, &format!("{line} --json --yes")).await.ends(0);
    assert!(told.out.contains("\"ok\": true"), "{}", told.out);
}

#[tokio::test]
async fn rebalance_gives_a_new_primary_its_share_and_is_done_when_it_says_so() {
    let _turn = beside_others().await;
    let (mut nodes, state) =
        (Cluster::start(3, 1).await, tempfile::tempdir().expect("a directory"));
    let new = nodes.start_node().await;
    let entry = nodes.address(0);
    cluster(&state, &format!("add-node {} {entry}", nodes.address(new))).await.ends(0);
    nodes.admit(new);
    let told = cluster(&state, &format!("rebalance {entry}")).await.ends(0);
    told.says("*** No rebalancing needed! All nodes are within the 2.00% threshold.");
    let line = format!("rebalance {entry} --cluster-use-empty-masters");
    cluster(&state, &format!("{line} --cluster-simulate")).await.ends(0);
    assert_eq!(moved(&nodes, 3).await, 0);
    let told = cluster(&state, &line).await.ends(0);
    told.says(">>> Rebalancing across 4 nodes. Total weight = 4.00").mentions(&"#".repeat(1365));
    // The next one right behind it finds all nodes agreed, replicas too.
    let told = cluster(&state, &line).await.ends(0);
    told.says("*** No rebalancing needed! All nodes are within the 2.00% threshold.");
    nodes.agreed().await;
    for node in [0, 1, 2, new] {
        assert_eq!(nodes.slots_of(node).await.len(), 4096, "node {node}");
    }

    let weigh = |weights: &str| format!("{line} --cluster-weight {weights}");
    let short = |node: usize| nodes.id(node)[..12].to_owned();
    for (weights, code, text) in [
        ("nobody=1".to_owned(), 3, "*** No such master node nobody".to_owned()),
        (format!("{}=x", short(0)), 2, format!("*** invalid input {}=x", short(0))),
        (format!("{}=-1", short(0)), 2, "a weight must be a number from 0 on".to_owned()),
        (format!("{}=nan", short(0)), 2, "a weight must be a number from 0 on".to_owned()),
        (
            format!("{}=0 {}=0 {}=0 {}=0", short(0), short(1), short(2), short(new)),
            2,
            "at least one node must have a weight above 0".to_owned(),
        ),
    ] {
        let told = cluster(&state, &weigh(&weights)).await.ends(code);
        told.mentions(&text);
    }
    cluster(&state, &format!("{line} --cluster-threshold -1")).await.ends(2);
    let never = format!("rebalance {entry} --threshold 0 --auto-weights");
    let told = cluster(&state, &format!("{never} --weight {}=5", nodes.id(0))).await.ends(0);
    told.says("*** No rebalancing needed! All nodes are within the 0.00% threshold.");

    // Weight 0 empties it, and it stays a primary.
    // A timeout of 0 is a second, as by redis-trib.
    cluster(&state, &format!("{} --timeout 0", weigh(&format!("{}=0", short(new))))).await.ends(0);
    nodes.agreed().await;
    assert_eq!(nodes.slots_of(new).await.len(), 0);
    let role = text(&nodes.address(new), "INFO replication").await;
    assert!(role.contains("role:master"), "{role}");
    cluster(&state, &line).await.ends(0);
    nodes.agreed().await;
    assert_eq!(nodes.slots_of(new).await.len(), 4096);

    // Drained and removed in one go, no one of the others gets more than its share.
    let told =
        cluster(&state, &format!("del-node {entry} {} --drain --yes", nodes.id(new))).await.ends(0);
    told.says(&format!("[OK] Node {} removed from the cluster.", nodes.id(new)));
    assert_eq!(known(&entry).await, 6);
    nodes.dismiss(new);
    for node in 0..3 {
        assert!([5461, 5462].contains(&nodes.slots_of(node).await.len()), "node {node}");
    }
}

#[tokio::test]
async fn what_was_cut_off_is_gone_on_with() {
    let _turn = beside_others().await;
    let (nodes, state) = (Cluster::start(3, 0).await, tempfile::tempdir().expect("a directory"));
    let entry = nodes.address(0);
    let folder = format!("--state-dir {}", state.path().join("slotway").display());
    for n in 0..2000 {
        nodes.call(0, &["SET", &format!("{{491}}{n}"), "value"]).await;
    }
    let slot = text(&entry, "CLUSTER NODES").await;
    assert!(slot.contains("0-5460"), "{slot}");
    let number = slotway::cluster::Slot::of(b"491").number();
    // All slots up to that of the keys.
    let line = format!(
        "reshard {entry} --from {} --to {} --slots {} --yes --rate 500",
        nodes.id(0),
        nodes.id(1),
        number + 1
    );
    let mut process = begin(&format!("{line} {folder}"));
    until(Duration::from_secs(20), "keys are on their way", async || {
        let size = text(&nodes.address(1), "INFO keyspace").await;
        if size.contains("keys=") { Ok(()) } else { Err(size) }
    })
    .await;
    signal(&process, Signal::KILL);
    within(Duration::from_secs(5), "it ends", process.wait()).await.expect("our child");

    let told = cluster(&state, &format!("check {entry}")).await.ends(1);
    told.mentions("[WARNING] The following slots are open: ");
    let told = cluster(&state, &line).await.ends(3);
    told.says("*** Please fix your cluster problems before resharding")
        .mentions("Go on with: slotway cluster resume j-");
    cluster(&state, "jobs").await.ends(0).mentions("cut off");

    // A terminal that is gone is one Ctrl-C: what is open is finished, and nothing else begun.
    let mut process = begin(&format!("resume --rate 2000 {folder}"));
    until(Duration::from_secs(20), "it runs", async || {
        let told = cluster(&state, "jobs").await.ends(0);
        if told.out.contains("running") { Ok(()) } else { Err(told.out) }
    })
    .await;
    signal(&process, Signal::HUP);
    let status =
        within(Duration::from_secs(30), "it ends", process.wait()).await.expect("our child");
    assert!([Some(0), Some(4)].contains(&status.code()), "{status}");
    if status.code() == Some(4) {
        let told = cluster(&state, "jobs").await.ends(0);
        let id = told.out.split(' ').next().expect("a name").to_owned();
        cluster(&state, &format!("resume {id}")).await.ends(0);
    }
    nodes.agreed().await;
    let told = cluster(&state, &format!("check {entry}")).await.ends(0);
    told.says("[OK] 2000 keys in 3 masters.");
    cluster(&state, "resume").await.ends(0).says("No job was cut off.");
    let owners = nodes.owners().await;
    assert!(owners[..=usize::from(number)].iter().all(|owner| *owner == 1));
}
