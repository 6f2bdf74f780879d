//! TLS between brokers: each shows its certificate to the other, whoever calls.
//!
//! Followers connect to the port of clients. They say by ALPN that they are brokers, and are then met with the certificate and the trust
//! of the cluster, whatever clients are shown there: so a broker is told from a client before either has said a word.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    pki_types::ServerName,
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};

use super::{
    error::TlsError,
    files::{Watched, trusted},
    provider::provider,
    served::{Port, Wanted},
};
use crate::config::Config;

/// What brokers say by ALPN.
pub(crate) const PEER_ALPN: &[u8] = b"headwater-peer";

#[derive(Debug)]
struct Current {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    expiry: i64,
    watched: Watched,
}

/// The certificate of this broker, and the CA of the others.
#[derive(Debug)]
pub(crate) struct Peers {
    wanted: Wanted,
    current: Mutex<Current>,
}

impl Peers {
    /// None if brokers speak plainly with each other.
    pub(crate) fn read(config: &Config) -> Result<Option<Peers>, TlsError> {
        let Some(wanted) = Wanted::of(config, Port::Peers) else {
            return Ok(None);
        };
        let current = Mutex::new(Peers::look(&wanted)?);
        Ok(Some(Peers { wanted, current }))
    }

    fn look(wanted: &Wanted) -> Result<Current, TlsError> {
        let watched = wanted.watched();
        let (mut server, looks) = wanted.server()?;
        server.alpn_protocols = vec![PEER_ALPN.to_vec()];
        // Nothing comes unasked on a connection that waits to be used again, and every connection shows its certificate.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let other = |reason| TlsError::Other {
            key: wanted.ca_key(),
            reason,
        };
        let roots = trusted(&wanted.ca_key(), wanted.client_ca.iter())?;
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12]);
        let builder = builder.map_err(|error| other(error.to_string()))?;
        let certified = wanted.certified()?.into_iter().next();
        let (certified, _) = certified.ok_or_else(|| other("no certificate is named".to_owned()))?;
        let resolver = Arc::new(SingleCertAndKey::from(certified.as_ref().clone()));
        let mut client = builder
            .with_root_certificates(roots)
            .with_client_cert_resolver(resolver);
        client.alpn_protocols = vec![PEER_ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Current {
            server: Arc::new(server),
            client: Arc::new(client),
            expiry: looks.iter().map(|look| look.not_after).min().unwrap_or(0),
            watched,
        })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For whoever is called.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current().server)
    }

    /// For whoever calls this host.
    pub(crate) fn client(&self, host: &str) -> io::Result<(Arc<ClientConfig>, ServerName<'static>)> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok((Arc::clone(&self.current().client), name))
    }

    pub(crate) fn expiry(&self) -> i64 {
        self.current().expiry
    }

    pub(super) fn read_again(&self, anyhow: bool) {
        if !anyhow && !self.current().watched.have_changed() {
            return;
        }
        match Peers::look(&self.wanted) {
            Ok(read) => {
                *self.current() = read;
                tracing::info!("the certificate for other brokers was read again");
            }
            Err(error) => {
                self.current().watched = self.wanted.watched();
                tracing::warn!(%error, "the changed certificate for other brokers cannot be used; the one from before stays in force");
            }
        }
    }
}
