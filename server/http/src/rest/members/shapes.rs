//! What members take and give.

use headwater_client::{CommittedOffset, ErrorCode, Offset, PartitionIndex, TopicName};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    problem::Problem,
    rest::data::{Format, RecordSchema, bounded},
};

/// Topics of one member.
const TOPICS_MAX: usize = 1000;

/// Partitions in one commit.
const OFFSETS_MAX: usize = 10_000;

/// How to join a group.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Join {
    /// The topics to share with the other members.
    #[serde(deserialize_with = "bounded::<_, _, TOPICS_MAX>")]
    #[schema(min_items = 1, max_items = 1000)]
    pub(super) topics: Vec<String>,
    /// Where to begin in a partition for which the group has committed nothing.
    #[serde(default)]
    pub(super) start: Begin,
    /// Commit what was handed out so often, in milliseconds, once more is asked for; not at all if it is not said.
    #[schema(minimum = 100, maximum = 3_600_000)]
    pub(super) auto_commit_ms: Option<u64>,
    /// How long the group waits for a member that is silent, in milliseconds, as when this broker is gone; 45 s if it is not said.
    #[schema(minimum = 10, maximum = 86_400_000)]
    pub(super) session_timeout_ms: Option<u64>,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Begin {
    /// With the first record.
    #[default]
    Earliest,
    /// With the next one.
    Latest,
}

/// A member of a group.
#[derive(Serialize, ToSchema)]
pub(crate) struct Joined {
    /// The group.
    pub(super) group: String,
    /// What the member is called from now on. Whoever has the same user and knows it can use it.
    pub(super) member: String,
    /// It leaves the group when nobody has asked it for anything in so many milliseconds.
    pub(super) idle_ms: u64,
}

/// Of which partition what is committed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Commit {
    /// Offsets of the records that would be processed next. If they are not said, all that was handed out is committed.
    #[serde(default, deserialize_with = "some_bounded")]
    #[schema(max_items = 10_000, nullable = false)]
    pub(super) offsets: Option<Vec<CommitOffset>>,
}

fn some_bounded<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<CommitOffset>>, D::Error> {
    bounded::<_, _, OFFSETS_MAX>(deserializer).map(Some)
}

/// An offset of a partition.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitOffset {
    /// The topic.
    pub(super) topic: String,
    /// The partition.
    #[schema(minimum = 0)]
    pub(super) partition: i32,
    /// The offset of the record that would be processed next.
    pub(super) offset: u64,
    /// A note.
    #[serde(default)]
    pub(super) metadata: String,
}

impl CommitOffset {
    /// As the client has it.
    pub(crate) fn read(self) -> Result<CommittedOffset, Problem> {
        let topic = TopicName::new(&self.topic)
            .map_err(|error| Problem::new(ErrorCode::InvalidTopicException, error.to_string()))?;
        if self.partition < 0 || self.offset > i64::MAX as u64 {
            return Err(Problem::invalid("partitions and offsets are numbers from 0 on"));
        }
        let (partition, offset) = (PartitionIndex::new(self.partition), Offset::new(self.offset));
        Ok(CommittedOffset {
            metadata: self.metadata,
            ..CommittedOffset::new(topic, partition, offset)
        })
    }
}

/// What a member has.
#[derive(Serialize, ToSchema)]
pub(crate) struct Assignment {
    /// Its partitions.
    pub(super) partitions: Vec<AssignedPartition>,
}

/// A partition that a member has.
#[derive(Serialize, ToSchema)]
pub(crate) struct AssignedPartition {
    /// The topic.
    pub(super) topic: String,
    /// The partition.
    pub(super) partition: i32,
    /// The offset of the record that is handed out next.
    pub(super) next_offset: u64,
}

/// Records of several partitions.
#[derive(ToSchema)]
#[schema(as = Polled)]
#[allow(dead_code, reason = "it describes what is written piece by piece")]
pub(crate) struct PolledSchema {
    /// The records; those of one partition are in order.
    pub(super) records: Vec<RecordSchema>,
}

/// How much, and how it is shown.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PollQuery {
    /// Records at most, 100 if it is not said.
    #[param(minimum = 1, maximum = 10_000)]
    pub(super) max: Option<usize>,
    /// Bytes of records at most, 1 MiB if it is not said; one record is given however large.
    #[param(minimum = 1)]
    pub(super) max_bytes: Option<usize>,
    /// How long to wait for a record if there is none yet, in milliseconds.
    #[param(minimum = 0, maximum = 60_000)]
    pub(super) wait_ms: Option<u64>,
    /// How bytes are shown: `text`, `json` or `base64`.
    #[param(value_type = Option<Format>)]
    #[serde(default)]
    pub(super) format: Format,
}
