//! The owner of every slot, laid out so that the usual look-up stays within a few cache lines.

use super::slot::{SLOTS, Slot};
use super::topology::NodeIndex;

/// Slots told apart by the first look.
const BLOCK: usize = 64;
/// No owner.
const NONE: NodeIndex = NodeIndex::MAX;
/// The slots of a block have several owners.
const MIXED: NodeIndex = NONE - 1;

/// Owner of each slot. Slots are owned in long runs, so most blocks of them have one owner; only the others are looked up
/// in the whole table, whose 32 KiB do not stay in the nearest cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owners {
    blocks: Box<[NodeIndex; SLOTS / BLOCK]>,
    slots: Box<[NodeIndex]>,
}

impl Owners {
    /// From the owner of each slot, in order; missing ones have none.
    pub(super) fn new(owners: impl Iterator<Item = Option<NodeIndex>>) -> Self {
        let mut slots: Vec<NodeIndex> = owners.map(|owner| owner.unwrap_or(NONE)).collect();
        slots.resize(SLOTS, NONE);
        let mut blocks = Box::new([MIXED; SLOTS / BLOCK]);
        for (block, slots) in blocks.iter_mut().zip(slots.chunks(BLOCK)) {
            if slots.iter().all(|owner| *owner == slots[0]) {
                *block = slots[0];
            }
        }
        Self { blocks, slots: slots.into() }
    }

    #[inline]
    pub(super) fn of(&self, slot: Slot) -> Option<NodeIndex> {
        let owner = match self.blocks[slot.index() / BLOCK % (SLOTS / BLOCK)] {
            MIXED => self.slots[slot.index()],
            owner => owner,
        };
        (owner != NONE).then_some(owner)
    }

    /// Owner of each slot, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Option<NodeIndex>> {
        self.slots.iter().map(|owner| Some(*owner).filter(|owner| *owner != NONE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_looks_agree() {
        let owner = |slot: usize| match slot {
            0..100 => Some(0),
            100..=4999 => Some(1),
            5001..5003 => Some(2),
            9000..16000 => Some(3),
            _ => None,
        };
        let owners = Owners::new((0..SLOTS).map(owner));
        for slot in 0..SLOTS {
            assert_eq!(owners.of(Slot::new(slot).unwrap()), owner(slot), "{slot}");
        }
        assert!(owners.iter().eq((0..SLOTS).map(owner)));
        assert_eq!(Owners::new(std::iter::empty()).of(Slot::FIRST), None);
    }
}
