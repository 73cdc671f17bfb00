//! Which of the nodes that were asked are our cluster's.
//!
//! Not all are: a redirect may name a node of any cluster, since scripts can answer with one, and the address of a node
//! that is gone may be another cluster's tomorrow. Config epochs of two clusters cannot be compared, so such a node must
//! not be heard at all. Addresses prove nothing; what does is who names whom by node id:
//!
//! Views that show no slots, or not the node itself, do not count. Two views belong together if each names the node of
//! the other; views that belong together, directly or through others, are a group, and the views of one cluster are one.
//! While there is no map, the largest group is ours, and among equals the one with the earliest seed. Later it is the
//! group with the views of most nodes on the map, provided that it names at least half of all nodes on the map: a node
//! that was reset keeps its id, and may have taken it into another cluster. So a node joins when a node of ours names it
//! and is named by it, all nodes may be replaced one after the other, and a node that none of ours names is never
//! heard. Only when there is no such group, and the nodes on the map are gone, others may be their heirs: the group with
//! the views of most nodes on the map, or if there are no such views, the one that all seeds are in, provided that no
//! view outside it names a node on the map.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, HashSet};

use super::node::NodeId;
use super::parse::View;

/// A view, and how its node came to be asked.
#[derive(Clone, Copy, Debug)]
pub struct Witness<'a> {
    /// What the node says.
    pub view: &'a View,
    /// Position in the list of seeds, for a seed.
    pub seed: Option<usize>,
}

/// Positions among the witnesses.
pub type Positions = BTreeSet<usize>;

/// The views that are our cluster's, given the nodes on the map; `None` if none certainly is.
pub fn ours(map: &BTreeSet<&NodeId>, witnesses: &[Witness]) -> Option<Positions> {
    let groups = groups(map, witnesses);
    let best = groups.into_iter().max_by(Group::compare)?;
    let is_sure = map.is_empty() || best.known > 0 && best.named * 2 >= map.len();
    is_sure.then_some(best.members)
}

/// The views of those who have taken the place of the nodes on the map, which are gone; `None` if it cannot be told.
pub fn heirs(map: &BTreeSet<&NodeId>, witnesses: &[Witness]) -> Option<Positions> {
    let groups = groups(map, witnesses);
    if groups.iter().any(|group| group.known > 0) {
        return groups.into_iter().max_by(Group::compare).map(|best| best.members);
    }
    let (with_seeds, others): (Vec<Group>, Vec<Group>) =
        groups.into_iter().partition(|group| group.seed.is_some());
    let [heirs] = with_seeds.try_into().ok()?;
    others.iter().all(|group| group.named == 0).then_some(heirs.members)
}

/// Views that belong together.
#[derive(Debug)]
struct Group<'a> {
    members: Positions,
    /// The nodes whose views they are.
    nodes: BTreeSet<&'a NodeId>,
    /// How many of these are on the map.
    known: usize,
    /// How many of the nodes on the map they name.
    named: usize,
    /// The earliest seed among them.
    seed: Option<usize>,
}

impl Group<'_> {
    /// The greater one is ours rather. The first id decides among equals, so that the order of the witnesses never does.
    fn compare(&self, other: &Self) -> Ordering {
        let rank = |group: &Self| {
            let seed = Reverse(group.seed.unwrap_or(usize::MAX));
            (group.known, group.nodes.len(), seed, Reverse(group.nodes.first().copied()))
        };
        rank(self).cmp(&rank(other))
    }
}

/// A view that counts: its node, and all nodes it names.
struct Named<'a> {
    node: &'a NodeId,
    all: HashSet<&'a NodeId>,
}

impl<'a> Named<'a> {
    fn by(view: &'a View) -> Option<Self> {
        let node = view.myself().filter(|_| view.has_slots())?;
        Some(Self { node, all: view.nodes.iter().map(|line| &line.id).collect() })
    }

    fn belongs_with(&self, other: &Self) -> bool {
        self.all.contains(other.node) && other.all.contains(self.node)
    }
}

fn groups<'a>(map: &BTreeSet<&NodeId>, witnesses: &[Witness<'a>]) -> Vec<Group<'a>> {
    let names: Vec<Option<Named>> = witnesses.iter().map(|w| Named::by(w.view)).collect();
    let mut left: Vec<(usize, &Named)> =
        names.iter().enumerate().filter_map(|(at, named)| Some((at, named.as_ref()?))).collect();
    let mut groups = Vec::new();
    while let Some(first) = left.pop() {
        let mut found = vec![first];
        let mut next = 0;
        while let Some(&(_, one)) = found.get(next) {
            found.extend(left.extract_if(.., |(_, other)| one.belongs_with(other)));
            next += 1;
        }
        groups.push(group(map, witnesses, &found));
    }
    groups
}

fn group<'a>(
    map: &BTreeSet<&NodeId>,
    witnesses: &[Witness],
    found: &[(usize, &Named<'a>)],
) -> Group<'a> {
    let members: Positions = found.iter().map(|(at, _)| *at).collect();
    let nodes: BTreeSet<&NodeId> = found.iter().map(|(_, named)| named.node).collect();
    let all: HashSet<&NodeId> = found.iter().flat_map(|(_, named)| &named.all).copied().collect();
    Group {
        known: nodes.iter().filter(|id| map.contains(**id)).count(),
        named: map.iter().filter(|id| all.contains(**id)).count(),
        seed: members.iter().filter_map(|at| witnesses[*at].seed).min(),
        members,
        nodes,
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::Address;
    use super::super::parse;
    use super::*;

    /// A view from `a:abc`, said by node `a` that names `a`, `b` and `c`; a `0` behind the first name stands for no
    /// slots, a digit at the end for a seed.
    fn view(text: &str) -> (View, Option<usize>) {
        let (node, names) = text.split_once(':').unwrap();
        let seed = names.chars().last().and_then(|c| c.to_digit(10)).map(|at| at as usize);
        let slots = if node.ends_with('0') { "" } else { "0-16383" };
        let lines = names.chars().filter(char::is_ascii_alphabetic).map(|name| {
            let flag = if node.starts_with(name) { "myself," } else { "" };
            format!("{name} 10.0.0.1:7001@17001 {flag}master - 0 0 1 connected {slots}\n")
        });
        let text: Vec<String> = lines.collect();
        let from = Address::parse("10.0.0.1:7001", None).unwrap();
        (parse::nodes(&text.concat(), &from).unwrap(), seed)
    }

    /// Which nodes of the views are ours, and which are heirs; nothing stands for none.
    fn check(map: &str, views: &str, expected: (&str, &str)) {
        let ids: Vec<NodeId> = map.chars().map(|name| NodeId(name.to_string().into())).collect();
        let texts: Vec<&str> = views.split(' ').collect();
        let views: Vec<_> = texts.iter().map(|text| view(text)).collect();
        let witnesses: Vec<Witness> =
            views.iter().map(|(view, seed)| Witness { view, seed: *seed }).collect();
        let map: BTreeSet<&NodeId> = ids.iter().collect();
        let names = |found: Option<Positions>| -> String {
            found.iter().flatten().map(|at| &texts[*at][..1]).collect()
        };
        let found = (names(ours(&map, &witnesses)), names(heirs(&map, &witnesses)));
        assert_eq!((found.0.as_str(), found.1.as_str()), expected, "{map:?} {texts:?}");
    }

    #[test]
    fn without_a_map_the_largest_group_is_ours() {
        check("", "a:abc1 x:xy0 b:abc2", ("ab", ""));
        check("", "x:xy1 a:abc0", ("a", "")); // The earliest seed.
        check("", "a:a0 b:b1 c:c2", ("a", "")); // They have not met yet.
        check("", "a0:a0 b:b1", ("b", "b")); // The first seed has no slots.
        check("", "a0:a0", ("", ""));
        check("", "a:abc a:abc x:xy0", ("x", "x")); // A node that was asked twice is one.
    }

    #[test]
    fn who_is_named_by_ours_and_names_them_is_ours() {
        check("abc", "a:abcd b:abcd d:abcd", ("abd", "abd"));
        check("abc", "a:abc b:abcd d:abcd", ("abd", "abd")); // Not all have heard of it.
        check("abc", "a:abcd d:bd", ("a", "a")); // It does not know the only one that was asked.
        check("abc", "a:abc d:abcd", ("a", "a")); // It only says so itself.
        check("abc", "c:cd d:cd", ("", "cd")); // Too few of the map to be sure.
        check("abcd", "c:cdef d:cdef e:cdef", ("cde", "cde"));
        check("a", "a:a", ("a", "a"));
    }

    #[test]
    fn strangers_are_not_heard_however_many_they_are() {
        check("abc", "x:xyz y:xyz z:xyz a:abc", ("a", "a"));
        check("abc", "x:xyz1 y:xyz2 c:abc", ("c", "c"));
        check("abc", "x:abcxyz y:abcxyz a:abc", ("a", "a"));
        check("abc", "x:xyz y:xyz", ("", ""));
        check("abc", "d:abcd", ("", ""));
    }

    #[test]
    fn a_node_that_was_reset_speaks_for_itself_alone() {
        check("abc", "a:abc b:abc c0:c", ("ab", "ab"));
        check("abc", "a:ab b:ab c:cxyz x:cxyz y:cxyz", ("ab", "ab"));
        check("abc", "c0:c", ("", ""));
        check("abc", "c:cxyz x:cxyz", ("", "cx"));
    }

    #[test]
    fn all_seeds_say_who_takes_the_place_of_nodes_that_are_gone() {
        check("abc", "x:xyz0 y:xyz1 z:xyz", ("", "xyz"));
        check("abc", "x:xyz0 d:d1", ("", "")); // The seeds are of two clusters.
        check("abc", "x:xyz0 d0:d1", ("", "x"));
        check("abc", "x:xyz0 d:abcd", ("", "")); // Something is left of the old cluster.
        check("abc", "x:xyz y:xyz", ("", "")); // No seed has answered.
        check("abc", "d:abcd0 x:xyz", ("", "d"));
    }
}
