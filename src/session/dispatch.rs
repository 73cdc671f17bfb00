//! What is done with one request: one match on its route.

use std::pin::Pin;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};

use super::Ping;
use super::connection::{Flow, Session};
use super::slow::Timed;
use crate::backend::{Class, Payload, Ticket};
use crate::cluster::Slot;
use crate::command::merge::Gather;
use crate::command::split::Split;
use crate::command::{Claim, Errand, Local, Merge, Spec, Verb};
use crate::local::{self, After, Env, Inquiry, Muster};
use crate::refusal::Refusal;
use crate::replies::{Gate, LARGE, Mute, Promise};
use crate::resp::request::Request;
use crate::resp::{Protocol, write};
use crate::route::{self, Cut, Decision, Route};

/// A local command that is not answered at once, because workers or nodes have to be asked.
pub(super) enum Later {
    /// The workers.
    Muster(Muster, Timed),
    /// Nodes.
    Inquiry(Inquiry, Timed),
}

impl Session {
    /// Does what the route of a request says, unless the request has to wait.
    pub(super) fn dispatch(&mut self, request: &Request<'_>, payload: Payload<'_>) -> Flow {
        if self.shared.paused.get().is_some() {
            return self.dispatch_paused(request, payload);
        }
        self.dispatch_seen(request, payload)
    }

    /// The same during `CLIENT PAUSE`, for what is not held back.
    #[cold]
    fn dispatch_paused(&mut self, request: &Request<'_>, payload: Payload<'_>) -> Flow {
        if self.is_postponed(request) {
            return Flow::Hold;
        }
        match self.reading_call(request) {
            Some(wire) => self.take_wire(&wire),
            None => self.dispatch_seen(request, payload),
        }
    }

    /// The same, whatever is held back.
    #[inline]
    fn dispatch_seen(&mut self, request: &Request<'_>, payload: Payload<'_>) -> Flow {
        if self.shared.is_monitored.get() {
            return self.dispatch_shown(request, payload);
        }
        self.dispatch_now(request, payload)
    }

    /// The same, for those who monitor to see.
    #[cold]
    fn dispatch_shown(&mut self, request: &Request<'_>, payload: Payload<'_>) -> Flow {
        let line = self.monitor_line(request);
        let flow = self.dispatch_now(request, payload);
        if let Some(line) = line.filter(|_| flow != Flow::Hold) {
            self.shared.show(&line);
        }
        flow
    }

    #[inline]
    fn dispatch_now(&mut self, request: &Request<'_>, payload: Payload<'_>) -> Flow {
        if self.transaction.is_some() {
            let flow = self.dispatch_queued(request);
            self.count_queued();
            return flow;
        }
        let client = self.client.borrow();
        if let Some((spec, slot)) = route::single(request, &client) {
            drop(client);
            return self.dispatch_single(payload, spec, slot);
        }
        drop(client);
        self.dispatch_any(request, payload)
    }

    /// A request with one key goes to the owner of its slot.
    #[inline]
    fn dispatch_single(&mut self, payload: Payload<'_>, spec: &'static Spec, slot: Slot) -> Flow {
        let gate = self.replies.gate();
        if self.is_stale(gate) || self.is_taken(gate, slot) || self.lacks_room(slot) {
            return Flow::Hold;
        }
        let mut client = self.client.borrow_mut();
        client.commands += 1;
        (client.last, client.last_sub) = (spec.name, "");
        let (pool, nature) = (&self.pool, spec.nature());
        let class = Class {
            protocol: client.protocol,
            replica: spec.suits_replica() && self.reads_replicas(),
        };
        drop(client);
        pool.stats.commands.add(1);
        if !nature.reads {
            self.written.note(slot, self.now);
        }
        let promise = self.replies.promise(Claim::Slot(slot), nature.reads);
        pool.send(payload, promise, Ticket::new(slot, class, nature, self.now));
        Flow::Next
    }

    /// Whether reads may go to replicas, which may not have yet what the client has just written.
    #[inline]
    fn reads_replicas(&self) -> bool {
        let window = self.shared.options.read_own_writes;
        self.pool.reads_replicas() && !self.written.is_within(window, self.now)
    }

    #[inline(never)]
    fn dispatch_any(&mut self, request: &Request<'_>, payload: Payload<'_>) -> Flow {
        if request.is_empty() {
            return Flow::Next;
        }
        let decision = self.decide(request);
        if self.holds(&decision, request) {
            return Flow::Hold;
        }
        self.carry_out(decision, request, payload)
    }

    /// Does what was decided on a request that need not wait.
    pub(super) fn carry_out(
        &mut self,
        decision: Decision,
        request: &Request<'_>,
        payload: Payload<'_>,
    ) -> Flow {
        self.note(&decision);
        if decision.nature.scripted {
            self.learn_script(&decision, request);
        }
        if self.is_tracking() {
            self.remember(&decision, request);
        }
        match decision.route {
            Route::One(slot, claim) => {
                let promise = self.replies.promise(claim, decision.nature.reads);
                self.send(payload, promise, slot, &decision);
            }
            Route::Block(slot, wait) => {
                self.block(request, slot, wait);
                if !decision.nature.reads {
                    self.replies.let_messages_by();
                }
            }
            Route::Split(cut) => self.split(request, cut, &decision),
            Route::Every(merge) => {
                self.forget_functions(&decision, request);
                self.every(request, merge, &decision);
            }
            Route::Any => {
                let slot = self.node_for(&decision, request);
                self.any(payload, slot, &decision);
            }
            Route::Across(across, wait) => self.cross((across, wait), request),
            Route::Errand(errand) => self.run_errand(errand, request, &decision),
            Route::Sort(_) => self.run_errand(Errand::Sort, request, &decision),
            Route::Publish(slot) => self.publish(request, payload, slot, &decision),
            Route::Local(command) => {
                self.part(command);
                return self.answer(command, request);
            }
            Route::Session(verb) => return self.session_verb(verb, request),
            Route::Refuse(refusal) => {
                self.pool.stats.commands_refused.add(1);
                self.refuse(&refusal);
            }
        }
        Flow::Next
    }

    /// Forgets what the client watches and is subscribed to, if a command has it part with that.
    pub(super) fn part(&mut self, command: Local) {
        if matches!(command, Local::Reset | Local::Quit) {
            self.unwatch();
            self.unsubscribe_all();
            self.end_tracking();
            self.end_monitor();
            self.replies.mute(Mute::No);
        }
    }

    pub(super) fn decide(&self, request: &Request<'_>) -> Decision {
        let learned = &self.shared.facts.borrow().learned;
        let cross_slot = self.shared.options.cross_slot;
        let decision = route::decide(request, &self.client.borrow(), learned, cross_slot);
        match decision.route {
            Route::Local(Local::Ping) if request.len() <= 2 && self.pings_nodes() => {
                Decision { route: Route::Errand(Errand::Ping), ..decision }
            }
            _ => self.placed(decision, request),
        }
    }

    /// Whether it is for the nodes to answer `PING`.
    fn pings_nodes(&self) -> bool {
        self.shared.options.ping == Ping::Nodes
            && self.transaction.is_none()
            && !self.client.borrow().is_confined()
    }

    /// Whether a request has to wait now.
    pub(super) fn holds(&mut self, decision: &Decision, request: &Request<'_>) -> bool {
        if matches!(
            decision.route,
            Route::Every(_)
                | Route::Any
                | Route::Errand(_)
                | Route::Sort(_)
                | Route::Across(..)
                | Route::Publish(None)
        ) && self.waits_for_map()
        {
            return true;
        }
        let gate = self.replies.gate();
        if self.is_stale(gate) {
            return true;
        }
        match &decision.route {
            Route::Refuse(_) | Route::Session(_) => false,
            _ if gate == Gate::Barred => true,
            Route::Block(..)
            | Route::Every(_)
            | Route::Errand(_)
            | Route::Sort(_)
            | Route::Across(..) => gate != Gate::Empty,
            Route::Local(command) => {
                let is_late = local::is_barrier(*command)
                    || local::asks_nodes(*command)
                    || decision.sub == "tracking";
                gate != Gate::Empty && is_late
            }
            Route::One(slot, _) | Route::Publish(Some(slot)) => {
                self.is_taken(gate, *slot) || self.lacks_room(*slot)
            }
            Route::Split(_) if self.is_clear(gate) => false,
            Route::Split(Cut { first, step, .. }) => {
                let mut slots = request.args(*first).step_by(*step).map(Slot::of);
                slots.any(|slot| self.is_taken(gate, slot) || self.lacks_room(slot))
            }
            Route::Any if !self.pool.is_any_crowded() => false,
            Route::Any => {
                self.node_for(decision, request).is_some_and(|slot| self.lacks_room(slot))
            }
            Route::Publish(None) => self.any_slot().is_some_and(|slot| self.lacks_room(slot)),
        }
    }

    /// Whether the slot's node owes replies to as many bytes as it may. Replies or room wake the session.
    #[inline]
    pub(super) fn lacks_room(&self, slot: Slot) -> bool {
        self.pool.lacks_room(slot, || self.replies.waker())
    }

    /// Whether requests are out that were routed by an older snapshot.
    #[inline]
    pub(super) fn is_stale(&mut self, gate: Gate) -> bool {
        let version = self.pool.version();
        if gate == Gate::Empty {
            self.version = version;
        }
        self.version != version
    }

    /// Whether an earlier request keeps one on this slot from being sent.
    #[inline]
    pub(super) fn is_taken(&self, gate: Gate, slot: Slot) -> bool {
        match gate {
            Gate::Empty => false,
            Gate::Barred => true,
            Gate::Free if !self.pool.is_unsettled() => false,
            Gate::Free => self.replies.is_taken(slot, true),
            Gate::Claimed => self.replies.is_taken(slot, self.pool.is_unsettled()),
        }
    }

    /// Whether no request has to wait for others, whatever its slots are.
    fn is_clear(&self, gate: Gate) -> bool {
        let pool = &self.pool;
        let is_free = gate == Gate::Empty || gate == Gate::Free && !pool.is_unsettled();
        is_free && !pool.is_any_crowded()
    }

    /// Whether a request for all or any nodes has to wait because none is known yet; not for longer than a request may.
    pub(super) fn waits_for_map(&mut self) -> bool {
        let pool = &self.pool;
        if pool.has_map() {
            self.mapless_since = None;
            return false;
        }
        let since = *self.mapless_since.get_or_insert(self.now);
        let waits = !pool.is_expired(since);
        if !waits {
            self.mapless_since = None;
        }
        waits
    }

    pub(super) fn note(&self, decision: &Decision) {
        let mut client = self.client.borrow_mut();
        client.commands += 1;
        (client.last, client.last_sub) = (decision.name, decision.sub);
        self.pool.stats.commands.add(1);
        if matches!(decision.route, Route::Session(Verb::Multi | Verb::Discard)) {
            self.shared.count_call((decision.name, ""), Instant::now(), false);
        }
    }

    fn send(&mut self, payload: Payload<'_>, promise: Promise, slot: Slot, decision: &Decision) {
        if !decision.nature.reads {
            self.written.note(slot, self.now);
        }
        let pool = &self.pool;
        let class = Class {
            protocol: self.client.borrow().protocol,
            // A replica may be asked after its primary has told of a change, and not have it yet.
            replica: decision.replica && self.reads_replicas() && !self.is_tracking(),
        };
        pool.send(payload, promise, Ticket::new(slot, class, decision.nature, self.now));
    }

    fn split(&mut self, request: &Request<'_>, cut: Cut, decision: &Decision) {
        let split = Split::by_slot(request, cut.first, cut.step);
        let gather =
            Gather::new(cut.merge, self.protocol(), split.parts().map(|part| part.claim()))
                .writing(!decision.nature.reads);
        let gather = if cut.merge == Merge::ByKey { gather.ordered(split.order()) } else { gather };
        self.pool.stats.commands_split.add(1);
        let mut wire = self.shared.scratch.take();
        for (part, promise) in split.parts().zip(self.replies.gather(gather)) {
            wire.clear();
            part.write(request, &mut wire);
            if wire.len() < LARGE {
                self.send(Payload::Small(&wire), promise, part.slot, decision);
            } else {
                let large = Bytes::from(std::mem::take(&mut wire));
                self.send(Payload::Large(&large), promise, part.slot, decision);
            }
        }
        self.shared.scratch.replace(wire);
    }

    /// One part for each primary, addressed by a slot of it.
    fn every(&mut self, request: &Request<'_>, merge: Merge, decision: &Decision) {
        let slots = self.pool.primaries();
        if slots.is_empty() {
            return self.refuse(&Refusal::ClusterDown);
        }
        let gather = Gather::new(merge, self.protocol(), slots.iter().map(|_| Claim::All))
            .writing(!decision.nature.reads);
        let wire = request.bytes();
        for (slot, promise) in slots.iter().zip(self.replies.gather(gather)) {
            self.send(Payload::Small(wire), promise, *slot, decision);
        }
    }

    /// A slot of a primary that stays the same for a client as long as the primaries do.
    pub(super) fn any_slot(&self) -> Option<Slot> {
        let slots = self.pool.primaries();
        let turn = usize::try_from(self.client.borrow().id).unwrap_or(0);
        slots.get(turn % slots.len().max(1)).copied()
    }

    fn any(&mut self, payload: Payload<'_>, slot: Option<Slot>, decision: &Decision) {
        match slot {
            Some(slot) => {
                let promise = self.replies.promise(Claim::None, decision.nature.reads);
                self.send(payload, promise, slot, decision);
            }
            None => self.refuse(&Refusal::ClusterDown),
        }
    }

    pub(super) fn answer(&mut self, command: Local, request: &Request<'_>) -> Flow {
        self.pool.stats.commands_local.add(1);
        let mut wire = Vec::new();
        let names = {
            let client = self.client.borrow();
            (client.last, client.last_sub)
        };
        let after = self.answer_here(command, names, request, &mut wire);
        match after {
            Ok(After::Muster(muster)) => {
                // What only looks need not keep back what is behind it.
                let claim =
                    if matches!(muster, Muster::List(_)) { Claim::None } else { Claim::All };
                let promise = self.replies.promise(claim, true);
                let work = self.call_muster(muster, self.timed(request), promise);
                tokio::task::spawn_local(work);
                return Flow::Next;
            }
            Ok(After::Inquire(inquiry)) => {
                let promise = self.replies.promise(Claim::All, false);
                tokio::task::spawn_local(self.inquire(inquiry, self.timed(request), promise));
                return Flow::Next;
            }
            Ok(After::File(what)) => {
                let promise = self.replies.promise(Claim::All, true);
                tokio::task::spawn_local(self.use_file(what, promise));
                return Flow::Next;
            }
            Ok(After::Monitor) => self.monitor(),
            Ok(After::Mute(mute)) => self.mute(mute),
            Ok(After::Track(wanted)) => {
                self.track(wanted);
                return Flow::Next;
            }
            Ok(After::Next | After::Close) => {
                self.replies.answer(|out| out.extend_from_slice(&wire));
            }
            Err(ref refusal) => self.refuse(refusal),
        }
        if self.pool.slow_us() == 0 {
            self.timed(request).end(&self.pool);
        }
        if matches!(after, Ok(After::Close)) { Flow::Close } else { Flow::Next }
    }

    /// Has a local command answered, and counts it by its names unless nodes are asked, which do.
    fn answer_here(
        &self,
        command: Local,
        names: (&'static str, &'static str),
        request: &Request<'_>,
        wire: &mut Vec<u8>,
    ) -> Result<After, Refusal> {
        let since = Instant::now();
        let after = self.with_env(|env| {
            local::answer(command, request, &mut self.client.borrow_mut(), env, wire)
        });
        if !local::asks_nodes(command) {
            self.shared.count_call(names, since, after.is_err());
        }
        after
    }

    /// The reply to a local command, as a part of another reply; or what it takes to get one.
    pub(super) fn own_reply(
        &self,
        command: Local,
        request: &Request<'_>,
    ) -> Result<Vec<u8>, Box<Later>> {
        let mut wire = Vec::new();
        let names = {
            let facts = self.shared.facts.borrow();
            let found = facts.learned.find(request);
            found.map(|f| (f.command.name, f.sub.map_or("", |sub| sub.name)))
        };
        let answered = self.answer_here(command, names.unwrap_or_default(), request, &mut wire);
        match answered {
            Ok(After::Next | After::Close) => {}
            Ok(After::Muster(muster)) => {
                return Err(Box::new(Later::Muster(muster, self.timed(request))));
            }
            Ok(After::Inquire(inquiry)) => {
                return Err(Box::new(Later::Inquiry(inquiry, self.timed(request))));
            }
            Ok(After::Monitor | After::Mute(_) | After::Track(_) | After::File(_)) => {
                write::error(&mut wire, &Refusal::InMulti.to_string());
            }
            Err(refusal) => write::error(&mut wire, &refusal.to_string()),
        }
        Ok(wire)
    }

    /// Sees to commands one after the other, as they were sent.
    pub(super) fn reply_later(&self, later: impl Iterator<Item = (Later, Promise)>) {
        let works: Vec<Pin<Box<dyn Future<Output = ()>>>> = later
            .map(|(later, promise)| -> Pin<Box<dyn Future<Output = ()>>> {
                match later {
                    Later::Muster(m, timed) => Box::pin(self.call_muster(m, timed, promise)),
                    Later::Inquiry(i, timed) => Box::pin(self.inquire(i, timed, promise)),
                }
            })
            .collect();
        tokio::task::spawn_local(async move {
            for work in works {
                work.await;
            }
        });
    }

    fn with_env<T>(&self, f: impl FnOnce(&Env<'_>) -> T) -> T {
        let unix_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| u64::try_from(t.as_micros()).unwrap_or(0));
        let shared = &self.shared;
        f(&Env {
            proxy: &shared.proxy,
            facts: &shared.facts.borrow(),
            unix_us,
            now_ms: shared.pool.clock.millis(),
            fill_by_chance,
        })
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.client.borrow().protocol
    }

    /// `CLIENT REPLY`: only `ON` is answered.
    fn mute(&self, mute: Mute) {
        self.replies.mute(mute);
        if mute == Mute::No {
            self.replies.answer(|out| write::simple(out, "OK"));
        }
    }

    /// Takes note of how many commands are queued, for others to see.
    pub(super) fn count_queued(&self) {
        let queued = self.transaction.as_ref().map(|transaction| transaction.len());
        self.client.borrow_mut().queued = queued;
    }
}

fn fill_by_chance(bytes: &mut [u8]) {
    let filled = SystemRandom::new().fill(bytes);
    filled.expect("the system has had random numbers since it started");
}
