//! Hash slots: `CRC16(key) mod 16384`, of the hash tag if the key has one (Redis cluster specification).

use std::fmt;

use crc16::{State, XMODEM};

/// Number of hash slots of every cluster.
pub const SLOTS: usize = 16384;

/// A hash slot, below [`SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot with this number, if there is one.
    pub fn new(number: usize) -> Option<Self> {
        u16::try_from(number).ok().filter(|n| usize::from(*n) < SLOTS).map(Self)
    }

    /// The slot of a key.
    pub fn of(key: &[u8]) -> Self {
        Self(State::<XMODEM>::calculate(hashed_part(key)) & (16384 - 1))
    }

    /// The number, to index with.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What of the key is hashed: the text between the first `{` and the next `}` unless that is empty, else all.
fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|b| *b == b'{') else { return key };
    let tail = &key[open + 1..];
    match tail.iter().position(|b| *b == b'}') {
        None | Some(0) => key,
        Some(close) => &tail[..close],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_keys() {
        let check = |key: &str, slot| assert_eq!(Slot::of(key.as_bytes()).number(), slot, "{key}");
        check("123456789", 0x31c3);
        check("foo", 12182);
        check("", 0);
        check("{user1000}.following", 3443);
        check("user1000", 3443);
        check("foo{}{bar}", 8363);
        check("foo{{bar}}zap", 4015);
        check("foo{bar}{zap}", 5061);
        check("bar", 5061);
    }
}
