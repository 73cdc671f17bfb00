//! `slotway cluster import` and `backup`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::out::{self, Exit, Outcome};
use super::{Job, show};
use crate::cluster::Address;
use crate::manage::access::Credentials;
use crate::manage::backup;
use crate::manage::import::{self, Event, ImportError, ImportOptions};
use crate::manage::mover::Reins;

/// How long one transfer of keys may take unless told otherwise.
const TRANSFER: Duration = Duration::from_secs(60);

impl Job<'_> {
    pub(super) async fn import(&self) -> Outcome {
        let entry = self.address(self.arg(0)?)?;
        let options = self.import_options()?;
        self.out.info(&format!(">>> Importing data from {} to cluster {entry}", options.source));
        let view = self.gather(&entry).await?;
        if !show::check(&self.out, &view, false) {
            self.out.answer(&json!({ "ok": false, "error": "the cluster is not whole" }));
            return Err(Exit::Refused);
        }
        if self.line.has("dry-run") {
            return Ok(Exit::Success);
        }
        let mut tell = |event: Event<'_>| match event {
            Event::Begin(keys) => self.out.info(&format!("*** Importing {keys} keys from DB 0")),
            Event::OtherDatabases(others) => {
                for (db, keys) in others {
                    self.out.warning(&format!("[WARNING] {keys} keys of database {db} stay where they are: a cluster has database 0 only"));
                }
            }
            Event::Key(key, owner) => {
                self.out.plain(&format!("Migrating {} to {owner}: OK", key.escape_ascii()));
            }
            Event::Conflict(key, owner) => {
                self.out.warning(&format!("[WARNING] {} has another value at {owner}; --cluster-replace would overwrite it", key.escape_ascii()));
            }
        };
        let imported =
            import::run(&options, &view, &self.access, &Reins::default(), &mut tell).await;
        let imported = imported.map_err(|error| match error {
            ImportError::IsCluster | ImportError::PlainSource => {
                self.out.fail(Exit::Refused, &format!("[ERR] {error}"))
            }
            _ => self.out.fail(Exit::Failure, &format!("[ERR] {error}")),
        })?;
        self.out.answer(&json!({ "ok": imported.conflicts == 0, "keys": imported.keys, "conflicts": imported.conflicts }));
        Ok(if imported.conflicts == 0 { Exit::Success } else { Exit::Partial })
    }

    pub(super) fn import_options(&self) -> Outcome<ImportOptions> {
        let usage = |text: &str| self.out.complain(Exit::Usage, text);
        let from = self.flag(self.line.value("from"))?;
        let from = from.ok_or_else(|| {
            usage("[ERR] Option '--cluster-from' is required for subcommand 'import'.")
        })?;
        let source = Address::parse(from, None).filter(|address| !address.host().is_empty());
        let source = source.ok_or_else(|| {
            usage("[ERR] Invalid --cluster-from host. You need to pass a valid address (ie. 120.0.0.1:7000).")
        })?;
        let username = self.flag(self.line.value("from-user"))?.map(str::to_owned);
        let password = match self.flag(self.line.value("from-pass"))? {
            Some(password) => Some(password.to_owned()),
            None if self.line.has("from-askpass") => {
                let asked = out::ask_password("Please input password for the source: ");
                Some(asked.map_err(|error| usage(&format!("[ERR] no password: {error}")))?)
            }
            None => None,
        };
        let credentials = password.map(|password| Credentials { username, password });
        let timeout = self.transfer()?.unwrap_or(TRANSFER);
        let (copy, replace) = (self.line.has("copy"), self.line.has("replace"));
        Ok(ImportOptions {
            source,
            database: 0,
            credentials,
            copy,
            replace,
            timeout,
            batch: self.batch()?.unwrap_or(import::BATCH),
            same_way: self.line.has("from-tls"),
        })
    }

    pub(super) async fn backup(&self) -> Outcome {
        let (entry, folder) = (self.address(self.arg(0)?)?, PathBuf::from(self.arg(1)?));
        if !folder.is_dir() {
            let text = format!(
                "[ERR] The specified backup directory '{}' does not exist.",
                folder.display()
            );
            return Err(self.out.complain(Exit::Refused, &text));
        }
        let view = self.gather(&entry).await?;
        let is_whole = show::check(&self.out, &view, false);
        let mut tell = |event: backup::Event<'_>| match event {
            backup::Event::Node(address) => {
                self.out.info(&format!(">>> Node {address} -> Saving RDB..."));
            }
            backup::Event::Begin(length, path) => note(&format!(
                "SYNC sent to master, writing {length} bytes to '{}'",
                path.display()
            )),
            backup::Event::Saved => note("Transfer finished with success."),
            backup::Event::Layout(path) => {
                self.out.info(&format!("Saving cluster configuration to: {}", path.display()));
            }
        };
        let saved = backup::all(&view, &self.access, &folder, &Reins::default(), &mut tell).await;
        saved.map_err(|failed| {
            self.out.fail(Exit::Failure, &format!("[ERR] {failed}"));
            self.out.error("[ERR] Failed to back cluster!");
            Exit::Failure
        })?;
        if !is_whole {
            self.out.warning(
                "*** Cluster seems to have some problems, please be aware of it if you're going to restore this backup.",
            );
        }
        let missing: Vec<_> = backup::missing(&view).collect();
        for line in &missing {
            let place = line.place();
            self.out.warning(&format!(
                "[WARNING] {place} does not answer: what it has of slots {} is not in this backup.",
                line.slots
            ));
        }
        let missing: Vec<Value> = missing
            .iter()
            .map(|line| json!({ "node": line.id, "address": line.address, "slots": line.slots }))
            .collect();
        let created = format!("Backup created into: {}", folder.display());
        if missing.is_empty() {
            self.out.good(&format!("[OK] {created}"));
        } else {
            self.out.warning(&format!("[WARNING] {created}, without part of the data."));
        }
        self.out.answer(
            &json!({ "ok": is_whole && missing.is_empty(), "folder": folder, "missing": missing }),
        );
        Ok(if missing.is_empty() { Exit::Success } else { Exit::Partial })
    }
}

/// What redis-cli writes beside its answer.
fn note(text: &str) {
    // With nobody to read it the files have to do.
    let _ = writeln!(std::io::stderr(), "{text}");
}
