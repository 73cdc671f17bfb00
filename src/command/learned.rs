//! Commands and subcommands that are not in the table but that the cluster's nodes know: those of modules and of newer
//! servers, learned of a node's `COMMAND` reply.
//!
//! Pure: it never asks a node. It learns what routing needs, and where a node leaves in doubt where a command's keys are,
//! the command is refused rather than sent to a wrong shard.

use std::collections::HashMap;

use redis_protocol::resp2::types::BytesFrame;

use crate::command::keys::ArgList;
use crate::command::table::{self, LONGEST_NAME};
use crate::command::{Flags, Group, Keys, Policy, Spec, Use};

/// The learned rows by lower-case name; no larger than the reply they were read of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    rows: HashMap<Box<str>, Spec>,
    /// Subcommands of the table's containers, as `object|encoding`.
    subcommands: HashMap<Box<str>, Spec>,
}

impl Learned {
    /// Reads a node's reply to `COMMAND`. Names of the table are left out, and so are rows that make no sense.
    pub fn from_reply(reply: &BytesFrame) -> Self {
        let mut learned = Self::default();
        for row in items(reply).iter().filter_map(Row::read) {
            match table::lookup(row.name.as_bytes()) {
                Some(container) => learned.take_subcommands(container, row.subcommands),
                None if row.name.len() <= LONGEST_NAME => {
                    learned.rows.insert(row.name.to_ascii_lowercase().into(), row.spec());
                }
                None => {}
            }
        }
        learned
    }

    /// Takes what the table has no row for, of a container that leaves such subcommands to the servers.
    fn take_subcommands(&mut self, container: &Spec, rows: &[BytesFrame]) {
        if container.policy != Policy::Any || container.subcommands.is_empty() {
            return;
        }
        for row in rows.iter().filter_map(Row::read) {
            let name = row.name.to_ascii_lowercase();
            let sub = name.strip_prefix(container.name).and_then(|rest| rest.strip_prefix('|'));
            if sub.is_some_and(|sub| table::subcommand(container, sub.as_bytes()).is_none()) {
                self.subcommands.insert(name.into(), row.spec());
            }
        }
    }

    /// Finds the row of a command by its name, in any case. The row itself bears no name.
    pub fn lookup(&self, name: &[u8]) -> Option<&Spec> {
        let mut buffer = [0; LONGEST_NAME];
        let folded = buffer.get_mut(..name.len())?;
        folded.copy_from_slice(name);
        folded.make_ascii_lowercase();
        self.rows.get(str::from_utf8(folded).ok()?)
    }

    /// Finds the row of a subcommand of one of the table's containers by its name, in any case.
    pub fn subcommand(&self, container: &Spec, name: &[u8]) -> Option<&Spec> {
        let name = str::from_utf8(name).ok().filter(|name| name.len() <= LONGEST_NAME)?;
        let full = format!("{}|{}", container.name, name.to_ascii_lowercase());
        self.subcommands.get(full.as_str())
    }

    /// Finds the rows of a request's command and subcommand, in the table or among what was learned.
    #[inline]
    pub fn find<A: ArgList + ?Sized>(&self, args: &A) -> Option<Found<'_>> {
        let name = args.arg(0);
        let command = table::lookup(name).or_else(|| self.lookup(name))?;
        if command.subcommands.is_empty() || args.len() < 2 {
            return Some(Found { command, sub: None, words: 1 });
        }
        let name = args.arg(1);
        let sub = table::subcommand(command, name).or_else(|| self.subcommand(command, name));
        Some(Found { command, sub, words: 2 })
    }

    /// The names and rows of whole commands in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Spec)> {
        self.rows.iter().map(|(name, spec)| (&**name, spec))
    }
}

/// The rows of a request.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Of the command.
    pub command: &'a Spec,
    /// Of its subcommand, if it names one that is known.
    pub sub: Option<&'a Spec>,
    /// Arguments that name it: 2 where the second one is to be a subcommand.
    pub words: usize,
}

impl<'a> Found<'a> {
    /// The row that counts.
    pub fn spec(&self) -> &'a Spec {
        self.sub.unwrap_or(self.command)
    }
}

/// The first words of a request as errors quote them: `get`, `object|encoding`.
pub fn full_name<A: ArgList + ?Sized>(args: &A, words: usize) -> String {
    let word = |at| {
        let arg = args.arg(at);
        String::from_utf8_lossy(&arg[..arg.len().min(128)]).to_ascii_lowercase()
    };
    (0..words.min(args.len())).map(word).collect::<Vec<_>>().join("|")
}

/// One element of the reply: `name arity [flag …] first last step [category …] [tip …] [key-spec …] [subcommand …]`.
/// Servers before 7.0 end with the categories.
struct Row<'a> {
    name: &'a str,
    arity: i16,
    flags: Flags,
    /// Where the keys are; `None` if there are some and the row does not tell where.
    keys: Option<Keys>,
    subcommands: &'a [BytesFrame],
}

impl<'a> Row<'a> {
    fn read(row: &'a BytesFrame) -> Option<Self> {
        let [name, arity, words, first, last, step, rest @ ..] = items(row) else { return None };
        let flags = items(words).iter().filter_map(text).map(Flags::of_word);
        let flags = flags.fold(Flags::NONE, Flags::with);
        let specs = rest.get(2).map_or(&[][..], items);
        let has_more = flags.has(Flags::MOVABLE_KEYS) && !are_all_told(specs);
        let flags = if has_more { flags.with(Flags::MORE_KEYS) } else { flags };
        Some(Self {
            name: text(name)?,
            arity: number(arity)?,
            flags,
            keys: keys(flags, legacy(first, last, step), specs),
            subcommands: rest.get(3).map_or(&[], items),
        })
    }

    fn spec(&self) -> Spec {
        let (keys, flags) = self.with_subcommands();
        let policy = match keys {
            _ if flags.has(Flags::ADMIN) => Policy::Refuse,
            _ if flags.has(Flags::BLOCKING) || flags.has(Flags::PUBSUB) => Policy::Later,
            None => Policy::Refuse,
            Some(Keys::None) => Policy::Any,
            Some(_) => Policy::Keyed,
        };
        let keys = keys.unwrap_or(Keys::None);
        Spec {
            name: "",
            arity: self.arity,
            keys,
            policy,
            flags,
            group: Group::Module,
            // What it does with them is not told by all servers.
            uses: [Use::BOTH; 2],
            across: None,
            subcommands: &[],
        }
    }

    /// Keys and flags of a container, whose one row has to stand for all of its subcommands: their keys if they agree, and
    /// their flags together, readonly only if every one of them is.
    fn with_subcommands(&self) -> (Option<Keys>, Flags) {
        let subcommands: Vec<_> = self.subcommands.iter().filter_map(Row::read).collect();
        if subcommands.is_empty() {
            return (self.keys, self.flags);
        }
        let keys = subcommands.iter().map(|row| row.keys).fold(self.keys, agreed);
        let flags = subcommands.iter().fold(self.flags, |flags, row| flags.with(row.flags));
        let readonly = subcommands.iter().all(|row| row.flags.has(Flags::READONLY));
        (keys, if readonly { flags } else { Flags(flags.0 & !Flags::READONLY.0) })
    }
}

/// The keys of two subcommands if they are in the same places, those of the one if the other has none, as `HELP`.
fn agreed(one: Option<Keys>, other: Option<Keys>) -> Option<Keys> {
    match (one, other) {
        (Some(Keys::None), keys) | (keys, Some(Keys::None)) => keys,
        (one, other) => one.filter(|_| one == other),
    }
}

/// Where the keys are. If they move and no key spec tells how, but the first one stands still, then that one: the server
/// compares the slots of all.
fn keys(flags: Flags, legacy: Option<Keys>, specs: &[BytesFrame]) -> Option<Keys> {
    if !flags.has(Flags::MOVABLE_KEYS) {
        return legacy;
    }
    movable(specs).or(legacy.filter(|keys| *keys != Keys::None))
}

/// The keys by the first key, last key, and step that all servers tell.
fn legacy(first: &BytesFrame, last: &BytesFrame, step: &BytesFrame) -> Option<Keys> {
    match number(first)? {
        0 => Some(Keys::None),
        first => Some(Keys::Range { first, last: number(last)?, step: number(step)? }),
    }
}

/// The keys by the key specs, which servers from 7.0 on tell: one spec, or a destination and one spec.
fn movable(specs: &[BytesFrame]) -> Option<Keys> {
    match specs {
        [spec] => key_spec(spec),
        [destination, sources] => match (key_spec(destination)?, key_spec(sources)?) {
            (Keys::Range { first, last, .. }, Keys::Counted { count, step, also: 0 })
                if i16::from(first) == i16::from(last) && first < count =>
            {
                Some(Keys::Counted { count, step, also: first })
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether key specs tell of all keys of a command.
fn are_all_told(specs: &[BytesFrame]) -> bool {
    let is_incomplete = |spec: &BytesFrame| {
        let flags = field(spec, "flags").map_or(&[][..], items);
        flags.iter().any(|flag| text(flag) == Some("incomplete"))
    };
    movable(specs).is_some() && !specs.iter().any(is_incomplete)
}

fn key_spec(spec: &BytesFrame) -> Option<Keys> {
    let (begin_search, find_keys) = (field(spec, "begin_search")?, field(spec, "find_keys")?);
    let (begin, find) = (field(begin_search, "spec")?, field(find_keys, "spec")?);
    match (text(field(begin_search, "type")?)?, text(field(find_keys, "type")?)?) {
        ("index", "range") => index_range(begin, find),
        ("index", "keynum") => index_keynum(begin, find),
        ("keyword", "range") => keyword_range(begin, find),
        _ => None,
    }
}

fn index_range(begin: &BytesFrame, find: &BytesFrame) -> Option<Keys> {
    let (first, last): (u8, i8) =
        (number(field(begin, "index")?)?, number(field(find, "lastkey")?)?);
    // A limit of 2 or more is a part of the arguments behind, which only `STREAMS` has.
    let limited = number::<i64>(field(find, "limit")?)? > 1;
    // What is not negative counts from the first key.
    let last = if last < 0 { last } else { last.checked_add_unsigned(first)? };
    let step = number(field(find, "keystep")?)?;
    (first > 0 && !limited).then_some(Keys::Range { first, last, step })
}

fn index_keynum(begin: &BytesFrame, find: &BytesFrame) -> Option<Keys> {
    let (start, count): (u8, u8) =
        (number(field(begin, "index")?)?, number(field(find, "keynumidx")?)?);
    let first: u8 = number(field(find, "firstkey")?)?;
    let step = number(field(find, "keystep")?)?;
    let adjacent = count.checked_add(1)? == first;
    adjacent.then_some(Keys::Counted { count: start.checked_add(count)?, step, also: 0 })
}

fn keyword_range(begin: &BytesFrame, find: &BytesFrame) -> Option<Keys> {
    let streams = text(field(begin, "keyword")?)?.eq_ignore_ascii_case("STREAMS");
    let (last, limit): (i64, i64) =
        (number(field(find, "lastkey")?)?, number(field(find, "limit")?)?);
    let from = number(field(begin, "startfrom")?)?;
    (streams && last == -1 && limit == 2).then_some(Keys::Streams { from })
}

/// The value behind a name in an array of names and values.
fn field<'a>(map: &'a BytesFrame, name: &str) -> Option<&'a BytesFrame> {
    let pairs = items(map).chunks_exact(2);
    pairs.into_iter().find(|pair| text(&pair[0]) == Some(name)).map(|pair| &pair[1])
}

fn items(frame: &BytesFrame) -> &[BytesFrame] {
    if let BytesFrame::Array(items) = frame { items } else { &[] }
}

fn text(frame: &BytesFrame) -> Option<&str> {
    match frame {
        BytesFrame::SimpleString(text) | BytesFrame::BulkString(text) => str::from_utf8(text).ok(),
        _ => None,
    }
}

fn number<T: TryFrom<i64>>(frame: &BytesFrame) -> Option<T> {
    if let BytesFrame::Integer(number) = frame { T::try_from(*number).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use redis_protocol::resp2::types::BytesFrame;

    use super::Learned;
    use crate::command::{Flags, Keys, Policy};

    /// Reads `[…]` as an array, a number as an integer, `~` as nil, and any other word as a string.
    fn frame(words: &mut std::str::SplitAsciiWhitespace<'_>) -> Option<BytesFrame> {
        match words.next()? {
            "]" => None,
            "[" => Some(BytesFrame::Array(std::iter::from_fn(|| frame(words)).collect())),
            "~" => Some(BytesFrame::Null),
            word => Some(match word.parse() {
                Ok(number) => BytesFrame::Integer(number),
                Err(_) => BytesFrame::BulkString(Bytes::copy_from_slice(word.as_bytes())),
            }),
        }
    }

    fn learn(rows: &str) -> Learned {
        Learned::from_reply(&frame(&mut format!("[ {rows} ]").split_ascii_whitespace()).unwrap())
    }

    /// That of `row` is learned a command `x.y` with these keys and this policy.
    fn check(row: &str, keys: Keys, policy: Policy) {
        let learned = learn(row);
        let spec = learned.lookup(b"X.y").unwrap_or_else(|| panic!("nothing learned of {row}"));
        assert_eq!((spec.keys, spec.policy), (keys, policy), "{row}");
    }

    const KEY: Keys = Keys::Range { first: 1, last: 1, step: 1 };

    #[test]
    fn policies() {
        check("[ x.y -2 [ readonly fast ] 1 1 1 ]", KEY, Policy::Keyed);
        check(
            "[ X.Y -2 [ write module ] 1 -1 2 [ @write ] ]",
            Keys::Range { first: 1, last: -1, step: 2 },
            Policy::Keyed,
        );
        check("[ x.y -2 [ readonly ] 0 0 0 ]", Keys::None, Policy::Any);
        check("[ x.y -2 [ admin ] 0 0 0 ]", Keys::None, Policy::Refuse);
        check("[ x.y -2 [ admin write ] 1 1 1 ]", KEY, Policy::Refuse);
        check("[ x.y -2 [ blocking ] 1 1 1 ]", KEY, Policy::Later);
        check("[ x.y -2 [ pubsub ] 0 0 0 ]", Keys::None, Policy::Later);
        check("[ x.y -2 [ write movablekeys ] 0 0 0 ]", Keys::None, Policy::Refuse);
        check("[ x.y -2 [ write movablekeys ] 1 1 1 ]", KEY, Policy::Keyed);
        check("[ x.y -2 [ write ] 300 1 1 ]", Keys::None, Policy::Refuse);
        check("[ x.y -2 [ write ] -1 1 1 ]", Keys::None, Policy::Refuse);
    }

    /// A key spec of `begin_search` and `find_keys`.
    fn key_spec(begin: &str, find: &str) -> String {
        let part = |part: &str| {
            let (kind, spec) = part.split_once(' ').unwrap();
            format!("[ type {kind} spec [ {spec} ] ]")
        };
        format!("[ notes none flags [ RW ] begin_search {} find_keys {} ]", part(begin), part(find))
    }

    fn check_specs(specs: &[(&str, &str)], keys: Keys, policy: Policy) {
        let specs: String = specs.iter().map(|(begin, find)| key_spec(begin, find) + " ").collect();
        check(
            &format!("[ x.y -2 [ write movablekeys ] 0 0 0 [ ] [ ] [ {specs} ] [ ] ]"),
            keys,
            policy,
        );
    }

    #[test]
    fn key_specs() {
        const KEYNUM: &str = "keynum keynumidx 0 firstkey 1 keystep 1";
        const ONE: &str = "range lastkey 0 keystep 1 limit 0";
        let counted = |count, also| Keys::Counted { count, step: 1, also };
        check_specs(&[("index index 2", KEYNUM)], counted(2, 0), Policy::Keyed);
        check_specs(
            &[("index index 1", ONE), ("index index 2", KEYNUM)],
            counted(2, 1),
            Policy::Keyed,
        );
        check_specs(
            &[("index index 3", ONE), ("index index 2", KEYNUM)],
            Keys::None,
            Policy::Refuse,
        );
        check_specs(
            &[("index index 3", ONE)],
            Keys::Range { first: 3, last: 3, step: 1 },
            Policy::Keyed,
        );
        let all = Keys::Range { first: 2, last: -1, step: 2 };
        check_specs(&[("index index 2", "range lastkey -1 keystep 2 limit 0")], all, Policy::Keyed);
        let half = "range lastkey -1 keystep 1 limit 2";
        check_specs(&[("index index 2", half)], Keys::None, Policy::Refuse);
        check_specs(
            &[("keyword keyword STREAMS startfrom 1", half)],
            Keys::Streams { from: 1 },
            Policy::Keyed,
        );
        check_specs(&[("keyword keyword KEYS startfrom -2", half)], Keys::None, Policy::Refuse);
        check_specs(&[("index index 0", ONE)], Keys::None, Policy::Refuse);
        check_specs(&[("unknown ~", "unknown ~")], Keys::None, Policy::Refuse);
        check_specs(
            &[("index index 200", "range lastkey 100 keystep 1 limit 0")],
            Keys::None,
            Policy::Refuse,
        );
        check_specs(&[("index index 255", KEYNUM)], counted(255, 0), Policy::Keyed);
        check_specs(&[], Keys::None, Policy::Refuse);
    }

    #[test]
    fn keys_that_are_not_told_are_known_to_be_there() {
        let check = |row: &str, expected| {
            let learned = learn(&format!("[ x.y -2 [ movablekeys ] 1 1 1 {row} ]"));
            assert_eq!(learned.lookup(b"x.y").unwrap().flags.has(Flags::MORE_KEYS), expected);
        };
        let spec = key_spec("index index 1", "range lastkey 0 keystep 1 limit 0");
        check("", true);
        check(&format!("[ ] [ ] [ {spec} ]"), false);
        check(&format!("[ ] [ ] [ {} ]", spec.replace("RW", "RW incomplete")), true);
        check(&format!("[ ] [ ] [ {spec} {spec} ]"), true);
        let still = learn("[ x.y -2 [ write ] 1 1 1 ]");
        assert!(!still.lookup(b"x.y").unwrap().flags.has(Flags::MORE_KEYS));
    }

    #[test]
    fn containers() {
        let container = |subcommands: &str| {
            format!(
                "[ x.y -2 [ ] 0 0 0 [ ] [ ] [ ] [ [ x.y|help 2 [ loading ] 0 0 0 ] {subcommands} ] ]"
            )
        };
        let second = Keys::Range { first: 2, last: 2, step: 1 };
        let get = "[ x.y|get 3 [ readonly ] 2 2 1 ]";
        check(&container(""), Keys::None, Policy::Any);
        check(&container(get), second, Policy::Keyed);
        check(&container(&format!("{get} [ x.y|set 4 [ write ] 2 2 1 ]")), second, Policy::Keyed);
        check(
            &container(&format!("{get} [ x.y|all 4 [ write ] 2 -1 1 ]")),
            Keys::None,
            Policy::Refuse,
        );
        check(&container(&format!("{get} [ x.y|stop 2 [ admin ] 0 0 0 ]")), second, Policy::Refuse);
        let learned = learn(&container(get));
        assert!(!learned.lookup(b"x.y").unwrap().flags.has(Flags::READONLY));
    }

    #[test]
    fn what_is_known_or_makes_no_sense_is_left_out() {
        let long = "x".repeat(33);
        let learned = learn(&format!(
            "[ GET 2 [ readonly ] 1 1 1 ] ~ 7 [ ] [ a 2 [ ] 1 1 ] [ 1 2 [ ] 0 0 0 ] [ b c [ ] 0 0 0 ]
             [ d 99999 [ ] 0 0 0 ] [ {long} 2 [ ] 0 0 0 ] [ ok 2 [ ~ 1 nonsense ] 0 0 0 ]"
        ));
        assert_eq!(learned.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["ok"]);
        assert!(learned.lookup(long.as_bytes()).is_none());
        assert!(learned.lookup(b"get").is_none());
        assert!(learned.lookup(b"\xff\xfe").is_none());
        assert!(Learned::from_reply(&BytesFrame::Null).iter().next().is_none());
    }
}
