//! `PROXY CLUSTER CREATE`: empty nodes become a cluster.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::complaint::Complaint;
use super::job::{End, Job};
use super::order::Create;
use super::run::{self, Ground};
use crate::cluster::NodeId;
use crate::manage::apply::Crew;
use crate::manage::plan::Step;
use crate::manage::plan::create::{self, Affinity, TooFew};
use crate::manage::recruit::{self, Recruit};
use crate::manage::view::ClusterView;

/// What is forced where zones are too few, or too uneven.
const SAME_ZONE: &str = "same-zone";

/// Who becomes what, and the nodes.
pub(super) async fn plan(
    ground: &Ground,
    wanted: &Create,
    force: &[String],
) -> Result<(Value, Vec<NodeId>), Complaint> {
    let (steps, nodes) = make(ground, wanted, force).await?;
    let ids = nodes.iter().map(|node| node.view.own.id.clone()).collect();
    // Who is in no cluster yet is known to nobody else by name.
    let places: BTreeMap<_, _> =
        nodes.iter().map(|node| (&*node.view.own.id.0, &node.view.address)).collect();
    let plan = json!({ "steps": steps, "moves": [], "then_removed": false, "nodes": places });
    Ok((plan, ids))
}

async fn make(
    ground: &Ground,
    Create { addresses, replicas, zones }: &Create,
    force: &[String],
) -> Result<(Vec<Step>, Vec<Recruit>), Complaint> {
    let found = recruit::ask_all(addresses, &ground.admin.access).await;
    let nodes = recruit::all_unfit(addresses, found).map_err(|unfit| {
        let unfit: Vec<_> =
            unfit.iter().map(|(address, fault)| format!("{address}: {fault}")).collect();
        Complaint::NotEmpty(unfit.join("; "))
    })?;
    let sites = recruit::sites(&nodes, zones);
    let sites: Vec<&str> = sites.iter().map(String::as_str).collect();
    let layout = create::layout(&sites, *replicas).map_err(|TooFew { nodes, replicas }| {
        let least = create::FEWEST.saturating_mul(replicas.saturating_add(1));
        let text = format!("{nodes} nodes are too few for 3 primaries with {replicas} replicas each: {least} are needed");
        Complaint::Precondition(text)
    })?;
    // Who names zones means them; of hosts there may be only one.
    let is_together = !zones.is_empty() && layout.affinity == Some(Affinity::WithPrimary);
    if is_together && !force.iter().any(|given| given == SAME_ZONE) {
        let text = "a replica would be in the zone of its primary".to_owned();
        return Err(Complaint::NeedForce(SAME_ZONE, text));
    }
    let ids: Vec<NodeId> = nodes.iter().map(|node| node.view.own.id.clone()).collect();
    Ok((layout.steps(&ids), nodes))
}

/// Makes a cluster of the nodes; if that fails they are as empty as before.
pub(super) async fn carry_out(
    ground: &Ground,
    wanted: &Create,
    force: &[String],
    job: &Job,
) -> Result<(), End> {
    let made = make(ground, wanted, force).await;
    let (steps, nodes) = made.map_err(|error| End::failed(&error))?;
    job.enter("planned");
    let ids: Vec<NodeId> = nodes.iter().map(|node| node.view.own.id.clone()).collect();
    let nodes = nodes.into_iter().map(|node| node.view).collect();
    let view = ClusterView { nodes, absent: Vec::new() };
    let mut crew = Crew::new(&view, &ground.admin.access, run::PATIENCE);
    let formed = run::apply(ground, &mut crew, &steps, None, job).await;
    if formed.is_err() {
        for (node, error) in crew.undo(&ids).await {
            job.warn(format!("{node} was not reset: {error}"));
        }
    }
    formed
}
