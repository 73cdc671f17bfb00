//! One connection to one node: a future that writes what its lane holds and hands replies to the promises.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{Duration, Sleep, sleep};

use super::control::advice;
use super::ear::{Ear, News};
use super::inlet::Inlet;
use super::lane::{Lane, Order, Status, Ticket};
use super::pool::{Hint, Pool};
use super::scripts;
use crate::net::Stream;
use crate::net::tls::TlsTrouble;
use crate::refusal::Refusal;
use crate::replies::{LARGE, Promise, Reply};
use crate::resp::frame::{self, Progress, ReplyFramer};
use crate::resp::redirect::{Verdict, aborted, scripted_verdict, verdict};
use crate::resp::request;

/// Read buffer: what one receive call usefully takes.
const READ: usize = 64 * 1024;
/// Most bytes read or written at a time: a large value goes in pieces between which other tasks run.
const ROUND: usize = 256 * 1024;
/// Most slices handed to one write.
const SLICES: usize = 16;
/// Reads and writes before other tasks get their turn.
const TURNS: usize = 8;
/// Waits between attempts to connect: doubling from the first to the last.
const BACKOFF_MS: std::ops::RangeInclusive<u64> = 25..=400;
/// What a node says to `DISCARD` if it has refused the `MULTI` before.
const NO_MULTI: &[u8] = b"-ERR DISCARD without MULTI\r\n";

/// The connection of a lane.
pub(super) struct Connection {
    pool: Rc<Pool>,
    lane: Rc<Lane>,
    link: Link,
    /// Where the node tells what others change, if it is to.
    ear: Option<Ear>,
    backoff_ms: u64,
    buf: BytesMut,
    framer: ReplyFramer,
}

/// A connection, and one more if the node tells what others change.
type Dialled = (Stream, Option<(Stream, Inlet)>);

enum Link {
    /// Nothing to do, or not yet.
    Idle,
    Connecting(Pin<Box<dyn Future<Output = io::Result<Dialled>>>>),
    Up(Stream),
    /// Waiting before the next attempt.
    Waiting(Pin<Box<Sleep>>),
}

/// Why a connection ends.
enum End {
    Lost(io::Error),
    TimedOut,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl Connection {
    pub(super) fn new(pool: Rc<Pool>, lane: Rc<Lane>) -> Self {
        Self {
            pool,
            lane,
            link: Link::Idle,
            ear: None,
            backoff_ms: *BACKOFF_MS.start(),
            buf: BytesMut::new(),
            framer: ReplyFramer::default(),
        }
    }

    /// Runs an open connection until nothing more can be done now.
    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.lane.order.get() {
            Order::Sever => {
                return Poll::Ready(End::Lost(io::Error::other(
                    "the cluster holds the node for failed",
                )));
            }
            Order::Deafened => {
                return Poll::Ready(End::Lost(io::Error::other("its node tells nothing any more")));
            }
            Order::TimeOut => return Poll::Ready(End::TimedOut),
            Order::Serve | Order::Retire => {}
        }
        for _ in 0..TURNS {
            let read = self.poll_read(cx);
            if let Poll::Ready(Err(end)) = read {
                return Poll::Ready(end);
            }
            let written = self.poll_write(cx);
            if let Poll::Ready(Err(error)) = written {
                return Poll::Ready(error.into());
            }
            if read.is_pending() && written.is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One read, and the replies in it. Pending when the socket has nothing more.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Link::Up(stream) = &mut self.link else { return Poll::Pending };
        if self.buf.capacity() - self.buf.len() < READ / 4 {
            self.buf.reserve(READ);
        }
        let read = ready!(pin!(stream.read_buf(&mut (&mut self.buf).limit(ROUND))).poll(cx))?;
        if read == 0 {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
        }
        self.pool.stats.reads.add(1);
        self.pool.stats.read_bytes.add(read as u64);
        let now = self.pool.clock.micros();
        self.alive(now);
        Poll::Ready(self.deliver(now).map_err(End::from))
    }

    /// Hands every whole reply in the buffer to its promise.
    fn deliver(&mut self, now: u32) -> io::Result<()> {
        let mut at = 0;
        let want = loop {
            match self.framer.frame(&self.buf[at..]).map_err(io::Error::other)? {
                Progress::Complete(len) if len >= LARGE => {
                    self.buf.advance(std::mem::take(&mut at));
                    let reply = self.buf.split_to(len).freeze();
                    // Go on in a buffer of its own: a slice would keep the whole of the large one alive.
                    self.buf = BytesMut::from(&self.buf[..]);
                    self.settle(Reply::Large(reply), now)?;
                }
                Progress::Complete(len) => {
                    self.settle(Reply::Small(&self.buf[at..at + len]), now)?;
                    at += len;
                }
                Progress::Inline(want) | Progress::Partial(want) => break want,
            }
        };
        self.pool.make_room(&self.lane);
        self.buf.advance(at);
        self.buf.reserve(frame::growth(self.buf.len(), want));
        Ok(())
    }

    #[inline]
    fn settle(&self, reply: Reply<'_>, now: u32) -> io::Result<()> {
        let bytes = reply.bytes();
        match bytes[0] {
            b'-' => return self.settle_error(bytes, now),
            // Pushes are answers to nothing.
            b'>' => return Ok(()),
            _ => {}
        }
        self.note_if_slow(now);
        let (promise, ticket) = self.lane.pop().ok_or_else(unasked)?;
        if ticket.is_unit() && !promise.is_nobody() {
            self.end_unit(promise, ticket, reply, now);
        } else {
            self.pool.answer(promise, ticket, reply, now);
        }
        Ok(())
    }

    /// The last request of a unit went well. If one before it did not, it was a rehearsal, and that is the reply; but where or
    /// when the slot is served says nothing of the command.
    #[inline(never)]
    fn end_unit(&self, promise: Promise, ticket: Ticket, reply: Reply<'_>, now: u32) {
        let cause = self.lane.take_cause();
        if cause.is_empty() {
            self.pool.answer(promise, ticket, reply, now);
        } else if verdict(&cause) == Verdict::Final {
            self.pool.stats.node_errors.add(1);
            self.pool.answer(promise, ticket, Reply::Small(&cause), now);
        } else {
            self.pool.hint(Hint::Refresh);
            self.pool.answer(promise, ticket, reply, now);
        }
    }

    /// A node has refused the `DISCARD` of a rehearsal. If it had taken the `MULTI`, it would queue for ever what comes behind
    /// it: the connection is given up.
    fn settle_undiscarded(&self, reply: &[u8], now: u32) -> io::Result<()> {
        if reply != NO_MULTI {
            let words = String::from_utf8_lossy(reply);
            return Err(io::Error::other(format!(
                "the node does not take DISCARD: {}",
                words.trim_start_matches('-').trim_end()
            )));
        }
        let (promise, ticket) = self.lane.pop().ok_or_else(unasked)?;
        self.end_unit(promise, ticket, Reply::Small(b"+OK\r\n"), now);
        Ok(())
    }

    /// Takes note of the request whose reply has come if that took long.
    #[inline]
    fn note_if_slow(&self, now: u32) {
        let limit = self.pool.noted_from();
        let Some((age, owner, bytes)) = self.lane.front_from(now, limit) else { return };
        self.pool.note_slow(owner, age, bytes);
    }

    #[inline(never)]
    fn settle_error(&self, reply: &[u8], now: u32) -> io::Result<()> {
        let (ticket, skip) = self.lane.front().ok_or_else(unasked)?;
        if skip > 0 {
            if ticket.is_unit() {
                self.lane.keep_cause(ticket, reply);
            }
            return self.lane.pop().map(|_| ()).ok_or_else(unasked);
        }
        if self.lane.is_rehearsal() {
            return self.settle_undiscarded(reply, now);
        }
        if ticket.is_scripted() && !ticket.is_unit() && scripts::is_unknown(reply) {
            return self.settle_unknown_script(ticket, reply, now);
        }
        let mut cause = if ticket.is_unit() { self.lane.take_cause() } else { Vec::new() };
        // Scripts had not run yet: what was said then is the server's word.
        if !cause.is_empty() && verdict(&cause) == Verdict::Final {
            cause = aborted(reply, &cause);
        }
        let reply = if cause.is_empty() { reply } else { &cause };
        let verdict = if ticket.is_scripted() { scripted_verdict(reply) } else { verdict(reply) };
        match verdict {
            Verdict::Final => {
                self.note_if_slow(now);
                let (promise, ticket) = self.lane.pop().ok_or_else(unasked)?;
                self.pool.stats.node_errors.add(1);
                if ticket.is_scripted() && scripts::is_elsewhere(reply) {
                    self.pool.hint(Hint::Refresh);
                }
                self.pool.answer(promise, ticket, Reply::Small(reply), now);
            }
            verdict => {
                let parcel = self.lane.pop_parcel().ok_or_else(unasked)?;
                if !parcel.promise.is_nobody() {
                    self.pool.follow(parcel, reply, verdict, &self.lane.address);
                }
            }
        }
        Ok(())
    }

    /// A node does not know the script that it is to run: it is told if the proxy knows, and asked again.
    fn settle_unknown_script(&self, ticket: Ticket, reply: &[u8], now: u32) -> io::Result<()> {
        let parcel = self.lane.pop_parcel().ok_or_else(unasked)?;
        let known = request::argument(&parcel.bytes, 1).and_then(|sha| self.pool.scripts.load(sha));
        if let Some(load) = known {
            self.pool.tell(parcel, &load, ticket.is_asked(), &self.lane);
        } else {
            self.pool.stats.node_errors.add(1);
            self.pool.answer(parcel.promise, ticket, Reply::Small(reply), now);
        }
        Ok(())
    }

    /// One write. Pending when there is nothing to write and nothing stays behind, or the socket takes nothing more. To a
    /// node under suspicion nothing is written but the rest of a request that it has in part.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Link::Up(stream) = &mut self.link else { return Poll::Pending };
        let front = self.lane.front_unwritten();
        let most = match self.lane.status.get() {
            Status::Suspect if !self.lane.is_owed() => 0,
            Status::Suspect => usize::try_from(front).unwrap_or(usize::MAX).min(ROUND),
            _ => ROUND,
        };
        let mut stream = Pin::new(stream);
        let written = self.lane.write_with(|log| {
            let mut room = [IoSlice::new(&[]); SLICES];
            let written = match log.slices(&mut room, most) {
                0 => {
                    ready!(stream.as_mut().poll_flush(cx))?;
                    return Poll::Pending;
                }
                1 => ready!(stream.poll_write(cx, &room[0])),
                used => ready!(stream.poll_write_vectored(cx, &room[..used])),
            };
            Poll::Ready(written.inspect(|written| log.advance(*written)))
        });
        let written = ready!(written)?;
        self.pool.stats.written_bytes.add(written as u64);
        if front > 0 {
            self.alive(self.pool.clock.micros());
        }
        Poll::Ready(Ok(()))
    }

    /// The node has given a sign of life.
    fn alive(&self, now: u32) {
        self.lane.heard.set(now);
        if self.lane.status.get() == Status::Suspect {
            self.lane.status.set(Status::Up);
        }
    }

    /// The connection is over: what was on it is answered or sent elsewhere.
    fn end(&mut self, end: &End) {
        self.link = Link::Idle;
        self.buf = BytesMut::new();
        self.framer = ReplyFramer::default();
        self.lane.status.set(Status::Down);
        if self.lane.order.get() != Order::Retire {
            self.lane.order.set(Order::Serve);
        }
        let node = self.lane.address.to_string();
        let refusal = match end {
            End::Lost(_) => Refusal::ConnectionLost(node),
            End::TimedOut => Refusal::Timeout(node),
        };
        let lost = self.lane.take_all();
        self.pool.stats.lost_connections.add(1);
        self.ear = None;
        self.pool.news(News::Gap);
        self.pool.rescue(lost, &refusal);
        self.pool.make_room(&self.lane);
    }

    /// Decides what to do while there is no connection: connect if requests wait, or if reads go to replicas that are
    /// connected, or if its node is to tell what others change.
    fn begin(&mut self) {
        let lane = &self.lane;
        if lane.load().0 > 0 || lane.class.replica || self.pool.keeps_up(lane) {
            let dialled = Rc::clone(&self.pool).dial(Rc::clone(lane));
            self.link = Link::Connecting(Box::pin(dialled));
        }
    }

    /// The attempt to connect failed: the next one waits a little, longer each time.
    fn back_off(&mut self, error: &io::Error) {
        let node = &self.lane.address;
        match TlsTrouble::of(error) {
            // Time will not mend it: that is told once.
            Some(trouble) if self.backoff_ms == *BACKOFF_MS.start() => {
                tracing::warn!(%node, error = %trouble, help = advice(&trouble), "no TLS with the node");
            }
            _ => tracing::debug!(%node, %error, "cannot connect"),
        }
        self.pool.stats.failed_connections.add(1);
        self.pool.hint(Hint::Refresh);
        let jitter = u64::from(self.pool.clock.micros()) % (self.backoff_ms / 4 + 1);
        self.link = Link::Waiting(Box::pin(sleep(Duration::from_millis(self.backoff_ms + jitter))));
        self.backoff_ms = (self.backoff_ms * 2).min(*BACKOFF_MS.end());
        self.pool.reroute(&self.lane);
    }

    fn connected(&mut self, (stream, ear): Dialled) {
        self.link = Link::Up(stream);
        self.ear = ear.map(|ear| self.pool.listen(&self.lane, ear));
        self.backoff_ms = *BACKOFF_MS.start();
        self.lane.heard.set(self.pool.clock.micros());
        self.lane.status.set(Status::Up);
        self.pool.heed_connected();
    }

    fn is_done(&self) -> bool {
        self.lane.order.get() == Order::Retire && self.lane.load().0 == 0
    }
}

/// A reply came that nobody asked for: the connection is out of step and cannot be trusted.
fn unasked() -> io::Error {
    io::Error::other("the node sent a reply to no request")
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.lane.listen(cx.waker());
        loop {
            if this.is_done() {
                this.pool.forget(&this.lane);
                return Poll::Ready(());
            }
            match &mut this.link {
                Link::Idle => {
                    this.begin();
                    if matches!(this.link, Link::Idle) {
                        return Poll::Pending;
                    }
                }
                Link::Connecting(attempt) => match ready!(attempt.as_mut().poll(cx)) {
                    Ok(dialled) => this.connected(dialled),
                    Err(error) => this.back_off(&error),
                },
                Link::Waiting(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    this.link = Link::Idle;
                }
                Link::Up(_) => {
                    let Poll::Ready(end) = this.poll_link(cx) else {
                        if this.is_done() {
                            continue;
                        }
                        return Poll::Pending;
                    };
                    if let End::Lost(error) = &end {
                        tracing::info!(node = %this.lane.address, %error, "connection lost");
                    }
                    this.end(&end);
                }
            }
        }
    }
}
