//! Requests to one node, one at a time or several in one go, for the control plane: discovery, cluster management, tests.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, split};
use tokio::time::timeout;

use super::Credentials;
use crate::cluster::Address;
use crate::net::tls::{TlsTrouble, is_hung_up};
use crate::net::{Stream, Way};
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
    /// TLS did not come about.
    #[error("no TLS with {0}: {1}")]
    Tls(String, TlsTrouble),
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
    /// What helps against it, in the words of the proxy's configuration; nothing if that is not known. `is_secure` is whether
    /// TLS was spoken.
    pub fn advice(&self, is_secure: bool) -> &'static str {
        match self {
            Self::Tls(_, trouble) => advice(trouble),
            Self::Io(_, error) if !is_secure && is_hung_up(error) => {
                "if this is a port for TLS (tls-port), set [node] tls = true"
            }
            _ => "",
        }
    }

    /// The text of an error reply, if it was one.
    pub fn reply(&self) -> Option<&str> {
        match self {
            Self::Reply(_, text) => Some(text),
            _ => None,
        }
    }
}

/// What every connection to a node of a cluster needs.
#[derive(Clone, Debug)]
pub struct Access {
    /// User and password, the same on all nodes.
    pub credentials: Option<Credentials>,
    /// TLS, and kinds of addresses.
    pub way: Way,
    /// How long connecting, and each answer after that, may take.
    pub limit: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self { credentials: None, way: Way::default(), limit: Duration::from_secs(5) }
    }
}

impl Access {
    /// A connection to the node at an address, logged in.
    pub async fn open(&self, address: &Address) -> Result<Control, ControlError> {
        let mut control = Control::connect_by(&self.way, &address.to_string(), self.limit).await?;
        if let Some(credentials) = &self.credentials {
            control.authenticate(credentials).await?;
        }
        Ok(control)
    }
}

/// What helps against trouble with TLS, in the words of the proxy's configuration.
pub fn advice(trouble: &TlsTrouble) -> &'static str {
    match trouble {
        TlsTrouble::Plain | TlsTrouble::Silent => {
            "give the ports on which the nodes do (tls-port; the cluster needs tls-cluster yes), or leave [node] tls out"
        }
        TlsTrouble::Stranger => "name the CA's certificate with [node] tls_ca_cert_file",
        TlsTrouble::Name { .. } => {
            "give the right name with [node] tls_name, or look at who signed it only, with tls_check = \"signature\""
        }
        TlsTrouble::Date => "renew it, and look at the clocks of both machines",
        TlsTrouble::Anonymous => "give one with [node] tls_cert_file and tls_key_file",
        TlsTrouble::Refused(_) => {
            "give one with [node] tls_cert_file and tls_key_file that a CA of the node (tls-ca-cert-file) has signed"
        }
        TlsTrouble::Unnamed | TlsTrouble::Other(_) => "",
    }
}

/// A connection to one node.
#[derive(Debug)]
pub struct Control {
    address: String,
    stream: Stream,
    buf: BytesMut,
    limit: Duration,
}

impl Control {
    /// Connects to `host:port`; every later call may take as long as connecting.
    pub async fn connect(address: &str, limit: Duration) -> Result<Self, ControlError> {
        Self::connect_by(&Way::default(), address, limit).await
    }

    /// The same by a way of one's own.
    pub async fn connect_by(
        way: &Way,
        address: &str,
        limit: Duration,
    ) -> Result<Self, ControlError> {
        let (host, port) =
            host_and_port(address).ok_or_else(|| ControlError::Address(address.to_owned()))?;
        let dialled = timeout(limit, way.dial(host, port)).await;
        let stream = dialled
            .map_err(|_| ControlError::Timeout(address.to_owned(), limit))?
            .map_err(|e| io_error(address, e))?;
        // One that does not speak TLS may take what it is greeted with for the beginning of a request.
        let stream = timeout(limit, way.secure(stream, host))
            .await
            .map_err(|_| ControlError::Tls(address.to_owned(), TlsTrouble::Silent))?
            .map_err(|e| io_error(address, e))?;
        Ok(Self { address: address.to_owned(), stream, buf: BytesMut::new(), limit })
    }

    /// Says who we are.
    pub async fn authenticate(&mut self, credentials: &Credentials) -> Result<(), ControlError> {
        let user = credentials.username.as_deref().map(str::as_bytes);
        let args: Vec<&[u8]> = [Some(&b"AUTH"[..]), user, Some(credentials.password.as_bytes())]
            .into_iter()
            .flatten()
            .collect();
        self.call(&args).await.map(drop)
    }

    /// The connection itself and what has come on it beyond the last reply, for what is not requests and replies.
    pub fn into_parts(self) -> (Stream, BytesMut) {
        (self.stream, self.buf)
    }

    /// Sends a request and waits for its reply. An error reply is [`ControlError::Reply`].
    pub async fn call(&mut self, args: &[&[u8]]) -> Result<Value, ControlError> {
        let mut wire = Vec::new();
        write::request(&mut wire, args.iter().copied());
        match self.exchange(&wire, 1).await?.swap_remove(0) {
            Value::Error(text) => Err(ControlError::Reply(self.address.clone(), text.to_string())),
            value => Ok(value),
        }
    }

    /// Sends requests in one write and waits for as many replies, in the order of the requests; an error reply is a value
    /// among them. All of them together may take as long as one call.
    ///
    /// Each request takes memory here and there, and the node serves nobody else while it runs those that came together:
    /// the caller bounds their number.
    pub async fn pipeline<A: AsRef<[u8]>>(
        &mut self,
        requests: &[Vec<A>],
    ) -> Result<Vec<Value>, ControlError> {
        let mut wire = Vec::new();
        for request in requests {
            write::request(&mut wire, request.iter().map(AsRef::as_ref));
        }
        self.exchange(&wire, requests.len()).await
    }

    /// Gives later calls so much time.
    pub fn allow(&mut self, limit: Duration) {
        self.limit = limit;
    }

    async fn exchange(&mut self, wire: &[u8], count: usize) -> Result<Vec<Value>, ControlError> {
        let limit = self.limit;
        let answers = timeout(limit, self.ask(wire, count)).await;
        answers.map_err(|_| ControlError::Timeout(self.address.clone(), limit))?
    }

    async fn ask(&mut self, wire: &[u8], count: usize) -> Result<Vec<Value>, ControlError> {
        let Self { address, stream, buf, .. } = self;
        let (mut read, mut write) = split(stream);
        // A node that is not read from stops reading: what is long has to go out and come in at the same time.
        let sending = async {
            write.write_all(wire).await.map_err(|e| io_error(address, e))?;
            write.flush().await.map_err(|e| io_error(address, e))
        };
        let receiving = async {
            let mut replies = Vec::with_capacity(count);
            while replies.len() < count {
                replies.push(next_reply(&mut read, buf, address).await?);
            }
            Ok(replies)
        };
        let (mut sending, mut receiving) = (pin!(sending), pin!(receiving));
        let sent = tokio::select! {
            received = &mut receiving => return received,
            sent = &mut sending => sent,
        };
        // Why it takes no more a node may have said before.
        receiving.await.and_then(|replies| sent.map(|()| replies))
    }
}

async fn next_reply(
    read: &mut ReadHalf<&mut Stream>,
    buf: &mut BytesMut,
    address: &str,
) -> Result<Value, ControlError> {
    let protocol = |e| ControlError::Protocol(address.to_owned(), e);
    let mut framer = ReplyFramer::default();
    loop {
        if let Progress::Complete(len) = framer.frame(buf).map_err(protocol)? {
            let reply: Bytes = buf.split_to(len).freeze();
            let decoded = value::decode(&reply).map_err(protocol)?;
            return decoded.map(|(value, _)| value).ok_or_else(|| protocol(ReplyError));
        }
        if read.read_buf(buf).await.map_err(|e| io_error(address, e))? == 0 {
            return Err(io_error(address, io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

fn io_error(address: &str, error: io::Error) -> ControlError {
    match TlsTrouble::of(&error) {
        Some(trouble) => ControlError::Tls(address.to_owned(), trouble),
        None => ControlError::Io(address.to_owned(), error),
    }
}

fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(5);

    /// A node that answers each byte it is sent, as it comes, with the same bytes.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serve = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        };
        tokio::task::spawn_local(serve);
        address
    }

    async fn local<T>(future: impl Future<Output = T>) -> T {
        tokio::task::LocalSet::new().run_until(future).await
    }

    #[tokio::test]
    async fn replies_come_in_the_order_of_the_requests() {
        local(async {
            let mut control = Control::connect(&echo().await, LIMIT).await.unwrap();
            let requests = [vec!["PING"], vec!["SET", "a\0b", "1"]];
            let bulk = |text: &'static str| Value::BulkString(text.into());
            let expected = requests
                .iter()
                .map(|words| Value::Array(words.iter().copied().map(bulk).collect()));
            assert_eq!(control.pipeline(&requests).await.unwrap(), expected.collect::<Vec<_>>());
            assert_eq!(control.pipeline::<&str>(&[]).await.unwrap(), []);
        })
        .await;
    }

    /// More than the sockets' buffers hold: a node that cannot write does not read.
    #[tokio::test]
    async fn a_long_pipeline_is_read_while_it_is_written() {
        local(async {
            let mut control = Control::connect(&echo().await, LIMIT).await.unwrap();
            let requests = vec![vec!["x".repeat(1000)]; 20_000];
            assert_eq!(control.pipeline(&requests).await.unwrap().len(), requests.len());
        })
        .await;
    }
}
