//! `slotway cluster add-node`, `del-node` and `failover`.

use serde_json::json;

use super::out::{Exit, Outcome};
use super::{Job, show};
use crate::cluster::{Address, NodeId};
use crate::manage::apply::{Crew, Event};
use crate::manage::mover::Summary;
use crate::manage::plan::members::{self, Lack, MemberError, WayOut};
use crate::manage::plan::{Consent, Step, rebalance};
use crate::manage::recruit::{Recruit, Unfit};
use crate::manage::view::{ClusterView, NodeView};

impl Job<'_> {
    pub(super) async fn add_node(&self) -> Outcome {
        let (new, entry) = (self.address(self.arg(0)?)?, self.address(self.arg(1)?)?);
        self.out.info(&format!(">>> Adding node {new} to cluster {entry}"));
        let view = self.gather(&entry).await?;
        if !show::check(&self.out, &view, false) {
            self.out.answer(&json!({ "ok": false, "error": "the cluster is not whole" }));
            return Err(Exit::Refused);
        }
        let recruit = Recruit::ask(&new, &self.access).await.map_err(|error| {
            self.out.error(&format!("[ERR] Sorry, can't connect to node {new}"));
            self.unreachable(&new, &error)
        })?;
        let primary = self.primary_of_new(&view, &recruit.view)?;
        let steps = self.steps_of_joining(&view, &recruit, primary)?;
        if self.line.has("dry-run") {
            return Ok(self.answer_plan(&steps));
        }
        if steps.is_empty() {
            self.out.good(&format!("[OK] Node {new} is already a member of the cluster."));
            self.out.answer(&json!({ "ok": true, "steps": [], "node": recruit.view.own.id }));
            return Ok(Exit::Success);
        }
        let mut crew = self.crew(&view);
        crew.enrol(&recruit.view);
        self.join(&mut crew, &steps, &view, &recruit.view).await?;
        self.settle(&mut crew, None).await?;
        self.out.good("[OK] New node added correctly.");
        self.out.answer(&json!({ "ok": true, "steps": steps, "node": recruit.view.own.id }));
        Ok(Exit::Success)
    }

    /// The primary that the new node is to follow, if it is to follow one.
    fn primary_of_new<'a>(
        &self,
        view: &'a ClusterView,
        new: &NodeView,
    ) -> Outcome<Option<&'a NodeView>> {
        let given = self.flag(self.line.value("master-id"))?;
        let word = self.out.style.primary();
        if !self.line.has("slave") {
            return match given {
                Some(_) => Err(self
                    .out
                    .complain(Exit::Usage, "[ERR] --cluster-master-id needs --cluster-slave")),
                None => Ok(None),
            };
        }
        let Some(id) = given else {
            let node = members::least_replicated(view, new);
            let node =
                node.ok_or_else(|| self.out.fail(Exit::Refused, "[ERR] no master owns any slots"))?;
            self.out.plain(&format!("Automatically selected {word} {}", node.address));
            return Ok(Some(node));
        };
        let node = members::named(view, id).and_then(|id| view.node(id));
        let node = node.ok_or_else(|| {
            self.out.fail(Exit::Refused, &format!("[ERR] No such {word} ID {id}"))
        })?;
        let Some(primary) = &node.own.primary else { return Ok(Some(node)) };
        self.out
            .warning(&format!(">>> {} is a replica itself; its {word} is taken.", node.address));
        let node = view.node(primary);
        node.map(Some).ok_or_else(|| {
            self.out.fail(Exit::Refused, &format!("[ERR] No such {word} ID {primary}"))
        })
    }

    /// What is still missing for the node to be the member it is to be; nothing if it is that already.
    fn steps_of_joining(
        &self,
        view: &ClusterView,
        recruit: &Recruit,
        primary: Option<&NodeView>,
    ) -> Outcome<Vec<Step>> {
        let new = &recruit.view;
        if view.node(&new.own.id).is_none()
            && let Some(fault) = recruit.unfit()
        {
            let equal_functions = matches!(fault, Unfit::Functions(_)) && primary.is_none();
            // A replica gets those of its primary; a primary may have been given them by a try that did not get further.
            if !equal_functions {
                self.say_unfit(&new.address, &fault);
                self.out
                    .answer(&json!({ "ok": false, "error": format!("{}: {fault}", new.address) }));
                return Err(Exit::Refused);
            }
        }
        members::join(view, new, primary)
            .map_err(|error| self.out.fail(Exit::Refused, &format!("[ERR] {error}")))
    }

    async fn join(
        &self,
        crew: &mut Crew,
        steps: &[Step],
        view: &ClusterView,
        new: &NodeView,
    ) -> Outcome<()> {
        let address = &new.address;
        let mut tell = |event: Event<'_>| match event {
            Event::Step(Step::CopyFunctions { .. }) => {
                self.out.info(">>> Getting functions from cluster");
                self.out.info(&format!(
                    ">>> Send FUNCTION LIST to {address} to verify there is no functions in it"
                ));
                self.out.info(&format!(">>> Send FUNCTION RESTORE to {address}"));
            }
            Event::Step(Step::Join { .. }) => {
                self.out.info(&format!(
                    ">>> Send CLUSTER MEET to node {address} to make it join the cluster."
                ));
            }
            Event::Step(Step::Replicate { primary, .. }) => {
                let primary = view
                    .node(primary)
                    .map_or_else(|| primary.to_string(), |node| node.address.to_string());
                self.out.info(&format!(">>> Configure node as replica of {primary}."));
            }
            event => self.tell(&event),
        };
        crew.apply(steps, &mut tell).await.map_err(|error| self.failed(&error))
    }

    pub(super) async fn del_node(&self) -> Outcome {
        let (entry, name) = (self.address(self.arg(0)?)?, self.arg(1)?);
        self.out.info(&format!(">>> Removing node {name} from cluster {entry}"));
        let way = self.way_out()?;
        if way == WayOut::Drained {
            self.ready_state()?;
        }
        let mut view = self.gather(&entry).await?;
        let lack = self.refuse_what_is_needed(&view, name, way)?;
        let drained = match way {
            WayOut::Drained => self.drain(&view, name).await?,
            WayOut::Plain | WayOut::Promoted => None,
        };
        let is_promoted = way == WayOut::Promoted && self.promote(&view, name).await?;
        if drained.is_some() || is_promoted {
            view = self.gather(&entry).await?;
        }
        let steps =
            members::remove(&view, name).map_err(|error| self.refuse(&view, name, &error))?;
        if self.line.has("dry-run") {
            return Ok(self.answer_plan(&steps));
        }
        let mut crew = self.crew(&view);
        self.leave(&mut crew, &steps, &view).await?;
        let id = members::named(&view, name).cloned();
        self.settle(&mut crew, id.as_ref()).await?;
        let missed: Vec<&Address> = view
            .absent
            .iter()
            .filter(|absent| Some(&absent.line.id) != id.as_ref())
            .filter_map(|absent| absent.line.address.as_ref())
            .collect();
        for address in &missed {
            let text = "It may need manual reconfiguration when it comes back online.";
            self.out.warning(&format!(">>> Skipping unreachable node {address}. {text}"));
        }
        let is_clean = drained.as_ref().is_none_or(Summary::is_clean);
        let is_partial = !missed.is_empty() || !crew.shortfalls.is_empty() || !is_clean;
        self.out
            .good(&format!("[OK] Node {} removed from the cluster.", name.to_ascii_lowercase()));
        self.out.answer(&json!({ "ok": !is_partial, "drained": drained, "steps": steps, "unreachable": missed, "failed": crew.shortfalls, "warnings": Vec::from_iter(lack.map(|lack| lack.to_string())) }));
        Ok(if is_partial { Exit::Partial } else { Exit::Success })
    }

    /// What is to become of the slots of a node that leaves.
    fn way_out(&self) -> Outcome<WayOut> {
        match (self.line.has("drain"), self.line.has("promote")) {
            (false, false) => Ok(WayOut::Plain),
            (true, false) => Ok(WayOut::Drained),
            (false, true) => Ok(WayOut::Promoted),
            (true, true) => {
                let text = "[ERR] either --drain or --promote: its slots can go one way only";
                Err(self.out.complain(Exit::Usage, text))
            }
        }
    }

    /// A primary that the others can hardly do without leaves only if that is meant. A replica leaves as it does with the other
    /// tools, whatever it is to its primary; what will be lacking is told.
    fn refuse_what_is_needed(
        &self,
        view: &ClusterView,
        name: &str,
        way: WayOut,
    ) -> Outcome<Option<Lack>> {
        let Some(lack) = members::lack(view, name, way) else { return Ok(None) };
        let node = members::named(view, name).and_then(|id| view.node(id));
        if !self.line.has("force") && node.is_some_and(|node| !node.own.is_replica()) {
            let text = format!("[ERR] {lack}; if that is meant, pass --force");
            return Err(self.out.fail(Exit::Refused, &text));
        }
        self.out.warning(&format!("[WARNING] {lack}."));
        Ok(Some(lack))
    }

    /// Puts a replica in the place of a primary; false if it has no slots, or if that is only to be shown.
    async fn promote(&self, view: &ClusterView, name: &str) -> Outcome<bool> {
        let node = members::named(view, name).and_then(|id| view.node(id));
        if node.is_none_or(|node| node.own.slots.is_empty()) {
            return Ok(false);
        }
        let step = members::failover(view, name, None, Consent::All);
        let step = step.map_err(|error| self.out.fail(Exit::Refused, &format!("[ERR] {error}")))?;
        if self.line.has("dry-run") {
            return Err(self.answer_plan(&[step]));
        }
        self.take_place(view, &step).await?;
        Ok(true)
    }

    /// Gives the slots of a primary to the others, if it has any.
    async fn drain(&self, view: &ClusterView, name: &str) -> Outcome<Option<Summary>> {
        let Some(node) = members::named(view, name).and_then(|id| view.node(id)) else {
            return Ok(None);
        };
        let moves = rebalance::leaving(view, node, &[]);
        if moves.is_empty() {
            return Ok(None);
        }
        let question = format!(
            "Can I move {} slots away from {}? (type 'yes' to accept): ",
            node.own.slots.len(),
            node.address
        );
        let summary = self.move_slots(view, moves, Some(&question)).await?;
        // With slots left it cannot go.
        if summary.skipped.is_empty() { Ok(Some(summary)) } else { Err(self.moved(&summary)) }
    }

    fn refuse(&self, view: &ClusterView, name: &str, error: &MemberError) -> Exit {
        let is_absent = members::named(view, name).is_some_and(|id| view.node(id).is_none());
        if is_absent && matches!(error, MemberError::NotEmpty(_)) {
            let advice = "It does not answer: put one of its replicas in its place (slotway cluster failover --takeover), or bring it back.";
            return self.out.fail(Exit::Refused, &format!("[ERR] {error}\n      {advice}"));
        }
        // redis-cli has always answered this one with 1.
        let exit =
            if matches!(error, MemberError::NotEmpty(_)) { Exit::Failure } else { Exit::Refused };
        self.out.fail(exit, &format!("[ERR] {error}"))
    }

    async fn leave(&self, crew: &mut Crew, steps: &[Step], view: &ClusterView) -> Outcome<()> {
        let address = |id: &NodeId| {
            view.node(id).map_or_else(|| id.to_string(), |node| node.address.to_string())
        };
        let mut tell = |event: Event<'_>| match event {
            Event::Step(Step::Replicate { node, primary }) => {
                self.out.info(&format!(">>> {} as replica of {}", address(node), address(primary)));
            }
            Event::Step(Step::Forget { .. }) => {
                self.out.info(">>> Sending CLUSTER FORGET messages to the cluster...");
            }
            Event::Step(Step::Reset { .. }) => {
                self.out.info(">>> Sending CLUSTER RESET HARD to the deleted node.");
            }
            event => self.tell(&event),
        };
        crew.apply(steps, &mut tell).await.map_err(|error| self.failed(&error))
    }

    pub(super) async fn failover(&self) -> Outcome {
        let (entry, name) = (self.address(self.arg(0)?)?, self.arg(1)?);
        let consent = match (self.line.has("force"), self.line.has("takeover")) {
            (_, true) => Consent::Nobody,
            (true, false) => Consent::Majority,
            (false, false) => Consent::All,
        };
        let view = self.gather(&entry).await?;
        let to = self.flag(self.line.value("to"))?;
        let step = members::failover(&view, name, to, consent);
        let step = step.map_err(|error| self.out.fail(Exit::Refused, &format!("[ERR] {error}")))?;
        if self.line.has("dry-run") {
            return Ok(self.answer_plan(&[step]));
        }
        let address = self.take_place(&view, &step).await?;
        self.out.good(&format!(
            "[OK] {address} is a {} now, and all nodes know.",
            self.out.style.primary()
        ));
        self.out.answer(&json!({ "ok": true, "steps": [step] }));
        Ok(Exit::Success)
    }

    /// Has a replica take its primary's place, and waits until all nodes know; gives where it is.
    async fn take_place(&self, view: &ClusterView, step: &Step) -> Outcome<String> {
        let Step::Failover { node, .. } = step else { return Err(Exit::Failure) };
        let address = view.node(node).map(|node| node.address.to_string()).unwrap_or_default();
        self.out
            .info(&format!(">>> {address} takes the place of its {}", self.out.style.primary()));
        let mut crew = self.crew(view);
        let applied = crew.apply(std::slice::from_ref(step), &mut |event| self.tell(&event)).await;
        applied.map_err(|error| self.failed(&error))?;
        self.settle(&mut crew, None).await?;
        Ok(address)
    }
}
