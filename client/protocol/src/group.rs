//! What the members of a consumer group tell each other through the broker: Kafka's `ConsumerProtocolSubscription` and
//! `ConsumerProtocolAssignment`, each a version and then fields in the [`classic`](crate::classic) encoding.
//!
//! Versions 0 to 3 are read; a later one is read as 3, whose fields it begins with, and what follows is left alone, as
//! Kafka's clients do. Names of topics are not checked here: they need not exist.
//! Source: Kafka's `ConsumerProtocolSubscription.json`, `ConsumerProtocolAssignment.json`; KIP-429, KIP-792, KIP-881.

use crate::classic::{ClassicError, Reader, Writer};

/// The protocol type of groups whose members subscribe to topics.
pub const CONSUMER: &str = "consumer";

/// Protocols whose assignment the broker makes. Members that offer none of them assign among themselves.
pub const SERVER_RANGE: &str = "server-range";
/// See [`SERVER_RANGE`]: the partitions of all topics in turn.
pub const SERVER_ROUND_ROBIN: &str = "server-roundrobin";
/// See [`SERVER_RANGE`]: as few partitions as possible change hands, and none before its owner has given it up.
pub const SERVER_STICKY: &str = "server-sticky";

/// The version of a subscription that is written.
const SUBSCRIPTION_VERSION: i16 = 3;
/// The version of an assignment that is written. All have the same fields.
const ASSIGNMENT_VERSION: i16 = 1;
/// Bytes in the shortest list of a topic's partitions.
const TOPIC_LEN_MIN: usize = 2 + 4;

/// Partitions of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicPartitions {
    /// Name of the topic.
    pub topic: String,
    /// Numbers of partitions, as they came.
    pub partitions: Vec<i32>,
}

/// What a member wants, and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Topics that the member wants partitions of.
    pub topics: Vec<String>,
    /// Whatever the assignor of the members' own understands.
    pub user_data: Option<Vec<u8>>,
    /// From version 1: what the member owns, and goes on owning while the group rebalances.
    pub owned_partitions: Vec<TopicPartitions>,
    /// From version 2: the generation in which it got them; -1 if none.
    pub generation: i32,
    /// From version 3: where the member runs.
    pub rack: Option<String>,
}

impl Default for Subscription {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            user_data: None,
            owned_partitions: Vec::new(),
            generation: -1,
            rack: None,
        }
    }
}

impl Subscription {
    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Result<Self, ClassicError> {
        let mut reader = Reader::new(bytes);
        let version = version(&mut reader, "a subscription")?;
        let mut subscription = Self::default();
        for _ in 0..reader.count(2)? {
            subscription.topics.push(reader.string()?.to_owned());
        }
        subscription.user_data = reader.nullable_bytes()?.map(<[u8]>::to_vec);
        if version >= 1 {
            subscription.owned_partitions = topic_partitions(&mut reader)?;
        }
        if version >= 2 {
            subscription.generation = reader.i32()?;
        }
        if version >= 3 {
            subscription.rack = reader.nullable_string()?.map(str::to_owned);
        }
        Ok(subscription)
    }

    /// Its bytes, in version 3.
    ///
    /// # Panics
    /// When a name or the rack has 32 KiB or more.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.i16(SUBSCRIPTION_VERSION).count(self.topics.len());
        for topic in &self.topics {
            writer.string(topic);
        }
        writer.nullable_bytes(self.user_data.as_deref());
        put_topic_partitions(&mut writer, &self.owned_partitions);
        writer.i32(self.generation).nullable_string(self.rack.as_deref());
        writer.into_bytes()
    }
}

/// What a member gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The partitions.
    pub partitions: Vec<TopicPartitions>,
    /// Whatever the assignor of the members' own has to say.
    pub user_data: Option<Vec<u8>>,
}

impl Assignment {
    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Result<Self, ClassicError> {
        let mut reader = Reader::new(bytes);
        version(&mut reader, "an assignment")?;
        Ok(Self {
            partitions: topic_partitions(&mut reader)?,
            user_data: reader.nullable_bytes()?.map(<[u8]>::to_vec),
        })
    }

    /// Its bytes, in version 1.
    ///
    /// # Panics
    /// When the name of a topic has 32 KiB or more.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.i16(ASSIGNMENT_VERSION);
        put_topic_partitions(&mut writer, &self.partitions);
        writer.nullable_bytes(self.user_data.as_deref());
        writer.into_bytes()
    }
}

fn version(reader: &mut Reader<'_>, what: &'static str) -> Result<i16, ClassicError> {
    match reader.i16()? {
        version if version < 0 => Err(ClassicError::Version { what, version }),
        version => Ok(version),
    }
}

fn topic_partitions(reader: &mut Reader<'_>) -> Result<Vec<TopicPartitions>, ClassicError> {
    let mut topics = Vec::new();
    for _ in 0..reader.count(TOPIC_LEN_MIN)? {
        let topic = reader.string()?.to_owned();
        let count = reader.count(4)?;
        let partitions = (0..count).map(|_| reader.i32()).collect::<Result<_, _>>()?;
        topics.push(TopicPartitions { topic, partitions });
    }
    Ok(topics)
}

fn put_topic_partitions(writer: &mut Writer, topics: &[TopicPartitions]) {
    writer.count(topics.len());
    for TopicPartitions { topic, partitions } in topics {
        writer.string(topic).count(partitions.len());
        for partition in partitions {
            writer.i32(*partition);
        }
    }
}

#[cfg(test)]
mod tests;
