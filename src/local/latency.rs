//! `LATENCY`: what the primaries have recorded, as one. `DOCTOR` and `GRAPH` are one node's words, and not answered here.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::calls::{self, Calls};
use super::inquiry::{Inquiry, Reach};
use super::muster::{Muster, Share};
use super::{After, lossy};
use crate::command::{Errand, Local, Policy, table};
use crate::resp::request::Request;
use crate::resp::value::{self, Value};
use crate::resp::{Protocol, write};

/// Answers `LATENCY HISTOGRAM`, `HISTORY` and `LATEST`.
pub(super) fn latency(request: &Request<'_>, protocol: Protocol) -> After {
    let words: Vec<&[u8]> = request.args(0).collect();
    let wanted: Vec<String> = request.args(2).map(lossy).collect();
    let sub = request.arg(1).to_ascii_uppercase();
    let counts = sub == b"HISTOGRAM";
    let inquiry = Inquiry::new(Reach::Willing, &words, move |answers, share| {
        if let Some(error) = answers.iter().find(|answer| answer.starts_with(b"-")) {
            return Ok(error.to_vec());
        }
        let answers: Vec<Value> = answers.iter().filter_map(decoded).collect();
        let rows: Vec<&Value> = answers.iter().filter_map(value::array).flatten().collect();
        let mut wire = Vec::new();
        match &sub[..] {
            b"HISTOGRAM" => histogram(&rows, chosen(share, &wanted), protocol, &mut wire),
            b"HISTORY" => history(&rows, protocol, &mut wire),
            _ => latest(&rows, protocol, &mut wire),
        }
        Ok(wire)
    });
    After::Inquire(if counts { inquiry.with_muster(Muster::Calls) } else { inquiry })
}

/// What the proxy counts of these commands, or of all if none is named. A container stands for its subcommands.
fn chosen(share: &Share, wanted: &[String]) -> Vec<(String, Calls)> {
    let is_wanted = |name: &str| {
        let container = name.split_once('|').map_or(name, |(container, _)| container);
        wanted.is_empty()
            || wanted
                .iter()
                .any(|one| one.eq_ignore_ascii_case(name) || one.eq_ignore_ascii_case(container))
    };
    let calls = share.calls.named().filter(|(name, _)| is_wanted(name));
    calls.map(|(name, calls)| (name, calls.clone())).collect()
}

fn decoded(answer: &Bytes) -> Option<Value> {
    value::decode(answer).ok().flatten().map(|(answer, _)| answer)
}

/// Of names and counts in turn, and what the proxy counts. A call of a command that every node runs is one call: the node that
/// counted most stands for all.
fn histogram(rows: &[&Value], own: Vec<(String, Calls)>, protocol: Protocol, out: &mut Vec<u8>) {
    let mut commands: BTreeMap<String, Calls> = own.into_iter().collect();
    for pair in rows.chunks_exact(2) {
        let Some(name) = value::text(pair[0]).filter(|name| !calls::is_own(name)) else { continue };
        let known = commands.entry(name.to_owned()).or_default();
        if runs_everywhere(name) {
            let mut calls = Calls::default();
            calls.add_told(pair[1]);
            if calls.count > known.count {
                *known = calls;
            }
        } else {
            known.add_told(pair[1]);
        }
    }
    write::map(out, protocol, commands.len());
    for (name, calls) in &commands {
        write::bulk(out, name);
        calls.write(protocol, out);
    }
}

/// Whether a command is sent to every node.
fn runs_everywhere(name: &str) -> bool {
    let mut words = name.split('|').map(str::as_bytes);
    let Some(command) = words.next().and_then(table::lookup) else { return false };
    let sub = words.next().and_then(|sub| table::subcommand(command, sub));
    match sub.unwrap_or(command).policy {
        Policy::Every(_) | Policy::Local(Local::Config) => true,
        Policy::Errand(errand) => {
            !matches!(errand, Errand::Scan | Errand::RandomKey | Errand::Sort)
        }
        _ => false,
    }
}

/// Of rows of a time and a latency; the oldest first.
fn history(rows: &[&Value], _: Protocol, out: &mut Vec<u8>) {
    let mut rows: Vec<Vec<i64>> =
        rows.iter().filter_map(|row| numbers(value::array(row)?)).collect();
    rows.sort_unstable();
    write::array(out, rows.len());
    for row in rows {
        write::array(out, row.len());
        for number in row {
            write::integer(out, number);
        }
    }
}

/// Of rows of an event, when it was last, how long it took then, and at most.
fn latest(rows: &[&Value], _: Protocol, out: &mut Vec<u8>) {
    let mut events: BTreeMap<&str, [i64; 3]> = BTreeMap::new();
    for row in rows.iter().filter_map(|row| value::array(row)) {
        let Some((name, [time, last, most])) = event(row) else { continue };
        let known = events.entry(name).or_insert([time, last, most]);
        let most = most.max(known[2]);
        *known = if time > known[0] { [time, last, most] } else { [known[0], known[1], most] };
    }
    write::array(out, events.len());
    for (name, numbers) in events {
        write::array(out, 4);
        write::bulk(out, name);
        for number in numbers {
            write::integer(out, number);
        }
    }
}

fn event(row: &[Value]) -> Option<(&str, [i64; 3])> {
    let (name, rest) = row.split_first()?;
    Some((value::text(name)?, numbers(rest)?.try_into().ok()?))
}

fn numbers(row: &[Value]) -> Option<Vec<i64>> {
    row.iter().map(value::integer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(merge: fn(&[&Value], Protocol, &mut Vec<u8>), answers: &[&str], expected: &str) {
        let answers: Vec<Value> =
            answers.iter().filter_map(|a| decoded(&Bytes::copy_from_slice(a.as_bytes()))).collect();
        let rows: Vec<&Value> = answers.iter().filter_map(value::array).flatten().collect();
        let mut wire = Vec::new();
        merge(&rows, Protocol::Resp3, &mut wire);
        assert_eq!(String::from_utf8_lossy(&wire), expected);
    }

    #[test]
    fn calls_are_added_up_by_time() {
        let node = |name: &str, calls, times: &str| {
            format!("*2\r\n+{name}\r\n*4\r\n+calls\r\n:{calls}\r\n+histogram_usec\r\n{times}")
        };
        let a = node("get", 3, "*4\r\n:1\r\n:2\r\n:4\r\n:3\r\n");
        let b = node("get", 2, "*4\r\n:2\r\n:1\r\n:4\r\n:2\r\n");
        let sum = "%1\r\n$3\r\nget\r\n%2\r\n$5\r\ncalls\r\n:5\r\n$14\r\nhistogram_usec\r\n\
            %3\r\n:1\r\n:2\r\n:2\r\n:3\r\n:4\r\n:5\r\n";
        let histogram = |rows: &[&Value], protocol: Protocol, out: &mut Vec<u8>| {
            histogram(rows, Vec::new(), protocol, out);
        };
        check(histogram, &[&a, &b], sum);
        check(histogram, &["*0\r\n", &node("ping", 1, "*0\r\n")], "%0\r\n");
        let all = |calls| node("config|resetstat", calls, "*2\r\n:1\r\n:1\r\n");
        let one = "%1\r\n$16\r\nconfig|resetstat\r\n%2\r\n$5\r\ncalls\r\n:2\r\n$14\r\n\
            histogram_usec\r\n%1\r\n:1\r\n:1\r\n";
        check(histogram, &[&all(1), &all(2), &all(1)], one);
    }

    #[test]
    fn events_are_put_in_order() {
        let history_of =
            ["*1\r\n*2\r\n:9\r\n:250\r\n", "*2\r\n*2\r\n:7\r\n:300\r\n*2\r\n:10\r\n:1\r\n"];
        let merged = "*3\r\n*2\r\n:7\r\n:300\r\n*2\r\n:9\r\n:250\r\n*2\r\n:10\r\n:1\r\n";
        check(history, &history_of, merged);
        let latest_of =
            |time, last, most| format!("*1\r\n*4\r\n+fork\r\n:{time}\r\n:{last}\r\n:{most}\r\n");
        let (a, b) = (latest_of(7, 20, 500), latest_of(8, 30, 40));
        check(latest, &[&a, &b], "*1\r\n*4\r\n$4\r\nfork\r\n:8\r\n:30\r\n:500\r\n");
    }
}
