//! A worker: one thread, one runtime, its own clients and its own connections to the nodes.

mod linger;

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::runtime::LocalRuntime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::backend::{self, Hint, Pool, Scripts};
use crate::cluster::Topology;
use crate::local::{Facts, Proxy};
use crate::net::Stream;
use crate::net::tls::{ServerTls, TlsTrouble};
use crate::session::{self, Message, Plans, Session, Shared};
use crate::stats::Stats;

use linger::Linger;

/// How often silent nodes and waiting requests are looked after.
const TICK: Duration = Duration::from_millis(50);
/// How often replies are looked after that wait for the rest of their batch: as short as the runtime's timer can.
const PATIENCE: Duration = Duration::from_millis(1);
/// Tasks run between two looks at the sockets: enough for all connections that one look can make ready, so that requests
/// of one turn share a write, and few enough that new data does not wait long.
const EVENT_INTERVAL: u32 = 256;

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How clients are dealt with.
    pub session: session::Options,
    /// How nodes are dealt with.
    pub backend: backend::Options,
    /// What all workers share.
    pub proxy: Arc<Proxy>,
    /// What was learned of the nodes so far.
    pub facts: Arc<Facts>,
    /// Where topologies are published.
    pub topology: Arc<ArcSwap<Topology>>,
    /// The worker's numbers.
    pub stats: Arc<Stats>,
    /// The way to discovery.
    pub hints: UnboundedSender<Hint>,
    /// The scripts that were loaded through the proxy.
    pub scripts: Arc<Scripts>,
    /// What the cursors of `SCAN` stand for.
    pub plans: Arc<Plans>,
    /// The ways to all workers.
    pub workers: Vec<UnboundedSender<Message>>,
    /// How long a busy worker waits before it looks at the sockets again; zero for never.
    pub linger: Duration,
    /// How long the worker may take to finish what is under way when nobody is left to tell it to stop.
    pub drain_timeout: Duration,
}

/// Starts a worker that lives until it is told to drain or its inbox closes.
pub fn spawn(
    number: usize,
    setup: Setup,
    inbox: UnboundedReceiver<Message>,
) -> io::Result<JoinHandle<()>> {
    let start = move || {
        let built = build(Arc::new(Linger::new(setup.linger, Arc::clone(&setup.stats))));
        match built {
            Ok(runtime) => runtime.block_on(run(setup, inbox)),
            Err(error) => tracing::error!(worker = number, %error, "cannot start the worker"),
        }
    };
    thread::Builder::new().name(format!("worker-{number}")).spawn(start)
}

fn build(linger: Arc<Linger>) -> io::Result<LocalRuntime> {
    let before = Arc::clone(&linger);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .on_thread_park(move || before.before_look())
        .on_thread_unpark(move || linger.after_look())
        .build_local(tokio::runtime::LocalOptions::default())
}

async fn run(setup: Setup, mut inbox: UnboundedReceiver<Message>) {
    let pool = Pool::new(
        setup.backend,
        setup.topology,
        setup.stats,
        setup.hints,
        (setup.scripts, Arc::clone(&setup.proxy.slow_us)),
    );
    let peers = (setup.workers, setup.plans);
    let shared = Shared::new(setup.session, pool, setup.proxy, setup.facts, peers);
    tokio::task::spawn_local(tend(Rc::clone(&shared)));
    tokio::task::spawn_local(press(Rc::clone(&shared)));
    let mut patience = setup.drain_timeout;
    while let Some(message) = inbox.recv().await {
        if let Message::Drain(given) = message {
            patience = given;
            break;
        }
        take(&shared, message);
    }
    drain(&shared, patience, inbox).await;
}

fn take(shared: &Rc<Shared>, message: Message) {
    match message {
        Message::Accept(stream, tls) => accept(shared, stream, tls),
        Message::Refresh => {
            shared.pool.refresh();
            shared.hub.tick();
            shared.tracker.tick();
            shared.roster.wake_all();
        }
        Message::Learn(facts) => *shared.facts.borrow_mut() = facts,
        Message::Muster(muster, asker, answer) => {
            // Whoever asked may be gone.
            let _ = answer.send(shared.share(&muster, asker));
        }
        Message::Surplus(topic, node, sent, answer) => {
            let _ = answer.send(shared.hub.surplus(&topic, node.as_ref(), sent));
        }
        Message::ListTopics(answer) => {
            let _ = answer.send(shared.hub.topics());
        }
        Message::Redirected(redirected) => shared.tell_redirected(&redirected),
        Message::Broken(id) => shared.tracker.broken(id),
        Message::Monitor(lines) => shared.add_monitor(lines),
        Message::Drain(_) => {}
    }
}

fn accept(shared: &Rc<Shared>, stream: std::net::TcpStream, tls: Option<ServerTls>) {
    match (TcpStream::from_std(stream), tls) {
        (Ok(stream), None) => {
            tokio::task::spawn_local(Session::new(Rc::clone(shared), Stream::Plain(stream)));
        }
        (Ok(stream), Some(tls)) => {
            tokio::task::spawn_local(welcome(Rc::clone(shared), stream, tls));
        }
        (Err(error), _) => {
            shared.see_off();
            tracing::warn!(%error, "cannot take over a client's connection");
        }
    }
}

/// Agrees with a client on TLS, while others are served.
async fn welcome(shared: Rc<Shared>, stream: TcpStream, tls: ServerTls) {
    let client = stream.peer_addr().map_or_else(|_| "?".to_owned(), |peer| peer.to_string());
    match tls.welcome(stream).await {
        Ok(stream) => {
            tokio::task::spawn_local(Session::new(shared, stream));
        }
        Err(error) => {
            shared.see_off();
            shared.pool.stats.failed_handshakes.add(1);
            if let Some(trouble) = TlsTrouble::of(&error) {
                tracing::info!(client, error = %trouble, "no TLS with a client");
            } else {
                // Who only looks whether somebody listens comes and goes like this.
                tracing::debug!(client, %error, "no TLS with a client");
            }
        }
    }
}

/// Looks after time: silent nodes, requests that wait, clients that idle.
async fn tend(shared: Rc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0_u64.. {
        ticks.tick().await;
        shared.pool.tick();
        shared.hub.tick();
        shared.tend_tracker();
        shared.end_pause();
        shared.gather_slow();
        if !shared.pool.has_map() {
            // Commands for all nodes wait for the map, or for their time to be up.
            shared.roster.wake_all();
        }
        let idle_ms = shared.proxy.idle_ms.load(Relaxed);
        if idle_ms > 0 && tick % 20 == 0 {
            end_idle(&shared, idle_ms);
        }
    }
}

/// Has replies sent that have waited long enough for the rest of their batch.
async fn press(shared: Rc<Shared>) {
    loop {
        poll_fn(|cx| shared.common.patience.poll_waiting(cx)).await;
        sleep(PATIENCE).await;
        shared.common.patience.press();
    }
}

fn end_idle(shared: &Shared, idle_ms: u64) {
    let now = shared.pool.clock.millis();
    let is_idle = |since: u64| now.saturating_sub(since) > idle_ms;
    let ended = shared.roster.end_where(|member| {
        let (replies, client) = (&member.replies, member.client.borrow());
        replies.waiting() == 0
            && replies.unsent() == 0
            && !client.is_subscribed()
            && is_idle(client.active_ms)
    });
    shared.pool.stats.client_timeouts.add(ended);
}

/// Lets the clients finish what they have under way, for as long as may be.
async fn drain(shared: &Rc<Shared>, limit: Duration, mut inbox: UnboundedReceiver<Message>) {
    shared.draining.set(true);
    let deadline = Instant::now() + limit;
    let mut ticks = interval(Duration::from_millis(10));
    while !shared.roster.is_empty() && Instant::now() < deadline {
        shared.roster.wake_all();
        while let Ok(message) = inbox.try_recv() {
            take(shared, message);
        }
        ticks.tick().await;
    }
    // One more turn, for the sessions' sockets to close.
    let mut turned = false;
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        if std::mem::replace(&mut turned, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
