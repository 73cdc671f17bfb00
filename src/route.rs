//! The routing decision, and nothing else: what happens to this request of this client?

use crate::acl::{Asked, Denial, User};
use crate::client::Client;
use crate::cluster::Slot;
use crate::command::keys::{self, ArgList};
use crate::command::learned::{Found, Learned, full_name};
use crate::command::{
    Across, Claim, CrossSlot, Errand, Flags, Keys, Local, Merge, Nature, Policy, Spec, Timeout,
    Verb, Wait, sort, table, wait,
};
use crate::refusal::Refusal;
use crate::resp::request::Request;

/// Most bytes that are kept of a key or channel that a client may not use.
const NAME_MAX: usize = 1024;

/// What happens to a request.
#[derive(Debug)]
pub enum Route {
    /// Sent whole to the owner of the slot of its keys.
    One(Slot, Claim),
    /// The same, on a connection of its own on which it waits.
    Block(Slot, Wait),
    /// Sorted by the proxy, by what it asks the owners of other slots.
    Sort(Slot),
    /// Done in steps by the proxy, since its keys are in several slots; with how long it may wait.
    Across(Across, Option<Wait>),
    /// One part per slot.
    Split(Cut),
    /// Sent to every primary.
    Every(Merge),
    /// Sent to any primary.
    Any,
    /// Sent to the owner of the slot, or to any primary, and its receivers counted.
    Publish(Option<Slot>),
    /// Answered by the proxy.
    Local(Local),
    /// Takes several questions to the nodes.
    Errand(Errand),
    /// The session's own business.
    Session(Verb),
    /// Answered with an error.
    Refuse(Box<Refusal>),
}

impl Route {
    /// The slot of all its keys, if they share one.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Self::One(slot, _)
            | Self::Block(slot, _)
            | Self::Sort(slot)
            | Self::Publish(Some(slot)) => Some(*slot),
            _ => None,
        }
    }
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
    /// Name of the subcommand, if it is one of the table's.
    pub sub: &'static str,
    /// Whether it may change data, or tell others of something.
    pub writes: bool,
    /// Whether it is an administrator's, and none of the business of those who monitor.
    pub admin: bool,
    /// What of the command matters on its way.
    pub nature: Nature,
    /// Whether a replica may answer it.
    pub replica: bool,
    /// Where its keys are.
    pub keys: Keys,
}

/// The command and the slot of a request with exactly one key, right behind the name, as most requests are; `None` if it
/// takes [`decide`] to tell. The shortcut says nothing that `decide` would not.
#[inline]
pub fn single(request: &Request<'_>, client: &Client) -> Option<(&'static Spec, Slot)> {
    let spec = table::lookup(request.name())?;
    let is_plain = client.authenticated
        && !client.is_limited
        && !client.is_subscribed()
        && client.tracking.is_none()
        && spec.is_single()
        && spec.accepts(request.len())
        && request.len() > 1;
    is_plain.then(|| (spec, Slot::of(request.arg(1))))
}

/// Decides on a request.
pub fn decide(
    request: &Request<'_>,
    client: &Client,
    learned: &Learned,
    cross_slot: CrossSlot,
) -> Decision {
    let Some(found) = learned.find(request) else {
        let name = request.name();
        let refusal = match client.authenticated {
            false => Refusal::NoAuth,
            true if name.eq_ignore_ascii_case(b"PROXY") => Refusal::AdminPort,
            true => Refusal::unknown(name, request.args(1)),
        };
        return refuse(refusal);
    };
    let spec = found.spec();
    Decision {
        route: route(found, request, client).across(spec, request, cross_slot),
        name: found.command.name,
        sub: found.sub.map_or("", |sub| sub.name),
        writes: spec.flags.has(Flags::WRITE) || spec.flags.has(Flags::MAY_REPLICATE),
        admin: spec.flags.has(Flags::ADMIN),
        nature: spec.nature(),
        replica: spec.suits_replica(),
        keys: spec.keys,
    }
}

/// By the rows of a command.
#[inline]
fn route(found: Found<'_>, request: &Request<'_>, client: &Client) -> Route {
    let (spec, words) = (found.spec(), found.words);
    if !client.authenticated && !spec.flags.has(Flags::NO_AUTH) {
        return refusal(Refusal::NoAuth);
    }
    if !spec.accepts(request.len()) {
        return refusal(Refusal::Arity(full_name(request, words)));
    }
    if client.is_limited
        && let Err(reason) = check_user(found, request, &client.user)
    {
        return refusal(reason);
    }
    if client.is_confined() && !suits_subscribed(spec.policy) {
        // Of these containers the table has no subcommands, of which the server names the one that it refuses.
        let is_container =
            matches!(spec.policy, Policy::Local(Local::Client | Local::Config | Local::Cluster));
        let words = if is_container { 2 } else { words };
        return refusal(Refusal::Subscribed(full_name(request, words)));
    }
    match spec.policy {
        Policy::Keyed => keyed(spec, request, None),
        Policy::Blocking(timeout) => {
            match (keyed(spec, request, None), Wait::of(timeout, spec.keys, request)) {
                (Route::One(slot, _), Some(wait)) => Route::Block(slot, wait),
                (route, _) => route,
            }
        }
        Policy::Sort => match keyed(spec, request, None) {
            Route::One(slot, Claim::Slot(_)) if sort::names_keys(request) => Route::Sort(slot),
            route => route,
        },
        Policy::Split(merge) => keyed(spec, request, Some(merge)),
        Policy::Every(merge) => Route::Every(merge),
        Policy::Any => Route::Any,
        Policy::Publish => match spec.keys {
            Keys::None => Route::Publish(None),
            _ => Route::Publish(Some(Slot::of(request.arg(1)))),
        },
        Policy::Local(local) => Route::Local(local),
        Policy::Session(verb) => Route::Session(verb),
        Policy::Errand(errand) => Route::Errand(errand),
        Policy::Refuse => refusal(Refusal::NotAllowed(full_name(request, words))),
        Policy::Later => refusal(Refusal::NotYet(full_name(request, words))),
    }
}

impl Route {
    /// The same, or how a request is done that would be refused because of its keys' slots.
    fn across(self, spec: &Spec, request: &Request<'_>, cross_slot: CrossSlot) -> Self {
        let Some(across) = spec.across.filter(|_| cross_slot.allows(spec)) else { return self };
        match self {
            Self::Refuse(refusal) if *refusal == Refusal::CrossSlot => match spec.policy {
                Policy::Blocking(timeout) => Self::waiting(across, timeout, spec, request),
                // Without patterns it is the node's own.
                Policy::Sort if !sort::names_keys(request) => Self::Across(Across::Gather, None),
                _ => Self::Across(across, None),
            },
            // Its node would refuse the patterns.
            Self::One(_, Claim::Whole(_))
                if across == Across::SortStore && sort::names_keys(request) =>
            {
                Self::Across(across, None)
            }
            route => route,
        }
    }

    fn waiting(across: Across, timeout: Timeout, spec: &Spec, request: &Request<'_>) -> Self {
        match Wait::of(timeout, spec.keys, request) {
            Some(wait) => Self::Across(across, Some(wait)),
            None => match wait::complaint(timeout, spec.keys, request) {
                Some(text) => refusal(Refusal::text(text)),
                None => Self::Across(across, None),
            },
        }
    }
}

fn suits_subscribed(policy: Policy) -> bool {
    match policy {
        Policy::Session(verb) => verb.suits_subscribed(),
        Policy::Local(local) => matches!(local, Local::Ping | Local::Quit | Local::Reset),
        _ => false,
    }
}

/// By the slot of the keys. A request whose keys cannot be found goes to any node, which says in its own words what is
/// wrong with it.
#[inline]
fn keyed(spec: &Spec, request: &Request<'_>, merge: Option<Merge>) -> Route {
    let Ok(mut positions) = keys::positions(spec.keys, request) else { return Route::Any };
    let keys = positions.len();
    let Some(first) = positions.next() else { return Route::Any };
    let slot = Slot::of(request.arg(first));
    if positions.all(|at| Slot::of(request.arg(at)) == slot) {
        return Route::One(slot, spec.claim(slot, keys));
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

/// Whether a user may have a request done, or what it hears else.
#[cold]
fn check_user(found: Found<'_>, request: &Request<'_>, user: &User) -> Result<(), Refusal> {
    let asked = Asked { found, args: request };
    let denial = user.check(asked).err();
    // Of a subcommand that nobody has told of it is not known what it does with which keys. Those of `DEBUG` are no commands
    // of their own: rules are on all of them.
    let is_debug = found.command.policy == Policy::Local(Local::Debug);
    let is_unknown = found.words == 2 && found.sub.is_none() && !is_debug;
    if is_unknown && (denial == Some(Denial::Command) || found.command.policy == Policy::Any) {
        return Err(Refusal::UnknownSubcommand {
            command: found.command.name.to_ascii_uppercase(),
            sub: String::from_utf8_lossy(request.arg(1)).into_owned(),
        });
    }
    denial.map_or(Ok(()), |denial| {
        Err(match denial {
            Denial::Command if is_debug => Refusal::DeniedCommand("debug".to_owned()),
            Denial::Command => Refusal::DeniedCommand(full_name(request, found.words)),
            Denial::Key(at) => Refusal::DeniedKey(shown(request.arg(at))),
            Denial::Channel(at) => Refusal::DeniedChannel(shown(request.arg(at))),
        })
    })?;
    match sort::option_with_keys(request) {
        Some(option)
            if found.spec().policy == Policy::Sort && !user.allows_with_all_keys(asked) =>
        {
            let why = "denied due to insufficient ACL permissions.";
            Err(Refusal::text(format!("ERR {option} option of SORT {why}")))
        }
        _ => Ok(()),
    }
}

/// As much of a key or channel as `ACL LOG` keeps.
fn shown(name: &[u8]) -> Vec<u8> {
    name[..name.len().min(NAME_MAX)].to_vec()
}

fn refusal(refusal: Refusal) -> Route {
    Route::Refuse(Box::new(refusal))
}

fn refuse(reason: Refusal) -> Decision {
    Decision {
        route: refusal(reason),
        name: "",
        sub: "",
        writes: false,
        admin: false,
        nature: Nature::WRITE,
        replica: false,
        keys: Keys::None,
    }
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
    use redis_protocol::resp2::types::BytesFrame;

    use super::*;
    use crate::acl::Users;
    use crate::resp::Protocol;
    use crate::resp::frame::{Limits, RequestFramer};
    use crate::resp::write;

    fn client() -> Client {
        Client::new(1, None, None, Users::default().default_user(), 0)
    }

    fn check(line: &str, expected: &str) {
        check_with(&Learned::default(), line, expected);
    }

    fn check_with(learned: &Learned, line: &str, expected: &str) {
        check_for(&client(), learned, line, expected);
    }

    fn check_for(client: &Client, learned: &Learned, line: &str, expected: &str) {
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
        let request = Request::new(&wire, framer.args());
        let route = match decide(&request, client, learned, CrossSlot::Strict).route {
            Route::One(slot, claim) => {
                format!("{} {slot}", if claim == Claim::Slot(slot) { "one" } else { "whole" })
            }
            Route::Block(slot, wait) => format!("block {slot} {:?}", wait.timeout()),
            Route::Sort(slot) => format!("sort {slot}"),
            Route::Across(across, wait) => {
                format!("across {across:?} {:?}", wait.map(Wait::timeout))
            }
            Route::Split(Cut { first, step, .. }) => format!("split {first} {step}"),
            Route::Every(merge) => format!("every {merge:?}"),
            Route::Any => "any".to_owned(),
            Route::Publish(slot) => format!("publish {:?}", slot.map(Slot::number)),
            Route::Local(local) => format!("local {local:?}"),
            Route::Session(verb) => format!("session {verb:?}"),
            Route::Errand(errand) => format!("errand {errand:?}"),
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
        check("EVALSHA digest 1 foo x", "whole 12182");
        check("FCALL_RO name 0", "any");
        check("SCAN 0", "errand Scan");
        check("EVAL return nonsense foo", "any");
        check("XREAD COUNT 1 STREAMS foo 0", "one 12182");
        check("XREAD BLOCK 1 STREAMS foo 0", "block 12182 Some(1ms)");
        check("XREADGROUP GROUP block c STREAMS foo >", "one 12182");
        check("XREADGROUP GROUP g block COUNT 1 NOACK STREAMS foo >", "one 12182");
        check("XREAD COUNT block STREAMS foo 0", "one 12182");
        check("XREAD STREAMS block 0", "one 16209");
        check("XREADGROUP GROUP block block block 0 STREAMS foo >", "block 12182 None");
        check("SORT foo BY nosort", "one 12182");
        check("SORT foo BY w_*", "sort 12182");
        check("SORT_RO foo GET #", "sort 12182");
        check("SORT foo BY w_* STORE {foo}", "whole 12182");
        check("OBJECT ENCODING foo", "one 12182");
        check("OBJECT ENCODING", "ERR wrong number of arguments for 'object|encoding' command");
        check("DBSIZE", "every Sum");
        check("PING", "local Ping");
        check("SHUTDOWN", "ERR command 'shutdown' is not allowed through the proxy");
        check("MULTI", "session Multi");
        check("PUBLISH foo x", "publish None");
        check("SPUBLISH foo x", "publish Some(12182)");
        check("SUNSUBSCRIBE", "session Sunsubscribe");
        check("PUBSUB NONSENSE", "session Pubsub");
        check("NONSENSE a b", "ERR unknown command 'NONSENSE', with args beginning with: 'a' 'b' ");
    }

    #[test]
    fn a_subscriber_of_resp2_may_do_little() {
        let mut client = client();
        client.subscribed.shards = 1;
        let context = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";
        let refused = |name: &str| format!("ERR Can't execute '{name}': {context}");
        let check = |line, expected: &str| check_for(&client, &Learned::default(), line, expected);
        check("GeT foo", &refused("get"));
        check("CONFIG Get foo", &refused("config|get"));
        check("get", "ERR wrong number of arguments for 'get' command");
        check("HELLO 3", &refused("hello"));
        let aborted = "EXECABORT Transaction discarded because of: Can't execute 'exec'";
        check("EXEC", &format!("{aborted}: {context}"));
        check("PING", "local Ping");
        check("RESET", "local Reset");
        check("SSUBSCRIBE foo bar", "session Ssubscribe");
        client.protocol = Protocol::Resp3;
        check_for(&client, &Learned::default(), "GET foo", "one 12182");
    }

    /// The container's policy stands for those that have no row.
    #[test]
    fn subcommands() {
        check("OBJECT NONSENSE foo", "any");
        check("XGROUP NONSENSE", "any");
        check("CLIENT NONSENSE", "local Client");
        check("DEBUG OBJECT foo", "one 12182");
        check("DEBUG", "ERR wrong number of arguments for 'debug' command");
        check("debug Sleep 0", "local Debug");
        check("MODULE LIST", "any");
        check("MODULE LOAD x", "ERR command 'module|load' is not allowed through the proxy");
        check("MODULE NEWER", "ERR command 'module|newer' is not allowed through the proxy");
        check("ACL NEWER", "local Acl");
        check("LATENCY DOCTOR", "any");
        check("SCRIPT NEWER", "any");
        check("SCRIPT FLUSH", "errand FlushScripts");
        check("FUNCTION FLUSH", "every AllOk");
    }

    #[test]
    fn subcommands_that_were_learned() {
        let text = |text: &'static str| BytesFrame::BulkString(text.into());
        let numbers = |numbers: &[i64]| numbers.iter().copied().map(BytesFrame::Integer).collect();
        let row = |name, arity, flag, keys: &[i64], subs| {
            let flags = BytesFrame::Array(vec![text(flag)]);
            let keys: Vec<BytesFrame> = numbers(keys);
            let none = || BytesFrame::Array(Vec::new());
            let front = vec![text(name), BytesFrame::Integer(arity), flags];
            let back = vec![none(), none(), none(), BytesFrame::Array(subs)];
            BytesFrame::Array([front, keys, back].concat())
        };
        let subs = vec![
            row("object|newer", 3, "readonly", &[2, 2, 1], Vec::new()),
            row("object|stop", 2, "admin", &[0, 0, 0], Vec::new()),
            row("object|encoding", 3, "readonly", &[1, 1, 1], Vec::new()),
        ];
        let latency = vec![row("latency|newer", 2, "noscript", &[0, 0, 0], Vec::new())];
        let learned = Learned::from_reply(&BytesFrame::Array(vec![
            row("object", -2, "slow", &[0, 0, 0], subs),
            row("latency", -2, "slow", &[0, 0, 0], latency),
        ]));
        let check = |line, expected| check_with(&learned, line, expected);
        check("OBJECT Newer foo", "one 12182");
        check("OBJECT NEWER", "ERR wrong number of arguments for 'object|newer' command");
        check("OBJECT STOP", "ERR command 'object|stop' is not allowed through the proxy");
        check("OBJECT ENCODING foo", "one 12182");
        check("OBJECT NEWEST foo", "any");
        check("ACL NEWER", "local Acl");
        check(
            "object|newer foo",
            "ERR unknown command 'object|newer', with args beginning with: 'foo' ",
        );
    }

    #[test]
    fn the_shortcut_says_what_the_whole_way_does() {
        let mut single_commands = 0;
        for spec in table::TABLE {
            for len in 1..6 {
                let words = [spec.name.as_bytes(), b"key", b"1", b"x", b"y"];
                let mut wire = Vec::new();
                write::request(&mut wire, words[..len].iter().copied());
                let mut framer = RequestFramer::default();
                let limits = Limits { args: 9, bulk: 99, request: 999, unauthenticated: false };
                framer.frame(&wire, &limits).unwrap();
                let (request, client) = (Request::new(&wire, framer.args()), client());
                let Some((found, slot)) = single(&request, &client) else { continue };
                single_commands += 1;
                let decision = decide(&request, &client, &Learned::default(), CrossSlot::Strict);
                assert_eq!((found.name, found.nature()), (decision.name, decision.nature));
                assert_eq!(found.suits_replica(), decision.replica, "{}", spec.name);
                let route = decision.route;
                assert!(
                    matches!(route, Route::One(s, Claim::Slot(c)) if s == slot && c == slot),
                    "{} of {len}: {route:?}",
                    spec.name
                );
            }
        }
        assert!(single_commands > 100, "{single_commands}");
    }

    #[test]
    fn a_user_may_do_what_it_may() {
        let rules = "~a* %R~r* &news +@all -@hash -config +config|get -exec (+hget %R~h*)";
        let users = Users::default().set(b"me", rules.split(' ').map(str::as_bytes)).unwrap();
        let mut client = client();
        client.log_in(users.find(b"me").unwrap().clone());
        let check = |line, expected: &str| check_for(&client, &Learned::default(), line, expected);
        let run =
            |name: &str| format!("NOPERM this user has no permissions to run the '{name}' command");
        let access = |what| {
            format!(
                "NOPERM this user has no permissions to access one of the {what} used as arguments"
            )
        };
        check("GET a", "one 15495");
        check("SET a 1", "one 15495");
        check("GET rr", "one 12526");
        check("SET rr 1", &access("keys"));
        check("MGET a b", &access("keys"));
        check("HSET a f v", &run("hset"));
        check("HGET h f", "one 11694");
        check("HGET a f", &access("keys"));
        check("CONFIG GET x", "local Config");
        check("Config Set x y", &run("config|set"));
        check("CONFIG NONSENSE", "ERR unknown subcommand 'NONSENSE'. Try CONFIG HELP.");
        check("OBJECT NONSENSE a", "ERR unknown subcommand 'NONSENSE'. Try OBJECT HELP.");
        check("PUBLISH news x", "publish None");
        check("PUBLISH other x", &access("channels"));
        check("PSUBSCRIBE n*", &access("channels"));
        check("AUTH me x", "local Auth");
        check("GET", "ERR wrong number of arguments for 'get' command");
        check("EXEC", &format!("EXECABORT Transaction discarded because of: {}", run("exec")));
        check("SHUTDOWN", "ERR command 'shutdown' is not allowed through the proxy");
        check("SORT a BY nosort", "one 15495");
        let sort = |option: &str| {
            format!("ERR {option} option of SORT denied due to insufficient ACL permissions.")
        };
        check("SORT a BY w_*", &sort("BY"));
        check("SORT a GET #", &sort("GET"));
    }

    #[test]
    fn the_shortcut_is_not_for_those_who_may_not_do_everything() {
        let wire = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        let mut framer = RequestFramer::default();
        let limits = Limits { args: 9, bulk: 99, request: 999, unauthenticated: false };
        framer.frame(wire, &limits).unwrap();
        let request = Request::new(wire, framer.args());
        for (rules, is_taken) in [("+@all ~* &*", true), ("+@all ~* &x", false), ("", false)] {
            let users = Users::default().set(b"me", rules.split(' ').map(str::as_bytes)).unwrap();
            let mut client = client();
            client.log_in(users.find(b"me").unwrap().clone());
            assert_eq!(single(&request, &client).is_some(), is_taken, "{rules}");
        }
    }

    #[test]
    fn a_client_must_say_who_it_is() {
        let wire = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        let mut framer = RequestFramer::default();
        framer
            .frame(wire, &Limits { args: 100, bulk: 1000, request: 10_000, unauthenticated: true })
            .unwrap();
        let client = Client { authenticated: false, ..client() };
        let request = Request::new(wire, framer.args());
        let decision = decide(&request, &client, &Learned::default(), CrossSlot::Strict);
        assert!(matches!(decision.route, Route::Refuse(refusal) if *refusal == Refusal::NoAuth));
    }
}
