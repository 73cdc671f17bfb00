//! The lanes of one worker, and where a request goes that a node turned away.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::task::Waker;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::connection::Connection;
use super::ear::{Ears, News};
use super::handshake;
use super::lane::{Class, Lane, Order, Parcel, Status, Ticket, payload};
use super::lease::Leases;
use super::reads::{Choice, ReadFrom};
use super::retry::Retries;
use super::scripts::Scripts;
use super::slow::Slow;
use super::{Options, Payload};
use crate::cluster::{Address, NodeIndex, Slot, Topology};
use crate::command::Standing;
use crate::net::Stream;
use crate::refusal::Refusal;
use crate::replies::{Promise, Reply};
use crate::resp::Protocol;
use crate::resp::redirect::Verdict;
use crate::stats::{Clock, Stats};

/// Redirects followed at once; later ones wait as retries do, since nodes that point at each other need time to agree.
const HOPS_AT_ONCE: u8 = 5;
/// The same after a wait: enough for `MOVED` and then `ASK`.
const HOPS_AFTER_WAIT: u8 = 2;
/// The waits are 1, 2, 4, … milliseconds up to this power of two.
const LONGEST_WAIT: u8 = 6;
/// How long a request waits before it looks again whether an earlier one of its client is out of its way.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Silence after which a node with requests in flight is suspected: longer than a healthy node's slowest usual command.
const SUSPECT_AFTER_US: u32 = 300_000;
/// How long after a node last could not serve, or was lost, commands of one client on one slot go one at a time.
const UNSETTLED_MS: u64 = 1_000;
/// Requests that have waited so long for a connection wait for more than its being made, in microseconds; long before the
/// nodes hold one of them for failed.
const CONNECTED_US: u32 = 250_000;
/// Most frequent hints of one worker to discovery.
const HINT_EVERY_MS: u64 = 20;

/// What a worker tells discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The map may be out of date.
    Refresh,
    /// This node was named by a redirect.
    Node(Address),
}

/// Where topologies appear.
type Published = Cache<Arc<ArcSwap<Topology>>, Arc<Topology>>;

/// The lanes of one worker.
#[derive(Debug)]
pub struct Pool {
    options: Options,
    /// The worker's clock.
    pub clock: Clock,
    /// The worker's numbers.
    pub stats: Arc<Stats>,
    published: RefCell<Published>,
    routes: RefCell<Routes>,
    version: Cell<u64>,
    lanes: RefCell<HashMap<(Address, Class), Rc<Lane>>>,
    pub(super) retries: Retries,
    pub(super) leases: Leases,
    /// The scripts that were loaded through the proxy.
    pub scripts: Arc<Scripts>,
    /// Whether a lane holds as many bytes of requests as it may.
    crowded: Cell<bool>,
    /// Who waits for that to end.
    waiting: RefCell<Vec<Waker>>,
    unsettled_until: Cell<u64>,
    hinted: Cell<u64>,
    /// Whose turn it is among replicas.
    turn: Cell<usize>,
    /// Microseconds from which on a request is slow; negative for none.
    pub(super) slow_from: Arc<AtomicI64>,
    pub(super) slow: RefCell<Vec<Slow>>,
    /// Those are noted that took this long; it grows with them.
    pub(super) slow_beyond: Cell<u64>,
    hints: UnboundedSender<Hint>,
    /// What nodes tell on its lanes, if it is the pool of one client that is to hear nothing of its own writes.
    pub(super) ears: Option<Ears>,
}

/// The lanes that are open, by node of the current snapshot.
#[derive(Debug, Default)]
struct Routes {
    topology: Arc<Topology>,
    lanes: Vec<[Option<Rc<Lane>>; Class::COUNT]>,
    /// Of each node, whether it is in the proxy's zone.
    near: Vec<bool>,
}

impl Routes {
    /// The lane to the owner of the request's slot, if it is connected.
    #[inline]
    fn usual(&self, ticket: Ticket) -> Option<&Lane> {
        let owner = self.topology.owner(ticket.slot)?;
        let lane = self.lanes.get(usize::from(owner))?[ticket.class().index()].as_deref()?;
        (lane.status.get() == Status::Up).then_some(lane)
    }
}

impl Pool {
    /// A pool without connections, for the topologies that appear in `published`.
    pub fn new(
        options: Options,
        published: Arc<ArcSwap<Topology>>,
        stats: Arc<Stats>,
        hints: UnboundedSender<Hint>,
        (scripts, slow_from): (Arc<Scripts>, Arc<AtomicI64>),
    ) -> Rc<Self> {
        let published = Cache::new(published);
        let pool = Rc::new(Self::blank(options, published, stats, hints, (scripts, slow_from)));
        tokio::task::spawn_local(Retries::run(Rc::clone(&pool)));
        pool
    }

    /// One more pool without connections, with ears, for the same topologies and with the same numbers.
    pub(super) fn apart(&self, ears: Ears) -> Rc<Self> {
        let blank = Self::blank(
            self.options.clone(),
            self.published.borrow().clone(),
            Arc::clone(&self.stats),
            self.hints.clone(),
            (Arc::clone(&self.scripts), Arc::clone(&self.slow_from)),
        );
        Rc::new(Self { clock: self.clock, ears: Some(ears), ..blank })
    }

    fn blank(
        options: Options,
        published: Published,
        stats: Arc<Stats>,
        hints: UnboundedSender<Hint>,
        (scripts, slow_from): (Arc<Scripts>, Arc<AtomicI64>),
    ) -> Self {
        Self {
            options,
            clock: Clock::new(),
            stats,
            published: RefCell::new(published),
            routes: RefCell::default(),
            version: Cell::new(0),
            lanes: RefCell::default(),
            retries: Retries::default(),
            leases: Leases::default(),
            scripts,
            crowded: Cell::new(false),
            waiting: RefCell::default(),
            unsettled_until: Cell::new(0),
            hinted: Cell::new(0),
            turn: Cell::new(0),
            slow_from,
            slow: RefCell::default(),
            slow_beyond: Cell::default(),
            hints,
            ears: None,
        }
    }

    /// Number of the current snapshot; changes with it.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// Where the owner of a slot is.
    pub fn owner(&self, slot: Slot) -> Option<Address> {
        let topology = &self.routes.borrow().topology;
        Some(topology.node(topology.owner(slot)?).address.clone())
    }

    /// The current snapshot.
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.routes.borrow().topology)
    }

    /// When a request that comes now has had all the time it may have.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.options.request_budget
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn budget_ms(&self) -> u64 {
        u64::try_from(self.options.request_budget.as_millis()).unwrap_or(u64::MAX)
    }

    /// A slot of every primary that owns any.
    pub fn primaries(&self) -> Vec<Slot> {
        self.routes.borrow().topology.primaries().iter().map(|(_, slot)| *slot).collect()
    }

    /// Whether any primary is known.
    pub fn has_map(&self) -> bool {
        !self.routes.borrow().topology.primaries().is_empty()
    }

    /// Whether reads may go to replicas.
    pub fn reads_replicas(&self) -> bool {
        self.options.read_from != ReadFrom::Primary
    }

    /// Takes up a newer snapshot if one was published.
    pub fn refresh(self: &Rc<Self>) {
        let mut cache = self.published.borrow_mut();
        let newest = cache.load();
        if Arc::ptr_eq(newest, &self.routes.borrow().topology) {
            return;
        }
        let newest = Arc::clone(newest);
        drop(cache);
        self.adopt(newest);
    }

    fn adopt(self: &Rc<Self>, topology: Arc<Topology>) {
        let lanes = (0..topology.nodes().len()).map(|_| Default::default()).collect();
        let open = self.lanes.borrow();
        for lane in open.values() {
            lane.order.set(match topology.at(&lane.address) {
                Some(node) if !node.failed => Order::Serve,
                _ if lane.status.get() == Status::Suspect => Order::Sever,
                Some(_) => Order::Serve,
                None => Order::Retire,
            });
            lane.wake();
        }
        self.leases.retain(|address| topology.at(address).is_some());
        let waiting: Vec<Rc<Lane>> =
            open.values().filter(|lane| lane.status.get() != Status::Up).map(Rc::clone).collect();
        drop(open);
        let near =
            topology.nodes().iter().map(|node| self.options.is_near(&node.address)).collect();
        let before = self.routes.replace(Routes { topology, lanes, near }).topology;
        self.version.set(self.version.get() + 1);
        for parcel in waiting.iter().flat_map(|lane| lane.take_untouched()) {
            self.send_again(parcel);
        }
        self.heed_map(&before);
    }

    /// Whether redirects or losses were seen a moment ago, so that order needs more care.
    #[inline]
    pub fn is_unsettled(&self) -> bool {
        let until = self.unsettled_until.get();
        until > 0 && self.clock.millis() < until
    }

    fn unsettle(&self) {
        self.unsettled_until.set(self.clock.millis() + UNSETTLED_MS);
    }

    /// Where the primaries are.
    pub fn primary_addresses(&self) -> Vec<Address> {
        let topology = &self.routes.borrow().topology;
        let address = |index| topology.node(index).address.clone();
        topology.primaries().iter().map(|(index, _)| address(*index)).collect()
    }

    /// Where the nodes are that have not failed.
    pub fn sound_addresses(&self) -> Vec<Address> {
        let nodes = &self.routes.borrow().topology;
        let sound = nodes.nodes().iter().filter(|node| !node.failed);
        sound.map(|node| node.address.clone()).collect()
    }

    /// Where the primaries are that have not failed, each with whether it owns slots.
    pub fn sound_primaries(&self) -> Vec<(Address, bool)> {
        let topology = &self.routes.borrow().topology;
        let owners: HashSet<NodeIndex> = topology.primaries().iter().map(|(i, _)| *i).collect();
        let nodes = topology.nodes().iter().zip(0..);
        let sound = nodes.filter(|(node, _)| node.primary.is_none() && !node.failed);
        sound.map(|(node, index)| (node.address.clone(), owners.contains(&index))).collect()
    }

    /// Whether a primary that owns slots is at this address.
    pub fn is_primary(&self, address: &Address) -> bool {
        let topology = &self.routes.borrow().topology;
        topology.primaries().iter().any(|(index, _)| topology.node(*index).address == *address)
    }

    /// Whether the cluster has a node at this address and does not hold it for failed.
    pub fn is_sound(&self, address: &Address) -> bool {
        self.routes.borrow().topology.at(address).is_some_and(|node| !node.failed)
    }

    /// A new connection to this node that nobody else uses.
    pub async fn connect(&self, address: &Address, protocol: Protocol) -> io::Result<Stream> {
        let class = Class { protocol, replica: false };
        handshake::connect(address.clone(), class, self.options.clone()).await
    }

    /// How many clients may have lanes of their own: each has two connections to a node.
    pub fn most_lanes(&self) -> usize {
        (self.options.exclusive_connections / 2).max(1)
    }

    /// How long a node may be silent when it has something to say.
    pub fn response_timeout(&self) -> Duration {
        self.options.response_timeout
    }

    /// Tells discovery that the map may be out of date; seldom enough to cost nothing.
    pub fn hint(&self, hint: Hint) {
        let now = self.clock.millis() + HINT_EVERY_MS;
        if now - self.hinted.get() >= HINT_EVERY_MS {
            self.hinted.set(now);
            // Discovery is gone only when the process is about to be.
            let _ = self.hints.send(hint);
        }
    }

    /// Sends a request to the owner of its slot, or to a replica of it if its class says so and one can be had.
    #[inline]
    pub fn send(self: &Rc<Self>, payload: Payload<'_>, promise: Promise, ticket: Ticket) {
        let routes = self.routes.borrow();
        if !ticket.class().replica
            && let Some(lane) = routes.usual(ticket)
        {
            return self.push_up(lane, payload, promise, ticket);
        }
        drop(routes);
        self.send_unusual(payload, promise, ticket);
    }

    /// Whether the owner of a slot has been sent as many bytes as it may owe replies to. Then the requests of this client
    /// wait, unread, and `waker` is woken when there is room. A node that is down refuses instead.
    #[inline]
    pub fn lacks_room(&self, slot: Slot, waker: impl FnOnce() -> Option<Waker>) -> bool {
        self.crowded.get() && self.is_crowded(slot, waker)
    }

    /// Whether some node may owe replies to as many bytes as it may.
    pub fn is_any_crowded(&self) -> bool {
        self.crowded.get()
    }

    #[cold]
    fn is_crowded(&self, slot: Slot, waker: impl FnOnce() -> Option<Waker>) -> bool {
        let routes = self.routes.borrow();
        let Some(owner) = routes.topology.owner(slot) else { return false };
        let crowded = routes.lanes[usize::from(owner)]
            .iter()
            .flatten()
            .any(|lane| lane.status.get() != Status::Down && self.has_too_much(lane));
        if crowded {
            self.waiting.borrow_mut().extend(waker());
        }
        crowded
    }

    /// A lane has been relieved of requests: those who wait for room look again if there may be some.
    pub(super) fn make_room(&self, lane: &Lane) {
        if self.crowded.get() && !self.has_too_much(lane) {
            self.crowded.set(false);
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    /// To a replica, or to a node to which there is no open connection yet.
    #[inline(never)]
    fn send_unusual(self: &Rc<Self>, payload: Payload<'_>, promise: Promise, mut ticket: Ticket) {
        let owner = self.routes.borrow().topology.owner(ticket.slot);
        let Some(owner) = owner else { return self.wait_for_owner(payload, promise, ticket) };
        let class = ticket.class();
        let replica = if class.replica { self.replica(owner, class) } else { None };
        if replica.is_none() {
            ticket = ticket.for_primary();
        }
        self.send_to(replica.unwrap_or(owner), payload, promise, ticket);
    }

    fn send_to(
        self: &Rc<Self>,
        node: NodeIndex,
        payload: Payload<'_>,
        promise: Promise,
        ticket: Ticket,
    ) {
        let mut routes = self.routes.borrow_mut();
        let index = ticket.class().index();
        if let Some(lane) = &routes.lanes[usize::from(node)][index] {
            return self.push(lane, payload, promise, ticket);
        }
        let lane = self.lane(&routes.topology.node(node).address, ticket.class());
        routes.lanes[usize::from(node)][index] = Some(Rc::clone(&lane));
        drop(routes);
        self.push(&lane, payload, promise, ticket);
    }

    /// The replica of a primary whose turn it is, unless it is the primary's.
    fn replica(&self, primary: NodeIndex, class: Class) -> Option<NodeIndex> {
        let routes = self.routes.borrow();
        let turn = self.turn.get().wrapping_add(1);
        self.turn.set(turn);
        let is_up = |node: NodeIndex| {
            let lane = routes.lanes[usize::from(node)][class.index()].as_ref();
            lane.is_none_or(|lane| lane.status.get() == Status::Up)
        };
        let is_near = |node: NodeIndex| routes.near[usize::from(node)];
        let replicas = &routes.topology.node(primary).replicas;
        Choice { primary, replicas, is_up, is_near }.turn(self.options.read_from, turn)
    }

    /// Puts aside a request whose slot has no owner, in the hope that it gets one.
    fn wait_for_owner(self: &Rc<Self>, payload: Payload<'_>, promise: Promise, ticket: Ticket) {
        self.hint(Hint::Refresh);
        let bytes = match payload {
            Payload::Small(bytes) => Bytes::copy_from_slice(bytes),
            Payload::Large(bytes) => bytes.clone(),
        };
        self.put_aside(Parcel { bytes, promise, ticket }, Refusal::SlotNotServed);
    }

    fn push(&self, lane: &Lane, payload: Payload<'_>, promise: Promise, ticket: Ticket) {
        if lane.status.get() != Status::Up && self.is_full(lane, payload) {
            return self.refuse(promise, &Refusal::QueueFull(lane.address.to_string()));
        }
        self.push_up(lane, payload, promise, ticket);
    }

    #[inline]
    fn push_up(&self, lane: &Lane, payload: Payload<'_>, promise: Promise, ticket: Ticket) {
        lane.push(payload, promise, ticket);
        if self.has_too_much(lane) {
            self.crowded.set(true);
        }
    }

    #[inline]
    fn has_too_much(&self, lane: &Lane) -> bool {
        lane.held() > self.options.queue_bytes as u64
    }

    /// Whether as much waits for a node that is down as may.
    fn is_full(&self, lane: &Lane, payload: Payload<'_>) -> bool {
        let (requests, bytes) = lane.load();
        requests >= self.options.queue_requests
            || requests > 0 && bytes + payload.len() as u64 > self.options.queue_bytes as u64
    }

    /// The lane to an address, opened if there is none.
    pub(super) fn lane(self: &Rc<Self>, address: &Address, class: Class) -> Rc<Lane> {
        let mut lanes = self.lanes.borrow_mut();
        let lane = lanes.entry((address.clone(), class)).or_insert_with(|| {
            let lane = Rc::new(Lane::new(address.clone(), class));
            self.stats.lanes.add(1);
            tokio::task::spawn_local(Connection::new(Rc::clone(self), Rc::clone(&lane)));
            lane
        });
        lane.order.set(Order::Serve);
        Rc::clone(lane)
    }

    /// The lane to an address, if there is one.
    pub(super) fn known_lane(&self, address: &Address, class: Class) -> Option<Rc<Lane>> {
        self.lanes.borrow().get(&(address.clone(), class)).cloned()
    }

    /// Has all lanes closed when nothing is in flight on them. True if there are none.
    pub(super) fn retire_all(&self) -> bool {
        let lanes = self.lanes.borrow();
        for lane in lanes.values() {
            lane.order.set(Order::Retire);
            lane.wake();
        }
        lanes.is_empty()
    }

    /// A lane has closed for good.
    pub(super) fn forget(&self, lane: &Rc<Lane>) {
        self.stats.lanes.sub(1);
        let mut lanes = self.lanes.borrow_mut();
        let key = (lane.address.clone(), lane.class);
        if lanes.get(&key).is_some_and(|known| Rc::ptr_eq(known, lane)) {
            lanes.remove(&key);
        }
        for known in self.routes.borrow_mut().lanes.iter_mut().flatten() {
            known.take_if(|known| Rc::ptr_eq(known, lane));
        }
        // What its node had to tell may not have been read.
        self.news(News::Gap);
    }

    /// A node did not run a request: does what it said instead.
    pub(super) fn follow(
        self: &Rc<Self>,
        mut parcel: Parcel,
        reply: &[u8],
        verdict: Verdict<'_>,
        from: &Address,
    ) {
        if matches!(verdict, Verdict::Moved(_) | Verdict::Ask(_)) {
            // They keep the order by themselves: they are followed as they come.
            self.heed_redirect();
        } else {
            self.unsettle();
        }
        self.count(verdict);
        parcel.ticket = parcel.ticket.redirected();
        let most = if parcel.ticket.waits() == 0 { HOPS_AT_ONCE } else { HOPS_AFTER_WAIT };
        let target = match verdict {
            Verdict::Moved(address) | Verdict::Ask(address) => Address::parse(address, Some(from)),
            _ => None,
        };
        // A script may name any address: it gets no connection and no password of ours unless the cluster knows it.
        let target = target.filter(|address| !parcel.ticket.is_scripted() || self.knows(address));
        self.hint(target.clone().map_or(Hint::Refresh, Hint::Node));
        parcel.ticket = parcel.ticket.for_primary();
        match target.filter(|_| parcel.ticket.hops() <= most) {
            Some(address) => self.redirect(&address, parcel, matches!(verdict, Verdict::Ask(_))),
            None => self.put_aside(parcel, last_word(reply, verdict)),
        }
    }

    /// Sends a request again on the lane where it was, behind what the node has to be told first.
    pub(super) fn tell(self: &Rc<Self>, parcel: Parcel, first: &[u8], asking: bool, lane: &Lane) {
        self.stats.retries.add(1);
        if let Some(parcel) = self.in_order(parcel) {
            lane.push_told(first, parcel, asking);
        }
    }

    fn knows(&self, address: &Address) -> bool {
        self.routes.borrow().topology.at(address).is_some()
    }

    fn redirect(self: &Rc<Self>, address: &Address, parcel: Parcel, ask: bool) {
        let Some(parcel) = self.in_order(parcel) else { return };
        let lane = self.lane(address, parcel.ticket.class());
        if ask {
            lane.push_asking(parcel);
        } else {
            self.push(&lane, payload(&parcel.bytes), parcel.promise, parcel.ticket);
        }
    }

    /// Looks at where the client's other requests on the slot stand before a request goes again: not behind a later one
    /// that ran, and not before an earlier one that waits. Gives the request back if it may go.
    fn in_order(self: &Rc<Self>, parcel: Parcel) -> Option<Parcel> {
        let company = parcel.promise.company(parcel.ticket.slot, parcel.ticket.reads());
        if company.answered_behind {
            self.refuse(parcel.promise, &Refusal::Overtaken);
        } else if company.aside_before {
            self.wait(parcel, LOOK_AGAIN, Refusal::Preceded);
        } else {
            parcel.promise.mark(Standing::OutAgain);
            return Some(parcel);
        }
        None
    }

    fn count(&self, verdict: Verdict<'_>) {
        match verdict {
            Verdict::Moved(_) => self.stats.moved.add(1),
            Verdict::Ask(_) => self.stats.ask.add(1),
            Verdict::TryAgain => self.stats.try_again.add(1),
            Verdict::NotNow => self.stats.not_now.add(1),
            Verdict::Demoted => self.stats.demoted.add(1),
            Verdict::Final => {}
        }
    }

    /// Tries again later, the later the more often it has waited.
    fn put_aside(self: &Rc<Self>, mut parcel: Parcel, last_word: Refusal) {
        let wait = Duration::from_millis(1 << parcel.ticket.waits().min(LONGEST_WAIT));
        parcel.ticket = parcel.ticket.waited();
        self.stats.retries.add(1);
        self.wait(parcel, wait, last_word);
    }

    /// Waits, but no longer than the request has time; answers `last_word` if it has none.
    fn wait(&self, parcel: Parcel, wait: Duration, last_word: Refusal) {
        let age = Duration::from_micros(u64::from(self.age(parcel.ticket.born)));
        let left = self.options.request_budget.saturating_sub(age);
        if left.is_zero() {
            return self.refuse(parcel.promise, &last_word);
        }
        if !self.retries.has_room(parcel.bytes.len(), self.options.queue_bytes) {
            return self.refuse(parcel.promise, &last_word);
        }
        parcel.promise.mark(Standing::Aside);
        self.retries.put(parcel, wait.min(left), last_word);
    }

    /// A request's wait is over. It goes again if no other of its client on its slot is on its way, and none behind it ran.
    pub(super) fn try_again(self: &Rc<Self>, parcel: Parcel, last_word: Refusal) {
        let company = parcel.promise.company(parcel.ticket.slot, parcel.ticket.reads());
        if company.answered_behind {
            self.refuse(parcel.promise, &Refusal::Overtaken);
        } else if self.is_expired(parcel.ticket.born) {
            self.refuse(parcel.promise, &last_word);
        } else if company.out_before || company.aside_before || company.out_behind {
            self.wait(parcel, LOOK_AGAIN, last_word);
        } else {
            self.send_again(parcel);
        }
    }

    /// Sends a request that did not run to the owner of its slot, unless its time is up.
    pub(super) fn send_again(self: &Rc<Self>, mut parcel: Parcel) {
        parcel.ticket = parcel.ticket.for_primary();
        if self.is_expired(parcel.ticket.born) {
            let refusal = self.time_is_up(parcel.ticket);
            return self.refuse(parcel.promise, &refusal);
        }
        let Some(parcel) = self.in_order(parcel) else { return };
        self.send(payload(&parcel.bytes), parcel.promise, parcel.ticket);
    }

    /// Sends what waits on a lane that cannot be connected to the owners of its slots, if these are others.
    pub(super) fn reroute(self: &Rc<Self>, lane: &Lane) {
        let is_elsewhere = |ticket: Ticket| {
            let topology = &self.routes.borrow().topology;
            topology
                .owner(ticket.slot)
                .is_some_and(|owner| topology.node(owner).address != lane.address)
        };
        if lane.any_untouched(is_elsewhere) {
            lane.take_untouched().into_iter().for_each(|parcel| self.send_again(parcel));
        }
    }

    fn time_is_up(&self, ticket: Ticket) -> Refusal {
        let topology = &self.routes.borrow().topology;
        match topology.owner(ticket.slot) {
            None => Refusal::SlotNotServed,
            Some(node) => {
                let waited_ms = u64::from(self.age(ticket.born) / 1000);
                Refusal::NodeDown { node: topology.node(node).address.to_string(), waited_ms }
            }
        }
    }

    /// A connection was lost with these requests on it, each with whether it had been written whole. What may have run
    /// is not sent again unless it only reads; the rest goes to the owners of the slots.
    pub(super) fn rescue(self: &Rc<Self>, lost: Vec<(bool, Parcel)>, refusal: &Refusal) {
        self.unsettle();
        self.hint(Hint::Refresh);
        for (written, mut parcel) in lost {
            if written && !parcel.ticket.is_repeatable() {
                self.refuse(parcel.promise, refusal);
            } else {
                if written {
                    parcel.ticket = parcel.ticket.repeated();
                }
                self.send_again(parcel);
            }
        }
    }

    /// Answers a request with an error of the proxy's own, and counts it.
    pub fn refuse(&self, promise: Promise, refusal: &Refusal) {
        self.stats.refusals.count(refusal);
        promise.refuse(refusal);
    }

    /// Answers a request with what a node replied.
    pub(super) fn answer(&self, promise: Promise, ticket: Ticket, reply: Reply<'_>, now: u32) {
        self.stats.latencies.observe(now.wrapping_sub(ticket.born));
        promise.fulfil(reply);
    }

    fn age(&self, born: u32) -> u32 {
        self.clock.micros().wrapping_sub(born)
    }

    /// Whether a request routed at this time of the worker's clock has had all the time it may have.
    pub fn is_expired(&self, born: u32) -> bool {
        u128::from(self.age(born)) >= self.options.request_budget.as_micros()
    }

    /// Looks after silent nodes and requests that have waited too long; called every few hundredths of a second.
    pub fn tick(self: &Rc<Self>) {
        self.stats.leases.set(self.leases.len() as u64);
        self.tick_lanes();
    }

    /// The same, for a pool that leases nothing.
    pub(super) fn tick_lanes(self: &Rc<Self>) {
        self.refresh();
        let lanes: Vec<Rc<Lane>> = self.lanes.borrow().values().map(Rc::clone).collect();
        for lane in lanes {
            self.watch(&lane);
            let waits =
                lane.front().is_some_and(|(ticket, _)| self.age(ticket.born) > CONNECTED_US);
            if lane.status.get() != Status::Up && waits {
                // Others will soon say CLUSTERDOWN, and then again not.
                self.unsettle();
                self.expire(&lane);
            }
        }
    }

    fn watch(&self, lane: &Lane) {
        if !lane.is_owed() {
            return;
        }
        let silence = self.age(lane.heard.get());
        if lane.status.get() != Status::Down && silence > SUSPECT_AFTER_US {
            lane.status.set(Status::Suspect);
            self.hint(Hint::Refresh);
            if self.routes.borrow().topology.at(&lane.address).is_none_or(|node| node.failed) {
                lane.order.set(Order::Sever);
                lane.wake();
            }
        }
        if u128::from(silence) > self.options.response_timeout.as_micros() {
            lane.order.set(Order::TimeOut);
            lane.wake();
        }
    }

    /// Refuses what has waited on a lane for longer than a request may; the rest stays in line.
    fn expire(self: &Rc<Self>, lane: &Lane) {
        if lane.any_untouched(|ticket| self.is_expired(ticket.born)) {
            self.hint(Hint::Refresh);
            lane.take_untouched().into_iter().for_each(|parcel| self.send_again(parcel));
        }
    }
}

/// What the client hears when time is up: the node's own words, unless they would tell of other nodes.
fn last_word(reply: &[u8], verdict: Verdict<'_>) -> Refusal {
    match verdict {
        Verdict::Moved(_) | Verdict::Ask(_) => Refusal::SlotMoving,
        _ => Refusal::LastWord(
            String::from_utf8_lossy(reply).trim_start_matches('-').trim_end().to_owned(),
        ),
    }
}
