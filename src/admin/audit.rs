//! What the log tells of administrators: who wanted what changed, and what came of it. What may be secret stays out of it.

use std::net::SocketAddr;

use super::complaint::Complaint;
use super::words::Outcome;
use super::{every, order};
use crate::manage::uri;
use crate::refusal::Refusal;

/// Writes a line if the request changes something, or is one of somebody who does not know the password.
pub(super) fn note(peer: SocketAddr, words: &[Vec<u8>], outcome: &Outcome) {
    if let Err(Complaint::Plain(Refusal::WrongPass { .. })) = outcome {
        return tracing::warn!(%peer, "an administrator was refused: the password is wrong");
    }
    let Some(request) = told(words) else { return };
    match outcome {
        Ok(_) => tracing::info!(%peer, request, "an administrator's request"),
        Err(error) => tracing::info!(%peer, request, %error, "an administrator's request"),
    }
}

/// What is said of a request; nothing if it only looks.
fn told(words: &[Vec<u8>]) -> Option<String> {
    if let Some(args) = every::called(words) {
        // Arguments may be passwords, as those of ACL SETUSER.
        let (whom, command) = every::parse(args);
        let name = String::from_utf8_lossy(command.first()?);
        return Some(format!("PROXY CLUSTER CALL {whom:?} {}", name.escape_debug()));
    }
    let words: Vec<&str> =
        words.iter().map(|word| std::str::from_utf8(word)).collect::<Result<_, _>>().ok()?;
    if !changes(&words) {
        return None;
    }
    let words: Vec<String> = words.iter().map(|word| masked(word)).collect();
    Some(words.join(" ").escape_debug().to_string())
}

/// A word without what may be a password, also where somebody has mistyped it: in front of `@`, unless a bus port is behind
/// that, and behind `?`.
fn masked(word: &str) -> String {
    let (front, query) = word.split_once('?').map_or((word, ""), |(front, _)| (front, "?***"));
    let place = front.rsplit_once('@').map(|(_, place)| place);
    match place.filter(|place| !place.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(place) if !front.contains("://") => format!("{}@{place}{query}", uri::MASK),
        _ => uri::masked(front) + query,
    }
}

fn changes(words: &[&str]) -> bool {
    let upper: Vec<String> = words.iter().take(3).map(|word| word.to_ascii_uppercase()).collect();
    let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
    match upper[..] {
        ["PROXY", "CLUSTER", verb] => verb == "SETTIMEOUT" || order::VERBS.contains(&verb),
        ["PROXY", "JOB", verb] => ["PAUSE", "RESUME", "CANCEL", "SETRATE"].contains(&verb),
        ["PROXY", "CONFIG", verb] => ["SET", "RELOAD"].contains(&verb),
        ["PROXY", "LOGLEVEL", _] | ["PROXY", "DRAIN", ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<&str>) {
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        assert_eq!(told(&words).as_deref(), expected, "{line}");
    }

    #[test]
    fn what_changes_something_is_told_without_secrets() {
        for line in [
            "PROXY JOB PAUSE j-1",
            "proxy job cancel ALL NOW",
            "PROXY JOB SETRATE j-1 5",
            "PROXY CLUSTER REBALANCE",
            "PROXY CLUSTER SETTIMEOUT 500",
            "PROXY CONFIG SET maxclients 5",
            "PROXY DRAIN",
            "PROXY DRAIN 5",
            "PROXY LOGLEVEL debug",
        ] {
            check(line, Some(line));
        }
        for line in [
            "PROXY JOB STATUS j-1",
            "PROXY CLUSTER CHECK",
            "PROXY CONFIG GET *",
            "PROXY LOGLEVEL",
            "PING",
        ] {
            check(line, None);
        }
        check("PROXY CLUSTER CALL", None);
        check(
            "PROXY CLUSTER CALL masters ACL SETUSER x >secret",
            Some("PROXY CLUSTER CALL Primaries ACL"),
        );
        check(
            "PROXY CLUSTER IMPORT FROM redis://u:secret@h:1/0 COPY",
            Some("PROXY CLUSTER IMPORT FROM redis://u:***@h:1/0 COPY"),
        );
        check("PROXY CLUSTER IMPORT FROM u:secret@h:1", Some("PROXY CLUSTER IMPORT FROM ***@h:1"));
        check(
            "PROXY CLUSTER IMPORT FROM redis://h:1?password=secret",
            Some("PROXY CLUSTER IMPORT FROM redis://h:1?***"),
        );
        check("PROXY CLUSTER ADDNODE h:1@2", Some("PROXY CLUSTER ADDNODE h:1@2"));
        check("PROXY JOB PAUSE a\nb", Some("PROXY JOB PAUSE a\\nb"));
    }
}
