//! `COMMAND` and its subcommands, from the command table and what was learned from the nodes.

use super::inquiry::{Inquiry, Reach};
use super::{After, Env, help, is, matches, unknown_subcommand};
use crate::command::{Flags, Keys, Policy, Spec, keys, table};
use crate::refusal::Refusal;
use crate::resp::request::Request;
use crate::resp::{Protocol, write};

const HELP: &[&str] = &[
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand)",
    "    Return details about all Redis commands.",
    "COUNT",
    "    Return the total number of commands in this Redis server.",
    "LIST",
    "    Return a list of all commands in this Redis server.",
    "INFO [<command-name> ...]",
    "    Return details about multiple Redis commands.",
    "    If no command names are given, documentation details for all",
    "    commands are returned.",
    "DOCS [<command-name> ...]",
    "    Return documentation details about multiple Redis commands.",
    "    If no command names are given, documentation details for all",
    "    commands are returned.",
    "GETKEYS <full-command>",
    "    Return the keys from a full Redis command.",
    "GETKEYSANDFLAGS <full-command>",
    "    Return the keys and the access flags from a full Redis command.",
    "HELP",
    "    Prints this help.",
];

/// Answers `COMMAND …`, all but `GETKEYSANDFLAGS`. What commands are documented to do is asked of a node.
pub(super) fn command(
    request: &Request<'_>,
    protocol: Protocol,
    env: &Env<'_>,
    out: &mut Vec<u8>,
) -> Result<After, Refusal> {
    let sub = request.arg(1);
    match sub {
        _ if request.len() == 1 => all(protocol, env, out),
        s if is(s, "COUNT") => {
            write::integer(out, i64::try_from(offered(env).count()).unwrap_or(i64::MAX));
        }
        s if is(s, "LIST") => list(request, env, out)?,
        s if is(s, "INFO") && request.len() == 2 => all(protocol, env, out),
        s if is(s, "INFO") => info(request, protocol, env, out),
        s if is(s, "DOCS") => return Ok(docs(request, protocol, env, out)),
        s if is(s, "GETKEYS") => get_keys(request, env, out)?,
        s if is(s, "HELP") => help(out, HELP),
        _ => return Err(unknown_subcommand("COMMAND", sub)),
    }
    Ok(After::Next)
}

/// Every command whose form is known, with its name: also those that are not let through, as a server tells of those that its
/// users may not run.
fn offered<'a>(env: &'a Env<'_>) -> impl Iterator<Item = (&'a str, &'a Spec)> {
    let known = table::TABLE.iter().map(|spec| (spec.name, spec));
    known.chain(env.facts.learned.iter()).filter(|(_, spec)| is_offered(spec))
}

fn is_offered(spec: &Spec) -> bool {
    spec.policy != Policy::Later
}

/// The row of a name as clients write it, `config|get` too.
fn find_full<'a>(name: &'a [u8], env: &'a Env<'_>) -> Option<(&'a str, &'a Spec)> {
    let Some(bar) = name.iter().position(|byte| *byte == b'|') else { return find(name, env) };
    let (_, container) = find(&name[..bar], env)?;
    let sub = &name[bar + 1..];
    let spec =
        table::subcommand(container, sub).or_else(|| env.facts.learned.subcommand(container, sub));
    Some((std::str::from_utf8(name).ok()?, spec?))
}

fn find<'a>(name: &'a [u8], env: &'a Env<'_>) -> Option<(&'a str, &'a Spec)> {
    match table::lookup(name) {
        Some(spec) => Some((spec.name, spec)),
        None => env
            .facts
            .learned
            .lookup(name)
            .and_then(|spec| Some((std::str::from_utf8(name).ok()?, spec))),
    }
}

fn all(protocol: Protocol, env: &Env<'_>, out: &mut Vec<u8>) {
    write::array(out, offered(env).count());
    offered(env).for_each(|(name, spec)| entry(name, spec, protocol, out));
}

fn info(request: &Request<'_>, protocol: Protocol, env: &Env<'_>, out: &mut Vec<u8>) {
    write::array(out, request.len() - 2);
    for name in request.args(2) {
        match find_full(name, env) {
            Some((name, spec)) if is_offered(spec) => {
                entry(&name.to_ascii_lowercase(), spec, protocol, out);
            }
            _ => write::nil(out, protocol),
        }
    }
}

/// The ten fields of Redis 7; tips and key specifications are left empty.
fn entry(name: &str, spec: &Spec, protocol: Protocol, out: &mut Vec<u8>) {
    let (first, last, step) = spec.keys.legacy();
    write::array(out, 10);
    write::bulk(out, name);
    write::integer(out, i64::from(spec.arity));
    words(spec.flags.words(), protocol, out);
    write::integer(out, i64::from(first));
    write::integer(out, i64::from(last));
    write::integer(out, i64::from(step));
    words(spec.categories(), protocol, out);
    write::array(out, 0);
    write::array(out, 0);
    write::array(out, spec.subcommands.len());
    for sub in spec.subcommands {
        entry(&format!("{name}|{}", sub.name), sub, protocol, out);
    }
}

fn words<'a>(words: impl Iterator<Item = &'a str>, protocol: Protocol, out: &mut Vec<u8>) {
    let words: Vec<&str> = words.collect();
    write::set(out, protocol, words.len());
    for word in words {
        write::simple(out, word);
    }
}

/// `COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]`. Nodes do not say of which module a command is,
/// so no module is known.
fn list(request: &Request<'_>, env: &Env<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let (by, value) = (request.arg(3), request.arg(4));
    let keep = |name: &str, spec: &Spec| match by {
        b if is(b, "PATTERN") => matches(value, name.as_bytes()),
        b if is(b, "ACLCAT") => spec.categories().any(|category| {
            category.trim_start_matches('@').as_bytes().eq_ignore_ascii_case(value)
        }),
        b if is(b, "MODULE") => false,
        _ => true,
    };
    let filtered = request.len() == 5
        && is(request.arg(2), "FILTERBY")
        && ["PATTERN", "ACLCAT", "MODULE"].iter().any(|name| is(by, name));
    if request.len() > 2 && !filtered {
        return Err(Refusal::text("ERR syntax error"));
    }
    let mut names = Vec::new();
    for (name, spec) in offered(env) {
        names.extend(keep(name, spec).then(|| name.to_owned()));
        for sub in spec.subcommands.iter().filter(|sub| is_offered(sub)) {
            let full = format!("{name}|{}", sub.name);
            names.extend(keep(&full, sub).then_some(full));
        }
    }
    write::array(out, names.len());
    for name in names {
        write::bulk(out, name);
    }
    Ok(())
}

/// A node's texts on the commands that are offered.
fn docs(request: &Request<'_>, protocol: Protocol, env: &Env<'_>, out: &mut Vec<u8>) -> After {
    let chosen: Vec<_> = if request.len() == 2 {
        offered(env).collect()
    } else {
        request.args(2).filter_map(|name| find_full(name, env)).collect()
    };
    let names = chosen.iter().filter(|(_, spec)| is_offered(spec)).map(|(name, _)| name.as_bytes());
    let words: Vec<&[u8]> = [&b"COMMAND"[..], b"DOCS"].into_iter().chain(names).collect();
    if words.len() > 2 {
        return After::Inquire(Inquiry::plain(Reach::Any, &words).spoken(protocol));
    }
    write::map(out, protocol, 0);
    After::Next
}

fn get_keys(request: &Request<'_>, env: &Env<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let args: Vec<&[u8]> = request.args(2).collect();
    let spec = row(&args, env).ok_or(Refusal::text("ERR Invalid command specified"))?;
    if spec.keys == Keys::None {
        return Err(Refusal::text("ERR The command has no key arguments"));
    }
    if !spec.accepts(args.len()) {
        return Err(Refusal::text("ERR Invalid number of arguments specified for command"));
    }
    let positions: Vec<usize> =
        keys::positions(spec.keys, &args[..]).into_iter().flatten().collect();
    if positions.is_empty() && !spec.flags.has(Flags::NO_MANDATORY_KEYS) {
        return Err(Refusal::text("ERR Invalid arguments specified for command"));
    }
    write::array(out, positions.len());
    for at in positions {
        write::bulk(out, args[at]);
    }
    Ok(())
}

/// The row of a command, or of its subcommand.
fn row<'a>(args: &[&'a [u8]], env: &'a Env<'_>) -> Option<&'a Spec> {
    let (_, spec) = find(args.first()?, env)?;
    match args.get(1).filter(|_| !spec.subcommands.is_empty()) {
        Some(sub) => {
            table::subcommand(spec, sub).or_else(|| env.facts.learned.subcommand(spec, sub))
        }
        None => Some(spec),
    }
}
