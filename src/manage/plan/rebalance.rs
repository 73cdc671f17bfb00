//! Which slots go where so that every primary has its share by weight. Pure.

use std::collections::BTreeMap;

use thiserror::Error;

use super::Move;
use crate::cluster::{NodeId, SLOTS, Slot, Slots};
use crate::manage::view::{ClusterView, NodeView};

/// A primary that takes part.
#[derive(Clone, Debug, PartialEq)]
pub struct Bearer {
    /// Its name.
    pub id: NodeId,
    /// What it owns.
    pub slots: Slots,
    /// How much it is to bear beside the others; 0 empties it.
    pub weight: f64,
}

/// What is to be done, or that nothing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All are within the threshold.
    Balanced,
    /// These moves, as few as possible.
    Moves(Vec<Move>),
}

/// The weights make no sense.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum WeightError {
    /// A weight is negative, infinite or no number.
    #[error("a weight must be a number from 0 on, and {0} has {1}")]
    Invalid(NodeId, f64),
    /// Nobody is to own anything.
    #[error("at least one node must have a weight above 0")]
    Nobody,
    /// The threshold is negative or no number.
    #[error("the threshold must be a percentage from 0 on, not {0}")]
    Threshold(f64),
}

/// What a primary is to have its share of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// Slots.
    #[default]
    Slots,
    /// Keys.
    Keys,
    /// Memory. Nodes tell it of all their keys only: each is held to take as much as the others there.
    Memory,
}

/// Plans for primaries in the order of the nodes. `threshold` is how many percent of what it has a primary may be away from
/// its share; with 0 nothing moves, as redis-cli has it.
pub fn plan(bearers: &[Bearer], threshold: f64) -> Result<Verdict, WeightError> {
    let weight = total_weight(bearers, threshold)?;
    let total: usize = bearers.iter().map(|bearer| bearer.slots.len()).sum();
    let shares = shares(bearers, total, weight);
    let is_off =
        |(bearer, share): (&Bearer, &usize)| is_over(bearer.slots.len(), *share, threshold);
    if !bearers.iter().zip(&shares).any(is_off) {
        return Ok(Verdict::Balanced);
    }
    Ok(Verdict::Moves(pair(bearers, &shares)))
}

fn total_weight(bearers: &[Bearer], threshold: f64) -> Result<f64, WeightError> {
    if let Some(bad) = bearers.iter().find(|b| !b.weight.is_finite() || b.weight < 0.0) {
        return Err(WeightError::Invalid(bad.id.clone(), bad.weight));
    }
    if threshold.is_nan() || threshold < 0.0 {
        return Err(WeightError::Threshold(threshold));
    }
    let weight: f64 = bearers.iter().map(|bearer| bearer.weight).sum();
    if weight <= 0.0 { Err(WeightError::Nobody) } else { Ok(weight) }
}

/// The same by what is in the slots: `load` tells it of each. The heaviest go first, each to who lacks most, as long as that
/// brings both nearer to their shares; slots without load stay, unless their owner is to have none.
pub fn by_load(
    bearers: &[Bearer],
    load: impl Fn(&NodeId, Slot) -> f64,
    threshold: f64,
) -> Result<Verdict, WeightError> {
    let weight = total_weight(bearers, threshold)?;
    let load_of =
        |bearer: &Bearer| -> f64 { bearer.slots.iter().map(|slot| load(&bearer.id, *slot)).sum() };
    let loads: Vec<f64> = bearers.iter().map(load_of).collect();
    let total: f64 = loads.iter().sum();
    // How much more each is to have.
    let mut lacks: Vec<f64> = bearers
        .iter()
        .zip(&loads)
        .map(|(bearer, load)| total * bearer.weight / weight - load)
        .collect();
    let is_off = |(at, bearer): (usize, &Bearer)| {
        let is_emptied = bearer.weight == 0.0 && !bearer.slots.is_empty();
        is_emptied || threshold > 0.0 && 100.0 * lacks[at].abs() > threshold * loads[at]
    };
    if !bearers.iter().enumerate().any(is_off) {
        return Ok(Verdict::Balanced);
    }
    let mut given: BTreeMap<(usize, usize), Vec<Slot>> = BTreeMap::new();
    for (giver, bearer) in bearers.iter().enumerate() {
        let mut slots: Vec<(f64, Slot)> =
            bearer.slots.iter().map(|slot| (load(&bearer.id, *slot), *slot)).collect();
        slots.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        for (load, slot) in slots {
            let others = (0..bearers.len()).filter(|at| bearers[*at].weight > 0.0);
            let Some(taker) = others.max_by(|a, b| lacks[*a].total_cmp(&lacks[*b])) else { break };
            let helps = load > 0.0 && load <= -lacks[giver] && load <= lacks[taker];
            if bearer.weight == 0.0 || helps {
                lacks[giver] += load;
                lacks[taker] -= load;
                given.entry((giver, taker)).or_default().push(slot);
            }
        }
    }
    let part = |((from, to), slots): ((usize, usize), Vec<Slot>)| Move {
        from: bearers[from].id.clone(),
        to: bearers[to].id.clone(),
        slots: slots.into_iter().collect(),
    };
    let moves: Vec<Move> = given.into_iter().map(part).collect();
    Ok(if moves.is_empty() { Verdict::Balanced } else { Verdict::Moves(moves) })
}

fn is_over(have: usize, share: usize, threshold: f64) -> bool {
    match have {
        _ if have == share || threshold == 0.0 => false,
        // One slot of rounding is no reason to move anything.
        _ if have.abs_diff(share) <= 1 && share > 0 => false,
        0 => share > 1,
        _ => (100.0 - 100.0 * as_f64(share) / as_f64(have)).abs() > threshold,
    }
}

/// Up to the number of slots.
pub(super) fn as_f64(count: usize) -> f64 {
    u32::try_from(count.min(SLOTS)).map_or(0.0, f64::from)
}

/// How many whole slots a share is.
pub(super) fn floor(share: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 0 and 16384"
    )]
    let whole = (share + 1e-6).floor() as usize;
    whole
}

/// How many slots each is to have: its share by weight, rounded down, and the rest to those who then keep most of what they
/// have, so that nothing moves for the sake of rounding alone.
fn shares(bearers: &[Bearer], total: usize, weight: f64) -> Vec<usize> {
    let exact = bearers.iter().map(|bearer| as_f64(total) * bearer.weight / weight);
    let mut shares: Vec<usize> = exact.map(floor).collect();
    let mut order: Vec<usize> = (0..bearers.len()).filter(|at| bearers[*at].weight > 0.0).collect();
    order.sort_by_key(|at| std::cmp::Reverse(bearers[*at].slots.len().saturating_sub(shares[*at])));
    let missing = total.saturating_sub(shares.iter().sum());
    for at in order.iter().cycle().take(missing) {
        shares[*at] += 1;
    }
    shares
}

/// Lets those who have most too much give to those who lack most.
fn pair(bearers: &[Bearer], shares: &[usize]) -> Vec<Move> {
    let of = |sign: fn(usize, usize) -> usize| {
        let differences =
            bearers.iter().zip(shares).map(move |(b, share)| (b, sign(b.slots.len(), *share)));
        let mut some: Vec<(&Bearer, usize)> = differences.filter(|(_, n)| *n > 0).collect();
        some.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        some
    };
    let givers = of(usize::saturating_sub);
    let mut takers = of(|have, share| share.saturating_sub(have));
    let mut moves = Vec::new();
    for (giver, surplus) in givers {
        let mut rest = giver.slots.iter().copied().take(surplus);
        for (taker, lack) in &mut takers {
            let slots: Slots = rest.by_ref().take(*lack).collect();
            *lack -= slots.len();
            if !slots.is_empty() {
                moves.push(Move { from: giver.id.clone(), to: taker.id.clone(), slots });
            }
        }
    }
    moves
}

/// Gives all that a primary has to these, or to the others that own slots if nobody is named.
pub fn leaving(view: &ClusterView, node: &NodeView, to: &[NodeId]) -> Vec<Move> {
    let takes = |other: &&NodeView| match to {
        [] => other.own.id != node.own.id && !other.own.slots.is_empty(),
        to => to.contains(&other.own.id),
    };
    let others = view.primaries().filter(takes);
    let others: Vec<(NodeId, usize)> =
        others.map(|other| (other.own.id.clone(), other.own.slots.len())).collect();
    drain(&node.own.id, &node.own.slots, &others)
}

/// Spreads all that one primary has over others, so that those who own least get most; each gets neighbours.
pub fn drain(from: &NodeId, slots: &Slots, others: &[(NodeId, usize)]) -> Vec<Move> {
    let mut loads: Vec<usize> = others.iter().map(|(_, load)| *load).collect();
    for _ in slots {
        if let Some(least) = loads.iter_mut().min() {
            *least += 1;
        }
    }
    let mut rest = slots.iter().copied();
    let moves = others.iter().zip(loads).map(|((to, before), after)| Move {
        from: from.clone(),
        to: to.clone(),
        slots: rest.by_ref().take(after - before).collect(),
    });
    moves.filter(|step| !step.slots.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::Model;
    use super::*;

    fn bearers(all: &[(&str, &str, f64)]) -> Vec<Bearer> {
        let bearer = |(id, slots, weight): &(&str, &str, f64)| Bearer {
            id: NodeId((*id).into()),
            slots: slots.parse().unwrap(),
            weight: *weight,
        };
        all.iter().map(bearer).collect()
    }

    fn check(all: &[(&str, &str, f64)], expected: &[&str]) {
        let Verdict::Moves(moves) = plan(&bearers(all), 2.0).unwrap() else { panic!("balanced") };
        let shown: Vec<String> =
            moves.iter().map(|m| format!("{}>{} {}", m.from, m.to, m.slots.len())).collect();
        assert_eq!(shown, expected);
    }

    const THREE: [(&str, &str, f64); 3] =
        [("a", "0-5460", 1.0), ("b", "5461-10922", 1.0), ("c", "10923-16383", 1.0)];

    #[test]
    fn a_new_primary_gets_its_share_and_nothing_else_moves() {
        let [a, b, c] = THREE;
        check(&[a, b, c, ("d", "", 1.0)], &["b>d 1366", "a>d 1365", "c>d 1365"]);
    }

    #[test]
    fn weights() {
        let [a, b, c] = THREE;
        check(&[("a", a.1, 2.0), b, c], &["b>a 1366", "c>a 1365"]);
        check(&[("a", a.1, 0.0), b, c], &["a>c 2731", "a>b 2730"]);
    }

    #[test]
    fn what_is_balanced_stays() {
        assert_eq!(plan(&bearers(&THREE), 2.0), Ok(Verdict::Balanced));
        assert_eq!(plan(&bearers(&THREE), 0.0), Ok(Verdict::Balanced));
        let uneven = [("a", "0-8200", 1.0), ("b", "8201-16383", 1.0)];
        assert_eq!(plan(&bearers(&uneven), 2.0), Ok(Verdict::Balanced));
        assert!(matches!(plan(&bearers(&uneven), 0.01), Ok(Verdict::Moves(_))));
        assert_eq!(plan(&bearers(&uneven), 0.0), Ok(Verdict::Balanced));
    }

    #[test]
    fn a_primary_is_drained_to_those_who_have_least() {
        let check = |loads: &[usize], expected: &[&str]| {
            let others: Vec<(NodeId, usize)> = loads
                .iter()
                .enumerate()
                .map(|(at, load)| (NodeId(at.to_string().into()), *load))
                .collect();
            let moves = drain(&NodeId("x".into()), &"0-99".parse().unwrap(), &others);
            let shown: Vec<String> =
                moves.iter().map(|m| format!("{} {}", m.to, m.slots)).collect();
            assert_eq!(shown, expected);
        };
        check(&[500, 500], &["0 0-49", "1 50-99"]);
        check(&[500, 420, 480], &["1 0-79", "2 80-99"]);
        check(&[10], &["0 0-99"]);
        check(&[], &[]);
    }

    #[test]
    fn what_is_in_the_slots_is_shared() {
        let check = |all: &[(&str, &str, f64)], threshold, expected: &[&str]| {
            // Slot 0 has 60, 1 has 30, 2 has 10, the others nothing.
            let load = |_: &NodeId, slot: Slot| {
                [60.0, 30.0, 10.0].get(slot.index()).copied().unwrap_or(0.0)
            };
            let moves = match by_load(&bearers(all), load, threshold).unwrap() {
                Verdict::Balanced => Vec::new(),
                Verdict::Moves(moves) => moves,
            };
            let shown: Vec<String> =
                moves.iter().map(|m| format!("{}>{} {}", m.from, m.to, m.slots)).collect();
            assert_eq!(shown, expected);
        };
        check(&[("a", "0-9", 1.0), ("b", "10-19", 1.0)], 2.0, &["a>b 1-2"]);
        check(&[("a", "0-9", 3.0), ("b", "10-19", 2.0)], 2.0, &["a>b 1-2"]);
        check(&[("a", "0,10", 1.0), ("b", "1-9", 1.0)], 2.0, &[]);
        check(&[("a", "0-9", 1.0), ("b", "10-19", 1.0)], 0.0, &[]);
        check(&[("a", "0-3", 0.0), ("b", "10-19", 1.0)], 0.0, &["a>b 0-3"]);
        check(&[("a", "5", 1.0), ("b", "6", 1.0)], 2.0, &[]);
        let nobody = by_load(&bearers(&[("a", "0", 0.0)]), |_, _| 1.0, 2.0);
        assert_eq!(nobody, Err(WeightError::Nobody));
    }

    #[test]
    fn weights_that_make_no_sense() {
        let refused =
            |weight| plan(&bearers(&[("a", "0-16383", weight)]), 2.0).unwrap_err().to_string();
        assert_eq!(refused(-1.0), "a weight must be a number from 0 on, and a has -1");
        assert_eq!(refused(f64::NAN), "a weight must be a number from 0 on, and a has NaN");
        assert_eq!(refused(0.0), "at least one node must have a weight above 0");
        let text = plan(&bearers(&THREE), -1.0).unwrap_err().to_string();
        assert_eq!(text, "the threshold must be a percentage from 0 on, not -1");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn all_have_their_share_and_no_slot_moves_in_vain(
            cuts in prop::collection::vec(0..SLOTS, 1..8),
            weights in prop::collection::vec(0..5_u8, 9),
        ) {
            let mut model = Model::cut(&cuts);
            let bearers: Vec<Bearer> = model.primaries().into_iter().zip(&weights)
                .map(|((id, slots), weight)| Bearer { id, slots, weight: f64::from(*weight) }).collect();
            let weight: f64 = bearers.iter().map(|b| b.weight).sum();
            match plan(&bearers, f64::MIN_POSITIVE) {
                Err(error) => prop_assert!(weight == 0.0, "{}", error),
                Ok(verdict) => {
                    let moves = if let Verdict::Moves(moves) = verdict { moves } else { Vec::new() };
                    for step in &moves {
                model.carry(step);
            }
                    model.covers_all_once();
                    for bearer in &bearers {
                        let exact = as_f64(SLOTS) * bearer.weight / weight;
                        let have = as_f64(model.slots(&bearer.id).len());
                        prop_assert!((have - exact).abs() <= 2.0, "{} has {have} instead of {exact}", bearer.id);
                        let (gives, takes) = (moves.iter().any(|m| m.from == bearer.id), moves.iter().any(|m| m.to == bearer.id));
                        prop_assert!(!(gives && takes));
                    }
                }
            }
        }
    }
}
