//! `SORT` and `SORT_RO` with patterns that name keys: their arguments, and the order of the elements. A node of a cluster
//! refuses such patterns, since the keys may be anywhere.
//!
//! Everything is as the server has it, but for what it leaves to its C library: scores in hexadecimal are none, and texts
//! are ordered by their bytes, as in the locale `C`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;
use memchr::{memchr, memmem};

use super::keys::ArgList;
use crate::cluster::Slot;
use crate::resp::write;

const SYNTAX: &str = "ERR syntax error";
const NOT_A_NUMBER: &str = "ERR value is not an integer or out of range";
const NO_SCORE: &str = "ERR One or more scores can't be converted into double";
/// The BY pattern of those who want no order.
const NO_ORDER: &[&[u8]] = &[b"BY", b"nosort"];

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sort {
    by: By,
    gets: Vec<Pattern>,
    alpha: bool,
    descending: bool,
    limit: Option<(i64, i64)>,
}

/// What the elements are ordered by.
#[derive(Clone, Debug, Default, PartialEq)]
enum By {
    /// Themselves.
    #[default]
    Elements,
    /// Nothing: a constant.
    Nothing,
    /// What is found at keys.
    Keys(Pattern),
}

/// How an element leads to a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// `#`: it is the value.
    Element,
    /// The same key for all elements, to the server none at all.
    Constant,
    /// A key with the element's text in it: a string, or a hash of which this field is meant.
    Key {
        /// What stands before the element.
        front: Bytes,
        /// What stands behind it.
        back: Bytes,
        /// The field.
        field: Option<Bytes>,
    },
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Here; `None` is nil.
    Here(Option<Bytes>),
    /// The reply to this request to the owner of this slot.
    At(Slot, Vec<u8>),
}

/// Whether a request has a pattern that names keys. `GET #` counts as one, since nodes refuse it as well.
pub fn names_keys(args: &(impl ArgList + ?Sized)) -> bool {
    option_with_keys(args).is_some()
}

/// The first option by which it does.
pub fn option_with_keys(args: &(impl ArgList + ?Sized)) -> Option<&'static str> {
    let mut at = 2;
    while at + 1 < args.len() {
        let (word, next) = (args.arg(at), args.arg(at + 1));
        at += match () {
            () if is(word, "GET") => return Some("GET"),
            () if is(word, "BY") && memchr(b'*', next).is_some() => return Some("BY"),
            () if is(word, "BY") || is(word, "STORE") => 2,
            () if is(word, "LIMIT") => 3,
            () => 1,
        };
    }
    None
}

/// A request that stores, as one that does not, and where it stores: what is named last counts.
pub fn without_store(args: &[Bytes]) -> Option<(Vec<Bytes>, Bytes)> {
    let (mut rest, mut target) = (args.get(..2)?.to_vec(), None);
    let mut at = 2;
    while let Some(word) = args.get(at) {
        let len = match () {
            () if is(word, "BY") || is(word, "GET") || is(word, "STORE") => 2,
            () if is(word, "LIMIT") => 3,
            () => 1,
        };
        let option = args.get(at..at + len)?;
        match option {
            [word, name] if is(word, "STORE") => target = Some(name.clone()),
            option => rest.extend_from_slice(option),
        }
        at += len;
    }
    Some((rest, target?))
}

impl Sort {
    /// Reads the arguments of a request that stores nothing, or says what is wrong with them.
    pub fn parse(args: &[Bytes]) -> Result<Self, &'static str> {
        let mut sort = Self::default();
        let mut rest = args.get(2..).unwrap_or_default();
        while let Some((word, behind)) = rest.split_first() {
            rest = match behind {
                _ if is(word, "ASC") || is(word, "DESC") => {
                    sort.descending = is(word, "DESC");
                    behind
                }
                _ if is(word, "ALPHA") => {
                    sort.alpha = true;
                    behind
                }
                [start, count, behind @ ..] if is(word, "LIMIT") => {
                    sort.limit = Some((integer(start)?, integer(count)?));
                    behind
                }
                [pattern, behind @ ..] if is(word, "BY") => {
                    // One constant among several patterns is enough for the server not to sort.
                    if sort.by != By::Nothing {
                        sort.by = By::of(pattern);
                    }
                    behind
                }
                [pattern, behind @ ..] if is(word, "GET") => {
                    sort.gets.push(Pattern::of(pattern));
                    behind
                }
                _ => return Err(SYNTAX),
            };
        }
        Ok(sort)
    }

    /// Has the owner of the key give its elements: as far as it can in the order and within the limit that is wanted.
    pub fn elements(&self, args: &[Bytes]) -> Source {
        let limit = self.limit.map(|(start, count)| (start.to_string(), count.to_string()));
        let mut words: Vec<&[u8]> = args.iter().take(2).map(|arg| &arg[..]).collect();
        if self.by != By::Elements {
            words.extend(NO_ORDER);
        }
        if self.is_ordered_by_node() {
            if let Some((start, count)) = &limit {
                words.extend([&b"LIMIT"[..], start.as_bytes(), count.as_bytes()]);
            }
            words.extend(self.descending.then_some(&b"DESC"[..]));
            words.extend(self.alpha.then_some(&b"ALPHA"[..]));
        }
        let mut wire = Vec::new();
        write::request(&mut wire, words.into_iter());
        Source::At(Slot::of(&args[1]), wire)
    }

    fn is_ordered_by_node(&self) -> bool {
        !matches!(self.by, By::Keys(_))
    }

    /// Where the elements' weights are; `None` if they are wanted in the order in which the node gives them.
    pub fn weights<'a>(&'a self, elements: &'a [Bytes]) -> Option<impl Iterator<Item = Source>> {
        let By::Keys(pattern) = &self.by else { return None };
        Some(elements.iter().map(|element| pattern.source(element)))
    }

    /// The elements by their weights, within the limit.
    pub fn order(
        &self,
        elements: Vec<Bytes>,
        weights: Vec<Option<Bytes>>,
    ) -> Result<Vec<Bytes>, &'static str> {
        let range = self.range(elements.len());
        let mut sorted = if self.alpha {
            self.ordered(weights.into_iter().zip(elements).collect(), |(a, _), (b, _)| a.cmp(b))
        } else {
            let scores: Option<Vec<f64>> = weights.iter().map(|w| score(w.as_deref())).collect();
            let pairs = scores.ok_or(NO_SCORE)?.into_iter().zip(elements).collect();
            // Among equals the texts decide.
            self.ordered(pairs, |(a, x), (b, y)| {
                a.partial_cmp(b).unwrap_or(Ordering::Equal).then_with(|| x.cmp(y))
            })
        };
        sorted.truncate(range.end);
        Ok(sorted.split_off(range.start))
    }

    fn ordered<W>(
        &self,
        mut pairs: Vec<(W, Bytes)>,
        compare: impl Fn(&(W, Bytes), &(W, Bytes)) -> Ordering,
    ) -> Vec<Bytes> {
        pairs.sort_by(|a, b| {
            let order = compare(a, b);
            if self.descending { order.reverse() } else { order }
        });
        pairs.into_iter().map(|(_, element)| element).collect()
    }

    /// What is within the limit of so many elements.
    fn range(&self, len: usize) -> Range<usize> {
        let (start, count) = self.limit.unwrap_or((0, -1));
        let start = usize::try_from(start.max(0)).unwrap_or(len).min(len);
        let end = usize::try_from(count).map_or(len, |count| start.saturating_add(count).min(len));
        start..end
    }

    /// Number of values for each element.
    pub fn width(&self) -> usize {
        self.gets.len().max(1)
    }

    /// Where the values of the reply are.
    pub fn values<'a>(&'a self, elements: &'a [Bytes]) -> impl Iterator<Item = Source> + 'a {
        let gets = if self.gets.is_empty() { &[Pattern::Element][..] } else { &self.gets };
        elements.iter().flat_map(|element| gets.iter().map(|pattern| pattern.source(element)))
    }
}

impl By {
    fn of(pattern: &Bytes) -> Self {
        match Pattern::of(pattern) {
            pattern @ Pattern::Key { .. } => Self::Keys(pattern),
            Pattern::Element | Pattern::Constant => Self::Nothing,
        }
    }
}

impl Pattern {
    fn of(text: &Bytes) -> Self {
        if text == "#" {
            return Self::Element;
        }
        let Some(star) = memchr(b'*', text) else { return Self::Constant };
        let (front, back) = (text.slice(..star), text.slice(star + 1..));
        match memmem::find(&back, b"->").filter(|arrow| arrow + 2 < back.len()) {
            Some(arrow) => {
                Self::Key { front, back: back.slice(..arrow), field: Some(back.slice(arrow + 2..)) }
            }
            None => Self::Key { front, back, field: None },
        }
    }

    fn source(&self, element: &Bytes) -> Source {
        match self {
            Self::Element => Source::Here(Some(element.clone())),
            Self::Constant => Source::Here(None),
            Self::Key { front, back, field } => {
                let key = [&front[..], element, back].concat();
                let mut wire = Vec::with_capacity(key.len() + 32);
                match field {
                    None => write::request(&mut wire, [&b"GET"[..], &key].into_iter()),
                    Some(field) => {
                        write::request(&mut wire, [&b"HGET"[..], &key, field].into_iter());
                    }
                }
                Source::At(Slot::of(&key), wire)
            }
        }
    }
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

fn integer(text: &[u8]) -> Result<i64, &'static str> {
    let digits = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'));
    digits.and_then(|digits| digits.parse().ok()).ok_or(NOT_A_NUMBER)
}

/// The number that a weight is; that of a missing or empty one is 0.
fn score(weight: Option<&[u8]>) -> Option<f64> {
    let text = String::from_utf8_lossy(weight.unwrap_or_default());
    let text = match text {
        Cow::Borrowed(text) => text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']),
        Cow::Owned(_) => return None,
    };
    if text.is_empty() {
        return weight.unwrap_or_default().is_empty().then_some(0.0);
    }
    let score: f64 = text.parse().ok()?;
    let is_too_large = score.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit());
    (!score.is_nan() && !is_too_large).then_some(score)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Bytes> {
        line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    #[test]
    fn requests_that_name_keys() {
        let check =
            |line: &str, expected| assert_eq!(names_keys(&words(line)[..]), expected, "{line}");
        check("SORT k", false);
        check("SORT k BY nosort", false);
        check("SORT k LIMIT by *", false);
        check("SORT k BY get LIMIT 0 1", false);
        check("SORT k GET", false);
        check("SORT k STORE get", false);
        check("SORT k STORE by *", false);
        check("SORT k STORE limit GET x_*", true);
        check("SORT k by w_*", true);
        check("SORT k BY nosort ASC GET #", true);
        check("SORT k LIMIT 0 1 get x", true);
    }

    #[test]
    fn arguments_that_are_wrong() {
        let check = |line: &str, expected| {
            assert_eq!(Sort::parse(&words(line)).err(), expected, "{line}");
        };
        check("SORT k BY w_* GET # LIMIT 0 5 desc ALPHA asc", None);
        check("SORT k BY w_* foo", Some(SYNTAX));
        check("SORT k GET # BY", Some(SYNTAX));
        check("SORT k GET # LIMIT 1", Some(SYNTAX));
        check("SORT_RO k GET # STORE d", Some(SYNTAX));
        check("SORT k GET # LIMIT 1 x", Some(NOT_A_NUMBER));
        check("SORT k GET # LIMIT +1 1", Some(NOT_A_NUMBER));
    }

    #[test]
    fn what_the_node_is_asked_for() {
        let check = |line: &str, expected: &str| {
            let Source::At(slot, wire) = Sort::parse(&words(line)).unwrap().elements(&words(line))
            else {
                panic!("{line}")
            };
            assert_eq!(slot, Slot::of(b"k"));
            let mut as_expected = Vec::new();
            write::request(&mut as_expected, words(expected).iter().map(|word| &word[..]));
            assert_eq!(wire, as_expected, "{line}");
        };
        check("SORT k BY w_* LIMIT 1 2 DESC ALPHA", "SORT k BY nosort");
        check("SORT_RO k GET # LIMIT 1 2 DESC", "SORT_RO k LIMIT 1 2 DESC");
        check("SORT k GET # ALPHA", "SORT k ALPHA");
        check("SORT k BY x GET # DESC", "SORT k BY nosort DESC");
        check("SORT k BY w_* BY x", "SORT k BY nosort");
    }

    #[test]
    fn keys_that_elements_lead_to() {
        let check = |pattern: &'static str, expected: &str| {
            let asked = match Pattern::of(&pattern.into()).source(&"7".into()) {
                Source::Here(value) => format!("{value:?}"),
                Source::At(_, wire) => {
                    let wire = String::from_utf8(wire).unwrap();
                    wire.split("\r\n").skip(2).step_by(2).collect::<Vec<_>>().join(" ")
                }
            };
            assert_eq!(asked, expected, "{pattern}");
        };
        check("#", "Some(b\"7\")");
        check("constant", "None");
        check("w_*", "GET w_7");
        check("*", "GET 7");
        check("a*b*", "GET a7b*");
        check("w_*->f", "HGET w_7 f");
        check("w_*x->f->g", "HGET w_7x f->g");
        check("w->*", "GET w->7");
        check("w_*->", "GET w_7->");
    }

    #[test]
    fn weights_are_numbers() {
        let check =
            |text: &str, expected| assert_eq!(score(Some(text.as_bytes())), expected, "{text}");
        assert_eq!(score(None), Some(0.0));
        check("", Some(0.0));
        check(" ", None);
        check(" -1.5e1", Some(-15.0));
        check("+3", Some(3.0));
        check("inf", Some(f64::INFINITY));
        check("1e999", None);
        check("nan", None);
        check("1 ", None);
        check("x", None);
    }

    #[test]
    fn orders() {
        let check = |options: &str, weights: &str, expected: Result<&str, &'static str>| {
            let sort = Sort::parse(&words(&format!("SORT k BY w_*{options}"))).unwrap();
            let weights: Vec<_> =
                words(weights).into_iter().map(|w| (w != "-").then_some(w)).collect();
            let ordered = sort.order(words("b a d c"), weights);
            assert_eq!(
                ordered,
                expected.map(|e| e
                    .split_whitespace()
                    .map(|word| Bytes::copy_from_slice(word.as_bytes()))
                    .collect()),
                "{options}"
            );
        };
        check("", "3 1 2 4", Ok("a d b c"));
        check(" DESC", "3 1 2 4", Ok("c b d a"));
        check("", "10 9 - 9", Ok("d a c b"));
        check(" DESC", "1 1 1 1", Ok("d c b a"));
        check(" ALPHA", "10 9 - 9", Ok("d b a c"));
        check(" ALPHA DESC", "10 9 - 9", Ok("a c b d"));
        check("", "x 1 1 1", Err(NO_SCORE));
        check(" LIMIT 0 1", "1 1 1 x", Err(NO_SCORE));
        check(" LIMIT 1 2", "3 1 2 4", Ok("d b"));
        check(" LIMIT -5 2", "3 1 2 4", Ok("a d"));
        check(" LIMIT 3 9", "3 1 2 4", Ok("c"));
        check(" LIMIT 4 9", "3 1 2 4", Ok(""));
        check(" LIMIT 1 -1", "3 1 2 4", Ok("d b c"));
        check(" LIMIT 1 0", "3 1 2 4", Ok(""));
        check(" LIMIT 9223372036854775807 9223372036854775807", "3 1 2 4", Ok(""));
    }
}
