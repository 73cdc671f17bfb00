//! How nodes are reached: with which credentials, and how patiently.

use std::time::Duration;

pub use crate::backend::Credentials;
use crate::backend::control::{Control, ControlError};
use crate::cluster::Address;

/// What every connection to a node of a cluster needs.
#[derive(Clone, Debug)]
pub struct Access {
    /// User and password, the same on all nodes.
    pub credentials: Option<Credentials>,
    /// How long connecting, and each answer after that, may take.
    pub limit: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self { credentials: None, limit: Duration::from_secs(5) }
    }
}

impl Access {
    /// A connection to the node at an address, logged in.
    pub async fn open(&self, address: &Address) -> Result<Control, ControlError> {
        Control::login(&address.to_string(), self.limit, self.credentials.as_ref()).await
    }
}
