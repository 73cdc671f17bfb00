//! What to do about what a node says while slots move. Pure.

use crate::backend::control::ControlError;

/// What helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::manage) enum Remedy {
    /// The link between the two nodes: the same again, a few times.
    Again,
    /// The node cannot do it now: the same again, in a while.
    Wait,
    /// The cluster has changed, or somebody is gone: look at it, then go on from what is found.
    Look,
    /// A migration has failed that the servers do by themselves: fewer slots at a time, or key by key.
    Smaller,
    /// The target is full: the job pauses until somebody has made room.
    Room,
    /// A migration runs that could not be cancelled: nothing else may be done about its slots until it has ended.
    Runs,
    /// Nothing: the same will be said again.
    Nothing,
    /// The caller wants it to stop.
    Stop,
}

/// Something that went wrong, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manage) struct Setback {
    /// What helps.
    pub remedy: Remedy,
    /// What went wrong, for people.
    pub what: String,
}

impl Setback {
    /// A setback that is not a node's own words.
    pub(in crate::manage) fn new(remedy: Remedy, what: impl Into<String>) -> Self {
        Self { remedy, what: what.into() }
    }

    /// What a node said, and to what.
    pub(in crate::manage) fn said(who: &impl ToString, to: &str, text: &str) -> Self {
        Self::new(remedy(text), format!("{} answered {to}: {text}", who.to_string()))
    }
}

impl From<ControlError> for Setback {
    fn from(error: ControlError) -> Self {
        let remedy = match error.reply() {
            Some(text) => remedy(text),
            None => Remedy::Look,
        };
        Self::new(remedy, error.to_string())
    }
}

/// How the source passes on what the target said to it.
const PASSED_ON: &str = "ERR Target instance replied with error: ";

/// First words of errors, and what helps.
const REMEDIES: &[(&str, Remedy)] = &[
    ("IOERR", Remedy::Again),
    ("OOM", Remedy::Room),
    ("LOADING", Remedy::Wait),
    ("MASTERDOWN", Remedy::Wait),
    ("MISCONF", Remedy::Wait),
    ("NOREPLICAS", Remedy::Wait),
    ("TRYAGAIN", Remedy::Wait),
    ("UNBLOCKED", Remedy::Wait),
    ("BUSY ", Remedy::Wait),
    ("ERR max number of clients reached", Remedy::Wait),
    ("CLUSTERDOWN", Remedy::Look),
    ("READONLY", Remedy::Look),
    ("MOVED", Remedy::Look),
    ("ASK", Remedy::Look),
    ("ERR Please use SETSLOT only with", Remedy::Look),
    ("ERR I'm not the owner of hash slot", Remedy::Look),
    ("ERR I'm already the owner of hash slot", Remedy::Look),
    ("ERR I don't know about node", Remedy::Look),
    ("ERR Unknown node", Remedy::Look),
    ("ERR Target node is not a", Remedy::Look),
    ("ERR Can't assign hashslot", Remedy::Look),
    // An atomic migration of the same slots is under way, or its keys are still being deleted.
    ("ERR Slot import in progress", Remedy::Wait),
    ("ERR Slot export in progress", Remedy::Wait),
    ("ERR There is a pending trim job", Remedy::Wait),
    ("ERR trim in progress for some of the slots", Remedy::Wait),
    // The start of an atomic migration: first Valkey, then Redis.
    ("ERR Slot migration can only be used on primary", Remedy::Look),
    ("ERR Slots are not served by this node", Remedy::Look),
    ("ERR Requested slots span multiple shards", Remedy::Look),
    ("ERR I am already migrating slot", Remedy::Wait),
    ("ERR slot migration not allowed on replica", Remedy::Look),
    ("ERR slot has no owner", Remedy::Look),
    ("ERR slots belong to different source nodes", Remedy::Look),
    ("ERR this node is already the owner of the slot range", Remedy::Look),
    ("ERR another ASM task is already in progress", Remedy::Wait),
    ("ERR Another ASM task is already in progress", Remedy::Wait),
    ("ERR overlapping import exists for slot range", Remedy::Wait),
];

/// What helps against an error reply. What is not known is not tried again.
pub(in crate::manage) fn remedy(text: &str) -> Remedy {
    let text = text.strip_prefix(PASSED_ON).unwrap_or(text);
    let known = REMEDIES.iter().find(|(words, _)| text.starts_with(words));
    known.map_or(Remedy::Nothing, |(_, remedy)| *remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_against_what() {
        let check = |text: &str, expected| {
            assert_eq!(remedy(text), expected, "{text}");
            assert_eq!(remedy(&format!("{PASSED_ON}{text}")), expected, "{text} of the target");
        };
        check("IOERR error or timeout writing to target instance", Remedy::Again);
        check("OOM command not allowed when used memory > 'maxmemory'.", Remedy::Room);
        check("CLUSTERDOWN The cluster is down", Remedy::Look);
        check("READONLY You can't write against a read only replica.", Remedy::Look);
        check("MOVED 7 127.0.0.1:7001", Remedy::Look);
        check("ASK 7 127.0.0.1:7001", Remedy::Look);
        check("LOADING Redis is loading the dataset in memory", Remedy::Wait);
        check(
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            Remedy::Wait,
        );
        check("MISCONF Errors writing to the AOF file: No space left on device", Remedy::Wait);
        check("NOREPLICAS Not enough good replicas to write.", Remedy::Wait);
        check("TRYAGAIN Multiple keys request during rehashing of slot", Remedy::Wait);
        check("BUSY Redis is busy running a script.", Remedy::Wait);
        check("ERR max number of clients reached", Remedy::Wait);
        check("NOAUTH Authentication required.", Remedy::Nothing);
        check("WRONGPASS invalid username-password pair or user is disabled.", Remedy::Nothing);
        check(
            "NOPERM this user has no permissions to run the 'restore-asking' command",
            Remedy::Nothing,
        );
        check("ERR unknown command 'MIGRATE'", Remedy::Nothing);
        check("ERR DUMP payload version or checksum are wrong", Remedy::Nothing);
        check("BUSYKEY Target key name already exists.", Remedy::Nothing);
        check("ERR Slots are not served by this node.", Remedy::Look);
        check("ERR another ASM task is already in progress", Remedy::Wait);
        check("ERR Slots are being manually migrated", Remedy::Nothing);
    }

    #[test]
    fn a_node_that_is_gone_is_looked_for() {
        let gone = ControlError::Timeout("a:1".into(), std::time::Duration::ZERO);
        assert_eq!(Setback::from(gone).remedy, Remedy::Look);
        let said = ControlError::Reply("a:1".into(), "NOPERM no".into());
        assert_eq!(Setback::from(said).remedy, Remedy::Nothing);
    }
}
