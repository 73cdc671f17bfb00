//! A cluster in two parts that do not hear of each other, though clients reach both.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use crate::cluster::{Cluster, Node};
use crate::relay::{Fate, Relay};

/// Distance of a node's own bus port.
const BUS: u16 = 10_000;
/// What a message between nodes begins with, and where behind it the sender's port is.
const SIGNATURE: &[u8] = b"RCmb";
const SENDER: std::ops::Range<usize> = 10..12;

/// Ports of the nodes that hear each other only.
type Island = Arc<ArcSwap<BTreeSet<u16>>>;

/// The links between the nodes of a cluster, in the hands of a test: each is dialled through a relay that reads who sends.
pub(crate) struct Bus {
    island: Island,
    /// Ends the relays when dropped.
    _hold: oneshot::Sender<()>,
}

impl Bus {
    /// The members find each other through it, and so will those that join later.
    pub(crate) async fn start(cluster: &mut Cluster, later: &[Node]) -> Self {
        let island = Island::default();
        let members: Vec<Node> = cluster.present().collect();
        let nodes: Vec<Node> = members.iter().chain(later).copied().collect();
        let own = nodes.iter().map(|node| cluster.port(*node)).collect();
        let (hold, ports) = relay(own, &island).await;
        for (node, port) in nodes.into_iter().zip(ports) {
            cluster.announce_bus_for_good(node, port).await;
            if members.contains(&node) {
                cluster.announce_bus(node, port).await;
            }
        }
        Self { island, _hold: hold }
    }

    /// From now on the parts do not hear of each other, and no replica of a primary across.
    pub(crate) async fn cut(&self, cluster: &Cluster, split: &Split) {
        let ports = split.island.iter().map(|node| cluster.port(*node));
        self.island.store(Arc::new(ports.collect()));
        for replica in &split.estranged {
            cluster.unlink(*replica).await;
        }
    }

    /// Undoes [`Self::cut`].
    pub(crate) async fn heal(&self, cluster: &Cluster, split: &Split) {
        self.island.store(Arc::default());
        for replica in &split.estranged {
            cluster.link(*replica).await;
        }
    }
}

/// Starts a relay in front of the bus port of each node with these ports, and gives theirs. They have a thread of their own: whatever
/// else a test does, nodes are not to hold each other for lost.
async fn relay(own: Vec<u16>, island: &Island) -> (oneshot::Sender<()>, Vec<u16>) {
    let (hold, let_go) = oneshot::channel();
    let (tell, told) = oneshot::channel();
    let island = Arc::clone(island);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut relays = Vec::new();
            for own in own {
                let server = format!("127.0.0.1:{}", own + BUS);
                relays.push(Relay::start(server, judge(own, Arc::clone(&island))).await);
            }
            tell.send(relays.iter().map(|relay| relay.port).collect()).expect("it is waited for");
            // It ends with an error, since nothing is ever sent.
            let _: Result<(), _> = let_go.await;
        });
    });
    (hold, told.await.expect("they listen"))
}

/// Lets through what comes from the same part.
fn judge(own: u16, island: Island) -> impl Fn(&[u8]) -> Fate + Send + Sync {
    move |sent| {
        let island = island.load();
        let is_across = |from: u16| island.contains(&from) != island.contains(&own);
        if sender(sent).is_some_and(is_across) { Fate::Lost } else { Fate::Arrives }
    }
}

/// Who sent this, if a message begins in it; what follows a beginning on a link is of the same sender.
fn sender(sent: &[u8]) -> Option<u16> {
    let begin = sent.windows(SIGNATURE.len()).position(|bytes| bytes == SIGNATURE)?;
    let port = sent[begin..].get(SENDER)?;
    Some(u16::from_be_bytes([port[0], port[1]]))
}

/// How a cluster comes apart.
#[derive(Debug)]
pub(crate) struct Split {
    island: Vec<Node>,
    /// Replicas whose primary is across.
    estranged: Vec<Node>,
    /// Nodes of the parts that do not have a majority of the primaries: they can only say that the cluster is down.
    pub(crate) powerless: Vec<Node>,
    /// For each primary among those that the majority can replace: its replicas there.
    pub(crate) heirs: Vec<Vec<Node>>,
}

impl Split {
    /// The primaries, each with its replicas.
    pub(crate) fn new(
        members: &[Node],
        island: Vec<Node>,
        primaries: &[(Node, Vec<Node>)],
    ) -> Self {
        let is_across = |one: &Node, other: &Node| island.contains(one) != island.contains(other);
        let estranged = primaries
            .iter()
            .flat_map(|(primary, replicas)| replicas.iter().filter(|node| is_across(primary, node)))
            .copied()
            .collect();
        let has_majority = |node: &Node| {
            let beside = primaries.iter().filter(|(primary, _)| !is_across(primary, node)).count();
            2 * beside > primaries.len()
        };
        let powerless = members.iter().filter(|node| !has_majority(node)).copied().collect();
        let heirs = primaries
            .iter()
            .filter(|(primary, _)| !has_majority(primary))
            .map(|(_, replicas)| {
                replicas.iter().filter(|node| has_majority(node)).copied().collect()
            })
            .filter(|heirs: &Vec<Node>| !heirs.is_empty())
            .collect();
        Self { island, estranged, powerless, heirs }
    }
}

#[test]
fn a_majority_replaces_what_it_has_replicas_of() {
    let primaries = [(0, vec![3]), (1, vec![4]), (2, vec![5])];
    let check = |island: &[Node], powerless: &[Node], heirs: &[&[Node]]| {
        let split = Split::new(&[0, 1, 2, 3, 4, 5], island.to_vec(), &primaries);
        assert_eq!((&*split.powerless, split.heirs.len()), (powerless, heirs.len()), "{split:?}");
        assert!(split.heirs.iter().zip(heirs).all(|(is, should)| is == should), "{split:?}");
    };
    check(&[0], &[0], &[&[3]]);
    check(&[0, 3], &[0, 3], &[]);
    check(&[0, 3, 1], &[2, 4, 5], &[]);
    check(&[0, 1, 5], &[2, 3, 4], &[&[5]]);
    check(&[], &[], &[]);
}
