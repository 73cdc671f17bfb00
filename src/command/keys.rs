//! Where a request's keys are: from a row's `Keys` and the arguments to the indexes of the arguments that are keys.
//!
//! Pure and without allocation. It never judges whether a request is right: where the keys cannot be found, some node gets
//! the request and refuses it in the server's own words.

use std::{iter, mem};

use crate::command::Keys;

/// The arguments of a request, the command's name first.
pub trait ArgList {
    /// Number of arguments, the name counted.
    fn len(&self) -> usize;

    /// Argument `index`, which is less than `len`.
    fn arg(&self, index: usize) -> &[u8];

    /// Whether there is not even a name.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: AsRef<[u8]>> ArgList for [T] {
    fn len(&self) -> usize {
        self.len()
    }

    fn arg(&self, index: usize) -> &[u8] {
        self[index].as_ref()
    }
}

/// The request is not of the command's form, so that there is no telling its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no keys can be found")]
pub struct KeysError;

/// The argument indexes of a request's keys, every one in bounds: perhaps one in front, then a run in equal steps.
#[derive(Clone, Debug)]
pub struct Positions {
    /// The key in front; 0 for none, as argument 0 is the name.
    front: usize,
    next: usize,
    step: usize,
    left: usize,
}

impl Positions {
    const NONE: Self = Self::run(0, 1, 0);

    const fn run(first: usize, step: usize, count: usize) -> Self {
        Self { front: 0, next: first, step, left: count }
    }
}

impl Iterator for Positions {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.front != 0 {
            return Some(mem::take(&mut self.front));
        }
        self.left = self.left.checked_sub(1)?;
        let position = self.next;
        self.next += self.step;
        Some(position)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.left + usize::from(self.front != 0);
        (count, Some(count))
    }
}

impl ExactSizeIterator for Positions {}

/// Finds the keys of the request `args`. A request may rightly have none: `PING`, or `EVAL` with a count of 0.
#[inline]
pub fn positions(keys: Keys, args: &(impl ArgList + ?Sized)) -> Result<Positions, KeysError> {
    match keys {
        Keys::None => Some(Positions::NONE),
        Keys::Range { first, last, step } => range(first, last, step, args.len()),
        Keys::Counted { count, step, also } => counted(count, step, also, args),
        Keys::Streams { from } => streams(from, args),
        Keys::Worded { from, words, skip } => worded(from, words, skip, args),
    }
    .ok_or(KeysError)
}

/// The argument that says for how long a stream read waits, if it asks to wait.
pub fn block_argument(keys: Keys, args: &(impl ArgList + ?Sized)) -> Option<usize> {
    let Keys::Streams { from } = keys else { return None };
    stream_words(from, args).filter(|at| is(args.arg(*at), "BLOCK")).last().map(|at| at + 1)
}

impl Keys {
    /// First key, last key, and step as the server's `COMMAND` tells them, to which a key that moves is no key.
    pub fn legacy(self) -> (u8, i8, u8) {
        match self {
            Self::Range { first, last, step } => (first, last, step),
            Self::Counted { also: 1.., .. } | Self::Worded { .. } => (1, 1, 1),
            Self::None | Self::Counted { .. } | Self::Streams { .. } => (0, 0, 0),
        }
    }
}

#[inline]
fn range(first: u8, last: i8, step: u8, len: usize) -> Option<Positions> {
    let (first, step) = (usize::from(first), usize::from(step).max(1));
    let distance = usize::from(last.unsigned_abs());
    let last = if last < 0 { len.checked_sub(distance)? } else { distance };
    let count = last.checked_sub(first)? / step + 1;
    (last < len).then_some(Positions::run(first, step, count))
}

fn counted(count: u8, step: u8, also: u8, args: &(impl ArgList + ?Sized)) -> Option<Positions> {
    let (count, step) = (usize::from(count), usize::from(step).max(1));
    let behind = args.len().checked_sub(count + 1)?;
    let number = str::from_utf8(args.arg(count)).ok()?.parse().ok()?;
    let run = Positions::run(count + 1, step, number);
    (number <= behind / step).then_some(Positions { front: usize::from(also), ..run })
}

/// What can stand in front of `STREAMS`, with the number of arguments of each, which may read `STREAMS` themselves.
const STREAM_OPTIONS: &[(&str, u8)] = &[("BLOCK", 1), ("COUNT", 1), ("GROUP", 2), ("CLAIM", 1)];

fn streams(from: u8, args: &(impl ArgList + ?Sized)) -> Option<Positions> {
    let at = stream_words(from, args).find(|at| is(args.arg(*at), "STREAMS"))?;
    let behind = args.len() - at - 1;
    let even = behind > 0 && behind.is_multiple_of(2);
    even.then_some(Positions::run(at + 1, 1, behind / 2))
}

/// Where the options stand, and behind them `STREAMS` if it is there.
fn stream_words(from: u8, args: &(impl ArgList + ?Sized)) -> impl Iterator<Item = usize> {
    let within = |at: &usize| *at < args.len();
    iter::successors(Some(usize::from(from)).filter(within), move |at| {
        let word = args.arg(*at);
        let next = at + 1 + arguments_of(word, STREAM_OPTIONS);
        (!is(word, "STREAMS")).then_some(next).filter(within)
    })
}

fn worded(
    from: u8,
    words: &[&str],
    skip: &[(&str, u8)],
    args: &(impl ArgList + ?Sized),
) -> Option<Positions> {
    const KEY: usize = 1;
    let mut other = None;
    let mut at = usize::from(from);
    while at < args.len() {
        let word = args.arg(at);
        if words.iter().any(|announcer| is(word, announcer)) {
            at += 1;
            // The server, too, lets the last one count; one at the end announces nothing and is refused there.
            other = (at < args.len()).then_some(at).or(other);
            at += 1;
        } else {
            at += 1 + arguments_of(word, skip);
        }
    }
    match other {
        Some(other) => Some(Positions::run(KEY, other - KEY, 2)),
        None => (KEY < args.len()).then_some(Positions::run(KEY, 1, 1)),
    }
}

fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

fn arguments_of(word: &[u8], options: &[(&str, u8)]) -> usize {
    options.iter().find(|(option, _)| is(word, option)).map_or(0, |(_, count)| usize::from(*count))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use proptest::{collection, sample};

    use super::{KeysError, positions};
    use crate::command::table;

    /// The keys of a command line of the table, or `None` where they cannot be found.
    fn check(line: &str, keys: Option<&[usize]>) {
        let args: Vec<&str> = line.split(' ').collect();
        let container = table::lookup(args[0].as_bytes()).expect("a command of the table");
        let spec = args
            .get(1)
            .and_then(|name| table::subcommand(container, name.as_bytes()))
            .unwrap_or(container);
        let found = positions(spec.keys, args.as_slice()).map(Iterator::collect::<Vec<_>>);
        assert_eq!(found, keys.map(<[usize]>::to_vec).ok_or(KeysError), "{line}");
    }

    #[test]
    fn ranges() {
        check("PING", Some(&[]));
        check("GET k", Some(&[1]));
        check("SET k v EX 5", Some(&[1]));
        check("MGET a b a", Some(&[1, 2, 3]));
        check("MSET a 1 b 2", Some(&[1, 3]));
        check("MSET a 1 b", Some(&[1, 3]));
        check("BITOP AND d a b", Some(&[2, 3, 4]));
        check("BLPOP a b 0", Some(&[1, 2]));
        check("LMOVE a b LEFT LEFT", Some(&[1, 2]));
        check("OBJECT ENCODING k", Some(&[2]));
        check("OBJECT HELP", Some(&[]));
        check("MEMORY USAGE k SAMPLES 5", Some(&[2]));
        check("VADD", None);
        check("SUNSUBSCRIBE", None);
        check("COPY a", None);
    }

    #[test]
    fn counts() {
        check("EVAL s 2 a b arg", Some(&[3, 4]));
        check("EVAL s 0", Some(&[]));
        check("EVAL s 0 arg", Some(&[]));
        check("EVAL s -1 a", None);
        check("EVAL s x a", None);
        check("EVAL s 3 a b", None);
        check("EVAL s 99999999999999999999 a", None);
        check("EVAL s", None);
        check("LMPOP 2 a b LEFT", Some(&[2, 3]));
        check("BLMPOP 0 2 a b LEFT", Some(&[3, 4]));
        check("ZUNIONSTORE d 2 a b WEIGHTS 1 2", Some(&[1, 3, 4]));
        check("ZUNIONSTORE d 0 a b", Some(&[1]));
        check("ZUNIONSTORE d 3 a b", None);
        check("MSETEX 2 a 1 b 2 EX 5", Some(&[2, 4]));
        check("MSETEX 2 a 1 b", None);
    }

    #[test]
    fn words() {
        check("XREAD STREAMS a b 0 0", Some(&[2, 3]));
        check("XREAD COUNT 5 BLOCK 0 streams a 0", Some(&[6]));
        check("XREAD COUNT STREAMS STREAMS STREAMS 0", Some(&[4]));
        check("XREAD STREAMS a b 0", None);
        check("XREAD STREAMS", None);
        check("XREAD COUNT 5", None);
        check("XREADGROUP GROUP STREAMS STREAMS NOACK STREAMS a >", Some(&[6]));
        check("XREADGROUP CLAIM 10 GROUP g c STREAMS a >", Some(&[7]));
        check("SORT k", Some(&[1]));
        check("SORT k BY w_* GET # LIMIT 0 5 store d", Some(&[1, 10]));
        check("SORT k BY STORE GET STORE STORE d", Some(&[1, 7]));
        check("SORT k STORE d STORE e", Some(&[1, 5]));
        check("SORT k STORE", Some(&[1]));
        check("GEORADIUS k 1 2 3 km STORE d", Some(&[1, 7]));
        check("GEORADIUS k 1 2 3 km STORE d STOREDIST e", Some(&[1, 9]));
        check("GEORADIUSBYMEMBER k m 3 km ASC", Some(&[1]));
    }

    proptest! {
        #[test]
        fn positions_stay_within_the_arguments(
            rows in collection::vec(any::<sample::Index>(), 8),
            args in collection::vec(sample::select(vec![
                "", "0", "1", "2", "3", "-1", "18446744073709551615", "STREAMS", "STORE", "GET", "BLOCK", "k",
            ]), 0..8),
        ) {
            let subcommands = table::TABLE.iter().flat_map(|spec| spec.subcommands);
            let specs: Vec<_> = table::TABLE.iter().chain(subcommands).collect();
            for row in rows {
                if let Ok(found) = positions(row.get(&specs).keys, args.as_slice()) {
                    let count = found.len();
                    let found: Vec<_> = found.collect();
                    prop_assert_eq!(count, found.len());
                    prop_assert!(found.iter().all(|&at| 0 < at && at < args.len()));
                }
            }
        }
    }
}
