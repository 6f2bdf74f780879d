//! Topics of the broker's own. Clients read them like any other, but write, make, cut and delete them through what they are for only.

/// What groups have committed. Its name is Kafka's.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Whether clients must leave the topic to the broker.
pub(crate) fn is_internal(topic: &str) -> bool {
    topic == OFFSETS_TOPIC
}
