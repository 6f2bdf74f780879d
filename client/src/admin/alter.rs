//! Changes to topics, and the settings of a broker.

use std::time::Duration;

use headwater_protocol::id::BrokerId;

use super::{Admin, final_if_unknown};
use crate::error::{Error, topic_name};
use crate::requests;

/// A change to a topic.
///
/// ```
/// use headwater_client::TopicAlteration;
///
/// let change = TopicAlteration::of("orders").set("retention.ms", 3_600_000).reset("segment.bytes").partitions(8);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a topic is only altered by Admin::alter_topic"]
pub struct TopicAlteration {
    pub(crate) name: String,
    /// `None`: back to the broker's default.
    pub(crate) configs: Vec<(String, Option<String>)>,
    pub(crate) partitions: Option<i32>,
    pub(crate) validate_only: bool,
}

impl TopicAlteration {
    /// A change to this topic that changes nothing yet.
    pub fn of(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            configs: Vec::new(),
            partitions: None,
            validate_only: false,
        }
    }

    /// Sets one of the topic's configurations, such as `retention.ms`.
    pub fn set(mut self, name: impl Into<String>, value: impl std::fmt::Display) -> Self {
        self.configs.push((name.into(), Some(value.to_string())));
        self
    }

    /// Returns one of the topic's configurations to the broker's default.
    pub fn reset(mut self, name: impl Into<String>) -> Self {
        self.configs.push((name.into(), None));
        self
    }

    /// How many partitions the topic is to have: as many as now, or more. Records with a key may then go to another
    /// partition than earlier ones with the same key.
    pub fn partitions(mut self, count: i32) -> Self {
        self.partitions = Some(count);
        self
    }

    /// Only check whether the topic could be altered.
    pub fn validate_only(mut self, only: bool) -> Self {
        self.validate_only = only;
        self
    }
}

/// A broker and how it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerDescription {
    /// Its number.
    pub id: BrokerId,
    /// The version of its program.
    pub version: String,
    /// Every setting in force.
    pub settings: Vec<BrokerSetting>,
    /// What it is doing; `None` if it is too old to say.
    pub status: Option<BrokerStatus>,
}

/// What a broker is doing, over all of its cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerStatus {
    /// How many cores it has.
    pub cores: usize,
    /// How many of them have answered. The figures below are theirs.
    pub cores_up: usize,
    /// For how long it has been running.
    pub uptime: Duration,
    /// Open connections.
    pub connections: u64,
    /// Topics that are served.
    pub topics: u64,
    /// Their partitions.
    pub partitions: u64,
    /// Those of them that take no records.
    pub partitions_offline: u64,
    /// Consumer groups.
    pub groups: u64,
    /// Members of those groups.
    pub group_members: u64,
    /// Bytes of requests since it was started, with their records.
    pub received_bytes: u64,
    /// Bytes of records that consumers were sent since it was started.
    pub fetched_bytes: u64,
    /// Where its data is; `None` if it cannot tell.
    pub disk: Option<DiskSpace>,
}

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskSpace {
    /// What may still be used, in bytes.
    pub free_bytes: u64,
    /// How large it is, in bytes.
    pub size_bytes: u64,
}

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerSetting {
    /// Its name, such as `log.retention_ms`.
    pub name: String,
    /// Its value, as the broker's configuration would write it; `None` for a secret.
    pub value: Option<String>,
}

impl Admin {
    /// Alters a topic: its configuration, its number of partitions, or both; all of it or nothing. Returns how many
    /// partitions it has.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] if there is none; [`Error::Broker`] with `INVALID_CONFIG`, or with `INVALID_PARTITIONS` for
    /// fewer partitions than the topic has.
    pub async fn alter_topic(&self, alteration: TopicAlteration) -> Result<usize, Error> {
        let name = topic_name(&alteration.name)?;
        let deadline = self.cluster.deadline("alter topic");
        let read = |bytes: &[u8]| final_if_unknown(&name, requests::read_alter_topic(bytes));
        self.cluster
            .ask_any(deadline, &requests::alter_topic(&alteration), read)
            .await
    }

    /// Gives a topic more partitions: so many in all.
    ///
    /// # Errors
    /// As [`Admin::alter_topic`].
    pub async fn create_partitions(&self, topic: &str, count: i32) -> Result<usize, Error> {
        self.alter_topic(TopicAlteration::of(topic).partitions(count)).await
    }

    /// The settings in force on the broker that answers, and what it is doing.
    pub async fn describe_broker(&self) -> Result<BrokerDescription, Error> {
        let deadline = self.cluster.deadline("describe broker");
        self.cluster
            .ask_any(deadline, &requests::describe_broker(), requests::read_describe_broker)
            .await
    }
}
