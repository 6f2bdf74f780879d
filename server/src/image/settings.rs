//! What a topic can set for itself: Kafka's names, over the broker's configuration.
//!
//! Each key but four stands for a key of the broker's configuration, whose type it shares, and its range but for times, which may be
//! what they may be in Kafka. A topic's settings are kept by name and as text, as they were checked when they were set; what is in force is
//! found out where it is used, with the configuration of the broker that uses it, and is a typed [`TopicSettings`] from then on.

mod change;

use std::collections::BTreeMap;
use std::fmt::Display;

use headwater_engine::{CompactionConfig, FlushConfig, LogConfig, ProducerConfig};
use headwater_protocol::batch::{BatchLimits, TimestampType};

pub(crate) use self::change::{altered, overrides};
use super::{Durability, Terms};
use crate::config::{ByteSize, Config, Knob, Millis, Ratio, Value};

const RETENTION_MS: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
const SEGMENT_BYTES: &str = "segment.bytes";
const SEGMENT_MS: &str = "segment.ms";
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const CLEANUP_POLICY: &str = "cleanup.policy";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const TIMESTAMP_AFTER: &str = "message.timestamp.after.max.ms";
const TIMESTAMP_BEFORE: &str = "message.timestamp.before.max.ms";
const DELETE_RETENTION_MS: &str = "delete.retention.ms";
const MAX_COMPACTION_LAG_MS: &str = "max.compaction.lag.ms";
const MIN_COMPACTION_LAG_MS: &str = "min.compaction.lag.ms";
const MIN_DIRTY_RATIO: &str = "min.cleanable.dirty.ratio";
const MIN_ISR: &str = "min.insync.replicas";
const DURABILITY: &str = "durability";

/// Every key that a topic can set.
const KEYS: [&str; 15] = [
    CLEANUP_POLICY,
    DELETE_RETENTION_MS,
    DURABILITY,
    MAX_COMPACTION_LAG_MS,
    MAX_MESSAGE_BYTES,
    TIMESTAMP_AFTER,
    TIMESTAMP_BEFORE,
    TIMESTAMP_TYPE,
    MIN_DIRTY_RATIO,
    MIN_COMPACTION_LAG_MS,
    MIN_ISR,
    RETENTION_BYTES,
    RETENTION_MS,
    SEGMENT_BYTES,
    SEGMENT_MS,
];

/// Why a topic's configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// There is no such key.
    #[error("there is no topic configuration {key:?}; there are {}", KEYS.join(", "))]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// The key is given twice.
    #[error("the topic configuration {key} is given more than once")]
    Repeated {
        /// The key.
        key: String,
    },
    /// The value cannot be what the key asks for.
    #[error("{key} = {value:?} is not valid: allowed is {allowed}")]
    Invalid {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is.
        allowed: String,
    },
}

/// What becomes of old records (cleanup.policy).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Retention deletes them.
    Delete,
    /// Only the last of each key stays, for ever.
    Compact,
    /// Only the last of each key stays, until retention deletes it.
    CompactAndDelete,
    /// All stay, for ever.
    Keep,
}

impl Cleanup {
    const ALLOWED: &str = "\"delete\", \"compact\", \"compact,delete\", or nothing, to keep all";

    fn read(text: &str) -> Option<Self> {
        let mut policies: Vec<&str> = text.split(',').map(str::trim).collect();
        policies.sort_unstable();
        match policies[..] {
            ["delete"] => Some(Self::Delete),
            ["compact"] => Some(Self::Compact),
            ["compact", "delete"] => Some(Self::CompactAndDelete),
            [""] => Some(Self::Keep),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactAndDelete => "compact,delete",
            Self::Keep => "",
        }
    }

    const fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::CompactAndDelete)
    }

    const fn compacts(self) -> bool {
        matches!(self, Self::Compact | Self::CompactAndDelete)
    }
}

/// When and how a topic is compacted, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionSettings {
    /// min.cleanable.dirty.ratio: share of what is sealed that must be new.
    pub dirty_ratio_min: Ratio,
    /// min.compaction.lag.ms: age that a record reaches before it may be compacted away.
    pub lag_ms_min: Millis,
    /// max.compaction.lag.ms: age at which a record is compacted away in any case.
    pub lag_ms_max: Option<Millis>,
    /// delete.retention.ms: how long a tombstone stays when what it deletes is gone.
    pub delete_retention_ms: Millis,
}

/// What is in force for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// cleanup.policy: what becomes of old records.
    pub cleanup: Cleanup,
    /// When and how it is compacted, if it is.
    pub compaction: CompactionSettings,
    /// retention.ms: age at which records are deleted.
    pub retention_ms: Option<Millis>,
    /// retention.bytes: size of a partition beyond which its oldest segments are deleted.
    pub retention_bytes: Option<ByteSize>,
    /// segment.bytes: size at which a segment rolls.
    pub segment_size_bytes: ByteSize,
    /// segment.ms: age of its first record at which a segment rolls.
    pub segment_age_ms: Millis,
    /// max.message.bytes: largest record batch; never above `segment_size_bytes` or the broker's own limit.
    pub batch_size_bytes_max: ByteSize,
    /// message.timestamp.type: whose clock stamps the records.
    pub timestamp_type: TimestampType,
    /// message.timestamp.after.max.ms: how far ahead of the broker's clock a producer's timestamp may be.
    pub timestamp_ahead_ms_max: Millis,
    /// message.timestamp.before.max.ms: how far behind it.
    pub timestamp_behind_ms_max: Option<Millis>,
    /// min.insync.replicas: how many must be in sync for a record to be acknowledged; by the number of replicas if it is not set.
    pub min_isr: Option<u16>,
    /// durability: what a replica must have done with a record for it to be acknowledged.
    pub durability: Durability,
}

impl TopicSettings {
    /// The broker's configuration with a new topic's overrides over it, which must fit each other and the broker.
    pub fn of_new_topic(overrides: &BTreeMap<String, String>, config: &Config) -> Result<Self, SettingError> {
        let settings = Self::read(overrides, config)?;
        settings.check_batch_size(overrides, config)?;
        Ok(settings.clamped(config))
    }

    /// The same for a topic of which the keys `changed` were changed; about the others the broker's limits may have come to
    /// say something else since.
    pub fn of_altered_topic<'a>(
        overrides: &BTreeMap<String, String>,
        mut changed: impl Iterator<Item = &'a str>,
        config: &Config,
    ) -> Result<Self, SettingError> {
        let settings = Self::read(overrides, config)?;
        if changed.any(|key| [MAX_MESSAGE_BYTES, SEGMENT_BYTES].contains(&key)) {
            settings.check_batch_size(overrides, config)?;
        }
        Ok(settings.clamped(config))
    }

    fn check_batch_size(&self, overrides: &BTreeMap<String, String>, config: &Config) -> Result<(), SettingError> {
        if overrides.contains_key(MAX_MESSAGE_BYTES) {
            let batch = self.batch_size_bytes_max;
            let broker_max = config.log.batch_size_bytes_max;
            if batch > broker_max {
                let allowed = format!("at most the broker's log.batch_size_bytes_max, {}", broker_max.bytes());
                return Err(invalid(MAX_MESSAGE_BYTES, batch.bytes(), allowed));
            }
            if batch > self.segment_size_bytes {
                let allowed = format!("at most {SEGMENT_BYTES}, {}", self.segment_size_bytes.bytes());
                return Err(invalid(MAX_MESSAGE_BYTES, batch.bytes(), allowed));
            }
        }
        Ok(())
    }

    /// Whether this broker knows and would take all settings of a topic that exists, but for limits that may have been lowered since.
    pub fn check(overrides: &BTreeMap<String, String>, config: &Config) -> Result<(), SettingError> {
        Self::read(overrides, config).map(drop)
    }

    /// What is in force for a topic that exists, on a broker of this configuration: its limits may have been lowered since, and then
    /// win. A setting that it does not know, or would not take, is as if it were not set: another broker may be newer.
    pub fn in_force(overrides: &BTreeMap<String, String>, config: &Config) -> Self {
        let mut settings = Self::of_broker(config);
        for (key, value) in overrides {
            let before = settings.clone();
            if settings.set(key, value).is_err() {
                settings = before;
            }
        }
        settings.clamped(config)
    }

    fn read(overrides: &BTreeMap<String, String>, config: &Config) -> Result<Self, SettingError> {
        let mut settings = Self::of_broker(config);
        for (key, value) in overrides {
            settings.set(key, value)?;
        }
        Ok(settings)
    }

    /// What is in force where nothing is set.
    fn of_broker(config: &Config) -> Self {
        let log = &config.log;
        let compaction = &config.compaction;
        Self {
            cleanup: Cleanup::Delete,
            compaction: CompactionSettings {
                dirty_ratio_min: compaction.dirty_ratio_min,
                lag_ms_min: compaction.lag_ms_min,
                lag_ms_max: compaction.lag_ms_max,
                delete_retention_ms: compaction.delete_retention_ms,
            },
            retention_ms: log.retention_ms,
            retention_bytes: log.retention_bytes,
            segment_size_bytes: log.segment_size_bytes,
            segment_age_ms: log.segment_age_ms,
            batch_size_bytes_max: log.batch_size_bytes_max,
            timestamp_type: TimestampType::CreateTime,
            timestamp_ahead_ms_max: log.timestamp_ahead_ms_max,
            timestamp_behind_ms_max: None,
            min_isr: None,
            durability: Durability::Disk,
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), SettingError> {
        match key {
            RETENTION_MS => set_time(&mut self.retention_ms, 0, key, value),
            // Kafka takes any negative number for no limit.
            RETENTION_BYTES if value.parse().is_ok_and(|bytes: i64| bytes < 0) => {
                self.retention_bytes = None;
                Ok(())
            }
            RETENTION_BYTES => set(&mut self.retention_bytes, "log.retention_bytes", key, value),
            SEGMENT_BYTES => set(&mut self.segment_size_bytes, "log.segment_size_bytes", key, value),
            SEGMENT_MS => set_time(&mut self.segment_age_ms, 1, key, value),
            MAX_MESSAGE_BYTES => set(&mut self.batch_size_bytes_max, "log.batch_size_bytes_max", key, value),
            CLEANUP_POLICY => {
                self.cleanup = Cleanup::read(value).ok_or_else(|| invalid(key, value, Cleanup::ALLOWED))?;
                Ok(())
            }
            MIN_DIRTY_RATIO => set(
                &mut self.compaction.dirty_ratio_min,
                "compaction.dirty_ratio_min",
                key,
                value,
            ),
            MIN_COMPACTION_LAG_MS => set_time(&mut self.compaction.lag_ms_min, 0, key, value),
            MAX_COMPACTION_LAG_MS if is_unlimited(value) => {
                self.compaction.lag_ms_max = None;
                Ok(())
            }
            MAX_COMPACTION_LAG_MS => set_time(&mut self.compaction.lag_ms_max, 1, key, value),
            DELETE_RETENTION_MS => set_time(&mut self.compaction.delete_retention_ms, 0, key, value),
            TIMESTAMP_TYPE => {
                self.timestamp_type = match value {
                    "CreateTime" => TimestampType::CreateTime,
                    "LogAppendTime" => TimestampType::LogAppendTime,
                    _ => return Err(invalid(key, value, "\"CreateTime\" or \"LogAppendTime\"")),
                };
                Ok(())
            }
            TIMESTAMP_AFTER => set_time(&mut self.timestamp_ahead_ms_max, 0, key, value),
            TIMESTAMP_BEFORE if is_unlimited(value) => {
                self.timestamp_behind_ms_max = None;
                Ok(())
            }
            TIMESTAMP_BEFORE => {
                let mut behind = Millis::new(0);
                set_time(&mut behind, 0, key, value)?;
                self.timestamp_behind_ms_max = Some(behind);
                Ok(())
            }
            MIN_ISR => {
                let count = value.parse().ok().filter(|count| *count > 0);
                self.min_isr = Some(count.ok_or_else(|| invalid(key, value, "a number from 1 on"))?);
                Ok(())
            }
            DURABILITY => {
                self.durability = Durability::read(value).ok_or_else(|| invalid(key, value, Durability::ALLOWED))?;
                Ok(())
            }
            _ => Err(SettingError::UnknownKey { key: key.to_owned() }),
        }
    }

    /// What the engine is told of each partition's log.
    pub fn log_config(&self, config: &Config) -> LogConfig {
        let Config {
            log, flush, producers, ..
        } = config;
        let deletes = self.cleanup.deletes();
        LogConfig {
            segment_size_bytes: self.segment_size_bytes.bytes(),
            segment_age_ms: self.segment_age_ms.get(),
            retention_ms: self.retention_ms.filter(|_| deletes).map(Millis::get),
            retention_bytes: self.retention_bytes.filter(|_| deletes).map(ByteSize::bytes),
            compaction: self.compaction_config(),
            recycle: log.recycle,
            // The range of the configuration keeps it below 4 GiB.
            index_interval_bytes: log.index_interval_bytes.bytes() as u32,
            batch: BatchLimits {
                batch_size_max: self.batch_size_bytes_max.as_usize(),
            },
            timestamp_type: self.timestamp_type,
            timestamp_ahead_ms_max: self.timestamp_ahead_ms_max.get(),
            timestamp_behind_ms_max: self.timestamp_behind_ms_max.map(Millis::get),
            flush: FlushConfig {
                writes_in_flight_max: flush.writes_in_flight_max.into(),
                uncovered_bytes_max: flush.uncovered_bytes_max.bytes(),
                single_write_bytes_max: flush.single_write_bytes_max.bytes(),
                prepare_bytes_max: log.prepare_step_bytes_max.bytes(),
                zero_ahead_bytes: log.zero_ahead_bytes.bytes(),
            },
            producers: ProducerConfig {
                expiry_ms: producers.expiry_ms.get(),
                count_max: producers.count_max as usize,
            },
        }
    }

    fn compaction_config(&self) -> Option<CompactionConfig> {
        let compaction = self.compaction;
        self.cleanup.compacts().then(|| CompactionConfig {
            dirty_ratio_min: compaction.dirty_ratio_min.get(),
            lag_ms_min: compaction.lag_ms_min.get(),
            lag_ms_max: compaction.lag_ms_max.map(Millis::get),
            delete_retention_ms: compaction.delete_retention_ms.get(),
        })
    }

    fn clamped(mut self, config: &Config) -> Self {
        let largest = config.log.batch_size_bytes_max.min(self.segment_size_bytes);
        self.batch_size_bytes_max = self.batch_size_bytes_max.min(largest);
        self
    }

    /// Every key with the value in force, as Kafka writes them, in the order of their names. `min_isr` is that of the topic's partitions.
    pub fn entries(&self, min_isr: u16) -> [(&'static str, String); KEYS.len()] {
        KEYS.map(|key| (key, self.entry(key, min_isr)))
    }

    fn entry(&self, key: &str, min_isr: u16) -> String {
        let unlimited = || "-1".to_owned();
        match key {
            RETENTION_MS => self.retention_ms.map_or_else(unlimited, |age| age.get().to_string()),
            RETENTION_BYTES => self
                .retention_bytes
                .map_or_else(unlimited, |size| size.bytes().to_string()),
            SEGMENT_BYTES => self.segment_size_bytes.bytes().to_string(),
            SEGMENT_MS => self.segment_age_ms.get().to_string(),
            MAX_MESSAGE_BYTES => self.batch_size_bytes_max.bytes().to_string(),
            TIMESTAMP_TYPE => match self.timestamp_type {
                TimestampType::CreateTime => "CreateTime".to_owned(),
                TimestampType::LogAppendTime => "LogAppendTime".to_owned(),
            },
            MIN_ISR => self.min_isr.unwrap_or(min_isr).to_string(),
            MIN_DIRTY_RATIO => self.compaction.dirty_ratio_min.to_string(),
            MIN_COMPACTION_LAG_MS => self.compaction.lag_ms_min.get().to_string(),
            MAX_COMPACTION_LAG_MS => or_max(self.compaction.lag_ms_max),
            TIMESTAMP_AFTER => self.timestamp_ahead_ms_max.get().to_string(),
            TIMESTAMP_BEFORE => or_max(self.timestamp_behind_ms_max),
            DELETE_RETENTION_MS => self.compaction.delete_retention_ms.get().to_string(),
            DURABILITY => self.durability.name().to_owned(),
            _ => self.cleanup.name().to_owned(),
        }
    }
}

/// Kafka's word for no limit.
fn is_unlimited(value: &str) -> bool {
    value == i64::MAX.to_string()
}

fn or_max(limit: Option<Millis>) -> String {
    limit.map_or_else(|| i64::MAX.to_string(), |limit| limit.get().to_string())
}

/// A list as a topic sets it, without blanks: in the order in which it was set, as tools compare it with what they have set.
fn as_set(overrides: &BTreeMap<String, String>) -> Option<String> {
    let set = overrides.get(CLEANUP_POLICY)?;
    Some(set.split(',').map(str::trim).collect::<Vec<_>>().join(","))
}

/// A setting as it is described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// The value in force.
    pub value: String,
    /// What is in force where the topic sets nothing.
    pub inherited: String,
    /// Whether the topic sets it.
    pub own: bool,
}

/// Every setting of a topic with such overrides, on a broker of this configuration. `min_isr` is that of its partitions.
pub fn described(overrides: &BTreeMap<String, String>, config: &Config, min_isr: u16) -> Vec<Described> {
    let in_force = TopicSettings::in_force(overrides, config).entries(min_isr);
    let inherited = TopicSettings::in_force(&BTreeMap::new(), config).entries(min_isr);
    let entries = in_force.into_iter().zip(inherited);
    let describe = |((name, value), (_, inherited)): ((&'static str, String), (&str, String))| {
        let set = (name == CLEANUP_POLICY).then(|| as_set(overrides)).flatten();
        Described {
            name,
            value: set.unwrap_or(value),
            inherited,
            own: overrides.contains_key(name),
        }
    };
    entries.map(describe).collect()
}

/// How many replicas must be in sync by a topic's overrides, which are the same on every broker; none if they do not say.
fn min_isr(overrides: &BTreeMap<String, String>) -> Option<u16> {
    overrides
        .get(MIN_ISR)
        .and_then(|value| value.parse().ok())
        .filter(|count| *count > 0)
}

/// What an acknowledgement promises of a topic of so many replicas, by its overrides, which are the same on every broker.
pub(crate) fn terms(overrides: &BTreeMap<String, String>, replicas: usize) -> Terms {
    let durability = overrides.get(DURABILITY).and_then(|value| Durability::read(value));
    Terms::of_topic(min_isr(overrides), durability.unwrap_or_default(), replicas)
}

/// Refuses a topic of so many replicas that would never have as many in sync as its overrides ask for.
pub(crate) fn check_min_isr(overrides: &BTreeMap<String, String>, replicas: usize) -> Result<(), SettingError> {
    match min_isr(overrides).filter(|count| usize::from(*count) > replicas) {
        None => Ok(()),
        Some(count) => {
            let allowed = format!("at most the number of replicas, {replicas}");
            Err(invalid(MIN_ISR, count, allowed))
        }
    }
}

/// Reads a value with the type and the range of the broker's key `knob`.
fn set(field: &mut dyn Value, knob: &str, key: &str, value: &str) -> Result<(), SettingError> {
    field.read(value).map_err(|expected| invalid(key, value, expected))?;
    let knob: Option<&Knob> = Config::KNOBS.iter().find(|candidate| candidate.name() == knob);
    let knob = knob.expect("each key of a topic stands for a key of the configuration: a test sets all of them");
    let in_range = field
        .magnitude()
        .zip(knob.range.as_ref())
        .is_none_or(|(number, range)| range.contains(&number));
    if in_range {
        Ok(())
    } else {
        Err(invalid(key, value, knob.allowed(&Config::default())))
    }
}

/// Reads a time from so many milliseconds on, up to Kafka's largest number: the broker's own keys, which people write by hand, have
/// narrower ranges.
fn set_time(field: &mut dyn Value, ms_min: u64, key: &str, value: &str) -> Result<(), SettingError> {
    field.read(value).map_err(|expected| invalid(key, value, expected))?;
    let allowed = ms_min..=i64::MAX.cast_unsigned();
    if field.magnitude().is_none_or(|ms| allowed.contains(&ms)) {
        Ok(())
    } else {
        Err(invalid(key, value, format!("{ms_min} ms or more")))
    }
}

fn invalid(key: &str, value: impl Display, allowed: impl Into<String>) -> SettingError {
    SettingError::Invalid {
        key: key.to_owned(),
        value: value.to_string(),
        allowed: allowed.into(),
    }
}

#[cfg(test)]
mod tests;
