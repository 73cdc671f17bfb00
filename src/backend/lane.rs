//! A lane: the queue of requests of one pipelined connection to one node.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;

use super::Payload;
use super::log::{Log, Position};
use crate::cluster::{Address, Slot};
use crate::command::Group;
use crate::replies::Promise;
use crate::resp::Protocol;

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
    pub(super) fn index(self) -> usize {
        usize::from(self.protocol == Protocol::Resp3) * 2 + usize::from(self.replica)
    }
}

/// What the backend knows of a request besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    /// The slot of its keys, or one of the node it is meant for.
    pub slot: Slot,
    /// The class of lane it needs.
    pub class: Class,
    /// Whether it only reads, so that it may be sent twice.
    pub readonly: bool,
    /// Family it is counted under.
    pub group: Group,
    /// Microseconds of the worker's clock when it was routed; wraps.
    pub born: u32,
    pub(super) hops: u8,
    pub(super) resent: bool,
    pub(super) asking: bool,
}

impl Ticket {
    /// For a request that has not been anywhere.
    pub fn new(slot: Slot, class: Class, readonly: bool, group: Group, born: u32) -> Self {
        Self { slot, class, readonly, group, born, hops: 0, resent: false, asking: false }
    }
}

/// A request taken off a lane, with its bytes.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) bytes: Bytes,
    pub(super) promise: Promise,
    pub(super) ticket: Ticket,
}

/// A request on a lane.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) promise: Promise,
    pub(super) ticket: Ticket,
    at: Position,
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
    /// Microseconds of the worker's clock when the node was last heard.
    pub(super) heard: Cell<u32>,
    queue: RefCell<Queue>,
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
            waker: RefCell::default(),
            woken: Cell::new(false),
        }
    }

    /// Queues a request and wakes the connection.
    pub(super) fn push(&self, payload: Payload<'_>, promise: Promise, ticket: Ticket) {
        let mut queue = self.queue.borrow_mut();
        let at = queue.log.push(payload);
        queue.entries.push_back(Entry { promise, ticket, at });
        drop(queue);
        self.wake();
    }

    /// Queues `ASKING` and a request as one unit.
    pub(super) fn push_asking(&self, parcel: Parcel) {
        let ticket = Ticket { asking: true, ..parcel.ticket };
        self.push(Payload::Small(b"*1\r\n$6\r\nASKING\r\n"), Promise::nobody(), ticket);
        self.push(payload(&parcel.bytes), parcel.promise, ticket);
    }

    /// Wakes the connection, once until it has run.
    pub(super) fn wake(&self) {
        if !self.woken.replace(true) {
            if let Some(waker) = &*self.waker.borrow() {
                waker.wake_by_ref();
            }
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

    /// The request whose reply comes next; `None` if the node owes none. Its bytes are given up unless `keep` is set.
    pub(super) fn pop(&self) -> Option<Entry> {
        let mut queue = self.queue.borrow_mut();
        let entry = queue.entries.pop_front()?;
        queue.log.release(&entry.at);
        Some(entry)
    }

    /// The request whose reply comes next, with its bytes.
    pub(super) fn pop_parcel(&self) -> Option<Parcel> {
        let mut queue = self.queue.borrow_mut();
        let entry = queue.entries.pop_front()?;
        let bytes = queue.log.copy_of(&entry.at);
        queue.log.release(&entry.at);
        Some(Parcel { bytes, promise: entry.promise, ticket: entry.ticket })
    }

    /// Number of requests without reply, and bytes of those not written.
    pub(super) fn load(&self) -> (usize, u64) {
        let queue = self.queue.borrow();
        (queue.entries.len(), queue.log.unwritten())
    }

    /// When the oldest request that was written was routed.
    pub(super) fn oldest_written(&self) -> Option<u32> {
        let queue = self.queue.borrow();
        let front = queue.entries.front()?;
        queue.log.is_written(&front.at).then_some(front.ticket.born)
    }

    /// When the first request that was not written was routed.
    pub(super) fn any_unwritten(&self, test: impl Fn(u32) -> bool) -> bool {
        let queue = self.queue.borrow();
        queue
            .entries
            .iter()
            .rev()
            .take_while(|entry| queue.log.is_untouched(&entry.at))
            .any(|entry| test(entry.ticket.born))
    }

    /// Takes back the requests of which nothing has been written, in order.
    pub(super) fn take_untouched(&self) -> Vec<Parcel> {
        let queue = &mut *self.queue.borrow_mut();
        let log = &mut queue.log;
        let touched = queue.entries.partition_point(|entry| !log.is_untouched(&entry.at));
        let entries: Vec<Entry> = queue.entries.drain(touched..).collect();
        let parcels = entries.iter().map(|entry| log.copy_of(&entry.at)).collect::<Vec<_>>();
        if let Some(first) = entries.first() {
            log.truncate(&first.at, u32::try_from(entries.len()).unwrap_or(u32::MAX));
        }
        let parcels = entries.into_iter().zip(parcels).map(|(e, bytes)| Parcel {
            bytes,
            promise: e.promise,
            ticket: e.ticket,
        });
        parcels.filter(|parcel| !parcel.promise.is_nobody()).collect()
    }

    /// Takes everything, in order, each with whether it had been written whole; the lane is then as new.
    pub(super) fn take_all(&self) -> Vec<(bool, Parcel)> {
        let Queue { log, entries } = std::mem::take(&mut *self.queue.borrow_mut());
        let parcels = entries.into_iter().filter(|entry| !entry.promise.is_nobody()).map(|entry| {
            let bytes = log.copy_of(&entry.at);
            (
                log.is_written(&entry.at),
                Parcel { bytes, promise: entry.promise, ticket: entry.ticket },
            )
        });
        parcels.collect()
    }
}

/// Bytes that are sent again, as a payload: by reference if they are worth it.
pub(super) fn payload(bytes: &Bytes) -> Payload<'_> {
    if bytes.len() >= crate::replies::LARGE {
        Payload::Large(bytes.clone())
    } else {
        Payload::Small(bytes)
    }
}
