//! Clients that keep what they read (`CLIENT TRACKING`), and how they hear that it has changed.
//!
//! ```text
//!   Session ── a key is read ──► Tracker: key → readers ◄── every key that changes ── Link, one per primary
//!   clients ◄── Replies::push ── Tracker
//! ```
//! One tracker per worker, which has each primary tell it of every key that changes there (`BCAST`), as long as anybody
//! tracks. So it does not matter on which connection, and at which node, a key is read and written.
//!
//! What must not happen is that a client keeps a value for ever that has changed: that it hears of the change first and is
//! given the old value then. It cannot:
//!
//! - A key is put down when its read takes its place among the client's replies, before it is sent.
//! - A node that changes the key after the read ran tells of it later still. So when the tracker hears of the change, the
//!   key has been put down, or has been and was already told of since.
//! - What a client is told goes behind all replies that it waits for. So whatever is read before the change, the client has
//!   before it hears of the change; and what is read later is put down anew.
//! - While a node does not tell, because the connection is lost or new, anything may change there. Who has read something
//!   is told to drop all it keeps, when that begins and when it is over; and in between, a moment later, what it reads there.
//! - So it is when the map of the cluster changes and an owner of slots does not tell yet, or one that has told no longer is
//!   heard. What a node answers after a redirect that the map does not know for a primary yet may be old until there is a new map.
//!
//! A client that wants to hear nothing of its own writes reads and writes on lanes of its own, and is told by what nodes say
//! on these instead (`own`, `backend::Lanes`): what was read on one is told by the node that answered, or else there is a gap.
//!
//! A change may be told without need: to a client that has read the new value, or has not read it at all but runs a script
//! that may. That costs it a read.

mod link;
mod notice;
mod own;
mod prefix;
mod table;

use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout_at;

use crate::backend::{Lanes, Pool};
use crate::client::{Client, Tracking};
use crate::cluster::{Address, Slot};
use crate::refusal::Refusal;
use crate::replies::{LARGE, Replies, Reply};
use crate::resp::Protocol;

use link::{Link, State};
pub use notice::Changed;
use notice::Notice;
pub use own::Own;
use table::{Reader, Table};

/// The way to the worker with this number.
pub type Forward = Box<dyn Fn(usize, Redirected)>;

/// What is told to one client in the place of another.
#[derive(Debug)]
pub struct Redirected {
    /// Who is told.
    pub to: u64,
    /// Who has asked for it.
    pub from: u64,
    /// What is told.
    pub changed: Changed,
}

/// A client that can be told something.
#[derive(Clone, Debug)]
pub struct Ear {
    /// What is known of it.
    pub client: Rc<RefCell<Client>>,
    /// Its replies, behind which it is told.
    pub replies: Replies,
}

/// A client that tracks.
#[derive(Debug)]
struct Tracked {
    ear: Ear,
    /// The worker of the client that is told in its place.
    at: usize,
    keeps: Cell<Keeps>,
    /// Its own lanes, if it wants to hear nothing of its own writes.
    own: Option<Own>,
}

impl Tracked {
    /// Whether it is told of the keys that it has read.
    fn is_told_by_key(&self) -> bool {
        let client = self.ear.client.borrow();
        client.tracking.as_ref().is_some_and(|tracking| tracking.prefixes().is_none())
    }
}

/// What a client may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    /// Nothing yet.
    Nothing,
    /// Something that it has read, or is about to.
    Something,
    /// Nothing: it was told to drop everything, and has read nothing since.
    NothingMore,
}

/// How many there are of what a tracker knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Clients that track.
    pub clients: usize,
    /// Keys that they have read.
    pub keys: usize,
    /// Keys that they have read, counted for each client.
    pub items: usize,
    /// Beginnings of keys that they want to hear of.
    pub prefixes: usize,
}

/// The connections by which primaries tell, each with the task that keeps it.
type Links = HashMap<Address, (Rc<Link>, AbortHandle)>;

/// The clients of one worker that track.
pub struct Tracker {
    pool: Rc<Pool>,
    /// Bytes that may wait for a client when it is told something.
    limit: usize,
    forward: Forward,
    clients: RefCell<HashMap<u64, Tracked>>,
    /// The clients of this worker that were told something in the place of others.
    stand_ins: RefCell<HashMap<u64, Ear>>,
    table: RefCell<Table>,
    prefixes: RefCell<BTreeMap<Bytes, BTreeSet<u64>>>,
    links: RefCell<Links>,
    /// Number of the snapshot by which links were last made.
    version: Cell<u64>,
    /// Whether all primaries tell that own slots, even those that have failed.
    is_whole: Cell<bool>,
    /// Keys, and who has read them, whose primary did not tell then; all since the last tick.
    unsure: RefCell<Vec<(Bytes, u64)>>,
    /// A link has come up, or was refused.
    news: Notify,
    /// How many wait for that.
    awaited: Cell<usize>,
    /// Lanes that clients had for themselves and that are not all closed.
    closing: RefCell<Vec<Lanes>>,
    /// How many clients have such lanes, or had them until they are closed; and how many ever had.
    owners: Cell<usize>,
    opened: Cell<u64>,
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracker").field("tally", &self.tally()).finish_non_exhaustive()
    }
}

impl Tracker {
    /// A tracker without clients; `limit` is the number of bytes that may wait for one when it is told something.
    pub fn new(pool: Rc<Pool>, limit: usize, forward: Forward) -> Rc<Self> {
        Rc::new(Self {
            pool,
            limit,
            forward,
            clients: RefCell::default(),
            stand_ins: RefCell::default(),
            table: RefCell::default(),
            prefixes: RefCell::default(),
            links: RefCell::default(),
            version: Cell::new(0),
            is_whole: Cell::new(false),
            unsure: RefCell::default(),
            news: Notify::new(),
            awaited: Cell::new(0),
            closing: RefCell::default(),
            owners: Cell::new(0),
            opened: Cell::new(0),
        })
    }

    /// How many there are of what it knows.
    pub fn tally(&self) -> Tally {
        let table = self.table.borrow();
        Tally {
            clients: self.clients.borrow().len(),
            keys: table.keys(),
            items: table.items(),
            prefixes: self.prefixes.borrow().len(),
        }
    }

    /// Has the primaries tell of changes, and waits until all do that own slots, on a client's own lanes as well; for no longer
    /// than a request may wait.
    pub async fn ready(self: &Rc<Self>, own: Option<&Own>) -> Result<(), Refusal> {
        self.awaited.set(self.awaited.get() + 1);
        let ready = timeout_at(self.pool.deadline(), self.come_up(own)).await;
        self.awaited.set(self.awaited.get() - 1);
        ready.unwrap_or(Err(Refusal::ClusterDown))
    }

    async fn come_up(self: &Rc<Self>, own: Option<&Own>) -> Result<(), Refusal> {
        loop {
            let news = self.news.notified();
            self.link_all();
            if self.is_told()? && own.is_none_or(|own| own.lanes.are_told()) {
                return Ok(());
            }
            news.await;
        }
    }

    /// Whether all primaries tell that own slots; but for those that have failed, for which nobody waits.
    fn is_told(&self) -> Result<bool, Refusal> {
        let links = self.links.borrow();
        let mut owners = self.pool.sound_primaries();
        owners.retain(|(_, owns)| *owns);
        for (address, _) in &owners {
            match links.get(address).map(|(link, _)| link.state()) {
                Some(State::Up) => {}
                Some(State::Refused(refusal)) => return Err(refusal),
                Some(State::Down) | None => return Ok(false),
            }
        }
        Ok(!owners.is_empty())
    }

    /// Tells a client of changes from now on, as it wants, on its own lanes if it has got new ones; `at` is the worker of the
    /// client that is told in its place.
    pub fn join(&self, ear: Ear, wanted: Tracking, at: usize, own: Option<Own>) {
        let id = ear.client.borrow().id;
        let mut prefixes = self.prefixes.borrow_mut();
        for prefix in wanted.prefixes().into_iter().flatten() {
            prefixes.entry(prefix.clone()).or_default().insert(id);
        }
        let stays = wanted.noloop && own.is_none();
        ear.client.borrow_mut().tracking = Some(Box::new(wanted));
        let tracked = Tracked { ear, at, keeps: Cell::new(Keeps::Nothing), own };
        let before = self.clients.borrow_mut().insert(id, tracked);
        let Some(before) = before else { return };
        let mut clients = self.clients.borrow_mut();
        let Some(tracked) = clients.get_mut(&id) else { return };
        tracked.keeps = before.keeps;
        if stays {
            tracked.own = before.own;
        } else if before.own.is_some() {
            // What they had to tell may not have been read.
            self.drop_kept(tracked);
            self.close(before.own);
        }
    }

    /// Tells a client of nothing any more.
    pub fn leave(&self, client: &RefCell<Client>) {
        let Some(tracking) = client.borrow_mut().tracking.take() else { return };
        let id = client.borrow().id;
        let own = self.clients.borrow_mut().remove(&id).and_then(|tracked| tracked.own);
        self.close(own);
        let mut prefixes = self.prefixes.borrow_mut();
        for prefix in tracking.prefixes().into_iter().flatten() {
            let Some(clients) = prefixes.get_mut(prefix) else { continue };
            clients.remove(&id);
            if clients.is_empty() {
                prefixes.remove(prefix);
            }
        }
    }

    /// A client is gone.
    pub fn forget(&self, client: &RefCell<Client>) {
        self.leave(client);
        self.stand_ins.borrow_mut().remove(&client.borrow().id);
    }

    /// A client that tracks is about to read these keys; `by_lane` on its own lanes, if it has some.
    pub fn read<'a>(&self, id: u64, by_lane: bool, keys: impl Iterator<Item = &'a [u8]>) {
        let (clients, mut table) = (self.clients.borrow(), self.table.borrow_mut());
        let Some(tracked) = clients.get(&id) else { return };
        tracked.keeps.set(Keeps::Something);
        let by_key = tracked.is_told_by_key();
        let by_lane = by_lane && tracked.own.is_some();
        for key in keys {
            if by_key {
                table.put(key, Reader { id, by_lane }, |reader| clients.contains_key(&reader));
            }
            if !by_lane && !self.is_whole.get() && !self.is_told_of(key) {
                self.unsure.borrow_mut().push((Bytes::copy_from_slice(key), id));
            }
        }
    }

    /// Whether the primary tells that owns a key.
    fn is_told_of(&self, key: &[u8]) -> bool {
        let (owner, links) = (self.pool.owner(Slot::of(key)), self.links.borrow());
        owner.is_some_and(|owner| tells(&links, &owner))
    }

    /// Whether no change can be missed: all tell that own slots, even those that have failed, for these may still answer.
    fn has_all_told(&self) -> bool {
        let (owners, links) = (self.pool.primary_addresses(), self.links.borrow());
        !owners.is_empty() && owners.iter().all(|owner| tells(&links, owner))
    }

    /// Has those drop what they have read lately whose primaries did not tell.
    fn settle(&self) {
        self.is_whole.set(self.has_all_told());
        for (key, reader) in self.unsure.take() {
            if let Some(tracked) = self.clients.borrow().get(&reader) {
                self.tell(tracked, &Notice::new(&Changed::Keys(vec![key])));
            }
        }
    }

    /// Forgets keys until there are not too many; whoever has read one is told that it has changed.
    pub fn shrink(&self, most: usize) {
        while self.table.borrow().keys() > most {
            let Some((key, readers)) = self.table.borrow_mut().evict() else { return };
            self.tell_readers(key, &readers);
        }
    }

    /// Looks after the map; called every few hundredths of a second, and when there is a new one.
    pub fn tick(self: &Rc<Self>) {
        self.link_all();
        self.tick_own();
        if !self.clients.borrow().is_empty() {
            self.settle();
        }
        let (tally, stats) = (self.tally(), &self.pool.stats);
        stats.tracking_clients.set(tally.clients as u64);
        stats.tracked_keys.set(tally.keys as u64);
        stats.tracking_links.set(self.links.borrow().len() as u64);
    }

    /// Has links to all primaries, or to none if nobody tracks.
    fn link_all(self: &Rc<Self>) {
        let is_needed = self.awaited.get() > 0 || !self.clients.borrow().is_empty();
        let version = if is_needed { self.pool.version() } else { 0 };
        if self.version.replace(version) == version {
            return;
        }
        let wanted = if is_needed { self.pool.sound_primaries() } else { Vec::new() };
        let mut links = self.links.borrow_mut();
        let before = links.len();
        links.retain(|address, (_, task)| {
            let stays = wanted.iter().any(|(wanted, _)| wanted == address);
            if !stays {
                task.abort();
            }
            stays
        });
        // What those had to tell that are gone may not have been read.
        let is_cut = links.len() < before;
        for (address, _) in wanted {
            links.entry(address).or_insert_with_key(|address| {
                let link = Link::new(address.clone());
                let task = tokio::task::spawn_local(Rc::clone(&link).run(Rc::clone(self)));
                (link, task.abort_handle())
            });
        }
        drop(links);
        if !is_needed {
            *self.table.borrow_mut() = Table::default();
        }
        self.settle();
        if is_cut || !self.is_whole.get() {
            self.drop_all(|keeps| keeps == Keeps::Something);
        }
        self.news.notify_waiters();
    }

    /// Something has changed. Gives the number of clients that were told.
    fn changed(&self, changed: &Changed) -> u64 {
        let before = self.pool.stats.invalidations.get();
        match changed {
            Changed::All => self.drop_all(|keeps| keeps != Keeps::NothingMore),
            Changed::Keys(keys) => {
                for key in keys {
                    let clients = self.clients.borrow();
                    let has_own = |id| clients.get(&id).is_some_and(|t| t.own.is_some());
                    let goes = |reader: &Reader| !reader.by_lane || !has_own(reader.id);
                    let readers = self.table.borrow_mut().take(key, goes);
                    if !readers.is_empty() {
                        self.tell_readers(key.clone(), &readers);
                    }
                }
                self.broadcast(keys, |_, tracked| tracked.own.is_none());
            }
        }
        self.pool.stats.invalidations.get().wrapping_sub(before)
    }

    /// Anything may have changed without being told.
    fn gap(&self) {
        self.settle();
        self.drop_all(|keeps| keeps == Keeps::Something);
        self.news.notify_waiters();
    }

    /// Tells clients to drop all that they keep.
    fn drop_all(&self, which: impl Fn(Keeps) -> bool) {
        *self.table.borrow_mut() = Table::default();
        let notice = Notice::new(&Changed::All);
        for tracked in self.clients.borrow().values() {
            if which(tracked.keeps.replace(Keeps::NothingMore)) {
                self.tell(tracked, &notice);
            }
        }
    }

    /// Tells those of a change who have read the key.
    fn tell_readers(&self, key: Bytes, readers: &[Reader]) {
        let changed = Changed::Keys(vec![key]);
        let (notice, clients) = (Notice::new(&changed), self.clients.borrow());
        for tracked in readers.iter().filter_map(|reader| clients.get(&reader.id)) {
            if tracked.is_told_by_key() {
                self.tell(tracked, &notice);
            }
        }
    }

    /// Tells those of changes who want to hear of such keys, and of whom `is_meant` is true.
    fn broadcast(&self, keys: &[Bytes], is_meant: impl Fn(u64, &Tracked) -> bool) {
        let (clients, prefixes) = (self.clients.borrow(), self.prefixes.borrow());
        let mut meant: BTreeMap<&Bytes, Vec<Bytes>> = BTreeMap::new();
        for key in keys {
            for prefix in prefix::all_of(&prefixes, key) {
                meant.entry(prefix).or_default().push(key.clone());
            }
        }
        for (prefix, keys) in meant {
            let (changed, ids) = (Changed::Keys(keys), &prefixes[prefix]);
            let notice = Notice::new(&changed);
            let told = ids.iter().filter_map(|id| Some((*id, clients.get(id)?)));
            told.filter(|(id, t)| is_meant(*id, t)).for_each(|(_, t)| self.tell(t, &notice));
        }
    }

    /// Tells one client, or the one in its place.
    fn tell(&self, tracked: &Tracked, notice: &Notice<'_>) {
        let client = tracked.ear.client.borrow();
        let Some(tracking) = &client.tracking else { return };
        if let Some(to) = tracking.redirect {
            let changed = notice.changed.clone();
            return (self.forward)(tracked.at, Redirected { to, from: client.id, changed });
        }
        if client.protocol == Protocol::Resp3 {
            self.push(&tracked.ear.replies, notice.of(Protocol::Resp3));
        }
    }

    /// Tells a client of this worker in the place of another, or says that there is none; `find` looks for it.
    pub fn tell_redirected(
        &self,
        redirected: &Redirected,
        find: impl FnOnce(u64) -> Option<Ear>,
    ) -> bool {
        let mut stand_ins = self.stand_ins.borrow_mut();
        let ear = match stand_ins.entry(redirected.to) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => match find(redirected.to) {
                Some(ear) => place.insert(ear),
                None => return false,
            },
        };
        let client = ear.client.borrow();
        if client.protocol == Protocol::Resp3 || client.is_subscribed() {
            self.push(&ear.replies, Notice::new(&redirected.changed).of(client.protocol));
        }
        true
    }

    /// The client that was to be told in the place of this one is gone.
    pub fn broken(&self, id: u64) {
        let clients = self.clients.borrow();
        let Some(tracked) = clients.get(&id) else { return };
        let mut client = tracked.ear.client.borrow_mut();
        let protocol = client.protocol;
        let Some(tracking) = &mut client.tracking else { return };
        tracking.broken = true;
        if let (Some(redirect), Protocol::Resp3) = (tracking.redirect, protocol) {
            self.push(&tracked.ear.replies, &notice::broken(redirect).into());
        }
    }

    fn push(&self, replies: &Replies, wire: &Bytes) {
        let message =
            if wire.len() < LARGE { Reply::Small(wire) } else { Reply::Large(wire.clone()) };
        self.pool.stats.invalidations.add(1);
        if !replies.push(&message, self.limit) {
            self.pool.stats.pubsub_cut_off.add(1);
        }
    }
}

/// Whether the node at this address tells of changes.
fn tells(links: &Links, address: &Address) -> bool {
    links.get(address).is_some_and(|(link, _)| link.state() == State::Up)
}
