//! The one seam between the log and the machine: what a `Log` asks of a disk.
//!
//! [`Directory`] is for small whole files (checkpoints, indexes, topic metadata) and for names; [`Disk`] adds segment
//! files, which are written in aligned blocks and flushed explicitly. Production runs on [`DirectDisk`] (io_uring, direct
//! I/O); tests run on `SimDisk`, which tears writes, loses what was not flushed, fails, and fills up, all by seed.
//! Implementations need not be `Send`: a disk belongs to one core.

mod block;
mod direct;
mod ring;
mod sim;

pub use block::{BLOCK_SIZE, BlockBuffer, BlockSlice};
pub use direct::{DirectDisk, DirectFile, DiskStats};
pub use ring::Ring;
pub use sim::{Fault, Halt, OpKind, SimDisk, SimExecutor, SimFile};

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
};

/// A name inside a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Last component of the path.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_dir: bool,
    /// Size in bytes; 0 for directories.
    pub size: u64,
}

/// Whole-file operations and names. Every operation that changes something is durable when it has returned `Ok`.
pub trait Directory: Clone + std::fmt::Debug + 'static {
    /// Creates a directory and its missing parents, durably. No error if it is there already.
    fn create_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Lists a directory, sorted by name.
    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>>;

    /// Reads a whole file.
    fn read_file(&self, path: &Path) -> impl Future<Output = io::Result<Vec<u8>>>;

    /// Creates or replaces a whole file, atomically and durably: after a crash it holds the old content or the new
    /// (temporary file, fsync, rename, fsync of the directory). A temporary file left by a crash ends in `.tmp` and may
    /// be removed by anyone.
    fn replace_file(&self, path: &Path, content: Vec<u8>) -> impl Future<Output = io::Result<()>>;

    /// Renames a file or directory within one parent directory, atomically and durably.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;

    /// Removes a file, durably. No error if it is not there.
    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Removes a directory with all that it holds. Not atomic: a crash may leave part of it. No error if it is not there.
    fn remove_dir_all(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
}

/// A [`Directory`] that also opens segment files.
pub trait Disk: Directory {
    /// An open segment file.
    type File: SegmentFile;

    /// Opens a segment file; `create` makes it (empty, its name durable) if it is not there.
    fn open(&self, path: &Path, create: bool) -> impl Future<Output = io::Result<Self::File>>;
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

    /// fdatasync: on `Ok`, every write that had completed before this call is on stable storage.
    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static;

    /// Reads up to `length` bytes at `position`; shorter only at the end of the file. No alignment is asked for.
    fn read(&self, position: u64, length: usize) -> impl Future<Output = io::Result<Vec<u8>>> + 'static;

    /// Reserves space for `[position, position + length)` and extends the file over it; the new bytes read as zeros.
    fn allocate(&self, position: u64, length: u64) -> impl Future<Output = io::Result<()>> + 'static;

    /// Cuts the file, durably.
    fn truncate(&self, size: u64) -> impl Future<Output = io::Result<()>> + 'static;

    /// Current size in bytes.
    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static;
}

/// Blocking [`Directory`] over `std::fs`, for threads that may wait: the control thread, tools and tests. Its futures are
/// ready at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdDirectory;

impl StdDirectory {
    fn sync_parent(path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => std::fs::File::open(parent)?.sync_all(),
            _ => std::fs::File::open(".")?.sync_all(),
        }
    }
}

impl Directory for StdDirectory {
    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        let mut at = path;
        while !at.as_os_str().is_empty() && !at.is_dir() {
            missing.push(at.to_path_buf());
            match at.parent() {
                Some(parent) => at = parent,
                None => break,
            }
        }
        for directory in missing.iter().rev() {
            match std::fs::create_dir(directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            Self::sync_parent(directory)?;
        }
        Ok(())
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            // Names that are not UTF-8 are nobody's we know: they are left alone by not being listed.
            if let Ok(name) = entry.file_name().into_string() {
                let is_dir = metadata.is_dir();
                entries.push(DirEntry {
                    name,
                    is_dir,
                    size: if is_dir { 0 } else { metadata.len() },
                });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    async fn replace_file(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        use std::io::Write;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        Self::sync_parent(path)
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)?;
        Self::sync_parent(to)
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Ok(()) => Self::sync_parent(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_dir_all(path) {
            Ok(()) => Self::sync_parent(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}
