//! How much goes in one `MIGRATE`, and how soon the next one follows. Pure.
//!
//! `MIGRATE` stops the source for as long as it takes, so its time is the longest that any client of the source waits for
//! the move. A batch grows by a little while it stays well below the limit, and is halved when it exceeds it: the rule by
//! which TCP shares a link, and for the same reason, since nobody knows beforehand how much the path bears.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Keys of the first batch, which is sent before anything is known; also the step by which batches grow.
const KEYS_STEP: usize = 10;
/// Most keys of a batch: beyond that a call costs no less per key (measured on loopback: 100 keys 85 000 keys/s, 1000 keys
/// 100 000).
const KEYS_MAX: usize = 1000;
/// Bytes of the first batch: what a node serialises, sends and stores in some 2 ms (25 MB/s, measured).
const BYTES_FIRST: u64 = 48 << 10;
/// The step by which batches grow in bytes.
const BYTES_STEP: u64 = 16 << 10;
/// Most bytes of a batch.
const BYTES_MAX: u64 = 1 << 20;
/// Fewest: one key that is longer still goes, alone.
const BYTES_MIN: u64 = 4 << 10;

/// The size of the next batch from one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    limit: Duration,
    keys: usize,
    bytes: u64,
}

impl Pace {
    /// A pace at which no batch is to take longer than this.
    pub fn new(limit: Duration) -> Self {
        Self { limit, keys: KEYS_STEP, bytes: BYTES_FIRST }
    }

    /// From now on no batch is to take longer than this.
    pub fn hold_to(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// How many of these keys, given their sizes, make the next batch, which is to have no more bytes than `most`; at least one.
    pub fn batch(&self, sizes: impl IntoIterator<Item = u64>, most: u64) -> usize {
        let (mut total, most) = (0, self.bytes.min(most));
        let fits = |size: &u64| {
            total += size;
            total <= most
        };
        sizes.into_iter().take(self.keys).take_while(fits).count().max(1)
    }

    /// Takes note of how long a batch took.
    pub fn took(&mut self, keys: usize, bytes: u64, time: Duration) {
        if time > self.limit {
            self.keys = (keys / 2).max(1);
            self.bytes = (bytes / 2).clamp(BYTES_MIN, BYTES_MAX);
        } else if time < self.limit * 3 / 4 {
            self.grow(keys, bytes);
        }
    }

    /// Only what has held the batch back grows: a batch that was small for want of keys tells nothing.
    fn grow(&mut self, keys: usize, bytes: u64) {
        if keys >= self.keys {
            self.keys = (self.keys + KEYS_STEP).min(KEYS_MAX);
        }
        if bytes + BYTES_STEP >= self.bytes {
            self.bytes = (self.bytes + BYTES_STEP).min(BYTES_MAX);
        }
    }
}

/// How long the source is left alone after a batch, so that it is busy with the move for no more than this share of its
/// time, in percent.
pub fn rest(took: Duration, duty: u32) -> Duration {
    let duty = duty.clamp(1, 100);
    took * (100 - duty) / duty
}

/// What may go each second, from all sources together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rate {
    /// As much as there is.
    #[default]
    Any,
    /// So many keys.
    Keys(u64),
    /// Keys of so many bytes.
    Bytes(u64),
}

/// Keys; 0 is as many as there are.
impl From<u64> for Rate {
    fn from(keys: u64) -> Self {
        if keys == 0 { Self::Any } else { Self::Keys(keys) }
    }
}

/// `5000`, `5000keys/s`, `8MiB/s`; 0 of either is as much as there is.
impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (number, shift) = match lower.strip_suffix("mib/s") {
            Some(number) => (number, 20),
            None => (lower.strip_suffix("keys/s").unwrap_or(&lower), 0),
        };
        let number = number.parse().ok().filter(|number| *number <= u64::MAX >> shift);
        Ok(match (number.ok_or("it is neither a number of keys nor <n>MiB/s")?, shift) {
            (keys, 0) => keys.into(),
            (0, _) => Self::Any,
            (mib, _) => Self::Bytes(mib << shift),
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("as many keys as there are"),
            Self::Keys(keys) => write!(f, "at most {keys} keys each second"),
            Self::Bytes(bytes) => write!(f, "at most {} MiB each second", bytes >> 20),
        }
    }
}

impl Rate {
    /// Most keys and bytes of one batch: a twentieth of a second's worth, lest they come in bursts.
    pub fn burst(self) -> (usize, u64) {
        match self {
            Self::Any => (usize::MAX, u64::MAX),
            Self::Keys(keys) => (usize::try_from(keys / 20).unwrap_or(usize::MAX).max(1), u64::MAX),
            Self::Bytes(bytes) => (usize::MAX, bytes / 20),
        }
    }
}

/// Keeps all batches together to a rate.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// When the keys that were let through so far are paid for.
    paid: Option<Instant>,
}

impl Meter {
    /// How long so many keys of so many bytes have to wait.
    pub fn wait(&mut self, (keys, bytes): (usize, u64), rate: Rate, now: Instant) -> Duration {
        let (amount, each_second) = match rate {
            Rate::Any => {
                self.paid = None;
                return Duration::ZERO;
            }
            Rate::Keys(rate) => (keys as u64, rate),
            Rate::Bytes(rate) => (bytes, rate),
        };
        let due = self.paid.map_or(now, |paid| paid.max(now));
        let price = u128::from(amount) * 1_000_000_000 / u128::from(each_second);
        self.paid = Some(due + Duration::from_nanos(u64::try_from(price).unwrap_or(u64::MAX)));
        due - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(3);

    fn sizes(each: u64) -> impl Iterator<Item = u64> {
        std::iter::repeat_n(each, 5000)
    }

    #[test]
    fn small_keys_are_taken_by_number_and_large_ones_by_size() {
        let pace = Pace::new(LIMIT);
        assert_eq!(pace.batch(sizes(100), u64::MAX), 10);
        assert_eq!(pace.batch(sizes(20 << 10), u64::MAX), 2);
        assert_eq!(pace.batch(sizes(1 << 30), u64::MAX), 1);
        assert_eq!(pace.batch([5, 5], u64::MAX), 2);
    }

    /// A source that needs 10 µs for each key: 300 keys take the limit.
    #[test]
    fn a_batch_settles_below_the_limit() {
        let mut pace = Pace::new(LIMIT);
        let mut longest = 0;
        for round in 0..2000 {
            let keys = pace.batch(sizes(100), u64::MAX);
            pace.took(keys, keys as u64 * 100, Duration::from_micros(10 * keys as u64));
            longest = longest.max(keys);
            assert!(round < 100 || (100..=310).contains(&keys), "{keys} keys in round {round}");
        }
        assert!(longest > 200, "{longest}");
    }

    #[test]
    fn what_takes_too_long_is_halved_down_to_one_key() {
        let mut pace = Pace::new(LIMIT);
        for expected in [5, 2, 1, 1] {
            let keys = pace.batch(sizes(100), u64::MAX);
            pace.took(keys, keys as u64 * 100, LIMIT * 2);
            assert_eq!(pace.batch(sizes(100), u64::MAX), expected);
        }
    }

    #[test]
    fn a_slot_with_few_keys_does_not_make_batches_grow() {
        let mut pace = Pace::new(LIMIT);
        let before = pace.clone();
        pace.took(3, 300, Duration::from_micros(30));
        assert_eq!(pace, before);
    }

    #[test]
    fn batches_have_a_largest_size() {
        let mut pace = Pace::new(LIMIT);
        for _ in 0..10_000 {
            let keys = pace.batch(sizes(1), u64::MAX);
            pace.took(keys, 1 << 20, Duration::ZERO);
        }
        assert_eq!(pace.batch(sizes(1), u64::MAX), KEYS_MAX);
        assert_eq!(pace.batch(sizes(64 << 10), u64::MAX), 16);
    }

    #[test]
    fn shares_of_the_source() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(3), 100), ms(0));
        assert_eq!(rest(ms(3), 50), ms(3));
        assert_eq!(rest(ms(3), 25), ms(9));
    }

    /// Scenario 42: batches that take a while themselves, a rate that is changed on the way, and a pause.
    #[test]
    fn a_rate_is_kept_to_whatever_the_batches_take() {
        const SIZE: u64 = 1 << 10;
        let (mut meter, mut pace) = (Meter::default(), Pace::new(LIMIT));
        let mut now = Instant::now();
        for (rate, keys_each_second, per_key) in [
            (Rate::Keys(5000), 5000, 20),
            (Rate::Keys(1000), 1000, 20),
            (Rate::Bytes(4 << 20), 4 << 10, 20),
            (Rate::Keys(5000), 5000, 150),
            (Rate::Bytes(1 << 20), 1 << 10, 150),
            (Rate::Keys(20_000), 20_000, 20),
        ] {
            // Nothing is made up for what a pause has cost.
            now += Duration::from_secs(10);
            let (begun, mut sent) = (now, 0);
            while now - begun < Duration::from_secs(3) {
                let (most_keys, most_bytes) = rate.burst();
                let keys = pace.batch(sizes(SIZE), most_bytes).min(most_keys);
                let bytes = keys as u64 * SIZE;
                now += meter.wait((keys, bytes), rate, now);
                let took = Duration::from_micros(per_key * keys as u64);
                now += took;
                pace.took(keys, bytes, took);
                sent += keys as u64;
            }
            let expected = keys_each_second * 3;
            let is_kept = sent.abs_diff(expected) * 100 <= expected * 15;
            assert!(is_kept, "{sent} keys in 3 s at {rate}");
        }
    }

    #[test]
    fn a_limit_that_is_lowered_is_kept_soon() {
        let mut pace = Pace::new(LIMIT);
        let run = |pace: &mut Pace| {
            for _ in 0..200 {
                let keys = pace.batch(sizes(100), u64::MAX);
                pace.took(keys, keys as u64 * 100, Duration::from_micros(10 * keys as u64));
            }
            pace.batch(sizes(100), u64::MAX)
        };
        assert!(run(&mut pace) > 100);
        pace.hold_to(LIMIT / 10);
        assert!(run(&mut pace) <= 31);
        pace.hold_to(LIMIT);
        assert!(run(&mut pace) > 100);
    }

    #[test]
    fn rates() {
        let check = |text: &str, rate: Rate| assert_eq!(text.parse(), Ok(rate), "{text}");
        check("0", Rate::Any);
        check("0MiB/s", Rate::Any);
        check("5000", Rate::Keys(5000));
        check("5000Keys/s", Rate::Keys(5000));
        check("8mib/s", Rate::Bytes(8 << 20));
        for nonsense in ["", "-1", "8MB/s", "MiB/s", "1.5", "99999999999999MiB/s"] {
            assert!(nonsense.parse::<Rate>().is_err(), "{nonsense}");
        }
    }

    #[test]
    fn keys_are_let_through_at_the_rate() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let mut now = start;
        for _ in 0..100 {
            now += meter.wait((50, 0), Rate::Keys(5000), now);
        }
        // The first batch does not wait.
        assert_eq!((now - start).as_millis(), 990);
        assert_eq!(meter.wait((1000, 0), Rate::Any, now), Duration::ZERO);
        assert_eq!(
            meter.wait((50, 0), Rate::Keys(5000), now),
            Duration::ZERO,
            "debts end with the rate"
        );
        assert_eq!((Rate::Keys(5000).burst().0, Rate::Keys(1).burst().0), (250, 1));
    }
}
