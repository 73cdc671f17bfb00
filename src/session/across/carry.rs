//! Keys, members and elements that go from one slot to another: each is written where it belongs before it is taken from where it
//! was, and only if it is still what was written.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::ask::{Step, error, odd};
use super::{Crossing, READ, cause, integer, question, syntax, unit, wire};
use crate::cluster::Slot;
use crate::command::Nature;
use crate::resp::value::{self, Value};
use crate::resp::write;
use crate::session::ask::Question;

/// Deletes a key that is still what it was; 0 if it is something else, 1 if it is gone.
const DELETE_IF_SAME: &[u8] = b"local now = redis.call('DUMP', KEYS[1]) \
    if now and now ~= ARGV[1] then return 0 end \
    redis.call('DEL', KEYS[1]) \
    return 1";
/// Pops an element that is still at this end of a list; 0 if it is not.
const POP_IF_SAME: &[u8] =
    b"if redis.call('LINDEX', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end \
    redis.call(ARGV[3], KEYS[1]) \
    return 1";

/// Deletes those keys that still have these values.
const DELETE_IF_SET: &[u8] = b"for at, key in ipairs(KEYS) do \
    if redis.pcall('GET', key) == ARGV[at] then redis.call('DEL', key) end \
    end \
    return 0";

/// A key's content and how long it will last, in milliseconds; 0 for ever.
type Image = (Bytes, i64);

/// An end of a list.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

impl Side {
    fn parse(word: &[u8]) -> Step<Self> {
        match () {
            () if word.eq_ignore_ascii_case(b"LEFT") => Ok(Self::Left),
            () if word.eq_ignore_ascii_case(b"RIGHT") => Ok(Self::Right),
            () => Err(syntax()),
        }
    }

    fn index(self) -> &'static [u8] {
        match self {
            Self::Left => b"0",
            Self::Right => b"-1",
        }
    }

    fn push(self) -> &'static [u8] {
        match self {
            Self::Left => b"LPUSH",
            Self::Right => b"RPUSH",
        }
    }

    fn pop(self) -> &'static [u8] {
        match self {
            Self::Left => b"LPOP",
            Self::Right => b"RPOP",
        }
    }

    /// To remove one element from this end on.
    fn count(self) -> &'static [u8] {
        match self {
            Self::Left => b"1",
            Self::Right => b"-1",
        }
    }
}

impl Crossing {
    async fn integer(&mut self, args: &[&[u8]], nature: Nature) -> Step<i64> {
        match self.asking.value(question(args, nature)).await? {
            Value::Integer(n) => Ok(n),
            Value::Error(text) => Err(error(&text)),
            _ => Err(odd()),
        }
    }

    /// A script on keys of one slot.
    async fn script(&mut self, script: &[u8], keys: &[&[u8]], args: &[&[u8]]) -> Step<i64> {
        let slot = Slot::of(keys.first().ok_or_else(odd)?);
        let count = keys.len().to_string();
        let words: Vec<&[u8]> = [&[&b"EVAL"[..], script, count.as_bytes()], keys, args].concat();
        let question = Question { slot, wire: wire(&words), nature: Nature::WRITE };
        match self.asking.value(question).await? {
            Value::Integer(n) => Ok(n),
            Value::Error(text) => Err(error(&text)),
            _ => Err(odd()),
        }
    }

    /// What a key is; `None` if there is none.
    async fn image(&mut self, key: &Bytes) -> Step<Option<Image>> {
        let look = [vec![&b"DUMP"[..], key], vec![&b"PTTL"[..], key]];
        let value = self.asking.value(unit(Slot::of(key), true, look)).await?;
        if let Value::Error(text) = &value {
            return Err(error(cause(text)));
        }
        match value::array(&value) {
            Some([Value::BulkString(payload), Value::Integer(left)]) => {
                // A key that is about to end must not last for ever instead.
                let left = if *left < 0 { 0 } else { (*left).max(1) };
                Ok(Some((payload.clone(), left)))
            }
            Some([Value::Null, _]) => Ok(None),
            _ => Err(odd()),
        }
    }

    /// Writes a key; false if there is one already that must stay.
    async fn write(&mut self, key: &Bytes, (payload, left): &Image, replace: bool) -> Step<bool> {
        let left = left.to_string();
        let mut words: Vec<&[u8]> = vec![b"RESTORE", key, left.as_bytes(), payload];
        words.extend(replace.then_some(&b"REPLACE"[..]));
        match self.asking.value(question(&words, Nature::WRITE)).await? {
            Value::Error(text) if text.starts_with("BUSYKEY") => Ok(false),
            Value::Error(text) => Err(error(&text)),
            _ => Ok(true),
        }
    }

    pub(super) async fn rename(&mut self) -> Step<Bytes> {
        let [_, from, to] = &self.args[..] else { return Err(syntax()) };
        let (from, to) = (from.clone(), to.clone());
        let mut replaces = self.spec.name == "rename";
        let done = if replaces { Bytes::from_static(b"+OK\r\n") } else { integer(1) };
        let mut image = self.image(&from).await?.ok_or_else(|| error("ERR no such key"))?;
        loop {
            if !self.write(&to, &image, replaces).await? {
                return Ok(integer(0));
            }
            if self.script(DELETE_IF_SAME, &[&from], &[&image.0]).await? == 1 {
                return Ok(done);
            }
            if self.is_over() {
                let text = "ERR proxy: the key keeps changing; it is there under both names";
                return Err(error(text));
            }
            // What has been written is our own.
            replaces = true;
            match self.image(&from).await? {
                Some(now) => image = now,
                // Somebody has deleted it since.
                None => return Ok(done),
            }
        }
    }

    pub(super) async fn copy(&mut self) -> Step<Bytes> {
        let [_, from, to, options @ ..] = &self.args[..] else { return Err(syntax()) };
        let (from, to) = (from.clone(), to.clone());
        let (mut replaces, mut rest) = (false, options);
        while let Some((word, behind)) = rest.split_first() {
            rest = match behind {
                _ if word.eq_ignore_ascii_case(b"REPLACE") => {
                    replaces = true;
                    behind
                }
                [number, behind @ ..] if word.eq_ignore_ascii_case(b"DB") => {
                    if &number[..] != b"0" {
                        return Err(error("ERR DB index is out of range"));
                    }
                    behind
                }
                _ => return Err(syntax()),
            };
        }
        match self.image(&from).await? {
            Some(image) => self.write(&to, &image, replaces).await.map(|is| integer(is.into())),
            None => Ok(integer(0)),
        }
    }

    pub(super) async fn move_member(&mut self) -> Step<Bytes> {
        let [_, from, to, member] = &self.args[..] else { return Err(syntax()) };
        let (from, to, member) = (from.clone(), to.clone(), member.clone());
        if self.integer(&[b"SISMEMBER", &from, &member], READ).await? == 0 {
            // The server looks at both keys first, if there is one to move from.
            if self.integer(&[b"EXISTS", &from], READ).await? == 1 {
                self.integer(&[b"SCARD", &to], READ).await?;
            }
            return Ok(integer(0));
        }
        self.integer(&[b"SADD", &to, &member], Nature::WRITE).await?;
        // Who has taken it meanwhile may have brought it to the same set, so that to take it back from there could lose it.
        self.integer(&[b"SREM", &from, &member], Nature::WRITE).await.map(integer)
    }

    /// `LMOVE`, `RPOPLPUSH`, and their like that block; `None` if the list is empty.
    pub(super) async fn move_element(&mut self) -> Step<Option<Bytes>> {
        let (from, to) = (self.args[1].clone(), self.args[2].clone());
        let (off, on) = match self.spec.name {
            "lmove" | "blmove" => (Side::parse(&self.args[3])?, Side::parse(&self.args[4])?),
            _ => (Side::Right, Side::Left),
        };
        loop {
            let element = match self
                .asking
                .value(question(&[&b"LINDEX"[..], &from, off.index()], READ))
                .await?
            {
                Value::BulkString(element) => element,
                Value::Null => return Ok(None),
                Value::Error(text) => return Err(error(&text)),
                _ => return Err(odd()),
            };
            self.integer(&[on.push(), &to, &element], Nature::WRITE).await?;
            let same = [off.index(), &element, off.pop()];
            if self.script(POP_IF_SAME, &[&from], &same).await? == 1 {
                let mut reply = Vec::new();
                write::bulk(&mut reply, element);
                return Ok(Some(reply.into()));
            }
            // Somebody else has popped it.
            self.integer(&[b"LREM", &to, on.count(), &element], Nature::WRITE).await?;
            if self.is_over() {
                return Err(error("ERR proxy: the list keeps changing; nothing was moved"));
            }
        }
    }

    /// `MSETNX`: each slot's part is all or nothing; should a key appear meanwhile, what has been set is deleted again unless
    /// somebody has changed it since.
    pub(super) async fn set_all(&mut self) -> Step<Bytes> {
        let pairs: Vec<(Bytes, Bytes)> =
            self.args[1..].chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        if pairs.len() * 2 + 1 != self.args.len() {
            return Err(error("ERR wrong number of arguments for 'msetnx' command"));
        }
        let mut parts: BTreeMap<Slot, Vec<Bytes>> = BTreeMap::new();
        for (key, value) in pairs {
            parts.entry(Slot::of(&key)).or_default().extend([key, value]);
        }
        for part in parts.values() {
            if self.integer(&named(b"EXISTS", keys_of(part)), READ).await? > 0 {
                return Ok(integer(0));
            }
        }
        for (at, part) in parts.values().enumerate() {
            let words = named(b"MSETNX", part.iter().map(|word| &word[..]));
            if self.integer(&words, Nature::WRITE).await? == 0 {
                for set in parts.values().take(at) {
                    let keys: Vec<&[u8]> = keys_of(set).collect();
                    let values: Vec<&[u8]> = keys_of(&set[1..]).collect();
                    self.script(DELETE_IF_SET, &keys, &values).await?;
                }
                return Ok(integer(0));
            }
        }
        Ok(integer(1))
    }
}

/// Every second one of words that are keys and values.
fn keys_of(pairs: &[Bytes]) -> impl Iterator<Item = &[u8]> {
    pairs.iter().step_by(2).map(|key| &key[..])
}

fn named<'a>(name: &'a [u8], rest: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    std::iter::once(name).chain(rest).collect()
}
