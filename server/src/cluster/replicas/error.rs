//! Why a command is refused, as a whole or for one partition.

use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, LeaderEpoch, TopicId},
};

use super::levels::Levels;
use crate::{
    image::{Incarnation, PartitionEpoch},
    model::id::PartitionId,
};

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplicaError {
    #[error("broker {0} is not registered: it must register before anything else")]
    UnknownBroker(BrokerId),
    #[error(
        "this comes from process {said} of broker {broker}, and {known} has registered since: stop one of the two, or give it another id"
    )]
    StaleIncarnation {
        broker: BrokerId,
        said: Incarnation,
        known: Incarnation,
    },
    #[error("the cluster has {0} brokers already, as many as it can have: forget those that are gone for good")]
    TooManyBrokers(usize),
    #[error("the registration of broker {broker} is not usable: {what}")]
    Registration { broker: BrokerId, what: &'static str },
    #[error(
        "the cluster is at feature level {finalised}, and broker {broker} can do {levels}: start it as a program that can do level {finalised}"
    )]
    Level {
        broker: BrokerId,
        levels: Levels,
        finalised: u16,
    },
    #[error(
        "broker {broker} can do feature {levels}, not {level}: upgrade it first, or forget it if it is gone for good"
    )]
    Unsupported {
        broker: BrokerId,
        levels: Levels,
        level: u16,
    },
    #[error(
        "feature level {finalised} is finalised, and there is no way back to {level}: what it unlocks may be in use"
    )]
    LevelBefore { level: u16, finalised: u16 },
    #[error("broker {0} is not fenced: stop it before it is forgotten")]
    StillUp(BrokerId),
    #[error("broker {broker} still has a replica of partition {} of topic {}: move its replicas away first", .partition.index, .partition.topic)]
    StillHas { broker: BrokerId, partition: PartitionId },
    #[error("the replicas of topic {0} are placed already")]
    Placed(TopicId),
    #[error("no replicas of topic {0} are placed")]
    UnknownTopic(TopicId),
    #[error("partition {} of topic {} has no replicas placed", .0.index, .0.topic)]
    UnknownPartition(PartitionId),
    #[error("min.insync.replicas must be at least 1")]
    MinIsr,
    #[error(
        "the replicas {0:?} are not usable: name registered brokers, each once, and at least one that is up for a new partition"
    )]
    Replicas(Vec<BrokerId>),
    #[error(
        "{factor} replicas of each partition need as many brokers that are not cordoned, and one that is up; there are {usable}"
    )]
    TooFewBrokers { factor: usize, usable: usize },
    #[error("broker {0} does not lead the partition: only its leader changes who is in sync")]
    NotLeader(BrokerId),
    #[error("the leader epoch is {is}, not {said}: look at the partition again")]
    LeaderEpoch { said: LeaderEpoch, is: LeaderEpoch },
    #[error("the partition has changed: its epoch is {is}, not {said}; look at it again")]
    Epoch { said: PartitionEpoch, is: PartitionEpoch },
    #[error(
        "the in-sync replicas {0:?} are not usable: only those stay that are in sync, the leader among them, and only other replicas join"
    )]
    Isr(Vec<BrokerId>),
    #[error("broker {0} cannot be in sync: it is fenced, its log is offline, or it has begun anew since")]
    Ineligible(BrokerId),
    #[error("broker {0} still counts as having what it has lost: its log is not offline, or nobody else is in sync")]
    NotLetOff(BrokerId),
    #[error("broker {0} leads the partition as it should")]
    NotNeeded(BrokerId),
    #[error("the preferred leader, broker {0}, is not in sync: wait until it has caught up")]
    PreferredNotInSync(BrokerId),
    #[error(
        "broker {0} leads the partition: an unclean election is for one that nobody can lead without losing records"
    )]
    HasLeader(BrokerId),
    #[error("broker {0} cannot lead: it has no replica, is fenced, or its log is offline")]
    CannotLead(BrokerId),
    #[error("the partition is being reassigned: wait until that is done, or cancel it")]
    Reassigning,
    #[error("the partition is not being reassigned")]
    NotReassigning,
    #[error(
        "only new replicas have all that was acknowledged: the reassignment cannot be cancelled until an old one has caught up"
    )]
    OnlyNewInSync,
}

impl ReplicaError {
    /// The code that whoever asked gets.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownBroker(_) => ErrorCode::BrokerIdNotRegistered,
            Self::StaleIncarnation { .. } => ErrorCode::StaleBrokerEpoch,
            Self::Level { .. } => ErrorCode::UnsupportedVersion,
            Self::TooManyBrokers(_)
            | Self::StillUp(_)
            | Self::StillHas { .. }
            | Self::Unsupported { .. }
            | Self::LevelBefore { .. } => ErrorCode::PolicyViolation,
            Self::Registration { .. } | Self::Isr(_) => ErrorCode::InvalidRequest,
            Self::Placed(_) => ErrorCode::TopicAlreadyExists,
            Self::UnknownTopic(_) => ErrorCode::UnknownTopicId,
            Self::UnknownPartition(_) => ErrorCode::UnknownTopicOrPartition,
            Self::MinIsr => ErrorCode::InvalidConfig,
            Self::TooFewBrokers { .. } => ErrorCode::InvalidReplicationFactor,
            Self::Replicas(_) => ErrorCode::InvalidReplicaAssignment,
            Self::NotLeader(_) => ErrorCode::NotLeaderOrFollower,
            Self::LeaderEpoch { .. } | Self::Epoch { .. } => ErrorCode::FencedLeaderEpoch,
            Self::Ineligible(_) | Self::NotLetOff(_) => ErrorCode::IneligibleReplica,
            Self::NotNeeded(_) | Self::HasLeader(_) => ErrorCode::ElectionNotNeeded,
            Self::PreferredNotInSync(_) => ErrorCode::PreferredLeaderNotAvailable,
            Self::CannotLead(_) => ErrorCode::EligibleLeadersNotAvailable,
            Self::Reassigning | Self::OnlyNewInSync => ErrorCode::ReassignmentInProgress,
            Self::NotReassigning => ErrorCode::NoReassignmentInProgress,
        }
    }
}
