//! What the kernel's page cache holds of a file, asked without waiting for the disk.

use std::{
    cell::Cell,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::io::{Errno, ReadWriteFlags};

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

/// Reads of one file that must not wait (`RWF_NOWAIT`, preadv2(2)), until it turns out that its file system has none: those that
/// lie over another one (overlayfs, FUSE) or a network.
#[derive(Debug, Default)]
pub(super) struct Unwaiting {
    is_unknown: Cell<bool>,
}

impl Unwaiting {
    /// Whether the first and the last of these bytes, at least one, are in the page cache; the kernel reads ahead in order, so what
    /// lies between mostly is. `None` if the file system cannot say. It begins to read what is not there.
    pub(super) fn has_ends(&self, file: BorrowedFd<'_>, position: u64, length: u64) -> io::Result<Option<bool>> {
        self.has(&[position, position + length - 1], |at| {
            let mut byte = [0];
            rustix::io::preadv2(file, &mut [io::IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT)
        })
    }

    fn has(&self, positions: &[u64], read: impl Fn(u64) -> Result<usize, Errno>) -> io::Result<Option<bool>> {
        if self.is_unknown.get() {
            return Ok(None);
        }
        for at in positions {
            match read(*at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR) => return Ok(Some(false)),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.is_unknown.set(true);
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(true))
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

    #[test]
    fn a_file_system_without_reads_that_do_not_wait_is_asked_once_and_never_fails_a_reader() {
        let asked = Cell::new(0);
        let answer = |error| {
            let asked = &asked;
            move |_| {
                asked.set(asked.get() + 1);
                Err(error)
            }
        };
        let unwaiting = Unwaiting::default();
        assert_eq!(unwaiting.has(&[1, 2], |_| Ok(1)).unwrap(), Some(true));
        assert_eq!(unwaiting.has(&[1, 2], answer(Errno::AGAIN)).unwrap(), Some(false));
        assert!(unwaiting.has(&[1, 2], answer(Errno::IO)).is_err());
        assert!(unwaiting.has(&[1, 2], |_| Ok(0)).is_err());
        assert_eq!(unwaiting.has(&[1, 2], answer(Errno::OPNOTSUPP)).unwrap(), None);
        let before = asked.get();
        assert_eq!(unwaiting.has(&[1, 2], answer(Errno::OPNOTSUPP)).unwrap(), None);
        assert_eq!(asked.get(), before);
    }
}
