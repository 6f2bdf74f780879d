//! Which partition a record goes to.
//!
//! Partitioners keep no state: what they need of the topic's past (the sticky partition, the count of records) comes with
//! each call, so that one partitioner serves all topics.

use std::sync::atomic::{AtomicU32, Ordering};

use headwater_protocol::id::PartitionIndex;

use crate::record::Record;
use crate::runtime;

/// What a partitioner may know about the topic.
#[derive(Debug)]
pub struct TopicPartitions<'a> {
    count: u32,
    spread: &'a Spread,
}

impl<'a> TopicPartitions<'a> {
    pub(super) fn new(count: u32, spread: &'a Spread) -> Self {
        Self { count, spread }
    }

    /// How many partitions the topic has; never 0.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The partition with this hash: `hash % count`.
    pub fn by_hash(&self, hash: u32) -> PartitionIndex {
        PartitionIndex::new((hash % self.count).cast_signed())
    }

    /// The sticky partition: the same until its batch is full or sent, then another at random. Fills batches best.
    pub fn sticky(&self) -> PartitionIndex {
        self.by_hash(self.spread.sticky.load(Ordering::Relaxed))
    }

    /// A partition after the other, one for each call.
    pub fn round_robin(&self) -> PartitionIndex {
        self.by_hash(self.spread.turn.fetch_add(1, Ordering::Relaxed))
    }
}

/// How the records without a key of one topic were spread so far.
#[derive(Debug)]
pub(super) struct Spread {
    sticky: AtomicU32,
    turn: AtomicU32,
}

impl Spread {
    pub(super) fn new() -> Self {
        Self {
            sticky: AtomicU32::new(runtime::random() as u32),
            turn: AtomicU32::new(runtime::random() as u32),
        }
    }

    /// A batch of this partition, one of `count`, is closed: if it is the sticky one, another becomes that.
    pub(super) fn batch_closed(&self, partition: PartitionIndex, count: u32) {
        let sticky = self.sticky.load(Ordering::Relaxed);
        if count > 1 && sticky % count == partition.get().cast_unsigned() {
            // Any of the others.
            let step = runtime::random() as u32 % (count - 1) + 1;
            let next = (sticky % count + step) % count;
            // Lost if someone else was faster, who then has moved on to another as well.
            let _ = self
                .sticky
                .compare_exchange(sticky, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// Chooses the partition of a record that names none itself.
///
/// A closure will do:
///
/// ```no_run
/// # async fn example(client: headwater_client::Client) -> Result<(), headwater_client::Error> {
/// use headwater_client::{Record, TopicPartitions};
///
/// let by_length = |record: &Record<'_>, topic: &TopicPartitions<'_>| {
///     topic.by_hash(record.value_bytes().map_or(0, <[u8]>::len) as u32)
/// };
/// let producer = client.producer().partitioner(by_length).build().await?;
/// # Ok(())
/// # }
/// ```
pub trait Partitioner: Send + Sync + 'static {
    /// The partition for this record, below [`TopicPartitions::count`]; any other fails the send.
    fn partition(&self, record: &Record<'_>, topic: &TopicPartitions<'_>) -> PartitionIndex;
}

impl<F> Partitioner for F
where
    F: Fn(&Record<'_>, &TopicPartitions<'_>) -> PartitionIndex + Send + Sync + 'static,
{
    fn partition(&self, record: &Record<'_>, topic: &TopicPartitions<'_>) -> PartitionIndex {
        self(record, topic)
    }
}

/// The default: with a key, [`murmur2`] of the key, which gives the partition that Kafka's default gives; without one,
/// the sticky partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DefaultPartitioner;

impl Partitioner for DefaultPartitioner {
    fn partition(&self, record: &Record<'_>, topic: &TopicPartitions<'_>) -> PartitionIndex {
        record.key.map_or_else(|| topic.sticky(), |key| by_key(key, topic))
    }
}

/// With a key as [`DefaultPartitioner`]; without one, a partition after the other. Spreads evenly, fills batches badly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoundRobinPartitioner;

impl Partitioner for RoundRobinPartitioner {
    fn partition(&self, record: &Record<'_>, topic: &TopicPartitions<'_>) -> PartitionIndex {
        record.key.map_or_else(|| topic.round_robin(), |key| by_key(key, topic))
    }
}

/// The sticky partition, whatever the key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StickyPartitioner;

impl Partitioner for StickyPartitioner {
    fn partition(&self, _record: &Record<'_>, topic: &TopicPartitions<'_>) -> PartitionIndex {
        topic.sticky()
    }
}

/// As Kafka's `BuiltInPartitioner.partitionForKey`.
fn by_key(key: &[u8], topic: &TopicPartitions<'_>) -> PartitionIndex {
    topic.by_hash(murmur2(key) & 0x7fff_ffff)
}

/// Murmur2 as Kafka computes it (`org.apache.kafka.common.utils.Utils.murmur2`), seed `0x9747b28c`.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, &byte) in tail.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Kafka's own vectors (`UtilsTest.testMurmur2`).
    #[test]
    fn murmur2_gives_kafkas_results() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn keyed_records_go_where_kafka_puts_them() {
        let spread = Spread::new();
        let topic = TopicPartitions::new(7, &spread);
        for (key, hash) in [("21", -973_932_308_i32), ("abc", 479_470_107)] {
            let want = PartitionIndex::new((hash & 0x7fff_ffff) % 7);
            let record = Record::to("t").key(key);
            assert_eq!(DefaultPartitioner.partition(&record, &topic), want);
            assert_eq!(RoundRobinPartitioner.partition(&record, &topic), want);
        }
    }

    #[test]
    fn without_a_key_round_robin_takes_each_partition_in_turn() {
        let spread = Spread::new();
        let topic = TopicPartitions::new(3, &spread);
        let chosen: HashSet<_> = (0..3)
            .map(|_| RoundRobinPartitioner.partition(&Record::to("t").value("v"), &topic))
            .collect();
        assert_eq!(chosen.len(), 3);
    }

    #[test]
    fn without_a_key_the_default_stays_until_the_batch_is_closed_and_then_moves() {
        let spread = Spread::new();
        let topic = TopicPartitions::new(5, &spread);
        let record = Record::to("t").value("v");
        for _ in 0..100 {
            let first = DefaultPartitioner.partition(&record, &topic);
            assert_eq!(DefaultPartitioner.partition(&record, &topic), first);
            let other = PartitionIndex::new((first.get() + 1) % 5);
            spread.batch_closed(other, 5);
            assert_eq!(
                DefaultPartitioner.partition(&record, &topic),
                first,
                "moved by another partition's batch"
            );
            spread.batch_closed(first, 5);
            assert_ne!(DefaultPartitioner.partition(&record, &topic), first);
        }
    }

    #[test]
    fn a_closure_is_a_partitioner() {
        let spread = Spread::new();
        let topic = TopicPartitions::new(4, &spread);
        let last = |_: &Record<'_>, topic: &TopicPartitions<'_>| topic.by_hash(topic.count() - 1);
        assert_eq!(
            Partitioner::partition(&last, &Record::to("t"), &topic),
            PartitionIndex::new(3)
        );
    }
}
