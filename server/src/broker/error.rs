//! Why a broker does not start.

use std::{io, net::SocketAddr};

use headwater_engine::LogError;

use crate::{check::CheckError, cluster::StoreError, failure::StopError};

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The machine is not fit for it.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The data directory is not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A certificate, a key or a CA cannot be used.
    #[error("{reason}")]
    Tls {
        /// Which, by its setting, and why not.
        reason: String,
    },
    /// A port cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another port with {key}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        key: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A part of the broker failed as soon as it ran.
    #[error(transparent)]
    Failed(StopError),
    /// What the cluster knows cannot be read or changed.
    #[error("{reason}")]
    Quorum {
        /// Why not.
        reason: String,
    },
    /// What the last run acknowledged cannot be read.
    #[error("cannot recover what the last run acknowledged: {0}")]
    Journal(LogError),
    /// A core or thread cannot be started.
    #[error("cannot start {what}: {reason}")]
    Thread {
        /// Which.
        what: String,
        /// The cause.
        reason: String,
    },
}
