//! What the admin port refuses, and how: the first word of each error is a code that machines read. Pure.

use thiserror::Error;

use crate::manage::plan::members::MemberError;
use crate::refusal::Refusal;
use crate::resp::frame::RequestError;

/// An error reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Complaint {
    #[error(transparent)]
    Plain(#[from] Refusal),
    #[error("BADARG {0}")]
    BadArg(String),
    #[error("NOTFOUND {0}")]
    NotFound(String),
    #[error("JOBRUNNING {0}")]
    JobRunning(String),
    #[error("NOTEMPTY {0}")]
    NotEmpty(String),
    #[error("OPENSLOTS {0} {1}")]
    OpenSlots(usize, String),
    #[error("DISAGREE {0}")]
    Disagree(String),
    #[error("PRECONDITION {0}")]
    Precondition(String),
    /// It would be done if it were forced by this flag; and why not without.
    #[error("NEEDFORCE {0} {1}")]
    NeedForce(&'static str, String),
    /// A client has waited long enough for this job, which goes on.
    #[error("TIMEOUT {0}")]
    Timeout(String),
    #[error("CONFLICT {0}")]
    Conflict(String),
    #[error("UNREACHABLE {0}")]
    Unreachable(String),
    /// A node that the caller named does not answer.
    #[error("UNREACHABLE {0}")]
    NoAnswer(String),
    #[error("NOAUTH {0}")]
    NoToken(String),
    #[error("NOPERM {0}")]
    NoPermission(String),
    #[error("NOMETHOD {0}")]
    NoMethod(String),
    #[error("UNSUPPORTED {0} is not built yet")]
    Unsupported(String),
}

impl From<MemberError> for Complaint {
    fn from(error: MemberError) -> Self {
        let text = error.to_string();
        match error {
            MemberError::Unknown(_) => Self::NotFound(text),
            MemberError::NotEmpty(_) | MemberError::StrayKeys(..) => Self::NotEmpty(text),
            MemberError::Owner(_) | MemberError::NoHome(_) | MemberError::NoReplica(_) => {
                Self::Precondition(text)
            }
        }
    }
}

impl From<RequestError> for Complaint {
    fn from(error: RequestError) -> Self {
        Refusal::from(error).into()
    }
}
