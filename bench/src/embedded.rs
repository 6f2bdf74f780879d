//! A broker in this process, on a free port of the loopback, with its data in a new directory on a real disk.
//!
//! Started and stopped from an ordinary thread. The directory is removed when the broker is dropped, unless it is kept:
//! after an error and after Ctrl-C as well.

use std::net::SocketAddr;
use std::path::Path;

use headwater_server::{Broker, Config, config::ByteSize};

use crate::cli::BrokerArgs;
use crate::data::{DataDirectory, drop_page_cache};
use crate::error::BenchError;

/// The configuration of the broker.
fn config(args: &BrokerArgs, partitions: u32, directory: &Path) -> Result<Config, BenchError> {
    let mut config = Config::default();
    config.broker.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.cores.count = args.cores.unwrap_or_else(default_cores);
    config.cores.tail_buffer_bytes_max = ByteSize::new(args.tail_buffer);
    // What is measured is a broker that has been at work for a while.
    config.cores.prefault = true;
    config.metrics.listen = Some(headwater_server::config::HttpAddress::new(SocketAddr::from((
        [127, 0, 0, 1],
        0,
    ))));
    directory.clone_into(&mut config.log.directory);
    // Nothing is deleted before it has been verified.
    (config.log.retention_ms, config.log.retention_bytes) = (None, None);
    config.limits.partitions_per_topic_max = config.limits.partitions_per_topic_max.max(partitions);
    config.limits.partitions_max = config.limits.partitions_max.max(partitions);
    let set = args.set.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    Ok(config.with(set)?)
}

/// A broker in this process, with its data.
pub struct Embedded {
    // Before the directory, so that it is stopped before that is removed.
    broker: Option<Broker>,
    /// Where its data is.
    pub directory: DataDirectory,
    /// How it runs.
    pub config: Config,
}

impl Embedded {
    /// Starts it. Call from an ordinary thread.
    pub fn start(args: &BrokerArgs, partitions: u32) -> Result<Self, BenchError> {
        let directory = DataDirectory::make(args.data_dir.as_deref(), args.keep)?;
        let config = config(args, partitions, directory.path())?;
        let broker = Some(Broker::start(config.clone())?);
        Ok(Self {
            broker,
            directory,
            config,
        })
    }

    /// Where it listens.
    ///
    /// # Panics
    /// After a restart that failed.
    pub fn address(&self) -> String {
        let broker = self.broker.as_ref().expect("it runs but for within `restart`");
        broker.addr().to_string()
    }

    /// Where its metrics are.
    pub fn metrics_address(&self) -> Option<String> {
        let address = self.broker.as_ref().and_then(Broker::metrics_addr);
        address.map(|address| address.to_string())
    }

    /// Stops it in order and starts it again, at another address, with nothing of its data in memory.
    pub fn restart_cold(&mut self) -> Result<(), BenchError> {
        self.stop()?;
        drop_page_cache(self.directory.path())?;
        self.broker = Some(Broker::start(self.config.clone())?);
        Ok(())
    }

    /// Stops it in order.
    pub fn stop(&mut self) -> Result<(), BenchError> {
        self.broker
            .take()
            .map_or(Ok(()), Broker::shutdown)
            .map_err(BenchError::Stop)
    }

    /// What it may take, in bytes.
    pub fn memory_budget(&self) -> u64 {
        memory_budget(&self.config)
    }
}

/// Half of the CPUs, as the client needs the others.
fn default_cores() -> u16 {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cpus / 2).clamp(1, 1024) as u16
}

/// What the broker may take, in bytes.
fn memory_budget(config: &Config) -> u64 {
    let cores = &config.cores;
    let budgets = [
        cores.tail_buffer_bytes_max,
        cores.cold_read_bytes_max,
        cores.connection_bytes_max,
        cores.in_flight_bytes_max,
    ];
    u64::from(cores.count) * budgets.iter().map(|budget| budget.bytes()).sum::<u64>()
}
