//! What the lanes of a move share, and how they work off its chunks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::atomic::{self, Otherwise};
use super::carry::{Links, carry, look_around};
use super::company::Company;
use super::ends::End;
use super::method::Way;
use super::preflight::{Limits, Survey};
use super::remedy::{Remedy, Setback};
use super::roster::{Chunk, Next, Roster};
use super::together::together;
use super::{
    Event, MoveError, MoveOptions, Prepared, Progress, Quarantined, Reins, Summary, Suspicion,
    first_view, keys_of,
};
use crate::cluster::{NodeId, Slots};
use crate::manage::access::Access;
use crate::manage::journal::{Ending, Entry, Journal, JournalError, Setting};
use crate::manage::pace::{Meter, Pace};
use crate::manage::plan::Move;

/// Whether primaries that have lost their last slot become replicas of whoever took it.
const MIGRATION: &str = "cluster-allow-replica-migration";

/// How long a pair of nodes rests after a migration that failed; twice as long after the next one.
const REST: Duration = Duration::from_millis(500);

/// What all lanes of a move share.
pub(super) struct Work<'a> {
    pub(super) access: &'a Access,
    pub(super) options: &'a MoveOptions,
    pub(super) limits: Limits,
    pub(super) reins: &'a Reins,
    journal: RefCell<&'a mut Journal>,
    tell: RefCell<&'a mut dyn FnMut(Event)>,
    begun: Instant,
    progress: RefCell<Progress>,
    pub(super) meter: RefCell<Meter>,
    pub(super) paces: RefCell<BTreeMap<NodeId, Pace>>,
    pub(super) company: RefCell<Company>,
    /// About how many bytes a key takes.
    pub(super) key_bytes: u64,
    /// Migrations that an earlier run has begun.
    earlier: &'a [(Slots, String)],
    suspicions: RefCell<Vec<Suspicion>>,
    /// How many copies are kept, by file.
    quarantined: RefCell<BTreeMap<PathBuf, usize>>,
    /// Slots that the servers moved by themselves.
    atomic: RefCell<usize>,
    /// Slots may be open from before.
    pub(super) is_continued: bool,
    /// The state folder, and the job's name there.
    pub(super) folder: PathBuf,
    pub(super) job: String,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        prepared: &'a Prepared,
        journal: &'a mut Journal,
        reins: &'a Reins,
        tell: &'a mut dyn FnMut(Event),
    ) -> Self {
        let total: usize = prepared.moves.iter().map(|part| part.slots.len()).sum();
        let progress =
            Progress { slots_total: total, keys_total: prepared.keys(), ..Progress::default() };
        let (folder, job) = (journal.folder().to_owned(), journal.id().to_owned());
        Self {
            access: &prepared.access,
            options: &prepared.options,
            limits: prepared.survey.limits,
            reins,
            journal: RefCell::new(journal),
            tell: RefCell::new(tell),
            begun: Instant::now(),
            progress: RefCell::new(progress),
            meter: RefCell::default(),
            paces: RefCell::default(),
            company: RefCell::new(prepared.company.clone()),
            key_bytes: prepared.bytes().checked_div(prepared.keys()).unwrap_or(0),
            earlier: &prepared.sent,
            suspicions: RefCell::new(prepared.suspicions.clone()),
            quarantined: RefCell::default(),
            atomic: RefCell::new(0),
            is_continued: prepared.is_continued,
            folder,
            job,
        }
    }

    /// Works off all chunks, several at a time, and gives how many slots were left because the caller wanted it to stop. After
    /// a setback that nothing helps against the chunks that are under way are still carried through.
    pub(super) async fn lanes(&self, moves: &[Move], survey: &Survey) -> Result<usize, Setback> {
        let roster = RefCell::new(Roster::new(moves, &survey.ways, &survey.keys));
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
                if let Err(setback) = self.carry(&mut links, &chunk, &roster).await {
                    failed.borrow_mut().get_or_insert(setback);
                    roster.borrow_mut().done(&chunk);
                }
                changed.notify_waiters();
            }
        };
        together((0..self.options.parallel.max(1)).map(|_| lane())).await;
        match failed.into_inner() {
            Some(setback) => Err(setback),
            None => Ok(roster.borrow().left()),
        }
    }

    /// Carries a chunk through, or has the roster try it otherwise.
    async fn carry(
        &self,
        links: &mut Links,
        chunk: &Chunk,
        roster: &RefCell<Roster<'_>>,
    ) -> Result<(), Setback> {
        let dialect = match chunk.way {
            Way::Keys => {
                carry(self, links, chunk).await?;
                roster.borrow_mut().done(chunk);
                return Ok(());
            }
            Way::Atomic(dialect) => dialect,
        };
        let Err(setback) = atomic::carry(self, links, chunk, dialect).await else {
            roster.borrow_mut().done(chunk);
            return Ok(());
        };
        match atomic::otherwise(self.options.method, chunk.failures, setback.remedy) {
            Otherwise::GiveUp => Err(setback),
            Otherwise::Halved => {
                let slots = chunk.slots.clone();
                self.tell(Event::Setback { slots, what: setback.what });
                self.reins.sleep(REST * 2_u32.pow(chunk.failures)).await?;
                look_around(self).await?;
                roster.borrow_mut().halve(chunk);
                Ok(())
            }
            Otherwise::ByKeys => {
                let (from, to) = (chunk.from.clone(), chunk.to.clone());
                self.tell(Event::KeyByKey { from, to, why: setback.what });
                roster.borrow_mut().by_keys(chunk);
                Ok(())
            }
        }
    }

    /// The last migration that was begun of some of these slots, by an earlier run.
    pub(super) fn sent(&self, slots: &Slots) -> Option<String> {
        let concerns = |sent: &Slots| sent.iter().any(|slot| slots.contains(*slot));
        let last = self.earlier.iter().rev().find(|(sent, _)| concerns(sent));
        last.map(|(_, task)| task.clone())
    }

    /// Slots have arrived, and one of their ends says that their migration failed.
    pub(super) fn suspect(&self, part: &Move, said: &str) -> Result<(), Setback> {
        let suspicion = Suspicion { part: part.clone(), said: said.to_owned() };
        self.note(&Entry::Suspicious(suspicion.clone()))?;
        self.suspicions.borrow_mut().push(suspicion.clone());
        self.tell(Event::Suspicious(suspicion));
        Ok(())
    }

    /// A chunk with so many keys has arrived by itself.
    pub(super) fn migrated(&self, slots: usize, keys: u64) {
        *self.atomic.borrow_mut() += slots;
        self.advance(|progress| {
            progress.keys += keys;
            progress.bytes += keys * self.key_bytes;
        });
    }

    /// Writes to the journal. Without one nothing could be gone on with, so nothing is done.
    pub(super) fn note(&self, entry: &Entry) -> Result<(), Setback> {
        let written = self.journal.borrow_mut().write(entry);
        written.map_err(|error| Setback::new(Remedy::Nothing, error.to_string()))
    }

    pub(super) fn tell(&self, event: Event) {
        if let Event::Quarantined { count, file } = &event {
            *self.quarantined.borrow_mut().entry(file.clone()).or_default() += count;
        }
        (self.tell.borrow_mut())(event);
    }

    pub(super) fn keys_moved(&self) -> u64 {
        self.progress.borrow().keys
    }

    pub(super) fn moved(&self, keys: usize, bytes: u64) {
        self.advance(|progress| {
            progress.keys += keys as u64;
            progress.bytes += bytes;
        });
    }

    pub(super) fn closed(&self, part: &Move) -> Result<(), Setback> {
        self.note(&Entry::Closed(part.clone()))?;
        self.advance(|progress| progress.slots += part.slots.len());
        self.tell(Event::Closed(part.clone()));
        Ok(())
    }

    pub(super) fn advance(&self, change: impl FnOnce(&mut Progress)) {
        let progress = {
            let mut progress = self.progress.borrow_mut();
            change(&mut progress);
            progress.elapsed = self.begun.elapsed();
            *progress
        };
        self.tell(Event::Progress(progress));
    }

    pub(super) fn pace(&self, source: &NodeId) -> Pace {
        let known = self.paces.borrow().get(source).cloned();
        known.unwrap_or_else(|| Pace::new(self.max_block()))
    }

    /// How long a source may be stopped for one batch.
    pub(super) fn max_block(&self) -> Duration {
        self.reins.max_block().unwrap_or(self.options.max_block)
    }

    pub(super) fn keep_pace(&self, source: NodeId, pace: Pace) {
        self.paces.borrow_mut().insert(source, pace);
    }

    /// Keeps primaries that lose their last slot from becoming replicas of whoever takes it, and throwing their data away.
    pub(super) async fn keep_primaries(
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

    pub(super) async fn open(&self, id: &NodeId) -> Result<End, Setback> {
        let address = self.company.borrow().address(id);
        let unknown = || Setback::new(Remedy::Look, format!("nobody knows where {id} is"));
        let address = address.ok_or_else(unknown)?;
        Ok(End::open(id, &address, self.access, self.limits.answer).await?)
    }

    pub(super) async fn restore(&self, settings: &[Setting]) {
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
    pub(super) fn conclude(&self, done: Result<usize, Setback>) -> Result<(), MoveError> {
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
                let Progress { slots, slots_total, .. } = *self.progress.borrow();
                Err(MoveError::Paused(format!(
                    "{what} ({slots} of {slots_total} slots have been moved)"
                )))
            }
        }
    }

    pub(super) async fn finish(
        &self,
        done: Result<usize, Setback>,
        prepared: &Prepared,
    ) -> Result<Summary, MoveError> {
        self.conclude(done)?;
        let addresses = self.company.borrow().addresses();
        let view = first_view(&addresses, self.access).await?;
        let quarantined = self.quarantined.take().into_iter();
        Ok(Summary {
            progress: *self.progress.borrow(),
            skipped: prepared.skipped.clone(),
            atomic: *self.atomic.borrow(),
            suspicions: self.suspicions.borrow().clone(),
            quarantined: quarantined.map(|(file, count)| Quarantined { file, count }).collect(),
            keys_before: prepared.keys_before,
            keys_after: keys_of(&view),
        })
    }
}
