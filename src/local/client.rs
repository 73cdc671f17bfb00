//! `CLIENT`: what clients say of themselves and see of themselves.

use std::collections::BTreeMap;

use super::muster::{self, Kill, Muster};
use super::{After, Env, help, is, tracking, unknown_subcommand};
use crate::client::Client;
use crate::refusal::Refusal;
use crate::replies::Mute;
use crate::resp::request::Request;
use crate::resp::{Protocol, write};

const HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CACHING (YES|NO)",
    "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
    "GETNAME",
    "    Return the name of the current connection.",
    "GETREDIR",
    "    Return the client ID we are redirecting to when tracking is enabled.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "KILL <ip:port>",
    "    Kill connection made from <ip:port>.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Kill connections. Options are:",
    "    * ADDR (<ip:port>|<unixsocket>:0)",
    "      Kill connections made from the specified address",
    "    * LADDR (<ip:port>|<unixsocket>:0)",
    "      Kill connections made to specified local address",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Kill connections by type.",
    "    * USER <username>",
    "      Kill connections authenticated by <username>.",
    "    * SKIPME (YES|NO)",
    "      Skip killing current connection (default: yes).",
    "LIST [options ...]",
    "    Return information about client connections of this proxy. Options:",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Return clients of specified type.",
    "    * ID <client-id> [<client-id> ...]",
    "      Return clients with these IDs.",
    "NO-EVICT (ON|OFF)",
    "    Accepted, and without effect on the nodes' shared connections.",
    "NO-TOUCH (ON|OFF)",
    "    Accepted, and without effect on the nodes' shared connections.",
    "PAUSE <timeout> [WRITE|ALL]",
    "    Suspend all, or just write, clients for <timeout> milliseconds.",
    "REPLY (ON|OFF|SKIP)",
    "    Control the replies sent to the current connection.",
    "SETINFO <LIB-NAME|LIB-VER> <value>",
    "    Set client meta attr.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
    "UNBLOCK <clientid> [TIMEOUT|ERROR]",
    "    Unblock the specified blocked client.",
    "UNPAUSE",
    "    Stop the current client pause, resuming traffic.",
    "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
    "         [OPTIN] [OPTOUT] [NOLOOP]",
    "    Control server assisted client side caching.",
    "TRACKINGINFO",
    "    Report tracking status for the current connection.",
    "HELP",
    "    Print this help.",
];

/// Which clients `CLIENT LIST` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// All of them.
    All,
    /// Those that are not subscribed to anything.
    Normal,
    /// Those that are.
    Subscribed,
    /// None: they are asked for by a type that none has.
    None,
    /// Those with these numbers, in this order, each once.
    Numbers(Vec<u64>),
}

impl Chosen {
    /// The text of the list, of the numbers and lines of all clients.
    pub fn text(&self, lines: Vec<(u64, String)>) -> String {
        let mut lines: BTreeMap<u64, String> = lines.into_iter().collect();
        match self {
            Self::All => lines.into_values().collect(),
            Self::Normal => lines.into_values().filter(|line| !is_subscriber(line)).collect(),
            Self::Subscribed => lines.into_values().filter(|line| is_subscriber(line)).collect(),
            Self::None => String::new(),
            Self::Numbers(numbers) => numbers.iter().filter_map(|id| lines.remove(id)).collect(),
        }
    }
}

/// Read off the client's line, which no blank in a name can confuse.
fn is_subscriber(line: &str) -> bool {
    let letters = line.split(' ').find_map(|field| field.strip_prefix("flags="));
    letters.is_some_and(|letters| letters.contains('P'))
}

/// What a subcommand asks of all workers, or changes for the replies behind it; none for those that [`client`] answers.
pub(super) fn beyond(
    request: &Request<'_>,
    client: &Client,
    env: &Env<'_>,
) -> Option<Result<After, Refusal>> {
    let muster = match request.arg(1) {
        sub if is(sub, "LIST") => chosen(request).map(Muster::List),
        sub if is(sub, "KILL") => kill(request, client, env).map(Muster::Kill),
        sub if is(sub, "UNBLOCK") => muster::unblock(request),
        sub if is(sub, "PAUSE") => muster::pause(request),
        sub if is(sub, "UNPAUSE") => Ok(Muster::Unpause),
        sub if is(sub, "REPLY") => return Some(reply(request.arg(2)).map(After::Mute)),
        sub if is(sub, "TRACKING") => return Some(tracking::wanted(request, client)),
        _ => return None,
    };
    Some(muster.map(After::Muster))
}

fn kill(request: &Request<'_>, client: &Client, env: &Env<'_>) -> Result<Kill, Refusal> {
    Kill::parse(request, client.id, &env.proxy.users.load())
}

fn reply(how: &[u8]) -> Result<Mute, Refusal> {
    match how {
        how if is(how, "ON") => Ok(Mute::No),
        how if is(how, "SKIP") => Ok(Mute::Next),
        how if is(how, "OFF") => Ok(Mute::All),
        _ => Err(Refusal::text("ERR syntax error")),
    }
}

/// `CLIENT LIST [TYPE type | ID id [id …]]`.
fn chosen(request: &Request<'_>) -> Result<Chosen, Refusal> {
    let filter = request.arg(2);
    match request.len() {
        2 => Ok(Chosen::All),
        4 if is(filter, "TYPE") => of_type(request.arg(3)),
        4.. if is(filter, "ID") => numbers(request),
        _ => Err(Refusal::text("ERR syntax error")),
    }
}

pub(super) fn of_type(name: &[u8]) -> Result<Chosen, Refusal> {
    let others = ["master", "replica", "slave"];
    match name {
        name if is(name, "normal") => Ok(Chosen::Normal),
        name if is(name, "pubsub") => Ok(Chosen::Subscribed),
        name if others.iter().any(|other| is(name, other)) => Ok(Chosen::None),
        name => Err(Refusal::text(format!("ERR Unknown client type '{}'", super::lossy(name)))),
    }
}

fn numbers(request: &Request<'_>) -> Result<Chosen, Refusal> {
    let numbers: Option<Vec<i64>> = request.args(3).map(super::integer).collect();
    let numbers = numbers.ok_or(Refusal::text("ERR Invalid client ID"))?;
    Ok(Chosen::Numbers(numbers.into_iter().filter_map(|id| id.try_into().ok()).collect()))
}

/// Answers all subcommands that concern the client alone.
pub(super) fn client(
    request: &Request<'_>,
    client: &mut Client,
    env: &Env<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let sub = request.arg(1).to_ascii_lowercase();
    let expect = |argc: usize| {
        if request.len() == argc {
            Ok(())
        } else {
            Err(Refusal::Arity(format!("client|{}", super::lossy(&sub))))
        }
    };
    match &sub[..] {
        b"id" => {
            expect(2).map(|()| write::integer(out, i64::try_from(client.id).unwrap_or(i64::MAX)))
        }
        b"getname" => expect(2).map(|()| get_name(client, out)),
        b"setname" => expect(3).and_then(|()| set_name(request.arg(2), client, out)),
        b"setinfo" => expect(4).and_then(|()| set_info(request, client, out)),
        b"info" => expect(2).map(|()| info(request, client, env.now_ms, out)),
        b"getredir" => expect(2).map(|()| write::integer(out, tracking::redirect(client))),
        b"trackinginfo" => expect(2).map(|()| tracking::info(client, out)),
        b"caching" => expect(3).and_then(|()| tracking::caching(request.arg(2), client, out)),
        b"no-evict" | b"no-touch" => expect(3).and_then(|()| switch(request.arg(2), out)),
        b"help" => expect(2).map(|()| help(out, HELP)),
        _ => Err(unknown_subcommand("CLIENT", request.arg(1))),
    }
}

fn info(request: &Request<'_>, client: &mut Client, now_ms: u64, out: &mut Vec<u8>) {
    client.query = request.bytes().len();
    write::verbatim(out, client.protocol, &line(client, &letters(client), now_ms));
    client.query = 0;
}

fn get_name(client: &Client, out: &mut Vec<u8>) {
    match client.names.as_ref().map(|names| names.name.as_str()).filter(|name| !name.is_empty()) {
        Some(name) => write::bulk(out, name),
        None => write::nil(out, client.protocol),
    }
}

fn set_name(name: &[u8], client: &mut Client, out: &mut Vec<u8>) -> Result<(), Refusal> {
    client.names_mut().name = checked_name(name)?;
    write::simple(out, "OK");
    Ok(())
}

/// A name with nothing in it that would break the columns of `CLIENT LIST`.
pub(super) fn checked_name(name: &[u8]) -> Result<String, Refusal> {
    if name.iter().all(u8::is_ascii_graphic) {
        return Ok(String::from_utf8_lossy(name).into_owned());
    }
    Err(Refusal::text("ERR Client names cannot contain spaces, newlines or special characters."))
}

fn set_info(request: &Request<'_>, client: &mut Client, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let (attribute, value) = (request.arg(2), request.arg(3));
    let names = client.names_mut();
    let (place, label) = match attribute {
        a if is(a, "LIB-NAME") => (&mut names.library, "lib-name"),
        a if is(a, "LIB-VER") => (&mut names.library_version, "lib-ver"),
        other => {
            return Err(Refusal::text(format!(
                "ERR Unrecognized option '{}'",
                super::lossy(other)
            )));
        }
    };
    if !value.iter().all(u8::is_ascii_graphic) {
        return Err(Refusal::text(format!(
            "ERR {label} cannot contain spaces, newlines or special characters."
        )));
    }
    *place = String::from_utf8_lossy(value).into_owned();
    write::simple(out, "OK");
    Ok(())
}

fn switch(arg: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    if !is(arg, "ON") && !is(arg, "OFF") {
        return Err(Refusal::text("ERR syntax error"));
    }
    write::simple(out, "OK");
    Ok(())
}

/// What a client does, in the server's letters.
pub fn letters(client: &Client) -> String {
    let tracking = client.tracking.as_deref();
    let flags = [
        (client.monitors, 'O'),
        (client.is_subscribed(), 'P'),
        (client.queued.is_some(), 'x'),
        (tracking.is_some(), 't'),
        (tracking.is_some_and(|tracking| tracking.broken), 'R'),
        (tracking.is_some_and(|tracking| tracking.prefixes().is_some()), 'B'),
        (client.leaving, 'c'),
        (client.postponed, 'b'),
    ];
    flags.iter().filter(|(is_set, _)| *is_set).map(|(_, letter)| *letter).collect()
}

/// One client's line of `CLIENT LIST`, with the server's fields in the server's order, and its line end.
pub fn line(client: &Client, letters: &str, now_ms: u64) -> String {
    let address =
        |address: Option<std::net::SocketAddr>| address.map_or_else(String::new, |a| a.to_string());
    let none = crate::client::Names::default();
    let names = client.names.as_deref().unwrap_or(&none);
    let seconds = |since: u64| now_ms.saturating_sub(since) / 1000;
    format!(
        "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={} db=0 sub={} psub={} ssub={} multi={} qbuf={} qbuf-free=0 argv-mem=0 \
         multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={}{}{} user={} redir={} resp={} lib-name={} lib-ver={} tot-cmds={}\n",
        client.id,
        address(client.peer),
        address(client.local),
        names.name,
        seconds(client.since_ms),
        seconds(client.active_ms),
        if letters.is_empty() { "N" } else { letters },
        client.subscribed.channels,
        client.subscribed.patterns,
        client.subscribed.shards,
        client.queued.map_or(-1, |queued| i64::try_from(queued).unwrap_or(i64::MAX)),
        client.query,
        client.last,
        if client.last_sub.is_empty() { "" } else { "|" },
        client.last_sub,
        client.user.name,
        tracking::redirect(client),
        if client.protocol == Protocol::Resp3 { 3 } else { 2 },
        names.library,
        names.library_version,
        client.commands,
    )
}
