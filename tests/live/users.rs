//! What users may do is what a server lets them do: rules made by chance, and requests made by chance.

use slotway::acl::{Asked, Denial, Users};
use slotway::command::table;
use slotway::resp::value::{self, Value};

use crate::client::{Client, wire};
use crate::server::Server;
use crate::{Dice, beside_others};

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

/// What the proxy says, in the words of `ACL DRYRUN`.
fn verdict(users: &Users, name: &str, args: &[String]) -> String {
    let user = users.find(name.as_bytes()).expect("the user was made");
    let container = table::lookup(args[0].as_bytes()).expect("a command of the table");
    let sub = args.get(1).and_then(|sub| table::subcommand(container, sub.as_bytes()));
    let spec = sub.unwrap_or(container);
    let full =
        sub.map_or(container.name.to_owned(), |sub| format!("{}|{}", container.name, sub.name));
    match user.check(Asked { spec, name: &full, args }) {
        Ok(()) => "OK".to_owned(),
        Err(Denial::Command) => {
            format!("This user has no permissions to run the '{full}' command")
        }
        Err(Denial::Key(at)) => {
            format!("This user has no permissions to access the '{}' key", args[at])
        }
        Err(Denial::Channel(at)) => {
            format!("This user has no permissions to access the '{}' channel", args[at])
        }
    }
}

fn text(reply: &Value) -> String {
    value::text(reply).map_or_else(|| format!("{reply:?}"), str::to_owned)
}

#[tokio::test]
async fn users_may_do_what_a_server_lets_them() {
    let _turn = beside_others().await;
    let server = Server::start().await;
    let (mut client, mut dice) = (Client::to(server.address()).await, Dice::from_env());
    let mut users = Users::default();
    for number in 0..USERS {
        let name = format!("user{number}");
        // Half of them may run anything, so that it is the keys and channels that count.
        let first: &[&str] = if number % 2 == 0 { &["+@all", "%R~r*", "%W~w*"] } else { &[] };
        let more = (0..dice.below(9)).map(|_| pick(&mut dice, RULES)).collect::<Vec<_>>();
        for rule in first.iter().copied().chain(more) {
            let reply = text(&client.ask(&["ACL", "SETUSER", &name, rule]).await);
            match users.set(name.as_bytes(), [rule.as_bytes()].into_iter()) {
                Ok(changed) => {
                    assert!(reply.contains("OK"), "{rule}: {reply}");
                    users = changed;
                }
                Err(error) => {
                    assert!(reply.contains(&error.to_string()), "{rule}: {error} / {reply}")
                }
            }
        }
        client.ask(&["ACL", "SETUSER", &name]).await;
        users = users.set(name.as_bytes(), std::iter::empty()).expect("no rule is no error");
        let asked: Vec<Vec<String>> = (0..REQUESTS).map(|_| made(&mut dice)).collect();
        let wires: Vec<Vec<u8>> = asked
            .iter()
            .map(|args| {
                let words = ["ACL", "DRYRUN", &name].into_iter();
                wire(&words.chain(args.iter().map(String::as_str)).collect::<Vec<_>>())
            })
            .collect();
        let line = users.find(name.as_bytes()).map(|user| user.line()).unwrap_or_default();
        for (args, reply) in asked.iter().zip(client.pipeline(&wires).await) {
            let line = String::from_utf8_lossy(&line);
            assert_eq!(verdict(&users, &name, args), text(&reply), "{args:?} of {line}");
        }
    }
}
