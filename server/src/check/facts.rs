//! What the checks need to know of the machine. Nothing is judged here, nothing is changed, and whatever cannot be found
//! out is `None`. All but [`Asked`] and the data directory is read from files below a [`Root`].

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use rustix::process::{Resource, getrlimit};

use super::root::Root;
use super::root::storage::StorageFacts;
use crate::config::Config;

/// The outcome of an attempt.
#[derive(Debug)]
pub(super) enum Probe {
    Passed,
    Failed(io::Error),
}

impl From<io::Result<()>> for Probe {
    fn from(result: io::Result<()>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Passed)
    }
}

#[derive(Debug)]
pub(super) struct Facts {
    pub asked: Asked,
    pub kernel: KernelFacts,
    pub cpu: CpuFacts,
    pub interrupts: InterruptFacts,
    pub memory: MemoryFacts,
    pub directory: DirectoryFacts,
    pub storage: StorageFacts,
    pub network: NetworkFacts,
    pub clock: ClockFacts,
    /// What the configuration names; nothing unless it is looked at.
    pub tls: TlsFacts,
    pub open: OpenFacts,
}

impl Facts {
    pub(super) fn gather(root: &Root, asked: Asked, directory: DirectoryFacts) -> Self {
        let storage = StorageFacts::read(root, &directory);
        Self {
            asked,
            kernel: KernelFacts::read(root),
            cpu: CpuFacts::read(root),
            interrupts: InterruptFacts::read(root, &storage),
            memory: MemoryFacts::read(root),
            directory,
            storage,
            network: NetworkFacts::read(root),
            clock: ClockFacts::read(root),
            tls: TlsFacts::default(),
            open: OpenFacts::default(),
        }
    }

    /// With what is in the files that the configuration names.
    pub(super) fn with_files_of(mut self, config: &Config) -> Self {
        self.tls = TlsFacts::look(config);
        self.open = OpenFacts::look(config);
        self
    }
}

#[derive(Debug)]
pub(super) struct ClockFacts {
    pub current: Option<String>,
    pub available: Vec<String>,
}

/// One way of an idle CPU to save power.
#[derive(Debug)]
pub(super) struct IdleState {
    pub name: String,
    pub wake_us: u64,
    pub is_disabled: bool,
}

#[derive(Debug)]
pub(super) struct CpuFacts {
    /// Of each CPU that has one. None in virtual machines.
    pub governors: Vec<(u16, String)>,
    /// Those of the first CPU, `state0` first; all CPUs of a machine have the same as a rule.
    pub idle_states: Vec<IdleState>,
    pub idle_governor: Option<String>,
    /// The CPUs of each physical core.
    pub siblings: Vec<Vec<u16>>,
    /// The CPUs of each NUMA node that has any.
    pub nodes: Vec<Vec<u16>>,
    /// CPUs' worth of time that the control group may use. None: no limit.
    pub quota: Option<f64>,
}

#[derive(Debug)]
pub(super) struct DirectoryFacts {
    pub path: PathBuf,
    /// The directory, or the nearest one above that exists; without symbolic links.
    pub nearest: PathBuf,
    /// This process may use it, or make it. The rest is only known if this passed.
    pub usable: Probe,
    /// No broker has used it before.
    pub is_new: bool,
    pub direct_io: Option<Probe>,
    /// To which positions in a file must be aligned (`STATX_DIOALIGN`, since Linux 6.1).
    pub alignment_bytes: Option<u32>,
    pub calls: Option<Calls>,
    /// What this user may still write.
    pub free_bytes: Option<u64>,
    /// What is named as directories of partitions are, and is none: a few of them.
    pub misplaced: Vec<String>,
    /// Of the file that a broker which runs holds a lock on.
    pub lock_inode: Option<u64>,
}

/// What the broker would ask of the file system, and can do without.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calls {
    /// Reads that do not wait for the disk (`RWF_NOWAIT`, preadv2(2)).
    pub unwaiting: bool,
    /// fallocate(2).
    pub allocation: bool,
}

#[derive(Debug)]
pub(super) struct InterruptFacts {
    /// Those of the disks of the data directory and of all network cards, if they came at least once.
    pub active: Vec<Interrupt>,
    pub online: Vec<u16>,
    pub irqbalance_runs: bool,
}

#[derive(Debug)]
pub(super) struct Interrupt {
    pub number: u32,
    pub count: u64,
    /// Where it lands.
    pub cpus: Vec<u16>,
}

#[derive(Debug)]
pub(super) struct KernelFacts {
    /// `kernel.io_uring_disabled` (Linux 6.6): 0 allowed, 1 for privileged processes only, 2 for none.
    pub io_uring_disabled: Option<u32>,
    /// What `/sys/devices/system/cpu/vulnerabilities` says of each, such as `Mitigation: PTI`.
    pub vulnerabilities: Vec<String>,
}

#[derive(Debug)]
pub(super) struct MemoryFacts {
    /// Of the machine, or what the control group may use if that is less.
    pub bytes: Option<u64>,
    pub huge_pages: Option<String>,
    pub defrag: Option<String>,
    /// Areas to swap to.
    pub swaps: usize,
    pub swappiness: Option<u32>,
    /// Virtual devices that tell the host of free memory.
    pub reporting: Vec<String>,
}

#[derive(Debug)]
pub(super) struct NetworkFacts {
    pub somaxconn: Option<u64>,
    pub syn_backlog: Option<u64>,
    /// Minimum, default and maximum.
    pub receive: Option<[u64; 3]>,
    pub send: Option<[u64; 3]>,
    /// First and last port that a connection may be made from.
    pub local_ports: Option<[u64; 2]>,
}

/// What the kernel says of itself and of this process when it is asked by system calls.
#[derive(Debug)]
pub(super) struct Asked {
    pub kernel_release: String,
    /// Whether a ring can be made.
    pub io_uring: Probe,
    /// CPUs that this process may use, in rising order.
    pub cpus: Vec<u16>,
    /// Hard limits, to which the broker raises its soft limits. None: unlimited.
    pub memlock_bytes: Option<u64>,
    pub open_files: Option<u64>,
    /// Time to read the clock, and that of a system call which does next to nothing, at their fastest.
    pub clock_ns: u64,
    pub system_call_ns: u64,
}

impl Asked {
    pub(super) fn now() -> Self {
        Self {
            kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
            io_uring: io_uring::IoUring::new(8).map(drop).into(),
            cpus: allowed_cpus(),
            memlock_bytes: getrlimit(Resource::Memlock).maximum,
            open_files: getrlimit(Resource::Nofile).maximum,
            clock_ns: fastest_ns(Instant::now),
            system_call_ns: fastest_ns(rustix::process::getppid),
        }
    }
}

/// The CPUs in the process's affinity mask; CPU 0 if that cannot be read. Never empty.
pub(super) fn allowed_cpus() -> Vec<u16> {
    let cpus = rustix::thread::sched_getaffinity(None).map(|set| {
        let numbers = 0..rustix::thread::CpuSet::MAX_CPU;
        numbers
            .filter(|cpu| set.is_set(*cpu))
            .filter_map(|cpu| u16::try_from(cpu).ok())
            .collect::<Vec<_>>()
    });
    cpus.ok().filter(|cpus| !cpus.is_empty()).unwrap_or_else(|| vec![0])
}

/// Nanoseconds for one call: 10,000 calls in ten batches, of which the fastest was the least disturbed.
fn fastest_ns<T>(call: impl Fn() -> T) -> u64 {
    const CALLS: u32 = 1_000;
    let batch = |_| {
        let start = Instant::now();
        for _ in 0..CALLS {
            std::hint::black_box(call());
        }
        start.elapsed().as_nanos() as u64 / u64::from(CALLS)
    };
    (0..10).map(batch).min().unwrap_or_default()
}

/// What was found in the files of certificates that the configuration names.
#[derive(Debug, Default)]
pub(super) struct TlsFacts {
    /// Why the broker cannot start with them.
    pub unusable: Option<String>,
    /// A sentence for each thing that is wrong.
    pub wrong: Vec<String>,
}

/// What tells whether something is open, beyond the configuration.
#[derive(Debug, Default)]
pub(super) struct OpenFacts {
    /// Why the password of the configuration cannot be had.
    pub unreadable: Option<String>,
    pub files: Vec<SecretFile>,
    /// As whom this process runs.
    pub user: u32,
    /// When the first certificate of each port ends, and what time it is, in seconds since 1970.
    pub expiries: Vec<(&'static str, i64)>,
    pub now: i64,
}

/// A file that nobody but the broker should read.
#[derive(Debug)]
pub(super) struct SecretFile {
    /// The setting that names it.
    pub key: String,
    pub path: PathBuf,
    pub mode: u32,
    pub owner: u32,
}
