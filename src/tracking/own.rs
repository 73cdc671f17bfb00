//! Clients that want to hear nothing of their own writes (`NOLOOP`). Nodes know only connections: so such a client has lanes
//! of its own, on which nodes tell what others change, and is not told by the worker's links of what it reads there.
//!
//! Who changes keys, a node tells as its own version does: of a key that a client and others have changed in one turn of its
//! loop it tells a client of `BCAST` only if the last one to change it was another.

use std::rc::Rc;

use bytes::Bytes;

use super::{Keeps, Tracked, Tracker, notice};
use crate::backend::{Heed, Lanes, News, Pool};
use crate::client::{Client, Tracking};
use crate::refusal::Refusal;
use crate::resp::Protocol;

use super::notice::{Changed, Notice};

/// The lanes of one client.
#[derive(Debug)]
pub struct Own {
    /// Tells them from those that the client had before.
    number: u64,
    pub(super) lanes: Lanes,
}

/// What a client's lanes have to tell it.
fn heed(tracking: &Tracking) -> Heed {
    if tracking.prefixes().is_some() { Heed::All } else { Heed::Read }
}

impl Tracked {
    /// Whether a client has lanes of its own that are as it needs them now; `None` if it has none.
    fn is_served(&self) -> Option<bool> {
        let (own, client) = (self.own.as_ref()?, self.ear.client.borrow());
        let tracking = client.tracking.as_deref()?;
        Some(own.lanes.are_for(client.protocol, heed(tracking)))
    }
}

impl Tracker {
    /// Lanes for a client if it needs some, or others than it has. It is to be told on them when it has joined with them.
    pub fn own(
        self: &Rc<Self>,
        client: &Client,
        wanted: &Tracking,
    ) -> Result<Option<Own>, Refusal> {
        let (id, heed) = (client.id, heed(wanted));
        let has = |tracked: &Tracked| {
            tracked.own.as_ref().is_some_and(|own| own.lanes.are_for(client.protocol, heed))
        };
        if !wanted.noloop || self.clients.borrow().get(&id).is_some_and(has) {
            return Ok(None);
        }
        let most = self.pool.most_lanes();
        if self.owners.get() >= most {
            let most = format!("ERR proxy: up to {most} clients of a worker may track with NOLOOP");
            return Err(Refusal::text(most));
        }
        Ok(Some(self.open(id, client.protocol, heed)))
    }

    fn open(self: &Rc<Self>, id: u64, protocol: Protocol, heed: Heed) -> Own {
        let number = self.opened.get() + 1;
        self.opened.set(number);
        self.owners.set(self.owners.get() + 1);
        let tracker = Rc::downgrade(self);
        let news = move |news: News<'_>| {
            if let Some(tracker) = tracker.upgrade() {
                tracker.hear(id, number, news);
            }
        };
        Own { number, lanes: self.pool.lanes(protocol, heed, Box::new(news)) }
    }

    /// Closes lanes, if there are any, when nothing is under way on them any more.
    pub fn close(&self, own: Option<Own>) {
        if let Some(own) = own {
            own.lanes.close();
            self.closing.borrow_mut().push(own.lanes);
        }
    }

    /// The way of a client that has lanes of its own, and is about to use them.
    pub fn way_of(self: &Rc<Self>, client: &Client) -> Option<Rc<Pool>> {
        let is_served = self.clients.borrow().get(&client.id)?.is_served()?;
        if !is_served {
            self.renew(client);
        }
        let clients = self.clients.borrow();
        let tracked = clients.get(&client.id)?;
        // It may keep what it writes as well.
        tracked.keeps.set(Keeps::Something);
        Some(Rc::clone(&tracked.own.as_ref()?.lanes.pool))
    }

    /// A client has changed its protocol: it needs other lanes, and what the old ones would have told is not told.
    fn renew(self: &Rc<Self>, client: &Client) {
        let Some(tracking) = client.tracking.as_deref() else { return };
        let new = self.open(client.id, client.protocol, heed(tracking));
        let mut clients = self.clients.borrow_mut();
        let Some(tracked) = clients.get_mut(&client.id) else { return };
        let old = tracked.own.replace(new);
        self.drop_kept(tracked);
        drop(clients);
        self.close(old);
    }

    /// Has a client drop what it keeps, if it may keep something.
    pub(super) fn drop_kept(&self, tracked: &Tracked) {
        if tracked.keeps.get() == Keeps::Something {
            tracked.keeps.set(Keeps::NothingMore);
            self.tell(tracked, &Notice::new(&Changed::All));
        }
    }

    /// Looks after lanes of clients' own, those they have and those they had.
    pub(super) fn tick_own(&self) {
        for own in self.clients.borrow().values().filter_map(|tracked| tracked.own.as_ref()) {
            own.lanes.tick(&self.pool);
        }
        let mut closing = self.closing.borrow_mut();
        let before = closing.len();
        closing.retain(|lanes| {
            lanes.tick(&self.pool);
            !lanes.are_closed()
        });
        self.owners.set(self.owners.get() - (before - closing.len()));
    }

    /// A client's lanes have news.
    fn hear(&self, id: u64, number: u64, news: News<'_>) {
        if matches!(news, News::Up) {
            return self.news.notify_waiters();
        }
        let clients = self.clients.borrow();
        let Some(tracked) = clients.get(&id) else { return };
        if tracked.own.as_ref().is_none_or(|own| own.number != number) {
            return;
        }
        match news {
            News::Told(frame) => match notice::read(frame) {
                Some(Changed::All) if tracked.keeps.get() != Keeps::NothingMore => {
                    tracked.keeps.set(Keeps::NothingMore);
                    self.tell(tracked, &Notice::new(&Changed::All));
                }
                Some(Changed::Keys(keys)) => self.hear_of(id, tracked, &keys),
                _ => {}
            },
            _ => self.drop_kept(tracked),
        }
    }

    /// Others have changed keys.
    fn hear_of(&self, id: u64, tracked: &Tracked, keys: &[Bytes]) {
        if !tracked.is_told_by_key() {
            return self.broadcast(keys, |meant, _| meant == id);
        }
        for key in keys {
            let readers =
                self.table.borrow_mut().take(key, |reader| reader.id == id && reader.by_lane);
            if !readers.is_empty() {
                self.tell(tracked, &Notice::new(&Changed::Keys(vec![key.clone()])));
            }
        }
    }
}
