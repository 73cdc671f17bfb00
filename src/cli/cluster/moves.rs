//! `slotway cluster reshard` and `rebalance`: which slots are to go where, and the questions about it. `carry` moves them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;

use super::Job;
use super::out::{Exit, Outcome};
use super::show::{self, Shown};
use crate::cluster::{Address, NodeId, SLOTS, Slots};
use crate::manage::check::{self, Finding};
use crate::manage::plan::rebalance::{self, Bearer, Verdict};
use crate::manage::plan::{Move, reshard};
use crate::manage::view::{ClusterView, NodeView};

/// How far from its share a primary may be unless told otherwise, in percent.
const THRESHOLD: f64 = 2.0;
/// How long nodes may take to hear of what another tool has just done, and how often they are asked again.
const LAG: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);

/// A plan on its way through a file.
#[derive(Debug, Deserialize, Serialize)]
struct PlanFile {
    /// Who owned what when it was made.
    owners: String,
    moves: Vec<Move>,
}

impl Job<'_> {
    pub(super) async fn reshard(&self) -> Outcome {
        self.ready_state()?;
        let view = self.whole_cluster().await?;
        if !show::check(&self.out, &view, false) {
            let text = "*** Please fix your cluster problems before resharding";
            self.out.complain(Exit::Refused, text);
            self.advise(&view);
            return Err(Exit::Refused);
        }
        if let Some(moves) = self.plan_in(&view)? {
            return self.carry(&view, moves, None).await;
        }
        let count = self.count()?;
        let target = self.target(&view)?;
        let sources = self.sources(&view, target)?;
        self.out.plain(&format!("\nReady to move {count} slots.\n  Source nodes:"));
        for source in &sources {
            self.out.plain(&Shown::of(&view, source).lines(self.out.style, 4));
        }
        self.out.plain("  Destination node:");
        self.out.plain(&Shown::of(&view, target).lines(self.out.style, 4));
        let piles: Vec<(NodeId, Slots)> =
            sources.iter().map(|node| (node.own.id.clone(), node.own.slots.clone())).collect();
        let moves = reshard::plan(&piles, &target.own.id, count);
        if moves.is_empty() {
            return Err(self.out.fail(Exit::Refused, "*** The source nodes own no slots."));
        }
        self.out.plain("  Resharding plan:");
        for Move { from, slots, .. } in &moves {
            slots
                .iter()
                .for_each(|slot| self.out.plain(&format!("    Moving slot {slot} from {from}")));
        }
        let question = "Do you want to proceed with the proposed reshard plan (yes/no)? ";
        self.carry(&view, moves, Some(question)).await
    }

    /// The cluster, once its nodes have heard of what was changed a moment ago.
    async fn whole_cluster(&self) -> Outcome<ClusterView> {
        let entry = self.entry()?;
        let start = Instant::now();
        loop {
            let view = self.gather(&entry).await?;
            let faults: Vec<Finding> =
                check::findings(&view).into_iter().filter(Finding::is_fault).collect();
            let may_pass = |fault: &Finding| {
                matches!(fault, Finding::Disagreement { .. } | Finding::Claimed { .. })
            };
            if faults.is_empty() || !faults.iter().all(may_pass) || start.elapsed() > LAG {
                return Ok(view);
            }
            sleep(LOOK).await;
        }
    }

    /// What helps against open slots, if we have left them.
    fn advise(&self, view: &ClusterView) {
        let advice = self.cut_off_here(view);
        if let Some(advice) = advice {
            self.out.warning(&advice);
        }
    }

    fn count(&self) -> Outcome<usize> {
        let valid = |count: &i64| (1..=16384).contains(count);
        let given: Option<i64> = self.flag(self.line.number("slots"))?;
        if let Some(count) = given {
            let count = Some(count).filter(valid).and_then(|count| usize::try_from(count).ok());
            return count.ok_or_else(|| {
                self.out.complain(Exit::Usage, "[ERR] --cluster-slots must be from 1 to 16384")
            });
        }
        loop {
            let answer = self
                .out
                .ask(&format!("How many slots do you want to move (from 1 to {SLOTS})? "))?;
            let count =
                answer.parse().ok().filter(valid).and_then(|count| usize::try_from(count).ok());
            if let Some(count) = count {
                return Ok(count);
            }
        }
    }

    fn target<'v>(&self, view: &'v ClusterView) -> Outcome<&'v NodeView> {
        let id = match self.flag(self.line.value("to"))? {
            Some(id) => id.to_owned(),
            None => loop {
                let answer = self.out.ask("What is the receiving node ID? ")?;
                if !answer.is_empty() {
                    break answer;
                }
            },
        };
        self.primary(view, &id)
    }

    fn primary<'v>(&self, view: &'v ClusterView, id: &str) -> Outcome<&'v NodeView> {
        let node = view.primaries().find(|node| *node.own.id.0 == *id.to_ascii_lowercase());
        node.ok_or_else(|| {
            let word = self.out.style.primary();
            let text = format!(
                "*** The specified node ({id}) is not known or not a {word}, please retry."
            );
            self.out.fail(Exit::Refused, &text)
        })
    }

    /// Who gives slots; never the one that takes them.
    fn sources<'v>(&self, view: &'v ClusterView, target: &NodeView) -> Outcome<Vec<&'v NodeView>> {
        let names = match self.flag(self.line.value("from"))? {
            Some(given) => {
                given.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect()
            }
            None => self.ask_sources(view, target)?,
        };
        let is_target = |node: &&NodeView| node.own.id == target.own.id;
        let mut sources: Vec<&NodeView> = Vec::new();
        for name in &names {
            if name == "all" {
                sources = view.primaries().filter(|node| !is_target(node)).collect();
                break;
            }
            let node = self.primary(view, name)?;
            if is_target(&node) {
                self.out.error("*** It is not possible to use the target node as source node.");
            } else if !sources.iter().any(|have| have.own.id == node.own.id) {
                sources.push(node);
            }
        }
        if sources.is_empty() {
            return Err(self
                .out
                .complain(Exit::Refused, "*** No source nodes given, operation aborted."));
        }
        Ok(sources)
    }

    fn ask_sources(&self, view: &ClusterView, target: &NodeView) -> Outcome<Vec<String>> {
        self.out.plain("Please enter all the source node IDs.");
        self.out.plain("  Type 'all' to use all the nodes as source nodes for the hash slots.");
        self.out.plain("  Type 'done' once you entered all the source nodes IDs.");
        let mut names = Vec::new();
        loop {
            let name = self.out.ask(&format!("Source node #{}: ", names.len() + 1))?;
            match name.as_str() {
                "" => {}
                "done" => return Ok(names),
                "all" => return Ok(vec![name]),
                id if self.primary(view, id)?.own.id == target.own.id => {
                    self.out.error("*** It is not possible to use the target node as source node.");
                }
                _ => names.push(name),
            }
        }
    }

    pub(super) async fn rebalance(&self) -> Outcome {
        self.ready_state()?;
        let view = self.whole_cluster().await?;
        let weights = self.weights(&view)?;
        if !show::check(&self.out, &view, true) {
            self.out.fail(Exit::Refused, "*** Please fix your cluster problems before rebalancing");
            self.advise(&view);
            return Err(Exit::Refused);
        }
        if let Some(moves) = self.plan_in(&view)? {
            return self.carry(&view, moves, None).await;
        }
        let also_empty = self.line.has("use-empty-masters");
        let takes_part = |node: &&NodeView| also_empty || !node.own.slots.is_empty();
        let bearer = |node: &NodeView| Bearer {
            id: node.own.id.clone(),
            slots: node.own.slots.clone(),
            weight: weights.get(&node.own.id).copied().unwrap_or(1.0),
        };
        let bearers: Vec<Bearer> = view.primaries().filter(takes_part).map(bearer).collect();
        let threshold = self.flag(self.line.number("threshold"))?.unwrap_or(THRESHOLD);
        let verdict = rebalance::plan(&bearers, threshold);
        let moves = match verdict
            .map_err(|error| self.out.complain(Exit::Usage, &format!("*** {error}")))?
        {
            Verdict::Balanced => {
                let text = format!(
                    "*** No rebalancing needed! All nodes are within the {threshold:.2}% threshold."
                );
                self.out.warning(&text);
                self.out.answer(&json!({ "ok": true, "moves": [] }));
                return Ok(Exit::Success);
            }
            Verdict::Moves(moves) => moves,
        };
        let total: f64 = bearers.iter().map(|bearer| bearer.weight).sum();
        self.out.info(&format!(
            ">>> Rebalancing across {} nodes. Total weight = {total:.2}",
            bearers.len()
        ));
        self.carry(&view, moves, None).await
    }

    /// `id=weight`; the name may be cut short as long as it is clear who is meant.
    fn weights(&self, view: &ClusterView) -> Outcome<BTreeMap<NodeId, f64>> {
        let mut weights = BTreeMap::new();
        for pair in self.flag(self.line.values("weight"))? {
            let invalid = || self.out.complain(Exit::Usage, &format!("*** invalid input {pair}"));
            let (name, weight) = pair.split_once('=').ok_or_else(invalid)?;
            let weight: f64 = weight.parse().map_err(|_| invalid())?;
            let name = name.to_ascii_lowercase();
            let mut meant = view
                .primaries()
                .filter(|node| !name.is_empty() && node.own.id.0.starts_with(&name));
            let node = meant.next().ok_or_else(|| {
                let text = format!("*** No such {} node {name}", self.out.style.primary());
                self.out.fail(Exit::Refused, &text)
            })?;
            if meant.next().is_some() {
                return Err(self
                    .out
                    .fail(Exit::Refused, &format!("*** Several nodes begin with {name}")));
            }
            weights.insert(node.own.id.clone(), weight);
        }
        Ok(weights)
    }

    /// The moves of a plan that was written earlier, if one is to be used; the owners must be the same still.
    fn plan_in(&self, view: &ClusterView) -> Outcome<Option<Vec<Move>>> {
        let Some(path) = self.flag(self.line.value("plan-in"))? else { return Ok(None) };
        let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let plan =
            read.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
        let plan: PlanFile = plan
            .map_err(|error| self.out.complain(Exit::Usage, &format!("[ERR] {path}: {error}")))?;
        if plan.owners != view.nodes[0].signature() {
            let text =
                format!("[ERR] {path}: the owners of slots have changed since this plan was made");
            return Err(self.out.fail(Exit::Refused, &text));
        }
        Ok(Some(plan.moves))
    }

    /// Writes the moves to a file, if that is what is wanted instead of doing them.
    pub(super) fn plan_out(&self, view: &ClusterView, moves: &[Move]) -> Outcome<bool> {
        let Some(path) = self.flag(self.line.value("plan-out"))? else { return Ok(false) };
        let plan = PlanFile { owners: view.nodes[0].signature(), moves: moves.to_vec() };
        let text = serde_json::to_string_pretty(&plan).expect("our values can be written");
        let written = std::fs::write(Path::new(path), text + "\n");
        written
            .map_err(|error| self.out.complain(Exit::Failure, &format!("[ERR] {path}: {error}")))?;
        Ok(true)
    }
}

/// Where a node is, or its name.
pub(super) fn place(view: &ClusterView, id: &NodeId) -> String {
    let address: Option<&Address> = view.node(id).map(|node| &node.address);
    address.map_or_else(|| id.to_string(), ToString::to_string)
}
