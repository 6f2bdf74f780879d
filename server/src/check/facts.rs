//! What the checks need to know of the machine. Nothing is judged here, nothing is changed, and whatever cannot be found
//! out is `None`. All but [`Asked`] and the data directory is read from files below a [`Root`].

use std::io;
use std::time::Instant;

use rustix::process::{Resource, getrlimit};

use super::clock::ClockFacts;
use super::cpu::CpuFacts;
use super::directory::DirectoryFacts;
use super::interrupts::InterruptFacts;
use super::kernel::KernelFacts;
use super::memory::MemoryFacts;
use super::network::NetworkFacts;
use super::root::Root;
use super::storage::StorageFacts;

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
        }
    }
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
