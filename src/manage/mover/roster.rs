//! Which slots move next, and from where: several pairs at the same time, but every node in one role. Pure.
//!
//! A source serves one target at a time, since it stops for each batch anyway. A target takes from several sources. No node
//! gives and takes at the same time: the servers handle that badly, and people worse.

use std::collections::{BTreeMap, VecDeque};

use super::atomic::Dialect;
use super::method::Way;
use crate::cluster::{NodeId, Slot, Slots};
use crate::manage::plan::Move;

/// Most sources that fill one target key by key. While it stores what one has sent the other serialises; a third one only waits,
/// and its clients with it (measured on two cores: 6.4 s and 10 ms with three, 4.9 s and 4 ms with two).
const SOURCES_MOST: usize = 2;

/// How much goes at a time.
#[derive(Clone, Copy)]
struct Bounds {
    /// Most slots.
    slots: usize,
    /// Keys from which on a chunk takes no more slots, so that a move can be stopped soon and whole.
    keys: u64,
    /// Most sources that fill one target.
    sources: usize,
}

impl Way {
    fn bounds(self) -> Bounds {
        match self {
            // Slots that are asked about and closed in one go each; some seconds of work.
            Self::Keys => Bounds { slots: 64, keys: 100_000, sources: SOURCES_MOST },
            // What failed is sent anew from its beginning, and what clients write meanwhile is kept by the source.
            Self::Atomic(Dialect::Push) => {
                Bounds { slots: 512, keys: 2_000_000, sources: SOURCES_MOST }
            }
            // Redis has one migration per node.
            Self::Atomic(Dialect::Pull) => Bounds { slots: 512, keys: 2_000_000, sources: 1 },
        }
    }
}

/// Slots that are moved together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) slots: Slots,
    /// How many keys they had when it began.
    pub(super) keys: u64,
    pub(super) way: Way,
    /// How often it was tried, when it was larger.
    pub(super) failures: u32,
}

/// What there is to do for whoever is free.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This.
    Chunk(Chunk),
    /// Nothing until another chunk is done.
    Later,
    /// Nothing any more.
    Never,
}

/// The chunks that wait and those that are under way.
#[derive(Debug)]
pub(super) struct Roster<'a> {
    keys: &'a BTreeMap<Slot, u64>,
    waiting: Vec<VecDeque<Chunk>>,
    busy: Vec<(NodeId, NodeId, Way)>,
}

impl<'a> Roster<'a> {
    /// Cuts moves into chunks, given the way of each and the number of keys of each slot.
    pub(super) fn new(moves: &[Move], ways: &[Way], keys: &'a BTreeMap<Slot, u64>) -> Self {
        let waiting = moves.iter().zip(ways).map(|(part, way)| cut(part, *way, keys)).collect();
        Self { keys, waiting, busy: Vec::new() }
    }

    /// A chunk is done with as it is, and is to be tried again in two halves.
    pub(super) fn halve(&mut self, chunk: &Chunk) {
        self.done(chunk);
        let halves = chunk.slots.chunks(chunk.slots.len().div_ceil(2)).map(|slots| Chunk {
            slots: slots.iter().copied().collect(),
            keys: slots.iter().filter_map(|slot| self.keys.get(slot)).sum(),
            failures: chunk.failures + 1,
            ..chunk.clone()
        });
        self.waiting.push(halves.collect());
    }

    /// A chunk and whatever else waits between its two nodes goes key by key.
    pub(super) fn by_keys(&mut self, chunk: &Chunk) {
        self.done(chunk);
        let is_kin = |other: &Chunk| (&other.from, &other.to) == (&chunk.from, &chunk.to);
        let kin = self.waiting.iter().flatten().filter(|other| is_kin(other));
        let slots = kin.chain([chunk]).flat_map(|kin| &kin.slots).copied().collect();
        for chunks in &mut self.waiting {
            chunks.retain(|other| !is_kin(other));
        }
        let part = Move { from: chunk.from.clone(), to: chunk.to.clone(), slots };
        self.waiting.push(cut(&part, Way::Keys, self.keys));
    }

    /// The next chunk that can be begun.
    pub(super) fn next(&mut self) -> Next {
        self.waiting.retain(|chunks| !chunks.is_empty());
        let busy = &self.busy;
        let free = |chunks: &VecDeque<Chunk>| chunks.front().is_some_and(|c| is_free(busy, c));
        // The pair with most left goes first: it is what the end waits for.
        let most = self.waiting.iter_mut().filter(|chunks| free(chunks)).max_by_key(|c| c.len());
        match most.and_then(VecDeque::pop_front) {
            Some(chunk) => {
                self.busy.push((chunk.from.clone(), chunk.to.clone(), chunk.way));
                Next::Chunk(chunk)
            }
            None if self.waiting.is_empty() => Next::Never,
            None => Next::Later,
        }
    }

    /// Number of slots that were not begun.
    pub(super) fn left(&self) -> usize {
        self.waiting.iter().flatten().map(|chunk| chunk.slots.len()).sum()
    }

    /// A chunk is done with.
    pub(super) fn done(&mut self, chunk: &Chunk) {
        self.busy.retain(|(from, to, _)| (from, to) != (&chunk.from, &chunk.to));
    }
}

/// Whether both nodes of a chunk can take their roles. A node that takes part in an atomic migration refuses what moving key
/// by key needs.
fn is_free(busy: &[(NodeId, NodeId, Way)], chunk: &Chunk) -> bool {
    let Chunk { from, to, way, .. } = chunk;
    let is_idle = |(source, target, other): &(NodeId, NodeId, Way)| {
        source != from && target != from && source != to && (target != to || other == way)
    };
    let into = busy.iter().filter(|(_, target, _)| target == to).count();
    busy.iter().all(is_idle) && into < way.bounds().sources
}

fn cut(part: &Move, way: Way, keys: &BTreeMap<Slot, u64>) -> VecDeque<Chunk> {
    let (mut chunks, mut slots, mut held) = (VecDeque::new(), Vec::new(), 0);
    let bounds = way.bounds();
    let chunk = |slots: &mut Vec<Slot>, keys: u64| Chunk {
        from: part.from.clone(),
        to: part.to.clone(),
        slots: slots.drain(..).collect(),
        keys,
        way,
        failures: 0,
    };
    for slot in &part.slots {
        slots.push(*slot);
        held += keys.get(slot).copied().unwrap_or(0);
        if slots.len() == bounds.slots || held >= bounds.keys {
            chunks.push_back(chunk(&mut slots, held));
            held = 0;
        }
    }
    if !slots.is_empty() {
        chunks.push_back(chunk(&mut slots, held));
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves(moves: &[(&str, &str, &str)]) -> Vec<Move> {
        let id = |name: &str| NodeId(name.into());
        let each = moves.iter().map(|(from, to, slots)| Move {
            from: id(from),
            to: id(to),
            slots: slots.parse().unwrap(),
        });
        each.collect()
    }

    /// That many keys in each slot.
    fn keys(each: u64) -> BTreeMap<Slot, u64> {
        Slots::all().into_iter().map(|slot| (slot, each)).collect()
    }

    fn roster(all: &[(&str, &str, &str)], way: Way) -> Roster<'static> {
        static NONE: BTreeMap<Slot, u64> = BTreeMap::new();
        Roster::new(&moves(all), &vec![way; all.len()], &NONE)
    }

    /// The pairs that are under way after each has begun that can.
    fn begin(roster: &mut Roster<'_>) -> Vec<Chunk> {
        std::iter::from_fn(|| match roster.next() {
            Next::Chunk(chunk) => Some(chunk),
            _ => None,
        })
        .collect()
    }

    fn pairs(chunks: &[Chunk]) -> Vec<String> {
        let mut pairs: Vec<_> =
            chunks.iter().map(|c| format!("{}{} {}", c.from, c.to, c.slots)).collect();
        pairs.sort();
        pairs
    }

    #[test]
    fn moves_are_cut_by_slots_and_by_keys() {
        let moves = moves(&[("a", "b", "0-129")]);
        let cut = |each: u64| {
            let chunks = cut(&moves[0], Way::Keys, &keys(each));
            chunks.iter().map(|chunk| chunk.slots.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(cut(0), ["0-63", "64-127", "128-129"]);
        assert_eq!(cut(30_000)[..2], ["0-3", "4-7"]);
        assert_eq!(cut(1_000_000).len(), 130);
    }

    #[test]
    fn sources_work_at_the_same_time_each_for_one_target() {
        let mut roster = roster(&[("a", "x", "1"), ("a", "y", "2"), ("b", "x", "3")], Way::Keys);
        let begun = begin(&mut roster);
        assert_eq!(begun.len(), 2);
        assert_eq!(roster.next(), Next::Later);
        for chunk in &begun {
            roster.done(chunk);
        }
        assert_eq!(begin(&mut roster).len(), 1);
        assert_eq!(roster.next(), Next::Never);
    }

    #[test]
    fn no_node_gives_and_takes_at_the_same_time() {
        let mut roster = roster(&[("a", "b", "1-3"), ("b", "c", "5"), ("c", "a", "6")], Way::Keys);
        let first = begin(&mut roster);
        assert_eq!(pairs(&first).len(), 1);
        roster.done(&first[0]);
        let second = begin(&mut roster);
        assert_eq!(second.len(), 1);
        roster.done(&second[0]);
        assert_eq!(begin(&mut roster).len(), 1);
    }

    #[test]
    fn a_target_is_not_swamped() {
        let all: Vec<String> = (0..9).map(|n| format!("s{n}")).collect();
        let slots: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        let each: Vec<_> = all
            .iter()
            .zip(&slots)
            .map(|(from, slot)| (from.as_str(), "x", slot.as_str()))
            .collect();
        let begun = |way| begin(&mut roster(&each, way)).len();
        assert_eq!(begun(Way::Keys), SOURCES_MOST);
        assert_eq!(begun(Way::Atomic(Dialect::Push)), SOURCES_MOST);
        assert_eq!(begun(Way::Atomic(Dialect::Pull)), 1, "one migration on each node");
    }

    #[test]
    fn a_target_takes_one_way_at_a_time() {
        let moves = moves(&[("a", "x", "1-2"), ("b", "x", "3")]);
        let (keys, push) = (BTreeMap::new(), Way::Atomic(Dialect::Push));
        let mut roster = Roster::new(&moves, &[push, Way::Keys], &keys);
        assert_eq!(begin(&mut roster).len(), 1);
    }

    #[test]
    fn what_fails_is_halved_and_then_goes_key_by_key() {
        let push = Way::Atomic(Dialect::Push);
        let mut roster = roster(&[("a", "b", "0-1000"), ("a", "c", "2000")], push);
        let whole = begin(&mut roster);
        assert_eq!(pairs(&whole), ["ab 0-511"]);
        roster.halve(&whole[0]);
        let half = begin(&mut roster);
        assert_eq!((half[0].slots.to_string().as_str(), half[0].failures), ("0-255", 1));
        roster.by_keys(&half[0]);
        assert_eq!(roster.left(), 1002);
        let first = begin(&mut roster);
        assert_eq!((pairs(&first), first[0].way), (vec!["ab 0-63".to_owned()], Way::Keys));
        let ways = roster.waiting.iter().flatten().map(|chunk| (chunk.to.0.as_ref(), chunk.way));
        assert!(ways.clone().all(|(to, way)| (way == push) == (to == "c")), "another pair");
        let mut tiny = roster_of_one();
        let chunk = begin(&mut tiny).remove(0);
        tiny.halve(&chunk);
        assert_eq!(begin(&mut tiny)[0].slots, chunk.slots, "one slot has no halves");
    }

    fn roster_of_one() -> Roster<'static> {
        roster(&[("a", "b", "7")], Way::Atomic(Dialect::Push))
    }
}
