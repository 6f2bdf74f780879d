//! TLS of a client: whom it trusts, what it shows, and what a failure means.
//!
//! The provider of cryptography is named for each configuration: what another crate makes the default of the process has no effect.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use crate::error::Error;

/// What a program says about TLS.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsSettings {
    /// As said; otherwise whether any of the others is set.
    pub(crate) is_on: Option<bool>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
}

/// What connections are made with.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    /// Instead of the host that is connected to.
    pub(crate) server_name: Option<ServerName<'static>>,
}

impl TlsSettings {
    /// Reads what is named; none if TLS is off.
    pub(crate) fn read(&self) -> Result<Option<Tls>, Error> {
        let is_any =
            self.ca.is_some() || self.certificate.is_some() || self.key.is_some() || self.server_name.is_some();
        if !self.is_on.unwrap_or(is_any) {
            return Ok(None);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]);
        let builder = builder.map_err(|error| Error::config("tls", error.to_string()))?;
        let builder = builder.with_root_certificates(self.roots()?);
        let config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let chain = certificates("tls_certificate", certificate)?;
                let private = PrivateKeyDer::from_pem_file(key);
                let private = private.map_err(|error| unreadable("tls_key", key, "a private key", &error))?;
                let config = builder.with_client_auth_cert(chain, private);
                config
                    .map_err(|error| Error::config("tls_key", format!("it does not serve the certificate: {error}")))?
            }
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(Error::config("tls_key", "set it with tls_certificate")),
            (None, Some(_)) => return Err(Error::config("tls_certificate", "set it with tls_key")),
        };
        let name = |name: &String| {
            let read = ServerName::try_from(name.clone());
            read.map_err(|error| Error::config("tls_server_name", error.to_string()))
        };
        Ok(Some(Tls {
            config: Arc::new(config),
            server_name: self.server_name.as_ref().map(name).transpose()?,
        }))
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca {
            for certificate in certificates("tls_ca", path)? {
                let added = roots.add(certificate);
                added.map_err(|error| unreadable("tls_ca", path, "certificates of CAs", &error))?;
            }
            return Ok(roots);
        }
        let found = rustls_native_certs::load_native_certs();
        let (added, _ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let reason =
                "this system has no certificates of CAs; name the file of the one that the broker's certificate is of";
            return Err(Error::config("tls_ca", reason));
        }
        Ok(roots)
    }
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<_> = read.map_err(|error| unreadable(setting, path, "certificates", &error))?;
    if read.is_empty() {
        return Err(unreadable(setting, path, "certificates", &"there is none in it"));
    }
    Ok(read)
}

fn unreadable(setting: &'static str, path: &Path, what: &str, error: &dyn std::fmt::Display) -> Error {
    let reason = format!(
        "cannot read {what} from {}: {error}; it must be a PEM file",
        path.display()
    );
    Error::config(setting, reason)
}

/// Why TLS could not be agreed on, in words, if an error of a connection says so.
pub(crate) fn in_words(error: &io::Error) -> Option<io::Error> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(io::Error::new(io::ErrorKind::InvalidData, words(inner)))
}

fn words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => {
            format!("the broker's certificate is refused: {}", of_certificate(error))
        }
        rustls::Error::InvalidMessage(_) => {
            "what it sends is no TLS: does the broker have TLS on this port (broker.tls_certificate)?".to_owned()
        }
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => {
                "the broker wants a certificate of this client: set tls_certificate and tls_key".to_owned()
            }
            AlertDescription::UnknownCA => {
                "the broker does not trust the CA of this client's certificate (broker.tls_client_ca)".to_owned()
            }
            AlertDescription::CertificateExpired => "this client's certificate has expired".to_owned(),
            AlertDescription::ProtocolVersion => {
                "the broker has no version of TLS in common with this client".to_owned()
            }
            other => format!("the broker has ended the handshake: {other:?}"),
        },
        other => format!("TLS could not be agreed on: {other}"),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: compare the clocks".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "it is of a CA that this client does not trust: name the CA's file with tls_ca".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(String::as_str).collect();
            let names = match names.as_slice() {
                [] => "no host: it has no subjectAltName".to_owned(),
                names => names.join(", "),
            };
            let expected = expected.to_str();
            format!("it is not for {expected}, but for {names}; connect to one of these names, or set tls_server_name")
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
