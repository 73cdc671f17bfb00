//! Publish and subscribe: what is published anywhere reaches everybody here, once and in order.

use std::time::Duration;

use slotway::cluster::Slot;
use slotway::proxy::Running;
use slotway::resp::value::{self, Value};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{Client, bulk, ok, wire};
use crate::cluster::{Cluster, Node, steady, steady_alone};
use crate::{beside_others, front, until, within};

/// Longest wait for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait for a message before the next one is published.
const SOON: Duration = Duration::from_millis(50);

async fn raw(client: &mut Client) -> String {
    let raw = within(PATIENCE, "a reply", client.raw_reply()).await.expect("a reply");
    String::from_utf8_lossy(&raw).into_owned()
}

async fn says(client: &mut Client, line: &str) -> String {
    client.send(&wire(&line.split(' ').collect::<Vec<_>>())).await.expect("the request is taken");
    raw(client).await
}

/// A frame of bulk strings, or of two and a number.
fn frame(kind: char, words: &[&str]) -> String {
    let word = |word: &&str| match word.strip_prefix(':') {
        Some(_) => format!("{word}\r\n"),
        None => format!("${}\r\n{word}\r\n", word.len()),
    };
    format!("{kind}{}\r\n{}", words.len(), words.iter().map(word).collect::<String>())
}

async fn resp3(proxy: &Running) -> Client {
    let mut client = Client::to(proxy.data).await;
    client.hello3().await.expect("RESP3");
    client
}

/// Subscribes, and checks that every name is confirmed.
async fn subscribe(client: &mut Client, line: &str) {
    client.send(&wire(&line.split(' ').collect::<Vec<_>>())).await.expect("the request is taken");
    for name in line.split(' ').skip(1) {
        let confirmed = raw(client).await;
        assert!(confirmed.contains(&format!("\r\n{name}\r\n")), "{name}: {confirmed}");
    }
}

/// The connections on which a node says something to subscribers.
async fn subscribers_at(cluster: &Cluster, node: Node) -> usize {
    let list = cluster.call(node, &["CLIENT", "LIST", "TYPE", "pubsub"]).await;
    value::text(&list).map_or(0, |text| text.lines().count())
}

#[tokio::test]
async fn clients_of_either_protocol_hear_in_order() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let (mut old, mut new) = (Client::to(proxy.data).await, resp3(&proxy).await);
    old.send(&wire(&["SUBSCRIBE", "news", "more", "news"])).await.expect("it is taken");
    for (name, count) in [("news", ":1"), ("more", ":2"), ("news", ":2")] {
        assert_eq!(raw(&mut old).await, frame('*', &["subscribe", name, count]));
    }
    let confirmed = says(&mut new, "PSUBSCRIBE n[e]*").await;
    assert_eq!(confirmed, frame('>', &["psubscribe", "n[e]*", ":1"]));
    let mut publisher = Client::to(proxy.data).await;
    let texts: Vec<String> = (0..300).map(|n| format!("text {n}")).collect();
    let requests: Vec<_> = texts.iter().map(|text| wire(&["PUBLISH", "news", text])).collect();
    let counts = publisher.pipeline(&requests).await;
    assert_eq!(counts, vec![Value::Integer(2); 300]);
    assert_eq!(publisher.call("PUBLISH other x").await, Value::Integer(0));
    for text in &texts {
        assert_eq!(raw(&mut old).await, frame('*', &["message", "news", text]));
        assert_eq!(raw(&mut new).await, frame('>', &["pmessage", "n[e]*", "news", text]));
    }
    // A large message goes by reference.
    let large = "x".repeat(100_000);
    assert_eq!(publisher.ask(&["PUBLISH", "news", &large]).await, Value::Integer(2));
    assert_eq!(raw(&mut old).await, frame('*', &["message", "news", &large]));
    assert_eq!(raw(&mut new).await, frame('>', &["pmessage", "n[e]*", "news", &large]));
    proxy.shutdown().await;
}

#[tokio::test]
async fn subscribers_are_treated_as_by_a_server() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut old = Client::to(proxy.data).await;
    assert_eq!(says(&mut old, "UNSUBSCRIBE").await, "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n");
    subscribe(&mut old, "SUBSCRIBE a b").await;
    subscribe(&mut old, "PSUBSCRIBE p*").await;
    subscribe(&mut old, "SSUBSCRIBE {s}1 {s}2").await;
    let refused = "-ERR Can't execute 'client|list': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n";
    assert_eq!(says(&mut old, "Client list").await, refused);
    assert_eq!(says(&mut old, "PING").await, "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    assert_eq!(says(&mut old, "PING hi").await, "*2\r\n$4\r\npong\r\n$2\r\nhi\r\n");
    let mut new = resp3(&proxy).await;
    let list = says(&mut new, "CLIENT LIST TYPE pubsub").await;
    assert!(list.contains(" flags=P db=0 sub=2 psub=1 ssub=2 "), "{list}");
    subscribe(&mut new, "SUBSCRIBE a").await;
    assert_eq!(says(&mut new, "PING").await, "+PONG\r\n");
    assert_eq!(says(&mut new, "GET nothing").await, "_\r\n");
    assert_eq!(says(&mut new, "MULTI").await, "+OK\r\n");
    let refused = "-ERR Command not allowed inside a transaction\r\n";
    assert_eq!(says(&mut new, "SUBSCRIBE b").await, refused);
    assert_eq!(says(&mut new, "RESET").await, "+RESET\r\n");
    assert_eq!(says(&mut old, "UNSUBSCRIBE").await, frame('*', &["unsubscribe", "a", ":2"]));
    assert_eq!(raw(&mut old).await, frame('*', &["unsubscribe", "b", ":1"]));
    assert_eq!(says(&mut old, "PUNSUBSCRIBE x").await, frame('*', &["punsubscribe", "x", ":1"]));
    assert_eq!(says(&mut old, "RESET").await, "+RESET\r\n");
    assert_eq!(says(&mut old, "GET nothing").await, "$-1\r\n");
    assert_eq!(says(&mut old, "PUBSUB NUMPAT").await, ":0\r\n");
    assert_eq!(says(&mut old, "PUBSUB CHANNELS").await, "*0\r\n");
    subscribe(&mut old, "SUBSCRIBE a").await;
    assert_eq!(says(&mut old, "QUIT").await, "+OK\r\n");
    assert!(old.reply().await.is_err());
    proxy.shutdown().await;
}

/// A node takes those of one slot in one command, one server takes any.
#[tokio::test]
async fn shard_channels_may_be_of_several_slots() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let owners = cluster.owners().await;
    let names = ["a", "b", "c", "d"];
    let nodes = names.map(|name| owners[Slot::of(name.as_bytes()).index()]);
    assert!(nodes.iter().any(|node| *node != nodes[0]), "{nodes:?}");
    let mut publisher = Client::to(proxy.data).await;
    for (mut client, sign) in [(Client::to(proxy.data).await, '*'), (resp3(&proxy).await, '>')] {
        client.send(&wire(&["SSUBSCRIBE", "a", "b", "c", "d"])).await.expect("it is taken");
        for (name, count) in names.iter().zip([":1", ":2", ":3", ":4"]) {
            assert_eq!(raw(&mut client).await, frame(sign, &["ssubscribe", name, count]));
        }
        for name in names {
            let count = publisher.ask(&["SPUBLISH", name, "text"]).await;
            assert!(matches!(count, Value::Integer(1..)), "{count:?}");
            assert_eq!(raw(&mut client).await, frame(sign, &["smessage", name, "text"]));
        }
    }
    proxy.shutdown().await;
}

#[tokio::test]
async fn subscribers_are_counted_over_all_workers() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut subscribers = Vec::new();
    for n in 0..6 {
        let mut client = Client::to(proxy.data).await;
        subscribe(&mut client, "SUBSCRIBE count both").await;
        subscribe(&mut client, "SSUBSCRIBE shard").await;
        if n % 3 == 0 {
            subscribe(&mut client, "PSUBSCRIBE b*").await;
        }
        subscribers.push(client);
    }
    // Who is subscribed at the publisher's node without the proxy counts as well.
    let mut strangers = Vec::new();
    for node in 0..3 {
        let mut stranger = Client::to(cluster.address(node)).await;
        subscribe(&mut stranger, "SUBSCRIBE strange").await;
        strangers.push(stranger);
    }
    subscribe(&mut subscribers[1], "SUBSCRIBE strange").await;
    let mut publisher = resp3(&proxy).await;
    let strange = Value::Array(vec![bulk("strange"), Value::Integer(4)]);
    assert_eq!(publisher.call("PUBSUB NUMSUB strange").await, strange);
    assert_eq!(publisher.call("PUBLISH count x").await, Value::Integer(6));
    assert_eq!(publisher.call("PUBLISH both x").await, Value::Integer(8));
    assert_eq!(publisher.call("PUBLISH strange x").await, Value::Integer(2));
    drop(strangers);
    until(PATIENCE, "strangers are gone", async || {
        match publisher.call("PUBLISH strange x").await {
            Value::Integer(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(publisher.call("SPUBLISH shard x").await, Value::Integer(6));
    let numsub = publisher.call("PUBSUB NUMSUB count none both").await;
    let pairs = [("count", 6), ("none", 0), ("both", 6)];
    let pairs = pairs.into_iter().flat_map(|(name, n)| [bulk(name), Value::Integer(n)]);
    assert_eq!(numsub, Value::Array(pairs.collect()));
    assert_eq!(publisher.call("PUBSUB NUMPAT").await, Value::Integer(1));
    assert_eq!(publisher.call("PUBSUB CHANNELS c*").await, Value::Array(vec![bulk("count")]));
    assert_eq!(publisher.call("PUBSUB SHARDCHANNELS").await, Value::Array(vec![bulk("shard")]));
    let shards = Value::Array(vec![bulk("shard"), Value::Integer(6)]);
    assert_eq!(publisher.call("PUBSUB SHARDNUMSUB shard").await, shards);
    drop(subscribers);
    until(PATIENCE, "those that leave are not counted", async || {
        match publisher.call("PUBLISH both x").await {
            Value::Integer(0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    until(PATIENCE, "nobody is subscribed at a node", async || {
        let mut left = 0;
        for node in 0..6 {
            left += subscribers_at(&cluster, node).await;
        }
        if left == 0 { Ok(()) } else { Err(format!("{left}")) }
    })
    .await;
    proxy.shutdown().await;
}

#[tokio::test]
async fn notifications_come_from_every_primary() {
    let cluster = steady().await;
    let notify = async |flags| {
        for node in 0..6 {
            cluster.call(node, &["CONFIG", "SET", "notify-keyspace-events", flags]).await;
        }
    };
    notify("KEA").await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let (mut pattern, mut all, mut channel) =
        (Client::to(proxy.data).await, Client::to(proxy.data).await, resp3(&proxy).await);
    subscribe(&mut pattern, "PSUBSCRIBE __keyspace@0__:note*").await;
    subscribe(&mut all, "PSUBSCRIBE *").await;
    subscribe(&mut channel, "SUBSCRIBE __keyevent@0__:set").await;
    let mut writer = Client::to(proxy.data).await;
    for n in 0..60 {
        let key = format!("note{n}");
        assert_eq!(writer.ask(&["SET", &key, "x"]).await, ok());
        let space = format!("__keyspace@0__:{key}");
        let heard = frame('*', &["pmessage", "__keyspace@0__:note*", &space, "set"]);
        assert_eq!(raw(&mut pattern).await, heard);
        let heard = frame('>', &["message", "__keyevent@0__:set", &key]);
        assert_eq!(raw(&mut channel).await, heard);
        assert_eq!(raw(&mut all).await, frame('*', &["pmessage", "*", &space, "set"]));
        let heard = frame('*', &["pmessage", "*", "__keyevent@0__:set", &key]);
        assert_eq!(raw(&mut all).await, heard);
    }
    notify("").await;
    // What nodes pass on among themselves comes once, although it is heard from all of them.
    for text in ["one", "two"] {
        assert_eq!(writer.ask(&["PUBLISH", "once", text]).await, Value::Integer(1));
        assert_eq!(raw(&mut all).await, frame('*', &["pmessage", "*", "once", text]));
    }
    proxy.shutdown().await;
}

#[tokio::test]
async fn notifications_come_from_new_primaries() {
    let _turn = beside_others().await;
    let mut cluster = Cluster::start(3, 1).await;
    for node in 0..6 {
        cluster.call(node, &["CONFIG", "SET", "notify-keyspace-events", "K$"]).await;
    }
    let proxy = front::start(front::patient(cluster.addresses())).await;
    let (mut subscriber, mut writer) = (resp3(&proxy).await, Client::to(proxy.data).await);
    subscribe(&mut subscriber, "PSUBSCRIBE __keyspace@0__:*").await;
    let owner = cluster.owners().await[Slot::of(b"bar").index()];
    cluster.kill9(owner);
    cluster.promoted(owner + 3).await;
    let heard = frame('>', &["pmessage", "__keyspace@0__:*", "__keyspace@0__:bar", "set"]);
    until(PATIENCE, "a new primary is heard", async || {
        writer.call("SET bar x").await;
        match timeout(SOON, subscriber.raw_reply()).await {
            Ok(reply) => {
                assert_eq!(reply.expect("a message"), heard);
                Ok(())
            }
            Err(_) => Err("nothing".to_owned()),
        }
    })
    .await;
    proxy.shutdown().await;
}

/// Publishes again until a message is heard; what is heard before must be earlier ones, in order.
async fn reaches(publisher: &mut Client, subscriber: &mut Client, verb: &str, channel: &str) {
    let (mut sent, mut heard) = (0, None);
    let kind = if verb == "SPUBLISH" { "smessage" } else { "message" };
    until(PATIENCE, "a message arrives", async || {
        sent += 1;
        publisher.ask(&[verb, channel, &sent.to_string()]).await;
        while let Ok(reply) = timeout(SOON, subscriber.reply()).await {
            let Value::Array(words) = reply.expect("the connection is open") else {
                panic!("no message");
            };
            assert_eq!(words[..2], [bulk(kind), bulk(channel)]);
            let number: u32 = value::text(&words[2]).and_then(|n| n.parse().ok()).expect("ours");
            assert!(Some(number) > heard, "{number} after {heard:?}");
            heard = Some(number);
            if number == sent {
                return Ok(());
            }
        }
        Err(format!("{sent} sent, {heard:?} heard"))
    })
    .await;
}

#[tokio::test]
async fn shard_channels_follow_their_slot() {
    let _turn = beside_others().await;
    let cluster = Cluster::start(3, 0).await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let (mut subscriber, mut publisher) = (resp3(&proxy).await, Client::to(proxy.data).await);
    subscribe(&mut subscriber, "SSUBSCRIBE {bar}1").await;
    for to in [1, 2, 0] {
        reaches(&mut publisher, &mut subscriber, "SPUBLISH", "{bar}1").await;
        cluster.move_slot(Slot::of(b"bar"), to, async || {}).await;
    }
    reaches(&mut publisher, &mut subscriber, "SPUBLISH", "{bar}1").await;
    until(PATIENCE, "one subscription is left", async || {
        let counts = [subscribers_at(&cluster, 0).await, subscribers_at(&cluster, 1).await];
        let others = subscribers_at(&cluster, 2).await + counts[1];
        if counts[0] == 1 && others == 0 { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_lost_connection_is_made_good() {
    let _turn = beside_others().await;
    let mut cluster = Cluster::start(3, 1).await;
    let proxy = front::start(front::patient(cluster.addresses())).await;
    let (mut subscriber, mut publisher) = (resp3(&proxy).await, Client::to(proxy.data).await);
    subscribe(&mut subscriber, "SUBSCRIBE lost").await;
    for _ in 0..3 {
        for node in 0..3 {
            cluster.call(node, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        }
        reaches(&mut publisher, &mut subscriber, "PUBLISH", "lost").await;
    }
    let mut home = None;
    for node in 0..3 {
        home = home.or((subscribers_at(&cluster, node).await > 0).then_some(node));
    }
    let home = home.expect("a node at which the proxy subscribes");
    // Its connections stay open and nothing comes.
    cluster.freeze(home);
    let mut publisher = Client::to(cluster.address((home + 1) % 3)).await;
    reaches(&mut publisher, &mut subscriber, "PUBLISH", "lost").await;
    proxy.shutdown().await;
}

const SUBSCRIBERS: usize = 2000;
const CHANNELS: usize = 200;
const PUBLISHERS: usize = 3;
/// Messages of each publisher to each channel.
const MESSAGES: usize = 5;

/// Hears all messages of one channel, each publisher's in order.
async fn hear_all(mut client: Client, channel: String) {
    let mut next = [0; PUBLISHERS];
    for _ in 0..PUBLISHERS * MESSAGES {
        let message = within(PATIENCE * 3, "a message", client.reply()).await.expect("a message");
        let Value::Array(words) = message else { panic!("no message: {message:?}") };
        assert_eq!(words[..2], [bulk("message"), bulk(&channel)]);
        let (from, number) = value::text(&words[2]).and_then(|t| t.split_once(' ')).expect("ours");
        let from: usize = from.parse().expect("a publisher");
        assert_eq!(number, next[from].to_string(), "from publisher {from} on {channel}");
        next[from] += 1;
    }
    assert_eq!(next, [MESSAGES; PUBLISHERS]);
}

#[tokio::test]
async fn two_thousand_subscribers_miss_nothing() {
    let cluster = steady_alone().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut hearers = JoinSet::new();
    for n in 0..SUBSCRIBERS {
        let channel = format!("channel{}", n % CHANNELS);
        let mut client = Client::to(proxy.data).await;
        subscribe(&mut client, &format!("SUBSCRIBE {channel}")).await;
        hearers.spawn(hear_all(client, channel));
    }
    let mut connections = 0;
    for node in 0..6 {
        connections += subscribers_at(&cluster, node).await;
    }
    assert!((1..=2).contains(&connections), "{connections} connections for 2 workers");
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let mut client = Client::to(proxy.data).await;
        publishers.spawn(async move {
            for number in 0..MESSAGES {
                let text = format!("{publisher} {number}");
                let request = |n| wire(&["PUBLISH", &format!("channel{n}"), &text]);
                let requests: Vec<_> = (0..CHANNELS).map(request).collect();
                let each = i64::try_from(SUBSCRIBERS / CHANNELS).expect("a small number");
                let counts = client.pipeline(&requests).await;
                assert_eq!(counts, vec![Value::Integer(each); CHANNELS]);
            }
        });
    }
    publishers.join_all().await;
    hearers.join_all().await;
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_stalled_subscriber_is_cut_off_alone() {
    let cluster = steady().await;
    let mut options = front::options(cluster.addresses());
    options.session.pubsub_limit = 1 << 20;
    options.workers = 1;
    let proxy = front::start(options).await;
    let (mut stalled, mut good) = (Client::to(proxy.data).await, resp3(&proxy).await);
    subscribe(&mut stalled, "SUBSCRIBE flood").await;
    subscribe(&mut good, "SUBSCRIBE flood").await;
    let mut publisher = Client::to(proxy.data).await;
    let text = "x".repeat(16 * 1024);
    let (mut both, mut one) = (0, 0);
    // The kernel keeps some megabytes for either.
    while one < 10 {
        assert!(both < 4000, "the stalled subscriber is never cut off");
        match publisher.ask(&["PUBLISH", "flood", &text]).await {
            Value::Integer(2) if one == 0 => both += 1,
            Value::Integer(1) => one += 1,
            other => panic!("{other:?}"),
        }
        assert_eq!(raw(&mut good).await, frame('>', &["message", "flood", &text]));
    }
    let mut heard = 0;
    while within(PATIENCE, "the end", stalled.reply()).await.is_ok() {
        heard += 1;
    }
    assert!(heard < both, "{heard} of {both}");
    proxy.shutdown().await;
}
