//! A broker in this process, on a free port of the loopback, with its data in a new directory on a real disk.
//!
//! Started and stopped from an ordinary thread. The directory is removed when the broker is dropped, unless it is kept:
//! after an error and after Ctrl-C as well.

use headwater_server::{Broker, Config};

use super::{Purpose, config, default_cores, settings};
use crate::cli::BrokerArgs;
use crate::data::{DataDirectory, drop_page_cache};
use crate::error::BenchError;

/// A broker in this process, with its data.
pub struct Embedded {
    // Before the directory, so that it is stopped before that is removed.
    broker: Option<Broker>,
    /// Where its data is.
    pub directory: DataDirectory,
    /// How it runs.
    pub config: Config,
    is_kafka: bool,
}

impl Embedded {
    /// Starts it. Call from an ordinary thread.
    pub fn start(args: &BrokerArgs, purpose: Purpose) -> Result<Self, BenchError> {
        let directory = DataDirectory::make(args.data_dir.as_deref(), args.keep)?;
        let config = config(&settings(args, default_cores(1), purpose, directory.path()))?;
        let broker = Some(Broker::start(config.clone())?);
        Ok(Self {
            broker,
            directory,
            config,
            is_kafka: purpose.is_kafka,
        })
    }

    /// Where it listens for the clients' protocol.
    ///
    /// # Panics
    /// After a restart that failed.
    pub fn address(&self) -> String {
        let broker = self.broker.as_ref().expect("it runs but for within `restart`");
        let kafka = broker.kafka_addr().filter(|_| self.is_kafka);
        kafka.unwrap_or_else(|| broker.addr()).to_string()
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
