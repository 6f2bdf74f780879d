//! What the kernel's page cache holds of a file, asked without making it read anything.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// `cachestat(2)`, since Linux 6.5; the same number on all architectures that Rust runs on.
const CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range` of `linux/mman.h`.
#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

/// `struct cachestat` of `linux/mman.h`, in pages.
#[repr(C)]
#[derive(Default)]
struct Stat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether all of these bytes, at least one, are in the page cache, or are being read into it. False where the kernel cannot say.
pub(super) fn holds(file: BorrowedFd<'_>, position: u64, length: u64) -> io::Result<bool> {
    let (range, mut stat) = (
        Range {
            offset: position,
            length,
        },
        Stat::default(),
    );
    let no_flags: libc::c_uint = 0;
    // SAFETY: the kernel reads the one and fills the other, as long as the call lasts.
    let failed = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, no_flags) };
    if failed == 0 {
        let page = rustix::param::page_size() as u64;
        let pages = (position + length - 1) / page - position / page + 1;
        return Ok(stat.cached == pages);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // An older kernel, a sandbox, a file system without a page cache.
        Some(libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP) => Ok(false),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read as _, os::fd::AsFd as _};

    use super::*;

    const SIZE: usize = 1 << 20;

    #[test]
    fn only_what_was_read_is_there_and_asking_reads_nothing() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = directory.path().join("file");
        fs::write(&path, vec![7; SIZE]).unwrap();
        let mut file = fs::File::open(&path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        for _ in 0..2 {
            assert!(!holds(file.as_fd(), 0, SIZE as u64).unwrap());
            assert!(!holds(file.as_fd(), 4095, 2).unwrap());
        }
        file.read_exact(&mut [0; 4096]).unwrap();
        if !holds(file.as_fd(), 0, 4096).unwrap() {
            eprintln!("skipped: this kernel has no cachestat(2), or the file system no page cache");
            return;
        }
        assert!(holds(file.as_fd(), 100, 1).unwrap());
        assert!(!holds(file.as_fd(), 4095, SIZE as u64 - 4095).unwrap());
        file.read_exact(&mut vec![0; SIZE - 4096]).unwrap();
        assert!(holds(file.as_fd(), 1, SIZE as u64 - 1).unwrap());
    }
}
