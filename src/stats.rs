//! A worker's numbers. Written by the one worker alone, read by the control thread whenever it likes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::refusal::{Reason, Refusal};

/// Upper bounds of the latency buckets in microseconds; one more bucket takes the rest.
pub const BOUNDS_US: [u32; 18] = [
    50, 100, 200, 400, 800, 1_500, 3_000, 6_000, 12_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// For a time of so many binary digits the first bucket that may be its own; the next one is the only other.
const FIRST_BUCKET: [u8; 33] = {
    let mut first = [0; 33];
    let mut digits = 1;
    while digits < first.len() {
        let least = 1 << (digits - 1);
        let mut at = 0;
        while at < BOUNDS_US.len() && BOUNDS_US[at] < least {
            at += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 256 buckets")]
        let bucket = at as u8;
        first[digits] = bucket;
        digits += 1;
    }
    first
};

/// A number with a single writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the owning worker may call this: there is no read-modify-write.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets the number.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Takes one off.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Times to answer, counted in fixed buckets.
#[derive(Debug, Default)]
pub struct Latencies {
    /// One count for each of [`BOUNDS_US`] and one for all above.
    pub buckets: [Count; BOUNDS_US.len() + 1],
    /// Sum of all times in microseconds.
    pub sum_us: Count,
}

impl Latencies {
    /// Counts one time.
    pub fn observe(&self, us: u32) {
        let at = usize::from(FIRST_BUCKET[(u32::BITS - us.leading_zeros()) as usize]);
        let above = BOUNDS_US.get(at).is_some_and(|bound| *bound < us);
        self.buckets[at + usize::from(above)].add(1);
        self.sum_us.add(u64::from(us));
    }
}

/// How fast clients send, while they do: for the worker's own use.
#[derive(Debug, Default)]
pub struct Pace {
    /// Times that a client's input was taken up.
    pub turns: Count,
    /// Sum of the times since the same client's turn before, in microseconds.
    pub between_us: Count,
}

impl Pace {
    /// Longer than this is as good as for ever.
    const LONG_US: u32 = 10_000;

    /// Counts a turn, so long after the one before.
    #[inline]
    pub fn count(&self, since_us: u32) {
        self.turns.add(1);
        self.between_us.add(u64::from(since_us.min(Self::LONG_US)));
    }
}

/// The numbers of one worker. `clients` alone has two writers: the acceptor adds, the worker takes off.
#[derive(Debug, Default)]
#[expect(
    missing_docs,
    reason = "each field but `pace` is the metric of the same name, documented in observe::names"
)]
pub struct Stats {
    pub clients: AtomicU64,
    pub commands: Count,
    pub commands_local: Count,
    pub commands_split: Count,
    pub commands_across: Count,
    pub commands_refused: Count,
    pub reads: Count,
    pub client_read_bytes: Count,
    pub client_written_bytes: Count,
    pub read_bytes: Count,
    pub written_bytes: Count,
    pub refusals: Refusals,
    pub moved: Count,
    pub ask: Count,
    pub try_again: Count,
    pub not_now: Count,
    pub demoted: Count,
    pub retries: Count,
    pub node_errors: Count,
    pub lanes: Count,
    pub leases: Count,
    pub lease_waits: Count,
    pub lost_connections: Count,
    pub failed_connections: Count,
    pub client_timeouts: Count,
    pub failed_handshakes: Count,
    pub pubsub_links: Count,
    pub pubsub_links_lost: Count,
    pub pubsub_messages: Count,
    pub pubsub_cut_off: Count,
    pub tracking_clients: Count,
    pub tracking_links: Count,
    pub tracking_links_lost: Count,
    pub tracked_keys: Count,
    pub invalidations: Count,
    pub latencies: Latencies,
    pub pace: Pace,
}

/// Refusals by their reason.
#[derive(Debug, Default)]
pub struct Refusals([Count; Reason::ALL.len()]);

impl Refusals {
    /// Counts a refusal.
    pub fn count(&self, refusal: &Refusal) {
        self.of(refusal.reason()).add(1);
    }

    /// The count of a reason.
    pub fn of(&self, reason: Reason) -> &Count {
        &self.0[reason as usize]
    }
}

/// Time since the worker started, in units that fit what they are used for.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::new_without_default, reason = "a default that reads the time would surprise")]
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// Microseconds, wrapping after 71 minutes: compare with `wrapping_sub` only.
    pub fn micros(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "wraps by intent")]
        let micros = self.0.elapsed().as_micros() as u32;
        micros
    }

    /// Milliseconds.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_buckets() {
        let edges = BOUNDS_US.iter().flat_map(|bound| [bound - 1, *bound, bound + 1]);
        for us in edges.chain([0, 1, 1 << 20, 1 << 21, u32::MAX]) {
            let latencies = Latencies::default();
            latencies.observe(us);
            let bucket = latencies.buckets.iter().position(|bucket| bucket.get() == 1);
            assert_eq!(bucket, Some(BOUNDS_US.partition_point(|bound| *bound < us)), "{us}");
        }
    }
}
