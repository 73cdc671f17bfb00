//! How far a slot is on its way, by what its source and its target say of it. Pure.
//!
//! While a slot is open its owner, the source, is right about every key that both nodes have: clients are sent to the target
//! only for keys that the source does not have. So there is one way out of every state, and it is forward.

use crate::cluster::{NodeId, Slot};
use crate::manage::view::Line;

/// How far a slot is, and what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The source owns it.
    Source {
        /// The target does not take it in from the source yet.
        import: bool,
        /// The source does not give it to the target yet.
        export: bool,
    },
    /// The target has taken it, and the source has not closed it yet.
    Both,
    /// The target owns it.
    Target,
    /// A node that is neither has to do with it.
    Foreign(NodeId),
    /// Neither of them owns it.
    Nobody,
}

/// The ends of a move as they are now, and who they were when slots were opened.
pub(super) struct Ends<'a> {
    /// What the source says of itself.
    pub(super) source: &'a Line,
    /// What the target says of itself.
    pub(super) target: &'a Line,
    /// Names that the source, or who was there before it, has had in this job.
    pub(super) sources: &'a [NodeId],
    /// Names of the target.
    pub(super) targets: &'a [NodeId],
}

impl Ends<'_> {
    /// The stage of a slot.
    pub(super) fn stage(&self, slot: Slot) -> Stage {
        let importing = peer(&self.target.importing, slot);
        let migrating = peer(&self.source.migrating, slot);
        let foreign = importing.filter(|id| !self.sources.contains(id));
        let foreign = foreign.or(migrating.filter(|id| !self.targets.contains(id)));
        let back = peer(&self.source.importing, slot).or(peer(&self.target.migrating, slot));
        if let Some(id) = foreign.or(back) {
            return Stage::Foreign(id.clone());
        }
        match (self.source.slots.contains(slot), self.target.slots.contains(slot)) {
            (true, false) => Stage::Source {
                import: importing != Some(&self.source.id),
                export: migrating != Some(&self.target.id),
            },
            (true, true) => Stage::Both,
            // A source that heard it from others still has the slot open, and does not close it by itself.
            (false, true) if migrating.is_some() => Stage::Both,
            (false, true) => Stage::Target,
            (false, false) => Stage::Nobody,
        }
    }
}

fn peer(open: &[(Slot, NodeId)], slot: Slot) -> Option<&NodeId> {
    open.iter().find(|(number, _)| *number == slot).map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Address;

    fn line(id: &str, slots: &str) -> Line {
        let text = format!("{id} 10.0.0.1:7001@17001 myself,master - 0 5 7 connected {slots}");
        Line::parse(&text, &Address::parse("10.0.0.1:7001", None).unwrap()).unwrap()
    }

    /// Slot 7 on its way from `a`, which was `olda`, to `b`, which was `oldb`.
    fn check(source: &str, target: &str, expected: &Stage) {
        let id = |name: &str| NodeId(name.into());
        let ends = Ends {
            source: &line("a", source),
            target: &line("b", target),
            sources: &[id("olda"), id("a")],
            targets: &[id("oldb"), id("b")],
        };
        assert_eq!(ends.stage(Slot::new(7).unwrap()), *expected, "{source:?} {target:?}");
    }

    #[test]
    fn every_state_of_a_slot() {
        let source = |import, export| Stage::Source { import, export };
        let foreign = |id: &str| Stage::Foreign(NodeId(id.into()));
        check("0-9", "", &source(true, true));
        check("0-9 [7->-b]", "[7-<-a]", &source(false, false));
        check("0-9 [7->-b]", "", &source(true, false));
        check("0-9", "[7-<-a]", &source(false, true));
        check("0-9", "[7-<-olda]", &source(true, true));
        check("0-9 [7->-oldb]", "", &source(true, true));
        check("0-9 [8->-c]", "[6-<-c]", &source(true, true));
        check("0-9 [7->-b]", "7", &Stage::Both);
        check("0-6 [7->-b]", "7", &Stage::Both);
        check("0-6", "7", &Stage::Target);
        check("0-6", "", &Stage::Nobody);
        check("0-9 [7->-c]", "", &foreign("c"));
        check("0-9", "[7-<-c]", &foreign("c"));
        check("0-9 [7-<-b]", "", &foreign("b"));
        check("", "7 [7->-a]", &foreign("a"));
    }
}
