//! A broker in this process, on a free port of the loopback, with its data in a new directory on a real disk.
//!
//! Started and stopped from an ordinary thread. The directory is removed when the broker is dropped, unless it is kept:
//! after an error and after Ctrl-C as well.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use headwater_server::{Broker, Config, config::ByteSize};
use tempfile::TempDir;

use crate::cli::BrokerArgs;
use crate::environment::FileSystem;
use crate::error::BenchError;

/// What is left free on the disk, in bytes.
const RESERVE: u64 = 1 << 30;

/// Where the data is.
#[derive(Debug)]
pub struct DataDirectory {
    directory: TempDir,
    /// What the user should know about it.
    pub notes: Vec<String>,
}

impl DataDirectory {
    /// Makes a new directory: in `parent`, or else on the first of the usual places that is a real disk.
    pub fn make(parent: Option<&Path>, keep: bool) -> Result<Self, BenchError> {
        let mut notes = Vec::new();
        let parent = match parent {
            Some(parent) => {
                fs::create_dir_all(parent).map_err(|source| BenchError::Directory {
                    path: parent.to_owned(),
                    source,
                })?;
                if let Some(filesystem) = FileSystem::of(parent).filter(|found| !found.is_disk()) {
                    notes.push(format!(
                        "the data is on {filesystem}: the figures are not those of a disk"
                    ));
                }
                parent.to_owned()
            }
            None => usual_place(&mut notes)?,
        };
        let directory = tempfile::Builder::new()
            .prefix("headwater-bench-")
            .disable_cleanup(keep)
            .tempdir_in(&parent)
            .map_err(|source| BenchError::Directory { path: parent, source })?;
        if keep {
            notes.push(format!("the data stays in {}", directory.path().display()));
        }
        Ok(Self { directory, notes })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// How many bytes of records it can take. Compression is not counted on.
    pub fn room(&self) -> Result<u64, BenchError> {
        let statistics = rustix::fs::statvfs(self.path()).map_err(|error| BenchError::Directory {
            path: self.path().to_owned(),
            source: error.into(),
        })?;
        let free = statistics.f_bavail * statistics.f_frsize;
        // Keys and headers of batches come on top of the values, and most so for small ones.
        Ok(free.saturating_sub(RESERVE) / 2)
    }
}

/// The first of the usual places that is a real disk; else the first that is at least no memory.
pub fn usual_place(notes: &mut Vec<String>) -> Result<PathBuf, BenchError> {
    let target = PathBuf::from("target");
    let places = [
        target,
        std::env::temp_dir(),
        PathBuf::from("/var/tmp"),
        PathBuf::from("."),
    ];
    let known: Vec<_> = places
        .into_iter()
        .filter(|place| place.is_dir())
        .filter_map(|place| Some((FileSystem::of(&place)?, place)))
        .collect();
    if let Some((_, place)) = known.iter().find(|(filesystem, _)| filesystem.is_disk()) {
        return Ok(place.clone());
    }
    let (filesystem, place) = known
        .into_iter()
        .find(|(filesystem, _)| !filesystem.is_memory())
        .ok_or_else(|| {
            BenchError::Options(
                "there is no disk to be found for the data: name a directory on one with --data-dir".into(),
            )
        })?;
    notes.push(format!(
        "the data is on {filesystem}, as no plain disk was found: name one with --data-dir"
    ));
    Ok(place)
}

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

/// Tells the kernel that the pages of all files in a directory are not needed any more. What is not written yet stays.
pub fn drop_page_cache(directory: &Path) -> Result<(), BenchError> {
    let failed = |source: std::io::Error| BenchError::Directory {
        path: directory.to_owned(),
        source,
    };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            drop_page_cache(&path)?;
        } else if path.is_file() {
            let file = fs::File::open(&path).map_err(failed)?;
            let advised = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            advised.map_err(|error| failed(error.into()))?;
        }
    }
    Ok(())
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
