//! `slotway cluster call` and `set-timeout`: the same for every node, each by itself.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use serde_json::json;

use super::Job;
use super::out::{Exit, Outcome};
use crate::manage::every::{self, Fault, Told, Whom};
use crate::resp::value::Value;

impl Job<'_> {
    pub(super) async fn call(&self) -> Outcome {
        let entry = self.address(self.arg(0)?)?;
        let view = self.gather(&entry).await?;
        let command = self.command()?;
        let command: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        let shown: Vec<_> = command.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
        self.out.info(&format!(">>> Calling {}", shown.join(" ")));
        let whom = match (self.line.has("only-masters"), self.line.has("only-replicas")) {
            (true, _) => Whom::Primaries,
            (false, true) => Whom::Replicas,
            (false, false) => Whom::All,
        };
        let (mut answers, mut failed) = (Vec::new(), 0);
        let mut tell = |told: Told| {
            let text = match &told.outcome {
                Ok(value) => raw(value),
                Err(Fault::Refused(text)) => text.clone(),
                Err(Fault::Silent(_)) => "Failed!".to_owned(),
            };
            self.out.plain(&format!("{}: {text}", told.place));
            failed += usize::from(told.outcome.is_err());
            let answer = told.outcome.as_ref().map_or_else(ToString::to_string, raw);
            answers
                .push(json!({ "node": told.place, "ok": told.outcome.is_ok(), "answer": answer }));
        };
        every::call(&view, &self.access, (whom, &command), &mut tell).await;
        self.out.answer(&json!({ "ok": failed == 0, "answers": answers }));
        Ok(share(failed, answers.len()))
    }

    /// What is called, and with what: some of it may come from the standard input, every byte as it is.
    fn command(&self) -> Outcome<Vec<Vec<u8>>> {
        let usage = |text: &str| self.out.complain(Exit::Usage, text);
        let mut words: Vec<Vec<u8>> =
            self.line.args[1..].iter().map(|arg| arg.as_bytes().to_vec()).collect();
        let tag = self.flag(self.line.value("X"))?;
        if tag.is_none() && !self.line.has("x") {
            return Ok(words);
        }
        if tag.is_none() {
            words.push(Vec::new());
        }
        let place = match tag {
            Some(tag) => words.iter_mut().find(|word| *word == tag.as_bytes()),
            None => words.last_mut(),
        };
        let place = place.ok_or_else(|| usage("-X: none of the arguments is the tag"))?;
        place.clear();
        let read = std::io::stdin().lock().read_to_end(place);
        read.map_err(|error| usage(&format!("[ERR] the standard input: {error}")))?;
        Ok(words)
    }

    pub(super) async fn set_timeout(&self) -> Outcome {
        let (entry, ms) = (self.address(self.arg(0)?)?, self.arg(1)?);
        let ms: u64 = self
            .flag(ms.parse().map_err(|_| format!("[ERR] {ms:?} is no number of milliseconds")))?;
        if ms < every::SHORTEST_TIMEOUT_MS {
            let text = "Setting a node timeout of less than 100 milliseconds is a bad idea.";
            return Err(self.out.complain(Exit::Usage, text));
        }
        let view = self.gather(&entry).await?;
        self.out.info(">>> Reconfiguring node timeout in every cluster node...");
        let (mut answers, mut failed) = (Vec::new(), 0);
        let mut tell = |Told { place, outcome }: Told| {
            match &outcome {
                Ok(_) => self.out.warning(&format!("*** New timeout set for {place}")),
                Err(fault) => {
                    self.out.error(&format!("ERR setting node-timeout for {place}: {fault}"));
                }
            }
            failed += usize::from(outcome.is_err());
            let error = outcome.as_ref().err().map(ToString::to_string);
            answers.push(json!({ "node": place, "ok": error.is_none(), "error": error }));
        };
        every::set_timeout(&view, &self.access, ms, &mut tell).await;
        let done = answers.len() - failed;
        self.out.info(&format!(">>> New node timeout set. {done} OK, {failed} ERR."));
        self.out.answer(&json!({ "ok": failed == 0, "nodes": answers }));
        Ok(share(failed, answers.len()))
    }
}

fn share(failed: usize, all: usize) -> Exit {
    match failed {
        0 => Exit::Success,
        _ if failed == all => Exit::Failure,
        _ => Exit::Partial,
    }
}

/// A reply as redis-cli writes it into a pipe.
fn raw(value: &Value) -> String {
    match value {
        Value::SimpleString(text) | Value::BulkString(text) => {
            String::from_utf8_lossy(text).into_owned()
        }
        Value::Integer(number) => number.to_string(),
        Value::Error(text) => text.to_string(),
        Value::Null => String::new(),
        Value::Array(values) => values.iter().map(raw).collect::<Vec<_>>().join("\n"),
    }
}
