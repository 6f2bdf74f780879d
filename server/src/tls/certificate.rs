//! What is read of a certificate besides what rustls does with it.

use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, X509Extension},
    prelude::{FromDer as _, ParsedExtension},
};

use super::subject;

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    /// As Kafka knows it.
    pub(crate) subject: String,
    /// In seconds since 1970.
    pub(crate) not_after: i64,
    /// It is a CA's.
    pub(crate) is_ca: bool,
    /// The names and addresses that it is for (subjectAltName), names in lower case.
    pub(crate) names: Vec<String>,
}

impl Look {
    /// Looks at one; what is wrong with it if it cannot be read.
    pub(crate) fn at(certificate: &CertificateDer<'_>) -> Result<Look, String> {
        let (_, read) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        let extensions = read.extensions().iter().map(X509Extension::parsed_extension);
        let mut look = Look {
            subject: subject::rfc_2253(read.subject()),
            not_after: read.validity().not_after.timestamp(),
            is_ca: read.is_ca(),
            names: Vec::new(),
        };
        for extension in extensions {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                look.names.extend(names.general_names.iter().filter_map(name));
            }
        }
        Ok(look)
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let short = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let address = short.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}
