//! What holds of all views that nodes may give, and of the topologies they are merged into.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use proptest::collection::{btree_set, vec};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::{Index, select};
use proptest::test_runner::TestCaseError;
use slotway::cluster::membership::{self, Positions, Witness};
use slotway::cluster::parse::{NodeLine, View};
use slotway::cluster::{Address, NodeId, SLOTS, Slot, Topology, parse};

/// Where the nodes are asked.
fn asked_at() -> Address {
    Address::parse("asked:1", None).expect("an address")
}

/// A field as a node writes it, and what is to be read from it; `None` for one that is damaged.
type Field<T> = (String, Option<T>);

fn damaged_field<T: Clone + Debug>(
    texts: &'static [&'static str],
) -> impl Strategy<Value = Field<T>> {
    select(texts).prop_map(|text| (text.to_owned(), None))
}

fn address_field() -> impl Strategy<Value = Field<Address>> {
    let sound = ("(10\\.0\\.0\\.[1-3])?", 1..=u16::MAX, select(&["", "@1", "@1,host"][..]));
    let sound = sound.prop_map(|(host, port, rest)| {
        let address = Address::parse(&format!("{host}:{port}"), Some(&asked_at()));
        (format!("{host}:{port}{rest}"), address)
    });
    prop_oneof![8 => sound, 1 => damaged_field(&["?:7@1", ":0@0", "h:99999@1", "h@1", "@", ",", "::"])]
}

fn epoch_field() -> impl Strategy<Value = Field<u64>> {
    let sound = (0..4_u64).prop_map(|epoch| (epoch.to_string(), Some(epoch)));
    prop_oneof![8 => sound, 1 => damaged_field(&["-1", "x", "99999999999999999999", "1.5"])]
}

fn slots_field() -> impl Strategy<Value = Field<Range<usize>>> {
    let first = prop_oneof![9 => 0..60_usize, 1 => SLOTS - 12..SLOTS - 8];
    let sound = (first, 0..9_usize).prop_map(|(first, more)| {
        let last = first + more;
        let text = if more == 0 { first.to_string() } else { format!("{first}-{last}") };
        (text, Some(first..last + 1))
    });
    let damaged = &["[5->-a]", "[5-<-b]", "9-5", "16384", "7-16384", "-", "5-", "-5", "5-6-7", "x"];
    prop_oneof![4 => sound, 1 => damaged_field(damaged)]
}

/// Flags with whether they say `myself`, whether they say `fail`, and whether the node can be reached.
const FLAGS: &[(&str, bool, bool, bool)] = &[
    ("myself,master", true, false, true),
    ("master", false, false, true),
    ("slave", false, false, true),
    ("master,fail", false, true, true),
    ("slave,fail?", false, false, true),
    ("fail,myself,slave", true, true, true),
    ("myselfish,failing,noaddress", false, false, true),
    ("handshake", false, false, false),
    ("master,noaddr", false, false, false),
];

/// A line of `CLUSTER NODES`, and what is to be read from it: nothing if the node has no address.
fn told_line() -> impl Strategy<Value = (String, Option<NodeLine>)> {
    let names = ("[a-e]", select(&["-", "a", "b", "?"][..]), select(FLAGS));
    let fields = (names, address_field(), epoch_field(), vec(slots_field(), 0..4));
    fields.prop_map(|((id, primary, flags), address, epoch, slots)| {
        let (flags, myself, failed, reachable) = flags;
        let texts: Vec<&str> = slots.iter().map(|(text, _)| text.as_str()).collect();
        let text =
            [&id, &address.0, flags, primary, "0 0", &epoch.0, "connected", &texts.join(" ")];
        let line = address.1.filter(|_| reachable).map(|address| NodeLine {
            id: NodeId(id.as_str().into()),
            address,
            myself,
            failed,
            primary: (primary != "-").then(|| NodeId(primary.into())),
            epoch: epoch.1.unwrap_or(0),
            slots: slots.into_iter().filter_map(|(_, range)| range).collect(),
        });
        (text.join(" "), line)
    })
}

fn claims(line: &NodeLine, slot: Slot) -> bool {
    line.slots.iter().any(|range| range.contains(&slot.index()))
}

proptest! {
    #[test]
    fn what_is_damaged_in_a_view_harms_nothing_else(
        told in vec((told_line(), select(&["\n", "\r\n", "\n \n", " \n"][..])), 0..8),
        short in proptest::option::weighted(0.1, (any::<Index>(), 1..=7_usize)),
    ) {
        let mut lines: Vec<String> =
            told.iter().map(|((line, _), end)| format!("{line}{end}")).collect();
        if let Some((at, fields)) = short {
            let line = ["a", "h:1@1", "master", "-", "0", "0", "1"][..fields].join(" ");
            lines.insert(at.index(lines.len() + 1), line + "\n");
        }
        let read = parse::nodes(&lines.concat(), &asked_at());
        match (read, short) {
            (Ok(view), None) => {
                let expected: Vec<_> = told.into_iter().filter_map(|((_, line), _)| line).collect();
                prop_assert_eq!(view.nodes, expected);
            }
            (Err(_), Some(_)) => {}
            (read, short) => prop_assert!(false, "{read:?}, {short:?}"),
        }
    }

    #[test]
    fn noise_is_no_view_or_a_harmless_one(text in ".{0,80}") {
        if let Ok(view) = parse::nodes(&text, &asked_at()) {
            Topology::merge(&[view]);
        }
    }

    #[test]
    fn every_slot_goes_to_the_claim_with_the_highest_epoch(
        told in vec(vec(told_line(), 0..8), 1..4),
    ) {
        let views = told.iter().map(|lines| {
            let text: Vec<&str> = lines.iter().map(|(line, _)| line.as_str()).collect();
            parse::nodes(&text.join("\n"), &asked_at())
        });
        let topology = Topology::merge(&views.collect::<Result<Vec<_>, _>>().expect("views"));
        let lines = told.iter().flatten().filter_map(|(_, line)| line.as_ref());
        for slot in (0..SLOTS).filter_map(Slot::new) {
            let claims: Vec<&NodeLine> = lines.clone().filter(|line| claims(line, slot)).collect();
            let highest = claims.iter().map(|line| line.epoch).max();
            match topology.owner(slot).map(|owner| &topology.node(owner).id) {
                Some(id) => prop_assert!(
                    claims.iter().any(|line| line.id == *id && Some(line.epoch) == highest),
                    "slot {slot} is of {id:?}, the claims are {claims:?}"
                ),
                None => prop_assert!(claims.is_empty(), "nobody has slot {slot}: {claims:?}"),
            }
        }
    }
}

/// A line of a view: node, epoch, whether failed, primary, and slots.
type Line = (usize, u64, bool, Option<usize>, Vec<(usize, usize)>);

fn lines(epoch: impl Strategy<Value = u64>) -> impl Strategy<Value = Vec<Line>> {
    let slots = vec((0..60_usize, 0..9_usize), 0..4);
    vec((0..5_usize, epoch, any::<bool>(), proptest::option::of(0..5_usize), slots), 0..6)
}

fn view(number: usize, lines: &[Line]) -> View {
    let id = |node: usize| NodeId(Arc::from(format!("node-{node}")));
    let mut nodes: BTreeMap<usize, NodeLine> = BTreeMap::new();
    for (node, epoch, failed, primary, slots) in lines {
        nodes.insert(
            *node,
            NodeLine {
                id: id(*node),
                address: Address::parse(&format!("host-{node}-{epoch}:7000"), None)
                    .expect("an address"),
                myself: *node == number,
                failed: *failed,
                primary: primary.map(id),
                epoch: *epoch,
                slots: slots.iter().map(|(first, count)| *first..*first + count).collect(),
            },
        );
    }
    View { nodes: nodes.into_values().collect(), open_slots: number, importing: Vec::new() }
}

/// The same views in another order make the same topology.
fn in_any_order(views: &[Vec<Line>], swaps: &[(Index, Index)]) -> Result<(), TestCaseError> {
    let mut views: Vec<View> =
        views.iter().enumerate().map(|(number, lines)| view(number, lines)).collect();
    let topology = Topology::merge(&views);
    for (one, other) in swaps {
        let (one, other) = (one.index(views.len()), other.index(views.len()));
        views.swap(one, other);
        prop_assert!(Topology::merge(&views) == topology, "the order of the views matters");
    }
    Ok(())
}

proptest! {
    #[test]
    fn views_with_different_epochs_merge_in_any_order(
        views in vec(lines(any::<u64>()), 1..5),
        swaps in vec(any::<(Index, Index)>(), 1..6),
    ) {
        in_any_order(&views, &swaps)?;
    }

    #[test]
    fn views_with_equal_epochs_merge_in_any_order(
        views in vec(lines(0..3_u64), 1..5),
        swaps in vec(any::<(Index, Index)>(), 1..6),
    ) {
        in_any_order(&views, &swaps)?;
    }
}

#[test]
fn more_nodes_than_can_be_numbered_do_no_harm() {
    let from = Address::parse("h:1", None).expect("an address");
    let lines: Vec<String> =
        (0..66_000).map(|n| format!("id{n} h:1@1 master - 0 0 1 connected\n")).collect();
    let view = parse::nodes(&lines.concat(), &from).expect("a view");
    let merged = std::panic::catch_unwind(|| Topology::merge(&[view]));
    assert!(merged.is_ok(), "merging panics");
}

/// Who is said by whom to be there: a node, the nodes it names besides itself, whether it shows slots, and whether it is
/// a seed.
type Said = (usize, BTreeSet<usize>, bool, bool);

fn said(
    nodes: impl Strategy<Value = usize>,
    named: impl Strategy<Value = usize>,
) -> impl Strategy<Value = Said> {
    (nodes, btree_set(named, 0..6), any::<bool>(), any::<bool>())
}

fn named(number: usize) -> NodeId {
    NodeId(format!("node-{number:02}").into())
}

/// A view in which all nodes claim all slots, each by an epoch that is the higher the higher its number is.
fn view_of(node: usize, names: &BTreeSet<usize>, has_slots: bool) -> View {
    let line = |number: usize| NodeLine {
        id: named(number),
        address: Address::parse(&format!("host-{number}:1"), None).expect("an address"),
        myself: number == node,
        failed: false,
        primary: None,
        epoch: number as u64,
        slots: std::iter::once(0..SLOTS).filter(|_| has_slots).collect(),
    };
    let nodes = names.iter().copied().chain([node]).collect::<BTreeSet<usize>>();
    View { nodes: nodes.into_iter().map(line).collect(), open_slots: 0, importing: Vec::new() }
}

/// Runs `rule` on these views, and gives the nodes whose views it chose.
fn chosen(
    rule: fn(&BTreeSet<&NodeId>, &[Witness]) -> Option<Positions>,
    map: &BTreeSet<usize>,
    said: &[Said],
) -> Option<BTreeSet<usize>> {
    let ids: Vec<NodeId> = map.iter().copied().map(named).collect();
    let views: Vec<View> =
        said.iter().map(|(node, names, slots, _)| view_of(*node, names, *slots)).collect();
    let witnesses: Vec<Witness> = views
        .iter()
        .zip(said)
        .map(|(view, (node, .., is_seed))| Witness { view, seed: is_seed.then_some(*node) })
        .collect();
    let positions = rule(&ids.iter().collect(), &witnesses)?;
    Some(positions.into_iter().map(|at| said[at].0).collect())
}

/// The nodes on the map that is made of these views, whose nodes are to be chosen so.
fn map_of(said: &[Said], chosen: &BTreeSet<usize>) -> BTreeSet<usize> {
    let ours = said.iter().filter(|(node, ..)| chosen.contains(node));
    ours.flat_map(|(node, names, ..)| names.iter().chain([node])).copied().collect()
}

/// Who of the nodes leaves, if it is not another one that joins; and who knows of it first.
type Change = (Option<Index>, Vec<Index>);

fn change() -> impl Strategy<Value = Change> {
    (proptest::option::of(any::<Index>()), vec(any::<Index>(), 1..4))
}

fn pick(nodes: &BTreeSet<usize>, which: Index) -> usize {
    *nodes.iter().nth(which.index(nodes.len())).expect("there are so many")
}

/// The next map, made of whom each node that is asked names, and of what strangers say.
fn next_map<'a>(
    map: &BTreeSet<usize>,
    asked: impl IntoIterator<Item = (usize, &'a BTreeSet<usize>)>,
    strangers: &[Said],
) -> BTreeSet<usize> {
    let asked = asked.into_iter().map(|(node, names)| (node, names.clone(), true, true));
    let all: Vec<Said> = strangers.iter().cloned().chain(asked).collect();
    map_of(&all, &chosen(membership::ours, map, &all).expect("some are ours"))
}

/// Numbers of strangers are higher than all of ours, and so are their epochs.
const STRANGERS: Range<usize> = 80..86;

proptest! {
    #[test]
    fn a_node_that_nobody_of_ours_names_is_never_heard(
        members in btree_set(0..9_usize, 1..6),
        asked in vec((any::<Index>(), any::<bool>()), 1..6),
        strangers in vec(said(STRANGERS, 0..86_usize), 0..12),
        at_first in any::<Index>(),
    ) {
        let list: Vec<usize> = members.iter().copied().collect();
        let mut all: Vec<Said> = strangers;
        for (which, is_seed) in asked {
            let node = list[which.index(list.len())];
            all.insert(at_first.index(all.len() + 1), (node, members.clone(), true, is_seed));
        }
        let expected: BTreeSet<usize> =
            all.iter().map(|(node, ..)| *node).filter(|node| *node < 80).collect();
        prop_assert_eq!(chosen(membership::ours, &members, &all), Some(expected.clone()));
        prop_assert_eq!(map_of(&all, &expected), members);
    }

    #[test]
    fn the_map_follows_all_nodes_that_come_and_go(
        changes in vec(change(), 0..40),
        strangers in vec(said(STRANGERS, 0..86_usize), 0..6),
    ) {
        let mut members: BTreeSet<usize> = (0..3).collect();
        let mut map = members.clone();
        for (joins, (leaves, first)) in (3..).zip(changes) {
            let before = members.clone();
            let mut aware: BTreeSet<usize> = first.iter().map(|which| pick(&before, *which)).collect();
            match leaves {
                Some(which) if members.len() > 1 => _ = members.remove(&pick(&before, which)),
                Some(_) => {}
                None => _ = members.insert(joins) && aware.insert(joins),
            }
            let stays: BTreeSet<usize> = before.intersection(&members).copied().collect();
            let says = |node| (node, if aware.contains(&node) { &members } else { &before });
            let asked: BTreeSet<usize> = aware.iter().copied().chain([pick(&stays, first[0])]).collect();
            map = next_map(&map, asked.into_iter().map(says), &strangers);
            prop_assert!(map.is_disjoint(&STRANGERS.collect()), "strangers on the map: {map:?}");
            map = next_map(&map, members.iter().map(|node| (*node, &members)), &strangers);
            prop_assert_eq!(&map, &members);
        }
    }

    #[test]
    fn those_that_are_chosen_name_each_other(
        map in btree_set(0..9_usize, 0..5),
        all in vec(said(0..9_usize, 0..9_usize), 0..9),
        swaps in vec(any::<(Index, Index)>(), 1..6),
    ) {
        let names = |one: usize, other: usize| {
            all.iter().any(|(node, names, ..)| *node == one && names.contains(&other))
        };
        let mut swapped = all.clone();
        for (one, other) in swaps {
            if let Some(last) = all.len().checked_sub(1) {
                swapped.swap(one.index(last + 1), other.index(last + 1));
            }
        }
        for rule in [membership::ours, membership::heirs] {
            let found = chosen(rule, &map, &all);
            prop_assert_eq!(&found, &chosen(rule, &map, &swapped), "the order of the views matters");
            let found = found.unwrap_or_default();
            for one in &found {
                let mut others = found.iter().filter(|other| *other != one);
                let has_friend = others.any(|other| names(*one, *other) && names(*other, *one));
                prop_assert!(found.len() == 1 || has_friend, "{one} of {found:?}");
            }
        }
        let ours = chosen(membership::ours, &map, &all);
        prop_assert!(ours.is_none_or(|ours| map.is_empty() || !ours.is_disjoint(&map)));
    }

    #[test]
    fn all_nodes_may_be_others_at_once_if_the_seeds_are_among_them(
        map in btree_set(0..9_usize, 1..9),
        new in btree_set(10..19_usize, 1..9),
        seed in any::<Index>(),
        left in proptest::option::of((10..30_usize, 0..9_usize)),
    ) {
        let seed = seed.index(new.len());
        let mut all: Vec<Said> = new
            .iter()
            .enumerate()
            .map(|(at, node)| (*node, new.clone(), true, at == seed))
            .collect();
        prop_assert_eq!(chosen(membership::ours, &map, &all), None);
        prop_assert_eq!(chosen(membership::heirs, &map, &all), Some(new.clone()));
        let left = left.filter(|(node, old)| !new.contains(node) && map.contains(old));
        if let Some((node, old)) = left {
            all.push((node, [old].into(), true, false));
            prop_assert_eq!(chosen(membership::heirs, &map, &all), None);
        }
    }
}
