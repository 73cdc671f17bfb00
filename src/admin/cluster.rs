//! `CLUSTER …` as a node tells it, and `PROXY CLUSTER …` as the proxy has it.

use std::fmt::Write;

use serde_json::{Value, json};

use super::answer::Answer;
use super::complaint::Complaint;
use super::proxy::primaries;
use super::run::hash;
use super::words::{Outcome, arity, short, unknown_subcommand};
use super::{Admin, every};
use crate::cluster::topology::Node;
use crate::cluster::{NodeId, SLOTS, Slot, Slots, Topology};
use crate::manage::check::{self, Finding};
use crate::manage::strays;
use crate::manage::view::{ClusterView, Line, NodeView};

/// What any node is asked on behalf of an administrator: subcommands that only look.
const READERS: &[&str] = &["INFO", "NODES", "SLOTS", "SHARDS", "MYID"];

/// `PROXY SLOT`: where a key is.
pub(super) fn slot(topology: &Topology, key: &str) -> Answer {
    let slot = Slot::of(key.as_bytes());
    let owner = topology.owner(slot).map(|owner| topology.node(owner));
    let text = |text: Option<String>| text.map_or(Answer::Nil, Answer::from);
    Answer::map([
        ("slot", Answer::count(slot.number())),
        ("owner", text(owner.map(|node| node.id.to_string()))),
        ("address", text(owner.map(|node| node.address.to_string()))),
    ])
}

/// `CLUSTER …`: the first node that answers is asked.
pub(super) async fn of_a_node(admin: &Admin, words: &[&str]) -> Outcome {
    let sub = words.get(1).ok_or_else(|| arity("cluster"))?;
    let name = sub.to_ascii_uppercase();
    if !READERS.contains(&name.as_str()) {
        return Err(unknown_subcommand("CLUSTER", sub));
    }
    if words.len() != 2 {
        return Err(arity(&format!("cluster|{}", name.to_ascii_lowercase())));
    }
    let mut last = String::new();
    for entry in admin.entries()? {
        let asked =
            async { admin.access.open(&entry).await?.call(&[b"CLUSTER", name.as_bytes()]).await };
        match asked.await {
            Ok(value) => return Ok(Answer::Node(value)),
            Err(error) => last = error.to_string(),
        }
    }
    Err(Complaint::Unreachable(last))
}

/// `PROXY CLUSTER …`; at least one word is given.
pub(super) async fn answer(admin: &Admin, words: &[&str]) -> Outcome {
    let verb = words[0].to_ascii_uppercase();
    match (verb.as_str(), words.len()) {
        ("INFO", 1) => Ok(info(admin)),
        ("NODES", 1) => Ok(Answer::Lines(nodes(&admin.topology()))),
        ("SLOTS", 1) => Ok(slots(&admin.topology())),
        ("TOPOLOGY", 1) => topology(admin).await,
        ("TOPOLOGY", 2) if words[1].eq_ignore_ascii_case("epoch") => Ok(epoch(&admin.topology())),
        ("CHECK", _) => check_words(admin, &words[1..]).await,
        ("SETTIMEOUT", 2) => every::set_timeout(admin, words[1]).await,
        ("INFO" | "NODES" | "SLOTS" | "TOPOLOGY" | "SETTIMEOUT", _) => {
            Err(arity(&format!("proxy|cluster|{}", verb.to_ascii_lowercase())))
        }
        _ => Err(unknown_subcommand("PROXY CLUSTER", words[0])),
    }
}

fn info(admin: &Admin) -> Answer {
    let topology = admin.topology();
    let age = (admin.observed.process)().topology_age;
    Answer::map([
        ("readiness", admin.observed.readiness().to_string().into()),
        ("nodes", Answer::count(topology.nodes().len())),
        ("primaries", Answer::count(primaries(&topology))),
        ("slots_covered", Answer::count(topology.covered())),
        ("topology_age_ms", age.map_or(Answer::Nil, |age| Answer::count(age.as_millis()))),
    ])
}

/// One line for each node: name, address, role, the primary it follows, config epoch, slots.
fn nodes(topology: &Topology) -> String {
    let mut text = String::new();
    for (index, node) in topology.nodes().iter().enumerate() {
        let primary = node.primary.map(|primary| &topology.node(primary).id);
        let role = if primary.is_none() { "primary" } else { "replica" };
        let failed = if node.failed { ",fail" } else { "" };
        let primary = primary.map_or("-", |id| id.0.as_ref());
        let slots = owned(topology, index);
        let line =
            format!("{} {} {role}{failed} {primary} {} {slots}", node.id, node.address, node.epoch);
        writeln!(text, "{}", line.trim_end()).expect("a text takes all");
    }
    text
}

fn owned(topology: &Topology, index: usize) -> Slots {
    let all = (0..SLOTS).filter_map(Slot::new);
    all.filter(|slot| topology.owner(*slot).is_some_and(|owner| usize::from(owner) == index))
        .collect()
}

/// First and last slot of each range with its owner, in the order of the slots.
fn ranges(topology: &Topology) -> Vec<(u16, u16, &Node)> {
    let nodes = topology.nodes().iter().enumerate();
    let of_node = |(index, node)| {
        let ranges = owned(topology, index).ranges().into_iter();
        ranges.map(move |range| (*range.start(), *range.end(), node))
    };
    let mut ranges: Vec<_> = nodes.flat_map(of_node).collect();
    ranges.sort_by_key(|(start, ..)| *start);
    ranges
}

/// Ranges with their owners, as `CLUSTER SLOTS` begins.
fn slots(topology: &Topology) -> Answer {
    let row = |(start, end, node): (u16, u16, &Node)| {
        let place = vec![
            node.address.host().into(),
            Answer::count(node.address.port()),
            node.id.0.as_ref().into(),
        ];
        Answer::List(vec![Answer::count(start), Answer::count(end), Answer::List(place)])
    };
    Answer::List(ranges(topology).into_iter().map(row).collect())
}

/// The proxy's map: who owns which slots.
pub(super) fn map(admin: &Admin) -> Answer {
    let topology = admin.topology();
    let row = |(start, end, node): (u16, u16, &Node)| {
        Answer::List(vec![Answer::count(start), Answer::count(end), node.id.0.as_ref().into()])
    };
    let slots = Answer::List(ranges(&topology).into_iter().map(row).collect());
    let Answer::Map(mut fields) = info(admin) else { unreachable!("it is a map") };
    fields.push(("slots".to_owned(), slots));
    Answer::Map(fields)
}

/// Every member, by its own word as far as it answers.
pub(super) async fn members(admin: &Admin) -> Outcome {
    let view = gather(admin).await?;
    let mut all: Vec<Answer> = view.nodes.iter().map(|node| member(&view, node)).collect();
    all.extend(view.absent.iter().map(|absent| {
        let mut fields = fields(&absent.line);
        fields.push(("health".to_owned(), absent.reason.as_str().into()));
        Answer::Map(fields)
    }));
    Ok(Answer::List(all))
}

fn fields(line: &Line) -> Vec<(String, Answer)> {
    let text = |text: Option<String>| text.map_or(Answer::Nil, Answer::Text);
    let fields = [
        ("id", line.id.to_string().into()),
        ("address", text(line.address.as_ref().map(ToString::to_string))),
        ("role", if line.is_replica() { "replica" } else { "primary" }.into()),
        ("primary", text(line.primary.as_ref().map(ToString::to_string))),
        ("epoch", Answer::count(line.epoch)),
        ("slots", line.slots.to_string().into()),
        ("slots_count", Answer::count(line.slots.len())),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

fn member(view: &ClusterView, node: &NodeView) -> Answer {
    let number = |name: &str| node.info.number(name);
    let optional = |n: Option<u64>| n.map_or(Answer::Nil, Answer::count);
    let primary = node.own.primary.as_ref().and_then(|id| view.node(id));
    // What its primary has written and it has not got yet, in bytes.
    let lag = primary.and_then(|primary| {
        let sent = primary.info.number("master_repl_offset")?;
        Some(sent.saturating_sub(number("slave_repl_offset")?))
    });
    let is_linked = node.info.get("master_link_status") != Some("down");
    let is_well = node.cluster.get("cluster_state") == Some("ok");
    let health = match (is_linked, is_well) {
        (false, _) => "the link to its primary is down",
        (_, false) => "it serves nobody: cluster_state is not ok",
        _ => "ok",
    };
    let keys = node.info.databases().iter().map(|(_, keys)| keys).sum::<u64>();
    let open = |slots: &[(Slot, NodeId)]| {
        Answer::Map(
            slots.iter().map(|(slot, id)| (slot.to_string(), id.to_string().into())).collect(),
        )
    };
    let version = node.info.get("valkey_version").or(node.info.get("redis_version"));
    let mut fields = fields(&node.own);
    let more = [
        ("health", health.into()),
        ("keys", Answer::count(keys)),
        ("memory_bytes", optional(number("used_memory"))),
        ("ops_per_second", optional(number("instantaneous_ops_per_sec"))),
        ("clients", optional(number("connected_clients"))),
        ("lag_bytes", optional(lag)),
        ("version", version.map_or(Answer::Nil, Answer::from)),
        ("migrating", open(&node.own.migrating)),
        ("importing", open(&node.own.importing)),
    ];
    fields.extend(more.map(|(name, value)| (name.to_owned(), value)));
    Answer::Map(fields)
}

/// All nodes by their own word, from the first entry that answers for the cluster on the map: one that was removed a moment ago
/// answers for itself.
pub(super) async fn gather(admin: &Admin) -> Result<ClusterView, Complaint> {
    let map = admin.topology();
    let mut last = String::new();
    for entry in admin.entries()? {
        match ClusterView::gather(&entry, &admin.access).await {
            Ok(view) if is_of(&map, &view) => return Ok(view),
            Ok(_) => last = format!("{entry} is no member of the cluster any more"),
            Err(error) => last = error.to_string(),
        }
    }
    Err(Complaint::Unreachable(last))
}

/// Whether a view is of the cluster on the map, as [`crate::cluster::membership`] has it.
fn is_of(map: &Topology, view: &ClusterView) -> bool {
    let is_named = |id: &NodeId| view.lines().any(|line| line.id == *id);
    let named = map.nodes().iter().filter(|node| is_named(&node.id)).count();
    map.covered() == 0
        || named * 2 >= map.nodes().len() && view.owners().iter().any(Option::is_some)
}

/// The proxy's map, and who among the nodes tells other owners of slots than the first one.
async fn topology(admin: &Admin) -> Outcome {
    let view = gather(admin).await?;
    let first = view.nodes[0].signature();
    let said = view.nodes.iter().map(|node| {
        let agrees = Answer::Flag(node.signature() == first);
        Answer::map([
            ("id", node.own.id.0.as_ref().into()),
            ("address", node.address.to_string().into()),
            ("epoch", Answer::count(node.own.epoch)),
            ("view_hash", hash(&node.signature()).into()),
            ("agrees", agrees),
        ])
    });
    let absent = view.absent.iter().map(|absent| absent.line.id.0.as_ref().into());
    Ok(Answer::map([
        ("proxy", Answer::Lines(nodes(&admin.topology()))),
        ("nodes", Answer::List(said.collect())),
        ("unreachable", Answer::List(absent.collect())),
    ]))
}

/// The newest config epoch of the proxy's map, and a name for who owns what in it: that of the nodes' `view_hash` if they
/// say the same.
fn epoch(topology: &Topology) -> Answer {
    let nodes = topology.nodes().iter().enumerate();
    let mut claims: Vec<String> = nodes
        .map(|(index, node)| (node, owned(topology, index)))
        .filter(|(_, slots)| !slots.is_empty())
        .map(|(node, slots)| format!("{}:{slots}", node.id))
        .collect();
    claims.sort_unstable();
    let newest = topology.nodes().iter().map(|node| node.epoch).max().unwrap_or(0);
    Answer::map([("epoch", Answer::count(newest)), ("view_hash", hash(&claims.join("|")).into())])
}

/// `CHECK [DEEP] [FORMAT text|json]`.
async fn check_words(admin: &Admin, words: &[&str]) -> Outcome {
    let (mut depth, mut is_json, mut rest) = (Depth::Said, false, words.iter());
    while let Some(word) = rest.next() {
        match word.to_ascii_uppercase().as_str() {
            "DEEP" => depth = Depth::Keys,
            "FORMAT" => {
                let format = rest.next().map(|format| format.to_ascii_lowercase());
                is_json = match format.as_deref() {
                    Some("text") => false,
                    Some("json") => true,
                    _ => return Err(Complaint::BadArg("FORMAT is neither text nor json".into())),
                };
            }
            _ => return Err(Complaint::BadArg(format!("{:?} is not understood", short(word)))),
        }
    }
    let findings = check_all(admin, depth).await?;
    Ok(if is_json { Answer::Json(details(&findings)) } else { lines(&findings) })
}

/// How deep a check looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// At what the nodes say.
    Said,
    /// Also where keys are.
    Keys,
}

pub(super) async fn check_all(admin: &Admin, depth: Depth) -> Result<Vec<Finding>, Complaint> {
    let view = gather(admin).await?;
    let mut findings = check::findings(&view);
    if depth == Depth::Keys {
        let strays = strays::findings(&view, &admin.access).await;
        findings.extend(strays.map_err(|error| Complaint::Unreachable(error.to_string()))?);
    }
    Ok(findings)
}

fn is_whole(findings: &[Finding]) -> bool {
    !findings.iter().any(Finding::is_fault)
}

fn line(finding: &Finding) -> String {
    let grade = if finding.is_fault() { "ERR" } else { "WARNING" };
    format!("[{grade}] {finding}")
}

fn lines(findings: &[Finding]) -> Answer {
    Answer::map([
        ("ok", Answer::Flag(is_whole(findings))),
        ("findings", Answer::List(findings.iter().map(|one| line(one).into()).collect())),
    ])
}

/// The same for programs: also each finding's parts.
pub(super) fn details(findings: &[Finding]) -> Value {
    let texts: Vec<String> = findings.iter().map(line).collect();
    json!({ "ok": is_whole(findings), "findings": texts, "details": findings })
}
