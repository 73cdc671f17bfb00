//! Commands whose keys are in several slots, which no node runs: which of them the proxy does all the same, and how.

use std::collections::HashMap;
use std::fmt::Display;
use std::mem;
use std::sync::OnceLock;

use bytes::Bytes;

use super::Keys;
use super::Spec;
use super::keys;
use crate::cluster::Slot;

/// Which of them are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrossSlot {
    /// None: the server's error.
    Strict,
    /// Those that only read.
    #[default]
    Read,
    /// Also those that write. None of them is atomic then.
    Emulate,
}

/// How a command is done whose keys are in several slots. What it gives is written before anything is taken away, so that
/// whatever interrupts it, nothing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Across {
    /// Keys of other slots are copied into the home slot, and the command runs there on the copies.
    Gather,
    /// A copy under the new name, then the old one is deleted unless it has changed since (`RENAME`, `RENAMENX`).
    Rename,
    /// A copy (`COPY`).
    Copy,
    /// A member is added, then removed (`SMOVE`).
    Member,
    /// An element is pushed, then popped (`LMOVE` and its like).
    Element,
    /// Key by key, until one has something (`BLPOP`, `ZMPOP` and their like).
    First,
    /// Stream by stream, and what they give is put together (`XREAD`, `XREADGROUP`).
    Streams,
    /// Slot by slot, if none of the keys exists (`MSETNX`).
    SetAll,
    /// Sorted by the proxy as patterns say, and stored (`SORT … BY … STORE`).
    SortStore,
}

impl CrossSlot {
    /// Whether the command is done, given its row.
    pub fn allows(self, spec: &Spec) -> bool {
        match self {
            Self::Strict => false,
            Self::Read => spec.is_readonly(),
            Self::Emulate => true,
        }
    }
}

/// A request and where it runs once copies of its other keys are there.
#[derive(Debug, PartialEq, Eq)]
pub struct Gathering {
    /// The slot of the key that is written, or of the first one.
    pub home: Slot,
    /// Keys of other slots, and the names of their copies.
    pub others: Vec<(Bytes, Bytes)>,
    /// The request on the copies, which writes its result beside the key that it is to write.
    pub args: Vec<Bytes>,
    /// The key that is written, if the command writes, and where its result is until then.
    pub written: Option<(Bytes, Bytes)>,
}

impl Gathering {
    /// Of a request; copies are called by this number, which nobody else uses. `None` if it has no keys.
    pub fn new(spec: &Spec, args: &[Bytes], number: u64) -> Option<Self> {
        let at: Vec<usize> = keys::positions(spec.keys, args).ok()?.collect();
        // Where `STORE` announces it, the key that is written is behind the one that is read; else it is in front.
        let is_behind = matches!(spec.keys, Keys::Worded { .. });
        let home_at = *if is_behind { at.last() } else { at.first() }?;
        let home = Slot::of(&args[home_at]);
        let name = |what: &dyn Display| {
            Bytes::from(format!("slotway:copy:{{{}}}:{number:x}:{what}", tag(home)))
        };
        let mut args = args.to_vec();
        let mut names: HashMap<Bytes, Bytes> = HashMap::new();
        let mut others = Vec::new();
        for at in at {
            if Slot::of(&args[at]) == home {
                continue;
            }
            let count = names.len();
            let name = names.entry(args[at].clone()).or_insert_with(|| {
                let name = name(&count);
                others.push((args[at].clone(), name.clone()));
                name
            });
            args[at] = name.clone();
        }
        let written = (!spec.is_readonly()).then(|| {
            let result = name(&"result");
            let key = mem::replace(&mut args[home_at], result.clone());
            if spec.name == "pfmerge" {
                // It alone reads the key that it writes.
                args.insert(home_at + 1, key.clone());
            }
            (key, result)
        });
        Some(Self { home, others, args, written })
    }
}

/// A number that hashes to the slot.
fn tag(slot: Slot) -> u32 {
    static TAGS: OnceLock<Vec<u32>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        let mut missing = (0..).map_while(Slot::new).count();
        let (mut tags, mut text) = (vec![u32::MAX; missing], Vec::new());
        let mut number = 0;
        while missing > 0 {
            text.clear();
            crate::resp::write::decimal(&mut text, number);
            let tag = &mut tags[Slot::of(&text).index()];
            if *tag == u32::MAX {
                *tag = number;
                missing -= 1;
            }
            number += 1;
        }
        tags
    });
    tags[slot.index()]
}

/// What a request asks of one key alone: the word in front of it and those behind; `None` if the command is no such one.
/// Those that block are asked without.
pub fn alone(name: &str, args: &[Bytes], key: &Bytes) -> Option<Vec<Bytes>> {
    let word = Bytes::from_static;
    Some(match name {
        "blpop" => vec![word(b"LPOP"), key.clone()],
        "brpop" => vec![word(b"RPOP"), key.clone()],
        "bzpopmin" => vec![word(b"ZPOPMIN"), key.clone()],
        "bzpopmax" => vec![word(b"ZPOPMAX"), key.clone()],
        "lmpop" | "blmpop" | "zmpop" | "bzmpop" => {
            let name = if name.ends_with("lmpop") { word(b"LMPOP") } else { word(b"ZMPOP") };
            let count_at = if name_blocks(args) { 2 } else { 1 };
            let count: usize = std::str::from_utf8(args.get(count_at)?).ok()?.parse().ok()?;
            let behind = args.get(count_at + 1 + count..)?;
            [name, word(b"1"), key.clone()].into_iter().chain(behind.iter().cloned()).collect()
        }
        _ => return None,
    })
}

fn name_blocks(args: &[Bytes]) -> bool {
    args[0].first().is_some_and(|letter| letter.eq_ignore_ascii_case(&b'b'))
}

/// A request for several streams as requests for one each, none of which waits.
pub fn streams(spec: &Spec, args: &[Bytes]) -> Option<Vec<(Bytes, Vec<Bytes>)>> {
    let at: Vec<usize> = keys::positions(spec.keys, args).ok()?.collect();
    let first = *at.first()?;
    let block = keys::block_argument(spec.keys, args);
    let is_waiting = |at: usize| block.is_some_and(|block| at == block || at + 1 == block);
    let front: Vec<Bytes> =
        (0..first).filter(|at| !is_waiting(*at)).map(|at| args[at].clone()).collect();
    let each = at.iter().map(|at| {
        let id = args.get(at + (args.len() - first) / 2);
        let one = [front.clone(), vec![args[*at].clone()], id.into_iter().cloned().collect()];
        (args[*at].clone(), one.concat())
    });
    Some(each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table;

    fn words(line: &str) -> Vec<Bytes> {
        line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    fn line(args: &[Bytes]) -> String {
        String::from_utf8(args.join(&b' ')).unwrap()
    }

    #[test]
    fn copies_are_at_home() {
        let check = |request: &str, home: &str, expected: &str| {
            let args = words(request);
            let spec = table::lookup(&args[0]).unwrap();
            let gathering = Gathering::new(spec, &args, 0xab).unwrap();
            assert_eq!(gathering.home, Slot::of(home.as_bytes()), "{request}");
            for (key, copy) in &gathering.others {
                assert_ne!(Slot::of(key), gathering.home, "{request}");
                assert_eq!(Slot::of(copy), gathering.home, "{request}");
            }
            let tag = format!("slotway:copy:{{{}}}:ab:", tag(gathering.home));
            assert_eq!(line(&gathering.args).replace(&tag, "#"), expected, "{request}");
        };
        check("SUNION a b a {a}x b", "a", "SUNION a #0 a {a}x #0");
        check("BITOP AND a b c", "a", "BITOP AND #result #0 #1");
        check("PFMERGE a b", "a", "PFMERGE #result a #0");
        check("SINTERSTORE a a b", "a", "SINTERSTORE #result a #0");
        check("ZUNIONSTORE d 2 a b WEIGHTS 2 3", "d", "ZUNIONSTORE #result 2 #0 #1 WEIGHTS 2 3");
        check("SORT a BY nosort STORE b", "b", "SORT #0 BY nosort STORE #result");
        check("GEORADIUS a 1 2 3 m STORE b", "b", "GEORADIUS #0 1 2 3 m STORE #result");
    }

    #[test]
    fn every_slot_has_a_tag() {
        for slot in (0..).map_while(Slot::new) {
            assert_eq!(Slot::of(tag(slot).to_string().as_bytes()), slot);
        }
    }

    #[test]
    fn one_key_at_a_time() {
        let check = |request: &str, expected: &str| {
            let args = words(request);
            let spec = table::lookup(&args[0]).unwrap();
            let asked = alone(spec.name, &args, &Bytes::from_static(b"k"));
            assert_eq!(asked.as_deref().map(line).as_deref(), Some(expected), "{request}");
        };
        check("BLPOP a b 0", "LPOP k");
        check("bzmpop 1 2 a b MIN COUNT 3", "ZMPOP 1 k MIN COUNT 3");
        check("LMPOP 2 a b LEFT", "LMPOP 1 k LEFT");
    }

    #[test]
    fn one_stream_at_a_time() {
        let check = |request: &str, expected: [&str; 2]| {
            let args = words(request);
            let spec = table::lookup(&args[0]).unwrap();
            let each = streams(spec, &args).unwrap();
            let lines: Vec<String> = each.iter().map(|(_, one)| line(one)).collect();
            assert_eq!(lines, expected, "{request}");
        };
        check("XREAD STREAMS a b 0 1", ["XREAD STREAMS a 0", "XREAD STREAMS b 1"]);
        check(
            "XREADGROUP GROUP g c COUNT 2 BLOCK 9 NOACK STREAMS a b > >",
            [
                "XREADGROUP GROUP g c COUNT 2 NOACK STREAMS a >",
                "XREADGROUP GROUP g c COUNT 2 NOACK STREAMS b >",
            ],
        );
    }
}
