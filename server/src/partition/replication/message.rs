//! What followers and leaders say to each other.

use headwater_engine::EpochEnd;
use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, LeaderEpoch, Offset},
};

use crate::image::Durability;

/// How far a replica has the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// Taken in: what is not durable yet the end of the process loses.
    pub(crate) received: Offset,
    /// On stable storage.
    pub(crate) durable: Offset,
}

impl Held {
    /// What counts.
    pub(super) fn counted(self, durability: Durability) -> Offset {
        match durability {
            Durability::Disk => self.durable,
            Durability::Memory => self.received,
        }
    }
}

/// Where a follower goes on, and in which epoch it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) offset: Offset,
    /// The epoch of its last record before that; [`LeaderEpoch::NONE`] if it has none.
    pub(crate) last_epoch: LeaderEpoch,
}

/// A follower says what it has of a partition, and asks for what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub(crate) place: Place,
    /// Not beyond that place.
    pub(crate) held: Held,
}

/// How far the leader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) high_watermark: Offset,
    /// Below it everything is deleted.
    pub(crate) log_start: Offset,
    /// There may be holes below this offset.
    pub(crate) holes_below: Offset,
}

/// A leader's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Records from the offset that was asked for, or from the start of the log if that is later, as far as they are sent with it.
    Records(Progress),
    /// The logs are not the same up to the offset that was asked for: where the follower's last epoch ends here.
    Diverging(EpochEnd),
    /// Nothing of what the follower has is left here, nor what follows it.
    BeginAgain { at: Offset },
}

/// Why a fetch has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchRefused {
    #[error("this broker does not lead the partition: learn who does")]
    NotLeader,
    #[error("broker {0} has no replica of the partition: wait until the leader has learned of it")]
    NotReplica(BrokerId),
    #[error("the fetch is of an older connection or process than another that has come: end the older one")]
    Stale,
    #[error("the follower is in epoch {said}, and the leader in {is}: learn of the new leader")]
    FencedEpoch { said: LeaderEpoch, is: LeaderEpoch },
    #[error("the follower is in epoch {said}, and the leader still in {is}: try again")]
    UnknownEpoch { said: LeaderEpoch, is: LeaderEpoch },
    #[error("a follower says that it has more than it asks to go on from, or fewer received than durable")]
    Contradiction,
}

impl FetchRefused {
    /// The code that the follower gets, which tries again in any case.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::NotLeader => ErrorCode::NotLeaderOrFollower,
            Self::NotReplica(_) => ErrorCode::ReplicaNotAvailable,
            Self::Stale => ErrorCode::StaleBrokerEpoch,
            Self::FencedEpoch { .. } => ErrorCode::FencedLeaderEpoch,
            Self::UnknownEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
            Self::Contradiction => ErrorCode::InvalidRequest,
        }
    }
}
