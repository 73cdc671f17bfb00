//! A command over keys of several slots, cut into one command per slot.
//!
//! A node refuses two slots in one command even if it owns both, so the parts are per slot and not per node. Within a part
//! keys keep their order and duplicates, hence `MSET` still lets the last value of a key win.

use super::Claim;
use crate::cluster::Slot;
use crate::resp::request::Request;
use crate::resp::write;

/// The keys of a request by slot.
#[derive(Debug, Default)]
pub struct Split {
    /// Slot and argument index of every key, sorted by slot; keys of one slot stay in the client's order.
    keys: Vec<(Slot, u32)>,
    /// Distance from one key to the next; what lies between belongs to the key before it.
    step: usize,
}

/// One slot's part of a split request.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The slot of all its keys.
    pub slot: Slot,
    keys: &'a [(Slot, u32)],
    step: usize,
}

impl Split {
    /// Sorts the keys at `first, first + step, …` to the last argument by slot.
    pub fn by_slot(request: &Request<'_>, first: usize, step: usize) -> Self {
        let mut keys: Vec<(Slot, u32)> = (first..request.len())
            .step_by(step)
            .map(|at| (Slot::of(request.arg(at)), u32::try_from(at).unwrap_or(u32::MAX)))
            .collect();
        keys.sort_unstable();
        Self { keys, step }
    }

    /// One part per slot.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.keys.chunk_by(|a, b| a.0 == b.0).map(|keys| Part {
            slot: keys[0].0,
            keys,
            step: self.step,
        })
    }

    /// The part that each key went to, in the order of the keys. There are at most 16384 parts, one per slot.
    pub fn order(&self) -> Vec<u16> {
        let mut order = vec![0; self.keys.len()];
        let first = self.keys.iter().map(|(_, at)| *at).min().unwrap_or(0) as usize;
        for (number, part) in (0..).zip(self.parts()) {
            for (_, at) in part.keys {
                order[(*at as usize - first) / self.step] = number;
            }
        }
        order
    }
}

impl Part<'_> {
    /// What the part asks of the order among its client's requests.
    pub fn claim(&self) -> Claim {
        Claim::of(self.slot, self.keys.len())
    }

    /// Writes the part as a request of its own: the name, and its keys each with what belongs to it.
    pub fn write(&self, request: &Request<'_>, out: &mut Vec<u8>) {
        write::array(out, 1 + self.keys.len() * self.step);
        write::bulk(out, request.name());
        for (_, at) in self.keys {
            out.extend_from_slice(request.wire(*at as usize, *at as usize + self.step));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::frame::{Limits, RequestFramer};

    fn check(words: &[&str], step: usize, parts: &[&str], order: &[u16]) {
        let mut wire = Vec::new();
        write::request(&mut wire, words.iter().map(|w| w.as_bytes()));
        let mut framer = RequestFramer::default();
        framer
            .frame(&wire, &Limits { args: 100, bulk: 100, request: 10_000, unauthenticated: false })
            .unwrap();
        let request = Request::new(&wire, framer.args());
        let split = Split::by_slot(&request, 1, step);
        let written: Vec<Vec<u8>> = split
            .parts()
            .map(|part| {
                let mut out = Vec::new();
                part.write(&request, &mut out);
                out
            })
            .collect();
        let expected: Vec<Vec<u8>> = parts
            .iter()
            .map(|part| {
                let mut out = Vec::new();
                write::request(
                    &mut out,
                    part.split(' ').map(str::as_bytes).collect::<Vec<_>>().into_iter(),
                );
                out
            })
            .collect();
        assert_eq!(written, expected);
        assert_eq!(split.order(), order);
    }

    #[test]
    fn splits() {
        check(
            &["MGET", "{a}1", "{b}1", "{a}2", "{a}1"],
            1,
            &["MGET {b}1", "MGET {a}1 {a}2 {a}1"],
            &[1, 0, 1, 1],
        );
        check(
            &["mset", "{a}1", "x", "{b}1", "y", "{a}1", "z"],
            2,
            &["mset {b}1 y", "mset {a}1 x {a}1 z"],
            &[1, 0, 1],
        );
    }
}
