//! One administrator: bytes to words, answers to bytes, in the order of the requests.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::complaint::Complaint;
use super::job::Job;
use super::{Admin, audit, every, words};
use crate::resp::frame::{Limits, Progress, RequestFramer};
use crate::resp::request::{Request, from_inline};
use crate::resp::{Protocol, write};

/// What a request may be: words of a command line, none of them large.
const LIMITS: Limits =
    Limits { args: 4096, bulk: 1 << 20, request: 4 << 20, unauthenticated: false };
/// Shortest time between two pushes.
const PAUSE: Duration = Duration::from_millis(200);
/// How long, and how much, a client may still send that is told to go, so that it reads why before the connection is reset.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: usize = 64 << 20;

/// What is known of a client.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) peer: SocketAddr,
    pub(super) protocol: Protocol,
    pub(super) is_known: bool,
    pub(super) is_leaving: bool,
    pub(super) name: String,
    /// A job that the client waits for.
    pub(super) watched: Option<Watched>,
}

/// A job that a client waits for.
#[derive(Debug)]
pub(super) struct Watched {
    job: Arc<Job>,
    /// Whether it wants to hear of each change.
    is_pushed: bool,
    limit: Duration,
}

impl Watched {
    pub(super) fn pushed(job: Arc<Job>) -> Self {
        Self { job, is_pushed: true, limit: Duration::MAX }
    }

    pub(super) fn for_at_most(job: Arc<Job>, limit: Duration) -> Self {
        Self { job, is_pushed: false, limit }
    }
}

/// Serves a client until it leaves.
pub(super) async fn serve(
    mut stream: TcpStream,
    admin: Arc<Admin>,
    (number, peer): (u64, SocketAddr),
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session {
        number,
        peer,
        protocol: Protocol::default(),
        is_known: admin.rights.load().password.is_none(),
        is_leaving: false,
        name: String::new(),
        watched: None,
    };
    let (mut framer, mut buf, mut out) = (RequestFramer::default(), BytesMut::new(), Vec::new());
    while !session.is_leaving {
        let limits = if session.is_known { LIMITS } else { LIMITS.before_auth() };
        match next(&mut framer, &mut buf, &limits) {
            Ok(Some(words)) => {
                if !words.is_empty() {
                    answer(&admin, &mut session, &words, &mut out).await;
                }
                if let Some(watched) = session.watched.take() {
                    wait(&mut stream, &watched, session.protocol, (&mut buf, &mut out)).await?;
                }
                continue;
            }
            Ok(None) => {}
            Err(Broken(complaint)) => {
                write::error(&mut out, &complaint.to_string());
                stream.write_all(&out).await?;
                return see_off(stream).await;
            }
        }
        stream.write_all(&out).await?;
        out.clear();
        if stream.read_buf(&mut buf).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(&out).await
}

async fn answer(admin: &Arc<Admin>, session: &mut Session, words: &[Vec<u8>], out: &mut Vec<u8>) {
    let texts: Result<Vec<&str>, _> = words.iter().map(|word| std::str::from_utf8(word)).collect();
    let answered = match (every::called(words), texts) {
        // What is called may have any bytes.
        (Some(args), _) if session.is_known => every::call(admin, args).await,
        (_, Ok(words)) => words::answer(admin, session, &words).await,
        (_, Err(_)) => Err(Complaint::BadArg("a word is not UTF-8".into())),
    };
    audit::note(session.peer, words, &answered);
    match answered {
        Ok(_) if session.watched.is_some() => {}
        Ok(answer) => answer.write(out, session.protocol),
        Err(complaint) => write::error(out, &complaint.to_string()),
    }
}

/// Waits for a job; how it ended is the answer, or that this takes longer than the client wants to wait.
async fn wait(
    stream: &mut TcpStream,
    watched: &Watched,
    protocol: Protocol,
    (buf, out): (&mut BytesMut, &mut Vec<u8>),
) -> io::Result<()> {
    // What is cut short by the limit has then nothing half sent.
    stream.write_all(out).await?;
    out.clear();
    let told = watch(stream, watched, protocol, (buf, out));
    let Ok(told) = timeout(watched.limit, told).await else {
        write::error(out, &Complaint::Timeout(watched.job.id.clone()).to_string());
        return Ok(());
    };
    told?;
    watched.job.fields().write(out, protocol);
    Ok(())
}

/// Tells of a job until it is over: pushes of what changes, where they are wanted and the protocol has them.
async fn watch(
    stream: &mut TcpStream,
    Watched { job, is_pushed, .. }: &Watched,
    protocol: Protocol,
    (buf, out): (&mut BytesMut, &mut Vec<u8>),
) -> io::Result<()> {
    let mut changes = job.changes();
    while !job.state().is_over() {
        if *is_pushed && protocol == Protocol::Resp3 {
            write::push(out, protocol, 2);
            write::bulk(out, "job");
            job.fields().write(out, protocol);
        }
        stream.write_all(out).await?;
        out.clear();
        let change = async {
            // The job lives as long as this does, and says when it changes.
            let _ = changes.changed().await;
            sleep(PAUSE).await;
        };
        tokio::select! {
            () = change => {}
            // What it asks next is answered afterwards; who sends much instead of waiting is not waited for.
            read = stream.read_buf(buf) => if read? == 0 || buf.len() > LIMITS.request {
                return Err(io::ErrorKind::UnexpectedEof.into());
            },
        }
    }
    Ok(())
}

/// Nothing that comes after it can be understood.
struct Broken(Complaint);

/// The words of the next request; `None` if it has not come whole.
fn next(
    framer: &mut RequestFramer,
    buf: &mut BytesMut,
    limits: &Limits,
) -> Result<Option<Vec<Vec<u8>>>, Broken> {
    let broken = |error| Broken(Complaint::from(error));
    match framer.frame(buf, limits).map_err(broken)? {
        Progress::Partial(_) => Ok(None),
        Progress::Complete(len) => {
            let words =
                Request::new(&buf[..len], framer.args()).args(0).map(<[u8]>::to_vec).collect();
            buf.advance(len);
            Ok(Some(words))
        }
        Progress::Inline(len) => {
            let line = buf.split_to(len);
            let wire = from_inline(&line).map_err(broken)?;
            let mut framer = RequestFramer::default();
            match framer.frame(&wire, &Limits::NONE) {
                Ok(Progress::Complete(len)) => {
                    let request = Request::new(&wire[..len], framer.args());
                    Ok(Some(request.args(0).map(<[u8]>::to_vec).collect()))
                }
                // An empty line.
                _ => Ok(Some(Vec::new())),
            }
        }
    }
}

/// Takes in what a client still sends that does not know yet that nobody listens: else its end of the connection would be
/// reset, and what it was told be lost.
async fn see_off(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = vec![0; 64 << 10];
    let drain = async {
        let mut taken = 0;
        while taken < FAREWELL_BYTES {
            match stream.read(&mut rest).await {
                Ok(0) | Err(_) => return,
                Ok(read) => taken += read,
            }
        }
    };
    // Whoever takes longer is not waited for.
    let _ = timeout(FAREWELL, drain).await;
    Ok(())
}
