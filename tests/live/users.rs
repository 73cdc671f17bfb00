//! What users may do is what a server lets them do: rules made by chance, and requests made by chance.

use std::net::SocketAddr;

use slotway::resp::value::Value;

use crate::client::{Client, ok, wire};
use crate::cluster::steady;
use crate::server::Server;
use crate::{Dice, front};

const USERS: usize = 200;
const REQUESTS: usize = 100;

/// Rules, of which each user gets some.
const RULES: &[&str] = &[
    "+@all",
    "-@all",
    "+@read",
    "-@write",
    "+@write",
    "-@dangerous",
    "+@fast",
    "+@string",
    "-@hash",
    "+@list",
    "+@pubsub",
    "+@scripting",
    "+@stream",
    "+@slow",
    "+get",
    "-get",
    "+set",
    "+config|get",
    "-config|set",
    "+client",
    "-client|kill",
    "+select|0",
    "+object",
    "-object|freq",
    "~a*",
    "~b?",
    "%R~r*",
    "%W~w*",
    "%RW~[ab]c",
    "allkeys",
    "resetkeys",
    "&news*",
    "&x",
    "allchannels",
    "resetchannels",
    "(+get ~sel*)",
    "(+set %W~w* %R~s*)",
    "(+@pubsub &chan)",
    "clearselectors",
    "+publish",
    "+subscribe",
    "+eval",
    "-eval",
];

/// Requests, each with `%` for a key or channel.
const REQUESTS_MADE: &[&str] = &[
    "GET %",
    "SET % v",
    "SET % v GET",
    "STRLEN %",
    "INCR %",
    "GETDEL %",
    "APPEND % x",
    "MGET % %",
    "MSET % 1 % 2",
    "DEL % %",
    "EXISTS % %",
    "TYPE %",
    "RENAME % %",
    "COPY % %",
    "LMOVE % % LEFT LEFT",
    "LPUSH % x",
    "LPOP %",
    "LLEN %",
    "HGET % f",
    "HSET % f v",
    "HINCRBY % f 1",
    "SADD % x",
    "SPOP %",
    "SMOVE % % x",
    "SUNIONSTORE % % %",
    "ZADD % 1 x",
    "ZUNIONSTORE % 2 % %",
    "ZRANGESTORE % % 0 1",
    "ZPOPMIN %",
    "BITFIELD % GET u8 0",
    "BITFIELD % SET u8 0 1",
    "BITOP AND % % %",
    "PFADD % x",
    "PFCOUNT %",
    "PFMERGE % %",
    "XADD % * f v",
    "XREAD STREAMS % % 0 0",
    "XLEN %",
    "XREADGROUP GROUP g c STREAMS % >",
    "XGROUP CREATE % g 0",
    "XINFO STREAM %",
    "OBJECT ENCODING %",
    "OBJECT FREQ %",
    "SORT %",
    "SORT % STORE %",
    "GEORADIUS % 1 2 3 km STORE %",
    "EVAL x 2 % %",
    "EVAL_RO x 1 %",
    "EVAL x 0",
    "WATCH %",
    "BLPOP % % 0",
    "LMPOP 2 % % LEFT",
    "BZMPOP 0 2 % % MIN",
    "DUMP %",
    "EXPIRE % 1",
    "TTL %",
    "PUBLISH % m",
    "SPUBLISH % m",
    "SUBSCRIBE % %",
    "PSUBSCRIBE %",
    "SSUBSCRIBE %",
    "UNSUBSCRIBE %",
    "PING",
    "KEYS *",
    "FLUSHALL",
    "DBSIZE",
    "SELECT 0",
    "SELECT 1",
    "CONFIG GET x",
    "CONFIG SET x y",
    "CLIENT ID",
    "CLIENT KILL x",
    "CLIENT LIST",
    "AUTH x",
    "INFO",
    "MULTI",
    "SCRIPT EXISTS x",
    "MEMORY USAGE %",
    "ACL WHOAMI",
    "COMMAND COUNT",
    "SLOWLOG GET",
    "LATENCY RESET",
];

const NAMES: &[&str] = &[
    "a", "ax", "b1", "b", "bc", "rx", "wx", "rx", "wx", "sx", "sel", "news", "news*", "x", "chan",
    "other",
];

fn pick<'a>(dice: &mut Dice, of: &[&'a str]) -> &'a str {
    of[dice.below(of.len())]
}

fn made(dice: &mut Dice) -> Vec<String> {
    let form = pick(dice, REQUESTS_MADE);
    let word = |word| if word == "%" { pick(dice, NAMES) } else { word };
    form.split(' ').map(word).map(str::to_owned).collect()
}

/// Requests that may be done as often as one likes.
const HARMLESS: &[&str] = &[
    "GET", "STRLEN", "MGET", "EXISTS", "TYPE", "OBJECT", "DUMP", "MEMORY", "TTL", "LLEN", "HGET",
    "XLEN", "XINFO", "PFCOUNT", "PING", "KEYS", "DBSIZE", "COMMAND",
];

/// What an error says; nothing for other replies.
fn error(reply: &Value) -> &str {
    let Value::Error(text) = reply else { return "" };
    text
}

/// The proxy, and a server by itself that knows the same users.
struct Both {
    proxy: SocketAddr,
    server: String,
    /// Administrators of the two.
    clients: [Client; 2],
    executed: usize,
    denied: usize,
}

impl Both {
    /// What both answer, which must be the same.
    async fn ask(&mut self, args: &[&str]) -> Value {
        let [proxy, server] = &mut self.clients;
        let reply = server.ask(args).await;
        assert_eq!(proxy.ask(args).await, reply, "{args:?}");
        reply
    }

    /// What both tell of a user, but for its commands, which servers of different versions tell in different words.
    async fn compare(&mut self, name: &str) {
        let [proxy, server] = &mut self.clients;
        let args = ["ACL", "GETUSER", name];
        let (mut own, mut theirs) = (proxy.ask(&args).await, server.ask(&args).await);
        for told in [&mut own, &mut theirs] {
            let Value::Array(fields) = told else { panic!("{told:?}") };
            fields[5] = Value::Null;
            let Value::Array(selectors) = &mut fields[11] else { panic!("{fields:?}") };
            for selector in selectors {
                let Value::Array(fields) = selector else { panic!("{selector:?}") };
                fields[1] = Value::Null;
            }
        }
        assert_eq!(own, theirs, "{name}");
    }

    /// Has one request really made by a user of the proxy, if the server's verdict on it is no, or if it does no harm.
    async fn execute(&mut self, name: &str, requests: &[(Vec<String>, bool)]) {
        let [mut own, mut theirs] = [Client::to(self.proxy).await, Client::to(&self.server).await];
        for client in [&mut own, &mut theirs] {
            assert_eq!(client.ask(&["AUTH", name, "any"]).await, ok());
        }
        for (args, is_allowed) in requests {
            if *is_allowed && !HARMLESS.contains(&args[0].as_str()) {
                continue;
            }
            let reply = own.ask(args).await;
            let is_denied = error(&reply).starts_with("NOPERM");
            assert_eq!(is_denied, !is_allowed, "{args:?} of {name}: {reply:?}");
            if is_denied {
                assert_eq!(theirs.ask(args).await, reply, "{args:?} of {name}");
                self.denied += 1;
            }
            self.executed += 1;
        }
    }
}

#[tokio::test]
async fn users_may_do_what_a_server_lets_them() {
    let (cluster, server) = (steady().await, Server::start().await);
    let proxy = front::start(front::options(cluster.addresses())).await;
    let clients = [Client::to(proxy.data).await, Client::to(server.address()).await];
    let (data, server, mut dice) = (proxy.data, server.address(), Dice::from_env());
    let mut both = Both { proxy: data, server, clients, executed: 0, denied: 0 };
    for number in 0..USERS {
        let name = format!("user{number}");
        both.ask(&["ACL", "SETUSER", &name, "on", "nopass"]).await;
        // Half of them may run anything, so that it is the keys and channels that count.
        let first: &[&str] = if number % 2 == 0 { &["+@all", "%R~r*", "%W~w*"] } else { &[] };
        let more = (0..dice.below(9)).map(|_| pick(&mut dice, RULES)).collect::<Vec<_>>();
        for rule in first.iter().copied().chain(more) {
            both.ask(&["ACL", "SETUSER", &name, rule]).await;
        }
        both.compare(&name).await;
        let asked: Vec<Vec<String>> = (0..REQUESTS).map(|_| made(&mut dice)).collect();
        let wires: Vec<Vec<u8>> = asked
            .iter()
            .map(|args| {
                let words = ["ACL", "DRYRUN", &name].into_iter();
                wire(&words.chain(args.iter().map(String::as_str)).collect::<Vec<_>>())
            })
            .collect();
        let [own, theirs] = &mut both.clients;
        let (own, theirs) = (own.pipeline(&wires).await, theirs.pipeline(&wires).await);
        let mut verdicts = Vec::new();
        for ((args, own), theirs) in asked.into_iter().zip(own).zip(theirs) {
            assert_eq!(own, theirs, "{args:?} of {name}");
            verdicts.push((args, theirs == ok()));
        }
        both.execute(&name, &verdicts).await;
    }
    let (denied, allowed) = (both.denied, both.executed - both.denied);
    assert!(denied > 1000 && allowed > 500, "too few were really made: {denied} and {allowed}");
}
