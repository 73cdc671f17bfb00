//! Commands that the proxy answers itself, one file per family. Pure: what they need to know stands in [`Env`].

mod acl;
mod auth;
pub mod calls;
mod client;
mod cluster;
mod command;
mod config;
mod debug;
pub mod denials;
mod info;
pub mod inquiry;
mod latency;
pub mod muster;
pub mod shown;
pub mod slowlog;
mod tracking;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::acl::Users;
use crate::client::{Client, Tracking};
use crate::command::learned::Learned;
use crate::command::{Local, glob};
use crate::refusal::Refusal;
use crate::replies::Mute;
use crate::resp::request::Request;
use crate::resp::{Protocol, value, write};

pub use acl::UsersFile;
pub use client::{Chosen, letters as client_letters, line as client_line};
pub use cluster::View;
pub use inquiry::Inquiry;
pub use muster::Muster;

/// What the proxy is, for all workers alike.
#[derive(Debug)]
pub struct Proxy {
    /// Forty hexadecimal digits that differ from start to start.
    pub run_id: String,
    /// Port of the data listener.
    pub port: u16,
    /// Who clients may be, and what they may do then.
    pub users: ArcSwap<Users>,
    /// The file of users.
    pub acl_file: Option<PathBuf>,
    /// Host that the data listener is bound to.
    pub bind: String,
    /// Most clients at once.
    pub max_clients: AtomicU64,
    /// Milliseconds a client may be idle; 0 for ever.
    pub idle_ms: AtomicU64,
    /// Microseconds from which on a command is slow; -1 for none.
    pub slow_us: Arc<AtomicI64>,
    /// Most slow commands kept.
    pub slow_max: AtomicU64,
    /// Slow commands so far; also the source of their numbers.
    pub slow_count: AtomicU64,
    /// Most keys that each worker knows to have been read by clients that track.
    pub tracked_max: AtomicU64,
    /// Lines that clients which monitor did not get because they were too slow.
    pub monitor_lost: AtomicU64,
    /// What clients see of the cluster.
    pub view: View,
    /// Whether `DEBUG` is passed on to the nodes.
    pub allow_debug: bool,
    /// Longest argument in bytes.
    pub max_bulk: usize,
    /// Seconds since 1970 when the proxy started.
    pub started_s: u64,
    /// Clients connected now.
    pub clients: AtomicU64,
    /// Clients turned away because there were too many.
    pub rejected: AtomicU64,
    /// Clients that have subscribed to something since they connected or said `RESET`.
    pub subscribers: AtomicU64,
    /// Clients accepted so far; also the source of client numbers.
    pub accepted: AtomicU64,
    /// Clients accepted, and turned away, when `CONFIG RESETSTAT` was last said.
    pub before: [AtomicU64; 2],
}

impl Proxy {
    /// Clients accepted, and turned away, since `CONFIG RESETSTAT` was last said.
    pub fn connections(&self) -> [u64; 2] {
        let count = |now: &AtomicU64, before: &AtomicU64| now.load(Relaxed) - before.load(Relaxed);
        [count(&self.accepted, &self.before[0]), count(&self.rejected, &self.before[1])]
    }

    /// Puts other users in the place of those that there are. Clients have to be told of it.
    fn change_users<T, E>(&self, change: impl Fn(&Users) -> Result<(Users, T), E>) -> Result<T, E> {
        loop {
            let before = self.users.load();
            let (users, what) = change(&before)?;
            let found = self.users.compare_and_swap(&*before, Arc::new(users));
            // Somebody else may have been quicker.
            if Arc::ptr_eq(&found, &before) {
                return Ok(what);
            }
        }
    }

    /// Counts from now on.
    fn reset_stats(&self) {
        self.before[0].store(self.accepted.load(Relaxed), Relaxed);
        self.before[1].store(self.rejected.load(Relaxed), Relaxed);
    }
}

/// What was learned of the nodes besides who owns what; an immutable snapshot like the topology.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Version of the oldest node, as `redis_version` shows it.
    pub version: String,
    /// Commands that are not in the table.
    pub learned: Learned,
}

/// What a local command can see besides its arguments.
#[derive(Debug)]
pub struct Env<'a> {
    /// The proxy.
    pub proxy: &'a Proxy,
    /// What was learned of the nodes.
    pub facts: &'a Facts,
    /// Microseconds since 1970.
    pub unix_us: u64,
    /// Milliseconds of the worker's clock.
    pub now_ms: u64,
    /// Fills something with bytes that nobody can foresee.
    pub fill_by_chance: fn(&mut [u8]),
}

/// What happens after a local command.
#[derive(Debug)]
pub enum After {
    /// The next command.
    Next,
    /// The connection is closed once the reply is out.
    Close,
    /// Only the workers together can do it. Nothing was written.
    Muster(Muster),
    /// Nodes have to be asked. Nothing was written.
    Inquire(Inquiry),
    /// The client is shown what all clients ask for. Nothing was written.
    Monitor,
    /// The file of users is read or written. Nothing was written to the client.
    File(UsersFile),
    /// The replies to come are sent, or not. Nothing was written.
    Mute(Mute),
    /// The client is told of changes to what it reads, or not any more. Nothing was written.
    Track(Option<Box<Tracking>>),
}

/// Whether a command must wait until all earlier ones of its client have been answered, because it changes how they
/// travel.
pub fn is_barrier(command: Local) -> bool {
    matches!(command, Local::Hello | Local::Reset | Local::Auth)
}

/// Whether a command asks nodes, which must have done by then what its client sent before.
pub fn asks_nodes(command: Local) -> bool {
    matches!(command, Local::Config | Local::Debug | Local::Info | Local::LastSave | Local::Latency)
}

/// Answers a command into `out`, or says why not; then what is in `out` counts for nothing.
pub fn answer(
    command: Local,
    request: &Request<'_>,
    client: &mut Client,
    env: &Env<'_>,
    out: &mut Vec<u8>,
) -> Result<After, Refusal> {
    match command {
        Local::Client if let Some(after) = client::beyond(request, client, env) => {
            if matches!(after, Ok(After::Muster(_))) {
                client.query = request.bytes().len();
            }
            return after;
        }
        Local::Quit => {
            write::simple(out, "OK");
            return Ok(After::Close);
        }
        Local::Ping => ping(request, client, out)?,
        Local::Echo => write::bulk(out, request.arg(1)),
        Local::Time => time(env.unix_us, out),
        Local::Select => select(request, out)?,
        Local::Acl => return acl::acl(request, client, env, out),
        Local::Auth => auth::auth(request, client, env, out)?,
        Local::Hello => auth::hello(request, client, env, out)?,
        Local::Reset => reset(client, env, out),
        Local::Client => client::client(request, client, env, out)?,
        Local::Command => return command::command(request, client.protocol, env, out),
        Local::Config => return config::config(request, client.protocol, env, out),
        Local::Cluster => return cluster::cluster(request, client, env, out),
        Local::Readonly | Local::Readwrite | Local::Asking => write::simple(out, "OK"),
        Local::Role => role(out),
        Local::LastSave => return Ok(After::Inquire(last_save())),
        Local::Slowlog => return slowlog::slowlog(request, env, out),
        Local::Monitor => return Ok(After::Monitor),
        Local::Debug => return debug::debug(request, env),
        Local::Info => return Ok(info::info(request, client.protocol, env, out)),
        Local::Latency => return Ok(latency::latency(request, client.protocol)),
    }
    Ok(After::Next)
}

fn ping(request: &Request<'_>, client: &Client, out: &mut Vec<u8>) -> Result<(), Refusal> {
    match request.len() {
        1 | 2 if client.is_confined() => {
            write::array(out, 2);
            write::bulk(out, "pong");
            write::bulk(out, request.arg(1));
        }
        1 => write::simple(out, "PONG"),
        2 => write::bulk(out, request.arg(1)),
        _ => return Err(Refusal::Arity("ping".to_owned())),
    }
    Ok(())
}

fn time(unix_us: u64, out: &mut Vec<u8>) {
    write::array(out, 2);
    write::bulk(out, (unix_us / 1_000_000).to_string());
    write::bulk(out, (unix_us % 1_000_000).to_string());
}

/// Database 0 is all there is in a cluster; the texts are those of a standalone server.
fn select(request: &Request<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    match integer(request.arg(1)) {
        Some(0) => {
            write::simple(out, "OK");
            Ok(())
        }
        Some(_) => Err(Refusal::text("ERR DB index is out of range")),
        None => Err(Refusal::text("ERR value is not an integer or out of range")),
    }
}

fn reset(client: &mut Client, env: &Env<'_>, out: &mut Vec<u8>) {
    client.reset(env.proxy.users.load().default_user());
    write::simple(out, "RESET");
}

/// A primary without replicas, which is what the cluster looks like from here.
fn role(out: &mut Vec<u8>) {
    write::array(out, 3);
    write::bulk(out, "master");
    write::integer(out, 0);
    write::array(out, 0);
}

/// When the last of the nodes was saved.
fn last_save() -> Inquiry {
    Inquiry::new(inquiry::Reach::All, &[b"LASTSAVE"], |answers, _| {
        let number = |answer: &Bytes| {
            let (answer, _) = value::decode(answer).ok().flatten()?;
            value::integer(&answer)
        };
        let least = answers.iter().map(number).min().flatten().ok_or(Refusal::ClusterDown)?;
        let mut wire = Vec::new();
        write::integer(&mut wire, least);
        Ok(wire)
    })
}

fn integer(arg: &[u8]) -> Option<i64> {
    std::str::from_utf8(arg).ok()?.parse().ok()
}

fn lossy(arg: &[u8]) -> String {
    String::from_utf8_lossy(&arg[..arg.len().min(128)]).into_owned()
}

/// Matches a glob pattern, letters in any case.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    glob::matches(&pattern.to_ascii_lowercase(), &text.to_ascii_lowercase())
}

fn help(out: &mut Vec<u8>, lines: &[&str]) {
    write::array(out, lines.len());
    for line in lines {
        write::simple(out, line);
    }
}

/// Whether a subcommand is this one, in any case.
fn is(arg: &[u8], name: &str) -> bool {
    arg.eq_ignore_ascii_case(name.as_bytes())
}

fn unknown_subcommand(command: &str, sub: &[u8]) -> Refusal {
    Refusal::UnknownSubcommand { command: command.to_owned(), sub: lossy(sub) }
}

/// What the server says where its table lets a number of arguments pass and the command itself does not.
fn misused(command: &str, sub: &[u8]) -> Refusal {
    let sub = lossy(sub);
    Refusal::text(format!(
        "ERR unknown subcommand or wrong number of arguments for '{sub}'. Try {command} HELP."
    ))
}

fn pairs(out: &mut Vec<u8>, protocol: Protocol, pairs: &[(&str, String)]) {
    write::map(out, protocol, pairs.len());
    for (name, value) in pairs {
        write::bulk(out, name);
        write::bulk(out, value);
    }
}
