//! What of the proxy itself is changed: `PROXY CONFIG`, `LOGLEVEL`, `DRAIN`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::answer::Answer;
use super::complaint::Complaint;
use super::words::{Outcome, arity, unknown_subcommand};
use super::{Admin, Changes};
use crate::observe::log::{self, Filter};

/// Longest time that clients can be given to finish, in seconds: that of the configuration.
const LONGEST: u64 = 3600;

/// `PROXY CONFIG …`: as `CONFIG` on the data port, but for the proxy alone. At least one word is given.
pub(super) fn config(admin: &Admin, words: &[&str]) -> Outcome {
    let verb = words[0].to_ascii_uppercase();
    match (verb.as_str(), &words[1..]) {
        ("GET", patterns @ [_, ..]) => {
            let found = admin.proxy.settings(patterns).into_iter();
            Ok(Answer::Map(found.map(|(name, value)| (name.to_owned(), value.into())).collect()))
        }
        ("SET", pairs @ [_, _, ..]) if pairs.len().is_multiple_of(2) => {
            let wanted: Vec<_> = pairs.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            admin.proxy.set(&wanted)?;
            Ok(Answer::ok())
        }
        ("RELOAD", []) => reload(admin),
        ("GET" | "SET" | "RELOAD", _) => {
            Err(arity(&format!("proxy|config|{}", verb.to_ascii_lowercase())))
        }
        _ => Err(unknown_subcommand("PROXY CONFIG", words[0])),
    }
}

/// What the file says is in force from now on, as far as it can be.
fn reload(admin: &Admin) -> Outcome {
    // It may name several things, each in a line of its own.
    let wrong = |what: String| Complaint::Precondition(what.replace('\n', ";"));
    let Changes { applied, pending } = (admin.reload)().map_err(wrong)?;
    let list = |keys: Vec<String>| Answer::List(keys.into_iter().map(Answer::from).collect());
    Ok(Answer::map([("applied", list(applied)), ("restart", list(pending))]))
}

/// What is logged, or that something else is from now on.
pub(super) fn log_level(wanted: Option<&str>) -> Outcome {
    let foreign =
        || Complaint::Precondition("the log of this process is received by somebody else".into());
    match wanted {
        None => log::level().map(Answer::from).ok_or_else(foreign),
        Some(wanted) => {
            let filter = Filter::parse(wanted)
                .map_err(|allowed| Complaint::BadArg(format!("the level {allowed}")))?;
            if log::set_level(&filter) { Ok(Answer::ok()) } else { Err(foreign()) }
        }
    }
}

/// The proxy is not ready from now on, and ends as it does when it is told so by a signal.
pub(super) fn drain(admin: &Admin, seconds: Option<&str>) -> Outcome {
    let patience = match seconds.map(str::parse) {
        None => None,
        Some(Ok(seconds @ 0..=LONGEST)) => Some(Duration::from_secs(seconds)),
        Some(_) => {
            return Err(Complaint::BadArg(format!("DRAIN is for 0 to {LONGEST} seconds")));
        }
    };
    admin.observed.draining.store(true, Relaxed);
    // Who is gone has heard of it already.
    let _ = admin.drain.send(patience);
    Ok(Answer::ok())
}
