//! TLS of clients: what certificate they are shown, and whether they have to show one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::papers::{Papers, TlsFault};
use crate::net::Stream;

/// What is shown, and what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Our certificate, with those between it and the CA.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// File with certificates of CAs that sign for clients.
    pub ca_file: Option<PathBuf>,
    /// Folder of such files.
    pub ca_folder: Option<PathBuf>,
    /// Whether clients have to show a certificate.
    pub auth_clients: AuthClients,
    /// How long a client may take from its connection to the end of the handshake.
    pub limit: Duration,
}

/// Whether clients have to show a certificate, in the words of the server's `tls-auth-clients`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthClients {
    /// They are not asked.
    #[default]
    No,
    /// They need not, but what they show has to be good.
    Optional,
    /// They have to.
    Yes,
}

/// TLS as it is spoken with every client. Copies have the same terms, also when these are renewed.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<ArcSwap<Terms>>);

/// What came of the options.
#[derive(Debug)]
struct Terms {
    config: Arc<ServerConfig>,
    limit: Duration,
    papers: Papers,
}

impl ServerTls {
    /// Reads the files that the options name.
    pub fn new(options: &ServerOptions) -> Result<Self, TlsFault> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Terms::new(options)?))))
    }

    /// Clients that come from here on are dealt with on the terms of another one, by all copies of this one.
    pub fn renew(&self, other: &Self) {
        self.0.store(other.0.load_full());
    }

    /// Whether another one has read something else in this file, or in one of this folder.
    pub fn is_other(&self, other: &Self, path: &Path) -> bool {
        self.0.load().papers.differ(&other.0.load().papers, path)
    }

    /// Agrees with a client that has just connected; it has so much time for it and no more.
    pub async fn welcome(&self, stream: TcpStream) -> io::Result<Stream> {
        let terms = self.0.load_full();
        let acceptor = TlsAcceptor::from(Arc::clone(&terms.config));
        let agreed = timeout(terms.limit, acceptor.accept(stream)).await;
        let late = |_| {
            let text = format!("it has not begun to speak TLS within {:?}", terms.limit);
            io::Error::new(io::ErrorKind::TimedOut, text)
        };
        Ok(Stream::Secure(Box::new(agreed.map_err(late)??.into())))
    }
}

impl Terms {
    fn new(options: &ServerOptions) -> Result<Self, TlsFault> {
        let ServerOptions { certificate, key, limit, .. } = options;
        let mut papers = Papers::default();
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsFault::unusable(&error))?;
        let config = builder
            .with_client_cert_verifier(verifier(options, &mut papers, provider)?)
            .with_single_cert(papers.certificates(certificate)?, papers.private_key(key)?)
            .map_err(|error| TlsFault::Mismatch(certificate.clone(), key.clone(), error))?;
        Ok(Self { config: Arc::new(config), limit: *limit, papers })
    }
}

fn verifier(
    options: &ServerOptions,
    papers: &mut Papers,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
    if options.auth_clients == AuthClients::No {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let (file, folder) = (options.ca_file.as_deref(), options.ca_folder.as_deref());
    // The CAs of the system sign for servers all over the world, not for our clients.
    let roots = Arc::new(papers.roots(file, folder, Vec::new)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
    let verifier = match options.auth_clients {
        AuthClients::Optional => verifier.allow_unauthenticated(),
        AuthClients::Yes | AuthClients::No => verifier,
    };
    verifier.build().map_err(|error| TlsFault::unusable(&error))
}
