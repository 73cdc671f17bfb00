//! Key by key, stream by stream: each alone is the server's own command.

use bytes::Bytes;

use super::super::ask::{Step, error, odd};
use super::{Crossing, READ, question, wire};
use crate::cluster::Slot;
use crate::command::across::{self, Across};
use crate::command::keys;
use crate::resp::value::Value;
use crate::resp::{Protocol, write};
use crate::session::ask::Question;

impl Crossing {
    /// What the first key has to give that has anything.
    pub(super) async fn first(&mut self) -> Step<Option<Bytes>> {
        let name = self.spec.name;
        for key in self.keys() {
            let alone = across::alone(name, &self.args, &key).ok_or_else(super::syntax)?;
            let question =
                Question { slot: Slot::of(&key), wire: wire(&alone), nature: self.spec.nature() };
            let reply = self.asking.raw(std::iter::once(question), self.protocol).await?;
            match &reply[..] {
                b"$-1\r\n" | b"*-1\r\n" | b"_\r\n" | b"*0\r\n" => {}
                [b'-', ..] => return Err(reply),
                _ => return Ok(Some(with_key(name, &key, reply)?)),
            }
        }
        Ok(None)
    }

    /// What the streams have, one behind the other.
    pub(super) async fn streams(&mut self) -> Step<Option<Bytes>> {
        let each = across::streams(self.spec, &self.args).ok_or_else(super::syntax)?;
        let nature = self.spec.nature();
        let (mut all, mut count) = (Vec::new(), 0);
        for (key, args) in each {
            let question = Question { slot: Slot::of(&key), wire: wire(&args), nature };
            let reply = self.asking.raw(std::iter::once(question), self.protocol).await?;
            match &reply[..] {
                b"*-1\r\n" | b"_\r\n" => {}
                [b'*' | b'%', b'1', b'\r', b'\n', stream @ ..] => {
                    all.extend_from_slice(stream);
                    count += 1;
                }
                [b'-', ..] => return Err(reply),
                _ => return Err(odd()),
            }
        }
        if count == 0 {
            return Ok(None);
        }
        let mut reply = Vec::new();
        match self.protocol {
            Protocol::Resp2 => write::array(&mut reply, count),
            Protocol::Resp3 => write::map(&mut reply, Protocol::Resp3, count),
        }
        reply.extend(all);
        Ok(Some(reply.into()))
    }

    /// Replaces `$` by the last entry's id: what comes from now on is waited for, between two looks too.
    pub(super) async fn settle_ids(&mut self, across: Across) -> Step<()> {
        if across != Across::Streams {
            return Ok(());
        }
        let at: Vec<usize> =
            keys::positions(self.spec.keys, self.args.as_slice()).into_iter().flatten().collect();
        for (key, id) in at.iter().map(|key| (*key, key + at.len())) {
            if self.args.get(id).is_some_and(|id| &id[..] == b"$") {
                let last = [&b"XREVRANGE"[..], &self.args[key], b"+", b"-", b"COUNT", b"1"];
                self.args[id] = match self.asking.value(question(&last, READ)).await? {
                    Value::Array(entries) => last_id(&entries).ok_or_else(odd)?,
                    Value::Error(text) => return Err(error(&text)),
                    _ => return Err(odd()),
                };
            }
        }
        Ok(())
    }
}

fn last_id(entries: &[Value]) -> Option<Bytes> {
    match entries {
        [] => Some(Bytes::from_static(b"0-0")),
        [Value::Array(entry), ..] => match entry.first() {
            Some(Value::BulkString(id)) => Some(id.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// The reply of a command that pops, as that of the one that names the key as well.
fn with_key(name: &str, key: &Bytes, reply: Bytes) -> Step<Bytes> {
    let (count, popped) = match name {
        "blpop" | "brpop" => (2, reply),
        "bzpopmin" | "bzpopmax" => {
            (3, reply.strip_prefix(b"*2\r\n").map(Bytes::copy_from_slice).ok_or_else(odd)?)
        }
        _ => return Ok(reply),
    };
    let mut wire = Vec::new();
    write::array(&mut wire, count);
    write::bulk(&mut wire, key);
    wire.extend_from_slice(&popped);
    Ok(wire.into())
}
