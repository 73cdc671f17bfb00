//! Moving slots with a terminal in front of it: what the plan costs, a bar while it runs, Ctrl-C, and jobs that were cut off.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Job;
use super::moves::place;
use super::out::{self, Exit, Outcome};
use crate::cluster::{NodeId, Slots};
use crate::manage::journal::{Journal, Record};
use crate::manage::mover::{
    self, BigKeys, Event, Method, MoveError, MoveOptions, Prepared, Progress, Reins, Summary,
    Suspicion,
};
use crate::manage::pace::Rate;
use crate::manage::plan::Move;
use crate::manage::view::ClusterView;

impl Job<'_> {
    /// Moves slots, after the question if there is one, and says what came of it.
    pub(super) async fn carry(
        &self,
        view: &ClusterView,
        moves: Vec<Move>,
        question: Option<&str>,
    ) -> Outcome {
        Ok(self.moved(&self.move_slots(view, moves, question).await?))
    }

    /// Moves slots, after the question if there is one. If that is only to be shown, or is not wanted, it ends here.
    pub(super) async fn move_slots(
        &self,
        view: &ClusterView,
        moves: Vec<Move>,
        question: Option<&str>,
    ) -> Outcome<Summary> {
        if self.plan_out(view, &moves)? {
            self.out.answer(&json!({ "ok": true, "moves": moves }));
            return Err(Exit::Success);
        }
        let options = self.move_options()?;
        let prepared = mover::prepare(moves.clone(), view, &self.access, &options).await;
        let prepared = prepared.map_err(|error| self.not_moved(&error, None))?;
        self.show_cost(&prepared);
        if self.line.has("dry-run") || self.line.has("simulate") {
            let shown = Shown::new(&moves, view);
            shown.pairs.values().for_each(|pair| self.say_pair(pair));
            let (keys, bytes) = (prepared.keys(), prepared.bytes());
            self.out.answer(&json!({ "ok": true, "moves": moves, "keys": keys, "bytes": bytes }));
            return Err(Exit::Success);
        }
        if let Some(question) = question
            && !self.out.confirm(question, self.says_yes())?
        {
            return Err(Exit::Failure);
        }
        let (folder, hold) = (self.state_folder()?, self.hold()?);
        let mut journal =
            Journal::begin(&folder, prepared.begun()).map_err(|error| self.no_journal(&error))?;
        self.run_job(prepared, &mut journal, Shown::new(&moves, view), hold).await
    }

    /// How long one transfer may take, if that is given.
    pub(super) fn transfer(&self) -> Outcome<Option<Duration>> {
        let given: Option<u64> = self.flag(self.line.number("timeout"))?;
        // To `MIGRATE`, and so to the other tools, 0 is a second.
        Ok(given.map(|ms| Duration::from_millis(if ms == 0 { 1000 } else { ms })))
    }

    pub(super) fn move_options(&self) -> Outcome<MoveOptions> {
        let usual = MoveOptions::default();
        if self.line.has("replace") {
            out::note(
                "Note: --cluster-replace changes nothing here. The owner of a slot is right about its keys: what other nodes have \
                 of them is always replaced.",
            );
        }
        let ms: Option<u64> = self.flag(self.line.number("max-block-ms"))?;
        let big_keys = match self.flag(self.line.value("big-keys"))? {
            None | Some("fail") => BigKeys::Fail,
            Some("skip") => BigKeys::Skip,
            Some("allow") => BigKeys::Allow,
            Some(other) => {
                let text = format!("--big-keys: {other:?} is neither fail, skip nor allow");
                return Err(self.out.complain(Exit::Usage, &text));
            }
        };
        Ok(MoveOptions {
            method: self.method()?,
            max_block: ms.map_or(usual.max_block, Duration::from_millis),
            duty: self.flag(self.line.number("duty"))?.unwrap_or(usual.duty).clamp(1, 100),
            parallel: self.flag(self.line.number("parallel"))?.unwrap_or(usual.parallel),
            batch: self.batch()?.unwrap_or(usual.batch),
            transfer: self.transfer()?,
            big_keys,
            patience: if self.line.has("wait") { self.patience } else { usual.patience },
            ..usual
        })
    }

    fn method(&self) -> Outcome<Method> {
        match self.flag(self.line.value("method"))? {
            None if self.line.has("use-atomic-slot-migration") => Ok(Method::Asm),
            // The servers cannot be told to be slower.
            None if self.line.has("rate") => Ok(Method::Legacy),
            None | Some("auto") => Ok(Method::Auto),
            Some("asm") => Ok(Method::Asm),
            Some("legacy") => Ok(Method::Legacy),
            Some(other) => {
                let text = format!("--method: {other:?} is neither auto, asm nor legacy");
                Err(self.out.complain(Exit::Usage, &text))
            }
        }
    }

    pub(super) fn show_cost(&self, prepared: &Prepared) {
        if prepared.keys() > 0 {
            self.out.info(&format!(
                ">>> {} keys are to be moved, about {}.",
                prepared.keys(),
                HumanBytes(prepared.bytes())
            ));
        }
        if prepared.atomic() > 0 {
            let slots = prepared.atomic();
            self.out.info(&format!(">>> Atomic slot migration moves {slots} of the slots."));
        }
        for warning in prepared.warnings() {
            self.out.warning(&format!("[WARNING] {warning}"));
        }
        for key in prepared.big_keys() {
            self.out.warning(&format!(
                "[WARNING] key {} of slot {} takes {}",
                key.name,
                key.slot,
                HumanBytes(key.bytes)
            ));
        }
    }

    /// Runs it with a bar on a terminal; Ctrl-C once has it finish the slots that are on their way, twice stops it.
    pub(super) async fn run_job(
        &self,
        prepared: Prepared,
        journal: &mut Journal,
        mut shown: Shown,
        hold: Hold,
    ) -> Outcome<Summary> {
        let id = journal.id().to_owned();
        let reins = hold.reins.clone();
        let bar = self.bar();
        let mut tell = |event: Event| self.tell_of_move(&event, &bar, &mut shown);
        let moved = self.held(hold, &bar, prepared.run(journal, &reins, &mut tell)).await;
        moved.map_err(|error| self.not_moved(&error, Some(&id)))
    }

    /// Does something that moves slots: told to stop it finishes those that are on their way, told again it stops.
    pub(super) async fn held<T>(
        &self,
        mut hold: Hold,
        bar: &ProgressBar,
        running: impl Future<Output = T>,
    ) -> T {
        let mut running = std::pin::pin!(running);
        let mut asked = 0;
        loop {
            tokio::select! {
                done = &mut running => {
                    bar.finish_and_clear();
                    return done;
                }
                () = hold.told() => asked += 1,
            }
            if asked == 1 {
                bar.suspend(|| {
                    self.out.warning(
                        "*** finishing the slots that are on their way; once more to stop at once",
                    );
                });
                hold.reins.finish();
            } else {
                hold.reins.halt();
            }
        }
    }

    /// Listens for signals from here on: before the journal says that there is a job.
    pub(super) fn hold(&self) -> Outcome<Hold> {
        let reins = Reins::default();
        reins.set_rate(self.flag(self.line.number::<Rate>("rate"))?.unwrap_or_default());
        let hangup = (!is_hangup_ignored()).then(|| signal(SignalKind::hangup())).transpose();
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), hangup) {
            (Ok(interrupt), Ok(terminate), Ok(hangup)) => {
                Ok(Hold { reins, interrupt, terminate, hangup })
            }
            _ => Err(self.out.complain(Exit::Failure, "[ERR] signals cannot be heard")),
        }
    }

    pub(super) fn bar(&self) -> ProgressBar {
        if self.out.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}");
        let bar = ProgressBar::new(1000);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    }

    pub(super) fn tell_of_move(&self, event: &Event, bar: &ProgressBar, shown: &mut Shown) {
        match event {
            Event::Progress(progress) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a share is from 0 to 1"
                )]
                bar.set_position((progress.share() * 1000.0) as u64);
                bar.set_message(figures(progress));
            }
            Event::Closed(part) => {
                let lines = shown.closed(part, self.line.verb.name != "reshard");
                bar.suspend(|| lines.iter().for_each(|line| self.out.plain(line)));
            }
            Event::Setback { slots, what } => bar
                .suspend(|| self.out.warning(&format!("*** slots {slots}: {what}; trying again"))),
            Event::Heir { of, is } => {
                bar.suspend(|| self.out.warning(&format!("*** {is} has taken the place of {of}")));
            }
            Event::ReplicasBehind { of, count } => {
                bar.suspend(|| {
                    self.out.warning(&format!("[WARNING] {count} replicas of {of} are behind"));
                });
            }
            Event::Quarantined { count, file } => bar.suspend(|| {
                self.out.warning(&format!(
                    "[WARNING] {count} copies of keys that differed from the right ones are kept in {}",
                    file.display()
                ));
            }),
            Event::Warning(text) => bar.suspend(|| self.out.warning(&format!("[WARNING] {text}"))),
            Event::Stage { slots, stage } if self.out.verbose => {
                bar.suspend(|| self.out.plain(&format!("    slots {slots}: {stage}")));
            }
            Event::KeyByKey { from, to, why } => bar.suspend(|| {
                self.out.warning(&format!(
                    "[WARNING] {why}; what is left to go from {from} to {to} goes key by key"
                ));
            }),
            Event::Suspicious(suspicion) => {
                bar.suspend(|| self.out.warning(&suspicious(suspicion)));
            }
            Event::Opened(_) | Event::Taken(_) | Event::Stage { .. } | Event::Settling => {}
        }
    }

    fn say_pair(&self, pair: &Pair) {
        self.out.plain(&format!("Moving {} slots from {} to {}", pair.slots, pair.from, pair.to));
        self.out.plain(&"#".repeat(pair.slots));
    }

    pub(super) fn moved(&self, summary: &Summary) -> Exit {
        if !summary.skipped.is_empty() {
            self.out.warning(&format!(
                "[WARNING] slots {} were left where they are: they have big keys",
                summary.skipped
            ));
        }
        let is_clean = summary.is_clean();
        self.out.answer(&json!({ "ok": is_clean, "summary": summary }));
        if is_clean { Exit::Success } else { Exit::Partial }
    }

    pub(super) fn not_moved(&self, error: &MoveError, job: Option<&str>) -> Exit {
        let resume = job
            .map(|id| format!("\n      Go on with: slotway cluster resume {id}"))
            .unwrap_or_default();
        match error {
            MoveError::Refused(reasons) => {
                let mut lines: Vec<String> =
                    reasons.iter().map(|reason| format!("[ERR] {reason}")).collect();
                lines.dedup();
                self.out.fail(Exit::Refused, &lines.join("\n"))
            }
            MoveError::Stopped(_) | MoveError::Halted | MoveError::Paused(_) => {
                self.out.fail(Exit::Resumable, &format!("[ERR] {error}{resume}"))
            }
            MoveError::View(error) => {
                self.out.fail(Exit::Failure, &format!("[ERR] {error}{resume}"))
            }
            MoveError::Journal(error) => self.no_journal(error),
        }
    }
}

/// What is said of slots that have arrived otherwise than they should have.
fn suspicious(Suspicion { part, said }: &Suspicion) -> String {
    let Move { from, to, slots } = part;
    format!(
        "[WARNING] {to} owns slots {slots}, but a node says of their migration: {said}. Writes that {from} acknowledged \
         at that moment may be lost. It is not tried again."
    )
}

/// What the user holds a move by.
pub(super) struct Hold {
    pub(super) reins: Reins,
    interrupt: Signal,
    terminate: Signal,
    /// The terminal is gone. None below `nohup`, which wants that to change nothing.
    hangup: Option<Signal>,
}

impl Hold {
    /// Waits until it is told to stop.
    pub(super) async fn told(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Whether whoever started us has a hangup ignored, as `nohup` does; elsewhere than on Linux that is not known.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // SIGHUP is the first signal.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

/// What a bar tells beside how long it is.
fn figures(progress: &Progress) -> String {
    let seconds = progress.elapsed.as_secs_f64().max(0.001);
    #[expect(clippy::cast_precision_loss, reason = "it is shown without fractions")]
    let rate = progress.keys as f64 / seconds;
    let left =
        progress.remaining().map(|left| format!(", {} s left", left.as_secs())).unwrap_or_default();
    let Progress { slots, slots_total, keys, bytes, .. } = progress;
    format!(
        "{slots}/{slots_total} slots, {keys} keys, {}, {rate:.0} keys/s{left}",
        HumanBytes(*bytes)
    )
}

/// How far each pair of nodes is, for the lines that tell of it.
pub(super) struct Shown {
    pairs: BTreeMap<(NodeId, NodeId), Pair>,
}

struct Pair {
    from: String,
    to: String,
    slots: usize,
    done: usize,
}

impl Shown {
    pub(super) fn new(moves: &[Move], view: &ClusterView) -> Self {
        let mut pairs: BTreeMap<(NodeId, NodeId), Pair> = BTreeMap::new();
        for Move { from, to, slots } in moves {
            let pair = pairs.entry((from.clone(), to.clone()));
            let new = || Pair { from: place(view, from), to: place(view, to), slots: 0, done: 0 };
            pair.or_insert_with(new).slots += slots.len();
        }
        Self { pairs }
    }

    /// Addresses as a journal has them.
    pub(super) fn places(&mut self, record: &Record) {
        let place = |id: &NodeId| {
            record
                .begun
                .members
                .iter()
                .find(|member| member.id == *id)
                .map(|member| member.address.to_string())
        };
        for ((from, to), pair) in &mut self.pairs {
            pair.from = place(from).unwrap_or_else(|| from.to_string());
            pair.to = place(to).unwrap_or_else(|| to.to_string());
        }
    }

    /// The lines for slots that have arrived: one for each, or one for a pair of nodes when it is done.
    fn closed(&mut self, part: &Move, by_pair: bool) -> Vec<String> {
        // After a failover it is another pair.
        let Some(pair) = self.pairs.get_mut(&(part.from.clone(), part.to.clone())) else {
            return one_by_one(&part.slots, part.from.0.as_ref(), part.to.0.as_ref());
        };
        pair.done += part.slots.len();
        match by_pair {
            false => one_by_one(&part.slots, &pair.from, &pair.to),
            true if pair.done < pair.slots => Vec::new(),
            true => vec![
                format!("Moving {} slots from {} to {}", pair.slots, pair.from, pair.to),
                "#".repeat(pair.slots),
            ],
        }
    }
}

fn one_by_one(slots: &Slots, from: &str, to: &str) -> Vec<String> {
    slots.iter().map(|slot| format!("Moving slot {slot} from {from} to {to}: ")).collect()
}
