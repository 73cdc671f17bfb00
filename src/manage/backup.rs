//! Saves what a primary has as an RDB file: the node takes us for a replica that wants everything.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use thiserror::Error;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::access::Access;
use crate::backend::control::ControlError;
use crate::cluster::Address;
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
}

/// Writes the data of the node at an address to a file, which is there when it is whole; gives its length. `begin` is told
/// the length before the file comes.
pub async fn save(
    address: &Address,
    access: &Access,
    path: &Path,
    begin: impl FnOnce(u64),
) -> Result<u64, BackupError> {
    let (stream, rest) = access.open(address).await?.into_parts();
    let mut feed = Feed { stream, buffer: rest };
    feed.stream.write_all(b"*1\r\n$4\r\nSYNC\r\n").await?;
    feed.stream.flush().await?;
    let length = feed.announced().await?;
    begin(length);
    let unfinished = path.with_extension("rdb.part");
    let mut file = File::create(&unfinished).await?;
    let mut left = length;
    while left > 0 {
        let some = feed.some().await?;
        let take = some.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&some[..take]).await?;
        feed.buffer.advance(take);
        left -= take as u64;
    }
    file.sync_all().await?;
    fs::rename(&unfinished, path).await?;
    Ok(length)
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
