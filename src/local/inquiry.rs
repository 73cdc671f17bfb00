//! What a command asks of nodes outside the way of requests, and how their answers become its reply.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::muster::{Muster, Share};
use crate::cluster::Slot;
use crate::refusal::Refusal;
use crate::resp::{Protocol, write};

/// How long a node may take to answer.
const USUAL: Duration = Duration::from_secs(5);

/// Makes the client's reply of the nodes' answers.
pub type Finish = Box<dyn FnOnce(&[Bytes], &Share) -> Result<Vec<u8>, Refusal>>;

/// A question for nodes.
pub struct Inquiry {
    /// The question on the wire.
    pub wire: Vec<u8>,
    /// Who is asked.
    pub reach: Reach,
    /// In which version of the protocol they answer.
    pub protocol: Protocol,
    /// How long each may take to answer.
    pub patience: Duration,
    /// What all workers are asked besides.
    pub muster: Option<Muster>,
    /// Makes the client's reply of the answers, and of the workers' shares.
    pub finish: Finish,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Any primary.
    Any,
    /// The owner of a slot.
    Owner(Slot),
    /// Every primary, and all must answer.
    All,
    /// Every primary; who does not answer in time is left out.
    Willing,
}

impl Inquiry {
    /// Asks with these words, in RESP2; the answers are made a reply by `finish`.
    pub fn new(
        reach: Reach,
        words: &[&[u8]],
        finish: impl FnOnce(&[Bytes], &Share) -> Result<Vec<u8>, Refusal> + 'static,
    ) -> Self {
        let mut wire = Vec::new();
        write::request(&mut wire, words.iter().copied());
        let (protocol, finish) = (Protocol::Resp2, Box::new(finish));
        Self { wire, reach, protocol, patience: USUAL, muster: None, finish }
    }

    /// Asks with these words; the reply is the first error among the answers, else the first answer.
    pub fn plain(reach: Reach, words: &[&[u8]]) -> Self {
        Self::new(reach, words, |answers, _| {
            let error = answers.iter().find(|answer| answer.starts_with(b"-"));
            let answer = error.or(answers.first()).ok_or(Refusal::ClusterDown)?;
            Ok(answer.to_vec())
        })
    }

    /// With something that all workers are asked besides.
    #[must_use]
    pub fn with_muster(self, muster: Muster) -> Self {
        Self { muster: Some(muster), ..self }
    }

    /// Answered in this version of the protocol.
    #[must_use]
    pub fn spoken(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// With so much time for each to answer.
    #[must_use]
    pub fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

impl fmt::Debug for Inquiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire = self.wire.escape_ascii();
        write!(f, "Inquiry({:?}, {wire})", self.reach)
    }
}
