//! Which way slots go between two nodes: key by key, or by atomic slot migration where both ends have it.
//!
//! Nodes are asked for the migrations that they know of, which starts nothing: one that answers has it. Version numbers are
//! not looked at, since they say little of servers that were built from others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::atomic::{Dialect, State, Task};
use super::ends::End;
use super::remedy::Setback;
use super::together::together;
use crate::cluster::NodeId;
use crate::manage::access::Access;
use crate::manage::plan::Move;
use crate::manage::view::{ClusterView, NodeView};

/// What the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Atomic slot migration where both ends have it, and key by key where it is not there or fails.
    #[default]
    Auto,
    /// Atomic slot migration or nothing.
    Asm,
    /// Key by key.
    Legacy,
}

/// How the slots of a move go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    /// This program has key after key sent.
    #[default]
    Keys,
    /// The servers do it.
    Atomic(Dialect),
}

/// The way of each of these moves, by what the primaries answer. `ours` are moves whose migrations may be under way already.
pub(super) async fn choose(
    view: &ClusterView,
    moves: &[Move],
    ours: &[Move],
    (access, method): (&Access, Method),
) -> Result<Vec<Way>, Vec<String>> {
    let skills = Skills::ask(view, access).await;
    let mut objections = skills.foreign(moves, ours);
    let mut ways = Vec::new();
    for part in moves {
        let way = match skills.way(part, method) {
            Ok(Way::Atomic(Dialect::Push)) => match lacks_password(view, part, access).await {
                Some(lack) if method == Method::Asm => Err(lack),
                Some(_) => Ok(Way::Keys),
                None => Ok(Way::Atomic(Dialect::Push)),
            },
            way => way,
        };
        match way {
            Ok(way) => ways.push(way),
            Err(objection) => objections.push(objection),
        }
    }
    if objections.is_empty() { Ok(ways) } else { Err(objections) }
}

/// What the primaries answered.
struct Skills(BTreeMap<NodeId, [Result<Vec<Task>, String>; 2]>);

impl Skills {
    /// Asks all primaries, at the same time.
    async fn ask(view: &ClusterView, access: &Access) -> Self {
        let asked = together(
            view.primaries().map(|node| async { (node.own.id.clone(), ask(node, access).await) }),
        );
        Self(asked.await.into_iter().collect())
    }

    /// The way for a move, or why there is none.
    fn way(&self, part: &Move, method: Method) -> Result<Way, String> {
        if method == Method::Legacy {
            return Ok(Way::Keys);
        }
        let spoken = Dialect::ALL.into_iter().find(|dialect| self.lacks(part, *dialect).is_none());
        match (spoken, method) {
            (Some(dialect), _) => Ok(Way::Atomic(dialect)),
            (None, Method::Asm) => Err(self.why_not(part)),
            (None, _) => Ok(Way::Keys),
        }
    }

    /// A node without which a move cannot go this way. Redis' own tool wants all primaries to know the command, so that each
    /// could take part; Valkey's asks the source.
    fn lacks<'a>(&'a self, part: &'a Move, dialect: Dialect) -> Option<&'a NodeId> {
        let knows = |id: &NodeId| self.0.get(id).is_some_and(|told| told[dialect as usize].is_ok());
        match dialect {
            Dialect::Push => [&part.from, &part.to].into_iter().find(|id| !knows(id)),
            Dialect::Pull => self.0.keys().find(|id| !knows(id)),
        }
    }

    fn why_not(&self, part: &Move) -> String {
        let missing = Dialect::ALL.map(|dialect| {
            let id = self.lacks(part, dialect).unwrap_or(&part.from);
            let said = self.0.get(id).and_then(|told| told[dialect as usize].as_ref().err());
            let said = said.map_or("it does not answer", String::as_str);
            format!("{}: {said}", dialect.status().join(" "))
        });
        format!(
            "there is no atomic slot migration between {} and {} ({})",
            part.from,
            part.to,
            missing.join("; ")
        )
    }

    /// Migrations that are under way on either end of a move, but for those that are ours.
    fn foreign(&self, moves: &[Move], ours: &[Move]) -> Vec<String> {
        let is_ours = |task: &Task| {
            let is_part = |part: &Move| {
                part.from == task.source
                    && part.to == task.target
                    && task.slots.iter().all(|slot| part.slots.contains(*slot))
            };
            ours.iter().any(is_part)
        };
        let ends = moves.iter().flat_map(|part| [&part.from, &part.to]);
        let told = ends.filter_map(|id| self.0.get(id)).flatten().flatten().flatten();
        let mut foreign: Vec<String> = told
            .filter(|task| task.state == State::Active && !is_ours(task))
            .map(|task| {
                let Task { slots, source, target, .. } = task;
                format!(
                    "slots {slots} are being migrated from {source} to {target} by somebody else"
                )
            })
            .collect();
        foreign.sort();
        foreign.dedup();
        foreign
    }
}

/// The migrations that a node knows of, in each dialect, or what it says instead.
async fn ask(node: &NodeView, access: &Access) -> [Result<Vec<Task>, String>; 2] {
    let mut end = match End::open(&node.own.id, &node.address, access, access.limit).await {
        Ok(end) => end,
        Err(error) => return [Err(error.to_string()), Err(error.to_string())],
    };
    let mut told = [Ok(Vec::new()), Ok(Vec::new())];
    for (dialect, told) in Dialect::ALL.into_iter().zip(&mut told) {
        *told = match end.say(dialect.status()).await {
            Ok(reply) => Ok(Task::all(&reply)),
            Err(error) => Err(error.to_string()),
        };
    }
    told
}

/// Valkey's source logs in at the target as a replica would: a target that wants a password needs a source that has one.
async fn lacks_password(view: &ClusterView, part: &Move, access: &Access) -> Option<String> {
    let wanted = setting(view, &part.to, &["requirepass"], access).await.ok()?;
    let has = setting(view, &part.from, &["primaryauth", "masterauth"], access).await.ok()?;
    (!wanted.is_empty() && has.is_empty()).then(|| {
        format!("{} wants a password, and {} has no primaryauth to log in with", part.to, part.from)
    })
}

/// The first of these settings that a node has.
async fn setting(
    view: &ClusterView,
    id: &NodeId,
    names: &[&str],
    access: &Access,
) -> Result<String, Setback> {
    let Some(node) = view.node(id) else { return Ok(String::new()) };
    let mut end = End::open(id, &node.address, access, access.limit).await?;
    for name in names {
        if let Some(value) = end.setting(name).await? {
            return Ok(value);
        }
    }
    Ok(String::new())
}
