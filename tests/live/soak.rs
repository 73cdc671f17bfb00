//! Scenario 71: whatever an operator does to a cluster, and whatever happens to it, one thing after the other by chance, while
//! clients are at work; run by hand:
//!
//! `SLOTWAY_SOAK=600 cargo test --test live -- --ignored --nocapture soak`
//!
//! The seconds are 90 if nobody says so; `SEED` repeats a run. Each event has a load of its own, which is read back after it: no
//! error and nothing lost, but where a primary is replaced without its consent, of which clients may be told that an outcome is
//! unknown, and which may cost what its replica had not got yet. A primary that is cut off from the majority goes on for a node
//! timeout, and what it acknowledges meanwhile is lost too; how much is told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use slotway::proxy::Running;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::client::Client;
use crate::cluster::{Cluster, Node};
use crate::events::HICCUP;
use crate::grow::{JOB, begin, ends};
use crate::load::{Load, Plan};
use crate::partition::{Bus, Split};
use crate::tally::{Oddity, Tally};
use crate::{Dice, alone, front};

/// Batches that every client does before an event, and after it.
const BATCHES: u64 = 5;
/// How long a client rests after each batch: the load is to last, not to keep the machine from everything else.
const REST: Duration = Duration::from_millis(40);
/// How long requests may wait: until a part is cut off, noticed, back, and trusted again.
const OUTAGE: Duration = Duration::from_secs(25);
/// How often a job may be refused.
const PATIENCE: usize = 5;
/// Nodes more than there are at first.
const EXTRA: usize = 2;

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Chance {
    Join,
    Follow,
    Leave,
    Reshard,
    Rebalance,
    FailOver,
    LoseReplica,
    LosePrimary,
    Hiccup,
    Partition,
}

/// What it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// It cannot happen now.
    NotNow,
    /// Nobody may notice.
    Unnoticed,
    /// A primary was replaced that did not hand over.
    Replaced,
}

const CHANCES: [Chance; 10] = [
    Chance::Join,
    Chance::Follow,
    Chance::Leave,
    Chance::Reshard,
    Chance::Rebalance,
    Chance::FailOver,
    Chance::LoseReplica,
    Chance::LosePrimary,
    Chance::Hiccup,
    Chance::Partition,
];

/// A cluster that all that happens to.
struct Subject {
    cluster: Cluster,
    bus: Bus,
    admin: Client,
    proxy: Running,
    _folder: TempDir,
    dice: Dice,
    /// Nodes that are no members: each can be one (again).
    spare: Vec<Node>,
    /// Nodes that came, and may go.
    extra: Vec<Node>,
    /// Names that nodes had which left, and since when.
    gone: Vec<(String, Instant)>,
}

impl Subject {
    async fn start() -> Self {
        let mut cluster = Cluster::start(3, 1).await;
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = front::options(cluster.addresses());
        options.backend.request_budget = OUTAGE;
        options.admin = Some("127.0.0.1:0".to_owned());
        options.state_folder = Some(folder.path().to_owned());
        let proxy = front::start(options).await;
        let mut spare = Vec::new();
        for _ in 0..EXTRA {
            spare.push(cluster.start_node().await);
        }
        let bus = Bus::start(&mut cluster, &spare).await;
        let admin = Client::to(proxy.admin.expect("an admin port")).await;
        let (dice, extra, gone) = (Dice::from_env(), Vec::new(), Vec::new());
        Self { cluster, bus, admin, proxy, _folder: folder, dice, spare, extra, gone }
    }

    /// Has a job done. On a busy machine nodes may hold each other for lost just when it begins, and replicas go over to a primary
    /// that has none, which it is right to refuse: then it is ordered again.
    async fn order(&mut self, line: &str) {
        for _ in 0..PATIENCE {
            let id = begin(&mut self.admin, line).await;
            let Err(log) = ends(&mut self.admin, &id).await else { return };
            let refusals = ["the cluster is down", "has no link to", "has gone over to another"];
            assert!(refusals.iter().any(|why| log.contains(why)), "{line}: {log}");
            eprintln!("{line}: {log}");
            self.cluster.agreed().await;
        }
        panic!("{line}: refused {PATIENCE} times");
    }

    /// Primaries with slots, in the order of their slots.
    async fn primaries(&self) -> Vec<Node> {
        let mut owners = self.cluster.owners().await;
        owners.dedup();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    fn one_of(&mut self, nodes: &[Node]) -> Node {
        nodes[self.dice.below(nodes.len())]
    }

    /// A primary that somebody can replace, and who.
    async fn replaceable(&mut self) -> Option<(Node, Vec<Node>)> {
        let mut all = Vec::new();
        for primary in self.primaries().await {
            let followers = self.cluster.followers(primary).await;
            if !followers.is_empty() {
                all.push((primary, followers));
            }
        }
        (!all.is_empty()).then(|| all.swap_remove(self.dice.below(all.len())))
    }

    /// Lets it happen.
    async fn meet(&mut self, chance: Chance, load: &Load) -> Effect {
        match chance {
            Chance::Join | Chance::Follow => {
                let Some(node) = self.spare.pop() else { return Effect::NotNow };
                self.cluster.rename(node).await;
                let how = if chance == Chance::Join { "" } else { " REPLICA" };
                self.order(&format!("ADDNODE {}{how}", self.cluster.address(node))).await;
                self.cluster.admit(node);
                self.extra.push(node);
            }
            Chance::Leave => {
                let primaries = self.primaries().await;
                // One of three cannot leave: the others could not replace one that fails.
                let may_leave = |node: &Node| primaries.len() > 3 || !primaries.contains(node);
                let Some(node) = self.extra.pop_if(|node| may_leave(node)) else {
                    return Effect::NotNow;
                };
                let id = self.cluster.id(node).to_owned();
                // What it would leave behind without a replica is what it took it from.
                self.order(&format!("DELNODE {id} FORCE no-replicas")).await;
                self.cluster.dismiss(node);
                self.spare.push(node);
                self.cluster.has_forgotten(&id).await;
                self.gone.push((id, Instant::now()));
            }
            Chance::Reshard => {
                let primaries = self.primaries().await;
                let from = self.dice.below(primaries.len());
                let to = primaries[(from + 1) % primaries.len()];
                let (from, count) = (primaries[from], 1 + self.dice.below(300));
                let (from, to) = (self.cluster.id(from), self.cluster.id(to));
                let line = format!("RESHARD SLOTS {count} FROM {from} TO {to}");
                self.order(&line).await;
            }
            Chance::Rebalance => self.order("REBALANCE").await,
            Chance::FailOver => {
                let Some((primary, _)) = self.replaceable().await else { return Effect::NotNow };
                let line = format!("FAILOVER {}", self.cluster.id(primary));
                self.order(&line).await;
            }
            Chance::LoseReplica => {
                let Some((_, followers)) = self.replaceable().await else { return Effect::NotNow };
                let node = self.one_of(&followers);
                self.cluster.kill9(node);
                self.cluster.agreed().await;
                self.cluster.restart(node).await;
            }
            Chance::LosePrimary => {
                let Some((primary, followers)) = self.replaceable().await else {
                    return Effect::NotNow;
                };
                self.cluster.kill9(primary);
                self.promoted(&followers).await;
                self.cluster.agreed().await;
                self.cluster.restart(primary).await;
                self.cluster.agreed().await;
                return Effect::Replaced;
            }
            Chance::Hiccup => {
                let primaries = self.primaries().await;
                let node = self.one_of(&primaries);
                self.cluster.freeze(node);
                // The length of the stop.
                sleep(HICCUP).await;
                self.cluster.thaw(node);
            }
            Chance::Partition => return self.part(load).await,
        }
        self.cluster.agreed().await;
        Effect::Unnoticed
    }

    /// Cuts the cluster in two somewhere, until each part knows, and has replaced the primaries that it can.
    async fn part(&mut self, load: &Load) -> Effect {
        // A replica that goes over to another primary just then would not be the heir that it seems to be.
        self.cluster.keep_replicas(true).await;
        self.cluster.agreed().await;
        let members: Vec<Node> = self.cluster.present().collect();
        let (dice, bus) = (&mut self.dice, &self.bus);
        let island = members.iter().copied().filter(|_| dice.below(2) == 0).collect();
        let mut owners = Vec::new();
        for primary in self.primaries().await {
            owners.push((primary, self.cluster.followers(primary).await));
        }
        let split = Split::new(&members, island, &owners);
        eprintln!("{split:?}");
        let is_costly = !split.heirs.is_empty();
        load.doubt(is_costly);
        bus.cut(&self.cluster, &split).await;
        for node in &split.powerless {
            self.cluster.down(*node).await;
        }
        for heirs in &split.heirs {
            self.promoted(heirs).await;
        }
        bus.heal(&self.cluster, &split).await;
        self.cluster.agreed().await;
        self.cluster.keep_replicas(false).await;
        load.doubt(false);
        if is_costly { Effect::Replaced } else { Effect::Unnoticed }
    }

    /// Waits until one of these has slots.
    async fn promoted(&self, followers: &[Node]) {
        crate::until(JOB, "a promotion", async || {
            for node in followers {
                if !self.cluster.slots_of(*node).await.is_empty() {
                    return Ok(());
                }
            }
            Err(format!("all of {followers:?} are still replicas{}", self.cluster.logs()))
        })
        .await;
    }

    /// Lets it happen under a load, and judges what that has seen.
    async fn live_through(&mut self, chance: Chance) -> Option<Tally> {
        let plan = Plan { clients: 6, limit: 2 * JOB, rest: REST, ..Plan::new(self.proxy.data) };
        let mut load = Load::start(plan);
        load.advance(BATCHES).await;
        let effect = self.meet(chance, &load).await;
        load.advance(BATCHES).await;
        let tally = load.stop().await;
        eprintln!("{chance:?}, {effect:?}: {tally}");
        match effect {
            Effect::Replaced => tally.expect_survived(JOB),
            Effect::Unnoticed | Effect::NotNow => tally.expect_flawless(),
        }
        (effect != Effect::NotNow).then_some(tally)
    }
}

#[tokio::test]
#[ignore = "it takes as long as it is told to"]
async fn soak() {
    let seconds = std::env::var("SLOTWAY_SOAK").ok().and_then(|seconds| seconds.parse().ok());
    let mut subject = Subject::start().await;
    let _turn = alone().await;
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(90));
    let (mut met, mut commands) = (BTreeMap::<Chance, u32>::new(), 0);
    let mut lost = BTreeMap::<Chance, u64>::new();
    while Instant::now() < end {
        let chance = CHANCES[subject.dice.below(CHANCES.len())];
        if let Some(tally) = subject.live_through(chance).await {
            *met.entry(chance).or_default() += 1;
            *lost.entry(chance).or_default() += tally.count(Oddity::Lost);
            commands += tally.commands;
        }
    }
    // Nodes do not listen to talk of one that left for a minute; after that it could come back.
    let long_gone = subject.gone.iter().filter(|(_, since)| since.elapsed().as_secs() > 75);
    let mut count = 0;
    for (id, _) in long_gone {
        subject.cluster.has_forgotten(id).await;
        count += 1;
    }
    lost.retain(|_, count| *count > 0);
    eprintln!("{commands} commands, {met:?}; acknowledged and lost with a primary: {lost:?}");
    eprintln!("{count} nodes have been gone for long");
    subject.proxy.shutdown().await;
}
