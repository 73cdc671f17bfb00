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
/// File of the layout.
const LAYOUT: &str = "nodes.json";
/// Most bytes that it has: a few hundred for each node.
const LAYOUT_MAX: u64 = 1 << 20;
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
    /// The layout of something else would be overwritten.
    #[error("it is there, and not the layout of this cluster")]
    Foreign,
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

/// Where the layout goes, unless there is something that is not of this cluster.
pub fn layout_place(folder: &Path, view: &ClusterView) -> Result<PathBuf, Failed> {
    let path = folder.join(LAYOUT);
    let failed = |error| Failed { what: path.display().to_string(), error };
    let is_layout = |file: std::fs::Metadata| file.is_file() && file.len() <= LAYOUT_MAX;
    if std::fs::metadata(&path).is_ok_and(|file| !is_layout(file)) {
        return Err(failed(BackupError::Foreign));
    }
    match std::fs::read(&path) {
        Ok(text) if is_of(&text, view) => Ok(path),
        Ok(_) => Err(failed(BackupError::Foreign)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path),
        Err(error) => Err(failed(error.into())),
    }
}

/// Whether this is the layout of an earlier backup: it names a node that is still there.
fn is_of(text: &[u8], view: &ClusterView) -> bool {
    let Ok(Value::Array(nodes)) = serde_json::from_slice(text) else { return false };
    let names: Vec<&str> = nodes.iter().filter_map(|node| node["name"].as_str()).collect();
    view.lines().any(|line| names.contains(&&*line.id.0))
}

/// Saves all primaries that answer, and the layout, in a folder. What others have is [`missing`].
pub async fn all(
    view: &ClusterView,
    access: &Access,
    folder: &Path,
    reins: &Reins,
    tell: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<(), Failed> {
    let layout_path = layout_place(folder, view)?;
    for node in view.primaries() {
        tell(Event::Node(&node.address));
        let path = place(folder, node);
        let saved = tokio::select! {
            saved = save(&node.address, access, &path, tell) => saved,
            () = reins.ending() => Err(BackupError::Stopped),
        };
        saved.map_err(|error| Failed { what: node.address.to_string(), error })?;
        tell(Event::Saved);
    }
    tell(Event::Layout(&layout_path));
    let written = write(&layout_path, &layout(view)).await;
    written.map_err(|error| Failed { what: layout_path.display().to_string(), error: error.into() })
}

async fn write(path: &Path, text: &str) -> io::Result<()> {
    let part = Part::of(path);
    let mut file = File::create(&part.0).await?;
    file.write_all(text.as_bytes()).await?;
    // Or a crash could leave a name without what belongs to it.
    file.sync_all().await?;
    fs::rename(&part.0, path).await
}

/// The name of a file that is not whole yet; it is gone with this.
struct Part(PathBuf);

impl Part {
    fn of(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        Self(name.into())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // One that is whole has another name by now.
        let _ = std::fs::remove_file(&self.0);
    }
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
    tell: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<(), BackupError> {
    let (stream, rest) = access.open(address).await?.into_parts();
    let mut feed = Feed { stream, buffer: rest };
    feed.stream.write_all(b"*1\r\n$4\r\nSYNC\r\n").await?;
    feed.stream.flush().await?;
    let length = feed.announced().await?;
    tell(Event::Begin(length, path));
    let part = Part::of(path);
    let mut file = File::create(&part.0).await?;
    let mut left = length;
    while left > 0 {
        let some = feed.some().await?;
        let take = some.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&some[..take]).await?;
        feed.buffer.advance(take);
        left -= take as u64;
    }
    file.sync_all().await?;
    Ok(fs::rename(&part.0, path).await?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_layout_of_the_same_cluster_is_overwritten() {
        let view = ClusterView::said(&["a 10.0.0.9:9@19 myself,master - 0 0 0 connected"]);
        let other = ClusterView::said(&["b 10.0.0.9:9@19 myself,master - 0 0 0 connected"]);
        let folder = tempfile::tempdir().unwrap();
        let check = |text: &str, is_ours: bool| {
            std::fs::write(folder.path().join(LAYOUT), text).unwrap();
            assert_eq!(layout_place(folder.path(), &view).is_ok(), is_ours, "{text}");
        };
        assert!(layout_place(folder.path(), &view).is_ok());
        std::fs::create_dir(folder.path().join(LAYOUT)).unwrap();
        let found = layout_place(folder.path(), &view);
        assert!(matches!(found, Err(Failed { error: BackupError::Foreign, .. })), "{found:?}");
        std::fs::remove_dir(folder.path().join(LAYOUT)).unwrap();
        check(&layout(&view), true);
        check(&layout(&other), false);
        check("{\"name\": \"a\"}", false);
        check("[]", false);
        check("what somebody wrote", false);
    }

    /// A node that takes its time with the file.
    #[tokio::test]
    async fn who_is_told_to_stop_does_so_at_once_and_leaves_nothing() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::parse(&listener.local_addr().unwrap().to_string(), None).unwrap();
        let (folder, reins) = (tempfile::tempdir().unwrap(), Reins::default());
        let node = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"$1000\r\nbegun").await.unwrap();
            std::future::pending::<()>().await;
        };
        let mut view = ClusterView::said(&["a 10.0.0.9:9@19 myself,master - 0 0 0 connected"]);
        view.nodes[0] = NodeView { address, ..view.nodes[0].clone() };
        let stop = reins.clone();
        let mut tell = |event: Event<'_>| {
            if let Event::Begin(..) = event {
                stop.finish();
            }
        };
        let saved = async {
            let access = Access::default();
            all(&view, &access, folder.path(), &reins, &mut tell).await
        };
        let saved = tokio::select! { saved = saved => saved, () = node => unreachable!() };
        assert!(matches!(saved, Err(Failed { error: BackupError::Stopped, .. })), "{saved:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
