//! The figures: what was measured, with the unit at the end of each name.
//!
//! A figure that was not asked for is absent. In JSON the groups are flattened: `disk_write_bytes_per_s` is
//! `limits.disk.write_bytes_per_s`.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Everything that can be measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Of the disk.
    #[serde(flatten)]
    pub disk: Disk,
    /// Of loopback TCP.
    #[serde(flatten)]
    pub network: Network,
    /// Of one core and the memory.
    #[serde(flatten)]
    pub memory: Memory,
    /// Of the bare program: the ceiling of throughput.
    #[serde(flatten)]
    pub bare: Bare,
    /// Of the bare program: the floor of latency.
    #[serde(flatten)]
    pub floor: Floor,
}

impl Limits {
    /// What durable produce over loopback cannot exceed: the slower one of the disk and the network, in bytes a second.
    pub fn durable_bytes_per_s(&self) -> Option<f64> {
        Some(self.disk.write_bytes_per_s?.min(self.network.loopback_bytes_per_s?))
    }

    /// What cold consumption over loopback cannot exceed: the slower one of the disk and the network, in bytes a second.
    pub fn cold_bytes_per_s(&self) -> Option<f64> {
        Some(self.disk.read_bytes_per_s?.min(self.network.loopback_bytes_per_s?))
    }
}

/// The disk, past the page cache (`O_DIRECT`), into blocks that were written before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// Writes in order, 8 in flight: the better one of the two sizes below.
    #[serde(rename = "disk_write_bytes_per_s", skip_serializing_if = "Option::is_none")]
    pub write_bytes_per_s: Option<f64>,
    /// Of 128 KiB each.
    #[serde(rename = "disk_write_128_kib_bytes_per_s", skip_serializing_if = "Option::is_none")]
    pub write_128_kib_bytes_per_s: Option<f64>,
    /// Of 1 MiB each.
    #[serde(rename = "disk_write_1_mib_bytes_per_s", skip_serializing_if = "Option::is_none")]
    pub write_1_mib_bytes_per_s: Option<f64>,
    /// The one fdatasync after the writes of 1 MiB; not in their time.
    #[serde(rename = "disk_write_flush_after_us", skip_serializing_if = "Option::is_none")]
    pub write_flush_after_us: Option<f64>,
    /// Reads in order, 8 in flight: the better one of the two sizes below.
    #[serde(rename = "disk_read_bytes_per_s", skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_s: Option<f64>,
    /// Of 128 KiB each.
    #[serde(rename = "disk_read_128_kib_bytes_per_s", skip_serializing_if = "Option::is_none")]
    pub read_128_kib_bytes_per_s: Option<f64>,
    /// Of 1 MiB each.
    #[serde(rename = "disk_read_1_mib_bytes_per_s", skip_serializing_if = "Option::is_none")]
    pub read_1_mib_bytes_per_s: Option<f64>,
    /// One write of 4 KiB, and fdatasync.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_flush_us: Option<Percentiles>,
    /// One write of 4 KiB with `RWF_DSYNC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_dsync_us: Option<Percentiles>,
}

/// Loopback TCP, one connection, blocking sockets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Pieces of 256 KiB from memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loopback_bytes_per_s: Option<f64>,
    /// Pieces of 256 KiB from the page cache, by sendfile(2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sendfile_bytes_per_s: Option<f64>,
    /// 64 bytes there and back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<Percentiles>,
}

/// One core and the memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "each name ends with its unit")]
pub struct Memory {
    /// A copy between buffers that stay in the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memcpy_bytes_per_s: Option<f64>,
    /// The same, with the target a few bytes further into its page than the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memcpy_aliased_bytes_per_s: Option<f64>,
    /// A copy between buffers that are larger than the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memcpy_cold_bytes_per_s: Option<f64>,
    /// A copy into memory that is touched for the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memcpy_fresh_bytes_per_s: Option<f64>,
    /// CRC-32C of a buffer that stays in the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc_bytes_per_s: Option<f64>,
}

/// The bare program, pipelined: durable bytes a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bare {
    /// Fed with prepared bytes, nobody consumes: the ceiling of durable produce.
    #[serde(rename = "bare_bytes_per_s", skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<f64>,
    /// The same with a flush for each 4 MiB.
    #[serde(rename = "bare_flush_4_mib_bytes_per_s", skip_serializing_if = "Option::is_none")]
    pub flush_4_mib_bytes_per_s: Option<f64>,
    /// Fed with records that a thread builds into batches as the client does. Counts the values of the records only.
    #[serde(rename = "bare_built_bytes_per_s", skip_serializing_if = "Option::is_none")]
    pub built_bytes_per_s: Option<f64>,
    /// Fed with prepared bytes, and pushed to a consumer: the ceiling of durable produce and consume at once.
    #[serde(rename = "bare_push_bytes_per_s", skip_serializing_if = "Option::is_none")]
    pub push_bytes_per_s: Option<f64>,
    /// What a flush of the first one took.
    #[serde(rename = "bare_flush_us", skip_serializing_if = "Option::is_none")]
    pub flush_us: Option<Percentiles>,
}

/// The bare program, with one small record at a time: from its send, or from when it was due.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "each name ends with its unit")]
pub struct Floor {
    /// To its acknowledgement; the next record is sent when this one has been acknowledged and received.
    #[serde(rename = "floor_ack_us", skip_serializing_if = "Option::is_none")]
    pub ack_us: Option<Percentiles>,
    /// To its receipt at the consumer's connection.
    #[serde(rename = "floor_end_to_end_us", skip_serializing_if = "Option::is_none")]
    pub end_to_end_us: Option<Percentiles>,
    /// At the rate of the configuration, from when the record was due to its acknowledgement.
    #[serde(rename = "floor_paced_ack_us", skip_serializing_if = "Option::is_none")]
    pub paced_ack_us: Option<Percentiles>,
    /// Likewise, to its receipt at the consumer's connection.
    #[serde(rename = "floor_paced_end_to_end_us", skip_serializing_if = "Option::is_none")]
    pub paced_end_to_end_us: Option<Percentiles>,
}

/// Percentiles of times, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of all are below.
    pub p50: f64,
    /// 90 in 100.
    pub p90: f64,
    /// 99 in 100.
    pub p99: f64,
    /// 999 in 1,000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// How many there were.
    pub samples: u64,
}

/// Gathers times.
#[derive(Debug, Clone)]
pub struct Stopwatch(Histogram<u64>);

impl Stopwatch {
    /// Nanoseconds up to a minute, to three digits.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are legal"))
    }

    /// Adds one.
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(time.as_nanos() as u64);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them; zeros if there are none.
    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max() as f64 / 1e3,
            samples: self.0.len(),
        }
    }
}
