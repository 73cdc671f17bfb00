//! The places of a client's requests, in order, and the replies that wait in them.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;

use super::{Common, Company, Gate, Mute, Output, Reply};
use crate::cluster::Slot;
use crate::command::merge::Gather;
use crate::command::{Claim, Standing};

/// Most bytes of small replies kept out of order in the shared buffer; beyond it each is kept by itself.
const KEPT_MAX: usize = 256 * 1024;
/// Ready replies of this size do not wait for the rest of their batch.
const FLUSH_AT: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Number of the front place; numbers wrap.
    front: u32,
    places: VecDeque<Place>,
    /// Requests, or parts of them, that were turned away and are not answered.
    turned: usize,
    /// Slots of `Claim::Whole` that are not settled, sorted; hardly ever more than one.
    whole: Vec<Slot>,
    /// Number of `Claim::All` that are not settled.
    all: usize,
    /// Small replies that came out of order, side by side.
    kept: Vec<u8>,
    kept_count: usize,
    /// Bytes of the replies kept by themselves.
    apart: usize,
    output: Output,
    /// The client's number.
    pub(super) owner: u64,
    mute: Mute,
    /// Numbers of the places whose replies are not sent, in order.
    muted: VecDeque<u32>,
    bell: Bell,
    /// What is ready is to be sent: a batch is complete, or it has waited long enough.
    due: bool,
    /// What is ready is in the list of those that wait for the rest of their batch.
    waits: bool,
    pub(super) common: Rc<Common>,
    /// Most bytes of replies that may wait.
    most: usize,
    /// The client is gone, is to go, or has let too much wait: replies are thrown away.
    closed: bool,
}

/// How the session is told that there is something to do.
#[derive(Debug, Default)]
struct Bell {
    waker: Option<Waker>,
    /// The session was told since it last listened.
    rung: bool,
    /// It has something to do at every reply, not only when replies are due.
    eager: bool,
}

impl Bell {
    fn listen(&mut self, waker: &Waker) {
        (self.rung, self.eager) = (false, false);
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// A request is answered whose reply is not due: what was held back on its slot may go now.
    fn answered(&mut self) -> Option<Waker> {
        if self.eager { self.ring() } else { None }
    }

    /// The waker, unless the session was told already.
    fn ring(&mut self) -> Option<Waker> {
        if std::mem::replace(&mut self.rung, true) { None } else { self.waker.clone() }
    }
}

/// What follows from an answer.
#[derive(Debug)]
pub(super) enum Told {
    Nothing,
    /// There is something to do for the session, which was not told yet.
    Wake(Waker),
    /// Something is ready and waits for the rest of its batch.
    Wait,
}

impl From<Option<Waker>> for Told {
    fn from(waker: Option<Waker>) -> Self {
        waker.map_or(Self::Nothing, Self::Wake)
    }
}

#[derive(Debug)]
struct Place {
    claim: Claim,
    reads: bool,
    /// The request was the last one that came in one read.
    ends_batch: bool,
    /// Messages need not wait for its reply.
    lets_by: bool,
    standing: Standing,
    state: State,
}

#[derive(Debug)]
enum State {
    Empty,
    /// A range of the shared buffer.
    Kept {
        start: u32,
        len: u32,
    },
    Apart(Box<Bytes>),
    /// Merged when it is complete and at the front; it still knows the slots of its parts.
    Gathering(Box<Gather>),
}

impl State {
    /// Answered with no bytes.
    const NOTHING: Self = Self::Kept { start: 0, len: 0 };

    fn is_kept(&self) -> bool {
        matches!(self, Self::Kept { .. })
    }
}

impl Queue {
    pub(super) fn new(most: usize, common: Rc<Common>) -> Self {
        Self { common, most, ..Self::default() }
    }

    #[inline]
    pub(super) fn push(&mut self, claim: Claim, reads: bool) -> u32 {
        self.claim(claim);
        self.put_out(Place::out(claim, reads, State::Empty))
    }

    pub(super) fn push_gather(&mut self, gather: Gather) -> u32 {
        gather.claims().for_each(|claim| self.claim(claim));
        let reads = !gather.writes();
        let state = State::Gathering(Box::new(gather));
        self.put_out(Place::out(Claim::None, reads, state))
    }

    /// Puts a place whose reply is still to come.
    #[inline]
    fn put_out(&mut self, place: Place) -> u32 {
        let number = self.put(place);
        if self.mute != Mute::No && self.mutes_next() {
            self.muted.push_back(number);
        }
        number
    }

    fn put(&mut self, place: Place) -> u32 {
        let number = self.front.wrapping_add(narrow(self.places.len()));
        self.places.push_back(place);
        number
    }

    pub(super) fn mute(&mut self, mute: Mute) {
        if mute != Mute::Next || self.mute != Mute::All {
            self.mute = mute;
        }
    }

    pub(super) fn lift_mute(&mut self) -> Mute {
        match std::mem::take(&mut self.mute) {
            Mute::Next => Mute::No,
            mute => mute,
        }
    }

    /// Whether the reply to the next request is not sent; asked once for each request.
    pub(super) fn mutes_next(&mut self) -> bool {
        if self.mute == Mute::Next {
            self.mute = Mute::No;
            return true;
        }
        self.mute == Mute::All
    }

    fn is_muted(&self, number: u32) -> bool {
        let place = |number: &u32| number.wrapping_sub(self.front);
        !self.muted.is_empty() && self.muted.binary_search_by_key(&place(&number), place).is_ok()
    }

    /// Answers the next place at once.
    pub(super) fn answer(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        if self.places.is_empty() {
            return fill(self.output.tail(&self.common.spares));
        }
        let state = if self.kept.len() > KEPT_MAX {
            let mut reply = Vec::new();
            fill(&mut reply);
            self.apart(reply.into())
        } else {
            let start = self.kept().len();
            fill(&mut self.kept);
            self.kept_from(start)
        };
        self.put(Place::answered(state));
    }

    /// Takes something that answers no request; false if too much waits with it. Gives the waker if there is something to
    /// do and nobody was told yet.
    pub(super) fn append(&mut self, message: &Reply<'_>, most: usize) -> (bool, Option<Waker>) {
        if self.closed {
            return (true, None);
        }
        let at_once = self.lets_messages_by();
        match message {
            Reply::Large(bytes) if at_once => self.output.append(bytes.clone()),
            Reply::Small(bytes) if at_once => {
                self.output.tail(&self.common.spares).extend_from_slice(bytes);
            }
            Reply::Large(bytes) => {
                let state = self.apart(bytes.clone());
                self.put(Place::answered(state));
            }
            Reply::Small(bytes) => self.answer(|out| out.extend_from_slice(bytes)),
        }
        let fits = self.size() <= most;
        if !fits {
            self.throw_away();
        } else if !at_once {
            return (true, None);
        }
        self.due = true;
        let told = std::mem::replace(&mut self.bell.rung, true);
        (fits, self.waker().filter(|_| !told || !fits))
    }

    /// Whether a message waits for no reply.
    fn lets_messages_by(&self) -> bool {
        self.places.iter().all(|place| place.lets_by)
    }

    /// Messages need not wait for the reply to the last request so far.
    pub(super) fn let_messages_by(&mut self) {
        if let Some(last) = self.places.back_mut() {
            last.lets_by = true;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    #[inline(never)]
    pub(super) fn is_taken(&self, slot: Slot, care: bool) -> bool {
        if self.whole.binary_search(&slot).is_ok() {
            return true;
        }
        (care || self.turned > 0)
            && self.places.iter().flat_map(|place| place.on(slot)).any(Standing::is_open)
    }

    #[inline]
    pub(super) fn gate(&self) -> Gate {
        if self.places.is_empty() {
            Gate::Empty
        } else if self.all > 0 {
            Gate::Barred
        } else if self.turned > 0 || !self.whole.is_empty() {
            Gate::Claimed
        } else {
            Gate::Free
        }
    }

    pub(super) fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    pub(super) fn unsent(&self) -> usize {
        self.output.len()
    }

    pub(super) fn size(&self) -> usize {
        self.output.len() + self.kept.len() + self.apart
    }

    /// What came in one read ends with the last request so far.
    pub(super) fn end_batch(&mut self) {
        if let Some(last) = self.places.back_mut() {
            last.ends_batch = true;
        }
    }

    /// Whether something is ready and is to be sent now.
    pub(super) fn is_due(&self) -> bool {
        self.due || self.places.is_empty() || self.output.len() >= FLUSH_AT
    }

    /// Has what is ready sent.
    pub(super) fn press(&mut self) -> Option<Waker> {
        self.waits = false;
        if self.output.is_empty() {
            return None;
        }
        self.due = true;
        self.bell.ring()
    }

    /// All that was ready has been sent.
    pub(super) fn sent(&mut self) {
        self.due = false;
        self.output.shrink(&self.common.spares);
    }

    /// Whether something is ready that is not to be sent yet.
    pub(super) fn waits_for_batch(&self) -> bool {
        !self.output.is_empty() && !self.is_due()
    }

    /// True if something ready has to be put on the list of those that wait.
    pub(super) fn begins_to_wait(&mut self) -> bool {
        self.waits_for_batch() && !std::mem::replace(&mut self.waits, true)
    }

    pub(super) fn hurry(&mut self) {
        self.bell.eager = true;
    }

    pub(super) fn listen(&mut self, waker: &Waker) {
        self.bell.listen(waker);
    }

    pub(super) fn waker(&self) -> Option<Waker> {
        self.bell.waker.clone()
    }

    pub(super) fn close(&mut self) {
        self.bell.waker = None;
        self.throw_away();
    }

    pub(super) fn is_over(&self) -> bool {
        self.closed
    }

    /// Replies are needed no more; the places stay, for the order of requests that are still out.
    pub(super) fn throw_away(&mut self) {
        self.closed = true;
        self.output = Output::default();
        self.kept = Vec::new();
        self.apart = 0;
        for place in &mut self.places {
            match &mut place.state {
                State::Empty => {}
                State::Gathering(gather) => gather.throw_away(),
                answered => *answered = State::NOTHING,
            }
        }
        self.kept_count = self.places.iter().filter(|place| place.state.is_kept()).count();
    }

    pub(super) fn mark(&mut self, number: u32, part: u32, standing: Standing) {
        let at = self.index(number);
        let Some(place) = self.places.get_mut(at) else { return };
        let before = match &mut place.state {
            State::Gathering(gather) => gather.mark(part as usize, standing),
            _ => std::mem::replace(&mut place.standing, standing),
        };
        self.count(before, standing);
    }

    fn count(&mut self, before: Standing, after: Standing) {
        let is_turned = |s| matches!(s, Standing::OutAgain | Standing::Aside);
        self.turned = self.turned + usize::from(is_turned(after)) - usize::from(is_turned(before));
    }

    pub(super) fn company(&self, (number, reads): (u32, bool), slot: Slot) -> Company {
        let mut company = Company::default();
        let at = self.index(number);
        for standing in self.places.iter().take(at).flat_map(|place| place.on(slot)) {
            company.out_before |= matches!(standing, Standing::Out | Standing::OutAgain);
            company.aside_before |= standing == Standing::Aside;
        }
        for place in self.places.iter().skip(at + 1) {
            for standing in place.on(slot) {
                company.out_behind |= matches!(standing, Standing::Out | Standing::OutAgain);
                company.answered_behind |=
                    standing == Standing::Answered && !(reads && place.reads);
            }
        }
        company
    }

    fn index(&self, number: u32) -> usize {
        number.wrapping_sub(self.front) as usize
    }

    fn claim(&mut self, claim: Claim) {
        match claim {
            Claim::None | Claim::Slot(_) => {}
            Claim::Whole(slot) => {
                let at = self.whole.partition_point(|claimed| *claimed < slot);
                self.whole.insert(at, slot);
            }
            Claim::All => self.all += 1,
        }
    }

    fn unclaim(&mut self, claim: Claim) {
        match claim {
            Claim::None | Claim::Slot(_) => {}
            Claim::Whole(slot) => {
                if let Ok(at) = self.whole.binary_search(&slot) {
                    self.whole.remove(at);
                }
            }
            Claim::All => self.all -= 1,
        }
    }

    /// Puts an answer in its place. Gives the waker if there is something new to send and nobody was told yet.
    #[inline]
    pub(super) fn settle(
        &mut self,
        (number, part): (u32, u32),
        standing: Standing,
        reply: Reply<'_>,
    ) -> Told {
        let at = self.index(number);
        let unwanted = self.closed || self.is_muted(number);
        let reply = if unwanted { Reply::Small(b"") } else { reply };
        let Some(place) = self.places.get_mut(at) else { return Told::Nothing };
        if let State::Gathering(_) = place.state {
            return self.settle_part((at, part), standing, &reply);
        }
        let (claim, before) = (place.claim, std::mem::replace(&mut place.standing, standing));
        self.unclaim(claim);
        self.count(before, standing);
        if at > 0 {
            let state = self.keep(reply);
            self.places[at].state = state;
            return self.overflow().or_else(|| self.bell.answered()).into();
        }
        match reply {
            Reply::Small(bytes) => self.output.tail(&self.common.spares).extend_from_slice(bytes),
            Reply::Large(bytes) => self.output.append(bytes),
        }
        self.pop();
        self.release()
    }

    #[inline(never)]
    fn settle_part(
        &mut self,
        (at, part): (usize, u32),
        standing: Standing,
        reply: &Reply<'_>,
    ) -> Told {
        let State::Gathering(gather) = &mut self.places[at].state else { return Told::Nothing };
        let before = gather.mark(part as usize, standing);
        self.common.spares.lend(gather.buffer());
        let claim = gather.answer(part as usize, reply.bytes());
        let done = gather.is_complete() && at == 0;
        self.apart += reply.bytes().len();
        self.unclaim(claim);
        self.count(before, standing);
        if done {
            return self.release();
        }
        self.overflow().or_else(|| self.bell.answered()).into()
    }

    /// Throws the replies away if too many bytes of them wait. Gives the waker if they have just been.
    #[inline]
    fn overflow(&mut self) -> Option<Waker> {
        if self.apart <= self.most || self.closed {
            return None;
        }
        self.throw_away();
        self.waker()
    }

    fn pop(&mut self) {
        self.due |= self.places.pop_front().is_some_and(|place| place.ends_batch);
        if self.muted.front() == Some(&self.front) {
            self.muted.pop_front();
        }
        self.front = self.front.wrapping_add(1);
    }

    /// Moves what is answered at the front to the output. Gives the waker if that is to be sent now, or if the session
    /// wants to know, and nobody was told yet.
    #[inline]
    fn release(&mut self) -> Told {
        while let Some(place) = self.places.front_mut() {
            match &mut place.state {
                State::Kept { start, len } => {
                    let bytes = &self.kept[*start as usize..][..*len as usize];
                    self.output.tail(&self.common.spares).extend_from_slice(bytes);
                    self.kept_count -= 1;
                }
                State::Apart(bytes) => {
                    self.apart -= bytes.len();
                    self.output.append(std::mem::take(bytes));
                }
                State::Gathering(gather) if gather.is_complete() => {
                    self.apart -= gather.size();
                    if self.muted.front() != Some(&self.front) {
                        gather.merge(self.output.tail(&self.common.spares));
                    }
                    self.common.spares.take_back(gather.buffer());
                }
                State::Empty | State::Gathering(_) => break,
            }
            self.pop();
        }
        self.shrink();
        if self.output.len() > self.most {
            self.throw_away();
        }
        if self.bell.eager || self.closed || self.is_due() {
            self.bell.ring().into()
        } else if self.begins_to_wait() {
            Told::Wait
        } else {
            Told::Nothing
        }
    }

    /// An idle client holds no buffers worth speaking of.
    fn shrink(&mut self) {
        if self.kept_count > 0 {
            return;
        }
        self.kept.clear();
        if self.places.is_empty() {
            self.common.spares.take_back(&mut self.kept);
            if self.places.capacity() > 256 {
                self.places = VecDeque::new();
            }
        }
    }

    fn keep(&mut self, reply: Reply<'_>) -> State {
        match reply {
            Reply::Large(bytes) => self.apart(bytes),
            Reply::Small(bytes) if self.kept.len() > KEPT_MAX => {
                self.apart(Bytes::copy_from_slice(bytes))
            }
            Reply::Small(bytes) => {
                let start = self.kept().len();
                self.kept.extend_from_slice(bytes);
                self.kept_from(start)
            }
        }
    }

    /// The shared buffer.
    fn kept(&mut self) -> &mut Vec<u8> {
        self.common.spares.lend(&mut self.kept)
    }

    fn kept_from(&mut self, start: usize) -> State {
        self.kept_count += 1;
        State::Kept { start: narrow(start), len: narrow(self.kept.len() - start) }
    }

    fn apart(&mut self, bytes: Bytes) -> State {
        self.apart += bytes.len();
        State::Apart(Box::new(bytes))
    }
}

impl Place {
    /// One whose reply is still to come.
    #[inline]
    fn out(claim: Claim, reads: bool, state: State) -> Self {
        Self { claim, reads, ends_batch: false, lets_by: false, standing: Standing::Out, state }
    }

    /// One that is settled already.
    fn answered(state: State) -> Self {
        Self { standing: Standing::Answered, ..Self::out(Claim::None, true, state) }
    }

    /// Standings of the request, or of its parts, as far as they are on this slot.
    fn on(&self, slot: Slot) -> impl Iterator<Item = Standing> {
        let (whole, gather) = match &self.state {
            State::Gathering(gather) => (None, Some(gather.standings(slot))),
            _ => (Some(self.standing).filter(|_| self.claim.covers(slot)), None),
        };
        whole.into_iter().chain(gather.into_iter().flatten())
    }
}

/// Places and kept bytes are bounded far below 2^32 by the pipelining window and the output limit.
fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
