//! What is sent, how much of it, and how.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use headwater_client::{Acks, Compression};
use headwater_server::config::{CpuSet, Value as _};
use serde::{Serialize, Serializer};

use crate::load::pace::Pace;
use crate::payload::{Keys, Sizes};
use crate::target::{ProducerSettings, TopicShape};
use crate::workload::{PARTITIONS_MAX, PRODUCERS_MAX};

/// What the values and keys of records are.
#[derive(Debug, Clone, Args, Serialize)]
pub struct ValueArgs {
    /// Size of each value, up to 1MiB: one size, a range 100..10KiB, or several with weights 100:9,64KiB:1
    #[arg(long, value_name = "SIZES", default_value = "1KiB", conflicts_with = "payload")]
    #[serde(rename = "record_size_bytes")]
    pub record_size: Sizes,
    /// Share of each value that a codec can compress away, from 0 (random bytes) to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, conflicts_with = "payload")]
    pub compressibility: f64,
    /// Take the values from the lines of this file instead, over and over; up to 256MiB of it
    #[arg(long, value_name = "FILE")]
    pub payload: Option<PathBuf>,
    /// Keys: none (records go to the partitions by turns), uniform:COUNT, zipf:COUNT or zipf:COUNT:EXPONENT. The
    /// partition follows from the key
    #[arg(long, value_name = "KEYS", default_value = "none")]
    pub keys: Keys,
}

/// How much is sent, and by whom.
#[derive(Debug, Clone, Args, Serialize)]
pub struct LoadArgs {
    /// Partitions of the topic, if it is made
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(PARTITIONS_MAX)))]
    pub partitions: u32,
    /// Brokers that have each partition of the topic, if it is made [default: with --brokers as many, up to three; else as the
    /// system gives]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub replication_factor: Option<u16>,
    /// In-sync replicas without which nothing is acknowledged, if the topic is made [default: as the system gives]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub min_insync_replicas: Option<u16>,
    /// Producers at once, each with its own client and connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(PRODUCERS_MAX)))]
    pub producers: u16,
    /// How long to measure
    #[arg(long, alias = "duration", default_value_t = 5.0, value_parser = seconds)]
    pub seconds: f64,
    /// How many bytes of values to produce, however long that takes
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "seconds")]
    pub bytes: Option<u64>,
    /// How long to send before anything is measured, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = warm_up)]
    #[serde(rename = "warm_up_seconds")]
    pub warm_up: f64,
    /// Records a second of all producers together, on a fixed schedule: an open loop, for latency [default: as fast as
    /// it goes]
    #[arg(long, value_name = "RECORDS", value_parser = rate)]
    #[serde(rename = "rate_records_per_s")]
    pub rate: Option<f64>,
    /// CPUs that the clients run on, such as 1 or 4-7; the broker's cores are pinned to the first ones unless `--set
    /// cores.set` says otherwise [default: the scheduler chooses]
    #[arg(long, value_name = "CPUS", value_parser = cpus)]
    #[serde(serialize_with = "as_cpus")]
    pub client_cpus: Option<CpuSet>,
    /// How the client sends.
    #[command(flatten)]
    #[serde(flatten)]
    pub client: ClientArgs,
}

/// How the producers' clients send.
#[derive(Debug, Clone, Args, Serialize)]
pub struct ClientArgs {
    /// Size at which a batch is full, before compression
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = size)]
    pub batch_bytes: u64,
    /// Batches of one partition on their way to the broker or waiting for its acknowledgement; as much again waits in
    /// the client, up to 64MiB for all partitions
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    pub in_flight_bytes: u64,
    /// How long a batch that is not full waits for more records; with 0 it waits only while others are in flight
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = humantime::parse_duration)]
    #[serde(rename = "linger_us", serialize_with = "as_micros")]
    pub linger: Duration,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none")]
    #[serde(serialize_with = "as_text")]
    pub compression: Compression,
    /// When a record counts as acknowledged
    #[arg(long, value_enum, default_value_t)]
    pub acks: AcksArg,
}

/// When a record counts as acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AcksArg {
    /// When it has been handed to the socket; it may be lost
    None,
    /// When the leader has it; in Headwater on stable storage
    Leader,
    /// When every replica that is in sync has it; in Headwater on stable storage
    #[default]
    All,
}

impl LoadArgs {
    /// How records follow each other.
    pub fn pace(&self) -> Pace {
        self.rate.map_or(Pace::Closed, Pace::Open)
    }

    /// Before anything is measured.
    pub fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }

    /// How long to measure; `None` if it ends by bytes.
    pub fn duration(&self) -> Option<Duration> {
        self.bytes.is_none().then(|| Duration::from_secs_f64(self.seconds))
    }

    /// What the topic is to be, if it is made.
    pub fn shape(&self) -> TopicShape {
        TopicShape {
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            min_insync_replicas: self.min_insync_replicas,
        }
    }

    /// What one producer may hold, in bytes: what is in flight and as much again, so that the next batches are ready when
    /// there is room. More would only make records wait longer.
    pub fn client_memory(&self) -> u64 {
        let in_flight = self.client.in_flight_bytes;
        let wanted = 2 * in_flight.saturating_mul(u64::from(self.partitions));
        wanted
            .min(CLIENT_BYTES_MAX)
            .max(2 * in_flight)
            .max(2 * self.client.batch_bytes)
    }

    /// What all producers may hold, in bytes.
    pub fn clients_memory(&self) -> u64 {
        u64::from(self.producers) * self.client_memory()
    }

    /// For the target.
    pub fn producer(&self) -> ProducerSettings {
        ProducerSettings {
            batch_bytes: self.client.batch_bytes as usize,
            in_flight_bytes: self.client.in_flight_bytes as usize,
            memory_bytes: self.client_memory() as usize,
            linger: self.client.linger,
            compression: self.client.compression,
            acks: match self.client.acks {
                AcksArg::None => Acks::None,
                AcksArg::Leader => Acks::Leader,
                AcksArg::All => Acks::All,
            },
        }
    }
}

/// The client's own default.
const CLIENT_BYTES_MAX: u64 = 64 << 20;

pub(super) fn size(text: &str) -> Result<u64, String> {
    let size: bytesize::ByteSize = text.parse()?;
    match size.as_u64() {
        0 => Err("it must be more than 0".to_owned()),
        bytes => Ok(bytes),
    }
}

fn cpus(text: &str) -> Result<CpuSet, String> {
    let mut cpus = CpuSet::default();
    cpus.read(text)?;
    Some(cpus)
        .filter(|cpus| !cpus.is_empty())
        .ok_or_else(|| "name at least one CPU, such as 1 or 4-7".to_owned())
}

fn number(text: &str, min: f64, max: f64, what: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|error| format!("it must be {what} ({error})"))?;
    if (min..=max).contains(&number) {
        Ok(number)
    } else {
        Err(format!("it must be {what} from {min} to {max}"))
    }
}

pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    number(text.trim_end_matches('s'), 0.01, 1e6, "a number of seconds")
}

fn warm_up(text: &str) -> Result<f64, String> {
    number(text.trim_end_matches('s'), 0.0, 1e6, "a number of seconds")
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.001, 1e9, "a number of records a second")
}

fn share(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1.0, "a share")
}

#[expect(clippy::ref_option, reason = "serde asks for this signature")]
fn as_cpus<S: Serializer>(cpus: &Option<CpuSet>, serializer: S) -> Result<S::Ok, S::Error> {
    cpus.as_ref().map(CpuSet::show).serialize(serializer)
}

fn as_micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_micros() as u64)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn as_text<S: Serializer>(value: &Compression, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
