//! What is queued between `MULTI` and `EXEC`: the commands of each slot in one piece, and all of them in the order they came.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use crate::cluster::Slot;
use crate::command::{Claim, Local, Nature, Verb};
use crate::local;
use crate::refusal::Refusal;
use crate::resp::request::Request;
use crate::route::{Decision, Route};

pub(super) const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
/// What a command takes, besides its bytes, that the proxy answers itself: to be remembered, and its part of the reply.
const STEP: usize = 2048;

/// What becomes of transactions with keys in several slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transactions {
    /// They are refused: the server's error.
    #[default]
    Whole,
    /// Each slot's commands are a transaction of their own.
    PerSlot,
}

/// Who looks at a command when it is queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Queueing {
    /// The proxy; its node does at `EXEC`.
    #[default]
    Proxy,
    /// Its node as well.
    Nodes,
}

/// The commands between `MULTI` and `EXEC`.
#[derive(Debug)]
pub(in crate::session) struct Transaction {
    kind: Transactions,
    /// One for each slot, at least one and at most as many as there are slots.
    pub(super) parts: Vec<Part>,
    /// Which part is that of a slot, but for the first one's.
    others: BTreeMap<Slot, usize>,
    /// The part of the last command, which one without keys goes with.
    last: usize,
    /// Bytes that all of it takes.
    held: usize,
    pub(super) steps: Vec<Step>,
    /// The slot of a key that a script named, where a transaction without keys goes.
    pub(super) named: Option<Slot>,
    writes: bool,
    /// Keys that it reads, if its client tracks.
    pub(super) reads: Vec<Bytes>,
    /// A command could not be queued, so none will run. Nodes that are asked say so later.
    pub(super) dirty: Rc<Cell<bool>>,
}

/// What goes to one node in one piece.
#[derive(Debug)]
pub(super) struct Part {
    /// The slot of all keys, if there are any.
    pub(super) slot: Option<Slot>,
    /// `MULTI` and the commands.
    pub(super) wire: Vec<u8>,
    pub(super) nature: Nature,
}

#[derive(Debug)]
pub(super) enum Step {
    /// A command of this part.
    Node(usize),
    /// `SCRIPT LOAD` in front of a script that the node of this part may not know: within a transaction it could not be told
    /// later.
    Load(usize),
    Local(Local, Vec<u8>),
    /// Answered with these bytes.
    Own(Vec<u8>),
}

impl Part {
    pub(super) fn new(slot: Option<Slot>) -> Self {
        let nature = Nature { reads: true, scripted: false, unit: true };
        Self { slot, wire: MULTI.to_vec(), nature }
    }

    /// Whether it has nothing for a node.
    pub(super) fn is_empty(&self) -> bool {
        self.wire.len() == MULTI.len()
    }

    pub(super) fn claim(&self) -> Claim {
        self.slot.map_or(Claim::None, Claim::Whole)
    }

    /// All that its node is sent.
    pub(super) fn into_wire(mut self) -> Vec<u8> {
        self.wire.extend_from_slice(EXEC);
        self.wire
    }
}

impl Transaction {
    /// Behind `WATCH` all keys are to be of the slot that is watched: of several nobody could say that none has changed.
    pub(super) fn new(kind: Transactions, watched: Option<Slot>) -> Self {
        Self {
            kind: if watched.is_some() { Transactions::Whole } else { kind },
            parts: vec![Part::new(watched)],
            others: BTreeMap::new(),
            last: 0,
            held: 0,
            steps: Vec::new(),
            named: None,
            writes: false,
            reads: Vec::new(),
            dirty: Rc::default(),
        }
    }

    /// Takes a command in, behind what its node has to be told first, or says why it cannot be part of a transaction.
    pub(super) fn queue(
        &mut self,
        request: &Request<'_>,
        decision: Decision,
        load: Option<Bytes>,
    ) -> Result<(), Refusal> {
        let at = match decision.route {
            Route::Refuse(refusal) => return Err(*refusal),
            // Within a transaction nothing waits.
            Route::One(slot, _)
            | Route::Sort(slot)
            | Route::Block(slot, _)
            | Route::Publish(Some(slot)) => self.part_of(slot)?,
            // The node's own count of receivers has to do.
            Route::Any | Route::Publish(None) => self.last,
            Route::Local(command) if local::is_barrier(command) => return Err(Refusal::InMulti),
            Route::Local(command) => {
                self.held += request.bytes().len() + STEP;
                self.steps.push(Step::Local(command, request.bytes().to_vec()));
                return Ok(());
            }
            Route::Split(_) | Route::Across(..) => return Err(Refusal::CrossSlot),
            // It would change nothing: `EXEC` forgets what is watched as well.
            Route::Session(Verb::Unwatch) => {
                self.held += STEP;
                self.steps.push(Step::Own(b"+OK\r\n".to_vec()));
                return Ok(());
            }
            Route::Every(_) | Route::Errand(_) | Route::Session(_) => {
                return Err(Refusal::InMulti);
            }
        };
        let part = &mut self.parts[at];
        if let Some(load) = load {
            part.wire.extend_from_slice(&load);
            self.held += load.len();
            self.steps.push(Step::Load(at));
        }
        part.nature.reads &= decision.nature.reads;
        part.nature.scripted |= decision.nature.scripted;
        part.wire.extend_from_slice(request.bytes());
        self.writes |= decision.writes;
        self.held += request.bytes().len();
        self.steps.push(Step::Node(at));
        self.last = at;
        Ok(())
    }

    /// Whether all its commands have to be of one slot.
    pub(super) fn is_whole(&self) -> bool {
        self.kind == Transactions::Whole
    }

    /// The part that a command on this slot belongs to.
    fn part_of(&mut self, slot: Slot) -> Result<usize, Refusal> {
        // The first one goes with all that came before it and had no keys.
        if *self.parts[0].slot.get_or_insert(slot) == slot {
            return Ok(0);
        }
        if self.is_whole() {
            return Err(Refusal::CrossSlot);
        }
        let next = self.parts.len();
        let at = *self.others.entry(slot).or_insert(next);
        if at == next {
            self.parts.push(Part::new(Some(slot)));
        }
        Ok(at)
    }

    /// Without any keys, it goes to the owner of the key that a script of it names.
    pub(super) fn settle_slot(&mut self) {
        let slot = &mut self.parts[0].slot;
        *slot = slot.or(self.named);
    }

    /// Number of commands.
    pub(in crate::session) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether it may change data.
    pub(in crate::session) fn writes(&self) -> bool {
        self.writes
    }

    /// Bytes that all of it takes.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether a command asks nodes, for whom all that its client sent before must be over.
    pub(super) fn asks_nodes(&self) -> bool {
        let asks = |step: &Step| matches!(step, Step::Local(c, _) if local::asks_nodes(*c));
        self.steps.iter().any(asks)
    }

    pub(super) fn goes_to_a_node(&self) -> bool {
        self.parts.iter().any(|part| !part.is_empty())
    }

    /// The one part of a transaction behind `WATCH`.
    pub(super) fn into_only_part(mut self) -> Part {
        self.parts.swap_remove(0)
    }
}
