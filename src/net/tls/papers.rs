//! Certificates and keys as they are read from files in PEM form, and what was in which file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, RootCertStore};
use thiserror::Error as ThisError;

/// Why TLS cannot be spoken at all.
#[derive(Debug, ThisError)]
pub enum TlsFault {
    /// A file cannot be read.
    #[error("{}: {}", .0.display(), .1)]
    Unreadable(PathBuf, io::Error),
    /// It has something else in it.
    #[error("{}: there is no {} in PEM form in it", .0.display(), .1)]
    Empty(PathBuf, &'static str),
    /// A key that is of use only with a passphrase.
    #[error("{}: the key is encrypted; one without a passphrase is needed", .0.display())]
    Encrypted(PathBuf),
    /// A key of another certificate, or of a kind that is not known.
    #[error("{} is not the key of the certificate in {}: {}", .1.display(), .0.display(), .2)]
    Mismatch(PathBuf, PathBuf, Error),
    /// No CA at all.
    #[error("this machine has no certificates of CAs; name a file of them")]
    NoRoots,
    /// Neither a host name nor an IP address.
    #[error("{0:?} is no name of a host")]
    Name(String),
    /// Suites that are not known.
    #[error("{given:?} is not a cipher suite that is known here; those are {}", .known.join(":"))]
    Suite {
        /// What was given.
        given: String,
        /// What could be given.
        known: Vec<&'static str>,
    },
    /// What was read makes no sense.
    #[error("{0}")]
    Unusable(String),
}

impl TlsFault {
    pub(super) fn unusable(error: &impl ToString) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// The files that were read, each with the digest of what was in it, to see which have changed since.
#[derive(Debug, Default)]
pub struct Papers(BTreeMap<PathBuf, Vec<u8>>);

impl Papers {
    /// Whether the file, or one of the folder, was another one then.
    pub fn differ(&self, then: &Self, path: &Path) -> bool {
        let of = |papers: &Self| {
            let below = papers.0.iter().filter(|(file, _)| file.starts_with(path));
            below.map(|(file, digest)| (file.clone(), digest.clone())).collect::<Vec<_>>()
        };
        of(self) != of(then)
    }

    fn read(&mut self, path: &Path) -> Result<Vec<u8>, TlsFault> {
        let text = std::fs::read(path);
        let text = text.map_err(|error| TlsFault::Unreadable(path.to_owned(), error))?;
        self.0.insert(path.to_owned(), digest(&SHA256, &text).as_ref().to_owned());
        Ok(text)
    }

    pub(super) fn certificates(
        &mut self,
        path: &Path,
    ) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
        let text = self.read(path)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let found = found.unwrap_or_default();
        if found.is_empty() {
            return Err(TlsFault::Empty(path.to_owned(), "certificate"));
        }
        Ok(found)
    }

    pub(super) fn private_key(&mut self, path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
        let text = self.read(path)?;
        if memchr::memmem::find(&text, b"ENCRYPTED").is_some() {
            return Err(TlsFault::Encrypted(path.to_owned()));
        }
        PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsFault::Empty(path.to_owned(), "key"))
    }

    /// Whoever may have signed a certificate; `system` are those of the machine, for when no file says it.
    pub(super) fn roots(
        &mut self,
        file: Option<&Path>,
        folder: Option<&Path>,
        system: impl FnOnce() -> Vec<CertificateDer<'static>>,
    ) -> Result<RootCertStore, TlsFault> {
        let mut roots = RootCertStore::empty();
        let mut found = Vec::new();
        if let Some(file) = file {
            found.extend(self.certificates(file)?);
        }
        if let Some(folder) = folder {
            found.extend(self.certificates_in(folder)?);
        }
        if file.is_none() && folder.is_none() {
            found = system();
        }
        // Among those of the system may be some that are too old to be understood.
        roots.add_parsable_certificates(found);
        if roots.is_empty() { Err(TlsFault::NoRoots) } else { Ok(roots) }
    }

    /// Of all files in a folder that have some.
    fn certificates_in(&mut self, folder: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
        let unreadable = |error| TlsFault::Unreadable(folder.to_owned(), error);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.is_file() {
                found.extend(self.certificates(&path).unwrap_or_default());
            }
        }
        if found.is_empty() {
            return Err(TlsFault::Empty(folder.to_owned(), "certificate"));
        }
        Ok(found)
    }
}
