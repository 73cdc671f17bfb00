//! Does what was ordered, with what `manage` has for it: plan by what the nodes say, apply, move, look again.
//!
//! Every stage looks at the cluster anew and does what is still missing, so an order that was cut off can be given again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::complaint::Complaint;
use super::job::{End, Job};
use super::order::{self, Farewell, Follow, Order, Request, Strategy, Which};
use super::{Admin, cluster, create, data, fix, latecomers};
use crate::cluster::{Address, NodeId, Slot, Slots};
use crate::manage::apply::{self, Crew};
use crate::manage::check::{self, Finding};
use crate::manage::journal::{self, Journal, JournalError};
use crate::manage::mover::{self, MoveOptions, Prepared};
use crate::manage::plan::members::{self, Lack, MemberError, WayOut};
use crate::manage::plan::rebalance::{self, Bearer, Measure, Verdict};
use crate::manage::plan::{Consent, Move, Step, reshard};
use crate::manage::recruit::{Recruit, Unfit};
use crate::manage::repair;
use crate::manage::view::{ClusterView, NodeView};

/// How long a step may take to reach all nodes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// What is forced when a replica takes over though nobody is asked.
const NO_MAJORITY: &str = "no-majority";
/// How long nodes may take to hear of what was just done, and how often they are asked again.
const LAG: u32 = 50;
const LOOK: Duration = Duration::from_millis(200);

/// What a job works with.
pub(super) struct Ground {
    pub(super) admin: Arc<Admin>,
    /// Where journals are.
    pub(super) folder: PathBuf,
}

/// What is still to be done, as far as it can be known before the first of it is.
#[derive(Default)]
struct Plan {
    /// Nodes that are no members yet.
    recruits: Vec<NodeView>,
    before: Vec<Step>,
    moves: Vec<Move>,
}

/// What would be done, for people and machines, and the nodes that there are; or why it cannot be.
pub(super) async fn plan(
    ground: &Ground,
    request: &Request,
) -> Result<(Value, Vec<NodeId>), Complaint> {
    match &request.order {
        Order::Fix { slots, .. } => return fix::plan(ground, slots.as_ref()).await,
        Order::Create(wanted) => return create::plan(ground, wanted, &request.force).await,
        _ => {}
    }
    // A job that was cut off explains what else would be found amiss.
    idle(ground, &cluster::gather(&ground.admin).await?)?;
    match &request.order {
        Order::Import(import) => return data::plan_import(ground, import).await,
        Order::Backup { folder } => return data::plan_backup(ground, folder).await,
        _ => {}
    }
    let view = fit(ground, &request.order).await?;
    let Plan { before, moves, .. } = make(ground, &view, request).await?;
    let leaves = matches!(request.order, Order::DelNode { .. });
    let mut plan = json!({ "steps": before, "moves": moves, "then_removed": leaves });
    if matches!(request.order, Order::DelNode { farewell: Farewell::Shutdown, .. }) {
        plan["then_shut_down"] = true.into();
    }
    Ok((plan, view.ids()))
}

/// Gives a plan a name by what it says, so that two can be told apart.
pub(super) fn stamped(mut plan: Value) -> Value {
    plan["plan_hash"] = hash(&plan.to_string()).into();
    plan
}

/// A short name for a text, by which it is known whether another one is the same.
pub(super) fn hash(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    let start = hash.as_ref().first_chunk().expect("a digest has 32 bytes");
    format!("{:016x}", u64::from_be_bytes(*start))
}

/// No job on these nodes runs elsewhere, or waits for somebody to go on with it.
fn idle(ground: &Ground, view: &ClusterView) -> Result<(), Complaint> {
    let records = journal::unended(&ground.folder);
    let records = records.map_err(|error| Complaint::Precondition(error.to_string()))?;
    let ours = records.into_iter().find(|record| {
        let is_over = record.is_whole && !record.is_running;
        !is_over && record.begun.members.iter().any(|member| view.node(&member.id).is_some())
    });
    match ours {
        None => Ok(()),
        Some(record) if record.is_running => Err(Complaint::JobRunning(record.id)),
        Some(record) => Err(Complaint::Precondition(format!(
            "job {} was cut off: PROXY JOB RESUME it first",
            record.id
        ))),
    }
}

/// The cluster as an order needs it: whole, unless somebody is to take the place of a primary that may be gone.
async fn fit(ground: &Ground, order: &Order) -> Result<ClusterView, Complaint> {
    match order {
        Order::Failover { consent: Consent::Majority | Consent::Nobody, .. } => {
            cluster::gather(&ground.admin).await
        }
        _ => whole(ground).await,
    }
}

/// The cluster, once its nodes agree; they may have to hear yet of what was just done.
pub(super) async fn whole(ground: &Ground) -> Result<ClusterView, Complaint> {
    let mut looks = 0;
    loop {
        let view = cluster::gather(&ground.admin).await?;
        let Some(fault) = check::findings(&view).into_iter().find(Finding::is_fault) else {
            return Ok(view);
        };
        let may_pass = matches!(fault, Finding::Disagreement { .. } | Finding::Claimed { .. });
        if !may_pass || looks == LAG {
            return Err(match fault {
                Finding::Disagreement { .. } => Complaint::Disagree(fault.to_string()),
                Finding::Migrating { ref slots, .. } | Finding::Importing { ref slots, .. } => {
                    Complaint::OpenSlots(slots.len(), format!("{fault}: FIX closes them"))
                }
                Finding::Uncovered { .. } if !missed(&view).is_empty() => {
                    let advice = "start it again, or see FIX PLAN";
                    Complaint::Unreachable(format!("{} {fault}: {advice}", missed(&view)))
                }
                _ => Complaint::Precondition(fault.to_string()),
            });
        }
        looks += 1;
        sleep(LOOK).await;
    }
}

/// Names of the owners that do not answer, by commas.
fn missed(view: &ClusterView) -> String {
    let owners = view.absent.iter().filter(|absent| !absent.line.slots.is_empty());
    owners.map(|absent| absent.line.id.to_string()).collect::<Vec<_>>().join(",")
}

async fn make(ground: &Ground, view: &ClusterView, request: &Request) -> Result<Plan, Complaint> {
    match &request.order {
        Order::AddNode { address, follow, rebalance, weight, with } => {
            let mut plan = arrive(ground, view, address, (follow, with)).await?;
            if *rebalance && *follow == Follow::Nobody {
                plan.moves = reshard::arriving(view, &plan.recruits[0], *weight);
            }
            Ok(plan)
        }
        Order::DelNode { name, strategy, to, .. } => {
            leave(view, name, (*strategy, to), &request.force)
        }
        Order::Reshard { which, from, to } => {
            Ok(Plan { moves: transfer(view, which, from, to)?, ..Plan::default() })
        }
        Order::Rebalance { weights, with_empty, threshold, by } => {
            let mut bearers: Vec<Bearer> = view
                .primaries()
                .filter(|node| *with_empty || !node.own.slots.is_empty())
                .map(|node| Bearer {
                    id: node.own.id.clone(),
                    slots: node.own.slots.clone(),
                    weight: 1.0,
                })
                .collect();
            for (name, weight) in weights {
                let id = &primary(view, name)?.own.id;
                bearers
                    .iter_mut()
                    .filter(|bearer| bearer.id == *id)
                    .for_each(|bearer| bearer.weight = *weight);
            }
            let verdict = match by {
                Measure::Slots => rebalance::plan(&bearers, *threshold),
                Measure::Keys | Measure::Memory => {
                    let loads = loads(ground, view, *by).await?;
                    rebalance::by_load(&bearers, |id, slot| loads(id, slot), *threshold)
                }
            };
            match verdict.map_err(|error| Complaint::BadArg(error.to_string()))? {
                Verdict::Balanced => Ok(Plan::default()),
                Verdict::Moves(moves) => Ok(Plan { moves, ..Plan::default() }),
            }
        }
        Order::Failover { name, to, consent } => {
            let step = members::failover(view, &called(view, name)?, to.as_deref(), *consent)?;
            expect_no_split(*consent, &request.force)?;
            Ok(Plan { before: vec![step], ..Plan::default() })
        }
        Order::Fix { .. } | Order::Create(_) | Order::Import(_) | Order::Backup { .. } => {
            Ok(Plan::default())
        }
    }
}

/// What each slot weighs at its owner.
async fn loads(
    ground: &Ground,
    view: &ClusterView,
    by: Measure,
) -> Result<impl Fn(&NodeId, Slot) -> f64, Complaint> {
    let keys = repair::examine(view, &ground.admin.access).await;
    let keys = keys.map_err(|error| Complaint::Unreachable(error.to_string()))?;
    let weight_of_a_key = |id: &NodeId| match by {
        Measure::Memory => view.node(id).map_or(1.0, bytes_of_a_key),
        Measure::Slots | Measure::Keys => 1.0,
    };
    let weights: BTreeMap<NodeId, f64> =
        keys.keys().map(|id| (id.clone(), weight_of_a_key(id))).collect();
    Ok(move |id: &NodeId, slot| {
        let count = keys.get(id).and_then(|keys| keys.get(&slot)).copied().unwrap_or(0);
        as_f64(count) * weights.get(id).copied().unwrap_or(1.0)
    })
}

fn bytes_of_a_key(node: &NodeView) -> f64 {
    let keys: u64 = node.info.databases().iter().map(|(_, keys)| keys).sum();
    as_f64(node.info.number("used_memory_dataset").unwrap_or(0)) / as_f64(keys.max(1))
}

#[expect(clippy::cast_precision_loss, reason = "shares need not be that exact")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// Slots that go to one primary.
fn transfer(
    view: &ClusterView,
    which: &Which,
    from: &[String],
    to: &str,
) -> Result<Vec<Move>, Complaint> {
    let to = primary(view, to)?;
    let named: Vec<&NodeId> = from
        .iter()
        .map(|name| Ok(&primary(view, name)?.own.id))
        .collect::<Result<_, Complaint>>()?;
    if named.contains(&&to.own.id) {
        return Err(Complaint::BadArg("the target cannot be a source".into()));
    }
    let is_source = |node: &&NodeView| {
        node.own.id != to.own.id && (named.is_empty() || named.contains(&&node.own.id))
    };
    let sources = view.primaries().filter(is_source);
    let sources: Vec<_> =
        sources.map(|node| (node.own.id.clone(), node.own.slots.clone())).collect();
    match which {
        Which::Count(count) => Ok(reshard::plan(&sources, &to.own.id, *count)),
        Which::Ranges(slots) => {
            // What it has need not go there.
            let wanted: Slots =
                slots.iter().filter(|slot| !to.own.slots.contains(**slot)).copied().collect();
            let moves = reshard::named(&sources, &to.own.id, &wanted);
            moves.map_err(|missing| {
                Complaint::Precondition(format!("slots {missing} are none of the sources'"))
            })
        }
    }
}

async fn arrive(
    ground: &Ground,
    view: &ClusterView,
    address: &Address,
    (follow, with): (&Follow, &[Address]),
) -> Result<Plan, Complaint> {
    let new = recruit(ground, view, address, *follow == Follow::Nobody).await?;
    let home = home(view, &new, follow)?;
    let mut recruits = vec![new.clone()];
    for address in with {
        let replica = recruit(ground, view, address, false).await?;
        if recruits.iter().any(|other| other.own.id == replica.own.id) {
            return Err(Complaint::BadArg(format!("{address} is named twice")));
        }
        recruits.push(replica);
    }
    let before = match home {
        Some(home) => members::join(view, &new, Some(home))?,
        None => members::join_with(view, &new, &recruits[1..])?,
    };
    Ok(Plan { recruits, before, moves: Vec::new() })
}

/// The primary that a new node is to follow, if it is to follow one.
fn home<'v>(
    view: &'v ClusterView,
    new: &NodeView,
    follow: &Follow,
) -> Result<Option<&'v NodeView>, Complaint> {
    Ok(match follow {
        Follow::Nobody => None,
        Follow::Anybody => Some(
            members::least_replicated(view, new)
                .ok_or_else(|| Complaint::Precondition("no primary owns any slots".into()))?,
        ),
        Follow::Node(name) => {
            let id = called(view, name)?;
            let node =
                view.lines().find(|line| *line.id.0 == *id).and_then(|line| view.node(&line.id));
            let node = node.and_then(|node| match &node.own.primary {
                Some(primary) => view.node(primary),
                None => Some(node),
            });
            Some(node.ok_or(Complaint::Unreachable(id))?)
        }
    })
}

/// A node that may join, as a primary or as a replica; or that is a member already.
async fn recruit(
    ground: &Ground,
    view: &ClusterView,
    address: &Address,
    is_primary: bool,
) -> Result<NodeView, Complaint> {
    let recruit = Recruit::ask(address, &ground.admin.access).await;
    let recruit = recruit.map_err(|error| Complaint::NoAnswer(error.to_string()))?;
    let new = &recruit.view;
    if view.node(&new.own.id).is_none()
        && let Some(fault) = recruit.unfit()
    {
        match fault {
            // A replica gets those of its primary; a primary may have been given them by a try that did not get further.
            Unfit::Functions(_) if is_primary => {}
            Unfit::NotEmpty { .. } => {
                return Err(Complaint::NotEmpty(format!("Node {address} is not empty: {fault}")));
            }
            _ => return Err(Complaint::Precondition(format!("{address}: {fault}"))),
        }
    }
    Ok(recruit.view)
}

/// What comes before the node can be removed.
fn leave(
    view: &ClusterView,
    name: &str,
    (strategy, to): (Strategy, &[String]),
    force: &[String],
) -> Result<Plan, Complaint> {
    let id = called(view, name)?;
    let node = view.nodes.iter().find(|node| *node.own.id.0 == *id);
    let node = node.filter(|node| !node.own.slots.is_empty());
    let strategy = match strategy {
        Strategy::Auto => best_way(view, node, to),
        named => named,
    };
    expect_no_lack(view, &id, strategy, force)?;
    let Some(node) = node else {
        // Looks whether it can be removed; that is done at the end.
        members::remove(view, &id)?;
        return Ok(Plan::default());
    };
    match strategy {
        Strategy::Forget => Err(MemberError::NotEmpty(node.address.to_string()).into()),
        Strategy::Promote => {
            let step = members::failover(view, &id, None, Consent::All)?;
            Ok(Plan { before: vec![step], ..Plan::default() })
        }
        Strategy::Auto | Strategy::Drain => {
            let takers = to.iter().map(|name| Ok(primary(view, name)?.own.id.clone()));
            let takers: Vec<NodeId> = takers.collect::<Result<_, Complaint>>()?;
            if takers.contains(&node.own.id) {
                return Err(Complaint::BadArg("a node that leaves cannot take its slots".into()));
            }
            Ok(Plan { moves: rebalance::leaving(view, node, &takers), ..Plan::default() })
        }
    }
}

/// What becomes of a node's slots if nobody says: its shard lives on if a replica is well.
fn best_way(view: &ClusterView, node: Option<&NodeView>, to: &[String]) -> Strategy {
    let is_well =
        |node: &NodeView| members::failover(view, &node.own.id.0, None, Consent::All).is_ok();
    if to.is_empty() && node.is_some_and(is_well) { Strategy::Promote } else { Strategy::Drain }
}

/// Nobody is asked for a takeover: where the others can agree on somebody, two would claim the same slots.
fn expect_no_split(consent: Consent, force: &[String]) -> Result<(), Complaint> {
    if consent != Consent::Nobody || force.iter().any(|given| given == NO_MAJORITY) {
        return Ok(());
    }
    let text = "TAKEOVER asks nobody: it is for a cluster whose majority is gone".to_owned();
    Err(Complaint::NeedForce(NO_MAJORITY, text))
}

/// A node that the others can hardly do without leaves only if that is meant.
fn expect_no_lack(
    view: &ClusterView,
    id: &str,
    strategy: Strategy,
    force: &[String],
) -> Result<(), Complaint> {
    let way = match strategy {
        Strategy::Auto | Strategy::Drain => WayOut::Drained,
        Strategy::Promote => WayOut::Promoted,
        Strategy::Forget => WayOut::Plain,
    };
    let Some(lack) = members::lack(view, id, way) else { return Ok(()) };
    let flag = match lack {
        Lack::Primaries(_) => "few-primaries",
        Lack::Replicas(_) => "no-replicas",
    };
    if force.iter().any(|given| given == flag) {
        return Ok(());
    }
    Err(Complaint::NeedForce(flag, lack.to_string()))
}

/// The name of the node that is meant, by its name or its address.
fn called(view: &ClusterView, name: &str) -> Result<String, Complaint> {
    let at = |line: &&crate::manage::view::Line| {
        line.address.as_ref().is_some_and(|address| address.to_string() == name)
    };
    let id = members::named(view, name).or_else(|| view.lines().find(at).map(|line| &line.id));
    id.map(ToString::to_string)
        .ok_or_else(|| Complaint::NotFound(MemberError::Unknown(name.to_owned()).to_string()))
}

fn primary<'v>(view: &'v ClusterView, name: &str) -> Result<&'v NodeView, Complaint> {
    let id = called(view, name)?;
    let node = view.primaries().find(|node| *node.own.id.0 == *id);
    let is_absent = view.absent.iter().any(|absent| *absent.line.id.0 == *id);
    node.ok_or_else(|| {
        if is_absent {
            Complaint::NoAnswer(format!("{id} does not answer"))
        } else {
            Complaint::BadArg(format!("{name} is no primary"))
        }
    })
}

/// Does all of an order.
pub(super) async fn carry_out(ground: &Ground, request: &Request, job: &Job) -> Result<(), End> {
    match &request.order {
        Order::Fix { consent, slots } => {
            let extent = (*consent, slots.as_ref());
            return fix::carry_out(ground, extent, &request.options, job).await;
        }
        Order::Create(wanted) => {
            return create::carry_out(ground, wanted, &request.force, job).await;
        }
        Order::Import(import) => {
            return data::import(ground, import, request.options.batch, job).await;
        }
        Order::Backup { folder } => return data::backup(ground, folder, job).await,
        _ => {}
    }
    let view = fit(ground, &request.order).await.map_err(|error| End::failed(&error))?;
    let plan = make(ground, &view, request).await.map_err(|error| End::failed(&error))?;
    job.enter("planned");
    let mut crew = Crew::new(&view, &ground.admin.access, PATIENCE);
    plan.recruits.iter().for_each(|recruit| crew.enrol(recruit));
    apply(ground, &mut crew, &plan.before, None, job).await?;
    match &request.order {
        Order::AddNode { address, follow: Follow::Nobody, rebalance: true, weight, .. } => {
            let view = whole(ground).await.map_err(|error| End::failed(&error))?;
            let new = view.nodes.iter().find(|node| node.address == *address);
            let new =
                new.or_else(|| plan.recruits.first().and_then(|node| view.node(&node.own.id)));
            let moves = new.map(|new| reshard::arriving(&view, new, *weight)).unwrap_or_default();
            move_slots(ground, &view, moves, &request.options, job).await
        }
        Order::DelNode { name, farewell, .. } => {
            let id = called(&view, name).map_err(|error| End::failed(&error))?;
            move_slots(ground, &view, plan.moves, &request.options, job).await?;
            remove(ground, &id, *farewell, job).await
        }
        _ => move_slots(ground, &view, plan.moves, &request.options, job).await,
    }
}

async fn remove(ground: &Ground, id: &str, farewell: Farewell, job: &Job) -> Result<(), End> {
    let view = whole(ground).await.map_err(|error| End::failed(&error))?;
    let mut steps = members::remove(&view, id).map_err(|error| End::failed(&error))?;
    // One that does not answer is told nothing.
    if let (Farewell::Shutdown, Some(last)) = (farewell, steps.last_mut())
        && let Step::Reset { node } = last
    {
        *last = Step::Shutdown { node: node.clone() };
    }
    let mut crew = Crew::new(&view, &ground.admin.access, PATIENCE);
    apply(ground, &mut crew, &steps, Some(&NodeId(id.into())), job).await?;
    let absent: Vec<_> = view.absent.iter().filter(|absent| *absent.line.id.0 != *id).collect();
    for absent in &absent {
        let (place, reason) = (absent.line.place(), &absent.reason);
        job.warn(format!(
            "{place} was left out, and is told when it is back within a minute: {reason}"
        ));
    }
    let absent: Vec<Address> =
        absent.iter().filter_map(|absent| absent.line.address.clone()).collect();
    let told = latecomers::tell(ground.admin.access.clone(), absent, NodeId(id.into()));
    ground.admin.runtime.spawn(told);
    for (address, why) in &crew.shortfalls {
        job.warn(format!("{address} was left out: {why}"));
    }
    Ok(())
}

/// Does steps, if there are any, and waits until all nodes know of it.
pub(super) async fn apply(
    ground: &Ground,
    crew: &mut Crew,
    steps: &[Step],
    gone: Option<&NodeId>,
    job: &Job,
) -> Result<(), End> {
    if steps.is_empty() {
        return Ok(());
    }
    let mut tell = |event: apply::Event<'_>| match event {
        apply::Event::Step(step) => {
            let text = serde_json::to_string(step).expect("our values can be written");
            job.enter("applying");
            job.note(text);
        }
        apply::Event::Waiting(what) => job.note(format!("waiting: {what}")),
        apply::Event::Note(text) => job.note(text),
    };
    crew.apply(steps, &mut tell).await.map_err(|error| End::failed(&error))?;
    job.enter("verifying");
    let mut tell = |event: apply::Event<'_>| {
        if let apply::Event::Waiting(what) = event {
            job.note(format!("waiting: {what}"));
        }
    };
    let settled = crew.settle(gone, &mut tell).await;
    (ground.admin.refresh)();
    settled.map_err(|error| End::failed(&error))
}

async fn move_slots(
    ground: &Ground,
    view: &ClusterView,
    moves: Vec<Move>,
    options: &MoveOptions,
    job: &Job,
) -> Result<(), End> {
    if moves.is_empty() {
        return Ok(());
    }
    let prepared = mover::prepare(moves, view, &ground.admin.access, options).await?;
    let journal =
        Journal::begin(&ground.folder, prepared.begun()).map_err(|error| End::failed(&error))?;
    run(ground, prepared, journal, job).await
}

/// Does what is left of a job that was cut off. The moves go on as they were planned; what comes before them is done by the
/// time that they are, and looks at the cluster anew if there are none yet, as does what comes after them.
pub(super) async fn go_on(ground: &Ground, job: &Job) -> Result<(), End> {
    let words: Vec<&str> = job.ordered.words.iter().map(String::as_str).collect();
    let request = match words[..] {
        // Of another program nothing is known but the moves.
        ["RESUME", _] => None,
        _ => Some(order::parse(&words).map_err(|error| End::failed(&error))?),
    };
    // A repair goes by what it finds, also for moves that were cut off.
    let is_repair = matches!(&request, Some(Request { order: Order::Fix { .. }, .. }));
    let journal = job.journal().filter(|_| !is_repair);
    if let Some(name) = &journal {
        move_on(ground, name, job).await?;
    }
    match request {
        Some(request) if journal.is_none() || matches!(request.order, Order::DelNode { .. }) => {
            carry_out(ground, &request, job).await
        }
        _ => Ok(()),
    }
}

/// Takes up moves that were cut off, if they were.
async fn move_on(ground: &Ground, name: &str, job: &Job) -> Result<(), End> {
    let (journal, record) = match Journal::resume(&ground.folder, name) {
        Ok(known) => known,
        Err(JournalError::Ended(_)) => return Ok(()),
        Err(error) => return Err(End::failed(&error)),
    };
    let options = MoveOptions { method: record.begun.method, ..MoveOptions::default() };
    let prepared = mover::prepare_again(&record, &ground.admin.access, &options).await?;
    run(ground, prepared, journal, job).await
}

async fn run(
    ground: &Ground,
    prepared: Prepared,
    mut journal: Journal,
    job: &Job,
) -> Result<(), End> {
    job.writes_to(journal.id());
    job.enter("moving");
    job.note(format!("{} keys are to be moved, about {} bytes", prepared.keys(), prepared.bytes()));
    prepared.warnings().iter().for_each(|warning| job.note(warning.clone()));
    let mut tell = |event: mover::Event| {
        if let mover::Event::Taken(part) | mover::Event::Closed(part) = &event {
            (ground.admin.hand_over)(part);
        }
        job.take(&event);
    };
    let summary = prepared.run(&mut journal, &job.reins, &mut tell).await?;
    (ground.admin.refresh)();
    if !summary.skipped.is_empty() {
        return Err(End::failed(&format!("slots {} have big keys and stayed", summary.skipped)));
    }
    Ok(())
}
