//! `CLUSTER …` as a node tells it, and `PROXY CLUSTER …` as the proxy has it.

use std::fmt::Write;
use std::sync::Arc;

use super::answer::Answer;
use super::complaint::Complaint;
use super::proxy::primaries;
use super::words::{Outcome, arity, unknown_subcommand};
use super::{Admin, every, jobs, order};
use crate::cluster::topology::Node;
use crate::cluster::{NodeId, SLOTS, Slot, Slots, Topology};
use crate::manage::check;
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
pub(super) async fn answer(admin: &Arc<Admin>, words: &[&str]) -> Outcome {
    let verb = words[0].to_ascii_uppercase();
    match (verb.as_str(), words.len()) {
        ("INFO", 1) => Ok(info(admin)),
        ("NODES", 1) => Ok(Answer::Lines(nodes(&admin.topology()))),
        ("SLOTS", 1) => Ok(slots(&admin.topology())),
        ("TOPOLOGY", 1) => topology(admin).await,
        ("CHECK", 1) => check_all(admin).await,
        (verb, _) if order::VERBS.contains(&verb) => jobs::begin(admin, words).await,
        ("SETTIMEOUT", 2) => every::set_timeout(admin, words[1]).await,
        ("INFO" | "NODES" | "SLOTS" | "TOPOLOGY" | "CHECK" | "SETTIMEOUT", _) => {
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

pub(super) async fn check_all(admin: &Admin) -> Outcome {
    let findings = check::findings(&gather(admin).await?);
    let is_whole = !findings.iter().any(check::Finding::is_fault);
    let row = |finding: &check::Finding| {
        let grade = if finding.is_fault() { "ERR" } else { "WARNING" };
        Answer::from(format!("[{grade}] {finding}"))
    };
    Ok(Answer::map([
        ("ok", Answer::Flag(is_whole)),
        ("findings", Answer::List(findings.iter().map(row).collect())),
    ]))
}
