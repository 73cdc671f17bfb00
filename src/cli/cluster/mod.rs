//! `slotway cluster …`: what redis-trib.rb and `redis-cli --cluster` understand, and the lines they answer.
//!
//! ```text
//!  grammar   which subcommands and flags there are                                  (pure)
//!  reach     how nodes are reached: passwords, TLS
//!  out       lines, colours, questions, exit codes
//!  show      nodes and findings as lines
//!  carry     moving slots with a terminal in front of it
//!  jobs      those that were begun, by their journals
//!  via       the same, done by a running proxy
//!  create, members, every, …   one file for each family of subcommands
//! ```
//! Everything that is done to a cluster is done by `manage`; here it is asked for, shown, and turned into an exit code.

mod carry;
mod create;
mod data;
mod every;
mod fix;
mod grammar;
mod jobs;
mod members;
mod moves;
mod out;
mod reach;
mod show;
mod via;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::backend::control::ControlError;
use crate::cluster::{Address, NodeId};
use crate::manage::access::Access;
use crate::manage::apply::{ApplyError, Crew, Event};
use crate::manage::check;
use crate::manage::plan::Step;
use crate::manage::strays;
use crate::manage::view::{ClusterView, ViewError};
use grammar::{FLAGS, Line, VERBS};
use out::{Exit, Out, Outcome, Style};

/// How long a step may take to reach all nodes unless told otherwise: longer than the minute for which nodes do not take back one
/// that they were told to forget.
const PATIENCE: Duration = Duration::from_secs(75);

/// Does what the words say.
pub async fn run(words: Vec<OsString>) -> ExitCode {
    let line = match Line::parse(words) {
        Ok(line) => line,
        Err(complaint) => {
            let out = Out { style: Style::Redis, json: false, color: false, verbose: false };
            return ExitCode::from(out.complain(Exit::Usage, &complaint) as u8);
        }
    };
    let exit = match Job::new(&line) {
        Ok(job) => job.run().await.unwrap_or_else(|exit| exit),
        Err((out, complaint)) => out.complain(Exit::Usage, &complaint),
    };
    let exit = match exit {
        // redis-cli knows success and failure, and takes answers of some of the nodes for success.
        Exit::Success | Exit::Failure => exit,
        Exit::Partial if line.has("exit-compat") => Exit::Success,
        _ if line.has("exit-compat") => Exit::Failure,
        _ => exit,
    };
    ExitCode::from(exit as u8)
}

/// A line with what all subcommands need.
struct Job<'a> {
    line: &'a Line,
    out: Out,
    access: Access,
    patience: Duration,
}

impl<'a> Job<'a> {
    fn new(line: &'a Line) -> Result<Self, (Out, String)> {
        let color = line.value("color").ok().flatten().unwrap_or("auto");
        let out = Out {
            style: Style::default(),
            json: line.has("json"),
            color: out::has_color(color),
            verbose: line.has("verbose"),
        };
        match (style(line), reach::access(line), seconds(line, "wait", PATIENCE)) {
            (Ok(style), Ok(access), Ok(patience)) => {
                Ok(Self { line, out: Out { style, ..out }, access, patience })
            }
            (Err(complaint), ..) | (_, Err(complaint), _) | (.., Err(complaint)) => {
                Err((out, complaint))
            }
        }
    }

    async fn run(&self) -> Outcome {
        if let Some(proxy) = self.flag(self.line.value("via"))? {
            return self.via(proxy).await;
        }
        match self.line.verb.name {
            "create" => self.create().await,
            "check" => self.check().await,
            "info" => self.info().await,
            "nodes" => self.nodes().await,
            "add-node" => self.add_node().await,
            "del-node" => self.del_node().await,
            "failover" => self.failover().await,
            "fix" => self.fix().await,
            "reshard" => self.reshard().await,
            "rebalance" => self.rebalance().await,
            "resume" => self.resume().await,
            "jobs" => self.jobs(),
            "abandon" => self.abandon(),
            "import" => self.import().await,
            "backup" => self.backup().await,
            "call" => self.call().await,
            "set-timeout" => self.set_timeout().await,
            _ => Ok(self.help()),
        }
    }

    async fn check(&self) -> Outcome {
        let view = self.gather(&self.entry()?).await?;
        let is_whole = self.is_whole(&view).await?;
        let findings = check::findings(&view);
        self.out.answer(
            &json!({ "ok": is_whole, "findings": findings, "cluster": show::as_json(&view) }),
        );
        Ok(if is_whole { Exit::Success } else { Exit::Failure })
    }

    /// Shows all that is to be seen of a cluster; answers whether it is whole.
    async fn is_whole(&self, view: &ClusterView) -> Outcome<bool> {
        if self.out.style != Style::Trib {
            show::info(&self.out, view);
        }
        let is_whole = show::check(&self.out, view, false);
        if !self.line.has("search-multiple-owners") {
            return Ok(is_whole);
        }
        Ok(self.has_one_owner_each(view).await? && is_whole)
    }

    /// Whether no slot has keys on two primaries.
    async fn has_one_owner_each(&self, view: &ClusterView) -> Outcome<bool> {
        self.out.info(">>> Check for multiple slot owners...");
        let claims = strays::claims(view, &self.access).await;
        let claims =
            claims.map_err(|error| self.out.fail(Exit::Failure, &format!("[ERR] {error}")))?;
        for (slot, by) in &claims {
            self.out.error(&format!("[WARNING] Slot {slot} has {} owners:", by.len()));
            for node in by {
                self.out.error(&format!("    {node}"));
            }
        }
        if claims.is_empty() {
            self.out.good("[OK] No multiple owners found.");
        }
        Ok(claims.is_empty())
    }

    async fn info(&self) -> Outcome {
        let view = self.gather(&self.entry()?).await?;
        show::info(&self.out, &view);
        self.out.answer(&show::as_json(&view));
        Ok(Exit::Success)
    }

    async fn nodes(&self) -> Outcome {
        let view = self.gather(&self.entry()?).await?;
        show::nodes(&self.out, &view);
        self.out.answer(&show::as_json(&view));
        Ok(Exit::Success)
    }

    fn help(&self) -> Exit {
        self.out.plain("Usage: slotway cluster <subcommand> [arguments] [options]\n\nSubcommands:");
        for verb in VERBS {
            self.out
                .plain(&format!("  {:12} {}\n               {}", verb.name, verb.args, verb.help));
        }
        self.out.plain("\nOptions (each also as --cluster-…):");
        for flag in FLAGS {
            let names: Vec<String> = flag.names.iter().map(|name| dashed(name)).collect();
            let value = flag.value.map(|value| format!(" <{value}>")).unwrap_or_default();
            let verbs = if flag.verbs.is_empty() {
                String::new()
            } else {
                format!(" ({})", flag.verbs.join(", "))
            };
            self.out.plain(&format!(
                "  {}{value}\n               {}{verbs}",
                names.join(", "),
                flag.help
            ));
        }
        self.out.plain(
            "\nExit codes: 0 done; 1 failed, or not whole; 2 wrong usage; 3 refused, nothing was changed;\n\
             4 interrupted, can be resumed; 5 done on some nodes only, or with something to be looked at.\n\
             --exit-compat exits with 0 instead of 5, and with 1 instead of 2, 3 and 4.",
        );
        Exit::Success
    }

    /// The node that leads to the cluster: `host:port`, or host and port as two words.
    fn entry(&self) -> Outcome<Address> {
        let (host, port) = (self.arg(0)?, self.arg(1)?);
        if port.is_empty() { self.address(host) } else { self.address(&format!("{host}:{port}")) }
    }

    /// Whether all questions are answered beforehand.
    fn says_yes(&self) -> bool {
        let is_set = |name: &&str| std::env::var(name).is_ok_and(|value| value == "1");
        let names = ["REDISCLI_CLUSTER_YES", "VALKEYCLI_CLUSTER_YES"];
        self.line.has("yes") || names.iter().any(is_set)
    }

    fn arg(&self, at: usize) -> Outcome<&str> {
        self.line.arg(at).map_err(|complaint| self.out.complain(Exit::Usage, &complaint))
    }

    /// `host:port[@busport]`.
    fn address(&self, text: &str) -> Outcome<Address> {
        let place = text.split_once('@').map_or(text, |(place, _)| place);
        Address::parse(place, None).filter(|address| !address.host().is_empty()).ok_or_else(|| {
            let text = "[ERR] Invalid arguments: you need to pass either a valid address (ie. 120.0.0.1:7000) or \
                        space separated IP and port (ie. 120.0.0.1 7000)";
            self.out.complain(Exit::Usage, text)
        })
    }

    fn flag<T>(&self, value: Result<T, String>) -> Outcome<T> {
        value.map_err(|complaint| self.out.complain(Exit::Usage, &complaint))
    }

    async fn gather(&self, entry: &Address) -> Outcome<ClusterView> {
        ClusterView::gather(entry, &self.access)
            .await
            .map_err(|error| self.unreachable(entry, &error))
    }

    /// Says why a node could not be asked.
    fn unreachable(&self, address: &Address, error: &ViewError) -> Exit {
        match error {
            ViewError::NotCluster(_) => self.out.fail(
                Exit::Failure,
                &format!("[ERR] Node {address} is not configured as a cluster node."),
            ),
            ViewError::Control(ControlError::Reply(_, text)) => {
                self.out.fail(Exit::Failure, &format!("Node {address} replied with error:\n{text}"))
            }
            ViewError::Control(ControlError::Io(_, cause)) => {
                let advice = reach::advice_on(cause, &self.access);
                self.unconnected(address, &format!("{cause}{advice}"))
            }
            ViewError::Control(ControlError::Tls(_, trouble)) => {
                let advice = reach::advice(trouble);
                self.unconnected(address, &format!("TLS Error: {trouble}{advice}"))
            }
            ViewError::Control(error) => {
                self.out.complain(Exit::Failure, &format!("[ERR] {error}"))
            }
            ViewError::Strange(..) => self.out.fail(Exit::Failure, &format!("[ERR] {error}")),
        }
    }

    fn unconnected(&self, address: &Address, why: &str) -> Exit {
        let server = if self.out.style == Style::Valkey { "Valkey" } else { "Redis" };
        let text = format!("Could not connect to {server} at {address}: {why}");
        self.out.complain(Exit::Failure, &text)
    }

    fn crew(&self, view: &ClusterView) -> Crew {
        Crew::new(view, &self.access, self.patience)
    }

    /// Shows a plan to machines; to people its lines have been shown.
    fn answer_plan(&self, steps: &[Step]) -> Exit {
        self.out.answer(&json!({ "ok": true, "plan": steps }));
        if !self.out.json {
            for step in steps {
                self.out.plain(&serde_json::to_string(step).expect("our values can be written"));
            }
        }
        Exit::Success
    }

    /// Says why a step failed.
    fn failed(&self, error: &ApplyError) -> Exit {
        if let ApplyError::Late { unlinked, .. } = error {
            self.unlinked(unlinked);
        }
        self.out.fail(Exit::Failure, &format!("[ERR] {error}"))
    }

    fn unlinked(&self, pairs: &[(Address, Address, Option<u16>)]) {
        let mut by_node: BTreeMap<(&Address, Option<u16>), Vec<&Address>> = BTreeMap::new();
        for (from, to, bus) in pairs {
            by_node.entry((to, *bus)).or_default().push(from);
        }
        if by_node.is_empty() {
            return;
        }
        self.out.error(&format!("Warning: {} node(s) may be unreachable", by_node.len()));
        for ((node, bus), from) in by_node {
            match bus {
                Some(bus) => self.out.error(&format!(
                    " - The port {bus} of node {} may be unreachable from:",
                    node.host()
                )),
                None => self.out.error(&format!(" - Node {node} may be unreachable from:")),
            }
            for from in from {
                self.out.error(&format!("   {from}"));
            }
        }
        self.out.error(
            "Cluster bus ports must be reachable by every node.\n\
             Remember that cluster bus ports are different from standard instance ports.",
        );
    }

    /// Waits until all members say the same, with a dot for each second.
    async fn settle(&self, crew: &mut Crew, gone: Option<&NodeId>) -> Outcome<()> {
        let settled = crew.settle(gone, &mut |event| self.tell(&event)).await;
        settled.map_err(|error| self.failed(&error))
    }

    /// What is shown of an event that no subcommand shows otherwise.
    fn tell(&self, event: &Event<'_>) {
        match event {
            Event::Note(text) => self.out.warning(&format!(">>> {text}")),
            Event::Waiting(what) if self.out.verbose => {
                self.out.plain(&format!("    waiting: {what}"));
            }
            Event::Waiting(_) | Event::Step(_) => {}
        }
    }
}

fn dashed(name: &str) -> String {
    if name.len() == 1 { format!("-{name}") } else { format!("--{name}") }
}

fn style(line: &Line) -> Result<Style, String> {
    match line.value("style")? {
        None | Some("redis") => Ok(Style::Redis),
        Some("trib") => Ok(Style::Trib),
        Some("valkey") => Ok(Style::Valkey),
        Some(other) => Err(format!("--style: {other:?} is neither redis, trib nor valkey")),
    }
}

fn seconds(line: &Line, name: &str, usual: Duration) -> Result<Duration, String> {
    let seconds: Option<f64> = line.number(name)?;
    let duration = seconds.map(Duration::try_from_secs_f64).transpose();
    duration.map(|given| given.unwrap_or(usual)).map_err(|error| format!("--{name}: {error}"))
}
