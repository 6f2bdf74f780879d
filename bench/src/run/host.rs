//! The system under test: a broker in this process, several in processes of their own, or one that runs already.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::brokers::Purpose;
use crate::brokers::cluster::Brokers;
use crate::brokers::embedded::Embedded;
use crate::cli::RunArgs;
use crate::cost::BrokerPlace;
use crate::data::drop_page_cache;
use crate::error::BenchError;

/// Where the load goes.
pub enum Host {
    /// In this process.
    Embedded(Box<Embedded>),
    /// Several, in processes that the bench has started.
    Cluster(Box<Brokers>),
    /// Elsewhere.
    Running {
        /// Its addresses.
        address: String,
        /// The process, if it is on this machine.
        place: BrokerPlace,
        /// Where the disk of this machine is measured.
        data_dir: Option<PathBuf>,
    },
}

impl Host {
    /// Starts a broker, or takes the running one that the options name.
    pub fn open(run: &RunArgs) -> Result<Self, BenchError> {
        match &run.place.server {
            Some(address) => Ok(Self::Running {
                address: address.clone(),
                place: BrokerPlace::of(address),
                data_dir: run.place.broker.data_dir.clone(),
            }),
            None if !run.place.system.is_ours() => Err(BenchError::Options(
                "only Headwater can run in this process: name the running broker with --server".into(),
            )),
            None => {
                let broker = &run.place.broker;
                let purpose = Purpose {
                    partitions: run.load.partitions,
                    is_kafka: run.place.system.is_kafka(),
                };
                let host = match run.place.brokers {
                    1 => Self::Embedded(Box::new(Embedded::start(broker, purpose)?)),
                    count => Self::Cluster(Box::new(Brokers::start(broker, count, purpose)?)),
                };
                if let Some(bytes) = run
                    .load
                    .bytes
                    .filter(|&bytes| host.room().is_ok_and(|room| bytes > room))
                {
                    let room = host.room()?;
                    return Err(BenchError::Options(format!(
                        "--bytes {bytes} does not fit on the disk, which can take {room}: produce less, or name another \
                         disk with --data-dir"
                    )));
                }
                Ok(host)
            }
        }
    }

    /// Where to connect.
    pub fn address(&self) -> String {
        match self {
            Self::Embedded(embedded) => embedded.address(),
            Self::Cluster(brokers) => brokers.addresses(),
            Self::Running { address, .. } => address.clone(),
        }
    }

    /// Where its CPU time can be seen.
    pub fn place(&self) -> BrokerPlace {
        match self {
            Self::Embedded(_) => BrokerPlace::Here,
            Self::Cluster(brokers) => BrokerPlace::Processes(brokers.processes()),
            Self::Running { place, .. } => place.clone(),
        }
    }

    /// Where its metrics are, of each broker that has them.
    pub fn metrics(&self, run: &RunArgs) -> Vec<String> {
        match self {
            Self::Embedded(embedded) => embedded.metrics_address().into_iter().collect(),
            Self::Cluster(brokers) => brokers.metrics(),
            Self::Running { .. } => run.place.metrics.iter().cloned().collect(),
        }
    }

    /// Whether the bench has started it, and its data goes with the bench.
    pub fn is_ours(&self) -> bool {
        !matches!(self, Self::Running { .. })
    }

    /// Whether it runs on this machine.
    pub fn is_local(&self) -> bool {
        self.place() != BrokerPlace::Elsewhere
    }

    /// How many bytes of records there is room for.
    pub fn room(&self) -> Result<u64, BenchError> {
        match self {
            Self::Embedded(embedded) => embedded.directory.room(),
            Self::Cluster(brokers) => Ok(brokers.directory.room()? / brokers.count() as u64),
            Self::Running { .. } => Ok(u64::MAX),
        }
    }

    /// What the broker may take of this process' memory.
    pub fn memory_budget(&self) -> u64 {
        match self {
            Self::Embedded(embedded) => embedded.memory_budget(),
            Self::Cluster(_) | Self::Running { .. } => 0,
        }
    }

    /// Of the broker in this process; else where the disk of this machine is measured, if that was said.
    pub fn data_directory(&self) -> Option<&Path> {
        match self {
            Self::Embedded(embedded) => Some(embedded.directory.path()),
            Self::Cluster(brokers) => Some(brokers.directory.path()),
            Self::Running { data_dir, .. } => data_dir.as_deref(),
        }
    }

    /// What the user should know of it.
    pub fn notes(&self) -> Vec<String> {
        match self {
            Self::Embedded(embedded) => embedded.directory.notes.clone(),
            Self::Cluster(brokers) => {
                let shared = format!(
                    "{} brokers share the CPUs, the memory and the disk of this machine with the clients",
                    brokers.count()
                );
                brokers.directory.notes.iter().cloned().chain([shared]).collect()
            }
            Self::Running { .. } => Vec::new(),
        }
    }

    /// Fills in what was chosen for options that were not given.
    pub fn describe(&self, config: &mut Value) {
        let (cores, directory) = match self {
            Self::Embedded(embedded) => (embedded.config.cores.count, &embedded.directory),
            Self::Cluster(brokers) => (brokers.cores, &brokers.directory),
            Self::Running { .. } => return,
        };
        if let Some(config) = config.as_object_mut() {
            config.insert("cores".into(), cores.into());
            let path = directory.path().to_string_lossy();
            config.insert("data_dir".into(), path.into_owned().into());
        }
    }

    /// Makes a broker in this process forget what it has in memory, the page cache included. Its address changes.
    ///
    /// # Errors
    /// A running broker cannot be told to.
    pub fn restart_cold(&mut self) -> Result<(), BenchError> {
        match self {
            Self::Embedded(embedded) => embedded.restart_cold(),
            Self::Cluster(brokers) => brokers.restart_cold(),
            Self::Running { .. } => Err(BenchError::Options(
                "a running broker's memory cannot be dropped from here: leave out --server".into(),
            )),
        }
    }

    /// Drops the page cache of a broker in this process.
    pub fn drop_page_cache(&self) -> Result<(), BenchError> {
        match self {
            Self::Embedded(embedded) => drop_page_cache(embedded.directory.path()),
            Self::Cluster(brokers) => drop_page_cache(brokers.directory.path()),
            Self::Running { .. } => Ok(()),
        }
    }

    /// Stops a broker in this process in order.
    pub fn close(self) -> Result<(), BenchError> {
        match self {
            Self::Embedded(mut embedded) => embedded.stop(),
            Self::Cluster(brokers) => brokers.stop(),
            Self::Running { .. } => Ok(()),
        }
    }
}
