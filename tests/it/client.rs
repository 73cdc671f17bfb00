//! A client that sends bytes and reads whole replies, and waits for neither longer than a test may take.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use slotway::resp::frame::{Progress, ReplyFramer};
use slotway::resp::write;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Longest wait for anything that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// A connection to the proxy.
pub(crate) struct Client {
    stream: TcpStream,
    buf: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the proxy accepts");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, buf: Vec::new() }
    }

    /// One that takes in little that it does not read.
    pub(crate) async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a buffer size");
        let stream = socket.connect(address).await.expect("the proxy accepts");
        Self { stream, buf: Vec::new() }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await;
        sent.expect("the proxy reads").expect("the connection is open");
    }

    /// Sends as many of these bytes as the proxy takes in without anything happening for a while, and says how many.
    pub(crate) async fn flood(&mut self, bytes: &[u8], pause: Duration) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            match timeout(pause, self.stream.write(&bytes[sent..])).await {
                Ok(Ok(taken)) => sent += taken,
                Ok(Err(error)) => panic!("the connection is open: {error}"),
                Err(_) => break,
            }
        }
        sent
    }

    /// Sends requests in one write, each given as words.
    pub(crate) async fn send_all(&mut self, lines: &[&str]) {
        let wire: Vec<u8> = lines.iter().flat_map(|line| request(line)).collect();
        self.send(wire).await;
    }

    /// The next reply.
    pub(crate) async fn read_bytes(&mut self) -> Vec<u8> {
        match timeout(PATIENCE, self.read_frame()).await.expect("a reply in time") {
            Ok(Some(reply)) => reply,
            Ok(None) => panic!("the proxy closed: {}", self.buf.escape_ascii()),
            Err(error) => panic!("the connection broke: {error}"),
        }
    }

    /// The next reply, as text.
    pub(crate) async fn read(&mut self) -> String {
        String::from_utf8_lossy(&self.read_bytes().await).into_owned()
    }

    /// So many replies.
    pub(crate) async fn read_n(&mut self, count: usize) -> Vec<String> {
        let mut replies = Vec::with_capacity(count);
        for _ in 0..count {
            replies.push(self.read().await);
        }
        replies
    }

    /// Sends a request given as words and reads its reply.
    pub(crate) async fn ask(&mut self, line: &str) -> String {
        self.send(request(line)).await;
        self.read().await
    }

    /// As `ask`, but gives nothing if the connection is closed.
    pub(crate) async fn try_ask(&mut self, line: &str) -> Option<String> {
        self.stream.write_all(&request(line)).await.ok()?;
        let reply = timeout(PATIENCE, self.read_frame()).await.expect("an end in time").ok()??;
        Some(String::from_utf8_lossy(&reply).into_owned())
    }

    /// Sends requests in one write and reads all their replies.
    pub(crate) async fn ask_all(&mut self, lines: &[&str]) -> Vec<String> {
        self.send_all(lines).await;
        self.read_n(lines.len()).await
    }

    /// Whether nothing arrives for this long.
    pub(crate) async fn is_silent_for(&mut self, time: Duration) -> bool {
        timeout(time, self.read_frame()).await.is_err()
    }

    /// Reads to the end of the connection and gives all that was left.
    pub(crate) async fn rest(&mut self) -> String {
        let rest = timeout(PATIENCE, self.stream.read_to_end(&mut self.buf)).await;
        match rest.expect("the proxy closes in time") {
            Ok(_) => {}
            // Closed with bytes of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection broke: {error}"),
        }
        String::from_utf8_lossy(&std::mem::take(&mut self.buf)).into_owned()
    }

    /// Sends no more; replies can still be read.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.expect("the connection is open");
    }

    /// Closes with a reset, as a client that crashes.
    pub(crate) fn vanish(self) {
        self.stream.set_zero_linger().expect("a TCP socket");
    }

    async fn read_frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut framer = ReplyFramer::default();
        loop {
            match framer.frame(&self.buf).expect("the proxy speaks RESP") {
                Progress::Complete(len) => return Ok(Some(self.buf.drain(..len).collect())),
                _ if self.stream.read_buf(&mut self.buf).await? == 0 => return Ok(None),
                _ => {}
            }
        }
    }
}

/// A request given as words.
pub(crate) fn request(line: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let mut wire = Vec::new();
    write::request(&mut wire, words.into_iter());
    wire
}

/// A bulk string reply.
pub(crate) fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}
