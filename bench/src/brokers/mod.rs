//! Brokers that the bench starts itself: one in this process, or several, each a process of its own, that are a cluster.
//!
//! ```text
//! settings -> embedded: a broker in this process
//!          '-> cluster: launches this program again, once for each -> process: a broker, until it is told to stop or the bench is gone
//! ```

pub mod cluster;
pub mod embedded;
pub mod process;

use std::path::Path;

use headwater_server::{Config, config::ConfigError};

use crate::cli::BrokerArgs;

/// What a broker is started for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    /// A topic has so many.
    pub partitions: u32,
    /// Clients speak Kafka's protocol.
    pub is_kafka: bool,
}

/// What a broker is told that is not by default, as `SECTION.KEY` and value; what the options set comes last, and wins.
fn settings(args: &BrokerArgs, cores: u16, purpose: Purpose, directory: &Path) -> Vec<(String, String)> {
    let limits = Config::default().limits;
    let Purpose { partitions, is_kafka } = purpose;
    let kafka = if is_kafka { "127.0.0.1:0" } else { "off" };
    let own = [
        ("broker.listen", "127.0.0.1:0".to_owned()),
        ("kafka.listen", kafka.to_owned()),
        ("metrics.listen", "127.0.0.1:0".to_owned()),
        ("cores.count", args.cores.unwrap_or(cores).to_string()),
        ("cores.tail_buffer_bytes_max", args.tail_buffer.to_string()),
        // What is measured is a broker that has been at work for a while.
        ("cores.prefault", "true".to_owned()),
        ("log.directory", directory.to_string_lossy().into_owned()),
        // Nothing is deleted before it has been verified.
        ("log.retention_ms", "unlimited".to_owned()),
        ("log.retention_bytes", "unlimited".to_owned()),
        (
            "limits.partitions_per_topic_max",
            limits.partitions_per_topic_max.max(partitions).to_string(),
        ),
        (
            "limits.partitions_max",
            limits.partitions_max.max(partitions).to_string(),
        ),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
    own.chain(args.set.iter().cloned()).collect()
}

/// The configuration that these settings make.
fn config(settings: &[(String, String)]) -> Result<Config, ConfigError> {
    Config::default().with(settings.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

/// Half of the CPUs, as the client needs the others, shared by so many brokers.
fn default_cores(brokers: u16) -> u16 {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cpus / 2 / usize::from(brokers)).clamp(1, 1024) as u16
}
