//! `CLIENT TRACKING`: what a session tells the tracker of what its client reads.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::connection::Session;
use super::{Message, Shared};
use crate::backend::Pool;
use crate::client::Tracking;
use crate::command::{Claim, Verb, keys, script};
use crate::local::muster::Muster;
use crate::refusal::Refusal;
use crate::replies::{Promise, Reply};
use crate::resp::request::Request;
use crate::resp::write;
use crate::route::{Decision, Route};
use crate::tracking::{Ear, Redirected};

impl Session {
    #[inline]
    pub(super) fn is_tracking(&self) -> bool {
        self.client.borrow().tracking.is_some()
    }

    /// Has the client told of changes, or not any more.
    pub(super) fn track(&mut self, wanted: Option<Box<Tracking>>) {
        let Some(wanted) = wanted else {
            self.end_tracking();
            return self.replies.answer(|out| write::simple(out, "OK"));
        };
        // What is read behind it counts.
        let promise = self.replies.promise(Claim::All, false);
        let ear = Ear { client: Rc::clone(&self.client), replies: self.replies.clone() };
        tokio::task::spawn_local(track(Rc::clone(&self.shared), ear, *wanted, promise));
    }

    /// Has the client told of nothing any more. Nothing of it is under way.
    pub(super) fn end_tracking(&mut self) {
        self.shared.tracker.leave(&self.client);
        self.go_by(Rc::clone(&self.shared.pool));
    }

    fn go_by(&mut self, pool: Rc<Pool>) {
        if !Rc::ptr_eq(&self.pool, &pool) {
            self.version = pool.version();
            self.pool = pool;
        }
    }

    /// Has the requests of a client that wants to hear nothing of its own writes go by its own lanes. It begins to and ceases
    /// to with `CLIENT TRACKING`, in front of which nothing is under way, and behind which nothing is sent until it is answered.
    fn take_way(&mut self) {
        let client = self.client.borrow();
        let is_own = client.tracking.as_ref().is_some_and(|tracking| tracking.noloop);
        if is_own || !Rc::ptr_eq(&self.pool, &self.shared.pool) {
            let own = self.shared.tracker.way_of(&client);
            drop(client);
            self.go_by(own.unwrap_or_else(|| Rc::clone(&self.shared.pool)));
        }
    }

    /// Takes note of what a command is about to read. A script that reads may read all of its keys.
    #[cold]
    pub(super) fn remember(&mut self, decision: &Decision, request: &Request<'_>) {
        let queues = matches!(decision.route, Route::Session(Verb::Multi));
        if queues || decision.name == "client" {
            return;
        }
        if !matches!(decision.route, Route::Local(_) | Route::Session(_) | Route::Refuse(_)) {
            self.take_way();
        }
        let by_lane = matches!(decision.route, Route::One(..) | Route::Split(_));
        self.remember_keys(by_lane, self.read_keys(decision, request));
    }

    /// Takes note of what a transaction is about to read.
    pub(super) fn remember_all(&mut self, by_lane: bool, keys: &[Bytes]) {
        if self.is_tracking() {
            self.take_way();
            self.remember_keys(by_lane, keys.iter().map(|key| &key[..]));
        }
    }

    /// `by_lane` are they read where the client's other requests go, and not on a connection of their own.
    fn remember_keys<'a>(&self, by_lane: bool, keys: impl Iterator<Item = &'a [u8]>) {
        let mut client = self.client.borrow_mut();
        let id = client.id;
        let Some(tracking) = &mut client.tracking else { return };
        let is_told = tracking.wants_reads();
        tracking.caching = false;
        drop(client);
        let mut keys = keys.peekable();
        if is_told && keys.peek().is_some() {
            self.shared.tracker.read(id, by_lane, keys);
            self.shared.shrink_tracker();
        }
    }

    /// The keys that a command of a transaction reads, if that is of any interest.
    pub(super) fn keys_to_remember(
        &self,
        decision: &Decision,
        request: &Request<'_>,
    ) -> Vec<Bytes> {
        if !self.is_tracking() {
            return Vec::new();
        }
        self.read_keys(decision, request).map(Bytes::copy_from_slice).collect()
    }

    /// The keys that a command may read.
    fn read_keys<'a>(
        &self,
        decision: &Decision,
        request: &Request<'a>,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let reads = match decision.name {
            "eval" | "eval_ro" | "evalsha" | "evalsha_ro" => {
                self.of_script(decision.name, request, script::may_read).unwrap_or(true)
            }
            _ => decision.nature.reads || decision.nature.scripted,
        };
        let positions = keys::positions(decision.keys, request).ok().filter(|_| reads);
        let request = *request;
        positions.into_iter().flatten().map(move |at| request.arg(at))
    }
}

/// Answers `CLIENT TRACKING ON` once every change is told.
async fn track(shared: Rc<Shared>, ear: Ear, wanted: Tracking, promise: Promise) {
    let at = match wanted.redirect {
        None => Some(0),
        Some(id) => shared.seek(id).await,
    };
    let Some(at) = at else {
        let text = "ERR The client ID you want redirect to does not exist";
        return promise.refuse(&Refusal::text(text));
    };
    let tracker = &shared.tracker;
    let own = match tracker.own(&ear.client.borrow(), &wanted) {
        Ok(own) => own,
        Err(refusal) => return shared.pool.refuse(promise, &refusal),
    };
    let ready = tracker.ready(own.as_ref()).await;
    if ready.is_ok() && !ear.replies.is_over() {
        tracker.join(ear, wanted, at, own);
        return promise.fulfil(Reply::Small(b"+OK\r\n"));
    }
    tracker.close(own);
    if let Err(refusal) = ready {
        shared.pool.refuse(promise, &refusal);
    }
}

impl Shared {
    /// The worker of the client with this number.
    async fn seek(&self, id: u64) -> Option<usize> {
        for at in 0..self.workers.len() {
            if self.shares_of(at, &Muster::Seek(id), 0).await.count > 0 {
                return Some(at);
            }
        }
        None
    }

    /// Tells a client of a change in the place of another; if it is gone, the other one hears of that.
    pub fn tell_redirected(&self, redirected: &Redirected) {
        let find = |id| {
            let member = self.roster.find(id)?;
            Some(Ear { client: member.client, replies: member.replies })
        };
        if !self.tracker.tell_redirected(redirected, find) {
            for worker in &self.workers {
                // A worker that is gone has no clients.
                let _ = worker.send(Message::Broken(redirected.from));
            }
        }
    }

    /// Looks after the tracker; called every few hundredths of a second.
    pub fn tend_tracker(&self) {
        self.tracker.tick();
        self.shrink_tracker();
    }

    fn shrink_tracker(&self) {
        let most = self.proxy.tracked_max.load(Relaxed);
        let most = usize::try_from(most).ok().filter(|most| *most > 0);
        self.tracker.shrink(most.unwrap_or(usize::MAX));
    }
}
