//! `cluster fix`: a cluster whose slots are open, claimed twice, or nobody's becomes whole again, while clients use it.
//!
//! ```text
//!  examine   what the nodes say, and which keys lie where
//!  plan      what is to be done, and how risky that is                              (pure)
//!  apply     does it, as far as the caller agrees; then waits until all nodes say the same
//! ```
//! The owner of a slot is right about its keys. Another node's copy of a key never wins, and is written to a file before it is
//! overwritten or deleted.

mod plan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;

pub use plan::{Action, Keys, Repair, RepairPlan, Risk, plan};

use super::access::Access;
use super::journal::{Ending, Entry, Journal, JournalError, Member, records};
use super::mover::ends::{End, KEYS_LISTED, Key, Migrated, Route, Sizes, words};
use super::mover::remedy::Setback;
use super::mover::{self, Event, MoveError, MoveOptions, Reins};
use super::plan::Move;
use super::quarantine::{Quarantine, Right, held_by_both};
use super::view::{ClusterView, NodeView, ViewError};
use crate::cluster::{Address, NodeId, Slot, Slots};

/// How long nodes may take to agree in the end.
const AGREEMENT: Duration = Duration::from_secs(30);
/// How often they are asked.
const LOOK: Duration = Duration::from_millis(200);
/// Strays that are given away in one go.
const GIVEN: usize = 20;
/// How long a node waits for another when it gives strays away.
const MIGRATE: Duration = Duration::from_secs(5);
/// How often a stray is tried that clients create at its owner all the time.
const TRIES: usize = 10;

/// Why a cluster could not be made whole.
#[derive(Debug, Error)]
pub enum RepairError {
    /// No node answers.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A node did not do what it was told.
    #[error("{0}")]
    Node(String),
    /// A move could not be gone on with.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// All was done, and the nodes do not agree yet.
    #[error("the nodes do not agree yet: {0}")]
    Dissent(String),
}

impl From<Setback> for RepairError {
    fn from(setback: Setback) -> Self {
        Self::Node(setback.what)
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// What was done.
    pub done: Vec<Repair>,
    /// What was left, since the caller did not agree to it.
    pub left: Vec<Repair>,
    /// Copies that lost: how many are in which file.
    pub quarantined: BTreeMap<PathBuf, usize>,
}

/// Finds out which keys lie where.
pub async fn examine(view: &ClusterView, access: &Access) -> Result<Keys, RepairError> {
    let all = Slots::all();
    let mut keys = Keys::new();
    for node in view.primaries() {
        let mut end = open(node, access).await?;
        let counts = all.iter().copied().zip(end.count_keys(&all).await?);
        keys.insert(node.own.id.clone(), counts.filter(|(_, count)| *count > 0).collect());
    }
    Ok(keys)
}

async fn open(node: &NodeView, access: &Access) -> Result<End, RepairError> {
    let end = End::open(&node.own.id, &node.address, access, access.limit.max(2 * MIGRATE)).await;
    Ok(end.map_err(Setback::from)?)
}

/// What a repair works with.
#[derive(Clone, Debug)]
pub struct Workshop<'a> {
    /// How nodes are reached.
    pub access: &'a Access,
    /// How slots are moved.
    pub options: &'a MoveOptions,
    /// Where journals and copies go.
    pub folder: &'a Path,
    /// How risky it may get.
    pub consent: Risk,
    /// The caller's hold on moves.
    pub reins: &'a Reins,
}

/// Does what a plan says, as far as the caller agrees.
pub async fn apply(
    plan: RepairPlan,
    view: &ClusterView,
    workshop: &Workshop<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<RepairReport, RepairError> {
    let (done, left): (Vec<_>, Vec<_>) =
        plan.repairs.into_iter().partition(|repair| repair.risk <= workshop.consent);
    supersede(view, workshop.folder)?;
    let name = format!("fix-{}", std::process::id());
    let mut quarantine = Quarantine::new(workshop.folder, &name);
    let mut repairing = Repairing { view, workshop, quarantine: &mut quarantine };
    let moves = plan::moves(&done);
    for part in &moves {
        repairing.open(part, &plan.heirs).await?;
    }
    for repair in &done {
        repairing.act(&repair.action).await?;
    }
    let mut quarantined = BTreeMap::new();
    if !moves.is_empty() {
        let mut tell = |event| match event {
            Event::Quarantined { count, file } => *quarantined.entry(file).or_default() += count,
            event => tell(event),
        };
        resume(moves, &plan.heirs, view, workshop, &mut tell).await?;
    }
    for repair in &done {
        repairing.close(&repair.action).await?;
    }
    if left.is_empty() {
        agree(view, workshop.access).await?;
    }
    quarantined.extend(quarantine.kept().map(|(count, file)| (file.to_owned(), count)));
    Ok(RepairReport { done, left, quarantined })
}

/// Jobs that were cut off are over: what they left open is in the plan.
fn supersede(view: &ClusterView, folder: &Path) -> Result<(), RepairError> {
    let is_ours = |member: &Member| view.lines().any(|line| line.id == member.id);
    for record in records(folder)? {
        if !record.begun.members.iter().any(is_ours) || record.ended.is_some() {
            continue;
        }
        let (mut journal, _) = Journal::resume(folder, &record.id)?;
        journal.write(&Entry::Ended { how: Ending::Abandoned })?;
    }
    Ok(())
}

async fn resume(
    moves: Vec<Move>,
    heirs: &[(NodeId, NodeId)],
    view: &ClusterView,
    workshop: &Workshop<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<(), RepairError> {
    let Workshop { access, options, folder, reins, .. } = workshop;
    let prepared = mover::prepare_open(moves, heirs, view, access, options).await?;
    let mut journal = Journal::begin(folder, prepared.begun())?;
    for (of, is) in heirs {
        journal.write(&Entry::Heir { of: of.clone(), is: is.clone() })?;
    }
    prepared.run(&mut journal, reins, tell).await?;
    Ok(())
}

/// A repair under way.
struct Repairing<'a> {
    view: &'a ClusterView,
    workshop: &'a Workshop<'a>,
    quarantine: &'a mut Quarantine,
}

impl Repairing<'_> {
    async fn end(&self, id: &NodeId) -> Result<End, RepairError> {
        let node = self.view.node(id);
        let node = node.ok_or_else(|| RepairError::Node(format!("{id} does not answer")))?;
        open(node, self.workshop.access).await
    }

    /// Opens slots at once: until they are, clients are told of keys which have moved that they are not there, or get no
    /// answer. A node that holds the slots for the dead node's is told of the heir first.
    async fn open(&self, part: &Move, heirs: &[(NodeId, NodeId)]) -> Result<(), RepairError> {
        let now = |id: &NodeId| {
            let heir = heirs.iter().find(|(of, _)| of == id);
            heir.map_or_else(|| id.clone(), |(_, is)| is.clone())
        };
        let (owner, other) = (now(&part.from), now(&part.to));
        let (mut source, mut target) = (self.end(&owner).await?, self.end(&other).await?);
        if owner != part.from {
            target.set_slots(&part.slots, "NODE", &owner).await?;
        }
        target.set_slots(&part.slots, "IMPORTING", &owner).await?;
        Ok(source.set_slots(&part.slots, "MIGRATING", &other).await?)
    }

    /// What comes before the moves.
    async fn act(&mut self, action: &Action) -> Result<(), RepairError> {
        match action {
            Action::Raise { node } => {
                let bumped = self.end(node).await?.say(&["CLUSTER", "BUMPEPOCH"]).await;
                bumped.map_err(Setback::from)?;
            }
            Action::Finish { node, slots } => self.announce(node, slots).await?,
            Action::Cover { node, slots } => {
                let add = |slot: &str| words(&["CLUSTER", "ADDSLOTS", slot]);
                self.free(node, slots).await?;
                self.end(node).await?.each_slot(slots, add).await?;
                self.announce(node, slots).await?;
            }
            Action::Merge { from, owner, slots } => self.merge(from, owner, slots).await?,
            Action::Resume(_) | Action::Close { .. } | Action::Announce { .. } => {}
        }
        Ok(())
    }

    /// What comes behind the moves.
    async fn close(&mut self, action: &Action) -> Result<(), RepairError> {
        match action {
            Action::Close { node, slots } => {
                let stable = |slot: &str| words(&["CLUSTER", "SETSLOT", slot, "STABLE"]);
                Ok(self.end(node).await?.each_slot(slots, stable).await?)
            }
            Action::Announce { owner, slots } => self.announce(owner, slots).await,
            _ => Ok(()),
        }
    }

    /// Takes slots from a node that they were not given to: what a node holds for somebody's cannot be added.
    async fn free(&self, node: &NodeId, slots: &Slots) -> Result<(), RepairError> {
        let Some(view) = self.view.node(node) else { return Ok(()) };
        let held = |slot: &&Slot| view.lines().any(|line| line.slots.contains(**slot));
        let held: Vec<Slot> = slots.iter().filter(held).copied().collect();
        let delete = |slot: &str| words(&["CLUSTER", "DELSLOTS", slot]);
        Ok(self.end(node).await?.each_slot(&held, delete).await?)
    }

    /// Tells all primaries who owns slots, the owner first.
    async fn announce(&self, owner: &NodeId, slots: &Slots) -> Result<(), RepairError> {
        let others = self.view.primaries().map(|node| &node.own.id).filter(|id| *id != owner);
        for id in std::iter::once(owner).chain(others) {
            self.end(id).await?.set_slots(slots, "NODE", owner).await?;
        }
        Ok(())
    }

    /// Gives keys to the owner of their slots. Until a slot has none left here the node takes it in, as far as others know: then
    /// it may be asked for them, and does not delete them when it hears who owns the slot.
    async fn merge(
        &mut self,
        from: &NodeId,
        owner: &NodeId,
        slots: &Slots,
    ) -> Result<(), RepairError> {
        let (mut stray, mut right) = (self.end(from).await?, self.end(owner).await?);
        let claimed = self.view.node(from).map(|node| node.own.slots.clone()).unwrap_or_default();
        let claimed: Vec<Slot> = slots.iter().filter(|s| claimed.contains(**s)).copied().collect();
        let delete = |slot: &str| words(&["CLUSTER", "DELSLOTS", slot]);
        stray.each_slot(&claimed, delete).await?;
        stray.set_slots(slots, "IMPORTING", owner).await?;
        for slot in slots {
            self.merge_slot(*slot, &mut stray, &mut right).await?;
        }
        let stable = |slot: &str| words(&["CLUSTER", "SETSLOT", slot, "STABLE"]);
        stray.each_slot(slots, stable).await?;
        stray.set_slots(slots, "NODE", owner).await?;
        Ok(())
    }

    async fn merge_slot(
        &mut self,
        slot: Slot,
        stray: &mut End,
        right: &mut End,
    ) -> Result<(), RepairError> {
        let address = right.address.clone();
        let credentials = self.workshop.access.credentials.as_ref();
        let timeout = self.workshop.options.transfer.unwrap_or(MIGRATE);
        let route = Route { address: &address, credentials, timeout, replace: false };
        let batch = self.workshop.options.batch.clamp(1, GIVEN);
        for _ in 0..TRIES {
            loop {
                let both = held_by_both(&[slot], right, stray).await?;
                let lost = both.into_values().next().unwrap_or_default();
                self.quarantine.keep_conflicts((slot, &lost), right, stray, Right::Owner).await?;
                let delete = |key: &Vec<u8>| vec![b"DEL".to_vec(), key.clone()];
                stray.ask(&lost.iter().map(delete).collect::<Vec<_>>()).await?;
                let keys = stray.keys(&[slot], KEYS_LISTED, Sizes::Sampled).await?.concat();
                if keys.is_empty() {
                    return Ok(());
                }
                match give(stray, &keys, &route, batch).await {
                    Ok(()) => {}
                    Err(setback) if setback.what.contains("BUSYKEY") => break,
                    Err(setback) => return Err(setback.into()),
                }
            }
        }
        Err(RepairError::Node(format!("slot {slot}: its owner has new keys each time")))
    }
}

/// Gives keys away, none of which the target may have.
async fn give(
    stray: &mut End,
    keys: &[Key],
    route: &Route<'_>,
    batch: usize,
) -> Result<(), Setback> {
    for batch in keys.chunks(batch) {
        if stray.migrate(batch, route).await? == Migrated::Nothing {
            // They have expired, and are counted until they are deleted.
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Waits until all nodes tell the same of all slots and none is open; an owner that is not believed raises its epoch.
async fn agree(view: &ClusterView, access: &Access) -> Result<(), RepairError> {
    let entries: Vec<Address> = view.nodes.iter().map(|node| node.address.clone()).collect();
    let begun = Instant::now();
    let mut has_raised = false;
    loop {
        let view = any_view(&entries, access).await?;
        let Some(dissent) = dissent(&view) else { return Ok(()) };
        if begun.elapsed() > AGREEMENT {
            return Err(RepairError::Dissent(dissent));
        }
        if begun.elapsed() > AGREEMENT / 3 && !has_raised {
            has_raised = true;
            raise_disputed(&view, access).await?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn any_view(entries: &[Address], access: &Access) -> Result<ClusterView, RepairError> {
    let mut last = RepairError::Node("the cluster has no node".to_owned());
    for entry in entries {
        match ClusterView::gather(entry, access).await {
            Ok(view) => return Ok(view),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn dissent(view: &ClusterView) -> Option<String> {
    let first = view.nodes.first()?;
    let signature = first.signature();
    view.nodes.iter().find_map(|node| {
        let open = node.own.migrating.iter().chain(&node.own.importing).next();
        match open {
            Some((slot, _)) => Some(format!("slot {slot} is open on {}", node.address)),
            None if node.signature() != signature => {
                Some(format!("{} and {} name different owners", first.address, node.address))
            }
            None => None,
        }
    })
}

/// Of the owners of slots that nodes tell different owners of: each raises its config epoch.
async fn raise_disputed(view: &ClusterView, access: &Access) -> Result<(), RepairError> {
    let owners = view.owners();
    let is_disputed = |node: &&NodeView| {
        node.own.slots.iter().any(|slot| {
            let believes = |other: &NodeView| {
                other.lines().any(|line| line.id == node.own.id && line.slots.contains(*slot))
            };
            let is_owner = owners[slot.index()].as_ref() == Some(&node.own.id);
            is_owner && !view.nodes.iter().all(believes)
        })
    };
    for node in view.primaries().filter(is_disputed) {
        let bumped = open(node, access).await?.say(&["CLUSTER", "BUMPEPOCH"]).await;
        bumped.map_err(Setback::from)?;
    }
    Ok(())
}
