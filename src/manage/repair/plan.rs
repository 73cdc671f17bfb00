//! From what the nodes say, and which keys they have, to what makes them whole. Pure.
//!
//! Who owns a slot is decided by claims and config epochs, as among the nodes themselves, and never by who has more keys: a
//! node that was just given most of a slot's keys has more of them, and the older values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::cluster::{NodeId, SLOTS, Slot, Slots};
use crate::manage::journal::Member;
use crate::manage::plan::Move;
use crate::manage::view::{ClusterView, NodeView};

/// Number of keys that nodes have of slots, where they have some.
pub type Keys = BTreeMap<NodeId, BTreeMap<Slot, u64>>;

/// How sure it is that nothing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// Nothing is lost; copies that lose are kept in a file.
    Safe,
    /// There is a choice that somebody should look at.
    Confirm,
    /// Data that exist may be lost for good.
    DataLoss,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Go on with a move, forward.
    Resume(Move),
    /// A node that is not the owner of slots ceases to say that they are its own.
    Withdraw {
        /// Which one.
        node: NodeId,
        /// Who owns the slots.
        owner: NodeId,
        /// Which slots.
        slots: Slots,
    },
    /// A node ceases to give slots away or take them in.
    Close {
        /// Which one.
        node: NodeId,
        /// Which slots.
        slots: Slots,
    },
    /// A node takes slots that it was given and not told of.
    Finish {
        /// Which one.
        node: NodeId,
        /// Which slots.
        slots: Slots,
    },
    /// Every node is told who owns slots.
    Announce {
        /// Who.
        owner: NodeId,
        /// Which slots.
        slots: Slots,
    },
    /// Keys of slots that somebody else owns go to the owner; where it has the key too, its copy stays.
    Merge {
        /// Who has the keys.
        from: NodeId,
        /// Who owns the slots.
        owner: NodeId,
        /// Which slots.
        slots: Slots,
    },
    /// A node takes slots that nobody owns.
    Cover {
        /// Which one.
        node: NodeId,
        /// Which slots.
        slots: Slots,
    },
    /// An owner raises its config epoch, so that the others believe it.
    Raise {
        /// Which one.
        node: NodeId,
    },
}

/// An action, how risky it is, and why it is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
    /// What may come of it.
    pub risk: Risk,
    /// What was found.
    pub why: &'static str,
}

/// All that is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RepairPlan {
    /// What is to be done.
    pub repairs: Vec<Repair>,
    /// Who has taken whose place: the names that moves are resumed by are those by which the slots were opened.
    pub heirs: Vec<(NodeId, NodeId)>,
    /// Whether there are slots that it is not about.
    #[serde(skip)]
    pub is_partial: bool,
}

impl RepairPlan {
    /// The moves that are gone on with.
    pub fn moves(&self) -> Vec<Move> {
        moves(&self.repairs)
    }
}

/// The moves among repairs.
pub(super) fn moves(repairs: &[Repair]) -> Vec<Move> {
    let moves = repairs.iter().filter_map(|repair| match &repair.action {
        Action::Resume(part) => Some(part.clone()),
        _ => None,
    });
    moves.collect()
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safe => "safe",
            Self::Confirm => "needs confirmation",
            Self::DataLoss => "may lose data",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resume(Move { from, to, slots }) => {
                write!(f, "go on with moving slots {slots} from {from} to {to}")
            }
            Self::Withdraw { node, owner, slots } => {
                write!(f, "let {node} give up slots {slots}, which {owner} owns")
            }
            Self::Close { node, slots } => write!(f, "close slots {slots} on {node}"),
            Self::Finish { node, slots } => write!(f, "let {node} take slots {slots}"),
            Self::Announce { owner, slots } => {
                write!(f, "tell all that {owner} owns slots {slots}")
            }
            Self::Merge { from, owner, slots } => {
                write!(f, "give the keys that {from} has of slots {slots} to their owner {owner}")
            }
            Self::Cover { node, slots } => write!(f, "let {node} own slots {slots}"),
            Self::Raise { node } => write!(f, "raise the config epoch of {node}"),
        }
    }
}

/// Who has taken whose place since a job began, by what its journal tells of its nodes.
pub(super) fn heirs(members: &[Member], view: &ClusterView) -> Vec<(NodeId, NodeId)> {
    let is_primary = |id: &NodeId| view.node(id).is_some_and(|node| !node.own.is_replica());
    let promoted = members.iter().filter_map(|Member { id, primary, .. }| {
        let of = primary.as_ref().filter(|of| !is_primary(of))?;
        is_primary(id).then(|| (of.clone(), id.clone()))
    });
    promoted.collect()
}

/// What makes a cluster whole again, given who is known to have taken whose place.
pub fn plan(view: &ClusterView, keys: &Keys, heirs: &[(NodeId, NodeId)]) -> RepairPlan {
    plan_some(view, keys, heirs, &Slots::all())
}

/// The same for some slots: how others are is left as it is.
pub fn plan_some(
    view: &ClusterView,
    keys: &Keys,
    heirs: &[(NodeId, NodeId)],
    slots: &Slots,
) -> RepairPlan {
    let patient = Patient { view, keys, heirs, told: view.owners() };
    let mut found = Found::default();
    for slot in slots {
        found.doubt = Risk::Safe;
        patient.examine(*slot, &mut found);
    }
    RepairPlan { is_partial: slots.len() < SLOTS, ..found.into_plan() }
}

/// A cluster that is looked at.
struct Patient<'a> {
    view: &'a ClusterView,
    keys: &'a Keys,
    heirs: &'a [(NodeId, NodeId)],
    told: Vec<Option<NodeId>>,
}

/// What was found so far: equal actions of several slots are one.
struct Found {
    repairs: BTreeMap<(Order, Risk, &'static str), Vec<Slot>>,
    heirs: BTreeSet<(NodeId, NodeId)>,
    /// How risky it is to take for the owner whom the slot is looked at for: what is done about the slot is no less so.
    doubt: Risk,
}

/// Actions in the order in which they are done. First nobody but the owner says that a slot is its own: who hears of an owner
/// that has a newer claim deletes the keys of what it took for its own, and who takes another slot before that has the newer
/// claim itself, so that the owner does. A node that gives a slot away does not take keys in,
/// so keys of slots that move are gathered behind the moves. Epochs are raised when no key is where it could be deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Withdraw(NodeId, NodeId),
    /// Before the moves, which end when nobody has their slots open.
    Shut(NodeId),
    Finish(NodeId),
    Cover(NodeId),
    Merge(NodeId, NodeId),
    Resume(NodeId, NodeId),
    Close(NodeId),
    /// As to merge, behind the moves.
    Gather(NodeId, NodeId),
    Announce(NodeId),
    Raise(NodeId),
}

impl Default for Found {
    fn default() -> Self {
        Self { repairs: BTreeMap::new(), heirs: BTreeSet::new(), doubt: Risk::Safe }
    }
}

/// Where a slot goes that has an owner.
#[derive(Clone, Copy)]
enum Course<'a> {
    /// It stays.
    Rest,
    /// It stays, and its owner has yet to cease to give it away.
    Barred,
    /// To this node.
    Move(&'a NodeView),
}

impl Found {
    fn add(&mut self, order: Order, risk: Risk, why: &'static str, slot: Slot) {
        self.repairs.entry((order, risk.max(self.doubt), why)).or_default().push(slot);
    }

    fn into_plan(self) -> RepairPlan {
        let repair = |((order, risk, why), slots): ((Order, Risk, &'static str), Vec<Slot>)| {
            let slots: Slots = slots.into_iter().collect();
            let action = match order {
                Order::Raise(node) => Action::Raise { node },
                Order::Finish(node) => Action::Finish { node, slots },
                Order::Cover(node) => Action::Cover { node, slots },
                Order::Withdraw(node, owner) => Action::Withdraw { node, owner, slots },
                Order::Merge(from, owner) | Order::Gather(from, owner) => {
                    Action::Merge { from, owner, slots }
                }
                Order::Resume(from, to) => Action::Resume(Move { from, to, slots }),
                Order::Shut(node) | Order::Close(node) => Action::Close { node, slots },
                Order::Announce(owner) => Action::Announce { owner, slots },
            };
            Repair { action, risk, why }
        };
        let repairs = self.repairs.into_iter().map(repair).collect();
        RepairPlan { repairs, heirs: self.heirs.into_iter().collect(), is_partial: false }
    }
}

impl Patient<'_> {
    fn examine(&self, slot: Slot, found: &mut Found) {
        let claimants = self.claimants(slot);
        let owner = match claimants.as_slice() {
            [] => return self.cover(slot, found),
            [only] => *only,
            several => self.winner(several, slot, found),
        };
        let id = &owner.own.id;
        let why = if self.is_outdone(owner, slot) {
            found.doubt = Risk::DataLoss;
            "the owner does not answer"
        } else {
            "the nodes do not agree on the owner"
        };
        for loser in claimants.iter().filter(|node| node.own.id != *id) {
            found.add(Order::Withdraw(loser.own.id.clone(), id.clone()), Risk::Safe, why, slot);
        }
        let course = match peer(&owner.own.migrating, slot) {
            Some(target) => self.go_on(slot, owner, target, found),
            None => self.look_at_importers(slot, owner, found),
        };
        self.look_at_strays(slot, owner, course, found);
        self.look_at_former(slot, owner, course, found);
        let is_told_otherwise = self.view.nodes.iter().any(|node| is_wrong(node, slot, id));
        // A move ends with another owner, of whom it tells everybody.
        if is_told_otherwise && !matches!(course, Course::Move(_)) {
            found.add(Order::Announce(id.clone()), Risk::Safe, why, slot);
        }
    }

    /// Whether somebody who does not answer has a newer claim than the owner.
    fn is_outdone(&self, owner: &NodeView, slot: Slot) -> bool {
        let is_absent = |id: &NodeId| self.view.absent.iter().any(|absent| absent.line.id == *id);
        let told = self.view.nodes.iter().flat_map(NodeView::lines);
        let mut claims = told.filter(|line| !line.is_replica() && line.slots.contains(slot));
        claims.any(|line| line.epoch > owner.own.epoch && is_absent(&line.id))
    }

    /// A slot that its owner gives away.
    fn go_on<'b>(
        &'b self,
        slot: Slot,
        owner: &NodeView,
        target: &NodeId,
        found: &mut Found,
    ) -> Course<'b> {
        match self.resolve(target) {
            Some(heir) if heir.own.id != owner.own.id => {
                return self.resume(slot, (owner, heir), (Risk::Safe, "a move was cut off"), found);
            }
            Some(_) => {}
            None => {
                let holds =
                    |node: &&NodeView| node.own.id != owner.own.id && self.count(node, slot) > 0;
                let mut holders = self.view.primaries().filter(holds);
                if let (Some(heir), None) = (holders.next(), holders.next()) {
                    let why = "the target is gone, and this node alone has keys like it";
                    return self.resume(slot, (owner, heir), (Risk::Confirm, why), found);
                }
            }
        }
        found.doubt = Risk::DataLoss;
        let order = Order::Close(owner.own.id.clone());
        found.add(order, Risk::DataLoss, "the target is gone", slot);
        Course::Barred
    }

    /// The primaries that say the slot is theirs.
    fn claimants(&self, slot: Slot) -> Vec<&NodeView> {
        self.view.primaries().filter(|node| node.own.slots.contains(slot)).collect()
    }

    /// Of several the one with the newest claim; of equally new ones that which most nodes believe.
    fn winner<'b>(&self, several: &[&'b NodeView], slot: Slot, found: &mut Found) -> &'b NodeView {
        let newest = several.iter().map(|node| node.own.epoch).max().unwrap_or(0);
        let mut best: Vec<&NodeView> =
            several.iter().copied().filter(|node| node.own.epoch == newest).collect();
        let votes = |node: &NodeView| {
            let believes = |other: &&NodeView| {
                other.lines().any(|line| line.id == node.own.id && line.slots.contains(slot))
            };
            self.view.nodes.iter().filter(believes).count()
        };
        best.sort_by_key(|node| (std::cmp::Reverse(votes(node)), node.own.id.clone()));
        if let [first, second, ..] = best.as_slice() {
            if votes(first) == votes(second) {
                found.doubt = Risk::Confirm;
            }
            let order = Order::Raise(first.own.id.clone());
            found.add(order, Risk::Safe, "several claim slots by the same config epoch", slot);
        }
        best[0]
    }

    /// The node that stands where a flag names another one: that itself, or who has taken over from it.
    fn resolve(&self, id: &NodeId) -> Option<&NodeView> {
        let mut id = id;
        for _ in 0..=self.heirs.len() {
            if let Some(node) = self.view.node(id) {
                return match &node.own.primary {
                    Some(primary) => self.view.node(primary).filter(|n| !n.own.is_replica()),
                    None => Some(node),
                };
            }
            id = self.heirs.iter().rev().find(|(of, _)| of == id).map(|(_, is)| is)?;
        }
        None
    }

    /// A slot on its way: from the names by which it was opened to those, which is forward.
    fn resume<'b>(
        &self,
        slot: Slot,
        (owner, target): (&NodeView, &'b NodeView),
        (risk, why): (Risk, &'static str),
        found: &mut Found,
    ) -> Course<'b> {
        found.doubt = found.doubt.max(risk);
        let from = peer(&target.own.importing, slot).unwrap_or(&owner.own.id);
        let to = peer(&owner.own.migrating, slot).unwrap_or(&target.own.id);
        for (was, is) in [(from, &owner.own.id), (to, &target.own.id)] {
            if was != is {
                found.heirs.insert((was.clone(), is.clone()));
            }
        }
        found.add(Order::Resume(from.clone(), to.clone()), risk, why, slot);
        for node in self.importers(slot).filter(|node| node.own.id != target.own.id) {
            let order = Order::Shut(node.own.id.clone());
            found.add(order, Risk::Safe, "the slot goes to another node", slot);
        }
        Course::Move(target)
    }

    fn importers(&self, slot: Slot) -> impl Iterator<Item = &NodeView> {
        let is_importer = move |node: &&NodeView| peer(&node.own.importing, slot).is_some();
        self.view.primaries().filter(is_importer)
    }

    /// Nodes that take a slot in whose owner does not give it away. From a former owner, whose heir does not know: that is a
    /// move. From the owner: it never began to give, or the node has keys of old and has said so when it was started.
    fn look_at_importers(&self, slot: Slot, owner: &NodeView, found: &mut Found) -> Course<'_> {
        let is_from_former = |node: &&NodeView| {
            let from = peer(&node.own.importing, slot);
            from.is_some_and(|from| *from != owner.own.id) && self.count(node, slot) > 0
        };
        if let Some(node) = self.importers(slot).find(is_from_former) {
            return self.resume(slot, (owner, node), (Risk::Safe, "a move was cut off"), found);
        }
        for node in self.importers(slot) {
            // Keys that it has are strays, and the flag goes with them.
            if self.count(node, slot) == 0 && node.own.id != owner.own.id {
                let order = Order::Close(node.own.id.clone());
                found.add(order, Risk::Safe, "nothing was moved yet", slot);
            }
        }
        Course::Rest
    }

    /// Keys on nodes that neither own the slot nor take it in from its owner go to who owns it in the end.
    fn look_at_strays(&self, slot: Slot, owner: &NodeView, course: Course<'_>, found: &mut Found) {
        let last = match course {
            Course::Move(target) => target,
            Course::Rest | Course::Barred => owner,
        };
        for node in self.others(owner, course).filter(|node| self.count(node, slot) > 0) {
            let (from, to) = (node.own.id.clone(), last.own.id.clone());
            let order = match course {
                Course::Rest => Order::Merge(from, to),
                Course::Barred | Course::Move(_) => Order::Gather(from, to),
            };
            found.add(order, Risk::Safe, "keys lie where their slot is not", slot);
        }
    }

    /// Primaries that have no part in a slot.
    fn others<'b>(
        &'b self,
        owner: &'b NodeView,
        course: Course<'b>,
    ) -> impl Iterator<Item = &'b NodeView> {
        let has_part = move |node: &&NodeView| match course {
            Course::Move(target) if target.own.id == node.own.id => true,
            _ => node.own.id == owner.own.id,
        };
        self.view.primaries().filter(move |node| !has_part(node))
    }

    /// A former owner, that has heard of the new one and does not cease to give the slot away by itself.
    fn look_at_former(&self, slot: Slot, owner: &NodeView, course: Course<'_>, found: &mut Found) {
        let gives = |node: &&NodeView| peer(&node.own.migrating, slot).is_some();
        for node in self.others(owner, course).filter(gives) {
            let id = node.own.id.clone();
            match course {
                Course::Move(_) => {
                    found.add(Order::Shut(id), Risk::Safe, "the slot goes to another node", slot);
                }
                _ if self.count(node, slot) == 0 => {
                    found.add(Order::Close(id), Risk::Safe, "a move has ended", slot);
                }
                _ => {}
            }
        }
    }

    /// A slot that nobody who answers calls its own.
    fn cover(&self, slot: Slot, found: &mut Found) {
        if let Some(node) = self.given(slot) {
            let order = Order::Finish(node.own.id.clone());
            return found.add(order, Risk::Safe, "a move was not ended", slot);
        }
        let believed = self.told[slot.index()].as_ref();
        let is_absent = |id: &NodeId| self.view.absent.iter().any(|absent| absent.line.id == *id);
        let mut holders: Vec<&NodeView> =
            self.view.primaries().filter(|node| self.count(node, slot) > 0).collect();
        holders.sort_by_key(|node| (std::cmp::Reverse(node.own.epoch), node.own.id.clone()));
        let named = believed.and_then(|id| self.view.node(id)).filter(|n| !n.own.is_replica());
        let owner = named.or(holders.first().copied()).or_else(|| self.least_loaded());
        let Some(owner) = owner else { return };
        let (risk, why) = if believed.is_some_and(is_absent) {
            (Risk::DataLoss, "the owner does not answer")
        } else if holders.len() > 1 {
            (Risk::Confirm, "nobody owns slots of which several have keys")
        } else {
            (Risk::Safe, "nobody owns slots")
        };
        found.add(Order::Cover(owner.own.id.clone()), risk, why, slot);
        for node in holders.into_iter().filter(|node| node.own.id != owner.own.id) {
            found.add(Order::Merge(node.own.id.clone(), owner.own.id.clone()), risk, why, slot);
        }
    }

    /// The node that takes a slot in which its source has given to it. A source says so only when it has no key of it left.
    fn given(&self, slot: Slot) -> Option<&NodeView> {
        let is_given = |node: &&NodeView| {
            let from = peer(&node.own.importing, slot).and_then(|from| self.view.node(from));
            from.is_some_and(|from| !is_wrong(from, slot, &node.own.id))
        };
        self.importers(slot).find(is_given)
    }

    fn least_loaded(&self) -> Option<&NodeView> {
        self.view.primaries().min_by_key(|node| (node.own.slots.len(), node.own.id.clone()))
    }

    fn count(&self, node: &NodeView, slot: Slot) -> u64 {
        self.keys.get(&node.own.id).and_then(|keys| keys.get(&slot)).copied().unwrap_or(0)
    }
}

/// Whether a node tells another owner of a slot, or none.
fn is_wrong(node: &NodeView, slot: Slot, owner: &NodeId) -> bool {
    let mut lines = node.lines().filter(|line| line.slots.contains(slot));
    lines.next().is_none_or(|line| line.id != *owner) || lines.next().is_some()
}

fn peer(open: &[(Slot, NodeId)], slot: Slot) -> Option<&NodeId> {
    open.iter().find(|(number, _)| *number == slot).map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Address;
    use crate::manage::view::{Absent, Info, Line};

    /// Nodes as they say of themselves: name, flags, primary, epoch, slots. Each believes what the others say.
    fn view(lines: &[&str]) -> ClusterView {
        let address = Address::parse("10.0.0.1:7001", None).unwrap();
        let line = |text: &str| Line::parse(text, &address).unwrap();
        let full = |text: &&str| {
            let (id, rest) = text.split_once(' ').unwrap();
            let (flags, rest) = rest.split_once(' ').unwrap();
            let (primary, rest) = rest.split_once(' ').unwrap();
            line(&format!("{id} 10.0.0.1:7001@17001 {flags} {primary} 0 0 {rest}"))
        };
        let all: Vec<Line> = lines.iter().map(full).collect();
        let (gone, here): (Vec<Line>, Vec<Line>) =
            all.iter().cloned().partition(|line| line.is("fail"));
        let node = |own: &Line| NodeView {
            address: address.clone(),
            own: own.clone(),
            others: all.iter().filter(|line| line.id != own.id).cloned().collect(),
            info: Info::default(),
            cluster: Info::default(),
        };
        let absent = |line: Line| Absent { line, reason: "gone".into() };
        ClusterView {
            nodes: here.iter().map(node).collect(),
            absent: gone.into_iter().map(absent).collect(),
        }
    }

    fn keys(keys: &[(&str, usize, u64)]) -> Keys {
        let mut all = Keys::new();
        for (id, slot, count) in keys {
            all.entry(NodeId((*id).into())).or_default().insert(Slot::new(*slot).unwrap(), *count);
        }
        all
    }

    fn check(lines: &[&str], held: &[(&str, usize, u64)], expected: &[&str]) {
        let plan = plan(&view(lines), &keys(held), &[]);
        let told: Vec<String> = plan
            .repairs
            .iter()
            .map(|repair| format!("{}: {}", repair.risk, repair.action))
            .collect();
        assert_eq!(told, expected, "{lines:?} {held:?}");
    }

    #[test]
    fn a_healthy_cluster_needs_nothing() {
        check(
            &["a master - 1 connected 0-9", "b master - 2 connected 10-16383"],
            &[("a", 3, 5)],
            &[],
        );
    }

    /// The source has closed the slot, and the target has not: whose config epoch is higher does not matter.
    #[test]
    fn a_slot_that_was_given_is_taken() {
        for epoch in [1, 3] {
            let b = format!("b 10.0.0.2:1@1 master - 0 0 {epoch} connected");
            let at_a =
                format!("a 10.0.0.1:1@1 myself,master - 0 0 2 connected 0-6 8-9\n{b} 7 10-16383");
            let at_b = format!(
                "a 10.0.0.1:1@1 master - 0 0 2 connected 0-9\n{} 10-16383 [7-<-a]",
                b.replace("master", "myself,master")
            );
            let plan = plan(&ClusterView::said(&[&at_a, &at_b]), &keys(&[("b", 7, 5)]), &[]);
            let told: Vec<String> =
                plan.repairs.iter().map(|r| format!("{}: {}", r.risk, r.action)).collect();
            assert_eq!(told, ["safe: let b take slots 7"], "{epoch}");
        }
    }

    /// §2.3 of every row that has one owner.
    #[test]
    fn open_slots_go_forward() {
        let resume = ["safe: go on with moving slots 7 from a to b"];
        let rest = "master - 2 connected 10-16383";
        for (a, b, held) in [
            ("[7->-b]", "[7-<-a]", &[("a", 7, 5), ("b", 7, 50)][..]),
            ("[7->-b]", "", &[("a", 7, 5)]),
            ("[7->-b]", "", &[("a", 7, 5), ("b", 7, 50)]),
            ("[7->-b]", "[7-<-a]", &[]),
        ] {
            check(
                &[&format!("a master - 1 connected 0-9 {a}"), &format!("b {rest} {b}")],
                held,
                &resume,
            );
        }
        let open = format!("b {rest} [7-<-a]");
        check(
            &["a master - 1 connected 0-9", &open],
            &[("a", 7, 5)],
            &["safe: close slots 7 on b"],
        );
        let ended = ["a master - 1 connected 0-6 [7->-b]", "b master - 2 connected 7-16383"];
        check(&ended, &[("b", 7, 9)], &["safe: close slots 7 on a"]);
        let strays = ["safe: give the keys that b has of slots 7 to their owner a"];
        check(&["a master - 1 connected 0-9", &open], &[("a", 7, 5), ("b", 7, 9)], &strays);
    }

    #[test]
    fn failovers_are_followed() {
        let source = [
            "a2 master - 3 connected 0-9",
            "b master - 2 connected 10-16383 [7-<-a]",
            "a slave a2 1 connected",
        ];
        let was_a = plan(&view(&source), &keys(&[("b", 7, 5)]), &[]);
        assert_eq!(was_a.heirs, [(NodeId("a".into()), NodeId("a2".into()))]);
        check(&source, &[("b", 7, 5)], &["safe: go on with moving slots 7 from a to b"]);
        let target = [
            "a master - 1 connected 0-9 [7->-b]",
            "b2 master - 3 connected 10-16383",
            "b slave b2 3 connected",
        ];
        check(&target, &[("b2", 7, 5)], &["safe: go on with moving slots 7 from a to b"]);
        assert_eq!(
            plan(&view(&target), &Keys::new(), &[]).heirs,
            [(NodeId("b".into()), NodeId("b2".into()))]
        );
        let gone = ["a master - 1 connected 0-9 [7->-x]", "b master - 2 connected 10-16383"];
        check(&gone, &[], &["may lose data: close slots 7 on a"]);
    }

    #[test]
    fn the_newest_claim_wins_whoever_has_more_keys() {
        check(
            &["a master - 1 connected 0-9", "b master - 2 connected 7 10-16383"],
            &[("a", 7, 1000), ("b", 7, 1)],
            &[
                "safe: let a give up slots 7, which b owns",
                "safe: give the keys that a has of slots 7 to their owner b",
                "safe: tell all that b owns slots 7",
            ],
        );
        check(
            &["a master - 2 connected 0-9", "b master - 2 connected 7 10-16383"],
            &[("b", 7, 1)],
            &[
                "needs confirmation: let b give up slots 7, which a owns",
                "needs confirmation: give the keys that b has of slots 7 to their owner a",
                "needs confirmation: tell all that a owns slots 7",
                "needs confirmation: raise the config epoch of a",
            ],
        );
    }

    /// Even one without keys: should it take another slot first, its epoch would become the newest.
    #[test]
    fn a_claim_that_lost_is_given_up_before_anything_is_taken() {
        check(
            &[
                "a master - 1 connected 0-9 [7->-b] [10-<-c]",
                "b master - 2 connected 7 11-16383",
                "c master - 3 connected 10 [10->-a]",
            ],
            &[("b", 7, 5), ("c", 10, 5)],
            &[
                "safe: let a give up slots 7, which b owns",
                "safe: go on with moving slots 10 from c to a",
                "safe: close slots 7 on a",
                "safe: tell all that b owns slots 7",
            ],
        );
    }

    /// Whoever does not answer may have all that was written since.
    #[test]
    fn an_older_claim_than_that_of_a_node_that_is_gone_is_a_risk() {
        let claims = |epoch: u32| {
            let a = format!("a master - {epoch} connected 0-16383");
            let told = plan(&view(&[&a, "x master,fail - 5 connected 7"]), &Keys::new(), &[]);
            told.repairs.iter().map(|r| format!("{}: {}", r.risk, r.action)).collect::<Vec<_>>()
        };
        assert_eq!(claims(2), ["may lose data: tell all that a owns slots 7"]);
        assert_eq!(claims(6), ["safe: tell all that a owns slots 7"]);
    }

    /// A node that gives a slot away does not take its keys in, and a move does not end while a third node has its slot open.
    #[test]
    fn strays_of_slots_on_their_way_are_gathered_behind_the_moves() {
        check(
            &[
                "a master - 1 connected 0-9 [7->-b]",
                "b master - 2 connected 10-16383 [7-<-a]",
                "c master - 3 connected [7-<-a]",
            ],
            &[("a", 7, 5), ("b", 7, 5), ("c", 7, 5)],
            &[
                "safe: close slots 7 on c",
                "safe: go on with moving slots 7 from a to b",
                "safe: give the keys that c has of slots 7 to their owner b",
            ],
        );
    }

    #[test]
    fn a_target_that_is_gone_is_replaced() {
        let gone = [
            "a master - 1 connected 0-9 [7->-b]",
            "b2 master - 3 connected 10-16383",
            "c master - 4 connected",
            "b master,fail - 2 connected",
        ];
        let resume = "go on with moving slots 7 from a to b";
        check(&gone, &[("a", 7, 5), ("b2", 7, 5)], &[&format!("needs confirmation: {resume}")]);
        let two = [("b2", 7, 5), ("c", 7, 5)];
        let to_owner = |from| {
            format!("may lose data: give the keys that {from} has of slots 7 to their owner a")
        };
        let close = "may lose data: close slots 7 on a";
        check(&gone, &two, &[close, &to_owner("b2"), &to_owner("c")]);
        let address = Address::parse("10.0.0.1:7001", None).unwrap();
        let member = |(name, primary): (&str, Option<&str>)| Member {
            id: NodeId(name.into()),
            address: address.clone(),
            primary: primary.map(|id| NodeId(id.into())),
        };
        let members = [("a", None), ("b", None), ("b2", Some("b")), ("c", None)].map(member);
        let heirs = heirs(&members, &view(&gone));
        let plan = plan(&view(&gone), &Keys::new(), &heirs);
        let told: Vec<_> =
            plan.repairs.iter().map(|r| format!("{}: {}", r.risk, r.action)).collect();
        assert_eq!(told, [format!("safe: {resume}")]);
        assert_eq!(plan.heirs, [(NodeId("b".into()), NodeId("b2".into()))]);
    }

    #[test]
    fn slots_without_an_owner() {
        let two = ["a master - 1 connected 0-6 8-9", "b master - 2 connected 10-16383"];
        check(&two, &[], &["safe: let a own slots 7"]);
        check(&two, &[("b", 7, 1)], &["safe: let b own slots 7"]);
        check(
            &two,
            &[("a", 7, 1000), ("b", 7, 1)],
            &[
                "needs confirmation: let b own slots 7",
                "needs confirmation: give the keys that a has of slots 7 to their owner b",
            ],
        );
        check(
            &[
                "a master - 1 connected 0-6 8-9",
                "b master - 2 connected 10-16383",
                "c master,fail - 3 connected 7",
            ],
            &[],
            &["may lose data: let a own slots 7"],
        );
    }
}
