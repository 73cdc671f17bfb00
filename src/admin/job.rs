//! One job: what is known of it while it runs and after, and the hold on it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::answer::Answer;
use super::ledger::{Book, Ordered, Told};
use crate::manage::mover::{Event, MoveError, Progress, Reins};
use crate::manage::plan::Move;

/// Lines of its log that are kept.
const LINES: usize = 1000;
/// Warnings that its status has, the first ones; further ones are in the log.
const WARNINGS: usize = 100;

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    #[default]
    Queued,
    Preflight,
    Planned,
    Running,
    Paused,
    Verifying,
    Cancelling,
    Completed,
    Cancelled,
    Failed,
}

impl State {
    /// That of a job which goes through a phase.
    fn of(phase: &str) -> Self {
        match phase {
            "preflight" => Self::Preflight,
            "planned" => Self::Planned,
            "verifying" => Self::Verifying,
            _ => Self::Running,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Preflight => "preflight",
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Verifying => "verifying",
            Self::Cancelling => "cancelling",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::Failed)
    }
}

/// A job. What happens goes one way: from the thread that does it into the status, which others read.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) ordered: Ordered,
    pub(super) reins: Reins,
    course: Mutex<Course>,
    /// Is told whenever the status has changed.
    changed: watch::Sender<()>,
}

/// What is known of a job, and where it is written down.
#[derive(Debug)]
struct Course {
    status: Status,
    log: VecDeque<(u64, String)>,
    /// As long as it runs.
    book: Option<Book>,
}

/// How a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) state: State,
    phase: String,
    created_ms: u64,
    /// When somebody began to do it.
    started_ms: Option<u64>,
    updated_ms: u64,
    ended_ms: Option<u64>,
    progress: Progress,
    open: usize,
    current: Option<Move>,
    retries: u64,
    last_error: Option<String>,
    warnings: Vec<String>,
    /// The journal that the moves are written to.
    journal: Option<String>,
    is_resumable: bool,
}

/// How a job came to its end before it was done.
#[derive(Debug)]
pub(super) enum End {
    /// It was told to stop.
    Stopped { is_resumable: bool },
    /// It could not go on.
    Failed { what: String, is_resumable: bool },
}

impl End {
    pub(super) fn failed(what: &impl ToString) -> Self {
        Self::Failed { what: what.to_string(), is_resumable: false }
    }

    /// By a fault of the proxy's own.
    pub(super) fn broken() -> Self {
        let what = "the proxy has a fault, which its log tells of; RESUME goes on".to_owned();
        Self::Failed { what, is_resumable: true }
    }
}

impl From<MoveError> for End {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Stopped(_) | MoveError::Halted => Self::Stopped { is_resumable: true },
            MoveError::Paused(what) => Self::Failed { what, is_resumable: true },
            MoveError::Refused(_) | MoveError::View(_) | MoveError::Journal(_) => {
                Self::failed(&error)
            }
        }
    }
}

impl Job {
    /// One that is ordered now, and is written down.
    pub(super) fn new(id: String, ordered: Ordered, book: Option<Book>) -> Self {
        let now = now_ms();
        let phase = "queued".to_owned();
        let status = Status { phase, created_ms: now, updated_ms: now, ..Status::default() };
        Self::known(id, ordered, Course { status, log: VecDeque::new(), book })
    }

    /// One of an earlier process, which is over or was cut off.
    pub(super) fn again(told: Told) -> Self {
        let Told { id, ordered, status, log, book } = told;
        let skipped = log.len().saturating_sub(LINES);
        let mut course = Course { status, log: log.into_iter().skip(skipped).collect(), book };
        if course.book.is_some() {
            course.status.state = State::Queued;
            course.status.open = 0;
            course.note("its proxy was gone; taken up again".to_owned());
        }
        Self::known(id, ordered, course)
    }

    fn known(id: String, ordered: Ordered, course: Course) -> Self {
        let changed = watch::Sender::default();
        Self { id, ordered, reins: Reins::default(), course: Mutex::new(course), changed }
    }

    /// What is known, to be changed. Who waits for that looks at it when the caller is done.
    fn course(&self) -> MutexGuard<'_, Course> {
        let mut course = self.look();
        // It also tells one change from the next.
        course.status.updated_ms = now_ms().max(course.status.updated_ms + 1);
        self.changed.send_replace(());
        course
    }

    /// Tells of each change of the status, or of several at once.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until it is over.
    pub(super) async fn ended(&self) {
        let mut changes = self.changes();
        while !self.state().is_over() {
            // It lives as long as this does, and says when it changes.
            let _ = changes.changed().await;
        }
    }

    fn look(&self) -> MutexGuard<'_, Course> {
        // Nothing is left half done in it.
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> State {
        self.look().status.state
    }

    /// Is another one after each change.
    pub(super) fn version(&self) -> u64 {
        self.look().status.updated_ms
    }

    pub(super) fn is_resumable(&self) -> bool {
        let course = self.look();
        course.status.state.is_over() && course.status.is_resumable
    }

    pub(super) fn journal(&self) -> Option<String> {
        self.look().status.journal.clone()
    }

    /// Adds a line to its log.
    pub(super) fn note(&self, line: impl Into<String>) {
        self.course().note(line.into());
    }

    /// Tells of something that somebody should look at.
    pub(super) fn warn(&self, text: String) {
        let mut course = self.course();
        course.status.warn(&text);
        course.note(text);
    }

    /// A new part of it begins.
    pub(super) fn enter(&self, phase: &str) {
        let mut course = self.course();
        let status = &mut course.status;
        if !matches!(status.state, State::Paused | State::Cancelling) {
            status.state = State::of(phase);
        }
        status.started_ms.get_or_insert_with(now_ms);
        phase.clone_into(&mut status.phase);
        course.note(format!("phase {phase}"));
        course.keep();
    }

    pub(super) fn writes_to(&self, journal: &str) {
        let mut course = self.course();
        course.status.journal = Some(journal.to_owned());
        course.keep();
    }

    pub(super) fn pause(&self) {
        self.reins.pause();
        self.turn(State::Paused, "paused");
    }

    pub(super) fn resume(&self) {
        self.reins.resume();
        self.turn(State::Running, "resumed");
    }

    /// The slots on their way are finished first, unless it has to be at once.
    pub(super) fn cancel(&self, at_once: bool) {
        if at_once {
            self.reins.halt();
        } else {
            self.reins.resume();
            self.reins.finish();
        }
        self.turn(State::Cancelling, "cancelled");
    }

    fn turn(&self, state: State, line: &str) {
        let mut course = self.course();
        if !course.status.state.is_over() {
            course.status.state = state;
        }
        course.note(line.to_owned());
    }

    pub(super) fn end(&self, end: Result<(), End>) {
        let mut course = self.course();
        let status = &mut course.status;
        (status.state, status.is_resumable) = match &end {
            Ok(()) => (State::Completed, false),
            Err(End::Stopped { is_resumable }) => (State::Cancelled, *is_resumable),
            Err(End::Failed { is_resumable, .. }) => (State::Failed, *is_resumable),
        };
        status.ended_ms = Some(now_ms());
        let line = status.state.name().to_owned();
        if let Err(End::Failed { what, .. }) = end {
            status.last_error = Some(what.clone());
            course.note(what);
        }
        course.note(line);
        course.keep();
        course.book = None;
    }

    /// Takes up what the mover tells.
    pub(super) fn take(&self, event: &Event) {
        let mut course = self.course();
        let status = &mut course.status;
        let line = match event {
            Event::Opened(part) => {
                status.open += part.slots.len();
                status.current = Some(part.clone());
                return;
            }
            Event::Progress(progress) => {
                status.progress = *progress;
                return;
            }
            Event::Taken(_) => return,
            Event::Settling => {
                "settling".clone_into(&mut status.phase);
                if status.state == State::Running {
                    status.state = State::Verifying;
                }
                return;
            }
            Event::Closed(part) => {
                status.open = status.open.saturating_sub(part.slots.len());
                let Move { from, to, slots } = part;
                format!("slots {slots} went from {from} to {to}")
            }
            Event::Setback { slots, what } => {
                status.retries += 1;
                format!("slots {slots} are tried again: {what}")
            }
            Event::Warning(text) => {
                status.warn(text);
                text.clone()
            }
            Event::Quarantined { count, file } => {
                let text = format!("{count} copies that lost are kept in {}", file.display());
                status.warn(&text);
                text
            }
            other => serde_json::to_string(other).expect("our values can be written"),
        };
        course.note(line);
    }

    /// As `PROXY JOB STATUS` has it.
    pub(super) fn fields(&self) -> Answer {
        let course = self.look();
        let status = &course.status;
        let progress = &status.progress;
        let optional = |n: Option<u64>| n.map_or(Answer::Nil, Answer::count);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let rate = (progress.keys * 1000).checked_div(ms(progress.elapsed)).unwrap_or(0);
        let current =
            status.current.as_ref().filter(|_| status.open > 0).map_or(Answer::Nil, |part| {
                let texts = [part.slots.to_string(), part.from.to_string(), part.to.to_string()];
                Answer::List(texts.into_iter().map(Answer::from).collect())
            });
        let text = |text: &Option<String>| text.clone().map_or(Answer::Nil, Answer::from);
        let plan_hash = self.ordered.plan["plan_hash"].as_str();
        let nodes = self.ordered.members.iter().map(|id| Answer::from(&*id.0));
        let eta = progress.remaining().map(ms).filter(|_| !status.state.is_over());
        Answer::map([
            ("id", self.id.as_str().into()),
            ("kind", self.ordered.kind.as_str().into()),
            ("state", status.state.name().into()),
            ("phase", status.phase.as_str().into()),
            ("method", format!("{:?}", self.ordered.method).to_ascii_lowercase().into()),
            ("created_ms", Answer::count(status.created_ms)),
            ("started_ms", optional(status.started_ms)),
            ("updated_ms", Answer::count(status.updated_ms)),
            ("ended_ms", optional(status.ended_ms)),
            ("slots_total", Answer::count(progress.slots_total)),
            ("slots_done", Answer::count(progress.slots)),
            ("slots_open", Answer::count(status.open)),
            ("keys_moved", Answer::count(progress.keys)),
            ("bytes_moved", Answer::count(progress.bytes)),
            ("keys_estimated", Answer::count(progress.keys_total)),
            ("rate_keys_s", Answer::count(rate)),
            ("eta_ms", optional(eta)),
            ("current", current),
            ("retries", Answer::count(status.retries)),
            ("last_error", text(&status.last_error)),
            ("warnings", Answer::List(status.warnings.iter().cloned().map(Answer::from).collect())),
            ("resumable", Answer::Flag(status.is_resumable)),
            ("journal", text(&status.journal)),
            ("plan_hash", plan_hash.map_or(Answer::Nil, Answer::from)),
            ("nodes", Answer::List(nodes.collect())),
        ])
    }

    /// The last lines of its log, the oldest first.
    pub(super) fn lines(&self, count: usize) -> Answer {
        let log = &self.look().log;
        let skipped = log.len().saturating_sub(count);
        let line = |(at, text): &(u64, String)| Answer::from(format!("{at} {text}"));
        Answer::List(log.iter().skip(skipped).map(line).collect())
    }
}

impl Status {
    fn warn(&mut self, text: &str) {
        if self.warnings.len() < WARNINGS {
            self.warnings.push(text.to_owned());
        }
    }
}

impl Course {
    fn note(&mut self, line: String) {
        let at = now_ms();
        if let Some(book) = &mut self.book {
            book.log(at, &line);
        }
        if self.log.len() == LINES {
            self.log.pop_front();
        }
        self.log.push_back((at, line));
    }

    /// Writes down how it is.
    fn keep(&mut self) {
        if let Some(book) = &mut self.book {
            book.status(&self.status);
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job::new("j-1".into(), Ordered::reshard(), None)
    }

    #[test]
    fn from_beginning_to_end() {
        let job = job();
        assert_eq!(job.state(), State::Queued);
        for (phase, state) in [
            ("preflight", State::Preflight),
            ("planned", State::Planned),
            ("applying", State::Running),
            ("verifying", State::Verifying),
            ("moving", State::Running),
        ] {
            job.enter(phase);
            assert_eq!(job.state(), state);
        }
        job.pause();
        assert_eq!(job.state(), State::Paused);
        job.enter("verifying");
        assert_eq!(job.state(), State::Paused, "a pause is the operator's to end");
        job.resume();
        job.cancel(false);
        assert_eq!(job.state(), State::Cancelling);
        job.end(Err(End::Stopped { is_resumable: true }));
        job.pause();
        assert_eq!(job.state(), State::Cancelled, "what is over stays so");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let job = job();
        for n in 0..LINES + 5 {
            job.warn(n.to_string());
        }
        assert_eq!(job.look().status.warnings.len(), WARNINGS);
        let Answer::List(lines) = job.lines(usize::MAX) else { panic!("no list") };
        assert_eq!(lines.len(), LINES);
        let Answer::List(lines) = job.lines(1) else { panic!("no list") };
        assert!(matches!(&lines[..], [Answer::Text(line)] if line.ends_with(" 1004")));
    }
}
