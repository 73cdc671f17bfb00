//! The cluster as values: slots, nodes, and the immutable map from one to the other.

pub mod membership;
pub mod node;
mod owners;
pub mod parse;
pub mod slot;
mod slots;
pub mod topology;

pub use node::{Address, NodeId};
pub use slot::{SLOTS, Slot};
pub use slots::Slots;
pub use topology::{NodeIndex, Topology};
