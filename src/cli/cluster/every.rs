//! `slotway cluster call` and `set-timeout`: the same for every node, each by itself.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value as Json, json};

use super::Job;
use super::out::{Exit, Outcome};
use crate::backend::control::Control;
use crate::manage::every::{self, Fault, Told, Whom};
use crate::resp::value::{self, Value};

const RECONFIGURING: &str = ">>> Reconfiguring node timeout in every cluster node...";

impl Job<'_> {
    pub(super) async fn call(&self) -> Outcome {
        let entry = self.address(self.arg(0)?)?;
        let view = self.gather(&entry).await?;
        let command = self.command(&self.line.args[1..])?;
        let command: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        let mut answers = Vec::new();
        let mut tell = |told: Told| answers.push(self.answered(&told));
        every::call(&view, &self.access, (self.whom(), &command), &mut tell).await;
        Ok(self.sum_up("answers", &answers))
    }

    pub(super) async fn call_via(&self, proxy: &mut Control) -> Outcome {
        let command = self.command(&self.line.args)?;
        let whom: &[u8] = match self.whom() {
            Whom::All => b"ALL",
            Whom::Primaries => b"MASTERS",
            Whom::Replicas => b"REPLICAS",
        };
        let words = [b"PROXY", &b"CLUSTER"[..], b"CALL", whom].into_iter();
        let words: Vec<&[u8]> = words.chain(command.iter().map(Vec::as_slice)).collect();
        let reply = proxy.call(&words).await.map_err(|error| self.no_proxy(&error))?;
        let pairs = value::array(&reply).unwrap_or_default().chunks_exact(2);
        let answers = pairs.map(|pair| {
            let outcome = match &pair[1] {
                Value::Error(text) => Err(match text.strip_prefix("UNREACHABLE ") {
                    Some(why) => Fault::Silent(why.to_owned()),
                    None => Fault::Refused(text.to_string()),
                }),
                value => Ok(value.clone()),
            };
            self.answered(&Told { place: raw(&pair[0]), outcome })
        });
        Ok(self.sum_up("answers", &answers.collect::<Vec<_>>()))
    }

    fn whom(&self) -> Whom {
        match (self.line.has("only-masters"), self.line.has("only-replicas")) {
            (true, _) => Whom::Primaries,
            (false, true) => Whom::Replicas,
            (false, false) => Whom::All,
        }
    }

    /// What is called, and with what: some of it may come from the standard input, every byte as it is.
    fn command(&self, args: &[OsString]) -> Outcome<Vec<Vec<u8>>> {
        let usage = |text: &str| self.out.complain(Exit::Usage, text);
        let mut words: Vec<Vec<u8>> = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        let tag = self.flag(self.line.value("X"))?;
        if tag.is_some() || self.line.has("x") {
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
        }
        let shown: Vec<_> = words.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
        self.out.info(&format!(">>> Calling {}", shown.join(" ")));
        Ok(words)
    }

    fn answered(&self, Told { place, outcome }: &Told) -> Json {
        let text = match outcome {
            Ok(value) => raw(value),
            Err(Fault::Refused(text)) => text.clone(),
            Err(Fault::Silent(_)) => "Failed!".to_owned(),
        };
        self.out.plain(&format!("{place}: {text}"));
        let answer = outcome.as_ref().map_or_else(ToString::to_string, raw);
        json!({ "node": place, "ok": outcome.is_ok(), "answer": answer })
    }

    pub(super) async fn set_timeout(&self) -> Outcome {
        let (entry, ms) = (self.address(self.arg(0)?)?, self.timeout(1)?);
        let view = self.gather(&entry).await?;
        self.out.info(RECONFIGURING);
        let mut nodes = Vec::new();
        let mut tell = |Told { place, outcome }: Told| {
            let error = outcome.err().map(|fault| fault.to_string());
            nodes.push(self.reconfigured(&place, error.as_deref()));
        };
        every::set_timeout(&view, &self.access, ms, &mut tell).await;
        Ok(self.sum_up_timeouts(&nodes))
    }

    pub(super) async fn set_timeout_via(&self, proxy: &mut Control) -> Outcome {
        let ms = self.timeout(0)?.to_string();
        self.out.info(RECONFIGURING);
        let words = [b"PROXY", &b"CLUSTER"[..], b"SETTIMEOUT", ms.as_bytes()];
        let reply = proxy.call(&words).await.map_err(|error| self.no_proxy(&error))?;
        // `ok`, whether it is, `nodes`, and for each of them `address` and `error` with their values.
        let rows = value::array(&reply).and_then(|fields| value::array(fields.get(3)?));
        let nodes = rows.unwrap_or_default().iter().filter_map(value::array).map(|row| {
            let [place, error] = [1, 3].map(|at| row.get(at).and_then(value::text));
            self.reconfigured(place.unwrap_or_default(), error)
        });
        Ok(self.sum_up_timeouts(&nodes.collect::<Vec<_>>()))
    }

    fn timeout(&self, at: usize) -> Outcome<u64> {
        let ms = self.arg(at)?;
        let ms: u64 = self
            .flag(ms.parse().map_err(|_| format!("[ERR] {ms:?} is no number of milliseconds")))?;
        if ms < every::SHORTEST_TIMEOUT_MS {
            let text = "Setting a node timeout of less than 100 milliseconds is a bad idea.";
            return Err(self.out.complain(Exit::Usage, text));
        }
        Ok(ms)
    }

    fn reconfigured(&self, place: &str, error: Option<&str>) -> Json {
        match error {
            None => self.out.warning(&format!("*** New timeout set for {place}")),
            Some(error) => {
                self.out.error(&format!("ERR setting node-timeout for {place}: {error}"));
            }
        }
        json!({ "node": place, "ok": error.is_none(), "error": error })
    }

    fn sum_up_timeouts(&self, nodes: &[Json]) -> Exit {
        let done = nodes.iter().filter(|node| node["ok"] == true).count();
        let failed = nodes.len() - done;
        self.out.info(&format!(">>> New node timeout set. {done} OK, {failed} ERR."));
        self.sum_up("nodes", nodes)
    }

    fn sum_up(&self, name: &str, rows: &[Json]) -> Exit {
        let (all, failed) = (rows.len(), rows.iter().filter(|row| row["ok"] != true).count());
        self.out.answer(&json!({ "ok": failed == 0, name: rows }));
        match failed {
            0 => Exit::Success,
            _ if failed == all => Exit::Failure,
            _ => Exit::Partial,
        }
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
