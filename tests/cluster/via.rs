//! `--via`: a running proxy does what the line says.

use std::time::Duration;

use serde_json::Value as Json;
use slotway::backend::Control;
use slotway::proxy;
use slotway::proxy::Running;
use slotway::resp::value::Value;
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::tool::Special;
use crate::{beside_others, front, tool};

const PASSWORD: &str = "secret";
const LIMIT: Duration = Duration::from_secs(5);

async fn administered(nodes: &Cluster, folder: &TempDir) -> Running {
    let mut options: proxy::Options = front::options(nodes.addresses());
    options.admin = Some("127.0.0.1:0".to_owned());
    options.admin_password = Some(PASSWORD.to_owned());
    options.admin_call = true;
    options.state_folder = Some(folder.path().to_owned());
    front::start(options).await
}

#[tokio::test]
async fn a_node_joins_and_leaves_through_a_proxy() {
    let _turn = beside_others().await;
    let (mut nodes, folder) = (Cluster::start(3, 0).await, tempfile::tempdir().expect("a folder"));
    let new = nodes.start_node().await;
    let proxy = administered(&nodes, &folder).await;
    let admin = proxy.admin.expect("an admin port");
    let via = async |line: &str| {
        tool::cluster(&format!("{line} --via {admin} --pass {PASSWORD} --yes")).await
    };
    let (address, id) = (nodes.address(new), nodes.id(new).to_owned());
    tool::cluster(&format!("check {} --via {admin}", nodes.address(0))).await.ends(2);
    via("reshard --to x --from y").await.ends(2).mentions("--cluster-slots is missing");
    let refused = tool::cluster(&format!("add-node {address} --via {admin} --yes")).await;
    refused.ends(1).mentions("NOAUTH");
    let plan = via(&format!("add-node {address} --dry-run")).await.ends(0);
    plan.mentions(">>> The proxy's plan:").mentions(r#""step":"join""#);
    via(&format!("add-node {address}")).await.ends(0).mentions("[OK] Job j-");
    nodes.admit(new);
    nodes.agreed().await;
    assert_eq!(nodes.slots_of(new).await.len(), 0);
    let told = via("rebalance --use-empty-masters").await.ends(0);
    told.mentions("slots ").mentions("is completed: 4096 slots moved.");
    assert_eq!(nodes.slots_of(new).await.len(), 4096);
    via(&format!("del-node {id}")).await.ends(3).mentions("NOTEMPTY Node");
    let told = via(&format!("del-node {id} --drain --json")).await.ends(0);
    let told: Json = serde_json::from_str(told.out.trim()).expect("JSON");
    assert_eq!((&told["ok"], &told["job"]["state"]), (&true.into(), &"completed".into()));
    nodes.dismiss(new);
    nodes.agreed().await;
    proxy.shutdown().await;
}

#[tokio::test]
async fn nodes_are_called_keys_come_in_and_all_is_saved_through_a_proxy() {
    let _turn = beside_others().await;
    let (nodes, folder) = (Cluster::start(3, 0).await, tempfile::tempdir().expect("a folder"));
    let source = Special::start("127.0.0.1", &["--requirepass", "p%s"]).await;
    let mut control = Control::connect(&source.address(), LIMIT).await.expect("it listens");
    control.call(&[b"AUTH", b"p%s"]).await.expect("it is right");
    for n in 0..300 {
        control.call(&[b"SET", format!("key{n}").as_bytes(), b"v"]).await.expect("it is set");
    }
    let proxy = administered(&nodes, &folder).await;
    let via = format!("--via {} --pass {PASSWORD}", proxy.admin.expect("an admin port"));
    let told = tool::cluster(&format!("call ECHO -1 {via}")).await.ends(0);
    assert_eq!(told.out.matches(": -1\n").count(), 3, "{}", told.out);
    tool::cluster(&format!("call NONSENSE {via}")).await.ends(1).mentions(": ERR unknown command");
    let told = tool::cluster(&format!("set-timeout 2500 {via}")).await.ends(1);
    told.mentions("(live, not persisted)").says(">>> New node timeout set. 0 OK, 3 ERR.");

    let from = format!("--cluster-from {} --cluster-from-pass p%s", source.address());
    let plan = tool::cluster(&format!("import {from} --copy --dry-run {via}")).await.ends(0);
    plan.mentions(r#""keys":300"#);
    let told = tool::cluster(&format!("import {from} --copy {via}")).await.ends(0);
    told.mentions("is completed: 300 keys came in.");
    control.call(&[b"SET", b"key7", b"newer"]).await.expect("it is set");
    let told = tool::cluster(&format!("import {from} {via}")).await.ends(1);
    told.mentions("1 keys have another value in the cluster and were left where they are");
    assert_eq!(control.call(&[b"DBSIZE"]).await.expect("a number"), Value::Integer(1));
    tool::cluster(&format!("import {from} --replace {via}")).await.ends(0);
    assert_eq!(control.call(&[b"DBSIZE"]).await.expect("a number"), Value::Integer(0));

    let path = tempfile::tempdir().expect("a folder");
    let told = tool::cluster(&format!("backup {}/nowhere {via}", path.path().display())).await;
    told.ends(3).mentions("PRECONDITION there is no folder");
    tool::cluster(&format!("backup {} {via}", path.path().display())).await.ends(0);
    let files = std::fs::read_dir(path.path()).expect("files").count();
    assert_eq!(files, 4, "three primaries and the layout");

    // Of the password nothing is written down.
    for entry in std::fs::read_dir(folder.path().join("orders")).expect("orders") {
        let text = std::fs::read_to_string(entry.expect("a file").path()).expect("text");
        assert!(!text.contains("p%"), "{text}");
    }
    proxy.shutdown().await;
}
