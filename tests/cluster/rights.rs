//! Users with few rights, passwords, and other ways of reaching nodes.

use serde_json::Value as Json;
use slotway::resp::value;

use crate::beside_others;
use crate::cluster::{Cluster, Node};
use crate::job::{Office, control, count, fill, key, tag};
use crate::tool::{Told, call, known, text};

/// What a user needs to move slots, as the manual says.
const RIGHTS: &str = "+info +ping +cluster +config|get +acl|dryrun +multi +exec +wait +memory|usage +migrate +restore-asking +select +asking +exists +dump +pttl";

/// The slot that has copies at two nodes.
const SLOT: usize = 7;

/// Nodes, each with a user of these rights.
async fn grant(nodes: &Cluster, members: &[Node], rights: &str) {
    for node in members {
        let rights = rights.split(' ');
        let words: Vec<&str> =
            ["ACL", "SETUSER", "mover", "on", ">pw", "~*"].into_iter().chain(rights).collect();
        nodes.call(*node, &words).await;
    }
}

/// `slotway cluster`, with journals in a folder of the test's own.
async fn told(state: &tempfile::TempDir, line: &str) -> Told {
    let words: Vec<&str> = ["cluster"].into_iter().chain(line.split_whitespace()).collect();
    call(&words, "", &[("XDG_STATE_HOME", state.path().to_str().expect("a path"))]).await
}

#[tokio::test]
async fn a_user_needs_few_rights_and_the_one_that_is_missing_is_named() {
    let _turn = beside_others().await;
    let (nodes, state) = (Cluster::start(3, 0).await, tempfile::tempdir().expect("a directory"));
    let entry = nodes.address(0);
    grant(&nodes, &[0, 1, 2], RIGHTS).await;
    fill(&nodes, 0, 7, 20).await;
    let user = "--user mover --pass pw";
    let line = format!(
        "reshard {entry} {user} --from {} --to {} --slots 8 --yes --method legacy",
        nodes.id(0),
        nodes.id(1)
    );

    told(&state, &line.replace("pw", "no")).await.ends(1).mentions("WRONGPASS");
    grant(&nodes, &[0], "-cluster").await;
    let refused = told(&state, &line).await.ends(1);
    refused.says(&format!("Node {entry} replied with error:")).mentions("'cluster|info' command");
    grant(&nodes, &[0], "+cluster").await;
    grant(&nodes, &[1], "-restore-asking").await;
    told(&state, &line)
        .await
        .ends(3)
        .mentions(&format!("[ERR] {} would refuse RESTORE-ASKING: ", nodes.address(1)))
        .mentions("has no permissions to run the 'restore-asking' command");
    grant(&nodes, &[0], "-migrate").await;
    told(&state, &line).await.ends(3).mentions(&format!("[ERR] {entry} would refuse MIGRATE: "));
    grant(&nodes, &[0], "+migrate").await;

    // One who may not even ask what it may finds out on the way, and goes on when that is mended.
    grant(&nodes, &[1], "-acl|dryrun").await;
    let paused = told(&state, &line).await.ends(4);
    paused.mentions("'restore-asking' command").mentions("Go on with: slotway cluster resume");
    grant(&nodes, &[1], RIGHTS).await;
    told(
        &state,
        &format!("resume {user} --cluster-pipeline 3 --cluster-replace --max-block-ms 1000"),
    )
    .await
    .ends(0)
    .mentions("Note: --cluster-replace changes nothing here.");
    assert_eq!(count(&nodes, 1, 7).await, 20);
    let counts = text(&entry, "INFO commandstats").await;
    assert!(counts.contains("cmdstat_migrate:calls=8,"), "seven, and one that failed: {counts}");

    // A node that has no password does not answer those who give one.
    for node in [0, 1] {
        nodes.call(node, &["CONFIG", "SET", "requirepass", "pw"]).await;
    }
    let line = line.replace("--user mover", "");
    told(&state, &line).await.ends(3).mentions("called without any password configured");
}

#[tokio::test]
async fn nodes_are_known_by_what_they_announce_and_removed_from_all_that_listen() {
    let _turn = beside_others().await;
    let mut nodes = Cluster::start(3, 0).await;
    let new = nodes.start_node().await;
    for node in [0, 1, 2, new] {
        let port = nodes.address(node).rsplit_once(':').expect("a port").1.to_owned();
        let bus = (port.parse::<u16>().expect("a number") + 10_000).to_string();
        for (name, value) in [
            ("cluster-announce-hostname", "localhost"),
            ("cluster-preferred-endpoint-type", "hostname"),
            ("cluster-announce-port", &port),
            ("cluster-announce-bus-port", &bus),
        ] {
            nodes.call(node, &["CONFIG", "SET", name, value]).await;
        }
    }
    let named = |node: Node| nodes.address(node).replace("127.0.0.1", "localhost");
    let (entry, state) = (named(0), tempfile::tempdir().expect("a directory"));
    told(&state, &format!("add-node {} {entry}", named(new))).await.ends(0);
    let line = format!("reshard {entry} --from all --to {} --slots 6 --yes", nodes.id(new));
    told(&state, &line).await.ends(0);
    let seen = told(&state, &format!("check {entry} --json")).await.ends(0);
    let seen: Json = serde_json::from_str(&seen.out).expect("JSON");
    let members = seen["cluster"]["nodes"].as_array().expect("the nodes");
    assert!(members.iter().all(|node| node["hostname"] == "localhost"), "{seen}");
    assert_eq!(members.len(), 4);
    // A client is sent to the name, and the slots are where they were sent.
    let slots = nodes.call(new, &["CLUSTER", "SLOTS"]).await;
    let first = value::array(&slots).and_then(|slots| value::array(&slots[0])).expect("a range");
    let owner = value::array(&first[2]).expect("an owner");
    assert_eq!(value::text(&owner[0]), Some("localhost"), "{slots:?}");

    // Other ways to say the same.
    told(&state, &format!("check -4 {entry} -u redis://localhost:1")).await.ends(0);
    told(&state, &format!("check -6 {}", nodes.address(0)))
        .await
        .ends(1)
        .mentions("the host has no such address");
    let echo = async |words: &[&str]| {
        let words: Vec<&str> = ["cluster", "call", &entry].iter().chain(words).copied().collect();
        call(&words, "a\0b\n", &[]).await.ends(0)
    };
    echo(&["ECHO", "-x"]).await.mentions(": a\0b\n");
    echo(&["-X", "TAG", "ECHO", "TAG"]).await.mentions(": a\0b\n");
    let words = ["cluster", "call", &entry, "PING", "-X", "TAG"];
    call(&words, "", &[]).await.ends(2).says("-X: none of the arguments is the tag");

    // A member that refuses to forget a node is named, and nobody waits for it.
    nodes.call(1, &["ACL", "SETUSER", "default", "-cluster|forget"]).await;
    let line = format!("del-node {entry} {} --drain --yes --json", nodes.id(new));
    let removed = told(&state, &line).await.ends(5);
    let removed: Json = serde_json::from_str(&removed.out).expect("one document");
    assert_eq!(removed["drained"]["progress"]["slots"], 6, "{removed}");
    let failed = removed["failed"].to_string();
    assert!(failed.contains(&named(1)) || failed.contains(&nodes.address(1)), "{removed}");
    assert!(failed.contains("NOPERM"), "{removed}");
    for (node, count) in [(0, 3), (1, 4), (2, 3)] {
        assert_eq!(known(&nodes.address(node)).await, count, "node {node}");
    }
}

/// What a node does not let the user look at is not taken for a key that is not there.
#[tokio::test]
async fn no_copy_is_lost_for_want_of_a_right() {
    let _turn = beside_others().await;
    let (nodes, office) = (Cluster::start(2, 0).await, Office::new());
    office.cut_off_at_once(&nodes, &[(0, 1, SLOT..SLOT + 1)]).await;
    let (slot, key) = (SLOT.to_string(), key(&tag(SLOT), 0));
    nodes.call(0, &["SET", &key, "newer"]).await;
    nodes.call(1, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", nodes.id(0)]).await;
    nodes.call(0, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", nodes.id(1)]).await;
    let mut target = control(&nodes, 1).await;
    let old = [vec!["ASKING"], vec!["SET", &key, "old"]];
    target.pipeline(&old).await.expect("the target answers");
    for (node, right) in [(0, "exists"), (0, "dump"), (1, "asking"), (1, "dump"), (1, "pttl")] {
        nodes.call(node, &["ACL", "SETUSER", "default", &format!("-{right}")]).await;
        let paused = office.resume(|_| ()).await.expect_err("the user may not do that");
        let why = paused.to_string();
        let names_it = why.contains(nodes.address(node).as_str()) && why.contains("NOPERM");
        assert!(names_it && why.contains(&right.to_uppercase()), "{node} {right}: {why}");
        nodes.call(node, &["ACL", "SETUSER", "default", &format!("+{right}")]).await;
    }
    let summary = office.resume(|_| ()).await.expect("it goes on");
    assert_eq!(summary.quarantined.iter().map(|kept| kept.count).sum::<usize>(), 1);
    assert_eq!(value::text(&nodes.call(1, &["GET", &key]).await), Some("newer"));
    nodes.agreed().await;
}

/// The same of keys that come home.
#[tokio::test]
async fn no_stray_is_lost_for_want_of_a_right() {
    let _turn = beside_others().await;
    let (nodes, state) = (Cluster::start(2, 0).await, tempfile::tempdir().expect("a directory"));
    let (slot, key) = (SLOT.to_string(), key(&tag(SLOT), 0));
    nodes.call(0, &["SET", &key, "newer"]).await;
    nodes.call(1, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", nodes.id(0)]).await;
    let mut stray = control(&nodes, 1).await;
    let old = [vec!["ASKING"], vec!["SET", &key, "old"]];
    stray.pipeline(&old).await.expect("the node answers");
    let line = format!("fix {} --yes", nodes.address(0));
    for (node, right) in [(0, "exists"), (0, "dump"), (1, "dump"), (1, "pttl"), (1, "del")] {
        nodes.call(node, &["ACL", "SETUSER", "default", &format!("-{right}")]).await;
        let refused = told(&state, &line).await.ends(1);
        refused.mentions(&format!("{} answered ", nodes.address(node))).mentions("NOPERM");
        refused.mentions(&format!("the '{right}' command"));
        assert_eq!(count(&nodes, 1, SLOT).await, 1, "{right}");
        nodes.call(node, &["ACL", "SETUSER", "default", &format!("+{right}")]).await;
    }
    told(&state, &line).await.ends(5);
    assert_eq!(count(&nodes, 1, SLOT).await, 0);
    assert_eq!(value::text(&nodes.call(0, &["GET", &key]).await), Some("newer"));
    nodes.agreed().await;
}
