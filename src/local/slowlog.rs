//! `SLOWLOG`: the commands that took long, as their clients saw it. Every worker keeps its own; they are shown as one.

use std::collections::VecDeque;

use super::muster::Muster;
use super::{After, Env, help, is, misused};
use crate::client::Client;
use crate::refusal::Refusal;
use crate::resp::request::Request;
use crate::resp::write;

const HELP: &[&str] = &[
    "SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET [<count>]",
    "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
    "    Entries are made of:",
    "    id, timestamp, time in microseconds, arguments array, client IP and port,",
    "    client name",
    "LEN",
    "    Return the length of the slowlog.",
    "RESET",
    "    Reset the slowlog.",
    "HELP",
    "    Prints this help.",
];

/// Most arguments kept of a command, and bytes of each: the server's own limits.
const ARGS_MAX: usize = 32;
const ARG_MAX: usize = 128;

/// A command that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the entry; later ones have greater numbers.
    pub id: u64,
    /// Seconds since 1970.
    pub unix_s: u64,
    /// How long it took.
    pub us: u64,
    /// The arguments, cut short.
    pub args: Vec<Vec<u8>>,
    /// Where the client connected from; empty if it is gone.
    pub peer: String,
    /// Name of the client.
    pub name: String,
}

impl Entry {
    /// For a command of a client, if that is still there.
    pub fn new(id: u64, (unix_s, us): (u64, u64), args: &[&[u8]], client: Option<&Client>) -> Self {
        let peer = client.and_then(|client| client.peer);
        let names = client.and_then(|client| client.names.as_ref());
        Self {
            id,
            unix_s,
            us,
            args: kept(args),
            peer: peer.map_or_else(String::new, |peer| peer.to_string()),
            name: names.map_or_else(String::new, |names| names.name.clone()),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        write::array(out, 6);
        write::integer(out, number(self.id));
        write::integer(out, number(self.unix_s));
        write::integer(out, number(self.us));
        write::array(out, self.args.len());
        self.args.iter().for_each(|arg| write::bulk(out, arg));
        write::bulk(out, &self.peer);
        write::bulk(out, &self.name);
    }
}

/// What is kept of the arguments, with a word on what is not.
fn kept(args: &[&[u8]]) -> Vec<Vec<u8>> {
    let most = if args.len() > ARGS_MAX { ARGS_MAX - 1 } else { args.len() };
    let mut kept: Vec<Vec<u8>> = args[..most].iter().map(|arg| cut(arg)).collect();
    if most < args.len() {
        kept.push(format!("... ({} more arguments)", args.len() - most).into_bytes());
    }
    kept
}

fn cut(arg: &[u8]) -> Vec<u8> {
    if arg.len() <= ARG_MAX {
        return arg.to_vec();
    }
    let mut cut = arg[..ARG_MAX].to_vec();
    cut.extend(format!("... ({} more bytes)", arg.len() - ARG_MAX).bytes());
    cut
}

/// Takes an entry in; only so many are kept, the newest.
pub fn keep(log: &mut VecDeque<Entry>, entry: Entry, most: u64) {
    log.push_back(entry);
    while log.len() as u64 > most {
        log.pop_front();
    }
}

/// The newest of all workers' entries, newest first.
pub(super) fn show(mut entries: Vec<Entry>, most: u64, out: &mut Vec<u8>) {
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.id));
    entries.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    write::array(out, entries.len());
    for entry in &entries {
        entry.write(out);
    }
}

/// Answers `SLOWLOG …`.
pub(super) fn slowlog(
    request: &Request<'_>,
    env: &Env<'_>,
    out: &mut Vec<u8>,
) -> Result<After, Refusal> {
    let all = env.proxy.slow_max.load(std::sync::atomic::Ordering::Relaxed);
    match request.arg(1) {
        sub if is(sub, "GET") => {
            let most = match request.len() {
                2 => 10,
                3 => count(request.arg(2), all)?,
                _ => return Err(misused("SLOWLOG", sub)),
            };
            Ok(After::Muster(Muster::ShowSlow(most.min(all))))
        }
        sub if is(sub, "LEN") => Ok(After::Muster(Muster::CountSlow(all))),
        sub if is(sub, "RESET") => Ok(After::Muster(Muster::ForgetSlow)),
        sub if is(sub, "HELP") => {
            help(out, HELP);
            Ok(After::Next)
        }
        sub => Err(super::unknown_subcommand("SLOWLOG", sub)),
    }
}

fn count(arg: &[u8], all: u64) -> Result<u64, Refusal> {
    match super::integer(arg) {
        Some(-1) => Ok(all),
        Some(count @ 0..) => Ok(count.unsigned_abs()),
        _ => Err(Refusal::text("ERR count should be greater than or equal to -1")),
    }
}
