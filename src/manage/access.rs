//! How nodes are reached: with which credentials, and how patiently.

pub use crate::backend::Credentials;
pub use crate::backend::control::{Access, ControlError};
pub use crate::net::tls::{Check, Tls, TlsFault, TlsOptions, TlsTrouble, is_hung_up};
pub use crate::net::{Family, Way};
