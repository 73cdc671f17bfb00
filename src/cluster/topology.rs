//! Which node owns which slot: an immutable snapshot, and the merging of what several nodes say into one.

use std::collections::BTreeMap;

use super::node::{Address, NodeId};
use super::owners::Owners;
use super::parse::{NodeLine, View};
use super::slot::{SLOTS, Slot};
use super::slots::Slots;

/// Position of a node in [`Topology::nodes`].
pub type NodeIndex = u16;
/// Most nodes of a snapshot; the numbers above mean something else to [`Owners`].
const MOST: NodeIndex = NodeIndex::MAX - 1;

/// One node of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Where clients reach it.
    pub address: Address,
    /// The primary it replicates; `None` for a primary.
    pub primary: Option<NodeIndex>,
    /// Whether the cluster holds it for failed.
    pub failed: bool,
    /// Its config epoch, which grows when a slot comes to it.
    pub epoch: u64,
    /// Replicas of this primary that are worth reading from.
    pub replicas: Vec<NodeIndex>,
}

/// A snapshot of the cluster. Never edited: a change is a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    nodes: Vec<Node>,
    owners: Owners,
    primaries: Vec<(NodeIndex, Slot)>,
}

impl Default for Topology {
    fn default() -> Self {
        Self { nodes: Vec::new(), owners: Owners::new(std::iter::empty()), primaries: Vec::new() }
    }
}

impl Topology {
    /// Merges the views of several nodes. For each slot the claim with the highest config epoch stands, as among the
    /// nodes themselves (Redis cluster specification, "hash slots configuration propagation"); what is known of a node is
    /// taken from its own view if that is among them, else from the view with the highest epoch.
    pub fn merge(views: &[View]) -> Self {
        let lines = best_lines(views);
        let index: BTreeMap<&NodeId, NodeIndex> =
            lines.keys().zip(0..).map(|(id, i)| (*id, i)).collect();
        let mut nodes: Vec<Node> = lines
            .values()
            .map(|line| Node {
                id: line.id.clone(),
                address: line.address.clone(),
                primary: line.primary.as_ref().and_then(|id| index.get(id).copied()),
                failed: line.failed,
                epoch: line.epoch,
                replicas: Vec::new(),
            })
            .collect();
        for at in 0..nodes.len() {
            if let (Some(primary), false) = (nodes[at].primary, nodes[at].failed) {
                nodes[usize::from(primary)].replicas.push(NodeIndex::try_from(at).unwrap_or(MOST));
            }
        }
        let owners = owners(views, &index);
        let primaries = first_slots(&owners);
        Self { nodes, owners, primaries }
    }

    /// The same with slots at another node; `None` if there is no such node.
    pub fn moved(&self, slots: &Slots, to: &NodeId) -> Option<Self> {
        let to = self.index(to)?;
        let moved = |(slot, owner)| if slots.contains(slot) { Some(to) } else { owner };
        Some(self.with_owners(self.owned().map(moved)))
    }

    /// What came of a look at the cluster, with the slots that have moved since where they are now: `before` was known when the
    /// look was begun, and `now` is since.
    #[must_use]
    pub fn caught_up(self, before: &Self, now: &Self) -> Self {
        let id =
            |topology: &Self, slot| topology.owner(slot).map(|at| topology.node(at).id.clone());
        let caught_up = |(slot, owner)| match id(now, slot) {
            Some(to) if Some(&to) != id(before, slot).as_ref() => self.index(&to).or(owner),
            _ => owner,
        };
        self.with_owners(self.owned().map(caught_up))
    }

    fn index(&self, id: &NodeId) -> Option<NodeIndex> {
        let at = self.nodes.binary_search_by(|node| node.id.cmp(id)).ok()?;
        NodeIndex::try_from(at).ok()
    }

    fn owned(&self) -> impl Iterator<Item = (Slot, Option<NodeIndex>)> {
        (0..).map_while(Slot::new).zip(self.owners.iter())
    }

    fn with_owners(&self, owners: impl Iterator<Item = Option<NodeIndex>>) -> Self {
        let owners = Owners::new(owners);
        Self { nodes: self.nodes.clone(), primaries: first_slots(&owners), owners }
    }

    /// All nodes, ordered by id.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with this index.
    pub fn node(&self, index: NodeIndex) -> &Node {
        &self.nodes[usize::from(index)]
    }

    /// The primary that owns a slot.
    #[inline]
    pub fn owner(&self, slot: Slot) -> Option<NodeIndex> {
        self.owners.of(slot)
    }

    /// Whether every slot is at the same address as in another map.
    pub fn has_owners_of(&self, other: &Self) -> bool {
        let mut last = (None, None);
        self.owners.iter().zip(other.owners.iter()).all(|pair| {
            // Slots come in ranges.
            if std::mem::replace(&mut last, pair) == pair {
                return true;
            }
            pair.0.map(|at| &self.node(at).address) == pair.1.map(|at| &other.node(at).address)
        })
    }

    /// Every primary that owns slots, with its first one.
    pub fn primaries(&self) -> &[(NodeIndex, Slot)] {
        &self.primaries
    }

    /// Number of slots with an owner.
    pub fn covered(&self) -> usize {
        self.owners.iter().flatten().count()
    }

    /// The node at an address.
    pub fn at(&self, address: &Address) -> Option<&Node> {
        self.nodes.iter().find(|node| node.address == *address)
    }
}

/// The most trustworthy line about each node, for as many nodes as can be numbered.
fn best_lines(views: &[View]) -> BTreeMap<&NodeId, &NodeLine> {
    let rank = |line: &NodeLine| (line.myself, line.epoch, line.failed);
    let mut best: BTreeMap<&NodeId, &NodeLine> = BTreeMap::new();
    for line in views.iter().flat_map(|view| &view.nodes) {
        let known = best.entry(&line.id).or_insert(line);
        // Among equals any order will do, as long as it does not depend on who was heard first.
        if (rank(line), &known.address, &known.primary)
            > (rank(known), &line.address, &line.primary)
        {
            *known = line;
        }
    }
    best.into_iter().take(usize::from(MOST)).collect()
}

fn owners(views: &[View], index: &BTreeMap<&NodeId, NodeIndex>) -> Owners {
    let mut best: Vec<Option<(u64, bool, NodeIndex)>> = vec![None; SLOTS];
    for line in views.iter().flat_map(|view| &view.nodes) {
        let Some(&node) = index.get(&line.id) else { continue };
        let claim = Some((line.epoch, line.myself, node));
        for slot in line.slots.iter().flat_map(Clone::clone) {
            best[slot] = best[slot].max(claim);
        }
    }
    Owners::new(best.into_iter().map(|claim| claim.map(|(_, _, node)| node)))
}

fn first_slots(owners: &Owners) -> Vec<(NodeIndex, Slot)> {
    let mut first = BTreeMap::new();
    for (slot, owner) in owners.iter().enumerate() {
        if let (Some(slot), Some(owner)) = (Slot::new(slot), owner) {
            first.entry(owner).or_insert(slot);
        }
    }
    first.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn view(text: &str) -> View {
        parse::nodes(text, &Address::parse("10.0.0.1:7001", None).unwrap()).unwrap()
    }

    #[test]
    fn the_highest_epoch_wins_each_slot() {
        let stale = view(
            "a 10.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-100\nb 10.0.0.2:7002@17002 master - 0 0 2 connected 101-16383\n",
        );
        let fresh = view(
            "a 10.0.0.1:7001@17001 master - 0 0 1 connected 0-49\nb 10.0.0.2:7002@17002 myself,master - 0 0 9 connected 50-16383\n",
        );
        for views in [[stale.clone(), fresh.clone()], [fresh, stale]] {
            let topology = Topology::merge(&views);
            let owner = |slot| {
                topology.node(topology.owner(Slot::new(slot).unwrap()).unwrap()).id.0.to_string()
            };
            assert_eq!(
                (owner(49), owner(50), owner(100), owner(101)),
                ("a".into(), "b".into(), "b".into(), "b".into())
            );
            assert_eq!(topology.covered(), SLOTS);
        }
    }

    #[test]
    fn owners_are_compared_by_where_they_are() {
        let map = |text: &str| Topology::merge(&[view(text)]);
        let before = "a 10.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-99\nb 10.0.0.2:7002@17002 master - 0 0 2 connected 100-199\n";
        let check = |from: &str, to: &str, same| {
            let (before, after) = (map(before), map(&before.replace(from, to)));
            assert_eq!(after.has_owners_of(&before), same, "{to}");
            assert_eq!(before.has_owners_of(&after), same, "{to}");
        };
        check("0 0 2", "0 0 3", true);
        check("b 10", "0 10.0.0.3:7003@17003 slave a 0 0 1 connected\nb 10", true);
        check("7002@", "7003@", false);
        check("100-199", "100-198", false);
        check("0-99\nb", "1-99\nb", false);
    }

    #[test]
    fn what_moved_during_a_look_stays_moved() {
        let [first, second, last] = [0, 1, 2].map(|slot| Slot::new(slot).unwrap());
        let look = |slots: [&str; 2]| {
            let [a, b] = slots;
            Topology::merge(&[view(&format!(
                "a 10.0.0.1:7001@17001 myself,master - 0 0 1 connected {a}\nb 10.0.0.2:7002@17002 master - 0 0 2 connected {b}\n"
            ))])
        };
        let (a, b) = (NodeId("a".into()), NodeId("b".into()));
        let before = look(["0-2", "3-16383"]);
        let now = before.moved(&Slots::from_iter([first]), &b).unwrap();
        assert_eq!(now, look(["1-2", "0 3-16383"]));
        // The look saw only the second one go, and saw that on its own.
        let found = look(["0 2", "1 3-16383"]).caught_up(&before, &now);
        let owner = |slot| found.node(found.owner(slot).unwrap()).id.clone();
        assert_eq!((owner(first), owner(second), owner(last)), (b.clone(), b, a));
        assert_eq!(before.moved(&Slots::from_iter([first]), &NodeId("c".into())), None);
    }

    #[test]
    fn replicas_hang_on_their_primary() {
        let topology = Topology::merge(&[view(
            "a 10.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-16383\nr 10.0.0.1:7004@17004 slave a 0 0 1 connected\nx 10.0.0.1:7005@17005 slave,fail a 0 0 1 connected\n",
        )]);
        let primary = topology.node(topology.owner(Slot::of(b"k")).unwrap());
        assert_eq!(
            primary.replicas.iter().map(|r| topology.node(*r).id.0.as_ref()).collect::<Vec<_>>(),
            ["r"]
        );
        assert_eq!(topology.primaries().len(), 1);
    }
}
