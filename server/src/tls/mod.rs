//! TLS: what each port shows and asks for, read from files and read again when they change; and what brokers prove to each other besides.
//! Nothing here touches a socket.
//!
//! ```text
//! files ─► Served: certificates by name, trust, rules ─► rustls::ServerConfig ─► one handshake at a time takes the latest
//!              ▲ Reloading: looks at the files once a second; reads them all on SIGHUP
//! ```
//! Every configuration is made with one provider of cryptography, by its name: what another crate makes the default of the process has
//! no effect. A configuration that was read again has sessions of its own, so that nobody resumes one from before a change of trust.
//!
//! Bytes are encrypted in user space. Where the kernel can do it (kTLS), segments could still go out by sendfile(2): the place
//! for it is `session/channel`, which alone knows whether a connection is encrypted. It is left for later.

mod all;
mod certificate;
mod error;
mod files;
mod peers;
mod provider;
mod reload;
mod resolver;
mod secret;
mod served;
mod subject;
#[cfg(test)]
mod tests;

#[cfg(test)]
use self::certificate::Look;
pub(crate) use self::{
    all::Tls,
    error::{in_words, io_in_words},
    files::look,
    peers::{PEER_ALPN, Peers},
    reload::Reloading,
    secret::{Bound, CHANNEL_LABEL, ClusterSecret, PROOF_MESSAGE_LEN_MAX, Purpose, Unproved, is_of_proof, no_proof},
    served::{Port, Served, Wanted},
};
