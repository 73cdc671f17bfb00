//! Clients notice nothing when slots move, primaries change places, and nodes come and go.

use std::time::Duration;

use slotway::cluster::Slot;
use slotway::resp::value::Value;

use crate::client::{Client, bulk, ok, wire};
use crate::cluster::Cluster;
use crate::events::{Event, HICCUP};
use crate::{beside_others, front, until};

#[tokio::test]
async fn a_reshard_goes_unnoticed() {
    Event::Reshard.watch().await.expect_unnoticed(&["MOVED", "ASK"]);
}

#[tokio::test]
async fn slots_that_move_slowly_go_unnoticed() {
    Event::SlowSlots.watch().await.expect_unnoticed(&["MOVED", "ASK", "TRYAGAIN"]);
}

#[tokio::test]
async fn a_manual_failover_goes_unnoticed() {
    Event::Failover.watch().await.expect_unnoticed(&["MOVED"]);
}

#[tokio::test]
async fn a_node_that_joins_and_leaves_goes_unnoticed() {
    Event::JoinAndLeave.watch().await.expect_unnoticed(&["MOVED", "ASK"]);
}

#[tokio::test]
async fn a_replica_that_returns_and_takes_over_goes_unnoticed() {
    Event::Return.watch().await.expect_unnoticed(&["MOVED"]);
}

#[tokio::test]
async fn a_hiccup_is_waited_out() {
    let story = Event::Hiccup.watch().await;
    story.expect_unnoticed(&[]);
    story.tally.expect_no_stall_of(HICCUP + Duration::from_millis(500));
}

#[tokio::test]
async fn a_cluster_that_is_down_for_a_while_is_waited_for() {
    let story = Event::Minority.watch().await;
    story.expect_unnoticed(&["CLUSTERDOWN"]);
    story.tally.expect_no_stall_of(story.outage + Duration::from_millis(500));
}

/// One of the keys of a command has moved, another has not. The node says `TRYAGAIN`, while it answers commands behind
/// that one which have a single key: those must not run first.
#[tokio::test]
async fn a_pipeline_meets_a_slot_half_way() {
    let cluster = Cluster::start(3, 0).await;
    let _turn = beside_others().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("MSET {bar}a 1 {bar}b 1").await, ok());
    let requests = ["MSET {bar}a 2 {bar}b 2", "GET {bar}a", "GET {bar}b", "MGET {bar}a {bar}b"];
    let requests = requests.map(|line| wire(&line.split(' ').collect::<Vec<_>>()));
    let (mut moved, client) = (0, &mut client);
    let halfway = async || {
        moved += 1;
        if moved == 2 {
            client.send(&requests.concat()).await.expect("the requests are taken");
            refused(&cluster, "TRYAGAIN").await;
        }
    };
    cluster.move_slot(Slot::of(b"bar"), 1, halfway).await;
    let mut replies = Vec::new();
    for _ in &requests {
        replies.push(client.reply().await.expect("a reply"));
    }
    let both = Value::Array(vec![bulk("2"), bulk("2")]);
    assert_eq!(replies, [ok(), bulk("2"), bulk("2"), both]);
    proxy.shutdown().await;
}

/// A command of a transaction cannot be queued while the slot is half way, one behind it can.
#[tokio::test]
async fn a_transaction_meets_a_slot_half_way() {
    let cluster = Cluster::start(3, 0).await;
    let _turn = beside_others().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("MSET {bar}a 1 {bar}b 1").await, ok());
    let requests = ["MULTI", "MSET {bar}a 2 {bar}b 2", "INCR {bar}a", "INCR {bar}b", "EXEC"];
    let requests = requests.map(|line| wire(&line.split(' ').collect::<Vec<_>>()));
    let (mut moved, asking) = (0, &mut client);
    let halfway = async || {
        moved += 1;
        if moved == 2 {
            asking.send(&requests.concat()).await.expect("the requests are taken");
            refused(&cluster, "TRYAGAIN").await;
        }
    };
    cluster.move_slot(Slot::of(b"bar"), 1, halfway).await;
    for _ in 1..requests.len() {
        client.reply().await.expect("a reply");
    }
    let results = Value::Array(vec![ok(), Value::Integer(3), Value::Integer(3)]);
    assert_eq!(client.reply().await.expect("a reply"), results);
    proxy.shutdown().await;
}

/// Waits until nodes have answered with such an error.
async fn refused(cluster: &Cluster, code: &str) {
    until(Duration::from_secs(5), code, async || {
        let said = cluster.errors_said().await;
        said.contains_key(code).then_some(()).ok_or(format!("{said:?}"))
    })
    .await;
}
