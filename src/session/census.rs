//! `PUBSUB`: who is subscribed to what, as one server would tell it.
//!
//! Every node is asked for what it knows. It counts each hub of this proxy as one client: those are taken off, and the
//! clients behind them put in their place. A node that does not answer in time is left out.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::connection::Session;
use super::{Message, Shared};
use crate::backend::Pool;
use crate::cluster::Address;
use crate::command::{Claim, glob};
use crate::pubsub::{Kind, Tally, Topic};
use crate::refusal::Refusal;
use crate::replies::Reply;
use crate::resp::request::Request;
use crate::resp::value::{self, Value};
use crate::resp::{Protocol, write};

/// How long one node may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is asked for.
enum Question {
    Channels(Kind, Vec<u8>),
    Counts(Kind, Vec<Bytes>),
    Patterns,
}

/// What this proxy is subscribed to.
type Tallies = HashMap<Topic, Tally>;

impl Session {
    pub(super) fn pubsub(&self, request: &Request<'_>) {
        let question = match question(request) {
            Ok(question) => question,
            Err(refusal) => return self.refuse(&refusal),
        };
        let promise = self.replies.promise(Claim::None, true);
        let (shared, request) = (Rc::clone(&self.shared), Bytes::copy_from_slice(request.bytes()));
        tokio::task::spawn_local(async move {
            let nodes = ask_nodes(&shared.pool, &request).await;
            let mut wire = Vec::new();
            question.answer(&ask_workers(&shared).await, &nodes, &mut wire);
            promise.fulfil(Reply::Small(&wire));
        });
    }
}

fn question(request: &Request<'_>) -> Result<Question, Refusal> {
    let names = || request.args(2).map(Bytes::copy_from_slice).collect();
    let pattern = || request.args(2).next().unwrap_or(b"*").to_vec();
    let sub = String::from_utf8_lossy(&request.arg(1)[..request.arg(1).len().min(128)]);
    match sub.to_ascii_lowercase().as_str() {
        "channels" | "shardchannels" if request.len() > 3 => Err(Refusal::text(format!(
            "ERR unknown subcommand or wrong number of arguments for '{sub}'. Try PUBSUB HELP."
        ))),
        "channels" => Ok(Question::Channels(Kind::Channel, pattern())),
        "shardchannels" => Ok(Question::Channels(Kind::Shard, pattern())),
        "numsub" => Ok(Question::Counts(Kind::Channel, names())),
        "shardnumsub" => Ok(Question::Counts(Kind::Shard, names())),
        "numpat" => Ok(Question::Patterns),
        _ => {
            Err(Refusal::UnknownSubcommand { command: "PUBSUB".to_owned(), sub: sub.into_owned() })
        }
    }
}

async fn ask_workers(shared: &Shared) -> Tallies {
    let mut all = Tallies::new();
    for worker in &shared.workers {
        let (answer, answered) = oneshot::channel();
        if worker.send(Message::ListTopics(answer)).is_err() {
            continue;
        }
        for (topic, tally) in answered.await.unwrap_or_default() {
            let sum = all.entry(topic).or_default();
            sum.clients += tally.clients;
            sum.links += tally.links;
        }
    }
    all
}

/// What the nodes answer, all asked at once.
async fn ask_nodes(pool: &Rc<Pool>, request: &Bytes) -> Vec<Value> {
    let ask = |address| {
        let (pool, request) = (Rc::clone(pool), request.clone());
        let asked = async move { timeout(PATIENCE, ask_node(&pool, &address, &request)).await };
        tokio::task::spawn_local(asked)
    };
    let asked: Vec<_> = pool.sound_addresses().into_iter().map(ask).collect();
    let mut answers = Vec::with_capacity(asked.len());
    for asked in asked {
        if let Ok(Ok(Some(answer))) = asked.await {
            answers.push(answer);
        }
    }
    answers
}

async fn ask_node(pool: &Rc<Pool>, address: &Address, request: &[u8]) -> Option<Value> {
    let mut lease = pool.lease_at(address, Protocol::Resp2).await.ok()?;
    let reply = lease.call(request).await.ok()?;
    lease.give_back();
    value::decode(&reply).ok()?.map(|(value, _)| value)
}

impl Question {
    fn answer(&self, tallies: &Tallies, nodes: &[Value], out: &mut Vec<u8>) {
        match self {
            Self::Channels(kind, pattern) => {
                let names = channels(*kind, pattern, tallies, nodes);
                write::array(out, names.len());
                for name in names {
                    write::bulk(out, name);
                }
            }
            Self::Counts(kind, names) => {
                write::array(out, 2 * names.len());
                for (at, name) in names.iter().enumerate() {
                    let topic = Topic { kind: *kind, name: name.clone() };
                    let tally = tallies.get(&topic).copied().unwrap_or_default();
                    let counts =
                        nodes.iter().filter_map(|node| value::array(node)?.get(2 * at + 1));
                    write::bulk(out, name);
                    write::integer(out, total(counts, tally));
                }
            }
            Self::Patterns => {
                let own = tallies.iter().filter(|(topic, _)| topic.kind == Kind::Pattern);
                let tally = own.fold(Tally::default(), |sum, (_, tally)| Tally {
                    clients: sum.clients + usize::from(tally.clients > 0),
                    links: sum.links + tally.links,
                });
                write::integer(out, total(nodes.iter(), tally));
            }
        }
    }
}

/// What the nodes count, with clients in the place of links. Whoever comes or goes meanwhile may be missing.
fn total<'a>(counts: impl Iterator<Item = &'a Value>, tally: Tally) -> i64 {
    let integer = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let strangers: i64 = counts.filter_map(value::integer).sum::<i64>() - integer(tally.links);
    strangers.max(0).saturating_add(integer(tally.clients))
}

/// The names that anybody is subscribed to: not those that only hubs still are.
fn channels<'a>(
    kind: Kind,
    pattern: &[u8],
    tallies: &'a Tallies,
    nodes: &'a [Value],
) -> BTreeSet<&'a [u8]> {
    let own = tallies.iter().filter(|(topic, _)| topic.kind == kind);
    let own = own.filter(|(topic, _)| glob::matches(pattern, &topic.name));
    let (held, left): (Vec<_>, Vec<_>) = own.partition(|(_, tally)| tally.clients > 0);
    let name = |value: &'a Value| match value {
        Value::BulkString(name) => Some(&name[..]),
        _ => None,
    };
    let mut names: BTreeSet<&[u8]> =
        nodes.iter().filter_map(value::array).flatten().filter_map(name).collect();
    for (topic, _) in left {
        names.remove(&topic.name[..]);
    }
    names.extend(held.iter().map(|(topic, _)| &topic.name[..]));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(question: &Question, tallies: &[(Kind, &str, usize, usize)], expected: &str) {
        let text = |text: &'static str| Value::BulkString(text.into());
        let tallies: Tallies = tallies
            .iter()
            .map(|(kind, name, clients, links)| {
                (Topic::new(*kind, name.as_bytes()), Tally { clients: *clients, links: *links })
            })
            .collect();
        let nodes: &[Value] = &match question {
            Question::Channels(..) => [
                Value::Array(vec![text("a"), text("b")]),
                Value::Array(vec![text("c"), text("gone")]),
            ],
            Question::Counts(..) => {
                [3, 1].map(|count| Value::Array(vec![text("a"), Value::Integer(count)]))
            }
            Question::Patterns => [Value::Integer(2), Value::Integer(3)],
        };
        let mut out = Vec::new();
        question.answer(&tallies, nodes, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn clients_stand_in_the_place_of_hubs() {
        let counts = Question::Counts(Kind::Channel, vec!["a".into()]);
        check(&counts, &[], "*2\r\n$1\r\na\r\n:4\r\n");
        check(&counts, &[(Kind::Channel, "a", 10, 2)], "*2\r\n$1\r\na\r\n:12\r\n");
        check(&counts, &[(Kind::Channel, "a", 10, 9)], "*2\r\n$1\r\na\r\n:10\r\n");
        check(&counts, &[(Kind::Shard, "a", 10, 2)], "*2\r\n$1\r\na\r\n:4\r\n");
        let patterns = [(Kind::Pattern, "p*", 7, 3), (Kind::Pattern, "q*", 0, 1)];
        check(&Question::Patterns, &patterns, ":2\r\n");
    }

    #[test]
    fn channels_are_those_of_anybody() {
        let question = Question::Channels(Kind::Channel, b"*".to_vec());
        let own = [(Kind::Channel, "gone", 0, 1), (Kind::Channel, "a", 1, 1)];
        let names = "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n";
        check(&question, &own, names);
    }
}
