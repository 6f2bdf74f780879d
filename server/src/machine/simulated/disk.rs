//! The disk of a core in tests: the real one, or one of a simulated world.

use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
    time::Instant,
};

use futures::FutureExt as _;
use headwater_engine::disk::{
    self, BlockBuffer, BlockSlice, DirEntry, DirectDisk, DirectFile, Directory, OpenFiles, SegmentFile, SimDisk,
    SimFile,
};

use crate::machine;

#[derive(Debug, Clone)]
pub(crate) enum Disk {
    Direct(DirectDisk),
    Simulated(SimDisk),
}

#[derive(Debug, Clone)]
pub(crate) enum File {
    Direct(DirectFile),
    Simulated(SimFile),
}

/// Asks the one that is there.
macro_rules! disk {
    ($disk:ident, $method:ident($($argument:expr),*)) => {
        match $disk {
            Disk::Direct(disk) => disk.$method($($argument),*).await,
            Disk::Simulated(disk) => disk.$method($($argument),*).await,
        }
    };
}

/// The same for a file, whose futures borrow nothing.
macro_rules! file {
    ($file:ident, $method:ident($($argument:expr),*)) => {
        match $file {
            File::Direct(file) => file.$method($($argument),*).boxed_local(),
            File::Simulated(file) => file.$method($($argument),*).boxed_local(),
        }
    };
}

impl Directory for Disk {
    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        disk!(self, create_dir(path))
    }

    async fn create_dirs(&self, paths: &[PathBuf]) -> io::Result<()> {
        disk!(self, create_dirs(paths))
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        disk!(self, list(path))
    }

    async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        disk!(self, read_file(path))
    }

    async fn replace_file(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        disk!(self, replace_file(path, content))
    }

    async fn replace_file_to_make_room(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        disk!(self, replace_file_to_make_room(path, content))
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        disk!(self, rename(from, to))
    }

    async fn rename_all(&self, names: &[(PathBuf, PathBuf)]) -> io::Result<()> {
        disk!(self, rename_all(names))
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        disk!(self, remove_file(path))
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        disk!(self, remove_dir_all(path))
    }

    async fn remove_dirs_all(&self, paths: &[PathBuf]) -> io::Result<()> {
        disk!(self, remove_dirs_all(paths))
    }
}

impl disk::Disk for Disk {
    type File = File;

    async fn open(&self, path: &Path, create: bool) -> io::Result<File> {
        match self {
            Disk::Direct(disk) => disk.open(path, create).await.map(File::Direct),
            Disk::Simulated(disk) => disk.open(path, create).await.map(File::Simulated),
        }
    }

    fn open_files(&self) -> &Rc<OpenFiles> {
        match self {
            Disk::Direct(disk) => disk.open_files(),
            Disk::Simulated(disk) => disk.open_files(),
        }
    }

    fn now(&self) -> Instant {
        machine::now()
    }

    async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        disk!(self, aside(work))
    }
}

impl SegmentFile for File {
    fn write(&self, data: BlockSlice, position: u64) -> impl Future<Output = io::Result<()>> + 'static {
        file!(self, write(data, position))
    }

    fn write_durable(&self, data: BlockSlice, position: u64) -> impl Future<Output = io::Result<()>> + 'static {
        file!(self, write_durable(data, position))
    }

    fn write_zeros(&self, position: u64, length: u64) -> impl Future<Output = io::Result<()>> + 'static {
        file!(self, write_zeros(position, length))
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        file!(self, sync())
    }

    fn read(&self, position: u64, length: usize) -> impl Future<Output = io::Result<Vec<u8>>> + 'static {
        file!(self, read(position, length))
    }

    fn read_into(
        &self,
        buffer: BlockBuffer,
        position: u64,
        length: usize,
    ) -> impl Future<Output = io::Result<BlockBuffer>> + 'static {
        file!(self, read_into(buffer, position, length))
    }

    fn is_cached(&self, position: u64, length: u64) -> bool {
        match self {
            File::Direct(file) => file.is_cached(position, length),
            File::Simulated(file) => file.is_cached(position, length),
        }
    }

    fn allocate(&self, position: u64, length: u64) -> impl Future<Output = io::Result<()>> + 'static {
        file!(self, allocate(position, length))
    }

    fn truncate(&self, size: u64) -> impl Future<Output = io::Result<()>> + 'static {
        file!(self, truncate(size))
    }

    fn is_shared(&self) -> bool {
        match self {
            File::Direct(file) => file.is_shared(),
            File::Simulated(file) => file.is_shared(),
        }
    }

    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        file!(self, size())
    }
}
