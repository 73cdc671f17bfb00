//! Moving slots with all their keys from primaries to others, while clients use them.
//!
//! ```text
//!  preflight   may it be done, and what is it about?
//!  method      key by key, or by the servers themselves where both have that?
//!  roster      which chunk of slots is next; several pairs of nodes at the same time                  (pure)
//!  carry       one chunk: look, open, drain, close; again from the look after a setback
//!  ├─ stage      how far is a slot, by what its two ends say?                                         (pure)
//!  ├─ drain      the keys, in batches of a size that adapts (`manage::pace`)
//!  ├─ vigil      a source is gone: its replicas are held until the heir knows which slots are on their way
//!  ├─ company    who stands in whose place after a failover                                           (pure)
//!  └─ remedy     what helps against which error                                                       (pure)
//!  atomic      one chunk, moved by the servers: start, watch, judge by who owns it then
//!  work        what the lanes share that do this
//!  report      what is told of it
//!  settle      wait until all nodes say the same, and look that nothing is left
//! ```
//! The source owns a slot until it has no key of it, and is right about every key until then. So a move that was cut off,
//! wherever, is only ever gone on with, never undone; and the journal need not know how far it came.

mod atomic;
mod carry;
mod company;
mod drain;
pub(in crate::manage) mod ends;
mod method;
mod preflight;
mod reins;
pub(in crate::manage) mod remedy;
mod report;
mod roster;
mod settle;
mod stage;
mod together;
mod vigil;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thiserror::Error;

pub use method::Method;
pub use preflight::BigKey;
pub use reins::Reins;
pub use report::{Event, Progress, Quarantined, Summary, Suspicion};

use company::Company;
use method::Way;
use preflight::Survey;
use work::Work;

use super::access::Access;
use super::journal::{Begun, Journal, JournalError, Member, Record, Setting};
use super::plan::Move;
use super::view::{ClusterView, NodeView, ViewError};
use crate::cluster::{Address, NodeId, Slot, Slots};

/// How slots are moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveOptions {
    /// Which way slots go.
    pub method: Method,
    /// How long the source may be stopped for one batch.
    pub max_block: Duration,
    /// Share of its time that a source may be busy with the move, in percent.
    pub duty: u32,
    /// Most pairs of nodes that work at the same time.
    pub parallel: usize,
    /// Most keys of one batch, whatever time there would be for more.
    pub batch: usize,
    /// How long one transfer may take, big keys aside; unless given, half of the node timeout.
    pub transfer: Option<Duration>,
    /// What is done about keys that would stop their node for long.
    pub big_keys: BigKeys,
    /// Bytes from which on a key is big; unless given, what takes a quarter of the node timeout.
    pub big_key_bytes: Option<u64>,
    /// How long a chunk may wait for nodes that are gone, or busy, before the move pauses.
    pub patience: Duration,
    /// How long the target's replicas are waited for.
    pub replica_patience: Duration,
    /// How many of them; unless given, all.
    pub replicas: Option<u64>,
}

impl Default for MoveOptions {
    fn default() -> Self {
        Self {
            method: Method::default(),
            max_block: Duration::from_millis(2),
            duty: 100,
            parallel: 8,
            batch: usize::MAX,
            transfer: None,
            big_keys: BigKeys::Fail,
            big_key_bytes: None,
            patience: Duration::from_secs(60),
            replica_patience: Duration::from_secs(10),
            replicas: None,
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
    #[error("stopped at once, as it was told to")]
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
    /// Migrations that were begun, by the slots of each.
    sent: Vec<(Slots, String)>,
    suspicions: Vec<Suspicion>,
    /// Nodes that lose their last slot.
    leavers: Vec<NodeId>,
    keys_before: u64,
    /// Slots may be open from before.
    is_continued: bool,
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
        leavers: leavers(view, &moves, &Company::new(&members, &[])),
        company: Company::new(&members, &[]),
        keys_before: keys_of(view),
        access: access.clone(),
        options: options.clone(),
        settings: Vec::new(),
        sent: Vec::new(),
        suspicions: Vec::new(),
        is_continued: false,
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
    let Begun { moves, members, .. } = record.begun.clone();
    let mut company = Company::new(&members, &record.heirs);
    let view = first_view(&company.addresses(), access).await?;
    company.learn(&view);
    let prepared = go_on(moves, members, company, &view, (access, options)).await?;
    let Record { settings, sent, suspicions, .. } = record.clone();
    Ok(Prepared { settings, sent, suspicions, ..prepared })
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
    // The servers do not migrate slots that are open.
    let options = MoveOptions { method: Method::Legacy, ..options.clone() };
    go_on(moves, members, company, view, (access, &options)).await
}

async fn go_on(
    moves: Vec<Move>,
    members: Vec<Member>,
    company: Company,
    view: &ClusterView,
    (access, options): (&Access, &MoveOptions),
) -> Result<Prepared, MoveError> {
    let survey = preflight::resurvey(view, &moves, access, options, &company).await;
    let survey = survey.map_err(MoveError::Refused)?;
    Ok(Prepared {
        keys_before: keys_of(view),
        access: access.clone(),
        options: options.clone(),
        settings: Vec::new(),
        sent: Vec::new(),
        suspicions: Vec::new(),
        leavers: leavers(view, &moves, &company),
        is_continued: true,
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

/// Sources that give all they own, or have given it, and their replicas.
fn leavers(view: &ClusterView, moves: &[Move], company: &Company) -> Vec<NodeId> {
    let mut left: BTreeMap<NodeId, BTreeSet<Slot>> = BTreeMap::new();
    for part in moves {
        let from = company.now(&part.from);
        let Some(node) = view.node(&from) else { continue };
        let own = left.entry(from).or_insert_with(|| node.own.slots.iter().copied().collect());
        own.retain(|slot| !part.slots.contains(*slot));
    }
    let leaving = left.into_iter().filter(|(_, slots)| slots.is_empty()).map(|(id, _)| id);
    let family = |id: NodeId| {
        let replicas = view.replicas_of(&id).map(|node| node.own.id.clone());
        replicas.collect::<Vec<_>>().into_iter().chain([id])
    };
    leaving.flat_map(family).collect()
}

impl Prepared {
    /// What a journal begins with.
    pub fn begun(&self) -> Begun {
        Begun {
            moves: self.moves.clone(),
            members: self.members.clone(),
            method: self.options.method,
        }
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

    /// How many of the slots are to be moved by the servers themselves.
    pub fn atomic(&self) -> usize {
        let pairs = self.moves.iter().zip(&self.survey.ways);
        pairs.filter(|(_, way)| **way != Way::Keys).map(|(part, _)| part.slots.len()).sum()
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
        let work = Work::new(&self, journal, reins, tell);
        let mut settings = self.settings.clone();
        work.keep_primaries(&self.leavers, &mut settings).await?;
        let done = work.lanes(&self.moves, &self.survey).await;
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
