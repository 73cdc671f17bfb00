//! Every error the proxy itself can say: its wire text, the label it is counted under, and whose fault it is.
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
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(String),
    #[error("ERR command '{0}' is not allowed through the proxy")]
    NotAllowed(String),
    #[error("ERR command '{0}' is not supported by this proxy yet")]
    NotYet(String),
    #[error("CROSSSLOT Keys in request don't hash to the same slot")]
    CrossSlot,
    #[error("ERR Command not allowed inside a transaction")]
    InMulti,
    #[error("EXECABORT Transaction discarded because of previous errors.")]
    ExecAbort,
    #[error("CLUSTERDOWN Hash slot not served")]
    SlotNotServed,
    #[error(
        "CLUSTERDOWN node {node} did not become reachable within {waited_ms} ms, the request was not executed"
    )]
    NodeDown { node: String, waited_ms: u64 },
    #[error("CLUSTERDOWN too many requests wait for node {0}, the request was not executed")]
    QueueFull(String),
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
    WrongPass,
    #[error(
        "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"
    )]
    NoPassword,
    #[error("NOPROTO unsupported protocol version")]
    NoProto,
    #[error("{0}")]
    Text(Cow<'static, str>),
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

impl Refusal {
    /// An error with the server's text, given without the leading `-`.
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

    /// Value of the `reason` label the refusal is counted under.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Protocol(_) => "protocol",
            Self::UnknownCommand { .. } | Self::UnknownSubcommand { .. } => "unknown_command",
            Self::Arity(_) => "arity",
            Self::NotAllowed(_) => "not_allowed",
            Self::NotYet(_) => "not_supported",
            Self::CrossSlot => "cross_slot",
            Self::InMulti | Self::ExecAbort => "transaction",
            Self::SlotNotServed => "slot_not_served",
            Self::NodeDown { .. } => "node_down",
            Self::QueueFull(_) => "queue_full",
            Self::ConnectionLost(_) | Self::PartLost | Self::Dropped => "connection_lost",
            Self::Timeout(_) => "timeout",
            Self::Overtaken | Self::Preceded => "out_of_order",
            Self::NoAuth | Self::HelloNoAuth | Self::WrongPass | Self::NoPassword => "auth",
            Self::NoProto | Self::Text(_) => "argument",
        }
    }

    /// Who has to mend the cause.
    pub fn fault(&self) -> Fault {
        match self {
            Self::SlotNotServed
            | Self::NodeDown { .. }
            | Self::ConnectionLost(_)
            | Self::Timeout(_)
            | Self::PartLost => Fault::Cluster,
            Self::QueueFull(_) | Self::Overtaken | Self::Preceded | Self::Dropped => Fault::Proxy,
            _ => Fault::Client,
        }
    }
}
