//! Finding out who owns what: asks several nodes, merges what those of our cluster say, and publishes a snapshot if it
//! differs.
//!
//! Runs on the control thread. A refresh is due every `interval`, and at once, but never closer than `spacing`, when a
//! worker hints that its map may be wrong. Any number of hints make one refresh.

mod functions;
pub mod published;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::lookup_host;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::backend::control::{Access, ControlError};
use crate::backend::{Control, Hint};
use crate::cluster::membership::{self, Witness};
use crate::cluster::parse::{self, View};
use crate::cluster::{Address, Topology};
use crate::command::learned::Learned;
use crate::local::Facts;
use crate::resp::value;

/// Most nodes asked per refresh besides those that were hinted at: enough for a majority view of usual clusters, and few
/// enough not to burden large ones.
const ASKED: usize = 7;
/// How long a refresh waits for the rest once most of the nodes have answered.
const GRACE: Duration = Duration::from_millis(50);
/// Intervals without a view of our cluster after which its nodes are held for gone though some that were asked are silent.
/// With the usual interval that is twice the default `cluster-node-timeout`, so that a failover or a restart is over.
const GONE_AFTER: u32 = 6;
/// Refreshes between two looks at the nodes' commands and versions.
const LEARN_EVERY: u64 = 12;

/// How discovery works.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` of some nodes, names resolved anew each time they are used.
    pub seeds: Vec<String>,
    /// Time between two refreshes when nothing happens.
    pub interval: Duration,
    /// Least time between two refreshes.
    pub spacing: Duration,
    /// How one node is reached, and how long it may take to answer.
    pub access: Access,
}

/// What came of the refreshes.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Refreshes to which at least one node of the cluster answered.
    pub succeeded: AtomicU64,
    /// Refreshes to which none did.
    pub failed: AtomicU64,
    /// Milliseconds since 1970 of the last that succeeded.
    pub last_ms: AtomicU64,
}

impl Outcomes {
    /// Time since the last refresh that succeeded; `None` if none has.
    pub fn age(&self) -> Option<Duration> {
        let last = self.last_ms.load(Relaxed);
        (last != 0).then(|| Duration::from_millis(unix_ms().saturating_sub(last)))
    }
}

/// Discovers one cluster.
#[derive(Debug)]
pub struct Discovery {
    options: Options,
    topology: Arc<ArcSwap<Topology>>,
    outcomes: Arc<Outcomes>,
    /// Connections to nodes that answered last time.
    idle: HashMap<Address, Control>,
    /// Nodes named by redirects since the last refresh.
    hinted: BTreeSet<Address>,
    facts: Arc<Facts>,
    rounds: u64,
    /// Whether less than half of the nodes asked last time have answered and are our cluster's.
    few_answered: bool,
    /// Since when no node of our cluster has answered.
    missing_since: Option<Instant>,
    /// Nodes that answered and are not our cluster's, as last logged.
    strangers: BTreeSet<Address>,
    /// Libraries of functions on their way to new primaries.
    equipping: JoinSet<()>,
    /// Refreshes that had failed when one last succeeded: only the first failure in a row is logged.
    silent_since: u64,
}

/// What a refresh found that is new.
#[derive(Debug, Default)]
pub struct News {
    /// A new topology has been published.
    pub topology: bool,
    /// Something new was learned of the nodes.
    pub facts: Option<Arc<Facts>>,
}

impl Discovery {
    /// Publishes into `topology`, and counts in `outcomes`.
    pub fn new(
        options: Options,
        topology: Arc<ArcSwap<Topology>>,
        outcomes: Arc<Outcomes>,
    ) -> Self {
        let facts = Arc::new(Facts { version: "7.0.0".to_owned(), learned: Learned::default() });
        Self {
            options,
            topology,
            outcomes,
            idle: HashMap::new(),
            hinted: BTreeSet::new(),
            facts,
            rounds: 0,
            few_answered: false,
            missing_since: None,
            strangers: BTreeSet::new(),
            equipping: JoinSet::new(),
            silent_since: 0,
        }
    }

    /// What is known of the nodes so far.
    pub fn facts(&self) -> Arc<Facts> {
        Arc::clone(&self.facts)
    }

    /// Refreshes for ever; calls `announce` whenever there is news.
    pub async fn run(mut self, mut hints: UnboundedReceiver<Hint>, mut announce: impl FnMut(News)) {
        loop {
            let started = Instant::now();
            let news = self.refresh().await;
            announce(news);
            let interval = if self.topology.load().nodes().is_empty() {
                self.options.spacing
            } else {
                self.options.interval
            };
            match timeout_at(started + interval, hints.recv()).await {
                Ok(None) => return,
                Ok(Some(hint)) => self.take(hint),
                Err(_) => {}
            }
            sleep_until(started + self.options.spacing).await;
            while let Ok(hint) = hints.try_recv() {
                self.take(hint);
            }
        }
    }

    fn take(&mut self, hint: Hint) {
        if let Hint::Node(address) = hint
            && self.hinted.len() < ASKED
        {
            self.hinted.insert(address);
        }
    }

    /// Asks once, and publishes what is new.
    pub async fn refresh(&mut self) -> News {
        let before = self.topology.load_full();
        let Asked { answers, count: asked, complaint } = self.ask().await;
        let views = self.keep_ours(answers, asked);
        self.few_answered = views.len() * 2 < asked;
        let mut news = News::default();
        if views.is_empty() {
            self.note_failure(complaint.as_deref().unwrap_or("they are not of one cluster"));
            return news;
        }
        self.note_success();
        let merged = Topology::merge(&views);
        let (nodes, slots) = (merged.nodes().len(), merged.covered());
        if let Some(replaced) = published::found(&self.topology, &before, &merged) {
            tracing::info!(nodes, slots, "new topology");
            self.equip(&replaced);
            news.topology = true;
        }
        if self.rounds.is_multiple_of(LEARN_EVERY) {
            news.facts = self.learn().await;
        }
        self.rounds += 1;
        news
    }

    /// Gives the functions of a primary that was one before to those that were none.
    fn equip(&mut self, before: &Topology) {
        while self.equipping.try_join_next().is_some() {}
        let (old, now) =
            (functions::primaries(before), functions::primaries(&self.topology.load()));
        let Some(source) = now.iter().find(|(id, _)| old.contains_key(*id)) else { return };
        for (id, address) in now.iter().filter(|(id, _)| !old.contains_key(*id)) {
            tracing::debug!(node = %id.0, %address, "new primary");
            let (source, target) = (source.1.clone(), address.clone());
            self.equipping.spawn(functions::equip(source, target, self.options.access.clone()));
        }
    }

    fn note_failure(&mut self, why: &str) {
        if self.outcomes.failed.fetch_add(1, Relaxed) == self.silent_since {
            tracing::warn!(seeds = ?self.options.seeds, why, "no node of the cluster answers; still trying");
        }
        self.missing_since.get_or_insert_with(Instant::now);
    }

    fn note_success(&mut self) {
        self.outcomes.succeeded.fetch_add(1, Relaxed);
        self.silent_since = self.outcomes.failed.load(Relaxed);
        self.outcomes.last_ms.store(unix_ms(), Relaxed);
        self.missing_since = None;
    }

    /// Asks those who may know.
    async fn ask(&mut self) -> Asked {
        let mut asking = JoinSet::new();
        for (address, seed) in self.whom_to_ask().await {
            let idle = self.idle.remove(&address);
            let access = self.access_to(seed.as_ref());
            let seed = seed.map(|seed| seed.at);
            asking.spawn(async move {
                // A little more than each step has, so that the step which takes too long can say so.
                let limit = access.limit * 5 / 4;
                let view = timeout(limit, view_of(&address, idle, &access)).await;
                let late = |_| ControlError::Timeout(address.to_string(), limit).to_string();
                let (control, view) = view.map_err(late)??;
                Ok(Answer { address, seed, control, view })
            });
        }
        let mut asked = Asked { answers: Vec::new(), count: asking.len(), complaint: None };
        let mut until = Instant::now() + self.options.access.limit * 2;
        while let Ok(Some(answer)) = timeout_at(until, asking.join_next()).await {
            match answer {
                Ok(Ok(answer)) => asked.answers.push(answer),
                Ok(Err(complaint)) => asked.complaint = Some(complaint),
                Err(_) => {}
            }
            if asked.answers.len() * 2 > asked.count {
                until = until.min(Instant::now() + GRACE);
            }
        }
        asked
    }

    /// The way to a node, or to one of the addresses of a seed's name, which its certificate is for.
    fn access_to(&self, seed: Option<&Seed>) -> Access {
        let access = self.options.access.clone();
        match seed {
            Some(seed) => Access { way: access.way.to_host(&seed.host), ..access },
            None => access,
        }
    }

    /// The views of our cluster's nodes, whose connections are kept for the next time.
    fn keep_ours(&mut self, answers: Vec<Answer>, asked: usize) -> Vec<View> {
        let topology = self.topology.load_full();
        let map: BTreeSet<_> = topology.nodes().iter().map(|node| &node.id).collect();
        let witnesses: Vec<Witness> = answers.iter().map(Answer::witness).collect();
        let mut ours = membership::ours(&map, &witnesses);
        if ours.is_none() && self.are_gone(asked - answers.len()) {
            ours = membership::heirs(&map, &witnesses);
            if ours.is_some() {
                tracing::warn!("the nodes of the cluster are gone; others have taken their place");
            }
        }
        let (ours, others): (Vec<_>, Vec<_>) = answers
            .into_iter()
            .enumerate()
            .partition(|(at, _)| ours.as_ref().is_some_and(|ours| ours.contains(at)));
        self.tell_of(others.into_iter().map(|(_, answer)| answer));
        let mut views = Vec::new();
        for (_, answer) in ours {
            self.idle.insert(answer.address, answer.control);
            views.push(answer.view);
        }
        views
    }

    /// Whether the nodes on the map, of which none has answered, are gone: others are at their addresses, or it has been
    /// so for long.
    fn are_gone(&self, silent: usize) -> bool {
        let patience = self.options.interval * GONE_AFTER;
        silent == 0 || self.missing_since.is_some_and(|since| since.elapsed() >= patience)
    }

    /// Logs which nodes are not our cluster's, unless it did so last time.
    fn tell_of(&mut self, others: impl Iterator<Item = Answer>) {
        let strangers = others.filter(|answer| answer.view.has_slots());
        let strangers: BTreeSet<Address> = strangers.map(|answer| answer.address).collect();
        if !strangers.is_subset(&self.strangers) {
            let nodes: Vec<String> = strangers.iter().map(Address::to_string).collect();
            tracing::error!(?nodes, "not nodes of the cluster; what they say of slots is not used");
        }
        if !strangers.is_empty() {
            self.strangers = strangers;
        }
    }

    /// The nodes that redirects named, primaries and other nodes in turn, and the seeds while too few are known.
    async fn whom_to_ask(&mut self) -> BTreeMap<Address, Option<Seed>> {
        let mut chosen = std::mem::take(&mut self.hinted);
        let topology = self.topology.load_full();
        let mut known: Vec<&Address> =
            topology.nodes().iter().filter(|node| !node.failed).map(|node| &node.address).collect();
        if !known.is_empty() {
            let turn = usize::try_from(self.rounds).unwrap_or(0) % known.len();
            known.rotate_left(turn);
        }
        let primaries =
            topology.primaries().iter().map(|(index, _)| &topology.node(*index).address);
        chosen.extend(primaries.take(ASKED).chain(known.into_iter().take(2)).cloned());
        let mut seeds = Vec::new();
        if chosen.len() < 3 || self.few_answered {
            seeds = self.resolve_seeds().await;
        }
        let mut chosen: BTreeMap<_, _> = chosen.into_iter().map(|node| (node, None)).collect();
        // The earliest position of a seed that is listed twice comes last, and stays.
        let seeds = seeds.into_iter().enumerate().rev();
        chosen.extend(seeds.map(|(at, (address, host))| (address, Some(Seed { at, host }))));
        chosen
    }

    /// Seeds by name stand for all the addresses of the name, as a Kubernetes headless service has; each with the name.
    async fn resolve_seeds(&self) -> Vec<(Address, String)> {
        let mut addresses = Vec::new();
        for seed in &self.options.seeds {
            match timeout(self.options.access.limit, lookup_host(seed)).await {
                Ok(Ok(found)) => {
                    let found = found.filter_map(|a| Address::parse(&a.to_string(), None));
                    let host = seed.rsplit_once(':').map_or("", |(host, _)| host);
                    addresses.extend(found.map(|address| (address, host.to_owned())));
                }
                Ok(Err(error)) => tracing::warn!(seed, %error, "cannot resolve the seed"),
                Err(_) => tracing::warn!(seed, "resolving the seed takes too long"),
            }
        }
        addresses
    }

    /// Versions of the nodes that are connected, and the commands of one of them.
    async fn learn(&mut self) -> Option<Arc<Facts>> {
        let mut versions = BTreeMap::new();
        let mut learned = None;
        for (address, mut control) in std::mem::take(&mut self.idle) {
            // A connection on which a call failed is out of step and not used again.
            let Ok(info) = control.call(&[b"INFO", b"server"]).await else { continue };
            versions
                .extend(value::text(&info).and_then(version).map(|text| (numbers(&text), text)));
            if learned.is_none() {
                let Ok(reply) = control.call(&[b"COMMAND"]).await else { continue };
                learned = Some(Learned::from_reply(&reply));
            }
            self.idle.insert(address, control);
        }
        let (_, version) = versions.into_iter().next()?;
        let facts = Facts { version, learned: learned? };
        if facts == *self.facts {
            return None;
        }
        self.facts = Arc::new(facts);
        Some(self.facts())
    }
}

/// One of the addresses that the seeds stand for.
#[derive(Debug)]
struct Seed {
    /// Its position among them.
    at: usize,
    /// The name or address that it was given by.
    host: String,
}

/// What came of asking.
#[derive(Debug)]
struct Asked {
    /// Of those that answered in time.
    answers: Vec<Answer>,
    /// How many were asked.
    count: usize,
    /// What is wrong with one of the others.
    complaint: Option<String>,
}

/// What one node answered.
#[derive(Debug)]
struct Answer {
    /// Where it was asked.
    address: Address,
    /// Position among the seeds, if it was asked as one.
    seed: Option<usize>,
    control: Control,
    view: View,
}

impl Answer {
    fn witness(&self) -> Witness<'_> {
        Witness { view: &self.view, seed: self.seed }
    }
}

/// One node's view, or why it cannot be had and what helps.
async fn view_of(
    address: &Address,
    idle: Option<Control>,
    access: &Access,
) -> Result<(Control, View), String> {
    let is_new = idle.is_none();
    let complain = |error: ControlError| {
        tracing::debug!(%error, "no view");
        // Nodes that restart hang up on whom they knew.
        match error.advice(access.way.tls.is_some() || !is_new) {
            "" => error.to_string(),
            advice => format!("{error}; {advice}"),
        }
    };
    let mut control = match idle {
        Some(control) => control,
        None => access.open(address).await.map_err(complain)?,
    };
    let nodes = control.call(&[b"CLUSTER", b"NODES"]).await.map_err(complain)?;
    let endpoints = control.call(&[b"CLUSTER", b"SLOTS"]).await.map_err(complain)?;
    let view = parse::nodes(value::text(&nodes).unwrap_or_default(), address);
    let view = view.inspect_err(|error| tracing::warn!(%error, "unreadable view"));
    let view = view.map_err(|error| error.to_string())?;
    let endpoints = parse::endpoints(&endpoints, address);
    Ok((control, view.with_endpoints(&endpoints)))
}

fn version(info: &str) -> Option<String> {
    info.lines().find_map(|line| line.strip_prefix("redis_version:")).map(str::to_owned)
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(0))
}
