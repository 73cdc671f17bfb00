//! What happens to clusters while they serve: changes that are made with care, and faults.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use slotway::cluster::Slot;
use slotway::proxy::Options;
use tokio::time::sleep;

use crate::cluster::{Cluster, Node};
use crate::load::{Load, Plan};
use crate::tally::Tally;
use crate::{alone, front, under_load};

/// Batches that every client does before an event, and after it.
const BATCHES: u64 = 15;
/// A stop that is longer than nodes usually are silent, and shorter than the node timeout.
pub(crate) const HICCUP: Duration = Duration::from_secs(1);

/// Something that happens to a cluster of three primaries, nodes 0 to 2, and their replicas 3 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing.
    Nothing,
    /// 1500 slots move from one primary to another.
    Reshard,
    /// Eight slots full of keys move so slowly that clients meet them half-way.
    SlowSlots,
    /// A replica takes over by order.
    Failover,
    /// A seventh node joins, is given slots, is drained and leaves.
    JoinAndLeave,
    /// A replica is killed, comes back at another address, takes over by order, and gives back.
    Return,
    /// A primary stops for a moment, too short for the others to replace it.
    Hiccup,
    /// Two of three primaries stop, until the third one says that the cluster is down.
    Minority,
    /// A primary closes all its clients' connections, several times.
    Sever,
    /// A primary is killed on the spot.
    Kill,
    /// A primary stops answering, is replaced, and comes back.
    Freeze,
}

impl Event {
    pub(crate) const ALL: [Self; 11] = [
        Self::Nothing,
        Self::Reshard,
        Self::SlowSlots,
        Self::Failover,
        Self::JoinAndLeave,
        Self::Return,
        Self::Hiccup,
        Self::Minority,
        Self::Sever,
        Self::Kill,
        Self::Freeze,
    ];

    /// The slots that it is about, where every other key of the load lies.
    fn focus(self) -> Range<usize> {
        match self {
            Self::Nothing | Self::Minority => 0..16384,
            Self::Reshard => 0..1500,
            Self::SlowSlots => 0..8,
            Self::JoinAndLeave => 0..500,
            Self::Failover
            | Self::Return
            | Self::Hiccup
            | Self::Sever
            | Self::Kill
            | Self::Freeze => 0..5461,
        }
    }

    /// Whether it is judged by how long clients have to wait.
    fn is_timed(self) -> bool {
        matches!(self, Self::Hiccup | Self::Minority | Self::Sever | Self::Kill | Self::Freeze)
    }

    /// Lets it happen, and gives the time for which the cluster could not serve all slots, as its nodes tell.
    async fn happen(self, cluster: &mut Cluster, load: &mut Load) -> Duration {
        let begun = Instant::now();
        let mut outage = Duration::ZERO;
        match self {
            Self::Nothing => load.advance(10 * BATCHES).await,
            Self::Reshard => reshard(cluster, 0, 1, 1500).await,
            Self::SlowSlots => move_slowly(cluster, 0..8, 1).await,
            Self::Failover => fail_over(cluster, 3).await,
            Self::JoinAndLeave => join_and_leave(cluster, load).await,
            Self::Return => {
                cluster.kill9(3);
                load.advance(BATCHES).await;
                cluster.restart_elsewhere(3).await;
                cluster.agreed().await;
                fail_over(cluster, 3).await;
                load.advance(BATCHES).await;
                fail_over(cluster, 0).await;
            }
            Self::Hiccup => {
                cluster.freeze(0);
                // The length of the stop.
                sleep(HICCUP).await;
                cluster.thaw(0);
                outage = begun.elapsed();
            }
            Self::Minority => {
                cluster.freeze(0);
                cluster.freeze(1);
                cluster.down(2).await;
                cluster.thaw(0);
                cluster.thaw(1);
                cluster.agreed().await;
                outage = begun.elapsed();
            }
            Self::Sever => {
                for _ in 0..5 {
                    cluster.call(0, &["CLIENT", "KILL", "TYPE", "normal"]).await;
                    load.advance(BATCHES / 3).await;
                }
            }
            Self::Kill => {
                cluster.kill9(0);
                cluster.promoted(3).await;
                outage = begun.elapsed();
                cluster.agreed().await;
            }
            Self::Freeze => {
                cluster.freeze(0);
                cluster.promoted(3).await;
                outage = begun.elapsed();
                cluster.agreed().await;
                load.advance(BATCHES).await;
                cluster.thaw(0);
                cluster.agreed().await;
            }
        }
        outage
    }

    /// Lets it happen to a cluster under load.
    pub(crate) async fn happen_under_load(self, cluster: &mut Cluster, plan: Plan) -> Story {
        let mut load = Load::start(Plan { focus: self.focus(), ..plan });
        load.advance(BATCHES).await;
        let begun = Instant::now();
        let outage = self.happen(cluster, &mut load).await;
        let took = begun.elapsed();
        load.advance(BATCHES).await;
        Story { tally: load.stop().await, took, outage, met: cluster.errors_said().await }
    }

    /// Lets it happen to a cluster of its own, behind a patient proxy.
    pub(crate) async fn watch(self) -> Story {
        self.watch_behind(front::patient).await
    }

    /// Lets it happen to a cluster of its own, behind a proxy with these options.
    pub(crate) async fn watch_behind(self, options: fn(Vec<String>) -> Options) -> Story {
        let mut cluster = Cluster::start(3, 1).await;
        let _turn = if self.is_timed() { alone().await } else { under_load().await };
        let proxy = front::start(options(cluster.addresses())).await;
        let story = self.happen_under_load(&mut cluster, Plan::light(proxy.data)).await;
        proxy.shutdown().await;
        eprintln!("{self:?}: {story}");
        story
    }
}

/// What came of an event.
pub(crate) struct Story {
    /// What the clients have seen.
    pub(crate) tally: Tally,
    /// How long the event took.
    pub(crate) took: Duration,
    /// For how long the cluster could not serve all slots.
    pub(crate) outage: Duration,
    /// Errors that the nodes have answered with, by code: what the proxy had to deal with.
    pub(crate) met: BTreeMap<String, u64>,
}

impl Story {
    /// Panics unless the proxy met with these errors, and none reached a client.
    pub(crate) fn expect_unnoticed(&self, met: &[&str]) {
        for code in met {
            assert!(
                self.met.contains_key(*code),
                "no node said {code}, so this shows nothing: {self}"
            );
        }
        self.tally.expect_flawless();
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "outage {:.3} s, nodes said {:?}; {}",
            self.outage.as_secs_f64(),
            self.met,
            self.tally
        )
    }
}

pub(crate) async fn fail_over(cluster: &Cluster, replica: Node) {
    cluster.call(replica, &["CLUSTER", "FAILOVER"]).await;
    cluster.promoted(replica).await;
    cluster.agreed().await;
}

pub(crate) async fn reshard(cluster: &Cluster, from: Node, to: Node, slots: usize) {
    let (entry, slots) = (cluster.address(1), slots.to_string());
    let ends = ["--cluster-from", cluster.id(from), "--cluster-to", cluster.id(to)];
    let rest = ["--cluster-slots", &slots, "--cluster-yes"];
    cluster.cli(&[&["--cluster", "reshard", &entry][..], &ends, &rest].concat()).await;
    cluster.agreed().await;
}

async fn move_slowly(cluster: &Cluster, slots: Range<usize>, to: Node) {
    for slot in slots.filter_map(Slot::new) {
        // Not a wait for anything: the pace at which keys move.
        cluster.move_slot(slot, to, async || sleep(Duration::from_millis(1)).await).await;
    }
    cluster.agreed().await;
}

async fn join_and_leave(cluster: &mut Cluster, load: &mut Load) {
    let entry = cluster.address(1);
    let node = cluster.start_node().await;
    cluster.cli(&["--cluster", "add-node", &cluster.address(node), &entry]).await;
    cluster.admit(node);
    cluster.agreed().await;
    reshard(cluster, 0, node, 500).await;
    load.advance(BATCHES).await;
    reshard(cluster, node, 2, 500).await;
    load.advance(BATCHES).await;
    cluster.cli(&["--cluster", "del-node", &entry, cluster.id(node)]).await;
    cluster.dismiss(node);
    cluster.agreed().await;
}
