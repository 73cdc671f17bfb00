//! `slotway cluster call` and `set-timeout`: the same for every node, each by itself.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use serde_json::json;

use super::Job;
use super::out::{Exit, Outcome};
use crate::backend::control::{Control, ControlError};
use crate::manage::view::NodeView;
use crate::resp::value::Value;

/// Below it a hiccup of the network makes nodes take each other for dead.
const SHORTEST_TIMEOUT_MS: u64 = 100;

impl Job<'_> {
    pub(super) async fn call(&self) -> Outcome {
        let entry = self.address(self.arg(0)?)?;
        let view = self.gather(&entry).await?;
        let command = self.command()?;
        let command: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        let shown: Vec<_> = command.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
        self.out.info(&format!(">>> Calling {}", shown.join(" ")));
        let is_meant = |node: &&NodeView| {
            let not_meant = if node.own.is_replica() { "only-masters" } else { "only-replicas" };
            !self.line.has(not_meant)
        };
        let (mut answers, mut failed) = (Vec::new(), 0);
        for node in view.nodes.iter().filter(is_meant) {
            let answer = self.call_node(node, &command).await;
            let text = match &answer {
                Ok(value) => raw(value),
                Err(ControlError::Reply(_, text)) => text.clone(),
                Err(_) => "Failed!".to_owned(),
            };
            self.out.plain(&format!("{}: {text}", node.address));
            failed += usize::from(answer.is_err());
            answers.push(json!({ "node": node.address, "ok": answer.is_ok(), "answer": text }));
        }
        for absent in &view.absent {
            let place = absent.line.place();
            self.out.plain(&format!("{place}: Failed!"));
            answers.push(json!({ "node": place, "ok": false, "answer": absent.reason }));
            failed += 1;
        }
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

    async fn call_node(&self, node: &NodeView, command: &[&[u8]]) -> Result<Value, ControlError> {
        self.access.open(&node.address).await?.call(command).await
    }

    pub(super) async fn set_timeout(&self) -> Outcome {
        let (entry, ms) = (self.address(self.arg(0)?)?, self.arg(1)?);
        let ms: u64 = self
            .flag(ms.parse().map_err(|_| format!("[ERR] {ms:?} is no number of milliseconds")))?;
        if ms < SHORTEST_TIMEOUT_MS {
            let text = "Setting a node timeout of less than 100 milliseconds is a bad idea.";
            return Err(self.out.complain(Exit::Usage, text));
        }
        let view = self.gather(&entry).await?;
        self.out.info(">>> Reconfiguring node timeout in every cluster node...");
        let (mut answers, mut failed) = (Vec::new(), 0);
        for node in &view.nodes {
            let outcome = self.set_timeout_of(node, ms).await;
            match &outcome {
                Ok(()) => self.out.warning(&format!("*** New timeout set for {}", node.address)),
                Err(text) => self
                    .out
                    .error(&format!("ERR setting node-timeout for {}: {text}", node.address)),
            }
            failed += usize::from(outcome.is_err());
            answers.push(
                json!({ "node": node.address, "ok": outcome.is_ok(), "error": outcome.err() }),
            );
        }
        for absent in &view.absent {
            let place = absent.line.place();
            self.out.error(&format!("ERR setting node-timeout for {place}: {}", absent.reason));
            answers.push(json!({ "node": place, "ok": false, "error": absent.reason }));
            failed += 1;
        }
        let done = answers.len() - failed;
        self.out.info(&format!(">>> New node timeout set. {done} OK, {failed} ERR."));
        self.out.answer(&json!({ "ok": failed == 0, "nodes": answers }));
        Ok(share(failed, answers.len()))
    }

    async fn set_timeout_of(&self, node: &NodeView, ms: u64) -> Result<(), String> {
        let text =
            |error: ControlError| error.reply().map_or_else(|| error.to_string(), str::to_owned);
        let mut control: Control = self.access.open(&node.address).await.map_err(text)?;
        let ms = ms.to_string();
        control
            .call(&[b"CONFIG", b"SET", b"cluster-node-timeout", ms.as_bytes()])
            .await
            .map_err(text)?;
        let rewritten = control.call(&[b"CONFIG", b"REWRITE"]).await.map_err(text);
        rewritten.map(drop).map_err(|error| format!("{error} (live, not persisted)"))
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
