//! Moving the keys of slots that are open: lists them, and sends them on in batches.
//!
//! ```text
//!  scout   GETKEYSINSLOT, MEMORY USAGE: the next slots      COUNTKEYSINSLOT, all slots
//!  source  MIGRATE … MIGRATE: these slots                   ▲
//!          └──── both at the same time ────┘   … and so on ─┘ until no slot has a key left
//! ```
//! Two connections, so that the source has the next batch as soon as it has sent one, and other clients have their turn
//! between any two.

use std::time::{Duration, Instant};

use super::ends::{End, KEYS_LISTED, Key, Migrated, Route, Sizes, groups, too_big};
use super::remedy::{Remedy, Setback};
use super::{BigKeys, Work};
use crate::cluster::Slot;
use crate::manage::pace::{Pace, rest};

/// Longest pause between two looks at keys that are counted and cannot be moved.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Looks in a row at which nothing could be moved, before that is told.
const PATIENCE: u32 = 10;
/// Bytes a second that are surely serialised, sent and stored; a tenth of what was measured on loopback.
const SLOWEST: u64 = 2_500_000;

/// A source on its way to be emptied.
pub(super) struct Drain<'a, 'w> {
    pub(super) work: &'a Work<'w>,
    pub(super) source: &'a mut End,
    pub(super) scout: &'a mut End,
    pub(super) route: Route<'a>,
    pub(super) pace: Pace,
}

impl Drain<'_, '_> {
    /// Moves all keys of the slots; nothing but the target can have new ones, since the slots are open.
    pub(super) async fn slots(&mut self, slots: &[Slot]) -> Result<(), Setback> {
        let (mut left, mut idle) = (slots.to_vec(), 0);
        loop {
            let counts = self.scout.count_keys(&left).await?;
            let counted = left.iter().copied().zip(counts).filter(|(_, count)| *count > 0);
            let counted: Vec<(Slot, u64)> = counted.collect();
            let Some((first, _)) = counted.first() else { return Ok(()) };
            idle = if self.pass(&counted).await? == 0 { idle + 1 } else { 0 };
            self.be_patient(*first, idle).await?;
            left = counted.into_iter().map(|(slot, _)| slot).collect();
        }
    }

    /// Keys that have expired are counted until they are deleted, which `CLIENT PAUSE` puts off.
    async fn be_patient(&self, slot: Slot, idle: u32) -> Result<(), Setback> {
        match idle {
            0 => Ok(()),
            1..=PATIENCE => {
                let pause = Duration::from_millis(1 << idle).min(LONGEST_PAUSE);
                self.work.reins.sleep(pause).await
            }
            _ => Err(Setback::new(
                Remedy::Wait,
                format!("{} counts keys in slot {slot} that are not there", self.source.address),
            )),
        }
    }

    /// Moves as many keys of each slot as are listed at a time, and tells how many there were.
    async fn pass(&mut self, slots: &[(Slot, u64)]) -> Result<usize, Setback> {
        let (groups, mut moved) = (groups(slots), 0);
        let mut keys = Vec::new();
        for next in groups.iter().map(Vec::as_slice).chain([&[][..]]) {
            let Self { work, source, scout, route, pace } = self;
            let mut batches = Batches { work, source, route, pace };
            let (done, listed) = tokio::try_join!(
                batches.send(&keys),
                scout.keys(next, KEYS_LISTED, Sizes::Sampled)
            )?;
            moved += done;
            keys = listed;
        }
        Ok(moved)
    }
}

/// The half of a drain that sends.
struct Batches<'a, 'w> {
    work: &'a Work<'w>,
    source: &'a mut End,
    route: &'a Route<'a>,
    pace: &'a mut Pace,
}

impl Batches<'_, '_> {
    /// Sends the keys of several slots, and tells how many were still there.
    async fn send(&mut self, slots: &[Vec<Key>]) -> Result<usize, Setback> {
        let mut moved = 0;
        for keys in slots {
            moved += self.send_slot(keys).await?;
        }
        Ok(moved)
    }

    async fn send_slot(&mut self, mut keys: &[Key]) -> Result<usize, Setback> {
        let mut moved = 0;
        while !keys.is_empty() {
            self.work.reins.leave().await?;
            let (batch, behind) = keys.split_at(self.next(keys)?);
            self.wait_for_rate(batch).await?;
            moved += self.migrate(batch).await?;
            keys = behind;
        }
        Ok(moved)
    }

    /// How many of the keys go next. One that is big goes alone.
    fn next(&mut self, keys: &[Key]) -> Result<usize, Setback> {
        let limit = self.work.limits.big_key;
        let small = keys.iter().take_while(|key| key.bytes <= limit).count();
        if small == 0 && self.work.options.big_keys != BigKeys::Allow {
            return Err(too_big(&keys[0], limit));
        }
        let (most_keys, most_bytes) = self.work.reins.rate().burst();
        let most = most_keys.min(small).min(self.work.options.batch).max(1);
        self.pace.hold_to(self.work.max_block());
        Ok(self.pace.batch(keys[..most].iter().map(|key| key.bytes), most_bytes))
    }

    async fn wait_for_rate(&self, keys: &[Key]) -> Result<(), Setback> {
        let load = (keys.len(), keys.iter().map(|key| key.bytes).sum());
        let wait = self.work.meter.borrow_mut().wait(load, self.work.reins.rate(), Instant::now());
        if wait.is_zero() { Ok(()) } else { self.work.reins.sleep(wait).await }
    }

    async fn migrate(&mut self, batch: &[Key]) -> Result<usize, Setback> {
        let bytes = batch.iter().map(|key| key.bytes).sum();
        let timeout = self.route.timeout.max(Duration::from_secs(bytes / SLOWEST));
        let route = Route { timeout, ..*self.route };
        let begun = Instant::now();
        let migrated = self.source.migrate(batch, &route).await;
        let took = begun.elapsed();
        self.pace.took(batch.len(), bytes, took);
        if migrated? == Migrated::Nothing {
            return Ok(0);
        }
        self.work.moved(batch.len(), bytes);
        let rest = rest(took, self.work.options.duty);
        if !rest.is_zero() {
            self.work.reins.sleep(rest).await?;
        }
        Ok(batch.len())
    }
}
