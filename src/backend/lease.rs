//! Connections that belong to one session for a while: what watches keys or blocks cannot share a lane with others.
//!
//! A lease is taken from the idle ones of its node or opened, and given back when the node owes it nothing and remembers
//! nothing of it. One that is dropped instead is closed, which makes the node forget.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::{Duration, Instant, sleep, timeout};

use super::handshake;
use super::lane::Class;
use super::pool::{Hint, Pool};
use crate::cluster::{Address, Slot};
use crate::net::Stream;
use crate::refusal::Refusal;
use crate::resp::Protocol;
use crate::resp::frame::{Progress, ReplyFramer};
use crate::resp::redirect::{Verdict, verdict};

/// Idle connections kept for one node and protocol.
const IDLE_MAX: usize = 256;
/// Wait before a node that could not be reached, or a slot without owner, is tried again.
const PAUSE: Duration = Duration::from_millis(20);
const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";
/// Start of what a node says to those it kept waiting when it becomes a replica.
const INSTANCE_CHANGED: &[u8] = b"-UNBLOCKED force";
const CLIENT_ID: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n";

/// The number of a connection whose number is not known.
const UNTOLD: Bytes = Bytes::from_static(b"0");

type Key = (Address, Protocol);

/// The connections that nobody has at the moment.
#[derive(Debug, Default)]
pub(super) struct Leases {
    idle: RefCell<HashMap<Key, Vec<Link>>>,
    /// Number of connections to each node, idle or not.
    open: Rc<RefCell<HashMap<Address, usize>>>,
}

/// A connection's place among those that its node may have.
#[derive(Debug)]
struct Place {
    address: Address,
    open: Rc<RefCell<HashMap<Address, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(count) = self.open.borrow_mut().get_mut(&self.address) {
            *count -= 1;
        }
    }
}

#[derive(Debug)]
struct Link {
    _place: Place,
    stream: Stream,
    /// The node's number for the connection.
    id: Bytes,
}

/// What a node said to a request on a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The reply, which is the client's.
    Reply(Bytes),
    /// Nothing was run: the node does not serve the slot, or not now. With the node that is to be asked, if it said so.
    NotHere(Option<Address>),
}

/// A connection of a session's own.
#[derive(Debug)]
pub struct Lease {
    pool: Rc<Pool>,
    key: Key,
    link: Link,
    buf: BytesMut,
    framer: ReplyFramer,
}

impl Pool {
    /// A connection to the owner of a slot; waits for one until the deadline.
    pub async fn lease(
        self: &Rc<Self>,
        slot: Slot,
        protocol: Protocol,
        deadline: Instant,
    ) -> Result<Lease, Refusal> {
        loop {
            let refusal = match self.owner(slot) {
                None => Refusal::SlotNotServed,
                Some(address) => match self.lease_at(&address, protocol).await {
                    Ok(lease) => return Ok(lease),
                    Err(error) => self.not_leased(&address, &error),
                },
            };
            if Instant::now() >= deadline {
                return Err(refusal);
            }
            self.look_again().await;
        }
    }

    fn not_leased(&self, address: &Address, error: &io::Error) -> Refusal {
        let node = address.to_string();
        if error.kind() == io::ErrorKind::QuotaExceeded {
            self.stats.lease_waits.add(1);
            return Refusal::NoLease(node);
        }
        Refusal::NodeDown { node, waited_ms: self.budget_ms() }
    }

    /// Asks for a newer map and waits a moment for it.
    pub async fn look_again(self: &Rc<Self>) {
        self.hint(Hint::Refresh);
        sleep(PAUSE).await;
        self.refresh();
    }

    /// Sends one request to one node on a connection that nobody else uses, and gives the reply, whatever it is.
    pub async fn ask_at(
        self: &Rc<Self>,
        address: &Address,
        protocol: Protocol,
        request: &[u8],
    ) -> Result<Bytes, Refusal> {
        let node = address.to_string();
        let mut lease = match self.lease_at(address, protocol).await {
            Ok(lease) => lease,
            Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => {
                return Err(self.not_leased(address, &error));
            }
            Err(_) => {
                let waited = self.options().connect_timeout.as_millis();
                let waited_ms = u64::try_from(waited).unwrap_or(u64::MAX);
                return Err(Refusal::NodeDown { node, waited_ms });
            }
        };
        match timeout(self.options().response_timeout, lease.call(request)).await {
            Ok(Ok(reply)) => {
                lease.give_back();
                Ok(reply)
            }
            Ok(Err(_)) => Err(Refusal::ConnectionLost(node)),
            Err(_) => Err(Refusal::Timeout(node)),
        }
    }

    /// Sends a node a word that ends the wait of others, and gives its reply. If they have all the connections that there may
    /// be, it goes on one more, which is closed behind it: at worst there are twice as many.
    pub async fn word_at(
        self: &Rc<Self>,
        address: &Address,
        protocol: Protocol,
        word: &[u8],
    ) -> io::Result<Bytes> {
        let most = self.options().exclusive_connections;
        match self.lease_within(most, address, protocol).await {
            Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => {
                self.lease_within(2 * most, address, protocol).await?.call(word).await
            }
            lease => {
                let mut lease = lease?;
                let reply = lease.call(word).await?;
                lease.give_back();
                Ok(reply)
            }
        }
    }

    /// A connection to this node.
    pub async fn lease_at(
        self: &Rc<Self>,
        address: &Address,
        protocol: Protocol,
    ) -> io::Result<Lease> {
        self.lease_within(self.options().exclusive_connections, address, protocol).await
    }

    /// A connection to this node, which may have so many.
    async fn lease_within(
        self: &Rc<Self>,
        most: usize,
        address: &Address,
        protocol: Protocol,
    ) -> io::Result<Lease> {
        let key = (address.clone(), protocol);
        while let Some(mut link) = self.leases.take(&key) {
            if link.stream.is_quiet() {
                return Ok(Lease::new(Rc::clone(self), key, link));
            }
        }
        let place = self.leases.place(address, most)?;
        let class = Class { protocol, replica: false };
        let stream = handshake::connect(address.clone(), class, self.options().clone()).await?;
        let link = Link { _place: place, stream, id: UNTOLD };
        let mut lease = Lease::new(Rc::clone(self), key, link);
        let reply = lease.call(CLIENT_ID).await?;
        let id = reply.strip_prefix(b":").and_then(|id| id.strip_suffix(b"\r\n"));
        lease.link.id = id.map_or(UNTOLD, Bytes::copy_from_slice);
        Ok(lease)
    }
}

impl Leases {
    /// A place for one more connection to a node that may have so many.
    fn place(&self, address: &Address, most: usize) -> io::Result<Place> {
        let mut open = self.open.borrow_mut();
        let count = open.entry(address.clone()).or_default();
        if *count >= most {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        *count += 1;
        Ok(Place { address: address.clone(), open: Rc::clone(&self.open) })
    }

    /// Number of connections, idle or not.
    pub(super) fn len(&self) -> usize {
        self.open.borrow().values().sum()
    }

    fn take(&self, key: &Key) -> Option<Link> {
        self.idle.borrow_mut().get_mut(key)?.pop()
    }

    fn give_back(&self, key: Key, link: Link) {
        let mut idle = self.idle.borrow_mut();
        let links = idle.entry(key).or_default();
        if links.len() < IDLE_MAX {
            links.push(link);
        }
    }

    /// Closes the idle connections to nodes that are not wanted any more.
    pub(super) fn retain(&self, is_wanted: impl Fn(&Address) -> bool) {
        self.idle.borrow_mut().retain(|(address, _), _| is_wanted(address));
    }
}

impl Lease {
    fn new(pool: Rc<Pool>, key: Key, link: Link) -> Self {
        Self { pool, key, link, buf: BytesMut::new(), framer: ReplyFramer::default() }
    }

    /// The node it leads to.
    pub fn address(&self) -> &Address {
        &self.key.0
    }

    /// The node's number for the connection, in decimal.
    pub fn id(&self) -> Bytes {
        self.link.id.clone()
    }

    /// Sends one request that any node answers, and waits for its reply.
    pub async fn call(&mut self, request: &[u8]) -> io::Result<Bytes> {
        self.send(request).await?;
        self.reply().await
    }

    /// Sends requests.
    pub async fn send(&mut self, requests: &[u8]) -> io::Result<()> {
        self.link.stream.send(requests).await
    }

    /// Sends `ASKING`, so that the node serves the next request although the slot is not its own yet.
    pub async fn ask(&mut self) -> io::Result<()> {
        self.call(ASKING).await.map(|_| ())
    }

    /// Waits for what the node says to the next request. Nothing is lost if the wait is given up.
    pub async fn hear(&mut self) -> io::Result<Said> {
        let reply = self.reply().await?;
        Ok(match verdict(&reply) {
            Verdict::Final if reply.starts_with(INSTANCE_CHANGED) => Said::NotHere(None),
            Verdict::Final => Said::Reply(reply),
            Verdict::Ask(address) => Said::NotHere(Address::parse(address, Some(self.address()))),
            _ => Said::NotHere(None),
        })
    }

    /// Waits for the next reply. Nothing is lost if the wait is given up.
    async fn reply(&mut self) -> io::Result<Bytes> {
        loop {
            if let Progress::Complete(len) =
                self.framer.frame(&self.buf).map_err(io::Error::other)?
            {
                return Ok(self.buf.split_to(len).freeze());
            }
            if self.link.stream.read_buf(&mut self.buf).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Lets others have the connection. The node must owe nothing and watch nothing for it. One whose number the node has not
    /// told, as while it is busy, is closed: nobody could end a wait on it.
    pub fn give_back(self) {
        if self.buf.is_empty() && self.link.id != UNTOLD {
            self.pool.leases.give_back(self.key, self.link);
        }
    }
}
