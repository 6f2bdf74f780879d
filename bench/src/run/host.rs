//! The system under test: a broker in this process, or one that runs already.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::{RunArgs, System};
use crate::cost::BrokerPlace;
use crate::data::drop_page_cache;
use crate::embedded::Embedded;
use crate::error::BenchError;

/// Where the load goes.
pub enum Host {
    /// In this process.
    Embedded(Box<Embedded>),
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
            None if run.place.system != System::Headwater => Err(BenchError::Options(
                "only Headwater can run in this process: name the running broker with --server".into(),
            )),
            None => {
                let embedded = Embedded::start(&run.place.broker, run.load.partitions)?;
                let host = Self::Embedded(Box::new(embedded));
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
            Self::Running { address, .. } => address.clone(),
        }
    }

    /// Where its CPU time can be seen.
    pub fn place(&self) -> BrokerPlace {
        match self {
            Self::Embedded(_) => BrokerPlace::Here,
            Self::Running { place, .. } => *place,
        }
    }

    /// Where its metrics are, if they are to be had.
    pub fn metrics(&self, run: &RunArgs) -> Option<String> {
        match self {
            Self::Embedded(embedded) => embedded.metrics_address(),
            Self::Running { .. } => run.place.metrics.clone(),
        }
    }

    /// Whether it runs on this machine.
    pub fn is_local(&self) -> bool {
        self.place() != BrokerPlace::Elsewhere
    }

    /// How many bytes of records there is room for.
    pub fn room(&self) -> Result<u64, BenchError> {
        match self {
            Self::Embedded(embedded) => embedded.directory.room(),
            Self::Running { .. } => Ok(u64::MAX),
        }
    }

    /// What the broker may take of this process' memory.
    pub fn memory_budget(&self) -> u64 {
        match self {
            Self::Embedded(embedded) => embedded.memory_budget(),
            Self::Running { .. } => 0,
        }
    }

    /// Of the broker in this process; else where the disk of this machine is measured, if that was said.
    pub fn data_directory(&self) -> Option<&Path> {
        match self {
            Self::Embedded(embedded) => Some(embedded.directory.path()),
            Self::Running { data_dir, .. } => data_dir.as_deref(),
        }
    }

    /// What the user should know of it.
    pub fn notes(&self) -> Vec<String> {
        match self {
            Self::Embedded(embedded) => embedded.directory.notes.clone(),
            Self::Running { .. } => Vec::new(),
        }
    }

    /// Fills in what was chosen for options that were not given.
    pub fn describe(&self, config: &mut Value) {
        if let (Self::Embedded(embedded), Some(config)) = (self, config.as_object_mut()) {
            config.insert("cores".into(), embedded.config.cores.count.into());
            let path = embedded.directory.path().to_string_lossy();
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
            Self::Running { .. } => Err(BenchError::Options(
                "a running broker's memory cannot be dropped from here: leave out --server".into(),
            )),
        }
    }

    /// Drops the page cache of a broker in this process.
    pub fn drop_page_cache(&self) -> Result<(), BenchError> {
        match self {
            Self::Embedded(embedded) => drop_page_cache(embedded.directory.path()),
            Self::Running { .. } => Ok(()),
        }
    }

    /// Stops a broker in this process in order.
    pub fn close(self) -> Result<(), BenchError> {
        match self {
            Self::Embedded(mut embedded) => embedded.stop(),
            Self::Running { .. } => Ok(()),
        }
    }
}
