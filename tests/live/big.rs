//! Values of many megabytes go through whole, and in reasonable time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use slotway::cluster::Slot;
use slotway::resp::value::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Client, bulk, ok, wire};
use crate::cluster::{Cluster, steady_alone};
use crate::{Dice, alone, front, within};

/// Bytes in which a shift or a gap would show.
fn noise(len: usize) -> Vec<u8> {
    let mut dice = Dice(len as u64);
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| dice.roll().to_le_bytes())
        .take(len.min(1 << 20).div_ceil(8))
        .flatten()
        .collect();
    while bytes.len() < len {
        bytes.extend_from_within(..bytes.len().min(len - bytes.len()));
        bytes.rotate_left(1);
    }
    bytes.truncate(len);
    bytes
}

/// Whether two values are the same, without printing them if they are not.
fn is_bulk(reply: &Value, expected: &[u8]) -> bool {
    matches!(reply, Value::BulkString(bytes) if bytes == expected)
}

async fn check(client: &mut Client, key: &str, len: usize) {
    let (begun, value) = (Instant::now(), noise(len));
    assert_eq!(client.ask(&[b"SET", key.as_bytes(), &value]).await, ok());
    let (set, begun) = (begun.elapsed(), Instant::now());
    assert!(is_bulk(&client.call(&format!("GET {key}")).await, &value), "{len} bytes");
    eprintln!("{len} bytes: SET {set:?}, GET {:?}", begun.elapsed());
}

#[tokio::test]
async fn values_of_sixteen_megabytes() {
    let cluster = steady_alone().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    for len in [0, 1, 16_383, 16_384, 16_385, 65_536, 1 << 20, 16 << 20] {
        check(&mut client, &format!("big{len}"), len).await;
    }
    // Small requests around a large one, and large ones split over slots.
    let value = noise(16 << 20);
    let pipelined = [
        wire(&[&b"SET"[..], b"big", &value]),
        wire(&["PING"]),
        wire(&["GET", "big"]),
        wire(&["STRLEN", "big"]),
        wire(&[&b"MSET"[..], b"big1", &value, b"big2", &value, b"big3", b"small"]),
        wire(&["MGET", "big1", "big3", "big2"]),
    ];
    let replies = within(Duration::from_secs(20), "large", client.pipeline(&pipelined)).await;
    assert_eq!(replies[..2], [ok(), Value::SimpleString("PONG".into())]);
    assert!(is_bulk(&replies[2], &value));
    assert_eq!(replies[3..5], [Value::Integer(16 << 20), ok()]);
    let Value::Array(parts) = &replies[5] else { panic!("no array") };
    assert!(is_bulk(&parts[0], &value) && is_bulk(&parts[2], &value));
    assert_eq!(parts[1], bulk("small"));
    client.call("DEL big big1 big2 big3").await;
    proxy.shutdown().await;
}

const HUGE: u32 = 300 << 20;

async fn check_huge(client: &mut Client, cluster: &Cluster) {
    within(Duration::from_secs(20), "300 MB", check(client, "huge", HUGE as usize)).await;
    let owner = cluster.owners().await[Slot::of(b"huge").index()];
    let there = Client::to(cluster.address(owner)).await.call("STRLEN huge").await;
    assert_eq!(there, Value::Integer(HUGE.into()));
}

#[tokio::test]
async fn a_value_of_300_megabytes() {
    // Without replicas: their output buffers would not take it.
    let cluster = Cluster::start(3, 0).await;
    let _turn = alone().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("GET huge").await, Value::Null);
    check_huge(&mut client, &cluster).await;
    proxy.shutdown().await;
}

/// As above, but the proxy is not connected to the node yet, and the value is larger than what may wait for a node.
#[tokio::test]
async fn the_first_value_has_300_megabytes() {
    let cluster = Cluster::start(3, 0).await;
    let _turn = alone().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    check_huge(&mut client, &cluster).await;
    proxy.shutdown().await;
}

/// Sends requests as fast as they are taken, and gives the bytes that come back, of which so many are expected.
async fn exchange(address: SocketAddr, requests: Vec<u8>, expected: usize) -> Vec<u8> {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    let (mut reader, mut writer) = stream.into_split();
    let writing = tokio::spawn(async move {
        writer.write_all(&requests).await.expect("the requests are taken");
        writer
    });
    let mut replies = Vec::with_capacity(expected);
    while replies.len() < expected {
        let read = timeout(Duration::from_secs(10), reader.read_buf(&mut replies)).await;
        let read = read.unwrap_or_else(|_| panic!("{} of {expected} bytes came", replies.len()));
        assert_ne!(read.expect("a reply"), 0, "closed after {} of {expected} bytes", replies.len());
    }
    writing.await.expect("joined");
    replies
}

/// The proxy stops reading from a client that has a megabyte of replies to take, and goes on when they are taken.
async fn check_pipeline(len: usize, count: usize, request: impl Fn(&[u8]) -> Vec<u8>) {
    let cluster = steady_alone().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let value = noise(len);
    assert_eq!(Client::to(proxy.data).await.ask(&[b"SET", &b"large"[..], &value]).await, ok());
    let reply = [format!("${len}\r\n").as_bytes(), &value, b"\r\n"].concat();
    let replies = exchange(proxy.data, request(&value).repeat(count), count * reply.len()).await;
    assert!(replies == reply.repeat(count));
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_pipeline_of_large_replies_goes_on() {
    check_pipeline(100_000, 3_000, |_| wire(&["GET", "large"])).await;
}

#[tokio::test]
async fn a_pipeline_of_large_replies_of_the_proxy_goes_on() {
    check_pipeline(300_000, 40, |value| wire(&[b"ECHO", value])).await;
}
