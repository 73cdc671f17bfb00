//! The snapshot in force, and who replaces it: discovery with what it found, and who moves slots with what he did.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::cluster::{NodeId, Slots, Topology};

/// Publishes what was found by a look at the cluster that was begun when `before` was in force; slots that were moved
/// meanwhile stay where they are now. Gives what was in force, or `None` if nothing is new.
pub(super) fn found(
    published: &ArcSwap<Topology>,
    before: &Arc<Topology>,
    found: &Topology,
) -> Option<Arc<Topology>> {
    replace(published, |now| {
        let is_same = Arc::ptr_eq(before, now);
        let newest = found.clone();
        if is_same { newest } else { newest.caught_up(before, now) }
    })
}

/// Publishes that slots are at another node now, so that requests go there before any node sends them there. Gives whether that
/// is new, or `None` if the node is unknown.
pub fn moved(published: &ArcSwap<Topology>, slots: &Slots, to: &NodeId) -> Option<bool> {
    published.load().moved(slots, to)?;
    let was = replace(published, |now| now.moved(slots, to).unwrap_or_else(|| (**now).clone()));
    Some(was.is_some())
}

/// Puts what is made of the snapshot in force in its place, unless that is the same.
fn replace(
    published: &ArcSwap<Topology>,
    make: impl Fn(&Arc<Topology>) -> Topology,
) -> Option<Arc<Topology>> {
    let mut now = published.load_full();
    loop {
        let next = make(&now);
        if next == *now {
            return None;
        }
        let was = Arc::clone(&published.compare_and_swap(&now, Arc::new(next)));
        if Arc::ptr_eq(&was, &now) {
            return Some(was);
        }
        now = was;
    }
}
