//! `slotway cluster import` and `backup`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::out::{self, Exit, Outcome};
use super::{Job, show};
use crate::cluster::{Address, Slots};
use crate::manage::access::Credentials;
use crate::manage::backup;
use crate::manage::check;
use crate::manage::import::{self, Event, ImportError, ImportOptions};
use crate::manage::view::{ClusterView, NodeView};

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
        let imported = import::run(&options, &view, &self.access, &mut tell).await;
        let imported = imported.map_err(|error| match error {
            ImportError::IsCluster | ImportError::PlainSource => {
                self.out.fail(Exit::Refused, &format!("[ERR] {error}"))
            }
            _ => self.out.fail(Exit::Failure, &format!("[ERR] {error}")),
        })?;
        self.out.answer(&json!({ "ok": imported.conflicts == 0, "keys": imported.keys, "conflicts": imported.conflicts }));
        Ok(if imported.conflicts == 0 { Exit::Success } else { Exit::Partial })
    }

    fn import_options(&self) -> Outcome<ImportOptions> {
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
        let failed = |text: String| {
            self.out.fail(Exit::Failure, &format!("[ERR] {text}"));
            self.out.error("[ERR] Failed to back cluster!");
            Exit::Failure
        };
        for node in view.primaries() {
            self.save(node, &folder).await.map_err(failed)?;
        }
        let path = folder.join("nodes.json");
        self.out.info(&format!("Saving cluster configuration to: {}", path.display()));
        let text = serde_json::to_string_pretty(&nodes(&view)).expect("our values can be written");
        std::fs::write(&path, text + "\n")
            .map_err(|error| failed(format!("{}: {error}", path.display())))?;
        if !is_whole {
            self.out.warning(
                "*** Cluster seems to have some problems, please be aware of it if you're going to restore this backup.",
            );
        }
        let missing: Vec<_> = view
            .absent
            .iter()
            .map(|absent| &absent.line)
            .filter(|line| !line.slots.is_empty())
            .collect();
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

    async fn save(&self, node: &NodeView, folder: &Path) -> Result<(), String> {
        let NodeView { address, .. } = node;
        self.out.info(&format!(">>> Node {address} -> Saving RDB..."));
        let server = if node.info.get("valkey_version").is_some() { "valkey" } else { "redis" };
        let name =
            format!("{server}-node-{}-{}-{}.rdb", address.host(), address.port(), node.own.id);
        let path = folder.join(name);
        let begin = |length| {
            let _ = writeln!(
                std::io::stderr(),
                "SYNC sent to master, writing {length} bytes to '{}'",
                path.display()
            );
        };
        let saved = backup::save(address, &self.access, &path, begin).await;
        saved.map_err(|error| format!("{address}: {error}"))?;
        let _ = writeln!(std::io::stderr(), "Transfer finished with success.");
        Ok(())
    }
}

/// The layout, as redis-cli writes it.
fn nodes(view: &ClusterView) -> Vec<Value> {
    let faults = check::findings(view).iter().filter(|finding| finding.is_fault()).count();
    view.nodes.iter().map(|node| as_saved(node, faults)).collect()
}

fn as_saved(node: &NodeView, faults: usize) -> Value {
    let own = &node.own;
    let flags: Vec<&str> =
        own.flags.iter().map(String::as_str).filter(|flag| *flag != "myself").collect();
    let mut saved = Map::new();
    let mut put = |name: &str, value: Value| saved.insert(name.to_owned(), value);
    put("name", json!(own.id));
    put("host", json!(node.address.host()));
    put("port", json!(node.address.port()));
    put("replicate", json!(own.primary));
    put("slots", json!(ranges(&own.slots)));
    put("slots_count", json!(own.slots.len()));
    put("flags", json!(flags.join(",")));
    put("current_epoch", json!(node.cluster.number("cluster_current_epoch")));
    if faults > 0 {
        put("cluster_errors", json!(faults));
    }
    for (name, open) in [("migrating", &own.migrating), ("importing", &own.importing)] {
        if !open.is_empty() {
            let open: Map<String, Value> =
                open.iter().map(|(slot, id)| (slot.to_string(), json!(id))).collect();
            put(name, Value::Object(open));
        }
    }
    Value::Object(saved)
}

fn ranges(slots: &Slots) -> Vec<Vec<u16>> {
    let bounds = |range: std::ops::RangeInclusive<u16>| match (*range.start(), *range.end()) {
        (first, last) if first == last => vec![first],
        (first, last) => vec![first, last],
    };
    slots.ranges().into_iter().map(bounds).collect()
}
