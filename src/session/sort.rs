//! `SORT` and `SORT_RO` with patterns that name keys: the elements come from the owner of the sorted key, their weights and
//! the values for the reply from the owners of all the others. The reads are many, so the result is no snapshot: what is
//! written meanwhile may be seen in part.
//!
//! ```text
//!   elements ─► weights, as BY says ─► order ─► values, as GET says ─► reply
//! ```

use std::future::poll_fn;
use std::io::IoSlice;
use std::task::Poll;

use bytes::{Bytes, BytesMut};

use super::errand::{Asked, Mission};
use crate::backend::{Class, Payload, Ticket};
use crate::command::sort::{Sort, Source};
use crate::command::{Claim, Nature};
use crate::replies::Replies;
use crate::resp::value::{self, Value};
use crate::resp::{Protocol, write};

/// Most elements that are sorted. Redis sorts a million in about a second, in which it serves nobody else; so does a worker.
const ELEMENTS_MAX: usize = 1_000_000;
/// Most bytes of elements, weights and values together.
const BYTES_MAX: usize = 256 << 20;
/// Questions under way at once: enough to keep all nodes busy, and few against what their lanes hold.
const WINDOW: usize = 1000;
const READ: Nature = Nature { reads: true, scripted: false, unit: false };

/// One sorting on its way.
struct Work<'a> {
    mission: &'a Mission,
    /// Bytes that may still come.
    room: usize,
}

/// What was asked for; or else the error that the client gets.
type Step<T> = Result<T, Bytes>;

/// The whole command.
pub(super) async fn run(mission: &Mission) -> Asked {
    let mut work = Work { mission, room: BYTES_MAX };
    Ok(work.run().await.unwrap_or_else(|error| error))
}

impl Work<'_> {
    async fn run(&mut self) -> Step<Bytes> {
        let sort = Sort::parse(&self.mission.args).map_err(error)?;
        let mut elements = self.elements(&sort).await?;
        let weights = match sort.weights(&elements) {
            Some(weights) => Some(self.values(weights).await?),
            None => None,
        };
        if let Some(weights) = weights {
            elements = sort.order(elements, weights).map_err(error)?;
        }
        let mut reply = Vec::new();
        write::array(&mut reply, elements.len() * sort.width());
        for value in self.values(sort.values(&elements)).await? {
            match value {
                Some(value) => write::bulk(&mut reply, value),
                None => write::nil(&mut reply, self.mission.protocol),
            }
        }
        Ok(reply.into())
    }

    async fn elements(&mut self, sort: &Sort) -> Step<Vec<Bytes>> {
        let asked = self.ask(&[sort.elements(&self.mission.args)]).await?;
        let elements = match asked.into_iter().next() {
            Some(Value::Array(elements)) => elements,
            Some(Value::Error(text)) => return Err(error(&text)),
            _ => return Err(odd()),
        };
        if elements.len() > ELEMENTS_MAX {
            return Err(error(&format!(
                "ERR proxy: SORT with patterns is limited to {ELEMENTS_MAX} elements"
            )));
        }
        elements.into_iter().map(|element| bulk(element)?.ok_or_else(odd)).collect()
    }

    /// Values from wherever they are.
    async fn values(&mut self, sources: impl Iterator<Item = Source>) -> Step<Vec<Option<Bytes>>> {
        let mut sources = sources.peekable();
        let mut values = Vec::new();
        while sources.peek().is_some() {
            let some: Vec<Source> = sources.by_ref().take(WINDOW).collect();
            let mut asked = self.ask(&some).await?.into_iter();
            for source in some {
                values.push(match source {
                    Source::Here(value) => value,
                    Source::At(..) => bulk(asked.next().ok_or_else(odd)?)?,
                });
            }
            // Elements may be their own values, a million times over, and others want to be served.
            tokio::task::yield_now().await;
        }
        Ok(values)
    }

    /// The replies to all that has to be asked for, in order.
    async fn ask(&mut self, sources: &[Source]) -> Step<Vec<Value>> {
        let shared = &self.mission.shared;
        let replies = Replies::new(self.room, shared.patience.clone());
        let class = Class { protocol: Protocol::Resp2, replica: false };
        let now = shared.pool.clock.micros();
        let mut missing = 0;
        for source in sources {
            let Source::At(slot, wire) = source else { continue };
            let promise = replies.promise(Claim::Slot(*slot), true);
            shared.pool.send(Payload::Small(wire), promise, Ticket::new(*slot, class, READ, now));
            missing += 1;
        }
        replies.end_batch();
        let wire = self.hear(&replies).await?;
        let (mut values, mut rest) = (Vec::with_capacity(missing), wire);
        while let Some((value, len)) = value::decode(&rest).map_err(|_| odd())? {
            values.push(value);
            rest = rest.slice(len..);
        }
        Ok(values)
    }

    /// All that is said to the questions, once it is complete.
    async fn hear(&mut self, replies: &Replies) -> Step<Bytes> {
        let mut wire = BytesMut::new();
        let room = self.room;
        poll_fn(|cx| {
            replies.listen(cx.waker());
            drain(replies, &mut wire);
            let is_over = replies.waiting() == 0 || replies.is_overflown() || wire.len() > room;
            if is_over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        match self.room.checked_sub(wire.len()) {
            Some(room) if !replies.is_overflown() => self.room = room,
            _ => {
                replies.close();
                return Err(error(&format!(
                    "ERR proxy: SORT with patterns is limited to {BYTES_MAX} bytes"
                )));
            }
        }
        Ok(wire.freeze())
    }
}

/// Moves what is ready.
fn drain(replies: &Replies, wire: &mut BytesMut) {
    let mut output = replies.output();
    loop {
        let mut room = [IoSlice::new(&[])];
        if output.slices(&mut room, usize::MAX) == 0 {
            break;
        }
        wire.extend_from_slice(&room[0]);
        let len = room[0].len();
        output.advance(len);
    }
    drop(output);
    replies.sent();
}

/// The text of a reply, none if it is nil or the key is of another type.
fn bulk(value: Value) -> Step<Option<Bytes>> {
    match value {
        Value::BulkString(text) => Ok(Some(text)),
        Value::Null => Ok(None),
        Value::Error(text) if text.starts_with("WRONGTYPE") => Ok(None),
        Value::Error(text) => Err(error(&text)),
        _ => Err(odd()),
    }
}

fn error(text: &str) -> Bytes {
    let mut wire = Vec::new();
    write::error(&mut wire, text);
    wire.into()
}

fn odd() -> Bytes {
    error("ERR proxy: a node gave a reply that is not of its command")
}
