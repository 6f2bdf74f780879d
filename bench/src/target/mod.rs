//! What the load generator needs of a system: topics, producers, consumers. Everything else of the bench is the same
//! for every system, so that their figures can be compared.
//!
//! A target says nothing of measurement: it takes a record and says when it is acknowledged, and hands over records as
//! they come. Retries, batches and memory are the business of the system's own client.

pub mod headwater;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "nats")]
pub mod nats;

use std::fmt;
use std::time::Duration;

use headwater_client::{Acks, Compression, PartitionIndex};
use serde::Serialize;

use crate::error::BenchError;
use crate::load::intake::Intake;

/// Name of the header that holds the stamp of a record that has a key of its own; others have the stamp as their key.
pub const STAMP_HEADER: &str = "s";

/// A system to put load on. Cheap to clone.
pub trait Target: Clone + Send + Sync + 'static {
    /// Sends records.
    type Producer: TargetProducer;
    /// Receives records.
    type Consumer: TargetConsumer;

    /// The client, and how it sends, for the report.
    fn client(settings: &ProducerSettings) -> String;

    /// Connects to the system at these addresses, separated by commas.
    fn connect(bootstrap: &str) -> impl Future<Output = Result<Self, BenchError>> + Send;

    /// Makes a topic if it is missing. Returns how many partitions it has.
    fn ensure_topic(&self, topic: &str, shape: TopicShape) -> impl Future<Output = Result<usize, BenchError>> + Send;

    /// Removes a topic with its records.
    fn delete_topic(&self, topic: &str) -> impl Future<Output = Result<(), BenchError>> + Send;

    /// How a topic is replicated, if the system tells.
    fn replication(&self, _topic: &str) -> impl Future<Output = Result<Option<Replication>, BenchError>> + Send {
        async { Ok(None) }
    }

    /// Who leads the partitions of a topic, and whether all their replicas are in sync.
    fn replicas(&self, _topic: &str) -> impl Future<Output = Result<Replicas, BenchError>> + Send {
        async {
            Err(BenchError::Options(
                "this system does not say who leads a partition".into(),
            ))
        }
    }

    /// What each partition of a topic holds now, for consumers to see.
    fn spans(&self, topic: &str) -> impl Future<Output = Result<Vec<Span>, BenchError>> + Send;

    /// A producer with connections of its own.
    fn producer(
        &self,
        topic: &str,
        settings: &ProducerSettings,
    ) -> impl Future<Output = Result<Self::Producer, BenchError>> + Send;

    /// A consumer of all partitions, with connections of its own, that begins at these positions.
    fn consumer(
        &self,
        topic: &str,
        from: &[Position],
    ) -> impl Future<Output = Result<Self::Consumer, BenchError>> + Send;

    /// The same system, of which each consumer is a group of so many members that share the partitions.
    ///
    /// # Errors
    /// If groups of this system cannot be measured.
    fn grouped(self, _members: u16) -> Result<Self, BenchError> {
        Err(BenchError::Options(
            "groups can be measured of Headwater only: leave out --group-members and --slow-members".into(),
        ))
    }
}

/// Sends records to one topic.
pub trait TargetProducer: Send + 'static {
    /// Resolves when the record is acknowledged.
    type Completion: Future<Output = Result<(), BenchError>> + Send + Unpin + 'static;

    /// Takes a record; waits only while the client's memory is spent. The record is encoded or copied before it returns.
    fn send(&self, record: &Outgoing<'_>) -> impl Future<Output = Result<Self::Completion, BenchError>> + Send;

    /// Waits until everything that was sent is acknowledged.
    ///
    /// # Errors
    /// If any record was not, whether its completion was awaited or not.
    fn close(self) -> impl Future<Output = Result<(), BenchError>> + Send;
}

/// Receives the records of one topic.
pub trait TargetConsumer: Send + 'static {
    /// Waits for records and hands one batch of them, or one record, to the intake. May be cancelled without loss.
    fn receive(&mut self, intake: &mut Intake) -> impl Future<Output = Result<(), BenchError>> + Send;
}

/// The replicas of a topic's partitions at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// The broker that leads each partition, while one does.
    pub leaders: Vec<Option<i32>>,
    /// The active coordinator, if the system tells.
    pub coordinator: Option<i32>,
    /// Whether every replica of every partition is in sync.
    pub all_in_sync: bool,
}

/// What a topic is to be that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicShape {
    /// How many partitions.
    pub partitions: u32,
    /// How many brokers have each; the system's default otherwise.
    pub replication_factor: Option<u16>,
    /// In-sync replicas without which nothing is acknowledged; the system's default otherwise.
    pub min_insync_replicas: Option<u16>,
}

/// How a topic is replicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Replication {
    /// Brokers that have each partition.
    pub replication_factor: u16,
    /// In-sync replicas without which nothing is acknowledged, if that is known.
    pub min_insync_replicas: Option<u16>,
}

impl fmt::Display for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of each partition", self.replication_factor)?;
        match self.min_insync_replicas {
            Some(min) => write!(f, "; nothing is acknowledged without {min} of them in sync"),
            None => Ok(()),
        }
    }
}

/// A record on its way out.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Where to.
    pub partition: PartitionIndex,
    /// Its key.
    pub key: &'a [u8],
    /// What the header [`STAMP_HEADER`] holds, if the record has one.
    pub stamp: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
}

/// Number of a record in its partition, by the system's own count. Where to read on, or where reading ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

/// What a partition holds: from the first position up to the one after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Of the first record.
    pub start: Position,
    /// After the last one.
    pub end: Position,
}

/// How a producer sends.
#[derive(Debug, Clone, Copy)]
pub struct ProducerSettings {
    /// Size at which a batch is full, before compression.
    pub batch_bytes: usize,
    /// Of one partition on their way.
    pub in_flight_bytes: usize,
    /// That all records may take, from `send` to their acknowledgement.
    pub memory_bytes: usize,
    /// How long a batch waits for more records.
    pub linger: Duration,
    /// Of batches.
    pub compression: Compression,
    /// When a record is acknowledged.
    pub acks: Acks,
}

impl fmt::Display for ProducerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let acks = match self.acks {
            Acks::None => "none",
            Acks::Leader => "leader",
            Acks::All => "all",
        };
        let (batch, memory) = (self.batch_bytes >> 10, self.memory_bytes >> 20);
        let (linger, compression) = (self.linger.as_secs_f64() * 1e3, self.compression);
        write!(
            f,
            "acks {acks}, batches of {batch} KiB, linger {linger} ms, compression {compression}, memory {memory} MiB"
        )
    }
}
