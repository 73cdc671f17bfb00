//! What the proxy tells about itself: metrics, readiness, the log. Runs on the control thread; the request path knows
//! nothing of it.
//!
//! ```text
//!   workers' Stats ─┐
//!   Process ────────┼─► Observed ─┬─► publish, when scraped ─► http: /metrics
//!   Topology ───────┘             └─► readiness ─────────────► http: /readyz
//! ```

pub mod http;
pub mod log;
pub mod names;
mod publish;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::cluster::{SLOTS, Topology};
use crate::stats::Stats;

pub use http::serve;

/// Everything that is looked at from outside.
pub struct Observed {
    /// The numbers of each worker.
    pub workers: Vec<Arc<Stats>>,
    /// The published map of the cluster.
    pub topology: Arc<ArcSwap<Topology>>,
    /// Set when the process is about to stop.
    pub draining: Arc<AtomicBool>,
    /// Reads the numbers of the process, which stand in several layers that are not known here.
    pub process: Box<dyn Fn() -> Process + Send + Sync>,
}

/// The numbers that belong to no worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Clients accepted so far.
    pub accepted: u64,
    /// Connections closed at once because there were too many clients.
    pub rejected: u64,
    /// Times the cluster's map was asked for and came.
    pub refreshes: u64,
    /// Times the cluster's map was asked for and no node gave it.
    pub failed_refreshes: u64,
    /// Time since the map last came; `None` if it never did.
    pub topology_age: Option<Duration>,
}

/// Whether the proxy should be sent clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Every slot has an owner.
    Ready,
    /// So many slots have no owner; the others are served.
    Partial(usize),
    /// The cluster's map has not come yet.
    NoTopology,
    /// No slot has an owner.
    NotCovered,
    /// The process is about to stop.
    Draining,
}

impl Readiness {
    /// Whether clients are served.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Ready | Self::Partial(_))
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Partial(slots) => write!(f, "ready-partial: {slots} slots have no owner"),
            Self::NoTopology => f.write_str("no topology yet"),
            Self::NotCovered => write!(f, "slots not covered: {SLOTS}"),
            Self::Draining => f.write_str("draining"),
        }
    }
}

impl Observed {
    /// Whether the proxy should be sent clients now.
    pub fn readiness(&self) -> Readiness {
        let topology = self.topology.load();
        if self.draining.load(Relaxed) {
            return Readiness::Draining;
        }
        match SLOTS - topology.covered() {
            _ if topology.nodes().is_empty() => Readiness::NoTopology,
            0 => Readiness::Ready,
            SLOTS => Readiness::NotCovered,
            missing => Readiness::Partial(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Address, parse};

    /// Of two workers and a cluster of one node that owns these slots.
    pub(super) fn observed(slots: &str) -> Observed {
        let known = Address::parse("10.0.0.1:7001", None).unwrap();
        let line = format!("a 10.0.0.1:7001@17001 myself,master - 0 0 1 connected {slots}\n");
        let topology = Topology::merge(&[parse::nodes(&line, &known).unwrap()]);
        Observed {
            workers: vec![Arc::default(), Arc::default()],
            topology: Arc::new(ArcSwap::from_pointee(topology)),
            draining: Arc::default(),
            process: Box::new(Process::default),
        }
    }

    #[test]
    fn readiness() {
        let check = |observed: &Observed, ready, text: &str| {
            let readiness = observed.readiness();
            assert_eq!((readiness.is_ready(), readiness.to_string().as_str()), (ready, text));
        };
        check(&observed("0-16383"), true, "ready");
        check(&observed("0-16000"), true, "ready-partial: 383 slots have no owner");
        check(&observed(""), false, "slots not covered: 16384");
        let draining = observed("0-16383");
        draining.draining.store(true, Relaxed);
        check(&draining, false, "draining");
        let unknown = observed("");
        unknown.topology.store(Arc::default());
        check(&unknown, false, "no topology yet");
    }
}
