//! `--via host:port`: what a line wants is done by a running proxy, as a job of its admin port, and shown as if it were done
//! here. Words of the line become words of that port.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::Job;
use super::grammar::Line;
use super::out::{Exit, Outcome};
use crate::backend::control::{Control, ControlError};
use crate::manage::import::ImportOptions;
use crate::manage::uri;
use crate::resp::value::{self, Value};

/// How often a job is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Flags of all jobs, and what they are called there.
const COMMON: &[(&str, &str)] = &[
    ("method", "METHOD"),
    ("pipeline", "BATCH"),
    ("max-block-ms", "MAXBLOCKMS"),
    ("parallel", "PARALLEL"),
    ("rate", "RATE"),
    ("big-keys", "BIGKEYS"),
];
/// Codes of errors that say that the cluster is not so that it could be done.
const REFUSALS: &[&str] =
    &["JOBRUNNING", "NOTEMPTY", "OPENSLOTS", "DISAGREE", "PRECONDITION", "NEEDFORCE", "CONFLICT"];

type Fields = BTreeMap<String, String>;

/// What a line says, in words of the admin port.
struct Words<'l> {
    line: &'l Line,
    said: Vec<String>,
}

impl<'l> Words<'l> {
    fn of(line: &'l Line, source: Option<&ImportOptions>) -> Result<Vec<String>, String> {
        let mut words = Self { line, said: Vec::new() };
        words.say(&["PROXY", "CLUSTER"]);
        match line.verb.name {
            "create" => words.create()?,
            "add-node" => words.add_node()?,
            "del-node" => words.del_node()?,
            "reshard" => words.reshard()?,
            "rebalance" => words.rebalance()?,
            "failover" => words.failover()?,
            "import" => words.import(source),
            "backup" => words.say(&["BACKUP", line.arg(0)?]),
            _ => words.fix(),
        }
        COMMON.iter().try_for_each(|(flag, word)| words.value(flag, word))?;
        Ok(words.said)
    }

    fn say(&mut self, words: &[&str]) {
        self.said.extend(words.iter().map(|word| (*word).to_owned()));
    }

    /// A flag's value behind a word, if the flag is given.
    fn value(&mut self, flag: &str, word: &str) -> Result<(), String> {
        if let Some(value) = self.line.value(flag)? {
            self.say(&[word, value]);
        }
        Ok(())
    }

    /// A word, if a flag is given.
    fn flag(&mut self, flag: &str, words: &[&str]) {
        if self.line.has(flag) {
            self.say(words);
        }
    }

    fn create(&mut self) -> Result<(), String> {
        self.say(&["CREATE"]);
        for at in 0..self.line.args.len() {
            self.say(&[self.line.arg(at)?]);
        }
        for pair in self.line.values("zones")? {
            self.say(&["ZONES", pair]);
        }
        self.value("replicas", "REPLICAS")
    }

    /// The line has never meant more than that it joins; `rebalance` gives it slots.
    fn add_node(&mut self) -> Result<(), String> {
        self.say(&["ADDNODE", self.line.arg(0)?, "REBALANCE", "no"]);
        self.flag("slave", &["REPLICA"]);
        self.value("master-id", "REPLICAOF")
    }

    fn del_node(&mut self) -> Result<(), String> {
        let strategies = [("drain", "drain"), ("promote", "promote")];
        let given = strategies.into_iter().find(|(flag, _)| self.line.has(flag));
        let strategy = given.map_or("forget", |(_, strategy)| strategy);
        self.say(&["DELNODE", self.line.arg(0)?, "STRATEGY", strategy]);
        self.flag("force", &["FORCE", "few-primaries,no-replicas"]);
        Ok(())
    }

    fn reshard(&mut self) -> Result<(), String> {
        self.say(&["RESHARD"]);
        for (flag, word) in [("slots", "SLOTS"), ("from", "FROM"), ("to", "TO")] {
            if self.line.value(flag)?.is_none() {
                return Err(format!("[ERR] --via asks no questions: --cluster-{flag} is missing"));
            }
            self.value(flag, word)?;
        }
        Ok(())
    }

    fn rebalance(&mut self) -> Result<(), String> {
        self.say(&["REBALANCE"]);
        for pair in self.line.values("weight")? {
            self.say(&["WEIGHT", pair]);
        }
        self.flag("use-empty-masters", &["USEEMPTY"]);
        self.value("threshold", "THRESHOLD")
    }

    fn failover(&mut self) -> Result<(), String> {
        self.say(&["FAILOVER", self.line.arg(0)?]);
        self.value("to", "TO")?;
        self.flag("force", &["FORCE"]);
        self.flag("takeover", &["TAKEOVER", "FORCE", "no-majority"]);
        Ok(())
    }

    /// With the password, which the proxy keeps to itself.
    fn import(&mut self, source: Option<&ImportOptions>) {
        let Some(ImportOptions { source, credentials, .. }) = source else { return };
        let who = credentials.as_ref().map_or_else(String::new, |known| {
            let user = known.username.as_deref().unwrap_or_default();
            format!("{}:{}@", uri::encoded(user), uri::encoded(&known.password))
        });
        self.say(&["IMPORT", "FROM", &format!("redis://{who}{source}")]);
        self.flag("copy", &["COPY"]);
        self.flag("replace", &["REPLACE"]);
    }

    fn fix(&mut self) {
        self.say(&["FIX"]);
        self.flag("accept-risk", &["APPLY", "confirm"]);
        self.flag("accept-data-loss", &["APPLY", "all"]);
    }
}

impl Job<'_> {
    /// Has a proxy do it.
    pub(super) async fn via(&self, proxy: &str) -> Outcome {
        let address = self.address(proxy)?;
        let mut admin = self.access.open(&address).await.map_err(|error| self.no_proxy(&error))?;
        match self.line.verb.name {
            "call" => self.call_via(&mut admin).await,
            "set-timeout" => self.set_timeout_via(&mut admin).await,
            _ => self.order(&mut admin).await,
        }
    }

    /// Has it done as a job.
    async fn order(&self, admin: &mut Control) -> Outcome {
        if self.line.has("from-tls") {
            let text = "[ERR] --from-tls: a proxy takes no keys in by TLS";
            return Err(self.out.complain(Exit::Usage, text));
        }
        let is_import = self.line.verb.name == "import";
        let source = if is_import { Some(self.import_options()?) } else { None };
        let words = self.flag(Words::of(self.line, source.as_ref()))?;
        let dry: Vec<String> = words.iter().cloned().chain(["DRYRUN".to_owned()]).collect();
        let plan = self.ask_proxy(admin, &dry).await?;
        let plan: Json =
            value::text(&plan).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        self.show_plan(&plan);
        if self.line.has("dry-run") {
            self.out.answer(&json!({ "ok": true, "plan": plan }));
            return Ok(Exit::Success);
        }
        let is_harmless = ["import", "backup"].contains(&self.line.verb.name);
        let question = "Do you want the proxy to do this? (type 'yes' to accept): ";
        if !self.out.confirm(question, is_harmless || self.says_yes())? {
            return Ok(Exit::Failure);
        }
        let id = self.ask_proxy(admin, &words).await?;
        let id = value::text(&id).unwrap_or_default().to_owned();
        self.out.info(&format!(">>> The proxy does it as job {id}."));
        let job = self.watch(admin, &id).await?;
        Ok(self.told(&id, &job))
    }

    fn show_plan(&self, plan: &Json) {
        let list = |name: &str| plan[name].as_array().cloned().unwrap_or_default();
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        self.out.info(">>> The proxy's plan:");
        for step in list("steps") {
            self.out.plain(&format!("    {step}"));
        }
        for part in list("moves") {
            let [from, to, slots] = ["from", "to", "slots"].map(|name| text(&part[name]));
            self.out.plain(&format!("    slots {slots} go from {from} to {to}"));
        }
        for repair in list("repairs") {
            self.out.plain(&format!("    {repair}"));
        }
        if plan["then_removed"] == true {
            self.out.plain("    then the node is removed");
        }
    }

    /// Shows how a job goes until it is over. Told to stop, the job is: first behind the slots on their way, then at once.
    async fn watch(&self, admin: &mut Control, id: &str) -> Outcome<Fields> {
        let (bar, mut hold, mut asked) = (self.bar(), self.hold()?, 0);
        loop {
            let job = self.status(admin, id).await?;
            show_progress(&bar, &job);
            if ["completed", "cancelled", "failed"].contains(&field(&job, "state")) {
                bar.finish_and_clear();
                return Ok(job);
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = hold.told() => {
                    asked += 1;
                    let cancel: &[&str] = &["PROXY", "JOB", "CANCEL", id, "NOW"];
                    let cancel = if asked == 1 { &cancel[..4] } else { cancel };
                    // It may have ended by itself.
                    let _ = admin.call(&cancel.iter().map(|word| word.as_bytes()).collect::<Vec<_>>()).await;
                }
            }
        }
    }

    async fn status(&self, admin: &mut Control, id: &str) -> Outcome<Fields> {
        let words = ["PROXY", "JOB", "STATUS", id].map(str::to_owned);
        let reply = self.ask_proxy(admin, &words).await?;
        let flat = value::array(&reply).unwrap_or_default();
        let text = |value: &Value| match value {
            Value::Integer(number) => number.to_string(),
            value => value::text(value).unwrap_or_default().to_owned(),
        };
        Ok(flat.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect())
    }

    async fn ask_proxy(&self, admin: &mut Control, words: &[String]) -> Outcome<Value> {
        let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        admin.call(&words).await.map_err(|error| self.no_proxy(&error))
    }

    pub(super) fn no_proxy(&self, error: &ControlError) -> Exit {
        let Some(said) = error.reply() else {
            let text = format!("[ERR] the proxy: {error}. --via is the address of its admin port.");
            return self.out.fail(Exit::Failure, &text);
        };
        let exit = match said.split(' ').next().unwrap_or_default() {
            "BADARG" | "NOTFOUND" => Exit::Usage,
            code if REFUSALS.contains(&code) => Exit::Refused,
            _ => Exit::Failure,
        };
        self.out.fail(exit, &format!("[ERR] the proxy: {said}"))
    }

    fn told(&self, id: &str, job: &Fields) -> Exit {
        let (state, error) = (field(job, "state"), field(job, "last_error"));
        if state == "completed" {
            let done = match field(job, "kind") {
                "import" => format!(": {} keys came in", field(job, "keys_moved")),
                "backup" => String::new(),
                _ => format!(": {} slots moved", field(job, "slots_done")),
            };
            self.out.good(&format!("[OK] Job {id} is completed{done}."));
            self.out.answer(&json!({ "ok": true, "job": job }));
            return Exit::Success;
        }
        let is_resumable = field(job, "resumable") == "yes";
        let advice = if is_resumable {
            format!(" Go on with PROXY JOB RESUME {id}.")
        } else {
            String::new()
        };
        let exit = if is_resumable { Exit::Resumable } else { Exit::Failure };
        self.out.error(&format!("[ERR] Job {id} is {state}. {error}{advice}"));
        self.out.answer(&json!({ "ok": false, "job": job }));
        exit
    }
}

fn field<'f>(job: &'f Fields, name: &str) -> &'f str {
    job.get(name).map_or("", String::as_str)
}

fn show_progress(bar: &ProgressBar, job: &Fields) {
    let number = |name: &str| field(job, name).parse::<u64>().unwrap_or(0);
    let (done, total) = (number("slots_done"), number("slots_total"));
    bar.set_position((done * 1000).checked_div(total).unwrap_or(0));
    bar.set_message(format!(
        "{}: {done} of {total} slots, {} keys, {} keys/s",
        field(job, "phase"),
        number("keys_moved"),
        number("rate_keys_s")
    ));
}
