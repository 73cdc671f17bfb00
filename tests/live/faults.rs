//! Clients survive the loss of a primary: they wait for its replica, and hear of nothing but unknown outcomes.

use std::time::{Duration, Instant};

use slotway::resp::value::Value;

use crate::client::{Client, bulk, ok, wire};
use crate::cluster::Cluster;
use crate::events::Event;
use crate::server::NODE_TIMEOUT;
use crate::tally::Oddity;
use crate::{alone, front, within};

/// What the proxy may take to hear of a change: the longest wait between two attempts to connect, and to ask the nodes.
const NOTICE: Duration = Duration::from_secs(1);
/// What a cluster may take, once the node timeout is over, to agree on the failure and to elect a replica.
const ELECTION: Duration = Duration::from_secs(2);
/// How long a client may wait for the replacement of a primary by a cluster that keeps to that.
const STALL: Duration = Duration::from_millis(2_500).saturating_add(NODE_TIMEOUT);

/// A primary is lost, and the proxy is no more patient than usual, unless the cluster takes longer than that: on a busy machine
/// it may, which says nothing of the proxy.
async fn check(event: Event) {
    let usual = front::options(Vec::new()).backend.request_budget;
    let mut story = event.watch_behind(front::options).await;
    if story.outage + NOTICE > usual {
        eprintln!("the cluster took too long for the usual patience: {story}");
        story.tally.expect_no_lies(&["outcome unknown", "CLUSTERDOWN"]);
        story = event.watch().await;
    }
    story.tally.expect_survived(story.outage + NOTICE);
    let late = story.outage.saturating_sub(NODE_TIMEOUT + ELECTION);
    story.tally.expect_no_stall_of(STALL + late);
}

#[tokio::test]
async fn lost_connections_are_opened_again() {
    let story = Event::Sever.watch().await;
    story.tally.expect_survived(NOTICE);
    for oddity in [Oddity::Lost, Oddity::Excused] {
        assert_eq!(story.tally.count(oddity), 0, "no node was lost: {story}");
    }
}

#[tokio::test]
async fn a_killed_primary_is_replaced() {
    check(Event::Kill).await;
}

#[tokio::test]
async fn a_frozen_primary_is_replaced() {
    check(Event::Freeze).await;
}

#[tokio::test]
async fn a_proxy_starts_while_a_primary_is_down() {
    let mut cluster = Cluster::start(3, 1).await;
    let _turn = alone().await;
    cluster.kill9(0);
    // The dead node comes first, and only one other is known.
    let mut options = front::options(vec![cluster.address(0), cluster.address(2)]);
    options.backend.request_budget = Duration::from_secs(8);
    let begun = Instant::now();
    let proxy = front::start(options).await;
    assert!(begun.elapsed() < NODE_TIMEOUT, "ready only after {:?}", begun.elapsed());
    let mut client = Client::to(proxy.data).await;
    let keys: Vec<String> = (0..300).map(|n| format!("key{n}")).collect();
    let sets: Vec<Vec<u8>> = keys.iter().map(|key| wire(&["SET", key, key])).collect();
    let replies = within(Duration::from_secs(10), "SET", client.pipeline(&sets)).await;
    assert!(replies.iter().all(|reply| *reply == ok()), "{replies:?}");
    cluster.agreed().await;
    let gets: Vec<Vec<u8>> = keys.iter().map(|key| wire(&["GET", key])).collect();
    let values: Vec<Value> = keys.iter().map(bulk).collect();
    assert_eq!(client.pipeline(&gets).await, values);
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_primary_without_replica_is_missed_for_a_time_only() {
    let mut cluster = Cluster::start(3, 0).await;
    let _turn = alone().await;
    let mut options = front::options(cluster.addresses());
    options.backend.request_budget = Duration::from_secs(1);
    let proxy = front::start(options).await;
    let mut client = Client::to(proxy.data).await;
    // Slots 12182 and 5061: the last node's, and the first one's.
    assert_eq!(client.call("SET foo v").await, ok());
    assert_eq!(client.call("SET bar v").await, ok());
    cluster.kill9(0);
    let reply = within(Duration::from_secs(3), "an error", client.call("SET bar w")).await;
    let Value::Error(text) = &reply else { panic!("{reply:?}") };
    assert!(text.starts_with("CLUSTERDOWN ") || text.contains("outcome unknown"), "{text}");
    assert_eq!(client.call("SET foo w").await, ok(), "the other nodes serve");
    cluster.restart(0).await;
    cluster.agreed().await;
    assert_eq!(client.call("SET bar w").await, ok());
    proxy.shutdown().await;
}
