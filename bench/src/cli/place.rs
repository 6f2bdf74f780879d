//! Which system is measured: a broker in this process, or a running one.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

/// Which topic of which system.
#[derive(Debug, Clone, Args, Serialize)]
pub struct PlaceArgs {
    /// Address of a running broker, or several, separated by commas [default: Headwater, in this process]
    #[arg(long, visible_alias = "bootstrap", value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// What is measured, and by which protocol. Without --server it is Headwater by either
    #[arg(long, value_enum, default_value_t)]
    pub system: System,
    /// Brokers, as one cluster; more than one are processes of their own, each with --cores of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=15), conflicts_with = "server")]
    pub brokers: u16,
    /// The topic, which is made if it is missing and left as it is [default: a new one, removed at the end]
    #[arg(long, requires = "server")]
    pub topic: Option<String>,
    /// Address of the running broker's metrics, such as localhost:9644, for the time spent in each stage
    #[arg(long, value_name = "HOST:PORT", requires = "server")]
    pub metrics: Option<String>,
    /// The broker in this process.
    #[command(flatten)]
    #[serde(flatten)]
    pub broker: BrokerArgs,
}

/// How the broker in this process runs.
#[derive(Debug, Clone, Args, Serialize)]
pub struct BrokerArgs {
    /// Cores that the broker in this process runs on, each with its own share of the partitions [default: half of them]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024), conflicts_with = "server")]
    pub cores: Option<u16>,
    /// Memory of each of its cores for what was written last, which is consumed from there; what no longer fits is read
    /// from disk
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = super::load::size)]
    #[serde(rename = "tail_buffer_bytes")]
    pub tail_buffer: u64,
    /// Set any key of its configuration, to measure what it does (`headwater-server --print-config` lists them all);
    /// may be given many times
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_and_value, conflicts_with = "server")]
    pub set: Vec<(String, String)>,
    /// Where to make the directory for the data [default: ./target, or $TMPDIR]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Leave the data where it is, and say where
    #[arg(long, conflicts_with = "server")]
    pub keep: bool,
}

pub(crate) fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("expected SECTION.KEY=VALUE, such as flush.delay_us=100")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// Systems that can be measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// Headwater, by its own protocol
    #[default]
    Headwater,
    /// Any broker that speaks Kafka's protocol, through librdkafka; without --server it is Headwater
    #[cfg(feature = "kafka")]
    Kafka,
    /// NATS `JetStream`
    #[cfg(feature = "nats")]
    Nats,
}

impl System {
    /// Whether it is spoken to by Kafka's protocol.
    pub fn is_kafka(self) -> bool {
        match self {
            Self::Headwater => false,
            #[cfg(feature = "kafka")]
            Self::Kafka => true,
            #[cfg(feature = "nats")]
            Self::Nats => false,
        }
    }

    /// Whether the bench can start a broker that speaks its protocol.
    pub fn is_ours(self) -> bool {
        self == Self::default() || self.is_kafka()
    }
}
