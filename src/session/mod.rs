//! The clients' side: one future per client connection, which frames requests, has them routed, and sends replies in order.
//!
//! A session sends requests and receives promises' answers; it never sees a redirect or a node's connection.

mod across;
mod ask;
mod blocking;
mod census;
mod connection;
mod dispatch;
mod errand;
mod inquiries;
mod monitor;
mod muster;
mod scan;
mod script;
mod slow;
mod sort;
mod subscribe;
mod track;
mod transaction;
mod users;
mod wait;
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::backend::Pool;
use crate::client::Client;
use crate::cluster::Address;
use crate::local::muster::{Muster, Share};
use crate::local::{self, Facts, Proxy, calls, denials, slowlog};
use crate::net::tls::ServerTls;
use crate::pubsub::{Hub, Tally, Topic};
use crate::replies::{Common, Replies};
use crate::resp::frame::Limits;
use crate::tracking::{Forward, Redirected, Tracker};

pub use crate::command::CrossSlot;
pub use blocking::Blocked;
pub use connection::Session;
pub use scan::Plans;
pub use transaction::{Queueing, Transactions};

/// How the proxy deals with clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Sizes above which requests are refused.
    pub limits: Limits,
    /// Most requests of one client under way at once; beyond it nothing is read from the client.
    pub window: usize,
    /// Bytes of replies waiting for one client from which on nothing more is read from it.
    pub output_limit: usize,
    /// Bytes of replies waiting for one client beyond which it is disconnected.
    pub output_max: usize,
    /// Bytes waiting for one client beyond which it is disconnected when a message comes that it is subscribed to.
    pub pubsub_limit: usize,
    /// How long a client may be idle; zero for ever.
    pub idle_timeout: Duration,
    /// How long after a write of its own a client reads from primaries only, if others read from replicas.
    pub read_own_writes: Duration,
    /// Which commands are done whose keys are in several slots.
    pub cross_slot: CrossSlot,
    /// What becomes of transactions with keys in several slots.
    pub transactions: Transactions,
    /// Who looks at the commands that are queued in a transaction.
    pub queueing: Queueing,
    /// Who answers `PING`.
    pub ping: Ping,
}

/// Who answers `PING`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ping {
    /// The proxy, at once.
    #[default]
    Proxy,
    /// All primaries, so that a client hears of one that is busy, loading or gone.
    Nodes,
}

/// What the sessions of one worker share.
#[derive(Debug)]
pub struct Shared {
    /// How clients are dealt with.
    pub options: Options,
    /// The way to the nodes.
    pub pool: Rc<Pool>,
    /// What all workers share, none of it mutable but counts.
    pub proxy: Arc<Proxy>,
    /// What was learned of the nodes.
    pub facts: RefCell<Arc<Facts>>,
    /// What this worker's clients are subscribed to.
    pub hub: Rc<Hub>,
    /// Which of this worker's clients keep what they read.
    pub tracker: Rc<Tracker>,
    /// Everybody connected to this worker.
    pub roster: Roster,
    /// The worker stops: sessions end as soon as they have nothing under way.
    pub draining: Cell<bool>,
    /// All workers, to ask for their clients.
    pub workers: Vec<mpsc::UnboundedSender<Message>>,
    /// What the cursors of `SCAN` stand for, the same for all workers.
    pub plans: Arc<Plans>,
    /// What the replies of all clients share.
    pub common: Rc<Common>,
    sizes: RefCell<errand::Sizes>,
    /// Where the parts of a request are written, one after the other.
    scratch: RefCell<Vec<u8>>,
    buffers: RefCell<Vec<BytesMut>>,
    /// What `CLIENT PAUSE` said, if it is not over.
    paused: Cell<Option<muster::Paused>>,
    /// Who monitors, and whether anybody does.
    monitors: RefCell<Vec<mpsc::Sender<Bytes>>>,
    is_monitored: Cell<bool>,
    /// Commands that took long, the oldest first.
    slow: RefCell<VecDeque<slowlog::Entry>>,
    /// The commands that were answered here.
    calls: RefCell<calls::Ledger>,
    /// What was denied to clients, the newest first.
    denials: RefCell<VecDeque<denials::Entry>>,
}

/// What is said to a worker from outside.
#[derive(Debug)]
pub enum Message {
    /// A client has connected, and is to speak TLS, if that is given.
    Accept(std::net::TcpStream, Option<ServerTls>),
    /// A new topology was published.
    Refresh,
    /// Something new was learned of the nodes.
    Learn(Arc<Facts>),
    /// The client with this number wants the worker's share in something.
    Muster(Muster, u64, oneshot::Sender<Share>),
    /// Somebody has published under a topic, at this node at this time, and wants to know how many more receivers the worker
    /// has for it than the node counts.
    Surplus(Topic, Option<Address>, Instant, oneshot::Sender<i64>),
    /// Somebody wants to know of all topics that the worker is subscribed to.
    ListTopics(oneshot::Sender<HashMap<Topic, Tally>>),
    /// A client of this worker is to be told of a change in the place of another one.
    Redirected(Redirected),
    /// The client that was to be told of changes in the place of this one is gone.
    Broken(u64),
    /// Somebody wants to see what the worker's clients ask for.
    Monitor(mpsc::Sender<Bytes>),
    /// Finish what is under way, for no longer than this, and stop.
    Drain(Duration),
}

/// The clients of one worker.
#[derive(Debug, Default)]
pub struct Roster(RefCell<slab::Slab<Member>>);

/// A client as others see it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// What is known of it.
    pub client: Rc<RefCell<Client>>,
    /// Its replies, which are also the way to wake its session.
    pub replies: Replies,
    /// What it waits for at a node.
    pub blocked: Rc<Blocked>,
}

impl Roster {
    fn join(&self, member: Member) -> usize {
        self.0.borrow_mut().insert(member)
    }

    fn leave(&self, seat: usize) {
        self.0.borrow_mut().remove(seat);
    }

    /// Number of clients.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The clients' numbers and lines of `CLIENT LIST`.
    pub fn lines(&self, now_ms: u64) -> Vec<(u64, String)> {
        let clients = self.0.borrow();
        clients
            .iter()
            .map(|(_, member)| {
                let client = member.client.borrow();
                let mut letters = local::client_letters(&client);
                if member.blocked.waits() {
                    letters.push('b');
                }
                (client.id, local::client_line(&client, &letters, now_ms))
            })
            .collect()
    }

    /// How many clients wait, at a node or for the end of a pause.
    fn blocked(&self) -> u64 {
        let clients = self.0.borrow();
        let waits = |member: &Member| member.blocked.waits() || member.client.borrow().postponed;
        clients.iter().filter(|(_, member)| waits(member)).count() as u64
    }

    /// The client with this number.
    pub fn find(&self, id: u64) -> Option<Member> {
        let clients = self.0.borrow();
        let mut members = clients.iter().map(|(_, member)| member);
        members.find(|member| member.id == id).cloned()
    }

    /// Does something with every client.
    fn each(&self, mut what: impl FnMut(&Member)) {
        self.0.borrow().iter().for_each(|(_, member)| what(member));
    }

    /// Ends the sessions of whom `ends` is true, and says how many.
    pub fn end_where(&self, ends: impl Fn(&Member) -> bool) -> u64 {
        let ended: Vec<Member> = self
            .0
            .borrow()
            .iter()
            .map(|(_, member)| member)
            .filter(|member| ends(member))
            .cloned()
            .collect();
        for member in &ended {
            member.replies.end();
        }
        ended.len() as u64
    }

    /// Wakes every session.
    pub fn wake_all(&self) {
        let members: Vec<Replies> =
            self.0.borrow().iter().map(|(_, member)| member.replies.clone()).collect();
        members.iter().for_each(Replies::wake);
    }
}

impl Shared {
    /// For a worker that has no clients yet.
    pub fn new(
        options: Options,
        pool: Rc<Pool>,
        proxy: Arc<Proxy>,
        facts: Arc<Facts>,
        (workers, plans): (Vec<mpsc::UnboundedSender<Message>>, Arc<Plans>),
    ) -> Rc<Self> {
        let hub = Hub::new(Rc::clone(&pool), options.pubsub_limit);
        let tracker = Tracker::new(Rc::clone(&pool), options.pubsub_limit, forward(&workers));
        Rc::new(Self {
            options,
            hub,
            tracker,
            pool,
            proxy,
            facts: RefCell::new(facts),
            roster: Roster::default(),
            draining: Cell::new(false),
            workers,
            plans,
            common: Rc::default(),
            sizes: RefCell::default(),
            scratch: RefCell::default(),
            buffers: RefCell::default(),
            paused: Cell::default(),
            monitors: RefCell::default(),
            is_monitored: Cell::default(),
            slow: RefCell::default(),
            calls: RefCell::default(),
            denials: RefCell::default(),
        })
    }

    /// An empty read buffer, lent until it is given back.
    fn lend_buffer(&self) -> BytesMut {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(connection::READ))
    }

    /// A client is gone.
    pub fn see_off(&self) {
        self.proxy.clients.fetch_sub(1, Relaxed);
        self.pool.stats.clients.fetch_sub(1, Relaxed);
    }

    /// Takes a read buffer back if it is still of the usual size.
    fn take_buffer(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < 16 && buffer.capacity() == connection::READ {
            buffers.push(buffer);
        }
    }
}

/// The way to tell clients of all workers of changes.
fn forward(workers: &[mpsc::UnboundedSender<Message>]) -> Forward {
    let workers = workers.to_vec();
    Box::new(move |at, redirected| {
        // A worker that is gone has no clients.
        let _ = workers[at].send(Message::Redirected(redirected));
    })
}
