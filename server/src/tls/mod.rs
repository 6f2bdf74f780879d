//! TLS: what each port shows and asks for, read from files and read again when they change. Nothing here touches a socket.
//!
//! ```text
//! files ─► Served: certificates by name, trust, rules ─► rustls::ServerConfig ─► one handshake at a time takes the latest
//!              ▲ Reloading: looks at the files once a second; reads them all on SIGHUP
//! ```
//! Every configuration is made with the provider of [`provider`]: what another crate makes the default of the process has no effect. A
//! configuration that was read again has sessions of its own, so that nobody resumes one from before a change of trust.
//!
//! Bytes are encrypted in user space. Where the kernel can do it (kTLS), segments could still go out by sendfile(2): the place
//! for it is `session/channel`, which alone knows whether a connection is encrypted. It is left for later.

mod certificate;
mod error;
mod files;
mod peers;
mod reload;
mod resolver;
mod served;
mod subject;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

#[cfg(test)]
use self::certificate::Look;
pub(crate) use self::{
    error::{TlsError, in_words, io_in_words},
    files::look,
    peers::{PEER_ALPN, Peers},
    reload::Reloading,
    served::{Port, Served, Wanted},
};
use crate::config::Config;

/// The cryptography of every connection.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

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

    fn is_any(&self) -> bool {
        self.native.is_some() || self.kafka.is_some() || self.http.is_some() || self.peers.is_some()
    }
}
