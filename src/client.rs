//! What is known of a client. Changed only by its own session.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::acl::{User, Users};
use crate::resp::Protocol;

/// State of one client that commands can see or change.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "as many independent facts as a server keeps flags"
)]
pub struct Client {
    /// Number of the client, unique within the process and increasing.
    pub id: u64,
    /// Where it connected from, if it came over TCP.
    pub peer: Option<SocketAddr>,
    /// The proxy's address that it connected to.
    pub local: Option<SocketAddr>,
    /// Version of RESP it asked for.
    pub protocol: Protocol,
    /// Whether it may run commands: its user needs no password, or it has given the right one.
    pub authenticated: bool,
    /// Who it is.
    pub user: Arc<User>,
    /// Whether there is anything that its user may not do.
    pub is_limited: bool,
    /// Names it gave itself; none for most clients.
    pub names: Option<Box<Names>>,
    /// Commands queued since `MULTI`; `None` without it.
    pub queued: Option<usize>,
    /// A command of its own waits for the end of `CLIENT PAUSE`.
    pub postponed: bool,
    /// It is shown what all clients ask for.
    pub monitors: bool,
    /// Bytes of the command at hand, as long as it looks at clients.
    pub query: usize,
    /// Its connection is closed once the replies under way are out.
    pub leaving: bool,
    /// Subcommand of its last command; empty if that has none.
    pub last_sub: &'static str,
    /// Milliseconds of the worker's clock when it connected.
    pub since_ms: u64,
    /// Milliseconds of the worker's clock when it last sent something.
    pub active_ms: u64,
    /// Name of its last command.
    pub last: &'static str,
    /// Commands it has sent.
    pub commands: u64,
    /// What it is subscribed to.
    pub subscribed: Subscribed,
    /// How it is told of changes to what it has read, if it is; `None` for most clients.
    pub tracking: Option<Box<Tracking>>,
}

/// What a client that keeps what it reads has asked for with `CLIENT TRACKING`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracking {
    /// Of which changes it is told.
    pub scope: Scope,
    /// It wants to hear nothing of its own writes.
    pub noloop: bool,
    /// The client that is told in its place.
    pub redirect: Option<u64>,
    /// That client is gone.
    pub broken: bool,
    /// `CLIENT CACHING` was said of the next command.
    pub caching: bool,
}

/// Of which changes a client that tracks is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those to the keys that it has read.
    Read,
    /// Those to the keys that it has read right behind `CLIENT CACHING YES`.
    OptIn,
    /// Those to the keys that it has read, but not right behind `CLIENT CACHING NO`.
    OptOut,
    /// Those to all keys that begin so.
    Broadcast(BTreeSet<Bytes>),
}

impl Tracking {
    /// The beginnings of the keys that it is told of whether it has read them or not; `None` if it depends on that.
    pub fn prefixes(&self) -> Option<&BTreeSet<Bytes>> {
        match &self.scope {
            Scope::Broadcast(prefixes) => Some(prefixes),
            _ => None,
        }
    }

    /// Whether it is told of changes to the keys that the next command reads.
    pub fn wants_reads(&self) -> bool {
        match self.scope {
            Scope::Read | Scope::Broadcast(_) => true,
            Scope::OptIn => self.caching,
            Scope::OptOut => !self.caching,
        }
    }
}

/// How much a client is subscribed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscribed {
    /// Channels.
    pub channels: u32,
    /// Patterns of channels.
    pub patterns: u32,
    /// Channels of shards.
    pub shards: u32,
}

/// What a client says of itself with `CLIENT SETNAME` and `CLIENT SETINFO`.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `CLIENT SETNAME`, or the option of `HELLO`.
    pub name: String,
    /// `CLIENT SETINFO LIB-NAME`.
    pub library: String,
    /// `CLIENT SETINFO LIB-VER`.
    pub library_version: String,
}

impl Client {
    /// A client that has just connected, and so is the default user.
    pub fn new(
        id: u64,
        peer: Option<SocketAddr>,
        local: Option<SocketAddr>,
        user: Arc<User>,
        now_ms: u64,
    ) -> Self {
        Self {
            id,
            peer,
            local,
            protocol: Protocol::Resp2,
            authenticated: user.is_open(),
            is_limited: user.is_limited(),
            user,
            names: None,
            queued: None,
            postponed: false,
            monitors: false,
            query: 0,
            leaving: false,
            last_sub: "",
            since_ms: now_ms,
            active_ms: now_ms,
            last: "NULL",
            commands: 0,
            subscribed: Subscribed::default(),
            tracking: None,
        }
    }

    /// It has shown that it is this user.
    pub fn log_in(&mut self, user: Arc<User>) {
        self.authenticated = true;
        self.take_user(user);
    }

    /// Its user has become another one, or another one of the same name.
    pub fn take_user(&mut self, user: Arc<User>) {
        self.is_limited = user.is_limited();
        self.user = user;
    }

    /// Becomes its user as that is now; false if there is none any more, and then it may do nothing.
    pub fn renew(&mut self, users: &Users) -> bool {
        let Some(user) = users.find(self.user.name.as_bytes()) else {
            self.take_user(users.default_user());
            self.authenticated = false;
            return false;
        };
        if !Arc::ptr_eq(user, &self.user) {
            self.take_user(Arc::clone(user));
            // Of the default user alone a client may be one without having shown it.
            self.authenticated |= self.user.is_open();
        }
        true
    }

    /// The names, made when first written to.
    pub fn names_mut(&mut self) -> &mut Names {
        self.names.get_or_insert_default()
    }

    /// Whether it is subscribed to anything.
    #[inline]
    pub fn is_subscribed(&self) -> bool {
        self.subscribed != Subscribed::default()
    }

    /// Whether it may do little else than subscribe: RESP2 cannot tell messages from replies.
    pub fn is_confined(&self) -> bool {
        self.protocol == Protocol::Resp2 && self.is_subscribed()
    }

    /// `RESET`: as freshly connected.
    pub fn reset(&mut self, user: Arc<User>) {
        self.protocol = Protocol::Resp2;
        self.authenticated = user.is_open();
        self.take_user(user);
        if let Some(names) = &mut self.names {
            names.name.clear();
        }
    }
}
