//! Which clients have read which keys since these last changed.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::cluster::Slot;

/// Keys with the numbers of the clients that have read them, in order. By slot, so that one to forget is found at once.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: BTreeMap<Slot, HashMap<Bytes, Vec<u64>>>,
    keys: usize,
    items: usize,
    /// Whose turn it is to forget.
    turn: Option<Slot>,
}

impl Table {
    /// Number of keys.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    /// Number of readers, counted anew for every key.
    pub(super) fn items(&self) -> usize {
        self.items
    }

    /// Takes note of a reader. Before a key's list of readers grows, those are taken out of it that are gone.
    pub(super) fn put(&mut self, key: &[u8], reader: u64, is_there: impl Fn(u64) -> bool) {
        let readers = self.slots.entry(Slot::of(key)).or_default();
        let Some(readers) = readers.get_mut(key) else {
            readers.insert(Bytes::copy_from_slice(key), vec![reader]);
            self.keys += 1;
            self.items += 1;
            return;
        };
        if readers.len() == readers.capacity() && readers.binary_search(&reader).is_err() {
            self.items -= readers.len();
            readers.retain(|reader| is_there(*reader));
            self.items += readers.len();
            // So it is seldom done, even if nearly all are there.
            readers.reserve(readers.len() + 1);
        }
        if let Err(at) = readers.binary_search(&reader) {
            readers.insert(at, reader);
            self.items += 1;
        }
    }

    /// Forgets a key, and gives its readers.
    pub(super) fn take(&mut self, key: &[u8]) -> Vec<u64> {
        self.take_from(Slot::of(key), key)
    }

    /// Forgets some key, each time of another slot, and gives it with its readers.
    pub(super) fn evict(&mut self) -> Option<(Bytes, Vec<u64>)> {
        let from = self.turn.unwrap_or(Slot::FIRST);
        let (slot, keys) = self.slots.range(from..).next().or(self.slots.iter().next())?;
        let (slot, key) = (*slot, keys.keys().next()?.clone());
        self.turn = Slot::new(usize::from(slot.number()) + 1);
        let readers = self.take_from(slot, &key);
        Some((key, readers))
    }

    fn take_from(&mut self, slot: Slot, key: &[u8]) -> Vec<u64> {
        let Some(keys) = self.slots.get_mut(&slot) else { return Vec::new() };
        let readers = keys.remove(key);
        if keys.is_empty() {
            self.slots.remove(&slot);
        }
        self.keys -= usize::from(readers.is_some());
        let readers = readers.unwrap_or_default();
        self.items -= readers.len();
        readers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_forgotten_with_their_key() {
        let mut table = Table::default();
        for (key, reader) in [("a", 3), ("a", 1), ("a", 3), ("b", 2)] {
            table.put(key.as_bytes(), reader, |_| true);
        }
        assert_eq!((table.keys(), table.items()), (2, 3));
        assert_eq!(table.take(b"a"), [1, 3]);
        assert!(table.take(b"a").is_empty() && table.take(b"c").is_empty());
        assert_eq!((table.keys(), table.items()), (1, 1));
    }

    #[test]
    fn readers_that_are_gone_are_forgotten() {
        let mut table = Table::default();
        for reader in 0..1000 {
            table.put(b"a", reader, |known| known == 0);
        }
        assert!(table.items() <= 8, "{}", table.items());
        let readers = table.take(b"a");
        assert_eq!((readers[0], readers[readers.len() - 1], table.items()), (0, 999, 0));
    }

    #[test]
    fn slots_take_turns_to_forget() {
        let mut table = Table::default();
        for key in ["{a}1", "{a}2", "{b}1", "{b}2"] {
            table.put(key.as_bytes(), 7, |_| true);
        }
        let mut slots = Vec::new();
        while let Some((key, readers)) = table.evict() {
            assert_eq!(readers, [7]);
            slots.push(Slot::of(&key));
        }
        assert_eq!((table.keys(), table.items(), slots.len()), (0, 0, 4));
        assert!(slots[0] != slots[1] && slots[1] != slots[2] && slots[2] != slots[3], "{slots:?}");
    }
}
