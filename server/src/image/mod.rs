//! What the cluster looks like at one moment: an immutable picture that the control plane makes and all cores share.
//!
//! A change makes a new [`ClusterImage`]; whoever holds the old one keeps a consistent view. Nothing here is persisted
//! or changed in place: that is the coordinator quorum's.

mod access;
mod assignment;
mod broker;
mod placements;
mod quotas;
mod replicas;
pub mod settings;
mod wishes;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use headwater_protocol::id::{PartitionIndex, TopicId};
use headwater_protocol::topic::TopicName;

pub(crate) use self::access::AccessRules;
pub use self::assignment::Assignment;
pub(crate) use self::broker::first_node;
pub use self::broker::{Address, Broker, Incarnation, KafkaAddress, Member};
pub use self::placements::{Placed, Placements};
pub(crate) use self::quotas::QuotaRules;
pub use self::replicas::{Durability, PartitionEpoch, Replicas, Terms};
pub use self::wishes::{IsrWish, Wishes};
pub use crate::model::id::PartitionId;

/// How far a topic is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// Being created: its directories may not be there yet. It is not served.
    Creating,
    /// It is served.
    Ready,
    /// Being deleted: it is no longer served, and its name is not free yet.
    Deleting,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// Its identity: a topic that is deleted and made anew has another.
    pub id: TopicId,
    /// Number of partitions, at least 1.
    pub partition_count: u32,
    /// What its creator set, in Kafka's names and as checked text. What is in force is for each broker to say
    /// ([`TopicSettings::in_force`](settings::TopicSettings::in_force)).
    pub overrides: BTreeMap<String, String>,
    /// How far it is in its life.
    pub state: TopicState,
    /// What it will be when it has got more partitions, while it is getting them; they are not served yet.
    pub becoming: Option<Arc<Topic>>,
}

impl Topic {
    /// All partitions in order.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = PartitionIndex> + use<> {
        // The count was checked against a limit far below i32::MAX.
        (0..self.partition_count.cast_signed()).map(PartitionIndex::new)
    }

    /// The partitions that may have a directory: all that it has, and those that it is getting.
    pub fn directories(&self) -> impl ExactSizeIterator<Item = PartitionIndex> + use<> {
        self.becoming.as_deref().unwrap_or(self).partitions()
    }

    /// Whether the topic has this partition.
    pub fn has(&self, partition: PartitionIndex) -> bool {
        partition.get().cast_unsigned() < self.partition_count
    }

    /// Name of a partition's directory in the data directory: `<topic>-<partition>`.
    pub fn partition_directory(&self, partition: PartitionIndex) -> String {
        format!("{}-{partition}", self.name)
    }
}

/// All topics at one moment, who may do what, and how much of it.
#[derive(Clone, Debug, Default)]
pub struct ClusterImage {
    version: u64,
    access: Arc<AccessRules>,
    quotas: Arc<QuotaRules>,
    by_name: BTreeMap<TopicName, Arc<Topic>>,
    by_id: HashMap<TopicId, Arc<Topic>>,
}

impl ClusterImage {
    /// The image with these topics. Of two images with different versions, the higher is the later.
    pub fn new(version: u64, topics: impl IntoIterator<Item = Arc<Topic>>) -> Self {
        let by_name: BTreeMap<_, _> = topics.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
        let by_id = by_name.values().map(|topic| (topic.id, Arc::clone(topic))).collect();
        Self {
            version,
            access: Arc::default(),
            quotas: Arc::default(),
            by_name,
            by_id,
        }
    }

    /// The same with these rules and users, and these quotas.
    pub(crate) fn with_rules(self, access: Arc<AccessRules>, quotas: Arc<QuotaRules>) -> Self {
        Self { access, quotas, ..self }
    }

    /// The same with the rules, users and quotas of another.
    pub(crate) fn with_rules_of(self, other: &Self) -> Self {
        self.with_rules(Arc::clone(&other.access), Arc::clone(&other.quotas))
    }

    /// Who may do what, and the keys of users.
    pub(crate) fn access(&self) -> &Arc<AccessRules> {
        &self.access
    }

    /// How much somebody may use.
    pub(crate) fn quotas(&self) -> &Arc<QuotaRules> {
        &self.quotas
    }

    /// Number of changes, the same on all members of the quorum.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The topic of this name, in whatever state.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The topic with this id, in whatever state.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics in the order of their names, in whatever state.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// Number of topics that are served.
    pub fn ready_count(&self) -> usize {
        self.topics().filter(|topic| topic.state == TopicState::Ready).count()
    }

    /// Partitions of all topics.
    pub fn partition_count(&self) -> u64 {
        self.topics().map(|topic| u64::from(topic.partition_count)).sum()
    }
}
