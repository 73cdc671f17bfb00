//! Beginnings of keys: those of one key among many, without going through them all.

use std::collections::BTreeMap;
use std::ops::Bound::{Included, Unbounded};

use bytes::Bytes;

/// All of `prefixes` that a key begins with, the longest first.
///
/// What sorts last of those up to the key, or up to what is left of it, is either its beginning or shares some bytes with it;
/// of the shorter ones none can be longer than these bytes.
pub(super) fn all_of<'a, T>(
    prefixes: &'a BTreeMap<Bytes, T>,
    key: &'a [u8],
) -> impl Iterator<Item = &'a Bytes> {
    let mut rest = Some(key);
    std::iter::from_fn(move || {
        loop {
            let (prefix, _) =
                prefixes.range::<[u8], _>((Unbounded, Included(rest?))).next_back()?;
            let shared = shared(prefix, key);
            if shared == prefix.len() {
                rest = shared.checked_sub(1).map(|shorter| &key[..shorter]);
                return Some(prefix);
            }
            rest = Some(&key[..shared]);
        }
    })
}

/// How many bytes two texts begin with alike.
fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_own_beginnings() {
        let words = ["a", "ab", "aba", "abb", "abbz", "b", "ba"];
        let check = |words: &[&str], key: &str| {
            let known = words.iter().map(|word| (Bytes::copy_from_slice(word.as_bytes()), 1));
            let known: BTreeMap<_, _> = known.collect();
            let mut wanted: Vec<_> = words.iter().filter(|word| key.starts_with(**word)).collect();
            wanted.reverse();
            let found: Vec<_> = all_of(&known, key.as_bytes()).collect();
            assert_eq!(found, wanted, "{key}");
        };
        for key in ["", "a", "ab", "abbb", "abbzz", "abc", "aac", "b", "c", "ba", "bzz"] {
            check(&words, key);
            check(&["", "a", "ab", "abb", "b"], key);
            check(&[], key);
        }
    }
}
