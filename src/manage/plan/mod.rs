//! What is to be done to a cluster, as data: planners make it from a view, the command line shows it, `apply` and the mover
//! do it. Pure.

pub mod create;
pub mod members;
#[cfg(test)]
mod model;
pub mod rebalance;
pub mod reshard;

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

/// One thing to do. All of them can be done again without harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// A node that knows no other takes slots that nobody owns.
    AddSlots {
        /// Which node.
        node: NodeId,
        /// Which slots.
        slots: Slots,
    },
    /// A node that knows no other starts with this config epoch.
    SetEpoch {
        /// Which node.
        node: NodeId,
        /// The epoch.
        epoch: u64,
    },
    /// A node is given the functions of another one.
    CopyFunctions {
        /// Who knows them.
        from: NodeId,
        /// Who is to know them.
        to: NodeId,
    },
    /// Nodes become members of one cluster, and all of it know each other.
    Join {
        /// Who joins.
        nodes: Vec<NodeId>,
    },
    /// A node becomes the replica of a primary.
    Replicate {
        /// The replica.
        node: NodeId,
        /// The primary.
        primary: NodeId,
    },
    /// A replica takes the place of its primary.
    Failover {
        /// The replica.
        node: NodeId,
        /// How much consent it needs.
        consent: Consent,
    },
    /// All other nodes forget a node.
    Forget {
        /// Who is forgotten.
        node: NodeId,
    },
    /// A node forgets all others, its slots and its name.
    Reset {
        /// Which node.
        node: NodeId,
    },
    /// The same, and then it ends.
    Shutdown {
        /// Which node.
        node: NodeId,
    },
}

/// Who has to agree that a replica takes its primary's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consent {
    /// The primary, which hands over, and most of the other primaries: nothing is lost.
    #[default]
    All,
    /// Most of the other primaries (`FORCE`): writes that the replica has not got are lost.
    Majority,
    /// Nobody (`TAKEOVER`): as before, and the cluster may be split.
    Nobody,
}
