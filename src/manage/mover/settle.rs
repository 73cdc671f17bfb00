//! The end of a move: every node has to say the same, and nothing may be left behind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Event;
use super::carry::any_view;
use super::ends::End;
use super::remedy::{Remedy, Setback};
use super::work::Work;
use crate::cluster::{NodeId, Slot};
use crate::manage::plan::Move;
use crate::manage::view::{ClusterView, NodeView};

/// How often the nodes are asked whether they agree.
const LOOK: Duration = Duration::from_millis(100);
/// The least time that news are given to get around.
const SOON: Duration = Duration::from_secs(10);

/// Waits until all nodes that answer agree on who owns the slots that were moved, and none of them is open.
pub(super) async fn settle(work: &Work<'_>, moves: &[Move]) -> Result<(), Setback> {
    work.tell(Event::Settling);
    let begun = Instant::now();
    let node_timeout = work.limits.node_timeout;
    let deadline = SOON.max(node_timeout * 2);
    let mut has_bumped = false;
    loop {
        let addresses = work.company.borrow().addresses();
        let gone = || Setback::new(Remedy::Look, "no node answers");
        let view = any_view(work, &addresses).await.ok_or_else(gone)?;
        let Some(dissent) = dissent(work, moves, &view) else {
            return expect_nothing_left(work, moves, deadline).await;
        };
        if begun.elapsed() > deadline {
            return Err(Setback::new(Remedy::Wait, dissent.what));
        }
        // Two nodes with one config epoch do not believe each other; a new one settles it.
        if begun.elapsed() > deadline / 2 && !has_bumped {
            has_bumped = true;
            work.tell(Event::Warning(format!("{}; raising the owner's epoch", dissent.what)));
            bump(work, &dissent.owner).await?;
        }
        work.reins.sleep(LOOK).await?;
    }
}

/// A node that does not know yet.
struct Dissent {
    owner: NodeId,
    what: String,
}

fn dissent(work: &Work<'_>, moves: &[Move], view: &ClusterView) -> Option<Dissent> {
    let company = work.company.borrow();
    let owners: BTreeMap<Slot, NodeId> = moves
        .iter()
        .flat_map(|part| {
            let owner = company.now(&part.to);
            part.slots.iter().map(move |slot| (*slot, owner.clone()))
        })
        .collect();
    view.nodes.iter().find_map(|node| objection(node, &owners))
}

fn objection(node: &NodeView, owners: &BTreeMap<Slot, NodeId>) -> Option<Dissent> {
    let mut open = node.own.migrating.iter().chain(&node.own.importing);
    let open = open.find_map(|(slot, _)| owners.get_key_value(slot));
    if let Some((slot, owner)) = open {
        let what = format!("slot {slot} is still open on {}", node.address);
        return Some(Dissent { owner: owner.clone(), what });
    }
    let mut told: BTreeMap<Slot, &NodeId> = BTreeMap::new();
    for line in node.lines().filter(|line| !line.is_replica()) {
        told.extend(line.slots.iter().map(|slot| (*slot, &line.id)));
    }
    let (slot, owner) = owners.iter().find(|(slot, owner)| told.get(slot) != Some(owner))?;
    let what = format!("{} does not know yet that {owner} owns slot {slot}", node.address);
    Some(Dissent { owner: owner.clone(), what })
}

async fn bump(work: &Work<'_>, owner: &NodeId) -> Result<(), Setback> {
    let address = work.company.borrow().address(owner);
    let Some(address) = address else { return Ok(()) };
    let mut end = End::open(owner, &address, work.access, work.limits.answer).await?;
    end.say(&["CLUSTER", "BUMPEPOCH"]).await?;
    Ok(())
}

/// Looks once more, now that nobody sends anything there any more, that the sources have no key of what they gave away. What
/// the servers moved by themselves is deleted there afterwards, in the background.
async fn expect_nothing_left(
    work: &Work<'_>,
    moves: &[Move],
    patience: Duration,
) -> Result<(), Setback> {
    let begun = Instant::now();
    while let Some(left) = what_is_left(work, moves).await? {
        if begun.elapsed() > patience {
            return Err(Setback::new(Remedy::Nothing, left));
        }
        work.reins.sleep(LOOK).await?;
    }
    Ok(())
}

async fn what_is_left(work: &Work<'_>, moves: &[Move]) -> Result<Option<String>, Setback> {
    for part in moves {
        let from = work.company.borrow().now(&part.from);
        let Some(address) = work.company.borrow().address(&from) else { continue };
        let mut end = End::open(&from, &address, work.access, work.limits.answer).await?;
        let counts = end.count_keys(&part.slots).await?;
        if let Some((slot, count)) = part.slots.iter().zip(counts).find(|(_, count)| *count > 0) {
            return Ok(Some(format!("{address} still has {count} keys of slot {slot}")));
        }
    }
    Ok(None)
}
