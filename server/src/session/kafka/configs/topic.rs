//! The one table of a topic's settings: all that Kafka 4.4 has, and one of this broker's own.
//!
//! What the cluster keeps of a topic is in `image/settings.rs`. A name that Kafka has and that means nothing here is described with the
//! value that is true, and may be set to that value and no other, as many tools set all that they know.

use headwater_protocol::error::ErrorCode;

use super::kinds::{self, Allowed, Kind};
use crate::{config::Config, model::refusal::Refusal};

/// A setting.
#[derive(Debug)]
pub(super) struct TopicConfig {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    allowed: Allowed,
    /// What it is in Kafka where nobody sets it.
    default: &'static str,
    /// The broker's setting that it stands over, if there is one.
    pub(super) broker: Option<&'static str>,
    pub(super) means: Means,
}

/// What it means here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Means {
    /// The same as in Kafka: the cluster keeps it.
    Same,
    /// The same, but for what it is where nobody sets it, and why.
    Other(&'static str),
    /// It is what it is, and why.
    Fixed(&'static str),
}

use Allowed::{Any, AtLeast, Between, OneOf, Share};
use Kind::{Boolean, Double, Int, List, Long, Text};
use Means::{Fixed, Other, Same};

const NEVER: &str = "9223372036854775807";
const TIERED: &str = "there is no tiered storage";
const RECOMPRESSED: &str = "batches are kept as their producer compressed them";
const FLUSHED: &str = "records are flushed before they are acknowledged, whatever is set";
const THROTTLED: &str = "replicas that are behind are slowed down by cluster.catch_up_bytes_per_second_max";
const DEAD_LETTERS: &str = "there are no share groups";

/// In the order of their names.
#[rustfmt::skip]
pub(super) const TOPIC_CONFIGS: &[TopicConfig] = &[
    row("cleanup.policy", List, OneOf(&["compact", "delete"]), "delete", Some("log.cleanup.policy"), Same),
    row("compression.gzip.level", Int, Between(-1, 9), "-1", Some("compression.gzip.level"), Fixed(RECOMPRESSED)),
    row("compression.lz4.level", Int, Between(1, 17), "9", Some("compression.lz4.level"), Fixed(RECOMPRESSED)),
    row("compression.type", Text, OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), "producer", Some("compression.type"), Fixed(RECOMPRESSED)),
    row("compression.zstd.level", Int, Between(-131_072, 22), "3", Some("compression.zstd.level"), Fixed(RECOMPRESSED)),
    row("delete.retention.ms", Long, AtLeast(0), "86400000", Some("log.cleaner.delete.retention.ms"), Same),
    row("durability", Text, OneOf(&["disk", "memory"]), "disk", None, Other("Kafka has none: what a replica must have done with a record that is acknowledged")),
    row("errors.deadletterqueue.group.enable", Boolean, Any, "false", None, Fixed(DEAD_LETTERS)),
    row("file.delete.delay.ms", Long, AtLeast(0), "60000", Some("log.segment.delete.delay.ms"), Fixed("files go as soon as nobody reads them")),
    row("flush.messages", Long, AtLeast(1), NEVER, Some("log.flush.interval.messages"), Fixed(FLUSHED)),
    row("flush.ms", Long, AtLeast(0), NEVER, Some("log.flush.interval.ms"), Fixed(FLUSHED)),
    row("follower.replication.throttled.replicas", List, Any, "", None, Fixed(THROTTLED)),
    row("index.interval.bytes", Int, AtLeast(0), "4096", Some("log.index.interval.bytes"), Fixed("it is log.index_interval_bytes of each broker")),
    row("leader.replication.throttled.replicas", List, Any, "", None, Fixed(THROTTLED)),
    row("local.retention.bytes", Long, AtLeast(-2), "-2", Some("log.local.retention.bytes"), Fixed(TIERED)),
    row("local.retention.ms", Long, AtLeast(-2), "-2", Some("log.local.retention.ms"), Fixed(TIERED)),
    row("max.compaction.lag.ms", Long, AtLeast(1), NEVER, Some("log.cleaner.max.compaction.lag.ms"), Same),
    row("max.decompressed.message.bytes", Int, AtLeast(0), "2147483639", Some("max.decompressed.message.bytes"), Fixed("more is not opened")),
    row("max.message.bytes", Int, AtLeast(0), "1048588", Some("message.max.bytes"), Other("log.batch_size_bytes_max: 4 MiB")),
    row("message.timestamp.after.max.ms", Long, AtLeast(0), "3600000", Some("log.message.timestamp.after.max.ms"), Same),
    row("message.timestamp.before.max.ms", Long, AtLeast(0), NEVER, Some("log.message.timestamp.before.max.ms"), Same),
    row("message.timestamp.type", Text, OneOf(&["CreateTime", "LogAppendTime"]), "CreateTime", Some("log.message.timestamp.type"), Same),
    row("min.cleanable.dirty.ratio", Double, Share, "0.5", Some("log.cleaner.min.cleanable.ratio"), Same),
    row("min.compaction.lag.ms", Long, AtLeast(0), "0", Some("log.cleaner.min.compaction.lag.ms"), Same),
    row("min.insync.replicas", Int, AtLeast(1), "1", Some("min.insync.replicas"), Other("2 of three replicas or more, so that one broker may be lost with its disk")),
    row("preallocate", Boolean, Any, "false", Some("log.preallocate"), Fixed("space is reserved ahead of the writes by itself")),
    row("remote.copy.lag.bytes", Long, Any, "-1", Some("log.remote.copy.lag.bytes"), Fixed(TIERED)),
    row("remote.copy.lag.ms", Long, Any, "0", Some("log.remote.copy.lag.ms"), Fixed(TIERED)),
    row("remote.log.copy.disable", Boolean, Any, "false", None, Fixed(TIERED)),
    row("remote.log.delete.on.disable", Boolean, Any, "false", None, Fixed(TIERED)),
    row("remote.storage.enable", Boolean, Any, "false", None, Fixed(TIERED)),
    row("retention.bytes", Long, Any, "-1", Some("log.retention.bytes"), Same),
    row("retention.ms", Long, AtLeast(-1), "604800000", Some("log.retention.ms"), Same),
    row("segment.bytes", Int, AtLeast(1 << 20), "1073741824", Some("log.segment.bytes"), Same),
    row("segment.index.bytes", Int, AtLeast(4), "10485760", Some("log.index.size.max.bytes"), Fixed("an index grows with its segment")),
    row("segment.jitter.ms", Long, AtLeast(0), "0", Some("log.roll.jitter.ms"), Fixed("segments roll by the age of their own first records")),
    row("segment.ms", Long, AtLeast(1), "604800000", Some("log.roll.ms"), Same),
    row("unclean.leader.election.enable", Boolean, Any, "false", Some("unclean.leader.election.enable"), Fixed("a replica that may lack records leads only when an operator says so")),
];

const fn row(
    name: &'static str,
    kind: Kind,
    allowed: Allowed,
    default: &'static str,
    broker: Option<&'static str>,
    means: Means,
) -> TopicConfig {
    TopicConfig {
        name,
        kind,
        allowed,
        default,
        broker,
        means,
    }
}

/// Those whose broker's setting has no value in Kafka where nobody sets it, as another in hours stands for it.
const IN_HOURS: [&str; 4] = ["flush.ms", "retention.ms", "segment.jitter.ms", "segment.ms"];

impl TopicConfig {
    pub(super) fn named(name: &str) -> Option<&'static TopicConfig> {
        TOPIC_CONFIGS.iter().find(|config| config.name == name)
    }

    /// The value of one that is fixed.
    pub(super) fn fixed(&self, config: &Config) -> String {
        match self.name {
            "index.interval.bytes" => config.log.index_interval_bytes.bytes().to_string(),
            "max.decompressed.message.bytes" => headwater_engine::DECOMPRESSED_SIZE_MAX.to_string(),
            _ => self.default.to_owned(),
        }
    }

    /// What the broker's setting is called, where it has a value of its own although nobody sets it.
    pub(super) fn broker_default(&self) -> Option<&'static str> {
        self.broker.filter(|_| !IN_HOURS.contains(&self.name))
    }

    /// What people are told of it.
    pub(super) fn about(&self) -> String {
        let broker = self
            .broker
            .map_or_else(String::new, |broker| format!(" It stands over the broker's {broker}."));
        match self.means {
            Same => format!("As in Kafka.{broker}"),
            Other(why) => format!("As in Kafka, but for its default: {why}.{broker}"),
            Fixed(why) => format!("Cannot be changed here: {why}."),
        }
    }

    /// Whether a value is one that the cluster has to be told of; refused if it cannot be.
    pub(super) fn takes(&self, value: &str, config: &Config) -> Result<bool, Refusal> {
        kinds::check(self.name, (self.kind, self.allowed), value)?;
        let Fixed(why) = self.means else {
            return Ok(true);
        };
        let fixed = self.fixed(config);
        if fixed.eq_ignore_ascii_case(value.trim()) {
            return Ok(false);
        }
        let message = match self.name {
            "remote.storage.enable" => {
                "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
                    .to_owned()
            }
            name => format!("{name} can be nothing but {fixed} here: {why}"),
        };
        Err(Refusal::new(ErrorCode::InvalidConfig, message))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::image::settings;

    #[test]
    fn the_table_has_what_kafka_has_and_its_defaults_are_kafkas_unless_it_says_otherwise() {
        assert!(TOPIC_CONFIGS.is_sorted_by_key(|config| config.name));
        let own = |config: &&TopicConfig| config.name != "durability";
        assert_eq!(TOPIC_CONFIGS.iter().filter(own).count(), 37);
        let config = Config::default();
        let described = settings::described(&BTreeMap::new(), &config, 2);
        let kept: Vec<&str> = described.iter().map(|setting| setting.name).collect();
        let same = TOPIC_CONFIGS.iter().filter(|config| !matches!(config.means, Fixed(_)));
        assert_eq!(kept, same.map(|config| config.name).collect::<Vec<_>>());
        for setting in described {
            let row = TopicConfig::named(setting.name).unwrap();
            let is_kafkas = setting.value == row.default;
            assert!(
                is_kafkas || matches!(row.means, Other(_)),
                "{}: {}",
                row.name,
                setting.value
            );
            assert!(row.takes(&setting.value, &config).unwrap(), "{}", row.name);
        }
    }
}
