//! Transactions over several slots, one for each slot.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use slotway::cluster::Slot;
use slotway::proxy::Running;
use slotway::resp::value::{self, Value};
use slotway::session::{Queueing, Transactions};
use tokio::task::JoinSet;

use crate::client::{Client, bulk, ok, wire};
use crate::cluster::Cluster;
use crate::{alone, front, within};

const LONG: Duration = Duration::from_secs(60);
/// Tags of keys in so many slots.
const TAGS: [&str; 4] = ["a", "b", "c", "d"];
const WRITERS: usize = 6;

async fn per_slot(cluster: &Cluster, queueing: Queueing) -> Running {
    let mut options = front::options(cluster.addresses());
    options.session.transactions = Transactions::PerSlot;
    options.session.queueing = queueing;
    front::start(options).await
}

/// A transaction of this command on two keys of a writer in each slot: on all first ones, and then on all second ones.
fn transaction(command: &str, writer: usize) -> Vec<Vec<u8>> {
    let keys =
        ["x", "y"].into_iter().flat_map(|half| TAGS.map(|tag| format!("{{{tag}}}{half}{writer}")));
    let commands = keys.map(|key| wire(&[command, &key]));
    std::iter::once(wire(&["MULTI"])).chain(commands).chain([wire(&["EXEC"])]).collect()
}

/// Counts all of its keys up together, each of which has to have been counted up as often as it was told; gives how often.
async fn count_up(proxy: SocketAddr, writer: usize, over: Arc<AtomicBool>) -> i64 {
    let mut client = Client::to(proxy).await;
    if writer % 2 == 1 {
        client.hello3().await.expect("RESP3");
    }
    let (one, mut count) = (transaction("INCR", writer), 0);
    let batch: Vec<Vec<u8>> = std::iter::repeat_n(one.clone(), 5).flatten().collect();
    while !over.load(Relaxed) {
        let replies = client.pipeline(&batch).await;
        for exec in replies.iter().skip(one.len() - 1).step_by(one.len()) {
            count += 1;
            assert_eq!(exec, &Value::Array(vec![Value::Integer(count); 2 * TAGS.len()]));
        }
    }
    count
}

/// Looks at a writer's keys: those of one slot are always changed together. Gives how often it has looked.
async fn look(proxy: SocketAddr, writer: usize, over: Arc<AtomicBool>) -> i64 {
    let mut client = Client::to(proxy).await;
    let (one, mut count) = (transaction("GET", writer), 0);
    while !over.load(Relaxed) {
        let exec = client.pipeline(&one).await.pop().expect("a reply");
        let values = value::array(&exec).unwrap_or_else(|| panic!("{exec:?}"));
        let (first, second) = values.split_at(TAGS.len());
        assert_eq!(first, second);
        count += 1;
    }
    count
}

#[tokio::test]
async fn those_of_each_slot_stay_whole_while_slots_move() {
    let cluster = Cluster::start(3, 0).await;
    let _turn = alone().await;
    let proxy = per_slot(&cluster, Queueing::Proxy).await;
    let asking = per_slot(&cluster, Queueing::Nodes).await;
    let (mut writers, mut readers) = (JoinSet::new(), JoinSet::new());
    let over = Arc::new(AtomicBool::new(false));
    for writer in 0..WRITERS {
        let over = || Arc::clone(&over);
        let data = if writer % 3 == 0 { asking.data } else { proxy.data };
        let counting = count_up(data, writer, over());
        writers.spawn(async move { (writer, counting.await) });
        readers.spawn(look(data, writer, over()));
    }
    let owners = cluster.owners().await;
    for round in 1..3 {
        for slot in TAGS.map(|tag| Slot::of(tag.as_bytes())) {
            cluster.move_slot(slot, (owners[slot.index()] + round) % 3, async || {}).await;
        }
    }
    over.store(true, Relaxed);
    let counts = within(LONG, "the writers", writers.join_all()).await;
    let looks = within(LONG, "the readers", readers.join_all()).await;
    assert!(looks.iter().all(|looks| *looks > 0), "{looks:?}");
    let said = cluster.errors_said().await;
    assert!(said.contains_key("MOVED"), "nobody met a slot on its way: {said:?}");
    let mut client = Client::to(proxy.data).await;
    for (writer, count) in counts {
        let exec = client.pipeline(&transaction("GET", writer)).await.pop().expect("a reply");
        assert_eq!(exec, Value::Array(vec![bulk(count.to_string()); 2 * TAGS.len()]));
    }
    one_of_them_has_no_memory(&cluster, &mut client).await;
    asking.shutdown().await;
    proxy.shutdown().await;
}

/// What a node refuses is said of its slots alone.
async fn one_of_them_has_no_memory(cluster: &Cluster, client: &mut Client) {
    let owners = cluster.owners().await;
    let owner = |tag: &str| owners[Slot::of(tag.as_bytes()).index()];
    let full = owner("a");
    let other = TAGS.into_iter().find(|tag| owner(tag) != full).expect("not all are on one node");
    assert_eq!(cluster.call(full, &["CONFIG", "SET", "maxmemory", "1"]).await, ok());
    let requests = [
        wire(&["MULTI"]),
        wire(&["SET", "{a}", "1"]),
        wire(&["SET", &format!("{{{other}}}"), "1"]),
        wire(&["GET", "{a}"]),
        wire(&["EXEC"]),
    ];
    let exec = client.pipeline(&requests).await.pop().expect("a reply");
    let replies = value::array(&exec).unwrap_or_else(|| panic!("{exec:?}"));
    let why = "EXECABORT Transaction discarded because of: OOM command not allowed";
    for aborted in [&replies[0], &replies[2]] {
        assert!(matches!(aborted, Value::Error(error) if error.starts_with(why)), "{exec:?}");
    }
    assert_eq!(replies[1], ok());
    assert_eq!(client.call("GET {a}").await, Value::Null);
}
