//! Saves a cluster: what each primary has as an RDB file, for which the node takes us for a replica that wants everything, and
//! the layout.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde_json::{Map, Value, json};
use thiserror::Error;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::access::Access;
use super::check::{self, Finding};
use super::mover::Reins;
use super::view::{ClusterView, Line, NodeView};
use crate::backend::control::ControlError;
use crate::cluster::{Address, Slots};
use crate::net::Stream;

/// How long a node may send nothing. It says that it is alive while it prepares the file; a minute is what it allows its
/// replicas too (`repl-timeout`).
const SILENCE: Duration = Duration::from_secs(60);
/// Longest line in front of the file.
const LINE_MAX: usize = 1024;

/// Why there is no file.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The node could not be reached.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The connection broke, or the file could not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The node said something else than a file.
    #[error("the node answered SYNC with {0:?}")]
    Refused(String),
    /// It said nothing for a minute.
    #[error("the node has sent nothing for {} s", SILENCE.as_secs())]
    Silent,
    /// It was told to stop.
    #[error("stopped, as it was told to")]
    Stopped,
}

/// A backup that is not whole: what could not be saved, and why.
#[derive(Debug, Error)]
#[error("{what}: {error}")]
pub struct Failed {
    /// A node, or a file.
    pub what: String,
    /// What happened.
    pub error: BackupError,
}

/// What is told meanwhile.
#[derive(Debug)]
pub enum Event<'a> {
    /// A primary is asked for what it has.
    Node(&'a Address),
    /// So many bytes come, and go into this file.
    Begin(u64, &'a Path),
    /// They are there.
    Saved,
    /// The layout goes into this file.
    Layout(&'a Path),
}

/// Saves all primaries that answer, and the layout, in a folder. What others have is [`missing`].
pub async fn all(
    view: &ClusterView,
    access: &Access,
    folder: &Path,
    reins: &Reins,
    tell: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<(), Failed> {
    for node in view.primaries() {
        tell(Event::Node(&node.address));
        let path = place(folder, node);
        let saved = save(&node.address, access, &path, reins, tell).await;
        saved.map_err(|error| Failed { what: node.address.to_string(), error })?;
        tell(Event::Saved);
    }
    let path = folder.join("nodes.json");
    tell(Event::Layout(&path));
    let written = fs::write(&path, layout(view)).await;
    written.map_err(|error| Failed { what: path.display().to_string(), error: error.into() })
}

/// Who owns slots and does not answer.
pub fn missing(view: &ClusterView) -> impl Iterator<Item = &Line> {
    view.absent.iter().map(|absent| &absent.line).filter(|line| !line.slots.is_empty())
}

/// The file of a primary.
pub fn place(folder: &Path, node: &NodeView) -> PathBuf {
    let server = if node.info.get("valkey_version").is_some() { "valkey" } else { "redis" };
    let NodeView { address, own, .. } = node;
    folder.join(format!("{server}-node-{}-{}-{}.rdb", address.host(), address.port(), own.id))
}

/// The layout, as redis-cli writes it.
fn layout(view: &ClusterView) -> String {
    let faults = check::findings(view).iter().filter(|finding| Finding::is_fault(finding)).count();
    let nodes: Vec<Value> = view.nodes.iter().map(|node| as_saved(node, faults)).collect();
    serde_json::to_string_pretty(&nodes).expect("our values can be written") + "\n"
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

/// Writes the data of the node at an address to a file, which is there when it is whole.
async fn save(
    address: &Address,
    access: &Access,
    path: &Path,
    reins: &Reins,
    tell: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<(), BackupError> {
    let (stream, rest) = access.open(address).await?.into_parts();
    let mut feed = Feed { stream, buffer: rest };
    feed.stream.write_all(b"*1\r\n$4\r\nSYNC\r\n").await?;
    feed.stream.flush().await?;
    let length = feed.announced().await?;
    tell(Event::Begin(length, path));
    let unfinished = path.with_extension("rdb.part");
    let mut file = File::create(&unfinished).await?;
    let mut left = length;
    while left > 0 {
        if reins.is_ending() {
            fs::remove_file(&unfinished).await?;
            return Err(BackupError::Stopped);
        }
        let some = feed.some().await?;
        let take = some.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&some[..take]).await?;
        feed.buffer.advance(take);
        left -= take as u64;
    }
    file.sync_all().await?;
    Ok(fs::rename(&unfinished, path).await?)
}

/// What a node sends to its replica.
struct Feed {
    stream: Stream,
    buffer: BytesMut,
}

impl Feed {
    /// What has come and was not taken, at least one byte.
    async fn some(&mut self) -> Result<&[u8], BackupError> {
        if self.buffer.is_empty() {
            self.read().await?;
        }
        Ok(&self.buffer)
    }

    async fn read(&mut self) -> Result<(), BackupError> {
        let read = timeout(SILENCE, self.stream.read_buf(&mut self.buffer)).await;
        match read.map_err(|_| BackupError::Silent)?? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }

    /// The length of the file: `$<length>`, after empty lines for as long as it is not ready.
    async fn announced(&mut self) -> Result<u64, BackupError> {
        loop {
            let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
                if self.buffer.len() > LINE_MAX {
                    return Err(BackupError::Refused(
                        String::from_utf8_lossy(&self.buffer[..80]).into_owned(),
                    ));
                }
                self.read().await?;
                continue;
            };
            let line = self.buffer.split_to(end + 1);
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if line.is_empty() {
                continue;
            }
            let length = line.strip_prefix('$').and_then(|length| length.parse().ok());
            return length.ok_or(BackupError::Refused(line));
        }
    }
}
