//! What a log can be told. Plain values: the server reads them from its configuration and a topic's.

use headwater_protocol::batch::{BatchLimits, TimestampType};

/// How appended bytes get to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushConfig {
    /// Writes under way at once.
    pub writes_in_flight_max: usize,
    /// Written bytes that may wait for a flush while more writes are under way.
    pub uncovered_bytes_max: u64,
    /// A lone write of at most this many bytes is made durable by itself (`RWF_DSYNC`) instead of by a flush.
    pub single_write_bytes_max: u64,
    /// Most bytes of space that are reserved ahead of the end of a segment.
    pub prepare_bytes_max: u64,
    /// Bytes ahead of small writes that are filled with zeros, so that those find blocks that were written before: the file
    /// system then has nothing to note when they are made durable. 0 for none.
    pub zero_ahead_bytes: u64,
}

impl Default for FlushConfig {
    fn default() -> Self {
        FlushConfig {
            writes_in_flight_max: 8,
            uncovered_bytes_max: 1 << 20,
            single_write_bytes_max: 64 << 10,
            prepare_bytes_max: 128 << 20,
            zero_ahead_bytes: 256 << 10,
        }
    }
}

/// Which idempotent producers are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerConfig {
    /// Silence in milliseconds after which a producer is forgotten (Kafka's `producer.id.expiration.ms`).
    pub expiry_ms: u64,
    /// Most producers that are remembered for one partition; beyond it the longest silent are forgotten.
    pub count_max: usize,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        ProducerConfig {
            expiry_ms: 24 * 60 * 60 * 1000,
            count_max: 10_000,
        }
    }
}

/// When and how a log is compacted; the terms are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompactionConfig {
    /// Share of the log, in bytes, that must have been written since it was last compacted (`min.cleanable.dirty.ratio`): 0 to 1.
    pub dirty_ratio_min: f64,
    /// Age in milliseconds that a record reaches before it may be compacted away (`min.compaction.lag.ms`).
    pub lag_ms_min: u64,
    /// Age in milliseconds at which a record is compacted whatever the ratio (`max.compaction.lag.ms`); `None` for never.
    pub lag_ms_max: Option<u64>,
    /// How long in milliseconds a tombstone stays after all older records of its key are gone (`delete.retention.ms`).
    pub delete_retention_ms: u64,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        CompactionConfig {
            dirty_ratio_min: 0.5,
            lag_ms_min: 0,
            lag_ms_max: None,
            delete_retention_ms: 24 * 60 * 60 * 1000,
        }
    }
}

/// Configuration of one log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Size in bytes at which a segment is rolled; at most [`LogConfig::SEGMENT_SIZE_MAX`].
    pub segment_size_bytes: u64,
    /// Age in milliseconds at which a segment is rolled.
    pub segment_age_ms: u64,
    /// Age in milliseconds of a segment's newest record at which the segment is deleted; `None` keeps it for ever.
    pub retention_ms: Option<u64>,
    /// Size in bytes of the whole log beyond which its oldest segments are deleted; `None` for no limit.
    pub retention_bytes: Option<u64>,
    /// Whether only the last record of each key is kept (`cleanup.policy=compact`). Every record then needs a key.
    pub compaction: Option<CompactionConfig>,
    /// Whether files of deleted segments become those of later ones, as far as the partition is busy and not compacted.
    pub recycle: bool,
    /// Bytes of batches for each entry of the offset index.
    pub index_interval_bytes: u32,
    /// Limits of a record batch.
    pub batch: BatchLimits,
    /// Who sets the timestamps (Kafka's `message.timestamp.type`). The broker's costs a copy and a second checksum.
    pub timestamp_type: TimestampType,
    /// How far ahead of the broker's clock, in milliseconds, a producer's timestamp may be
    /// (`message.timestamp.after.max.ms`).
    pub timestamp_ahead_ms_max: u64,
    /// How far behind the broker's clock, in milliseconds, it may be (`message.timestamp.before.max.ms`); `None` for no limit.
    pub timestamp_behind_ms_max: Option<u64>,
    /// How bytes get to disk.
    pub flush: FlushConfig,
    /// Which producers are remembered.
    pub producers: ProducerConfig,
}

impl LogConfig {
    /// Largest segment, so that a position fits the four bytes of an index entry.
    pub const SEGMENT_SIZE_MAX: u64 = 2 << 30;

    /// Whether less is kept than with the `former` configuration: retention then has something to do.
    pub fn keeps_less_than(&self, former: &LogConfig) -> bool {
        let is_less = |now: Option<u64>, before: Option<u64>| now.unwrap_or(u64::MAX) < before.unwrap_or(u64::MAX);
        is_less(self.retention_ms, former.retention_ms) || is_less(self.retention_bytes, former.retention_bytes)
    }

    pub(super) fn check(&self) {
        assert!(
            self.segment_size_bytes <= Self::SEGMENT_SIZE_MAX,
            "segments are too large for their index"
        );
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_size_bytes: 1 << 30,
            segment_age_ms: 7 * 24 * 60 * 60 * 1000,
            retention_ms: Some(7 * 24 * 60 * 60 * 1000),
            retention_bytes: None,
            compaction: None,
            recycle: true,
            index_interval_bytes: 4096,
            batch: BatchLimits {
                batch_size_max: 1 << 20,
            },
            timestamp_type: TimestampType::CreateTime,
            timestamp_ahead_ms_max: 60 * 60 * 1000,
            timestamp_behind_ms_max: None,
            flush: FlushConfig::default(),
            producers: ProducerConfig::default(),
        }
    }
}
