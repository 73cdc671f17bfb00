//! A cluster in the head: what plans are held against.

use std::collections::BTreeMap;

use super::{Move, Step};
use crate::cluster::{NodeId, SLOTS, Slot, Slots};

/// Who owns what, and who follows whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    owned: BTreeMap<NodeId, Vec<Slot>>,
    following: BTreeMap<NodeId, NodeId>,
}

impl Model {
    /// Primaries `a`, `b`, … that own the slots up to each cut; the last one owns the rest.
    pub(super) fn cut(cuts: &[usize]) -> Self {
        let mut cuts = cuts.to_vec();
        cuts.sort_unstable();
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([SLOTS]);
        let ids = ('a'..).map(|name| NodeId(name.to_string().into()));
        let owned = ids
            .zip(starts.zip(ends))
            .map(|(id, (start, end))| (id, (start..end).filter_map(Slot::new).collect()));
        Self { owned: owned.collect(), following: BTreeMap::new() }
    }

    /// The same with replicas.
    pub(super) fn with_replicas(mut self, pairs: &[(&str, &str)]) -> Self {
        self.following.extend(
            pairs
                .iter()
                .map(|(replica, primary)| (NodeId((*replica).into()), NodeId((*primary).into()))),
        );
        self
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.owned.keys().cloned().collect()
    }

    pub(super) fn primaries(&self) -> Vec<(NodeId, Slots)> {
        self.owned.iter().map(|(id, slots)| (id.clone(), slots.iter().copied().collect())).collect()
    }

    pub(super) fn following(&self) -> &BTreeMap<NodeId, NodeId> {
        &self.following
    }

    pub(super) fn slots(&self, id: &NodeId) -> &[Slot] {
        &self.owned[id]
    }

    /// Moves slots; the giver has to own them.
    pub(super) fn carry(&mut self, step: &Move) {
        assert!(self.owned.contains_key(&step.to), "{} is no primary", step.to);
        let giver = self.owned.get_mut(&step.from).expect("a primary gives");
        let before = giver.len();
        giver.retain(|slot| !step.slots.contains(*slot));
        assert_eq!(before - giver.len(), step.slots.len(), "{} gives what it has not", step.from);
        self.owned.get_mut(&step.to).expect("it was there").extend(&step.slots);
    }

    /// As the cluster is after a step that changes who is a member, or whose replica.
    pub(super) fn after(&mut self, step: &Step) {
        match step {
            Step::Replicate { node, primary } => {
                assert!(self.owned.contains_key(primary), "{primary} is no primary");
                assert!(
                    self.owned.remove(node).is_none_or(|slots| slots.is_empty()),
                    "{node} owns slots"
                );
                self.following.insert(node.clone(), primary.clone());
            }
            Step::Forget { node } => {
                let follower = self.following.iter().find(|(_, primary)| *primary == node);
                assert_eq!(follower, None, "somebody follows {node}");
                assert!(
                    self.owned.remove(node).is_none_or(|slots| slots.is_empty()),
                    "{node} owns slots"
                );
                self.following.remove(node);
            }
            Step::Reset { node } | Step::Shutdown { node } => {
                assert!(!self.owned.contains_key(node), "{node} is a member");
            }
            other => panic!("{other:?} is not modelled"),
        }
    }

    /// Every slot has one owner.
    pub(super) fn covers_all_once(&self) {
        let mut all: Vec<Slot> = self.owned.values().flatten().copied().collect();
        all.sort_unstable();
        assert!(all.iter().copied().eq(Slots::all()), "not every slot has one owner");
    }
}
