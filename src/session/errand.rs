//! Commands for which the proxy asks several nodes by itself: `SCAN`, `RANDOMKEY`, `SAVE`, `PING` if that is for the nodes, `SORT` by other keys, and those on
//! scripts and functions that must not stand in line behind other requests.
//!
//! The nodes are asked on leases, so each question goes to the node that is meant and to no other, and it is heard by a node
//! that is busy with a script. Libraries alone are loaded by lanes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use bytes::Bytes;
use memchr::memmem;
use tokio::time::{Duration, Instant, sleep};

use super::Shared;
use super::ask::{Asking, Question, error};
use super::connection::Session;
use super::{scan, sort};
use crate::backend::Pool;
use crate::cluster::{Address, NodeId};
use crate::command::function::Library;
use crate::command::{Claim, Errand, Nature};
use crate::refusal::Refusal;
use crate::replies::{LARGE, Reply};
use crate::resp::Protocol;
use crate::resp::redirect::{Verdict, verdict};
use crate::resp::request::Request;
use crate::resp::value::{self, Value};
use crate::resp::write;
use crate::route::Decision;

const DBSIZE: &[u8] = b"*1\r\n$6\r\nDBSIZE\r\n";
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const BGSAVE: &[u8] = b"*1\r\n$6\r\nBGSAVE\r\n";
const PERSISTENCE: &[u8] = b"*2\r\n$4\r\nINFO\r\n$11\r\npersistence\r\n";
/// How often nodes that save are asked whether they are done.
const SAVE_TURN: Duration = Duration::from_millis(20);
/// How long the primaries are taken to have as many keys as they had.
const SIZES_LAST: Duration = Duration::from_secs(1);

/// How many keys each primary had, and when.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    when: Option<Instant>,
    keys: BTreeMap<NodeId, u64>,
}

/// One command on its way.
pub(super) struct Mission {
    pub(super) shared: Rc<Shared>,
    pub(super) protocol: Protocol,
    deadline: Cell<Instant>,
    pub(super) args: Vec<Bytes>,
    wire: Bytes,
    since: std::time::Instant,
}

/// What a node replied, or why it did not.
pub(super) type Asked = Result<Bytes, Refusal>;

impl Session {
    /// Sends the proxy off on behalf of the client, whose later commands wait until it is back.
    pub(super) fn run_errand(&self, errand: Errand, request: &Request<'_>, decision: &Decision) {
        let timed = self.timed(request);
        let mission = Mission {
            shared: Rc::clone(&self.shared),
            protocol: self.protocol(),
            deadline: Cell::new(self.shared.pool.deadline()),
            args: request.args(0).map(Bytes::copy_from_slice).collect(),
            wire: Bytes::copy_from_slice(request.bytes()),
            since: std::time::Instant::now(),
        };
        let promise = self.replies.promise(Claim::All, decision.nature.reads);
        tokio::task::spawn_local(async move {
            match mission.run(errand).await {
                Ok(reply) if reply.len() < LARGE => promise.fulfil(Reply::Small(&reply)),
                Ok(reply) => promise.fulfil(Reply::Large(reply)),
                Err(refusal) => mission.shared.pool.refuse(promise, &refusal),
            }
            timed.end(&mission.shared.pool);
        });
    }
}

impl Mission {
    async fn run(&self, errand: Errand) -> Asked {
        match errand {
            Errand::Scan => scan::run(self).await,
            Errand::RandomKey => self.random_key().await,
            Errand::LoadScript => self.load_script().await,
            Errand::LoadLibrary => self.load_library().await,
            Errand::HaveScripts => self.have_scripts().await,
            Errand::FlushScripts => {
                self.pool().scripts.clear();
                Ok(one_of(&self.everywhere(&self.wire).await?, is_error))
            }
            Errand::Kill => {
                let replies = self.everywhere(&self.wire).await?;
                let replies = if replies.iter().any(|reply| reply.starts_with(b"+")) {
                    replies.into_iter().filter(|reply| !is_error(reply)).collect()
                } else {
                    replies
                };
                Ok(one_of(&replies, |reply| !reply.starts_with(b"-NOTBUSY")))
            }
            Errand::Save => self.save().await,
            Errand::Ping => self.ping().await,
            Errand::Sort => sort::run(self).await,
            Errand::RunningFunction => Ok(one_of(&self.everywhere(&self.wire).await?, |reply| {
                !is_error(reply) && runs(reply)
            })),
        }
    }

    /// Whether all primaries answer; the text of `PING text` is for the client alone.
    async fn ping(&self) -> Asked {
        let replies = self.everywhere(&Bytes::from_static(PING)).await?;
        let error = replies.iter().find(|reply| is_error(reply));
        self.shared.count_call(("ping", ""), self.since, error.is_some());
        if let Some(error) = error {
            return Ok(error.clone());
        }
        let mut wire = Vec::new();
        match self.args.get(1) {
            Some(text) => write::bulk(&mut wire, text),
            None => write::simple(&mut wire, "PONG"),
        }
        Ok(wire.into())
    }

    pub(super) fn pool(&self) -> &Rc<Pool> {
        &self.shared.pool
    }

    /// Whether there is no more time to look for somebody who answers.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline.get()
    }

    /// Who owns slots, and where they are.
    fn primaries(&self) -> BTreeMap<NodeId, Address> {
        let topology = self.pool().topology();
        let nodes = topology.primaries().iter().map(|(index, _)| topology.node(*index));
        nodes.map(|node| (node.id.clone(), node.address.clone())).collect()
    }

    /// Loads a script on every primary, and remembers it for those to come if they agree on its digest.
    async fn load_script(&self) -> Asked {
        let replies = self.everywhere(&self.wire).await?;
        let odd = replies.iter().find(|reply| is_error(reply) || **reply != replies[0]);
        if let Some(odd) = odd {
            return Ok(odd.clone());
        }
        let digest = replies[0].split(|byte| *byte == b'\n').nth(1);
        if let (Some(digest), Some(body)) =
            (digest.and_then(|d| d.strip_suffix(b"\r")), self.args.get(2))
        {
            self.pool().scripts.remember(digest, body);
        }
        Ok(replies[0].clone())
    }

    /// Of each digest, whether a call of it runs wherever it goes: all primaries know it, or can be told.
    async fn have_scripts(&self) -> Asked {
        let replies = self.everywhere(&self.wire).await?;
        if let Some(error) = replies.iter().find(|reply| is_error(reply)) {
            return Ok(error.clone());
        }
        let told: Vec<Value> = replies
            .iter()
            .filter_map(|reply| value::decode(reply).ok().flatten())
            .map(|(told, _)| told)
            .collect();
        let mut wire = Vec::new();
        write::array(&mut wire, self.args.len() - 2);
        for (at, digest) in self.args[2..].iter().enumerate() {
            let flag = |told| value::array(told).and_then(|flags| value::integer(flags.get(at)?));
            let is_known =
                told.len() == replies.len() && told.iter().all(|told| flag(told) == Some(1));
            let is_here = self.pool().scripts.text(digest).is_some();
            write::integer(&mut wire, i64::from(is_known || is_here));
        }
        Ok(wire.into())
    }

    /// Loads a library on every primary, and remembers it if all have taken it. It goes the way of requests, so that no node
    /// is told twice.
    async fn load_library(&self) -> Asked {
        let text = self.args.last().map_or(&[][..], |text| text);
        let libraries = &self.pool().scripts.libraries;
        let replaces = self.args[2].eq_ignore_ascii_case(b"REPLACE");
        if let Some(name) = Library::name(text).filter(|_| replaces) {
            // Some nodes may take it, and others not.
            libraries.forget(name);
        }
        let nature = Nature { scripted: true, ..Nature::WRITE };
        let slots = self.pool().primaries();
        if slots.is_empty() {
            return Err(Refusal::ClusterDown);
        }
        let question = |slot| Question { slot, wire: self.wire.clone(), nature };
        let mut asking = Asking::new(&self.shared, "FUNCTION LOAD");
        let replies = match asking.values(slots.into_iter().map(question)).await {
            Ok(replies) => replies,
            Err(error) => return Ok(error),
        };
        let error = replies.iter().find_map(|reply| match reply {
            Value::Error(text) => Some(error(text)),
            _ => None,
        });
        if let Some(error) = error {
            return Ok(error);
        }
        libraries.remember(text);
        let mut wire = Vec::new();
        write::bulk(&mut wire, replies.first().and_then(value::text).unwrap_or_default());
        Ok(wire.into())
    }

    /// Has every primary save its keys, and waits until all have. A node that did so in the foreground would be deaf to the
    /// others meanwhile, who would put a replica in its place.
    async fn save(&self) -> Asked {
        let begun = self.each(&Bytes::from_static(BGSAVE)).await?;
        if let Some(error) = begun.values().find(|reply| is_error(reply)) {
            return Ok(error.clone());
        }
        loop {
            sleep(SAVE_TURN).await;
            self.deadline.set(self.pool().deadline());
            let told = self.each(&Bytes::from_static(PERSISTENCE)).await?;
            if !told.keys().eq(begun.keys()) {
                return Err(Refusal::text(
                    "ERR proxy: a primary was replaced before it had saved, save again",
                ));
            }
            let says = |line| told.values().any(|text| memmem::find(text, line).is_some());
            if !says(&b"rdb_bgsave_in_progress:1"[..]) {
                let failed = says(b"rdb_last_bgsave_status:err");
                return Ok(Bytes::from_static(if failed { b"-ERR\r\n" } else { b"+OK\r\n" }));
            }
        }
    }

    /// What all primaries say to a request; at least one reply.
    async fn everywhere(&self, wire: &Bytes) -> Result<Vec<Bytes>, Refusal> {
        Ok(self.each(wire).await?.into_values().collect())
    }

    /// What each primary says to a request; at least one reply.
    async fn each(&self, wire: &Bytes) -> Result<BTreeMap<NodeId, Bytes>, Refusal> {
        let mut replies = BTreeMap::new();
        loop {
            let mut missing = self.primaries();
            missing.retain(|id, _| !replies.contains_key(id));
            if missing.is_empty() && !replies.is_empty() {
                return Ok(replies);
            }
            let mut refusal = missing.is_empty().then_some(Refusal::ClusterDown);
            for (id, asked) in self.ask(missing, wire, self.protocol).await {
                match asked.and_then(able) {
                    Ok(reply) => drop(replies.insert(id, reply)),
                    Err(reason) => refusal = Some(reason),
                }
            }
            if let Some(refusal) = refusal {
                if self.is_over() {
                    return Err(refusal);
                }
                self.pool().look_again().await;
            }
        }
    }

    /// Asks nodes at the same time.
    pub(super) async fn ask(
        &self,
        nodes: BTreeMap<NodeId, Address>,
        wire: &Bytes,
        protocol: Protocol,
    ) -> Vec<(NodeId, Asked)> {
        let asking: Vec<_> = nodes
            .into_iter()
            .map(|(id, address)| {
                let (pool, wire) = (Rc::clone(self.pool()), wire.clone());
                tokio::task::spawn_local(async move {
                    (id, pool.ask_at(&address, protocol, &wire).await)
                })
            })
            .collect();
        let mut answers = Vec::with_capacity(asking.len());
        for answer in asking {
            answers.extend(answer.await);
        }
        answers
    }

    /// A key of a primary drawn by lot, the likelier the more keys it has; of another one if that has none after all.
    async fn random_key(&self) -> Asked {
        let sizes = self.sizes().await;
        let mut primaries: Vec<(NodeId, Address)> = self.primaries().into_iter().collect();
        let weights = primaries.iter().map(|(id, _)| sizes.get(id).copied().unwrap_or(0));
        let first = drawn(weights.collect::<Vec<_>>().as_slice(), lot());
        primaries.rotate_left(first);
        let (mut nil, mut refusal) = (None, None);
        for (_, address) in primaries {
            match self.pool().ask_at(&address, self.protocol, &self.wire).await.and_then(able) {
                Ok(reply) if is_nil(&reply) => nil = Some(reply),
                Ok(reply) => return Ok(reply),
                Err(reason) => refusal = Some(reason),
            }
        }
        match (nil, refusal) {
            (Some(nil), None) => Ok(nil),
            (_, refusal) => Err(refusal.unwrap_or(Refusal::ClusterDown)),
        }
    }

    /// How many keys the primaries have, or had a moment ago.
    async fn sizes(&self) -> BTreeMap<NodeId, u64> {
        let primaries = self.primaries();
        {
            let sizes = self.shared.sizes.borrow();
            let is_fresh = sizes.when.is_some_and(|when| when.elapsed() < SIZES_LAST);
            if is_fresh && primaries.keys().eq(sizes.keys.keys()) {
                return sizes.keys.clone();
            }
        }
        let wire = Bytes::from_static(DBSIZE);
        let answers = self.ask(primaries, &wire, Protocol::Resp2).await;
        let keys: BTreeMap<NodeId, u64> = answers
            .into_iter()
            .map(|(id, asked)| (id, asked.ok().and_then(|reply| number(&reply)).unwrap_or(0)))
            .collect();
        *self.shared.sizes.borrow_mut() = Sizes { when: Some(Instant::now()), keys: keys.clone() };
        keys
    }
}

/// A node that cannot serve for now says so; that is no reply of the command's.
pub(super) fn able(reply: Bytes) -> Asked {
    if verdict(&reply) == Verdict::Final {
        return Ok(reply);
    }
    let words = String::from_utf8_lossy(&reply);
    Err(Refusal::LastWord(words.trim_start_matches('-').trim_end().to_owned()))
}

/// The first reply of which `counts` is true, else the first; of at least one.
fn one_of(replies: &[Bytes], counts: impl Fn(&[u8]) -> bool) -> Bytes {
    let chosen = replies.iter().find(|reply| counts(reply)).or(replies.first());
    chosen.cloned().unwrap_or_default()
}

fn is_nil(reply: &[u8]) -> bool {
    matches!(reply, b"$-1\r\n" | b"_\r\n")
}

fn is_error(reply: &[u8]) -> bool {
    reply.starts_with(b"-")
}

/// Whether `FUNCTION STATS` tells of a script that runs.
fn runs(reply: &[u8]) -> bool {
    const NAME: &[u8] = b"running_script\r\n";
    let behind =
        reply.windows(NAME.len()).position(|window| window == NAME).map(|at| at + NAME.len());
    behind.is_some_and(|at| {
        ![&b"$-1"[..], b"*-1", b"_"].iter().any(|nil| reply[at..].starts_with(nil))
    })
}

fn number(reply: &[u8]) -> Option<u64> {
    let digits = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The one that the lot falls on when each has as many tickets as its weight; the first if there are none.
fn drawn(weights: &[u64], lot: u64) -> usize {
    let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let Some(mut ticket) = u128::from(lot).checked_rem(total) else { return 0 };
    for (at, weight) in weights.iter().enumerate() {
        match ticket.checked_sub(u128::from(*weight)) {
            Some(rest) => ticket = rest,
            None => return at,
        }
    }
    0
}

/// A number that nobody can foresee: the keys of every hash are others.
fn lot() -> u64 {
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lot_falls_by_weight() {
        let mut counts = [0; 4];
        for lot in 0..60 {
            counts[drawn(&[1, 0, 3, 2], lot)] += 1;
        }
        assert_eq!(counts, [10, 0, 30, 20]);
        assert_eq!((drawn(&[], 7), drawn(&[0, 0], 7)), (0, 0));
    }

    #[test]
    fn a_running_script_is_seen() {
        let idle = b"*4\r\n$14\r\nrunning_script\r\n$-1\r\n$7\r\nengines\r\n*0\r\n";
        let busy = b"*4\r\n$14\r\nrunning_script\r\n*6\r\n";
        let idle3 = b"%2\r\n$14\r\nrunning_script\r\n_\r\n";
        assert_eq!((runs(idle), runs(busy), runs(idle3)), (false, true, false));
    }
}
