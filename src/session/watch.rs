//! `WATCH`: the keys are watched on a connection of the session's own, on which its next transaction runs as well.
//!
//! Where the connection is lost or the slot moves, nobody can tell any more whether the keys have changed. `EXEC` then
//! answers nil, as if they had: every client that watches tries again on that.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use tokio::time::Instant;

use super::connection::{Flow, Session};
use crate::backend::{Lease, Pool, Said};
use crate::cluster::Slot;
use crate::command::Claim;
use crate::refusal::Refusal;
use crate::replies::{Gate, Promise, Reply};
use crate::resp::Protocol;
use crate::resp::redirect::aborted;
use crate::resp::request::Request;

const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";

/// What a session watches.
#[derive(Debug)]
pub(super) struct Watch {
    /// The slot of all keys.
    pub(super) slot: Slot,
    held: Held,
}

/// The connection that watches; `None` once it has been lost, or the slot has moved.
type Held = Rc<RefCell<Option<Lease>>>;

/// What an attempt to watch came to.
enum Outcome {
    Watched,
    /// An error of the server's own for the client.
    Refused(Bytes),
    /// The slot is on its way: whether the keys change cannot be told.
    Unsure,
    /// The node does not serve the slot, or not yet.
    Elsewhere,
}

impl Session {
    pub(super) fn watch(&mut self, request: &Request<'_>) -> Flow {
        if self.replies.gate() != Gate::Empty {
            return Flow::Hold;
        }
        let mut slots = request.args(1).map(Slot::of);
        let Some(slot) = slots.next() else { return Flow::Next };
        let watched = self.watch.as_ref().map_or(slot, |watch| watch.slot);
        if watched != slot || slots.any(|other| other != slot) {
            self.refuse(&Refusal::CrossSlot);
            return Flow::Next;
        }
        let is_new = self.watch.is_none();
        let watch = self.watch.get_or_insert_with(|| Watch { slot, held: Held::default() });
        let attempt = Attempt {
            pool: Rc::clone(&self.shared.pool),
            slot,
            protocol: self.client.borrow().protocol,
            request: request.bytes().to_vec(),
            deadline: self.shared.pool.deadline(),
        };
        let promise = self.replies.promise(Claim::All, true);
        tokio::task::spawn_local(watch_keys(attempt, Rc::clone(&watch.held), is_new, promise));
        Flow::Next
    }

    /// Forgets what is watched.
    pub(super) fn unwatch(&mut self) {
        if let Some(watch) = self.watch.take()
            && let Some(mut lease) = watch.held.take()
        {
            tokio::task::spawn_local(async move {
                if lease.call(UNWATCH).await.is_ok() {
                    lease.give_back();
                }
            });
        }
    }

    /// Runs a transaction where its keys are watched.
    pub(super) fn run_watched(
        &mut self,
        watch: &Watch,
        wire: Vec<u8>,
        count: usize,
        promise: Promise,
    ) {
        let protocol = self.client.borrow().protocol;
        let Some(lease) = watch.held.take() else {
            return promise.fulfil(Reply::Small(nil(protocol)));
        };
        let pool = Rc::clone(&self.shared.pool);
        tokio::task::spawn_local(async move {
            match run(lease, &wire, count).await {
                Ok(Some(reply)) => promise.fulfil(Reply::whole(reply)),
                Ok(None) => promise.fulfil(Reply::Small(nil(protocol))),
                Err(node) => pool.refuse(promise, &Refusal::ConnectionLost(node)),
            }
        });
    }
}

/// Sends a transaction of so many replies and gives the last of them; `None` if it did not run because the slot moved, and
/// the node's address if nobody knows.
async fn run(mut lease: Lease, wire: &[u8], count: usize) -> Result<Option<Bytes>, String> {
    let node = lease.address().to_string();
    lease.send(wire).await.map_err(|_| node.clone())?;
    let (mut moved, mut cause, mut last) = (false, None, None);
    for _ in 0..count {
        cause = cause.or(last.filter(|reply: &Bytes| reply.starts_with(b"-")));
        last = match lease.hear().await.map_err(|_| node.clone())? {
            Said::Reply(reply) => Some(reply),
            Said::NotHere(_) => {
                moved = true;
                None
            }
        };
    }
    lease.give_back();
    let exec = last.filter(|_| !moved);
    Ok(exec.map(|exec| cause.map_or(exec.clone(), |cause| aborted(&exec, &cause).into())))
}

/// All that it takes to watch keys.
struct Attempt {
    pool: Rc<Pool>,
    slot: Slot,
    protocol: Protocol,
    request: Vec<u8>,
    deadline: Instant,
}

async fn watch_keys(attempt: Attempt, held: Held, is_new: bool, promise: Promise) {
    let known = held.take();
    let watched = match known {
        Some(lease) => attempt.on(lease).await,
        // What was watched before is lost, and more would not bring it back.
        None if !is_new => (Outcome::Unsure, None),
        None => match attempt.anywhere().await {
            Ok(watched) => watched,
            Err(refusal) => return attempt.pool.refuse(promise, &refusal),
        },
    };
    match watched {
        (Outcome::Refused(error), lease) => {
            *held.borrow_mut() = lease;
            promise.fulfil(Reply::Small(&error));
        }
        (Outcome::Watched, lease) => {
            *held.borrow_mut() = lease;
            promise.fulfil(Reply::Small(b"+OK\r\n"));
        }
        (Outcome::Unsure | Outcome::Elsewhere, _) => promise.fulfil(Reply::Small(b"+OK\r\n")),
    }
}

impl Attempt {
    /// Watches at the owner of the slot, whoever that turns out to be before the deadline.
    async fn anywhere(&self) -> Result<(Outcome, Option<Lease>), Refusal> {
        loop {
            let lease = self.pool.lease(self.slot, self.protocol, self.deadline).await?;
            let watched = self.on(lease).await;
            if !matches!(watched.0, Outcome::Elsewhere) || Instant::now() >= self.deadline {
                return Ok(watched);
            }
            self.pool.look_again().await;
        }
    }

    async fn on(&self, mut lease: Lease) -> (Outcome, Option<Lease>) {
        if lease.send(&self.request).await.is_err() {
            return (Outcome::Elsewhere, None);
        }
        match lease.hear().await {
            Ok(Said::Reply(reply)) if reply.starts_with(b"+") => (Outcome::Watched, Some(lease)),
            Ok(Said::Reply(reply)) => (Outcome::Refused(reply), Some(lease)),
            Ok(Said::NotHere(Some(_))) => (Outcome::Unsure, None),
            Ok(Said::NotHere(None)) | Err(_) => (Outcome::Elsewhere, None),
        }
    }
}

/// What `EXEC` answers when a watched key has changed.
pub(super) fn nil(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    }
}
