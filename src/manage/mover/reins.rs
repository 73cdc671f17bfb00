//! The caller's hold on a move that is under way.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::remedy::{Remedy, Setback};
use crate::manage::pace::Rate;

/// Stops, pauses and slows down a move. Clones hold the same one.
#[derive(Clone, Debug)]
pub struct Reins(watch::Sender<Demand>);

/// What the caller wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Demand {
    stop: Stop,
    paused: bool,
    rate: Rate,
    /// How long a source may be stopped for one batch, if not as long as the options have it.
    max_block: Option<Duration>,
}

/// How soon it is to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    #[default]
    No,
    /// When the slots that are open are closed.
    Finish,
    /// After the batch that is under way; open slots stay open.
    Halt,
}

impl Default for Reins {
    fn default() -> Self {
        Self(watch::Sender::new(Demand::default()))
    }
}

impl Reins {
    /// Begins with nothing more: the slots in flight are finished, and the move ends whole.
    pub fn finish(&self) {
        self.0.send_modify(|demand| demand.stop = demand.stop.max(Stop::Finish));
    }

    /// Stops now: slots in flight stay open, and a later run goes on from there.
    pub fn halt(&self) {
        self.0.send_modify(|demand| demand.stop = Stop::Halt);
    }

    /// Rests between two batches until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.0.send_modify(|demand| demand.paused = true);
    }

    /// Goes on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.0.send_modify(|demand| demand.paused = false);
    }

    /// Moves no more than this.
    pub fn set_rate(&self, rate: impl Into<Rate>) {
        let rate = rate.into();
        self.0.send_modify(|demand| demand.rate = rate);
    }

    /// Stops a source for no longer than this with one batch.
    pub fn set_max_block(&self, limit: Duration) {
        self.0.send_modify(|demand| demand.max_block = Some(limit));
    }

    pub(in crate::manage) fn rate(&self) -> Rate {
        self.0.borrow().rate
    }

    pub(super) fn max_block(&self) -> Option<Duration> {
        self.0.borrow().max_block
    }

    /// Whether no more slots are to be begun.
    pub(in crate::manage) fn is_ending(&self) -> bool {
        self.0.borrow().stop > Stop::No
    }

    /// Waits until no more is to be begun.
    pub(in crate::manage) async fn ending(&self) {
        // This end of it is here as long as it is waited for.
        let _ = self.0.subscribe().wait_for(|demand| demand.stop > Stop::No).await;
    }

    /// Whether everything is to be left as it is.
    pub(super) fn is_halted(&self) -> bool {
        self.0.borrow().stop == Stop::Halt
    }

    /// Lets the next batch go, once the caller does.
    pub(in crate::manage) async fn leave(&self) -> Result<(), Setback> {
        let mut demand = self.0.subscribe();
        let free = demand.wait_for(|demand| !demand.paused || demand.stop == Stop::Halt).await;
        match free.map(|demand| demand.stop) {
            Ok(Stop::Halt) => Err(halted()),
            _ => Ok(()),
        }
    }

    /// Sleeps, but not once the caller wants everything to stop.
    pub(in crate::manage) async fn sleep(&self, time: Duration) -> Result<(), Setback> {
        let mut demand = self.0.subscribe();
        let halt = demand.wait_for(|demand| demand.stop == Stop::Halt);
        match timeout(time, halt).await {
            Ok(_) => Err(halted()),
            Err(_) => Ok(()),
        }
    }
}

fn halted() -> Setback {
    Setback::new(Remedy::Stop, "stopped at once, as it was told to")
}
