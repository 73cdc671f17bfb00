//! What a command asks of all workers, because only together they know it or can do it, and what comes of it.

use super::calls::Ledger;
use super::client::Chosen;
use super::{denials, is, lossy, slowlog};
use crate::acl::Users;
use crate::client::Client;
use crate::refusal::Refusal;
use crate::resp::request::Request;
use crate::resp::{Protocol, write};

/// Something every worker has a share in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Muster {
    /// `CLIENT LIST`.
    List(Chosen),
    /// `CLIENT KILL`.
    Kill(Kill),
    /// `CLIENT UNBLOCK`.
    Unblock(u64, Unblock),
    /// `CLIENT PAUSE`.
    Pause(Pause),
    /// `CLIENT UNPAUSE`.
    Unpause,
    /// The commands that the proxy has answered by itself.
    Calls,
    /// `CONFIG RESETSTAT`: these are counted anew.
    ForgetCalls,
    /// How many clients wait for something, and how much those read that track; if wanted, with the commands that the proxy has
    /// answered by itself.
    Tally {
        /// Whether these are wanted.
        calls: bool,
    },
    /// Whether the client with this number is there.
    Seek(u64),
    /// `SLOWLOG GET`, of so many entries.
    ShowSlow(u64),
    /// `SLOWLOG LEN`, with the most entries that there can be.
    CountSlow(u64),
    /// `SLOWLOG RESET`.
    ForgetSlow,
    /// That clients are the users who are in force now; with how many users were removed, if that is what was done.
    Renew(Option<usize>),
    /// `ACL LOG`.
    ShowDenials(denials::Look),
    /// `ACL LOG RESET`.
    ForgetDenials,
}

/// How `CLIENT UNBLOCK` ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblock {
    /// As if its time were up.
    TimeOut,
    /// With an error.
    Error,
}

/// For how long `CLIENT PAUSE` holds back what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Milliseconds from now.
    pub ms: u64,
    /// What is held back.
    pub held: Held,
}

/// What `CLIENT PAUSE` holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// Commands that may write.
    Writes,
    /// All commands.
    All,
}

/// Whom `CLIENT KILL` disconnects: those of whom everything is true that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    form: Form,
    id: Option<u64>,
    peer: Option<String>,
    local: Option<String>,
    user: Option<String>,
    /// A kind of clients that there are none of.
    nobody: bool,
    /// Whether it is subscribed to something.
    subscribed: Option<bool>,
    skipped: Option<u64>,
}

/// How `CLIENT KILL` was written, which says how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// With an address alone.
    Old,
    /// With filters.
    New,
}

/// What one worker, or several, contributed.
#[derive(Debug, Default)]
pub struct Share {
    /// Clients that it was done to.
    pub count: u64,
    /// Whether the one who asked is among them.
    pub is_asker: bool,
    /// Numbers and lines of clients.
    pub lines: Vec<(u64, String)>,
    /// Slow commands.
    pub slow: Vec<slowlog::Entry>,
    /// Clients that track, the keys they have read, these counted for each client, and what else they want to hear of.
    pub tracking: [u64; 4],
    /// What was denied to clients.
    pub denials: Vec<denials::Entry>,
    /// Commands that the proxy has answered by itself.
    pub calls: Ledger,
}

impl Share {
    /// Both shares.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.lines.extend(other.lines);
        self.slow.extend(other.slow);
        self.denials.extend(other.denials);
        self.calls.add(&other.calls);
        Self {
            count: self.count + other.count,
            is_asker: self.is_asker || other.is_asker,
            tracking: std::array::from_fn(|at| self.tracking[at] + other.tracking[at]),
            ..self
        }
    }
}

impl Muster {
    /// The reply, once all shares are together.
    pub fn reply(&self, share: Share, protocol: Protocol, out: &mut Vec<u8>) {
        let count = i64::try_from(share.count).unwrap_or(i64::MAX);
        match self {
            Self::List(chosen) => write::verbatim(out, protocol, &chosen.text(share.lines)),
            Self::Kill(Kill { form: Form::Old, .. }) if count == 0 => {
                write::error(out, "ERR No such client");
            }
            Self::ShowSlow(most) => slowlog::show(share.slow, *most, out),
            Self::CountSlow(most) => {
                write::integer(out, count.min(i64::try_from(*most).unwrap_or(i64::MAX)));
            }
            Self::ShowDenials(look) => denials::show(share.denials, *look, protocol, out),
            Self::Renew(Some(gone)) => {
                write::integer(out, i64::try_from(*gone).unwrap_or(i64::MAX));
            }
            Self::Kill(Kill { form: Form::New, .. })
            | Self::Unblock(..)
            | Self::Tally { .. }
            | Self::Seek(_) => write::integer(out, count),
            Self::Kill(_)
            | Self::Pause(_)
            | Self::Unpause
            | Self::ForgetSlow
            | Self::Calls
            | Self::ForgetCalls
            | Self::Renew(None)
            | Self::ForgetDenials => write::simple(out, "OK"),
        }
    }
}

impl Kill {
    /// `CLIENT KILL address` or `CLIENT KILL filter value …`, of the client with this number.
    pub(super) fn parse(request: &Request<'_>, asker: u64, users: &Users) -> Result<Self, Refusal> {
        let mut kill = Self {
            form: Form::New,
            id: None,
            peer: None,
            local: None,
            user: None,
            nobody: false,
            subscribed: None,
            skipped: Some(asker),
        };
        if request.len() == 3 {
            let peer = Some(text(request.arg(2)));
            return Ok(Self { form: Form::Old, peer, skipped: None, ..kill });
        }
        for at in (2..request.len()).step_by(2) {
            if at + 1 == request.len() {
                return Err(Refusal::text("ERR syntax error"));
            }
            kill.add(request.arg(at), request.arg(at + 1), (asker, users))?;
        }
        Ok(kill)
    }

    fn add(
        &mut self,
        filter: &[u8],
        value: &[u8],
        (asker, users): (u64, &Users),
    ) -> Result<(), Refusal> {
        match filter {
            f if is(f, "ID") => {
                let id = super::integer(value).and_then(|id| u64::try_from(id).ok());
                let id = id.filter(|id| *id > 0);
                self.id = Some(id.ok_or(Refusal::text("ERR client-id should be greater than 0"))?);
            }
            f if is(f, "TYPE") => match super::client::of_type(value)? {
                Chosen::Normal => self.subscribed = Some(false),
                Chosen::Subscribed => self.subscribed = Some(true),
                _ => self.nobody = true,
            },
            f if is(f, "ADDR") => self.peer = Some(text(value)),
            f if is(f, "LADDR") => self.local = Some(text(value)),
            f if is(f, "USER") => match users.find(value) {
                Some(user) => self.user = Some(user.name.clone()),
                None => {
                    return Err(Refusal::text(format!("ERR No such user '{}'", lossy(value))));
                }
            },
            f if is(f, "SKIPME") && is(value, "yes") => self.skipped = Some(asker),
            f if is(f, "SKIPME") && is(value, "no") => self.skipped = None,
            _ => return Err(Refusal::text("ERR syntax error")),
        }
        Ok(())
    }

    /// Whether this client is meant.
    pub fn means(&self, client: &Client) -> bool {
        let is_at = |wanted: &Option<String>, address: Option<std::net::SocketAddr>| {
            wanted.as_ref().is_none_or(|wanted| address.is_some_and(|a| a.to_string() == *wanted))
        };
        !self.nobody
            && self.skipped != Some(client.id)
            && self.id.is_none_or(|id| id == client.id)
            && self.user.as_ref().is_none_or(|user| *user == client.user.name)
            && self.subscribed.is_none_or(|subscribed| subscribed == client.is_subscribed())
            && is_at(&self.peer, client.peer)
            && is_at(&self.local, client.local)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `CLIENT UNBLOCK id [TIMEOUT|ERROR]`.
pub(super) fn unblock(request: &Request<'_>) -> Result<Muster, Refusal> {
    if request.len() > 4 {
        return Err(super::misused("CLIENT", request.arg(1)));
    }
    let how = match request.arg(3) {
        _ if request.len() == 3 => Unblock::TimeOut,
        how if is(how, "TIMEOUT") => Unblock::TimeOut,
        how if is(how, "ERROR") => Unblock::Error,
        _ => {
            return Err(Refusal::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
    };
    let id = super::integer(request.arg(2));
    let id = id.ok_or(Refusal::text("ERR value is not an integer or out of range"))?;
    // No client has a number below 1.
    Ok(Muster::Unblock(u64::try_from(id).unwrap_or(0), how))
}

/// `CLIENT PAUSE milliseconds [WRITE|ALL]`.
pub(super) fn pause(request: &Request<'_>) -> Result<Muster, Refusal> {
    if request.len() > 4 {
        return Err(super::misused("CLIENT", request.arg(1)));
    }
    let held = match request.arg(3) {
        _ if request.len() == 3 => Held::All,
        held if is(held, "WRITE") => Held::Writes,
        held if is(held, "ALL") => Held::All,
        _ => return Err(Refusal::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let ms = super::integer(request.arg(2));
    let ms = ms.ok_or(Refusal::text("ERR timeout is not an integer or out of range"))?;
    let ms = u64::try_from(ms).map_err(|_| Refusal::text("ERR timeout is negative"))?;
    Ok(Muster::Pause(Pause { ms, held }))
}
