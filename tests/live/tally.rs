//! What a load has seen: its figures, and whatever was not as it had to be.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Something that should not happen, or not without need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Oddity {
    /// An error reply that only a client of the cluster itself should see.
    Redirect,
    /// `SET k 1; SET k n; GET k` answered something else than `n`, or a counter did not grow.
    Order,
    /// `MSET` was acknowledged, and the `MGET` behind it told something else.
    Disagreement,
    /// A reply of the wrong shape: it belongs to another request.
    Confusion,
    /// A wrong value in a batch that took so long that a failover may lie in it, or that went to a cluster in two parts: the
    /// cluster may have lost the write.
    Excused,
    /// An acknowledged number that is in no list, or an acknowledged increment that was not counted.
    Lost,
    /// A number that is in a list more than once, or an increment that was counted and not asked for.
    Doubled,
    /// A number that stands in a list behind a later one.
    Disordered,
    /// A number that is in a list though the reply said that the request did not run.
    Ghost,
    /// A number that is in a list though no reply said so: the outcome was unknown, or the connection was lost.
    Unsaid,
    /// A list or counter that could not be read back.
    Unverified,
    /// A connection that ended, or on which a reply did not come for very long.
    Dropped,
}

/// What one client, or all of them together, have seen.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Commands that were answered, with whatever.
    pub(crate) commands: u64,
    /// How long the load lasted.
    pub(crate) lasted: Duration,
    /// Error replies by text, numbers left out.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Largest gap between two replies on one connection on which one was due.
    pub(crate) stall: Duration,
    /// The longest time for which the machine itself stood still.
    pub(crate) pause: Duration,
    oddities: BTreeMap<Oddity, u64>,
    /// Of each, the first few in words.
    examples: Vec<String>,
    /// Time to each reply, in microseconds.
    latencies: Vec<u32>,
}

/// What an error reply says of the request's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It did not run.
    NotRun,
    /// Nobody knows.
    Unknown,
}

/// Codes of errors of the cluster that mean that the request did not run; the first four tell of the cluster's shape.
const NOT_RUN: [&str; 7] =
    ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY"];

impl Tally {
    /// Takes a reply that came so long after its batch was sent.
    pub(crate) fn reply(&mut self, latency: Duration) {
        self.commands += 1;
        self.latencies.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// Takes an error reply.
    pub(crate) fn error(&mut self, text: &str) -> Fate {
        *self.errors.entry(without_numbers(text)).or_default() += 1;
        let code = text.split(' ').next().unwrap_or_default();
        if NOT_RUN[..4].contains(&code) {
            self.note(Oddity::Redirect, || text.to_owned());
        }
        if NOT_RUN.contains(&code) { Fate::NotRun } else { Fate::Unknown }
    }

    /// Counts an oddity.
    pub(crate) fn note(&mut self, oddity: Oddity, words: impl FnOnce() -> String) {
        self.note_many(oddity, 1, words);
    }

    /// Counts so many of an oddity.
    pub(crate) fn note_many(&mut self, oddity: Oddity, many: u64, words: impl FnOnce() -> String) {
        if many == 0 {
            return;
        }
        let count = self.oddities.entry(oddity).or_default();
        *count += many;
        if *count - many < 3 {
            self.examples.push(format!("{oddity:?}: {}", words()));
        }
    }

    pub(crate) fn count(&self, oddity: Oddity) -> u64 {
        self.oddities.get(&oddity).copied().unwrap_or_default()
    }

    /// Kinds of what was odd.
    pub(crate) fn oddities(&self) -> impl Iterator<Item = Oddity> {
        self.oddities.keys().copied()
    }

    /// Number of error replies.
    pub(crate) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// The latency that so many of a thousand replies do not exceed, in milliseconds.
    pub(crate) fn per_mille_ms(&mut self, part: usize) -> f64 {
        self.latencies.sort_unstable();
        let at = (self.latencies.len() * part / 1000).min(self.latencies.len().max(1) - 1);
        f64::from(self.latencies.get(at).copied().unwrap_or_default()) / 1000.0
    }

    /// Adds what another client has seen.
    pub(crate) fn add(&mut self, other: Self) {
        self.commands += other.commands;
        self.stall = self.stall.max(other.stall);
        self.latencies.extend(other.latencies);
        self.examples.extend(other.examples);
        for (text, count) in other.errors {
            *self.errors.entry(text).or_default() += count;
        }
        for (oddity, count) in other.oddities {
            *self.oddities.entry(oddity).or_default() += count;
        }
    }

    /// Panics unless every command was answered, and rightly.
    pub(crate) fn expect_flawless(&self) {
        assert!(self.commands > 0, "nothing was done");
        assert!(self.errors.is_empty() && self.oddities.is_empty(), "{self}");
    }

    /// Panics unless all that a client can tell of the loss of a primary is that some outcomes are unknown. Replication is
    /// asynchronous: the cluster may have lost what it had acknowledged.
    pub(crate) fn expect_survived(&self, longest_stall: Duration) {
        self.expect_no_lies(&["outcome unknown"]);
        self.expect_no_stall_of(longest_stall);
    }

    /// Panics if clients were told anything but that of the loss of a primary, or that a request was not executed.
    pub(crate) fn expect_no_lies(&self, errors: &[&str]) {
        assert!(self.commands > 0, "nothing was done");
        let mut texts = self.errors.keys();
        assert!(texts.all(|text| errors.iter().any(|error| text.contains(error))), "{self}");
        let mut kinds = self.oddities.keys();
        let cluster = [Oddity::Excused, Oddity::Lost, Oddity::Unsaid];
        assert!(kinds.all(|kind| cluster.contains(kind)), "{self}");
    }

    /// Panics if a client had to wait for so long, and not because the machine stood still.
    pub(crate) fn expect_no_stall_of(&self, longest_stall: Duration) {
        let longest_stall = longest_stall + 2 * self.pause;
        assert!(
            self.stall < longest_stall,
            "the longest stall is not below {longest_stall:?}: {self}"
        );
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stall, pause) = (self.stall.as_secs_f64(), self.pause.as_secs_f64());
        let commands = self.commands;
        writeln!(f, "{commands} commands, longest stall {stall:.3} s, pause {pause:.3} s")?;
        for (oddity, count) in &self.oddities {
            writeln!(f, "  {oddity:?}: {count}")?;
        }
        for (text, count) in &self.errors {
            writeln!(f, "  {count} × {text}")?;
        }
        self.examples.iter().take(40).try_for_each(|example| writeln!(f, "  e.g. {example}"))
    }
}

/// Runs of digits and dots become `#`, so that errors that differ in addresses and times are one.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            if !out.ends_with('#') {
                out.push('#');
            }
        } else {
            out.push(c);
        }
    }
    out.replace("#.#.#.#:#", "#")
}

#[test]
fn errors_that_differ_in_numbers_are_one() {
    let mut tally = Tally::default();
    assert_eq!(tally.error("CLUSTERDOWN node 127.0.0.1:700 did not … 12 ms"), Fate::NotRun);
    assert_eq!(tally.error("CLUSTERDOWN node 127.0.0.1:99 did not … 7 ms"), Fate::NotRun);
    assert_eq!(tally.error("ERR proxy: lost, outcome unknown (127.0.0.1:1)"), Fate::Unknown);
    assert_eq!(tally.errors.get("CLUSTERDOWN node # did not … # ms"), Some(&2));
    assert_eq!((tally.error_count(), tally.count(Oddity::Redirect)), (3, 2));
}
