//! What happens to clusters while they serve: changes that are made with care, and faults.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use slotway::cluster::Slot;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::front;
use crate::load::{Load, Plan};
use crate::tally::Tally;

/// Batches that every client does before an event, and after it.
const BATCHES: u64 = 15;

/// Something that happens to a cluster of three primaries, nodes 0 to 2, and their replicas 3 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing.
    Nothing,
    /// 1500 slots move from one primary to another.
    Reshard,
    /// Four slots full of keys move so slowly that clients meet them half-way.
    SlowSlots,
    /// A replica takes over by order.
    Failover,
    /// A seventh node joins, is given slots, is drained and leaves.
    JoinAndLeave,
    /// A primary is killed on the spot.
    Kill,
    /// A primary stops answering, is replaced, and comes back.
    Freeze,
}

impl Event {
    pub(crate) const ALL: [Self; 7] = [
        Self::Nothing,
        Self::Reshard,
        Self::SlowSlots,
        Self::Failover,
        Self::JoinAndLeave,
        Self::Kill,
        Self::Freeze,
    ];

    /// The slots that it is about, where every other key of the load lies.
    fn focus(self) -> Range<usize> {
        match self {
            Self::Nothing => 0..16384,
            Self::Reshard => 0..1500,
            Self::SlowSlots => 0..4,
            Self::JoinAndLeave => 0..500,
            Self::Failover | Self::Kill | Self::Freeze => 0..5461,
        }
    }

    async fn happen(self, cluster: &mut Cluster, load: &mut Load) {
        match self {
            Self::Nothing => load.advance(10 * BATCHES).await,
            Self::Reshard => reshard(cluster, 0, 1, 1500).await,
            Self::SlowSlots => move_slowly(cluster, 0..4, 1).await,
            Self::Failover => {
                cluster.call(3, &["CLUSTER", "FAILOVER"]).await;
                cluster.promoted(3).await;
            }
            Self::JoinAndLeave => join_and_leave(cluster, load).await,
            Self::Kill => {
                cluster.kill9(0);
                cluster.promoted(3).await;
            }
            Self::Freeze => {
                cluster.freeze(0);
                cluster.promoted(3).await;
                load.advance(BATCHES).await;
                cluster.thaw(0);
                cluster.agreed().await;
            }
        }
    }

    /// Lets it happen to a cluster under load, and gives what the load's clients have seen.
    pub(crate) async fn happen_under_load(self, cluster: &mut Cluster, proxy: SocketAddr) -> Tally {
        let mut load = Load::start(Plan { focus: self.focus(), ..Plan::new(proxy) });
        load.advance(BATCHES).await;
        self.happen(cluster, &mut load).await;
        load.advance(BATCHES).await;
        load.stop().await
    }

    /// Lets it happen to a cluster of its own, behind a proxy.
    pub(crate) async fn watch(self) -> Tally {
        let mut cluster = Cluster::start(3, 1).await;
        let proxy = front::start_patient(cluster.addresses()).await;
        let tally = self.happen_under_load(&mut cluster, proxy.data).await;
        proxy.shutdown().await;
        eprintln!("{self:?}: {tally}");
        tally
    }
}

async fn reshard(cluster: &Cluster, from: usize, to: usize, slots: usize) {
    let (entry, slots) = (cluster.address(1), slots.to_string());
    let ends = ["--cluster-from", cluster.id(from), "--cluster-to", cluster.id(to)];
    let rest = ["--cluster-slots", &slots, "--cluster-yes"];
    cluster.cli(&[&["--cluster", "reshard", &entry][..], &ends, &rest].concat()).await;
    cluster.agreed().await;
}

async fn move_slowly(cluster: &Cluster, slots: Range<usize>, to: usize) {
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
