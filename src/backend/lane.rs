//! A lane: the queue of requests of one pipelined connection to one node.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::Waker;

use bytes::{Buf, Bytes};

use super::Payload;
use super::log::Log;
use crate::cluster::{Address, Slot};
use crate::command::Nature;
use crate::replies::Promise;
use crate::resp::{Protocol, request};

/// What distinguishes the lanes to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// Version of RESP spoken on it.
    pub protocol: Protocol,
    /// Whether a replica answers reads on it (`READONLY`).
    pub replica: bool,
}

impl Class {
    /// Number of classes.
    pub(super) const COUNT: usize = 4;

    /// Index of the class below `COUNT`.
    #[inline]
    pub(super) fn index(self) -> usize {
        usize::from(self.protocol == Protocol::Resp3) * 2 + usize::from(self.replica)
    }
}

/// What the backend knows of a request besides its bytes. Eight bytes, so that it travels in a register.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    /// Microseconds of the worker's clock when it was routed; wraps.
    pub(super) born: u32,
    /// The slot of its keys, or one of the node it is meant for.
    pub(super) slot: Slot,
    /// Redirects followed since it last waited in the low half, the number of waits in the high half; as far as they are
    /// worth counting.
    tries: u8,
    marks: u8,
}

/// The request only reads, so that it may be sent twice.
const READONLY: u8 = 1;
/// It has been sent twice.
const RESENT: u8 = 2;
/// It needs a lane that speaks RESP3.
const RESP3: u8 = 4;
/// It may go to a replica.
const REPLICA: u8 = 8;
/// Its errors may be a script's own.
const SCRIPTED: u8 = 16;
/// It is several requests in one piece, and the reply to the last of them is its reply: a transaction.
const UNIT: u8 = 32;
/// Its bytes on the lane begin with `ASKING`.
const ASKED: u8 = 64;
/// Its bytes on the lane begin with what its node has to be told first; the request itself is the last of them.
const TOLD: u8 = 128;
/// Most that either half of `tries` counts.
const TRIES_MAX: u8 = 15;

impl Ticket {
    const BLANK: Self = Self { born: 0, slot: Slot::FIRST, tries: 0, marks: 0 };

    /// For a request that has not been anywhere.
    #[inline]
    pub fn new(slot: Slot, class: Class, nature: Nature, born: u32) -> Self {
        let mark = |is: bool, mark: u8| if is { mark } else { 0 };
        let marks = mark(class.protocol == Protocol::Resp3, RESP3)
            | mark(class.replica, REPLICA)
            | mark(nature.reads, READONLY)
            | mark(nature.scripted, SCRIPTED)
            | mark(nature.unit, UNIT);
        Self { born, slot, tries: 0, marks }
    }

    /// The class of lane it needs.
    #[inline]
    pub(super) fn class(self) -> Class {
        let protocol = if self.marks & RESP3 == 0 { Protocol::Resp2 } else { Protocol::Resp3 };
        Class { protocol, replica: self.marks & REPLICA != 0 }
    }

    /// Whether it may be sent again after it may have run.
    pub(super) fn is_repeatable(self) -> bool {
        self.marks & (READONLY | RESENT) == READONLY
    }

    /// Whether it only reads.
    pub(super) fn reads(self) -> bool {
        self.marks & READONLY != 0
    }

    /// Whether its errors may be a script's own.
    pub(super) fn is_scripted(self) -> bool {
        self.marks & SCRIPTED != 0
    }

    /// Whether it is several requests in one piece.
    pub(super) fn is_unit(self) -> bool {
        self.marks & UNIT != 0
    }

    /// Whether its bytes on the lane begin with `ASKING`.
    pub(super) fn is_asked(self) -> bool {
        self.marks & ASKED != 0
    }

    fn is_told(self) -> bool {
        self.marks & TOLD != 0
    }

    /// The same, with something in front of it that its node has to be told, or not any more.
    fn told(self, told: bool) -> Self {
        let marks = self.marks & !(UNIT | TOLD | ASKED);
        Self { marks: if told { marks | UNIT | TOLD } else { marks }, ..self }
    }

    fn asked(self, asked: bool) -> Self {
        Self { marks: self.marks & !ASKED | if asked { ASKED } else { 0 }, ..self }
    }

    /// Redirects followed since it last waited.
    pub(super) fn hops(self) -> u8 {
        self.tries & TRIES_MAX
    }

    /// The same, after one more redirect.
    pub(super) fn redirected(self) -> Self {
        Self { tries: self.tries + u8::from(self.hops() < TRIES_MAX), ..self }
    }

    /// How often it has waited.
    pub(super) fn waits(self) -> u8 {
        self.tries >> 4
    }

    /// The same, after one more wait.
    pub(super) fn waited(self) -> Self {
        Self { tries: (self.waits() + 1).min(TRIES_MAX) << 4, ..self }
    }

    /// The same, to be answered by a primary.
    pub(super) fn for_primary(self) -> Self {
        Self { marks: self.marks & !REPLICA, ..self }
    }

    /// The same, after it may have run.
    pub(super) fn repeated(self) -> Self {
        Self { marks: self.marks | RESENT, ..self }
    }
}

/// A request taken off a lane, with its bytes.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) bytes: Bytes,
    pub(super) promise: Promise,
    pub(super) ticket: Ticket,
}

/// A request on a lane. Its bytes are in the log, right behind those of the one before it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) promise: Promise,
    pub(super) ticket: Ticket,
    len: u32,
    /// Replies that come before its own: to `ASKING`, and to all but the last request of a unit.
    skip: u32,
}

const ASKING: &[u8; 16] = b"*1\r\n$6\r\nASKING\r\n";
/// What a unit ends with that is a rehearsal: its reply is the first error that its node has for what stands before, if any.
pub const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";

impl Entry {
    const BLANK: Self = Self { promise: Promise::nobody(), ticket: Ticket::BLANK, len: 0, skip: 0 };

    /// The request with its bytes, which start at this offset of the log.
    fn into_parcel(self, log: &Log, start: u64) -> Parcel {
        let mut bytes = log.copy(start, self.len);
        if self.ticket.is_told() {
            bytes.advance(request::last(&bytes));
            return Parcel { bytes, promise: self.promise, ticket: self.ticket.told(false) };
        }
        if self.ticket.is_asked() {
            bytes.advance(ASKING.len());
        }
        Parcel { bytes, promise: self.promise, ticket: self.ticket.asked(false) }
    }
}

/// How the connection of a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Not connected, or not yet.
    Down,
    /// Requests are written as they come.
    Up,
    /// Connected, but the node has been silent for a while: what is not written is held back, so that it can still go
    /// elsewhere.
    Suspect,
}

/// What somebody else wants of a lane's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing special.
    Serve,
    /// The node is held for failed: give the connection up.
    Sever,
    /// The node did not answer in time: give the connection up.
    TimeOut,
    /// The node can no longer tell what others change: give the connection up.
    Deafened,
    /// The node has left: close when nothing is in flight.
    Retire,
}

/// A lane. Shared by the pool, which fills it, and its connection, which empties it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) address: Address,
    pub(super) class: Class,
    pub(super) status: Cell<Status>,
    pub(super) order: Cell<Order>,
    /// Microseconds of the worker's clock when the node was last heard, or took a piece of the request it is to answer next.
    pub(super) heard: Cell<u32>,
    queue: RefCell<Queue>,
    cause: RefCell<Vec<u8>>,
    waker: RefCell<Option<Waker>>,
    woken: Cell<bool>,
}

#[derive(Debug, Default)]
struct Queue {
    log: Log,
    entries: VecDeque<Entry>,
}

impl Lane {
    pub(super) fn new(address: Address, class: Class) -> Self {
        Self {
            address,
            class,
            status: Cell::new(Status::Down),
            order: Cell::new(Order::Serve),
            heard: Cell::new(0),
            queue: RefCell::default(),
            cause: RefCell::default(),
            waker: RefCell::default(),
            woken: Cell::new(false),
        }
    }

    /// Queues a request and wakes the connection.
    #[inline]
    pub(super) fn push(&self, payload: Payload<'_>, promise: Promise, ticket: Ticket) {
        self.queue.borrow_mut().push(payload, promise, ticket);
        self.wake();
    }

    /// Queues `ASKING` and a request as one unit: one piece of bytes, of which none is written or sent elsewhere without
    /// the other, and a reply more. Before `MULTI` it is for all of the transaction.
    pub(super) fn push_asking(&self, parcel: Parcel) {
        let bytes = Bytes::from([ASKING, &parcel.bytes[..]].concat());
        self.push(payload(&bytes), parcel.promise, parcel.ticket.asked(true));
    }

    /// Queues a request in one piece behind what its node has to be told first; and behind `ASKING` if that was said before.
    pub(super) fn push_told(&self, first: &[u8], parcel: Parcel, asking: bool) {
        let asking: &[u8] = if asking { ASKING } else { b"" };
        let bytes = Bytes::from([first, asking, &parcel.bytes[..]].concat());
        self.push(payload(&bytes), parcel.promise, parcel.ticket.told(true));
    }

    /// Wakes the connection, once until it has run.
    #[inline]
    pub(super) fn wake(&self) {
        if !self.woken.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// The connection says whom to wake.
    pub(super) fn listen(&self, waker: &Waker) {
        self.woken.set(false);
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// Hands the unwritten bytes to `write`, which says how many it took.
    pub(super) fn write_with<R>(&self, write: impl FnOnce(&mut Log) -> R) -> R {
        write(&mut self.queue.borrow_mut().log)
    }

    /// The request whose reply comes next, or nobody's if the reply is to be skipped; `None` if the node owes none.
    #[inline]
    pub(super) fn pop(&self) -> Option<(Promise, Ticket)> {
        let queue = &mut *self.queue.borrow_mut();
        let front = queue.entries.front_mut()?;
        if front.skip > 0 && queue.log.is_begun() {
            front.skip -= 1;
            return Some((Promise::nobody(), front.ticket));
        }
        if !queue.log.is_written(front.len) {
            return None;
        }
        let (promise, ticket, len) = (front.promise.take(), front.ticket, front.len);
        queue.entries.pop_front();
        queue.log.release(len);
        Some((promise, ticket))
    }

    /// What is known of the request whose reply comes next, and the replies that come before its own.
    pub(super) fn front(&self) -> Option<(Ticket, u32)> {
        self.queue.borrow().entries.front().map(|entry| (entry.ticket, entry.skip))
    }

    /// Age, client and bytes of the request whose reply comes next, if it is as old as this.
    #[inline]
    pub(super) fn front_from(&self, now: u32, us: u64) -> Option<(u64, u64, Bytes)> {
        let queue = self.queue.borrow();
        let front = queue.entries.front()?;
        let age = u64::from(now.wrapping_sub(front.ticket.born));
        let is_slow = age >= us && front.skip == 0 && queue.log.is_written(front.len);
        is_slow
            .then(|| (age, front.promise.owner(), queue.log.copy(queue.log.released(), front.len)))
    }

    /// Whether the reply to a rehearsal comes next.
    pub(super) fn is_rehearsal(&self) -> bool {
        let queue = self.queue.borrow();
        let Some(front) = queue.entries.front() else { return false };
        let end = u32::try_from(DISCARD.len()).unwrap_or(u32::MAX);
        let Some(before) = front.len.checked_sub(end) else { return false };
        front.ticket.is_unit()
            && !front.ticket.is_told()
            && queue.log.copy(queue.log.released() + u64::from(before), end) == DISCARD
    }

    /// Keeps the first error because of which a transaction will not run, until its own reply comes.
    pub(super) fn keep_cause(&self, ticket: Ticket, error: &[u8]) {
        if ticket.is_told() {
            return;
        }
        let mut cause = self.cause.borrow_mut();
        if cause.is_empty() {
            cause.extend_from_slice(error);
        }
    }

    /// The error because of which the unit did not run whose reply has come; empty if there was none.
    pub(super) fn take_cause(&self) -> Vec<u8> {
        self.cause.take()
    }

    /// The request whose reply comes next, with its bytes.
    pub(super) fn pop_parcel(&self) -> Option<Parcel> {
        let queue = &mut *self.queue.borrow_mut();
        let entry = queue.next()?;
        let len = entry.len;
        let start = queue.log.released();
        let parcel = entry.into_parcel(&queue.log, start);
        queue.log.release(len);
        Some(parcel)
    }

    /// Number of requests without reply, and bytes of those not written.
    pub(super) fn load(&self) -> (usize, u64) {
        let queue = self.queue.borrow();
        (queue.entries.len(), queue.log.unwritten())
    }

    /// Bytes of the requests without reply, written or not.
    #[inline]
    pub(super) fn held(&self) -> u64 {
        self.queue.borrow().log.held()
    }

    /// Whether the node owes something: a reply, or that it takes the rest of a request.
    pub(super) fn is_owed(&self) -> bool {
        let queue = self.queue.borrow();
        queue.log.released() < queue.log.written()
    }

    /// Bytes of the first request that have not been written.
    pub(super) fn front_unwritten(&self) -> u64 {
        let queue = self.queue.borrow();
        let first = queue.entries.front();
        let end = first.map_or(0, |first| queue.log.released() + u64::from(first.len));
        end.saturating_sub(queue.log.written())
    }

    /// Whether there is a request of which nothing has been written and of which `test` is true.
    pub(super) fn any_untouched(&self, test: impl Fn(Ticket) -> bool) -> bool {
        let queue = self.queue.borrow();
        queue
            .spans()
            .filter(|(start, _)| *start >= queue.log.written())
            .any(|(_, entry)| test(entry.ticket))
    }

    /// Takes back the requests of which nothing has been written, in order.
    pub(super) fn take_untouched(&self) -> Vec<Parcel> {
        let queue = &mut *self.queue.borrow_mut();
        let written = queue.log.written();
        let touched = queue.spans().take_while(|(start, _)| *start < written).count();
        let Some((from, _)) = queue.spans().nth(touched) else { return Vec::new() };
        let starts: Vec<u64> = queue.spans().skip(touched).map(|(start, _)| start).collect();
        let entries = queue
            .entries
            .drain(touched..)
            .zip(starts)
            .filter(|(entry, _)| !entry.promise.is_nobody());
        let log = &queue.log;
        let parcels = entries.map(|(entry, start)| entry.into_parcel(log, start)).collect();
        queue.log.truncate(from);
        parcels
    }

    /// Takes everything, in order, each with whether it had been written whole; the lane is then as new.
    pub(super) fn take_all(&self) -> Vec<(bool, Parcel)> {
        let Queue { log, entries } = std::mem::take(&mut *self.queue.borrow_mut());
        self.cause.take();
        let mut start = log.released();
        let mut parcels = Vec::with_capacity(entries.len());
        for entry in entries {
            let end = start + u64::from(entry.len);
            if !entry.promise.is_nobody() {
                parcels.push((end <= log.written(), entry.into_parcel(&log, start)));
            }
            start = end;
        }
        parcels
    }
}

impl Queue {
    #[inline]
    fn push(&mut self, payload: Payload<'_>, promise: Promise, ticket: Ticket) {
        // Requests are limited far below 4 GiB.
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.log.push(payload);
        // Filled in place: an entry put together on the stack first would be read back before it is all written, which
        // costs more than everything else here.
        self.entries.push_back(Entry::BLANK);
        if let Some(entry) = self.entries.back_mut() {
            entry.promise = promise;
            entry.ticket = ticket;
            entry.len = len;
            if ticket.marks & (UNIT | ASKED) != 0 {
                entry.skip = skipped(payload, ticket);
            }
        }
    }

    /// Takes the first request off, if it has been written: only then can a reply be its.
    #[inline]
    fn next(&mut self) -> Option<Entry> {
        if !self.log.is_written(self.entries.front()?.len) {
            return None;
        }
        self.entries.pop_front()
    }

    /// Every request with the offset of its first byte.
    fn spans(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.iter().scan(self.log.released(), |end, entry| {
            let start = *end;
            *end += u64::from(entry.len);
            Some((start, entry))
        })
    }
}

/// Number of replies that come before the one to the request.
#[cold]
fn skipped(payload: Payload<'_>, ticket: Ticket) -> u32 {
    let bytes: &[u8] = match payload {
        Payload::Small(bytes) => bytes,
        Payload::Large(bytes) => bytes,
    };
    if ticket.is_unit() {
        u32::try_from(request::count(bytes)).unwrap_or(u32::MAX).saturating_sub(1)
    } else {
        1
    }
}

/// Bytes that are sent again, as a payload: by reference if they are worth it.
pub(super) fn payload(bytes: &Bytes) -> Payload<'_> {
    if bytes.len() >= crate::replies::LARGE { Payload::Large(bytes) } else { Payload::Small(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Claim, Nature};
    use crate::replies::Replies;

    #[test]
    fn of_the_replies_to_a_unit_the_last_one_counts() {
        let class = Class { protocol: Protocol::Resp2, replica: false };
        let lane = Lane::new(Address::parse("127.0.0.1:1", None).unwrap(), class);
        let unit = b"*1\r\n$5\r\nMULTI\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nEXEC\r\n";
        let ticket = Ticket::new(Slot::FIRST, class, Nature { unit: true, ..Nature::WRITE }, 0);
        let promise = || Replies::default().promise(Claim::None, false);
        lane.push(Payload::Small(unit), promise(), ticket);
        assert!(lane.pop().is_none(), "nothing has been written");
        lane.write_with(|log| log.advance(10));
        let is_nobodys = || lane.pop().map(|(promise, _)| promise.is_nobody());
        // The node may answer the first request before it has all of the others.
        assert_eq!(is_nobodys(), Some(true));
        lane.write_with(|log| log.advance(unit.len() - 10));
        assert_eq!([is_nobodys(), is_nobodys(), is_nobodys()], [Some(true), Some(false), None]);

        let bytes = Bytes::copy_from_slice(unit);
        lane.push_asking(Parcel { bytes: bytes.clone(), promise: promise(), ticket });
        assert_eq!(lane.front().map(|(_, skip)| skip), Some(3));
        let parcel = &lane.take_untouched()[0];
        assert_eq!((&parcel.bytes, parcel.ticket.is_asked()), (&bytes, false));
    }

    #[test]
    fn a_node_that_is_sent_asking_owes_the_request_behind_it() {
        let class = Class { protocol: Protocol::Resp2, replica: false };
        let lane = Lane::new(Address::parse("127.0.0.1:1", None).unwrap(), class);
        let bytes = Bytes::from_static(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
        let ticket = Ticket::new(Slot::FIRST, class, Nature::WRITE, 0);
        lane.push_asking(Parcel { bytes: bytes.clone(), promise: Promise::nobody(), ticket });
        assert_eq!(lane.front_unwritten(), (ASKING.len() + bytes.len()) as u64);
        lane.write_with(|log| log.advance(ASKING.len()));
        assert_eq!(lane.front_unwritten(), bytes.len() as u64);
        assert!(lane.is_owed());
    }
}
