//! The routing decision, and nothing else: what happens to this request of this client?

use crate::client::Client;
use crate::cluster::Slot;
use crate::command::keys::{self, ArgList};
use crate::command::learned::Learned;
use crate::command::{Claim, Flags, Keys, Local, Merge, Policy, Spec, table};
use crate::refusal::Refusal;
use crate::resp::request::Request;

/// What happens to a request.
#[derive(Debug)]
pub enum Route {
    /// Sent whole to the owner of the slot of its keys.
    One(Slot, Claim),
    /// One part per slot.
    Split(Cut),
    /// Sent to every primary.
    Every(Merge),
    /// Sent to any primary.
    Any,
    /// Answered by the proxy.
    Local(Local),
    /// Answered with an error.
    Refuse(Box<Refusal>),
}

/// How a request is cut: its keys are at `first, first + step, …` to the end.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// How the parts' replies become one.
    pub merge: Merge,
    /// First key.
    pub first: usize,
    /// Distance from one key to the next.
    pub step: usize,
}

/// A decision, with what is worth knowing of the command later on.
#[derive(Debug)]
pub struct Decision {
    /// What happens to the request.
    pub route: Route,
    /// Name of the command, for `CLIENT LIST`; empty for one that the table does not have.
    pub name: &'static str,
    /// Whether the command only reads.
    pub readonly: bool,
    /// Whether a replica may answer it.
    pub replica: bool,
}

/// The command and the slot of a request with exactly one key, right behind the name, as most requests are; `None` if it
/// takes [`decide`] to tell. The shortcut says nothing that `decide` would not.
#[inline]
pub fn single(request: &Request<'_>, client: &Client) -> Option<(&'static Spec, Slot)> {
    let spec = table::lookup(request.name())?;
    let is_plain = client.authenticated && spec.is_single() && spec.accepts(request.len());
    is_plain.then(|| (spec, Slot::of(request.arg(1))))
}

/// Decides on a request.
pub fn decide(request: &Request<'_>, client: &Client, learned: &Learned) -> Decision {
    let name = request.name();
    let Some(spec) = table::lookup(name).or_else(|| learned.lookup(name)) else {
        let refusal = if client.authenticated {
            Refusal::unknown(name, request.args(1))
        } else {
            Refusal::NoAuth
        };
        return refuse(refusal);
    };
    let (spec, container) = match find_subcommand(spec, request) {
        Ok(found) => found,
        Err(refusal) => return refuse(refusal),
    };
    Decision {
        route: route(spec, container, request, client),
        name: container.map_or(spec.name, |container| container.name),
        readonly: spec.is_readonly(),
        replica: spec.suits_replica(),
    }
}

#[inline]
fn route(spec: &Spec, container: Option<&Spec>, request: &Request<'_>, client: &Client) -> Route {
    if !client.authenticated && !spec.flags.has(Flags::NO_AUTH) {
        return refusal(Refusal::NoAuth);
    }
    if !spec.accepts(request.len()) {
        return refusal(Refusal::Arity(full_name(spec, container, request)));
    }
    match spec.policy {
        Policy::Keyed => keyed(spec, request, None),
        Policy::Split(merge) => keyed(spec, request, Some(merge)),
        Policy::Every(merge) => Route::Every(merge),
        Policy::Any => Route::Any,
        Policy::Local(local) => Route::Local(local),
        Policy::Refuse => refusal(Refusal::NotAllowed(full_name(spec, container, request))),
        Policy::Later => refusal(Refusal::NotYet(full_name(spec, container, request))),
    }
}

/// By the slot of the keys. A request whose keys cannot be found goes to any node, which says in its own words what is
/// wrong with it.
#[inline]
fn keyed(spec: &Spec, request: &Request<'_>, merge: Option<Merge>) -> Route {
    if keys::blocks(spec.keys, request) {
        return refusal(Refusal::NotYet(format!("{} … BLOCK", spec.name)));
    }
    let Ok(mut positions) = keys::positions(spec.keys, request) else { return Route::Any };
    let keys = positions.len();
    let Some(first) = positions.next() else { return Route::Any };
    let slot = Slot::of(request.arg(first));
    if positions.all(|at| Slot::of(request.arg(at)) == slot) {
        return Route::One(slot, Claim::of(slot, keys));
    }
    match (merge, spec.keys) {
        (Some(merge), Keys::Range { step, .. }) => {
            split(spec, merge, first, usize::from(step), request)
        }
        _ => refusal(Refusal::CrossSlot),
    }
}

fn split(spec: &Spec, merge: Merge, first: usize, step: usize, request: &Request<'_>) -> Route {
    if (request.len() - first).is_multiple_of(step) {
        Route::Split(Cut { merge, first, step })
    } else {
        refusal(Refusal::Arity(spec.name.to_owned()))
    }
}

/// The row of a container's subcommand, with its container.
fn find_subcommand<'a>(
    spec: &'a Spec,
    request: &Request<'_>,
) -> Result<(&'a Spec, Option<&'a Spec>), Refusal> {
    if spec.subcommands.is_empty() || request.len() < 2 {
        return Ok((spec, None));
    }
    match table::subcommand(spec, request.arg(1)) {
        Some(sub) => Ok((sub, Some(spec))),
        None => Err(Refusal::UnknownSubcommand {
            command: spec.name.to_ascii_uppercase(),
            sub: text(request.arg(1)),
        }),
    }
}

/// The name as errors quote it: `get`, `object|encoding`.
fn full_name(spec: &Spec, container: Option<&Spec>, request: &Request<'_>) -> String {
    match container {
        Some(container) => format!("{}|{}", container.name, spec.name),
        // The rows of learned commands bear no name.
        None if spec.name.is_empty() => text(request.name()).to_ascii_lowercase(),
        None => spec.name.to_owned(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(128)]).into_owned()
}

fn refusal(refusal: Refusal) -> Route {
    Route::Refuse(Box::new(refusal))
}

fn refuse(reason: Refusal) -> Decision {
    Decision { route: refusal(reason), name: "", readonly: false, replica: false }
}

impl ArgList for Request<'_> {
    fn len(&self) -> usize {
        Request::len(self)
    }

    fn arg(&self, index: usize) -> &[u8] {
        Request::arg(self, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::frame::{Limits, RequestFramer};
    use crate::resp::write;

    fn check(line: &str, expected: &str) {
        let mut wire = Vec::new();
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        write::request(&mut wire, words.into_iter());
        let mut framer = RequestFramer::default();
        framer
            .frame(
                &wire,
                &Limits { args: 100, bulk: 1000, request: 10_000, unauthenticated: false },
            )
            .unwrap();
        let client = Client::new(1, None, None, true, 0);
        let route =
            match decide(&Request::new(&wire, framer.args()), &client, &Learned::default()).route {
                Route::One(slot, claim) => {
                    format!("{} {slot}", if claim == Claim::Slot(slot) { "one" } else { "whole" })
                }
                Route::Split(Cut { first, step, .. }) => format!("split {first} {step}"),
                Route::Every(merge) => format!("every {merge:?}"),
                Route::Any => "any".to_owned(),
                Route::Local(local) => format!("local {local:?}"),
                Route::Refuse(refusal) => refusal.to_string(),
            };
        assert_eq!(route, expected, "{line}");
    }

    #[test]
    fn decisions() {
        check("GET foo", "one 12182");
        check("get", "ERR wrong number of arguments for 'get' command");
        check("MGET foo {foo}2", "whole 12182");
        check("MGET foo bar", "split 1 1");
        check("MSET foo 1 bar 2", "split 1 2");
        check("MSET foo 1 bar", "ERR wrong number of arguments for 'mset' command");
        check("RENAME foo bar", "CROSSSLOT Keys in request don't hash to the same slot");
        check("RENAME foo {foo}2", "whole 12182");
        check("EVAL return 0", "any");
        check("EVAL return 1 foo x", "one 12182");
        check("EVAL return nonsense foo", "any");
        check("XREAD COUNT 1 STREAMS foo 0", "one 12182");
        check(
            "XREAD BLOCK 1 STREAMS foo 0",
            "ERR command 'xread … BLOCK' is not supported by this proxy yet",
        );
        check("XREADGROUP GROUP block c STREAMS foo >", "one 12182");
        check("XREADGROUP GROUP g block COUNT 1 NOACK STREAMS foo >", "one 12182");
        check("XREAD COUNT block STREAMS foo 0", "one 12182");
        check("XREAD STREAMS block 0", "one 16209");
        check(
            "XREADGROUP GROUP block block block 0 STREAMS foo >",
            "ERR command 'xreadgroup … BLOCK' is not supported by this proxy yet",
        );
        check("OBJECT ENCODING foo", "one 12182");
        check("OBJECT NONSENSE foo", "ERR unknown subcommand 'NONSENSE'. Try OBJECT HELP.");
        check("OBJECT ENCODING", "ERR wrong number of arguments for 'object|encoding' command");
        check("DBSIZE", "every Sum");
        check("PING", "local Ping");
        check("SHUTDOWN", "ERR command 'shutdown' is not allowed through the proxy");
        check("MULTI", "ERR command 'multi' is not supported by this proxy yet");
        check("NONSENSE a b", "ERR unknown command 'NONSENSE', with args beginning with: 'a' 'b' ");
    }

    #[test]
    fn a_client_must_say_who_it_is() {
        let wire = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        let mut framer = RequestFramer::default();
        framer
            .frame(wire, &Limits { args: 100, bulk: 1000, request: 10_000, unauthenticated: true })
            .unwrap();
        let client = Client::new(1, None, None, false, 0);
        let decision = decide(&Request::new(wire, framer.args()), &client, &Learned::default());
        assert!(matches!(decision.route, Route::Refuse(refusal) if *refusal == Refusal::NoAuth));
    }
}
