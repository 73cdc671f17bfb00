//! How nodes are reached: with which credentials, and how patiently.

use std::time::Duration;

pub use crate::backend::Credentials;
use crate::backend::control::Control;
pub use crate::backend::control::ControlError;
use crate::cluster::Address;
pub use crate::net::tls::{Check, Tls, TlsFault, TlsOptions, TlsTrouble};
pub use crate::net::{Family, Way};

/// What every connection to a node of a cluster needs.
#[derive(Clone, Debug)]
pub struct Access {
    /// User and password, the same on all nodes.
    pub credentials: Option<Credentials>,
    /// TLS, and kinds of addresses.
    pub way: Way,
    /// How long connecting, and each answer after that, may take.
    pub limit: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self { credentials: None, way: Way::default(), limit: Duration::from_secs(5) }
    }
}

impl Access {
    /// A connection to the node at an address, logged in.
    pub async fn open(&self, address: &Address) -> Result<Control, ControlError> {
        let mut control = Control::connect_by(&self.way, &address.to_string(), self.limit).await?;
        if let Some(credentials) = &self.credentials {
            control.authenticate(credentials).await?;
        }
        Ok(control)
    }
}
