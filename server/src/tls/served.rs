//! TLS of one port: its certificates, whom it trusts, what it calls its clients.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ServerConfig,
    pki_types::CertificateDer,
    server::{ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{
    certificate::Look,
    error::TlsError,
    files::{Watched, certified, trusted},
    provider::provider,
    resolver::ByName,
};
use crate::config::{ClientAuth, Config, Files, PrincipalRules};

/// A port that may have TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Native,
    Kafka,
    Metrics,
    Http,
    Peers,
}

impl Port {
    /// The section of the configuration that it is set in.
    pub(crate) const fn section(self) -> &'static str {
        match self {
            Port::Native => "broker",
            Port::Kafka => "kafka",
            Port::Metrics => "metrics",
            Port::Http => "http",
            Port::Peers => "cluster",
        }
    }

    fn key(self, name: &str) -> String {
        format!("{}.{name}", self.section())
    }
}

/// What the configuration says of a port.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(super) port: Port,
    pub(super) certificates: Files,
    pub(super) keys: Files,
    pub(super) client_ca: Files,
    pub(super) client_auth: ClientAuth,
    pub(super) rules: PrincipalRules,
}

impl Wanted {
    /// None if the port has no TLS.
    pub(crate) fn of(config: &Config, port: Port) -> Option<Wanted> {
        let Config {
            broker,
            kafka,
            cluster,
            metrics,
            http,
            ..
        } = config;
        let rules = PrincipalRules::default;
        let auth_of = |cas: &Files| {
            if cas.is_empty() {
                ClientAuth::None
            } else {
                ClientAuth::Required
            }
        };
        let (certificates, keys, client_ca, client_auth, rules) = match port {
            Port::Native => (
                &broker.tls_certificate,
                &broker.tls_key,
                &broker.tls_client_ca,
                broker.tls_client_auth,
                broker.tls_principal_rules.clone(),
            ),
            Port::Kafka => (
                &kafka.tls_certificate,
                &kafka.tls_key,
                &kafka.tls_client_ca,
                kafka.tls_client_auth,
                kafka.tls_principal_rules.clone(),
            ),
            Port::Metrics => (
                &metrics.tls_certificate,
                &metrics.tls_key,
                &metrics.tls_client_ca,
                auth_of(&metrics.tls_client_ca),
                rules(),
            ),
            Port::Http => (
                &http.tls_certificate,
                &http.tls_key,
                &http.tls_client_ca,
                auth_of(&http.tls_client_ca),
                rules(),
            ),
            Port::Peers => (
                &cluster.tls_certificate,
                &cluster.tls_key,
                &cluster.tls_ca,
                ClientAuth::Required,
                rules(),
            ),
        };
        (!certificates.is_empty()).then(|| Wanted {
            port,
            certificates: certificates.clone(),
            keys: keys.clone(),
            client_ca: client_ca.clone(),
            client_auth,
            rules,
        })
    }

    /// Whether who connects must show a certificate.
    pub(crate) fn asks(&self) -> bool {
        self.client_auth == ClientAuth::Required
    }

    /// The files of each certificate and its key.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (PathBuf, PathBuf)> {
        let pairs = self.certificates.iter().zip(self.keys.iter());
        pairs.map(|(certificate, key)| (certificate.to_owned(), key.to_owned()))
    }

    /// The name of a setting of the port.
    pub(crate) fn key(&self, name: &str) -> String {
        self.port.key(name)
    }

    pub(super) fn ca_key(&self) -> String {
        match self.port {
            Port::Peers => self.key("tls_ca"),
            _ => self.key("tls_client_ca"),
        }
    }

    pub(super) fn watched(&self) -> Watched {
        let files = self.certificates.iter().chain(self.keys.iter());
        Watched::of(files.chain(self.client_ca.iter()))
    }

    /// The certificates with their keys.
    pub(super) fn certified(&self) -> Result<Vec<(Arc<rustls::sign::CertifiedKey>, Look)>, TlsError> {
        let (certificate_key, key) = (self.key("tls_certificate"), self.key("tls_key"));
        let pairs = self.certificates.iter().zip(self.keys.iter());
        pairs
            .map(|(certificate, path)| certified((&certificate_key, certificate), (&key, path)))
            .collect()
    }

    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        if self.client_auth == ClientAuth::None {
            return Ok(WebPkiClientVerifier::no_client_auth());
        }
        let roots = trusted(&self.ca_key(), self.client_ca.iter())?;
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        if self.client_auth == ClientAuth::Requested {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|error| TlsError::Other {
            key: self.ca_key(),
            reason: error.to_string(),
        })
    }

    /// What rustls needs, with sessions of its own.
    pub(super) fn server(&self) -> Result<(ServerConfig, Vec<Look>), TlsError> {
        let certified = self.certified()?;
        let other = |reason| TlsError::Other {
            key: self.key("tls_certificate"),
            reason,
        };
        let by_name = ByName::new(&certified).ok_or_else(|| other("no certificate is named".to_owned()))?;
        let by_name: Arc<dyn ResolvesServerCert> = Arc::new(by_name);
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12]);
        let builder = builder.map_err(|error| other(error.to_string()))?;
        let builder = builder.with_client_cert_verifier(self.verifier()?);
        let looks = certified.into_iter().map(|(_, look)| look).collect();
        Ok((builder.with_cert_resolver(by_name), looks))
    }
}

/// What is in force.
#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    expiry: i64,
    watched: Watched,
}

/// TLS of a port, as its files were when they were read last.
#[derive(Debug)]
pub(crate) struct Served {
    wanted: Wanted,
    /// Locked for as long as it takes to look, and that only by handshakes.
    current: Mutex<Current>,
}

impl Served {
    /// Reads its files.
    pub(crate) fn read(wanted: Wanted) -> Result<Served, TlsError> {
        let current = Mutex::new(Served::look(&wanted)?);
        Ok(Served { wanted, current })
    }

    fn look(wanted: &Wanted) -> Result<Current, TlsError> {
        let watched = wanted.watched();
        let (mut config, looks) = wanted.server()?;
        if matches!(wanted.port, Port::Metrics | Port::Http) {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Ok(Current {
            config: Arc::new(config),
            expiry: looks.iter().map(|look| look.not_after).min().unwrap_or(0),
            watched,
        })
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        // Whoever panicked has left it whole: it is only ever replaced.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn port(&self) -> Port {
        self.wanted.port
    }

    /// For the next handshake.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current().config)
    }

    /// When the first of its certificates ends, in seconds since 1970.
    pub(crate) fn expiry(&self) -> i64 {
        self.current().expiry
    }

    /// What a client with this certificate is called; none if no rule fits.
    pub(crate) fn principal(&self, certificate: &CertificateDer<'_>) -> Option<String> {
        let look = Look::at(certificate).ok()?;
        self.wanted.rules.apply(&look.subject)
    }

    /// Reads the files again if they have changed, or anyhow, for handshakes from now on.
    pub(super) fn read_again(&self, anyhow: bool) {
        if !anyhow && !self.current().watched.have_changed() {
            return;
        }
        let port = self.wanted.port.section();
        match Served::look(&self.wanted) {
            Ok(read) => {
                *self.current() = read;
                tracing::info!(port, "the certificates of a port were read again");
            }
            Err(error) => {
                // It is said once for each change.
                self.current().watched = self.wanted.watched();
                tracing::warn!(port, %error, "changed certificates cannot be used; those from before stay in force");
            }
        }
    }
}
