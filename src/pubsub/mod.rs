//! Publish and subscribe: one hub per worker, which subscribes at the nodes once for all of the worker's clients.
//!
//! ```text
//!   clients ── subscribe ──► Hub: topic → subscribers ── first one in, last one out ──► Link, one per node that is needed
//!   clients ◄── Replies::push ── Hub ◄── a message, once for all of them ──────────────── Link
//! ```
//! Channels and patterns are subscribed to at one node, the hub's home, since nodes pass messages on among themselves. A
//! shard's channel is subscribed to at the owner of its slot. Notifications of key changes are not passed on by the nodes, so
//! what may be one is subscribed to at every primary as well; other messages count only if they come from home.
//!
//! Where a topic has to be subscribed to is worked out anew whenever the map of the cluster changes or a link is lost. What
//! is published in between is lost, as it is when a client reconnects to a server. A client hears that it is subscribed only
//! once all of the nodes concerned have said so.

mod link;
mod subscriber;
mod topic;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::backend::{Hint, Pool};
use crate::cluster::{Address, Slot};
use crate::command::glob;
use crate::refusal::Refusal;
use crate::replies::{Promise, Reply};
use crate::resp::redirect::{Verdict, verdict};

use link::Link;
use subscriber::Message;
pub use subscriber::Subscriber;
use topic::Heard;
pub use topic::{Kind, Topic, confirmation};

/// The subscriptions of one worker.
#[derive(Debug)]
pub struct Hub {
    pool: Rc<Pool>,
    /// Bytes that may wait for a client when a message comes.
    limit: usize,
    topics: RefCell<HashMap<Topic, Entry>>,
    /// Those of the topics that are patterns.
    patterns: RefCell<HashSet<Topic>>,
    links: RefCell<HashMap<Address, Rc<Link>>>,
    /// The node whose messages count.
    home: RefCell<Option<Address>>,
    /// Owners of slots that nodes have told of, each with the one that the map showed then.
    moved: RefCell<HashMap<Slot, (Option<Address>, Address)>>,
    /// Number of the snapshot by which topics were last placed.
    version: Cell<u64>,
    /// Topics that are not where they should be.
    unplaced: RefCell<HashSet<Topic>>,
    /// Whether some client waits to hear that it is subscribed.
    awaited: Cell<bool>,
}

/// How many are subscribed to a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Clients.
    pub clients: usize,
    /// Connections to nodes, which these count among their own clients.
    pub links: usize,
}

/// A topic that somebody is subscribed to.
#[derive(Debug, Default)]
struct Entry {
    subscribers: BTreeMap<u64, Rc<Subscriber>>,
    waiting: Vec<Waiting>,
}

/// A client that is to hear that it is subscribed.
#[derive(Debug)]
struct Waiting {
    id: u64,
    promise: Promise,
    confirmation: Vec<u8>,
    /// Microseconds of the worker's clock when it asked.
    since: u32,
}

impl Hub {
    /// A hub without subscriptions; `limit` is the number of bytes that may wait for a client when a message comes.
    pub fn new(pool: Rc<Pool>, limit: usize) -> Rc<Self> {
        Rc::new(Self {
            pool,
            limit,
            topics: RefCell::default(),
            patterns: RefCell::default(),
            links: RefCell::default(),
            home: RefCell::default(),
            moved: RefCell::default(),
            version: Cell::new(0),
            unplaced: RefCell::default(),
            awaited: Cell::new(false),
        })
    }

    /// Subscribes a client, and answers it once that has come into effect. `confirmation` makes the answer, after the
    /// client's counts have been brought up to date.
    pub fn subscribe(
        self: &Rc<Self>,
        subscriber: &Rc<Subscriber>,
        topic: &Topic,
        promise: Promise,
        confirmation: impl FnOnce() -> Vec<u8>,
    ) {
        subscriber.take(topic);
        let confirmation = confirmation();
        let is_new = {
            let mut topics = self.topics.borrow_mut();
            let entry = topics.entry(topic.clone()).or_default();
            let since = self.pool.clock.micros();
            entry.subscribers.insert(subscriber.id, Rc::clone(subscriber));
            entry.waiting.push(Waiting { id: subscriber.id, promise, confirmation, since });
            entry.subscribers.len() == 1
        };
        if is_new {
            if topic.kind == Kind::Pattern {
                self.patterns.borrow_mut().insert(topic.clone());
            }
            self.place(topic);
        }
        self.confirm(topic);
    }

    /// Unsubscribes a client.
    pub fn unsubscribe(self: &Rc<Self>, subscriber: &Subscriber, topic: &Topic) {
        if !subscriber.give(topic) {
            return;
        }
        let mut topics = self.topics.borrow_mut();
        let Some(entry) = topics.get_mut(topic) else { return };
        entry.subscribers.remove(&subscriber.id);
        if entry.subscribers.is_empty() {
            let entry = topics.remove(topic);
            drop(topics);
            self.patterns.borrow_mut().remove(topic);
            // They have left again since, and hear of both in order.
            entry.into_iter().flat_map(|entry| entry.waiting).for_each(Waiting::confirm);
            self.place(topic);
        }
    }

    /// Unsubscribes a client from everything.
    pub fn leave(self: &Rc<Self>, subscriber: &Subscriber) {
        for kind in Kind::ALL {
            subscriber.topics(kind).iter().for_each(|topic| self.unsubscribe(subscriber, topic));
        }
    }

    /// The numbers of the clients that are subscribed to what their users may not hear.
    pub fn trespassers(&self) -> HashSet<u64> {
        let topics = self.topics.borrow();
        let outlaws = |(topic, entry): (&Topic, &Entry)| {
            let is_pattern = topic.kind == Kind::Pattern;
            let is_outlaw = |subscriber: &&Rc<Subscriber>| {
                !subscriber.client.borrow().user.allows_channel(&topic.name, is_pattern)
            };
            let outlaws = entry.subscribers.values().filter(is_outlaw);
            outlaws.map(|subscriber| subscriber.id).collect::<Vec<_>>()
        };
        topics.iter().flat_map(outlaws).collect()
    }

    /// Every topic that messages come under, or the hub is still subscribed to.
    pub fn topics(&self) -> HashMap<Topic, Tally> {
        let (topics, now) = (self.topics.borrow(), Instant::now());
        let tally = |topic: &Topic, entry: &Entry| {
            let clients = entry.subscribers.len();
            self.is_in_effect(topic, now).then(|| (topic.clone(), Tally { clients, links: 0 }))
        };
        let mut tallies: HashMap<Topic, Tally> =
            topics.iter().filter_map(|(topic, entry)| tally(topic, entry)).collect();
        for topic in self.links.borrow().values().flat_map(|link| link.counted()) {
            tallies.entry(topic).or_default().links += 1;
        }
        tallies
    }

    /// How many more receivers a message has than the node counted to which it was sent: the clients, less the connections
    /// through which the node reaches them. What was not in effect by then may have missed it.
    pub fn surplus(&self, topic: &Topic, node: Option<&Address>, sent: Instant) -> i64 {
        let topics = self.topics.borrow();
        let surplus = |topic: &Topic| {
            let counted = node.is_some_and(|node| self.was_on(node, topic, sent));
            let clients = topics.get(topic).filter(|_| self.is_in_effect(topic, sent));
            let clients = clients.map_or(0, |entry| entry.subscribers.len());
            i64::try_from(clients).unwrap_or(i64::MAX) - i64::from(counted)
        };
        if topic.kind == Kind::Shard {
            return surplus(topic);
        }
        let patterns = self.patterns.borrow();
        let matching = patterns.iter().filter(|p| glob::matches(&p.name, &topic.name));
        surplus(topic) + matching.map(surplus).sum::<i64>()
    }

    /// Whether messages sent to nodes at a time come under a topic.
    fn is_in_effect(&self, topic: &Topic, sent: Instant) -> bool {
        let node = match topic.kind {
            Kind::Shard => self.targets(topic).into_iter().next(),
            Kind::Channel | Kind::Pattern => self.home.borrow().clone(),
        };
        node.is_some_and(|node| self.was_on(&node, topic, sent))
    }

    /// Whether a node had confirmed a topic by then.
    fn was_on(&self, node: &Address, topic: &Topic, then: Instant) -> bool {
        let links = self.links.borrow();
        links.get(node).and_then(|link| link.on(topic)).is_some_and(|since| since <= then)
    }

    /// Looks after the map and after time; called every few hundredths of a second, and when there is a new map.
    pub fn tick(self: &Rc<Self>) {
        let is_newer = self.version.replace(self.pool.version()) != self.pool.version();
        if is_newer {
            let mut moved = self.moved.borrow_mut();
            moved.retain(|slot, (shown, _)| self.pool.owner(*slot) == *shown);
        }
        if is_newer {
            self.place_all();
        } else {
            let unplaced = std::mem::take(&mut *self.unplaced.borrow_mut());
            self.place_again(unplaced);
        }
        self.expire();
    }

    /// Where a topic has to be subscribed to.
    fn targets(&self, topic: &Topic) -> Vec<Address> {
        if topic.kind == Kind::Shard {
            let shown = self.pool.owner(topic.slot());
            let moved = self.moved.borrow();
            let moved = moved.get(&topic.slot()).filter(|(before, _)| *before == shown);
            return moved.map(|(_, owner)| owner.clone()).or(shown).into_iter().collect();
        }
        let home = self.home.borrow().clone();
        if !topic.may_notify() {
            return home.into_iter().collect();
        }
        let mut nodes = self.pool.primary_addresses();
        nodes.extend(home.filter(|home| !nodes.contains(home)));
        nodes
    }

    /// Finds a home if there is none, or it is no good.
    fn find_home(&self) {
        let is_good = self.home.borrow().as_ref().is_some_and(|home| self.pool.is_sound(home));
        if !is_good {
            self.move_home();
        }
    }

    /// Moves on to the next primary, or to any one if the present home is none.
    fn move_home(&self) {
        let primaries = self.pool.primary_addresses();
        let mut home = self.home.borrow_mut();
        let at = primaries.iter().position(|primary| Some(primary) == home.as_ref());
        let lot = || usize::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or(0);
        let next = at.map_or_else(lot, |at| at + 1) % primaries.len().max(1);
        // Without a map the old one is as good as any.
        if let Some(primary) = primaries.into_iter().nth(next) {
            *home = Some(primary);
        }
    }

    fn place_all(self: &Rc<Self>) {
        self.unplaced.borrow_mut().clear();
        let topics: Vec<Topic> = self.topics.borrow().keys().cloned().collect();
        if !topics.is_empty() {
            self.find_home();
        }
        self.place_again(topics);
    }

    fn place_again(self: &Rc<Self>, topics: impl IntoIterator<Item = Topic>) {
        for topic in topics {
            self.place(&topic);
            self.confirm(&topic);
        }
    }

    /// Subscribes to a topic where it has to be and unsubscribes from it elsewhere.
    fn place(self: &Rc<Self>, topic: &Topic) {
        let is_wanted = self.topics.borrow().contains_key(topic);
        let is_first = self.topics.borrow().len() == 1;
        if is_wanted && (is_first || self.home.borrow().is_none()) {
            self.find_home();
        }
        let targets = if is_wanted { self.targets(topic) } else { Vec::new() };
        if is_wanted && targets.is_empty() {
            self.unplaced.borrow_mut().insert(topic.clone());
            self.pool.hint(Hint::Refresh);
        }
        for link in self.links.borrow().values().filter(|link| link.wants(topic)) {
            if !targets.contains(&link.address) {
                link.release(topic);
            }
        }
        for address in &targets {
            self.link(address, topic);
        }
    }

    /// Wants a topic of a node, to which a link is opened if there is none.
    fn link(self: &Rc<Self>, address: &Address, topic: &Topic) {
        let mut links = self.links.borrow_mut();
        if let Some(link) = links.get(address) {
            return link.want(topic);
        }
        let link = Link::new(address.clone());
        link.want(topic);
        links.insert(address.clone(), Rc::clone(&link));
        self.pool.stats.pubsub_links.add(1);
        tokio::task::spawn_local(link.run(Rc::clone(self)));
    }

    /// Tells those who wait for it that a topic is subscribed to, if it is.
    fn confirm(&self, topic: &Topic) {
        let mut topics = self.topics.borrow_mut();
        let Some(entry) = topics.get_mut(topic).filter(|entry| !entry.waiting.is_empty()) else {
            return;
        };
        let (targets, links) = (self.targets(topic), self.links.borrow());
        let is_on = |node: &Address| links.get(node).is_some_and(|link| link.is_on(topic));
        if !targets.is_empty() && targets.iter().all(is_on) {
            std::mem::take(&mut entry.waiting).into_iter().for_each(Waiting::confirm);
        } else {
            self.awaited.set(true);
        }
    }

    /// Refuses those who have waited for too long.
    fn expire(self: &Rc<Self>) {
        if !self.awaited.get() {
            return;
        }
        let is_expired = |waiting: &Waiting| self.pool.is_expired(waiting.since);
        let late = |entry: &Entry| entry.waiting.iter().any(is_expired);
        let topics: Vec<Topic> = {
            let topics = self.topics.borrow();
            topics.iter().filter(|(_, entry)| late(entry)).map(|(topic, _)| topic.clone()).collect()
        };
        for topic in &topics {
            self.refuse(topic, &Refusal::ClusterDown);
        }
        let awaited = self.topics.borrow().values().any(|entry| !entry.waiting.is_empty());
        self.awaited.set(awaited);
    }

    /// Those who wait for a topic are not subscribed to it.
    fn refuse(self: &Rc<Self>, topic: &Topic, refusal: &Refusal) {
        let waiting = match self.topics.borrow_mut().get_mut(topic) {
            Some(entry) => std::mem::take(&mut entry.waiting),
            None => return,
        };
        for waiting in waiting {
            let topics = self.topics.borrow();
            let subscriber = topics.get(topic).and_then(|entry| entry.subscribers.get(&waiting.id));
            let subscriber = subscriber.cloned();
            drop(topics);
            self.pool.refuse(waiting.promise, refusal);
            if let Some(subscriber) = subscriber {
                self.unsubscribe(&subscriber, topic);
            }
        }
    }

    /// A node could not be reached, or the link to it was lost.
    fn lost(self: &Rc<Self>, address: &Address) {
        self.pool.hint(Hint::Refresh);
        if self.home.borrow().as_ref() == Some(address) {
            self.move_home();
        }
        self.place_all();
    }

    /// A link has nothing more to do.
    fn closed(&self, link: &Rc<Link>) {
        self.pool.stats.pubsub_links.sub(1);
        self.links.borrow_mut().remove(&link.address);
    }

    /// Does what a node says. Gives the number of clients that it was passed on to.
    fn hear(self: &Rc<Self>, link: &Link, frame: Bytes) -> usize {
        match topic::read(&frame) {
            Heard::Message(topic, channel) => return self.pass_on(link, &topic, &channel, frame),
            Heard::Subscribed(topic) => {
                link.subscribed(&topic);
                self.confirm(&topic);
            }
            Heard::Unsubscribed(topic) => {
                if link.unsubscribed(&topic) {
                    // The node itself knows best who has the slot now, and says so.
                    self.pool.hint(Hint::Refresh);
                    self.place(&topic);
                }
            }
            Heard::Error => {
                if let Some(topic) = link.refused() {
                    self.refused(link, &topic, &frame);
                }
            }
            Heard::Nothing => {}
        }
        0
    }

    /// Whether a message counts if it comes from this node.
    fn counts_from(&self, address: &Address, topic: &Topic, channel: &[u8]) -> bool {
        match topic.kind {
            Kind::Shard => true,
            // A home that has become a replica tells of its primary's keys as well.
            _ if topic::is_notification(channel) => self.pool.is_primary(address),
            _ => self.home.borrow().as_ref() == Some(address),
        }
    }

    fn pass_on(&self, link: &Link, topic: &Topic, channel: &[u8], frame: Bytes) -> usize {
        if !self.counts_from(&link.address, topic, channel) {
            return 0;
        }
        let topics = self.topics.borrow();
        let Some(entry) = topics.get(topic) else { return 0 };
        let stats = &self.pool.stats;
        let mut message = Message::new(frame);
        for subscriber in entry.subscribers.values() {
            if !subscriber.push(&mut message, self.limit) {
                stats.pubsub_cut_off.add(1);
            }
        }
        stats.pubsub_messages.add(entry.subscribers.len() as u64);
        entry.subscribers.len()
    }

    /// A node does not subscribe: because it does not own the slot, for a while, or for good.
    fn refused(self: &Rc<Self>, link: &Link, topic: &Topic, error: &[u8]) {
        self.unplaced.borrow_mut().insert(topic.clone());
        self.pool.hint(Hint::Refresh);
        match verdict(error) {
            Verdict::Moved(address) => {
                let Some(owner) = Address::parse(address, Some(&link.address)) else { return };
                // Nodes that point at each other are asked again a little later.
                let slot = topic.slot();
                let shown = self.pool.owner(slot);
                let known = self.moved.borrow_mut().insert(slot, (shown, owner));
                if known.is_none() {
                    self.place(topic);
                }
            }
            Verdict::Final => {
                let text = String::from_utf8_lossy(error);
                let text = text.trim_start_matches('-').trim_end().to_owned();
                self.refuse(topic, &Refusal::LastWord(text));
            }
            _ => {}
        }
    }
}

impl Waiting {
    fn confirm(self) {
        self.promise.fulfil(Reply::Small(&self.confirmation));
    }
}
