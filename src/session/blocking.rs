//! Commands that wait at the node for something to come (`BLPOP`, `XREAD BLOCK`, …), on a connection of the session's own.
//!
//! The session takes up nothing else meanwhile, as a server would not. The wait ends with the node's reply, with
//! `CLIENT UNBLOCK`, or with the client; when the slot moves or the node is lost it goes on at the new owner for the time
//! that is left.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant, sleep, timeout};

use super::connection::Session;
use crate::backend::{Lease, Pool, Said};
use crate::cluster::{Address, Slot};
use crate::command::{Claim, Wait};
use crate::local::muster::Unblock;
use crate::refusal::Refusal;
use crate::replies::{Promise, Reply};
use crate::resp::request::Request;
use crate::resp::{Protocol, write};

/// How long a node may take to end a wait before it is told again.
const UNHEARD: Duration = Duration::from_millis(20);
/// How long a wait for a connection to wait on goes unseen.
const SHOWN_AFTER: Duration = Duration::from_millis(500);

/// A client's wait, as those see it who may end it.
#[derive(Debug, Default)]
pub struct Blocked {
    blocker: RefCell<Option<Blocker>>,
    /// Whether the command that waits has been sent, so that what others send from now on comes behind it.
    waits: Cell<bool>,
}

#[derive(Debug)]
struct Blocker {
    task: AbortHandle,
    unblock: Option<oneshot::Sender<Unblock>>,
}

/// A wait, as the work sees it that is done meanwhile.
pub(super) struct Vigil {
    /// How it is to end, once somebody says so.
    pub(super) unblocked: oneshot::Receiver<Unblock>,
    blocked: Rc<Blocked>,
}

impl Vigil {
    /// The command that waits has been sent: others may see that the client waits.
    pub(super) fn begin(&self) {
        self.blocked.waits.set(true);
    }
}

impl Blocked {
    /// Whether a command is under way that may wait.
    pub fn is_blocked(&self) -> bool {
        self.blocker.borrow().is_some()
    }

    /// Whether the client waits: who sees it may send what it waits for.
    pub fn waits(&self) -> bool {
        self.waits.get()
    }

    /// Ends the wait; false if there is none.
    pub fn unblock(&self, how: Unblock) -> bool {
        let mut blocker = self.blocker.borrow_mut();
        let unblock = blocker.as_mut().and_then(|blocker| blocker.unblock.take());
        unblock.is_some_and(|unblock| unblock.send(how).is_ok())
    }

    /// The client is gone: the connection is closed, on which the node gives the wait up.
    pub(super) fn abort(&self) {
        if let Some(blocker) = self.end() {
            blocker.task.abort();
        }
    }

    fn end(&self) -> Option<Blocker> {
        self.waits.set(false);
        self.blocker.take()
    }
}

/// A command that waits, and for how long.
struct Waiting {
    pool: Rc<Pool>,
    protocol: Protocol,
    slot: Slot,
    args: Vec<Bytes>,
    wait: Wait,
    /// When its time is up; `None` for never.
    end: Option<Instant>,
    /// Where to ask next although it does not own the slot.
    asked: Option<Address>,
    /// How the wait has been ended, if it has.
    ended: Option<Unblock>,
}

/// What came of waiting at one node.
enum Outcome {
    Reply(Bytes),
    /// The node does not serve the slot, or the connection was lost: somebody else may.
    Elsewhere,
}

impl Session {
    /// Waits at the node for a command's reply; whoever is asked later has to wait for it.
    pub(super) fn block(&mut self, request: &Request<'_>, slot: Slot, wait: Wait) {
        let timeout = wait.timeout();
        let waiting = Waiting {
            pool: Rc::clone(&self.shared.pool),
            protocol: self.protocol(),
            slot,
            args: request.args(0).map(Bytes::copy_from_slice).collect(),
            wait,
            end: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            asked: None,
            ended: None,
        };
        self.written.note(slot, self.now);
        let (pool, timed) = (Rc::clone(&self.shared.pool), self.timed(request));
        self.block_on(async move |vigil, promise| {
            waiting.run(vigil, promise).await;
            timed.waited(&pool);
        });
    }

    /// Does work that keeps the client waiting, until it is done, somebody unblocks the client, or the client leaves.
    pub(super) fn block_on<W>(&self, work: W)
    where
        W: AsyncFnOnce(Vigil, Promise) + 'static,
    {
        let promise = self.replies.promise(Claim::All, false);
        let (unblock, unblocked) = oneshot::channel();
        let blocked = Rc::clone(&self.blocked);
        let task = tokio::task::spawn_local(async move {
            let vigil = Vigil { unblocked, blocked: Rc::clone(&blocked) };
            work(vigil, promise).await;
            blocked.end();
        });
        *self.blocked.blocker.borrow_mut() =
            Some(Blocker { task: task.abort_handle(), unblock: Some(unblock) });
    }
}

impl Waiting {
    async fn run(mut self, mut vigil: Vigil, promise: Promise) {
        let mut patience = self.pool.deadline();
        loop {
            let lease = match self.find(&mut vigil, patience).await {
                Ok(Ok(lease)) => lease,
                Ok(Err(refusal)) => return self.pool.refuse(promise, &refusal),
                Err(how) => return promise.fulfil(Reply::Small(self.nothing(how))),
            };
            let node_took_it = Instant::now();
            match self.wait_at(lease, &mut vigil).await {
                Outcome::Reply(reply) => return promise.fulfil(Reply::whole(reply)),
                Outcome::Elsewhere if self.is_over() => {
                    let how = self.ended.unwrap_or(Unblock::TimeOut);
                    return promise.fulfil(Reply::Small(self.nothing(how)));
                }
                Outcome::Elsewhere => {
                    // The budget is for finding the node, not for waiting there.
                    patience += node_took_it.elapsed();
                    self.pool.look_again().await;
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.ended.is_some() || self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// The reply when nothing came.
    fn nothing(&self, how: Unblock) -> &'static [u8] {
        match how {
            Unblock::TimeOut => self.wait.nothing(self.protocol),
            Unblock::Error => b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n",
        }
    }

    /// A connection to wait on, or how the wait was ended before there was one, of which no node knows.
    async fn find(
        &mut self,
        vigil: &mut Vigil,
        patience: Instant,
    ) -> Result<Result<Lease, Refusal>, Unblock> {
        let mut lease = pin!(self.lease(patience));
        loop {
            tokio::select! {
                lease = &mut lease => return Ok(lease),
                Ok(how) = &mut vigil.unblocked, if !vigil.unblocked.is_terminated() => return Err(how),
                () = sleep(SHOWN_AFTER), if !vigil.blocked.waits() => vigil.begin(),
            }
        }
    }

    async fn lease(&mut self, patience: Instant) -> Result<Lease, Refusal> {
        if let Some(address) = self.asked.take()
            && let Ok(mut lease) = self.pool.lease_at(&address, self.protocol).await
            && lease.ask().await.is_ok()
        {
            return Ok(lease);
        }
        self.pool.lease(self.slot, self.protocol, patience).await
    }

    async fn wait_at(&mut self, mut lease: Lease, vigil: &mut Vigil) -> Outcome {
        if lease.send(&self.wire()).await.is_err() {
            return Outcome::Elsewhere;
        }
        vigil.begin();
        let unblocked = &mut vigil.unblocked;
        let said = tokio::select! {
            said = lease.hear() => said,
            how = &mut *unblocked, if !unblocked.is_terminated() => {
                // The node decides which comes first, so that nothing is popped for nobody.
                match how {
                    Ok(how) => {
                        self.ended = Some(how);
                        self.unblock_at(&mut lease, how).await
                    }
                    Err(_) => lease.hear().await,
                }
            }
        };
        let Ok(said) = said else { return Outcome::Elsewhere };
        lease.give_back();
        match said {
            Said::Reply(reply) => Outcome::Reply(reply),
            Said::NotHere(asked) => {
                self.asked = asked;
                Outcome::Elsewhere
            }
        }
    }

    /// Has the node end the wait, and gives what it says to the command. It is told again until it has: a word on another
    /// connection may come before the command, or not at all.
    async fn unblock_at(&self, lease: &mut Lease, how: Unblock) -> io::Result<Said> {
        let id = lease.id();
        let how: &[u8] = if how == Unblock::Error { b"ERROR" } else { b"TIMEOUT" };
        let mut wire = Vec::new();
        write::request(&mut wire, [&b"CLIENT"[..], b"UNBLOCK", &id[..], how].into_iter());
        loop {
            let word = self.pool.word_at(lease.address(), self.protocol, &wire).await;
            if let Err(error) = word {
                tracing::debug!(node = %lease.address(), %error, "cannot end a wait yet");
            }
            if let Ok(said) = timeout(UNHEARD, lease.hear()).await {
                return said;
            }
        }
    }

    /// The request with the time that is left.
    fn wire(&self) -> Vec<u8> {
        let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
        let left = self.wait.argument(left.map(|left| left.max(Duration::from_millis(1))));
        let mut wire = Vec::new();
        let at = self.wait.at();
        let args = self.args.iter().enumerate();
        write::request(&mut wire, args.map(|(i, arg)| if i == at { left.as_bytes() } else { arg }));
        wire
    }
}
