//! Which slots move next, and from where: several pairs at the same time, but every node in one role. Pure.
//!
//! A source serves one target at a time, since it stops for each batch anyway. A target takes from several sources. No node
//! gives and takes at the same time: the servers handle that badly, and people worse.

use std::collections::VecDeque;

use crate::cluster::{NodeId, Slot, Slots};
use crate::manage::plan::Move;

/// Most slots that are open at the same time between one pair: they are asked about and closed in one go each.
const SLOTS_MOST: usize = 64;
/// Keys from which on a chunk takes no more slots: some seconds of work, so that a move can be stopped soon and whole.
const KEYS_ENOUGH: u64 = 100_000;
/// Most sources that fill one target. While it stores what one has sent the others serialise; more would only wait.
const SOURCES_MOST: usize = 3;

/// Slots that are opened, emptied and closed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) slots: Slots,
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
pub(super) struct Roster {
    waiting: Vec<VecDeque<Chunk>>,
    busy: Vec<(NodeId, NodeId)>,
}

impl Roster {
    /// Cuts moves into chunks, given the number of keys of each slot.
    pub(super) fn new(moves: &[Move], keys: impl Fn(Slot) -> u64) -> Self {
        let waiting = moves.iter().map(|the_move| cut(the_move, &keys)).collect();
        Self { waiting, busy: Vec::new() }
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
                self.busy.push((chunk.from.clone(), chunk.to.clone()));
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
        self.busy.retain(|(from, to)| (from, to) != (&chunk.from, &chunk.to));
    }
}

/// Whether both nodes of a chunk can take their roles.
fn is_free(busy: &[(NodeId, NodeId)], chunk: &Chunk) -> bool {
    let Chunk { from, to, .. } = chunk;
    let is_idle =
        |(source, target): &(NodeId, NodeId)| source != from && target != from && source != to;
    let into = busy.iter().filter(|(_, target)| target == to).count();
    busy.iter().all(is_idle) && into < SOURCES_MOST
}

fn cut(the_move: &Move, keys: impl Fn(Slot) -> u64) -> VecDeque<Chunk> {
    let (mut chunks, mut slots, mut held) = (VecDeque::new(), Vec::new(), 0);
    let chunk = |slots: &mut Vec<Slot>| Chunk {
        from: the_move.from.clone(),
        to: the_move.to.clone(),
        slots: slots.drain(..).collect(),
    };
    for slot in &the_move.slots {
        slots.push(*slot);
        held += keys(*slot);
        if slots.len() == SLOTS_MOST || held >= KEYS_ENOUGH {
            chunks.push_back(chunk(&mut slots));
            held = 0;
        }
    }
    if !slots.is_empty() {
        chunks.push_back(chunk(&mut slots));
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

    /// The pairs that are under way after each has begun that can.
    fn begin(roster: &mut Roster) -> Vec<Chunk> {
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
        let cut = |keys: u64| {
            let chunks = cut(&moves[0], |_| keys);
            chunks.iter().map(|chunk| chunk.slots.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(cut(0), ["0-63", "64-127", "128-129"]);
        assert_eq!(cut(30_000)[..2], ["0-3", "4-7"]);
        assert_eq!(cut(1_000_000).len(), 130);
    }

    #[test]
    fn sources_work_at_the_same_time_each_for_one_target() {
        let mut roster =
            Roster::new(&moves(&[("a", "x", "1"), ("a", "y", "2"), ("b", "x", "3")]), |_| 0);
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
        let mut roster =
            Roster::new(&moves(&[("a", "b", "1-3"), ("b", "c", "5"), ("c", "a", "6")]), |_| 0);
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
        assert_eq!(begin(&mut Roster::new(&moves(&each), |_| 0)).len(), SOURCES_MOST);
    }
}
