//! `MULTI`: commands are checked and kept as they come, and go to their node in one piece at `EXEC`.
//!
//! Within one piece on a lane nothing comes between `MULTI` and `EXEC`, so a transaction needs no connection of its own. What
//! the proxy answers by itself it answers at `EXEC`, whether the node then runs the rest or not, and its replies are put in
//! among the node's.

use bytes::Bytes;

use super::connection::{Flow, Session};
use super::dispatch::Later;
use crate::backend::{Class, Payload, Ticket};
use crate::cluster::Slot;
use crate::command::merge::{Gather, Source};
use crate::command::{Claim, Flags, Local, Merge, Nature, Spec, Verb, lookup};
use crate::local;
use crate::refusal::Refusal;
use crate::replies::{Gate, LARGE, Promise, Reply};
use crate::resp::frame::{Limits, Progress, RequestFramer};
use crate::resp::request::Request;
use crate::resp::write;
use crate::route::{Decision, Route};

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
/// How an error begins that stands in a transaction's reply.
const CHANGED: &str = "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no longer allowed for the following reason:";
/// What a command takes, besides its bytes, that the proxy answers itself: to be remembered, and its part of the reply.
const STEP: usize = 2048;

/// The commands between `MULTI` and `EXEC`.
#[derive(Debug)]
pub(super) struct Transaction {
    /// `MULTI` and what goes to the node.
    wire: Vec<u8>,
    /// What the commands take that do not go there.
    own_len: usize,
    steps: Vec<Step>,
    /// The slot of all keys, if there are any.
    slot: Option<Slot>,
    nature: Nature,
    writes: bool,
    /// Keys that it reads, if its client tracks.
    reads: Vec<Bytes>,
    /// A command could not be queued, so none will run.
    dirty: bool,
}

#[derive(Debug)]
enum Step {
    Node,
    /// `SCRIPT LOAD` in front of a script that the node may not know: within a transaction it could not be told later.
    Load,
    Local(Local, Vec<u8>),
    /// Answered with these bytes.
    Own(Vec<u8>),
}

/// Where the replies within a transaction's come from.
struct Spliced {
    sources: Vec<Source>,
    /// What it takes to get those that are the proxy's own and not ready.
    later: Vec<Later>,
}

impl Default for Transaction {
    fn default() -> Self {
        Self {
            wire: MULTI.to_vec(),
            own_len: 0,
            steps: Vec::new(),
            slot: None,
            nature: Nature { reads: true, scripted: false, unit: true },
            writes: false,
            reads: Vec::new(),
            dirty: false,
        }
    }
}

impl Transaction {
    /// Takes a command in, behind what its node has to be told first, or says why it cannot be part of a transaction.
    fn queue(
        &mut self,
        request: &Request<'_>,
        decision: Decision,
        load: Option<Bytes>,
    ) -> Result<(), Refusal> {
        match decision.route {
            Route::Refuse(refusal) => return Err(*refusal),
            // Within a transaction nothing waits.
            Route::One(slot, _)
            | Route::Sort(slot)
            | Route::Block(slot, _)
            | Route::Publish(Some(slot)) => {
                if *self.slot.get_or_insert(slot) != slot {
                    return Err(Refusal::CrossSlot);
                }
            }
            // The node's own count of receivers has to do.
            Route::Any | Route::Publish(None) => {}
            Route::Local(command) if local::is_barrier(command) => return Err(Refusal::InMulti),
            Route::Local(command) => {
                self.own_len += request.bytes().len() + STEP;
                self.steps.push(Step::Local(command, request.bytes().to_vec()));
                return Ok(());
            }
            Route::Split(_) | Route::Across(..) => return Err(Refusal::CrossSlot),
            // It would change nothing: `EXEC` forgets what is watched as well.
            Route::Session(Verb::Unwatch) => {
                self.own_len += STEP;
                self.steps.push(Step::Own(b"+OK\r\n".to_vec()));
                return Ok(());
            }
            Route::Every(_) | Route::Errand(_) | Route::Session(_) => {
                return Err(Refusal::InMulti);
            }
        }
        if let Some(load) = load {
            self.wire.extend_from_slice(&load);
            self.steps.push(Step::Load);
        }
        self.writes |= decision.writes;
        self.nature.reads &= decision.nature.reads;
        self.nature.scripted |= decision.nature.scripted;
        self.wire.extend_from_slice(request.bytes());
        self.steps.push(Step::Node);
        Ok(())
    }

    /// Number of commands.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether it may change data.
    pub(super) fn writes(&self) -> bool {
        self.writes
    }

    /// Whether a command asks nodes, for whom all that its client sent before must be over.
    fn asks_nodes(&self) -> bool {
        let asks = |step: &Step| matches!(step, Step::Local(c, _) if local::asks_nodes(*c));
        self.steps.iter().any(asks)
    }

    fn goes_to_a_node(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Node | Step::Load))
    }
}

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
                self.transaction = Some(Box::new(Transaction { slot, ..Transaction::default() }));
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
        let decision = self.decide(request);
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
                self.note(&decision);
                self.queue(request, decision);
            }
        }
        Flow::Next
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

    fn queue(&mut self, request: &Request<'_>, decision: Decision) {
        let decision = Decision { writes: self.may_write(&decision, request), ..decision };
        let reads = self.keys_to_remember(&decision, request);
        let Some(transaction) = &mut self.transaction else { return };
        transaction.reads.extend(reads);
        let held = transaction.wire.len() + transaction.own_len;
        let room = self.shared.options.limits.request.saturating_sub(held);
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
        match queued {
            Ok(()) => self.replies.answer(|out| write::simple(out, "QUEUED")),
            Err(refusal) => {
                transaction.dirty = true;
                self.refuse(&refusal);
            }
        }
    }

    fn execute(&mut self, decision: &Decision) -> Flow {
        if self.watch.is_some() {
            return self.execute_watched(decision);
        }
        let Some(mut transaction) = self.transaction.take() else { return Flow::Next };
        let gate = self.replies.gate();
        if transaction.asks_nodes() && gate != Gate::Empty {
            self.transaction = Some(transaction);
            return Flow::Hold;
        }
        if !transaction.dirty && transaction.goes_to_a_node() {
            let slot = transaction.slot.or_else(|| self.any_slot());
            let held = match slot {
                Some(slot) => {
                    self.is_stale(gate) || self.is_taken(gate, slot) || self.lacks_room(slot)
                }
                None => self.waits_for_map(),
            };
            if held {
                self.transaction = Some(transaction);
                return Flow::Hold;
            }
        } else if gate == Gate::Barred {
            self.transaction = Some(transaction);
            return Flow::Hold;
        }
        self.note(decision);
        if transaction.dirty {
            self.refuse(&Refusal::ExecAbort);
        } else {
            self.check_again(&mut transaction);
            self.run(*transaction);
        }
        Flow::Next
    }

    /// What the client's user may not do any more is answered with an error; the rest is done.
    fn check_again(&self, transaction: &mut Transaction) {
        if !self.client.borrow().is_limited {
            return;
        }
        let limits = Limits { args: usize::MAX, ..self.shared.options.limits };
        let wire = std::mem::replace(&mut transaction.wire, MULTI.to_vec());
        let (mut framer, mut rest) = (RequestFramer::default(), &wire[MULTI.len()..]);
        for step in std::mem::take(&mut transaction.steps) {
            let mut bytes: &[u8] = &[];
            if matches!(step, Step::Node | Step::Load) {
                // It has been framed by these limits before.
                let Ok(Progress::Complete(len)) = framer.frame(rest, &limits) else { return };
                (bytes, rest) = rest.split_at(len);
            }
            let forbidden = match &step {
                Step::Node => self.forbidden(bytes, &limits),
                Step::Local(_, bytes) => self.forbidden(bytes, &limits),
                Step::Load | Step::Own(_) => None,
            };
            if forbidden.is_none() {
                transaction.wire.extend_from_slice(bytes);
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

    /// A transaction behind `WATCH` runs on the connection that watches, after everything before it and before everything
    /// behind it.
    fn execute_watched(&mut self, decision: &Decision) -> Flow {
        if self.replies.gate() != Gate::Empty {
            return Flow::Hold;
        }
        let Some(mut transaction) = self.transaction.take() else { return Flow::Next };
        self.note(decision);
        if transaction.dirty {
            self.unwatch();
            self.refuse(&Refusal::ExecAbort);
            return Flow::Next;
        }
        let Some(watch) = self.watch.take() else { return Flow::Next };
        self.check_again(&mut transaction);
        self.written.note(watch.slot, self.now);
        let spliced = self.answer_own(&transaction.steps);
        self.remember_all(&transaction.reads);
        let is_node = |source: &&Source| matches!(source, Source::Node | Source::Aside);
        let count = 2 + spliced.sources.iter().filter(is_node).count();
        transaction.wire.extend_from_slice(EXEC);
        if let Some(promise) = self.promise_of(spliced, Claim::All, transaction.nature) {
            self.run_watched(&watch, transaction.wire, count, promise);
        }
        Flow::Next
    }

    /// The promise of the node's part in a transaction's reply; the other parts are seen to.
    fn promise_of(&self, spliced: Spliced, claim: Claim, nature: Nature) -> Option<Promise> {
        let Spliced { sources, later } = spliced;
        if sources.iter().all(|source| *source == Source::Node) {
            return Some(self.replies.promise(claim, nature.reads));
        }
        let claims = std::iter::once(claim).chain(later.iter().map(|_| Claim::All));
        let gather = Gather::new(Merge::Splice, self.protocol(), claims)
            .splicing(sources)
            .writing(!nature.reads);
        let mut promises = self.replies.gather(gather);
        let node = promises.next();
        if !later.is_empty() {
            self.reply_later(later.into_iter().zip(promises));
        }
        node
    }

    /// Sends a transaction off, or answers it if it has nothing for a node.
    fn run(&mut self, mut transaction: Transaction) {
        let spliced = self.answer_own(&transaction.steps);
        self.remember_all(&transaction.reads);
        if !transaction.goes_to_a_node() {
            if let Some(promise) = self.promise_of(spliced, Claim::None, transaction.nature) {
                promise.fulfil(Reply::Small(b"*0\r\n"));
            }
            return;
        }
        if let Some(slot) = transaction.slot.filter(|_| !transaction.nature.reads) {
            self.written.note(slot, self.now);
        }
        let claim = transaction.slot.map_or(Claim::None, Claim::Whole);
        let Some(slot) = transaction.slot.or_else(|| self.any_slot()) else {
            return self.refuse(&Refusal::SlotNotServed);
        };
        transaction.wire.extend_from_slice(EXEC);
        let Some(promise) = self.promise_of(spliced, claim, transaction.nature) else { return };
        let class = Class { protocol: self.protocol(), replica: false };
        let ticket = Ticket::new(slot, class, transaction.nature, self.now);
        let pool = &self.shared.pool;
        if transaction.wire.len() < LARGE {
            pool.send(Payload::Small(&transaction.wire), promise, ticket);
        } else {
            pool.send(Payload::Large(&transaction.wire.into()), promise, ticket);
        }
    }

    /// Where the replies come from, the proxy's own ready if they can be.
    fn answer_own(&mut self, steps: &[Step]) -> Spliced {
        let limits = Limits { args: usize::MAX, ..self.shared.options.limits };
        let (mut framer, mut later) = (RequestFramer::default(), Vec::new());
        let source = |step: &Step| {
            let (command, bytes) = match step {
                Step::Node => return Source::Node,
                Step::Load => return Source::Aside,
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
        let sources = steps.iter().map(source).collect();
        Spliced { sources, later }
    }
}
