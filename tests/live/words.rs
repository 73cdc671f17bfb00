//! What the proxy says by itself is what a server says, word for word.

use slotway::resp::value;

use crate::client::{Client, wire};
use crate::cluster::{Cluster, steady};
use crate::{alone, front};

/// Requests that get the same reply of the proxy and of a node.
const LINES: &[&str] = &[
    "PING a b",
    "ECHO",
    "AUTH a b c",
    "AUTH x",
    "AUTH nobody x",
    "HELLO 4",
    "HELLO x",
    "HELLO 3 FOO",
    "HELLO 2 AUTH nobody x",
    "RESET x",
    "CLIENT FOO",
    "CLIENT HELP x",
    "CLIENT ID x",
    "CLIENT GETNAME",
    "CLIENT GETREDIR",
    "CLIENT SETNAME \u{7f}",
    "CLIENT TRACKING OFF",
    "CLIENT REPLY ON",
    "CLIENT NO-EVICT x",
    "CLIENT LIST ID",
    "CLIENT LIST ID x",
    "CLIENT LIST ID 99999999999999999999",
    "CLIENT LIST ID 9223372036854775807 -1 0",
    "CLIENT LIST TYPE",
    "CLIENT LIST TYPE foo",
    "CLIENT LIST TYPE master",
    "CLIENT LIST TYPE pubsub",
    "CLIENT LIST TYPE normal x",
    "CLIENT LIST FOO",
    "CLIENT KILL",
    "CLIENT KILL 1.2.3.4:5",
    "CLIENT KILL ID",
    "CLIENT KILL ID x",
    "CLIENT KILL ID 0",
    "CLIENT KILL ID 9223372036854775807",
    "CLIENT KILL ADDR 1.2.3.4:5",
    "CLIENT KILL LADDR 1.2.3.4:5",
    "CLIENT KILL USER nobody",
    "CLIENT KILL TYPE foo",
    "CLIENT KILL TYPE master",
    "CLIENT KILL ID 1 ADDR",
    "CLIENT KILL SKIPME maybe",
    "CLIENT KILL FOO x",
    "CLIENT UNBLOCK",
    "CLIENT UNBLOCK x",
    "CLIENT UNBLOCK 9223372036854775807",
    "CLIENT UNBLOCK 1 FOO",
    "CLIENT UNBLOCK 1 TIMEOUT x",
    "CLIENT PAUSE",
    "CLIENT PAUSE x",
    "CLIENT PAUSE -1",
    "CLIENT PAUSE 0 FOO",
    "CLIENT PAUSE 0",
    "CLIENT PAUSE 0 WRITE",
    "CLIENT PAUSE 0 ALL x",
    "CLIENT UNPAUSE",
    "CLIENT UNPAUSE x",
    "CLIENT REPLY",
    "CLIENT REPLY FOO",
    "CLIENT CACHING",
    "CLIENT CACHING YES",
    "CLIENT TRACKING",
    "CLIENT TRACKINGINFO",
    "CLIENT NO-EVICT ON",
    "CLIENT GETREDIR x",
    "COMMAND FOO",
    "COMMAND HELP",
    "COMMAND HELP x",
    "COMMAND COUNT x",
    "COMMAND INFO nonsense",
    "COMMAND LIST FILTERBY",
    "COMMAND LIST FILTERBY FOO x",
    "COMMAND LIST FILTERBY MODULE foo",
    "COMMAND LIST FILTERBY ACLCAT foo",
    "COMMAND LIST FILTERBY PATTERN nonsense*",
    "COMMAND LIST FILTERBY PATTERN a b",
    "COMMAND GETKEYS",
    "COMMAND GETKEYS PING x",
    "COMMAND GETKEYS NONSENSE x",
    "COMMAND GETKEYS GET a b",
    "COMMAND GETKEYS MGET a b",
    "COMMAND GETKEYS EVAL s 0",
    "COMMAND GETKEYS EVAL s x",
    "COMMAND GETKEYS EVAL s 1 a b",
    "COMMAND GETKEYS OBJECT ENCODING k",
    "COMMAND GETKEYS OBJECT HELP x",
    "COMMAND GETKEYS OBJECT FOO k",
    "COMMAND GETKEYS CONFIG GET x",
    "COMMAND GETKEYS ZUNIONSTORE d 2 a b",
    "COMMAND GETKEYS ZUNION 0 a",
    "COMMAND GETKEYS XREAD COUNT 5 STREAMS a b 0 0",
    "COMMAND GETKEYSANDFLAGS",
    "COMMAND GETKEYSANDFLAGS GET k",
    "COMMAND GETKEYSANDFLAGS RENAME a b",
    "COMMAND GETKEYSANDFLAGS SORT k STORE d",
    "COMMAND GETKEYSANDFLAGS PING x",
    "CONFIG GET",
    "CONFIG FOO",
    "CONFIG GET databases-that-are-not-there",
    "PUBSUB",
    "PUBSUB FOO",
    "PUBSUB HELP",
    "PUBSUB CHANNELS nonsense",
    "PUBSUB CHANNELS a b",
    "PUBSUB NUMSUB",
    "PUBSUB NUMSUB nonsense",
    "PUBSUB NUMPAT x",
    "PUBSUB SHARDNUMSUB nonsense",
    "SUBSCRIBE",
    "SUBSCRIBE nonsense",
    "SSUBSCRIBE a b",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE nonsense",
    "SUNSUBSCRIBE",
    "CONFIG GET maxmemory-policy",
    "CONFIG GET hash-max-listpack-entries",
    "CONFIG GET maxmemory-samples x",
    "CONFIG HELP",
    "CONFIG HELP x",
    "CONFIG REWRITE x",
    "CONFIG RESETSTAT",
    "CONFIG RESETSTAT x",
    "CONFIG SET",
    "CONFIG SET maxmemory",
    "CONFIG SET maxmemory 0 x",
    "CONFIG SET maxmemory x",
    "CONFIG SET maxmemory 0 maxmemory 0",
    "CONFIG SET maxmemory 0",
    "CONFIG SET nonsense x",
    "CONFIG SET maxmemory 0 nonsense x",
    "CONFIG SET timeout x",
    "CONFIG SET timeout -1",
    "CONFIG SET timeout 0",
    "CONFIG SET maxclients x",
    "CONFIG SET maxclients 0",
    "CONFIG SET slowlog-max-len x",
    "CONFIG SET slowlog-log-slower-than x",
    "CONFIG SET slowlog-log-slower-than 10000 slowlog-max-len 128 hash-max-ziplist-entries 512",
    "SLOWLOG",
    "SLOWLOG FOO",
    "SLOWLOG HELP",
    "SLOWLOG GET x",
    "SLOWLOG GET -2",
    "SLOWLOG GET 1 2",
    "SLOWLOG LEN x",
    "SLOWLOG RESET",
    "SLOWLOG GET -1",
    "SLOWLOG LEN",
    "LATENCY",
    "LATENCY FOO",
    "LATENCY HELP",
    "LATENCY GRAPH nothing",
    "LATENCY HISTORY nothing",
    "LATENCY HISTORY",
    "LATENCY LATEST",
    "LATENCY RESET",
    "LATENCY DOCTOR",
    "MEMORY",
    "MEMORY FOO",
    "MEMORY HELP",
    "MEMORY DOCTOR x",
    "MEMORY PURGE",
    "MEMORY USAGE",
    "LASTSAVE x",
    "ROLE x",
    "MONITOR x",
    "OBJECT",
    "OBJECT FOO k",
    "OBJECT HELP",
    "OBJECT ENCODING",
    "XINFO FOO",
    "XGROUP HELP",
    "XREADGROUP GROUP block c STREAMS s >",
    "XREAD COUNT x STREAMS s 0",
    "FOO",
    "FOO a b",
    "GET",
    "GET a b",
    "RENAME a b",
    "EVAL return x y",
];

async fn is_7_0(cluster: &Cluster) -> bool {
    let info = cluster.call(0, &["INFO", "server"]).await;
    let info = value::text(&info).expect("a text");
    info.contains("redis_version:7.0.") && !info.contains("valkey_version")
}

#[tokio::test]
async fn replies_are_those_of_a_server() {
    let _turn = alone().await;
    let cluster = steady().await;
    if !is_7_0(cluster).await {
        eprintln!("the texts are those of Redis 7.0; nothing was compared");
        return;
    }
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut amiss = Vec::new();
    for line in LINES {
        let request = wire(&line.split(' ').collect::<Vec<_>>());
        let mut replies = Vec::new();
        for address in [cluster.address(0), proxy.data.to_string()] {
            let mut client = Client::to(&address).await;
            client.send(&request).await.expect("the request is taken");
            let reply = client.raw_reply().await.expect("a reply");
            replies.push(String::from_utf8_lossy(&reply).into_owned());
        }
        if replies[0] != replies[1] {
            amiss.push(format!("{line}\n  node:  {:?}\n  proxy: {:?}", replies[0], replies[1]));
        }
    }
    assert!(amiss.is_empty(), "{}", amiss.join("\n"));
    proxy.shutdown().await;
}
