//! Nodes and findings as lines.

use serde_json::{Value, json};

use super::out::{Kind, Out, Style};
use crate::cluster::{Address, NodeId, Slots};
use crate::manage::check::{self, Finding};
use crate::manage::view::{ClusterView, NodeView};

/// A node, as the tools show it.
pub(super) struct Shown<'a> {
    pub(super) id: &'a NodeId,
    pub(super) address: &'a Address,
    pub(super) slots: &'a Slots,
    pub(super) flags: String,
    pub(super) primary: Option<&'a NodeId>,
    pub(super) replicas: usize,
}

impl<'a> Shown<'a> {
    pub(super) fn of(view: &'a ClusterView, node: &'a NodeView) -> Self {
        let flags: Vec<&str> =
            node.own.flags.iter().map(String::as_str).filter(|flag| *flag != "myself").collect();
        Self {
            id: &node.own.id,
            address: &node.address,
            slots: &node.own.slots,
            flags: flags.join(","),
            primary: node.own.primary.as_ref(),
            replicas: view.replicas_of(&node.own.id).count(),
        }
    }

    /// Its lines, further to the right by so many blanks.
    pub(super) fn lines(&self, style: Style, indent: usize) -> String {
        let Self { id, address, slots, flags, primary, replicas } = self;
        let space = " ".repeat(indent);
        let role = if flags.split(',').any(|flag| flag == "slave") { "S" } else { "M" };
        let text = format!(
            "{space}{role}: {id} {address}\n{space}   slots:{} ({} slots) {flags}",
            ranges(slots, style),
            slots.len()
        );
        let more = match primary {
            Some(primary) => format!("\n{space}   replicates {primary}"),
            None if *replicas > 0 => format!("\n{space}   {replicas} additional replica(s)"),
            None => String::new(),
        };
        text + &more
    }
}

/// `[0-5460],[7000]`, or without brackets as redis-trib.rb writes it.
fn ranges(slots: &Slots, style: Style) -> String {
    let range = |range: std::ops::RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let ranges = slots.ranges().into_iter().map(range);
    let ranges: Vec<String> = match style {
        Style::Trib => ranges.collect(),
        Style::Redis | Style::Valkey => ranges.map(|range| format!("[{range}]")).collect(),
    };
    ranges.join(",")
}

/// What each primary has.
pub(super) fn info(out: &Out, view: &ClusterView) {
    let (mut all, mut count) = (0_u64, 0);
    for node in view.primaries() {
        let keys = keys_of(node);
        let short: String = node.own.id.0.chars().take(8).collect();
        let (slots, replicas) = (node.own.slots.len(), view.replicas_of(&node.own.id).count());
        let word = out.style.replicas();
        out.plain(&format!(
            "{} ({short}...) -> {keys} keys | {slots} slots | {replicas} {word}.",
            node.address
        ));
        (all, count) = (all + keys, count + 1);
    }
    let word = if out.style == Style::Valkey { "primaries" } else { "masters" };
    out.good(&format!("[OK] {all} keys in {count} {word}."));
    #[expect(clippy::cast_precision_loss, reason = "it is shown with two digits")]
    let average = all as f64 / 16384.0;
    out.plain(&format!("{average:.2} keys per slot on average."));
}

/// Keys of a node, in all databases.
pub(super) fn keys_of(node: &NodeView) -> u64 {
    node.info.databases().iter().map(|(_, keys)| keys).sum()
}

/// The whole check; answers whether the cluster is whole.
pub(super) fn check(out: &Out, view: &ClusterView, quiet: bool) -> bool {
    let findings = check::findings(view);
    let entry = view.nodes.first().map(|node| node.address.to_string()).unwrap_or_default();
    out.info(&format!(">>> Performing Cluster Check (using node {entry})"));
    if !quiet {
        for node in &view.nodes {
            out.plain(&Shown::of(view, node).lines(out.style, 0));
        }
    }
    let disagree = findings.iter().any(|finding| matches!(finding, Finding::Disagreement { .. }));
    if disagree {
        out.error("[ERR] Nodes don't agree about configuration!");
    } else {
        out.good("[OK] All nodes agree about slots configuration.");
    }
    out.info(">>> Check for open slots...");
    open_slots(out, &findings);
    out.info(">>> Check slots coverage...");
    if findings.iter().any(|finding| matches!(finding, Finding::Uncovered { .. })) {
        out.error("[ERR] Not all 16384 slots are covered by nodes.\n");
    } else {
        out.good("[OK] All 16384 slots covered.");
    }
    for finding in &findings {
        match finding {
            Finding::Migrating { .. } | Finding::Importing { .. } => {}
            Finding::Orphan { .. } => out.warning(&format!("*** WARNING: {finding}.")),
            _ => out.warning(&format!("[WARNING] {finding}.")),
        }
    }
    !findings.iter().any(Finding::is_fault)
}

fn open_slots(out: &Out, findings: &[Finding]) {
    let mut open = std::collections::BTreeSet::new();
    for finding in findings {
        let (node, state, slots) = match finding {
            Finding::Migrating { node, slots } => (node, "migrating", slots),
            Finding::Importing { node, slots } => (node, "importing", slots),
            _ => continue,
        };
        open.extend(slots.iter().map(|(slot, _)| *slot));
        let numbers = check::numbers(slots);
        let numbers = if out.style == Style::Trib { format!("({numbers})") } else { numbers };
        out.line(
            Kind::Error,
            &format!("[WARNING] Node {node} has slots in {state} state {numbers}."),
        );
    }
    if !open.is_empty() {
        let numbers: Vec<String> = open.iter().map(ToString::to_string).collect();
        out.error(&format!("[WARNING] The following slots are open: {}.", numbers.join(",")));
    }
}

/// One line for each node.
pub(super) fn nodes(out: &Out, view: &ClusterView) {
    let mut rows = vec![["ID", "ADDRESS", "ROLE", "EPOCH", "STATE", "SLOTS"].map(str::to_owned)];
    for line in view.lines() {
        let address = line.address.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
        let role = line
            .primary
            .as_ref()
            .map_or_else(|| "primary".to_owned(), |id| format!("replica of {id}"));
        let is_there = view.node(&line.id).is_some();
        let state = if is_there { "answers" } else { "absent" };
        let slots = if line.slots.is_empty() { "-".to_owned() } else { line.slots.to_string() };
        rows.push([
            line.id.to_string(),
            address,
            role,
            line.epoch.to_string(),
            state.to_owned(),
            slots,
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (ids, places, roles, epochs, states) = (width(0), width(1), width(2), width(3), width(4));
    for [id, address, role, epoch, state, slots] in &rows {
        out.plain(&format!("{id:ids$}  {address:places$}  {role:roles$}  {epoch:>epochs$}  {state:states$}  {slots}"));
    }
}

/// A cluster for machines.
pub(super) fn as_json(view: &ClusterView) -> Value {
    let node = |node: &NodeView| {
        json!({
            "id": node.own.id,
            "address": node.address,
            "bus_port": node.own.bus_port,
            "hostname": node.own.hostname,
            "role": if node.own.is_replica() { "replica" } else { "primary" },
            "primary": node.own.primary,
            "epoch": node.own.epoch,
            "flags": node.own.flags,
            "slots": node.own.slots,
            "slots_count": node.own.slots.len(),
            "migrating": node.own.migrating,
            "importing": node.own.importing,
            "keys": keys_of(node),
            "state": node.cluster.get("cluster_state"),
            "link": node.info.get("master_link_status"),
            "version": node.info.get("valkey_version").or_else(|| node.info.get("redis_version")),
        })
    };
    let absent = |absent: &crate::manage::view::Absent| json!({ "id": absent.line.id, "address": absent.line.address, "flags": absent.line.flags, "slots": absent.line.slots, "primary": absent.line.primary, "reason": absent.reason });
    json!({
        "nodes": view.nodes.iter().map(node).collect::<Vec<_>>(),
        "absent": view.absent.iter().map(absent).collect::<Vec<_>>(),
    })
}
