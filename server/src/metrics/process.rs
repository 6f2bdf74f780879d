//! Figures of the process and its disk, by the names that Prometheus's client libraries give them
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>). Read from `/proc` when somebody asks.

use std::{fmt, path::Path};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};
use rustix::process::{Resource, getrlimit};

/// The process at one moment; what the kernel does not say is left out.
#[derive(Debug, Default)]
pub(crate) struct Process {
    pub(crate) resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    threads: Option<u64>,
    cpu_seconds: Option<f64>,
    /// Seconds since the epoch.
    start_time: Option<f64>,
    open_files: Option<u64>,
    open_files_max: Option<u64>,
}

impl Process {
    pub(crate) fn now() -> Process {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let kibibytes = |key| field(&status, key).map(|kibibytes| kibibytes * 1024);
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let started = stat_number(&stat, START_TIME).map(|at| at / ticks);
        Process {
            resident_bytes: kibibytes("VmRSS:"),
            virtual_bytes: kibibytes("VmSize:"),
            threads: field(&status, "Threads:"),
            cpu_seconds: stat_number(&stat, USER_TIME)
                .zip(stat_number(&stat, SYSTEM_TIME))
                .map(|(user, system)| (user + system) / ticks),
            start_time: boot_time().zip(started).map(|(boot, started)| boot + started),
            // The listing has a descriptor of its own.
            open_files: std::fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| (files.count() as u64).saturating_sub(1)),
            open_files_max: getrlimit(Resource::Nofile).current,
        }
    }
}

/// Fields of `proc_pid_stat(5)` behind the name, which may hold anything but ends with the last parenthesis; from 0.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const START_TIME: usize = 19;

fn stat_number(stat: &str, index: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(index)?.parse().ok()
}

/// A number of `proc_pid_status(5)`, in the unit that stands there.
fn field(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// `btime` of `proc_stat(5)`.
fn boot_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(seconds) = self.cpu_seconds {
            let help = "User and system CPU time";
            let mut family = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            family.encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
        }
        let whole = |number: Option<u64>| number.map(|number| number as f64);
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Memory in use",
                whole(self.resident_bytes),
            ),
            (
                "process_virtual_memory_bytes",
                "Address space in use",
                whole(self.virtual_bytes),
            ),
            ("process_threads", "Threads", whole(self.threads)),
            (
                "process_start_time_seconds",
                "When it was started, since the epoch",
                self.start_time,
            ),
            ("process_open_fds", "Open file descriptors", whole(self.open_files)),
            (
                "process_max_fds",
                "Most file descriptors that may be open",
                whole(self.open_files_max),
            ),
        ] {
            if let Some(value) = value {
                let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                family.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

/// The file system of the data directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskSpace {
    /// What the broker may still use, in bytes; root's reserve is not part of it.
    pub(crate) free_bytes: u64,
    pub(crate) size_bytes: u64,
}

impl DiskSpace {
    pub(crate) fn of(directory: &Path) -> Option<DiskSpace> {
        let found = rustix::fs::statvfs(directory).ok()?;
        Some(DiskSpace {
            free_bytes: found.f_bavail * found.f_frsize,
            size_bytes: found.f_blocks * found.f_frsize,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_the_end_of_the_name_whatever_is_in_it() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 17 18 4000 0";
        assert_eq!(stat_number(stat, USER_TIME), Some(250.0));
        assert_eq!(stat_number(stat, SYSTEM_TIME), Some(50.0));
        assert_eq!(stat_number(stat, START_TIME), Some(4000.0));
        assert_eq!(stat_number("", USER_TIME), None);
    }

    #[test]
    fn this_process_is_known_in_every_figure() {
        let process = Process::now();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap().as_secs_f64();
        assert!(process.resident_bytes.unwrap() <= process.virtual_bytes.unwrap());
        assert!(process.threads.unwrap() >= 1 && process.cpu_seconds.unwrap() >= 0.0);
        assert!(process.start_time.unwrap() <= now + 1.0, "{process:?}");
        assert!(process.open_files.unwrap() <= process.open_files_max.unwrap_or(u64::MAX));
    }
}
