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

pub use plan::{Action, Keys, Repair, RepairPlan, Risk, plan, plan_some};

use super::access::Access;
use super::journal::{Ending, Entry, Journal, JournalError, Member, Record, Setting, records};
use super::mover::ends::{End, Key, Migrated, Route, words};
use super::mover::remedy::{Remedy, Setback};
use super::mover::{self, Event, MoveError, MoveOptions, Reins};
use super::plan::Move;
use super::quarantine::{Quarantine, Right};
use super::view::{ClusterView, NodeView, ViewError};
use crate::cluster::{Address, NodeId, Slot, Slots};
use crate::resp::value;

/// How long nodes may take to agree in the end.
const AGREEMENT: Duration = Duration::from_secs(30);
/// How often they are asked.
const LOOK: Duration = Duration::from_millis(200);
/// Strays that are compared with what the owner has in one go.
const PAGE: u64 = 500;
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
    /// Told to stop, it did.
    #[error("stopped, as it was told to; another run goes on from there")]
    Stopped,
}

impl From<Setback> for RepairError {
    fn from(setback: Setback) -> Self {
        match setback.remedy {
            Remedy::Stop => Self::Stopped,
            _ => Self::Node(setback.what),
        }
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

/// Who has taken whose place, as far as the journals of jobs tell that have not ended.
pub fn heirs(view: &ClusterView, folder: &Path) -> Result<Vec<(NodeId, NodeId)>, RepairError> {
    let records = records(folder)?.into_iter().filter(|record| is_open(record, view));
    let known = records.flat_map(|record| {
        let promoted = plan::heirs(&record.begun.members, view);
        record.heirs.into_iter().chain(promoted)
    });
    Ok(known.collect())
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
    let name = format!("fix-{}", std::process::id());
    let mut repairing = Repairing {
        view,
        workshop,
        jobs: cut_off(view, workshop.folder)?,
        moves: plan::moves(&done),
        heirs: plan.heirs,
        quarantine: Quarantine::new(workshop.folder, &name),
        quarantined: BTreeMap::new(),
        tell,
    };
    repairing.repair(&done).await?;
    // With other slots still open nothing is at its end, jobs that were cut off among it.
    if left.is_empty() && !plan.is_partial {
        agree(view, workshop).await?;
        repairing.supersede().await?;
    }
    Ok(RepairReport { done, left, quarantined: repairing.quarantined() })
}

fn is_open(record: &Record, view: &ClusterView) -> bool {
    let is_ours = |member: &Member| view.lines().any(|line| line.id == member.id);
    record.ended.is_none() && record.begun.members.iter().any(is_ours)
}

/// Jobs that were cut off, none of which can be gone on with by anybody else as long as these are held.
fn cut_off(view: &ClusterView, folder: &Path) -> Result<Vec<(Journal, Record)>, RepairError> {
    let records = records(folder)?.into_iter().filter(|record| is_open(record, view));
    Ok(records.map(|record| Journal::resume(folder, &record.id)).collect::<Result<_, _>>()?)
}

/// A repair under way.
struct Repairing<'a> {
    view: &'a ClusterView,
    workshop: &'a Workshop<'a>,
    /// Jobs that were cut off: what they left open is in the plan.
    jobs: Vec<(Journal, Record)>,
    /// Moves that are still to be gone on with.
    moves: Vec<Move>,
    heirs: Vec<(NodeId, NodeId)>,
    quarantine: Quarantine,
    /// Copies that lost in moves.
    quarantined: BTreeMap<PathBuf, usize>,
    tell: &'a mut dyn FnMut(Event),
}

impl Repairing<'_> {
    async fn repair(&mut self, repairs: &[Repair]) -> Result<(), RepairError> {
        // What is in the way of opening slots.
        let is_first = |repair: &&Repair| {
            matches!(repair.action, Action::Withdraw { .. } | Action::Close { .. })
        };
        let (first, rest) = repairs.split_at(repairs.iter().take_while(is_first).count());
        for repair in first {
            self.act(&repair.action).await?;
        }
        for part in &self.moves {
            self.open(part).await?;
        }
        for repair in rest {
            self.expect_no_end()?;
            self.act(&repair.action).await?;
        }
        Ok(())
    }

    /// Whether the caller wants no more to be begun.
    fn expect_no_end(&self) -> Result<(), RepairError> {
        if self.workshop.reins.is_ending() { Err(RepairError::Stopped) } else { Ok(()) }
    }

    /// Goes on with all moves.
    async fn resume(&mut self) -> Result<(), RepairError> {
        let moves = std::mem::take(&mut self.moves);
        if moves.is_empty() {
            return Ok(());
        }
        let Workshop { access, options, folder, reins, .. } = self.workshop;
        let prepared = mover::prepare_open(moves, &self.heirs, self.view, access, options).await?;
        let instead: Vec<&str> = self.jobs.iter().map(|(journal, _)| journal.id()).collect();
        let mut journal = Journal::begin_instead(folder, prepared.begun(), &instead)?;
        for (of, is) in &self.heirs {
            journal.write(&Entry::Heir { of: of.clone(), is: is.clone() })?;
        }
        let Self { quarantined, tell, .. } = self;
        let mut tell = |event| match event {
            Event::Quarantined { count, file } => *quarantined.entry(file).or_default() += count,
            event => tell(event),
        };
        prepared.run(&mut journal, reins, &mut tell).await?;
        Ok(())
    }

    /// Jobs that were cut off are over, and what they changed for as long as they ran is as it was.
    async fn supersede(&mut self) -> Result<(), RepairError> {
        for (mut journal, record) in std::mem::take(&mut self.jobs) {
            for Setting { node, name, before } in &record.settings {
                if let Err(error) = self.restore(node, name, before).await {
                    let text = format!("{name} of {node} was {before}: {error}");
                    (self.tell)(Event::Warning(text));
                }
            }
            journal.write(&Entry::Ended { how: Ending::Abandoned })?;
        }
        Ok(())
    }

    async fn restore(&self, node: &NodeId, name: &str, before: &str) -> Result<(), RepairError> {
        Ok(self.end(node).await?.set(name, before).await?)
    }

    /// Copies that lost: how many are in which file.
    fn quarantined(self) -> BTreeMap<PathBuf, usize> {
        let mut all = self.quarantined;
        all.extend(self.quarantine.kept().map(|(count, file)| (file.to_owned(), count)));
        all
    }

    async fn end(&self, id: &NodeId) -> Result<End, RepairError> {
        let node = self.view.node(id);
        let node = node.ok_or_else(|| RepairError::Node(format!("{id} does not answer")))?;
        open(node, self.workshop.access).await
    }

    /// Opens slots at once: until they are, clients are told of keys which have moved that they are not there, or get no
    /// answer. A node that holds the slots for the dead node's is told of the heir first.
    async fn open(&self, part: &Move) -> Result<(), RepairError> {
        let now = |id: &NodeId| {
            let heir = self.heirs.iter().find(|(of, _)| of == id);
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

    async fn act(&mut self, action: &Action) -> Result<(), RepairError> {
        match action {
            Action::Withdraw { node, owner, slots } => {
                withdraw(&mut self.end(node).await?, slots, owner).await?;
            }
            Action::Close { node, slots } => self.end(node).await?.each_slot(slots, stable).await?,
            Action::Finish { node, slots } => self.announce(node, slots).await?,
            Action::Cover { node, slots } => {
                let add = |slot: &str| words(&["CLUSTER", "ADDSLOTS", slot]);
                self.free(node, slots).await?;
                self.end(node).await?.each_slot(slots, add).await?;
                self.announce(node, slots).await?;
            }
            Action::Merge { from, owner, slots } => self.merge(from, owner, slots).await?,
            Action::Resume(_) => self.resume().await?,
            Action::Announce { owner, slots } => self.announce(owner, slots).await?,
            Action::Raise { node } => self.raise(node).await?,
        }
        Ok(())
    }

    /// Makes a node's epoch newer than all others. One that has the newest keeps it, though others may have the same: then
    /// somebody else goes ahead, and it follows once it has heard of that.
    async fn raise(&self, node: &NodeId) -> Result<(), RepairError> {
        let begun = Instant::now();
        let mut others = self.view.primaries().map(|other| &other.own.id).filter(|id| *id != node);
        let mut is_ahead = false;
        while !bump(&mut self.end(node).await?).await? && begun.elapsed() < AGREEMENT {
            match others.next().filter(|_| !is_ahead) {
                Some(other) => is_ahead = bump(&mut self.end(other).await?).await?,
                // Where all have the same one they settle that by themselves.
                None => self.workshop.reins.sleep(LOOK).await?,
            }
        }
        Ok(())
    }

    /// Takes slots from a node that they were not given to: what a node holds for somebody's cannot be added.
    async fn free(&self, node: &NodeId, slots: &Slots) -> Result<(), RepairError> {
        let Some(view) = self.view.node(node) else { return Ok(()) };
        let held = |slot: &&Slot| view.lines().any(|line| line.slots.contains(**slot));
        let held: Vec<Slot> = slots.iter().filter(held).copied().collect();
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
        stray.set_slots(slots, "IMPORTING", owner).await?;
        for slot in slots {
            self.expect_no_end()?;
            self.merge_slot(*slot, &mut stray, &mut right).await?;
        }
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
        let (begun, mut tries) = (Instant::now(), 0);
        loop {
            self.workshop.reins.leave().await?;
            match self.merge_some(slot, stray, right).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // As one does for a while that was just started.
                Err(setback) if is_down(&setback) && begun.elapsed() < AGREEMENT => {
                    self.workshop.reins.sleep(LOOK).await?;
                }
                Err(setback) if setback.what.contains("BUSYKEY") && tries < TRIES => tries += 1,
                Err(setback) => return Err(setback.into()),
            }
        }
    }

    /// Gives some of a slot's keys to its owner; whether none are left.
    async fn merge_some(
        &mut self,
        slot: Slot,
        stray: &mut End,
        right: &mut End,
    ) -> Result<bool, Setback> {
        let keys = stray.names(&[(slot, PAGE)]).await?;
        if keys.is_empty() {
            return Ok(true);
        }
        let (lost, keys) = compare(right, keys).await?;
        self.quarantine.keep_conflicts((slot, &lost), right, stray, Right::Owner).await?;
        let delete = |key: &Vec<u8>| vec![b"DEL".to_vec(), key.clone()];
        stray.ask(&lost.iter().map(delete).collect::<Vec<_>>()).await?;
        let address = right.address.clone();
        let credentials = self.workshop.access.credentials.as_ref();
        let timeout = self.workshop.options.transfer.unwrap_or(MIGRATE);
        let route = Route { address: &address, credentials, timeout, replace: false };
        let batch = self.workshop.options.batch.clamp(1, GIVEN);
        give(stray, &keys, (&route, batch), self.workshop.reins).await?;
        Ok(false)
    }
}

fn is_down(setback: &Setback) -> bool {
    setback.what.contains("CLUSTERDOWN")
}

/// Tells a node that slots are another's. It does not believe that of slots it has keys of, as long as they are its own.
async fn withdraw(node: &mut End, slots: &Slots, owner: &NodeId) -> Result<(), RepairError> {
    let counts = node.count_keys(slots).await?;
    let full = slots.iter().zip(counts).filter(|(_, count)| *count > 0);
    let full: Vec<Slot> = full.map(|(slot, _)| *slot).collect();
    node.each_slot(&full, delete).await?;
    Ok(node.set_slots(slots, "NODE", owner).await?)
}

/// Has a node take the newest epoch; whether it has not had that already.
async fn bump(node: &mut End) -> Result<bool, RepairError> {
    let said = node.say(&["CLUSTER", "BUMPEPOCH"]).await.map_err(Setback::from)?;
    Ok(value::text(&said).is_some_and(|text| text.starts_with("BUMPED")))
}

fn delete(slot: &str) -> Vec<Vec<u8>> {
    words(&["CLUSTER", "DELSLOTS", slot])
}

fn stable(slot: &str) -> Vec<Vec<u8>> {
    words(&["CLUSTER", "SETSLOT", slot, "STABLE"])
}

/// Which of these keys the owner has, and which it does not.
async fn compare(
    owner: &mut End,
    keys: Vec<(Slot, Vec<u8>)>,
) -> Result<(Vec<Vec<u8>>, Vec<Key>), Setback> {
    let exists = |(_, key): &(Slot, Vec<u8>)| vec![b"EXISTS".to_vec(), key.clone()];
    let there = owner.about_keys(&keys.iter().map(exists).collect::<Vec<_>>()).await?;
    let (mut both, mut alone) = (Vec::new(), Vec::new());
    for ((_, name), reply) in keys.into_iter().zip(there) {
        match value::integer(&reply) {
            Some(1) => both.push(name),
            _ => alone.push(Key { name, bytes: 0 }),
        }
    }
    Ok((both, alone))
}

/// Gives keys away, none of which the target may have.
async fn give(
    stray: &mut End,
    keys: &[Key],
    (route, batch): (&Route<'_>, usize),
    reins: &Reins,
) -> Result<(), Setback> {
    for batch in keys.chunks(batch) {
        reins.leave().await?;
        if stray.migrate(batch, route).await? == Migrated::Nothing {
            // They have expired, and are counted until they are deleted.
            reins.sleep(LOOK).await?;
        }
    }
    Ok(())
}

/// Waits until all nodes tell the same of all slots and none is open; an owner that is not believed raises its epoch.
async fn agree(view: &ClusterView, workshop: &Workshop<'_>) -> Result<(), RepairError> {
    let Workshop { access, reins, .. } = workshop;
    let entries: Vec<Address> = view.nodes.iter().map(|node| node.address.clone()).collect();
    let begun = Instant::now();
    let mut has_raised = false;
    loop {
        let view = any_view(&entries, access).await?;
        let Some(dissent) = dissent(&view) else { return Ok(()) };
        if reins.is_ending() {
            return Err(RepairError::Stopped);
        }
        if begun.elapsed() > AGREEMENT {
            return Err(RepairError::Dissent(dissent));
        }
        if begun.elapsed() > AGREEMENT / 3 && !has_raised {
            has_raised = true;
            raise_disputed(&view, access).await?;
        }
        reins.sleep(LOOK).await?;
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
        bump(&mut open(node, access).await?).await?;
    }
    Ok(())
}
