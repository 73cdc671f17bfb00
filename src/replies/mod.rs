//! A client's replies in the order of its requests, and the promise of one of them.
//!
//! ```text
//!   promise() ──► [ waiting | kept | waiting | gathering | kept ] ◄── Promise::fulfil, in any order
//!                   └─ front answered: its bytes and those of all kept ones behind it go to `output`
//! ```
//! A [`Promise`] cannot be cloned, is consumed by its answer, and answers a refusal if it is dropped: a client neither
//! waits for ever nor is answered twice. Replies that come out of order wait in one shared buffer, which is emptied
//! whenever nothing waits in it, so a small reply costs no allocation of its own.

use std::cell::{Ref, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;

use crate::cluster::Slot;
use crate::command::Claim;
use crate::command::merge::Gather;
use crate::refusal::Refusal;
use crate::resp::write;

mod output;

pub use output::Output;

/// From this size on, replies are passed on by reference instead of being copied (measured: copying 16 KiB costs about as
/// much as keeping a read buffer alive and allocating the next).
pub const LARGE: usize = 32 * 1024;
/// Most bytes of small replies kept out of order in the shared buffer; beyond it each is kept by itself.
const KEPT_MAX: usize = 256 * 1024;

/// A reply on its way from a node to a client.
#[derive(Debug)]
pub enum Reply<'a> {
    /// Copied into the client's buffers.
    Small(&'a [u8]),
    /// Passed on by reference.
    Large(Bytes),
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

/// The ordered replies of one client.
#[derive(Clone, Debug, Default)]
pub struct Replies(Rc<RefCell<Queue>>);

/// The right, and duty, to answer one request, or one part of a request that was split.
#[derive(Debug)]
pub struct Promise {
    queue: Option<Rc<RefCell<Queue>>>,
    place: u32,
    part: u32,
}

#[derive(Debug, Default)]
struct Queue {
    /// Number of the front place; numbers wrap.
    front: u32,
    places: VecDeque<Place>,
    /// Slots of `Claim::Whole` that are not settled; hardly ever more than one.
    whole: Vec<Slot>,
    kept: Vec<u8>,
    kept_count: usize,
    output: Output,
    waker: Option<Waker>,
    woken: bool,
}

#[derive(Debug)]
struct Place {
    claim: Claim,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    Kept { start: u32, len: u32 },
    Large(Box<Bytes>),
    Gathering(Box<Gather>),
}

impl Replies {
    /// Takes the next place for a request.
    #[inline]
    pub fn promise(&self, claim: Claim) -> Promise {
        Promise {
            place: self.0.borrow_mut().push(claim, State::Waiting),
            part: 0,
            queue: Some(Rc::clone(&self.0)),
        }
    }

    /// Takes the next place for a request in parts: one promise for each part, in order.
    pub fn gather(&self, gather: Gather) -> impl Iterator<Item = Promise> + use<> {
        let parts = gather.parts();
        let place = self.0.borrow_mut().push_gather(gather);
        let queue = Rc::clone(&self.0);
        (0..parts).map(move |part| Promise { queue: Some(Rc::clone(&queue)), place, part })
    }

    /// Answers the next place at once.
    pub fn answer(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut queue = self.0.borrow_mut();
        if queue.places.is_empty() {
            fill(queue.output.tail());
        } else {
            let start = queue.kept.len();
            fill(&mut queue.kept);
            let state = State::Kept { start: narrow(start), len: narrow(queue.kept.len() - start) };
            queue.kept_count += 1;
            queue.push(Claim::None, state);
        }
    }

    /// Answers the next place at once with an error.
    pub fn refuse(&self, refusal: &Refusal) {
        self.answer(|out| write::error(out, &refusal.to_string()));
    }

    /// Number of requests that are not answered, or not all before them.
    pub fn waiting(&self) -> usize {
        self.0.borrow().places.len()
    }

    /// Whether a request on this slot has not been answered.
    pub fn awaits(&self, slot: Slot) -> bool {
        self.0.borrow().places.iter().any(|place| place.awaits(slot))
    }

    /// Whether a request on this slot has not been answered behind which nothing may be sent.
    #[inline]
    pub fn is_claimed(&self, slot: Slot) -> bool {
        let queue = self.0.borrow();
        !queue.whole.is_empty() && queue.whole.contains(&slot)
    }

    /// The bytes ready to be sent.
    pub fn output(&self) -> std::cell::RefMut<'_, Output> {
        std::cell::RefMut::map(self.0.borrow_mut(), |queue| &mut queue.output)
    }

    /// Bytes ready to be sent.
    pub fn unsent(&self) -> usize {
        Ref::map(self.0.borrow(), |queue| &queue.output).len()
    }

    /// Says whom to wake when there is something to send; one wake for any number of replies.
    pub fn listen(&self, waker: &Waker) {
        let mut queue = self.0.borrow_mut();
        queue.woken = false;
        if !queue.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            queue.waker = Some(waker.clone());
        }
    }

    /// Wakes the session without having anything to send.
    pub fn wake(&self) {
        let waker = self.0.borrow().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The client is gone: replies still to come are thrown away.
    pub fn close(&self) {
        let mut queue = self.0.borrow_mut();
        queue.waker = None;
        queue.output = Output::default();
    }
}

impl Promise {
    /// The promise of a reply that nobody waits for, such as that to `ASKING`.
    pub fn nobody() -> Self {
        Self { queue: None, place: 0, part: 0 }
    }

    /// Whether nobody waits for the reply.
    pub fn is_nobody(&self) -> bool {
        self.queue.is_none()
    }

    /// Answers the request.
    #[inline]
    pub fn fulfil(mut self, reply: Reply<'_>) {
        if let Some(queue) = self.queue.take() {
            Self::settle(&queue, self.place, self.part, reply);
        }
    }

    /// Answers the request with an error of the proxy's own.
    pub fn refuse(self, refusal: &Refusal) {
        let mut wire = Vec::new();
        write::error(&mut wire, &refusal.to_string());
        self.fulfil(Reply::Small(&wire));
    }

    /// Whether a later request of the same client on this slot has been answered: then this one may not run any more.
    pub fn is_overtaken(&self, slot: Slot) -> bool {
        self.queue
            .as_ref()
            .is_some_and(|queue| queue.borrow().later(self.place).any(|place| place.answered(slot)))
    }

    /// Whether an earlier request of the same client on this slot has not been answered: then it goes first.
    pub fn is_preceded(&self, slot: Slot) -> bool {
        self.queue
            .as_ref()
            .is_some_and(|queue| queue.borrow().earlier(self.place).any(|place| place.awaits(slot)))
    }

    #[inline]
    fn settle(queue: &RefCell<Queue>, place: u32, part: u32, reply: Reply<'_>) {
        let waker = queue.borrow_mut().settle(place, part, reply);
        if let Some(waker) = waker {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            let mut wire = Vec::new();
            write::error(&mut wire, &Refusal::Dropped.to_string());
            Self::settle(&queue, self.place, self.part, Reply::Small(&wire));
        }
    }
}

impl Queue {
    fn push(&mut self, claim: Claim, state: State) -> u32 {
        let place = self.front.wrapping_add(narrow(self.places.len()));
        self.places.push_back(Place { claim, state });
        if let Claim::Whole(slot) = claim {
            self.whole.push(slot);
        }
        place
    }

    fn push_gather(&mut self, gather: Gather) -> u32 {
        self.whole.extend(
            gather
                .claims()
                .filter_map(|claim| if let Claim::Whole(slot) = claim { Some(slot) } else { None }),
        );
        self.push(Claim::None, State::Gathering(Box::new(gather)))
    }

    fn unclaim(&mut self, claim: Claim) {
        if let Claim::Whole(slot) = claim
            && let Some(at) = self.whole.iter().position(|claimed| *claimed == slot)
        {
            self.whole.swap_remove(at);
        }
    }

    fn earlier(&self, place: u32) -> impl Iterator<Item = &Place> {
        self.places.iter().take(place.wrapping_sub(self.front) as usize)
    }

    fn later(&self, place: u32) -> impl Iterator<Item = &Place> {
        self.places.iter().skip(place.wrapping_sub(self.front) as usize + 1)
    }

    /// Puts an answer in its place. Gives the waker if there is something new to send and nobody was told yet.
    #[inline]
    fn settle(&mut self, place: u32, part: u32, reply: Reply<'_>) -> Option<Waker> {
        let at = place.wrapping_sub(self.front) as usize;
        let place = self.places.get_mut(at)?;
        if let State::Gathering(gather) = &mut place.state {
            let (claim, complete) =
                (gather.answer(part as usize, reply.bytes()), gather.is_complete());
            self.unclaim(claim);
            return if complete { self.settle_merged(at) } else { None };
        }
        let claim = place.claim;
        self.unclaim(claim);
        if at > 0 {
            let state = self.keep(reply);
            self.places[at].state = state;
            return None;
        }
        match reply {
            Reply::Small(bytes) => self.output.tail().extend_from_slice(bytes),
            Reply::Large(bytes) => self.output.append(bytes),
        }
        self.front_is_out()
    }

    /// The last part of a split request has come.
    fn settle_merged(&mut self, at: usize) -> Option<Waker> {
        let Some(Place { state: State::Gathering(gather), .. }) = self.places.get_mut(at) else {
            return None;
        };
        if at == 0 {
            gather.merge(self.output.tail());
            return self.front_is_out();
        }
        let start = self.kept.len();
        gather.merge(&mut self.kept);
        self.kept_count += 1;
        let state = State::Kept { start: narrow(start), len: narrow(self.kept.len() - start) };
        self.places[at].state = state;
        None
    }

    /// The front place's reply is in the output: what was kept behind it follows.
    #[inline]
    fn front_is_out(&mut self) -> Option<Waker> {
        self.pop();
        self.release();
        if self.woken {
            return None;
        }
        self.woken = true;
        self.waker.clone()
    }

    fn pop(&mut self) {
        self.places.pop_front();
        self.front = self.front.wrapping_add(1);
    }

    /// Moves the kept replies at the front to the output.
    #[inline]
    fn release(&mut self) {
        while let Some(place) = self.places.front_mut() {
            match std::mem::replace(&mut place.state, State::Waiting) {
                State::Kept { start, len } => {
                    let bytes = &self.kept[start as usize..][..len as usize];
                    self.output.tail().extend_from_slice(bytes);
                    self.kept_count -= 1;
                }
                State::Large(bytes) => self.output.append(*bytes),
                unanswered => {
                    place.state = unanswered;
                    break;
                }
            }
            self.pop();
        }
        if self.kept_count == 0 {
            self.kept.clear();
        }
        if self.places.is_empty() {
            self.shrink();
        }
    }

    /// An idle client holds no buffers worth speaking of.
    fn shrink(&mut self) {
        if self.kept.capacity() > 4096 {
            self.kept = Vec::new();
        }
        if self.places.capacity() > 256 {
            self.places = VecDeque::new();
        }
    }

    fn keep(&mut self, reply: Reply<'_>) -> State {
        match reply {
            Reply::Large(bytes) => State::Large(Box::new(bytes)),
            Reply::Small(bytes) if self.kept.len() + bytes.len() > KEPT_MAX => {
                State::Large(Box::new(Bytes::copy_from_slice(bytes)))
            }
            Reply::Small(bytes) => {
                let start = self.kept.len();
                self.kept.extend_from_slice(bytes);
                self.kept_count += 1;
                State::Kept { start: narrow(start), len: narrow(bytes.len()) }
            }
        }
    }
}

impl Place {
    fn awaits(&self, slot: Slot) -> bool {
        match &self.state {
            State::Waiting => self.claim.slot() == Some(slot),
            State::Gathering(gather) => gather.awaits(slot),
            State::Kept { .. } | State::Large(_) => false,
        }
    }

    fn answered(&self, slot: Slot) -> bool {
        match &self.state {
            State::Waiting => false,
            State::Gathering(gather) => gather.answered(slot),
            State::Kept { .. } | State::Large(_) => self.claim.slot() == Some(slot),
        }
    }
}

/// Places and kept bytes are bounded far below 2^32 by the pipelining window and `KEPT_MAX`.
fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
