//! What is between us and the other end of a connection that was to be secure, a node or a client.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};
use thiserror::Error as ThisError;

/// What is between us and a node, or a client.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum TlsTrouble {
    /// It answers something that is not TLS.
    #[error("it does not speak TLS")]
    Plain,
    /// It does not answer.
    #[error("it does not answer as one who speaks TLS")]
    Silent,
    /// We do not trust who signed its certificate.
    #[error("its certificate is signed by nobody who is trusted here")]
    Stranger,
    /// Its certificate is somebody else's.
    #[error("its certificate is not for {asked}, but for {names}")]
    Name {
        /// Who was meant.
        asked: String,
        /// Who it is for.
        names: String,
    },
    /// Its certificate is out of date.
    #[error("its certificate has expired, or is not valid yet")]
    Date,
    /// It wants to know who we are.
    #[error("it wants a client certificate")]
    Anonymous,
    /// It does not like who we are.
    #[error("it does not accept our certificate ({0})")]
    Refused(String),
    /// It does not say who it is, and has to.
    #[error("it shows no certificate, and has to")]
    Unnamed,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Whether the other end has hung up, as one that speaks TLS does on those who do not.
pub fn is_hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
    )
}

impl TlsTrouble {
    /// What an error of a connection means, if it is one of TLS.
    pub fn of(error: &io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        Some(match error {
            Error::InvalidMessage(_) => Self::Plain,
            Error::NoCertificatesPresented => Self::Unnamed,
            Error::InvalidCertificate(fault) => Self::of_certificate(fault),
            Error::AlertReceived(AlertDescription::CertificateRequired) => Self::Anonymous,
            Error::AlertReceived(
                alert @ (AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::DecryptError),
            ) => Self::Refused(format!("{alert:?}")),
            _ => Self::Other(error.to_string()),
        })
    }

    fn of_certificate(fault: &CertificateError) -> Self {
        match fault {
            CertificateError::UnknownIssuer => Self::Stranger,
            CertificateError::NotValidForNameContext { expected, presented } => Self::Name {
                asked: expected.to_str().into_owned(),
                names: if presented.is_empty() {
                    "no host".to_owned()
                } else {
                    presented.join(", ")
                },
            },
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Date,
            fault => Self::Other(format!("its certificate is of no use: {fault}")),
        }
    }
}
