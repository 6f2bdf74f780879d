//! The topics `__consumer_offsets` and `__transaction_state`: how they are made, and which of their partitions a group or a transactional
//! id belongs to.

use headwater_protocol::id::PartitionIndex;

use crate::{
    config::Config,
    model::{
        internal::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC},
        op::NewTopic,
    },
};

/// Their configuration: only the last record of a key counts, and nothing may be deleted by age or size, or committed offsets
/// would be lost.
const CONFIGS: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
];

/// The topic as the first group makes it.
pub(crate) fn new_topic(config: &Config) -> NewTopic {
    let groups = &config.groups;
    made(
        OFFSETS_TOPIC,
        groups.offsets_partitions,
        groups.offsets_segment_size_bytes.bytes(),
    )
}

/// The topic as the first transactional producer makes it.
pub(crate) fn new_transactions_topic(config: &Config) -> NewTopic {
    let transactions = &config.transactions;
    let segment_size = transactions.state_segment_size_bytes.bytes();
    made(TRANSACTIONS_TOPIC, transactions.state_partitions, segment_size)
}

fn made(name: &str, partitions: u32, segment_size: u64) -> NewTopic {
    let pairs = CONFIGS
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let pairs = pairs.chain([("segment.bytes".to_owned(), segment_size.to_string())]);
    NewTopic {
        name: name.to_owned(),
        partitions: partitions.cast_signed(),
        replication_factor: -1,
        configs: pairs.collect(),
        assignments: None,
    }
}

/// The partition of `count` that a group, or a transactional id, belongs to: Java's `String.hashCode`, as in Kafka (`partitionFor`).
pub(crate) fn partition_of(id: &str, count: u32) -> PartitionIndex {
    let hash = id
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
    // Kafka's `Utils.abs`: the one number without an opposite counts as 0.
    let hash = hash.checked_abs().unwrap_or(0).cast_unsigned();
    PartitionIndex::new((hash % count.max(1)).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::settings::TopicSettings;

    #[test]
    fn groups_lie_where_kafka_puts_them() {
        // From a JVM: "hello".hashCode() = 99162322; "polygenelubricants".hashCode() = Integer.MIN_VALUE.
        for (group, partition) in [("hello", 22), ("polygenelubricants", 0), ("", 0), ("a", 47), ("ab", 5)] {
            assert_eq!(partition_of(group, 50), PartitionIndex::new(partition), "{group}");
        }
    }

    #[test]
    fn the_topic_can_be_made_and_keeps_its_records() {
        let new = new_topic(&Config::default());
        let overrides = new.configs.into_iter().collect();
        let settings = TopicSettings::of_new_topic(&overrides, &Config::default()).unwrap();
        assert_eq!((settings.retention_ms, settings.retention_bytes), (None, None));
        assert_eq!(settings.segment_size_bytes.bytes(), 100 << 20);
    }
}
