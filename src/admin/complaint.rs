//! What the admin port refuses, and how: the first word of each error is a code that machines read. Pure.

use thiserror::Error;

use crate::refusal::Refusal;
use crate::resp::frame::RequestError;

/// An error reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Complaint {
    #[error(transparent)]
    Plain(#[from] Refusal),
    #[error("BADARG {0}")]
    BadArg(String),
    #[error("UNREACHABLE {0}")]
    Unreachable(String),
    #[error("UNSUPPORTED {0} is not built yet")]
    Unsupported(String),
}

impl From<RequestError> for Complaint {
    fn from(error: RequestError) -> Self {
        Refusal::from(error).into()
    }
}
