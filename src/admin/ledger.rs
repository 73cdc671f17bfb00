//! Jobs on disk, so that they outlive the proxy: append-only lines of JSON, one file for each job.
//!
//! ```text
//!  <state>/orders/j-01764277531123-4242.jsonl
//!    {"order":{"kind":"addnode","words":["ADDNODE","10.0.0.7:6379"],"members":["07c3…",…]}}
//!    {"log":[1764277531140,"phase applying"]}
//!    {"status":{"state":"running",…}}
//! ```
//! A job holds a lock on its file for as long as it runs. One whose last status is not of the end, and that nobody holds, was
//! cut off with its proxy. Which slots had to go where is in the journal that the status names.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::job::Status;
use crate::cluster::NodeId;
use crate::manage::mover::Method;

/// Folder of the orders below the state folder.
const ORDERS: &str = "orders";
/// Files that are kept: of the older ones those go whose jobs are over, whenever another job begins.
const KEPT: usize = 100;

/// What was ordered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ordered {
    pub(super) kind: String,
    /// The words that ordered it.
    pub(super) words: Vec<String>,
    /// Name by which the same order is known when it comes again.
    pub(super) token: Option<String>,
    /// How slots are moved.
    pub(super) method: Method,
    /// What was to be done, as far as that was known.
    pub(super) plan: serde_json::Value,
    /// The cluster's nodes when it was ordered.
    pub(super) members: Vec<NodeId>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Order(Ordered),
    Log(u64, String),
    Status(Box<Status>),
}

/// The file of a job that runs.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    file: File,
}

/// A job as its file has it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) id: String,
    pub(super) ordered: Ordered,
    pub(super) status: Status,
    pub(super) log: Vec<(u64, String)>,
    /// Its file, if it was cut off; `None` if it is over.
    pub(super) book: Option<Book>,
}

impl Book {
    /// Begins the file of a job. What was ordered is on disk when this returns.
    pub(super) fn begin(folder: &Path, id: &str, ordered: &Ordered) -> io::Result<Self> {
        let orders = folder.join(ORDERS);
        fs::create_dir_all(&orders)?;
        let path = orders.join(format!("{id}.jsonl"));
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut book = Self { path, file };
        book.write(&Line::Order(ordered.clone()))?;
        book.file.sync_data()?;
        File::open(&orders)?.sync_all()?;
        trim(folder);
        Ok(book)
    }

    pub(super) fn log(&mut self, at: u64, text: &str) {
        self.note(&Line::Log(at, text.to_owned()));
    }

    pub(super) fn status(&mut self, status: &Status) {
        self.note(&Line::Status(Box::new(status.clone())));
    }

    /// What is not written is not known after a restart; the job goes on without.
    fn note(&mut self, line: &Line) {
        if let Err(error) = self.write(line) {
            tracing::warn!(path = %self.path.display(), %error, "a job cannot be written down");
        }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.write_all(&text)
    }
}

/// All jobs that no living process has, the oldest first. Files that are none are left out.
pub(super) fn read(folder: &Path) -> Vec<Told> {
    trim(folder);
    paths(folder).iter().filter_map(|path| one(path).ok().flatten()).collect()
}

/// Removes the files of the oldest jobs, as far as they are over.
fn trim(folder: &Path) {
    let paths = paths(folder);
    let old = paths.len().saturating_sub(KEPT);
    for path in &paths[..old] {
        if let Ok(Some(Told { book: None, .. })) = one(path) {
            // It is looked at again next time.
            let _ = fs::remove_file(path);
        }
    }
}

/// The files of jobs, the oldest first.
fn paths(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder.join(ORDERS)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    paths
}

/// `None` if somebody holds it, or it is no job.
fn one(path: &Path) -> io::Result<Option<Told>> {
    let file = OpenOptions::new().read(true).append(true).open(path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let mut lines = BufReader::new(&file).lines().map_while(Result::ok);
    let first = lines.next().and_then(|line| serde_json::from_str(&line).ok());
    let Some(Line::Order(ordered)) = first else { return Ok(None) };
    let (mut status, mut log) = (Status::default(), Vec::new());
    // A line that was cut off in its middle is passed over.
    for line in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
        match line {
            Line::Order(_) => {}
            Line::Log(at, text) => log.push((at, text)),
            Line::Status(said) => status = *said,
        }
    }
    let id = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut book = None;
    if !status.state.is_over() {
        let mut file = file;
        // Behind a line that was cut off the next one stands by itself.
        file.write_all(b"\n")?;
        book = Some(Book { path: path.to_owned(), file });
    }
    Ok(Some(Told { id, ordered, status, log, book }))
}

#[cfg(test)]
impl Ordered {
    /// One that moves nothing, for tests of what becomes of orders.
    pub(super) fn reshard() -> Self {
        Self {
            kind: "reshard".to_owned(),
            words: Vec::new(),
            token: None,
            method: Method::Auto,
            plan: serde_json::Value::Null,
            members: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_go_as_others_come_but_not_of_jobs_that_were_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let ordered = Ordered::reshard();
        let over: Status = serde_json::from_str(r#"{"state":"completed"}"#).unwrap();
        let begin = |n: usize| Book::begin(folder.path(), &format!("j-{n:04}"), &ordered).unwrap();
        // The first one has no end, and nobody holds it.
        drop(begin(0));
        let running = begin(1);
        for n in 2..KEPT + 20 {
            begin(n).status(&over);
        }
        let names: Vec<String> = paths(folder.path())
            .iter()
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names.len(), KEPT + 2);
        assert_eq!(names[..3], ["j-0000", "j-0001", "j-0020"]);
        drop(running);
    }
}
