//! What a node says of a command before it is queued, if nodes are asked: the command is rehearsed.
//!
//! ```text
//!   MULTI ─ the command ─ DISCARD      in one piece, to the owner of its slot
//! ```
//! A node looks at a command when it queues it, and refuses what it cannot run: for want of memory, of replicas, of time. That is
//! the client's reply, and none of the transaction will run. Nothing else is left of a rehearsal: not at the node, and not in the
//! order of the client's requests. It takes a lane even where keys are watched, since `DISCARD` would end the watch.

use std::rc::Rc;

use bytes::Bytes;

use super::queued::{MULTI, Part, Queueing, Transaction};
use crate::backend::DISCARD;
use crate::cluster::Slot;
use crate::command::{Claim, Nature};
use crate::refusal::Refusal;
use crate::replies::{Promise, Reply};
use crate::resp::redirect::{Verdict, verdict};
use crate::resp::request::Request;
use crate::route::Route;
use crate::session::ask::{Asking, Question, Step};
use crate::session::connection::Session;

const NATURE: Nature = Nature { reads: true, scripted: false, unit: true };

impl Session {
    /// The slot whose owner is to look at a command.
    pub(super) fn stage(&self, route: &Route) -> Option<Slot> {
        match self.shared.options.queueing {
            Queueing::Proxy => None,
            Queueing::Nodes => route.slot(),
        }
    }

    /// Whether a command has to wait before it is rehearsed, as any other on this slot would.
    pub(super) fn holds_rehearsal(&mut self, slot: Slot) -> bool {
        let gate = self.replies.gate();
        // It goes by the worker's lanes, even if the client has some of its own.
        self.is_stale(gate)
            || self.is_taken(gate, slot)
            || self.shared.pool.lacks_room(slot, || self.replies.waker())
    }

    /// Has a command looked at that is queued, and answers the client when that is done.
    pub(super) fn rehearse(&self, slot: Slot, request: &Request<'_>) {
        let Some(transaction) = &self.transaction else { return };
        let dirty = Rc::clone(&transaction.dirty);
        let wire = [MULTI, request.bytes(), DISCARD].concat();
        self.consult(slot, wire, move |reply, promise| match reply {
            Ok(reply) if is_refused(&reply) => {
                dirty.set(true);
                promise.fulfil(Reply::Small(&reply));
            }
            _ => promise.fulfil(Reply::Small(b"+QUEUED\r\n")),
        });
    }

    /// Answers an `EXEC` that does not run because a command was refused. A node that takes no `EXEC` now says why, as it does to
    /// one that would run: it is sent one of nothing.
    pub(super) fn abort(&self, transaction: &Transaction) {
        let slot = transaction.parts[0].slot;
        let Some(slot) = slot.filter(|_| self.shared.options.queueing == Queueing::Nodes) else {
            return self.refuse(&Refusal::ExecAbort);
        };
        let pool = Rc::clone(&self.shared.pool);
        self.consult(slot, Part::new(None).into_wire(), move |reply, promise| match reply {
            Ok(reply) if reply.starts_with(b"-EXECABORT ") => promise.fulfil(Reply::Small(&reply)),
            _ => pool.refuse(promise, &Refusal::ExecAbort),
        });
    }

    /// Asks the owner of a slot, and gives what it says to whoever answers the client.
    fn consult(
        &self,
        slot: Slot,
        wire: Vec<u8>,
        answer: impl FnOnce(Step<Bytes>, Promise) + 'static,
    ) {
        let promise = self.replies.promise(Claim::None, true);
        let question = Question { slot, wire: wire.into(), nature: NATURE };
        let mut asking = Asking::new(&self.shared, "MULTI");
        let asked = asking.put(std::iter::once(question), self.protocol());
        tokio::task::spawn_local(async move { answer(asking.hear(&asked).await, promise) });
    }
}

/// Whether a node does not take the command. That it could not be asked, or not now, is known at `EXEC`, which may be luckier.
fn is_refused(reply: &[u8]) -> bool {
    reply.starts_with(b"-")
        && verdict(reply) == Verdict::Final
        && !reply.starts_with(b"-ERR proxy: ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::write;

    #[test]
    fn only_a_word_on_the_command_refuses_it() {
        let check = |reply: &str, expected| {
            assert_eq!(is_refused(reply.as_bytes()), expected, "{reply:?}");
        };
        check("-OOM command not allowed when used memory > 'maxmemory'.\r\n", true);
        check("-ERR unknown command 'X'\r\n", true);
        check("+OK\r\n", false);
        check("-LOADING Redis is loading the dataset in memory\r\n", false);
        let node = || "127.0.0.1:1".to_owned();
        for refusal in [
            Refusal::ConnectionLost(node()),
            Refusal::Timeout(node()),
            Refusal::NodeDown { node: node(), waited_ms: 1 },
            Refusal::QueueFull(node()),
            Refusal::SlotNotServed,
            Refusal::Dropped,
        ] {
            let mut wire = Vec::new();
            write::error(&mut wire, &refusal.to_string());
            check(std::str::from_utf8(&wire).unwrap(), false);
        }
    }
}
