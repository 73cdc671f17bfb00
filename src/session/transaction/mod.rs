//! `MULTI`: commands are checked and kept as they come, and go to their nodes at `EXEC`, those of each slot in one piece.
//!
//! Within one piece on a lane nothing comes between `MULTI` and `EXEC`, so a transaction needs no connection of its own. What
//! the proxy answers by itself it answers at `EXEC`, whether the nodes then run the rest or not, and its replies are put in
//! among the nodes'. Where nodes are to have their say before that, each command is rehearsed as it comes.

mod execute;
mod queued;
mod rehearse;

use bytes::Bytes;

use super::connection::{Flow, Session};
use super::script;
use crate::cluster::Slot;
use crate::command::merge::Source;
use crate::command::{Claim, Flags, Local, Spec, Verb, lookup};
use crate::refusal::Refusal;
use crate::replies::Gate;
use crate::resp::request::Request;
use crate::resp::write;
use crate::route::{Decision, Route};

pub(super) use queued::Transaction;
pub use queued::{Queueing, Transactions};

impl Session {
    /// What `MULTI`, `EXEC` and their like do while no transaction is open.
    pub(super) fn session_verb(&mut self, verb: Verb, request: &Request<'_>) -> Flow {
        match verb {
            Verb::Watch => return self.watch(request),
            Verb::Wait => return self.wait_for_replicas(request),
            Verb::Unwatch => {
                if self.watch.is_some() && self.replies.gate() != Gate::Empty {
                    return Flow::Hold;
                }
                self.unwatch();
                self.replies.answer(|out| write::simple(out, "OK"));
            }
            Verb::Multi => {
                let slot = self.watch.as_ref().map(|watch| watch.slot);
                let transaction = Transaction::new(self.shared.options.transactions, slot);
                self.transaction = Some(Box::new(transaction));
                self.count_queued();
                self.replies.answer(|out| write::simple(out, "OK"));
            }
            Verb::Exec => self.refuse(&Refusal::text("ERR EXEC without MULTI")),
            Verb::Discard => self.refuse(&Refusal::text("ERR DISCARD without MULTI")),
            verb => return self.subscribe_verb(verb, request),
        }
        Flow::Next
    }

    /// A command while a transaction is open.
    pub(super) fn dispatch_queued(&mut self, request: &Request<'_>) -> Flow {
        if request.is_empty() {
            return Flow::Next;
        }
        let mut decision = self.decide(request);
        if let Route::One(slot, _) = decision.route
            && script::is_keyless(&decision, request)
        {
            decision.route = self.with_others(slot);
        }
        match decision.route {
            Route::Session(Verb::Exec) => return self.execute(&decision),
            Route::Session(Verb::Discard) => {
                if !self.discard() {
                    return Flow::Hold;
                }
                self.replies.answer(|out| write::simple(out, "OK"));
            }
            // An `EXEC` that is not taken takes the transaction with it.
            Route::Refuse(refusal) if decision.name == "exec" => {
                if !self.discard() {
                    return Flow::Hold;
                }
                self.refuse(&refusal);
            }
            Route::Session(Verb::Multi) => {
                self.refuse(&Refusal::text("ERR MULTI calls can not be nested"));
            }
            Route::Session(Verb::Watch) => {
                self.refuse(&Refusal::text("ERR WATCH inside MULTI is not allowed"));
            }
            Route::Local(command @ (Local::Reset | Local::Quit)) => {
                if self.holds(&decision, request) {
                    return Flow::Hold;
                }
                self.note(&decision);
                self.transaction = None;
                self.part(command);
                return self.answer(command, request);
            }
            _ => {
                let stage = self.stage(&decision.route);
                if stage.is_some_and(|slot| self.holds_rehearsal(slot)) {
                    return Flow::Hold;
                }
                self.note(&decision);
                self.queue(request, decision, stage);
            }
        }
        Flow::Next
    }

    /// The way of a script that only names a key of this slot. It binds nobody: where all commands have to be of one slot, it goes
    /// with the others, and to the owner of that key if they have no keys.
    fn with_others(&mut self, slot: Slot) -> Route {
        match &mut self.transaction {
            Some(transaction) if transaction.is_whole() => {
                transaction.named.get_or_insert(slot);
                Route::Any
            }
            _ => Route::One(slot, Claim::Slot(slot)),
        }
    }

    /// Gives up the transaction and what is watched; false if that has to wait.
    fn discard(&mut self) -> bool {
        if self.watch.is_some() && self.replies.gate() != Gate::Empty {
            return false;
        }
        self.transaction = None;
        self.unwatch();
        true
    }

    /// Queues a command, which the owner of a slot is to look at if that is given.
    fn queue(&mut self, request: &Request<'_>, decision: Decision, stage: Option<Slot>) {
        let decision = Decision { writes: self.may_write(&decision, request), ..decision };
        let reads = self.keys_to_remember(&decision, request);
        let Some(transaction) = &mut self.transaction else { return };
        transaction.reads.extend(reads);
        let room = self.shared.options.limits.request.saturating_sub(transaction.held());
        let spec = lookup(request.name());
        let names_script = spec.is_some_and(Spec::names_script);
        let load = names_script.then(|| self.shared.pool.scripts.load(request.arg(1))).flatten();
        let len = request.bytes().len() + load.as_ref().map_or(0, Bytes::len);
        let queued = if len > room {
            Err(Refusal::text("ERR transaction larger than the limit of the proxy"))
        } else if spec.is_some_and(|spec| spec.flags.has(Flags::NO_MULTI)) {
            Err(Refusal::InMulti)
        } else {
            transaction.queue(request, decision, load)
        };
        match (queued, stage) {
            (Ok(()), Some(slot)) => self.rehearse(slot, request),
            (Ok(()), None) => self.replies.answer(|out| write::simple(out, "QUEUED")),
            (Err(refusal), _) => {
                transaction.dirty.set(true);
                self.refuse(&refusal);
            }
        }
    }

    fn execute(&mut self, decision: &Decision) -> Flow {
        if self.watch.is_some() {
            return self.execute_watched(decision);
        }
        let Some(mut transaction) = self.transaction.take() else { return Flow::Next };
        transaction.settle_slot();
        if self.holds_transaction(&transaction) {
            self.transaction = Some(transaction);
            return Flow::Hold;
        }
        self.note(decision);
        if transaction.dirty.get() {
            self.abort(&transaction);
        } else {
            self.check_again(&mut transaction);
            self.run(*transaction);
        }
        Flow::Next
    }

    /// Whether a transaction has to wait, with all of its parts.
    fn holds_transaction(&mut self, transaction: &Transaction) -> bool {
        let gate = self.replies.gate();
        let hears_nodes = self.shared.options.queueing == Queueing::Nodes;
        if (hears_nodes || transaction.asks_nodes()) && gate != Gate::Empty {
            return true;
        }
        if transaction.dirty.get() || !transaction.goes_to_a_node() {
            return gate == Gate::Barred;
        }
        if self.is_stale(gate) {
            return true;
        }
        for part in &transaction.parts {
            let Some(slot) = part.slot.or_else(|| self.any_slot()) else {
                return self.waits_for_map();
            };
            if self.is_taken(gate, slot) || self.lacks_room(slot) {
                return true;
            }
        }
        false
    }

    /// A transaction behind `WATCH` runs on the connection that watches, after everything before it and before everything
    /// behind it.
    fn execute_watched(&mut self, decision: &Decision) -> Flow {
        if self.replies.gate() != Gate::Empty {
            return Flow::Hold;
        }
        let Some(mut transaction) = self.transaction.take() else { return Flow::Next };
        self.note(decision);
        if transaction.dirty.get() {
            self.unwatch();
            self.abort(&transaction);
            return Flow::Next;
        }
        let Some(watch) = self.watch.take() else { return Flow::Next };
        self.check_again(&mut transaction);
        self.written.note(watch.slot, self.now);
        let spliced = self.answer_own(&transaction);
        self.remember_all(false, &transaction.reads);
        let is_own = |source: &&Source| matches!(source, Source::Own(_) | Source::Later);
        let count = 2 + spliced.sources.len() - spliced.sources.iter().filter(is_own).count();
        let part = transaction.into_only_part();
        let claims = std::iter::once(Claim::All);
        if let Some(promise) = self.promises_of(spliced, claims, part.nature.reads).pop() {
            self.run_watched(&watch, part.into_wire(), count, promise);
        }
        Flow::Next
    }
}
