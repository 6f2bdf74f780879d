//! TLS of all ports together, and what else is proved: the secret of brokers, tokens of clients.

use std::sync::Arc;

use super::{
    error::TlsError,
    peers::Peers,
    secret::ClusterSecret,
    served::{Port, Served, Wanted},
};
use crate::{config::Config, tokens::Tokens};

/// TLS of all ports that have it.
#[derive(Debug, Default)]
pub(crate) struct Tls {
    pub(crate) native: Option<Served>,
    pub(crate) kafka: Option<Served>,
    pub(crate) metrics: Option<Served>,
    pub(crate) http: Option<Served>,
    pub(crate) peers: Option<Peers>,
    /// What brokers prove to each other that they know, if it is wanted.
    pub(crate) secret: Option<ClusterSecret>,
    /// What tokens are checked by, if clients may come in by one.
    pub(crate) tokens: Option<Arc<Tokens>>,
}

impl Tls {
    /// Reads all that the configuration names.
    pub(crate) fn read(config: &Config) -> Result<Tls, TlsError> {
        let other = |(key, reason): (&str, String)| TlsError::Other {
            key: key.to_owned(),
            reason,
        };
        let serve = |port| Wanted::of(config, port).map(Served::read).transpose();
        Ok(Tls {
            native: serve(Port::Native)?,
            kafka: serve(Port::Kafka)?,
            metrics: serve(Port::Metrics)?,
            http: serve(Port::Http)?,
            peers: Peers::read(config)?,
            secret: ClusterSecret::read(config).map_err(other)?,
            tokens: Tokens::read(config).map_err(other)?,
        })
    }

    /// Reads again what has changed, or all. What cannot be read is said, and leaves what was there in force.
    pub(crate) fn read_again(&self, all: bool) {
        for served in self.of_clients() {
            served.read_again(all);
        }
        if let Some(peers) = &self.peers {
            peers.read_again(all);
        }
    }

    /// When the first certificate of each port ends, in seconds since 1970.
    pub(crate) fn expiries(&self) -> Vec<(&'static str, i64)> {
        let mut expiries: Vec<_> = self
            .of_clients()
            .map(|served| (served.port().section(), served.expiry()))
            .collect();
        expiries.extend(self.peers.as_ref().map(|peers| (Port::Peers.section(), peers.expiry())));
        expiries
    }

    pub(super) fn is_any(&self) -> bool {
        self.of_clients().next().is_some() || self.peers.is_some()
    }

    /// Those of all ports but that of the other members.
    fn of_clients(&self) -> impl Iterator<Item = &Served> {
        let served = [&self.native, &self.kafka, &self.metrics, &self.http];
        served.into_iter().flatten()
    }
}
