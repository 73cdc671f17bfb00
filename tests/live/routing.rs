//! Every key lies where its slot says, whichever way it was written.

use slotway::cluster::Slot;

use crate::client::{Client, bulk, ok, wire};
use crate::cluster::{Cluster, steady};
use crate::front;

/// Keys with and without hash tags, and of every kind of byte.
fn keys(prefix: &str) -> Vec<Vec<u8>> {
    let numbers = 0..10_000_u32;
    numbers
        .map(|n| match n % 5 {
            0 => format!("{{{prefix}{n}}}tail").into_bytes(),
            1 => format!("{prefix}{{}}{n}").into_bytes(),
            2 => format!("{prefix}{n}{{tag{}}}", n % 100).into_bytes(),
            3 => [prefix.as_bytes(), b"\r\n\0$-1", &n.to_be_bytes()].concat(),
            _ => format!("{prefix}:{n}").into_bytes(),
        })
        .collect()
}

fn value(key: &[u8]) -> Vec<u8> {
    [b"value of ", key].concat()
}

/// Sends every key's request to the owner of the key, and gives the replies in the order of the keys.
async fn at_owners(
    cluster: &Cluster,
    keys: &[Vec<u8>],
    request: impl Fn(&[u8]) -> Vec<u8>,
) -> Vec<slotway::resp::value::Value> {
    let owners = cluster.owners().await;
    let owner = |key: &Vec<u8>| owners[Slot::of(key).index()];
    let mut replies = vec![slotway::resp::value::Value::Null; keys.len()];
    for node in 0..3 {
        let mine: Vec<usize> = (0..keys.len()).filter(|n| owner(&keys[*n]) == node).collect();
        assert!(mine.len() > 2_000, "node {node} has only {} keys", mine.len());
        let requests: Vec<Vec<u8>> = mine.iter().map(|n| request(&keys[*n])).collect();
        let answers = Client::to(cluster.address(node)).await.pipeline(&requests).await;
        mine.into_iter().zip(answers).for_each(|(n, answer)| replies[n] = answer);
    }
    replies
}

fn set(key: &[u8]) -> Vec<u8> {
    wire(&[b"SET", key, &value(key)])
}

fn get(key: &[u8]) -> Vec<u8> {
    wire(&[b"GET", key])
}

#[tokio::test]
async fn ten_thousand_keys_lie_at_their_owners() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    let written = keys("through the proxy");
    let requests: Vec<Vec<u8>> = written.iter().map(|key| set(key)).collect();
    assert!(client.pipeline(&requests).await.iter().all(|reply| *reply == ok()));
    let read = at_owners(&cluster, &written, get).await;
    for (key, reply) in written.iter().zip(read) {
        assert_eq!(reply, bulk(value(key)), "{}", key.escape_ascii());
    }
    let written = keys("past the proxy");
    assert!(at_owners(&cluster, &written, set).await.iter().all(|reply| *reply == ok()));
    let requests: Vec<Vec<u8>> = written.iter().map(|key| get(key)).collect();
    for (key, reply) in written.iter().zip(client.pipeline(&requests).await) {
        assert_eq!(reply, bulk(value(key)), "{}", key.escape_ascii());
    }
    proxy.shutdown().await;
}
