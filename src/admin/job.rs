//! One job: what is known of it while it runs and after, and the hold on it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::answer::Answer;
use crate::manage::mover::{Event, Method, MoveError, Progress, Reins};
use crate::manage::plan::Move;

/// Lines of its log that are kept.
const LINES: usize = 1000;

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Preflight,
    Running,
    Paused,
    Verifying,
    Cancelling,
    Completed,
    Cancelled,
    Failed,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
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
    pub(super) kind: &'static str,
    /// The words that ordered it.
    pub(super) words: Vec<String>,
    pub(super) token: Option<String>,
    pub(super) method: Method,
    pub(super) reins: Reins,
    status: Mutex<Status>,
    /// Is told whenever the status has changed.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Status {
    state: State,
    phase: String,
    created_ms: u64,
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
    log: VecDeque<(u64, String)>,
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
    pub(super) fn new(
        id: String,
        kind: &'static str,
        words: Vec<String>,
        token: Option<String>,
        method: Method,
    ) -> Self {
        let now = now_ms();
        let status = Status {
            state: State::Preflight,
            phase: "preflight".to_owned(),
            created_ms: now,
            updated_ms: now,
            ended_ms: None,
            progress: Progress::default(),
            open: 0,
            current: None,
            retries: 0,
            last_error: None,
            warnings: Vec::new(),
            journal: None,
            is_resumable: false,
            log: VecDeque::new(),
        };
        Self {
            id,
            kind,
            words,
            token,
            method,
            reins: Reins::default(),
            status: Mutex::new(status),
            changed: watch::Sender::default(),
        }
    }

    /// The status, to be changed. Who waits for that looks at it when the caller is done.
    fn status(&self) -> MutexGuard<'_, Status> {
        let mut status = self.look();
        status.updated_ms = now_ms();
        self.changed.send_replace(());
        status
    }

    /// Tells of each change of the status, or of several at once.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn look(&self) -> MutexGuard<'_, Status> {
        // Nothing is left half done in it.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> State {
        self.look().state
    }

    pub(super) fn journal(&self) -> Option<String> {
        self.look().journal.clone()
    }

    /// Adds a line to its log.
    pub(super) fn note(&self, line: impl Into<String>) {
        let mut status = self.status();
        status.note(line.into());
    }

    /// A new part of it begins.
    pub(super) fn enter(&self, phase: &str) {
        let mut status = self.status();
        if !matches!(status.state, State::Paused | State::Cancelling) {
            status.state = if phase == "verifying" { State::Verifying } else { State::Running };
        }
        phase.clone_into(&mut status.phase);
        status.note(format!("phase {phase}"));
    }

    pub(super) fn writes_to(&self, journal: &str) {
        self.status().journal = Some(journal.to_owned());
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
        let mut status = self.status();
        if !status.state.is_over() {
            status.state = state;
        }
        status.note(line.to_owned());
    }

    pub(super) fn end(&self, end: Result<(), End>) {
        let mut status = self.status();
        (status.state, status.is_resumable) = match end {
            Ok(()) => (State::Completed, false),
            Err(End::Stopped { is_resumable }) => (State::Cancelled, is_resumable),
            Err(End::Failed { what, is_resumable }) => {
                status.note(what.clone());
                status.last_error = Some(what);
                (State::Failed, is_resumable)
            }
        };
        status.ended_ms = Some(now_ms());
        let line = status.state.name().to_owned();
        status.note(line);
    }

    /// Takes up what the mover tells.
    pub(super) fn take(&self, event: &Event) {
        let mut status = self.status();
        match event {
            Event::Opened(part) => {
                status.open += part.slots.len();
                status.current = Some(part.clone());
            }
            Event::Progress(progress) => status.progress = *progress,
            Event::Closed(part) => {
                status.open = status.open.saturating_sub(part.slots.len());
                let Move { from, to, slots } = part;
                status.note(format!("slots {slots} went from {from} to {to}"));
            }
            Event::Setback { slots, what } => {
                status.retries += 1;
                status.note(format!("slots {slots} are tried again: {what}"));
            }
            Event::Warning(text) => {
                status.warnings.push(text.clone());
                status.note(text.clone());
            }
            Event::Settling => "settling".clone_into(&mut status.phase),
            other => {
                let text = serde_json::to_string(other).expect("our values can be written");
                status.note(text);
            }
        }
    }

    /// As `PROXY JOB STATUS` has it.
    pub(super) fn fields(&self) -> Answer {
        let status = self.look();
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
        let eta = progress.remaining().map(ms).filter(|_| !status.state.is_over());
        Answer::map([
            ("id", self.id.as_str().into()),
            ("kind", self.kind.into()),
            ("state", status.state.name().into()),
            ("phase", status.phase.as_str().into()),
            ("method", format!("{:?}", self.method).to_ascii_lowercase().into()),
            ("created_ms", Answer::count(status.created_ms)),
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
        ])
    }

    /// The last lines of its log, the oldest first.
    pub(super) fn lines(&self, count: usize) -> Answer {
        let status = self.look();
        let skipped = status.log.len().saturating_sub(count);
        let line = |(at, text): &(u64, String)| Answer::from(format!("{at} {text}"));
        Answer::List(status.log.iter().skip(skipped).map(line).collect())
    }
}

impl Status {
    fn note(&mut self, line: String) {
        if self.log.len() == LINES {
            self.log.pop_front();
        }
        self.log.push_back((now_ms(), line));
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
        Job::new("j-1".into(), "reshard", Vec::new(), None, Method::Auto)
    }

    #[test]
    fn from_beginning_to_end() {
        let job = job();
        job.enter("moving");
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
    fn the_log_is_bounded() {
        let job = job();
        for n in 0..LINES + 5 {
            job.note(n.to_string());
        }
        let Answer::List(lines) = job.lines(usize::MAX) else { panic!("no list") };
        assert_eq!(lines.len(), LINES);
        let Answer::List(lines) = job.lines(1) else { panic!("no list") };
        assert!(matches!(&lines[..], [Answer::Text(line)] if line.ends_with(" 1004")));
    }
}
