//! Jobs that move slots, as their journals tell of them: which there are, and going on with one, or with none.

use std::path::PathBuf;

use serde_json::json;

use super::Job;
use super::carry::Shown;
use super::out::{Exit, Outcome};
use crate::manage::journal::{self, Ending, Entry, Journal, JournalError, Record};
use crate::manage::mover::{self, MoveOptions};
use crate::manage::view::ClusterView;

impl Job<'_> {
    /// Goes on with a job that was cut off.
    pub(super) async fn resume(&self) -> Outcome {
        let (folder, hold) = (self.state_folder()?, self.hold()?);
        let records = self.records()?;
        let id = match self.arg(0)? {
            "" => match records
                .iter()
                .filter(|record| record.is_resumable() && !record.is_whole)
                .collect::<Vec<_>>()[..]
            {
                [record] => record.id.clone(),
                [] => {
                    self.out.plain("No job was cut off.");
                    self.out.answer(&json!({ "ok": true, "moves": [] }));
                    return Ok(Exit::Success);
                }
                _ => {
                    return Err(self.out.complain(
                        Exit::Usage,
                        "[ERR] several jobs were cut off: name one (slotway cluster jobs)",
                    ));
                }
            },
            id => id.to_owned(),
        };
        let (mut journal, record) =
            Journal::resume(&folder, &id).map_err(|error| self.no_journal(&error))?;
        let options = self.options_again(&record)?;
        let prepared = mover::prepare_again(&record, &self.access, &options).await;
        let prepared = prepared.map_err(|error| self.not_moved(&error, Some(&id)))?;
        self.show_cost(&prepared);
        let view = ClusterView { nodes: Vec::new(), absent: Vec::new() };
        let mut shown = Shown::new(&record.begun.moves, &view);
        shown.places(&record);
        Ok(self.moved(&self.run_job(prepared, &mut journal, shown, hold).await?))
    }

    /// The options for a job that has begun: it goes on the way it was begun, unless another one is named.
    fn options_again(&self, record: &Record) -> Outcome<MoveOptions> {
        let options = self.move_options()?;
        let is_named = self.line.has("method") || self.line.has("use-atomic-slot-migration");
        let method = if is_named { options.method } else { record.begun.method };
        Ok(MoveOptions { method, ..options })
    }

    /// All jobs that are known here.
    pub(super) fn jobs(&self) -> Outcome {
        let records = self.records()?;
        let state = |record: &Record| match record {
            Record { is_running: true, .. } => "running",
            Record { ended: Some(Ending::Completed), .. } => "completed",
            Record { ended: Some(Ending::Abandoned), .. } => "abandoned",
            Record { is_whole: true, .. } => "stopped",
            _ => "cut off",
        };
        let total =
            |record: &Record| record.begun.moves.iter().map(|part| part.slots.len()).sum::<usize>();
        for record in &records {
            let reason =
                record.paused.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            self.out.plain(&format!(
                "{}  {} of {} slots  {}{reason}",
                record.id,
                record.closed.len(),
                total(record),
                state(record)
            ));
        }
        let one = |record: &Record| json!({ "id": record.id, "state": state(record), "slots": total(record), "closed": record.closed, "reason": record.paused });
        self.out.answer(&records.iter().map(one).collect::<Vec<_>>());
        Ok(Exit::Success)
    }

    /// Nobody is to go on with a job.
    pub(super) fn abandon(&self) -> Outcome {
        let folder = self.state_folder()?;
        let resumed = Journal::resume(&folder, self.arg(0)?);
        let (mut journal, _) = resumed.map_err(|error| self.no_journal(&error))?;
        journal
            .write(&Entry::Ended { how: Ending::Abandoned })
            .map_err(|error| self.no_journal(&error))?;
        self.out.answer(&json!({ "ok": true }));
        Ok(Exit::Success)
    }

    fn records(&self) -> Outcome<Vec<Record>> {
        journal::records(&self.state_folder()?).map_err(|error| self.no_journal(&error))
    }

    pub(super) fn state_folder(&self) -> Outcome<PathBuf> {
        let given = self.flag(self.line.value("state-dir"))?.map(PathBuf::from);
        given.or_else(journal::default_folder).ok_or_else(|| {
            self.out.complain(
                Exit::Usage,
                "[ERR] there is no folder for the journal: name one with --state-dir",
            )
        })
    }

    /// Sees that a journal can be written, before anything else is looked at or asked.
    pub(super) fn ready_state(&self) -> Outcome<()> {
        if ["plan-out", "dry-run", "simulate"].iter().any(|flag| self.line.has(flag)) {
            return Ok(());
        }
        let folder = self.state_folder()?;
        journal::ready(&folder).map(drop).map_err(|error| {
            let text = format!(
                "[ERR] no journal can be kept in {}: {error}; name another folder with --state-dir",
                folder.display()
            );
            self.out.fail(Exit::Failure, &text)
        })
    }

    /// Most keys of one transfer, if that is given.
    pub(super) fn batch(&self) -> Outcome<Option<usize>> {
        let given: Option<usize> = self.flag(self.line.number("pipeline"))?;
        match given {
            Some(0) => {
                Err(self.out.complain(Exit::Usage, "[ERR] --cluster-pipeline must be at least 1"))
            }
            given => Ok(given),
        }
    }

    pub(super) fn no_journal(&self, error: &JournalError) -> Exit {
        let advice = match error {
            JournalError::CutOff(id) => format!("\n      Go on with: slotway cluster resume {id}"),
            _ => String::new(),
        };
        let exit = match error {
            JournalError::CutOff(_)
            | JournalError::Running(_)
            | JournalError::Ended(_)
            | JournalError::Unknown(_) => Exit::Refused,
            JournalError::Io { .. } | JournalError::Garbled { .. } | JournalError::Empty(_) => {
                Exit::Failure
            }
        };
        self.out.fail(exit, &format!("[ERR] {error}{advice}"))
    }

    /// What is to be said of open slots that a job of ours has left behind.
    pub(super) fn cut_off_here(&self, view: &ClusterView) -> Option<String> {
        let records = journal::records(&self.state_folder().ok()?).ok()?;
        let is_member = |record: &Record| {
            record.begun.members.iter().any(|member| view.node(&member.id).is_some())
        };
        let record = records
            .into_iter()
            .find(|record| record.is_resumable() && !record.is_whole && is_member(record))?;
        Some(format!("A job was cut off here. Go on with: slotway cluster resume {}", record.id))
    }
}
