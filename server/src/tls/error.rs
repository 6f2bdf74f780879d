//! Why TLS cannot be had: from files at the start, and of a peer in words.

use std::{io, path::PathBuf};

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// The files of a port cannot be used. Each says which file, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// One cannot be read.
    #[error("{key}: cannot read {}: {source}; see that it is there, and that the user of the broker may read it", path.display())]
    Read {
        /// The setting that names it.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{key}: {} is no PEM file with {what}: {reason}", path.display())]
    Content {
        /// The setting that names it.
        key: String,
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The key is another certificate's, or of a kind that is not known.
    #[error("{key}: the key in {} does not serve the certificate in {}: {reason}", path.display(), certificate.display())]
    Key {
        /// The setting that names the key.
        key: String,
        /// The key's file.
        path: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
        /// Why not.
        reason: String,
    },
    /// They cannot be put together.
    #[error("{key}: {reason}")]
    Other {
        /// A setting of the port.
        key: String,
        /// Why not.
        reason: String,
    },
}

/// What went wrong between two peers, as a sentence about the one at the other end, with what to do where that is known.
pub(crate) fn in_words(error: &Error) -> String {
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "what it sends is no TLS".to_owned(),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        ) => "it speaks only versions before TLS 1.2, which are not safe any more".to_owned(),
        Error::NoCertificatesPresented => {
            "it shows no certificate, and this port wants one: give it a certificate of a CA that is trusted here"
                .to_owned()
        }
        Error::InvalidCertificate(error) => format!("its certificate is refused: {}", of_certificate(error)),
        Error::AlertReceived(alert) => of_alert(*alert).map_or_else(
            || format!("it has ended the handshake: {alert:?}"),
            |reason| format!("it refuses this side: {reason}"),
        ),
        other => other.to_string(),
    }
}

/// The same of an error of a connection, if that is what it is.
pub(crate) fn io_in_words(error: io::Error) -> io::Error {
    let words = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
        .map(in_words);
    words.map_or(error, |words| io::Error::new(io::ErrorKind::InvalidData, words))
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: compare the clocks".to_owned()
        }
        CertificateError::UnknownIssuer => "it is of a CA that is not trusted here".to_owned(),
        CertificateError::BadSignature => "its signature is not that of the CA that it names".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for this purpose (extendedKeyUsage: clientAuth for who connects, serverAuth for who is connected to)"
                .to_owned()
        }
        other => {
            let text = other.to_string();
            if text.contains("CaUsedAsEndEntity") {
                "it is that of a CA (CA:TRUE), as `openssl req -x509` makes them: make a CA, and with it a certificate that is none"
                    .to_owned()
            } else {
                text
            }
        }
    }
}

fn of_alert(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::UnknownCA => "it does not trust the CA of the certificate that it was shown",
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            "it does not take the certificate that it was shown: does it name the host, and does it trust the CA?"
        }
        AlertDescription::CertificateExpired => "the certificate that it was shown has expired",
        AlertDescription::CertificateRequired => "it wants a certificate, and was shown none",
        AlertDescription::ProtocolVersion => "it has no version of TLS in common with this side",
        AlertDescription::HandshakeFailure => "it has no cipher in common with this side",
        AlertDescription::AccessDenied => "it does not take this certificate",
        _ => return None,
    })
}
