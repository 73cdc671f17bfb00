//! The nodes' side: one pipelined connection per node and class, and everything that can happen to a request on it.
//!
//! ```text
//!   Pool::send ─► Lane: log of bytes + FIFO of entries ─► Backend::poll ─► node
//!                   ▲                                          │ replies, in the order of the entries
//!                   └──── Pool::follow ◄── MOVED, ASK, … ◄─────┤
//!                                                              ▼ Promise::fulfil
//! ```
//! A request's bytes stay in the lane's log until its reply is there, so that it can be sent again elsewhere when a node
//! says that it did not run it. Nothing here knows of clients, and no redirect leaves this module.

mod connection;
pub mod control;
mod ear;
mod handshake;
mod inlet;
mod lane;
pub mod lease;
mod libraries;
mod log;
mod pool;
mod reads;
mod retry;
mod scripts;
mod slow;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::Address;
use crate::command::glob;
use crate::net::Way;

pub use control::Control;
pub use ear::{Heed, Lanes, News};
pub use inlet::Inlet;
pub use lane::{Class, DISCARD, Ticket};
pub use lease::{Lease, Said};
pub use pool::{Hint, Pool};
pub use reads::ReadFrom;
pub use scripts::Scripts;

/// How the proxy deals with nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long connecting to a node and its handshake may take.
    pub connect_timeout: Duration,
    /// How long a node may stay silent on a request it was sent before the connection is given up.
    pub response_timeout: Duration,
    /// How long a request may wait for a redirect, a migration or a failover before it is refused.
    pub request_budget: Duration,
    /// Most requests that wait for a node which is down.
    pub queue_requests: usize,
    /// Most bytes of requests that wait for a node which is down.
    pub queue_bytes: usize,
    /// Most connections to one node that sessions have for themselves for a command or a transaction; and as many that clients
    /// have which want to hear nothing of their own writes.
    pub exclusive_connections: usize,
    /// Which nodes answer reads.
    pub read_from: ReadFrom,
    /// Which nodes are in the proxy's zone: patterns of their addresses, as `host:port`.
    pub near: Vec<String>,
    /// How the proxy authenticates with the nodes.
    pub credentials: Option<Credentials>,
    /// What connections to the nodes travel on.
    pub way: Way,
}

impl Options {
    /// Whether a node is in the proxy's zone.
    fn is_near(&self, address: &Address) -> bool {
        let address = address.to_string();
        self.near.iter().any(|pattern| glob::matches(pattern.as_bytes(), address.as_bytes()))
    }
}

/// User and password for the nodes.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// ACL user; `None` for the default user.
    pub username: Option<String>,
    /// Password.
    pub password: String,
}

/// The password is nobody's business.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The bytes of a request on their way to a lane.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// Copied into the lane's log.
    Small(&'a [u8]),
    /// Kept by reference.
    Large(&'a Bytes),
}

impl Payload<'_> {
    #[inline]
    fn len(self) -> usize {
        match self {
            Self::Small(bytes) => bytes.len(),
            Self::Large(bytes) => bytes.len(),
        }
    }
}
