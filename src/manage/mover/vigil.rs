//! Watching over a source that does not answer, until one of its replicas takes over.
//!
//! ```text
//!  source dies ──────── replica is promoted ──── it is told which slots are on their way
//!       └─ CLIENT PAUSE … WRITE, again and again ─┘└─ and lets writes through ─┘
//! ```
//! A replica does not know which slots are on their way (before Valkey 8), and cannot be told. When it has taken over it answers
//! that keys which have moved are not there, and clients would make them anew beside what the target has of them. So it lets no
//! write through from before it takes over until it knows. Where that holds without a gap, what the target has of a key is
//! right: the heir has at most what the source had sent on before the key moved.

use std::time::{Duration, Instant};

use super::Work;
use super::ends::{End, words};
use super::remedy::{Remedy, Setback};
use crate::cluster::NodeId;
use crate::manage::quarantine::Right;
use crate::manage::view::ClusterView;
use crate::resp::value;

/// For how long a node is held each time. Should this program die meanwhile, so long do clients wait for nothing.
const HOLD: Duration = Duration::from_secs(2);
/// Keys that are deleted in one go with letting clients through: a short request, which arrives in one piece.
const DELETED: usize = 20;

/// Nodes that are held.
#[derive(Default)]
pub(super) struct Vigil {
    held: Vec<Held>,
    /// The source has failed to send keys, and may have served them since: what the target has of them may be old.
    in_doubt: bool,
}

struct Held {
    end: End,
    /// It lets no write through until then.
    until: Instant,
    /// It was a replica when that began, and there was no gap since.
    is_unbroken: bool,
}

impl Vigil {
    /// Whether somebody is about to take over.
    pub(super) fn is_kept(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes note of what went wrong.
    pub(super) fn note(&mut self, setback: &Setback) {
        self.in_doubt |= setback.remedy == Remedy::Again;
    }

    /// Holds the replicas of a source that does not answer, and who has taken over from it until it knows of the move.
    pub(super) async fn keep(&mut self, work: &Work<'_>, source: &NodeId, view: &ClusterView) {
        let source = work.company.borrow().now(source);
        for held in &mut self.held {
            held.again().await;
        }
        if view.node(&source).is_some() {
            return;
        }
        for node in view.replicas_of(&source) {
            if self.held.iter().all(|held| held.end.id != node.own.id)
                && let Ok(end) = work.open(&node.own.id).await
            {
                self.held.extend(Held::begin(end).await);
            }
        }
    }

    /// Whose copies are right of keys that a source and its target have, for as long as a node is held each time.
    pub(super) async fn right(&mut self, source: &NodeId) -> Right {
        let Some(held) = self.held.iter_mut().find(|held| held.end.id == *source) else {
            return Right::Owner;
        };
        held.again().await;
        if held.is_unbroken && !self.in_doubt { Right::Other } else { Right::Owner }
    }

    /// Deletes copies of a source that are wrong, before it lets any client through who would use them.
    pub(super) async fn delete(
        &mut self,
        source: &NodeId,
        keys: &[Vec<u8>],
    ) -> Result<(), Setback> {
        let Some(held) = self.held.iter_mut().find(|held| held.end.id == *source) else {
            return Ok(());
        };
        for some in keys.chunks(DELETED) {
            let delete = [words(&["DEL"]), some.to_vec()].concat();
            let requests = [words(&["CLIENT", "UNPAUSE"]), delete, pause()];
            held.end.pipeline(&requests).await?;
        }
        Ok(())
    }

    /// Lets everybody go.
    pub(super) async fn end(&mut self) {
        for mut held in self.held.drain(..) {
            // What does not hear of it goes on by itself soon.
            let _ = held.end.say(&["CLIENT", "UNPAUSE"]).await;
        }
    }
}

impl Held {
    /// Holds a node, if it can be: servers before 6.2 cannot hold writes alone.
    async fn begin(mut end: End) -> Option<Self> {
        let until = Instant::now() + HOLD;
        let replies = end.pipeline(&[pause(), words(&["ROLE"])]).await.ok()?;
        let [paused, role] = replies.as_slice() else { return None };
        let is_replica = value::array(role)?.first().and_then(value::text) == Some("slave");
        let is_held = value::text(paused) == Some("OK");
        is_held.then_some(Self { end, until, is_unbroken: is_replica })
    }

    async fn again(&mut self) {
        let begun = Instant::now();
        let is_held = self.end.pipeline(&[pause()]).await.is_ok() && Instant::now() < self.until;
        self.is_unbroken &= is_held;
        self.until = begun + HOLD;
    }
}

fn pause() -> Vec<Vec<u8>> {
    words(&["CLIENT", "PAUSE", &HOLD.as_millis().to_string(), "WRITE"])
}
