//! A cluster of servers: formed with the nodes' own commands, changed, hurt, and asked until all nodes agree.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, Range};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use slotway::backend::Control;
use slotway::cluster::parse::{self, View};
use slotway::cluster::{Address, Slot};
use slotway::resp::value::{self, Value};
use tokio::process::Command;
use tokio::sync::{OnceCell, Semaphore};

use crate::papers::Papers;
use crate::patience::{Turn, alone, beside_others};
use crate::server::{Server, free_ports, program};
use crate::{until, within};

/// Number of slots, as the tests need it.
const SLOTS: usize = 16384;
/// How long the nodes may take to agree, or to replace a primary.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one node may take to answer.
const CALL: Duration = Duration::from_secs(2);

/// Position of a node in its cluster; stays the same for good.
pub(crate) type Node = usize;

/// A cluster whose servers end when it is dropped.
pub(crate) struct Cluster {
    servers: Vec<Server>,
    ids: Vec<String>,
    /// Nodes that do not answer, or are not part of it.
    absent: BTreeSet<Node>,
    /// What its nodes speak TLS with, and nothing else.
    papers: Option<Arc<Papers>>,
}

/// The cluster of the tests that leave it as they found it: three primaries, three replicas. One of them has it at a time.
pub(crate) struct Steady {
    cluster: &'static Cluster,
    /// Of the machine, and before it of the cluster.
    _turns: [Turn; 2],
}

impl Deref for Steady {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.cluster
    }
}

/// The steady cluster, beside tests that have others.
pub(crate) async fn steady() -> Steady {
    steady_with(beside_others()).await
}

/// The steady cluster, and the machine with it: see [`alone`].
pub(crate) async fn steady_alone() -> Steady {
    steady_with(alone()).await
}

async fn steady_with(turn: impl Future<Output = Turn>) -> Steady {
    static STEADY: OnceCell<Cluster> = OnceCell::const_new();
    static FREE: Semaphore = Semaphore::const_new(1);
    // Who waits for the cluster does not keep others from the machine.
    let mine = FREE.acquire().await.expect("nobody closes it");
    let cluster = STEADY.get_or_init(|| Cluster::start(3, 1)).await;
    Steady { cluster, _turns: [turn.await, mine] }
}

impl Cluster {
    /// Forms a cluster: nodes `0..primaries` share the slots evenly, and each has so many replicas. The replicas of node
    /// `n` are `n + primaries`, `n + 2 * primaries`, ….
    pub(crate) async fn start(primaries: usize, replicas: usize) -> Self {
        Self::start_with(primaries, replicas, None).await
    }

    /// The same of nodes that speak TLS with these, if there are any.
    pub(crate) async fn start_with(
        primaries: usize,
        replicas: usize,
        papers: Option<Arc<Papers>>,
    ) -> Self {
        let (servers, ids, absent) = Default::default();
        let mut cluster = Self { servers, ids, absent, papers };
        for _ in 0..primaries * (1 + replicas) {
            cluster.start_node().await;
        }
        cluster.absent.clear();
        for (node, range) in shares(primaries).enumerate() {
            let (first, last) = (range.start.to_string(), (range.end - 1).to_string());
            cluster.call(node, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
            cluster.call(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(node + 1).to_string()]).await;
        }
        for server in &cluster.servers[1..] {
            let port = server.port.to_string();
            cluster.call(0, &["CLUSTER", "MEET", "127.0.0.1", &port]).await;
        }
        until(PATIENCE, "the nodes meet", async || cluster.acquainted().await).await;
        for node in primaries..cluster.servers.len() {
            let primary = cluster.ids[node % primaries].clone();
            cluster.call(node, &["CLUSTER", "REPLICATE", &primary]).await;
        }
        cluster.agreed().await;
        cluster
    }

    /// Starts one more server, which nobody knows yet.
    pub(crate) async fn start_node(&mut self) -> Node {
        let node = self.servers.len();
        self.servers.push(Server::start_with(self.papers.clone()).await);
        let id = self.call(node, &["CLUSTER", "MYID"]).await;
        self.ids.push(value::text(&id).expect("a name").to_owned());
        self.absent.insert(node);
        node
    }

    /// From now on the node counts.
    pub(crate) fn admit(&mut self, node: Node) {
        self.absent.remove(&node);
    }

    /// A node that has left has another name since then.
    pub(crate) async fn rename(&mut self, node: Node) {
        let id = self.call(node, &["CLUSTER", "MYID"]).await;
        value::text(&id).expect("a name").clone_into(&mut self.ids[node]);
    }

    /// Nodes that follow this one, as it tells.
    pub(crate) async fn followers(&self, primary: Node) -> Vec<Node> {
        let view = self.seen_by(primary).await;
        let id = self.id(primary);
        let lines =
            view.nodes.iter().filter(|line| line.primary.as_ref().is_some_and(|of| *of.0 == *id));
        lines.filter(|line| !line.failed).filter_map(|line| self.named(&line.id.0)).collect()
    }

    /// How many nodes each present one knows, and that none knows one by this name.
    pub(crate) async fn has_forgotten(&self, id: &str) {
        for node in self.present() {
            let view = async || self.text(node, &["CLUSTER", "NODES"]).await;
            let nodes = until(PATIENCE, "a view", view).await;
            assert!(!nodes.contains(id), "node {node} still knows {id}: {nodes}");
        }
    }

    /// From now on the node does not count.
    pub(crate) fn dismiss(&mut self, node: Node) {
        self.absent.insert(node);
    }

    /// Kills a server on the spot.
    pub(crate) fn kill9(&mut self, node: Node) {
        self.servers[node].signal(Signal::KILL);
        self.dismiss(node);
    }

    /// From now on what a node acknowledges it still has after it was killed and started again.
    pub(crate) async fn make_durable(&mut self, node: Node) {
        self.call(node, &["CONFIG", "SET", "appendfsync", "always", "appendonly", "yes"]).await;
        until(PATIENCE, "the data are on disk", async || {
            let info = self.text(node, &["INFO", "persistence"]).await?;
            let is_done = info.contains("aof_rewrite_in_progress:0")
                && info.contains("aof_rewrite_scheduled:0")
                && info.contains("aof_last_bgrewrite_status:ok");
            if is_done { Ok(()) } else { Err(info) }
        })
        .await;
        self.servers[node].keep_data();
    }

    /// Starts a killed server again.
    pub(crate) async fn restart(&mut self, node: Node) {
        let port = self.servers[node].port;
        self.servers[node].restart(port).await;
        self.admit(node);
    }

    /// Starts a killed server again, as the same node at another address.
    pub(crate) async fn restart_elsewhere(&mut self, node: Node) {
        let port = free_ports().next().expect("a free port");
        self.servers[node].restart(port).await;
        self.admit(node);
    }

    /// From now on all are told that clients, and nodes that send it keys, find a node at this port.
    pub(crate) async fn announce(&self, node: Node, port: u16) {
        self.announce_as(node, "cluster-announce-port", port, &format!(":{port}@")).await;
    }

    /// From now on all are told that the other nodes find a node at this port.
    pub(crate) async fn announce_bus(&self, node: Node, port: u16) {
        self.announce_as(node, "cluster-announce-bus-port", port, &format!("@{port}")).await;
    }

    /// From now on a node tells the others that they find it at this port, also when it was started again. They need not know
    /// it yet.
    pub(crate) async fn announce_bus_for_good(&mut self, node: Node, port: u16) {
        self.servers[node].keep_bus(port);
        let port = port.to_string();
        self.call(node, &["CONFIG", "SET", "cluster-announce-bus-port", &port]).await;
    }

    async fn announce_as(&self, node: Node, setting: &str, port: u16, told: &str) {
        self.call(node, &["CONFIG", "SET", setting, &port.to_string()]).await;
        until(PATIENCE, "all have heard where it is", async || {
            for other in self.present() {
                let nodes = self.text(other, &["CLUSTER", "NODES"]).await?;
                if !nodes.contains(told) {
                    return Err(nodes);
                }
            }
            Ok(())
        })
        .await;
        self.agreed().await;
    }

    /// Breaks a replica's link with its primary, for as long as it is not told to link again.
    pub(crate) async fn unlink(&self, replica: Node) {
        // It makes no link if the password is refused.
        self.call(replica, &["CONFIG", "SET", "masterauth", "not the password"]).await;
        self.call(replica, &["CLIENT", "KILL", "TYPE", "master"]).await;
    }

    /// Lets a node follow a primary again.
    pub(crate) async fn link(&self, node: Node) {
        self.call(node, &["CONFIG", "SET", "masterauth", ""]).await;
    }

    /// Whether replicas stay with their primaries. Otherwise one of several goes over to a primary that has none.
    pub(crate) async fn keep_replicas(&self, keep: bool) {
        let may_go = if keep { "no" } else { "yes" };
        for node in self.present() {
            self.call(node, &["CONFIG", "SET", "cluster-allow-replica-migration", may_go]).await;
        }
    }

    /// Waits until a node says that the cluster is down.
    pub(crate) async fn down(&self, node: Node) {
        until(PATIENCE, "the cluster is down", async || {
            let info = self.text(node, &["CLUSTER", "INFO"]).await?;
            if info.contains("cluster_state:fail") { Ok(()) } else { Err(info) }
        })
        .await;
    }

    /// Stops a server in its tracks: its connections stay open and nothing answers.
    pub(crate) fn freeze(&mut self, node: Node) {
        self.servers[node].signal(Signal::STOP);
        self.dismiss(node);
    }

    /// Lets a stopped server go on.
    pub(crate) fn thaw(&mut self, node: Node) {
        self.servers[node].signal(Signal::CONT);
        self.admit(node);
    }

    pub(crate) fn address(&self, node: Node) -> String {
        self.servers[node].address()
    }

    pub(crate) fn id(&self, node: Node) -> &str {
        &self.ids[node]
    }

    /// Addresses of all nodes, those that are absent too.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(Server::address).collect()
    }

    /// The port that clients and the other nodes know a node by.
    pub(crate) fn port(&self, node: Node) -> u16 {
        self.servers[node].port
    }

    /// Nodes that answer and are part of it.
    pub(crate) fn present(&self) -> impl Iterator<Item = Node> {
        (0..self.servers.len()).filter(|node| !self.absent.contains(node))
    }

    /// One command to one node; it has to succeed.
    pub(crate) async fn call(&self, node: Node, args: &[&str]) -> Value {
        let reply = self.try_call(node, args).await;
        reply.unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }

    pub(crate) async fn try_call(&self, node: Node, args: &[&str]) -> Result<Value, String> {
        let way = self.servers[node].way();
        let control = Control::connect_by(&way, &self.address(node), CALL).await;
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        control.map_err(|e| e.to_string())?.call(&args).await.map_err(|e| e.to_string())
    }

    pub(crate) async fn text(&self, node: Node, args: &[&str]) -> Result<String, String> {
        let reply = self.try_call(node, args).await?;
        value::text(&reply).map(str::to_owned).ok_or_else(|| format!("no text: {reply:?}"))
    }

    /// What a node tells of all. One that is loading the data of its primary tells nothing yet.
    async fn seen_by(&self, node: Node) -> View {
        until(PATIENCE, "a view", async || self.view(node).await).await
    }

    async fn view(&self, node: Node) -> Result<View, String> {
        let text = self.text(node, &["CLUSTER", "NODES"]).await?;
        let from = Address::parse(&self.address(node), None).ok_or("no address")?;
        parse::nodes(&text, &from).map_err(|error| error.to_string())
    }

    fn named(&self, id: &str) -> Option<Node> {
        self.ids.iter().position(|known| known == id)
    }

    /// Whether every node knows every other one by name.
    async fn acquainted(&self) -> Result<(), String> {
        for node in self.present() {
            let known = self.view(node).await?.nodes.len();
            if known != self.ids.len() {
                return Err(format!("node {node} knows {known}"));
            }
        }
        Ok(())
    }

    /// Waits until all nodes tell the same of all slots and primaries, and all replicas are linked.
    pub(crate) async fn agreed(&self) {
        until(PATIENCE, "the nodes agree", async || self.agreement().await).await;
    }

    async fn agreement(&self) -> Result<(), String> {
        let mut first = None;
        for node in self.present() {
            let opinion = self.opinion(node).await?;
            let known = first.get_or_insert_with(|| opinion.clone());
            if opinion != *known {
                return Err(format!("node {node} says {opinion:?}, another one {known:?}"));
            }
            self.is_well(node).await?;
        }
        let opinion = first.ok_or("nobody is there")?;
        let covered: usize = opinion.iter().flat_map(|(_, _, slots)| slots).map(Range::len).sum();
        let missing = self.present().find(|node| opinion.iter().all(|o| o.0 != self.ids[*node]));
        match missing {
            Some(node) => Err(format!("node {node} is not known")),
            None if covered != SLOTS => Err(format!("{covered} slots are covered")),
            None => Ok(()),
        }
    }

    /// Name, primary and slots of every node that has not failed, as one of them tells it.
    async fn opinion(&self, node: Node) -> Result<Vec<Opinion>, String> {
        let view = self.view(node).await?;
        if view.open_slots > 0 {
            return Err(format!("node {node} has {} open slots", view.open_slots));
        }
        let sound = view.nodes.into_iter().filter(|line| !line.failed);
        let mut opinion: Vec<Opinion> = sound
            .map(|line| {
                (line.id.0.to_string(), line.primary.map(|id| id.0.to_string()), line.slots)
            })
            .collect();
        opinion.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(opinion)
    }

    /// Whether a node serves, is linked with its primary, and connected with all others: votes get lost if it is not.
    async fn is_well(&self, node: Node) -> Result<(), String> {
        let nodes = self.text(node, &["CLUSTER", "NODES"]).await?;
        let mut present = self.present();
        if let Some(other) = present.find(|other| !is_connected(&nodes, &self.ids[*other])) {
            return Err(format!("node {node} is not connected with node {other}"));
        }
        let info = self.text(node, &["CLUSTER", "INFO"]).await?;
        let replication = self.text(node, &["INFO", "replication"]).await?;
        let is_linked = !replication.contains("master_link_status:down");
        if info.contains("cluster_state:ok") && is_linked {
            return Ok(());
        }
        Err(format!("node {node}: {info}{replication}"))
    }

    /// Owner of every slot, as the nodes agree on it.
    pub(crate) async fn owners(&self) -> Vec<Node> {
        let node = self.present().next().expect("a node");
        let view = self.seen_by(node).await;
        let mut owners = vec![usize::MAX; SLOTS];
        for line in &view.nodes {
            for range in &line.slots {
                owners[range.clone()].fill(self.named(&line.id.0).expect("a node of ours"));
            }
        }
        owners
    }

    /// Slots of a node, as it tells itself.
    pub(crate) async fn slots_of(&self, node: Node) -> Vec<usize> {
        let view = self.seen_by(node).await;
        let own = view.nodes.into_iter().find(|line| line.myself).expect("its own line");
        own.slots.into_iter().flatten().collect()
    }

    /// Waits until a replica has noticed that its primary is gone: it has then taken in all that was sent.
    pub(crate) async fn unlinked(&self, replica: Node) {
        until(PATIENCE, "a lost link", async || {
            let info = self.text(replica, &["INFO", "replication"]).await?;
            if info.contains("master_link_status:down") { Ok(()) } else { Err(info) }
        })
        .await;
    }

    /// Waits until a replica has taken its primary's place.
    pub(crate) async fn promoted(&self, replica: Node) {
        until(PATIENCE, "a promotion", async || match self.slots_of(replica).await.len() {
            0 => Err(format!("node {replica} is still a replica{}", self.logs())),
            _ => Ok(()),
        })
        .await;
    }

    /// Moves a slot as cluster tools do, except that `between` is awaited before each key.
    pub(crate) async fn move_slot(&self, slot: Slot, to: Node, mut between: impl AsyncFnMut()) {
        let slot_text = slot.to_string();
        let from = self.owners().await[slot.index()];
        let set = async |node, args: &[&str]| {
            self.call(node, &[&["CLUSTER", "SETSLOT", &slot_text], args].concat()).await
        };
        set(to, &["IMPORTING", self.id(from)]).await;
        set(from, &["MIGRATING", self.id(to)]).await;
        let port = self.servers[to].port.to_string();
        loop {
            let keys = self.call(from, &["CLUSTER", "GETKEYSINSLOT", &slot_text, "1"]).await;
            let Some(key) = value::array(&keys).and_then(|keys| value::text(keys.first()?)) else {
                break;
            };
            between().await;
            self.call(from, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
        }
        between().await;
        for node in [to, from] {
            set(node, &["NODE", self.id(to)]).await;
        }
    }

    /// Errors that the nodes have answered with, by code, all nodes together.
    pub(crate) async fn errors_said(&self) -> BTreeMap<String, u64> {
        let mut errors = BTreeMap::new();
        for node in self.present() {
            let text = self.text(node, &["INFO", "errorstats"]).await.expect("figures");
            let lines = text.lines().filter_map(|line| line.strip_prefix("errorstat_"));
            for (code, count) in lines.filter_map(|line| line.split_once(":count=")) {
                *errors.entry(code.to_owned()).or_default() += count.parse().unwrap_or(0);
            }
        }
        errors
    }

    /// Runs the server's own command-line tool; it has to succeed.
    pub(crate) async fn cli(&self, args: &[&str]) -> String {
        let papers = self.papers.as_ref().map(|papers| papers.flags()).unwrap_or_default();
        let all: Vec<&str> =
            papers.iter().map(String::as_str).chain(args.iter().copied()).collect();
        let output = run(&program("cli"), &all).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text}{}", self.logs());
        text
    }

    /// The last lines that every server has logged.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for (node, server) in self.servers.iter().enumerate() {
            let log = server.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(15)..];
            let heading = format!("── node {node}, {}", server.address());
            text = [&text, &heading, &tail.join("\n")].map(String::as_str).join("\n");
        }
        text
    }
}

/// Whether `CLUSTER NODES` says that the link to a node is up.
fn is_connected(nodes: &str, id: &str) -> bool {
    let line = nodes.lines().find(|line| line.starts_with(id));
    line.is_some_and(|line| line.split(' ').nth(7) == Some("connected"))
}

/// Name of a node, its primary, and its slots.
type Opinion = (String, Option<String>, Vec<Range<usize>>);

/// The slots in so many even ranges.
fn shares(count: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).map(move |n| n * SLOTS / count..(n + 1) * SLOTS / count)
}

/// Runs a program to its end, within a minute.
pub(crate) async fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).kill_on_drop(true).output();
    let output = within(Duration::from_secs(60), &format!("{program} {args:?}"), output).await;
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}
