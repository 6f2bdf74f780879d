//! Administration: topics, their offsets, and the deletion of old records.
//!
//! Changes to topics and what a broker says of itself are in `alter`, groups in `groups`.
//! Every call is tried again until the client's call timeout while its errors are retriable.

mod alter;
mod groups;
mod quorum;
mod quotas;
mod replicas;
mod security;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::{BrokerId, CoreId, LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId};
use headwater_protocol::topic::TopicName;

use crate::cluster::Cluster;
use crate::consumer::Isolation;
use crate::deadline::Deadline;
use crate::error::{Error, topic_name};
use crate::requests::{self, LATEST_TIMESTAMP, ResponseError};

pub use alter::{BrokerDescription, BrokerSetting, BrokerStatus, DiskSpace, TopicAlteration};
pub use groups::{
    CommittedOffset, GroupDescription, GroupListing, GroupMember, GroupState, Groups, MemberPartitions, PartitionLag,
};
pub use quorum::{QuorumDescription, QuorumMember};
pub use quotas::{Quota, QuotaEntity, QuotaKey, QuotaName};
pub use replicas::{BrokerListing, ClusterListing, PartitionMove, RefusedPartition};
pub use security::{Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, User};

/// So long the leaders of a topic's partitions are asked about their logs; a description goes without what they do not say by then.
const LEADER_ANSWER_MAX: Duration = Duration::from_secs(2);

/// A topic to be created.
///
/// ```
/// use headwater_client::NewTopic;
///
/// let topic = NewTopic::new("orders").partitions(8).config("retention.ms", "86400000");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a topic is only created by Admin::create_topic"]
pub struct NewTopic {
    pub(crate) name: String,
    pub(crate) partitions: Option<i32>,
    pub(crate) replication_factor: Option<i16>,
    pub(crate) configs: Vec<(String, String)>,
    pub(crate) validate_only: bool,
}

impl NewTopic {
    /// A topic with the broker's defaults.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partitions: None,
            replication_factor: None,
            configs: Vec::new(),
            validate_only: false,
        }
    }

    /// How many partitions. The broker's default otherwise.
    pub fn partitions(mut self, count: i32) -> Self {
        self.partitions = Some(count);
        self
    }

    /// How many brokers keep each partition. The broker's default otherwise.
    pub fn replication_factor(mut self, count: i16) -> Self {
        self.replication_factor = Some(count);
        self
    }

    /// Sets one of the topic's configurations, such as `retention.ms`.
    pub fn config(mut self, name: impl Into<String>, value: impl std::fmt::Display) -> Self {
        self.configs.push((name.into(), value.to_string()));
        self
    }

    /// Only check whether the topic could be created.
    pub fn validate_only(mut self, only: bool) -> Self {
        self.validate_only = only;
        self
    }
}

/// A topic that was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedTopic {
    /// Its identity, which no later topic of the same name shares.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: usize,
}

/// A topic in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicListing {
    /// Its name.
    pub name: TopicName,
    /// Its identity.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: usize,
}

/// One configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigEntry {
    /// Its name, such as `retention.ms`.
    pub name: String,
    /// Its value as text.
    pub value: String,
    /// Whether the topic has set it itself; it follows the broker otherwise.
    pub is_own: bool,
}

/// All there is to know about a topic.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Its name.
    pub name: TopicName,
    /// Its identity.
    pub id: TopicId,
    /// Every configuration in force, the topic's own and the broker's defaults.
    pub configs: Vec<ConfigEntry>,
    /// Its partitions.
    pub partitions: Vec<PartitionDescription>,
}

/// All there is to know about a partition.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PartitionDescription {
    /// Its number.
    pub partition: PartitionIndex,
    /// The broker that leads it; -1 is nobody.
    pub leader: BrokerId,
    /// The leader's term of office.
    pub leader_epoch: LeaderEpoch,
    /// The core of that broker that owns it.
    pub core: CoreId,
    /// Segment files on the leader's disk.
    pub segments: u32,
    /// The first offset that is still there.
    pub log_start_offset: Offset,
    /// The first offset that consumers do not see yet.
    pub high_watermark: Offset,
    /// The offset that the next record will get.
    pub log_end_offset: Offset,
    /// Size of its segments, in bytes.
    pub size_bytes: u64,
    /// Who has it.
    pub replicas: PartitionReplicas,
    /// Why the broker cannot serve it; the offsets mean nothing then.
    pub error: Option<Error>,
}

/// Who has a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionReplicas {
    /// The brokers that have it. The first leads it when it can.
    pub replicas: Vec<BrokerId>,
    /// Those of them that are in sync: they have all that was acknowledged, and without them nothing is.
    pub isr: Vec<BrokerId>,
    /// Those of them that are not in sync, but would lose nothing that was acknowledged if they led.
    pub elr: Vec<BrokerId>,
    /// Those of them whose log has failed.
    pub offline: Vec<BrokerId>,
    /// Those of them that are being taken in by a move.
    pub adding: Vec<BrokerId>,
    /// Those of them that go when a move is done.
    pub removing: Vec<BrokerId>,
    /// Grows with each change of these.
    pub partition_epoch: u64,
    /// How many must be in sync for a record to be acknowledged (`min.insync.replicas`).
    pub min_isr: u16,
}

/// Which offset to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The log start offset.
    Earliest,
    /// The high watermark: the offset that the next record to become visible will have.
    Latest,
    /// The first record with a timestamp at or after this one.
    Timestamp(Timestamp),
}

impl OffsetSpec {
    /// As the wire says it: Kafka's `ListOffsetsRequest.EARLIEST_TIMESTAMP` and `LATEST_TIMESTAMP`.
    pub(crate) fn wire(self) -> Timestamp {
        match self {
            Self::Earliest => Timestamp::new(-2),
            Self::Latest => LATEST_TIMESTAMP,
            Self::Timestamp(timestamp) => Timestamp::new(timestamp.get().max(0)),
        }
    }
}

/// The administration of a cluster; from [`Client::admin`](crate::Client::admin).
///
/// ```no_run
/// # async fn example(client: headwater_client::Client) -> Result<(), headwater_client::Error> {
/// use headwater_client::NewTopic;
///
/// let admin = client.admin();
/// admin.create_topic(NewTopic::new("orders").partitions(4)).await?;
/// let description = admin.describe_topic("orders").await?;
/// assert_eq!(description.partitions.len(), 4);
/// admin.delete_topic("orders").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Admin {
    cluster: Arc<Cluster>,
}

impl Admin {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// [`Error::Broker`] with `TOPIC_ALREADY_EXISTS` for a name in use. That can also be the outcome of this very call
    /// if the connection was lost after the broker had created the topic, so that the call was tried again.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<CreatedTopic, Error> {
        topic_name(&topic.name)?;
        let deadline = self.cluster.deadline("create topic");
        self.cluster
            .ask_any(deadline, &requests::create_topic(&topic), requests::read_create_topic)
            .await
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] if there is none. As with [`Admin::create_topic`], a lost connection can make a deletion
    /// that succeeded look like this.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let name = topic_name(name)?;
        let deadline = self.cluster.deadline("delete topic");
        let read = |bytes: &[u8]| final_if_unknown(&name, requests::read_delete_topic(bytes));
        self.cluster
            .ask_any(deadline, &requests::delete_topic(&name), read)
            .await
    }

    /// Describes a topic: its configuration and its partitions.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] if there is none.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, Error> {
        let name = topic_name(name)?;
        let deadline = self.cluster.deadline("describe topic");
        let read = |bytes: &[u8]| final_if_unknown(&name, requests::read_describe_topic(bytes));
        let request = || requests::describe_topic(&name);
        let mut described = self.cluster.ask_any(deadline, &request(), read).await?;
        let deadline = Deadline::after(LEADER_ANSWER_MAX, "describe topic");
        for (leader, partition) in leaders_elsewhere(&described) {
            // What a broker does not have, or only follows, its leader knows; if that does not say so now, this is all there is.
            let asked = self
                .cluster
                .ask_leader(deadline, (&name, partition), |_id| request(), read);
            let Ok(theirs) = asked.await else { continue };
            for (own, theirs) in described.partitions.iter_mut().zip(theirs.partitions) {
                if theirs.leader == leader && theirs.error.is_none() {
                    *own = theirs;
                }
            }
        }
        Ok(described)
    }

    /// The administration of consumer groups.
    pub fn groups(&self) -> Groups {
        Groups::new(Arc::clone(&self.cluster))
    }

    /// Lists all topics, in the order of their names.
    pub async fn topics(&self) -> Result<Vec<TopicListing>, Error> {
        let deadline = self.cluster.deadline("list topics");
        let request = requests::metadata(None::<std::iter::Empty<&TopicName>>);
        let image = self
            .cluster
            .ask_any(deadline, &request, requests::read_metadata)
            .await?;
        let listing = |(name, image): (TopicName, Result<Arc<requests::TopicImage>, ErrorCode>)| {
            let image = image.ok()?;
            Some(TopicListing {
                name,
                id: image.id,
                partitions: image.partitions.len(),
            })
        };
        let mut topics: Vec<_> = image.topics.into_iter().filter_map(listing).collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// Looks up an offset of one partition; `None` when no record is as late as the timestamp.
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: PartitionIndex,
        spec: OffsetSpec,
    ) -> Result<Option<Offset>, Error> {
        let name = topic_name(topic)?;
        self.cluster.await_topic(&name).await?;
        let deadline = self.cluster.deadline("list offsets");
        list_offset(&self.cluster, deadline, &name, partition, spec, Isolation::default()).await
    }

    /// Looks up an offset of every partition of a topic, in the order of their numbers.
    pub async fn list_offsets(&self, topic: &str, spec: OffsetSpec) -> Result<Vec<Option<Offset>>, Error> {
        let name = topic_name(topic)?;
        // Every partition that there is now.
        let image = self.cluster.fresh_topic(&name).await?;
        let deadline = self.cluster.deadline("list offsets");
        let lookups = (0..image.partitions.len()).map(|index| {
            let partition = PartitionIndex::new(index as i32);
            list_offset(&self.cluster, deadline, &name, partition, spec, Isolation::default())
        });
        futures::future::try_join_all(lookups).await
    }

    /// Deletes the records before `before` (`None`: all that consumers can see), and returns the new log start offset.
    pub async fn delete_records(
        &self,
        topic: &str,
        partition: PartitionIndex,
        before: Option<Offset>,
    ) -> Result<Offset, Error> {
        let name = topic_name(topic)?;
        self.cluster.await_topic(&name).await?;
        let deadline = self.cluster.deadline("delete records");
        let request = |topic| requests::delete_records(topic, partition, before);
        self.cluster
            .ask_leader(deadline, (&name, partition), request, requests::read_delete_records)
            .await
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// The leaders of partitions that the broker that answered may not lead, each with one of them.
fn leaders_elsewhere(described: &TopicDescription) -> BTreeMap<BrokerId, PartitionIndex> {
    let partitions = described.partitions.iter();
    let elsewhere = partitions.filter(|partition| partition.error.is_some() || partition.replicas.replicas.len() > 1);
    let led = elsewhere.filter(|partition| partition.leader.get() >= 0);
    led.map(|partition| (partition.leader, partition.partition)).collect()
}

/// Looks up an offset at the partition's leader.
pub(crate) async fn list_offset(
    cluster: &Cluster,
    deadline: Deadline,
    topic: &TopicName,
    partition: PartitionIndex,
    spec: OffsetSpec,
    isolation: Isolation,
) -> Result<Option<Offset>, Error> {
    let request = |id| requests::list_offsets(id, partition, spec.wire(), isolation);
    let read = |bytes: &[u8]| match requests::read_list_offsets(bytes) {
        // Another attempt would find the same.
        Err(ResponseError::Refused(Error::Broker {
            code: ErrorCode::CorruptMessage,
            ..
        })) => Err(ResponseError::Refused(Error::CorruptLog {
            topic: topic.clone(),
            partition,
        })),
        result => result,
    };
    let listed = cluster.ask_leader(deadline, (topic, partition), request, read).await?;
    Ok(listed.map(|listed| listed.offset))
}

/// A topic that does not exist is no reason to ask again here: the broker that was asked would know.
fn final_if_unknown<T>(name: &TopicName, result: Result<T, ResponseError>) -> Result<T, ResponseError> {
    match result {
        Err(ResponseError::Refused(Error::Broker {
            code: ErrorCode::UnknownTopicOrPartition,
            ..
        })) => Err(ResponseError::Refused(Error::UnknownTopic(name.clone()))),
        result => result,
    }
}
