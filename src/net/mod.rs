//! What bytes travel on, to nodes and to clients: TCP, or TLS over it.
//!
//! ```text
//!  stream   either of the two, as one type
//!  tls      what is trusted, what is shown, and what went wrong
//! ```

mod stream;
pub mod tls;

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};

pub use stream::Stream;
use tls::Tls;

/// How connections are made, the same for all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// TLS, if that is spoken.
    pub tls: Option<Tls>,
    /// Which of a host's addresses are tried.
    pub family: Family,
}

/// Kinds of IP addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Whatever there is.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

impl Family {
    fn has(self, address: &SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

impl Way {
    /// The same to a host whose address is dialled in place of its name.
    #[must_use]
    pub fn to_host(&self, name: &str) -> Self {
        Self { tls: self.tls.as_ref().map(|tls| tls.to_host(name)), ..self.clone() }
    }

    /// A TCP connection, on which nothing has been said yet.
    pub async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let found = lookup_host((host, port)).await?;
        let addresses: Vec<SocketAddr> = found.filter(|address| self.family.has(address)).collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no such address"));
        }
        let stream = TcpStream::connect(&*addresses).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// What is said goes through TLS from here on, if that is the way.
    pub async fn secure(&self, stream: TcpStream, host: &str) -> io::Result<Stream> {
        match &self.tls {
            None => Ok(Stream::Plain(stream)),
            Some(tls) => tls.secure(stream, host).await,
        }
    }
}
