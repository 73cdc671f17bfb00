//! The same for every node, each by itself: what one of them answers, or that it does not, is no other's concern.

use thiserror::Error;

use super::access::Access;
use super::view::{ClusterView, Line, NodeView};
use crate::backend::control::ControlError;
use crate::resp::value::Value;

/// Below it a hiccup of the network makes nodes take each other for dead.
pub const SHORTEST_TIMEOUT_MS: u64 = 100;

/// Which nodes are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whom {
    /// All of them.
    #[default]
    All,
    /// Primaries alone.
    Primaries,
    /// Replicas alone.
    Replicas,
}

/// What came of it at one node.
#[derive(Debug)]
pub struct Told {
    /// The node's address, as far as it is known.
    pub place: String,
    /// What it answered.
    pub outcome: Result<Value, Fault>,
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The node said so.
    #[error("{0}")]
    Refused(String),
    /// The node said nothing.
    #[error("{0}")]
    Silent(String),
}

impl From<ControlError> for Fault {
    fn from(error: ControlError) -> Self {
        match error.reply() {
            Some(text) => Self::Refused(text.to_owned()),
            None => Self::Silent(error.to_string()),
        }
    }
}

impl Whom {
    fn has(self, node: &Line) -> bool {
        match self {
            Self::All => true,
            Self::Primaries => !node.is_replica(),
            Self::Replicas => node.is_replica(),
        }
    }
}

/// Has nodes run a command, one after the other.
pub async fn call(
    view: &ClusterView,
    access: &Access,
    (whom, command): (Whom, &[&[u8]]),
    tell: &mut (dyn FnMut(Told) + Send),
) {
    for node in view.nodes.iter().filter(|node| whom.has(&node.own)) {
        let outcome = match access.open(&node.address).await {
            Ok(mut control) => control.call(command).await,
            Err(error) => Err(error),
        };
        tell(Told { place: node.address.to_string(), outcome: outcome.map_err(Fault::from) });
    }
    absent(view, whom, tell);
}

/// Sets how long nodes wait for each other, now and when they are started again.
pub async fn set_timeout(
    view: &ClusterView,
    access: &Access,
    ms: u64,
    tell: &mut (dyn FnMut(Told) + Send),
) {
    for node in &view.nodes {
        let outcome = set_timeout_of(node, access, ms).await;
        tell(Told { place: node.address.to_string(), outcome });
    }
    absent(view, Whom::All, tell);
}

async fn set_timeout_of(node: &NodeView, access: &Access, ms: u64) -> Result<Value, Fault> {
    let mut control = access.open(&node.address).await?;
    let ms = ms.to_string();
    control.call(&[b"CONFIG", b"SET", b"cluster-node-timeout", ms.as_bytes()]).await?;
    let rewritten = control.call(&[b"CONFIG", b"REWRITE"]).await;
    rewritten
        .map_err(|error| Fault::Refused(format!("{} (live, not persisted)", Fault::from(error))))
}

fn absent(view: &ClusterView, whom: Whom, tell: &mut (dyn FnMut(Told) + Send)) {
    for absent in view.absent.iter().filter(|absent| whom.has(&absent.line)) {
        let outcome = Err(Fault::Silent(absent.reason.clone()));
        tell(Told { place: absent.line.place(), outcome });
    }
}
