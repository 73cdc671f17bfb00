//! A busy worker waits a moment before it looks at the sockets again, so that each look finds more to do.
//!
//! To look, to be put to sleep and woken, and to write to a node cost the same for one request as for ten. A worker that is
//! fast enough to sleep between any two requests pays all of it for each of them, and so do the nodes. Network cards have
//! the same trouble and the same remedy, interrupt moderation. Measured with 50 clients that send one request at a time:
//! 0.6 of the processor time of the worker for each request, and a third to a half more requests per second where nodes
//! and clients share a processor.
//!
//! It is done only while it helps and can hardly be noticed: the worker is at work for a good part of the time, the
//! wait brings in several reads, a look alone would not bring in many, and a client sends its next request much later than
//! the wait lasts. A few clients that wait for their replies one by one are answered at once, and ask for less the longer that
//! takes: with waits ten of them got through half as many requests, thirty nine tenths, fifty as many, and a hundred more.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::stats::{Count, Stats};

/// How long the worker is watched before it is decided anew, in microseconds.
const WINDOW_US: u64 = 10_000;
/// Share of the time at work, in percent, from which on a worker begins to wait, and down to which it goes on: what it
/// does more cheaply takes less time.
const BUSY: (u64, u64) = (30, 10);
/// Reads that come in for each wait, at the least; the system adds some 50 microseconds of its own to the wait, and so to
/// what it brings in.
const WORTH: u64 = 1;
/// Time between two turns of a client, in lengths of the wait, from which on a worker begins to wait, and down to which it goes
/// on: with a request at a time that is what a request takes, and the waits are part of it.
const APART: (u64, u64) = (10, 11);
/// How long it is not tried again once it did not help, in microseconds: clients that wait for their replies one by one
/// ask for less the longer the replies take.
const RESPITE_US: u64 = 250_000;
/// Reads that one look brings in when there is no more to be won.
const PLENTY: u64 = 32;

/// The worker's work, watched by itself whenever it goes to sleep and wakes.
#[derive(Debug)]
pub(super) struct Linger {
    length: Duration,
    stats: Arc<Stats>,
    epoch: Instant,
    /// When the worker woke, in microseconds since the epoch.
    woke_us: Count,
    /// The window since the last decision: when it began, and the reads and turns of clients there had been, and the time
    /// between those; the time at work, and the looks.
    began_us: Count,
    read: Count,
    turns: Count,
    between_us: Count,
    busy_us: Count,
    looks: Count,
    /// 1 while the worker is to wait.
    on: Count,
    /// Until when it is not to be tried again.
    respite_us: Count,
}

/// What was seen in one window.
#[derive(Clone, Copy, Debug)]
struct Window {
    length_us: u64,
    busy_us: u64,
    reads: u64,
    looks: u64,
    /// Turns of clients, and the time since each one's last.
    turns: u64,
    between_us: u64,
}

impl Window {
    /// Whether to wait for so long before each look, having done so before or not.
    fn is_worth(self, wait: Duration, before: bool) -> bool {
        let wait_us = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        let (busy, apart) = if before { (BUSY.1, APART.1) } else { (BUSY.0, APART.0) };
        self.busy_us * 100 >= self.length_us * busy
            && self.reads.saturating_mul(wait_us) >= self.length_us * WORTH
            && self.reads <= self.looks * PLENTY
            && self.between_us >= (self.turns * apart).saturating_mul(wait_us)
    }
}

impl Linger {
    /// Waits for so long; never if that is zero.
    pub(super) fn new(length: Duration, stats: Arc<Stats>) -> Self {
        Self {
            length,
            stats,
            epoch: Instant::now(),
            woke_us: Count::default(),
            began_us: Count::default(),
            read: Count::default(),
            turns: Count::default(),
            between_us: Count::default(),
            busy_us: Count::default(),
            looks: Count::default(),
            on: Count::default(),
            respite_us: Count::default(),
        }
    }

    /// The worker has nothing left to do, and is about to look at the sockets or to sleep.
    pub(super) fn before_look(&self) {
        let now = self.now_us();
        self.looks.add(1);
        self.busy_us.add(now - self.woke_us.get());
        if now - self.began_us.get() >= WINDOW_US {
            self.decide(now);
        }
        if self.on.get() == 1 {
            thread::sleep(self.length);
        }
    }

    /// The worker has looked, or was woken.
    pub(super) fn after_look(&self) {
        self.woke_us.set(self.now_us());
    }

    fn decide(&self, now: u64) {
        let (read, turns) = (self.stats.reads.get(), self.stats.pace.turns.get());
        let between_us = self.stats.pace.between_us.get();
        let window = Window {
            length_us: now - self.began_us.get(),
            busy_us: self.busy_us.get(),
            reads: read - self.read.get(),
            looks: self.looks.get(),
            turns: turns - self.turns.get(),
            between_us: between_us - self.between_us.get(),
        };
        let before = self.on.get() == 1;
        let on = window.is_worth(self.length, before) && now >= self.respite_us.get();
        if before && !on {
            self.respite_us.set(now + RESPITE_US);
        }
        self.on.set(u64::from(on));
        self.began_us.set(now);
        self.read.set(read);
        self.turns.set(turns);
        self.between_us.set(between_us);
        self.busy_us.set(0);
        self.looks.set(0);
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_only_while_it_helps() {
        let wait = Duration::from_micros(50);
        // Clients take turns every 800 microseconds.
        let window = |busy_us, reads, looks| {
            let (length_us, turns) = (10_000, reads / 2);
            Window { length_us, busy_us, reads, looks, turns, between_us: turns * 800 }
        };
        let check = |window: Window, expected: [bool; 2]| {
            let found = [false, true].map(|before| window.is_worth(wait, before));
            assert_eq!(found, expected, "{window:?}");
        };
        // Many clients with a request at a time: a look brings in one or two reads.
        let many = window(7000, 1000, 600);
        check(many, [true, true]);
        // The same with waits: more cheaply.
        check(window(2500, 1000, 100), [false, true]);
        // The same number of requests of fewer clients.
        check(Window { between_us: many.turns * 300, ..many }, [false, false]);
        check(Window { between_us: many.turns * 520, ..many }, [true, false]);
        // One client that waits for each reply: the next look brings in its next request, and no other.
        check(window(2500, 150, 150), [false, false]);
        check(window(7000, 150, 150), [false, false]);
        // Hardly anything to do.
        check(window(500, 20, 20), [false, false]);
        // More to do than can be done: whatever has come in meanwhile is plenty.
        check(window(10_000, 4000, 10), [false, false]);
        assert!(!many.is_worth(Duration::ZERO, false));
    }
}
