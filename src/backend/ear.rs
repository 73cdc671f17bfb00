//! Lanes whose nodes tell what others change: a client that wants to hear nothing of its own writes has a pool of such lanes
//! for itself, so that nodes know which writes are its own.
//!
//! ```text
//!   lane ── CLIENT TRACKING ON … NOLOOP REDIRECT id ──► node ── changes by others ──► ear (number id) ──► News
//! ```
//! The ear is a second connection, since in RESP2 a node can tell nothing on the first. A lane is connected only together
//! with its ear, and is given up when that is lost.
//!
//! Of keys that were read (`Heed::Read`) a node tells that answered the read, as long as the lane is connected. It does not
//! tell what another node changes: that is a gap when a request was redirected, and when slots have got other owners.
//! Of all keys (`Heed::All`) each primary tells that has a lane, from when that is connected. So all have one, and it is a gap
//! when one that owns slots has not.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use tokio::task::AbortHandle;
use tokio::time::{Duration, sleep, timeout};

use super::handshake;
use super::inlet::Inlet;
use super::lane::{Class, Lane, Order, Status};
use super::pool::Pool;
use super::{Options, retry::Retries};
use crate::cluster::{Address, Topology};
use crate::net::Stream;
use crate::resp::{Protocol, value, write};

/// Servers before this one keep who was first to change a key in one turn, and not who was last: what others change right
/// behind a client they would keep from it.
const LAST_COUNTS: [u32; 3] = [6, 2, 5];
/// Time between two looks whether a lane has been given up.
const PAUSE: Duration = Duration::from_millis(2);

/// Of which changes nodes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heed {
    /// Those to keys that were read on the lane, once for each read.
    Read,
    /// All.
    All,
}

/// What becomes known of changes.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// A node tells, in this frame.
    Told(&'a Bytes),
    /// Anything may have changed without being told.
    Gap,
    /// One more node tells.
    Up,
}

/// What a pool is that has ears.
pub(super) struct Ears {
    pub(super) heed: Heed,
    class: Class,
    news: Box<dyn Fn(News<'_>)>,
    closing: Cell<bool>,
}

impl fmt::Debug for Ears {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ears").field("heed", &self.heed).finish_non_exhaustive()
    }
}

/// A connected ear; dropped, it is closed.
pub(super) struct Ear(AbortHandle);

impl Drop for Ear {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The pool of one client, which all of its requests go by that have no connection of their own.
#[derive(Debug)]
pub struct Lanes {
    /// The pool.
    pub pool: Rc<Pool>,
    retries: AbortHandle,
}

impl Lanes {
    /// Has the worker's pool look after a client's lanes; called every few hundredths of a second.
    pub fn tick(&self, common: &Pool) {
        self.pool.tick_lanes();
        for slow in self.pool.take_slow() {
            common.note_slow(slow.owner, slow.us, slow.wire);
        }
    }

    /// Ends it as soon as nothing is under way. What nodes tell from now on counts for nothing.
    pub fn close(&self) {
        if let Some(ears) = &self.pool.ears {
            ears.closing.set(true);
        }
    }

    /// Whether all connections are closed.
    pub fn are_closed(&self) -> bool {
        self.pool.retire_all() && self.pool.retries.is_empty()
    }

    /// Whether a client of this protocol is told on them as it is to be. Of all that others change it would be told by lanes of
    /// the other protocol, too, and for them it is one of the others.
    pub fn are_for(&self, protocol: Protocol, heed: Heed) -> bool {
        let fits = |ears: &Ears| heed == Heed::Read || ears.class.protocol == protocol;
        self.pool.ears.as_ref().is_some_and(|ears| ears.heed == heed && fits(ears))
    }

    /// Whether all primaries tell that own slots and have not failed.
    pub fn are_told(&self) -> bool {
        let mut owners = self.pool.sound_primaries();
        owners.retain(|(_, owns)| *owns);
        !owners.is_empty() && owners.iter().all(|(address, _)| self.pool.hears(address))
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.retries.abort();
    }
}

impl Pool {
    /// Lanes for one client. Primaries are connected to at once and as long as they are any, the others when need be.
    pub fn lanes(
        self: &Rc<Self>,
        protocol: Protocol,
        heed: Heed,
        news: Box<dyn Fn(News<'_>)>,
    ) -> Lanes {
        let class = Class { protocol, replica: false };
        let pool = self.apart(Ears { heed, class, news, closing: Cell::new(false) });
        let retries = tokio::task::spawn_local(Retries::run(Rc::clone(&pool))).abort_handle();
        pool.refresh();
        Lanes { pool, retries }
    }

    /// There is a new map, and there was this one before.
    pub(super) fn heed_map(self: &Rc<Self>, before: &Topology) {
        let Some(ears) = self.ears.as_ref().filter(|ears| !ears.closing.get()) else { return };
        let is_gap = match ears.heed {
            Heed::Read => !self.topology().has_owners_of(before),
            // Also those that have failed: they may still answer.
            Heed::All => !self.primary_addresses().iter().all(|address| self.hears(address)),
        };
        if is_gap {
            (ears.news)(News::Gap);
        }
        for (address, _) in self.sound_primaries() {
            self.lane(&address, ears.class);
        }
    }

    /// A request goes where the map does not say.
    pub(super) fn heed_redirect(&self) {
        if self.ears.as_ref().is_some_and(|ears| ears.heed == Heed::Read) {
            self.news(News::Gap);
        }
    }

    /// A lane is connected.
    pub(super) fn heed_connected(&self) {
        if self.ears.as_ref().is_some_and(|ears| ears.heed == Heed::All) {
            // What changed before was not told.
            self.news(News::Gap);
        }
        self.news(News::Up);
    }

    pub(super) fn news(&self, news: News<'_>) {
        if let Some(ears) = self.ears.as_ref().filter(|ears| !ears.closing.get()) {
            (ears.news)(news);
        }
    }

    /// Whether a lane is to be connected although nothing is to be sent.
    pub(super) fn keeps_up(&self, lane: &Lane) -> bool {
        let ears = self.ears.as_ref().filter(|ears| !ears.closing.get());
        ears.is_some_and(|ears| lane.class == ears.class)
            && self.sound_primaries().iter().any(|(address, _)| *address == lane.address)
    }

    /// Connects a lane, with an ear if it is to have one.
    pub(super) async fn dial(
        self: Rc<Self>,
        lane: Rc<Lane>,
    ) -> io::Result<(Stream, Option<(Stream, Inlet)>)> {
        let (address, class, options) = (&lane.address, lane.class, self.options());
        let Some(ears) = &self.ears else {
            return Ok((handshake::connect(address.clone(), class, options.clone()).await?, None));
        };
        let dialled =
            timeout(2 * options.connect_timeout, pair(address, class, options, ears.heed));
        let (stream, ear) = dialled.await.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok((stream, Some(ear)))
    }

    /// Passes on what an ear hears, and has its lane given up when it is lost.
    pub(super) fn listen(self: &Rc<Self>, lane: &Rc<Lane>, ear: (Stream, Inlet)) -> Ear {
        let (pool, lane) = (Rc::clone(self), Rc::clone(lane));
        let work = async move {
            let (mut stream, mut inlet) = ear;
            let listened = inlet.listen(&mut stream, &pool, |frame| {
                pool.news(News::Told(&frame));
                Ok(1)
            });
            let Err(error) = listened.await;
            tracing::info!(node = %lane.address, %error, "a connection that tells of changes is lost");
            loop {
                // A new map may take the order back before it is carried out.
                lane.order.set(Order::Deafened);
                lane.wake();
                sleep(PAUSE).await;
            }
        };
        Ear(tokio::task::spawn_local(work).abort_handle())
    }

    fn hears(&self, address: &Address) -> bool {
        let Some(ears) = &self.ears else { return false };
        let lane = self.known_lane(address, ears.class);
        lane.is_some_and(|lane| lane.status.get() != Status::Down)
    }
}

/// A lane's connection and its ear, told to the node as that.
async fn pair(
    address: &Address,
    class: Class,
    options: &Options,
    heed: Heed,
) -> io::Result<(Stream, (Stream, Inlet))> {
    let resp3 = Class { protocol: Protocol::Resp3, replica: false };
    let mut ear = handshake::connect(address.clone(), resp3, options.clone()).await?;
    let mut inlet = Inlet::default();
    ear.send(b"*1\r\n$5\r\nHELLO\r\n").await?;
    let hello = inlet.next(&mut ear).await?;
    let node = Introduced::read(&hello).ok_or_else(|| said(&hello))?;
    let mut stream = handshake::connect(address.clone(), class, options.clone()).await?;
    stream.send(&node.track(heed)).await?;
    let reply = Inlet::default().next(&mut stream).await?;
    if reply != "+OK\r\n" {
        return Err(said(&reply));
    }
    Ok((stream, (ear, inlet)))
}

fn said(reply: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(reply);
    io::Error::other(format!("the node does not tell of changes: {}", text.trim_end()))
}

/// What a node says to `HELLO`.
#[derive(Debug, PartialEq, Eq)]
struct Introduced {
    /// Its number for the connection.
    id: u64,
    /// The server's version.
    version: [u32; 3],
}

impl Introduced {
    fn read(hello: &Bytes) -> Option<Self> {
        let behind = |name: &[u8]| Some(memchr::memmem::find(hello, name)? + name.len());
        let id = &hello[behind(b"$2\r\nid\r\n:")?..];
        let id = &id[..memchr::memchr(b'\r', id)?];
        let version = value::bulk(hello, &mut behind(b"$7\r\nversion\r\n")?)?;
        let mut parts = std::str::from_utf8(&version).ok()?.split('.').map(str::parse);
        Some(Self {
            id: std::str::from_utf8(id).ok()?.parse().ok()?,
            version: std::array::from_fn(|_| parts.next().and_then(Result::ok).unwrap_or(0)),
        })
    }

    /// What a lane has to say for the node to tell of changes.
    fn track(&self, heed: Heed) -> Vec<u8> {
        let id = self.id.to_string();
        let mut words: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id.as_bytes()];
        if heed == Heed::All {
            words.push(b"BCAST");
        }
        if heed == Heed::Read || self.version >= LAST_COUNTS {
            words.push(b"NOLOOP");
        }
        let mut wire = Vec::new();
        write::request(&mut wire, words.iter().copied());
        wire
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said to a node of this version.
    fn said_to(version: &str, heed: Heed) -> String {
        let hello = format!(
            "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n${}\r\n{version}\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:42\r\n",
            version.len()
        );
        let node = Introduced::read(&hello.into()).unwrap();
        assert_eq!(node.id, 42);
        String::from_utf8(node.track(heed)).unwrap()
    }

    #[test]
    fn what_others_change_is_never_kept_back() {
        let check = |version, heed, noloop| {
            assert_eq!(said_to(version, heed).contains("NOLOOP"), noloop, "{version}");
        };
        check("6.0.5", Heed::Read, true);
        check("6.0.20", Heed::All, false);
        check("6.2.4", Heed::All, false);
        check("6.2.5", Heed::All, true);
        check("7.0.15", Heed::All, true);
        check("10.0.0-rc1", Heed::All, true);
        check("unknown", Heed::All, false);
    }

    #[test]
    fn an_error_introduces_nobody() {
        assert_eq!(Introduced::read(&Bytes::from_static(b"-ERR unknown command\r\n")), None);
    }
}
