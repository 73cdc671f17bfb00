//! Every error the proxy itself can say: its wire text, the reason it is counted under, and whose fault it is.
//!
//! Texts that clients match on are the server's own, byte for byte. The prefixes `CLUSTERDOWN` and `TRYAGAIN`, on which
//! clients retry by themselves, are used only where the request certainly did not run.

use std::borrow::Cow;

use thiserror::Error;

use crate::resp::frame::RequestError;

/// Why the proxy answers a request itself with an error.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the text of each variant is its documentation")]
pub enum Refusal {
    #[error("ERR Protocol error: {0}")]
    Protocol(#[from] RequestError),
    #[error("ERR unknown command '{name}', with args beginning with: {args}")]
    UnknownCommand { name: String, args: String },
    #[error("ERR unknown subcommand '{sub}'. Try {command} HELP.")]
    UnknownSubcommand { command: String, sub: String },
    #[error("{START}wrong number of arguments for '{0}' command", START = start(.0))]
    Arity(String),
    #[error("ERR command '{0}' is not allowed through the proxy")]
    NotAllowed(String),
    #[error("ERR command '{0}' is not supported by this proxy yet")]
    NotYet(String),
    #[error("ERR PROXY is for the admin port")]
    AdminPort,
    #[error("CROSSSLOT Keys in request don't hash to the same slot")]
    CrossSlot,
    #[error("ERR Command not allowed inside a transaction")]
    InMulti,
    #[error("{START}Can't execute '{0}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context", START = start(.0))]
    Subscribed(String),
    #[error("EXECABORT Transaction discarded because of previous errors.")]
    ExecAbort,
    #[error("UNBLOCKED client unblocked via CLIENT UNBLOCK")]
    Unblocked,
    #[error("CLUSTERDOWN Hash slot not served")]
    SlotNotServed,
    #[error(
        "CLUSTERDOWN node {node} did not become reachable within {waited_ms} ms, the request was not executed"
    )]
    NodeDown { node: String, waited_ms: u64 },
    #[error("CLUSTERDOWN too many requests wait for node {0}, the request was not executed")]
    QueueFull(String),
    #[error(
        "CLUSTERDOWN no connection to node {0} is free for a command that needs its own, the request was not executed"
    )]
    NoLease(String),
    #[error("ERR proxy: upstream connection lost, outcome unknown ({0})")]
    ConnectionLost(String),
    #[error("ERR proxy: upstream timeout, outcome unknown ({0})")]
    Timeout(String),
    #[error("ERR proxy: a part of the command failed to come back, outcome unknown")]
    PartLost,
    #[error("TRYAGAIN a later command of this client ran first, the request was not executed")]
    Overtaken,
    #[error(
        "TRYAGAIN an earlier command of this client on the slot still waits, the request was not executed"
    )]
    Preceded,
    #[error("ERR proxy: the request was dropped, outcome unknown")]
    Dropped,
    #[error("NOAUTH Authentication required.")]
    NoAuth,
    #[error(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time"
    )]
    HelloNoAuth,
    #[error("WRONGPASS invalid username-password pair or user is disabled.")]
    WrongPass { command: String, user: String },
    #[error(
        "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"
    )]
    NoPassword,
    #[error("{START}this user has no permissions to run the '{0}' command", START = denied(.0))]
    DeniedCommand(String),
    #[error("NOPERM this user has no permissions to access one of the keys used as arguments")]
    DeniedKey(Vec<u8>),
    #[error("NOPERM this user has no permissions to access one of the channels used as arguments")]
    DeniedChannel(Vec<u8>),
    #[error("NOPROTO unsupported protocol version")]
    NoProto,
    #[error("CLUSTERDOWN The cluster is down")]
    ClusterDown,
    #[error("TRYAGAIN the slot is moving between nodes, the request was not executed")]
    SlotMoving,
    #[error("{0}")]
    LastWord(String),
    #[error("{0}")]
    Text(Cow<'static, str>),
}

/// How an error begins that says why a command was not taken: an `EXEC` takes the transaction with it.
fn start(command: &str) -> &'static str {
    if command == "exec" { "EXECABORT Transaction discarded because of: " } else { "ERR " }
}

fn denied(command: &str) -> &'static str {
    match command {
        "exec" => "EXECABORT Transaction discarded because of: NOPERM ",
        _ => "NOPERM ",
    }
}

/// Who has to mend the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client sent something wrong.
    Client,
    /// The cluster could not serve.
    Cluster,
    /// The proxy's own limits or state.
    Proxy,
}

impl Fault {
    /// Value of the label `fault`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Cluster => "cluster",
            Self::Proxy => "proxy",
        }
    }
}

macro_rules! reasons {
    ($($name:ident = $label:literal $fault:ident;)*) => {
        /// What refusals are counted under.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the label of each is its documentation")]
        pub enum Reason { $($name),* }

        impl Reason {
            /// All reasons, each at the place that its number says.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Value of the label `reason`.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }

            /// Who has to mend the cause.
            pub fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault),* }
            }
        }
    };
}

reasons! {
    Protocol = "protocol" Client;
    UnknownCommand = "unknown_command" Client;
    Arity = "arity" Client;
    Argument = "argument" Client;
    NotAllowed = "not_allowed" Client;
    NotSupported = "not_supported" Client;
    CrossSlot = "cross_slot" Client;
    Transaction = "transaction" Client;
    Auth = "auth" Client;
    Permission = "permission" Client;
    Unblocked = "unblocked" Client;
    SlotNotServed = "slot_not_served" Cluster;
    ClusterDown = "cluster_down" Cluster;
    NodeDown = "node_down" Cluster;
    NodeUnable = "node_unable" Cluster;
    SlotMoving = "slot_moving" Cluster;
    ConnectionLost = "connection_lost" Cluster;
    Timeout = "timeout" Cluster;
    QueueFull = "queue_full" Proxy;
    OutOfOrder = "out_of_order" Proxy;
    Dropped = "dropped" Proxy;
}

impl Refusal {
    /// What is wrong with the arguments, in the server's words, given without the leading `-`.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Text(text.into())
    }

    /// `ERR unknown command`, quoting up to 128 bytes of the arguments as the server does.
    pub fn unknown<'a>(name: &[u8], args: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut quoted = String::new();
        for arg in args {
            if quoted.len() >= 128 {
                break;
            }
            let room = 128 - quoted.len();
            quoted.push('\'');
            quoted.push_str(&String::from_utf8_lossy(&arg[..arg.len().min(room)]));
            quoted.push_str("' ");
        }
        Self::UnknownCommand {
            name: String::from_utf8_lossy(&name[..name.len().min(128)]).into_owned(),
            args: quoted,
        }
    }

    /// What it is counted under.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Protocol(_) => Reason::Protocol,
            Self::UnknownCommand { .. } | Self::UnknownSubcommand { .. } => Reason::UnknownCommand,
            Self::Arity(_) => Reason::Arity,
            Self::NoProto | Self::Text(_) => Reason::Argument,
            Self::NotAllowed(_) | Self::AdminPort => Reason::NotAllowed,
            Self::NotYet(_) => Reason::NotSupported,
            Self::CrossSlot => Reason::CrossSlot,
            Self::InMulti | Self::ExecAbort | Self::Subscribed(_) => Reason::Transaction,
            Self::NoAuth | Self::HelloNoAuth | Self::WrongPass { .. } | Self::NoPassword => {
                Reason::Auth
            }
            Self::DeniedCommand(_) | Self::DeniedKey(_) | Self::DeniedChannel(_) => {
                Reason::Permission
            }
            Self::Unblocked => Reason::Unblocked,
            Self::SlotNotServed => Reason::SlotNotServed,
            Self::ClusterDown => Reason::ClusterDown,
            Self::NodeDown { .. } => Reason::NodeDown,
            Self::LastWord(_) => Reason::NodeUnable,
            Self::SlotMoving => Reason::SlotMoving,
            Self::ConnectionLost(_) | Self::PartLost => Reason::ConnectionLost,
            Self::Timeout(_) => Reason::Timeout,
            Self::QueueFull(_) | Self::NoLease(_) => Reason::QueueFull,
            Self::Overtaken | Self::Preceded => Reason::OutOfOrder,
            Self::Dropped => Reason::Dropped,
        }
    }

    /// Who has to mend the cause.
    pub fn fault(&self) -> Fault {
        self.reason().fault()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_the_clusters_fault() {
        let word = "LOADING Redis is loading the dataset in memory";
        for (refusal, text, reason) in [
            (Refusal::LastWord(word.to_owned()), word, "node_unable"),
            (Refusal::ClusterDown, "CLUSTERDOWN The cluster is down", "cluster_down"),
            (
                Refusal::SlotMoving,
                "TRYAGAIN the slot is moving between nodes, the request was not executed",
                "slot_moving",
            ),
        ] {
            assert_eq!(refusal.to_string(), text);
            assert_eq!((refusal.reason().label(), refusal.fault()), (reason, Fault::Cluster));
        }
    }

    #[test]
    fn reasons_stand_where_their_number_says() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert_eq!(Reason::ALL.iter().filter(|r| r.label() == reason.label()).count(), 1);
        }
    }
}
