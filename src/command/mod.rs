//! What is known of every command: one row in one table, and nowhere else.
//!
//! `table` holds the rows, `keys` finds the keys of a request, `split` cuts a command over several slots into one command
//! per slot, and `merge` makes one reply of the replies to those. Nothing here knows of nodes or connections.

pub mod across;
pub mod function;
pub mod glob;
pub mod info;
pub mod keys;
pub mod learned;
mod lua;
pub mod merge;
pub mod script;
pub mod sort;
pub mod split;
pub mod table;
pub mod wait;

use crate::cluster::Slot;

pub use across::{Across, CrossSlot};
pub use table::lookup;
pub use wait::{Timeout, Wait};

/// How far a request, or a part of one, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// On its way to a node, or there.
    Out,
    /// On its way again, after a node turned it away or was lost.
    OutAgain,
    /// Turned away, and waiting for its next attempt.
    Aside,
    /// Answered by a node.
    Answered,
    /// Answered by the proxy with an error. Order is promised only to those that are not.
    Refused,
}

impl Standing {
    /// Whether the request has not been answered.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Out | Self::OutAgain | Self::Aside)
    }
}

/// What a request, or a part of one, asks of the order among its client's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing: it has no keys.
    None,
    /// Its place among the requests on this slot.
    Slot(Slot),
    /// The same, and that nothing on the slot is sent behind it until it is answered. It has several keys, so while the
    /// slot moves the node may turn it away (`TRYAGAIN`) and still run what stands behind it.
    Whole(Slot),
    /// That nothing at all is sent behind it until it is answered: it concerns all slots.
    All,
}

impl Claim {
    /// For a request with so many keys on a slot.
    pub fn of(slot: Slot, keys: usize) -> Self {
        if keys > 1 { Self::Whole(slot) } else { Self::Slot(slot) }
    }

    /// Whether the request has to do with this slot.
    pub fn covers(self, slot: Slot) -> bool {
        match self {
            Self::None => false,
            Self::Slot(own) | Self::Whole(own) => own == slot,
            Self::All => true,
        }
    }
}

/// What of a command matters on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nature {
    /// It only reads, so that it may be sent twice and need not keep its order among other reads.
    pub reads: bool,
    /// Its replies, errors too, may be words of a script's and not of the server's.
    pub scripted: bool,
    /// It is several requests in one piece, of which the last one's reply counts.
    pub unit: bool,
}

impl Nature {
    /// Of a command that writes and whose errors are the server's.
    pub const WRITE: Self = Self { reads: false, scripted: false, unit: false };
}

/// One command, or one subcommand of a container command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Lower-case name, a subcommand without its container: `get`, `encoding`; empty in a learned row.
    pub name: &'static str,
    /// Number of arguments with the name (and the container's name); negative means at least so many.
    pub arity: i16,
    /// Where the keys are.
    pub keys: Keys,
    /// What the proxy does with it.
    pub policy: Policy,
    /// Properties, as in the server's `COMMAND` reply.
    pub flags: Flags,
    /// Family for metrics, `COMMAND DOCS` and ACL categories.
    pub group: Group,
    /// What it does with its first key, and with the others, as users' rights count it.
    pub uses: [Use; 2],
    /// How it is done with keys in several slots, if the proxy does that.
    pub across: Option<Across>,
    /// Subcommands; empty unless the command is a container such as `OBJECT`.
    pub subcommands: &'static [Spec],
}

/// Where the keys of a command stand among its arguments (argument 0 is the name).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// No keys.
    None,
    /// `first..=last` in steps; a negative `last` counts from the end (-1 is the last argument).
    Range {
        /// First key.
        first: u8,
        /// Last key; negative counts from the end.
        last: i8,
        /// Distance from one key to the next.
        step: u8,
    },
    /// A count at argument `count`, the keys right behind it `step` apart, and perhaps one more key at `also` (0: none).
    Counted {
        /// Argument that holds the number of keys.
        count: u8,
        /// Distance from one key to the next.
        step: u8,
        /// One more key in front, such as a destination; 0 for none.
        also: u8,
    },
    /// `… STREAMS key [key …] id [id …]`, searched from argument `from`.
    Streams {
        /// First argument where the word can stand.
        from: u8,
    },
    /// The key at argument 1, and one behind the last of the words that stands at argument `from` or later.
    Worded {
        /// First argument where the words can stand.
        from: u8,
        /// Upper-case words that announce a key.
        words: &'static [&'static str],
        /// Other options, upper-case, with the number of arguments that follow each and are none of the words.
        skip: &'static [(&'static str, u8)],
    },
}

/// What the proxy does with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Sent whole to the owner of its keys' one slot; keys in several slots are refused.
    Keyed,
    /// As `Keyed`, but it may wait at its node for as long as this argument says.
    Blocking(Timeout),
    /// As `Keyed`, unless it has patterns that name keys of other slots: then the proxy does it.
    Sort,
    /// As `Keyed` if all keys share a slot; else one command per slot, and one reply merged of theirs.
    Split(Merge),
    /// Sent to every primary, one reply merged of theirs.
    Every(Merge),
    /// Without keys, and any primary can answer it.
    Any,
    /// Answered by the proxy itself.
    Local(Local),
    /// Sent to the owner of its channel's slot, or to any primary; the clients of this proxy are counted among its receivers.
    Publish,
    /// Changes what the session does with the commands behind it, or concerns all sessions.
    Session(Verb),
    /// Takes the proxy several questions to the nodes, one after the other.
    Errand(Errand),
    /// Never allowed through a proxy.
    Refuse,
    /// Understood, and not offered yet.
    Later,
}

/// Commands that change what the session does with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the command of the same name")]
pub enum Verb {
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Wait,
    Subscribe,
    Unsubscribe,
    Psubscribe,
    Punsubscribe,
    Ssubscribe,
    Sunsubscribe,
    Pubsub,
}

impl Verb {
    /// Whether a client of RESP2 may use it while it is subscribed.
    pub fn suits_subscribed(self) -> bool {
        let (subscribe, unsubscribe) = (
            matches!(self, Self::Subscribe | Self::Psubscribe | Self::Ssubscribe),
            matches!(self, Self::Unsubscribe | Self::Punsubscribe | Self::Sunsubscribe),
        );
        subscribe || unsubscribe
    }
}

/// Commands for which the proxy asks nodes one after the other, or everywhere on connections of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// `SCAN`: one page of one node's keys.
    Scan,
    /// `RANDOMKEY`.
    RandomKey,
    /// `SCRIPT LOAD`: on every primary, and remembered.
    LoadScript,
    /// `FUNCTION LOAD`: on every primary, and remembered.
    LoadLibrary,
    /// `SCRIPT EXISTS`: known to every primary, or here.
    HaveScripts,
    /// `SCRIPT FLUSH`: on every primary, and forgotten.
    FlushScripts,
    /// `SCRIPT KILL`, `FUNCTION KILL`: where one runs. The lane to that node is busy with it.
    Kill,
    /// `FUNCTION STATS`: of the node where one runs, if there is one.
    RunningFunction,
    /// `SAVE`: on every primary, but in the background.
    Save,
    /// `PING` of all primaries, if that is what it is for.
    Ping,
    /// `SORT`, `SORT_RO` with patterns: elements of one node, weights and values of all.
    Sort,
}

/// How the replies of the parts become one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Array elements put back in the order of the keys (`MGET`).
    ByKey,
    /// Integers added (`DEL`, `DBSIZE`).
    Sum,
    /// The node's count of receivers, and what the proxy adds to it or takes off (`PUBLISH`).
    Receivers,
    /// The first reply, provided that none is an error (`MSET`, `FLUSHALL`).
    AllOk,
    /// Arrays one behind the other (`KEYS`).
    Concat,
    /// `INFO`: the nodes' numbers added into the proxy's own text.
    Info,
    /// `EXEC`: the proxy's own replies put in among the node's.
    Splice,
}

/// Commands that the proxy answers itself, each with its own function under `local`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the command of the same name")]
pub enum Local {
    Acl,
    Ping,
    Echo,
    Time,
    Quit,
    Select,
    Auth,
    Hello,
    Reset,
    Client,
    Command,
    Config,
    Cluster,
    Readonly,
    Readwrite,
    Asking,
    Role,
    LastSave,
    Slowlog,
    Debug,
    Info,
    Latency,
    Monitor,
}

/// Family of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the server's group of the same name")]
pub enum Group {
    Generic,
    String,
    Bitmap,
    Hash,
    List,
    Set,
    SortedSet,
    Stream,
    Geo,
    HyperLogLog,
    PubSub,
    Scripting,
    Transactions,
    Connection,
    Server,
    Cluster,
    Module,
}

/// What a command does with a key's value, as far as users' rights go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// It tells the client of what is stored there, or of what it makes of that.
    pub reads: bool,
    /// It changes, adds or takes away.
    pub writes: bool,
}

impl Use {
    /// It tells no more of the key than that it is there, its type or its size.
    pub const NONE: Self = Self { reads: false, writes: false };
    /// It only reads.
    pub const READ: Self = Self { reads: true, writes: false };
    /// It writes, and tells nothing of what was there.
    pub const WRITE: Self = Self { reads: false, writes: true };
    /// It reads and writes.
    pub const BOTH: Self = Self { reads: true, writes: true };

    /// What most commands with these flags do with all of their keys.
    pub const fn of(flags: Flags) -> [Self; 2] {
        if flags.has(Flags::READONLY) {
            [Self::READ; 2]
        } else if flags.has(Flags::WRITE) {
            [Self::WRITE; 2]
        } else {
            [Self::BOTH; 2]
        }
    }

    /// Whether this allows all of `other`.
    pub fn covers(self, other: Self) -> bool {
        (self.reads || !other.reads) && (self.writes || !other.writes)
    }
}

/// Set of properties of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u32);

#[expect(missing_docs, reason = "each constant is the server's flag of the same name")]
impl Flags {
    pub const NONE: Self = Self(0);
    pub const WRITE: Self = Self(1);
    pub const READONLY: Self = Self(1 << 1);
    pub const DENYOOM: Self = Self(1 << 2);
    pub const ADMIN: Self = Self(1 << 3);
    pub const PUBSUB: Self = Self(1 << 4);
    pub const NOSCRIPT: Self = Self(1 << 5);
    pub const BLOCKING: Self = Self(1 << 6);
    pub const LOADING: Self = Self(1 << 7);
    pub const STALE: Self = Self(1 << 8);
    pub const SKIP_MONITOR: Self = Self(1 << 9);
    pub const SKIP_SLOWLOG: Self = Self(1 << 10);
    pub const ASKING: Self = Self(1 << 11);
    pub const FAST: Self = Self(1 << 12);
    pub const NO_AUTH: Self = Self(1 << 13);
    pub const MAY_REPLICATE: Self = Self(1 << 14);
    pub const NO_ASYNC_LOADING: Self = Self(1 << 15);
    pub const NO_MULTI: Self = Self(1 << 16);
    pub const MOVABLE_KEYS: Self = Self(1 << 17);
    pub const ALLOW_BUSY: Self = Self(1 << 18);
    pub const NO_MANDATORY_KEYS: Self = Self(1 << 19);
    /// No flag of the server's: the command may have more keys than those that can be found.
    pub const MORE_KEYS: Self = Self(1 << 20);

    /// The union of two sets; usable in constants.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every flag of `other` is in this set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl Spec {
    /// Whether `argc` arguments (the name counted) are acceptable to the command.
    #[inline]
    pub fn accepts(&self, argc: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        argc == arity || argc > arity && self.arity < 0
    }

    /// Whether the command has exactly one key, right behind its name.
    #[inline]
    pub fn is_single(&self) -> bool {
        matches!(self.keys, Keys::Range { first: 1, last: 1, .. })
            && self.policy == Policy::Keyed
            && self.subcommands.is_empty()
    }

    /// Whether a replica may answer it.
    #[inline]
    pub fn suits_replica(&self) -> bool {
        self.is_readonly()
            && !self.flags.has(Flags::MAY_REPLICATE)
            && matches!(self.policy, Policy::Keyed | Policy::Sort | Policy::Split(_))
    }

    /// Whether the command only reads, so that sending it twice is harmless.
    pub fn is_readonly(&self) -> bool {
        self.flags.has(Flags::READONLY)
    }

    /// What of it matters on its way. The commands of modules may run scripts as well.
    #[inline]
    pub fn nature(&self) -> Nature {
        let scripted = matches!(self.group, Group::Scripting | Group::Module);
        Nature { reads: self.is_readonly(), scripted, unit: false }
    }

    /// What one of it on so many keys of a slot asks of the order among its client's requests. Its node may have to be told a
    /// script first, and what stands behind it must not run before that.
    pub fn claim(&self, slot: Slot, keys: usize) -> Claim {
        if self.names_script() { Claim::Whole(slot) } else { Claim::of(slot, keys) }
    }

    /// Whether it names a script by its digest, which its node may not know and then has to be told before it can run.
    pub fn names_script(&self) -> bool {
        self.group == Group::Scripting && matches!(self.name, "evalsha" | "evalsha_ro")
    }
}
