//! What every node of a cluster says of itself and the others, asked at about the same time.
//!
//! Nobody's word is taken for another's: each node that answers is a [`NodeView`] of its own, and comparing them is up to
//! `check`. A node that does not answer is known by what the others say of it.

mod info;
mod line;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thiserror::Error;
use tokio::task::JoinSet;

pub use info::Info;
pub use line::Line;

use super::access::Access;
use crate::backend::control::{Control, ControlError};
use crate::cluster::{Address, NodeId, SLOTS, Slot};
use crate::resp::value;

/// Most nodes asked at the same time.
const AT_ONCE: usize = 64;

/// All nodes of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// Those that answer: the one that was asked first, then the others in the order in which it names them.
    pub nodes: Vec<NodeView>,
    /// Those that are named by others, and did not answer.
    pub absent: Vec<Absent>,
}

/// A node that answers.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Where it was asked.
    pub address: Address,
    /// What it says of itself.
    pub own: Line,
    /// What it says of the others.
    pub others: Vec<Line>,
    /// Its `INFO`.
    pub info: Info,
    /// Its `CLUSTER INFO`.
    pub cluster: Info,
}

/// A node that does not answer.
#[derive(Clone, Debug)]
pub struct Absent {
    /// What another one says of it.
    pub line: Line,
    /// Why it could not be asked.
    pub reason: String,
}

/// Why a node could not be asked.
#[derive(Debug, Error)]
pub enum ViewError {
    /// It did not answer, or with an error.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It is no node of a cluster.
    #[error("{0} is not configured as a cluster node")]
    NotCluster(Address),
    /// Its answer was not understood.
    #[error("{0} answered {1} in a way that is not understood: {2:?}")]
    Strange(Address, &'static str, String),
}

impl ClusterView {
    /// Asks the entry, and everybody whom it or others name.
    pub async fn gather(entry: &Address, access: &Access) -> Result<Self, ViewError> {
        let first = NodeView::ask(entry, access).await?;
        let mut round = Round { ids: BTreeSet::from([first.own.id.clone()]), ..Round::default() };
        round.enqueue(&first);
        round.run(access).await;
        let found = std::mem::take(&mut round.found).into_values();
        let mut nodes: Vec<NodeView> = std::iter::once(first).chain(found).collect();
        // One that answers at two addresses is one.
        let mut seen = BTreeSet::new();
        nodes.retain(|node| seen.insert(node.own.id.clone()));
        let absent =
            round.absent.into_values().filter(|absent| !seen.contains(&absent.line.id)).collect();
        Ok(Self { nodes, absent })
    }

    /// The node with this name, if it answered.
    pub fn node(&self, id: &NodeId) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.own.id == *id)
    }

    /// Names of the nodes that answered.
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.own.id.clone()).collect()
    }

    /// The nodes that say they are primaries.
    pub fn primaries(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|node| !node.own.is_replica())
    }

    /// The nodes that say they follow this one.
    pub fn replicas_of(&self, id: &NodeId) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(move |node| node.own.primary.as_ref() == Some(id))
    }

    /// What is known of every node: its own word if it answered, else that of another.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.nodes.iter().map(|node| &node.own).chain(self.absent.iter().map(|absent| &absent.line))
    }

    /// Owner of each slot, by what all nodes say: the claim with the highest config epoch stands.
    pub fn owners(&self) -> Vec<Option<NodeId>> {
        let mut best: Vec<Option<(u64, &NodeId)>> = vec![None; SLOTS];
        for line in self.nodes.iter().flat_map(NodeView::lines).filter(|line| !line.is_replica()) {
            for slot in &line.slots {
                let claim = &mut best[slot.index()];
                *claim = (*claim).max(Some((line.epoch, &line.id)));
            }
        }
        best.into_iter().map(|claim| claim.map(|(_, id)| id.clone())).collect()
    }

    /// Slots that no node that answered says are its own.
    pub fn uncovered(&self) -> Vec<Slot> {
        let mut covered = vec![false; SLOTS];
        for slot in self.nodes.iter().flat_map(|node| &node.own.slots) {
            covered[slot.index()] = true;
        }
        (0..SLOTS).filter(|slot| !covered[*slot]).filter_map(Slot::new).collect()
    }
}

/// A zone, where others have hosts: whatever it is called, it is none of them.
pub(super) fn zone_site(zone: &str) -> String {
    format!("zone {zone}")
}

impl NodeView {
    /// What copies of a slot are not to share: its zone if it tells of one (Valkey 8.1), else its host.
    pub fn site(&self) -> String {
        let zone = self.info.get("availability_zone").filter(|zone| !zone.is_empty());
        zone.map_or_else(|| self.address.host().to_owned(), zone_site)
    }

    /// Asks one node.
    pub async fn ask(address: &Address, access: &Access) -> Result<Self, ViewError> {
        let mut control = access.open(address).await?;
        let info = Info(text(&mut control, address, &["INFO"]).await?);
        if info.get("cluster_enabled") != Some("1") {
            return Err(ViewError::NotCluster(address.clone()));
        }
        let cluster = Info(text(&mut control, address, &["CLUSTER", "INFO"]).await?);
        let nodes = text(&mut control, address, &["CLUSTER", "NODES"]).await?;
        let strange = || ViewError::Strange(address.clone(), "CLUSTER NODES", nodes.clone());
        let lines = nodes.lines().map(|line| Line::parse(line, address).ok_or_else(strange));
        let lines: Vec<Line> = lines.collect::<Result<_, _>>()?;
        let (own, others): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.is("myself"));
        let own = own.into_iter().next().ok_or_else(strange)?;
        Ok(Self { address: address.clone(), own, others, info, cluster })
    }

    /// What it says of all nodes, itself included.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        std::iter::once(&self.own).chain(&self.others)
    }

    /// Which node owns which slots, in a form that is the same on all nodes that agree.
    pub fn signature(&self) -> String {
        let with_slots = self.lines().filter(|line| !line.slots.is_empty());
        let mut claims: Vec<String> =
            with_slots.map(|line| format!("{}:{}", line.id, line.slots)).collect();
        claims.sort_unstable();
        claims.join("|")
    }
}

async fn text(
    control: &mut Control,
    address: &Address,
    words: &[&'static str],
) -> Result<String, ViewError> {
    let args: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let reply = control.call(&args).await?;
    let strange =
        || ViewError::Strange(address.clone(), words[words.len() - 1], format!("{reply:?}"));
    value::text(&reply).map(str::to_owned).ok_or_else(strange)
}

/// The nodes on the way of being asked. Each is numbered when it is first named, and the answers are kept by that number.
#[derive(Default)]
struct Round {
    ids: BTreeSet<NodeId>,
    waiting: VecDeque<(usize, Line)>,
    found: BTreeMap<usize, NodeView>,
    absent: BTreeMap<usize, Absent>,
}

impl Round {
    /// Lines up whom a node names. Those in handshake have no name of their own yet.
    fn enqueue(&mut self, node: &NodeView) {
        for line in node.others.iter().filter(|line| !line.is("handshake")) {
            if self.ids.insert(line.id.clone()) {
                self.waiting.push_back((self.ids.len(), line.clone()));
            }
        }
    }

    async fn run(&mut self, access: &Access) {
        let mut asking = JoinSet::new();
        loop {
            while asking.len() < AT_ONCE
                && let Some((number, line)) = self.waiting.pop_front()
            {
                let access = access.clone();
                asking.spawn(async move { (number, ask_named(&line, &access).await, line) });
            }
            let Some(done) = asking.join_next().await else { return };
            let Ok((number, answer, line)) = done else { continue };
            match answer {
                Ok(node) => {
                    self.enqueue(&node);
                    self.found.insert(number, node);
                }
                Err(reason) => {
                    self.absent.insert(number, Absent { line, reason });
                }
            }
        }
    }
}

/// Asks the node that a line is about; it has to be that one who answers.
async fn ask_named(line: &Line, access: &Access) -> Result<NodeView, String> {
    let address = line.address.as_ref().ok_or("its address is not known")?;
    let node = NodeView::ask(address, access).await.map_err(|error| error.to_string())?;
    if node.own.id == line.id {
        return Ok(node);
    }
    Err(format!("another node, {}, answers at {address}", node.own.id))
}

#[cfg(test)]
impl ClusterView {
    /// What nodes said, from the `CLUSTER NODES` of each; they were asked where they say they are.
    pub(super) fn said(nodes: &[&str]) -> Self {
        Self { nodes: nodes.iter().map(|text| NodeView::said(text)).collect(), absent: Vec::new() }
    }
}

#[cfg(test)]
impl NodeView {
    fn said(text: &str) -> Self {
        let from = Address::parse("127.0.0.1:1", None).unwrap();
        let lines = text.lines().map(|line| Line::parse(line, &from).unwrap());
        let (own, others): (Vec<_>, Vec<_>) = lines.partition(|line| line.is("myself"));
        let own = own.into_iter().next().unwrap();
        let address = own.address.clone().unwrap();
        Self { address, own, others, info: Info::default(), cluster: Info::default() }
    }
}
