//! What must be true of the machine before the broker starts, so that a wrong set-up fails at once and says what to change.
//!
//! `facts` asks the machine; [`judge`] decides from the facts and the configuration alone, which is what the tests test.
//! A failure forbids the start, a warning is logged. Every sentence names the remedy. The lock on the data directory is
//! taken here and lives as long as the [`DirectoryLock`] that the caller keeps.

mod facts;
mod lock;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use facts::{Facts, Probe};
pub use lock::DirectoryLock;

use crate::config::{Config, CoresSection};

/// 5.15 is the oldest long-term kernel whose io_uring workers are threads of the process (since 5.12), bound by its
/// limits and ended with it, and whose rings are not charged to memlock.
const KERNEL_MIN: (u32, u32) = (5, 15);

/// glommio 0.9.0 refuses to make a reactor below this (`MIN_MEMLOCK_LIMIT` in `src/sys/uring.rs`).
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// A partition's active segment, and up to two more that a roll, a cold fetch or retention has open.
const FILES_PER_PARTITION: u64 = 3;

/// Rings, event descriptors and listeners of one core.
const FILES_PER_CORE: u64 = 32;

/// Standard streams, the lock, the control thread, metadata files.
const FILES_OF_PROCESS: u64 = 64;

/// Segments that must fit on the disk for a partition to roll while its oldest segment waits for retention.
const SEGMENTS_FREE_MIN: u64 = 3;

/// What the checks found.
#[derive(Debug)]
pub struct Checks {
    /// Each forbids the start: one sentence that says what to change.
    pub failures: Vec<String>,
    /// Each is worth a line in the log.
    pub warnings: Vec<String>,
    lock: Option<DirectoryLock>,
}

impl Checks {
    /// Asks the machine all that `config` needs of it. Raises the soft limits on open files and locked memory to the
    /// hard limits, makes the data directory if it is missing, and locks it.
    pub fn run(config: &Config) -> Self {
        let (facts, lock) = facts::gather(config);
        let (failures, warnings) = judge(config, &facts);
        Self {
            failures,
            warnings,
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
    if !config.set.is_empty() {
        return config.set.iter().collect();
    }
    let allowed = facts::allowed_cpus();
    let count = if config.count == 0 {
        allowed.len()
    } else {
        usize::from(config.count)
    };
    // More executors than CPUs is possible when they are not pinned; they share CPUs in turn.
    allowed.iter().copied().cycle().take(count).collect()
}

fn judge(config: &Config, facts: &Facts) -> (Vec<String>, Vec<String>) {
    let mut judge = Judge {
        config,
        facts,
        failures: Vec::new(),
        warnings: Vec::new(),
    };
    judge.kernel();
    judge.cores();
    judge.resources();
    judge.directory();
    (judge.failures, judge.warnings)
}

struct Judge<'a> {
    config: &'a Config,
    facts: &'a Facts,
    failures: Vec<String>,
    warnings: Vec<String>,
}

impl Judge<'_> {
    fn fail(&mut self, sentence: impl Into<String>) {
        self.failures.push(sentence.into());
    }

    fn warn(&mut self, sentence: impl Into<String>) {
        self.warnings.push(sentence.into());
    }

    fn kernel(&mut self) {
        let Facts {
            kernel,
            kernel_release,
            io_uring,
            io_uring_disabled,
            ..
        } = self.facts;
        let (major, minor) = KERNEL_MIN;
        match kernel {
            Some(version) if *version < KERNEL_MIN => {
                self.fail(format!(
                    "The kernel is {kernel_release}; run on Linux {major}.{minor} or newer."
                ));
            }
            Some(_) => {}
            None => self.warn(format!(
                "The kernel's release {kernel_release:?} names no version; Linux {major}.{minor} or newer is needed."
            )),
        }
        if let Probe::Failed(error) = io_uring {
            self.fail(match io_uring_disabled {
                Some(value @ 1..) => format!(
                    "io_uring is switched off by kernel.io_uring_disabled = {value}; run `sysctl kernel.io_uring_disabled=0` as root."
                ),
                _ if error.kind() == std::io::ErrorKind::PermissionDenied => format!(
                    "io_uring is not permitted ({error}); allow it in the container's seccomp profile (docker: --security-opt seccomp=PROFILE)."
                ),
                _ => format!("io_uring cannot be set up ({error}); run a kernel that has it (CONFIG_IO_URING) and allows it."),
            });
        }
    }

    fn cores(&mut self) {
        let cores = &self.config.cores;
        let allowed = &self.facts.cpus;
        let range = shown(allowed);
        let outside: Vec<u16> = cores.set.iter().filter(|cpu| !allowed.contains(cpu)).collect();
        if cores.pin && !outside.is_empty() {
            self.fail(format!(
                "cores.set names CPU {}, which this process may not use; choose from {range}.",
                shown(&outside)
            ));
        }
        let count = cpus_of(cores, allowed);
        if let Some(rule) = self.config.core_ports_rule(count) {
            let base = self.config.broker.core_port_base;
            self.fail(format!("broker.core_port_base is {base}; {rule}."));
        }
        if count > allowed.len() && cores.pin && outside.is_empty() {
            self.fail(format!(
                "cores.count is {count}, but this process may use only the {} CPUs {range}; lower it, or set cores.pin = false.",
                allowed.len()
            ));
        }
    }

    fn resources(&mut self) {
        let Facts {
            memlock_bytes,
            open_files,
            memory_bytes,
            ..
        } = *self.facts;
        if let Some(limit) = memlock_bytes.filter(|limit| *limit < MEMLOCK_BYTES_MIN) {
            self.fail(format!(
                "The limit on locked memory is {} KiB; raise it to {} KiB or more (`ulimit -l`, or LimitMEMLOCK= of systemd).",
                limit / 1024,
                MEMLOCK_BYTES_MIN / 1024
            ));
        }
        let Config { cores, limits, .. } = self.config;
        let core_count = cpus_of(cores, &self.facts.cpus) as u64;
        let needed = u64::from(limits.connections_max)
            + u64::from(limits.partitions_max) * FILES_PER_PARTITION
            + core_count * FILES_PER_CORE
            + FILES_OF_PROCESS;
        if let Some(limit) = open_files.filter(|limit| *limit < needed) {
            self.fail(format!(
                "The limit on open files is {limit}, but {} connections and {} partitions may need {needed}; raise it \
                 (`ulimit -Hn`, or LimitNOFILE= of systemd), or lower limits.connections_max or limits.partitions_max.",
                limits.connections_max, limits.partitions_max
            ));
        }
        let per_core = [
            cores.tail_buffer_bytes_max,
            cores.connection_bytes_max,
            cores.in_flight_bytes_max,
        ];
        let budgets = per_core
            .iter()
            .map(|size| size.bytes())
            .sum::<u64>()
            .saturating_mul(core_count);
        if let Some(memory) = memory_bytes.filter(|memory| *memory < budgets) {
            self.warn(format!(
                "The budgets of {core_count} cores add up to {}, more than the {} of memory; lower cores.tail_buffer_bytes_max, \
                 cores.connection_bytes_max or cores.in_flight_bytes_max.",
                rounded(budgets),
                rounded(memory)
            ));
        }
    }

    fn directory(&mut self) {
        let path = self.facts.directory.path.display().to_string();
        match &self.facts.directory.lock {
            Probe::Passed => {}
            Probe::Failed(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                // The lock's error already names the process which holds it.
                self.fail(format!(
                    "{error}; stop that broker, or choose another directory with --data-dir."
                ));
                return;
            }
            Probe::Failed(error) => {
                self.fail(format!(
                    "The data directory {path} cannot be made or written ({error}); give this user the right to, or choose another with --data-dir."
                ));
                return;
            }
        }
        match &self.facts.directory.direct_io {
            Probe::Passed => {}
            // A broker with a full disk must start: it serves what it has, and deletes what has passed its retention.
            Probe::Failed(error) if error.kind() == std::io::ErrorKind::StorageFull => {}
            Probe::Failed(error) => self.fail(format!(
                "Direct I/O (O_DIRECT) does not work in the data directory {path} ({error}); put it on a file system which has it, such as ext4 or XFS, with --data-dir."
            )),
        }
        if self.facts.directory.in_memory {
            self.warn(format!(
                "The data directory {path} is on a file system in memory: nothing in it survives a restart of the machine; choose a disk with --data-dir."
            ));
        }
        self.free_disk(&path);
    }

    fn free_disk(&mut self, path: &str) {
        let segment = self.config.log.segment_size_bytes;
        let needed = segment.bytes().saturating_mul(SEGMENTS_FREE_MIN);
        let Some(free) = self.facts.directory.free_bytes.filter(|free| *free < needed) else {
            return;
        };
        let sentence = format!(
            "The disk of the data directory {path} has {} free, less than {SEGMENTS_FREE_MIN} segments of {segment}; free some, \
             choose another with --data-dir, or lower log.segment_size_bytes.",
            rounded(free)
        );
        // Existing data must stay readable on a full disk; a new broker there has nothing to offer.
        if self.facts.directory.is_new {
            self.fail(sentence);
        } else {
            self.warn(sentence);
        }
    }
}

/// How many cores the broker runs on.
fn cpus_of(cores: &CoresSection, allowed: &[u16]) -> usize {
    match (cores.set.len(), usize::from(cores.count)) {
        (0, 0) => allowed.len(),
        (0, count) | (count, _) => count,
    }
}

/// For people: a tenth of the unit is enough.
fn rounded(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

/// `0,2,3` for CPUs.
fn shown(cpus: &[u16]) -> String {
    cpus.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

/// The name of the lock file of a data directory.
pub(crate) fn lock_path(directory: &Path) -> PathBuf {
    directory.join("lock")
}
