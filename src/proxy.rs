//! Assembly: bind, discover, start the workers, serve; and the same in reverse.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::acl::Users;
use crate::admin::{self, Admin, Jobs, Rights};
use crate::cluster::{Address, Topology};
use crate::discovery::{self, Discovery, Outcomes, published};
use crate::local::{self, Muster, Proxy};
use crate::manage::access::Access;
use crate::manage::plan::Move;
use crate::net::tls::ServerTls;
use crate::observe::{self, Observed, Process};
use crate::session::Message;
use crate::stats::Stats;
use crate::worker::{self, Setup};
use crate::{backend, session};

pub use crate::admin::Changes;

/// Idle time after which the kernel asks whether a client is still there, as Redis' `tcp-keepalive`.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// How long a job may take to finish the slots that are on their way when the proxy ends.
const WIND_UP: Duration = Duration::from_secs(5);

/// From how many microseconds on a command is slow, and how many slow ones are kept: the server's own defaults.
const SLOW_US: i64 = 10_000;
const SLOW_MAX: u64 = 128;
/// Most keys that clients which track are known to have read: the server's own default, but for each worker.
const TRACKED_MAX: u64 = 1_000_000;

/// Everything a proxy can be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address of the data listener; `None` for none but that for TLS.
    pub listen: Option<String>,
    /// Where clients connect that speak TLS, and how that is done; `None` for nowhere.
    pub listen_tls: Option<(String, ServerTls)>,
    /// Address of the HTTP listener; `None` for none.
    pub http: Option<String>,
    /// Address of the admin listener; `None` for none.
    pub admin: Option<String>,
    /// Password that administrators must give.
    pub admin_password: Option<String>,
    /// Whether administrators may have nodes run any command.
    pub admin_call: bool,
    /// Where journals of jobs are; `None` for the usual place.
    pub state_folder: Option<PathBuf>,
    /// Reads all this again; `None` if it is not known from where.
    pub reread: Option<Reread>,
    /// Number of worker threads.
    pub workers: usize,
    /// Who clients may be, and what they may do then.
    pub users: Users,
    /// File of users, which `ACL LOAD` reads and `ACL SAVE` writes.
    pub acl_file: Option<PathBuf>,
    /// Most clients at once.
    pub max_clients: usize,
    /// What clients see of the cluster.
    pub cluster_view: local::View,
    /// Whether `DEBUG` is passed on to the nodes.
    pub allow_debug: bool,
    /// How long a busy worker waits for more to do at once; zero for never.
    pub linger: Duration,
    /// How long the proxy goes on accepting after it has said that it is not ready any more.
    pub drain_delay: Duration,
    /// How long clients may take to finish what is under way.
    pub drain_timeout: Duration,
    /// How clients are dealt with.
    pub session: session::Options,
    /// How nodes are dealt with.
    pub backend: backend::Options,
    /// How the cluster is discovered.
    pub discovery: discovery::Options,
}

/// Reads the configuration again, or says why that cannot be.
#[derive(Clone)]
pub struct Reread(pub Arc<dyn Fn() -> Result<Reading, String> + Send + Sync>);

impl fmt::Debug for Reread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reread")
    }
}

/// A configuration that was read again.
#[derive(Debug)]
pub struct Reading {
    /// What it says.
    pub options: Options,
    /// What is other than before.
    pub changes: Changes,
}

/// How long the end may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    delay: Duration,
    timeout: Duration,
}

impl Options {
    fn rights(&self) -> Rights {
        Rights { password: self.admin_password.clone(), may_call: self.admin_call }
    }

    fn patience(&self) -> Patience {
        Patience { delay: self.drain_delay, timeout: self.drain_timeout }
    }

    /// The host or address that clients connect to.
    fn bind(&self) -> &str {
        let secure = self.listen_tls.as_ref().map(|(address, _)| address);
        let address = self.listen.as_ref().or(secure);
        address.and_then(|address| address.rsplit_once(':')).map_or("", |(host, _)| host)
    }

    fn idle_ms(&self) -> u64 {
        u64::try_from(self.session.idle_timeout.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A proxy that is up.
#[derive(Debug)]
pub struct Running {
    /// Address of the data listener; of that for TLS if there is no other.
    pub data: SocketAddr,
    /// Address of the listener for TLS.
    pub tls: Option<SocketAddr>,
    /// Address of the HTTP listener.
    pub http: Option<SocketAddr>,
    /// Address of the admin listener.
    pub admin: Option<SocketAddr>,
    administration: Arc<Admin>,
    topology: Arc<ArcSwap<Topology>>,
    patience: Arc<ArcSwap<Patience>>,
    draining: Arc<AtomicBool>,
    /// Administrators who want it to end, with how long clients may take.
    drains: UnboundedReceiver<Option<Duration>>,
    stage: watch::Sender<Stage>,
    inboxes: Vec<UnboundedSender<Message>>,
    workers: Vec<JoinHandle<()>>,
    control: JoinSet<()>,
    pages: JoinSet<()>,
}

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not begun.
    Serving,
    /// No more clients are accepted.
    Closing,
    /// All clients are gone.
    Empty,
}

impl Running {
    /// The snapshot that is in force.
    pub fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// Waits until a topology is known.
    pub async fn ready(&self) {
        while self.topology.load().covered() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until an administrator wants it to end.
    pub async fn told_to_drain(&mut self) {
        if let Some(Some(timeout)) = self.drains.recv().await {
            let delay = self.patience.load().delay;
            self.patience.store(Arc::new(Patience { delay, timeout }));
        }
    }

    /// Reads the configuration again, and does what it says as far as that can be done while the proxy runs.
    pub fn reload(&self) -> Result<Changes, String> {
        (self.administration.reload)()
    }

    /// Says that it is not ready any more, stops accepting, lets clients finish, and ends; bounded by the drain times. Health
    /// and metrics are served until the clients have finished.
    pub async fn shutdown(mut self) {
        self.draining.store(true, Relaxed);
        let Patience { delay, timeout } = **self.patience.load();
        tokio::time::sleep(delay).await;
        self.stage.send_replace(Stage::Closing);
        for inbox in &self.inboxes {
            // A worker that is gone needs no telling.
            let _ = inbox.send(Message::Drain(timeout));
        }
        let workers = std::mem::take(&mut self.workers);
        let joined = tokio::task::spawn_blocking(move || {
            for worker in workers {
                // A worker that panicked has said so.
                let _ = worker.join();
            }
        });
        let wound_up = self.administration.jobs.wind_up(WIND_UP);
        let (joined, ()) = tokio::join!(joined, wound_up);
        if joined.is_err() {
            tracing::error!("a worker could not be joined");
        }
        self.stage.send_replace(Stage::Empty);
        while self.pages.join_next().await.is_some() {}
        self.control.shutdown().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let timeout = self.patience.load().timeout;
        for inbox in &self.inboxes {
            // A worker that is gone needs no telling.
            let _ = inbox.send(Message::Drain(timeout));
        }
    }
}

/// Starts a proxy. It listens at once, and is ready when a topology is known. Needs a tokio runtime for its control plane,
/// and stops when the returned value is dropped.
pub async fn start(options: Options) -> Result<Running> {
    let listeners = listen(&options).await?;
    let (data, tls) = addresses(&listeners)?;
    let proxy = Arc::new(describe(&options, data.port()));
    let topology = Arc::new(ArcSwap::from_pointee(Topology::default()));
    let outcomes = Arc::new(Outcomes::default());
    let discovery =
        Discovery::new(options.discovery.clone(), Arc::clone(&topology), Arc::clone(&outcomes));
    let (hints, hinted) = mpsc::unbounded_channel();
    let (inboxes, receivers): (Vec<_>, Vec<_>) =
        (0..options.workers).map(|_| mpsc::unbounded_channel()).unzip();
    let stats: Vec<Arc<Stats>> = (0..options.workers).map(|_| Arc::default()).collect();
    let mut control = JoinSet::new();
    let draining = Arc::<AtomicBool>::default();
    let observed = Arc::new(Observed {
        workers: stats.clone(),
        topology: Arc::clone(&topology),
        draining: Arc::clone(&draining),
        process: process(Arc::clone(&proxy), outcomes),
    });
    let (stage, stages) = watch::channel(Stage::Serving);
    let hand_over = hand_over(Arc::clone(&topology), inboxes.clone(), hints.clone());
    let patience = Arc::new(ArcSwap::from_pointee(options.patience()));
    let (rights, reload) = reloading(&options, &proxy, &patience, inboxes.clone());
    let administered = (&options, Arc::clone(&observed), &proxy);
    let (administration, drains) =
        administration(administered, (rights, reload), hints.clone(), hand_over);
    let administration = Arc::new(administration);
    let (http, pages) =
        listen_http(options.http.as_deref(), observed, &administration, stages.clone()).await?;
    control.spawn(admin::adopt(&administration));
    let admin = listen_admin(options.admin.as_deref(), &administration, &mut control).await?;
    let setup = Setup {
        session: options.session,
        backend: options.backend,
        proxy: Arc::clone(&proxy),
        facts: discovery.facts(),
        topology: Arc::clone(&topology),
        stats: Arc::default(),
        hints,
        scripts: Arc::default(),
        plans: Arc::default(),
        workers: inboxes.clone(),
        linger: options.linger,
        drain_timeout: options.drain_timeout,
    };
    let workers = spawn_workers(&setup, receivers, &stats)?;
    control.spawn(discovery.run(hinted, announcer(inboxes.clone())));
    let acceptor = Arc::new(Acceptor { proxy, inboxes: inboxes.clone(), stats });
    for listener in listeners {
        control.spawn(accept(listener, Arc::clone(&acceptor), stages.clone()));
    }
    Ok(Running {
        data,
        tls,
        http,
        admin,
        administration,
        topology,
        patience,
        draining,
        drains,
        stage,
        inboxes,
        workers,
        control,
        pages,
    })
}

/// Where clients come in.
struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    /// What they have to speak.
    tls: Option<ServerTls>,
}

/// Where clients connect: without TLS if that is possible, and with it.
fn addresses(listeners: &[Listener]) -> Result<(SocketAddr, Option<SocketAddr>)> {
    let address = |secure: bool| {
        let mut listeners = listeners.iter().filter(|listener| listener.tls.is_some() == secure);
        listeners.next().map(|listener| listener.address)
    };
    let tls = address(true);
    Ok((address(false).or(tls).context("no listener for clients")?, tls))
}

/// All listeners for clients.
async fn listen(options: &Options) -> Result<Vec<Listener>> {
    let plain = options.listen.as_ref().map(|address| (address, None));
    let secure = options.listen_tls.as_ref().map(|(address, tls)| (address, Some(tls.clone())));
    let mut listeners = Vec::new();
    for (address, tls) in plain.into_iter().chain(secure) {
        let socket = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for clients"))?;
        listeners.push(Listener { address: socket.local_addr()?, socket, tls });
    }
    Ok(listeners)
}

/// One worker for each inbox.
fn spawn_workers(
    setup: &Setup,
    inboxes: Vec<UnboundedReceiver<Message>>,
    stats: &[Arc<Stats>],
) -> Result<Vec<JoinHandle<()>>> {
    let numbered = inboxes.into_iter().zip(stats).enumerate();
    let spawned = numbered.map(|(number, (inbox, stats))| {
        let setup = Setup { stats: Arc::clone(stats), ..setup.clone() };
        worker::spawn(number, setup, inbox)
    });
    spawned.collect::<Result<_, _>>().context("cannot start a worker thread")
}

/// Serves metrics, health and administrators, if that is wanted, until all clients are gone.
async fn listen_http(
    address: Option<&str>,
    observed: Arc<Observed>,
    admin: &Arc<Admin>,
    mut stages: watch::Receiver<Stage>,
) -> Result<(Option<SocketAddr>, JoinSet<()>)> {
    let mut pages = JoinSet::new();
    let Some(address) = address else { return Ok((None, pages)) };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for HTTP"))?;
    let bound = listener.local_addr()?;
    // A proxy that was dropped has no clients any more either.
    let empty = async move { drop(stages.wait_for(|stage| *stage == Stage::Empty).await) };
    let others = admin::router(Arc::clone(admin));
    pages.spawn(async move {
        if let Err(error) = observe::serve(listener, observed, others, empty).await {
            tracing::error!(%error, "HTTP is not served any more");
        }
    });
    Ok((Some(bound), pages))
}

/// Serves administrators, if that is wanted, until the proxy ends.
async fn listen_admin(
    address: Option<&str>,
    admin: &Arc<Admin>,
    control: &mut JoinSet<()>,
) -> Result<Option<SocketAddr>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for administrators"))?;
    let bound = listener.local_addr()?;
    control.spawn(admin::serve(listener, Arc::clone(admin)));
    Ok(Some(bound))
}

/// What a configuration that is read again changes in a running proxy.
type Reload = Box<dyn Fn() -> Result<Changes, String> + Send + Sync>;

/// The way to read the configuration again, and what administrators may do by the one that was read last.
fn reloading(
    options: &Options,
    proxy: &Arc<Proxy>,
    patience: &Arc<ArcSwap<Patience>>,
    inboxes: Vec<UnboundedSender<Message>>,
) -> (Arc<ArcSwap<Rights>>, Reload) {
    let rights = Arc::new(ArcSwap::from_pointee(options.rights()));
    let (given, proxy, patience) = (Arc::clone(&rights), Arc::clone(proxy), Arc::clone(patience));
    let (reread, last) = (options.reread.clone(), ArcSwap::from_pointee(options.clone()));
    let users = ArcSwap::from_pointee(options.users.clone());
    let (way, listen_tls) = (options.backend.way.clone(), options.listen_tls.clone());
    let reload = move || {
        let Some(Reread(reread)) = &reread else {
            return Err("the proxy was started without a configuration file".to_owned());
        };
        let Reading { options, changes } = reread()?;
        let last = last.swap(Arc::new(options.clone()));
        // What was changed since in another way stays, unless the configuration says something else than before.
        if options.max_clients != last.max_clients {
            proxy.max_clients.store(options.max_clients as u64, Relaxed);
        }
        if options.idle_ms() != last.idle_ms() {
            proxy.idle_ms.store(options.idle_ms(), Relaxed);
        }
        patience.store(Arc::new(options.patience()));
        given.store(Arc::new(options.rights()));
        if let (Some(tls), Some(now)) = (&way.tls, &options.backend.way.tls) {
            tls.renew(now);
        }
        if let (Some((_, tls)), Some((_, now))) = (&listen_tls, &options.listen_tls) {
            tls.renew(now);
        }
        // A file of users is for `ACL LOAD`, which says so.
        let is_of_files = proxy.acl_file.is_some() || options.acl_file.is_some();
        if !is_of_files && **users.load() != options.users {
            users.store(Arc::new(options.users.clone()));
            proxy.users.store(Arc::new(options.users));
            renew_users(&inboxes);
        }
        Ok(changes)
    };
    (rights, Box::new(reload))
}

/// Has the clients of all workers be the users that are in force now.
fn renew_users(inboxes: &[UnboundedSender<Message>]) {
    // No client has this number.
    const NOBODY: u64 = 0;
    for inbox in inboxes {
        let (answer, _) = oneshot::channel();
        // A worker that is gone has no clients.
        let _ = inbox.send(Message::Muster(Muster::Renew(None), NOBODY, answer));
    }
}

/// What administrators work with, and what they want of the process.
fn administration(
    (options, observed, proxy): (&Options, Arc<Observed>, &Arc<Proxy>),
    (rights, reload): (Arc<ArcSwap<Rights>>, Reload),
    hints: UnboundedSender<backend::Hint>,
    hand_over: Box<dyn Fn(&Move) + Send + Sync>,
) -> (Admin, UnboundedReceiver<Option<Duration>>) {
    let seeds = options.discovery.seeds.iter().filter_map(|seed| Address::parse(seed, None));
    let (drain, drains) = mpsc::unbounded_channel();
    let admin = Admin {
        rights,
        access: Access { limit: Access::default().limit, ..options.discovery.access.clone() },
        seeds: seeds.collect(),
        observed,
        // Discovery lives as long as the proxy.
        refresh: Box::new(move || drop(hints.send(backend::Hint::Refresh))),
        hand_over,
        proxy: Arc::clone(proxy),
        drain,
        reload,
        state_folder: options.state_folder.clone(),
        runtime: tokio::runtime::Handle::current(),
        jobs: Jobs::default(),
        started: Instant::now(),
        clients: AtomicU64::new(0),
    };
    (admin, drains)
}

/// Has clients' requests go where slots have moved, before a node sends them there.
fn hand_over(
    topology: Arc<ArcSwap<Topology>>,
    inboxes: Vec<UnboundedSender<Message>>,
    hints: UnboundedSender<backend::Hint>,
) -> Box<dyn Fn(&Move) + Send + Sync> {
    let announce = announcer(inboxes);
    Box::new(move |part| match published::moved(&topology, &part.slots, &part.to) {
        Some(is_new) => announce(discovery::News { topology: is_new, facts: None }),
        // Discovery lives as long as the proxy.
        None => drop(hints.send(backend::Hint::Refresh)),
    })
}

/// The numbers that belong to no worker, as they are when asked for.
fn process(proxy: Arc<Proxy>, outcomes: Arc<Outcomes>) -> Box<dyn Fn() -> Process + Send + Sync> {
    Box::new(move || Process {
        accepted: proxy.accepted.load(Relaxed),
        rejected: proxy.rejected.load(Relaxed),
        refreshes: outcomes.succeeded.load(Relaxed),
        failed_refreshes: outcomes.failed.load(Relaxed),
        topology_age: outcomes.age(),
    })
}

fn describe(options: &Options, port: u16) -> Proxy {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = u64::try_from(now.as_nanos() % u128::from(u64::MAX)).unwrap_or(0);
    Proxy {
        run_id: format!(
            "{seed:016x}{:08x}{:016x}",
            std::process::id(),
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ),
        port,
        users: ArcSwap::from_pointee(options.users.clone()),
        acl_file: options.acl_file.clone(),
        bind: options.bind().to_owned(),
        max_clients: AtomicU64::new(options.max_clients as u64),
        idle_ms: AtomicU64::new(options.idle_ms()),
        slow_us: Arc::new(AtomicI64::new(SLOW_US)),
        slow_max: AtomicU64::new(SLOW_MAX),
        slow_count: AtomicU64::new(0),
        tracked_max: AtomicU64::new(TRACKED_MAX),
        monitor_lost: AtomicU64::new(0),
        view: options.cluster_view,
        allow_debug: options.allow_debug,
        max_bulk: options.session.limits.bulk,
        started_s: now.as_secs(),
        clients: AtomicU64::new(0),
        rejected: AtomicU64::new(0),
        subscribers: AtomicU64::new(0),
        accepted: AtomicU64::new(0),
        before: <[AtomicU64; 2]>::default(),
    }
}

/// Tells all workers what discovery found.
fn announcer(inboxes: Vec<UnboundedSender<Message>>) -> impl Fn(discovery::News) {
    move |news| {
        for inbox in &inboxes {
            // A worker that is gone needs no news.
            if news.topology {
                let _ = inbox.send(Message::Refresh);
            }
            if let Some(facts) = &news.facts {
                let _ = inbox.send(Message::Learn(Arc::clone(facts)));
            }
        }
    }
}

/// Gives each new client to the worker that has the fewest.
struct Acceptor {
    proxy: Arc<Proxy>,
    inboxes: Vec<UnboundedSender<Message>>,
    stats: Vec<Arc<Stats>>,
}

async fn accept(listener: Listener, acceptor: Arc<Acceptor>, mut stages: watch::Receiver<Stage>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            _ = stages.changed() => return,
        };
        match accepted {
            Ok((stream, _)) => acceptor.place(stream, listener.tls.as_ref()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                // Out of file descriptors, most likely: time for some to be closed.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Acceptor {
    fn place(&self, stream: TcpStream, tls: Option<&ServerTls>) {
        if self.proxy.clients.fetch_add(1, Relaxed) >= self.proxy.max_clients.load(Relaxed) {
            self.proxy.clients.fetch_sub(1, Relaxed);
            self.proxy.rejected.fetch_add(1, Relaxed);
            if tls.is_none() {
                // A fresh socket's buffer takes this at once, or the client is gone.
                let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
            }
            return;
        }
        let placed = self.hand_over(stream, tls);
        if let Err(error) = placed {
            self.proxy.clients.fetch_sub(1, Relaxed);
            tracing::warn!(%error, "cannot hand a client to a worker");
        }
    }

    fn hand_over(&self, stream: TcpStream, tls: Option<&ServerTls>) -> Result<()> {
        stream.set_nodelay(true)?;
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        let number = (0..self.inboxes.len())
            .min_by_key(|n| self.stats[*n].clients.load(Relaxed))
            .context("no workers")?;
        self.stats[number].clients.fetch_add(1, Relaxed);
        Ok(self.inboxes[number].send(Message::Accept(stream.into_std()?, tls.cloned()))?)
    }
}
