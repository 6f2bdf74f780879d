//! The topic `__consumer_offsets`: how it is made, and which of its partitions a group belongs to.

use headwater_protocol::id::PartitionIndex;

use crate::{
    config::Config,
    model::{internal::OFFSETS_TOPIC, op::NewTopic},
};

/// Its configuration: only the last record of a key counts, and nothing may be deleted by age or size, or committed offsets
/// would be lost.
const OFFSETS_TOPIC_CONFIGS: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
];

/// The topic as the first group makes it.
pub(crate) fn new_topic(config: &Config) -> NewTopic {
    let pairs = OFFSETS_TOPIC_CONFIGS
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let segment_size = config.groups.offsets_segment_size_bytes.bytes();
    let pairs = pairs.chain([("segment.bytes".to_owned(), segment_size.to_string())]);
    NewTopic {
        name: OFFSETS_TOPIC.to_owned(),
        partitions: config.groups.offsets_partitions.cast_signed(),
        replication_factor: -1,
        configs: pairs.collect(),
        assignments: None,
    }
}

/// The partition of `count` that a group belongs to: Java's `String.hashCode`, as in Kafka (`partitionFor`).
pub(super) fn partition_of(group: &str, count: u32) -> PartitionIndex {
    let hash = group
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
