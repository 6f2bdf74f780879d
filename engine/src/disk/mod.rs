//! The one seam between the log and the machine: what a `Log` asks of a disk.
//!
//! [`Directory`] is for small whole files (checkpoints, indexes, topic metadata) and for names; [`Disk`] adds segment
//! files, which are written in aligned blocks and flushed explicitly. Production runs on [`DirectDisk`] (io_uring, direct
//! I/O); tests run on `SimDisk`, which tears writes, loses what was not flushed, fails, and fills up, all by seed.
//! Implementations need not be `Send`: a disk belongs to one core.

mod block;
mod blocking;
mod copy;
mod direct;
mod elsewhere;
mod open_files;
mod page_cache;
mod pool;
mod reserve;
mod ring;
mod sim;
mod std_directory;
#[cfg(test)]
mod tests;
mod together;

pub use block::{BLOCK_SIZE, BlockBuffer, BlockSlice, HeldBytes};
pub use blocking::BLOCKING_THREADS;
pub use direct::{DirectDisk, DirectFile, DiskStats};
pub use elsewhere::Elsewhere;
pub(crate) use open_files::FileSlot;
pub use open_files::OpenFiles;
pub use pool::{BlockPool, REGION_SIZE};
pub use ring::{Arrival, Ring};
pub use sim::{Fault, Halt, OpKind, SimDisk, SimExecutor, SimFile};
pub use std_directory::StdDirectory;
#[cfg(test)]
pub(crate) use tests::ReadOnly;

use std::{
    fmt,
    future::Future,
    io,
    ops::Range,
    path::{Path, PathBuf},
    rc::Rc,
    time::Instant,
};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link. None is followed: names behind it are not durable with those before it, may change under an open log, and
    /// are neither renamed nor removed with it.
    Link,
    /// A device, a socket, a pipe.
    Other,
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EntryKind::File => "a file",
            EntryKind::Directory => "a directory",
            EntryKind::Link => "a symbolic link",
            EntryKind::Other => "neither a file nor a directory",
        })
    }
}

/// A name inside a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Last component of the path.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes; 0 for all but files.
    pub size: u64,
}

/// Whole-file operations and names. Every operation that changes something is durable when it has returned `Ok`. If no file
/// descriptor is left (EMFILE), nothing was done but what another attempt does again.
pub trait Directory: Clone + std::fmt::Debug + 'static {
    /// Creates a directory and its missing parents, durably. No error if it is there already.
    fn create_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Creates directories in one that is there, durably; any order. No error for one that is there already. After a failure any
    /// of them may have been made.
    fn create_dirs(&self, paths: &[PathBuf]) -> impl Future<Output = io::Result<()>> {
        async move {
            for path in paths {
                self.create_dir(path).await?;
            }
            Ok(())
        }
    }

    /// Lists a directory, sorted by name. A symbolic link to one is an error.
    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>>;

    /// Reads a whole file.
    fn read_file(&self, path: &Path) -> impl Future<Output = io::Result<Vec<u8>>>;

    /// Reads up to `length` bytes of a file at `position`; fewer only at its end.
    fn read_part(&self, path: &Path, position: u64, length: usize) -> impl Future<Output = io::Result<Vec<u8>>> {
        async move {
            let mut bytes = self.read_file(path).await?;
            bytes.drain(..bytes.len().min(usize::try_from(position).unwrap_or(usize::MAX)));
            bytes.truncate(length);
            Ok(bytes)
        }
    }

    /// Creates or replaces a whole file, atomically and durably: after a crash it holds the old content or the new
    /// (temporary file, fsync, rename, fsync of the directory). A temporary file left by a crash ends in `.tmp` and may
    /// be removed by anyone.
    fn replace_file(&self, path: &Path, content: Vec<u8>) -> impl Future<Output = io::Result<()>>;

    /// The same, for a change after which there will be more room: on a full disk it may take space that is kept for this.
    /// By default there is none.
    fn replace_file_to_make_room(&self, path: &Path, content: Vec<u8>) -> impl Future<Output = io::Result<()>> {
        self.replace_file(path, content)
    }

    /// The same for several files; any order. After a failure any of them may have been replaced.
    fn replace_files_to_make_room(&self, files: &[(PathBuf, Vec<u8>)]) -> impl Future<Output = io::Result<()>> {
        async move {
            for (path, content) in files {
                self.replace_file_to_make_room(path, content.clone()).await?;
            }
            Ok(())
        }
    }

    /// Gives the space of these parts of a file back, if the file system can: then they read as zeros. By default nothing is done.
    fn give_back(&self, _path: &Path, _parts: &[Range<u64>]) -> impl Future<Output = io::Result<()>> {
        async { Ok(()) }
    }

    /// Renames a file or directory within one parent directory, atomically and durably.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;

    /// Renames within one parent directory, each atomically, and all of them durably; any order. After a failure any of them may
    /// have been renamed.
    fn rename_all(&self, names: &[(PathBuf, PathBuf)]) -> impl Future<Output = io::Result<()>> {
        async move {
            for (from, to) in names {
                self.rename(from, to).await?;
            }
            Ok(())
        }
    }

    /// Removes a file, durably. No error if it is not there.
    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Removes a directory with all that it holds, or whatever else has the name: of a symbolic link only itself. Not atomic: a
    /// crash may leave part of it. No error if it is not there.
    fn remove_dir_all(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// The same for several within one parent directory; any order.
    fn remove_dirs_all(&self, paths: &[PathBuf]) -> impl Future<Output = io::Result<()>> {
        async move {
            for path in paths {
                self.remove_dir_all(path).await?;
            }
            Ok(())
        }
    }
}

/// A [`Directory`] that also opens segment files.
pub trait Disk: Directory {
    /// An open segment file.
    type File: SegmentFile;

    /// Opens a segment file; `create` makes it (empty, its name durable) if it is not there. If no file descriptor is left
    /// (EMFILE), files that nobody uses give way; if there are none, it may be tried again.
    fn open(&self, path: &Path, create: bool) -> impl Future<Output = io::Result<Self::File>>;

    /// The files that are open.
    fn open_files(&self) -> &Rc<OpenFiles>;

    /// Now, for what is kept in memory for a while.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Does work that is no I/O and takes so long that the core must not wait for it: on the thread for what blocks, if there is
    /// one. By default it is done here.
    fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> {
        async { work() }
    }
}

/// An open segment file. Cheap to clone; all clones are the same file.
///
/// Positions and lengths of writes are multiples of [`BLOCK_SIZE`]. A block is never written by two writes at once: the
/// log waits for the first. Futures own what they need, so they may be dropped at any time; the operation then still
/// runs to its end.
pub trait SegmentFile: Clone + std::fmt::Debug + 'static {
    /// Writes the whole slice at `position`. Stable only after a later [`sync`](Self::sync).
    fn write(&self, data: BlockSlice, position: u64) -> impl Future<Output = io::Result<()>> + 'static;

    /// Writes the whole slice at `position`, and returns once it is on stable storage (`RWF_DSYNC`).
    fn write_durable(&self, data: BlockSlice, position: u64) -> impl Future<Output = io::Result<()>> + 'static;

    /// Writes so many zeros at `position`. Stable only after a later [`sync`](Self::sync).
    fn write_zeros(&self, position: u64, length: u64) -> impl Future<Output = io::Result<()>> + 'static;

    /// fdatasync: on `Ok`, every write that had completed before this call is on stable storage.
    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static;

    /// The same, which may take longer, for what many files do at the same time: one flush may be for all of them.
    fn sync_together(&self) -> impl Future<Output = io::Result<()>> + 'static {
        self.sync()
    }

    /// Reads up to `length` bytes at `position`; shorter only at the end of the file. No alignment is asked for.
    fn read(&self, position: u64, length: usize) -> impl Future<Output = io::Result<Vec<u8>>> + 'static;

    /// Reads `length` bytes into an empty buffer; fewer only at the end of the file. Position and length are multiples of
    /// [`BLOCK_SIZE`]. The read has begun when this returns.
    fn read_into(
        &self,
        buffer: BlockBuffer,
        position: u64,
        length: usize,
    ) -> impl Future<Output = io::Result<BlockBuffer>> + 'static {
        let read = self.read(position, length);
        async move {
            buffer.append(&read.await?);
            Ok(buffer)
        }
    }

    /// Whether reading these bytes, at least one, needs no disk: the system has them in a cache of its own, or is about to. Waits for
    /// nothing and reads nothing; false where that is not known.
    fn is_cached(&self, position: u64, length: u64) -> bool {
        let _ = (position, length);
        false
    }

    /// Reserves space for `[position, position + length)` and extends the file over it; the new bytes read as zeros. Does nothing
    /// where the file system cannot reserve space.
    fn allocate(&self, position: u64, length: u64) -> impl Future<Output = io::Result<()>> + 'static;

    /// Cuts the file, durably.
    fn truncate(&self, size: u64) -> impl Future<Output = io::Result<()>> + 'static;

    /// Whether others besides this handle use the file, such as operations under way.
    fn is_shared(&self) -> bool;

    /// Current size in bytes.
    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static;
}

/// Why something that is not what it should be cannot be used, and what to do.
pub(crate) fn out_of_place(kind: EntryKind) -> io::Error {
    let message = match kind {
        EntryKind::Link => format!("it is {kind}, which is never followed; put what it leads to in its place"),
        EntryKind::File | EntryKind::Directory | EntryKind::Other => format!("it is {kind}; move it away"),
    };
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Whether the process, or the whole machine, has no file descriptor left.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    let numbers = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    let number = error.raw_os_error();
    numbers.iter().any(|errno| number == Some(errno.raw_os_error()))
}

/// Whether there is no space left, on the device or in the user's quota.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
