//! The one table of Kafka's names for settings of brokers that mean something here, with what is true.
//!
//! All are read when a broker starts, from its configuration under its own names; those are described too.

use headwater_protocol::id::CoreId;

use super::kinds::Kind;
use crate::{
    config::{Balance, Config, Millis, Role},
    image::{Durability, Terms},
    ops::{Ops, nodes::Places},
};

/// A broker as its settings have it.
pub(super) struct Described<'a> {
    config: &'a Config,
    /// The node that describes itself.
    pub(super) node: i32,
    /// Its address, as it tells it.
    address: String,
}

/// A setting.
pub(super) struct BrokerConfig {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    value: fn(&Described<'_>) -> Option<String>,
    pub(super) origin: Origin,
}

/// Where its value comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The configuration, or its default.
    Configuration,
    /// It is different for each broker.
    Itself,
    /// It cannot be anything else.
    Fixed,
}

use Kind::{Boolean, Double, Int, List, Long, Short, Text};
use Origin::{Configuration, Fixed, Itself};

/// In the order of their names.
#[rustfmt::skip]
pub(super) const BROKER_CONFIGS: &[BrokerConfig] = &[
    row("advertised.listeners", List, Itself, |broker| told(&broker.address)),
    row("authorizer.class.name", Text, Fixed, |_| told("")),
    row("auto.create.topics.enable", Boolean, Configuration, |broker| told(broker.config.kafka.auto_create_topics)),
    row("auto.leader.rebalance.enable", Boolean, Configuration, |broker| told(broker.config.cluster.balance != Balance::Off)),
    row("broker.id", Int, Itself, |broker| told(broker.node)),
    row("broker.rack", Text, Configuration, |broker| broker.config.broker.rack.as_ref().map(|rack| rack.as_str().to_owned())),
    row("compression.type", Text, Fixed, |_| told("producer")),
    row("connections.max.idle.ms", Long, Configuration, |broker| told(broker.config.limits.connection_idle_ms.get())),
    row("controlled.shutdown.enable", Boolean, Fixed, |_| told(true)),
    row("default.replication.factor", Int, Configuration, |broker| told(broker.config.topics.replication_factor)),
    row("delete.topic.enable", Boolean, Fixed, |_| told(true)),
    row("fetch.max.bytes", Int, Configuration, |broker| told(broker.config.limits.fetch_size_bytes_max.bytes())),
    row("group.consumer.assignment.interval.ms", Int, Configuration, |broker| told(broker.config.groups.consumer_assignment_interval_ms.get())),
    row("group.consumer.assignors", List, Fixed, |_| told("uniform,range")),
    row("group.consumer.heartbeat.interval.ms", Int, Configuration, |broker| told(broker.config.groups.consumer_heartbeat_interval_ms.get())),
    row("group.consumer.session.timeout.ms", Int, Configuration, |broker| told(broker.config.groups.consumer_session_timeout_ms.get())),
    row("group.coordinator.rebalance.protocols", List, Fixed, |_| told("classic,consumer")),
    row("group.initial.rebalance.delay.ms", Int, Configuration, |broker| told(broker.config.groups.initial_rebalance_delay_ms.get())),
    row("group.max.session.timeout.ms", Int, Configuration, |broker| told(broker.config.groups.session_timeout_ms_max.get())),
    row("group.max.size", Int, Configuration, |broker| told(broker.config.groups.members_max)),
    row("group.min.session.timeout.ms", Int, Configuration, |broker| told(broker.config.groups.session_timeout_ms_min.get())),
    row("inter.broker.listener.name", Text, Fixed, |_| told("PLAINTEXT")),
    row("listener.security.protocol.map", Text, Fixed, |_| told("PLAINTEXT:PLAINTEXT")),
    row("listeners", List, Itself, |broker| told(&broker.address)),
    row("log.cleaner.backoff.ms", Long, Configuration, |broker| told(broker.config.compaction.check_interval_ms.get())),
    row("log.cleaner.delete.retention.ms", Long, Configuration, |broker| told(broker.config.compaction.delete_retention_ms.get())),
    row("log.cleaner.enable", Boolean, Fixed, |_| told(true)),
    row("log.cleaner.max.compaction.lag.ms", Long, Configuration, |broker| told(broker.config.compaction.lag_ms_max.map_or(i64::MAX.cast_unsigned(), Millis::get))),
    row("log.cleaner.min.cleanable.ratio", Double, Configuration, |broker| told(broker.config.compaction.dirty_ratio_min)),
    row("log.cleaner.min.compaction.lag.ms", Long, Configuration, |broker| told(broker.config.compaction.lag_ms_min.get())),
    row("log.cleanup.policy", List, Fixed, |_| told("delete")),
    row("log.dir", Text, Itself, |broker| told(broker.config.log.directory.display())),
    row("log.dirs", List, Itself, |broker| told(broker.config.log.directory.display())),
    row("log.index.interval.bytes", Int, Configuration, |broker| told(broker.config.log.index_interval_bytes.bytes())),
    row("log.message.timestamp.after.max.ms", Long, Configuration, |broker| told(broker.config.log.timestamp_ahead_ms_max.get())),
    row("log.message.timestamp.before.max.ms", Long, Fixed, |_| told(i64::MAX)),
    row("log.message.timestamp.type", Text, Fixed, |_| told("CreateTime")),
    row("log.preallocate", Boolean, Fixed, |_| told(false)),
    row("log.retention.bytes", Long, Configuration, |broker| told(broker.config.log.retention_bytes.map_or(-1, |size| size.bytes().cast_signed()))),
    row("log.retention.check.interval.ms", Long, Configuration, |broker| told(broker.config.log.retention_check_interval_ms.get())),
    row("log.retention.ms", Long, Configuration, |broker| told(broker.config.log.retention_ms.map_or(-1, |age| age.get().cast_signed()))),
    row("log.roll.ms", Long, Configuration, |broker| told(broker.config.log.segment_age_ms.get())),
    row("log.segment.bytes", Int, Configuration, |broker| told(broker.config.log.segment_size_bytes.bytes())),
    row("max.connections", Int, Configuration, |broker| told(broker.config.limits.connections_max)),
    row("max.decompressed.message.bytes", Int, Fixed, |_| told(headwater_engine::DECOMPRESSED_SIZE_MAX)),
    row("message.max.bytes", Int, Configuration, |broker| told(broker.config.log.batch_size_bytes_max.bytes())),
    row("min.insync.replicas", Int, Configuration, |broker| told(min_isr(broker.config.topics.replication_factor.into()))),
    row("node.id", Int, Itself, |broker| told(broker.node)),
    row("num.partitions", Int, Configuration, |broker| told(broker.config.topics.partitions)),
    row("offset.metadata.max.bytes", Int, Configuration, |broker| told(broker.config.groups.offset_metadata_bytes_max.bytes())),
    row("offsets.retention.check.interval.ms", Long, Configuration, |broker| told(broker.config.groups.offsets_check_interval_ms.get())),
    row("offsets.retention.minutes", Int, Configuration, |broker| told(broker.config.groups.offsets_retention_ms.get().div_ceil(60_000))),
    row("offsets.topic.num.partitions", Int, Configuration, |broker| told(broker.config.groups.offsets_partitions)),
    row("offsets.topic.replication.factor", Short, Configuration, |broker| told(broker.config.topics.replication_factor)),
    row("offsets.topic.segment.bytes", Int, Configuration, |broker| told(broker.config.groups.offsets_segment_size_bytes.bytes())),
    row("process.roles", List, Itself, |broker| told(if broker.config.cluster.role == Role::Both { "broker,controller" } else { "controller" })),
    row("producer.id.expiration.ms", Int, Configuration, |broker| told(broker.config.producers.expiry_ms.get())),
    row("replica.selector.class", Text, Fixed, |_| told("org.apache.kafka.common.replica.RackAwareReplicaSelector")),
    row("sasl.enabled.mechanisms", List, Fixed, |_| told("")),
    row("security.inter.broker.protocol", Text, Fixed, |_| told("PLAINTEXT")),
    row("socket.request.max.bytes", Int, Configuration, |broker| told(broker.config.limits.frame_size_bytes_max.bytes())),
    row("transaction.max.timeout.ms", Int, Configuration, |broker| told(broker.config.transactions.timeout_ms_max.get())),
    row("transaction.remove.expired.transaction.cleanup.interval.ms", Int, Configuration, |broker| told(broker.config.transactions.id_check_interval_ms.get())),
    row("transaction.state.log.num.partitions", Int, Configuration, |broker| told(broker.config.transactions.state_partitions)),
    row("transaction.state.log.replication.factor", Short, Configuration, |broker| told(broker.config.topics.replication_factor)),
    row("transaction.state.log.segment.bytes", Int, Configuration, |broker| told(broker.config.transactions.state_segment_size_bytes.bytes())),
    row("transactional.id.expiration.ms", Int, Configuration, |broker| told(broker.config.transactions.id_expiry_ms.get())),
    row("unclean.leader.election.enable", Boolean, Fixed, |_| told(false)),
];

const fn row(
    name: &'static str,
    kind: Kind,
    origin: Origin,
    value: fn(&Described<'_>) -> Option<String>,
) -> BrokerConfig {
    BrokerConfig {
        name,
        kind,
        value,
        origin,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the table has settings without a value")]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the table is read more easily without references"
)]
fn told(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

/// How many of so many replicas must be in sync where a topic does not say.
fn min_isr(replicas: usize) -> u16 {
    Terms::of_topic(None, Durability::default(), replicas).min_isr
}

impl<'a> Described<'a> {
    /// This broker, by the node that was asked.
    pub(super) fn of(ops: &'a Ops, places: &Places<'_>, core: CoreId) -> Described<'a> {
        let config = &*ops.core.config;
        let node = places.node(config.broker.id, core);
        let nodes = places.nodes();
        let at = nodes.iter().find(|candidate| candidate.id == node);
        Described {
            config,
            node,
            address: at.map_or_else(String::new, |at| format!("PLAINTEXT://{}:{}", at.host, at.port)),
        }
    }

    /// The same with nothing configured.
    pub(super) fn unconfigured<'b>(&self, default: &'b Config) -> Described<'b> {
        Described {
            config: default,
            node: self.node,
            address: self.address.clone(),
        }
    }

    pub(super) fn value(&self, config: &BrokerConfig) -> Option<String> {
        (config.value)(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_has_each_name_once() {
        assert!(BROKER_CONFIGS.is_sorted_by(|one, next| one.name < next.name));
    }
}
