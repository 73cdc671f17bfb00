//! The frames that a node sends on a connection of its own accord, one after the other.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use crate::net::Stream;
use crate::resp::frame::{self, Progress, ReplyFramer};

/// Most bytes read at a time.
const READ: usize = 64 * 1024;

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
