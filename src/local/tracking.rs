//! `CLIENT TRACKING` and its like: what a client asks for that keeps what it reads, and what it hears of that.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{After, is, lossy};
use crate::client::{Client, Scope, Tracking};
use crate::refusal::Refusal;
use crate::resp::request::Request;
use crate::resp::write;

/// Prefixes that one client may name: more than anybody needs, few enough to go through at once.
const MOST_PREFIXES: usize = 1024;

/// The options, as they are written.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "as many words as stand alone")]
struct Options<'a> {
    redirect: Option<i64>,
    broadcast: bool,
    opt_in: bool,
    opt_out: bool,
    noloop: bool,
    prefixes: Vec<&'a [u8]>,
}

/// `CLIENT TRACKING (ON|OFF) [option …]`.
pub(super) fn wanted(request: &Request<'_>, client: &Client) -> Result<After, Refusal> {
    if request.len() < 3 {
        return Err(super::misused("CLIENT", request.arg(1)));
    }
    let options = Options::parse(request)?;
    match request.arg(2) {
        on if is(on, "ON") => {
            let scope = options.scope(client.tracking.as_deref())?;
            Ok(After::Track(Some(Box::new(Tracking {
                scope,
                noloop: options.noloop,
                // Nobody has a number below 1.
                redirect: options.redirect.map(|id| u64::try_from(id).unwrap_or(0)),
                broken: false,
                caching: false,
            }))))
        }
        off if is(off, "OFF") => Ok(After::Track(None)),
        _ => Err(Refusal::text("ERR syntax error")),
    }
}

impl<'a> Options<'a> {
    fn parse(request: &Request<'a>) -> Result<Self, Refusal> {
        let (mut options, mut at) = (Self::default(), 3);
        while at < request.len() {
            let value = (at + 1 < request.len()).then(|| request.arg(at + 1));
            at += 1 + usize::from(options.add(request.arg(at), value)?);
        }
        Ok(options)
    }

    /// Takes an option; true if it takes the word behind it as well.
    fn add(&mut self, option: &[u8], value: Option<&'a [u8]>) -> Result<bool, Refusal> {
        match (option, value) {
            (o, Some(id)) if is(o, "REDIRECT") => {
                if self.redirect.is_some() {
                    return Err(Refusal::text(
                        "ERR A client can only redirect to a single other client",
                    ));
                }
                let id = super::integer(id);
                self.redirect =
                    Some(id.ok_or(Refusal::text("ERR value is not an integer or out of range"))?);
                return Ok(true);
            }
            (o, Some(prefix)) if is(o, "PREFIX") => {
                self.prefixes.push(prefix);
                return Ok(true);
            }
            (o, _) if is(o, "BCAST") => self.broadcast = true,
            (o, _) if is(o, "OPTIN") => self.opt_in = true,
            (o, _) if is(o, "OPTOUT") => self.opt_out = true,
            (o, _) if is(o, "NOLOOP") => self.noloop = true,
            _ => return Err(Refusal::text("ERR syntax error")),
        }
        Ok(false)
    }

    /// What they come to for a client that asked for something before, or did not.
    fn scope(&self, before: Option<&Tracking>) -> Result<Scope, Refusal> {
        self.fit(before)?;
        if self.broadcast {
            let known = before.and_then(Tracking::prefixes).cloned().unwrap_or_default();
            return self.with_prefixes(known).map(Scope::Broadcast);
        }
        Ok(match (self.opt_in, self.opt_out) {
            (true, _) => Scope::OptIn,
            (_, true) => Scope::OptOut,
            _ => Scope::Read,
        })
    }

    /// Whether they go together, and with what was asked for before.
    fn fit(&self, before: Option<&Tracking>) -> Result<(), Refusal> {
        let scope = before.map(|before| &before.scope);
        let was = |scopes: &[Scope]| scope.is_some_and(|scope| scopes.contains(scope));
        let switches = before.is_some_and(|b| b.prefixes().is_some() != self.broadcast);
        let turns = self.opt_in && was(&[Scope::OptOut]) || self.opt_out && was(&[Scope::OptIn]);
        let complaint = match () {
            () if !self.broadcast && !self.prefixes.is_empty() => {
                "PREFIX option requires BCAST mode to be enabled"
            }
            () if switches => {
                "You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode."
            }
            () if self.broadcast && (self.opt_in || self.opt_out) => {
                "OPTIN and OPTOUT are not compatible with BCAST"
            }
            () if self.opt_in && self.opt_out => {
                "You can't specify both OPTIN mode and OPTOUT mode"
            }
            () if turns => {
                "You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode."
            }
            () => return Ok(()),
        };
        Err(Refusal::text(format!("ERR {complaint}")))
    }

    /// The known prefixes with the new ones, none of which may be the beginning of another.
    fn with_prefixes(&self, mut known: BTreeSet<Bytes>) -> Result<BTreeSet<Bytes>, Refusal> {
        if known.len() + self.prefixes.len() > MOST_PREFIXES {
            let most = format!("ERR proxy: a client may name up to {MOST_PREFIXES} prefixes");
            return Err(Refusal::text(most));
        }
        let mut given = BTreeSet::new();
        for prefix in self.prefixes.iter().map(|prefix| Bytes::copy_from_slice(prefix)) {
            if let Some(other) = overlapping(&known, &prefix) {
                return Err(overlaps(&prefix, "an existing prefix", other));
            }
            if let Some(other) = overlapping(&given, &prefix) {
                return Err(overlaps(other, "another provided prefix", &prefix));
            }
            given.insert(prefix);
        }
        if given.is_empty() {
            // Without a word all keys are meant.
            given.insert(Bytes::new());
        }
        known.append(&mut given);
        Ok(known)
    }
}

/// One of these that is the beginning of `prefix`, or the other way round. Among those that do not overlap such a one is a
/// neighbour; only the empty one may be there besides.
fn overlapping<'a>(among: &'a BTreeSet<Bytes>, prefix: &Bytes) -> Option<&'a Bytes> {
    let before = among.range::<Bytes, _>(..prefix).next_back();
    let behind = among.range::<Bytes, _>(prefix..).next();
    let overlap = |other: &&Bytes| other.starts_with(prefix) || prefix.starts_with(other);
    [before, behind, among.first()].into_iter().flatten().find(overlap)
}

fn overlaps(prefix: &[u8], what: &str, other: &[u8]) -> Refusal {
    Refusal::text(format!(
        "ERR Prefix '{}' overlaps with {what} '{}'. Prefixes for a single client must not overlap.",
        lossy(prefix),
        lossy(other)
    ))
}

/// The number that `CLIENT GETREDIR` tells: 0 for who is told itself, -1 for who is not told.
pub(super) fn redirect(client: &Client) -> i64 {
    client.tracking.as_ref().map_or(-1, |tracking| {
        tracking.redirect.map_or(0, |id| i64::try_from(id).unwrap_or(i64::MAX))
    })
}

/// `CLIENT CACHING (YES|NO)`.
pub(super) fn caching(
    answer: &[u8],
    client: &mut Client,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let Some(tracking) = &mut client.tracking else {
        return Err(Refusal::text(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ));
    };
    let (scope, complaint) = match answer {
        yes if is(yes, "YES") => (
            Scope::OptIn,
            "CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
        ),
        no if is(no, "NO") => (
            Scope::OptOut,
            "CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
        ),
        _ => return Err(Refusal::text("ERR syntax error")),
    };
    if tracking.scope != scope {
        return Err(Refusal::text(format!("ERR {complaint}")));
    }
    tracking.caching = true;
    write::simple(out, "OK");
    Ok(())
}

/// `CLIENT TRACKINGINFO`.
pub(super) fn info(client: &Client, out: &mut Vec<u8>) {
    let tracking = client.tracking.as_deref();
    let flags = tracking.map_or_else(|| vec!["off"], flags);
    write::map(out, client.protocol, 3);
    write::bulk(out, "flags");
    write::set(out, client.protocol, flags.len());
    for flag in flags {
        write::bulk(out, flag);
    }
    write::bulk(out, "redirect");
    write::integer(out, redirect(client));
    write::bulk(out, "prefixes");
    let prefixes = tracking.and_then(Tracking::prefixes);
    write::array(out, prefixes.map_or(0, BTreeSet::len));
    prefixes.into_iter().flatten().for_each(|prefix| write::bulk(out, prefix));
}

fn flags(tracking: &Tracking) -> Vec<&'static str> {
    let scope: &[&str] = match (&tracking.scope, tracking.caching) {
        (Scope::Read, _) => &[],
        (Scope::Broadcast(_), _) => &["bcast"],
        (Scope::OptIn, false) => &["optin"],
        (Scope::OptIn, true) => &["optin", "caching-yes"],
        (Scope::OptOut, false) => &["optout"],
        (Scope::OptOut, true) => &["optout", "caching-no"],
    };
    let noloop = tracking.noloop.then_some("noloop");
    let broken = tracking.broken.then_some("broken_redirect");
    [&["on"], scope].concat().into_iter().chain(noloop).chain(broken).collect()
}
