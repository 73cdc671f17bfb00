//! `--via`: a running proxy does what the line says.

use serde_json::Value;
use slotway::proxy;
use slotway::proxy::Running;
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::{beside_others, front, tool};

const PASSWORD: &str = "secret";

async fn administered(nodes: &Cluster, folder: &TempDir) -> Running {
    let mut options: proxy::Options = front::options(nodes.addresses());
    options.admin = Some("127.0.0.1:0".to_owned());
    options.admin_password = Some(PASSWORD.to_owned());
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
    let told: Value = serde_json::from_str(told.out.trim()).expect("JSON");
    assert_eq!((&told["ok"], &told["job"]["state"]), (&true.into(), &"completed".into()));
    nodes.dismiss(new);
    nodes.agreed().await;
    proxy.shutdown().await;
}
