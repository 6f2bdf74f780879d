//! Topics of the broker's own. Clients read them like any other, but write, make, cut and delete them through what they are for only.

/// What groups have committed. Its name is Kafka's.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Who was allowed or denied what.
pub(crate) const AUDIT_TOPIC: &str = "__audit";

/// What transactional ids are at. Its name is Kafka's.
pub(crate) const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// Whether clients must leave the topic to the broker.
pub(crate) fn is_internal(topic: &str) -> bool {
    [OFFSETS_TOPIC, AUDIT_TOPIC, TRANSACTIONS_TOPIC].contains(&topic)
}
