//! `PROXY CLUSTER IMPORT` and `BACKUP`: keys that come in from another server, and all keys saved in files.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster;
use super::complaint::Complaint;
use super::job::{End, Job};
use super::order::Import;
use super::run::{self, Ground};
use crate::cluster::NodeId;
use crate::manage::backup::{self, BackupError};
use crate::manage::check;
use crate::manage::import::{self, Event, ImportError, ImportOptions};
use crate::manage::mover::{self, Progress};
use crate::manage::uri;

/// How long one transfer of keys may take.
const TRANSFER: Duration = Duration::from_secs(60);
/// Of how many keys that are there already it is told which they are.
const NAMED: u64 = 100;

impl From<ImportError> for Complaint {
    fn from(error: ImportError) -> Self {
        let text = error.to_string();
        match error {
            ImportError::Control(_) => Self::NoAnswer(text),
            _ => Self::Precondition(text),
        }
    }
}

fn options(import: &Import, batch: usize) -> ImportOptions {
    let Import { source, credentials, database, copy, replace } = import.clone();
    let batch = batch.min(import::BATCH);
    let (timeout, same_way) = (TRANSFER, false);
    ImportOptions { source, database, credentials, copy, replace, timeout, batch, same_way }
}

/// What an import will do, and the nodes that there are.
pub(super) async fn plan_import(
    ground: &Ground,
    import: &Import,
) -> Result<(Value, Vec<NodeId>), Complaint> {
    let view = run::whole(ground).await?;
    let keys = import::examine(&options(import, 1), &ground.admin.access).await?;
    let step = json!({
        "step": "import", "from": import.source, "database": import.database, "keys": keys,
        "copy": import.copy, "replace": import.replace,
    });
    Ok((json!({ "steps": [step], "moves": [], "then_removed": false }), view.ids()))
}

/// Takes the keys in. What is there already and the same is no obstacle, so it can be ordered again after it was cut off.
pub(super) async fn import(
    ground: &Ground,
    import: &Import,
    batch: usize,
    job: &Job,
) -> Result<(), End> {
    if import.credentials.as_ref().is_some_and(|known| known.password == uri::MASK) {
        return Err(End::failed(&"the source's password is not kept: order it again"));
    }
    let view = run::whole(ground).await.map_err(|error| End::failed(&error))?;
    job.enter("importing");
    let (begun, mut progress, mut conflicts) = (Instant::now(), Progress::default(), 0);
    let mut tell = |event: Event<'_>| match event {
        Event::Begin(keys) => {
            progress.keys_total = keys;
            job.take(&mover::Event::Progress(progress));
        }
        Event::OtherDatabases(others) => {
            for (database, keys) in others {
                job.note(format!("{keys} keys of database {database} stay where they are"));
            }
        }
        Event::Key(..) => {
            (progress.keys, progress.elapsed) = (progress.keys + 1, begun.elapsed());
            job.take(&mover::Event::Progress(progress));
        }
        Event::Conflict(key, owner) => {
            conflicts += 1;
            if conflicts <= NAMED {
                job.note(format!("{} has another value at {owner}", key.escape_ascii()));
            }
        }
    };
    let access = &ground.admin.access;
    let done = import::run(&options(import, batch), &view, access, &job.reins, &mut tell).await;
    match done {
        Ok(done) if done.conflicts == 0 => Ok(()),
        Ok(done) => Err(End::failed(&format!(
            "{} keys have another value in the cluster and were left where they are; REPLACE would overwrite",
            done.conflicts
        ))),
        Err(ImportError::Stopped) => Err(End::Stopped { is_resumable: false }),
        Err(error) => Err(End::failed(&error)),
    }
}

/// What a backup will write, and the nodes that there are.
pub(super) async fn plan_backup(
    ground: &Ground,
    folder: &Path,
) -> Result<(Value, Vec<NodeId>), Complaint> {
    if !folder.is_dir() {
        let text = format!("there is no folder {} on the proxy's machine", folder.display());
        return Err(Complaint::Precondition(text));
    }
    let view = cluster::gather(&ground.admin).await?;
    let layout = backup::layout_place(folder, &view);
    layout.map_err(|failed| Complaint::Precondition(failed.to_string()))?;
    let step = |node| json!({ "step": "save", "file": backup::place(folder, node) });
    let steps: Vec<Value> = view.primaries().map(step).collect();
    Ok((json!({ "steps": steps, "moves": [], "then_removed": false }), view.ids()))
}

/// Saves all that can be saved; if that is not all, the job fails behind it.
pub(super) async fn backup(ground: &Ground, folder: &Path, job: &Job) -> Result<(), End> {
    let view = cluster::gather(&ground.admin).await.map_err(|error| End::failed(&error))?;
    job.enter("saving");
    let mut tell = |event: backup::Event<'_>| match event {
        backup::Event::Begin(length, path) => {
            job.note(format!("{length} bytes go into {}", path.display()));
        }
        backup::Event::Layout(path) => job.note(format!("the layout goes into {}", path.display())),
        backup::Event::Node(_) | backup::Event::Saved => {}
    };
    let saved = backup::all(&view, &ground.admin.access, folder, &job.reins, &mut tell).await;
    saved.map_err(|failed| match failed.error {
        BackupError::Stopped => End::Stopped { is_resumable: false },
        _ => End::failed(&failed),
    })?;
    for fault in check::findings(&view).iter().filter(|finding| finding.is_fault()) {
        job.warn(format!("the cluster was not whole: {fault}"));
    }
    let missing: Vec<String> = backup::missing(&view)
        .map(|line| format!("slots {} of {}", line.slots, line.place()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(End::failed(&format!(
        "not in this backup, since they do not answer: {}",
        missing.join(", ")
    )))
}
