//! Randomness that can be had again: the seed is printed, and `SEED=…` replays it.

/// A generator of numbers (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    /// Seeded by `SEED` if that is set, else by the clock. What is printed is shown if the test fails.
    #[expect(clippy::print_stdout, reason = "shown when a test fails")]
    pub(crate) fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("a clock that is right").as_secs();
        let seed = std::env::var("SEED").map_or(now, |seed| seed.parse().expect("a number"));
        println!("SEED={seed}");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap_or(0) % bound
    }
}
