//! What is to be done to a cluster, as data: planners make it from a view, the command line shows it, `apply` and the mover
//! do it. Pure.

use serde::{Deserialize, Serialize};

use crate::cluster::{NodeId, Slots};

/// Slots that go from one primary to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The owner.
    pub from: NodeId,
    /// Who is to own them.
    pub to: NodeId,
    /// Which ones.
    pub slots: Slots,
}
