//! The jobs of this proxy: one at a time changes the cluster. `PROXY JOB …`.
//!
//! A job runs on a thread of its own, so that it never keeps the control thread from anything. What it tells goes into its
//! status, from where it is read; what is wanted of it goes through its reins.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::Admin;
use super::answer::Answer;
use super::cluster;
use super::complaint::Complaint;
use super::job::{End, Job, now_ms};
use super::ledger::{self, Book, Ordered};
use super::order::{self, Request};
use super::run::{self, Ground};
use super::words::{Outcome, arity, unknown_subcommand};
use crate::manage::journal::{self, Record};
use crate::manage::pace::Rate;
use crate::manage::uri;

/// Jobs that are over and still known.
const KEPT: usize = 100;

/// How long to wait for a cluster that does not answer before it is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// The jobs, the oldest first.
#[derive(Debug, Default)]
pub struct Jobs(Mutex<Vec<Arc<Job>>>);

impl Jobs {
    fn all(&self) -> MutexGuard<'_, Vec<Arc<Job>>> {
        // Nothing is left half done in it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Option<Arc<Job>> {
        self.all().iter().find(|job| job.id == id).cloned()
    }

    fn running(&self) -> Option<Arc<Job>> {
        self.all().iter().find(|job| !job.state().is_over()).cloned()
    }

    /// The job that was begun with this token, if the words are the same.
    fn known(&self, token: &str, words: &[String]) -> Result<Option<Arc<Job>>, Complaint> {
        let jobs = self.all();
        match jobs.iter().find(|job| job.ordered.token.as_deref() == Some(token)) {
            None => Ok(None),
            Some(job) if job.ordered.words == words => Ok(Some(Arc::clone(job))),
            Some(job) => Err(Complaint::Conflict(format!(
                "{token} is the token of {}, which is another one",
                job.id
            ))),
        }
    }

    /// Takes up a job unless one runs.
    fn admit(
        &self,
        make: impl FnOnce(String) -> Result<Job, Complaint>,
    ) -> Result<Arc<Job>, Complaint> {
        let mut jobs = self.all();
        if let Some(job) = jobs.iter().find(|job| !job.state().is_over()) {
            return Err(Complaint::JobRunning(job.id.clone()));
        }
        let mut at = now_ms();
        let id = |at: u64| format!("j-{at:014}-{}", std::process::id());
        while jobs.iter().any(|job| job.id == id(at)) {
            at += 1;
        }
        let job = Arc::new(make(id(at))?);
        // Earlier proxies may have left more.
        let over = (jobs.len() + 1).saturating_sub(KEPT);
        jobs.drain(..over);
        jobs.push(Arc::clone(&job));
        Ok(job)
    }

    /// Takes in what earlier processes have left.
    fn remember(&self, earlier: Vec<Arc<Job>>) {
        self.all().splice(0..0, earlier);
    }

    fn forget(&self, id: &str) {
        self.all().retain(|job| job.id != id);
    }

    /// Has what runs finish the slots that are on their way, or leave them open if that takes too long: the next proxy can
    /// go on with it.
    pub async fn wind_up(&self, patience: Duration) {
        for at_once in [false, true] {
            let Some(job) = self.running() else { return };
            job.cancel(at_once);
            let over = async {
                while !job.state().is_over() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            // One that does not even stop at once is resumed as one that was killed.
            let _ = tokio::time::timeout(patience, over).await;
        }
    }
}

/// What comes of an order.
pub(super) enum Begun {
    /// Only the plan was wanted.
    Plan(Value),
    /// A job does it, and the client wants to wait so long for its end.
    Job(Arc<Job>, Option<Duration>),
}

/// `PROXY CLUSTER <verb> …` with a verb that changes the cluster.
pub(super) async fn begin(admin: &Arc<Admin>, words: &[&str]) -> Result<Begun, Complaint> {
    let request = order::parse(words)?;
    let Request { token, is_dry, sync, .. } = request.clone();
    // What is secret is not written down.
    let words: Vec<String> = words.iter().map(|word| uri::masked(word)).collect();
    if let Some(token) = &token
        && let Some(job) = admin.jobs.known(token, &words)?
    {
        return Ok(Begun::Job(job, sync));
    }
    if let Some(job) = admin.jobs.running().filter(|_| !is_dry) {
        return Err(Complaint::JobRunning(job.id.clone()));
    }
    let ground = ground(admin)?;
    let (plan, members) = run::plan(&ground, &request).await?;
    let plan = run::stamped(plan);
    if let Some(expected) = request.if_plan.as_ref().filter(|hash| plan["plan_hash"] != **hash) {
        let text = format!("the plan is not {expected} any more: look at it again with DRYRUN");
        return Err(Complaint::Precondition(text));
    }
    if is_dry {
        return Ok(Begun::Plan(plan));
    }
    let (kind, method) = (request.order.kind().to_owned(), request.options.method);
    let (said, token) = (words.clone(), token.as_deref());
    let ordered = Ordered { kind, words, token: token.map(str::to_owned), method, plan, members };
    let job = match admit(admin, &ground, ordered) {
        Ok(job) => job,
        // It may be the same order, which came again while this one was planned.
        Err(busy) => {
            let known = token.map(|token| admin.jobs.known(token, &said)).transpose()?.flatten();
            return known.map(|job| Begun::Job(job, sync)).ok_or(busy);
        }
    };
    pace(&job);
    tracing::info!(job = job.id, kind = job.ordered.kind, plan = %job.ordered.plan, "an administrator began a job");
    spawn(&job, move |job| async move { run::carry_out(&ground, &request, &job).await })?;
    Ok(Begun::Job(job, sync))
}

/// Takes up a job, and writes it down before anything is done.
fn admit(admin: &Admin, ground: &Ground, ordered: Ordered) -> Result<Arc<Job>, Complaint> {
    admin.jobs.admit(|id| {
        let book = Book::begin(&ground.folder, &id, &ordered);
        let book = book.map_err(|error| {
            let folder = ground.folder.display();
            Complaint::Precondition(format!("the job cannot be written down in {folder}: {error}"))
        })?;
        Ok(Job::new(id, ordered, Some(book)))
    })
}

/// Takes in the jobs of earlier proxies, and gives those that were cut off with them.
pub(super) fn recall(admin: &Arc<Admin>) -> Vec<Arc<Job>> {
    let Ok(ground) = ground(admin) else { return Vec::new() };
    let (mut all, mut cut_off) = (Vec::new(), Vec::new());
    for told in ledger::read(&ground.folder) {
        let is_cut_off = told.book.is_some();
        let job = Arc::new(Job::again(told));
        pace(&job);
        cut_off.extend(is_cut_off.then(|| Arc::clone(&job)));
        all.push(job);
    }
    admin.jobs.remember(all);
    cut_off
}

/// Goes on with jobs that were cut off, once the cluster answers; those of another cluster are left alone.
pub(super) async fn adopt(admin: &Arc<Admin>, cut_off: Vec<Arc<Job>>) {
    for job in cut_off {
        let view = loop {
            match cluster::gather(admin).await {
                Ok(view) => break view,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        if !job.ordered.members.iter().any(|id| view.lines().any(|line| line.id == *id)) {
            admin.jobs.forget(&job.id);
            continue;
        }
        tracing::info!(job = job.id, kind = job.ordered.kind, "a job of an earlier proxy goes on");
        if let Err(error) = go_on(admin, &job) {
            tracing::error!(job = job.id, %error, "a job of an earlier proxy cannot go on");
        }
        job.ended().await;
    }
}

/// Holds a job to the pace that was ordered, until another one is.
fn pace(job: &Job) {
    let words: Vec<&str> = job.ordered.words.iter().map(String::as_str).collect();
    // Who resumes the moves of another program orders none.
    if let Ok(request) = order::parse(&words) {
        job.reins.set_rate(request.rate);
        job.reins.set_max_block(request.options.max_block);
    }
}

/// Does what is left of a job.
fn go_on(admin: &Arc<Admin>, job: &Arc<Job>) -> Result<(), Complaint> {
    let ground = ground(admin)?;
    spawn(job, move |job| async move { run::go_on(&ground, &job).await })
}

fn ground(admin: &Arc<Admin>) -> Result<Ground, Complaint> {
    Ok(Ground { admin: Arc::clone(admin), folder: folder(admin)? })
}

fn folder(admin: &Admin) -> Result<PathBuf, Complaint> {
    admin.state_folder.clone().or_else(journal::default_folder).ok_or_else(|| {
        Complaint::Precondition("there is no folder for journals: set admin.state_folder".into())
    })
}

/// Does it on a thread of its own.
fn spawn<F: Future<Output = Result<(), End>>>(
    job: &Arc<Job>,
    work: impl FnOnce(Arc<Job>) -> F + Send + 'static,
) -> Result<(), Complaint> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let failed = |error: std::io::Error| {
        job.end(Err(End::failed(&error)));
        Complaint::Precondition(error.to_string())
    };
    let runtime = runtime.map_err(failed)?;
    let own = Arc::clone(job);
    let run = move || {
        own.enter("preflight");
        let work = AssertUnwindSafe(|| runtime.block_on(work(Arc::clone(&own))));
        // A job that nobody ends would keep all others from beginning.
        own.end(catch_unwind(work).unwrap_or_else(|_| Err(End::broken())));
        tracing::info!(job = own.id, state = ?own.state(), "a job is over");
    };
    std::thread::Builder::new().name("job".to_owned()).spawn(run).map(drop).map_err(failed)
}

/// `PROXY JOB …`; at least one word is given.
pub(super) fn answer(admin: &Arc<Admin>, words: &[&str]) -> Outcome {
    let verb = words[0].to_ascii_uppercase();
    // `STATUS ID x` says the same as `STATUS x`.
    let rest = match words[1..] {
        [word, ref rest @ ..] if word.eq_ignore_ascii_case("id") && !rest.is_empty() => rest,
        ref rest => rest,
    };
    match (verb.as_str(), rest) {
        ("LIST", []) => list(admin, false),
        ("LIST", [word]) if word.eq_ignore_ascii_case("active") => list(admin, true),
        ("STATUS", [word]) if word.eq_ignore_ascii_case("all") => {
            let jobs = admin.jobs.all();
            Ok(Answer::List(jobs.iter().map(|job| job.fields()).collect()))
        }
        ("STATUS", [id]) => Ok(find(admin, id)?.fields()),
        ("LOG", [id]) => Ok(find(admin, id)?.lines(usize::MAX)),
        ("LOG", [id, word, count]) if word.eq_ignore_ascii_case("count") => {
            let count =
                count.parse().map_err(|_| Complaint::BadArg("COUNT is no number".into()))?;
            Ok(find(admin, id)?.lines(count))
        }
        ("PLAN", [id]) => Ok(Answer::Json(find(admin, id)?.ordered.plan.clone())),
        ("PAUSE", [id]) => told(admin, id, Job::pause),
        ("CANCEL", [all]) if all.eq_ignore_ascii_case("all") => Ok(cancel_all(admin, false)),
        ("CANCEL", [all, now])
            if all.eq_ignore_ascii_case("all") && now.eq_ignore_ascii_case("now") =>
        {
            Ok(cancel_all(admin, true))
        }
        ("CANCEL", [id]) => told(admin, id, |job| job.cancel(false)),
        ("CANCEL", [id, now]) if now.eq_ignore_ascii_case("now") => {
            told(admin, id, |job| job.cancel(true))
        }
        ("RESUME", [id]) => resume(admin, id),
        ("SETRATE", [id, pace @ ..]) if !pace.is_empty() => set_pace(admin, id, pace),
        (
            "LIST" | "STATUS" | "PLAN" | "WATCH" | "LOG" | "PAUSE" | "CANCEL" | "RESUME"
            | "SETRATE",
            _,
        ) => Err(arity(&format!("proxy|job|{}", verb.to_ascii_lowercase()))),
        _ => Err(unknown_subcommand("PROXY JOB", words[0])),
    }
}

/// `PROXY JOB SETRATE <id> [<rate>] [MAXBLOCK <ms>]`.
fn set_pace(admin: &Admin, id: &str, words: &[&str]) -> Outcome {
    let (rate, ms) = match *words {
        [word, ms] if word.eq_ignore_ascii_case("maxblock") => (None, Some(ms)),
        [rate, word, ms] if word.eq_ignore_ascii_case("maxblock") => (Some(rate), Some(ms)),
        [rate] => (Some(rate), None),
        _ => return Err(arity("proxy|job|setrate")),
    };
    let bad = |text: &str| Complaint::BadArg(text.to_owned());
    let rate = rate.map(str::parse::<Rate>).transpose().map_err(|_| {
        bad("the rate is a number of keys each second, or <n>MiB/s; 0 for no limit")
    })?;
    let ms: Option<u64> = ms
        .map(str::parse)
        .transpose()
        .ok()
        .filter(|ms| *ms != Some(0))
        .ok_or_else(|| bad("MAXBLOCK is a number of milliseconds from 1 on"))?;
    if matches!(rate, Some(Rate::Bytes(_))) && find(admin, id)?.ordered.kind == "import" {
        return Err(bad(order::WEIGHTLESS));
    }
    told(admin, id, |job| {
        if let Some(rate) = rate {
            job.reins.set_rate(rate);
            job.note(rate.to_string());
        }
        if let Some(ms) = ms {
            job.reins.set_max_block(Duration::from_millis(ms));
            job.note(format!("no batch stops a node for longer than {ms} ms"));
        }
    })
}

/// `PROXY JOB WATCH …`: the job that is meant.
pub(super) fn watched(admin: &Admin, words: &[&str]) -> Result<Arc<Job>, Complaint> {
    match words {
        [id] => find(admin, id),
        [word, id] if word.eq_ignore_ascii_case("id") => find(admin, id),
        _ => Err(arity("proxy|job|watch")),
    }
}

pub(super) fn find(admin: &Admin, id: &str) -> Result<Arc<Job>, Complaint> {
    admin.jobs.find(id).ok_or_else(|| Complaint::NotFound(format!("there is no job {id}")))
}

/// Whatever runs, or waits for its turn.
fn cancel_all(admin: &Admin, at_once: bool) -> Answer {
    let jobs = admin.jobs.all();
    let cancelled = jobs.iter().filter(|job| !job.state().is_over());
    Answer::count(cancelled.map(|job| job.cancel(at_once)).count())
}

/// Tells a job that runs to do something.
fn told(admin: &Admin, id: &str, tell: impl FnOnce(&Job)) -> Outcome {
    let job = find(admin, id)?;
    if job.state().is_over() {
        return Err(Complaint::Precondition(format!("job {id} is over")));
    }
    tell(&job);
    Ok(Answer::ok())
}

/// Those of this proxy, then those that others have left behind.
fn list(admin: &Admin, active: bool) -> Outcome {
    let jobs = admin.jobs.all().clone();
    let wanted = jobs.iter().filter(|job| !active || !job.state().is_over());
    let mut rows: Vec<Answer> = wanted.map(|job| job.fields()).collect();
    let ours: Vec<String> = jobs.iter().filter_map(|job| job.journal()).collect();
    for record in cut_off(admin)?.iter().filter(|record| !active && !ours.contains(&record.id)) {
        let total: usize = record.begun.moves.iter().map(|part| part.slots.len()).sum();
        rows.push(Answer::map([
            ("id", record.id.as_str().into()),
            ("kind", "moves".into()),
            ("state", "failed".into()),
            ("slots_total", Answer::count(total)),
            ("slots_done", Answer::count(record.closed.len())),
            ("resumable", Answer::Flag(true)),
        ]));
    }
    Ok(Answer::List(rows))
}

fn cut_off(admin: &Admin) -> Result<Vec<Record>, Complaint> {
    let records = journal::unended(&folder(admin)?);
    let records = records.map_err(|error| Complaint::Precondition(error.to_string()))?;
    Ok(records.into_iter().filter(|record| record.is_resumable() && !record.is_whole).collect())
}

/// Lets a job go on that was paused; or takes up the moves of one that was cut off, of this proxy or another program.
fn resume(admin: &Arc<Admin>, id: &str) -> Outcome {
    let job = admin.jobs.find(id);
    if let Some(job) = job.as_ref().filter(|job| !job.state().is_over()) {
        job.resume();
        return Ok(Answer::ok());
    }
    let ordered = match &job {
        Some(job) if job.is_resumable() => job.ordered.clone(),
        Some(_) => return Err(Complaint::Precondition(format!("job {id} is over"))),
        None => of_journal(admin, id)?,
    };
    let ground = ground(admin)?;
    let next = admit(admin, &ground, ordered)?;
    pace(&next);
    if let Some(journal) = job.map_or_else(|| Some(id.to_owned()), |job| job.journal()) {
        next.writes_to(&journal);
    }
    tracing::info!(job = next.id, instead = id, "an administrator resumed a job");
    go_on(admin, &next)?;
    Ok(next.id.as_str().into())
}

/// To go on with moves of another program, or of a proxy that knew no more of its jobs.
fn of_journal(admin: &Admin, id: &str) -> Result<Ordered, Complaint> {
    let records = journal::records(&folder(admin)?);
    let records = records.map_err(|error| Complaint::Precondition(error.to_string()))?;
    let record = records.into_iter().find(|record| record.id == id);
    let record = record.ok_or_else(|| Complaint::NotFound(format!("there is no job {id}")))?;
    if record.is_running {
        return Err(Complaint::JobRunning(id.to_owned()));
    }
    if record.ended.is_some() {
        return Err(Complaint::Precondition(format!("job {id} is over")));
    }
    Ok(Ordered {
        kind: "resume".to_owned(),
        words: vec!["RESUME".to_owned(), id.to_owned()],
        token: None,
        method: record.begun.method,
        plan: run::stamped(json!({ "moves": record.begun.moves })),
        members: record.begun.members.into_iter().map(|member| member.id).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::mover::Method;

    #[test]
    fn jobs_that_are_known_are_bounded_whatever_earlier_proxies_have_left() {
        let make = |id: String| {
            let (kind, words, members) = ("reshard".to_owned(), Vec::new(), Vec::new());
            let (method, plan) = (Method::Auto, Value::Null);
            Job::new(id, Ordered { kind, words, token: None, method, plan, members }, None)
        };
        let earlier = (0..KEPT + 5).map(|n| Arc::new(make(n.to_string())));
        let earlier: Vec<_> = earlier.inspect(|job| job.end(Ok(()))).collect();
        let jobs = Jobs::default();
        jobs.remember(earlier);
        let job = jobs.admit(|id| Ok(make(id))).unwrap();
        assert_eq!(jobs.all().len(), KEPT);
        assert_eq!(jobs.running().map(|running| running.id.clone()), Some(job.id.clone()));
    }
}
