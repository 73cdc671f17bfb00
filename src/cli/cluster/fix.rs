//! `slotway cluster fix`: what is not whole, what is to be done about it, and how risky that is; then it is done.

use serde_json::json;

use super::Job;
use super::carry::Shown;
use super::out::{Exit, Outcome};
use super::show;
use crate::manage::repair::{self, RepairError, RepairPlan, RepairReport, Risk, Workshop};
use crate::manage::view::ClusterView;

impl Job<'_> {
    pub(super) async fn fix(&self) -> Outcome {
        let entry = self.entry()?;
        let view = self.gather(&entry).await?;
        let is_whole = self.is_whole(&view).await?;
        let keys = repair::examine(&view, &self.access).await;
        let keys = keys.map_err(|error| self.not_fixed(&error))?;
        let heirs = repair::heirs(&view, &self.state_folder()?);
        let plan = repair::plan(&view, &keys, &heirs.map_err(|error| self.not_fixed(&error))?);
        if plan.repairs.is_empty() {
            return Ok(self.nothing_to_fix(is_whole));
        }
        self.show_repairs(&plan);
        if self.line.has("dry-run") {
            self.out.answer(&json!({ "ok": true, "plan": plan }));
            return Ok(Exit::Success);
        }
        let consent = self.consent()?;
        let Some(consent) = consent else { return Ok(Exit::Failure) };
        let report = self.repair(plan, &view, consent).await?;
        let after = self.gather(&entry).await?;
        Ok(self.fixed(&report, show::check(&self.out, &after, false)))
    }

    fn nothing_to_fix(&self, is_whole: bool) -> Exit {
        self.out.answer(&json!({ "ok": is_whole, "plan": [] }));
        if is_whole {
            return Exit::Success;
        }
        self.out
            .warning("*** Nothing that can be repaired from here; the nodes may need more time.");
        Exit::Failure
    }

    fn show_repairs(&self, plan: &RepairPlan) {
        self.out.info(">>> Repairs:");
        for repair in &plan.repairs {
            let text = format!("    {} ({}): {}", repair.action, repair.why, repair.risk);
            if repair.risk == Risk::Safe { self.out.plain(&text) } else { self.out.warning(&text) }
        }
    }

    /// How risky it may get: what is safe on `--cluster-yes`, more only if somebody says so.
    fn consent(&self) -> Outcome<Option<Risk>> {
        if self.line.has("accept-data-loss") {
            return Ok(Some(Risk::DataLoss));
        }
        if self.line.has("accept-risk") {
            return Ok(Some(Risk::Confirm));
        }
        if self.says_yes() {
            return Ok(Some(Risk::Safe));
        }
        let question =
            "Do you want this to be done, as far as no data may be lost? (type 'yes' to accept): ";
        Ok(self.out.confirm(question, false)?.then_some(Risk::Confirm))
    }

    async fn repair(
        &self,
        plan: RepairPlan,
        view: &ClusterView,
        consent: Risk,
    ) -> Outcome<RepairReport> {
        let (options, folder, hold) = (self.move_options()?, self.state_folder()?, self.hold()?);
        let reins = hold.reins.clone();
        let workshop = Workshop {
            access: &self.access,
            options: &options,
            folder: &folder,
            consent,
            reins: &reins,
        };
        let mut shown = Shown::new(&plan.moves(), view);
        let bar = self.bar();
        let mut tell = |event| self.tell_of_move(&event, &bar, &mut shown);
        let repaired = self.held(hold, &bar, repair::apply(plan, view, &workshop, &mut tell)).await;
        repaired.map_err(|error| self.not_fixed(&error))
    }

    fn fixed(&self, report: &RepairReport, is_whole: bool) -> Exit {
        for (file, count) in &report.quarantined {
            self.out.warning(&format!(
                "[WARNING] {count} copies that differed from the owner's are kept in {}",
                file.display()
            ));
        }
        let is_clean = is_whole && report.left.is_empty() && report.quarantined.is_empty();
        self.out.answer(&json!({ "ok": is_clean, "report": report }));
        if !report.left.is_empty() {
            let text = "*** Left undone what may lose data or needs a decision: see --accept-risk and --accept-data-loss";
            self.out.warning(text);
            return Exit::Refused;
        }
        match is_whole {
            true if is_clean => Exit::Success,
            // Somebody is to look at the copies.
            true => Exit::Partial,
            false => Exit::Failure,
        }
    }

    fn not_fixed(&self, error: &RepairError) -> Exit {
        match error {
            RepairError::Move(error) => self.not_moved(error, None),
            RepairError::Journal(error) => self.no_journal(error),
            RepairError::Stopped => self.out.fail(Exit::Resumable, &format!("[ERR] {error}")),
            error => self.out.fail(Exit::Failure, &format!("[ERR] {error}")),
        }
    }
}
