//! Whether a cluster is whole: what its nodes say, compared. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::view::{ClusterView, Line, NodeView};
use crate::cluster::{Address, NodeId, SLOTS, Slot, Slots};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "kebab-case")]
pub enum Finding {
    /// Nodes tell different owners of slots than the first one does.
    Disagreement {
        /// Those that differ.
        nodes: Vec<Address>,
    },
    /// A node is giving slots away.
    Migrating {
        /// Which one.
        node: Address,
        /// Each slot, and who is to have it.
        slots: Vec<(Slot, NodeId)>,
    },
    /// A node is taking slots in.
    Importing {
        /// Which one.
        node: Address,
        /// Each slot, and who has had it.
        slots: Vec<(Slot, NodeId)>,
    },
    /// Nobody who answers owns these slots.
    Uncovered {
        /// Which ones.
        slots: Slots,
    },
    /// Several nodes say that a slot is their own.
    Claimed {
        /// Which one.
        slots: Slots,
        /// Who.
        by: Vec<Address>,
    },
    /// Primaries have the same config epoch, so that the nodes cannot tell whose claim is newer.
    SameEpoch {
        /// The epoch.
        epoch: u64,
        /// Who has it.
        nodes: Vec<Address>,
    },
    /// A node that others know does not answer.
    Absent {
        /// Its name.
        id: NodeId,
        /// Where it is supposed to be.
        address: Option<Address>,
        /// Slots that are its own as others say.
        slots: Slots,
        /// Why it could not be asked.
        reason: String,
    },
    /// A replica follows somebody whom nobody knows.
    Orphan {
        /// The replica.
        node: Address,
        /// The name it follows.
        primary: NodeId,
    },
    /// A replica is not linked with its primary.
    Unlinked {
        /// The replica.
        node: Address,
    },
    /// Several primaries own slots or have keys of them. Told by [`strays`](super::strays) only.
    Strays {
        /// Which ones.
        slots: Slots,
        /// Who.
        by: Vec<Address>,
    },
}

impl Finding {
    /// Whether the cluster cannot be called whole with it; else it is worth a warning only.
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Disagreement { .. }
            | Self::Migrating { .. }
            | Self::Importing { .. }
            | Self::Uncovered { .. }
            | Self::Claimed { .. }
            | Self::Strays { .. } => true,
            Self::SameEpoch { .. }
            | Self::Absent { .. }
            | Self::Orphan { .. }
            | Self::Unlinked { .. } => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disagreement { nodes } => {
                write!(f, "{} tell other owners of slots than the first node", list(nodes))
            }
            Self::Migrating { node, slots } => {
                write!(f, "Node {node} has slots in migrating state {}", numbers(slots))
            }
            Self::Importing { node, slots } => {
                write!(f, "Node {node} has slots in importing state {}", numbers(slots))
            }
            Self::Uncovered { slots } => write!(f, "no node that answers owns slots {slots}"),
            Self::Claimed { slots, by } => write!(f, "slots {slots} are claimed by {}", list(by)),
            Self::SameEpoch { epoch, nodes } => {
                write!(f, "{} have the same config epoch {epoch}", list(nodes))
            }
            Self::Absent { id, address, slots, reason } => {
                let place = address.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
                let owns = if slots.is_empty() {
                    String::new()
                } else {
                    format!(", which owns slots {slots},")
                };
                write!(f, "Node {place} ({id}){owns} does not answer: {reason}")
            }
            Self::Orphan { node, primary } => {
                write!(f, "{node} claims to be slave of unknown node ID {primary}")
            }
            Self::Strays { slots, by } => {
                write!(f, "{} own slots {slots} or have keys of them", list(by))
            }
            Self::Unlinked { node } => write!(f, "Node {node} has no link to its primary"),
        }
    }
}

fn list(nodes: &[Address]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `6088,7000`.
pub fn numbers(slots: &[(Slot, NodeId)]) -> String {
    slots.iter().map(|(slot, _)| slot.to_string()).collect::<Vec<_>>().join(",")
}

/// All that is not as it should be.
pub fn findings(view: &ClusterView) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(disagreement(view));
    found.extend(open_slots(view));
    let uncovered = view.uncovered();
    if !uncovered.is_empty() {
        found.push(Finding::Uncovered { slots: uncovered.into_iter().collect() });
    }
    found.extend(claimed(view));
    found.extend(same_epochs(view));
    found.extend(view.absent.iter().map(|absent| Finding::Absent {
        id: absent.line.id.clone(),
        address: absent.line.address.clone(),
        slots: absent.line.slots.clone(),
        reason: absent.reason.clone(),
    }));
    found.extend(view.nodes.iter().filter_map(|node| replica(view, node)));
    found
}

fn disagreement(view: &ClusterView) -> Option<Finding> {
    let (first, others) = view.nodes.split_first()?;
    let signature = first.signature();
    let differ = others.iter().filter(|node| node.signature() != signature);
    let nodes: Vec<Address> = differ.map(|node| node.address.clone()).collect();
    (!nodes.is_empty()).then_some(Finding::Disagreement { nodes })
}

fn open_slots(view: &ClusterView) -> Vec<Finding> {
    let mut found = Vec::new();
    for NodeView { address: node, own, .. } in &view.nodes {
        if !own.migrating.is_empty() {
            found.push(Finding::Migrating { node: node.clone(), slots: own.migrating.clone() });
        }
        if !own.importing.is_empty() {
            found.push(Finding::Importing { node: node.clone(), slots: own.importing.clone() });
        }
    }
    found
}

/// Slots that several nodes call their own, those with the same claimants together.
fn claimed(view: &ClusterView) -> Vec<Finding> {
    let mut claims: Vec<Vec<&Address>> = vec![Vec::new(); SLOTS];
    for node in view.primaries() {
        for slot in &node.own.slots {
            claims[slot.index()].push(&node.address);
        }
    }
    let mut groups: BTreeMap<Vec<&Address>, Vec<Slot>> = BTreeMap::new();
    for (slot, by) in claims.into_iter().enumerate().filter(|(_, by)| by.len() > 1) {
        groups.entry(by).or_default().extend(Slot::new(slot));
    }
    let finding = |(by, slots): (Vec<&Address>, Vec<Slot>)| Finding::Claimed {
        slots: slots.into_iter().collect(),
        by: by.into_iter().cloned().collect(),
    };
    groups.into_iter().map(finding).collect()
}

fn same_epochs(view: &ClusterView) -> Vec<Finding> {
    let mut epochs: BTreeMap<u64, Vec<Address>> = BTreeMap::new();
    for node in view.primaries().filter(|node| !node.own.slots.is_empty()) {
        epochs.entry(node.own.epoch).or_default().push(node.address.clone());
    }
    let shared = epochs.into_iter().filter(|(_, nodes)| nodes.len() > 1);
    shared.map(|(epoch, nodes)| Finding::SameEpoch { epoch, nodes }).collect()
}

fn replica(view: &ClusterView, node: &NodeView) -> Option<Finding> {
    let primary = node.own.primary.as_ref()?;
    if !view.lines().any(|line| line.id == *primary) {
        return Some(Finding::Orphan { node: node.address.clone(), primary: primary.clone() });
    }
    let is_down = node.info.get("master_link_status") == Some("down");
    is_down.then(|| Finding::Unlinked { node: node.address.clone() })
}

/// What keeps these nodes from being one cluster in which everybody says the same, if anything does. `gone` is nobody's
/// business any more.
pub fn unsettled(nodes: &[NodeView], gone: Option<&NodeId>) -> Option<Doubt> {
    for node in nodes {
        let stranger = node.lines().find(|line| gone == Some(&line.id));
        let stranger = stranger.map(|line| (About::from(line), "still knows"));
        let mut members = nodes.iter().map(|node| &node.own);
        if let Some((about, complaint)) =
            stranger.or_else(|| members.find_map(|member| doubt(node, member)))
        {
            return Some(Doubt { from: node.address.clone(), about, complaint });
        }
    }
    let (first, others) = nodes.split_first()?;
    let roles = |node: &NodeView| -> BTreeMap<NodeId, Option<NodeId>> {
        let members = node.lines().filter(|line| nodes.iter().any(|node| node.own.id == line.id));
        members.map(|line| (line.id.clone(), line.primary.clone())).collect()
    };
    let differs =
        |node: &&NodeView| node.signature() != first.signature() || roles(node) != roles(first);
    let other = others.iter().find(differs)?;
    let complaint = "tells other owners of slots, or other primaries, than";
    Some(Doubt { from: other.address.clone(), about: About::from(&first.own), complaint })
}

/// Nodes that are not linked with each other: who, and with whom it has no link.
pub fn unlinked(nodes: &[NodeView]) -> Vec<(&NodeView, &NodeView)> {
    let pairs = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (from, to)));
    pairs.filter(|(from, to)| doubt(from, &to.own).is_some()).collect()
}

/// What one node has not understood yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Who.
    pub from: Address,
    /// About whom.
    pub about: About,
    /// What it is.
    pub complaint: &'static str,
}

/// Whom a [`Doubt`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its name.
    pub id: NodeId,
    /// Where it is, as far as is known.
    pub address: Option<Address>,
}

impl From<&Line> for About {
    fn from(line: &Line) -> Self {
        Self { id: line.id.clone(), address: line.address.clone() }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, about, complaint } = self;
        match &about.address {
            Some(address) => write!(f, "{from} {complaint} {address}"),
            None => write!(f, "{from} {complaint} {}", about.id),
        }
    }
}

fn doubt(node: &NodeView, member: &Line) -> Option<(About, &'static str)> {
    match node.lines().find(|line| line.id == member.id) {
        None => Some((About::from(member), "does not know")),
        Some(line) if !line.is_sound() => Some((About::from(line), "has no sound link to")),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::{Absent, Info};
    use super::*;

    fn view(nodes: &[&str]) -> ClusterView {
        ClusterView::said(nodes)
    }

    const A: &str = "a 127.0.0.1:1@11 myself,master - 0 0 1 connected 0-8191\n\
                     b 127.0.0.1:2@12 master - 0 0 2 connected 8192-16383\n\
                     c 127.0.0.1:3@13 slave a 0 0 1 connected";
    const B: &str = "a 127.0.0.1:1@11 master - 0 0 1 connected 0-8191\n\
                     b 127.0.0.1:2@12 myself,master - 0 0 2 connected 8192-16383\n\
                     c 127.0.0.1:3@13 slave a 0 0 1 connected";
    const C: &str = "a 127.0.0.1:1@11 master - 0 0 1 connected 0-8191\n\
                     b 127.0.0.1:2@12 master - 0 0 2 connected 8192-16383\n\
                     c 127.0.0.1:3@13 myself,slave a 0 0 1 connected";

    fn check(nodes: &[&str], expected: &[&str]) {
        let found = findings(&view(nodes));
        let shown: Vec<String> =
            found.iter().map(|f| format!("{}{f}", if f.is_fault() { "! " } else { "" })).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_whole_cluster_has_no_findings() {
        check(&[A, B, C], &[]);
    }

    #[test]
    fn each_fault_is_named_with_slot_and_node() {
        check(
            &[A, &B.replace("connected 0-8191", "connected 0-8190"), C],
            &["! 127.0.0.1:2 tell other owners of slots than the first node"],
        );
        check(
            &[
                &A.replace("0-8191", "0-8191 [5->-b] [7->-b]"),
                &B.replace("16383", "16383 [5-<-a]"),
                C,
            ],
            &[
                "! Node 127.0.0.1:1 has slots in migrating state 5,7",
                "! Node 127.0.0.1:2 has slots in importing state 5",
            ],
        );
        let hole = |text: &str| text.replace("0-8191", "0-99 102-8191");
        check(&[&hole(A), &hole(B), &hole(C)], &["! no node that answers owns slots 100-101"]);
        let claim = B.replace("8192-16383", "8190-16383");
        check(
            &[A, &claim],
            &[
                "! 127.0.0.1:2 tell other owners of slots than the first node",
                "! slots 8190-8191 are claimed by 127.0.0.1:1, 127.0.0.1:2",
            ],
        );
    }

    #[test]
    fn what_is_odd_is_a_warning() {
        let same = |text: &str| text.replace("0 0 2 connected", "0 0 1 connected");
        check(
            &[&same(A), &same(B), &same(C)],
            &["127.0.0.1:1, 127.0.0.1:2 have the same config epoch 1"],
        );
        let orphan = C.replace("myself,slave a", "myself,slave x");
        check(&[A, B, &orphan], &["127.0.0.1:3 claims to be slave of unknown node ID x"]);
        let mut view = view(&[A, B]);
        let line = view.nodes[0].others[1].clone();
        view.absent.push(Absent { line, reason: "refused".into() });
        let shown: Vec<String> = findings(&view).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["Node 127.0.0.1:3 (c) does not answer: refused"]);
        view.nodes.extend(ClusterView::said(&[C]).nodes);
        view.nodes[2].info = Info("master_link_status:down\r\n".into());
        view.absent.clear();
        let shown: Vec<String> = findings(&view).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["Node 127.0.0.1:3 has no link to its primary"]);
    }

    #[test]
    fn nodes_have_settled_when_all_say_the_same() {
        let gone = NodeId("d".into());
        let doubt =
            |nodes: &[&str]| unsettled(&view(nodes).nodes, Some(&gone)).map(|d| d.to_string());
        assert_eq!(doubt(&[A, B, C]), None);
        let lacks: String = B.lines().take(2).collect::<Vec<_>>().join("\n");
        assert_eq!(doubt(&[A, &lacks, C]).unwrap(), "127.0.0.1:2 does not know 127.0.0.1:3");
        let broken = B.replace("slave a 0 0 1 connected", "slave a 0 0 1 disconnected");
        assert_eq!(
            doubt(&[A, &broken, C]).unwrap(),
            "127.0.0.1:2 has no sound link to 127.0.0.1:3"
        );
        assert_eq!(unlinked(&view(&[A, &broken, C]).nodes).len(), 1);
        let more = format!("{B}\nd 127.0.0.1:4@14 slave a 0 0 1 connected");
        assert_eq!(doubt(&[A, &more, C]).unwrap(), "127.0.0.1:2 still knows 127.0.0.1:4");
        let dead = more.replace("d 127", "e 127");
        assert_eq!(doubt(&[A, &dead, C]), None, "a node that does not answer may be known");
        let role = B.replace("slave a", "slave b");
        let text = "127.0.0.1:2 tells other owners of slots, or other primaries, than 127.0.0.1:1";
        assert_eq!(doubt(&[A, &role, C]).unwrap(), text);
    }
}
