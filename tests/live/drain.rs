//! Several proxies for one cluster, and a proxy that leaves.

use std::time::{Duration, Instant};

use slotway::resp::value::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::client::{Client, bulk, ok, wire};
use crate::cluster::steady_alone;
use crate::load::{Load, Plan};
use crate::tally::Oddity;
use crate::{front, until, within};

#[tokio::test]
async fn two_proxies_side_by_side() {
    let cluster = steady_alone().await;
    let one = front::start(front::options(cluster.addresses())).await;
    let other = front::start(front::options(cluster.addresses())).await;
    let plan = Plan { targets: vec![one.data, other.data], ..Plan::new(one.data) };
    let mut load = Load::start(plan);
    let (mut writer, mut reader) = (Client::to(one.data).await, Client::to(other.data).await);
    for n in 0..500 {
        let (key, value) = (format!("side{n}"), n.to_string());
        assert_eq!(writer.ask(&["SET", &key, &value]).await, ok());
        assert_eq!(reader.ask(&["GET", &key]).await, bulk(&value));
    }
    load.advance(30).await;
    load.stop().await.expect_flawless();
    one.shutdown().await;
    other.shutdown().await;
}

#[tokio::test]
async fn a_proxy_that_stops_answers_what_it_took() {
    let cluster = steady_alone().await;
    let leaving = front::start(front::options(cluster.addresses())).await;
    let staying = front::start(front::options(cluster.addresses())).await;
    let plan = Plan { targets: vec![leaving.data, staying.data], ..Plan::new(staying.data) };
    let clients = plan.clients as u64;
    let mut load = Load::start(plan);
    load.advance(20).await;
    let (address, begun) = (leaving.data, Instant::now());
    within(Duration::from_secs(10), "the proxy stops", leaving.shutdown()).await;
    let took = begun.elapsed();
    load.advance(20).await;
    let tally = load.stop().await;
    eprintln!("stopped in {took:?}; {tally}");
    assert!(took < Duration::from_secs(2), "took {took:?}");
    assert!(Client::connect(address).await.is_err(), "somebody still listens");
    assert!(tally.errors.is_empty(), "{tally}");
    // Half of the clients had to go elsewhere; nothing of theirs ran without their hearing of it.
    assert_eq!(tally.count(Oddity::Dropped), clients / 2, "{tally}");
    assert_eq!(tally.oddities().collect::<Vec<_>>(), [Oddity::Dropped], "{tally}");
    staying.shutdown().await;
}

#[tokio::test]
async fn requests_under_way_are_answered_before_a_proxy_stops() {
    let cluster = steady_alone().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("DEL counter").await, Value::Integer(0));
    let requests: Vec<u8> = (0..5_000).flat_map(|_| wire(&["INCR", "counter"])).collect();
    client.send(&requests).await.expect("the requests are taken");
    // Once one is answered the rest is on its way.
    client.reply().await.expect("a reply");
    let stopping = tokio::spawn(proxy.shutdown());
    let mut answered = 1;
    while let Ok(reply) = client.reply().await {
        answered += 1;
        assert_eq!(reply, Value::Integer(answered));
    }
    within(Duration::from_secs(6), "the proxy stops", stopping).await.expect("joined");
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    let counted = client.call("GET counter").await;
    assert_eq!(counted, bulk(answered.to_string()), "{answered} were answered");
    client.call("DEL counter").await;
    proxy.shutdown().await;
}

/// A client that sends without ever waiting leaves no moment at which nothing is under way.
#[tokio::test]
async fn a_client_that_never_pauses_hears_of_all_that_ran() {
    let cluster = steady_alone().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let check = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(check.data).await;
    client.call("DEL flood").await;
    let stream = TcpStream::connect(proxy.data).await.expect("somebody listens");
    let (reader, mut writer) = stream.into_split();
    let requests = wire(&["INCR", "flood"]).repeat(50);
    let writing = tokio::spawn(async move { while writer.write_all(&requests).await.is_ok() {} });
    let mut lines = BufReader::new(reader).lines();
    let mut answered = 0;
    let stopping = async {
        // Once it has begun.
        until(Duration::from_secs(5), "a flood", async || {
            let count = client.call("GET flood").await;
            if count == Value::Null { Err("nothing yet".to_owned()) } else { Ok(()) }
        })
        .await;
        let begun = Instant::now();
        proxy.shutdown().await;
        begun.elapsed()
    };
    let reading = async {
        while let Ok(Some(line)) = lines.next_line().await {
            answered += 1;
            assert_eq!(line, format!(":{answered}"));
        }
    };
    let (took, ()) =
        within(Duration::from_secs(20), "the end", async { tokio::join!(stopping, reading) }).await;
    writing.await.expect("joined");
    let counted = client.call("GET flood").await;
    eprintln!("stopped in {took:?}, {answered} were answered");
    assert_eq!(counted, bulk(answered.to_string()), "{answered} were answered");
    client.call("DEL flood").await;
    check.shutdown().await;
}
