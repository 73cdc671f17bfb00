//! What a session asks of all workers, and each worker's share in it.

use std::iter;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::connection::Session;
use super::slow::Timed;
use super::{Message, Shared};
use crate::command::script;
use crate::local::calls;
use crate::local::muster::{Held, Kill, Muster, Pause, Share, Unblock};
use crate::replies::{LARGE, Promise, Reply};
use crate::resp::request::Request;
use crate::resp::write;
use crate::route::{Decision, Route};
use crate::tracking;

/// What `CLIENT PAUSE` holds back on a worker, and until when by the worker's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paused {
    until_ms: u64,
    held: Held,
}

impl Session {
    /// Asks every worker and answers when all have done their share.
    pub(super) fn call_muster(
        &self,
        muster: Muster,
        timed: Timed,
        promise: Promise,
    ) -> impl Future<Output = ()> + use<> {
        let (shared, asker) = (Rc::clone(&self.shared), Rc::clone(&self.client));
        let protocol = self.protocol();
        let id = asker.borrow().id;
        async move {
            let share = shared.shares(&muster, id).await;
            {
                let mut asker = asker.borrow_mut();
                asker.leaving |= share.is_asker;
                asker.query = 0;
            }
            let mut wire = Vec::new();
            muster.reply(share, protocol, &mut wire);
            promise.fulfil(Reply::Small(&wire));
            timed.end(&shared.pool);
        }
    }

    /// Whether a request has to wait for the end of `CLIENT PAUSE`. Errors are told at once.
    #[cold]
    pub(super) fn is_postponed(&self, request: &Request<'_>) -> bool {
        let postponed = self.shared.held().is_some_and(|held| self.is_held(held, request));
        self.client.borrow_mut().postponed = postponed;
        postponed
    }

    fn is_held(&self, held: Held, request: &Request<'_>) -> bool {
        if request.is_empty() {
            return false;
        }
        let decision = self.decide(request);
        match decision.route {
            Route::Refuse(_) => false,
            _ if held == Held::All => true,
            _ if self.may_write(&decision, request) => !self.calls_reader(request),
            Route::Session(crate::command::Verb::Exec) => {
                self.transaction.as_ref().is_some_and(|transaction| transaction.writes())
            }
            _ => false,
        }
    }
}

impl Session {
    /// Whether a request calls a function that only reads, by what its library says, while what may write is held back.
    fn calls_reader(&self, request: &Request<'_>) -> bool {
        let is_call =
            request.name().eq_ignore_ascii_case(b"fcall") && request.bytes().len() < LARGE;
        // Whoever has rules might be allowed the one name and not the other; and a replica would not do for the first.
        if !is_call
            || request.len() < 3
            || self.shared.held() != Some(Held::Writes)
            || self.transaction.is_some()
            || self.client.borrow().is_limited
            || self.pool.reads_replicas()
        {
            return false;
        }
        let function = request.arg(1);
        let libraries = &self.shared.pool.scripts.libraries;
        libraries.with(function, |library| library.declares_no_writes(function)) == Some(true)
    }

    /// The call of such a function, with the node bidden to hold it to that.
    pub(super) fn reading_call(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        if !self.calls_reader(request) {
            return None;
        }
        let words: Vec<_> = iter::once(&b"FCALL_RO"[..]).chain(request.args(1)).collect();
        let mut wire = Vec::new();
        write::request(&mut wire, words.into_iter());
        Some(wire)
    }

    /// Whether a command may change data. A script may say that it does not.
    pub(super) fn may_write(&self, decision: &Decision, request: &Request<'_>) -> bool {
        let only_reads = || self.of_script(decision.name, request, script::declares_no_writes);
        decision.writes && !only_reads().unwrap_or(false)
    }
}

impl Shared {
    /// All workers' shares in what the client with this number asks for.
    pub(super) async fn shares(&self, muster: &Muster, asker: u64) -> Share {
        let mut share = Share::default();
        for at in 0..self.workers.len() {
            share = share.with(self.shares_of(at, muster, asker).await);
        }
        share
    }

    /// One worker's share in it.
    pub(super) async fn shares_of(&self, at: usize, muster: &Muster, asker: u64) -> Share {
        let (answer, answered) = oneshot::channel();
        match self.workers[at].send(Message::Muster(muster.clone(), asker, answer)) {
            Ok(()) => answered.await.unwrap_or_default(),
            Err(_) => Share::default(),
        }
    }

    /// This worker's share in what the client with this number asks for.
    pub fn share(&self, muster: &Muster, asker: u64) -> Share {
        match muster {
            Muster::List(_) => {
                Share { lines: self.roster.lines(self.pool.clock.millis()), ..Share::default() }
            }
            Muster::Kill(kill) => self.kill(kill, asker),
            Muster::Unblock(id, how) => self.unblock(*id, *how),
            Muster::Pause(pause) => self.pause(*pause),
            Muster::Calls => Share { calls: self.calls.borrow().clone(), ..Share::default() },
            Muster::ForgetCalls => {
                self.calls.take();
                Share::default()
            }
            Muster::Tally { calls } => {
                let tracking::Tally { clients, keys, items, prefixes } = self.tracker.tally();
                let tracking = [clients, keys, items, prefixes].map(|n| n as u64);
                let calls =
                    if *calls { self.calls.borrow().clone() } else { calls::Ledger::default() };
                Share { count: self.roster.blocked(), tracking, calls, ..Share::default() }
            }
            Muster::Seek(id) => {
                Share { count: u64::from(self.roster.find(*id).is_some()), ..Share::default() }
            }
            Muster::ShowSlow(_) => {
                self.gather_slow();
                let slow = self.slow.borrow().iter().cloned().collect();
                Share { slow, ..Share::default() }
            }
            Muster::CountSlow(_) => {
                self.gather_slow();
                Share { count: self.slow.borrow().len() as u64, ..Share::default() }
            }
            Muster::ForgetSlow => {
                self.gather_slow();
                self.slow.borrow_mut().clear();
                Share::default()
            }
            Muster::Unpause => {
                self.unpause();
                Share::default()
            }
            Muster::Renew(_) => self.renew_users(asker),
            Muster::ShowDenials(_) => self.show_denials(),
            Muster::ForgetDenials => {
                self.denials.borrow_mut().clear();
                Share::default()
            }
        }
    }

    /// Whoever asks is not ended, but ends by itself when it has its reply.
    fn kill(&self, kill: &Kill, asker: u64) -> Share {
        let is_asker = std::cell::Cell::new(false);
        let ended = self.roster.end_where(|member| {
            let client = member.client.borrow();
            let meant = kill.means(&client);
            is_asker.set(is_asker.get() || meant && client.id == asker);
            meant && client.id != asker
        });
        let is_asker = is_asker.get();
        Share { count: ended + u64::from(is_asker), is_asker, ..Share::default() }
    }

    fn unblock(&self, id: u64, how: Unblock) -> Share {
        let blocked = self.roster.find(id).map(|member| member.blocked);
        let ended = blocked.is_some_and(|blocked| blocked.unblock(how));
        Share { count: u64::from(ended), ..Share::default() }
    }

    /// A pause that is under way is made longer and stricter, never shorter or laxer.
    fn pause(&self, pause: Pause) -> Share {
        let until_ms = self.pool.clock.millis().saturating_add(pause.ms);
        let new = Paused { until_ms, held: pause.held };
        let known = self.paused.get().filter(|_| self.held().is_some());
        self.paused.set(Some(known.map_or(new, |known| Paused {
            until_ms: known.until_ms.max(until_ms),
            held: known.held.max(pause.held),
        })));
        Share::default()
    }

    fn unpause(&self) {
        self.paused.set(None);
        self.roster.each(|member| member.client.borrow_mut().postponed = false);
        self.roster.wake_all();
    }

    /// What is held back now.
    fn held(&self) -> Option<Held> {
        let paused = self.paused.get()?;
        (self.pool.clock.millis() < paused.until_ms).then_some(paused.held)
    }

    /// Ends a pause whose time is up; asked every few hundredths of a second.
    pub fn end_pause(&self) {
        if self.paused.get().is_some() && self.held().is_none() {
            self.unpause();
        }
    }
}
