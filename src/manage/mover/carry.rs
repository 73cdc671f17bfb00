//! One chunk of slots, from wherever it is found to where it belongs.
//!
//! ```text
//!  look      CLUSTER NODES of source and target: which slot is how far?
//!  open      target IMPORTING, then source MIGRATING: the other way round clients are sent to a target that sends them back
//!  drain     the keys
//!  wait      for the target's replicas: should the target die now, they have the keys
//!  close     target NODE, then source NODE, then the others: the other way round nobody would own the slot for a while
//! ```
//! Every attempt begins with the look, so that going on after a fault, a failover or a kill of this program is not another
//! way through, but the same.

use std::time::{Duration, Instant};

use super::Event;
use super::company::Company;
use super::drain::Drain;
use super::ends::{End, Route};
use super::remedy::{Remedy, Setback};
use super::roster::Chunk;
use super::stage::{Ends, Stage};
use super::together::together;
use super::vigil::Vigil;
use super::work::Work;
use crate::cluster::{Address, NodeId, Slot};
use crate::manage::journal::Entry;
use crate::manage::plan::Move;
use crate::manage::quarantine::{COMPARED, Quarantine, Right, held_by_both};
use crate::manage::view::{ClusterView, Line};

/// First pause after a setback; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two attempts. A replica that has taken over is to be found soon: until it knows that the slots are
/// on their way it answers that keys which have moved are not there.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// How often the link between two nodes may fail in a row.
const TRIES: u32 = 5;
/// How long the target's replicas are waited for each time.
const REPLICAS: Duration = Duration::from_secs(1);

/// Connections that one lane keeps between chunks.
#[derive(Default)]
pub(super) struct Links(Vec<End>);

impl Links {
    /// Connections may have answers on the way that nobody waits for any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// For the next chunk.
    pub(super) fn keep(&mut self, ends: impl IntoIterator<Item = End>) {
        self.0.extend(ends);
    }

    pub(super) async fn take(&mut self, id: &NodeId, work: &Work<'_>) -> Result<End, Setback> {
        if let Some(at) = self.0.iter().position(|end| end.id == *id) {
            return Ok(self.0.swap_remove(at));
        }
        let address = work.company.borrow().address(id);
        let gone = || Setback::new(Remedy::Look, format!("nobody knows where {id} is"));
        let address = address.ok_or_else(gone)?;
        Ok(End::open(id, &address, work.access, work.limits.answer).await?)
    }
}

/// Carries a chunk through, however often it takes, while there is hope.
pub(super) async fn carry(
    work: &Work<'_>,
    links: &mut Links,
    chunk: &Chunk,
) -> Result<(), Setback> {
    let (mut failures, mut begun, mut moved) = (0, Instant::now(), work.keys_moved());
    let mut vigil = Vigil::default();
    loop {
        let attempted = attempt(work, links, chunk, &mut vigil).await;
        let Err(setback) = attempted else {
            vigil.end().await;
            return Ok(());
        };
        vigil.note(&setback);
        links.clear();
        if work.keys_moved() > moved {
            (failures, begun, moved) = (0, Instant::now(), work.keys_moved());
        }
        failures += 1;
        let is_hopeless = match setback.remedy {
            Remedy::Nothing | Remedy::Smaller | Remedy::Room | Remedy::Runs | Remedy::Stop => true,
            Remedy::Again => failures > TRIES || begun.elapsed() > work.options.patience,
            Remedy::Wait | Remedy::Look => begun.elapsed() > work.options.patience,
        };
        if is_hopeless || work.reins.is_halted() {
            vigil.end().await;
            return Err(setback);
        }
        work.tell(Event::Setback { slots: chunk.slots.clone(), what: setback.what.clone() });
        let longest = if vigil.is_kept() { PAUSE } else { LONGEST_PAUSE };
        work.reins.sleep((PAUSE * 2_u32.pow(failures.min(8) - 1)).min(longest)).await?;
        if let Some(view) = look_around(work).await? {
            vigil.keep(work, &chunk.from, &view).await;
        }
    }
}

/// Finds out where the nodes are now, and who has taken over from whom.
pub(super) async fn look_around(work: &Work<'_>) -> Result<Option<ClusterView>, Setback> {
    let addresses = work.company.borrow().addresses();
    let Some(view) = any_view(work, &addresses).await else { return Ok(None) };
    let heirs = work.company.borrow_mut().learn(&view);
    for (of, is) in heirs {
        work.note(&Entry::Heir { of: of.clone(), is: is.clone() })?;
        work.tell(Event::Heir { of, is });
    }
    Ok(Some(view))
}

/// The cluster as the first node that answers knows it.
pub(super) async fn any_view(work: &Work<'_>, addresses: &[Address]) -> Option<ClusterView> {
    for address in addresses {
        if let Ok(view) = ClusterView::gather(address, work.access).await {
            return Some(view);
        }
    }
    None
}

async fn attempt(
    work: &Work<'_>,
    links: &mut Links,
    chunk: &Chunk,
    vigil: &mut Vigil,
) -> Result<(), Setback> {
    let (from, to) = {
        let company = work.company.borrow();
        (company.now(&chunk.from), company.now(&chunk.to))
    };
    let mut passage = Passage {
        source: links.take(&from, work).await?,
        scout: links.take(&from, work).await?,
        target: links.take(&to, work).await?,
        work,
        chunk,
    };
    let sorted = passage.look().await?;
    passage.carry(sorted, links, vigil).await?;
    let Passage { source, scout, target, .. } = passage;
    links.keep([source, scout, target]);
    Ok(())
}

/// Slots by how far they are.
#[derive(Debug, Default)]
struct Sorted {
    /// Of those below, what is missing.
    unbound: Vec<Slot>,
    import: Vec<Slot>,
    export: Vec<Slot>,
    /// The source's.
    open: Vec<Slot>,
    /// The target's, of which the source does not know.
    both: Vec<Slot>,
    /// Where the source reaches the target.
    address: Option<Address>,
}

/// A chunk and the connections that it takes.
struct Passage<'a, 'w> {
    work: &'a Work<'w>,
    chunk: &'a Chunk,
    source: End,
    scout: End,
    target: End,
}

impl Passage<'_, '_> {
    async fn look(&mut self) -> Result<Sorted, Setback> {
        let (at_source, at_target) = tokio::try_join!(self.source.lines(), self.target.lines())?;
        let company = self.work.company.borrow();
        sort(self.chunk, &company, &at_source, &at_target)
    }

    async fn carry(
        &mut self,
        sorted: Sorted,
        links: &mut Links,
        vigil: &mut Vigil,
    ) -> Result<(), Setback> {
        let part = self.part();
        if !sorted.open.is_empty() {
            self.work.note(&Entry::Opening(part.clone()))?;
            self.open(&sorted, vigil).await?;
            self.drain(&sorted).await?;
        }
        if !sorted.both.is_empty() {
            self.expect_empty(&sorted.both).await?;
        }
        if !sorted.open.is_empty() || !sorted.both.is_empty() {
            self.close(&sorted, &part, links).await?;
        }
        self.work.closed(&part)
    }

    fn part(&self) -> Move {
        let (from, to) = (self.source.id.clone(), self.target.id.clone());
        Move { from, to, slots: self.chunk.slots.clone() }
    }

    async fn open(&mut self, sorted: &Sorted, vigil: &mut Vigil) -> Result<(), Setback> {
        let Self { source, target, .. } = self;
        // A target that missed a failover of the source holds the slots for the dead one's, and so for lost, until it is
        // told: what is being taken in is not rebound by what others say.
        target.set_slots(&sorted.unbound, "NODE", &source.id).await?;
        target.set_slots(&sorted.import, "IMPORTING", &source.id).await?;
        // Now, since Redis 8.4 shows no keys of slots that a node neither owns nor takes in; and before any can arrive.
        self.look_for_old_copies(sorted, vigil).await?;
        let Self { source, target, .. } = self;
        source.set_slots(&sorted.export, "MIGRATING", &target.id).await?;
        self.work.tell(Event::Opened(self.part()));
        if vigil.expects_conflicts() {
            self.keep_conflicts(sorted, vigil).await?;
        }
        vigil.end().await;
        Ok(())
    }

    /// Whatever the target has of slots that are opened for the first time is older than this move.
    async fn look_for_old_copies(
        &mut self,
        sorted: &Sorted,
        vigil: &mut Vigil,
    ) -> Result<(), Setback> {
        if vigil.expects_conflicts() {
            return Ok(());
        }
        let counts = self.target.count_keys(&sorted.open).await?;
        if self.work.is_continued || counts.iter().any(|count| *count > 0) {
            vigil.doubt();
        }
        Ok(())
    }

    /// What both ends have: keys that were at the target before, that could not be sent whole, or that clients have made anew at
    /// the source's heir until it knew of the move.
    async fn keep_conflicts(&mut self, sorted: &Sorted, vigil: &mut Vigil) -> Result<(), Setback> {
        let mut quarantine = Quarantine::new(&self.work.folder, &self.work.job);
        let settled = self.settle_conflicts(sorted, vigil, &mut quarantine).await;
        if let Some((count, file)) = quarantine.kept() {
            self.work.tell(Event::Quarantined { count, file: file.to_owned() });
        }
        settled
    }

    async fn settle_conflicts(
        &mut self,
        sorted: &Sorted,
        vigil: &mut Vigil,
        quarantine: &mut Quarantine,
    ) -> Result<(), Setback> {
        let (source, target) = (&mut self.source, &mut self.target);
        for (slot, keys) in &held_by_both(&sorted.open, source, target).await? {
            // Few at a time: whose copies are right is known for as long as the source is held.
            for some in keys.chunks(COMPARED) {
                let mut right = vigil.right(&source.id).await;
                quarantine.keep_conflicts((*slot, some), source, target, right).await?;
                if right == Right::Other {
                    right = vigil.delete(&source.id, some).await?;
                    if right == Right::Owner {
                        quarantine.keep_conflicts((*slot, some), source, target, right).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn drain(&mut self, sorted: &Sorted) -> Result<(), Setback> {
        let (work, id) = (self.work, self.source.id.clone());
        let route = Route {
            address: sorted.address.as_ref().unwrap_or(&self.target.address),
            credentials: work.access.credentials.as_ref(),
            timeout: work.limits.migrate,
            replace: true,
        };
        let before = work.keys_moved();
        let (source, scout, pace) = (&mut self.source, &mut self.scout, work.pace(&id));
        let mut drain = Drain { work, source, scout, route, pace };
        let drained = drain.slots(&sorted.open).await;
        work.keep_pace(id, drain.pace);
        drained?;
        let was_open = sorted.import.len() < sorted.open.len();
        if was_open || work.keys_moved() > before { self.wait_for_replicas().await } else { Ok(()) }
    }

    /// So that no key is lost with the target. Replicas that stay behind are not waited for without end.
    async fn wait_for_replicas(&mut self) -> Result<(), Setback> {
        let begun = Instant::now();
        loop {
            let wanted = self.work.options.replicas;
            let behind = self.target.replicas_behind(wanted, REPLICAS).await?;
            if behind == 0 {
                return Ok(());
            }
            if begun.elapsed() > self.work.options.replica_patience {
                let address = self.target.address.clone();
                self.work.tell(Event::ReplicasBehind { of: address, count: behind });
                return Ok(());
            }
            self.work.reins.leave().await?;
        }
    }

    /// The target has taken these slots; what the source still has of them nobody can see.
    async fn expect_empty(&mut self, slots: &[Slot]) -> Result<(), Setback> {
        let counts = self.scout.count_keys(slots).await?;
        match slots.iter().zip(counts).find(|(_, count)| *count > 0) {
            None => Ok(()),
            Some((slot, count)) => Err(Setback::new(
                Remedy::Nothing,
                format!(
                    "{} owns slot {slot}, and {} still has {count} keys of it: see `cluster fix`",
                    self.target.address, self.source.address
                ),
            )),
        }
    }

    async fn close(
        &mut self,
        sorted: &Sorted,
        part: &Move,
        links: &mut Links,
    ) -> Result<(), Setback> {
        let owner = self.target.id.clone();
        if self.work.limits.takes_together {
            self.target.take_slots(&sorted.open).await?;
        } else {
            self.target.set_slots(&sorted.open, "NODE", &owner).await?;
        }
        self.work.tell(Event::Taken(part.clone()));
        self.work.note(&Entry::Taken(part.clone()))?;
        let slots = [&sorted.open[..], &sorted.both].concat();
        self.source.set_slots(&slots, "NODE", &owner).await?;
        self.tell_others(&slots, links).await;
        Ok(())
    }

    /// The others would hear of it anyway, from the target; so nothing depends on this.
    async fn tell_others(&self, slots: &[Slot], links: &mut Links) {
        let owner = &self.target.id;
        let others = self.work.company.borrow().other_primaries(&self.source.id, owner);
        let mut ends = Vec::new();
        for id in &others {
            if let Ok(end) = links.take(id, self.work).await {
                ends.push(end);
            }
        }
        let told = ends.into_iter().map(|mut end| async move {
            let told = end.set_slots(slots, "NODE", owner).await;
            (end, told)
        });
        for (end, told) in together(told).await {
            match told {
                Ok(()) => links.0.push(end),
                Err(setback) => self.work.tell(Event::Warning(setback.what)),
            }
        }
    }
}

fn sort(
    chunk: &Chunk,
    company: &Company,
    at_source: &[Line],
    at_target: &[Line],
) -> Result<Sorted, Setback> {
    let own = |lines: &[Line]| lines.iter().find(|line| line.is("myself")).cloned();
    let strange = || Setback::new(Remedy::Look, "a node does not tell who it is");
    let source = own(at_source).ok_or_else(strange)?;
    let target = own(at_target).ok_or_else(strange)?;
    if let Some(node) = [&source, &target].into_iter().find(|line| line.is_replica()) {
        return Err(Setback::new(Remedy::Look, format!("{} has become a replica", node.id)));
    }
    let (sources, targets) = (company.names(&chunk.from), company.names(&chunk.to));
    let ends = Ends { source: &source, target: &target, sources: &sources, targets: &targets };
    let is_stale = |line: &Line| line.id != source.id && sources.contains(&line.id);
    let stale: Vec<&Line> = at_target.iter().filter(|line| is_stale(line)).collect();
    let at_source = at_source.iter().find(|line| line.id == target.id);
    let address = at_source.and_then(|line| line.address.clone());
    let mut sorted = Sorted { address, ..Sorted::default() };
    for slot in &chunk.slots {
        match ends.stage(*slot) {
            Stage::Source { import, export } => {
                sorted.open.push(*slot);
                sorted.import.extend(import.then_some(*slot));
                sorted.export.extend(export.then_some(*slot));
                let is_unbound = stale.iter().any(|line| line.slots.contains(*slot));
                sorted.unbound.extend(is_unbound.then_some(*slot));
            }
            Stage::Both => sorted.both.push(*slot),
            Stage::Target => {}
            Stage::Foreign(id) => {
                let what = format!("slot {slot} is open between other nodes, one of them {id}");
                return Err(Setback::new(Remedy::Nothing, what));
            }
            Stage::Nobody => {
                let what = format!("neither {} nor {} owns slot {slot}", source.id, target.id);
                return Err(Setback::new(Remedy::Look, what));
            }
        }
    }
    Ok(sorted)
}
