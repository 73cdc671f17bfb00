//! `PROXY CLUSTER FIX`: the cluster is made whole again, by means of `manage::repair`.

use serde_json::{Value, json};

use super::cluster;
use super::complaint::Complaint;
use super::job::{End, Job};
use super::run::Ground;
use crate::cluster::{NodeId, Slots};
use crate::manage::mover::MoveOptions;
use crate::manage::repair::{self, RepairError, RepairPlan, Risk, Workshop};
use crate::manage::view::ClusterView;

impl From<RepairError> for End {
    fn from(error: RepairError) -> Self {
        match error {
            RepairError::Move(error) => error.into(),
            RepairError::Stopped => Self::Stopped { is_resumable: true },
            error => Self::failed(&error),
        }
    }
}

/// What would be done, and the nodes that there are.
pub(super) async fn plan(
    ground: &Ground,
    slots: Option<&Slots>,
) -> Result<(Value, Vec<NodeId>), Complaint> {
    let view = cluster::gather(&ground.admin).await?;
    let plan = examine(ground, &view, slots).await;
    let plan = plan.map_err(|error| Complaint::Precondition(error.to_string()))?;
    Ok((json!({ "repairs": plan.repairs }), view.ids()))
}

async fn examine(
    ground: &Ground,
    view: &ClusterView,
    slots: Option<&Slots>,
) -> Result<RepairPlan, RepairError> {
    let keys = repair::examine(view, &ground.admin.access).await?;
    let heirs = repair::heirs(view, &ground.folder)?;
    Ok(match slots {
        None => repair::plan(view, &keys, &heirs),
        Some(slots) => repair::plan_some(view, &keys, &heirs, slots),
    })
}

/// Does what is no riskier than this. Each time it looks at the cluster anew, so it can be cut off anywhere.
pub(super) async fn carry_out(
    ground: &Ground,
    (consent, slots): (Risk, Option<&Slots>),
    options: &MoveOptions,
    job: &Job,
) -> Result<(), End> {
    let view = cluster::gather(&ground.admin).await.map_err(|error| End::failed(&error))?;
    let plan = examine(ground, &view, slots).await?;
    job.enter("planned");
    let (access, folder, reins) = (&ground.admin.access, &ground.folder, &job.reins);
    let workshop = Workshop { access, options, folder, consent, reins };
    job.enter("repairing");
    plan.repairs.iter().for_each(|repair| job.note(format!("{}: {}", repair.risk, repair.action)));
    let report = repair::apply(plan, &view, &workshop, &mut |event| job.take(&event)).await;
    (ground.admin.refresh)();
    let report = report?;
    for (file, count) in &report.quarantined {
        job.warn(format!("{count} copies that lost are kept in {}", file.display()));
    }
    match report.left.as_slice() {
        [] => Ok(()),
        left => {
            let left: Vec<String> =
                left.iter().map(|repair| format!("{}: {}", repair.risk, repair.action)).collect();
            Err(End::failed(&format!("left undone, see APPLY confirm|all: {}", left.join("; "))))
        }
    }
}
