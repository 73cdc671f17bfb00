//! Connecting to a node, up to the point where requests can be written.
//!
//! The handshake always ends with a `PING` that is answered: the kernel accepts connections for a process that is stopped,
//! and a request written to such a one would be neither run nor known not to have run.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::lane::Class;
use super::{Credentials, Options};
use crate::cluster::Address;
use crate::net::Stream;
use crate::resp::frame::{Progress, ReplyFramer};
use crate::resp::{Protocol, write};

/// Idle time after which the kernel asks whether the node is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Opens a connection of a class to a node.
pub(super) async fn connect(
    address: Address,
    class: Class,
    options: Options,
) -> io::Result<Stream> {
    let limit = options.connect_timeout;
    timeout(limit, greet(&address, class, &options))
        .await
        .unwrap_or_else(|_| Err(timed_out(&address, limit)))
}

async fn greet(address: &Address, class: Class, options: &Options) -> io::Result<Stream> {
    let stream = options.way.dial(address.host(), address.port()).await?;
    // Finds out that an idle connection's other end is gone before a request is written to it.
    socket2::SockRef::from(&stream)
        .set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE))?;
    let mut stream = options.way.secure(stream, address.host()).await?;
    let (wire, replies) = greeting(class, options.credentials.as_ref());
    stream.send(&wire).await?;
    read_replies(&mut stream, replies).await?;
    Ok(stream)
}

/// The bytes of the handshake and the number of replies to it.
fn greeting(class: Class, credentials: Option<&Credentials>) -> (Vec<u8>, usize) {
    let mut commands: Vec<Vec<&[u8]>> = Vec::new();
    if let Some(credentials) = credentials {
        let user = credentials.username.as_deref().map(str::as_bytes);
        commands.push(
            [Some(&b"AUTH"[..]), user, Some(credentials.password.as_bytes())]
                .into_iter()
                .flatten()
                .collect(),
        );
    }
    if class.protocol == Protocol::Resp3 {
        commands.push(vec![b"HELLO", b"3"]);
    }
    if class.replica {
        commands.push(vec![b"READONLY"]);
    }
    commands.push(vec![b"PING"]);
    let mut wire = Vec::new();
    for command in &commands {
        write::request(&mut wire, command.iter().copied());
    }
    (wire, commands.len())
}

/// Reads the replies to the handshake and nothing beyond: no request has been sent yet.
async fn read_replies(stream: &mut Stream, mut replies: usize) -> io::Result<()> {
    let mut buf = Vec::new();
    let mut framer = ReplyFramer::default();
    while replies > 0 {
        match framer.frame(&buf).map_err(io::Error::other)? {
            Progress::Complete(len) => {
                refused(&buf[..len])?;
                buf.drain(..len);
                replies -= 1;
            }
            _ => {
                if stream.read_buf(&mut buf).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
    Ok(())
}

/// A node that is loading, has lost its primary or is busy with a script is alive, and says so again to each request; any
/// other error ends it.
fn refused(reply: &[u8]) -> io::Result<()> {
    let alive = [&b"-LOADING"[..], b"-MASTERDOWN", b"-CLUSTERDOWN", b"-BUSY"]
        .iter()
        .any(|code| reply.starts_with(code));
    if reply.first() != Some(&b'-') || alive {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the node refused the handshake: {}",
        String::from_utf8_lossy(reply).trim_end()
    )))
}

fn timed_out(address: &Address, limit: Duration) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("{address} did not answer within {} ms", limit.as_millis()),
    )
}
