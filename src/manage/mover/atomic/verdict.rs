//! What became of a migration, and what to do then. Pure.
//!
//! A node's word on a migration may be lost with a restart, or trimmed from its log, or wrong: a source that has paused its
//! clients for too long takes the migration for failed while the target takes the slots. Who owns the slots decides.

use super::dialect::{State, Task};
use crate::cluster::{Slot, Slots};
use crate::manage::mover::Method;
use crate::manage::mover::remedy::{Remedy, Setback};
use crate::manage::view::Line;

/// Times that a migration is tried with fewer slots each, before it is done key by key.
const TRIES: u32 = 2;

/// Who owns some slots, by what the two ends say of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Source,
    Target,
    /// Both, none, or some of them the one and some the other: one of them does not know yet.
    Unclear,
}

impl Owner {
    pub(super) fn of(slots: &Slots, source: &Line, target: &Line) -> Self {
        let owns = |line: &Line, slot: &Slot| line.slots.contains(*slot);
        let pairs = slots.iter().map(|slot| (owns(source, slot), owns(target, slot)));
        let pairs: Vec<(bool, bool)> = pairs.collect();
        let all = |expected: (bool, bool)| pairs.iter().all(|pair| *pair == expected);
        match () {
            () if all((true, false)) => Self::Source,
            () if all((false, true)) => Self::Target,
            () => Self::Unclear,
        }
    }
}

/// What became of a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The target owns the slots. If an end says that it failed, the source may have taken writes that are lost.
    Arrived { doubt: Option<String> },
    /// The source owns them, and nothing is under way any more.
    Failed(Setback),
    /// Not known yet.
    Unclear,
}

/// Judges by the owner and by what the ends say of the migration, as far as they still know of it.
pub(super) fn verdict(owner: Owner, told: &[Task]) -> Verdict {
    let failed = told.iter().find(|task| task.state == State::Failed);
    let is_active = told.iter().any(|task| matches!(task.state, State::Active | State::Done));
    match owner {
        Owner::Target => Verdict::Arrived { doubt: failed.map(Task::complaint) },
        Owner::Source if !is_active => {
            let said = failed.or(told.first()).map(Task::complaint);
            Verdict::Failed(failure(&said.unwrap_or_else(|| "no node knows of it any more".into())))
        }
        Owner::Source | Owner::Unclear => Verdict::Unclear,
    }
}

/// What helps against a migration's failure, given in a node's words.
pub(super) fn failure(said: &str) -> Setback {
    let remedy = match said {
        text if text.contains("OOM") => Remedy::Room,
        text if ["AUTH", "NOPERM", "WRONGPASS"].iter().any(|word| text.contains(word)) => {
            Remedy::Nothing
        }
        _ => Remedy::Smaller,
    };
    Setback::new(remedy, format!("atomic slot migration: {said}"))
}

/// How a chunk goes on that could not be migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::manage::mover) enum Otherwise {
    /// In two halves, in a while.
    Halved,
    /// Key by key, and what is left between the two nodes too.
    ByKeys,
    /// Not at all.
    GiveUp,
}

/// What is tried next after so many failures before.
pub(in crate::manage::mover) fn otherwise(
    method: Method,
    failures: u32,
    remedy: Remedy,
) -> Otherwise {
    match (remedy, method) {
        // Keys would need the room as well.
        (Remedy::Stop | Remedy::Room | Remedy::Runs, _) => Otherwise::GiveUp,
        (Remedy::Smaller, _) if failures < TRIES => Otherwise::Halved,
        (_, Method::Auto) => Otherwise::ByKeys,
        (_, Method::Asm | Method::Legacy) => Otherwise::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Address, NodeId};

    fn line(slots: &str) -> Line {
        let text = format!("x 10.0.0.1:7001@17001 myself,master - 0 5 7 connected {slots}");
        Line::parse(&text, &Address::parse("10.0.0.1:7001", None).unwrap()).unwrap()
    }

    #[test]
    fn owners() {
        let check = |source: &str, target: &str, expected| {
            let slots = "5-6".parse().unwrap();
            assert_eq!(
                Owner::of(&slots, &line(source), &line(target)),
                expected,
                "{source} {target}"
            );
        };
        check("0-9", "10-19", Owner::Source);
        check("0-4", "5-9", Owner::Target);
        check("0-9", "5-9", Owner::Unclear);
        check("0-5", "6-9", Owner::Unclear);
        check("0-4", "10-19", Owner::Unclear);
    }

    fn told(states: &[State]) -> Vec<Task> {
        let task = |state: &State| Task::of(*state, "why");
        states.iter().map(task).collect()
    }

    #[test]
    fn the_owner_decides() {
        use State::{Active, Cancelled, Done, Failed};
        let check = |owner, states: &[State], expected: Verdict| {
            assert_eq!(verdict(owner, &told(states)), expected, "{owner:?} {states:?}");
        };
        let arrived = || Verdict::Arrived { doubt: None };
        let failed = |said: &str| Verdict::Failed(failure(said));
        check(Owner::Target, &[Done, Done], arrived());
        check(Owner::Target, &[], arrived());
        check(Owner::Target, &[Active, Done], arrived());
        check(Owner::Target, &[Cancelled], arrived());
        let doubt = || Verdict::Arrived { doubt: Some("Failed: why".to_owned()) };
        check(Owner::Target, &[Failed, Done], doubt());
        check(Owner::Target, &[Done, Failed], doubt());
        check(Owner::Target, &[Failed], doubt());
        check(Owner::Source, &[Failed], failed("Failed: why"));
        check(Owner::Source, &[Cancelled, Failed], failed("Failed: why"));
        check(Owner::Source, &[Cancelled], failed("Cancelled: why"));
        check(Owner::Source, &[], failed("no node knows of it any more"));
        check(Owner::Source, &[Failed, Active], Verdict::Unclear);
        check(Owner::Source, &[Done], Verdict::Unclear);
        check(Owner::Unclear, &[Done, Done], Verdict::Unclear);
        check(Owner::Unclear, &[Failed], Verdict::Unclear);
    }

    #[test]
    fn what_is_tried_next() {
        use Otherwise::{ByKeys, GiveUp, Halved};
        let check = |said: &str, expected: [[Otherwise; 3]; 2]| {
            for (method, expected) in [Method::Auto, Method::Asm].into_iter().zip(expected) {
                let tried =
                    [0, 1, 2].map(|failures| otherwise(method, failures, failure(said).remedy));
                assert_eq!(tried, expected, "{said} {method:?}");
            }
        };
        let smaller = [[Halved, Halved, ByKeys], [Halved, Halved, GiveUp]];
        check("failed: Protocol error: invalid CRLF in request", smaller);
        check("failed: A failover occurred during slot import", smaller);
        check("cancelled", smaller);
        check("failed: Failed to AUTH to target node", [[ByKeys; 3], [GiveUp; 3]]);
        check("failed: Ran out of memory (OOM) during slot import", [[GiveUp; 3]; 2]);
        assert_eq!(otherwise(Method::Auto, 0, Remedy::Stop), GiveUp);
        assert_eq!(otherwise(Method::Auto, 2, Remedy::Runs), GiveUp);
        assert_eq!(otherwise(Method::Auto, 0, Remedy::Look), ByKeys);
    }

    impl Task {
        fn of(state: State, trouble: &str) -> Self {
            Self {
                name: "t".to_owned(),
                slots: "5-6".parse().unwrap(),
                source: NodeId("a".into()),
                target: NodeId("b".into()),
                state,
                stage: format!("{state:?}"),
                trouble: trouble.to_owned(),
                retries: 0,
            }
        }
    }
}
