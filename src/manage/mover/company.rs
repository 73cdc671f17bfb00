//! Who takes part, by the names that the plan uses, and who stands in their places now. Pure.

use std::collections::BTreeMap;

use crate::cluster::{Address, NodeId};
use crate::manage::journal::Member;
use crate::manage::view::ClusterView;

/// The nodes of the cluster.
#[derive(Clone, Debug)]
pub(super) struct Company {
    members: BTreeMap<NodeId, Member>,
    /// Who took whose place.
    heirs: BTreeMap<NodeId, NodeId>,
}

impl Company {
    pub(super) fn new(members: &[Member], heirs: &[(NodeId, NodeId)]) -> Self {
        let members = members.iter().map(|member| (member.id.clone(), member.clone())).collect();
        Self { members, heirs: heirs.iter().cloned().collect() }
    }

    /// All names of the node that a plan calls `id`: the first one first, the one of now last.
    pub(super) fn names(&self, id: &NodeId) -> Vec<NodeId> {
        let mut names = vec![id.clone()];
        // A primary that came back and took over again closes a circle.
        while let Some(heir) = names.last().and_then(|last| self.heirs.get(last)) {
            if names.contains(heir) {
                break;
            }
            names.push(heir.clone());
        }
        names
    }

    /// The node that stands where the plan says `id`.
    pub(super) fn now(&self, id: &NodeId) -> NodeId {
        self.names(id).pop().unwrap_or_else(|| id.clone())
    }

    pub(super) fn address(&self, id: &NodeId) -> Option<Address> {
        self.members.get(id).map(|member| member.address.clone())
    }

    pub(super) fn addresses(&self) -> Vec<Address> {
        self.members.values().map(|member| member.address.clone()).collect()
    }

    /// Primaries, but for these two.
    pub(super) fn other_primaries(&self, from: &NodeId, to: &NodeId) -> Vec<NodeId> {
        let first = self.members.values().filter(|member| member.primary.is_none());
        let now = first.map(|member| self.now(&member.id));
        now.filter(|id| id != from && id != to).collect()
    }

    /// Takes note of where nodes are now, and gives who newly stands in whose place: a replica that has become a primary in
    /// the place of one that is gone, or has become its replica.
    pub(super) fn learn(&mut self, view: &ClusterView) -> Vec<(NodeId, NodeId)> {
        for node in &view.nodes {
            if let Some(member) = self.members.get_mut(&node.own.id) {
                member.address = node.address.clone();
            }
        }
        let is_primary = |id: &NodeId| view.node(id).is_some_and(|node| !node.own.is_replica());
        let family = |id: &NodeId| match self.members.get(id) {
            Some(Member { primary: Some(primary), .. }) => primary.clone(),
            _ => id.clone(),
        };
        let mut found = Vec::new();
        for id in self.members.keys().filter(|id| self.members[*id].primary.is_none()) {
            let now = self.now(id);
            if is_primary(&now) {
                continue;
            }
            let kin = self.members.keys().filter(|other| family(other) == *id && **other != now);
            if let Some(heir) = kin.into_iter().find(|other| is_primary(other)) {
                found.push((now, heir.clone()));
            }
        }
        for (of, is) in &found {
            self.heirs.remove(is);
            self.heirs.insert(of.clone(), is.clone());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::view::{Info, Line, NodeView};

    fn id(name: &str) -> NodeId {
        NodeId(name.into())
    }

    /// `a` with replicas `r` and `s`; `b`.
    fn company() -> Company {
        let member = |(name, primary): (&str, Option<&str>)| Member {
            id: id(name),
            address: Address::parse("10.0.0.1:1", None).unwrap(),
            primary: primary.map(id),
        };
        let members = [("a", None), ("r", Some("a")), ("s", Some("a")), ("b", None)].map(member);
        Company::new(&members, &[])
    }

    /// What nodes say: name, address, and the primary if it has one.
    fn view(nodes: &[(&str, &str, &str)]) -> ClusterView {
        let node = |(name, place, primary): &(&str, &str, &str)| {
            let address = Address::parse(place, None).unwrap();
            let role = if *primary == "-" { "master" } else { "slave" };
            let text = format!("{name} {place}@1 myself,{role} {primary} 0 0 1 connected");
            let own = Line::parse(&text, &address).unwrap();
            let (info, cluster) = (Info::default(), Info::default());
            NodeView { address, own, others: Vec::new(), info, cluster }
        };
        ClusterView { nodes: nodes.iter().map(node).collect(), absent: Vec::new() }
    }

    #[test]
    fn a_replica_of_a_node_that_is_gone_stands_in_its_place() {
        let mut company = company();
        let all =
            view(&[("a", "x:1", "-"), ("r", "x:2", "a"), ("s", "x:3", "a"), ("b", "x:4", "-")]);
        assert_eq!(company.learn(&all), []);
        assert_eq!(company.address(&id("s")).unwrap().to_string(), "x:3");
        let dead = view(&[("r", "x:2", "a"), ("s", "x:3", "a"), ("b", "x:4", "-")]);
        assert_eq!(company.learn(&dead), [], "nobody has taken over yet");
        let replaced = view(&[("r", "x:2", "s"), ("s", "x:5", "-"), ("b", "x:4", "-")]);
        assert_eq!(company.learn(&replaced), [(id("a"), id("s"))]);
        assert_eq!(company.learn(&replaced), []);
        assert_eq!(company.names(&id("a")), [id("a"), id("s")]);
        assert_eq!(company.address(&company.now(&id("a"))).unwrap().to_string(), "x:5");
        assert_eq!(company.other_primaries(&id("x"), &id("b")), [id("s")]);
        let back =
            view(&[("a", "x:1", "-"), ("r", "x:2", "a"), ("s", "x:5", "a"), ("b", "x:4", "-")]);
        assert_eq!(company.learn(&back), [(id("s"), id("a"))]);
        assert_eq!(company.now(&id("a")), id("a"));
    }

    /// As happens to a source that has lost its last slot.
    #[test]
    fn a_primary_that_follows_a_stranger_has_no_heir() {
        let mut company = company();
        let view =
            view(&[("a", "x:1", "b"), ("r", "x:2", "b"), ("s", "x:3", "b"), ("b", "x:4", "-")]);
        assert_eq!(company.learn(&view), []);
    }
}
