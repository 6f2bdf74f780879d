//! The file that the disk is measured with: without a name, so that it is gone with the process, however that ends.
//!
//! Every block of it has been written before anything is measured: writes change no metadata, as in a prepared segment, and
//! reads find neither holes nor unwritten extents. Clones are the same file; whoever measures uses it alone.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, SeekFrom, StatxFlags};

use super::LimitsError;
use super::ring::{PAGE, Ring, Slot, Token};

/// What must remain free on the disk.
const RESERVE_BYTES: u64 = 256 << 20;

/// Size of the writes that prepare the file.
const PREPARE_BYTES: usize = 1 << 20;

/// And how many of them are in flight.
const PREPARE_DEPTH: usize = 8;

/// With this long a silence the disk is given up.
pub const STALL: Duration = Duration::from_secs(10);

/// A file whose blocks are all written.
#[derive(Debug, Clone)]
pub struct Scratch {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Through the page cache.
    cached: File,
    /// Past it (`O_DIRECT`).
    direct: OwnedFd,
    bytes: u64,
    alignment: usize,
    path: PathBuf,
}

impl Scratch {
    /// Makes the file in a directory: so many bytes, rounded down to whole MiB, and at least 16 of them.
    pub fn prepare(directory: &Path, bytes: u64) -> Result<Self, LimitsError> {
        let bytes = (bytes & !(PREPARE_BYTES as u64 - 1)).max(16 << 20);
        let failed = |doing| LimitsError::disk(doing, directory);
        let cached = tempfile::tempfile_in(directory).map_err(failed("make a file in"))?;
        let room = rustix::fs::fstatvfs(&cached).map_err(|error| failed("look for room in")(error.into()))?;
        let available = room.f_bavail.saturating_mul(room.f_frsize);
        if available < bytes.saturating_add(RESERVE_BYTES) {
            return Err(LimitsError::NoRoom {
                directory: directory.to_owned(),
                needed: bytes + RESERVE_BYTES,
                available,
            });
        }
        let direct = reopen(&cached, OFlags::RDWR | OFlags::DIRECT).map_err(failed("use direct I/O in"))?;
        // In one piece, where the file system can; the writes allocate in any case.
        let _ = rustix::fs::fallocate(&cached, FallocateFlags::empty(), 0, bytes);
        let scratch = Self {
            inner: Arc::new(Inner {
                alignment: alignment(&direct),
                cached,
                direct,
                bytes,
                path: directory.to_owned(),
            }),
        };
        scratch.write_all_blocks()?;
        Ok(scratch)
    }

    fn write_all_blocks(&self) -> Result<(), LimitsError> {
        let failed = |doing| LimitsError::disk(doing, &self.inner.path);
        let mut ring = Ring::new(32, PREPARE_DEPTH * PREPARE_BYTES, 1).map_err(LimitsError::Ring)?;
        ring.set_file(Slot(0), Some(self.direct()?))
            .map_err(LimitsError::Ring)?;
        fill(&mut ring);
        let transfer = Transfer {
            write: true,
            block_bytes: PREPARE_BYTES,
            depth: PREPARE_DEPTH,
            file_bytes: self.inner.bytes,
        };
        let blocks = self.inner.bytes / PREPARE_BYTES as u64;
        transfer
            .run(&mut ring, |done| done < blocks)
            .map_err(failed("write to"))?;
        rustix::fs::fdatasync(&self.inner.direct).map_err(|error| failed("flush in")(error.into()))?;
        // A hole is also what unwritten extents look like to lseek(2).
        let hole = rustix::fs::seek(&self.inner.cached, SeekFrom::Hole(0));
        match hole.map_err(|error| failed("look for holes in")(error.into()))? {
            hole if hole >= self.inner.bytes => Ok(()),
            _ => Err(failed("prepare")(io::Error::other(
                "the file has holes after all of it was written",
            ))),
        }
    }

    /// The file, for direct I/O.
    pub fn direct(&self) -> Result<OwnedFd, LimitsError> {
        self.inner.direct.try_clone().map_err(LimitsError::Files)
    }

    /// The file, through the page cache.
    pub fn cached(&self) -> &File {
        &self.inner.cached
    }

    /// The same, with a position and a read-ahead of its own.
    pub fn reopen(&self) -> Result<File, LimitsError> {
        let file = reopen(&self.inner.cached, OFlags::RDONLY).map_err(LimitsError::Files)?;
        Ok(file.into())
    }

    /// Its size; a multiple of 1 MiB.
    pub fn bytes(&self) -> u64 {
        self.inner.bytes
    }

    /// What positions, lengths and memory must be multiples of; at most 4,096.
    pub fn alignment(&self) -> usize {
        self.inner.alignment
    }

    /// The directory that it lies in, for errors.
    pub fn directory(&self) -> &Path {
        &self.inner.path
    }
}

fn reopen(file: &File, flags: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// As the kernel says (statx(2), `STATX_DIOALIGN`), else a page, which suits every disk there is.
fn alignment(file: &OwnedFd) -> usize {
    rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .ok()
        .filter(|found| found.stx_mask & StatxFlags::DIOALIGN.bits() != 0)
        .map(|found| found.stx_dio_offset_align.max(found.stx_dio_mem_align) as usize)
        .filter(|&bytes| bytes.is_power_of_two() && bytes <= PAGE)
        .unwrap_or(PAGE)
}

/// Fills a ring's memory with bytes that no disk can squeeze.
pub fn fill(ring: &mut Ring) {
    let mut random = SmallRng::seed_from_u64(0x6865_6164);
    let mut page = [0; PAGE];
    for at in (0..ring.memory_len()).step_by(PAGE) {
        random.fill(&mut page);
        ring.copy_in(at, &page);
    }
}

/// Reads or writes in order, over and over, several at a time.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// Or read.
    pub write: bool,
    /// Size of each operation.
    pub block_bytes: usize,
    /// How many are under way; the ring's memory must have room for as many blocks.
    pub depth: usize,
    /// Where the file ends, and it begins anew.
    pub file_bytes: u64,
}

impl Transfer {
    /// Runs while `more` (given how many were begun) says so, and until all that were begun are done. Returns how many.
    pub fn run(&self, ring: &mut Ring, mut more: impl FnMut(u64) -> bool) -> io::Result<u64> {
        let mut begun = 0;
        for place in 0..self.depth {
            if more(begun) {
                self.begin(ring, place, begun)?;
                begun += 1;
            }
        }
        while ring.in_flight() > 0 {
            ring.submit_and_wait(STALL)?;
            let mut silent = true;
            while let Some(completion) = ring.completion() {
                silent = false;
                if completion.result? != self.block_bytes {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if more(begun) {
                    self.begin(ring, completion.token.0 as usize, begun)?;
                    begun += 1;
                }
            }
            if silent {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(begun)
    }

    fn begin(&self, ring: &mut Ring, place: usize, number: u64) -> io::Result<()> {
        let position = number * self.block_bytes as u64 % self.file_bytes;
        let span = place * self.block_bytes..(place + 1) * self.block_bytes;
        let token = Token(place as u64);
        if self.write {
            ring.write(Slot(0), &span, position, false, token)
        } else {
            ring.read(Slot(0), &span, position, token)
        }
    }
}
