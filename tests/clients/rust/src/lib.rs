//! What the programs have in common: steps that are reported, a line for each: `ok STEP` or `failed STEP: why`.

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

/// Any error will do.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// How long a step may take.
const LIMIT: Duration = Duration::from_secs(10);

pub const SCRIPT: &str = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])";

/// The steps done so far.
#[derive(Default)]
pub struct WorkOut {
    failed: bool,
}

impl WorkOut {
    pub async fn step(&mut self, name: &str, step: impl Future<Output = Outcome>) {
        let outcome = tokio::time::timeout(LIMIT, step).await;
        match outcome.unwrap_or_else(|_| Err(format!("no end within {LIMIT:?}").into())) {
            Ok(()) => println!("ok {name}"),
            Err(error) => {
                self.failed = true;
                println!("failed {name}: {}", error.to_string().replace('\n', " "));
            }
        }
    }

    pub fn end(&self) -> ExitCode {
        ExitCode::from(u8::from(self.failed))
    }
}

/// Fails unless both are the same.
pub fn same<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(
    found: T,
    expected: U,
) -> Outcome {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{found:?} instead of {expected:?}").into())
    }
}

/// Host, port and protocol version, from the command line.
pub fn address() -> (String, u16, u8) {
    let mut words = std::env::args().skip(1);
    let mut next = || words.next().expect("HOST PORT 2|3");
    (next(), next().parse().expect("a port"), next().parse().expect("a version"))
}
