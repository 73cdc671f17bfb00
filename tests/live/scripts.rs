//! Scripts and functions are the whole cluster's, whoever forgets them and whoever joins.

use std::collections::BTreeSet;
use std::time::Duration;

use slotway::cluster::Slot;
use slotway::resp::value::{self, Value};
use slotway::session::Ping;

use crate::client::{Client, bulk, ok};
use crate::cluster::{Cluster, steady};
use crate::events::{fail_over, reshard};
use crate::{beside_others, front, until, within};

const SCRIPT: &str = "return redis.call('INCR', KEYS[1])";
const LIBRARY: &str =
    "#!lua name=lib\nredis.register_function('twice', function(keys, args) return args[1] * 2 end)";
/// Keys of slots of all nodes.
const KEYS: usize = 50;

/// Runs the script on all shards, alone and within a transaction.
async fn run_everywhere(client: &mut Client, digest: &str) {
    for n in 0..KEYS {
        client.call(&format!("SET script:{n} 0")).await;
        let evalsha = format!("EVALSHA {digest} 1 script:{n}");
        assert_eq!(client.call(&evalsha).await, Value::Integer(1));
    }
}

async fn run_in_transactions(client: &mut Client, digest: &str) {
    for n in 0..KEYS {
        client.call("MULTI").await;
        client.call(&format!("SET script:{n} 7")).await;
        client.call(&format!("EVALSHA {digest} 1 script:{n}")).await;
        client.call("PING").await;
        let pong = Value::SimpleString("PONG".into());
        let all = Value::Array(vec![ok(), Value::Integer(8), pong]);
        assert_eq!(client.call("EXEC").await, all);
    }
}

#[tokio::test]
async fn scripts_are_known_on_all_shards() {
    let _turn = beside_others().await;
    let cluster = Cluster::start(3, 1).await;
    let proxy = front::start(front::patient(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    let loaded = client.ask(&["SCRIPT", "LOAD", SCRIPT]).await;
    let digest = value::text(&loaded).expect("a digest").to_owned();
    run_everywhere(&mut client, &digest).await;
    let exists = format!("SCRIPT EXISTS {digest} {}", "0".repeat(40));
    let both = |known| Value::Array(vec![Value::Integer(known), Value::Integer(0)]);
    assert_eq!(client.call(&exists).await, both(1));
    cluster.call(0, &["SCRIPT", "FLUSH"]).await;
    assert_eq!(client.call(&exists).await, both(1), "the node will be told");
    run_everywhere(&mut client, &digest.to_uppercase()).await;
    cluster.call(1, &["SCRIPT", "FLUSH"]).await;
    run_in_transactions(&mut client, &digest).await;
    cluster.call(5, &["SCRIPT", "FLUSH"]).await;
    fail_over(&cluster, 5).await;
    run_everywhere(&mut client, &digest).await;
    assert_eq!(client.ask(&["EVAL", "return ARGV[1]", "0", "x"]).await, bulk("x"));
    assert_eq!(client.call("SCRIPT FLUSH").await, ok());
    let unknown = client.call(&format!("EVALSHA {digest} 1 script:1")).await;
    assert!(matches!(&unknown, Value::Error(text) if text.starts_with("NOSCRIPT ")), "{unknown:?}");
    assert_eq!(client.call(&exists).await, both(0));
    client.ask(&["EVAL", SCRIPT, "1", "script:1"]).await;
    assert_eq!(client.call(&exists).await, both(1), "one that is sent whole is known, too");
    run_everywhere(&mut client, &digest).await;
    let idle = client.call("SCRIPT KILL").await;
    assert!(matches!(&idle, Value::Error(text) if text.starts_with("NOTBUSY ")), "{idle:?}");
    proxy.shutdown().await;
}

/// The lane to the node is busy with the script; that it is to be killed is said on another connection.
#[tokio::test]
async fn a_script_that_runs_for_ever_is_killed() {
    let _turn = beside_others().await;
    let cluster = Cluster::start(3, 0).await;
    for node in 0..3 {
        cluster.call(node, &["CONFIG", "SET", "busy-reply-threshold", "50"]).await;
    }
    let proxy = front::start(front::options(cluster.addresses())).await;
    let (mut client, mut killer) = (Client::to(proxy.data).await, Client::to(proxy.data).await);
    let running = client.ask(&["EVAL", "while true do end", "1", "key"]);
    let kill = until(Duration::from_secs(10), "a kill", async || {
        let reply = killer.call("SCRIPT KILL").await;
        if reply == ok() { Ok(()) } else { Err(format!("{reply:?}")) }
    });
    let (reply, ()) = tokio::join!(running, kill);
    assert!(matches!(&reply, Value::Error(text) if text.contains("killed")), "{reply:?}");
    proxy.shutdown().await;
}

fn says(reply: &Value, start: &str) -> Result<(), String> {
    let is_so = matches!(reply, Value::Error(text) if text.starts_with(start));
    if is_so { Ok(()) } else { Err(format!("{reply:?}")) }
}

/// On connections that were made while a node was busy, and did not tell their numbers.
async fn a_wait_is_ended_at_each_node(client: &mut Client, other: &mut Client) {
    let id = value::integer(&client.call("CLIENT ID").await).expect("a number");
    for n in 0..12 {
        let unblock = async {
            until(Duration::from_secs(10), "it waits", async || {
                match other.call(&format!("CLIENT UNBLOCK {id}")).await {
                    Value::Integer(1) => Ok(()),
                    reply => Err(format!("{reply:?}")),
                }
            })
            .await;
        };
        let pop = format!("BLPOP nothing:{n} 0");
        let waiting = within(Duration::from_secs(10), "the end of the wait", client.call(&pop));
        assert_eq!(tokio::join!(waiting, unblock).0, Value::Null);
    }
}

/// With `client.ping = "nodes"`, `PING` tells of a node that a script keeps busy, and of one that is gone; else it does not.
#[tokio::test]
async fn ping_looks_at_all_primaries_if_it_is_to() {
    let _turn = beside_others().await;
    let mut cluster = Cluster::start(3, 0).await;
    for node in 0..3 {
        cluster.call(node, &["CONFIG", "SET", "busy-reply-threshold", "50"]).await;
    }
    let usual = front::start(front::options(cluster.addresses())).await;
    let mut options = front::options(cluster.addresses());
    options.session.ping = Ping::Nodes;
    options.workers = 1;
    options.backend.request_budget = Duration::from_millis(300);
    let proxy = front::start(options).await;
    let (mut client, mut other) = (Client::to(proxy.data).await, Client::to(proxy.data).await);
    let (pong, limit) = (Value::SimpleString("PONG".into()), Duration::from_secs(10));
    let running = client.ask(&["EVAL", "while true do end", "1", "key"]);
    let look = async {
        // The first connections for single commands are made while the node is busy.
        until(limit, "busy", async || {
            for node in 0..3 {
                match cluster.try_call(node, &["PING"]).await {
                    Err(error) if error.contains(": BUSY ") => return Ok(()),
                    _ => {}
                }
            }
            Err("nobody is".to_owned())
        })
        .await;
        until(limit, "busy", async || says(&other.call("PING").await, "BUSY ")).await;
        assert_eq!(Client::to(usual.data).await.call("PING").await, pong);
        assert_eq!(other.call("SCRIPT KILL").await, ok());
    };
    let (reply, ()) = tokio::join!(running, look);
    assert!(matches!(&reply, Value::Error(text) if text.contains("killed")), "{reply:?}");
    assert_eq!(other.call("PING").await, pong);
    assert_eq!(other.call("PING text").await, bulk("text"));
    let odd = "PING a b";
    assert_eq!(other.call(odd).await, Client::to(usual.data).await.call(odd).await);
    a_wait_is_ended_at_each_node(&mut client, &mut other).await;
    let info = other.call("INFO commandstats").await;
    assert!(value::text(&info).is_some_and(|info| info.contains("cmdstat_ping:calls=")));
    cluster.kill9(1);
    let down = format!("CLUSTERDOWN node {}", cluster.address(1));
    until(limit, "a node is down", async || says(&other.call("PING").await, &down)).await;
    assert_eq!(Client::to(usual.data).await.call("PING").await, pong);
    proxy.shutdown().await;
    usual.shutdown().await;
}

/// Where a script without keys runs does not depend on who calls it, nor on whether it is sent whole.
#[tokio::test]
async fn a_script_without_keys_has_its_node() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut nodes = BTreeSet::new();
    for n in 0..12 {
        let script = format!("return redis.call('CLUSTER', 'MYID') -- {n}");
        let mut ran = BTreeSet::new();
        for _ in 0..6 {
            let mut client = Client::to(proxy.data).await;
            let at = client.ask(&["EVAL", &script, "0"]).await;
            ran.insert(value::text(&at).expect("a node").to_owned());
            let digest = client.ask(&["SCRIPT", "LOAD", &script]).await;
            let digest = value::text(&digest).expect("a digest").to_uppercase();
            let at = client.ask(&["EVALSHA", &digest, "0"]).await;
            ran.insert(value::text(&at).expect("a node").to_owned());
        }
        assert_eq!(ran.len(), 1, "{script} ran at {ran:?}");
        nodes.extend(ran);
    }
    assert!(nodes.len() > 1, "one node gets all scripts");
    proxy.shutdown().await;
}

#[tokio::test]
async fn new_primaries_have_the_functions() {
    let _turn = beside_others().await;
    let mut cluster = Cluster::start(3, 0).await;
    let proxy = front::start(front::patient(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.ask(&["FUNCTION", "LOAD", LIBRARY]).await, bulk("lib"));
    for n in 0..KEYS {
        let reply = client.call(&format!("FCALL twice 1 key:{n} {n}")).await;
        assert_eq!(reply, Value::Integer(2 * i64::try_from(n).expect("small")));
    }
    assert_eq!(client.call("FCALL twice 0 4").await, Value::Integer(8));
    let node = cluster.start_node().await;
    let port = cluster.address(node);
    let (_, port) = port.rsplit_once(':').expect("a port");
    cluster.call(0, &["CLUSTER", "MEET", "127.0.0.1", port]).await;
    cluster.admit(node);
    cluster.agreed().await;
    until(Duration::from_secs(20), "the functions", async || {
        let listed = cluster.call(node, &["FUNCTION", "LIST"]).await;
        let count = value::array(&listed).map_or(0, <[_]>::len);
        if count == 1 { Ok(()) } else { Err(format!("{count} libraries")) }
    })
    .await;
    reshard(&cluster, 0, node, 1000).await;
    for n in 0..KEYS {
        let reply = client.call(&format!("FCALL twice 1 key:{n} 1")).await;
        assert_eq!(reply, Value::Integer(2));
    }
    assert_eq!(client.call("FUNCTION DELETE lib").await, ok());
    let gone = cluster.call(node, &["FUNCTION", "LIST"]).await;
    assert_eq!(gone, Value::Array(Vec::new()));
    proxy.shutdown().await;
}

/// So it is with functions that were loaded through the proxy.
#[tokio::test]
async fn functions_without_keys_run_where_the_key_is_that_they_name() {
    let _turn = beside_others().await;
    let cluster = Cluster::start(3, 0).await;
    let proxy = front::start(front::patient(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    let library = |body: &str| {
        let function = format!("function(keys, args) return {body} end");
        format!("#!lua name=counter\nredis.register_function('count', {function})")
    };
    let argument = library("redis.call('INCR', args[1])");
    assert_eq!(client.ask(&["FUNCTION", "LOAD", &argument]).await, bulk("counter"));
    for n in 0..KEYS {
        let reply = client.call(&format!("FCALL count 0 named:{n}")).await;
        assert_eq!(reply, Value::Integer(1));
        let literal = library(&format!("redis.call('INCR', 'named:{n}')"));
        let refused = client.ask(&["FUNCTION", "LOAD", &literal]).await;
        let why = "ERR Library 'counter' already exists";
        assert_eq!(refused, Value::Error(why.into()));
        assert_eq!(client.call(&format!("FCALL count 0 named:{n}")).await, Value::Integer(2));
        let loaded = client.ask(&["FUNCTION", "LOAD", "REPLACE", &literal]).await;
        assert_eq!(loaded, bulk("counter"));
        assert_eq!(client.call("FCALL count 0").await, Value::Integer(3));
        client.ask(&["FUNCTION", "LOAD", "REPLACE", &argument]).await;
    }
    assert_eq!(client.call("FUNCTION DELETE counter").await, ok());
    let gone = client.call("FCALL count 0 named:1").await;
    assert_eq!(gone, Value::Error("ERR Function not found".into()));
    proxy.shutdown().await;
}

/// What one server runs without keys runs here where the key is that the script names. While its slot moves it hears that the
/// key is elsewhere, and never runs where only some of its keys are.
#[tokio::test]
async fn scripts_without_keys_run_where_the_key_is_that_they_name() {
    let _turn = beside_others().await;
    let cluster = Cluster::start(3, 0).await;
    let proxy = front::start(front::patient(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    for n in 0..KEYS {
        let key = format!("named:{n}");
        let literal = format!("redis.pcall('time') return redis.call('INCR', '{key}')");
        assert_eq!(client.ask(&["EVAL", &literal, "0"]).await, Value::Integer(1), "{key}");
        let argument = "local key = ARGV[1]; return redis.call('INCR', key)";
        assert_eq!(client.ask(&["EVAL", argument, "0", &key]).await, Value::Integer(2), "{key}");
        let digest = client.ask(&["SCRIPT", "LOAD", argument]).await;
        let digest = value::text(&digest).expect("a digest");
        assert_eq!(client.ask(&["EVALSHA", digest, "0", &key]).await, Value::Integer(3), "{key}");
    }
    // Of three keys the first is never there.
    let two = "if redis.call('EXISTS', ARGV[1]) == 0 then return redis.call('INCR', ARGV[2]) end";
    let calls = [
        ["EVAL", "return redis.call('INCR', ARGV[1])", "0", "{moves}1", ""],
        ["EVAL", two, "0", "{moves}0", "{moves}2"],
    ];
    let slot = Slot::of(b"{moves}");
    let to = usize::from(cluster.owners().await[slot.index()] == 0);
    for key in ["{moves}1", "{moves}2"] {
        client.ask(&["SET", key, "0"]).await;
    }
    let (mut ran, mut elsewhere) = ([0; 2], 0);
    let count = async |client: &mut Client, ran: &mut [i64; 2]| {
        let mut failed = 0;
        for (call, ran) in calls.iter().zip(ran) {
            match client.ask(call).await {
                Value::Integer(now) => {
                    *ran += 1;
                    assert_eq!(now, *ran, "{call:?}");
                }
                Value::Error(text) => {
                    assert!(text.contains("access a non local key"), "{text}");
                    failed += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        failed
    };
    assert_eq!(count(&mut client, &mut ran).await, 0);
    cluster.move_slot(slot, to, async || elsewhere += count(&mut client, &mut ran).await).await;
    assert!(elsewhere > 0 && ran[0] > 1, "{elsewhere} {ran:?}");
    until(Duration::from_secs(20), "the new owner", async || {
        let failed = count(&mut client, &mut ran).await;
        if failed == 0 { Ok(()) } else { Err(format!("{failed} of 2 fail")) }
    })
    .await;
    proxy.shutdown().await;
}
