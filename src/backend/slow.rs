//! Requests that took long, noted for whoever tells of them.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::Pool;

/// Requests noted between two times that they are taken up; after those only one that was slower than all of them, up to so many
/// in all. When a worker has more to do than it can, every request is slow, and to note it costs as much as to serve it.
const MOST: usize = 128;
const MOST_AT_ALL: usize = 256;

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

    /// From how many microseconds on a request is noted just now.
    #[inline]
    pub(super) fn noted_from(&self) -> u64 {
        self.slow_us().max(self.slow_beyond.get())
    }

    /// Takes note of a request if it was slow.
    pub fn note_slow(&self, owner: u64, us: u64, wire: Bytes) {
        if us >= self.noted_from() {
            let mut slow = self.slow.borrow_mut();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            slow.push(Slow { owner, unix_s: now.as_secs(), us, wire });
            self.slow_beyond.set(beyond(&slow));
        }
    }

    /// What was noted since the last time.
    pub fn take_slow(&self) -> Vec<Slow> {
        self.slow_beyond.set(0);
        self.slow.take()
    }
}

/// How long a request has to have taken to be noted besides these: any time, longer than each of them, or none is noted.
fn beyond(slow: &[Slow]) -> u64 {
    match slow.len() {
        0..MOST => 0,
        MOST..MOST_AT_ALL => slow.iter().map(|slow| slow.us).max().unwrap_or(0).saturating_add(1),
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(us: impl Iterator<Item = u64>) -> Vec<Slow> {
        us.map(|us| Slow { owner: 0, unix_s: 0, us, wire: Bytes::new() }).collect()
    }

    #[test]
    fn of_many_slow_requests_the_slowest_is_noted() {
        assert_eq!(beyond(&noted(0..127)), 0);
        assert_eq!(beyond(&noted((0..128).rev())), 128);
        assert_eq!(beyond(&noted(0..256)), u64::MAX);
    }
}
