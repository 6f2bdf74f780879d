//! What the checks need to know of the machine. Nothing is judged here, and whatever cannot be found out is `None`.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use futures::FutureExt as _;
use headwater_engine::disk::{Directory as _, StdDirectory};
use rustix::fs::OFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::DirectoryLock;
use crate::config::Config;
use crate::topics::IDENTITY_FILE;

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
    /// Major and minor version.
    pub kernel: Option<(u32, u32)>,
    pub kernel_release: String,
    pub io_uring: Probe,
    /// `kernel.io_uring_disabled` (Linux 6.6): 0 allowed, 1 for privileged processes only, 2 for none.
    pub io_uring_disabled: Option<u32>,
    /// CPUs that this process may use, in rising order.
    pub cpus: Vec<u16>,
    /// Soft limits, after they were raised. None: unlimited.
    pub memlock_bytes: Option<u64>,
    pub open_files: Option<u64>,
    /// Memory of the machine, or of the control group if that has less.
    pub memory_bytes: Option<u64>,
    pub directory: DirectoryFacts,
}

/// What is known of the data directory.
#[derive(Debug)]
pub(super) struct DirectoryFacts {
    pub path: PathBuf,
    /// It was made, and its lock taken. The rest is only known if this passed.
    pub lock: Probe,
    /// No broker has used it before.
    pub is_new: bool,
    pub direct_io: Probe,
    /// tmpfs or ramfs.
    pub in_memory: bool,
    /// What this user may still write.
    pub free_bytes: Option<u64>,
}

/// Finds out everything. Raises soft limits, makes and locks the data directory.
pub(super) fn gather(config: &Config) -> (Facts, Option<DirectoryLock>) {
    let kernel_release = rustix::system::uname().release().to_string_lossy().into_owned();
    let (directory, lock) = directory(&config.log.directory);
    let facts = Facts {
        kernel: kernel_version(&kernel_release),
        kernel_release,
        io_uring: io_uring::IoUring::new(8).map(drop).into(),
        io_uring_disabled: read_number("/proc/sys/kernel/io_uring_disabled"),
        cpus: allowed_cpus(),
        memlock_bytes: raise(Resource::Memlock),
        open_files: raise(Resource::Nofile),
        memory_bytes: memory_bytes(),
        directory,
    };
    (facts, lock)
}

/// `6.18.44-generic` is (6, 18).
pub(super) fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
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

/// Raises the soft limit to the hard limit, which any process may, and returns what holds now. None: unlimited.
fn raise(resource: Resource) -> Option<u64> {
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
    getrlimit(resource).current
}

fn memory_bytes() -> Option<u64> {
    let system = rustix::system::sysinfo();
    // Field widths differ between architectures.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let machine = (system.totalram as u64).checked_mul(u64::from(system.mem_unit));
    let group = read_number("/sys/fs/cgroup/memory.max");
    machine.into_iter().chain(group).min()
}

fn read_number<T: std::str::FromStr>(path: &str) -> Option<T> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn directory(path: &Path) -> (DirectoryFacts, Option<DirectoryLock>) {
    let is_new = !path.join(IDENTITY_FILE).exists();
    let mut facts = DirectoryFacts {
        path: path.to_owned(),
        lock: Probe::Passed,
        is_new,
        direct_io: Probe::Passed,
        in_memory: false,
        free_bytes: None,
    };
    let made = StdDirectory::default()
        .create_dir(path)
        .now_or_never()
        .expect("StdDirectory blocks instead of waiting");
    let lock = match made.and_then(|()| DirectoryLock::take(path)) {
        Ok(lock) => lock,
        Err(error) => {
            facts.lock = Probe::Failed(error);
            return (facts, None);
        }
    };
    facts.direct_io = try_direct_io(path).into();
    facts.free_bytes = rustix::fs::statvfs(path)
        .ok()
        .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    facts.in_memory = rustix::fs::statfs(path).is_ok_and(|stat| is_in_memory(stat.f_type as u64));
    (facts, Some(lock))
}

/// Magic numbers of statfs(2): `TMPFS_MAGIC` and `RAMFS_MAGIC`.
fn is_in_memory(magic: u64) -> bool {
    // The type of the field is signed on some architectures: only 32 bits count.
    [0x0102_1994, 0x8584_58f6].contains(&(magic & 0xffff_ffff))
}

/// Writes one block the way segments are written, and flushes it.
fn try_direct_io(directory: &Path) -> io::Result<()> {
    #[repr(align(4096))]
    struct Block([u8; 4096]);

    let path = directory.join("direct-io-check.tmp");
    let result = open_direct(&path).and_then(|file| {
        file.write_all_at(&Box::new(Block([0x5a; 4096])).0, 0)?;
        file.sync_data()
    });
    // The file may be there although the open failed: file systems without O_DIRECT make it first.
    match std::fs::remove_file(&path) {
        Err(error) if result.is_ok() => Err(error),
        _ => result,
    }
}

fn open_direct(path: &Path) -> io::Result<File> {
    let direct = OFlags::DIRECT.bits().cast_signed();
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(direct)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_new_until_a_broker_has_its_identity_in_it() {
        let temporary = tempfile::tempdir().unwrap();
        std::fs::create_dir(temporary.path().join("lost+found")).unwrap();
        assert!(directory(temporary.path()).0.is_new);
        std::fs::write(temporary.path().join(IDENTITY_FILE), "").unwrap();
        assert!(!directory(temporary.path()).0.is_new);
    }

    #[test]
    fn the_probe_of_direct_io_is_direct() {
        let temporary = tempfile::tempdir().unwrap();
        let file = open_direct(&temporary.path().join("file")).unwrap();
        assert!(rustix::fs::fcntl_getfl(file).unwrap().contains(OFlags::DIRECT));
    }
}
