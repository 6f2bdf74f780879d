//! Names as Java prints them, certificates by name, and what a change of files changes.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tempfile::TempDir;

use super::{provider::provider, *};
use crate::config::Config;

/// A CA, and the files of what it has signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn ca(&self) -> PathBuf {
        let path = self.directory.path().join("ca.pem");
        fs::write(&path, self.issuer.pem()).unwrap();
        path
    }

    fn issue(&self, name: &str, hosts: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = [".pem", ".key"].map(|end| self.directory.path().join(format!("{name}{end}")));
        let [pem, private] = files;
        fs::write(&pem, certificate.pem()).unwrap();
        fs::write(&private, key.serialize_pem()).unwrap();
        fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
        (pem, private)
    }

    fn client(&self, shows: Option<&(PathBuf, PathBuf)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        Arc::new(match shows {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap);
                let key = PrivateKeyDer::from_pem_file(key).unwrap();
                builder.with_client_auth_cert(chain.collect(), key).unwrap()
            }
        })
    }
}

fn config(settings: &[(&str, String)]) -> Config {
    let settings = settings.iter().map(|(key, value)| (*key, value.as_str()));
    Config::default().with(settings).unwrap()
}

fn shown(path: &std::path::Path) -> String {
    path.display().to_string()
}

/// Has both sides agree on TLS in memory, and say each other a byte.
fn agree(
    client: &Arc<ClientConfig>,
    served: &Served,
    name: &'static str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(name).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut broker = ServerConnection::new(served.config()).unwrap();
    while client.is_handshaking() || broker.is_handshaking() || broker.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            broker.read_tls(&mut rest).unwrap();
            broker.process_new_packets()?;
        }
        bytes.clear();
        while broker.wants_write() {
            broker.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok((client, broker))
}

/// What `java` 17 prints for `getSubjectX500Principal().getName()`, which is what Kafka uses.
#[test]
fn a_subject_is_written_as_java_writes_it() {
    for (pem, expected) in [
        (
            include_str!("tests/many-parts.pem"),
            r"2.5.4.12=#0c024472,STREET=Main St. 1,2.5.4.5=#13023432,1.2.840.113549.1.9.1=#160b6140622e6578616d706c65,CN=alice\\bob,UID=u1,DC=example,OU=\ lead and trail,OU=ops,O=Acme\, Inc. Q \<x\>\;\+\=,L=München,ST=Bayern,C=DE",
        ),
        (
            include_str!("tests/several-in-one-part.pem"),
            r"OU=\ x,O=\#sharp\ ,CN=bob+UID=7",
        ),
    ] {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        assert_eq!(Look::at(&certificate).unwrap().subject, expected);
    }
}

#[test]
fn a_client_is_shown_the_certificate_for_the_name_that_it_asks_for() {
    let authority = Authority::new();
    let first = authority.issue("first", &["first.example", "127.0.0.1"], |_| {});
    let exact = authority.issue("exact", &["a.wild.example"], |_| {});
    let wild = authority.issue("wild", &["*.wild.example"], |_| {});
    let [certificates, keys] = [
        [&first.0, &exact.0, &wild.0].map(|path| shown(path)).join(","),
        [&first.1, &exact.1, &wild.1].map(|path| shown(path)).join(","),
    ];
    let config = config(&[("broker.tls_certificate", certificates), ("broker.tls_key", keys)]);
    let tls = Tls::read(&config).unwrap();
    let served = tls.native.as_ref().unwrap();
    let client = authority.client(None);
    for (asked, expected) in [
        ("first.example", "CN=first"),
        ("127.0.0.1", "CN=first"),
        ("a.wild.example", "CN=exact"),
        ("b.wild.example", "CN=wild"),
    ] {
        let (client, _) = agree(&client, served, asked).unwrap();
        let certificate = &client.peer_certificates().unwrap()[0];
        assert_eq!(Look::at(certificate).unwrap().subject, expected, "{asked}");
    }
    let error = agree(&client, served, "b.a.wild.example").unwrap_err();
    assert!(
        matches!(error, rustls::Error::InvalidCertificate(_)),
        "a wildcard is for one part: {error}"
    );
}

#[test]
fn a_session_from_before_a_change_of_trust_is_not_resumed() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = authority.issue("broker", &["localhost"], |_| {});
    let alice = authority.issue("alice", &["alice"], |_| {});
    let ca = authority.ca();
    let config = config(&[
        ("kafka.tls_certificate", shown(&files.0)),
        ("kafka.tls_key", shown(&files.1)),
        ("kafka.tls_client_ca", shown(&ca)),
        ("kafka.tls_client_auth", "required".to_owned()),
        ("kafka.tls_principal_rules", "RULE:^CN=(.*)$/$1/U".to_owned()),
    ]);
    let tls = Tls::read(&config).unwrap();
    let served = tls.kafka.as_ref().unwrap();
    let client = authority.client(Some(&alice));
    let kind = || {
        let (_, broker) = agree(&client, served, "localhost")?;
        let certificate = &broker.peer_certificates().unwrap()[0];
        assert_eq!(served.principal(certificate).as_deref(), Some("ALICE"));
        Ok::<_, rustls::Error>(broker.handshake_kind())
    };
    assert_eq!(kind().unwrap(), Some(HandshakeKind::Full));
    assert_eq!(kind().unwrap(), Some(HandshakeKind::Resumed));
    tls.read_again(false);
    assert_eq!(kind().unwrap(), Some(HandshakeKind::Resumed), "nothing has changed");
    tls.read_again(true);
    assert_eq!(kind().unwrap(), Some(HandshakeKind::Full));
    fs::write(&ca, other.issuer.pem()).unwrap();
    tls.read_again(false);
    assert!(kind().is_err(), "she is not trusted any more");
    fs::write(&ca, "no certificate").unwrap();
    tls.read_again(false);
    assert!(kind().is_err(), "what cannot be read changes nothing");
    assert!(
        Tls::read(&config)
            .unwrap_err()
            .to_string()
            .starts_with("kafka.tls_client_ca: ")
    );
}

#[test]
fn what_is_wrong_with_the_files_is_said_in_a_sentence_each() {
    let authority = Authority::new();
    let good = authority.issue("good", &["a"], |_| {});
    let ca = authority.issue("ca", &["a"], |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let hostless = authority.issue("hostless", &[], |_| {});
    let mixed = (good.0.clone(), hostless.1.clone());
    let missing = (good.0.clone(), good.1.with_extension("missing"));
    let swapped = (good.1.clone(), good.0.clone());
    assert_eq!(look(&good.0, &good.1), [] as [String; 0]);
    for ((certificate, key), expected) in [
        (ca, "CA:TRUE"),
        (hostless, "names no host (subjectAltName)"),
        (mixed, "does not serve the certificate"),
        (missing, "see that it is there"),
        (swapped, "there is none in it"),
    ] {
        let wrong = look(&certificate, &key);
        assert!(wrong.len() == 1 && wrong[0].contains(expected), "{expected}: {wrong:?}");
    }
}

proptest::proptest! {
    #[test]
    fn whatever_a_peer_shows_is_read_or_refused(at in 0..2000_usize, byte: u8, cut in 0..2000_usize) {
        let pem = include_str!("tests/many-parts.pem");
        let mut bytes = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(length - (cut % length) / 4);
        // Neither may end the core.
        let _ = Look::at(&CertificateDer::from(bytes));
    }
}
