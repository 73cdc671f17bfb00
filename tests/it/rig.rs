//! A proxy in front of a fake cluster, set up for one test and taken down behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slotway::acl::Users;
use slotway::backend::ReadFrom;
use slotway::backend::control::Access;
use slotway::cluster::Topology;
use slotway::local::View;
use slotway::net::Way;
use slotway::proxy::{self, Options, Running};
use slotway::resp::frame::Limits;
use slotway::{backend, discovery, session};
use tokio::time::{sleep, timeout};

use crate::client::{Client, PATIENCE};
use crate::fake::{Cluster, Node};

/// Longest time a test may take.
const LONGEST: Duration = Duration::from_secs(30);

/// What a test wants otherwise than usual.
type Change = Box<dyn FnOnce(&mut Options)>;

/// What a test starts with.
pub(crate) struct Setup {
    primaries: usize,
    replicas: usize,
    /// The nodes that the proxy is told of.
    seeds: Vec<usize>,
    changes: Vec<Change>,
}

/// A proxy and the cluster behind it.
pub(crate) struct Rig {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) data: SocketAddr,
    proxy: Option<Running>,
}

/// A proxy in front of so many primaries.
pub(crate) fn rig(primaries: usize) -> Setup {
    Setup { primaries, replicas: 0, seeds: (0..primaries.min(3)).collect(), changes: Vec::new() }
}

impl Setup {
    /// With so many replicas of each primary.
    pub(crate) fn replicas(self, replicas: usize) -> Self {
        Self { replicas, ..self }
    }

    /// With these nodes as seeds.
    pub(crate) fn seeds(self, seeds: &[usize]) -> Self {
        Self { seeds: seeds.to_vec(), ..self }
    }

    /// With other options.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Options) + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// With an admin port.
    pub(crate) fn administered(self) -> Self {
        self.with(|options| options.admin = Some("127.0.0.1:0".to_owned()))
    }

    /// With so much time for a request to find its node.
    pub(crate) fn budget(self, budget: Duration) -> Self {
        self.with(move |options| options.backend.request_budget = budget)
    }

    /// Starts the proxy, waits until it knows the cluster, and runs the test.
    pub(crate) fn run(self, test: impl AsyncFnOnce(&mut Rig)) {
        self.run_from(
            async |_| {},
            async |rig| {
                rig.proxy().ready().await;
                test(rig).await;
            },
        );
    }

    /// Does something with the cluster before there is a proxy; does not wait until the proxy knows the cluster.
    pub(crate) fn run_from(
        self,
        before: impl AsyncFnOnce(&Cluster),
        test: impl AsyncFnOnce(&mut Rig),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        let whole = async {
            let cluster = Cluster::start(self.primaries, self.replicas);
            before(&cluster).await;
            let seeds = self.seeds.iter().map(|seed| cluster.node(*seed).address());
            let mut options = options(seeds.collect());
            for change in self.changes {
                change(&mut options);
            }
            let proxy = proxy::start(options).await.expect("the proxy starts");
            let cluster = Arc::new(cluster);
            let mut rig = Rig { cluster, data: proxy.data, proxy: Some(proxy) };
            test(&mut rig).await;
            rig.shutdown().await;
        };
        runtime.block_on(async { timeout(LONGEST, whole).await.expect("the test ends in time") });
    }
}

/// Everything short, and one worker, so that what one client does meets what others do.
fn options(seeds: Vec<String>) -> Options {
    Options {
        listen: Some("127.0.0.1:0".to_owned()),
        listen_tls: None,
        http: None,
        admin: None,
        admin_password: None,
        admin_call: false,
        state_folder: None,
        reread: None,
        workers: 1,
        users: Users::default(),
        acl_file: None,
        max_clients: 1000,
        cluster_view: View::Hidden,
        allow_debug: false,
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::from_secs(2),
        linger: Duration::from_micros(50),
        session: session::Options {
            limits: Limits {
                args: 1 << 20,
                bulk: 64 << 20,
                request: 128 << 20,
                unauthenticated: false,
            },
            window: 1024,
            output_limit: 1 << 20,
            output_max: 1 << 30,
            pubsub_limit: 32 << 20,
            idle_timeout: Duration::ZERO,
            read_own_writes: Duration::ZERO,
            cross_slot: session::CrossSlot::Strict,
            transactions: session::Transactions::Whole,
            queueing: session::Queueing::Proxy,
            ping: session::Ping::Proxy,
        },
        backend: backend::Options {
            connect_timeout: Duration::from_millis(500),
            response_timeout: Duration::from_secs(5),
            request_budget: Duration::from_secs(3),
            queue_requests: 10_000,
            queue_bytes: 64 << 20,
            exclusive_connections: 100,
            read_from: ReadFrom::Primary,
            near: Vec::new(),
            credentials: None,
            way: Way::default(),
        },
        discovery: discovery::Options {
            seeds,
            interval: Duration::from_millis(30),
            spacing: Duration::from_millis(5),
            access: Access { limit: Duration::from_millis(500), ..Access::default() },
        },
    }
}

impl Rig {
    pub(crate) fn proxy(&self) -> &Running {
        self.proxy.as_ref().expect("the proxy runs")
    }

    /// The proxy itself, to end it in another way.
    pub(crate) fn take_proxy(&mut self) -> Running {
        self.proxy.take().expect("the proxy runs")
    }

    pub(crate) async fn shutdown(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            timeout(PATIENCE, proxy.shutdown()).await.expect("the proxy ends in time");
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.data).await
    }

    /// One at the admin port, which has to be open.
    pub(crate) async fn administrator(&self) -> Client {
        Client::connect(self.proxy().admin.expect("the admin port is open")).await
    }

    pub(crate) async fn resp3_client(&self) -> Client {
        let mut client = self.client().await;
        let hello = client.ask("HELLO 3").await;
        assert!(hello.starts_with("%7\r\n"), "{hello}");
        client
    }

    pub(crate) fn node(&self, number: usize) -> &Node {
        self.cluster.node(number)
    }

    /// A key of a slot that this node owns.
    pub(crate) fn key(&self, node: usize) -> String {
        self.cluster.key(node, 0)
    }

    /// Lets the nodes tell what is true, and waits until the proxy goes by it.
    pub(crate) async fn announce(&self) -> Arc<Topology> {
        let before = self.proxy().topology();
        self.cluster.announce();
        until("the proxy takes up the new topology", || *self.proxy().topology() != *before).await;
        self.proxy().topology()
    }
}

/// Waits for something to become so.
pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "it never happened that {what}");
        sleep(Duration::from_millis(1)).await;
    }
}
