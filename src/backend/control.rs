//! One request at a time to one node, for the control plane: discovery, cluster management, tests.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Credentials;
use crate::resp::frame::{Progress, ReplyError, ReplyFramer};
use crate::resp::value::{self, Value};
use crate::resp::write;

/// Why a call to a node failed.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The address names no host and port.
    #[error("{0:?} is not an address; give host:port")]
    Address(String),
    /// The connection could not be made, or broke.
    #[error("cannot talk to {0}: {1}")]
    Io(String, io::Error),
    /// No answer in time.
    #[error("{0} did not answer within {1:?}")]
    Timeout(String, Duration),
    /// The node answered with an error.
    #[error("{0} answered: {1}")]
    Reply(String, String),
    /// The node answered something that is not RESP2.
    #[error("{0} does not speak RESP: {1}")]
    Protocol(String, ReplyError),
}

impl ControlError {
    /// The text of an error reply, if it was one.
    pub fn reply(&self) -> Option<&str> {
        match self {
            Self::Reply(_, text) => Some(text),
            _ => None,
        }
    }
}

/// A connection to one node.
#[derive(Debug)]
pub struct Control {
    address: String,
    stream: TcpStream,
    buf: BytesMut,
    limit: Duration,
}

impl Control {
    /// Connects to `host:port`; every later call may take as long as connecting.
    pub async fn connect(address: &str, limit: Duration) -> Result<Self, ControlError> {
        let (host, port) =
            split(address).ok_or_else(|| ControlError::Address(address.to_owned()))?;
        let connecting = timeout(limit, TcpStream::connect((host, port))).await;
        let stream = connecting
            .map_err(|_| ControlError::Timeout(address.to_owned(), limit))?
            .map_err(|e| ControlError::Io(address.to_owned(), e))?;
        stream.set_nodelay(true).map_err(|e| ControlError::Io(address.to_owned(), e))?;
        Ok(Self { address: address.to_owned(), stream, buf: BytesMut::new(), limit })
    }

    /// Connects and authenticates.
    pub async fn login(
        address: &str,
        limit: Duration,
        credentials: Option<&Credentials>,
    ) -> Result<Self, ControlError> {
        let mut control = Self::connect(address, limit).await?;
        if let Some(credentials) = credentials {
            let user = credentials.username.as_deref().map(str::as_bytes);
            let args: Vec<&[u8]> =
                [Some(&b"AUTH"[..]), user, Some(credentials.password.as_bytes())]
                    .into_iter()
                    .flatten()
                    .collect();
            control.call(&args).await?;
        }
        Ok(control)
    }

    /// Sends a request and waits for its reply. An error reply is [`ControlError::Reply`].
    pub async fn call(&mut self, args: &[&[u8]]) -> Result<Value, ControlError> {
        let limit = self.limit;
        let answer = timeout(limit, self.exchange(args)).await;
        match answer.map_err(|_| ControlError::Timeout(self.address.clone(), limit))?? {
            Value::Error(text) => Err(ControlError::Reply(self.address.clone(), text.to_string())),
            value => Ok(value),
        }
    }

    async fn exchange(&mut self, args: &[&[u8]]) -> Result<Value, ControlError> {
        let mut wire = Vec::new();
        write::request(&mut wire, args.iter().copied());
        let io = |e| ControlError::Io(self.address.clone(), e);
        let protocol = |e| ControlError::Protocol(self.address.clone(), e);
        self.stream.write_all(&wire).await.map_err(io)?;
        let mut framer = ReplyFramer::default();
        loop {
            if let Progress::Complete(len) = framer.frame(&self.buf).map_err(protocol)? {
                let reply: Bytes = self.buf.split_to(len).freeze();
                let decoded = value::decode(&reply).map_err(protocol)?;
                return decoded.map(|(value, _)| value).ok_or_else(|| protocol(ReplyError));
            }
            if self.stream.read_buf(&mut self.buf).await.map_err(io)? == 0 {
                return Err(io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?))
}
