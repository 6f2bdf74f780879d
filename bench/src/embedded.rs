//! A broker in this process, on a free port of the loopback, with its data in a new directory on a real disk.
//!
//! Started and stopped from an ordinary thread. The directory is removed when the broker is dropped, unless it is kept:
//! after an error and after Ctrl-C as well.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use headwater_server::{Config, config::ByteSize};
use tempfile::TempDir;

use crate::cli::QuickArgs;
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
                if let Some(filesystem) = FileSystem::of(parent).filter(|found| !is_disk(found)) {
                    notes.push(format!(
                        "the data is on {filesystem}: the figures are not those of a disk"
                    ));
                }
                parent.to_owned()
            }
            None => choose(&mut notes)?,
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

fn is_disk(filesystem: &FileSystem) -> bool {
    !filesystem.is_memory() && !filesystem.is_overlay()
}

/// The first of the usual places that is a real disk; else the first that is at least no memory.
fn choose(notes: &mut Vec<String>) -> Result<PathBuf, BenchError> {
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
    if let Some((_, place)) = known.iter().find(|(filesystem, _)| is_disk(filesystem)) {
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

/// The configuration of the broker, and the memory it allows itself.
pub fn config(args: &QuickArgs, directory: &Path) -> Result<Config, BenchError> {
    let mut config = Config::default();
    config.broker.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.cores.count = args.cores.unwrap_or_else(default_cores);
    config.cores.tail_buffer_bytes_max = ByteSize::new(args.tail_buffer);
    // What is measured is a broker that has been at work for a while.
    config.cores.tail_buffer_prefault = true;
    directory.clone_into(&mut config.log.directory);
    // Nothing is deleted before it has been verified.
    (config.log.retention_ms, config.log.retention_bytes) = (None, None);
    config.limits.partitions_per_topic_max = config.limits.partitions_per_topic_max.max(args.load.partitions);
    config.limits.partitions_max = config.limits.partitions_max.max(args.load.partitions);
    config.validate()?;
    Ok(config)
}

/// Half of the CPUs, as the client needs the others.
fn default_cores() -> u16 {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cpus / 2).clamp(1, 1024) as u16
}

/// What the broker may take, in bytes.
pub fn memory_budget(config: &Config) -> u64 {
    let cores = &config.cores;
    let budgets = [
        cores.tail_buffer_bytes_max,
        cores.connection_bytes_max,
        cores.in_flight_bytes_max,
    ];
    u64::from(cores.count) * budgets.iter().map(|budget| budget.bytes()).sum::<u64>()
}
