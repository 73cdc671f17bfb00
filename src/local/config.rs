//! `CONFIG GET` of what clients ask when they connect. The values describe the proxy; nothing can be set.

use super::{Env, is, matches, pairs, unknown_subcommand};
use crate::refusal::Refusal;
use crate::resp::Protocol;
use crate::resp::request::Request;

/// Answers `CONFIG GET`; the other subcommands are refused.
pub(super) fn config(
    request: &Request<'_>,
    protocol: Protocol,
    env: &Env<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let sub = request.arg(1);
    if is(sub, "GET") {
        if request.len() < 3 {
            return Err(Refusal::Arity("config|get".to_owned()));
        }
        let values = values(env);
        let chosen: Vec<_> = values
            .into_iter()
            .filter(|(name, _)| request.args(2).any(|pattern| matches(pattern, name.as_bytes())))
            .collect();
        pairs(out, protocol, &chosen);
        return Ok(());
    }
    match [("SET", "config|set"), ("RESETSTAT", "config|resetstat"), ("HELP", "config|help")]
        .iter()
        .find(|(name, _)| is(sub, name))
    {
        Some((_, full)) => Err(Refusal::NotYet((*full).to_owned())),
        None if is(sub, "REWRITE") => Err(Refusal::NotAllowed("config|rewrite".to_owned())),
        None => Err(unknown_subcommand("CONFIG", sub)),
    }
}

fn values(env: &Env<'_>) -> Vec<(&'static str, String)> {
    let proxy = env.proxy;
    vec![
        ("appendonly", "no".to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", proxy.max_clients.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("notify-keyspace-events", String::new()),
        ("port", proxy.port.to_string()),
        ("proto-max-bulk-len", proxy.max_bulk.to_string()),
        ("replica-read-only", "yes".to_owned()),
        ("save", String::new()),
        ("slave-read-only", "yes".to_owned()),
        ("timeout", proxy.idle_timeout_s.to_string()),
    ]
}
