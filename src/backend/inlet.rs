//! The frames that a node sends on a connection of its own accord, one after the other.

use std::convert::Infallible;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::Pool;
use crate::net::Stream;
use crate::resp::frame::{self, Progress, ReplyFramer};

/// Most bytes read at a time.
const READ: usize = 64 * 1024;
/// Messages passed on before other tasks get their turn: about a millisecond.
const TURN: u64 = 10_000;
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// What has been read and not been looked at.
#[derive(Debug, Default)]
pub struct Inlet {
    buf: BytesMut,
    framer: ReplyFramer,
}

impl Inlet {
    /// Reads what there is, and says how much. Nothing is lost if the wait is given up.
    pub async fn read(&mut self, stream: &mut Stream) -> io::Result<usize> {
        self.buf.reserve(READ);
        match stream.read_buf(&mut (&mut self.buf).limit(READ)).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }

    /// Waits for the next frame.
    pub(super) async fn next(&mut self, stream: &mut Stream) -> io::Result<Bytes> {
        loop {
            if let Some(frame) = self.frame()? {
                return Ok(frame);
            }
            self.read(stream).await?;
        }
    }

    /// Listens until the connection is lost; a node that is silent for long is asked whether it is there. `take` is handed every
    /// frame, and says to how many clients it was passed on.
    pub async fn listen(
        &mut self,
        stream: &mut Stream,
        pool: &Pool,
        mut take: impl FnMut(Bytes) -> io::Result<u64>,
    ) -> io::Result<Infallible> {
        let (patience, mut pinged) = (pool.response_timeout() / 2, false);
        loop {
            match timeout(patience, self.read(stream)).await {
                Ok(read) => {
                    pinged = false;
                    pool.stats.read_bytes.add(read? as u64);
                }
                Err(_) if pinged => return Err(io::ErrorKind::TimedOut.into()),
                Err(_) => {
                    pinged = true;
                    stream.send(PING).await?;
                }
            }
            let mut told = 0;
            while let Some(frame) = self.frame()? {
                told += take(frame)?;
                if told > TURN {
                    told = 0;
                    yield_now().await;
                }
            }
            // What was told is sent before more is read.
            yield_now().await;
        }
    }

    /// The frame at the front, if all of it is there.
    pub fn frame(&mut self) -> io::Result<Option<Bytes>> {
        match self.framer.frame(&self.buf).map_err(io::Error::other)? {
            Progress::Complete(len) => Ok(Some(self.buf.split_to(len).freeze())),
            Progress::Partial(want) => {
                self.buf.reserve(frame::growth(self.buf.len(), want));
                Ok(None)
            }
            Progress::Inline(_) => Ok(None),
        }
    }
}
