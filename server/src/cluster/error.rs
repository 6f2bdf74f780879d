//! Why a topic cannot be created, altered or deleted.

use std::path::PathBuf;

use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::TopicId;
use headwater_protocol::topic::{TopicName, TopicNameError};

use super::store::error::StoreError;
use crate::image::settings::SettingError;
use crate::image::{Topic, TopicState};

/// Why a topic cannot be created, altered or deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// A topic of this name is there, or is still being deleted.
    #[error("the topic {name} exists already{}", if *deleting { ", and is being deleted" } else { "" })]
    Exists {
        /// The name.
        name: TopicName,
        /// It will be gone soon.
        deleting: bool,
    },
    /// There is no topic of this name.
    #[error("there is no topic {name}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A change of before is not finished.
    #[error("the topic {name} is still getting partitions that it was to get before; try again")]
    Growing {
        /// The name.
        name: TopicName,
    },
    /// Somebody else has altered it just now.
    #[error("the topic {name} was altered by others meanwhile; try again")]
    Changed {
        /// The name.
        name: TopicName,
    },
    /// No topic can have this name.
    #[error(transparent)]
    Name(#[from] TopicNameError),
    /// The number of partitions is not possible.
    #[error("a topic cannot have {count} partitions; allowed is 1 to {max} (limits.partitions_per_topic_max)")]
    Partitions {
        /// What was asked for.
        count: i32,
        /// The limit.
        max: u32,
    },
    /// A partition that is there cannot be taken away.
    #[error(
        "the topic {name} has {has} partitions and cannot have {count}: they are only ever added; make another topic"
    )]
    FewerPartitions {
        /// The topic.
        name: TopicName,
        /// How many it has.
        has: u32,
        /// What was asked for.
        count: u32,
    },
    /// The broker has as much as it may.
    #[error("the broker holds {held} {what}; {asked} more would exceed {limit}")]
    Full {
        /// Topics or partitions.
        what: &'static str,
        /// How many it holds.
        held: u64,
        /// How many were asked for.
        asked: u64,
        /// The limit with its key.
        limit: String,
    },
    /// The replication factor is not possible.
    #[error("a replication factor of {factor} needs as many brokers, and at least 1; there {} {brokers}", if *brokers == 1 { "is" } else { "are" })]
    ReplicationFactor {
        /// What was asked for.
        factor: i16,
        /// How many there are.
        brokers: usize,
    },
    /// A setting is not valid.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// What has the name of the topic's directory is nobody's: its records are not the new topic's.
    #[error("{} is in the way: it belongs to no topic; move it away", path.display())]
    InTheWay {
        /// What it is.
        path: PathBuf,
    },
    /// The disk failed, or the quorum.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TopicError {
    pub(super) fn exists(topic: &Topic) -> TopicError {
        Self::Exists {
            name: topic.name.clone(),
            deleting: topic.state == TopicState::Deleting,
        }
    }

    pub(super) fn unknown(id: TopicId) -> TopicError {
        Self::Unknown { name: id.to_string() }
    }

    /// The code that a client gets.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Exists { .. } => ErrorCode::TopicAlreadyExists,
            Self::Unknown { .. } => ErrorCode::UnknownTopicOrPartition,
            Self::Growing { .. } | Self::Changed { .. } => ErrorCode::CoordinatorLoadInProgress,
            Self::Name(_) => ErrorCode::InvalidTopicException,
            Self::Partitions { .. } | Self::FewerPartitions { .. } => ErrorCode::InvalidPartitions,
            Self::Full { .. } => ErrorCode::PolicyViolation,
            Self::ReplicationFactor { .. } => ErrorCode::InvalidReplicationFactor,
            Self::Setting(_) => ErrorCode::InvalidConfig,
            Self::Store(StoreError::Quorum { code, .. }) => *code,
            Self::InTheWay { .. } | Self::Store(_) => ErrorCode::KafkaStorageError,
        }
    }
}
