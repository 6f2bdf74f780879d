//! How far replicas are that catch up: what their brokers have of a partition, beside what its leader has.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use headwater_client::{BrokerId, BrokerListing, PartitionDescription, TopicDescription};

use crate::failure::Failure;
use crate::session::Session;

/// Brokers that are asked at the same time.
const ASKED_AT_ONCE: usize = 16;

/// A partition with its topic.
pub type Named<'a> = (&'a str, &'a PartitionDescription);

/// A partition, and how much is left to copy.
#[derive(Debug)]
pub struct Behind<'a> {
    pub topic: &'a str,
    pub partition: &'a PartitionDescription,
    /// Bytes that replicas lack that are not in sync, all of them together; `None` if one has not said.
    pub left_bytes: Option<u64>,
}

/// Bytes that are left of partitions of which not all replicas are in sync.
#[derive(Debug, Default)]
pub struct Left(BTreeMap<(String, i32), Option<u64>>);

impl Left {
    /// Of these partitions.
    pub async fn of(session: &Session, partitions: &[Named<'_>]) -> Result<Self, Failure> {
        let behind = partitions
            .iter()
            .copied()
            .filter(|(_, partition)| lacking(partition).next().is_some());
        let behind = look(session, behind.collect()).await?;
        let left = behind.into_iter().map(|behind| {
            let named = (behind.topic.to_owned(), behind.partition.partition.get());
            (named, behind.left_bytes)
        });
        Ok(Self(left.collect()))
    }

    /// Of this one: 0 if all are in sync, and nothing if that is not known.
    pub fn get(&self, topic: &str, partition: &PartitionDescription) -> Option<u64> {
        let known = self.0.get(&(topic.to_owned(), partition.partition.get()));
        known
            .copied()
            .unwrap_or_else(|| lacking(partition).next().is_none().then_some(0))
    }
}

/// All partitions of these topics.
pub fn all(topics: &[TopicDescription]) -> impl Iterator<Item = Named<'_>> {
    topics.iter().flat_map(named)
}

fn named(topic: &TopicDescription) -> impl Iterator<Item = Named<'_>> {
    let partitions = topic.partitions.iter();
    partitions.map(|partition| (topic.name.as_str(), partition))
}

/// Those that move.
pub fn moving(topics: &[TopicDescription]) -> Vec<Named<'_>> {
    all(topics).filter(|(_, partition)| moves(partition)).collect()
}

/// Whether a partition moves.
pub fn moves(partition: &PartitionDescription) -> bool {
    !partition.replicas.adding.is_empty() || !partition.replicas.removing.is_empty()
}

/// What is left of each.
pub async fn look<'a>(session: &Session, wanted: Vec<Named<'a>>) -> Result<Vec<Behind<'a>>, Failure> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let cluster = session.admin.list_brokers().await;
    let cluster = cluster.map_err(|error| Failure::client("ask for the brokers", &error))?;
    let there = cluster.brokers.iter().filter(|broker| !broker.is_fenced);
    let there: BTreeMap<i32, &BrokerListing> = there.map(|broker| (broker.id.get(), broker)).collect();
    let asked: BTreeSet<(&str, i32)> = wanted
        .iter()
        .flat_map(|(topic, partition)| lacking(partition).map(|id| (*topic, id.get())))
        .collect();
    let asked = asked
        .into_iter()
        .filter_map(|(topic, id)| Some((topic, id, *there.get(&id)?)));
    let asked = futures::stream::iter(asked).map(async |(topic, id, broker)| {
        let described = session.admin.describe_topic_on(broker, topic).await;
        ((topic, id), described.ok())
    });
    let told: BTreeMap<(&str, i32), Option<TopicDescription>> = asked.buffered(ASKED_AT_ONCE).collect().await;
    let behind = wanted.into_iter().map(|(topic, partition)| {
        let left = lacking(partition).map(|id| lacks(partition, told.get(&(topic, id.get()))?.as_ref()?));
        Behind {
            topic,
            partition,
            left_bytes: left.sum(),
        }
    });
    Ok(behind.collect())
}

/// Replicas that are not in sync.
fn lacking(partition: &PartitionDescription) -> impl Iterator<Item = BrokerId> {
    let replicas = &partition.replicas;
    replicas
        .replicas
        .iter()
        .copied()
        .filter(|id| !replicas.isr.contains(id))
}

/// What a replica lacks of what the leader has, by its share of the records.
fn lacks(leaders: &PartitionDescription, theirs: &TopicDescription) -> Option<u64> {
    let mut partitions = theirs.partitions.iter();
    let own = partitions.find(|own| own.partition == leaders.partition)?;
    let (start, end) = (leaders.log_start_offset.get(), leaders.log_end_offset.get());
    // One that has not begun yet lacks all of it.
    let has = if own.error.is_some() {
        start
    } else {
        own.log_end_offset.get()
    };
    let (all, lacks) = (end.saturating_sub(start), end.saturating_sub(has.max(start)));
    if all == 0 {
        return Some(0);
    }
    Some((u128::from(leaders.size_bytes) * u128::from(lacks) / u128::from(all)) as u64)
}
