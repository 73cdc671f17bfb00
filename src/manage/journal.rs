//! What a job is about and how far it came, on disk: append-only lines of JSON, one file for each job.
//!
//! ```text
//!  <state>/jobs/j-01764277531123-4242.jsonl
//!    {"at":…,"entry":"begun","moves":[…],"members":[…]}
//!    {"at":…,"entry":"opening","from":…,"to":…,"slots":"0-63"}
//!    {"at":…,"entry":"taken",…}                  the target owns them
//!    {"at":…,"entry":"closed",…}                 so does everybody who answered
//!    {"at":…,"entry":"ended","how":"completed"}
//! ```
//! The journal says what was wanted; how far it came is asked of the cluster again. So a line that is missing because the
//! machine went down costs a question and no more, while a plan that is missing would cost the job: the first line is on
//! disk before anything is done.
//!
//! A job holds a lock on its file for as long as it runs. A file that is neither locked nor ended is a job that was cut off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::mover::{Method, Suspicion};
use super::plan::Move;
use crate::cluster::{Address, NodeId, Slot, Slots};

/// Folder of the journals below the state folder.
const JOBS: &str = "jobs";
/// Journals of jobs that have ended which are kept: the older ones go when another job begins.
const KEPT: usize = 100;
/// Longest last line of a journal that has ended, and then some.
const LAST_LINE: u64 = 256;

/// Why there is no journal to write to or read.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The file system said no.
    #[error("{}: {error}", path.display())]
    Io {
        /// What was to be read or written.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A line that this program has not written.
    #[error("{}: not a journal: {error}", path.display())]
    Garbled {
        /// The journal.
        path: PathBuf,
        /// What was not understood.
        error: serde_json::Error,
    },
    /// A file without a plan.
    #[error("{}: not a journal: it has no plan", .0.display())]
    Empty(PathBuf),
    /// No job has this name.
    #[error("there is no job {0}")]
    Unknown(String),
    /// Another process works on the same nodes.
    #[error("job {0} is at work on the same nodes")]
    Running(String),
    /// An earlier job on the same nodes was cut off.
    #[error("job {0} on the same nodes was cut off and has to be resumed first")]
    CutOff(String),
    /// The job has come to its end.
    #[error("job {0} has ended; there is nothing to resume")]
    Ended(String),
}

/// A node as it was when the job began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub id: NodeId,
    /// Where it was reached.
    pub address: Address,
    /// The primary it followed.
    pub primary: Option<NodeId>,
}

/// A setting of a node that was changed for the time of the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Whose.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What it was before.
    pub before: String,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The moves.
    pub moves: Vec<Move>,
    /// All nodes of the cluster.
    pub members: Vec<Member>,
    /// Which way the slots go.
    #[serde(default)]
    pub method: Method,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// All of it was done.
    Completed,
    /// Nobody will go on with it.
    Abandoned,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "lowercase")]
pub enum Entry {
    /// The plan. The first line, and none else.
    Begun(Begun),
    /// A setting is about to be changed.
    Setting(Setting),
    /// Slots are about to be opened.
    Opening(Move),
    /// The servers are at it by themselves.
    Sent {
        /// What is on its way.
        #[serde(flatten)]
        part: Move,
        /// Their name for it; empty if they do not tell.
        task: String,
    },
    /// Slots have arrived, but not as they should have.
    Suspicious(Suspicion),
    /// The target owns the slots.
    Taken(Move),
    /// The slots are closed on both sides.
    Closed(Move),
    /// A node has taken another one's place.
    Heir {
        /// Who was there.
        of: NodeId,
        /// Who is there now.
        is: NodeId,
    },
    /// It cannot go on for now.
    Paused {
        /// Why.
        reason: String,
    },
    /// It was told to stop, and has left no slot open.
    Stopped,
    /// Somebody goes on with it.
    Resumed,
    /// It is over.
    Ended {
        /// How.
        how: Ending,
    },
}

impl Entry {
    /// Whether the cluster tells the same when it is asked. Such a line need not outlive the machine, only this program.
    fn is_known_elsewhere(&self) -> bool {
        matches!(self, Self::Opening(_) | Self::Sent { .. } | Self::Taken(_) | Self::Closed(_))
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    /// Milliseconds since 1970.
    at: u64,
    #[serde(flatten)]
    entry: Entry,
}

/// The journal of a job that runs.
#[derive(Debug)]
pub struct Journal {
    id: String,
    path: PathBuf,
    /// Locked until this is dropped.
    file: File,
}

/// What a journal tells of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Name of the job.
    pub id: String,
    /// What was to be done.
    pub begun: Begun,
    /// Settings that were changed, in that order.
    pub settings: Vec<Setting>,
    /// Who has taken whose place, in that order.
    pub heirs: Vec<(NodeId, NodeId)>,
    /// Migrations that the servers were told to make, by the slots of each.
    pub sent: Vec<(Slots, String)>,
    /// What has arrived otherwise than it should have.
    pub suspicions: Vec<Suspicion>,
    /// Slots that were closed.
    pub closed: Slots,
    /// Why it paused, if that was the last that happened.
    pub paused: Option<String>,
    /// Whether it was stopped with no slot open, so that nobody has to go on with it.
    pub is_whole: bool,
    /// How it ended, if it did.
    pub ended: Option<Ending>,
    /// Whether a process works on it.
    pub is_running: bool,
}

/// Where journals are unless told otherwise: `$XDG_STATE_HOME/slotway`, else `~/.local/state/slotway`.
pub fn default_folder() -> Option<PathBuf> {
    let absolute =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(state?.join("slotway"))
}

impl Journal {
    /// Begins a job, unless another one on some of the same nodes runs or was cut off.
    pub fn begin(folder: &Path, begun: Begun) -> Result<Self, JournalError> {
        Self::begin_instead(folder, begun, &[])
    }

    /// Begins a job that does what is left of others, which the caller holds.
    pub fn begin_instead(folder: &Path, begun: Begun, held: &[&str]) -> Result<Self, JournalError> {
        let jobs = folder.join(JOBS);
        // Two that begin at once see each other: the second one looks when the first one's file is there.
        let _turn = ready(folder)?;
        trim(&jobs)?;
        let is_held = |record: &Record| held.contains(&record.id.as_str());
        let mut others = unended(folder)?.into_iter().filter(|record| !is_held(record));
        match others.find(|record| record.concerns(&begun)) {
            Some(Record { id, is_running: true, .. }) => return Err(JournalError::Running(id)),
            Some(Record { id, .. }) => return Err(JournalError::CutOff(id)),
            None => {}
        }
        let mut journal = Self::create(&jobs)?;
        flock(&journal.file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| io_error(&journal.path)(error.into()))?;
        journal.write(&Entry::Begun(begun))?;
        // The file's name is on disk when the folder is.
        File::open(&jobs).and_then(|folder| folder.sync_all()).map_err(io_error(&jobs))?;
        Ok(journal)
    }

    /// A file of its own, named after the time. Of two jobs that a process begins within a millisecond the second one
    /// takes the next.
    fn create(jobs: &Path) -> Result<Self, JournalError> {
        let mut at = now_ms();
        loop {
            let id = format!("j-{at:014}-{}", std::process::id());
            let path = jobs.join(format!("{id}.jsonl"));
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { id, path, file }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => at += 1,
                Err(error) => return Err(io_error(&path)(error)),
            }
        }
    }

    /// Goes on with a job that was cut off.
    pub fn resume(folder: &Path, id: &str) -> Result<(Self, Record), JournalError> {
        let path = folder.join(JOBS).join(format!("{id}.jsonl"));
        let is_name = !id.contains(['/', '\\']);
        let file = OpenOptions::new().append(true).read(true).open(&path);
        let file = match file {
            Ok(file) if is_name => file,
            _ => return Err(JournalError::Unknown(id.to_owned())),
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(JournalError::Running(id.to_owned()));
        }
        let record = read(&path, false)?;
        if record.ended.is_some() {
            return Err(JournalError::Ended(id.to_owned()));
        }
        let mut journal = Self { id: id.to_owned(), path, file };
        journal.mend()?;
        journal.write(&Entry::Resumed)?;
        Ok((journal, record))
    }

    /// Name of the job.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The state folder.
    pub fn folder(&self) -> &Path {
        self.path.parent().and_then(Path::parent).unwrap_or(Path::new("."))
    }

    /// Adds a line. What the cluster could not tell again is on disk when this returns.
    pub fn write(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let line = Line { at: now_ms(), entry: entry.clone() };
        let mut text = serde_json::to_vec(&line)
            .map_err(|error| JournalError::Garbled { path: self.path.clone(), error })?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(io_error(&self.path))?;
        if entry.is_known_elsewhere() {
            return Ok(());
        }
        self.file.sync_data().map_err(io_error(&self.path))
    }

    /// Ends a line that was cut off in its middle, so that the next one stands by itself.
    fn mend(&mut self) -> Result<(), JournalError> {
        let text = fs::read(&self.path).map_err(io_error(&self.path))?;
        if text.last() == Some(&b'\n') {
            return Ok(());
        }
        self.file.write_all(b"\n").map_err(io_error(&self.path))
    }
}

impl Record {
    /// Whether it is about some of these nodes, and in the way of another job.
    fn concerns(&self, begun: &Begun) -> bool {
        let ours = |id: &NodeId| begun.members.iter().any(|member| member.id == *id);
        let is_over = self.ended.is_some() || self.is_whole && !self.is_running;
        !is_over && self.begun.members.iter().any(|member| ours(&member.id))
    }

    /// Whether it was cut off.
    pub fn is_resumable(&self) -> bool {
        self.ended.is_none() && !self.is_running
    }
}

/// Makes a state folder if it is not there, and gives the lock that whoever begins a job there holds.
pub fn ready(folder: &Path) -> Result<File, JournalError> {
    let jobs = folder.join(JOBS);
    fs::create_dir_all(&jobs).map_err(io_error(&jobs))?;
    lock(&folder.join("lock"))
}

/// All jobs, the oldest first. Files that are no journals are left out.
pub fn records(folder: &Path) -> Result<Vec<Record>, JournalError> {
    let paths = paths(&folder.join(JOBS))?;
    Ok(paths.iter().filter_map(|path| read(path, is_locked(path)).ok()).collect())
}

/// Those that have not ended: how many others there are costs little.
pub fn unended(folder: &Path) -> Result<Vec<Record>, JournalError> {
    let paths = paths(&folder.join(JOBS))?;
    let paths = paths.iter().filter(|path| !has_ended(path));
    Ok(paths.filter_map(|path| read(path, is_locked(path)).ok()).collect())
}

/// Whether the last line says that it is over; nothing comes behind that.
fn has_ended(path: &Path) -> bool {
    let last = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_LINE)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok(tail)
    };
    let Ok(tail) = last() else { return false };
    let line = tail.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = serde_json::from_slice::<Line>(line);
    line.is_ok_and(|line| matches!(line.entry, Entry::Ended { .. }))
}

/// Removes the oldest journals of jobs that have ended.
fn trim(jobs: &Path) -> Result<(), JournalError> {
    let ended: Vec<PathBuf> = paths(jobs)?.into_iter().filter(|path| has_ended(path)).collect();
    for path in &ended[..ended.len().saturating_sub(KEPT)] {
        // It is looked at again next time.
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// The files of jobs, the oldest first.
fn paths(jobs: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let entries = match fs::read_dir(jobs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(jobs)(error)),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    Ok(paths)
}

fn is_locked(path: &Path) -> bool {
    let file = File::open(path);
    file.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

/// Waits for its turn at a lock, which is let go when the file is dropped.
fn lock(path: &Path) -> Result<File, JournalError> {
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(io_error(path))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| io_error(path)(error.into()))?;
    Ok(file)
}

fn read(path: &Path, is_running: bool) -> Result<Record, JournalError> {
    let file = File::open(path).map_err(io_error(path))?;
    let mut lines = BufReader::new(file).lines();
    let first = lines.next().ok_or_else(|| JournalError::Empty(path.to_owned()))?;
    let first = first.map_err(io_error(path))?;
    let first: Line = serde_json::from_str(&first)
        .map_err(|error| JournalError::Garbled { path: path.to_owned(), error })?;
    let Entry::Begun(begun) = first.entry else {
        return Err(JournalError::Empty(path.to_owned()));
    };
    let id = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut record = Record {
        id,
        begun,
        settings: Vec::new(),
        heirs: Vec::new(),
        sent: Vec::new(),
        suspicions: Vec::new(),
        closed: Slots::default(),
        paused: None,
        is_whole: false,
        ended: None,
        is_running,
    };
    // Behind the plan nothing is needed: a line that was cut off in its middle is passed over.
    let entries = lines.map_while(Result::ok).filter_map(|l| serde_json::from_str::<Line>(&l).ok());
    let mut closed = Vec::new();
    entries.for_each(|line| record.take(line.entry, &mut closed));
    record.closed = closed.into_iter().collect();
    Ok(record)
}

impl Record {
    fn take(&mut self, entry: Entry, closed: &mut Vec<Slot>) {
        self.paused = None;
        self.is_whole = entry == Entry::Stopped;
        match entry {
            Entry::Setting(setting) => self.settings.push(setting),
            Entry::Heir { of, is } => self.heirs.push((of, is)),
            Entry::Sent { part, task } => self.sent.push((part.slots, task)),
            Entry::Suspicious(suspicion) => self.suspicions.push(suspicion),
            Entry::Closed(part) => closed.extend(part.slots),
            Entry::Paused { reason } => self.paused = Some(reason),
            Entry::Ended { how } => self.ended = Some(how),
            Entry::Begun(_)
            | Entry::Opening(_)
            | Entry::Taken(_)
            | Entry::Stopped
            | Entry::Resumed => {}
        }
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |error| JournalError::Io { path: path.clone(), error }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_passed_over_and_in_the_end_removed() {
        let folder = tempfile::tempdir().unwrap();
        let end = |nodes: &[&str]| {
            let mut journal = Journal::begin(folder.path(), begun(nodes)).unwrap();
            journal.write(&Entry::Closed(part("0-63"))).unwrap();
            journal.write(&Entry::Ended { how: Ending::Completed }).unwrap();
        };
        let cut_off = Journal::begin(folder.path(), begun(&["z"])).unwrap().id().to_owned();
        (0..KEPT + 5).for_each(|_| end(&["a"]));
        let ids = |records: Vec<Record>| -> Vec<String> {
            records.into_iter().map(|record| record.id).collect()
        };
        assert_eq!(ids(unended(folder.path()).unwrap()), std::slice::from_ref(&cut_off));
        let all = ids(records(folder.path()).unwrap());
        // The last one was not there yet when it was looked.
        assert_eq!((all.len(), &all[0]), (1 + KEPT + 1, &cut_off));
        assert!(matches!(
            Journal::begin(folder.path(), begun(&["z"])),
            Err(JournalError::CutOff(id)) if id == cut_off
        ));
    }

    fn begun(nodes: &[&str]) -> Begun {
        let member = |id: &&str| Member {
            id: NodeId((*id).into()),
            address: Address::parse("10.0.0.1:7001", None).unwrap(),
            primary: None,
        };
        Begun {
            moves: vec![part("0-99")],
            members: nodes.iter().map(member).collect(),
            method: Method::Auto,
        }
    }

    fn part(slots: &str) -> Move {
        Move { from: NodeId("a".into()), to: NodeId("b".into()), slots: slots.parse().unwrap() }
    }

    #[test]
    fn a_job_that_was_cut_off_is_found_and_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(folder.path(), begun(&["a", "b"])).unwrap();
        let id = journal.id().to_owned();
        let setting = Setting {
            node: NodeId("a".into()),
            name: "cluster-allow-replica-migration".into(),
            before: "yes".into(),
        };
        let heir = Entry::Heir { of: NodeId("a".into()), is: NodeId("c".into()) };
        for entry in [
            Entry::Setting(setting.clone()),
            Entry::Opening(part("0-63")),
            Entry::Taken(part("0-63")),
            heir,
            Entry::Closed(part("0-63")),
            Entry::Paused { reason: "the target is full".into() },
        ] {
            journal.write(&entry).unwrap();
        }
        let record = &records(folder.path()).unwrap()[0];
        assert!(record.is_running && !record.is_resumable());
        assert_eq!(record.paused.as_deref(), Some("the target is full"));
        let path = journal.path.clone();
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"at\":12,\"entry\":\"ope").unwrap();

        let begin = Journal::begin(folder.path(), begun(&["b", "z"]));
        assert!(matches!(begin, Err(JournalError::CutOff(job)) if job == id));
        let (mut journal, record) = Journal::resume(folder.path(), &id).unwrap();
        assert_eq!(record.begun, begun(&["a", "b"]));
        assert_eq!((record.settings, record.closed.to_string()), (vec![setting], "0-63".into()));
        assert_eq!(record.heirs, [(NodeId("a".into()), NodeId("c".into()))]);
        journal.write(&Entry::Ended { how: Ending::Completed }).unwrap();
        drop(journal);
        let record = &records(folder.path()).unwrap()[0];
        assert_eq!((record.ended, record.paused.as_deref()), (Some(Ending::Completed), None));
        assert!(matches!(Journal::resume(folder.path(), &id), Err(JournalError::Ended(_))));
        let mut journal = Journal::begin(folder.path(), begun(&["a"])).unwrap();
        journal.write(&Entry::Stopped).unwrap();
        drop(journal);
        assert!(records(folder.path()).unwrap()[1].is_resumable());
        Journal::begin(folder.path(), begun(&["a"])).expect("the one before is whole");
    }

    #[test]
    fn of_two_jobs_on_a_node_one_runs() {
        let folder = tempfile::tempdir().unwrap();
        let first = Journal::begin(folder.path(), begun(&["a", "b"])).unwrap();
        let second = Journal::begin(folder.path(), begun(&["b", "c"]));
        assert!(matches!(second, Err(JournalError::Running(id)) if id == first.id()));
        let resumed = Journal::resume(folder.path(), first.id());
        assert!(matches!(resumed, Err(JournalError::Running(_))));
        Journal::begin(folder.path(), begun(&["x"])).expect("another cluster");
    }

    #[test]
    fn jobs_begun_within_a_millisecond_have_files_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = ["a", "b", "c", "d", "e", "f", "g", "h"]
            .map(|node| Journal::begin(folder.path(), begun(&[node])).expect("another cluster"));
        let ids: std::collections::HashSet<&str> = jobs.iter().map(Journal::id).collect();
        assert_eq!(ids.len(), jobs.len());
    }

    #[test]
    fn what_is_no_journal() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(records(folder.path()).unwrap(), []);
        let jobs = folder.path().join(JOBS);
        fs::create_dir(&jobs).unwrap();
        fs::write(jobs.join("x.jsonl"), "nonsense\n").unwrap();
        fs::write(jobs.join("y.jsonl"), "").unwrap();
        assert_eq!(records(folder.path()).unwrap(), []);
        for id in ["x", "y"] {
            assert!(Journal::resume(folder.path(), id).is_err(), "{id}");
        }
        for id in ["none", "../x", "../../etc/passwd"] {
            let resumed = Journal::resume(folder.path(), id);
            assert!(matches!(resumed, Err(JournalError::Unknown(_))), "{id}");
        }
    }
}
