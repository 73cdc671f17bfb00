//! Many slots, written in ranges as the nodes write them: `0-99,120`.

use std::fmt;
use std::ops::{Deref, RangeInclusive};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::slot::Slot;

/// Slots in ascending order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slots(Vec<Slot>);

impl Slots {
    /// All slots that there are.
    pub fn all() -> Self {
        Self((0..).map_while(Slot::new).collect())
    }

    /// First and last slot of each run of neighbours.
    pub fn ranges(&self) -> Vec<RangeInclusive<u16>> {
        let runs = self.0.chunk_by(|a, b| a.number() + 1 == b.number());
        runs.filter_map(|run| Some(run.first()?.number()..=run.last()?.number())).collect()
    }

    /// Whether the slot is one of them.
    pub fn contains(&self, slot: Slot) -> bool {
        self.0.binary_search(&slot).is_ok()
    }
}

impl Deref for Slots {
    type Target = [Slot];

    fn deref(&self) -> &[Slot] {
        &self.0
    }
}

impl FromIterator<Slot> for Slots {
    fn from_iter<T: IntoIterator<Item = Slot>>(slots: T) -> Self {
        let mut slots: Vec<Slot> = slots.into_iter().collect();
        slots.sort_unstable();
        slots.dedup();
        Self(slots)
    }
}

impl IntoIterator for Slots {
    type Item = Slot;
    type IntoIter = std::vec::IntoIter<Slot>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Slots {
    type Item = &'a Slot;
    type IntoIter = std::slice::Iter<'a, Slot>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.ranges().iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Slots {
    type Err = String;

    /// Reads what [`Display`](fmt::Display) writes; blanks do as well as commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        let ranges: Result<Vec<_>, String> = words.map(range).collect();
        Ok(ranges?.into_iter().flatten().filter_map(|n| Slot::new(n.into())).collect())
    }
}

fn range(word: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let slot = |text: &str| text.parse().ok().and_then(Slot::new).map(Slot::number);
    match (slot(first), slot(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(format!("{word:?} is neither a slot nor a range of slots")),
    }
}

impl From<Slots> for String {
    fn from(slots: Slots) -> Self {
        slots.to_string()
    }
}

impl TryFrom<String> for Slots {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_written_in_ranges_and_read_again() {
        let check = |text: &str, expected: &str| {
            let slots: Slots = text.parse().unwrap();
            assert_eq!(slots.to_string(), expected, "{text}");
            assert_eq!(expected.parse::<Slots>().unwrap(), slots);
        };
        check("", "");
        check("5", "5");
        check("7,5,6,9,10,12,5", "5-7,9-10,12");
        check("0-5460 16383", "0-5460,16383");
        assert_eq!(Slots::all().to_string(), "0-16383");
        assert_eq!(Slots::all().len(), 16384);
    }

    #[test]
    fn refuse_what_is_no_slot() {
        for text in ["16384", "-1", "5-3", "a", "1-", "0-16384"] {
            assert!(text.parse::<Slots>().is_err(), "{text}");
        }
    }

    #[test]
    fn know_their_members() {
        let slots: Slots = "3,5-6".parse().unwrap();
        let members: Vec<u16> =
            Slots::all().into_iter().filter(|s| slots.contains(*s)).map(Slot::number).collect();
        assert_eq!(members, [3, 5, 6]);
    }
}
