//! Calls of commands that the proxy answers by itself, counted as nodes count theirs, and told together with those.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::asks_nodes;
use crate::command::{Policy, Verb, table};
use crate::resp::value::{self, Value};
use crate::resp::{Protocol, write};

/// The calls of one command.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    pub(super) count: i64,
    failed: i64,
    us: i64,
    /// By the greatest number of microseconds that they took.
    by_time: BTreeMap<i64, i64>,
}

impl Calls {
    fn count(&mut self, us: u32, failed: bool) {
        self.count += 1;
        self.failed += i64::from(failed);
        self.us += i64::from(us);
        let bound = i64::from(us.max(1).checked_next_power_of_two().unwrap_or(u32::MAX));
        *self.by_time.entry(bound).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.failed += other.failed;
        self.us += other.us;
        for (bound, calls) in &other.by_time {
            *self.by_time.entry(*bound).or_default() += calls;
        }
    }

    /// Adds what a node counts: `calls`, a number, `histogram_usec`, and in pairs a time and the calls that took no longer.
    pub(super) fn add_told(&mut self, counted: &Value) -> Option<()> {
        let [_, count, _, times] = value::array(counted)? else { return None };
        self.count += value::integer(count)?;
        let mut before = 0;
        for pair in value::array(times)?.chunks_exact(2) {
            let (time, calls) = (value::integer(&pair[0])?, value::integer(&pair[1])?);
            *self.by_time.entry(time).or_default() += calls - before;
            before = calls;
        }
        Some(())
    }

    pub(super) fn write(&self, protocol: Protocol, out: &mut Vec<u8>) {
        write::map(out, protocol, 2);
        write::bulk(out, "calls");
        write::integer(out, self.count);
        write::bulk(out, "histogram_usec");
        write::map(out, protocol, self.by_time.len());
        let mut sum = 0;
        for (time, calls) in &self.by_time {
            sum += calls;
            write::integer(out, *time);
            write::integer(out, sum);
        }
    }
}

/// Calls by the names of command and subcommand; the latter is empty if there is none.
#[derive(Clone, Debug, Default)]
pub struct Ledger(BTreeMap<(&'static str, &'static str), Calls>);

impl Ledger {
    /// Counts a call that took so many microseconds.
    pub fn count(&mut self, (name, sub): (&'static str, &'static str), us: u32, failed: bool) {
        self.0.entry((name, sub)).or_default().count(us, failed);
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        for (name, calls) in &other.0 {
            self.0.entry(*name).or_default().add(calls);
        }
    }

    /// The calls with their names, such as `ping` and `client|id`.
    pub(super) fn named(&self) -> impl Iterator<Item = (String, &Calls)> {
        self.0.iter().map(|((name, sub), calls)| match *sub {
            "" => ((*name).to_owned(), calls),
            sub => (format!("{name}|{sub}"), calls),
        })
    }

    /// Lines as in a node's `INFO commandstats`.
    pub(super) fn lines(&self) -> String {
        let mut text = String::new();
        for (name, Calls { count, us, failed, .. }) in self.named() {
            // Writing to a text cannot fail.
            let _ = write!(
                text,
                "cmdstat_{name}:calls={count},usec={us},usec_per_call=0.00,rejected_calls=0,failed_calls={failed}\r\n"
            );
        }
        text
    }
}

/// Whether the proxy alone counts a command, named as in `client|id`: what a node counts of it the proxy has asked for itself.
pub(super) fn is_own(name: &str) -> bool {
    let (name, sub) = name.split_once('|').unwrap_or((name, ""));
    let Some(command) = table::lookup(name.as_bytes()) else { return false };
    let spec = table::subcommand(command, sub.as_bytes()).unwrap_or(command);
    match spec.policy {
        Policy::Local(local) => !asks_nodes(local),
        // Nodes hear one of each for every command that they look at before it is queued.
        Policy::Session(verb) => matches!(verb, Verb::Multi | Verb::Discard),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_all_workers_are_told_by_name() {
        let (mut one, mut other) = (Ledger::default(), Ledger::default());
        one.count(("ping", ""), 3, false);
        one.count(("ping", ""), 4, false);
        other.count(("ping", ""), 0, false);
        other.count(("client", "id"), 9, true);
        one.add(&other);
        let zeros = "usec_per_call=0.00,rejected_calls=0,failed_calls=";
        let expected = format!(
            "cmdstat_client|id:calls=1,usec=9,{zeros}1\r\ncmdstat_ping:calls=3,usec=7,{zeros}0\r\n"
        );
        assert_eq!(one.lines(), expected);
        let (_, calls) = one.named().last().unwrap();
        let mut wire = Vec::new();
        calls.write(Protocol::Resp2, &mut wire);
        let expected =
            "*4\r\n$5\r\ncalls\r\n:3\r\n$14\r\nhistogram_usec\r\n*4\r\n:1\r\n:1\r\n:4\r\n:3\r\n";
        assert_eq!(String::from_utf8_lossy(&wire), expected);
    }

    #[test]
    fn what_nodes_answer_is_theirs_to_count() {
        let own = ["ping", "client|id", "client|list", "auth", "acl|whoami", "multi", "discard"];
        assert!(own.iter().all(|name| is_own(name)));
        let theirs =
            ["get", "config|get", "info", "exec", "script|load", "dbsize", "no-such-command"];
        assert!(!theirs.iter().any(|name| is_own(name)));
    }
}
