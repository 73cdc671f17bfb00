//! One client that is subscribed, as the hub sees it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;

use super::topic::{Kind, Topic};
use crate::client::Client;
use crate::replies::{LARGE, Replies, Reply};
use crate::resp::Protocol;

/// A client and what it is subscribed to.
#[derive(Debug)]
pub struct Subscriber {
    pub(super) id: u64,
    pub(super) client: Rc<RefCell<Client>>,
    replies: Replies,
    /// The names of each kind.
    names: RefCell<[BTreeSet<Bytes>; Kind::ALL.len()]>,
}

/// A message in the words of either version of the protocol; the second is made when first needed.
pub(super) struct Message {
    resp2: Bytes,
    resp3: Option<Bytes>,
}

impl Message {
    /// Of what a node said, which is what clients of RESP2 hear.
    pub(super) fn new(resp2: Bytes) -> Self {
        Self { resp2, resp3: None }
    }

    fn of(&mut self, protocol: Protocol) -> &Bytes {
        match protocol {
            Protocol::Resp2 => &self.resp2,
            Protocol::Resp3 => self.resp3.get_or_insert_with(|| {
                let mut pushed = self.resp2.to_vec();
                pushed[0] = b'>';
                pushed.into()
            }),
        }
    }
}

impl Subscriber {
    /// A client that is not subscribed to anything yet.
    pub fn new(client: Rc<RefCell<Client>>, replies: Replies) -> Rc<Self> {
        let id = client.borrow().id;
        Rc::new(Self { id, client, replies, names: RefCell::default() })
    }

    /// What it is subscribed to of one kind.
    pub fn topics(&self, kind: Kind) -> Vec<Topic> {
        let names = &self.names.borrow()[kind as usize];
        names.iter().map(|name| Topic { kind, name: name.clone() }).collect()
    }

    /// Takes a name in; false if it was there.
    pub(super) fn take(&self, topic: &Topic) -> bool {
        let new = self.names.borrow_mut()[topic.kind as usize].insert(topic.name.clone());
        self.count();
        new
    }

    /// Takes a name out; false if it was not there.
    pub(super) fn give(&self, topic: &Topic) -> bool {
        let known = self.names.borrow_mut()[topic.kind as usize].remove(&topic.name);
        self.count();
        known
    }

    fn count(&self) {
        let names = self.names.borrow();
        let count = |kind| u32::try_from(names[kind as usize].len()).unwrap_or(u32::MAX);
        let subscribed = &mut self.client.borrow_mut().subscribed;
        subscribed.channels = count(Kind::Channel);
        subscribed.patterns = count(Kind::Pattern);
        subscribed.shards = count(Kind::Shard);
    }

    /// Appends a message to what the client is sent; false if that is too much for it.
    pub(super) fn push(&self, message: &mut Message, most: usize) -> bool {
        let protocol = self.client.borrow().protocol;
        let bytes = message.of(protocol);
        if bytes.len() < LARGE {
            self.replies.push(&Reply::Small(bytes), most)
        } else {
            self.replies.push(&Reply::Large(bytes.clone()), most)
        }
    }
}
