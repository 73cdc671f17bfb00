//! One chunk of slots by atomic slot migration: the servers carry the keys, and hand the slots over all at once.
//!
//! ```text
//!  look     CLUSTER NODES of both ends: what is left to be moved?
//!  start    one migration, unless one of these slots runs already: after a kill of this program it goes on without us
//!  watch    its state, until it has ended, is given up, or nobody knows of it any more
//!  judge    by who owns the slots then
//! ```
//! No slot is ever open, so a migration that failed or was cancelled leaves nothing behind. Clients of the source cannot
//! write for a moment at the hand-over, and never hear `ASK`.

mod dialect;
mod verdict;

use std::time::{Duration, Instant};

use tokio::time::sleep;

pub(super) use dialect::{Dialect, State, Task};
pub(super) use verdict::{Otherwise, otherwise};

use super::Event;
use super::carry::{Links, look_around};
use super::ends::End;
use super::remedy::{Remedy, Setback};
use super::roster::Chunk;
use super::work::Work;
use crate::cluster::Slots;
use crate::manage::journal::Entry;
use crate::manage::plan::Move;
use crate::manage::view::Line;
use crate::resp::value::{self, Value};
use verdict::{Owner, Verdict, failure, verdict};

/// How often a migration is looked at: the servers themselves look ten times a second whether it can go on.
const LOOK: Duration = Duration::from_millis(100);
/// Pause after a setback.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes a second that are surely sent and stored; a tenth of what was measured key by key on loopback.
const SLOWEST: u64 = 2_500_000;

/// Carries a chunk through while there is hope without changing it. Of a migration that failed the caller decides what to do.
pub(super) async fn carry(
    work: &Work<'_>,
    links: &mut Links,
    chunk: &Chunk,
    dialect: Dialect,
) -> Result<(), Setback> {
    let begun = Instant::now();
    let mut name = work.sent(&chunk.slots);
    loop {
        let Err(setback) = attempt(work, links, chunk, dialect, &mut name).await else {
            return Ok(());
        };
        links.clear();
        let may_pass = matches!(setback.remedy, Remedy::Wait | Remedy::Look | Remedy::Again);
        if !may_pass || begun.elapsed() > work.options.patience || work.reins.is_halted() {
            return Err(setback);
        }
        work.tell(Event::Setback { slots: chunk.slots.clone(), what: setback.what });
        work.reins.sleep(PAUSE).await?;
        look_around(work).await?;
    }
}

async fn attempt(
    work: &Work<'_>,
    links: &mut Links,
    chunk: &Chunk,
    dialect: Dialect,
    name: &mut Option<String>,
) -> Result<(), Setback> {
    let (from, to) = {
        let company = work.company.borrow();
        (company.now(&chunk.from), company.now(&chunk.to))
    };
    let source = links.take(&from, work).await?;
    let target = links.take(&to, work).await?;
    let mut crossing = Crossing { work, chunk, dialect, source, target };
    loop {
        let left = crossing.left().await?;
        if left.is_empty() {
            break;
        }
        work.reins.leave().await?;
        let task = match crossing.running(&left).await? {
            Some(task) => task,
            None => crossing.start(&left).await?,
        };
        *name = Some(task.name.clone());
        crossing.watch(&task).await?;
    }
    crossing.arrived(name.as_deref()).await?;
    links.keep([crossing.source, crossing.target]);
    Ok(())
}

/// A chunk and its two ends.
struct Crossing<'a, 'w> {
    work: &'a Work<'w>,
    chunk: &'a Chunk,
    dialect: Dialect,
    source: End,
    target: End,
}

impl Crossing<'_, '_> {
    fn host(&mut self) -> &mut End {
        self.dialect.host(&mut self.source, &mut self.target)
    }

    fn part(&self, slots: &Slots) -> Move {
        Move { from: self.source.id.clone(), to: self.target.id.clone(), slots: slots.clone() }
    }

    /// What the two ends say of themselves.
    async fn lines(&mut self) -> Result<(Line, Line), Setback> {
        let (at_source, at_target) = tokio::try_join!(self.source.lines(), self.target.lines())?;
        Ok((own(at_source)?, own(at_target)?))
    }

    /// The slots that the target does not own yet.
    async fn left(&mut self) -> Result<Slots, Setback> {
        let (source, target) = self.lines().await?;
        let slots = &self.chunk.slots;
        let mut open = [&source, &target]
            .into_iter()
            .flat_map(|line| line.migrating.iter().chain(&line.importing));
        if let Some((slot, _)) = open.find(|(slot, _)| slots.contains(*slot)) {
            let what = format!("slot {slot} is open, to be moved key by key");
            return Err(Setback::new(Remedy::Nothing, what));
        }
        let left: Slots =
            slots.iter().filter(|slot| !target.slots.contains(**slot)).copied().collect();
        match left.iter().find(|slot| !source.slots.contains(**slot)) {
            None => Ok(left),
            Some(slot) => {
                let what = format!("neither {} nor {} owns slot {slot}", source.id, target.id);
                Err(Setback::new(Remedy::Look, what))
            }
        }
    }

    /// A migration of some of these slots that is under way.
    async fn running(&mut self, slots: &Slots) -> Result<Option<Task>, Setback> {
        let dialect = self.dialect;
        let tasks = tasks(self.host(), dialect).await?;
        // Redis begins anew by itself what has failed.
        let is_under_way = |task: &Task| {
            task.state == State::Active || dialect == Dialect::Pull && task.state == State::Failed
        };
        let Some(task) = tasks.into_iter().find(|task| is_under_way(task) && task.concerns(slots))
        else {
            return Ok(None);
        };
        if task.source == self.source.id && task.target == self.target.id {
            return Ok(Some(task));
        }
        let what = format!(
            "slots {} are on their way from {} to {}",
            task.slots, task.source, task.target
        );
        Err(Setback::new(Remedy::Nothing, what))
    }

    async fn start(&mut self, slots: &Slots) -> Result<Task, Setback> {
        let part = self.part(slots);
        self.work.note(&Entry::Opening(part.clone()))?;
        let dialect = self.dialect;
        let request = dialect.start(slots, &part.to);
        let known: Vec<String> =
            tasks(self.host(), dialect).await?.into_iter().map(|task| task.name).collect();
        let host = self.host();
        let reply = host.pipeline(&[request]).await?.pop().unwrap_or(Value::Null);
        if let Value::Error(text) = &reply {
            return Err(Setback::said(&host.address, "a migration of slots", text));
        }
        let is_new = |task: &Task| !known.contains(&task.name) && task.concerns(slots);
        let told = tasks(host, dialect).await?.into_iter().find(is_new);
        // Of what ended at once and is not in the log any more the name may be known.
        let name = value::text(&reply).filter(|_| dialect == Dialect::Pull).unwrap_or_default();
        let task = told.unwrap_or_else(|| Task::unknown(name, &part));
        self.work.note(&Entry::Sent { part: part.clone(), task: task.name.clone() })?;
        self.work.tell(Event::Opened(part));
        Ok(task)
    }

    /// Waits until a migration has ended; it is an error unless the target owns the slots then.
    async fn watch(&mut self, task: &Task) -> Result<(), Setback> {
        let mut patience = Patience::new(self.work, self.chunk);
        let (mut stage, mut given_up) = (String::new(), None);
        let dialect = self.dialect;
        loop {
            let told = named(self.host(), dialect, &task.name).await?;
            if let Some(now) = told.as_ref().filter(|now| now.stage != stage) {
                stage.clone_from(&now.stage);
                let slots = task.slots.clone();
                self.work.tell(Event::Stage { slots, stage: stage.clone() });
            }
            let is_active = told.as_ref().is_some_and(|task| task.state == State::Active);
            if given_up.is_none()
                && let Some(why) = self.give_up(told.as_ref(), &patience)
            {
                self.cancel(&task.name).await?;
                patience = Patience::of(self.work.options.patience);
                given_up = Some(why);
            } else if !is_active {
                match self.judge(task).await? {
                    Verdict::Arrived { .. } => return Ok(()),
                    Verdict::Failed(setback) => return Err(given_up.unwrap_or(setback)),
                    Verdict::Unclear => {}
                }
            }
            if let Some(why) = given_up.as_ref().filter(|_| patience.is_over()) {
                let slots = &task.slots;
                let what =
                    format!("{}, and the migration of slots {slots} cannot be cancelled", why.what);
                return Err(Setback::new(Remedy::Runs, what));
            }
            sleep(LOOK).await;
        }
    }

    /// Why a migration is to be cancelled, if it is.
    fn give_up(&self, told: Option<&Task>, patience: &Patience) -> Option<Setback> {
        if self.work.reins.is_halted() {
            return Some(Setback::new(Remedy::Stop, "stopped at once, as it was told to"));
        }
        if patience.is_over() {
            let stage = told.map_or("unknown", |task| task.stage.as_str());
            let seconds = patience.limit.as_secs();
            return Some(failure(&format!("not within {seconds} s, it is {stage}")));
        }
        // Redis would begin it anew for ever.
        let task = told.filter(|_| self.dialect == Dialect::Pull)?;
        let has_failed = task.state == State::Failed || task.is_retrying();
        has_failed.then(|| failure(&task.complaint()))
    }

    async fn cancel(&mut self, name: &str) -> Result<(), Setback> {
        let request = self.dialect.cancel(name);
        // One that has ended meanwhile cannot be cancelled, which is an error with Valkey.
        self.host().pipeline(&[request]).await.map(drop)
    }

    async fn judge(&mut self, task: &Task) -> Result<Verdict, Setback> {
        let told = self.told(&task.name, &task.slots).await?;
        let (source, target) = self.lines().await?;
        Ok(verdict(Owner::of(&task.slots, &source, &target), &told))
    }

    /// What both ends say of a migration, and of whatever else runs that is about its slots: cancelled is what has ended, not what
    /// was told to.
    async fn told(&mut self, name: &str, slots: &Slots) -> Result<Vec<Task>, Setback> {
        let at_source = tasks(&mut self.source, self.dialect).await?;
        let at_target = tasks(&mut self.target, self.dialect).await?;
        let is_meant =
            |task: &Task| task.name == name || task.state == State::Active && task.concerns(slots);
        Ok(at_source.into_iter().chain(at_target).filter(is_meant).collect())
    }

    /// The target owns the slots. Whatever became of the migration, it is not tried again.
    async fn arrived(&mut self, name: Option<&str>) -> Result<(), Setback> {
        let part = self.part(&self.chunk.slots);
        let told = match name {
            Some(name) => self.told(name, &self.chunk.slots).await?,
            None => Vec::new(),
        };
        if let Verdict::Arrived { doubt: Some(said) } = verdict(Owner::Target, &told) {
            self.work.suspect(&part, &said)?;
        }
        self.work.migrated(self.chunk.slots.len(), self.chunk.keys);
        self.work.closed(&part)
    }
}

/// How long a migration may take, and since when it does.
struct Patience {
    begun: Instant,
    limit: Duration,
}

impl Patience {
    fn new(work: &Work<'_>, chunk: &Chunk) -> Self {
        let bytes = chunk.keys * work.key_bytes;
        Self::of(work.options.patience + Duration::from_secs(bytes / SLOWEST))
    }

    fn of(limit: Duration) -> Self {
        Self { begun: Instant::now(), limit }
    }

    fn is_over(&self) -> bool {
        self.begun.elapsed() > self.limit
    }
}

fn own(lines: Vec<Line>) -> Result<Line, Setback> {
    let line = lines.into_iter().find(|line| line.is("myself"));
    line.ok_or_else(|| Setback::new(Remedy::Look, "a node does not tell who it is"))
}

async fn tasks(end: &mut End, dialect: Dialect) -> Result<Vec<Task>, Setback> {
    Ok(Task::all(&end.say(dialect.status()).await?))
}

async fn named(end: &mut End, dialect: Dialect, name: &str) -> Result<Option<Task>, Setback> {
    Ok(tasks(end, dialect).await?.into_iter().find(|task| task.name == name))
}
