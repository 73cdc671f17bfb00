//! What is told of a move: while it runs, and in the end.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::{Address, NodeId, Slots};
use crate::manage::plan::Move;

/// What happens during a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Slots are on their way.
    Opened(Move),
    /// How far it came; told after each batch and each chunk.
    Progress(Progress),
    /// The target owns slots; the source and the others have yet to hear of it, and send their clients there until then.
    Taken(Move),
    /// Slots have arrived.
    Closed(Move),
    /// The servers move slots by themselves, and are at this.
    Stage {
        /// Which slots.
        slots: Slots,
        /// The state of their migration, in the server's words.
        stage: String,
    },
    /// What is left to be moved between two nodes goes key by key, since the servers could not do it.
    KeyByKey {
        /// Who gives.
        from: NodeId,
        /// Who takes.
        to: NodeId,
        /// Why.
        why: String,
    },
    /// Slots have arrived, but not as they should have.
    Suspicious(Suspicion),
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
    /// Keys of which both ends had copies that differ, when a move was gone on with or the source was replaced: those that
    /// lose are in a file.
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

/// A migration that a node holds for failed although the target owns the slots. If its clients were let go on before it heard
/// of that, what they wrote then is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    /// What was moved.
    #[serde(flatten)]
    pub part: Move,
    /// What the node said.
    pub said: String,
}

/// How far a move came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// How many slots the servers moved by themselves.
    pub atomic: usize,
    /// What has arrived otherwise than it should have.
    pub suspicions: Vec<Suspicion>,
    /// Where copies of keys are kept that differed from the right ones.
    pub quarantined: Vec<Quarantined>,
    /// Keys of the whole cluster before and after; they differ by what clients wrote and what expired meanwhile.
    pub keys_before: u64,
    /// See above.
    pub keys_after: u64,
}

impl Summary {
    /// Whether there is nothing to be looked at.
    pub fn is_clean(&self) -> bool {
        self.skipped.is_empty() && self.suspicions.is_empty() && self.quarantined.is_empty()
    }
}

/// Copies of keys that are kept in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// The file.
    pub file: PathBuf,
    /// How many.
    pub count: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots that are closed together.
    const CHUNK: usize = 64;

    /// A move of slots with equally many keys, a chunk at a time: first the keys of all its slots, some at a time, then the slots
    /// are closed. Gives what was told, and when it ended.
    fn uniform(slots: usize, keys: u64, close: Duration) -> (Vec<Progress>, Duration) {
        const KEY: Duration = Duration::from_micros(20);
        const BATCH: u64 = 100;
        let keys_total = keys * slots as u64;
        let mut now = Progress { slots_total: slots, keys_total, ..Progress::default() };
        let mut told = Vec::new();
        while now.slots < slots {
            let chunk = CHUNK.min(slots - now.slots);
            let mut left = keys * chunk as u64;
            while left > 0 {
                let batch = left.min(BATCH);
                left -= batch;
                now.keys += batch;
                now.elapsed += KEY * u32::try_from(batch).unwrap();
                told.push(now);
            }
            now.slots += chunk;
            now.elapsed += close * u32::try_from(chunk).unwrap();
            told.push(now);
        }
        (told, now.elapsed)
    }

    /// Scenario 43, for slots without keys, with few and with many, and closed sooner or later than is reckoned with.
    #[test]
    fn what_is_left_is_told_within_a_quarter() {
        for (slots, keys) in [(5461, 0), (5461, 3), (1000, 40), (1000, 1000), (16_384, 60)] {
            for close in [20, 100, 300].map(Duration::from_micros) {
                let (told, end) = uniform(slots, keys, close);
                for progress in &told {
                    assert!(progress.share() <= 1.0);
                    if progress.elapsed * 5 >= end {
                        let told = progress.remaining().expect("it has begun");
                        let left = end.saturating_sub(progress.elapsed);
                        // Of the last fifth nobody wants to know it better than that.
                        let is_true = told.abs_diff(left) * 4 <= left.max(end / 5);
                        assert!(is_true, "{slots} slots, {keys} keys: {told:?}, not {left:?}");
                    }
                }
                let shares = told.iter().map(Progress::share);
                assert!(shares.is_sorted(), "{slots} slots, {keys} keys");
                assert_eq!(told.last().map(Progress::remaining), Some(Some(Duration::ZERO)));
            }
        }
    }
}
