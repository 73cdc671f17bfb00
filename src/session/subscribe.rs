//! What clients subscribe to, and what is told of it: the sessions' side of the hub.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connection::{Flow, Session};
use super::{Message, Shared};
use crate::backend::{Class, Payload, Ticket};
use crate::cluster::{Address, Slot};
use crate::command::merge::Gather;
use crate::command::{Claim, Merge, Verb};
use crate::pubsub::{self, Kind, Subscriber, Topic};
use crate::refusal::Refusal;
use crate::replies::Reply;
use crate::resp::request::Request;
use crate::route::Decision;

impl Session {
    /// The commands that subscribe and unsubscribe, and `PUBSUB`.
    pub(super) fn subscribe_verb(&mut self, verb: Verb, request: &Request<'_>) -> Flow {
        match verb {
            Verb::Pubsub => self.pubsub(request),
            verb => {
                // Confirmations are messages like others, which `CLIENT REPLY` does not keep back.
                let mute = self.replies.lift_mute();
                self.change_subscriptions(verb, request);
                self.replies.mute(mute);
            }
        }
        Flow::Next
    }

    fn change_subscriptions(&mut self, verb: Verb, request: &Request<'_>) {
        match verb {
            Verb::Subscribe => self.subscribe(Kind::Channel, request),
            Verb::Psubscribe => self.subscribe(Kind::Pattern, request),
            Verb::Ssubscribe => self.subscribe(Kind::Shard, request),
            Verb::Unsubscribe => self.unsubscribe(Kind::Channel, request),
            Verb::Punsubscribe => self.unsubscribe(Kind::Pattern, request),
            _ => self.unsubscribe(Kind::Shard, request),
        }
    }

    fn subscriber(&mut self) -> Rc<Subscriber> {
        let subscriber = self.subscriber.get_or_insert_with(|| {
            self.shared.proxy.subscribers.fetch_add(1, Relaxed);
            Subscriber::new(Rc::clone(&self.client), self.replies.clone())
        });
        Rc::clone(subscriber)
    }

    fn subscribe(&mut self, kind: Kind, request: &Request<'_>) {
        let (subscriber, protocol) = (self.subscriber(), self.protocol());
        for name in request.args(1) {
            let promise = self.replies.promise(Claim::None, true);
            self.shared.hub.subscribe(&subscriber, &Topic::new(kind, name), promise, || {
                let mut wire = Vec::new();
                let count = self.count_with(kind);
                pubsub::confirmation(&mut wire, protocol, ("subscribe", kind), Some(name), count);
                wire
            });
        }
    }

    fn unsubscribe(&mut self, kind: Kind, request: &Request<'_>) {
        let held = self.subscriber.as_ref().map(|subscriber| subscriber.topics(kind));
        let topics: Vec<Topic> = if request.len() > 1 {
            request.args(1).map(|name| Topic::new(kind, name)).collect()
        } else {
            held.unwrap_or_default()
        };
        for topic in &topics {
            if let Some(subscriber) = &self.subscriber {
                self.shared.hub.unsubscribe(subscriber, topic);
            }
            self.confirm_unsubscribed(kind, Some(&topic.name));
        }
        if topics.is_empty() {
            self.confirm_unsubscribed(kind, None);
        }
    }

    fn confirm_unsubscribed(&self, kind: Kind, name: Option<&[u8]>) {
        let (protocol, count) = (self.protocol(), self.count_with(kind));
        self.replies.answer(|out| {
            pubsub::confirmation(out, protocol, ("unsubscribe", kind), name, count);
        });
    }

    /// The number of the client's subscriptions that is told with one of this kind.
    fn count_with(&self, kind: Kind) -> u32 {
        let subscribed = self.client.borrow().subscribed;
        match kind {
            Kind::Channel | Kind::Pattern => subscribed.channels + subscribed.patterns,
            Kind::Shard => subscribed.shards,
        }
    }

    /// Drops all subscriptions, without a word.
    pub(super) fn unsubscribe_all(&mut self) {
        if let Some(subscriber) = self.subscriber.take() {
            self.shared.hub.leave(&subscriber);
            self.shared.proxy.subscribers.fetch_sub(1, Relaxed);
        }
    }

    /// Publishes at a node, and adds to its count the clients of this proxy that it does not see.
    pub(super) fn publish(
        &self,
        request: &Request<'_>,
        payload: Payload<'_>,
        slot: Option<Slot>,
        decision: &Decision,
    ) {
        let (pool, protocol) = (&self.shared.pool, self.protocol());
        let claim = slot.map_or(Claim::None, Claim::Slot);
        let kind = if slot.is_some() { Kind::Shard } else { Kind::Channel };
        let Some(slot) = slot.or_else(|| self.any_slot()) else {
            return self.refuse(&Refusal::ClusterDown);
        };
        let ticket =
            Ticket::new(slot, Class { protocol, replica: false }, decision.nature, self.now);
        if self.shared.proxy.subscribers.load(Relaxed) == 0 {
            let promise = self.replies.promise(claim, decision.nature.reads);
            return pool.send(payload, promise, ticket);
        }
        let claims = [claim, Claim::None].into_iter();
        let mut parts = self.replies.gather(Gather::new(Merge::Receivers, protocol, claims));
        let (Some(node), Some(own)) = (parts.next(), parts.next()) else { return };
        let (topic, owner) = (Topic::new(kind, request.arg(1)), pool.owner(slot));
        pool.send(payload, node, ticket);
        let sent = Instant::now();
        let shared = Rc::clone(&self.shared);
        tokio::task::spawn_local(async move {
            let surplus = surplus(&shared, topic, owner, sent).await;
            own.fulfil(Reply::Small(format!(":{surplus}\r\n").as_bytes()));
        });
    }
}

/// How many more receivers a message has than the node counts, over all workers.
async fn surplus(shared: &Shared, topic: Topic, node: Option<Address>, sent: Instant) -> i64 {
    let mut answers = Vec::with_capacity(shared.workers.len());
    for worker in &shared.workers {
        let (answer, answered) = oneshot::channel();
        let asked = Message::Surplus(topic.clone(), node.clone(), sent, answer);
        if worker.send(asked).is_ok() {
            answers.push(answered);
        }
    }
    let mut sum = 0;
    for answer in answers {
        sum += answer.await.unwrap_or(0);
    }
    sum
}
