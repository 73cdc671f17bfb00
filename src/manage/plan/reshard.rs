//! Which slots go when so many are to go from some primaries to another one. Pure.

use super::Move;
use super::rebalance::{as_f64, floor};
use crate::cluster::{NodeId, Slot, Slots};
use crate::manage::view::{ClusterView, NodeView};

/// Takes `count` slots from the sources, from each by the share it has of all their slots, the lowest first. There are
/// fewer if the sources have fewer.
pub fn plan(sources: &[(NodeId, Slots)], to: &NodeId, count: usize) -> Vec<Move> {
    let mut sorted: Vec<&(NodeId, Slots)> = sources.iter().collect();
    // A stable sort: among equals the order of the nodes decides.
    sorted.sort_by_key(|(_, slots)| std::cmp::Reverse(slots.len()));
    let total: usize = sorted.iter().map(|(_, slots)| slots.len()).sum();
    let takes =
        shares(&sorted.iter().map(|(_, slots)| slots.len()).collect::<Vec<_>>(), count.min(total));
    let moves = sorted.into_iter().zip(takes).filter(|(_, take)| *take > 0);
    moves
        .map(|((from, slots), take)| Move {
            from: from.clone(),
            to: to.clone(),
            slots: slots.iter().take(take).copied().collect(),
        })
        .collect()
}

/// Takes exactly these slots from the sources; those that no source has are the error.
pub fn named(sources: &[(NodeId, Slots)], to: &NodeId, wanted: &Slots) -> Result<Vec<Move>, Slots> {
    let is_there = |slot: &Slot| sources.iter().any(|(_, slots)| slots.contains(*slot));
    let missing: Slots = wanted.iter().filter(|slot| !is_there(slot)).copied().collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let part = |(from, slots): &(NodeId, Slots)| Move {
        from: from.clone(),
        to: to.clone(),
        slots: slots.iter().filter(|slot| wanted.contains(**slot)).copied().collect(),
    };
    Ok(sources.iter().map(part).filter(|part| !part.slots.is_empty()).collect())
}

/// Gives a new primary its share by weight, beside the others' 1, from the others by what they have, and moves nothing
/// between those.
pub fn arriving(view: &ClusterView, new: &NodeView, weight: f64) -> Vec<Move> {
    let owns = |node: &&NodeView| node.own.id != new.own.id && !node.own.slots.is_empty();
    let others: Vec<(NodeId, Slots)> = view
        .primaries()
        .filter(owns)
        .map(|node| (node.own.id.clone(), node.own.slots.clone()))
        .collect();
    let all: usize = others.iter().map(|(_, slots)| slots.len()).sum();
    let have = new.own.slots.len();
    let weights = as_f64(others.len()) + weight;
    let share = floor(as_f64(all + have) * weight / weights);
    plan(&others, &new.own.id, share.saturating_sub(have))
}

/// How many to take of each pile so that all shares are within one of being proportional and the sum is right; the
/// largest piles come first, and give the odd ones.
fn shares(piles: &[usize], count: usize) -> Vec<usize> {
    let total: usize = piles.iter().sum();
    let mut takes: Vec<usize> =
        piles.iter().map(|pile| (pile * count).checked_div(total).unwrap_or(0)).collect();
    let mut missing = count - takes.iter().sum::<usize>();
    while missing > 0 {
        for (take, pile) in takes.iter_mut().zip(piles) {
            if missing > 0 && *take < *pile {
                *take += 1;
                missing -= 1;
            }
        }
    }
    takes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::Model;
    use super::*;
    use crate::cluster::SLOTS;

    fn check(sources: &[(&str, &str)], count: usize, expected: &[(&str, &str)]) {
        let sources: Vec<(NodeId, Slots)> = sources
            .iter()
            .map(|(id, slots)| (NodeId((*id).into()), slots.parse().unwrap()))
            .collect();
        let moves = plan(&sources, &NodeId("t".into()), count);
        let found: Vec<(String, String)> =
            moves.iter().map(|m| (m.from.to_string(), m.slots.to_string())).collect();
        let expected: Vec<(String, String)> =
            expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_larger_give_more_and_the_lowest_go_first() {
        let three = [("a", "0-5460"), ("b", "5461-10922"), ("c", "10923-16383")];
        check(&three, 500, &[("b", "5461-5627"), ("a", "0-166"), ("c", "10923-11088")]);
        check(&three, 1, &[("b", "5461")]);
        check(&three[..1], 3, &[("a", "0-2")]);
    }

    #[test]
    fn who_arrives_gets_a_share_once() {
        let cluster = |new: &str| {
            let line = |own: &str, id: &str, slots: &str| {
                let myself = if own == id { "myself," } else { "" };
                format!("{id} 10.0.0.1:1@2 {myself}master - 0 0 1 connected {slots}\n")
            };
            let all = [("a", "0-99"), ("b", "200-299"), ("n", new)];
            let text = |own| all.map(|(id, slots)| line(own, id, slots)).concat();
            let texts = all.map(|(own, _)| text(own));
            ClusterView::said(&texts.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let moves = |new: &str, weight: f64| {
            let view = cluster(new);
            let moves = arriving(&view, &view.nodes[2], weight);
            moves.iter().map(|part| (part.from.to_string(), part.slots.len())).collect::<Vec<_>>()
        };
        let both = |slots| [("a".to_owned(), slots), ("b".to_owned(), slots)];
        assert_eq!(moves("", 1.0), both(33));
        assert_eq!(moves("", 2.0), both(50));
        assert_eq!(moves("", 0.5), both(20));
        assert_eq!(moves("", 0.0), []);
        assert_eq!(moves("400-499", 1.0), []);
    }

    #[test]
    fn slots_that_are_named_come_from_whoever_has_them() {
        let sources = [("a", "0-9"), ("b", "20-29"), ("c", "40")];
        let sources = sources.map(|(id, slots)| (NodeId(id.into()), slots.parse().unwrap()));
        let check = |wanted: &str, expected: Result<&[&str], &str>| {
            let moves = named(&sources, &NodeId("t".into()), &wanted.parse().unwrap());
            let shown = moves.map(|moves| {
                moves.iter().map(|m| format!("{} {}", m.from, m.slots)).collect::<Vec<_>>()
            });
            let shown = shown.map_err(|missing| missing.to_string());
            let expected = expected.map(|all| all.iter().map(|s| (*s).to_owned()).collect());
            assert_eq!(shown, expected.map_err(str::to_owned), "{wanted}");
        };
        check("5-9,22", Ok(&["a 5-9", "b 22"]));
        check("9-11,50", Err("10-11,50"));
    }

    #[test]
    fn no_more_than_there_is() {
        check(&[("a", "1-3"), ("b", "")], 99999, &[("a", "1-3")]);
        check(&[], 5, &[]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn exactly_as_many_as_asked_for_and_each_once(
            cuts in prop::collection::vec(0..SLOTS, 1..8), count in 0..SLOTS + 100,
        ) {
            let mut model = Model::cut(&cuts);
            let to = model.ids()[0].clone();
            let sources: Vec<(NodeId, Slots)> =
                model.primaries().into_iter().filter(|(id, _)| *id != to).collect();
            let available: usize = sources.iter().map(|(_, slots)| slots.len()).sum();
            let moves = plan(&sources, &to, count);
            let moved: usize = moves.iter().map(|m| m.slots.len()).sum();
            prop_assert_eq!(moved, count.min(available));
            for step in &moves {
                model.carry(step);
            }
            model.covers_all_once();
        }
    }
}
