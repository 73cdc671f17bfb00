//! TLS to nodes: whose certificates are trusted, and what certificate is shown.
//!
//! A certificate has to be signed by a CA that is trusted, and to be for the host that was dialled, or for the name that is
//! given instead. Nodes find each other by IP address, which their certificates often do not name, and check no names
//! themselves; so the second half can be waived ([`Check::Signature`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite as suite;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    SupportedCipherSuite,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::papers::{Papers, TlsFault};
use crate::net::Stream;

/// What is trusted, and what is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The name that certificates have to be for, and that nodes are told; else the host that is dialled.
    pub name: Option<String>,
    /// File with certificates of CAs. Without this and a folder, those of the system are trusted.
    pub ca_file: Option<PathBuf>,
    /// Folder of such files.
    pub ca_folder: Option<PathBuf>,
    /// Our certificate, with those between it and the CA, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// What is looked at in a node's certificate.
    pub check: Check,
    /// Names of the suites for TLS 1.2, as OpenSSL writes them, with colons between them.
    pub ciphers: Option<String>,
    /// The same for TLS 1.3.
    pub suites: Option<String>,
}

/// What is looked at in a node's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// Who signed it, and for whom.
    #[default]
    Name,
    /// Who signed it.
    Signature,
    /// Nothing.
    Nothing,
}

/// TLS as it is spoken with every node. Copies have the same terms, also when these are renewed.
#[derive(Clone, Debug)]
pub struct Tls {
    terms: Arc<ArcSwap<Terms>>,
    /// Who is dialled, if that is done by another name or address.
    host: Option<Arc<str>>,
}

/// What came of the options.
#[derive(Debug)]
struct Terms {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
    papers: Papers,
}

impl Tls {
    /// Reads the files that the options name.
    pub fn new(options: &TlsOptions) -> Result<Self, TlsFault> {
        let terms = Arc::new(ArcSwap::from_pointee(Terms::new(options)?));
        Ok(Self { terms, host: None })
    }

    /// New connections are made on the terms of another one from here on, by all copies of this one.
    pub fn renew(&self, other: &Self) {
        self.terms.store(other.terms.load_full());
    }

    /// Whether another one has read something else in this file, or in one of this folder.
    pub fn is_other(&self, other: &Self, path: &Path) -> bool {
        self.terms.load().papers.differ(&other.terms.load().papers, path)
    }

    pub(in crate::net) fn to_host(&self, name: &str) -> Self {
        Self { host: Some(name.into()), ..self.clone() }
    }

    pub(in crate::net) async fn secure(
        &self,
        stream: TcpStream,
        dialled: &str,
    ) -> io::Result<Stream> {
        let terms = self.terms.load_full();
        let host = self.host.as_deref().unwrap_or(dialled);
        let name = match &terms.name {
            Some(name) => name.clone(),
            None => server_name(host).map_err(io::Error::other)?,
        };
        let connector = TlsConnector::from(Arc::clone(&terms.config));
        let stream = connector.connect(name, stream).await?;
        Ok(Stream::Secure(Box::new(stream.into())))
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.terms, &other.terms) && self.host == other.host
    }
}

impl Eq for Tls {}

impl Terms {
    fn new(options: &TlsOptions) -> Result<Self, TlsFault> {
        let mut papers = Papers::default();
        let provider = Arc::new(CryptoProvider {
            cipher_suites: suites(options)?,
            ..ring::default_provider()
        });
        let verifier = verifier(options, &mut papers, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsFault::unusable(&error))?;
        // Not dangerous unless it is asked to be: the verifier is rustls' own, less what was waived.
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match &options.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(papers.certificates(certificate)?, papers.private_key(key)?)
                .map_err(|error| TlsFault::Mismatch(certificate.clone(), key.clone(), error))?,
        };
        let name = options.name.as_deref().map(server_name).transpose()?;
        Ok(Self { config: Arc::new(config), name, papers })
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, TlsFault> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsFault::Name(host.to_owned()))
}

fn verifier(
    options: &TlsOptions,
    papers: &mut Papers,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<Verifier>, TlsFault> {
    let algorithms = provider.signature_verification_algorithms;
    let chain = match options.check {
        Check::Nothing => None,
        Check::Name | Check::Signature => {
            let (file, folder) = (options.ca_file.as_deref(), options.ca_folder.as_deref());
            let system = || rustls_native_certs::load_native_certs().certs;
            let roots = Arc::new(papers.roots(file, folder, system)?);
            let chain = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
            Some(chain.build().map_err(|error| TlsFault::unusable(&error))?)
        }
    };
    Ok(Arc::new(Verifier { chain, check: options.check, algorithms }))
}

/// rustls' own verifier, less what was waived.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    check: Check,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verified =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is looked at last: who signed it is right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.check == Check::Signature => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

type Suites = [(&'static str, SupportedCipherSuite)];

/// Suites of TLS 1.3 by their names.
const NEW: &Suites = &[
    ("TLS_AES_256_GCM_SHA384", suite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", suite::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", suite::TLS13_CHACHA20_POLY1305_SHA256),
];

/// Suites of TLS 1.2 by the names that OpenSSL has for them.
const OLD: &Suites = &[
    ("ECDHE-ECDSA-AES256-GCM-SHA384", suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES128-GCM-SHA256", suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Those of either version that are wanted, in their order; all of a version of which nothing is said.
fn suites(options: &TlsOptions) -> Result<Vec<SupportedCipherSuite>, TlsFault> {
    let new = chosen(options.suites.as_deref(), NEW)?;
    let old = chosen(options.ciphers.as_deref(), OLD)?;
    Ok([new, old].concat())
}

fn chosen(list: Option<&str>, known: &Suites) -> Result<Vec<SupportedCipherSuite>, TlsFault> {
    let Some(list) = list else { return Ok(known.iter().map(|(_, suite)| *suite).collect()) };
    let find = |name: &str| {
        let suite = known.iter().find(|(known, _)| *known == name);
        suite.map(|(_, suite)| *suite).ok_or_else(|| TlsFault::Suite {
            given: name.to_owned(),
            known: known.iter().map(|(name, _)| *name).collect(),
        })
    };
    list.split(':').map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(options: &TlsOptions) -> String {
        Tls::new(options).expect_err("it cannot work").to_string()
    }

    /// Files with a certificate and its key.
    fn identity(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (certificate, key) =
            (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (certificate, key)
    }

    #[test]
    fn what_is_wrong_with_files_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let ((one, key), (_, other)) = (identity(folder.path(), "a"), identity(folder.path(), "b"));
        let trusting = TlsOptions { ca_file: Some(one.clone()), ..TlsOptions::default() };
        let with = |certificate: &Path, key: &Path| TlsOptions {
            identity: Some((certificate.to_owned(), key.to_owned())),
            ..trusting.clone()
        };
        assert!(Tls::new(&with(&one, &key)).is_ok());
        assert!(fault(&with(&one, &other)).contains("is not the key of the certificate in"));
        assert!(fault(&with(&key, &key)).ends_with("there is no certificate in PEM form in it"));
        assert!(fault(&with(&one, &one)).ends_with("there is no key in PEM form in it"));
        let missing = folder.path().join("nowhere");
        assert!(fault(&with(&one, &missing)).contains("nowhere: No such file"));
        let locked = folder.path().join("locked");
        std::fs::write(&locked, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").unwrap();
        assert!(fault(&with(&one, &locked)).contains("locked: the key is encrypted"));
        let in_folder =
            |path: &Path| TlsOptions { ca_folder: Some(path.to_owned()), ..TlsOptions::default() };
        assert!(Tls::new(&in_folder(folder.path())).is_ok());
        let empty = tempfile::tempdir().unwrap();
        assert!(fault(&in_folder(empty.path())).contains("there is no certificate"));
        let named = TlsOptions { name: Some("no name".to_owned()), ..trusting };
        assert_eq!(fault(&named), "\"no name\" is no name of a host");
    }

    #[test]
    fn suites_are_taken_by_name() {
        let check = |ciphers: Option<&str>, suites: Option<&str>, expected: Result<usize, &str>| {
            let (ciphers, suites) = (ciphers.map(str::to_owned), suites.map(str::to_owned));
            let found = super::suites(&TlsOptions { ciphers, suites, ..TlsOptions::default() });
            match (found, expected) {
                (Ok(found), Ok(count)) => assert_eq!(found.len(), count),
                (Err(fault), Err(text)) => assert!(fault.to_string().contains(text), "{fault}"),
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        };
        check(None, None, Ok(9));
        check(None, Some("TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"), Ok(8));
        check(Some("ECDHE-RSA-AES256-GCM-SHA384"), None, Ok(4));
        check(Some("HIGH:!aNULL"), None, Err("\"HIGH\" is not a cipher suite that is known here"));
        check(None, Some("TLS_AES_128_CCM_SHA256"), Err("TLS_CHACHA20_POLY1305_SHA256"));
    }
}
