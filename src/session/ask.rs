//! Questions that the proxy asks the owners of slots on its own account: each follows its slot as a client's request does.

use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};

use super::Shared;
use crate::backend::{Class, Payload, Ticket};
use crate::cluster::Slot;
use crate::command::{Claim, Nature};
use crate::replies::{LARGE, Replies};
use crate::resp::value::{self, Value};
use crate::resp::{Protocol, write};

/// Most bytes that come of the questions of one command.
pub(super) const BYTES_MAX: usize = 256 << 20;

/// What came of it; or else the error that the client gets.
pub(super) type Step<T> = Result<T, Bytes>;

/// What is asked for one command.
pub(super) struct Asking {
    shared: Rc<Shared>,
    /// What the command is called in errors.
    name: &'static str,
    /// Bytes that may still come.
    room: usize,
}

/// One question, and where it is asked.
pub(super) struct Question {
    pub(super) slot: Slot,
    pub(super) wire: Bytes,
    pub(super) nature: Nature,
}

impl Asking {
    pub(super) fn new(shared: &Rc<Shared>, name: &'static str) -> Self {
        Self { shared: Rc::clone(shared), name, room: BYTES_MAX }
    }

    /// The replies one behind the other in the order of the questions, which are asked all at the same time.
    pub(super) async fn raw(
        &mut self,
        questions: impl Iterator<Item = Question>,
        protocol: Protocol,
    ) -> Step<Bytes> {
        let replies = self.put(questions, protocol);
        self.hear(&replies).await
    }

    /// Asks questions, all at the same time, and gives what their replies come to.
    pub(super) fn put(
        &self,
        questions: impl Iterator<Item = Question>,
        protocol: Protocol,
    ) -> Replies {
        let pool = &self.shared.pool;
        let replies = Replies::new(self.room, Rc::clone(&self.shared.common));
        let class = Class { protocol, replica: false };
        let now = pool.clock.micros();
        for Question { slot, wire, nature } in questions {
            let promise = replies.promise(Claim::Slot(slot), nature.reads);
            let payload =
                if wire.len() < LARGE { Payload::Small(&wire) } else { Payload::Large(&wire) };
            pool.send(payload, promise, Ticket::new(slot, class, nature, now));
        }
        replies.end_batch();
        replies
    }

    /// The same as values, errors among them.
    pub(super) async fn values(
        &mut self,
        questions: impl Iterator<Item = Question>,
    ) -> Step<Vec<Value>> {
        let mut rest = self.raw(questions, Protocol::Resp2).await?;
        let mut values = Vec::new();
        while let Some((value, len)) = value::decode(&rest).map_err(|_| odd())? {
            values.push(value);
            rest = rest.slice(len..);
        }
        Ok(values)
    }

    /// The one reply to one question.
    pub(super) async fn value(&mut self, question: Question) -> Step<Value> {
        self.values(std::iter::once(question)).await?.pop().ok_or_else(odd)
    }

    /// All that is said to the questions, once it is complete.
    pub(super) async fn hear(&mut self, replies: &Replies) -> Step<Bytes> {
        let mut wire = BytesMut::new();
        let room = self.room;
        poll_fn(|cx| {
            replies.listen(cx.waker());
            drain(replies, &mut wire);
            let is_over = replies.waiting() == 0 || replies.is_over() || wire.len() > room;
            if is_over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        match self.room.checked_sub(wire.len()) {
            Some(room) if !replies.is_over() => self.room = room,
            _ => {
                replies.close();
                let name = self.name;
                return Err(error(&format!("ERR proxy: {name} is limited to {BYTES_MAX} bytes")));
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

/// An error as the client gets it.
pub(super) fn error(text: &str) -> Bytes {
    let mut wire = Vec::new();
    write::error(&mut wire, text);
    wire.into()
}

pub(super) fn odd() -> Bytes {
    error("ERR proxy: a node gave a reply that is not of its command")
}
