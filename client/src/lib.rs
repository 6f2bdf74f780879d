//! Client of the Headwater log: producers, consumers and administration on tokio.
//!
//! The path through the crate:
//!
//! ```text
//! Client --+-- Admin ---------------------------------------------+
//!          +-- Producer: Record -> batch of its partition --------+--> Cluster -> Pool -> Connection -> broker's core
//!          |             Delivery <- acknowledgement <------------+    (leader, core)     (pipelined)
//!          +-- Consumer: ConsumerRecord, Records <- prefetch <----+
//!          '-- GroupConsumer: the same, of partitions that a group assigns
//! ```
//!
//! A client learns from the brokers' metadata which core of which broker owns a partition, and talks straight to that
//! core's port. All waiting has a deadline, and every [`Error`] says whether trying again can help.
//!
//! ```no_run
//! use headwater_client::{Client, NewTopic, Record, Start};
//!
//! # async fn example() -> Result<(), headwater_client::Error> {
//! let client = Client::connect("localhost").await?;
//! client.admin().create_topic(NewTopic::new("greetings").partitions(1)).await?;
//!
//! let producer = client.producer().build().await?;
//! let metadata = producer.send(Record::to("greetings").value("hello")).await?.await?;
//! println!("stored at offset {:?}", metadata.offset);
//!
//! let mut consumer = client.consumer().topics(["greetings"]).start(Start::Earliest).build().await?;
//! let record = consumer.recv().await?;
//! assert_eq!(record.value.as_deref(), Some(&b"hello"[..]));
//! # Ok(())
//! # }
//! ```

mod address;
mod admin;
pub mod blocking;
mod client;
mod cluster;
mod connection;
mod consumer;
mod deadline;
mod error;
mod producer;
mod record;
mod requests;
mod runtime;
mod settings;
mod statistics;
mod tls;
mod trace;

#[cfg(test)]
mod tests;

pub use address::{Address, DEFAULT_PORT};
pub use admin::{
    Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, Admin, BrokerDescription, BrokerListing,
    BrokerSetting, BrokerStatus, ClusterListing, CommittedOffset, ConfigEntry, CreatedTopic, DiskSpace,
    GroupDescription, GroupListing, GroupMember, GroupState, Groups, MemberPartitions, NewTopic, OffsetSpec,
    PartitionDescription, PartitionLag, PartitionMove, PartitionReplicas, QuorumDescription, QuorumMember, Quota,
    QuotaEntity, QuotaKey, QuotaName, RefusedPartition, TopicAlteration, TopicDescription, TopicListing, User,
};
pub use client::{Client, ClientBuilder};
pub use connection::credentials::SaslMechanism;
pub use consumer::{
    Advance, Assignor, Consumer, ConsumerBuilder, ConsumerRecord, GroupConsumer, GroupConsumerBuilder, Header, Hold,
    Isolation, OffsetReset, PartitionPosition, RebalanceListener, Records, RecordsIter, Skip, SkipCause, Skipped,
    Start,
};
pub use error::{Error, ProtocolViolation, Sign};
pub use producer::{
    Acks, DefaultPartitioner, Delivery, DeliveryReport, Partitioner, Producer, ProducerBuilder, RecordMetadata,
    RoundRobinPartitioner, StickyPartitioner, TopicPartitions, murmur2,
};
pub use record::Record;
#[cfg(feature = "simulation")]
pub use runtime::simulation;
pub use settings::settings_reference;
pub use statistics::{AddressStatistics, ClientStatistics, Latencies, ProducerStatistics};
pub use trace::TraceParent;

pub use headwater_protocol::batch::{Compression, HeaderIter, HeaderRef, RecordView};
pub use headwater_protocol::error::ErrorCode;
pub use headwater_protocol::id::{BrokerId, CoreId, LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId};
pub use headwater_protocol::stranger::Stranger;
pub use headwater_protocol::topic::{TopicName, TopicNameError};

/// The examples of the documents compile.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../README.md")]
    mod readme {}
    #[doc = include_str!("../../docs/quickstart.md")]
    mod quickstart {}
    #[doc = include_str!("../../docs/client.md")]
    mod client {}
}
