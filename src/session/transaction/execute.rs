//! What `EXEC` does: the parts of a transaction go to their nodes, and the reply is put together of theirs and the proxy's own.

use super::queued::{MULTI, Part, Step, Transaction};
use crate::backend::{Class, Payload, Ticket};
use crate::command::merge::{Gather, Source};
use crate::command::{Claim, Merge};
use crate::refusal::Refusal;
use crate::replies::{LARGE, Promise, Reply};
use crate::resp::frame::{Limits, Progress, RequestFramer};
use crate::resp::request::Request;
use crate::resp::write;
use crate::route::Route;
use crate::session::connection::Session;
use crate::session::dispatch::Later;

/// How an error begins that stands in a transaction's reply.
const CHANGED: &str = "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no longer allowed for the following reason:";

/// Where the replies within a transaction's come from.
pub(super) struct Spliced {
    pub(super) sources: Vec<Source>,
    /// What it takes to get those that are the proxy's own and not ready.
    later: Vec<Later>,
}

impl Session {
    /// What the client's user may not do any more is answered with an error; the rest is done.
    pub(super) fn check_again(&self, transaction: &mut Transaction) {
        if !self.client.borrow().is_limited {
            return;
        }
        let limits = Limits { args: usize::MAX, ..self.shared.options.limits };
        let empty = |part: &mut Part| std::mem::replace(&mut part.wire, MULTI.to_vec());
        let wires: Vec<Vec<u8>> = transaction.parts.iter_mut().map(empty).collect();
        let mut rests: Vec<&[u8]> = wires.iter().map(|wire| &wire[MULTI.len()..]).collect();
        let mut framer = RequestFramer::default();
        for step in std::mem::take(&mut transaction.steps) {
            let mut bytes: &[u8] = &[];
            if let Step::Node(part) | Step::Load(part) = step {
                // It has been framed by these limits before.
                let Ok(Progress::Complete(len)) = framer.frame(rests[part], &limits) else {
                    return;
                };
                (bytes, rests[part]) = rests[part].split_at(len);
            }
            let forbidden = match &step {
                Step::Node(_) => self.forbidden(bytes, &limits),
                Step::Local(_, bytes) => self.forbidden(bytes, &limits),
                Step::Load(_) | Step::Own(_) => None,
            };
            if let (Step::Node(part) | Step::Load(part), None) = (&step, &forbidden) {
                transaction.parts[*part].wire.extend_from_slice(bytes);
            }
            transaction.steps.push(forbidden.map_or(step, Step::Own));
        }
    }

    /// What a queued command is answered with that its client may not do any more.
    fn forbidden(&self, bytes: &[u8], limits: &Limits) -> Option<Vec<u8>> {
        let mut framer = RequestFramer::default();
        framer.frame(bytes, limits).ok()?;
        let Route::Refuse(refusal) = self.decide(&Request::new(bytes, framer.args())).route else {
            return None;
        };
        let reason = match *refusal {
            Refusal::DeniedCommand(_) => "no permission to execute the command or subcommand",
            Refusal::DeniedKey(_) => "no permission to touch the specified keys",
            Refusal::DeniedChannel(_) => {
                "no permission to access one of the channels used as arguments"
            }
            _ => return None,
        };
        self.note_denial(&refusal);
        let mut error = Vec::new();
        write::error(&mut error, &format!("{CHANGED} {reason}"));
        Some(error)
    }

    /// Sends a transaction off, or answers it if it has nothing for a node.
    pub(super) fn run(&mut self, transaction: Transaction) {
        let spliced = self.answer_own(&transaction);
        self.remember_all(true, &transaction.reads);
        let parts = transaction.parts;
        if parts.len() > 1 {
            self.pool.stats.commands_split.add(1);
        }
        let reads = parts.iter().all(|part| part.nature.reads);
        let promises = self.promises_of(spliced, parts.iter().map(Part::claim), reads);
        for (part, promise) in parts.into_iter().zip(promises) {
            self.run_part(part, promise);
        }
    }

    fn run_part(&mut self, part: Part, promise: Promise) {
        if part.is_empty() {
            return promise.fulfil(Reply::Small(b"*0\r\n"));
        }
        let Some(slot) = part.slot.or_else(|| self.any_slot()) else {
            return self.pool.refuse(promise, &Refusal::SlotNotServed);
        };
        if part.slot.is_some() && !part.nature.reads {
            self.written.note(slot, self.now);
        }
        let class = Class { protocol: self.protocol(), replica: false };
        let ticket = Ticket::new(slot, class, part.nature, self.now);
        let (pool, wire) = (&self.pool, part.into_wire());
        if wire.len() < LARGE {
            pool.send(Payload::Small(&wire), promise, ticket);
        } else {
            pool.send(Payload::Large(&wire.into()), promise, ticket);
        }
    }

    /// The promises of the nodes' parts in a transaction's reply, one for each claim; the other parts are seen to.
    pub(super) fn promises_of(
        &self,
        spliced: Spliced,
        claims: impl ExactSizeIterator<Item = Claim>,
        reads: bool,
    ) -> Vec<Promise> {
        let Spliced { sources, later } = spliced;
        if sources.iter().all(|source| *source == Source::Node(0)) {
            return claims.map(|claim| self.replies.promise(claim, reads)).collect();
        }
        let nodes = claims.len();
        let claims = claims.chain(later.iter().map(|_| Claim::All));
        let gather =
            Gather::new(Merge::Splice, self.protocol(), claims).splicing(sources).writing(!reads);
        let mut promises = self.replies.gather(gather);
        let of_nodes = promises.by_ref().take(nodes).collect();
        if !later.is_empty() {
            self.reply_later(later.into_iter().zip(promises));
        }
        of_nodes
    }

    /// Where the replies come from, the proxy's own ready if they can be.
    pub(super) fn answer_own(&mut self, transaction: &Transaction) -> Spliced {
        let limits = Limits { args: usize::MAX, ..self.shared.options.limits };
        let (mut framer, mut later) = (RequestFramer::default(), Vec::new());
        let source = |step: &Step| {
            let (command, bytes) = match step {
                Step::Node(part) => return Source::Node(*part),
                Step::Load(part) => return Source::Aside(*part),
                Step::Own(reply) => return Source::Own(reply.clone()),
                Step::Local(command, bytes) => (*command, bytes),
            };
            // It has been framed by these limits before.
            let again = framer.frame(bytes, &limits);
            debug_assert!(again.is_ok());
            match self.own_reply(command, &Request::new(bytes, framer.args())) {
                Ok(reply) => Source::Own(reply),
                Err(takes) => {
                    later.push(*takes);
                    Source::Later
                }
            }
        };
        let sources = transaction.steps.iter().map(source).collect();
        Spliced { sources, later }
    }
}
