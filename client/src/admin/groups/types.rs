//! What the administration of groups takes and gives: plain values.

use std::fmt;

use headwater_protocol::id::{LeaderEpoch, Offset, PartitionIndex};
use headwater_protocol::topic::TopicName;

/// How far a group is in its life, in Kafka's words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupState {
    /// Members are joining, or expected to.
    PreparingRebalance,
    /// All have joined, and the assignment is awaited.
    CompletingRebalance,
    /// Every member has its partitions.
    Stable,
    /// It has no members; it may have committed offsets.
    Empty,
    /// It is going, or never was.
    Dead,
    /// One that this client does not know.
    Other(String),
}

impl GroupState {
    /// The state in Kafka's words, such as `PreparingRebalance`.
    pub fn name(&self) -> &str {
        match self {
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Empty => "Empty",
            Self::Dead => "Dead",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for GroupState {
    fn from(name: &str) -> Self {
        [
            Self::PreparingRebalance,
            Self::CompletingRebalance,
            Self::Stable,
            Self::Empty,
            Self::Dead,
        ]
        .into_iter()
        .find(|state| state.name() == name)
        .unwrap_or_else(|| Self::Other(name.to_owned()))
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupListing {
    /// Its id.
    pub group_id: String,
    /// What its members are, such as `consumer`; empty if it never had any.
    pub protocol_type: String,
    /// How far it is in its life.
    pub state: GroupState,
    /// How many members it has.
    pub members: usize,
}

/// All there is to know about a group, except for its offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its id.
    pub group_id: String,
    /// How far it is in its life.
    pub state: GroupState,
    /// What its members are, such as `consumer`; empty if it never had any.
    pub protocol_type: String,
    /// How partitions are assigned, such as `server-sticky`.
    pub protocol_name: String,
    /// Its generation: one more for each rebalance.
    pub generation: i32,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Its id, given by the broker.
    pub member_id: String,
    /// Its own id, if it is a static member.
    pub instance_id: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it runs.
    pub client_host: String,
    /// The topics that it wants partitions of; `None` if what it said is not Kafka's `ConsumerProtocolSubscription`.
    pub subscription: Option<Vec<String>>,
    /// The partitions that it has; `None` if its assignment is not Kafka's `ConsumerProtocolAssignment`.
    pub assignment: Option<Vec<MemberPartitions>>,
}

/// Partitions of one topic that a member has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberPartitions {
    /// The topic, which need not exist any more.
    pub topic: String,
    /// The partitions in order.
    pub partitions: Vec<PartitionIndex>,
}

/// What a group has committed for one partition: the offset of the record that it would process next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset.
    pub offset: Offset,
    /// The leader epoch of the record before, if the consumer said it.
    pub leader_epoch: Option<LeaderEpoch>,
    /// What the consumer noted with it.
    pub metadata: String,
}

impl CommittedOffset {
    /// An offset without leader epoch and metadata.
    pub fn new(topic: TopicName, partition: PartitionIndex, offset: Offset) -> Self {
        Self {
            topic,
            partition,
            offset,
            leader_epoch: None,
            metadata: String::new(),
        }
    }
}

/// How far a group is behind in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionLag {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// What the group has committed; `None` if nothing.
    pub committed: Option<Offset>,
    /// The first offset that is still there; `None` if the partition is not.
    pub log_start: Option<Offset>,
    /// The offset that the next visible record will have; `None` if the partition is not there.
    pub log_end: Option<Offset>,
    /// The id of the member that has the partition.
    pub member_id: Option<String>,
}

impl PartitionLag {
    pub(super) fn new(topic: &TopicName, partition: PartitionIndex) -> Self {
        Self {
            topic: topic.clone(),
            partition,
            committed: None,
            log_start: None,
            log_end: None,
            member_id: None,
        }
    }

    /// Offsets between what is committed and the end. Records that retention or compaction has removed count too, as in Kafka.
    /// `None` is not known: the partition is not there, or it has records and nothing is committed for it, so that the group
    /// may begin at any of them.
    pub fn lag(&self) -> Option<u64> {
        let end = self.log_end?;
        let is_empty = self.log_start == Some(end);
        match self.committed {
            Some(committed) => Some(end.get().saturating_sub(committed.get())),
            None => is_empty.then_some(0),
        }
    }
}
