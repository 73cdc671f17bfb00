//! TLS: whose certificates are trusted, what certificate is shown, and what it means when that fails.
//!
//! ```text
//!  papers    certificates and keys, read from files
//!  nodes     to nodes, whose certificates are looked at
//!  clients   of clients, who are shown one and may have to show theirs
//!  trouble   what is between us and the other end
//! ```

mod clients;
mod nodes;
mod papers;
mod trouble;

pub use clients::{AuthClients, ServerOptions, ServerTls};
pub use nodes::{Check, Tls, TlsOptions};
pub use papers::{Papers, TlsFault};
pub use trouble::{TlsTrouble, is_hung_up};
