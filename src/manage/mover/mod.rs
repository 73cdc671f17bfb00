//! Moving slots with all their keys from primaries to others, while clients use them.
//!
//! ```text
//!  preflight   may it be done, and what is it about?
//!  roster      which chunk of slots is next; several pairs of nodes at the same time                  (pure)
//!  carry       one chunk: look, open, drain, close; again from the look after a setback
//!  ├─ stage      how far is a slot, by what its two ends say?                                         (pure)
//!  ├─ drain      the keys, in batches of a size that adapts (`manage::pace`)
//!  ├─ company    who stands in whose place after a failover                                           (pure)
//!  └─ remedy     what helps against which error                                                       (pure)
//!  settle      wait until all nodes say the same, and look that nothing is left
//! ```
//! The source owns a slot until it has no key of it, and is right about every key until then. So a move that was cut off,
//! wherever, is only ever gone on with, never undone; and the journal need not know how far it came.

mod carry;
mod company;
mod drain;
pub(in crate::manage) mod ends;
mod preflight;
mod reins;
pub(in crate::manage) mod remedy;
mod roster;
mod settle;
mod stage;
mod together;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;
use tokio::sync::Notify;

pub use preflight::BigKey;
pub use reins::Reins;

use carry::{Links, carry};
use company::Company;
use ends::End;
use preflight::{Limits, Survey};
use remedy::{Remedy, Setback};
use roster::{Next, Roster};
use together::together;

use super::access::Access;
use super::journal::{Begun, Ending, Entry, Journal, JournalError, Member, Record, Setting};
use super::pace::{Meter, Pace};
use super::plan::Move;
use super::view::{ClusterView, NodeView, ViewError};
use crate::cluster::{Address, NodeId, Slot, Slots};

/// Whether primaries that have lost their last slot become replicas of whoever took it.
const MIGRATION: &str = "cluster-allow-replica-migration";

/// How slots are moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveOptions {
    /// How long the source may be stopped for one batch.
    pub max_block: Duration,
    /// Share of its time that a source may be busy with the move, in percent.
    pub duty: u32,
    /// Most pairs of nodes that work at the same time.
    pub parallel: usize,
    /// What is done about keys that would stop their node for long.
    pub big_keys: BigKeys,
    /// Bytes from which on a key is big; unless given, what takes a quarter of the node timeout.
    pub big_key_bytes: Option<u64>,
    /// How long a chunk may wait for nodes that are gone, or busy, before the move pauses.
    pub patience: Duration,
    /// How long the target's replicas are waited for.
    pub replica_patience: Duration,
}

impl Default for MoveOptions {
    fn default() -> Self {
        Self {
            max_block: Duration::from_millis(3),
            duty: 100,
            parallel: 8,
            big_keys: BigKeys::Fail,
            big_key_bytes: None,
            patience: Duration::from_secs(60),
            replica_patience: Duration::from_secs(10),
        }
    }
}

/// What is done about big keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BigKeys {
    /// Nothing is moved.
    #[default]
    Fail,
    /// Their slots stay where they are.
    Skip,
    /// They are moved, each alone.
    Allow,
}

/// What happens during a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Slots are on their way.
    Opened(Move),
    /// How far it came; told after each batch and each chunk.
    Progress(Progress),
    /// Slots have arrived.
    Closed(Move),
    /// Something went wrong, and is tried again.
    Setback {
        /// What was under way.
        slots: Slots,
        /// What went wrong.
        what: String,
    },
    /// A node has taken another one's place.
    Heir {
        /// Who was there.
        of: NodeId,
        /// Who is there now.
        is: NodeId,
    },
    /// Replicas of the target do not keep up; the slots are closed all the same.
    ReplicasBehind {
        /// The target.
        of: Address,
        /// How many of its replicas.
        count: u64,
    },
    /// Keys that both ends had when the source was replaced, with different values: the source is right, and the target's
    /// copies are in a file.
    Quarantined {
        /// How many copies, of one chunk.
        count: usize,
        /// The file.
        file: PathBuf,
    },
    /// Something that may want looking at.
    Warning(String),
    /// All slots have arrived; the nodes have yet to agree on it.
    Settling,
}

/// How far a move came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Slots that have arrived.
    pub slots: usize,
    /// All slots that are to be moved.
    pub slots_total: usize,
    /// Keys that have arrived.
    pub keys: u64,
    /// Keys that were to be moved when it began.
    pub keys_total: u64,
    /// Bytes of the keys that have arrived, as their node counts memory.
    pub bytes: u64,
    /// Time since it began.
    pub elapsed: Duration,
}

impl Progress {
    /// What is done, from 0 to 1. Closing a slot takes about as long as moving this many keys.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits than it gets")]
    pub fn share(&self) -> f64 {
        const SLOT: u64 = 5;
        let work = |keys: u64, slots: usize| (keys + SLOT * slots as u64) as f64;
        let total = work(self.keys_total, self.slots_total);
        if total == 0.0 { 1.0 } else { (work(self.keys, self.slots) / total).min(1.0) }
    }

    /// How long the rest will take if it goes on like this.
    pub fn remaining(&self) -> Option<Duration> {
        let share = self.share();
        let is_telling = share > 0.0;
        is_telling.then(|| self.elapsed.mul_f64((1.0 - share) / share))
    }
}

/// What came of a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How far it came.
    pub progress: Progress,
    /// Slots that were left out for their big keys.
    pub skipped: Slots,
    /// Keys of the whole cluster before and after; they differ by what clients wrote and what expired meanwhile.
    pub keys_before: u64,
    /// See above.
    pub keys_after: u64,
}

/// Why slots were not moved, or not all of them.
#[derive(Debug, Error)]
pub enum MoveError {
    /// It was not begun, for these reasons.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    /// No node answers.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Told to stop, it did. No slot is open.
    #[error("stopped with {0} slots left to move")]
    Stopped(usize),
    /// Told to stop at once, it did. Slots may be open.
    #[error("stopped in the middle of a slot")]
    Halted,
    /// It cannot go on for now. Slots may be open.
    #[error("{0}")]
    Paused(String),
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A move that nothing known beforehand speaks against.
#[derive(Clone, Debug)]
pub struct Prepared {
    moves: Vec<Move>,
    access: Access,
    options: MoveOptions,
    company: Company,
    members: Vec<Member>,
    survey: Survey,
    skipped: Slots,
    settings: Vec<Setting>,
    /// Nodes that lose their last slot.
    leavers: Vec<NodeId>,
    keys_before: u64,
}

/// Looks whether these moves can be made. Nothing is changed.
pub async fn prepare(
    moves: Vec<Move>,
    view: &ClusterView,
    access: &Access,
    options: &MoveOptions,
) -> Result<Prepared, MoveError> {
    let survey = preflight::survey(view, &moves, access, options).await;
    let survey = survey.map_err(MoveError::Refused)?;
    let skipped: Slots = match options.big_keys {
        BigKeys::Skip => survey.big.iter().map(|key| key.slot).collect(),
        BigKeys::Fail | BigKeys::Allow => Slots::default(),
    };
    let moves: Vec<Move> = moves.into_iter().map(|part| without(part, &skipped)).collect();
    let members = members(view);
    Ok(Prepared {
        company: Company::new(&members, &[]),
        leavers: leavers(view, &moves),
        keys_before: keys_of(view),
        access: access.clone(),
        options: options.clone(),
        settings: Vec::new(),
        moves,
        members,
        survey,
        skipped,
    })
}

/// Looks how a move stands that was cut off, to go on with it. Nothing is changed.
pub async fn prepare_again(
    record: &Record,
    access: &Access,
    options: &MoveOptions,
) -> Result<Prepared, MoveError> {
    let Begun { moves, members } = record.begun.clone();
    let mut company = Company::new(&members, &record.heirs);
    let view = first_view(&company.addresses(), access).await?;
    company.learn(&view);
    let survey = preflight::resurvey(&view, &moves, access, options, &company).await;
    let survey = survey.map_err(|setback| MoveError::Refused(vec![setback.what]))?;
    Ok(Prepared {
        keys_before: keys_of(&view),
        access: access.clone(),
        options: options.clone(),
        settings: record.settings.clone(),
        leavers: Vec::new(),
        skipped: Slots::default(),
        moves,
        company,
        members,
        survey,
    })
}

/// Goes on with moves whose slots are open, by what the nodes say of them and without a journal of theirs; `heirs` tells who
/// stands in the place of those whom the moves name. Nothing is changed.
pub(in crate::manage) async fn prepare_open(
    moves: Vec<Move>,
    heirs: &[(NodeId, NodeId)],
    view: &ClusterView,
    access: &Access,
    options: &MoveOptions,
) -> Result<Prepared, MoveError> {
    let members = members(view);
    let company = Company::new(&members, heirs);
    let survey = preflight::resurvey(view, &moves, access, options, &company).await;
    let survey = survey.map_err(|setback| MoveError::Refused(vec![setback.what]))?;
    Ok(Prepared {
        keys_before: keys_of(view),
        access: access.clone(),
        options: options.clone(),
        settings: Vec::new(),
        leavers: Vec::new(),
        skipped: Slots::default(),
        moves,
        company,
        members,
        survey,
    })
}

async fn first_view(addresses: &[Address], access: &Access) -> Result<ClusterView, MoveError> {
    let mut last = MoveError::Refused(vec!["the journal names no node".to_owned()]);
    for address in addresses {
        match ClusterView::gather(address, access).await {
            Ok(view) => return Ok(view),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn without(part: Move, skipped: &Slots) -> Move {
    let slots = part.slots.iter().filter(|slot| !skipped.contains(**slot)).copied().collect();
    Move { slots, ..part }
}

fn members(view: &ClusterView) -> Vec<Member> {
    let member = |node: &NodeView| Member {
        id: node.own.id.clone(),
        address: node.address.clone(),
        primary: node.own.primary.clone(),
    };
    view.nodes.iter().map(member).collect()
}

fn keys_of(view: &ClusterView) -> u64 {
    let databases = view.primaries().flat_map(|node| node.info.databases());
    databases.map(|(_, keys)| keys).sum()
}

/// Sources that give all they own, and their replicas.
fn leavers(view: &ClusterView, moves: &[Move]) -> Vec<NodeId> {
    let mut left: BTreeMap<&NodeId, BTreeSet<Slot>> = BTreeMap::new();
    for part in moves {
        let Some(node) = view.node(&part.from) else { continue };
        let own =
            left.entry(&part.from).or_insert_with(|| node.own.slots.iter().copied().collect());
        own.retain(|slot| !part.slots.contains(*slot));
    }
    let leaving = left.into_iter().filter(|(_, slots)| slots.is_empty()).map(|(id, _)| id);
    let family = |id: &NodeId| {
        let replicas = view.replicas_of(id).map(|node| node.own.id.clone());
        std::iter::once(id.clone()).chain(replicas).collect::<Vec<_>>()
    };
    leaving.flat_map(family).collect()
}

impl Prepared {
    /// What a journal begins with.
    pub fn begun(&self) -> Begun {
        Begun { moves: self.moves.clone(), members: self.members.clone() }
    }

    /// Number of keys that will be moved.
    pub fn keys(&self) -> u64 {
        self.survey.keys.values().sum()
    }

    /// About how many bytes that is.
    pub fn bytes(&self) -> u64 {
        self.survey.bytes
    }

    /// Keys that stop their nodes for long when they are moved.
    pub fn big_keys(&self) -> &[BigKey] {
        &self.survey.big
    }

    /// What does not speak against it, and should be known.
    pub fn warnings(&self) -> &[String] {
        &self.survey.warnings
    }

    /// Moves the slots.
    pub async fn run(
        self,
        journal: &mut Journal,
        reins: &Reins,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Summary, MoveError> {
        let total: usize = self.moves.iter().map(|part| part.slots.len()).sum();
        let progress =
            Progress { slots_total: total, keys_total: self.keys(), ..Progress::default() };
        let work = Work {
            folder: journal.folder().to_owned(),
            job: journal.id().to_owned(),
            access: &self.access,
            options: &self.options,
            limits: self.survey.limits,
            reins,
            journal: RefCell::new(journal),
            tell: RefCell::new(tell),
            begun: Instant::now(),
            progress: RefCell::new(progress),
            meter: RefCell::default(),
            paces: RefCell::default(),
            company: RefCell::new(self.company.clone()),
        };
        let mut settings = self.settings.clone();
        work.keep_primaries(&self.leavers, &mut settings).await?;
        let done = work.lanes(&self.moves, |slot| self.survey.keys.get(&slot).copied()).await;
        let done = match done {
            Ok(0) => settle::settle(&work, &self.moves).await.map(|()| 0),
            other => other,
        };
        if !reins.is_halted() {
            work.restore(&settings).await;
        }
        work.finish(done, &self).await
    }
}

/// What all lanes of a move share.
struct Work<'a> {
    access: &'a Access,
    options: &'a MoveOptions,
    limits: Limits,
    reins: &'a Reins,
    journal: RefCell<&'a mut Journal>,
    tell: RefCell<&'a mut dyn FnMut(Event)>,
    begun: Instant,
    progress: RefCell<Progress>,
    meter: RefCell<Meter>,
    paces: RefCell<BTreeMap<NodeId, Pace>>,
    company: RefCell<Company>,
    /// The state folder, and the job's name there.
    folder: PathBuf,
    job: String,
}

impl Work<'_> {
    /// Works off all chunks, several at a time, and gives how many slots were left because the caller wanted it to stop. After
    /// a setback that nothing helps against the chunks that are under way are still carried through.
    async fn lanes(
        &self,
        moves: &[Move],
        keys: impl Fn(Slot) -> Option<u64>,
    ) -> Result<usize, Setback> {
        let roster = RefCell::new(Roster::new(moves, |slot| keys(slot).unwrap_or(0)));
        let (failed, changed) = (RefCell::new(None), Notify::new());
        let lane = async || {
            let mut links = Links::default();
            while !self.reins.is_ending() && failed.borrow().is_none() {
                let next = roster.borrow_mut().next();
                let chunk = match next {
                    Next::Chunk(chunk) => chunk,
                    Next::Later => {
                        changed.notified().await;
                        continue;
                    }
                    Next::Never => return,
                };
                if let Err(setback) = carry(self, &mut links, &chunk).await {
                    failed.borrow_mut().get_or_insert(setback);
                }
                roster.borrow_mut().done(&chunk);
                changed.notify_waiters();
            }
        };
        together((0..self.options.parallel.max(1)).map(|_| lane())).await;
        match failed.into_inner() {
            Some(setback) => Err(setback),
            None => Ok(roster.borrow().left()),
        }
    }

    /// Writes to the journal. Without one nothing could be gone on with, so nothing is done.
    fn note(&self, entry: &Entry) -> Result<(), Setback> {
        let written = self.journal.borrow_mut().write(entry);
        written.map_err(|error| Setback::new(Remedy::Nothing, error.to_string()))
    }

    fn tell(&self, event: Event) {
        (self.tell.borrow_mut())(event);
    }

    fn keys_moved(&self) -> u64 {
        self.progress.borrow().keys
    }

    fn moved(&self, keys: usize, bytes: u64) {
        self.advance(|progress| {
            progress.keys += keys as u64;
            progress.bytes += bytes;
        });
    }

    fn closed(&self, part: &Move) -> Result<(), Setback> {
        self.note(&Entry::Closed(part.clone()))?;
        self.advance(|progress| progress.slots += part.slots.len());
        self.tell(Event::Closed(part.clone()));
        Ok(())
    }

    fn advance(&self, change: impl FnOnce(&mut Progress)) {
        let progress = {
            let mut progress = self.progress.borrow_mut();
            change(&mut progress);
            progress.elapsed = self.begun.elapsed();
            *progress
        };
        self.tell(Event::Progress(progress));
    }

    fn pace(&self, source: &NodeId) -> Pace {
        let known = self.paces.borrow().get(source).cloned();
        known.unwrap_or_else(|| Pace::new(self.options.max_block))
    }

    fn keep_pace(&self, source: NodeId, pace: Pace) {
        self.paces.borrow_mut().insert(source, pace);
    }

    /// Keeps primaries that lose their last slot from becoming replicas of whoever takes it, and throwing their data away.
    async fn keep_primaries(
        &self,
        leavers: &[NodeId],
        settings: &mut Vec<Setting>,
    ) -> Result<(), JournalError> {
        for id in leavers {
            let Ok(mut end) = self.open(id).await else { continue };
            // Servers before 7.0 do not have the setting.
            let before = end.setting(MIGRATION).await.ok().flatten();
            let Some(before) = before.filter(|value| value == "yes") else { continue };
            let setting = Setting { node: id.clone(), name: MIGRATION.to_owned(), before };
            self.journal.borrow_mut().write(&Entry::Setting(setting.clone()))?;
            settings.push(setting);
            if let Err(setback) = end.set(MIGRATION, "no").await {
                self.tell(Event::Warning(setback.what));
            }
        }
        Ok(())
    }

    async fn open(&self, id: &NodeId) -> Result<End, Setback> {
        let address = self.company.borrow().address(id);
        let unknown = || Setback::new(Remedy::Look, format!("nobody knows where {id} is"));
        let address = address.ok_or_else(unknown)?;
        Ok(End::open(id, &address, self.access, self.limits.answer).await?)
    }

    async fn restore(&self, settings: &[Setting]) {
        for Setting { node, name, before } in settings {
            let restored = match self.open(node).await {
                Ok(mut end) => end.set(name, before).await,
                Err(setback) => Err(setback),
            };
            if let Err(setback) = restored {
                self.tell(Event::Warning(format!(
                    "{name} of {node} was {before}: {}",
                    setback.what
                )));
            }
        }
    }

    /// Writes how it ended, if that is an end.
    fn conclude(&self, done: Result<usize, Setback>) -> Result<(), MoveError> {
        let mut journal = self.journal.borrow_mut();
        match done {
            Ok(0) => Ok(journal.write(&Entry::Ended { how: Ending::Completed })?),
            Ok(left) => {
                journal.write(&Entry::Stopped)?;
                Err(MoveError::Stopped(left))
            }
            Err(Setback { remedy: Remedy::Stop, .. }) => Err(MoveError::Halted),
            Err(Setback { what, .. }) => {
                journal.write(&Entry::Paused { reason: what.clone() })?;
                Err(MoveError::Paused(what))
            }
        }
    }

    async fn finish(
        &self,
        done: Result<usize, Setback>,
        prepared: &Prepared,
    ) -> Result<Summary, MoveError> {
        self.conclude(done)?;
        let addresses = self.company.borrow().addresses();
        let view = first_view(&addresses, self.access).await?;
        Ok(Summary {
            progress: *self.progress.borrow(),
            skipped: prepared.skipped.clone(),
            keys_before: prepared.keys_before,
            keys_after: keys_of(&view),
        })
    }
}
