//! Requests that took long, noted for whoever tells of them.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::Pool;

/// Most requests noted between two times that they are taken up; what comes then is forgotten. When a worker has more to do than
/// it can, all of them are slow, and to note each would cost as much as to serve it.
const MOST: usize = 128;

/// A request that took long.
#[derive(Clone, Debug)]
pub struct Slow {
    /// Number of the client.
    pub owner: u64,
    /// Seconds since 1970 when it was answered.
    pub unix_s: u64,
    /// How long it took.
    pub us: u64,
    /// The request.
    pub wire: Bytes,
}

impl Pool {
    /// From how many microseconds on a request is slow; the greatest number if none is.
    #[inline]
    pub fn slow_us(&self) -> u64 {
        u64::try_from(self.slow_from.load(Relaxed)).unwrap_or(u64::MAX)
    }

    /// Whether no more slow requests are noted just now.
    #[inline]
    pub(super) fn has_noted_enough(&self) -> bool {
        self.slow.borrow().len() >= MOST
    }

    /// Takes note of a request if it was slow.
    pub fn note_slow(&self, owner: u64, us: u64, wire: Bytes) {
        let mut slow = self.slow.borrow_mut();
        if us >= self.slow_us() && slow.len() < MOST {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            slow.push(Slow { owner, unix_s: now.as_secs(), us, wire });
        }
    }

    /// What was noted since the last time.
    pub fn take_slow(&self) -> Vec<Slow> {
        self.slow.take()
    }
}
