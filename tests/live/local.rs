//! `slotway local`: clusters of real servers, started, used, stopped, started again on what was kept.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use rustix::process::{Pid, Signal, kill_process};
use slotway::backend::control::{Control, ControlError};
use slotway::manage::local::{self, Error, Local, LocalNode, Options, Role, Seen};
use tempfile::TempDir;

use crate::beside_others;

/// A folder that does not exist yet, in one that disappears with the test.
fn home() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let dir = parent.path().join("cluster");
    (parent, dir)
}

/// A small cluster on free ports.
fn options(dir: &Path) -> Options {
    let server = std::env::var_os("SLOTWAY_TEST_SERVER").map(PathBuf::from);
    Options { port: 0, dir: dir.to_owned(), server, ..Options::default() }
}

async fn connect(address: &str) -> Control {
    Control::connect(address, Duration::from_secs(5)).await.expect("the node listens")
}

/// The text of a reply, or of the error that came instead.
async fn call(address: &str, command: &str) -> Result<String, String> {
    let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
    match connect(address).await.call(&args).await {
        Ok(BytesFrame::SimpleString(text) | BytesFrame::BulkString(text)) => {
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        Ok(other) => panic!("{address} answered {command} with {other:?}"),
        Err(ControlError::Reply(_, text)) => Err(text),
        Err(error) => panic!("{address} did not answer {command}: {error}"),
    }
}

/// As a cluster client would: asks the first node, and the one that it names.
async fn call_owner(nodes: &[LocalNode], command: &str) -> String {
    match call(&nodes[0].address, command).await {
        Ok(reply) => reply,
        Err(moved) => {
            let owner = moved
                .rsplit(' ')
                .next()
                .filter(|_| moved.starts_with("MOVED "))
                .expect("a redirect");
            call(owner, command).await.expect("a reply of the owner")
        }
    }
}

fn failure(outcome: Result<Local, Error>) -> String {
    outcome.map(|local| local.nodes).expect_err("`up` has to fail").to_string()
}

#[tokio::test]
async fn up_makes_a_cluster_that_works_and_stop_leaves_nothing() {
    let _turn = beside_others().await;
    let (_parent, dir) = home();
    let local = local::up(&options(&dir)).await.unwrap();

    let slots = local.nodes.iter().filter_map(|node| match &node.role {
        Role::Primary { slots } => Some(slots.as_str()),
        Role::Replica { .. } => None,
    });
    assert_eq!(slots.collect::<Vec<_>>(), ["0-5460", "5461-10922", "10923-16383"]);
    for (replica, primary) in local.nodes[3..].iter().zip(&local.nodes) {
        assert_eq!(replica.role, Role::Replica { of: primary.address.clone() });
        let linked = call(&replica.address, "INFO replication").await.unwrap();
        assert!(linked.contains("master_link_status:up"), "{linked}");
    }
    for node in &local.nodes {
        let info = call(&node.address, "CLUSTER INFO").await.unwrap();
        for line in [
            "cluster_state:ok",
            "cluster_slots_ok:16384",
            "cluster_known_nodes:6",
            "cluster_size:3",
        ] {
            assert!(
                info.lines().any(|said| said.trim_end() == line),
                "{}: no {line} in {info}",
                node.address
            );
        }
    }
    for key in ["a", "b", "c", "key1"] {
        assert_eq!(call_owner(&local.nodes, &format!("SET {key} of-{key}")).await, "OK");
        assert_eq!(call_owner(&local.nodes, &format!("GET {key}")).await, format!("of-{key}"));
    }

    let address = local.nodes[0].address.clone();
    local.stop().await.unwrap();
    assert!(
        Control::connect(&address, Duration::from_secs(5)).await.is_err(),
        "{address} still listens"
    );
    assert!(!dir.exists(), "the data is still there");
}

#[tokio::test]
async fn kept_data_is_used_again_only_when_asked_for() {
    let _turn = beside_others().await;
    let (_parent, dir) = home();
    let keep = Options { keep: true, ..options(&dir) };
    let first = local::up(&keep).await.unwrap();
    let addresses: Vec<_> = first.nodes.iter().map(|node| node.address.clone()).collect();
    assert_eq!(call_owner(&first.nodes, "SET key1 kept").await, "OK");
    first.stop().await.unwrap();

    let leftover = failure(local::up(&options(&dir)).await);
    assert!(
        leftover.contains("nodes.conf is left of an earlier cluster: pass --keep"),
        "{leftover}"
    );
    let other = failure(local::up(&Options { nodes: 8, ..keep.clone() }).await);
    assert!(other.contains("keeps the data of 6 nodes"), "{other}");

    let second = local::up(&keep).await.unwrap();
    assert_eq!(second.nodes.iter().map(|node| node.address.clone()).collect::<Vec<_>>(), addresses);
    assert_eq!(call_owner(&second.nodes, "GET key1").await, "kept");
    second.stop().await.unwrap();
    assert!(dir.join("local.toml").exists());
}

#[tokio::test]
async fn a_detached_cluster_is_seen_and_stopped() {
    let _turn = beside_others().await;
    let (_parent, dir) = home();
    let nodes = local::up(&options(&dir)).await.unwrap().detach();

    let status = local::status(&dir).await.unwrap();
    assert_eq!(status.fault, None);
    assert_eq!(status.nodes, nodes.iter().cloned().map(Seen::Running).collect::<Vec<_>>());
    let again = failure(local::up(&options(&dir)).await);
    assert!(
        again.contains(&format!("already runs in {}", dir.canonicalize().unwrap().display())),
        "{again}"
    );

    assert_eq!(local::down(&dir).await.unwrap(), 6);
    assert_eq!(local::down(&dir).await.unwrap(), 0);
    assert!(!dir.exists());
    assert!(matches!(local::status(&dir).await, Err(Error::NoCluster { .. })));
}

#[tokio::test]
async fn a_server_that_dies_is_noticed() {
    let _turn = beside_others().await;
    let (_parent, dir) = home();
    let mut local = local::up(&Options { nodes: 3, replicas: 0, ..options(&dir) }).await.unwrap();
    let victim = local.nodes[1].clone();
    kill_process(Pid::from_raw(i32::try_from(victim.pid).unwrap()).unwrap(), Signal::KILL).unwrap();

    let (address, status) = local.next_exit().await.unwrap();
    assert_eq!((address, status.success()), (victim.address.clone(), false));
    let status = local::status(&dir).await.unwrap();
    assert_eq!(status.fault, Some(format!("{} does not run", victim.address)));
    local.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_ends_at_start_is_quoted() {
    let _turn = beside_others().await;
    let (parent, dir) = home();
    let server = parent.path().join("bad-server");
    fs::write(&server, "#!/bin/sh\necho no luck today\nexit 3\n").unwrap();
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();

    let text = failure(local::up(&Options { server: Some(server), ..options(&dir) }).await);
    assert!(
        text.contains("ended at start (exit status: 3); its last words:\nno luck today"),
        "{text}"
    );
    assert!(!dir.exists(), "a failed start left files behind");
}

#[tokio::test]
async fn a_taken_port_is_named_before_anything_starts() {
    let _turn = beside_others().await;
    let (_parent, dir) = home();
    // Other programs take and leave ports as they like: the one taken here must be named soon, or it is never.
    for attempt in 1.. {
        let (taken, node) = taken_bus_port();
        let port = taken.local_addr().expect("an address").port();
        let text = failure(local::up(&Options { port: node, ..options(&dir) }).await);
        assert!(!dir.exists());
        if text.starts_with(&format!("port {port} (the cluster bus of {node}) cannot be had")) {
            break;
        }
        assert!(attempt < 10, "{text}");
    }
}

/// Listens where a node would have its bus, and gives the node's port, which is free.
fn taken_bus_port() -> (TcpListener, u16) {
    loop {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let node = taken.local_addr().expect("an address").port() - 10_000;
        if TcpListener::bind(("127.0.0.1", node)).is_ok() {
            return (taken, node);
        }
    }
}

#[tokio::test]
async fn a_foreign_nodes_conf_is_not_touched() {
    let (_parent, dir) = home();
    let foreign = dir.join("20001/nodes.conf");
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    fs::write(&foreign, "mine").unwrap();
    for keep in [false, true] {
        let text = failure(local::up(&Options { port: 20_001, keep, ..options(&dir) }).await);
        assert!(text.contains("20001/nodes.conf is in the way"), "{text}");
    }
    assert_eq!(fs::read_to_string(&foreign).unwrap(), "mine");
}
