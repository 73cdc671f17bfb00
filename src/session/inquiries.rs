//! Questions to nodes outside the way of requests: each on a connection of its own, and all nodes at the same time.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::connection::Session;
use super::slow::Timed;
use crate::backend::{Pool, Said};
use crate::cluster::Slot;
use crate::local::inquiry::{Inquiry, Reach};
use crate::local::muster::Share;
use crate::refusal::Refusal;
use crate::replies::{Promise, Reply};
use crate::resp::Protocol;

impl Session {
    /// Asks nodes and answers when they have.
    pub(super) fn inquire(
        &self,
        inquiry: Inquiry,
        timed: Timed,
        promise: Promise,
    ) -> impl Future<Output = ()> + use<> {
        let (shared, any) = (Rc::clone(&self.shared), self.any_slot());
        let client = self.client.borrow().id;
        async move {
            let Inquiry { wire, reach, protocol, patience, muster, finish } = inquiry;
            let pool = Rc::clone(&shared.pool);
            let asker = Asker { pool: Rc::clone(&pool), wire: wire.into(), protocol, patience };
            let answers = asker.ask(reach, any).await;
            let share = match muster {
                Some(muster) => shared.shares(&muster, client).await,
                None => Share::default(),
            };
            match answers.and_then(|answers| finish(&answers, &share)) {
                Ok(reply) => promise.fulfil(Reply::Small(&reply)),
                Err(refusal) => pool.refuse(promise, &refusal),
            }
            timed.end(&pool);
        }
    }
}

/// A question, and the way to those who are asked.
#[derive(Clone)]
struct Asker {
    pool: Rc<Pool>,
    wire: Bytes,
    protocol: Protocol,
    patience: Duration,
}

impl Asker {
    async fn ask(&self, reach: Reach, any: Option<Slot>) -> Result<Vec<Bytes>, Refusal> {
        match reach {
            Reach::Owner(slot) => Ok(vec![self.owner(slot).await?]),
            Reach::Any => Ok(vec![self.owner(any.ok_or(Refusal::ClusterDown)?).await?]),
            Reach::All => {
                let mut answers = Vec::new();
                for asked in self.every_owner() {
                    answers.push(asked.await.unwrap_or(Err(Refusal::Dropped))?);
                }
                Ok(answers)
            }
            Reach::Willing => {
                let mut answers = Vec::new();
                let end = Instant::now() + self.patience;
                for asked in self.every_owner() {
                    let answer = tokio::time::timeout_at(end, asked).await;
                    answers.extend(answer.ok().and_then(Result::ok).and_then(Result::ok));
                }
                Ok(answers)
            }
        }
    }

    /// Asks the owners of all slots, each in a task of its own.
    fn every_owner(&self) -> Vec<JoinHandle<Result<Bytes, Refusal>>> {
        let slots = self.pool.primaries();
        let ask = |slot| {
            let asker = self.clone();
            tokio::task::spawn_local(async move { asker.owner(slot).await })
        };
        slots.into_iter().map(ask).collect()
    }

    /// Asks the owner of a slot, whoever that turns out to be.
    async fn owner(&self, slot: Slot) -> Result<Bytes, Refusal> {
        let deadline = self.pool.deadline();
        loop {
            let mut lease = self.pool.lease(slot, self.protocol, deadline).await?;
            let node = lease.address().to_string();
            let lost = || Refusal::ConnectionLost(node.clone());
            lease.send(&self.wire).await.map_err(|_| lost())?;
            let said = timeout(self.patience, lease.hear()).await;
            let said = said.map_err(|_| Refusal::Timeout(node.clone()))?.map_err(|_| lost())?;
            lease.give_back();
            match said {
                Said::Reply(reply) => return Ok(reply),
                Said::NotHere(_) if Instant::now() >= deadline => {
                    return Err(Refusal::SlotNotServed);
                }
                Said::NotHere(_) => self.pool.look_again().await,
            }
        }
    }
}
