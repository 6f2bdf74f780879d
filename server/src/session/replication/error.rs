//! Why what a broker says to another is refused.

use std::{io, time::Duration};

use headwater_engine::ReplicaError;
use headwater_protocol::{
    error::ErrorCode,
    frame::FrameError,
    head::HeadError,
    id::{BrokerId, CoreId, IdError},
};

use crate::{
    image::Incarnation,
    model::id::PartitionId,
    session::{channel::HandshakeError, frame::ReadError},
    tls::Unproved,
};

/// Why a frame, or whoever sends it, is refused. The connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(transparent)]
    Id(#[from] IdError),
    #[error("a frame of kind {0} has no place here: is the other side a broker?")]
    Kind(u16),
    #[error("a frame speaks of {count} partitions; at most {max} are allowed")]
    TooMany { count: usize, max: usize },
    #[error("a frame says that it has {said} bytes of records, and has {has}")]
    Records { said: u64, has: usize },
    #[error("a frame says what it may not: {0}")]
    Contradiction(&'static str),
    #[error("the other side belongs to another cluster, {theirs}; this is {ours}: look at the addresses of both")]
    Cluster { theirs: String, ours: String },
    #[error("versions {min} to {max} are not spoken here, but {ours}: update the older of the two")]
    Version { min: u16, max: u16, ours: u16 },
    #[error("broker {wanted}, core {core}, is not here but elsewhere: this is broker {ours}; learn its address anew")]
    Elsewhere {
        wanted: BrokerId,
        core: CoreId,
        ours: BrokerId,
    },
    #[error("broker {0} is not known here: it must register first, and may be known soon")]
    Stranger(BrokerId),
    #[error("broker {broker} speaks as process {said}, and is known as {known}")]
    Incarnation {
        broker: BrokerId,
        said: Incarnation,
        known: Incarnation,
    },
    #[error("a stream that is as new or newer is there already: end this one")]
    Replayed,
    #[error("it wants a proof of cluster.secret, and there is none here: set the same secret on every broker")]
    NoSecret,
    #[error(transparent)]
    Unproved(#[from] Unproved),
}

/// Why a stream between two brokers has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Tls(#[from] HandshakeError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the connection has failed: {0}")]
    Io(#[from] io::Error),
    #[error("the other side did not take up the connection within {0:?}")]
    Late(Duration),
    #[error("nothing has come for {0:?}, though the other side was called")]
    Silent(Duration),
    #[error("the other side refuses: {code}: {why}")]
    Refused { code: ErrorCode, why: String },
    #[error("partition {} of topic {}: {source}", .id.index, .id.topic)]
    Log { id: PartitionId, source: ReplicaError },
    #[error("the other side has closed the connection")]
    Closed,
    #[error("it is not needed any more, or another takes its place")]
    Over,
}

impl PeerError {
    /// The code that the other side gets.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Frame(_)
            | Self::Head(_)
            | Self::Id(_)
            | Self::Kind(_)
            | Self::TooMany { .. }
            | Self::Records { .. }
            | Self::Contradiction(_) => ErrorCode::InvalidRequest,
            Self::Cluster { .. } => ErrorCode::InconsistentClusterId,
            Self::Version { .. } => ErrorCode::UnsupportedVersion,
            Self::Elsewhere { .. } => ErrorCode::ReplicaNotAvailable,
            Self::Stranger(_) => ErrorCode::BrokerIdNotRegistered,
            Self::Incarnation { .. } | Self::Replayed => ErrorCode::StaleBrokerEpoch,
            Self::NoSecret | Self::Unproved(_) => ErrorCode::ClusterAuthorizationFailed,
        }
    }
}
