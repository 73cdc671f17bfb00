//! `PROXY CLUSTER CALL` and `SETTIMEOUT`: the same on every node, each by itself.

use super::answer::Answer;
use super::complaint::Complaint;
use super::words::{Outcome, arity};
use super::{Admin, cluster};
use crate::manage::every::{self, Fault, Told, Whom};
use crate::resp::value::Value;

const CALL: &[&str] = &["PROXY", "CLUSTER", "CALL"];

/// What is behind `PROXY CLUSTER CALL`, if that is what the words say.
pub(super) fn called(words: &[Vec<u8>]) -> Option<&[Vec<u8>]> {
    let (front, rest) = words.split_at_checked(CALL.len())?;
    let is_it =
        front.iter().zip(CALL).all(|(word, name)| word.eq_ignore_ascii_case(name.as_bytes()));
    is_it.then_some(rest)
}

/// `[MASTERS|REPLICAS|ALL] command [arg …]`.
pub(super) fn parse(args: &[Vec<u8>]) -> (Whom, &[Vec<u8>]) {
    let first = args.first().map(|word| word.to_ascii_uppercase());
    let whom = match first.as_deref() {
        Some(b"ALL") => Whom::All,
        Some(b"MASTERS" | b"PRIMARIES") => Whom::Primaries,
        Some(b"REPLICAS") => Whom::Replicas,
        _ => return (Whom::All, args),
    };
    (whom, &args[1..])
}

/// What each node answers, by its address.
pub(super) async fn call(admin: &Admin, args: &[Vec<u8>]) -> Outcome {
    let (whom, command) = parse(args);
    if command.is_empty() {
        return Err(arity("proxy|cluster|call"));
    }
    if !admin.rights.load().may_call {
        let text = "nodes can be called once admin.call is set to true in the configuration";
        return Err(Complaint::NoPermission(text.into()));
    }
    let view = cluster::gather(admin).await?;
    let command: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
    let mut answers = Vec::new();
    let mut tell = |told: Told| {
        let answer = told.outcome.unwrap_or_else(|fault| match fault {
            Fault::Refused(text) => Value::Error(text.into()),
            Fault::Silent(text) => Value::Error(format!("UNREACHABLE {text}").into()),
        });
        answers.push((told.place, Answer::Node(answer)));
    };
    every::call(&view, &admin.access, (whom, &command), &mut tell).await;
    Ok(Answer::Map(answers))
}

/// Sets how many milliseconds nodes wait for each other: whether all do now, and what came of it at each.
pub(super) async fn set_timeout(admin: &Admin, ms: &str) -> Outcome {
    let ms: Option<u64> = ms.parse().ok().filter(|ms| *ms >= every::SHORTEST_TIMEOUT_MS);
    let ms = ms.ok_or_else(|| {
        let least = every::SHORTEST_TIMEOUT_MS;
        Complaint::BadArg(format!("the timeout is a number of milliseconds, {least} at least"))
    })?;
    let view = cluster::gather(admin).await?;
    let (mut rows, mut is_whole) = (Vec::new(), true);
    let mut tell = |Told { place, outcome }: Told| {
        is_whole &= outcome.is_ok();
        let error = outcome.err().map_or(Answer::Nil, |fault| fault.to_string().into());
        rows.push(Answer::map([("address", place.into()), ("error", error)]));
    };
    every::set_timeout(&view, &admin.access, ms, &mut tell).await;
    Ok(Answer::map([("ok", Answer::Flag(is_whole)), ("nodes", Answer::List(rows))]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<(Whom, &str)>) {
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let read = called(&words).map(|args| {
            let (whom, command) = parse(args);
            (whom, String::from_utf8_lossy(&command.join(&b' ')).into_owned())
        });
        assert_eq!(read, expected.map(|(whom, command)| (whom, command.to_owned())), "{line}");
    }

    #[test]
    fn whom_to_call_with_what() {
        check("PROXY CLUSTER CALL PING", Some((Whom::All, "PING")));
        check("proxy cluster call masters SET a b", Some((Whom::Primaries, "SET a b")));
        check("PROXY CLUSTER CALL replicas PING all", Some((Whom::Replicas, "PING all")));
        check("PROXY CLUSTER CALL ALL", Some((Whom::All, "")));
        check("PROXY CLUSTER CALL", Some((Whom::All, "")));
        check("PROXY CLUSTER SETTIMEOUT 5", None);
        check("PROXY CLUSTER", None);
    }
}
