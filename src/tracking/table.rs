//! Which clients have read which keys since these last changed.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::cluster::Slot;

/// A client that has read a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    /// Its number.
    pub(super) id: u64,
    /// Whether it read the key on a lane of its own, whose node tells when others change it.
    pub(super) by_lane: bool,
}

/// Keys with those who have read them, in the order of their numbers. By slot, so that one to forget is found at once.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: BTreeMap<Slot, HashMap<Bytes, Vec<Reader>>>,
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

    /// Takes note of a reader; of one that is known, how it has read the key last. Before a key's list of readers grows, those
    /// are taken out of it that are gone.
    pub(super) fn put(&mut self, key: &[u8], reader: Reader, is_there: impl Fn(u64) -> bool) {
        let readers = self.slots.entry(Slot::of(key)).or_default();
        let Some(readers) = readers.get_mut(key) else {
            readers.insert(Bytes::copy_from_slice(key), vec![reader]);
            self.keys += 1;
            self.items += 1;
            return;
        };
        if readers.len() == readers.capacity() && find(readers, reader.id).is_err() {
            self.items -= readers.len();
            readers.retain(|reader| is_there(reader.id));
            self.items += readers.len();
            // So it is seldom done, even if nearly all are there.
            readers.reserve(readers.len() + 1);
        }
        match find(readers, reader.id) {
            Ok(at) => readers[at] = reader,
            Err(at) => {
                readers.insert(at, reader);
                self.items += 1;
            }
        }
    }

    /// Takes from a key the readers of whom `goes` is true, and forgets it if there are no more.
    pub(super) fn take(&mut self, key: &[u8], goes: impl Fn(&Reader) -> bool) -> Vec<Reader> {
        let slot = Slot::of(key);
        let Some(readers) = self.slots.get_mut(&slot).and_then(|keys| keys.get_mut(key)) else {
            return Vec::new();
        };
        if readers.iter().all(&goes) {
            return self.take_from(slot, key);
        }
        let gone: Vec<Reader> = readers.extract_if(.., |reader| goes(reader)).collect();
        self.items -= gone.len();
        gone
    }

    /// Forgets some key, each time of another slot, and gives it with its readers.
    pub(super) fn evict(&mut self) -> Option<(Bytes, Vec<Reader>)> {
        let from = self.turn.unwrap_or(Slot::FIRST);
        let (slot, keys) = self.slots.range(from..).next().or(self.slots.iter().next())?;
        let (slot, key) = (*slot, keys.keys().next()?.clone());
        self.turn = Slot::new(usize::from(slot.number()) + 1);
        let readers = self.take_from(slot, &key);
        Some((key, readers))
    }

    fn take_from(&mut self, slot: Slot, key: &[u8]) -> Vec<Reader> {
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

/// Where a client stands among the readers, or would.
fn find(readers: &[Reader], id: u64) -> Result<usize, usize> {
    readers.binary_search_by_key(&id, |reader| reader.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(id: u64) -> Reader {
        Reader { id, by_lane: false }
    }

    fn take(table: &mut Table, key: &str) -> Vec<u64> {
        table.take(key.as_bytes(), |_| true).iter().map(|reader| reader.id).collect()
    }

    #[test]
    fn readers_are_forgotten_with_their_key() {
        let mut table = Table::default();
        for (key, id) in [("a", 3), ("a", 1), ("a", 3), ("b", 2)] {
            table.put(key.as_bytes(), reader(id), |_| true);
        }
        assert_eq!((table.keys(), table.items()), (2, 3));
        assert_eq!(take(&mut table, "a"), [1, 3]);
        assert!(take(&mut table, "a").is_empty() && take(&mut table, "c").is_empty());
        assert_eq!((table.keys(), table.items()), (1, 1));
    }

    #[test]
    fn some_readers_of_a_key_can_be_taken() {
        let mut table = Table::default();
        for (id, by_lane) in [(1, true), (2, false), (3, true), (3, false), (4, false), (4, true)] {
            table.put(b"a", Reader { id, by_lane }, |_| true);
        }
        assert_eq!(table.take(b"a", |reader| !reader.by_lane), [reader(2), reader(3)]);
        assert_eq!((table.keys(), table.items()), (1, 2));
        assert_eq!(table.take(b"a", |reader| reader.id == 4).len(), 1);
        assert_eq!(take(&mut table, "a"), [1]);
        assert_eq!((table.keys(), table.items()), (0, 0));
    }

    #[test]
    fn readers_that_are_gone_are_forgotten() {
        let mut table = Table::default();
        for id in 0..1000 {
            table.put(b"a", reader(id), |known| known == 0);
        }
        assert!(table.items() <= 8, "{}", table.items());
        let readers = take(&mut table, "a");
        assert_eq!((readers[0], readers[readers.len() - 1], table.items()), (0, 999, 0));
    }

    #[test]
    fn slots_take_turns_to_forget() {
        let mut table = Table::default();
        for key in ["{a}1", "{a}2", "{b}1", "{b}2"] {
            table.put(key.as_bytes(), reader(7), |_| true);
        }
        let mut slots = Vec::new();
        while let Some((key, readers)) = table.evict() {
            assert_eq!(readers, [reader(7)]);
            slots.push(Slot::of(&key));
        }
        assert_eq!((table.keys(), table.items(), slots.len()), (0, 0, 4));
        assert!(slots[0] != slots[1] && slots[1] != slots[2] && slots[2] != slots[3], "{slots:?}");
    }
}
