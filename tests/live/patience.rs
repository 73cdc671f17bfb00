//! Waiting, but not for ever; taking turns; and chance that can be repeated.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};

/// Tests that may use their clusters at the same time. Each needs a thread of the test program; there are as many of those as
/// processors, or as `RUST_TEST_THREADS` says.
const PLACES: u32 = 4;
/// Places of a test that keeps a load going: it is to leave the processor to others half of the time.
const LOAD: u32 = 2;
static TURN: Semaphore = Semaphore::const_new(PLACES as usize);

/// What a test holds while it has its turn.
pub(crate) type Turn = SemaphorePermit<'static>;

/// For a test that has the machine for itself: it judges how long something takes, or needs all of the processor. One that has
/// a cluster of its own starts it before, while others have their turn: most of that is waiting for its nodes.
pub(crate) async fn alone() -> Turn {
    TURN.acquire_many(PLACES).await.expect("nobody closes it")
}

/// For a test with a load that rests, see [`Plan::light`](crate::load::Plan::light).
pub(crate) async fn under_load() -> Turn {
    TURN.acquire_many(LOAD).await.expect("nobody closes it")
}

/// For a test that mostly waits for its nodes, as others do meanwhile.
pub(crate) async fn beside_others() -> Turn {
    TURN.acquire().await.expect("nobody closes it")
}

/// Asks again until the answer is good, for what gives no sign when it happens; panics with the last complaint if that
/// takes too long.
pub(crate) async fn until<T>(
    limit: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(complaint) => {
                assert!(Instant::now() < end, "{what}: not within {limit:?}: {complaint}");
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for something that must not take long.
pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    timeout(limit, future).await.unwrap_or_else(|_| panic!("{what}: not within {limit:?}"))
}

/// Random numbers (`SplitMix64`), the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// Seeded by `SEED` if that is set, and printed for a failed test to be run again.
    pub(crate) fn from_env() -> Self {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        eprintln!("SEED={seed}");
        Self(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end as u64).expect("below a usize")
    }
}
