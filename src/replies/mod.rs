//! A client's replies in the order of its requests, and the promise of one of them.
//!
//! ```text
//!   promise() ──► [ waiting | kept | waiting | gathering | kept ] ◄── Promise::fulfil, in any order
//!                   └─ front answered: its bytes and those of all kept ones behind it go to `output`
//! ```
//! A [`Promise`] cannot be cloned, is consumed by its answer, and answers a refusal if it is dropped: a client neither
//! waits for ever nor is answered twice. Replies that come out of order wait in one shared buffer, which is emptied
//! whenever nothing waits in it, so a small reply costs no allocation of its own.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;

use crate::cluster::Slot;
use crate::command::merge::Gather;
use crate::command::{Claim, Standing};
use crate::refusal::Refusal;
use crate::resp::write;

mod output;
mod patience;
mod queue;
mod spares;

pub use output::Output;
pub use patience::Patience;
use queue::{Queue, Told};
use spares::Spares;

/// From this size on, replies are passed on by reference instead of being copied (measured: copying 16 KiB costs about as
/// much as keeping a read buffer alive and allocating the next).
pub const LARGE: usize = 32 * 1024;

/// A reply on its way from a node to a client.
#[derive(Debug)]
pub enum Reply<'a> {
    /// Copied into the client's buffers.
    Small(&'a [u8]),
    /// Passed on by reference.
    Large(Bytes),
}

impl Reply<'static> {
    /// A reply that nobody else holds a part of.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Large(bytes)
    }
}

impl Reply<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(bytes) => bytes,
        }
    }
}

/// What the replies of all clients of one worker share.
#[derive(Debug, Default)]
pub struct Common {
    /// Those that wait for the rest of their batch.
    pub patience: Patience,
    spares: Spares,
}

/// The ordered replies of one client.
#[derive(Clone, Debug)]
pub struct Replies(Rc<RefCell<Queue>>);

/// The right, and duty, to answer one request, or one part of a request that was split. Two words, so that it travels in
/// registers.
#[derive(Debug)]
pub struct Promise {
    queue: Option<Rc<RefCell<Queue>>>,
    seat: Seat,
}

/// A request's place in the queue and the part of it: the place in the low half, the part in the high half.
#[derive(Clone, Copy, Debug)]
struct Seat(u64);

impl Seat {
    fn new(place: u32, part: u32) -> Self {
        Self(u64::from(part) << 32 | u64::from(place))
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves")]
    fn halves(self) -> (u32, u32) {
        (self.0 as u32, (self.0 >> 32) as u32)
    }
}

/// Which of a client's replies are not sent, as `CLIENT REPLY` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mute {
    /// None: all are sent.
    #[default]
    No,
    /// That to the next request.
    Next,
    /// All of them.
    All,
}

/// What stands in the way of a client's next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nothing: there are no earlier requests.
    Empty,
    /// Earlier requests, none of which claims anything.
    Free,
    /// Earlier requests that claim slots: [`Replies::is_taken`] tells which.
    Claimed,
    /// An earlier request that concerns all slots.
    Barred,
}

/// Where the other requests of the same client on the same slot stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts, each asked for alone")]
pub struct Company {
    /// An earlier one is on its way.
    pub out_before: bool,
    /// An earlier one waits for its next attempt.
    pub aside_before: bool,
    /// A later one is on its way.
    pub out_behind: bool,
    /// A later one has run, and one of the two writes.
    pub answered_behind: bool,
}

impl Default for Replies {
    fn default() -> Self {
        Self::new(usize::MAX, Rc::default())
    }
}

impl Replies {
    /// For a client that may keep so many bytes of replies waiting and no more; `common` is its worker's.
    pub fn new(most: usize, common: Rc<Common>) -> Self {
        Self(Rc::new(RefCell::new(Queue::new(most, common))))
    }

    /// Says whose they are, by the client's number.
    pub fn belong_to(&self, client: u64) {
        self.0.borrow_mut().owner = client;
    }

    /// Whether nothing more can be answered in order, so that the client's session is to end: more replies came than may wait, or
    /// somebody wants it to [end](Self::end). They are thrown away.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.0.borrow().is_over()
    }

    /// Has the client's session end, with what it has not been sent.
    pub fn end(&self) {
        self.0.borrow_mut().throw_away();
        self.wake();
    }

    /// Takes the next place for a request; `reads` if it only reads.
    #[inline]
    pub fn promise(&self, claim: Claim, reads: bool) -> Promise {
        let place = self.0.borrow_mut().push(claim, reads);
        Promise { queue: Some(Rc::clone(&self.0)), seat: Seat::new(place, 0) }
    }

    /// Takes the next place for a request in parts: one promise for each part, in order.
    pub fn gather(&self, gather: Gather) -> impl Iterator<Item = Promise> + use<> {
        let parts = gather.parts();
        let place = self.0.borrow_mut().push_gather(gather);
        let queue = Rc::clone(&self.0);
        (0..parts).map(move |part| Promise {
            queue: Some(Rc::clone(&queue)),
            seat: Seat::new(place, part),
        })
    }

    /// Answers the next place at once.
    pub fn answer(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut queue = self.0.borrow_mut();
        if !queue.mutes_next() {
            queue.answer(fill);
        }
    }

    /// Says which replies to requests from now on are not sent. Where none are, none can be skipped.
    pub fn mute(&self, mute: Mute) {
        self.0.borrow_mut().mute(mute);
    }

    /// Has all replies to the next request sent, and gives what is to be said behind it with `mute`.
    #[must_use]
    pub fn lift_mute(&self) -> Mute {
        self.0.borrow_mut().lift_mute()
    }

    /// Appends something that answers no request, behind all replies there are and are to be, but for those that
    /// [let it by](Self::let_messages_by). False, and everything is
    /// thrown away, if more than so many bytes wait with it.
    pub fn push(&self, message: &Reply<'_>, most: usize) -> bool {
        let (fits, waker) = self.0.borrow_mut().append(message, most);
        if let Some(waker) = waker {
            waker.wake();
        }
        fits
    }

    /// Messages need not wait for the reply to the last request so far, which may take for ever and reads nothing.
    pub fn let_messages_by(&self) {
        self.0.borrow_mut().let_messages_by();
    }

    /// Answers the next place at once with an error.
    pub fn refuse(&self, refusal: &Refusal) {
        self.answer(|out| write::error(out, &refusal.to_string()));
    }

    /// Number of requests that are not answered, or not all before them.
    pub fn waiting(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether a request on this slot must not be sent now: an earlier one on it claims it whole, or was turned away; or,
    /// if more `care` is asked for, is just not answered.
    #[inline]
    pub fn is_taken(&self, slot: Slot, care: bool) -> bool {
        self.0.borrow().is_taken(slot, care)
    }

    /// How closely the order of the next request has to be looked at.
    #[inline]
    pub fn gate(&self) -> Gate {
        self.0.borrow().gate()
    }

    /// The bytes ready to be sent.
    pub fn output(&self) -> RefMut<'_, Output> {
        RefMut::map(self.0.borrow_mut(), Queue::output)
    }

    /// Bytes ready to be sent.
    pub fn unsent(&self) -> usize {
        self.0.borrow().unsent()
    }

    /// What came in one read ends with the last request so far: the replies are to go out together.
    pub fn end_batch(&self) {
        self.0.borrow_mut().end_batch();
    }

    /// Whether what is ready waits for the rest of its batch. Whoever does wait is woken when that is over.
    pub fn wait_for_batch(&self) -> bool {
        let mut queue = self.0.borrow_mut();
        let waits = queue.waits_for_batch();
        if queue.begins_to_wait() {
            queue.common.patience.add(self.clone());
        }
        waits
    }

    /// All that was ready has been sent.
    pub fn sent(&self) {
        self.0.borrow_mut().sent();
    }

    /// Has what is ready sent, however much of its batch is missing.
    fn press(&self) {
        let waker = self.0.borrow_mut().press();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Every reply is to wake the session from now on until it listens again.
    pub fn hurry(&self) {
        self.0.borrow_mut().hurry();
    }

    /// Whether so many requests are not answered, or the replies take up so many bytes, ready or not.
    #[inline]
    pub fn is_full(&self, window: usize, size: usize) -> bool {
        let queue = self.0.borrow();
        queue.len() >= window || queue.size() >= size
    }

    /// Says whom to wake when there is something to send; one wake for any number of replies.
    pub fn listen(&self, waker: &Waker) {
        self.0.borrow_mut().listen(waker);
    }

    /// Whom the replies wake.
    pub fn waker(&self) -> Option<Waker> {
        self.0.borrow().waker()
    }

    /// Wakes the session without having anything to send.
    pub fn wake(&self) {
        let waker = self.0.borrow().waker();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The client is gone: replies still to come are thrown away.
    pub fn close(&self) {
        self.0.borrow_mut().close();
    }
}

impl Promise {
    /// The promise of a reply that nobody waits for, such as that to `ASKING`.
    pub const fn nobody() -> Self {
        Self { queue: None, seat: Seat(0) }
    }

    /// The promise, with that of nobody in its place.
    #[inline]
    #[must_use]
    pub fn take(&mut self) -> Self {
        Self { queue: self.queue.take(), seat: self.seat }
    }

    /// Whether nobody waits for the reply.
    pub fn is_nobody(&self) -> bool {
        self.queue.is_none()
    }

    /// Number of the client that waits for the reply; 0 if nobody does.
    pub fn owner(&self) -> u64 {
        self.queue.as_ref().map_or(0, |queue| queue.borrow().owner)
    }

    /// Answers the request.
    #[inline]
    pub fn fulfil(mut self, reply: Reply<'_>) {
        if let Some(queue) = self.queue.take() {
            Self::settle(&queue, self.seat, Standing::Answered, reply);
        }
    }

    /// Answers the request with an error of the proxy's own.
    pub fn refuse(mut self, refusal: &Refusal) {
        self.give_up(refusal);
    }

    #[cold]
    fn give_up(&mut self, refusal: &Refusal) {
        if let Some(queue) = self.queue.take() {
            let mut wire = Vec::new();
            write::error(&mut wire, &refusal.to_string());
            Self::settle(&queue, self.seat, Standing::Refused, Reply::Small(&wire));
        }
    }

    /// Takes note of where the request stands, for the order among its client's requests.
    pub fn mark(&self, standing: Standing) {
        if let Some(queue) = &self.queue {
            let (place, part) = self.seat.halves();
            queue.borrow_mut().mark(place, part, standing);
        }
    }

    /// Where the client's other requests on this slot stand, as seen by one that only `reads` or not.
    pub fn company(&self, slot: Slot, reads: bool) -> Company {
        self.queue.as_ref().map_or_else(Company::default, |queue| {
            queue.borrow().company((self.seat.halves().0, reads), slot)
        })
    }

    #[inline]
    fn settle(queue: &Rc<RefCell<Queue>>, seat: Seat, standing: Standing, reply: Reply<'_>) {
        let told = queue.borrow_mut().settle(seat.halves(), standing, reply);
        match told {
            Told::Nothing => {}
            Told::Wake(waker) => waker.wake(),
            Told::Wait => {
                let common = Rc::clone(&queue.borrow().common);
                common.patience.add(Replies(Rc::clone(queue)));
            }
        }
    }
}

impl Drop for Promise {
    #[inline]
    fn drop(&mut self) {
        if self.queue.is_some() {
            self.give_up(&Refusal::Dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::{Context, Wake};

    use super::*;
    use crate::command::Merge;
    use crate::resp::Protocol;

    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    impl Calls {
        fn take(&self) -> usize {
            self.0.swap(0, Relaxed)
        }
    }

    fn promise(replies: &Replies) -> Promise {
        replies.promise(Claim::None, true)
    }

    fn sent(replies: &Replies) {
        let len = replies.unsent();
        replies.output().advance(len);
        replies.sent();
    }

    #[test]
    fn the_replies_to_one_read_go_out_together() {
        let (common, calls) = (Rc::<Common>::default(), Arc::<Calls>::default());
        let replies = Replies::new(usize::MAX, Rc::clone(&common));
        let waker = Waker::from(Arc::clone(&calls));
        let [first, second] = [promise(&replies), promise(&replies)];
        replies.end_batch();
        let next = promise(&replies);
        replies.end_batch();
        replies.listen(&waker);
        first.fulfil(Reply::Small(b"1"));
        assert_eq!((calls.take(), replies.wait_for_batch()), (0, true));
        second.fulfil(Reply::Small(b"2"));
        assert_eq!((calls.take(), replies.wait_for_batch(), replies.unsent()), (1, false, 2));
        sent(&replies);
        replies.listen(&waker);
        next.fulfil(Reply::Small(b"3"));
        assert_eq!((calls.take(), replies.wait_for_batch()), (1, false));
    }

    #[test]
    fn patience_ends_at_the_second_look() {
        let (common, calls) = (Rc::<Common>::default(), Arc::<Calls>::default());
        let replies = Replies::new(usize::MAX, Rc::clone(&common));
        let waker = Waker::from(Arc::clone(&calls));
        let patience = &common.patience;
        let is_watched = || patience.poll_waiting(&mut Context::from_waker(&waker)).is_ready();
        let [early, later, late] = [(); 3].map(|()| promise(&replies));
        replies.end_batch();
        replies.listen(&waker);
        assert!(!is_watched());
        early.fulfil(Reply::Small(b"1"));
        assert_eq!((calls.take(), is_watched()), (1, true), "who looks is told, and no one else");
        later.fulfil(Reply::Small(b"2"));
        patience.press();
        assert_eq!((calls.take(), replies.wait_for_batch()), (0, true));
        patience.press();
        assert_eq!((calls.take(), replies.wait_for_batch(), replies.unsent()), (1, false, 2));
        assert!(!is_watched());
        sent(&replies);
        drop(late);
    }

    #[test]
    fn a_session_that_holds_input_back_hears_of_every_reply() {
        let calls = Arc::<Calls>::default();
        let replies = Replies::default();
        let [first, _second] = [promise(&replies), promise(&replies)];
        replies.end_batch();
        replies.listen(&Waker::from(Arc::clone(&calls)));
        replies.hurry();
        first.fulfil(Reply::Small(b"1"));
        assert_eq!((calls.take(), replies.wait_for_batch()), (1, true));
    }

    #[test]
    fn a_session_that_holds_input_back_hears_of_every_part() {
        let calls = Arc::<Calls>::default();
        let replies = Replies::default();
        let _first = promise(&replies);
        let claims = [1, 2].into_iter().filter_map(Slot::new).map(Claim::Whole);
        let gather = Gather::new(Merge::Sum, Protocol::Resp2, claims);
        let mut parts = replies.gather(gather);
        replies.listen(&Waker::from(Arc::clone(&calls)));
        replies.hurry();
        let (one, other) = (parts.next().unwrap(), parts.next().unwrap());
        one.fulfil(Reply::Small(b":1\r\n"));
        assert_eq!(calls.take(), 1);
        replies.listen(&Waker::from(Arc::clone(&calls)));
        replies.hurry();
        other.fulfil(Reply::Small(b":1\r\n"));
        assert_eq!(calls.take(), 1);
    }
}
