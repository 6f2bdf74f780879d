//! TLS of all ports together.

use super::{
    error::TlsError,
    peers::Peers,
    served::{Port, Served, Wanted},
};
use crate::config::Config;

/// TLS of all ports that have it.
#[derive(Debug, Default)]
pub(crate) struct Tls {
    pub(crate) native: Option<Served>,
    pub(crate) kafka: Option<Served>,
    pub(crate) http: Option<Served>,
    pub(crate) peers: Option<Peers>,
}

impl Tls {
    /// Reads all that the configuration names.
    pub(crate) fn read(config: &Config) -> Result<Tls, TlsError> {
        let serve = |port| Wanted::of(config, port).map(Served::read).transpose();
        Ok(Tls {
            native: serve(Port::Native)?,
            kafka: serve(Port::Kafka)?,
            http: serve(Port::Http)?,
            peers: Peers::read(config)?,
        })
    }

    /// Reads again what has changed, or all. What cannot be read is said, and leaves what was there in force.
    pub(crate) fn read_again(&self, all: bool) {
        for served in [&self.native, &self.kafka, &self.http].into_iter().flatten() {
            served.read_again(all);
        }
        if let Some(peers) = &self.peers {
            peers.read_again(all);
        }
    }

    /// When the first certificate of each port ends, in seconds since 1970.
    pub(crate) fn expiries(&self) -> Vec<(&'static str, i64)> {
        let served = [&self.native, &self.kafka, &self.http].into_iter().flatten();
        let mut expiries: Vec<_> = served
            .map(|served| (served.port().section(), served.expiry()))
            .collect();
        expiries.extend(self.peers.as_ref().map(|peers| (Port::Peers.section(), peers.expiry())));
        expiries
    }

    pub(super) fn is_any(&self) -> bool {
        self.native.is_some() || self.kafka.is_some() || self.http.is_some() || self.peers.is_some()
    }
}
