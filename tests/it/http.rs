//! What is served over HTTP: the numbers of what went wrong, and health until the very end.

use std::net::SocketAddr;
use std::time::Duration;

use slotway::acl::Users;
use slotway::proxy::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Client;
use crate::fake::Act;
use crate::rig::{Rig, Setup, rig, until};

/// A proxy whose numbers can be read.
fn counted(primaries: usize) -> Setup {
    rig(primaries).with(|options: &mut Options| options.http = Some("127.0.0.1:0".to_owned()))
}

/// The page that is served there.
async fn page(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// The value of a series, given with its labels.
async fn value(rig: &Rig, series: &str) -> u64 {
    let text = page(rig.proxy().http.expect("it is served"), "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

/// The refusals that are counted, as `fault reason count`, without those that never happened.
async fn refusals(rig: &Rig) -> Vec<String> {
    let text = page(rig.proxy().http.expect("it is served"), "/metrics").await;
    let lines =
        text.lines().filter_map(|line| line.strip_prefix("slotway_refusals_total{fault=\""));
    let mut found: Vec<String> = lines
        .map(|line| line.replace("\",reason=\"", " ").replace("\"}", ""))
        .filter(|line| !line.ends_with(" 0"))
        .collect();
    found.sort();
    found
}

#[test]
fn what_nodes_cannot_do_is_the_clusters_fault() {
    counted(2).budget(Duration::from_millis(100)).run(async |rig| {
        let (a, b, mut client) = (rig.key(0), rig.key(1), rig.client().await);
        rig.node(0).always("GET", "LOADING Redis is loading the dataset in memory");
        rig.node(1).always("GET", "CLUSTERDOWN The cluster is down");
        let replies = client.ask_all(&[&format!("GET {a}"), &format!("GET {b}")]).await;
        assert!(replies[0].starts_with("-LOADING ") && replies[1].starts_with("-CLUSTERDOWN "));
        assert_eq!(refusals(rig).await, ["cluster node_unable 2"]);
    });
}

#[test]
fn a_slot_that_two_nodes_send_to_each_other_is_the_clusters_fault() {
    counted(2).budget(Duration::from_millis(100)).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        for (node, other) in [(0, 1), (1, 0)] {
            rig.node(node).always("GET", &format!("MOVED 1 {}", rig.node(other).address()));
        }
        let reply = client.ask(&format!("GET {key}")).await;
        assert!(reply.starts_with("-TRYAGAIN the slot is moving"), "{reply}");
        assert_eq!(refusals(rig).await, ["cluster slot_moving 1"]);
    });
}

#[test]
fn a_cluster_that_nobody_knows_is_the_clusters_fault() {
    let nowhere = async |cluster: &crate::fake::Cluster| cluster.node(0).down().await;
    counted(1).budget(Duration::from_millis(50)).run_from(nowhere, async |rig| {
        let mut client = rig.client().await;
        let replies = client.ask_all(&["DBSIZE", "LOLWUT", "GET"]).await;
        assert_eq!(replies[..2], ["-CLUSTERDOWN The cluster is down\r\n"; 2]);
        assert_eq!(refusals(rig).await, ["client arity 1", "cluster cluster_down 2"]);
    });
}

#[test]
fn errors_of_local_commands_are_counted() {
    counted(1).with(|options| options.users = Users::default().requiring(b"secret")).run(
        async |rig| {
            let mut client = rig.client().await;
            for line in [
                "AUTH wrong",
                "AUTH secret",
                "SELECT 1",
                "HELLO 4",
                "CLIENT FOO",
                "CONFIG SET a b",
                "CONFIG REWRITE",
                "PING a b",
                "PING",
            ] {
                client.ask(line).await;
            }
            assert_eq!(
                refusals(rig).await,
                [
                    "client argument 3",
                    "client arity 1",
                    "client auth 1",
                    "client not_allowed 1",
                    "client unknown_command 1"
                ]
            );
        },
    );
}

#[test]
fn connections_that_cannot_be_made_are_told_from_those_that_are_lost() {
    counted(1).budget(Duration::from_millis(100)).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let get = format!("GET {key}");
        assert_eq!(client.ask(&get).await, "$-1\r\n");
        let lost = "slotway_node_connections_lost_total";
        let failed = "slotway_node_connections_failed_total";
        assert_eq!((value(rig, lost).await, value(rig, failed).await), (0, 0));
        rig.node(0).down().await;
        assert!(client.ask(&get).await.starts_with("-CLUSTERDOWN node "));
        assert_eq!(value(rig, lost).await, 1);
        assert!(value(rig, failed).await > 0);
    });
}

#[test]
fn info_tells_how_many_clients_were_turned_away() {
    rig(1).with(|options| options.max_clients = 1).run(async |rig| {
        let mut client = rig.client().await;
        let check = async |client: &mut Client, rejected| {
            let info = client.ask("INFO stats").await;
            let line = format!("\r\nrejected_connections:{rejected}\r\n");
            assert!(info.contains(&line), "{info}");
        };
        check(&mut client, 0).await;
        for rejected in 1..4 {
            let mut other = rig.client().await;
            assert_eq!(other.rest().await, "-ERR max number of clients reached\r\n");
            check(&mut client, rejected).await;
        }
        assert!(client.ask("INFO stats").await.contains("\r\ntotal_connections_received:1\r\n"));
    });
}

#[test]
fn http_is_served_until_the_clients_have_finished() {
    counted(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let http = rig.proxy().http.expect("it is served");
        rig.node(0).hold();
        client.send_all(&[&format!("SET {key} v")]).await;
        until("it is out", || rig.node(0).seen().len() == 1).await;
        let mut slow = TcpStream::connect(http).await.expect("somebody listens");
        slow.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n").await.expect("it is read");
        let proxy = rig.take_proxy();
        let stopping = tokio::spawn(proxy.shutdown());
        while !page(http, "/readyz").await.starts_with("HTTP/1.1 503 ") {}
        rig.node(0).release();
        assert_eq!(client.read().await, "+OK\r\n");
        while TcpStream::connect(http).await.is_ok() {}
        slow.write_all(b"Connection: close\r\n\r\n").await.expect("it is read");
        let mut answer = String::new();
        slow.read_to_string(&mut answer).await.expect("who has begun to ask is answered");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("draining"), "{answer}");
        stopping.await.expect("it ends");
    });
}

#[test]
fn subscribers_that_are_cut_off_are_counted() {
    let limited = |options: &mut Options| options.session.pubsub_limit = 64 * 1024;
    counted(1).with(limited).run(async |rig| {
        let confirmed = "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
        let text = "x".repeat(10_000);
        let message = format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$10000\r\n{text}\r\n");
        let flood = [confirmed, &message.repeat(2000)].concat().into_bytes();
        rig.node(0).next("SUBSCRIBE", Act::Reply(flood));
        let mut stalled = Client::connect_narrow(rig.data).await;
        stalled.send_all(&["SUBSCRIBE a"]).await;
        let unsubscribed = || rig.node(0).count("unsubscribe a") == 1;
        until("the client is cut off", unsubscribed).await;
        assert_eq!(value(rig, "slotway_pubsub_cut_off_total").await, 1);
        assert!(stalled.rest().await.len() < 2000 * message.len());
    });
}
