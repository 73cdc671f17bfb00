//! `call`, `set-timeout`, `info`, `nodes`: what is done on each node by itself.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::tool::{cluster, slotway};
use crate::{beside_others, until};

#[tokio::test]
async fn each_node_answers_for_itself() {
    let _turn = beside_others().await;
    let mut nodes = Cluster::start(3, 1).await;
    let entry = nodes.address(0);
    let told = cluster(&format!("call {entry} PING")).await.ends(0);
    told.says(">>> Calling PING").says(&format!("{entry}: PONG"));
    assert_eq!(told.out.lines().count(), 7, "{}", told.out);
    let told = cluster(&format!("call {entry} ECHO -1 --cluster-only-masters")).await.ends(0);
    assert_eq!(told.out.matches(": -1\n").count(), 3, "{}", told.out);
    let told =
        slotway(&["--cluster", "call", &entry, "SET", "foo\u{7}\n", "x", "--only-primaries"]).await;
    assert_eq!(told.ends(5).out.matches(": OK\n").count(), 1);
    until(Duration::from_secs(5), "the replica has it", async || {
        let told = cluster(&format!("call {entry} DBSIZE --cluster-only-replicas")).await.ends(0);
        if told.out.matches(": 1\n").count() == 1 { Ok(()) } else { Err(told.out) }
    })
    .await;

    let told = cluster(&format!("info {}", entry.replace(':', " "))).await.ends(0);
    told.mentions("-> 1 keys | ")
        .says("[OK] 1 keys in 3 masters.")
        .says("0.00 keys per slot on average.");
    assert_eq!(told.out.matches(" slots | 1 slaves.").count(), 3, "{}", told.out);
    let told = cluster(&format!("nodes {entry}")).await.ends(0);
    assert_eq!(told.out.matches("replica of ").count(), 3, "{}", told.out);

    cluster(&format!("set-timeout {entry} 50"))
        .await
        .ends(2)
        .says("Setting a node timeout of less than 100 milliseconds is a bad idea.");
    assert!(timeout(&nodes.address(1)).await.contains("2000"));
    let told = cluster(&format!("set-timeout {entry} 2500")).await.ends(1);
    told.says(&format!(
        "ERR setting node-timeout for {entry}: ERR The server is running without a config file (live, not persisted)"
    ))
    .says(">>> New node timeout set. 0 OK, 6 ERR.");
    assert!(timeout(&nodes.address(1)).await.contains("2500"));

    nodes.kill9(5);
    let told = cluster(&format!("call {entry} PING")).await.ends(5);
    told.says(&format!("{}: Failed!", nodes.address(5))).says(&format!("{entry}: PONG"));
    cluster(&format!("call {entry} PING --exit-compat")).await.ends(0);
}

async fn timeout(address: &str) -> String {
    let mut control = slotway::backend::Control::connect(address, Duration::from_secs(2))
        .await
        .expect("it listens");
    let reply = control.call(&[b"CONFIG", b"GET", b"cluster-node-timeout"]).await.expect("a value");
    format!("{reply:?}")
}

#[tokio::test]
async fn wrong_words_change_nothing_and_say_so() {
    cluster("sideways a:1").await.ends(2).says("Unknown --cluster subcommand");
    let told = cluster("del-node a:1").await.ends(2);
    told.says("[ERR] Wrong number of arguments for specified --cluster sub command");
    let told = cluster("check nonsense").await.ends(2);
    told.mentions("you need to pass either a valid address (ie. 120.0.0.1:7000)");
    cluster("create a:1 nonsense").await.ends(2).says("Invalid address format: nonsense");
    cluster("check a:1 --user x").await.ends(2).mentions("--user needs a password");
    cluster("help").await.ends(0).mentions("add-node");
}
