//! The two grammars of atomic slot migration, as the servers' documentation and their replies have them. Pure.
//!
//! ```text
//!           Valkey ≥ 9.0, the source pushes                         Redis ≥ 8.4, the target pulls
//!  start    CLUSTER MIGRATESLOTS SLOTSRANGE a b [c d …] NODE id     CLUSTER MIGRATION IMPORT a b [c d …]
//!  status   CLUSTER GETSLOTMIGRATIONS                               CLUSTER MIGRATION STATUS ALL
//!  cancel   CLUSTER CANCELSLOTMIGRATIONS  (all of the source)       CLUSTER MIGRATION CANCEL ID task
//! ```

use std::collections::BTreeMap;

use crate::cluster::{NodeId, Slots};
use crate::manage::mover::ends::words;
use crate::manage::plan::Move;
use crate::resp::value::{self, Value};

/// Whose grammar it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::manage::mover) enum Dialect {
    /// Valkey's: the source is told to send.
    Push,
    /// Redis': the target is told to fetch.
    Pull,
}

/// What a node tells of one migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manage::mover) struct Task {
    pub(in crate::manage::mover) name: String,
    pub(in crate::manage::mover) slots: Slots,
    pub(in crate::manage::mover) source: NodeId,
    pub(in crate::manage::mover) target: NodeId,
    pub(in crate::manage::mover) state: State,
    /// The state in the node's own words.
    pub(in crate::manage::mover) stage: String,
    /// What went wrong, in the node's own words; empty if nothing did.
    pub(in crate::manage::mover) trouble: String,
    /// How often the node has begun anew by itself.
    pub(super) retries: u64,
}

/// How a migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::manage::mover) enum State {
    /// It runs.
    Active,
    /// The target owns the slots, says whoever was asked.
    Done,
    /// It did not work.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl Dialect {
    /// Both, in the order they are tried.
    pub(in crate::manage::mover) const ALL: [Self; 2] = [Self::Push, Self::Pull];

    /// Whom a migration is asked of, given its source and its target.
    pub(super) fn host<T>(self, source: T, target: T) -> T {
        match self {
            Self::Push => source,
            Self::Pull => target,
        }
    }

    pub(super) fn start(self, slots: &Slots, target: &NodeId) -> Vec<Vec<u8>> {
        let ranges = slots.ranges();
        let bounds = ranges.iter().flat_map(|range| [range.start(), range.end()]);
        let bounds: Vec<String> = bounds.map(ToString::to_string).collect();
        let bounds: Vec<&str> = bounds.iter().map(String::as_str).collect();
        match self {
            Self::Push => words(
                &[&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE"], &bounds[..], &["NODE", &target.0]]
                    .concat(),
            ),
            Self::Pull => words(&[&["CLUSTER", "MIGRATION", "IMPORT"], &bounds[..]].concat()),
        }
    }

    /// Asks for all migrations that the node knows of: those that run and the last ones that ended. It starts nothing, so
    /// it also finds out whether the node speaks this dialect.
    pub(in crate::manage::mover) fn status(self) -> &'static [&'static str] {
        match self {
            Self::Push => &["CLUSTER", "GETSLOTMIGRATIONS"],
            Self::Pull => &["CLUSTER", "MIGRATION", "STATUS", "ALL"],
        }
    }

    /// Cancels one migration; with Valkey all that the source has, but a source serves one target at a time.
    pub(super) fn cancel(self, task: &str) -> Vec<Vec<u8>> {
        match self {
            Self::Push => words(&["CLUSTER", "CANCELSLOTMIGRATIONS"]),
            Self::Pull => words(&["CLUSTER", "MIGRATION", "CANCEL", "ID", task]),
        }
    }
}

impl Task {
    /// The migrations in an answer to [`Dialect::status`]. What is none is left out.
    pub(in crate::manage::mover) fn all(reply: &Value) -> Vec<Self> {
        value::array(reply).unwrap_or(&[]).iter().filter_map(Self::read).collect()
    }

    fn read(fields: &Value) -> Option<Self> {
        let fields = value::array(fields)?;
        let pairs =
            fields.chunks_exact(2).filter_map(|pair| Some((value::text(&pair[0])?, &pair[1])));
        let fields: BTreeMap<&str, &Value> = pairs.collect();
        let text = |names: [&str; 2]| names.iter().find_map(|name| value::text(fields.get(name)?));
        let stage = text(["state", "state"])?;
        let retries =
            fields.get("retries").and_then(|retries| value::integer(retries)).unwrap_or(0);
        Some(Self {
            name: text(["name", "id"])?.to_owned(),
            slots: text(["slot_ranges", "slots"])?.parse().ok()?,
            source: NodeId(text(["source_node", "source"])?.into()),
            target: NodeId(text(["target_node", "dest"])?.into()),
            state: match stage {
                "success" | "completed" => State::Done,
                "failed" => State::Failed,
                "cancelled" | "canceled" => State::Cancelled,
                _ => State::Active,
            },
            stage: stage.to_owned(),
            trouble: text(["message", "last_error"]).unwrap_or_default().to_owned(),
            retries: u64::try_from(retries).unwrap_or(0),
        })
    }

    /// One that was begun and of which the node tells nothing.
    pub(super) fn unknown(name: &str, part: &Move) -> Self {
        Self {
            name: name.to_owned(),
            slots: part.slots.clone(),
            source: part.from.clone(),
            target: part.to.clone(),
            state: State::Active,
            stage: "unknown".to_owned(),
            trouble: String::new(),
            retries: 0,
        }
    }

    /// Whether it has failed and is tried by the node itself once more, as Redis does for ever: to be cancelled, for what
    /// to do then is for us to say.
    pub(super) fn is_retrying(&self) -> bool {
        self.retries > 0 && self.state == State::Active
    }

    /// Whether it is about some of these slots.
    pub(in crate::manage::mover) fn concerns(&self, slots: &Slots) -> bool {
        self.slots.iter().any(|slot| slots.contains(*slot))
    }

    /// How it ended, for people.
    pub(super) fn complaint(&self) -> String {
        match self.trouble.as_str() {
            "" => self.stage.clone(),
            trouble => format!("{}: {trouble}", self.stage),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(fields: &[&str]) -> Value {
        let text = |text: &&str| Value::BulkString(text.to_string().into());
        Value::Array(vec![Value::Array(fields.iter().map(text).collect())])
    }

    fn shown(request: &[Vec<u8>]) -> String {
        String::from_utf8(request.join(&b' ')).unwrap()
    }

    #[test]
    fn what_is_said_to_whom() {
        let (slots, target) = ("0-9,20,30-31".parse().unwrap(), NodeId("b".into()));
        let check = |dialect: Dialect, host: &str, start: &str, cancel: &str| {
            assert_eq!(dialect.host("source", "target"), host);
            assert_eq!(shown(&dialect.start(&slots, &target)), start);
            assert_eq!(shown(&dialect.cancel("t")), cancel);
        };
        let ranges = "0 9 20 20 30 31";
        let start = format!("CLUSTER MIGRATESLOTS SLOTSRANGE {ranges} NODE b");
        check(Dialect::Push, "source", &start, "CLUSTER CANCELSLOTMIGRATIONS");
        let start = format!("CLUSTER MIGRATION IMPORT {ranges}");
        check(Dialect::Pull, "target", &start, "CLUSTER MIGRATION CANCEL ID t");
    }

    /// Fields as a Valkey 9.1.2 and a Redis 8.6.2 gave them.
    #[test]
    fn what_nodes_tell_of_migrations() {
        let valkey = |state: &str, message: &str| {
            let ends = ["target_node", "b", "source_node", "a", "create_time", "1795823772"];
            let told = ["state", state, "message", message, "remaining_repl_size", "0"];
            let job = ["name", "j", "operation", "EXPORT", "slot_ranges", "0-99 200-200"];
            Task::all(&reply(&[&job[..], &ends, &told].concat())).remove(0)
        };
        let redis = |state: &str, error: &str, retries: &str| {
            let ends = ["source", "a", "dest", "b", "operation", "import", "state", state];
            let told = ["last_error", error, "retries", retries, "end_time", "-1"];
            let task = ["id", "j", "slots", "0-99 200-200"];
            Task::all(&reply(&[&task[..], &ends, &told].concat())).remove(0)
        };
        let expected = |state, stage: &str, trouble: &str, retries| Task {
            name: "j".to_owned(),
            slots: "0-99,200".parse().unwrap(),
            source: NodeId("a".into()),
            target: NodeId("b".into()),
            state,
            stage: stage.to_owned(),
            trouble: trouble.to_owned(),
            retries,
        };
        let check = |task: Task, expected: Task| assert_eq!(task, expected);
        check(valkey("snapshotting", ""), expected(State::Active, "snapshotting", "", 0));
        check(valkey("success", ""), expected(State::Done, "success", "", 0));
        check(valkey("failed", "no"), expected(State::Failed, "failed", "no", 0));
        check(valkey("cancelled", ""), expected(State::Cancelled, "cancelled", "", 0));
        check(
            redis("streaming-buffer", "", "0"),
            expected(State::Active, "streaming-buffer", "", 0),
        );
        check(redis("completed", "", "0"), expected(State::Done, "completed", "", 0));
        check(redis("canceled", "", "0"), expected(State::Cancelled, "canceled", "", 0));
        let failed = redis("failed", "no", "1");
        assert_eq!((failed.complaint().as_str(), failed.is_retrying()), ("failed: no", false));
        check(failed, expected(State::Failed, "failed", "no", 1));
        assert!(redis("connecting", "no", "1").is_retrying());
        assert!(!redis("connecting", "", "0").is_retrying());
    }

    #[test]
    fn what_is_no_migration_is_left_out() {
        for fields in [&["name", "j"][..], &["state", "success"], &[]] {
            assert_eq!(Task::all(&reply(fields)), []);
        }
        assert_eq!(Task::all(&Value::Array(Vec::new())), []);
        assert_eq!(Task::all(&Value::Null), []);
    }
}
