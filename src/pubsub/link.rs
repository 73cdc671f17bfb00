//! One connection to one node that subscribes: what is wanted there, what the node has confirmed, and the task that speaks
//! with it.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::Hub;
use super::topic::Topic;
use crate::backend::Inlet;
use crate::cluster::Address;
use crate::net::Stream;
use crate::resp::Protocol;

/// First wait before a node that could not be reached is tried again; doubled up to the longest.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(640);
/// Messages passed on, each counted once for every client, before other tasks get their turn: about a millisecond.
const TURN: usize = 10_000;
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// The connection of one hub to one node.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) address: Address,
    inner: RefCell<Inner>,
    /// There is something to write, or nothing left to do.
    work: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    up: bool,
    held: HashMap<Topic, Held>,
    /// The requests that the node owes an answer, in order.
    awaited: VecDeque<(Topic, Verb)>,
    out: Vec<u8>,
}

/// How far a topic is at the node.
#[derive(Debug, Default)]
struct Held {
    /// Whether it is to be subscribed to.
    wanted: bool,
    /// When the node confirmed that; `None` if it has not.
    on: Option<Instant>,
    /// Requests about it that the node owes an answer.
    owed: u32,
}

/// What is asked of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Subscribe,
    Unsubscribe,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
        }
    }
}

impl Inner {
    fn send(&mut self, verb: Verb, topic: &Topic) {
        topic.request(verb.word(), &mut self.out);
        self.awaited.push_back((topic.clone(), verb));
        self.held.entry(topic.clone()).or_default().owed += 1;
    }

    /// The node has done a request. Those before it in line, of which there are none as long as every request gets one
    /// answer, count as answered.
    fn settle(&mut self, topic: &Topic, verb: Verb) {
        let at = self.awaited.iter().position(|(t, v)| (t, *v) == (topic, verb));
        let Some(at) = at else { return };
        for (topic, _) in self.awaited.drain(..=at) {
            let Some(held) = self.held.get_mut(&topic) else { continue };
            held.owed -= 1;
            if held.owed == 0 && held.wanted {
                held.on = Some(Instant::now());
            } else if held.owed == 0 {
                self.held.remove(&topic);
            }
        }
    }
}

impl Link {
    pub(super) fn new(address: Address) -> Rc<Self> {
        Rc::new(Self { address, inner: RefCell::default(), work: Notify::new() })
    }

    /// Subscribes, now or as soon as the node is connected.
    pub(super) fn want(&self, topic: &Topic) {
        let inner = &mut *self.inner.borrow_mut();
        let held = inner.held.entry(topic.clone()).or_default();
        if !std::mem::replace(&mut held.wanted, true) && inner.up {
            inner.send(Verb::Subscribe, topic);
            self.work.notify_one();
        }
    }

    /// Unsubscribes.
    pub(super) fn release(&self, topic: &Topic) {
        let inner = &mut *self.inner.borrow_mut();
        let Some(held) = inner.held.get_mut(topic).filter(|held| held.wanted) else { return };
        (held.wanted, held.on) = (false, None);
        if inner.up {
            inner.send(Verb::Unsubscribe, topic);
        } else {
            inner.held.remove(topic);
        }
        self.work.notify_one();
    }

    pub(super) fn wants(&self, topic: &Topic) -> bool {
        self.inner.borrow().held.get(topic).is_some_and(|held| held.wanted)
    }

    /// Whether the node has confirmed the subscription.
    pub(super) fn is_on(&self, topic: &Topic) -> bool {
        self.on(topic).is_some()
    }

    /// When the node confirmed the subscription, if it has.
    pub(super) fn on(&self, topic: &Topic) -> Option<Instant> {
        self.inner.borrow().held.get(topic).and_then(|held| held.on)
    }

    /// The topics that the node counts this connection for, as far as is known.
    pub(super) fn counted(&self) -> Vec<Topic> {
        let held = &self.inner.borrow().held;
        let counts = |held: &Held| held.on.is_some() || !held.wanted;
        held.iter().filter(|(_, held)| counts(held)).map(|(topic, _)| topic.clone()).collect()
    }

    /// Whether nothing is wanted, and nothing owed.
    fn is_idle(&self) -> bool {
        let inner = self.inner.borrow();
        inner.held.is_empty() && inner.out.is_empty()
    }

    fn came_up(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.up = true;
        let wanted: Vec<Topic> = inner.held.keys().cloned().collect();
        for topic in &wanted {
            inner.send(Verb::Subscribe, topic);
        }
        self.work.notify_one();
    }

    fn went_down(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.up = false;
        inner.out.clear();
        inner.awaited.clear();
        inner.held.retain(|_, held| held.wanted);
        for held in inner.held.values_mut() {
            (held.on, held.owed) = (None, 0);
        }
    }

    /// The node has confirmed a subscription.
    pub(super) fn subscribed(&self, topic: &Topic) {
        self.inner.borrow_mut().settle(topic, Verb::Subscribe);
        self.work.notify_one();
    }

    /// The node has unsubscribed from a topic. True if it did so of its own accord, because the slot has moved.
    pub(super) fn unsubscribed(&self, topic: &Topic) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        self.work.notify_one();
        if inner.awaited.front().is_some_and(|(t, verb)| (t, *verb) == (topic, Verb::Unsubscribe)) {
            inner.settle(topic, Verb::Unsubscribe);
            return false;
        }
        match inner.held.get_mut(topic) {
            Some(held) if held.owed == 0 => inner.held.remove(topic).is_some(),
            // The answer to what it was asked since will tell.
            _ => false,
        }
    }

    /// The node has refused the request whose turn it is. Gives the topic if it is not subscribed to now.
    pub(super) fn refused(&self) -> Option<Topic> {
        let inner = &mut *self.inner.borrow_mut();
        self.work.notify_one();
        let (topic, verb) = inner.awaited.pop_front()?;
        let held = inner.held.get_mut(&topic)?;
        held.owed -= 1;
        if held.owed > 0 {
            return None;
        }
        inner.held.remove(&topic);
        Some(topic).filter(|_| verb == Verb::Subscribe)
    }

    /// Keeps the connection for as long as anything is wanted of the node.
    pub(super) async fn run(self: Rc<Self>, hub: Rc<Hub>) {
        let mut pause = PAUSE;
        while !self.is_idle() {
            match hub.pool.connect(&self.address, Protocol::Resp2).await {
                Ok(stream) => {
                    pause = PAUSE;
                    let ended = self.serve(&hub, stream).await;
                    self.went_down();
                    if let Err(error) = ended {
                        hub.pool.stats.pubsub_links_lost.add(1);
                        tracing::info!(node = %self.address, %error, "a connection for subscriptions is lost");
                    }
                }
                Err(_) => hub.pool.stats.failed_connections.add(1),
            }
            if self.is_idle() {
                break;
            }
            hub.lost(&self.address);
            hub.pool.look_again().await;
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        hub.closed(&self);
    }

    /// Speaks with the node until nothing is wanted of it, or the connection is lost.
    async fn serve(&self, hub: &Rc<Hub>, mut stream: Stream) -> io::Result<()> {
        self.came_up();
        let mut inlet = Inlet::default();
        let patience = hub.pool.response_timeout() / 2;
        let mut pinged = false;
        while !self.is_idle() {
            tokio::select! {
                read = timeout(patience, inlet.read(&mut stream)) => match read {
                    Ok(read) => {
                        pinged = false;
                        hub.pool.stats.read_bytes.add(read? as u64);
                        self.hear(hub, &mut inlet).await?;
                    }
                    Err(_) if pinged => return Err(io::ErrorKind::TimedOut.into()),
                    Err(_) => {
                        pinged = true;
                        self.inner.borrow_mut().out.extend_from_slice(PING);
                    }
                },
                () = self.work.notified() => {}
            }
            self.write(hub, &mut stream).await?;
        }
        Ok(())
    }

    async fn hear(&self, hub: &Rc<Hub>, inlet: &mut Inlet) -> io::Result<()> {
        let mut passed_on = 0;
        while let Some(frame) = inlet.frame()? {
            passed_on += hub.hear(self, frame);
            if passed_on > TURN {
                passed_on = 0;
                tokio::task::yield_now().await;
            }
        }
        if passed_on > 0 {
            // What has been passed on is sent before more is read: little waits for clients that keep up.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Writes all there is to write. It is little, and the node reads it even when its own output is stuck.
    async fn write(&self, hub: &Hub, stream: &mut Stream) -> io::Result<()> {
        let out = std::mem::take(&mut self.inner.borrow_mut().out);
        if out.is_empty() {
            return Ok(());
        }
        hub.pool.stats.written_bytes.add(out.len() as u64);
        timeout(hub.pool.response_timeout(), stream.send(&out)).await?
    }
}

#[cfg(test)]
mod tests {
    use super::super::topic::Kind;
    use super::*;

    fn link() -> (Rc<Link>, Topic, Topic) {
        let link = Link::new(Address::parse("10.0.0.1:7001", None).unwrap());
        (link, Topic::new(Kind::Shard, b"a"), Topic::new(Kind::Shard, b"b"))
    }

    /// The requests written since this was last asked, each as one line.
    fn written(link: &Link) -> Vec<String> {
        let out = std::mem::take(&mut link.inner.borrow_mut().out);
        let text = String::from_utf8(out).unwrap();
        let requests = text.split("*2\r\n").skip(1);
        let words =
            |request: &str| request.lines().skip(1).step_by(2).collect::<Vec<_>>().join(" ");
        requests.map(words).collect()
    }

    #[test]
    fn only_the_last_answer_counts() {
        let (link, a, _) = link();
        link.want(&a);
        assert!(written(&link).is_empty());
        link.came_up();
        link.release(&a);
        link.want(&a);
        link.want(&a);
        assert_eq!(written(&link), ["ssubscribe a", "sunsubscribe a", "ssubscribe a"]);
        link.subscribed(&a);
        assert!(!link.is_on(&a));
        assert!(!link.unsubscribed(&a) && !link.is_on(&a));
        link.subscribed(&a);
        assert!(link.is_on(&a));
        link.release(&a);
        assert!(!link.is_on(&a) && !link.wants(&a) && link.counted() == [a.clone()]);
        assert_eq!(written(&link), ["sunsubscribe a"]);
        assert!(!link.is_idle());
        assert!(!link.unsubscribed(&a));
        assert!(link.is_idle());
    }

    #[test]
    fn a_slot_that_moves_takes_its_channels_along() {
        let (link, a, b) = link();
        link.came_up();
        link.want(&a);
        link.subscribed(&a);
        link.want(&b);
        // Nobody asked for this one.
        assert!(link.unsubscribed(&a) && !link.wants(&a));
        assert_eq!(link.refused(), Some(b.clone()));
        assert!(!link.wants(&b) && link.refused().is_none());
    }

    #[test]
    fn what_is_wanted_outlives_the_connection() {
        let (link, a, b) = link();
        link.came_up();
        link.want(&a);
        link.want(&b);
        link.subscribed(&a);
        link.release(&b);
        link.went_down();
        assert!(!link.is_on(&a) && link.wants(&a) && !link.wants(&b));
        link.came_up();
        assert_eq!(written(&link), ["ssubscribe a"]);
    }

    #[test]
    fn an_answer_too_few_is_got_over() {
        let (link, a, b) = link();
        link.came_up();
        link.want(&a);
        link.want(&b);
        link.subscribed(&b);
        assert!(link.is_on(&b) && link.inner.borrow().awaited.is_empty());
    }
}
