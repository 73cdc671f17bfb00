//! A plain client: requests out, whole replies in, nothing clever.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes_mut;
use redis_protocol::resp3::decode::complete::decode_bytes_mut as decode_resp3;
use redis_protocol::resp3::types::BytesFrame;
use slotway::net::{Stream, Way};
use slotway::resp::value::Value;
use slotway::resp::{Protocol, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};

/// A connection to a proxy or to a node.
pub(crate) struct Client {
    stream: Stream,
    buffer: BytesMut,
    protocol: Protocol,
}

/// One argument after the other, as a request.
pub(crate) fn wire<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = Vec::new();
    write::request(&mut out, args.iter().map(AsRef::as_ref));
    out
}

impl Client {
    pub(crate) async fn connect(address: impl ToSocketAddrs) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::on(Stream::Plain(stream)))
    }

    /// Connects by another way than plain TCP.
    pub(crate) async fn connect_by(way: &Way, address: SocketAddr) -> io::Result<Self> {
        let host = address.ip().to_string();
        let stream = way.dial(&host, address.port()).await?;
        Ok(Self::on(way.secure(stream, &host).await?))
    }

    fn on(stream: Stream) -> Self {
        Self { stream, buffer: BytesMut::new(), protocol: Protocol::Resp2 }
    }

    /// Connects to something that must be there.
    pub(crate) async fn to(address: impl ToSocketAddrs) -> Self {
        Self::connect(address).await.expect("somebody listens")
    }

    pub(crate) async fn send(&mut self, wire: &[u8]) -> io::Result<()> {
        self.stream.write_all(wire).await?;
        self.stream.flush().await
    }

    /// Goes over to RESP3.
    pub(crate) async fn hello3(&mut self) -> io::Result<()> {
        self.send(&wire(&["HELLO", "3"])).await?;
        self.protocol = Protocol::Resp3;
        let greeting = self.raw_reply().await?;
        assert!(greeting.starts_with(b"%"), "{}", greeting.escape_ascii());
        Ok(())
    }

    /// The next reply, of those kinds that both versions have.
    pub(crate) async fn reply(&mut self) -> io::Result<Value> {
        Ok(self.decoded().await?.0)
    }

    /// The bytes of the next reply.
    pub(crate) async fn raw_reply(&mut self) -> io::Result<Bytes> {
        Ok(self.decoded().await?.1)
    }

    async fn decoded(&mut self) -> io::Result<(Value, Bytes)> {
        loop {
            let buffer = &mut self.buffer;
            let decoded = match self.protocol {
                Protocol::Resp2 => decode_bytes_mut(buffer).map(|found| found.map(|f| (f.0, f.2))),
                Protocol::Resp3 => {
                    decode_resp3(buffer).map(|found| found.map(|f| (as_resp2(f.0), f.2)))
                }
            };
            if let Some(reply) = decoded.map_err(io::Error::other)? {
                return Ok(reply);
            }
            self.fill().await?;
        }
    }

    /// Whether a reply has arrived already.
    pub(crate) fn has_bytes(&self) -> bool {
        !self.buffer.is_empty()
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.buffer.reserve(64 * 1024);
        let read = self.stream.read_buf(&mut self.buffer).await?;
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// One request and its reply.
    pub(crate) async fn ask<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        self.send(&wire(args)).await.expect("the request is taken");
        self.reply().await.expect("a reply")
    }

    /// One request, its words divided by blanks, and its reply.
    pub(crate) async fn call(&mut self, line: &str) -> Value {
        self.ask(&line.split(' ').collect::<Vec<_>>()).await
    }

    /// Many requests at once, and their replies. They are written in portions, so that neither side has to hold all.
    pub(crate) async fn pipeline(&mut self, requests: &[Vec<u8>]) -> Vec<Value> {
        let mut replies = Vec::with_capacity(requests.len());
        for portion in requests.chunks(200) {
            self.send(&portion.concat()).await.expect("the requests are taken");
            for _ in portion {
                replies.push(self.reply().await.expect("a reply"));
            }
        }
        replies
    }
}

/// A RESP3 value as RESP2 has it, where it does.
fn as_resp2(frame: BytesFrame) -> Value {
    match frame {
        BytesFrame::BlobString { data, .. } => Value::BulkString(data),
        BytesFrame::SimpleString { data, .. } => Value::SimpleString(data),
        BytesFrame::SimpleError { data, .. } => Value::Error(data),
        BytesFrame::Number { data, .. } => Value::Integer(data),
        BytesFrame::Array { data, .. } | BytesFrame::Push { data, .. } => {
            Value::Array(data.into_iter().map(as_resp2).collect())
        }
        BytesFrame::Null => Value::Null,
        other => Value::Error(format!("not RESP2: {other:?}").into()),
    }
}

/// A bulk string.
pub(crate) fn bulk(text: impl AsRef<[u8]>) -> Value {
    Value::BulkString(Bytes::copy_from_slice(text.as_ref()))
}

/// `+OK`.
pub(crate) fn ok() -> Value {
    Value::SimpleString(Bytes::from_static(b"OK"))
}
