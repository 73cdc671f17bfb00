//! One client: a future that reads requests, has them dispatched, and writes replies.
//!
//! ```text
//!   poll:  process what has been read ─► flush what is ready ─► read more ─► again
//! ```
//! A request that cannot be sent yet stays in the input buffer, and nothing is read behind it: that is the back-pressure,
//! and the order. Input is held back while
//! - the client's window is full, or it does not take its replies;
//! - a new snapshot has appeared and requests routed under the old one are out (they may still be redirected);
//! - an earlier request on the same slot claims it, was turned away, or is out while nodes come and go;
//! - the command changes how later ones travel (`HELLO`, `AUTH`, `RESET`) and earlier ones are out.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::task::AbortHandle;

use super::blocking::Blocked;
use super::transaction::Transaction;
use super::wait::Written;
use super::watch::Watch;
use super::{Member, Shared};
use crate::backend::{Payload, Pool};
use crate::client::Client;
use crate::local::muster::Unblock;
use crate::net::Stream;
use crate::pubsub::Subscriber;
use crate::refusal::Refusal;
use crate::replies::{LARGE, Replies};
use crate::resp::frame::{self, Progress, RequestFramer};
use crate::resp::request::{self, Request};

/// Size of a read buffer.
pub(super) const READ: usize = 16 * 1024;
/// Rounds of reading and writing before other tasks get their turn.
const TURNS: usize = 4;
/// Most bytes read or written at a time: a large value goes in pieces between which other tasks run.
const ROUND: usize = 256 * 1024;
/// Most slices handed to one write.
const SLICES: usize = 16;

/// The connection of one client.
#[derive(Debug)]
pub struct Session {
    pub(super) shared: Rc<Shared>,
    /// The way to the nodes: the worker's, or one of the client's own.
    pub(super) pool: Rc<Pool>,
    stream: Stream,
    pub(super) client: Rc<RefCell<Client>>,
    pub(super) replies: Replies,
    pub(super) blocked: Rc<Blocked>,
    seat: usize,
    input: BytesMut,
    framer: RequestFramer,
    /// Number of the snapshot that the requests under way were routed by.
    pub(super) version: u64,
    /// When a command for all nodes began to wait because none is known yet.
    pub(super) mapless_since: Option<u32>,
    /// Microseconds of the worker's clock when the input at hand was taken up.
    pub(super) now: u32,
    /// The same, of input that has been held back since while nodes could not serve: that time is part of the requests'.
    held_since: Option<u32>,
    /// The commands since `MULTI`.
    pub(super) transaction: Option<Box<Transaction>>,
    /// Where it has written, for `WAIT`.
    pub(super) written: Written,
    /// The keys since `WATCH`.
    pub(super) watch: Option<Watch>,
    /// The client as the hub knows it, once it has subscribed to something.
    pub(super) subscriber: Option<Rc<Subscriber>>,
    /// What shows it the requests of all clients.
    pub(super) monitoring: Option<AbortHandle>,
    phase: Phase,
}

/// How far the connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Requests come and go.
    Open,
    /// Nothing more is read, because the client sends no more or the proxy stops; what was read is still answered.
    HalfClosed,
    /// Nothing more is processed; replies under way are still sent.
    Closing,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It is on its way, or answered.
    Next,
    /// It has to wait; nothing was done.
    Hold,
    /// It was the last one.
    Close,
    /// It has not arrived whole; so many bytes are needed at least.
    More(usize),
}

impl Session {
    /// A session with a client that has just connected.
    pub fn new(shared: Rc<Shared>, stream: Stream) -> Self {
        let id = shared.proxy.accepted.fetch_add(1, Relaxed) + 1;
        let user = shared.proxy.users.load().default_user();
        let now = shared.pool.clock.millis();
        let (peer, local) = (stream.tcp().peer_addr().ok(), stream.tcp().local_addr().ok());
        let client = Client::new(id, peer, local, user, now);
        let client = Rc::new(RefCell::new(client));
        let replies = Replies::new(shared.options.output_max, Rc::clone(&shared.common));
        replies.belong_to(id);
        let blocked = Rc::<Blocked>::default();
        let seat = shared.roster.join(Member {
            id,
            client: Rc::clone(&client),
            replies: replies.clone(),
            blocked: Rc::clone(&blocked),
        });
        Self {
            pool: Rc::clone(&shared.pool),
            shared,
            stream,
            client,
            replies,
            blocked,
            seat,
            input: BytesMut::new(),
            framer: RequestFramer::default(),
            version: 0,
            mapless_since: None,
            now: 0,
            held_since: None,
            transaction: None,
            written: Written::default(),
            watch: None,
            subscriber: None,
            monitoring: None,
            phase: Phase::Open,
        }
    }

    /// One round: what has been read, what is ready, what has arrived. Pending when only events can help.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.replies.is_over() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.shared.draining.get() && self.phase == Phase::Open {
            self.phase = Phase::HalfClosed;
        }
        if self.client.borrow().leaving {
            self.phase = Phase::Closing;
            self.input.clear();
        }
        let held = self.process();
        let before = self.replies.unsent();
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        if !held && self.is_over() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if held && self.replies.unsent() < before {
            // What was held back for want of room may have it now.
            return Poll::Ready(Ok(()));
        }
        if self.blocked.is_blocked() {
            return self.poll_blocked(cx);
        }
        if held || self.phase != Phase::Open {
            return Poll::Pending;
        }
        self.poll_read(cx)
    }

    /// While a command waits at its node, the client is listened to only to hear it leave. A drain ends the wait.
    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shared.draining.get() {
            self.blocked.unblock(Unblock::Error);
        }
        while self.input.len() < READ {
            ready!(self.poll_read(cx))?;
            if self.phase != Phase::Open {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
        Poll::Pending
    }

    /// Whether the session ends here: everything is answered and sent, and no more will come.
    fn is_over(&self) -> bool {
        self.phase != Phase::Open
            && self.replies.waiting() == 0
            && self.replies.unsent() == 0
            && self.stream.is_flushed()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.input.capacity() == 0 {
            self.input = self.shared.lend_buffer();
        } else if self.input.capacity() - self.input.len() < READ / 4 {
            self.input.reserve(READ);
        }
        let read = pin!(self.stream.read_buf(&mut (&mut self.input).limit(ROUND))).poll(cx);
        if self.input.is_empty() {
            self.shared.take_buffer(std::mem::take(&mut self.input));
        }
        let read = ready!(read)?;
        if read == 0 {
            self.phase = Phase::HalfClosed;
        } else {
            self.pool.stats.reads.add(1);
            self.pool.stats.client_read_bytes.add(read as u64);
            self.client.borrow_mut().active_ms = self.pool.clock.millis();
        }
        Poll::Ready(Ok(()))
    }

    /// Dispatches the whole requests in the input. True if input is held back.
    fn process(&mut self) -> bool {
        if self.input.is_empty() || self.phase == Phase::Closing {
            return false;
        }
        self.pool.refresh();
        let now = self.pool.clock.micros();
        self.pool.stats.pace.count(now.wrapping_sub(self.now));
        self.now = self.held_since.unwrap_or(now);
        let (mut input, mut framer) =
            (std::mem::take(&mut self.input), std::mem::take(&mut self.framer));
        let held = self.process_input(&mut input, &mut framer);
        self.replies.end_batch();
        framer.shrink();
        if held {
            self.replies.hurry();
        }
        if !held {
            self.held_since = None;
        } else if self.pool.is_unsettled() {
            self.held_since.get_or_insert(now);
        }
        if input.is_empty() {
            self.shared.take_buffer(input);
        } else {
            self.input = input;
        }
        self.framer = framer;
        held
    }

    fn process_input(&mut self, input: &mut BytesMut, framer: &mut RequestFramer) -> bool {
        let mut at = 0;
        let end = loop {
            match self.process_one(input, &mut at, framer) {
                Flow::Next if at < input.len() => {}
                end => break end,
            }
        };
        match end {
            Flow::Next => input.clear(),
            Flow::Hold => input.advance(at),
            Flow::More(want) => {
                input.advance(at);
                input.reserve(frame::growth(input.len(), want));
            }
            Flow::Close => {
                self.phase = Phase::Closing;
                input.clear();
            }
        }
        end == Flow::Hold
    }

    /// Dispatches the request at `at` if all of it is there, and moves `at` behind it.
    fn process_one(
        &mut self,
        input: &mut BytesMut,
        at: &mut usize,
        framer: &mut RequestFramer,
    ) -> Flow {
        if self.is_full() {
            return Flow::Hold;
        }
        let progress = if self.client.borrow().authenticated {
            framer.frame(&input[*at..], &self.shared.options.limits)
        } else {
            framer.frame(&input[*at..], &self.shared.options.limits.before_auth())
        };
        let (len, flow) = match progress {
            Ok(Progress::Partial(want)) => return Flow::More(want),
            Ok(Progress::Complete(len)) if len >= LARGE && self.transaction.is_none() => {
                return self.take_large(input, at, len, framer);
            }
            Ok(Progress::Complete(len)) => {
                let bytes = &input[*at..*at + len];
                (len, self.dispatch(&Request::new(bytes, framer.args()), Payload::Small(bytes)))
            }
            Ok(Progress::Inline(len)) => (len, self.take_inline(&input[*at..*at + len])),
            Err(error) => {
                self.refuse(&Refusal::Protocol(error));
                return Flow::Close;
            }
        };
        if flow == Flow::Next {
            *at += len;
        }
        flow
    }

    /// A large request goes on by reference; the buffer starts anew behind it.
    fn take_large(
        &mut self,
        input: &mut BytesMut,
        at: &mut usize,
        len: usize,
        framer: &RequestFramer,
    ) -> Flow {
        input.advance(std::mem::take(at));
        let spans = framer.args();
        let request = Request::new(&input[..len], spans);
        if self.shared.paused.get().is_some() && self.is_postponed(&request) {
            return Flow::Hold;
        }
        let decision = self.decide(&request);
        if self.holds(&decision, &request) {
            return Flow::Hold;
        }
        if self.shared.is_monitored.get()
            && let Some(line) = self.monitor_line(&request)
        {
            self.shared.show(&line);
        }
        let bytes = input.split_to(len).freeze();
        *input = BytesMut::from(&input[..]);
        self.carry_out(decision, &Request::new(&bytes, spans), Payload::Large(&bytes))
    }

    fn take_inline(&mut self, line: &[u8]) -> Flow {
        let wire = match request::from_inline(line) {
            Ok(wire) if wire.is_empty() => return Flow::Next,
            Ok(wire) => wire,
            Err(error) => {
                self.refuse(&Refusal::Protocol(error));
                return Flow::Close;
            }
        };
        self.take_wire(&wire)
    }

    /// One request that was written here.
    pub(super) fn take_wire(&mut self, wire: &[u8]) -> Flow {
        let mut framer = RequestFramer::default();
        match framer.frame(wire, &self.shared.options.limits) {
            Ok(Progress::Complete(len)) => {
                let bytes = &wire[..len];
                self.dispatch(&Request::new(bytes, framer.args()), Payload::Small(bytes))
            }
            Ok(_) => Flow::Close,
            Err(error) => {
                self.refuse(&Refusal::Protocol(error));
                Flow::Close
            }
        }
    }

    /// Whether the client has as much under way as it may, or does not take its replies.
    fn is_full(&self) -> bool {
        let options = &self.shared.options;
        self.replies.is_full(options.window, options.output_limit)
    }

    pub(super) fn refuse(&self, refusal: &Refusal) {
        self.pool.stats.refusals.count(refusal);
        self.note_denial(refusal);
        self.replies.refuse(refusal);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.replies.wait_for_batch() && self.phase == Phase::Open {
            return Poll::Pending;
        }
        for _ in 0..TURNS {
            let mut output = self.replies.output();
            let mut room = [IoSlice::new(&[]); SLICES];
            let stream = Pin::new(&mut self.stream);
            let written = match output.slices(&mut room, ROUND) {
                0 => {
                    drop(output);
                    self.replies.sent();
                    return stream.poll_flush(cx);
                }
                1 => ready!(stream.poll_write(cx, &room[0]))?,
                used => ready!(stream.poll_write_vectored(cx, &room[..used]))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            output.advance(written);
            drop(output);
            self.pool.stats.client_written_bytes.add(written as u64);
            self.client.borrow_mut().active_ms = self.pool.clock.millis();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Future for Session {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.replies.listen(cx.waker());
        for _ in 0..TURNS {
            if ready!(this.turn(cx)).is_err() {
                this.stream.take_leave(cx);
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.replies.close();
        self.unsubscribe_all();
        self.shared.tracker.forget(&self.client);
        self.blocked.abort();
        self.end_monitor();
        self.shared.roster.leave(self.seat);
        self.shared.see_off();
    }
}
