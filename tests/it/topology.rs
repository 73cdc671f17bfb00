//! What holds of all views that nodes may give, and of the topologies they are merged into.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, proptest};
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use slotway::cluster::parse::{NodeLine, View};
use slotway::cluster::{Address, NodeId, Topology, parse};

/// Something like a reply to `CLUSTER NODES`.
const VIEW: &str =
    "([a-e] |:1@1 |[0-9]{1,6}(-[0-9]{1,6})? |myself,|master |slave |fail |- |\\[|\n|,){0,60}";

proptest! {
    #[test]
    fn views_are_read_or_refused(text in VIEW) {
        let from = Address::parse("h:1", None).expect("an address");
        if let Ok(view) = parse::nodes(&text, &from) {
            let topology = Topology::merge(&[view]);
            prop_assert!(topology.covered() <= slotway::cluster::SLOTS);
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
    View { nodes: nodes.into_values().collect(), open_slots: number }
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
