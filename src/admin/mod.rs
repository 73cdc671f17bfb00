//! The admin port: what an operator asks of a running proxy, in RESP, so that any client is an admin shell.
//!
//! ```text
//!  connection   bytes to words, answers to bytes; one task for each client
//!  words        which words there are, and who answers them
//!  ├─ cluster     the cluster, as its nodes tell it and as the proxy has it
//!  ├─ jobs        what changes the cluster, one at a time: `order` is what is wanted (pure), `job` how far it is,
//!  │              `run` (`create`, `fix`, `data`) does it by means of `manage`, `ledger` has it on disk,
//!  │              `latecomers` hear of it who were away
//!  ├─ every       what all nodes are asked, each by itself
//!  ├─ proxy       the proxy's own numbers
//!  └─ settings    what of the proxy itself can be changed
//!  audit        what the log tells of those who change something
//!  web          the same over HTTP, and a page
//!  answer       replies in either version of the protocol                       (pure)
//!  complaint    errors, each with a code that machines read                     (pure)
//! ```
//! Runs on the control thread, apart from the way of clients' requests.

mod answer;
mod audit;
mod cluster;
mod complaint;
mod connection;
mod create;
mod data;
mod every;
mod fix;
#[expect(clippy::disallowed_types, reason = "a job's status is no worker's")]
mod job;
#[expect(clippy::disallowed_types, reason = "the list of jobs is no worker's")]
mod jobs;
mod latecomers;
mod ledger;
mod order;
mod proxy;
mod run;
mod settings;
mod web;
mod words;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

use crate::cluster::{Address, Topology};
use crate::local::Proxy;
use crate::manage::access::Access;
use crate::manage::plan::Move;
use crate::observe::Observed;
use complaint::Complaint;
pub use jobs::Jobs;
pub use web::router;

/// Most clients at once; there are few administrators, and each may take memory for a request.
const CLIENTS: usize = 64;

/// What the admin port works with.
pub struct Admin {
    /// Who is an administrator, and what they may do; another one once the configuration was read again.
    pub rights: Arc<ArcSwap<Rights>>,
    /// How nodes are reached.
    pub access: Access,
    /// Nodes that are asked as long as no map is known.
    pub seeds: Vec<Address>,
    /// The proxy, as it is looked at from outside.
    pub observed: Arc<Observed>,
    /// Has the map of the cluster looked at again.
    pub refresh: Box<dyn Fn() + Send + Sync>,
    /// Has the map of the cluster say that slots have moved.
    pub hand_over: Box<dyn Fn(&Move) + Send + Sync>,
    /// The proxy's settings that can be changed.
    pub proxy: Arc<Proxy>,
    /// Has the proxy end, and clients take no longer than this, or than is usual.
    pub drain: UnboundedSender<Option<Duration>>,
    /// Reads the configuration again, or says why not.
    pub reload: Box<dyn Fn() -> Result<Changes, String> + Send + Sync>,
    /// Where journals of jobs are; `None` for where other programs of this user keep them.
    pub state_folder: Option<PathBuf>,
    /// Where what outlives a job goes on.
    pub runtime: tokio::runtime::Handle,
    /// The jobs.
    pub jobs: Jobs,
    /// When the proxy was started.
    pub started: Instant,
    /// Clients so far; also the source of their numbers.
    pub clients: AtomicU64,
}

/// What is asked of administrators, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Password that they must give.
    pub password: Option<String>,
    /// Whether nodes may be called with any command.
    pub may_call: bool,
}

/// What a configuration that was read again says otherwise than before, as `section.key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What has taken effect.
    pub applied: Vec<String>,
    /// What takes effect when the proxy is started again.
    pub pending: Vec<String>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admin")
    }
}

/// Takes in the jobs of earlier proxies; what is given goes on with those that were cut off with them.
pub fn adopt(admin: &Arc<Admin>) -> impl Future<Output = ()> + Send + use<> {
    let (cut_off, admin) = (jobs::recall(admin), Arc::clone(admin));
    async move { jobs::adopt(&admin, cut_off).await }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let mut clients = JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) if clients.len() >= CLIENTS => {
                // A fresh socket's buffer takes this at once, or the client is gone.
                let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
            }
            Ok((stream, peer)) => {
                let (admin, number) = (Arc::clone(&admin), admin.clients.fetch_add(1, Relaxed) + 1);
                clients.spawn(async move {
                    let served: io::Result<()> =
                        connection::serve(stream, admin, (number, peer)).await;
                    if let Err(error) = served {
                        tracing::debug!(%peer, %error, "an administrator's connection broke");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an administrator");
                // Out of file descriptors, most likely: time for some to be closed.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Admin {
    fn topology(&self) -> Arc<Topology> {
        self.observed.topology.load_full()
    }

    /// Where the cluster is asked: its nodes, those first that are not held for failed, or the seeds if none is known.
    fn entries(&self) -> Result<Vec<Address>, Complaint> {
        let topology = self.topology();
        let mut nodes: Vec<_> = topology.nodes().iter().collect();
        nodes.sort_by_key(|node| (node.failed, node.primary.is_some()));
        let known = nodes.into_iter().map(|node| node.address.clone());
        let entries: Vec<Address> = known.chain(self.seeds.iter().cloned()).collect();
        if entries.is_empty() {
            Err(Complaint::Unreachable("no node is known".into()))
        } else {
            Ok(entries)
        }
    }
}
