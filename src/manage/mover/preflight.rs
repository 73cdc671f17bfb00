//! What has to be so before the first slot is opened, and what the move will be about.
//!
//! Everything that can be known to go wrong is found here, where refusing costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::company::Company;
use super::ends::{End, Sizes, groups};
use super::method::{self, Way};
use super::remedy::Setback;
use super::{BigKeys, MoveOptions};
use crate::backend::control::ControlError;
use crate::cluster::{NodeId, Slot, Slots};
use crate::manage::access::Access;
use crate::manage::plan::Move;
use crate::manage::view::{ClusterView, Info, NodeView};

/// How long nodes are silent before others suspect them, where they do not tell.
const NODE_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest that a link between two nodes is waited for. They try to make it ten times a second.
const RELINKED: Duration = Duration::from_secs(3);
/// Between two looks at it.
const RELINK_PAUSE: Duration = Duration::from_millis(100);
/// Bytes each second that a node serialises, sends and has stored, measured on loopback with one large hash.
const BYTES_PER_SECOND: u64 = 25_000_000;
/// Longest that the source waits for the target without hearing from it.
const MIGRATE_LONGEST: Duration = Duration::from_secs(5);
/// The least.
const MIGRATE_SHORTEST: Duration = Duration::from_millis(100);
/// Most keys of a slot whose sizes are asked for.
const KEYS_LOOKED_AT: usize = 10_000;
/// Of `maxmemory`, what a target may have in use when all is moved, in percent.
const FULL: u64 = 90;

/// What is asked of a target.
const TARGET: &[&[&str]] = &[&["RESTORE-ASKING", "k", "0", "v"], &["SELECT", "0"]];
/// Of a source.
const SOURCE: &[&[&str]] = &[&["MIGRATE", "h", "1", "k", "0", "1"], &["MEMORY", "USAGE", "k"]];
/// Of both, about keys that both have.
const EITHER: &[&[&str]] = &[&["ASKING"], &["EXISTS", "k"], &["DUMP", "k"], &["PTTL", "k"]];

/// How long things may take in this cluster, and how large they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) node_timeout: Duration,
    /// How long the source waits for the target.
    pub(super) migrate: Duration,
    /// How long nodes may take to answer.
    pub(super) answer: Duration,
    /// Bytes of a key that would stop the source for a quarter of the time after which others hold it for dead.
    pub(super) big_key: u64,
    /// Whether slots can be taken in one transaction: not by Valkey, which has each acknowledged by replicas (8.0).
    pub(super) takes_together: bool,
}

impl Limits {
    fn new(node_timeout: Duration, access: &Access, options: &MoveOptions) -> Self {
        let quarter = u64::try_from(node_timeout.as_millis() / 4).unwrap_or(u64::MAX);
        let usual = (node_timeout / 2).clamp(MIGRATE_SHORTEST, MIGRATE_LONGEST);
        let migrate = options.transfer.unwrap_or(usual);
        // The source may be at a batch for another one when it is asked.
        let answer = access.limit.max(migrate * 2);
        let big_key = quarter * (BYTES_PER_SECOND / 1000);
        Self { node_timeout, migrate, answer, big_key, takes_together: true }
    }
}

/// A key that would stop its node for long.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BigKey {
    /// Its slot.
    pub slot: Slot,
    /// Its name; bytes that are no text are escaped.
    pub name: String,
    /// Memory that it takes.
    pub bytes: u64,
}

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Survey {
    /// Of each move.
    pub(super) ways: Vec<Way>,
    pub(super) limits: Limits,
    /// Of each slot that has some.
    pub(super) keys: BTreeMap<Slot, u64>,
    /// What all keys that move take, about.
    pub(super) bytes: u64,
    pub(super) big: Vec<BigKey>,
    pub(super) warnings: Vec<String>,
}

/// Looks at everything; gives all reasons against it that were found.
pub(super) async fn survey(
    view: &ClusterView,
    moves: &[Move],
    access: &Access,
    options: &MoveOptions,
) -> Result<Survey, Vec<String>> {
    let mut objections = shape(view, moves);
    objections.extend(unlinked(view, moves, access).await);
    if !objections.is_empty() {
        return Err(objections);
    }
    let ways = method::choose(view, moves, &[], (access, options.method)).await?;
    let found = count(view, moves, ways, (access, options)).await;
    let survey = found.map_err(|setback| vec![setback.what])?;
    objections.extend(room(view, moves, &survey.keys));
    let by_keys = || moves.iter().zip(&survey.ways).filter(|(_, way)| **way == Way::Keys);
    for id in by_keys().map(|(part, _)| &part.to).collect::<BTreeSet<_>>() {
        objections.extend(may(view, id, &[TARGET, EITHER].concat(), access).await);
    }
    for id in by_keys().map(|(part, _)| &part.from).collect::<BTreeSet<_>>() {
        objections.extend(may(view, id, &[SOURCE, EITHER].concat(), access).await);
        objections.extend(speaks_otherwise(view, id, access).await);
    }
    if options.big_keys == BigKeys::Fail {
        objections.extend(survey.big.iter().map(|key| {
            let BigKey { slot, name, bytes } = key;
            format!("key {name} of slot {slot} takes {bytes} bytes; moving it would stop its node for too long")
        }));
    }
    if objections.is_empty() { Ok(survey) } else { Err(objections) }
}

/// What speaks against it in what the nodes say.
fn shape(view: &ClusterView, moves: &[Move]) -> Vec<String> {
    let mut objections = Vec::new();
    let signatures: BTreeSet<String> = view.nodes.iter().map(NodeView::signature).collect();
    if signatures.len() > 1 {
        objections.push("the nodes do not agree on who owns which slots".to_owned());
    }
    for absent in view.absent.iter().filter(|absent| !absent.line.slots.is_empty()) {
        objections
            .push(format!("{} owns slots and does not answer: {}", absent.line.id, absent.reason));
    }
    for node in &view.nodes {
        for (slot, _) in node.own.migrating.iter().chain(&node.own.importing) {
            objections.push(format!("slot {slot} is open on {}: see `cluster fix`", node.address));
        }
    }
    objections.extend(moves.iter().flat_map(|part| pair(view, part)));
    objections
}

/// What speaks against a pair.
fn pair(view: &ClusterView, part: &Move) -> Vec<String> {
    let node = |id: &NodeId| view.node(id).ok_or_else(|| format!("node {id} does not answer"));
    let (source, target) = match (node(&part.from), node(&part.to)) {
        (Ok(source), Ok(target)) => (source, target),
        (source, target) => return [source.err(), target.err()].into_iter().flatten().collect(),
    };
    let mut objections: Vec<String> = [source, target].into_iter().flat_map(unfit).collect();
    if part.from == part.to {
        objections.push(format!("{} is source and target", source.address));
    }
    if let Some(slot) = part.slots.iter().find(|slot| !source.own.slots.contains(**slot)) {
        objections.push(format!("{} does not own slot {slot}", source.address));
    }
    if !reads(&target.info, &source.info) {
        objections.push(format!(
            "{} cannot read what {} writes: its server is older, or of another kind",
            target.address, source.address
        ));
    }
    objections
}

/// Sources that have no link to their target. A link that broke is made again within moments, so it is looked for until then.
async fn unlinked(view: &ClusterView, moves: &[Move], access: &Access) -> Vec<String> {
    let deadline = Instant::now() + RELINKED;
    let mut objections = Vec::new();
    for part in moves.iter().filter(|part| part.from != part.to) {
        let (Some(source), Some(target)) = (view.node(&part.from), view.node(&part.to)) else {
            continue;
        };
        let mut is_linked = has_link(source, &part.to);
        while !is_linked && Instant::now() < deadline {
            tokio::time::sleep(RELINK_PAUSE).await;
            let now = NodeView::ask(&source.address, access).await;
            is_linked = now.is_ok_and(|source| has_link(&source, &part.to));
        }
        if !is_linked {
            objections.push(format!("{} has no link to {}", source.address, target.address));
        }
    }
    objections
}

fn has_link(node: &NodeView, to: &NodeId) -> bool {
    node.others.iter().any(|line| line.id == *to && line.is_sound())
}

/// What speaks against a node as one end of a move.
fn unfit(node: &NodeView) -> Vec<String> {
    let address = &node.address;
    let mut objections = Vec::new();
    if node.own.is_replica() {
        objections.push(format!("{address} is a replica"));
    }
    if node.info.get("loading") == Some("1") {
        objections.push(format!("{address} is loading its data"));
    }
    if node.cluster.get("cluster_state") == Some("fail") {
        objections.push(format!("{address} says that the cluster is down"));
    }
    objections
}

/// Formats of values that Redis has numbered since Valkey went another way, which servers that count from there do not read.
const FOREIGN: RangeInclusive<u32> = 12..=79;

/// Whether a server reads what another one writes, by their versions; if these are not told, the servers will.
fn reads(target: &Info, source: &Info) -> bool {
    let (Some(read), Some(written)) = (rdb_version(target), rdb_version(source)) else {
        return true;
    };
    written <= read && !(read > *FOREIGN.end() && FOREIGN.contains(&written))
}

/// The format in which a server writes values, and the newest that it reads. That of later versions is at least the last one
/// here.
fn rdb_version(info: &Info) -> Option<u32> {
    let version = |name| {
        let mut parts = info.get(name)?.split('.').map(|part| part.parse::<u32>().ok());
        Some((parts.next()??, parts.next()??))
    };
    if let Some(valkey) = version("valkey_version") {
        return Some(if valkey < (9, 0) { 11 } else { 80 });
    }
    Some(match version("redis_version")? {
        (..4, _) => 7,
        (4, _) => 8,
        (5 | 6, _) => 9,
        (7, ..2) => 10,
        (7, 2 | 3) => 11,
        (7, _) | (8, ..6) => 12,
        _ => 13,
    })
}

/// Number of keys that a node has, and the bytes of one.
fn average(node: &NodeView) -> u64 {
    let keys: u64 = node.info.databases().iter().map(|(_, keys)| keys).sum();
    let bytes = node.info.number("used_memory_dataset").or(node.info.number("used_memory"));
    bytes.unwrap_or(0).checked_div(keys).unwrap_or(0)
}

/// Targets that would be too full.
fn room(view: &ClusterView, moves: &[Move], keys: &BTreeMap<Slot, u64>) -> Vec<String> {
    let mut coming: BTreeMap<&NodeId, u64> = BTreeMap::new();
    for part in moves {
        *coming.entry(&part.to).or_default() += weight(view, part, keys);
    }
    let full = coming.into_iter().filter_map(|(id, bytes)| {
        let node = view.node(id)?;
        let most = node.info.number("maxmemory").filter(|most| *most > 0)?;
        let used = node.info.number("used_memory").unwrap_or(0);
        let is_full = used + bytes > most / 100 * FULL;
        is_full.then(|| {
            format!(
                "{} uses {used} of {most} bytes, and about {bytes} would come: too little room",
                node.address
            )
        })
    });
    full.collect()
}

/// The bytes of a move, about.
fn weight(view: &ClusterView, part: &Move, keys: &BTreeMap<Slot, u64>) -> u64 {
    let count: u64 = part.slots.iter().filter_map(|slot| keys.get(slot)).sum();
    view.node(&part.from).map_or(0, average) * count
}

async fn count(
    view: &ClusterView,
    moves: &[Move],
    ways: Vec<Way>,
    (access, options): (&Access, &MoveOptions),
) -> Result<Survey, Setback> {
    let limits = Limits::new(node_timeout(view, moves, access).await?, access, options);
    let limits = Limits {
        big_key: options.big_key_bytes.unwrap_or(limits.big_key),
        takes_together: view.nodes.iter().all(|node| node.info.get("valkey_version").is_none()),
        ..limits
    };
    let (mut keys, mut big, mut bytes) = (BTreeMap::new(), Vec::new(), 0);
    for (part, way) in moves.iter().zip(&ways) {
        let Some(node) = view.node(&part.from) else { continue };
        let mut end = End::open(&part.from, &node.address, access, limits.answer).await?;
        let counts = part.slots.iter().copied().zip(end.count_keys(&part.slots).await?);
        keys.extend(counts.filter(|(_, count)| *count > 0));
        bytes += weight(view, part, &keys);
        // Where all keys together are smaller than a big one, none is big; and a copy of the node sends them otherwise.
        if *way == Way::Keys
            && node.info.number("used_memory").is_none_or(|used| used > limits.big_key)
        {
            big.extend(big_keys(&mut end, &part.slots, &keys, limits.big_key).await?);
        }
    }
    let warnings = warnings(view, moves, &big);
    Ok(Survey { ways, limits, keys, bytes, big, warnings })
}

/// The same for moves that are under way already: nobody has to be in order, and what cannot be counted is not.
pub(super) async fn resurvey(
    view: &ClusterView,
    moves: &[Move],
    access: &Access,
    options: &MoveOptions,
    company: &Company,
) -> Result<Survey, Vec<String>> {
    let now = |part: &Move| Move {
        from: company.now(&part.from),
        to: company.now(&part.to),
        slots: part.slots.clone(),
    };
    let moves: Vec<Move> = moves.iter().map(now).collect();
    let ways = method::choose(view, &moves, &moves, (access, options.method)).await?;
    let survey = count(view, &moves, ways, (access, options)).await;
    survey.map_err(|setback| vec![setback.what])
}

/// The cluster's node timeout, as one of the sources has it.
async fn node_timeout(
    view: &ClusterView,
    moves: &[Move],
    access: &Access,
) -> Result<Duration, Setback> {
    let node = moves.first().and_then(|part| view.node(&part.from));
    let Some(node) = node else { return Ok(NODE_TIMEOUT) };
    let mut end = End::open(&node.own.id, &node.address, access, access.limit).await?;
    // One that may not be asked is taken for usual.
    let told = end.setting("cluster-node-timeout").await.ok().flatten();
    Ok(told.and_then(|ms| ms.parse().ok()).map_or(NODE_TIMEOUT, Duration::from_millis))
}

/// Keys above a size. Of a slot so full that to list it would stop the node the first keys are looked at.
async fn big_keys(
    end: &mut End,
    slots: &Slots,
    counts: &BTreeMap<Slot, u64>,
    limit: u64,
) -> Result<Vec<BigKey>, Setback> {
    let mut big = Vec::new();
    let counted = slots.iter().filter_map(|slot| Some((*slot, *counts.get(slot)?)));
    for group in groups(&counted.collect::<Vec<_>>()) {
        let keys = end.keys(&group, KEYS_LOOKED_AT, Sizes::All).await?;
        let keys =
            group.iter().zip(keys).flat_map(|(slot, keys)| keys.into_iter().map(|k| (*slot, k)));
        let too_big = keys.filter(|(_, key)| key.bytes > limit);
        big.extend(too_big.map(|(slot, key)| BigKey {
            slot,
            name: key.name.escape_ascii().to_string(),
            bytes: key.bytes,
        }));
    }
    Ok(big)
}

fn warnings(view: &ClusterView, moves: &[Move], big: &[BigKey]) -> Vec<String> {
    let mut warnings = Vec::new();
    for id in moves.iter().map(|part| &part.to).collect::<BTreeSet<_>>() {
        if view.replicas_of(id).next().is_none() {
            warnings.push(format!("{id} has no replica that answers"));
        }
    }
    for part in moves {
        let node = view.node(&part.from);
        if node.is_some_and(|node| node.info.get("rdb_bgsave_in_progress") == Some("1")) {
            warnings.push(format!("{} is saving its data", part.from));
        }
    }
    warnings.extend(big.iter().map(|key| format!("key {} takes {} bytes", key.name, key.bytes)));
    warnings
}

/// A node that is reached by TLS may talk to the others without: then it could not send them keys.
async fn speaks_otherwise(view: &ClusterView, id: &NodeId, access: &Access) -> Option<String> {
    let (node, _) = (view.node(id)?, access.way.tls.as_ref()?);
    let mut end = End::open(id, &node.address, access, access.limit).await.ok()?;
    let told = end.setting("tls-cluster").await.ok()??;
    (told == "no").then(|| {
        format!("{} talks to other nodes without TLS: it needs tls-cluster yes", node.address)
    })
}

/// What the user of our connections may not do on a node, as far as the node tells.
async fn may(
    view: &ClusterView,
    id: &NodeId,
    requests: &[&[&str]],
    access: &Access,
) -> Vec<String> {
    let Some(node) = view.node(id) else { return Vec::new() };
    let Ok(mut end) = End::open(id, &node.address, access, access.limit).await else {
        return Vec::new();
    };
    let user = access.credentials.as_ref().and_then(|c| c.username.as_deref());
    let mut objections = Vec::new();
    for request in requests {
        let question = [&["ACL", "DRYRUN", user.unwrap_or("default")], *request].concat();
        match end.say(&question).await {
            // `OK`, or why not.
            Ok(reply) => {
                let why = crate::resp::value::text(&reply).filter(|text| *text != "OK");
                objections.extend(
                    why.map(|why| format!("{} would refuse {}: {why}", node.address, request[0])),
                );
            }
            // Servers before 7.0 cannot be asked; nor can one that does not let the user ask.
            Err(ControlError::Reply(..)) => {}
            Err(error) => return vec![error.to_string()],
        }
    }
    objections
}
