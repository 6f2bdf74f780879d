//! What must be true of the machine for the broker to start, and what should be for it to be fast and safe.
//!
//! `facts` asks the machine; the items of `item` judge, purely, the facts and the configuration; [`Checks`] acts on what
//! they find at the start, and [`Report`] prints it for `headwater-server check`. The lock on the data directory is taken
//! by [`Checks::run`] alone and lives as long as the [`DirectoryLock`] that the caller keeps; a report changes nothing.

mod clock;
mod cores;
mod cpu;
mod directory;
mod disk;
mod facts;
mod finding;
mod interrupts;
mod item;
mod kernel;
mod lock;
mod memory;
mod network;
mod report;
mod root;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use futures::FutureExt as _;
use headwater_engine::disk::{Directory as _, StdDirectory};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use facts::{Asked, DirectoryFacts, Facts, Probe};
pub use finding::{Finding, Verdict};
pub use item::{ITEMS, Item, Section};
pub use lock::DirectoryLock;
pub use network::open::Open;
pub use report::{Report, Row};
use root::Root;
pub use root::mount::Mount;
pub(crate) use root::rounded;

use crate::config::{Config, CoresSection};

/// What the checks found.
#[derive(Debug)]
pub struct Checks {
    /// Each forbids the start: one sentence that says what to change.
    pub failures: Vec<String>,
    /// Each is worth a line in the log.
    pub warnings: Vec<String>,
    /// So is each of these.
    pub open: Vec<Open>,
    lock: Option<DirectoryLock>,
}

impl Checks {
    /// Asks the machine all that `config` needs of it. Raises the soft limits on open files and locked memory to the
    /// hard limits, makes the data directory if it is missing, and locks it.
    pub fn run(config: &Config) -> Self {
        raise(Resource::Memlock);
        raise(Resource::Nofile);
        let path = &config.log.directory;
        let made = StdDirectory::default()
            .create_dir(path)
            .now_or_never()
            .expect("StdDirectory blocks instead of waiting");
        let (lock, taken) = match made.and_then(|()| DirectoryLock::take(path)) {
            Ok(lock) => (Some(lock), Probe::Passed),
            Err(error) => (None, Probe::Failed(error)),
        };
        let facts =
            Facts::gather(&Root::machine(), Asked::now(), DirectoryFacts::after(path, taken)).with_files_of(config);
        let (failures, warnings) = sentences(&facts, config);
        Self {
            failures,
            warnings,
            open: network::open::open(&facts.open, config),
            lock,
        }
    }

    /// The lock on the data directory, if nothing forbids the start.
    pub fn into_lock(self) -> Result<DirectoryLock, CheckError> {
        match self.lock {
            Some(lock) if self.failures.is_empty() => Ok(lock),
            _ => Err(CheckError {
                failures: self.failures,
            }),
        }
    }
}

/// The machine is not fit to run the broker.
#[derive(Debug, thiserror::Error)]
#[error("{}", failures.join("\n"))]
pub struct CheckError {
    /// One sentence each.
    pub failures: Vec<String>,
}

/// The CPUs to run on, one executor each: as configured, else the first `count` (or all) that this process may use.
/// Never empty.
pub fn cpus(config: &CoresSection) -> Vec<u16> {
    cores::chosen(config, &facts::allowed_cpus())
}

/// What a configuration is made for.
#[derive(Clone, Debug)]
pub struct Machine {
    /// CPUs that this process may use; never empty.
    pub cpus: Vec<u16>,
    /// CPUs' worth of time that its control group may use. None: no limit.
    pub quota: Option<f64>,
    /// Memory of the machine, or of the control group if that is less.
    pub memory_bytes: Option<u64>,
    /// What this user may still write in the data directory, or where it would be made.
    pub free_bytes: Option<u64>,
}

impl Machine {
    /// Looks, and changes nothing.
    pub fn look(config: &Config) -> Machine {
        let directory = DirectoryFacts::look(&config.log.directory);
        let facts = Facts::gather(&Root::machine(), Asked::now(), directory);
        Machine {
            cpus: facts.asked.cpus,
            quota: facts.cpu.quota.filter(|cpus| cpus.is_finite()),
            memory_bytes: facts.memory.bytes,
            free_bytes: facts.directory.free_bytes,
        }
    }
}

/// Descriptors that each core may keep open for segment files: as configured, else its share of what this process may open.
pub fn open_files_max(config: &Config) -> u64 {
    let limit = getrlimit(Resource::Nofile).current;
    kernel::segment_files(config, limit, cpus(&config.cores).len() as u64)
}

/// What forbids the start, and what is worth a warning: a sentence each.
fn sentences(facts: &Facts, config: &Config) -> (Vec<String>, Vec<String>) {
    let judged = ITEMS.iter().map(|item| (item.name, item.judge(facts, config)));
    let findings: Vec<(&str, Finding)> = judged.collect();
    let of = |verdict, but: Option<&'static str>| {
        let found = findings
            .iter()
            .filter(move |(name, finding)| finding.verdict == verdict && Some(*name) != but);
        found.map(|(_, finding)| finding.sentence()).collect()
    };
    (
        of(Verdict::ForbidsStart, None),
        of(Verdict::MustChange, Some(item::OPEN)),
    )
}

/// Raises the soft limit to the hard limit, which any process may.
fn raise(resource: Resource) {
    let limit = getrlimit(resource);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(resource, raised) {
            tracing::debug!(?resource, %error, "the soft limit stays as it was");
        }
    }
}

/// The name of the lock file of a data directory.
pub(crate) fn lock_path(directory: &Path) -> PathBuf {
    directory.join("lock")
}
