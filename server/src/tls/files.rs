//! Reads certificates, keys and CAs from PEM files.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use super::{certificate::Look, error::TlsError, provider::provider};

/// A file is not read beyond this, in bytes: whole bundles of CAs are smaller.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Whether a file is the one that it was: when it was changed, its size, its number.
pub(super) type Stamp = Option<(i64, i64, u64, u64)>;

pub(super) fn stamp(path: &Path) -> Stamp {
    let look = fs::metadata(path).ok()?;
    Some((look.mtime(), look.mtime_nsec(), look.size(), look.ino()))
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let fail = |source| TlsError::Read {
        key: key.to_owned(),
        path: path.to_owned(),
        source,
    };
    let size = fs::metadata(path).map_err(fail)?.len();
    if size > FILE_BYTES_MAX {
        return Err(fail(std::io::ErrorKind::FileTooLarge.into()));
    }
    fs::read(path).map_err(fail)
}

/// The certificates of a file, in their order; there is one at least.
fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(key, path)?;
    let content = |reason| TlsError::Content {
        key: key.to_owned(),
        path: path.to_owned(),
        what: "certificates",
        reason,
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| content(error.to_string()))?;
    if certificates.is_empty() {
        return Err(content("there is none in it".to_owned()));
    }
    Ok(certificates)
}

/// A certificate with its chain and its key, and what it says of itself.
pub(super) fn certified(
    (certificate_key, certificate): (&str, &Path),
    (key, path): (&str, &Path),
) -> Result<(Arc<CertifiedKey>, Look), TlsError> {
    let chain = certificates(certificate_key, certificate)?;
    let look = Look::at(&chain[0]).map_err(|reason| TlsError::Content {
        key: certificate_key.to_owned(),
        path: certificate.to_owned(),
        what: "a certificate",
        reason,
    })?;
    let pem = read(key, path)?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| TlsError::Content {
        key: key.to_owned(),
        path: path.to_owned(),
        what: "a private key",
        reason: error.to_string(),
    })?;
    let certified = CertifiedKey::from_der(chain, private, &provider()).map_err(|error| TlsError::Key {
        key: key.to_owned(),
        path: path.to_owned(),
        certificate: certificate.to_owned(),
        reason: error.to_string(),
    })?;
    Ok((Arc::new(certified), look))
}

/// The CAs of these files.
pub(super) fn trusted<'a>(key: &str, files: impl Iterator<Item = &'a Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for path in files {
        for certificate in certificates(key, path)? {
            roots.add(certificate).map_err(|error| TlsError::Content {
                key: key.to_owned(),
                path: path.to_owned(),
                what: "certificates of CAs",
                reason: error.to_string(),
            })?;
        }
    }
    Ok(roots)
}

/// What is wrong with a certificate and its key, as one sentence each: for the checks of the machine.
pub(crate) fn look(certificate: &Path, key: &Path) -> Vec<String> {
    let shown = certificate.display();
    let mut wrong = Vec::new();
    let look = match certified(("the certificate", certificate), ("the key", key)) {
        Ok((_, look)) => look,
        Err(error) => {
            wrong.push(error.to_string());
            return wrong;
        }
    };
    if look.is_ca {
        wrong.push(format!(
            "the certificate in {shown} is that of a CA (CA:TRUE), and clients refuse it: make a CA, and with it a certificate that is none"
        ));
    }
    if look.names.is_empty() {
        wrong.push(format!(
            "the certificate in {shown} names no host (subjectAltName), and clients refuse it: make one that names the hosts and addresses that clients connect to"
        ));
    }
    wrong
}

/// Files that belong together.
#[derive(Debug, Clone, Default)]
pub(super) struct Watched(Vec<(PathBuf, Stamp)>);

impl Watched {
    /// As they are now. Call it before they are read, so that no change is missed.
    pub(super) fn of<'a>(files: impl Iterator<Item = &'a Path>) -> Watched {
        Watched(files.map(|path| (path.to_owned(), stamp(path))).collect())
    }

    pub(super) fn have_changed(&self) -> bool {
        self.0.iter().any(|(path, known)| stamp(path) != *known)
    }
}
