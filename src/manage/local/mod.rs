//! `slotway local`: a cluster of real server processes on loopback, for trying things out and for tests.
//!
//! ```text
//!  plan     which port is a primary of which slots, which a replica of whom        (pure)
//!  folder   DIR/local.toml and DIR/7001/{redis.conf, nodes.conf, redis.pid, server.log}
//!  server   finds the program, starts processes, stops them
//!  form     ADDSLOTSRANGE, SET-CONFIG-EPOCH, MEET, REPLICATE; then waits for agreement
//!  view     what the nodes say: parsed, compared, printed                          (pure)
//! ```
//!
//! A cluster is up when every node says the same of every slot and every replica is linked; nothing less is reported as
//! success. Only processes that are the server of the node's folder and port are ever signalled, and only folders that `up`
//! made are ever deleted.

mod error;
mod folder;
mod form;
mod plan;
mod server;
mod view;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use folder::{Beginning, Folder, Manifest};
use plan::Plan;
use server::Server;

pub use error::Error;
pub use view::{LocalNode, Role, Seen, Status};

/// Lowest port of the local cluster unless told otherwise; where the tutorials have it.
pub const PORT: u16 = 7001;
/// Where the local cluster lives unless told otherwise.
pub const DIR: &str = ".slotway-local";
/// How often a running cluster is looked at for servers that have ended.
const LOOK: Duration = Duration::from_millis(200);

/// What [`up`] makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Port of the first node, the others follow; 0 looks for free ones. Each node's bus port is 10000 higher.
    pub port: u16,
    /// Number of nodes.
    pub nodes: u16,
    /// Replicas of each primary.
    pub replicas: u16,
    /// Folder of the cluster: one folder per node below it.
    pub dir: PathBuf,
    /// Whether the data stays when the cluster stops, and is used again at the next start.
    pub keep: bool,
    /// How long a node may be silent before the others suspect it.
    pub node_timeout_ms: u64,
    /// The server program; else `SLOTWAY_SERVER`, else valkey-server or redis-server on `PATH`.
    pub server: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let dir = PathBuf::from(DIR);
        Self {
            port: PORT,
            nodes: 6,
            replicas: 1,
            dir,
            keep: false,
            node_timeout_ms: 5000,
            server: None,
        }
    }
}

/// A cluster that this process started. Dropping it kills the servers; [`stop`](Self::stop) ends them properly, and
/// [`detach`](Self::detach) leaves them running.
#[derive(Debug)]
pub struct Local {
    /// The nodes as they were when the cluster was up, in order of their ports.
    pub nodes: Vec<LocalNode>,
    servers: Vec<Server>,
    folder: Folder,
    keep: bool,
}

impl Local {
    /// Stops every server and deletes the data, unless it is to be kept.
    pub async fn stop(mut self) -> Result<(), Error> {
        server::stop(&mut self.servers).await;
        if self.keep { Ok(()) } else { self.folder.remove(self.nodes.iter().map(|node| node.port)) }
    }

    /// Leaves the servers running; [`down`] stops them later.
    pub fn detach(self) -> Vec<LocalNode> {
        self.servers.into_iter().for_each(Server::detach);
        self.nodes
    }

    /// Waits until a server has ended by itself, and says which; `None` once none is left.
    pub async fn next_exit(&mut self) -> Option<(String, ExitStatus)> {
        while !self.servers.is_empty() {
            for index in 0..self.servers.len() {
                if let Some(status) = self.servers[index].exited() {
                    return Some((plan::address(self.servers.remove(index).port()), status));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }
}

/// Starts the servers, forms the cluster, and returns once all nodes agree; on failure nothing is left running.
pub async fn up(options: &Options) -> Result<Local, Error> {
    up_telling(options, |_| ()).await
}

/// As [`up`], and tells of each stage when it begins, in a line of text.
pub async fn up_telling(options: &Options, tell: fn(&str)) -> Result<Local, Error> {
    let start = Start::new(options)?;
    let mut servers = Vec::with_capacity(start.plan.seats.len());
    match start.run(&mut servers, tell).await {
        Ok(nodes) => Ok(Local { nodes, servers, folder: start.folder, keep: options.keep }),
        Err(error) => {
            server::stop(&mut servers).await;
            if !options.keep {
                start.folder.remove(start.plan.ports())?;
            }
            Err(error)
        }
    }
}

/// A start that nothing known beforehand speaks against.
struct Start<'a> {
    options: &'a Options,
    program: PathBuf,
    folder: Folder,
    plan: Plan,
    beginning: Beginning,
}

impl<'a> Start<'a> {
    fn new(options: &'a Options) -> Result<Self, Error> {
        let program = server::find(options.server.as_deref())?;
        let folder = Folder::create(&options.dir)?;
        match Self::check(options, &folder) {
            Ok((plan, beginning)) => Ok(Self { options, program, folder, plan, beginning }),
            Err(error) => {
                folder.remove_if_empty();
                Err(error)
            }
        }
    }

    fn check(options: &Options, folder: &Folder) -> Result<(Plan, Beginning), Error> {
        let plan = Plan::new(options, folder.manifest()?.map(|manifest| manifest.port))?;
        let beginning = folder.beginning(&plan, options.replicas, options.keep)?;
        server::check_ports(plan.ports())?;
        Ok((plan, beginning))
    }

    /// Everything that can fail with files written and servers running.
    async fn run(
        &self,
        servers: &mut Vec<Server>,
        tell: fn(&str),
    ) -> Result<Vec<LocalNode>, Error> {
        let Self { options, program, folder, plan, beginning } = self;
        let manifest = Manifest::new(plan, options, *beginning);
        folder.prepare(plan, manifest, options.node_timeout_ms)?;
        let (nodes, root) = (plan.seats.len(), folder.root().display());
        tell(&format!("starting {nodes} servers ({}) in {root}", program.display()));
        for port in plan.ports() {
            servers.push(Server::start(program, &folder.node(port), port)?);
        }
        let mut peers = form::connect(servers).await?;
        if *beginning == Beginning::Fresh {
            form::form(&mut peers, plan, tell).await?;
        }
        tell("waiting until all nodes agree");
        let reports = form::agree(&mut peers).await?;
        folder.write_manifest(Manifest { formed: true, ..manifest })?;
        Ok(servers
            .iter()
            .zip(&reports)
            .filter_map(|(server, report)| form::node(server, report, folder))
            .collect())
    }
}

/// Stops the servers that an earlier [`up`] left running in `dir`, and deletes their data unless that was to be kept.
/// Answers the number of servers stopped.
pub async fn down(dir: &Path) -> Result<usize, Error> {
    let Some((folder, manifest)) = Folder::find(dir)? else { return Ok(0) };
    let mut servers: Vec<_> =
        manifest.ports().filter_map(|port| Server::running(&folder.node(port), port)).collect();
    server::stop(&mut servers).await;
    if !(manifest.keep && manifest.formed) {
        folder.remove(manifest.ports())?;
    }
    Ok(servers.len())
}

/// What runs in `dir`, and what each node says of itself and the others.
pub async fn status(dir: &Path) -> Result<Status, Error> {
    let Some((folder, manifest)) = Folder::find(dir)? else {
        return Err(Error::NoCluster { dir: dir.to_owned() });
    };
    let (mut nodes, mut reports) = (Vec::new(), Vec::new());
    for port in manifest.ports() {
        let (seen, report) = form::look(&folder, port).await;
        nodes.push(seen);
        reports.extend(report);
    }
    Ok(Status::new(nodes, &reports))
}
