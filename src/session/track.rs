//! `CLIENT TRACKING`: what a session tells the tracker of what its client reads.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::connection::Session;
use super::{Message, Shared};
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
    pub(super) fn track(&self, wanted: Option<Box<Tracking>>) {
        let Some(wanted) = wanted else {
            self.shared.tracker.leave(&self.client);
            return self.replies.answer(|out| write::simple(out, "OK"));
        };
        // What is read behind it counts.
        let promise = self.replies.promise(Claim::All, false);
        let ear = Ear { client: Rc::clone(&self.client), replies: self.replies.clone() };
        tokio::task::spawn_local(track(Rc::clone(&self.shared), ear, *wanted, promise));
    }

    /// Takes note of what a command is about to read. A script that reads may read all of its keys.
    #[cold]
    pub(super) fn remember(&self, decision: &Decision, request: &Request<'_>) {
        let queues = matches!(decision.route, Route::Session(Verb::Multi));
        if !queues && decision.name != "client" {
            self.remember_keys(self.read_keys(decision, request));
        }
    }

    /// Takes note of what a transaction is about to read.
    pub(super) fn remember_all(&self, keys: &[Bytes]) {
        if self.is_tracking() {
            self.remember_keys(keys.iter().map(|key| &key[..]));
        }
    }

    fn remember_keys<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut client = self.client.borrow_mut();
        let id = client.id;
        let Some(tracking) = &mut client.tracking else { return };
        let is_told = tracking.wants_reads();
        tracking.caching = false;
        drop(client);
        let mut keys = keys.peekable();
        if is_told && keys.peek().is_some() {
            self.shared.tracker.read(id, keys);
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
    match shared.tracker.ready().await {
        // The client is gone.
        _ if ear.replies.is_over() => {}
        Ok(()) => {
            shared.tracker.join(ear, wanted, at);
            promise.fulfil(Reply::Small(b"+OK\r\n"));
        }
        Err(refusal) => shared.pool.refuse(promise, &refusal),
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
