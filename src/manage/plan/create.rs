//! Who is to serve and who is to follow whom in a cluster of empty nodes. Pure, and the same for the same input.
//!
//! Hosts take turns, so that neighbours in the list of primaries stand on different hosts; then each primary is given
//! replicas from other hosts. What this leaves to be wished for, exchanges of two replicas mend as far as they can. Where
//! zones are known, they stand for hosts.

use std::collections::{BTreeMap, VecDeque};

use thiserror::Error;

use super::Step;
use crate::cluster::{NodeId, SLOTS, Slot, Slots};

/// Fewest primaries: with two, the failure of one leaves no majority to replace it.
pub const FEWEST: usize = 3;

/// Position of a node in the list that the plan was made of.
pub type Seat = usize;

/// Who does what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The primaries with their slots, in order of these.
    pub primaries: Vec<(Seat, Slots)>,
    /// Each replica with its primary, in the order in which they were given out.
    pub replicas: Vec<(Seat, Seat)>,
    /// How many of the replicas each primary was to have; the others are extra.
    pub regular: usize,
    /// Whether exchanges were needed, and how far they led.
    pub affinity: Option<Affinity>,
}

/// How replicas are spread over hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// No host holds two copies of a slot.
    Perfect,
    /// A replica stands on its primary's host.
    WithPrimary,
    /// Two replicas of a primary stand on one host.
    WithSibling,
}

/// There are not enough nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{nodes} nodes with {replicas} replicas per node make fewer than {FEWEST} primaries")]
pub struct TooFew {
    /// Nodes that there are.
    pub nodes: usize,
    /// Replicas that each primary is to have.
    pub replicas: usize,
}

impl Layout {
    /// What makes the layout true, of nodes that know nobody yet; `ids` are their names by seat.
    pub fn steps(&self, ids: &[NodeId]) -> Vec<Step> {
        let id = |seat: &Seat| ids[*seat].clone();
        let slots = self.primaries.iter();
        let slots =
            slots.map(|(seat, slots)| Step::AddSlots { node: id(seat), slots: slots.clone() });
        // Different from the start, so that the nodes need not settle among themselves whose is higher.
        let epochs =
            (1..).zip(ids).map(|(epoch, node)| Step::SetEpoch { node: node.clone(), epoch });
        let replicas = self.replicas.iter();
        let replicas = replicas
            .map(|(node, primary)| Step::Replicate { node: id(node), primary: id(primary) });
        slots.chain(epochs).chain([Step::Join { nodes: ids.to_vec() }]).chain(replicas).collect()
    }
}

/// Plans a cluster of nodes on these hosts.
pub fn layout(hosts: &[&str], replicas: usize) -> Result<Layout, TooFew> {
    let count = hosts.len() / (replicas.saturating_add(1));
    if count < FEWEST {
        return Err(TooFew { nodes: hosts.len(), replicas });
    }
    let mut order = by_turns(hosts);
    let mut rest = order.split_off(count);
    // One further often brings replicas onto other hosts than their primaries'.
    let turn = usize::from(!rest.is_empty());
    rest.rotate_left(turn);
    let primaries: Vec<(Seat, Slots)> = order.into_iter().zip(shares(count)).collect();
    let seats: Vec<Seat> = primaries.iter().map(|(seat, _)| *seat).collect();
    let mut pairs = attach(hosts, &seats, rest, replicas);
    let before = cost(hosts, &pairs);
    if before != (0, 0) {
        improve(hosts, &mut pairs);
    }
    let affinity = (before != (0, 0)).then(|| match cost(hosts, &pairs) {
        (0, 0) => Affinity::Perfect,
        (0, _) => Affinity::WithSibling,
        _ => Affinity::WithPrimary,
    });
    Ok(Layout { primaries, replicas: pairs, regular: count * replicas, affinity })
}

/// One node of each host, then the next of each, and so on.
fn by_turns(hosts: &[&str]) -> Vec<Seat> {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    let mut queues: Vec<VecDeque<Seat>> = Vec::new();
    for (seat, host) in hosts.iter().enumerate() {
        let queue = *first.entry(host).or_insert(queues.len());
        if queue == queues.len() {
            queues.push(VecDeque::new());
        }
        queues[queue].push_back(seat);
    }
    let mut order = Vec::with_capacity(hosts.len());
    while order.len() < hosts.len() {
        order.extend(queues.iter_mut().filter_map(VecDeque::pop_front));
    }
    order
}

/// The slots in so many shares, cut where redis-trib cuts: at the nearest whole number.
fn shares(count: usize) -> impl Iterator<Item = Slots> {
    let end = move |share: usize| (2 * share * SLOTS + count) / (2 * count);
    (0..count).map(move |share| (end(share)..end(share + 1)).filter_map(Slot::new).collect())
}

/// Gives each primary its replicas, from other hosts if there are such; those left over go round once more.
fn attach(
    hosts: &[&str],
    primaries: &[Seat],
    mut free: Vec<Seat>,
    replicas: usize,
) -> Vec<(Seat, Seat)> {
    let mut pairs = Vec::with_capacity(free.len());
    let mut give = |primary: Seat, free: &mut Vec<Seat>| {
        let elsewhere = free.iter().position(|seat| hosts[*seat] != hosts[primary]);
        if !free.is_empty() {
            pairs.push((free.remove(elsewhere.unwrap_or(0)), primary));
        }
    };
    for primary in primaries {
        for _ in 0..replicas {
            give(*primary, &mut free);
        }
    }
    while !free.is_empty() {
        for primary in primaries {
            give(*primary, &mut free);
        }
    }
    pairs
}

/// Replicas on their primary's host, and pairs of replicas of one primary on one host; the first weighs more.
fn cost(hosts: &[&str], pairs: &[(Seat, Seat)]) -> (usize, usize) {
    let mut families: BTreeMap<Seat, Vec<&str>> = BTreeMap::new();
    for (replica, primary) in pairs {
        families.entry(*primary).or_default().push(hosts[*replica]);
    }
    families.iter().fold((0, 0), |sum, (primary, family)| {
        let one = family_cost(hosts[*primary], family);
        (sum.0 + one.0, sum.1 + one.1)
    })
}

fn family_cost(host: &str, family: &[&str]) -> (usize, usize) {
    let with_primary = family.iter().filter(|have| **have == host).count();
    let twins =
        (1..family.len()).map(|at| family[..at].iter().filter(|have| **have == family[at]).count());
    (with_primary, twins.sum())
}

/// Exchanges the primaries of two replicas wherever that makes it better, until no exchange does. Every exchange lowers
/// the cost, so it ends.
fn improve(hosts: &[&str], pairs: &mut [(Seat, Seat)]) {
    let family = |pairs: &[(Seat, Seat)], primary: Seat| {
        let hosts_of = pairs.iter().filter(|pair| pair.1 == primary).map(|pair| hosts[pair.0]);
        family_cost(hosts[primary], &hosts_of.collect::<Vec<_>>())
    };
    let both = |pairs: &[(Seat, Seat)], a: Seat, b: Seat| {
        let (a, b) = (family(pairs, a), family(pairs, b));
        (a.0 + b.0, a.1 + b.1)
    };
    let mut improved = true;
    while improved {
        improved = false;
        for a in 0..pairs.len() {
            for b in a + 1..pairs.len() {
                let (one, other) = (pairs[a].1, pairs[b].1);
                if one == other || hosts[pairs[a].0] == hosts[pairs[b].0] {
                    continue;
                }
                let before = both(pairs, one, other);
                (pairs[a].1, pairs[b].1) = (other, one);
                if both(pairs, one, other) < before {
                    improved = true;
                } else {
                    (pairs[a].1, pairs[b].1) = (one, other);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(
        hosts: &str,
        replicas: usize,
        primaries: &str,
        pairs: &str,
        affinity: Option<Affinity>,
    ) {
        let hosts: Vec<&str> = hosts.split(' ').collect();
        let layout = layout(&hosts, replicas).unwrap();
        let seats: Vec<String> =
            layout.primaries.iter().map(|(s, slots)| format!("{s}:{slots}")).collect();
        let attached: Vec<String> =
            layout.replicas.iter().map(|(r, p)| format!("{r}>{p}")).collect();
        assert_eq!((seats.join(" ").as_str(), attached.join(" ").as_str()), (primaries, pairs));
        assert_eq!(layout.affinity, affinity);
    }

    #[test]
    fn one_host() {
        check(
            "h h h h h h",
            1,
            "0:0-5460 1:5461-10922 2:10923-16383",
            "4>0 5>1 3>2",
            Some(Affinity::WithPrimary),
        );
        check("h h h", 0, "0:0-5460 1:5461-10922 2:10923-16383", "", None);
    }

    #[test]
    fn replicas_stand_on_other_hosts() {
        let slots = "0:0-5460 2:5461-10922 4:10923-16383";
        check("a a b b c c", 1, slots, "3>0 5>2 1>4", None);
        check("a a b b c c a", 1, slots, "3>0 5>0 6>4 1>2", Some(Affinity::Perfect));
    }

    #[test]
    fn six_shares_are_cut_as_redis_trib_cuts_them() {
        let shares: Vec<String> = shares(6).map(|slots| slots.to_string()).collect();
        let expected =
            ["0-2730", "2731-5460", "5461-8191", "8192-10922", "10923-13652", "13653-16383"];
        assert_eq!(shares, expected);
    }

    #[test]
    fn too_few_nodes() {
        assert_eq!(layout(&["h"; 5], 1), Err(TooFew { nodes: 5, replicas: 1 }));
        assert!(layout(&[], usize::MAX).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_slot_is_owned_once_and_every_node_has_one_duty(
            hosts in prop::collection::vec(0..6_u8, 3..40), replicas in 0..4_usize,
        ) {
            let names: Vec<String> = hosts.iter().map(ToString::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let Ok(layout) = layout(&names, replicas) else {
                prop_assert!(hosts.len() / (replicas + 1) < FEWEST);
                return Ok(());
            };
            let all: Vec<Slot> = layout.primaries.iter().flat_map(|(_, slots)| slots).copied().collect();
            prop_assert_eq!(all, Slots::all().to_vec());
            let seats = layout.primaries.iter().map(|(seat, _)| *seat);
            let mut seats: Vec<Seat> = seats.chain(layout.replicas.iter().map(|(seat, _)| *seat)).collect();
            seats.sort_unstable();
            prop_assert_eq!(seats, (0..hosts.len()).collect::<Vec<_>>());
            for (primary, slots) in &layout.primaries {
                let have = layout.replicas.iter().filter(|pair| pair.1 == *primary).count();
                prop_assert!(have >= replicas);
                prop_assert!(slots.len().abs_diff(SLOTS / layout.primaries.len()) <= 1);
            }
            let (with_primary, siblings) = cost(&names, &layout.replicas);
            prop_assert!(with_primary == 0 || layout.affinity == Some(Affinity::WithPrimary));
            prop_assert!(with_primary + siblings > 0 || matches!(layout.affinity, None | Some(Affinity::Perfect)));
        }
    }
}
