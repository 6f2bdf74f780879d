//! The production disk: glommio opens, reserves, cuts and measures files; the auxiliary ring writes and flushes them with
//! direct I/O, and reads them past the page cache or through it. Operations on names run on glommio's blocking pool, those that
//! may wait in a lane of their own.
//!
//! Owned by one core; only usable on a glommio executor.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
    time::Instant,
};

use glommio::{
    GlommioError,
    io::{DmaFile, OpenOptions},
};
use io_uring::{
    opcode, squeue,
    types::{Fd, FsyncFlags},
};
use rustix::{
    fs::{Mode, OFlags},
    io::ReadWriteFlags,
};

use super::{
    BLOCK_SIZE, BlockBuffer, BlockSlice, Disk, Elsewhere, OpenFiles, Ring, SegmentFile, StdDirectory,
    blocking::{Blocking, Haste},
    open_files::Descriptor,
    page_cache::{self, Unwaiting},
    ring::Submitted,
    together::{self, Covers, Outcome, Together},
};
use crate::timed::Timed;

/// Zeros are written so many bytes at a time.
const ZEROS: usize = 256 << 10;

/// Direct I/O on this core's files. Its executor should have a blocking pool of [`BLOCKING_THREADS`](super::BLOCKING_THREADS).
#[derive(Debug, Clone)]
pub struct DirectDisk {
    ring: Ring,
    pub(super) names: StdDirectory,
    pub(super) blocking: Rc<Blocking>,
    pub(super) files: Rc<OpenFiles>,
    stats: Rc<DiskStats>,
    zeros: Rc<OnceCell<Rc<BlockBuffer>>>,
    /// What its file systems turned out to lack, as far as that was said.
    lacks: Rc<Lacks>,
    /// By the device of the file system.
    together: Rc<RefCell<HashMap<u64, Rc<Together>>>>,
}

/// What some file systems do not have, and is then done otherwise: each is said once.
#[derive(Debug, Default)]
struct Lacks {
    unwaiting: Cell<bool>,
    allocate: Cell<bool>,
}

/// What a core's disk has done.
#[derive(Debug, Default)]
pub struct DiskStats {
    /// Writes that a flush makes durable.
    pub writes: Timed,
    /// Flushes, and writes that are durable by themselves; with what they made durable.
    pub flushes: Timed,
}

impl DirectDisk {
    /// A disk for the executor that runs this call.
    pub fn new() -> io::Result<DirectDisk> {
        Self::with_names(StdDirectory::default())
    }

    /// The same, with whole files and names through `names`, which may be shared among executors.
    pub fn with_names(names: StdDirectory) -> io::Result<DirectDisk> {
        Ok(DirectDisk {
            ring: Ring::new()?,
            names,
            blocking: Rc::default(),
            files: Rc::default(),
            stats: Rc::default(),
            zeros: Rc::default(),
            lacks: Rc::default(),
            together: Rc::default(),
        })
    }

    /// What has been done so far.
    pub fn stats(&self) -> &DiskStats {
        &self.stats
    }

    /// fsync of a file or directory, which is closed then.
    pub(super) async fn flush_all(&self, file: std::fs::File) -> io::Result<()> {
        let file = Rc::new(file);
        loop {
            let sync = opcode::Fsync::new(Fd(file.as_raw_fd()));
            // SAFETY: the resources own the descriptor; there is no memory.
            let (result, _) = unsafe { self.ring.submit(sync.build(), Rc::clone(&file)) }.await;
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }

    /// At most [`ZEROS`] of them.
    fn zeros(&self, length: usize) -> BlockSlice {
        let buffer = self.zeros.get_or_init(|| {
            let buffer = BlockBuffer::new(ZEROS);
            buffer.append(&vec![0; ZEROS]);
            Rc::new(buffer)
        });
        buffer.blocks(0, length.min(ZEROS))
    }

    /// The core's auxiliary ring.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }
}

impl DirectDisk {
    async fn open_once(&self, path: &Path, create: bool) -> io::Result<DirectFile> {
        let _elsewhere = Elsewhere::begin();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let direct = match options.dma_open(path).await.map_err(with_number) {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                let created = options.create(true).mode(0o644).dma_open(path).await;
                created.map_err(with_number)?
            }
            opened => opened?,
        };
        let descriptor = self.files.count();
        // It was made just now, or by an attempt that came no further.
        if create && direct.file_size().await? == 0 {
            self.sync_parent(path).await?;
        }
        Ok(DirectFile {
            inner: Rc::new(Inner {
                path: path.to_path_buf(),
                direct,
                _descriptor: descriptor,
                cached: OnceCell::new(),
                unwaiting: Unwaiting::default(),
                unflushed: Cell::new(0),
                together: OnceCell::new(),
                disk: self.clone(),
            }),
        })
    }
}

impl Disk for DirectDisk {
    type File = DirectFile;

    async fn open(&self, path: &Path, create: bool) -> io::Result<DirectFile> {
        self.files
            .with_descriptor(async || self.open_once(path, create).await)
            .await
    }

    fn open_files(&self) -> &Rc<OpenFiles> {
        &self.files
    }

    async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let work = glommio::executor().spawn_blocking(work);
        self.off_core(Haste::Background, work).await
    }
}

/// A segment file with two descriptors: one for direct I/O, and, once it is needed, one that reads through the page cache.
#[derive(Debug, Clone)]
pub struct DirectFile {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    direct: DmaFile,
    _descriptor: Descriptor,
    cached: OnceCell<(OwnedFd, Descriptor)>,
    unwaiting: Unwaiting,
    /// Bytes written since the last flush began.
    unflushed: Cell<u64>,
    /// With which others it can be flushed; `None` where each has to be by itself.
    together: OnceCell<Option<Rc<Together>>>,
    disk: DirectDisk,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // glommio closes the file in its next turn.
        Elsewhere::nudge();
    }
}

impl Inner {
    fn cached(&self) -> io::Result<BorrowedFd<'_>> {
        if self.cached.get().is_none() {
            let opened = self.disk.files.make_room_for(|| self.open_cached())?;
            // Others give way to it, but not this one: who asks has a handle.
            let descriptor = self.disk.files.count();
            self.cached.get_or_init(|| (opened, descriptor));
        }
        Ok(self.cached.get().expect("set above").0.as_fd())
    }

    /// Opened anew, because a duplicated descriptor would share `O_DIRECT`; and not by name, which retention may have removed
    /// and compaction given to another file, unless there is no /proc.
    fn open_cached(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let behind = format!("/proc/self/fd/{}", self.direct.as_raw_fd());
        let by_name = || rustix::fs::open(&self.path, flags, Mode::empty());
        let opened = rustix::fs::open(behind, flags, Mode::empty()).or_else(|_| by_name())?;
        // Consumers read segments from front to back: let the kernel read further ahead.
        rustix::fs::fadvise(&opened, 0, None, rustix::fs::Advice::Sequential)?;
        Ok(opened)
    }
}

impl DirectFile {
    /// The descriptor that reads through the page cache, for sendfile.
    pub fn cached(&self) -> io::Result<BorrowedFd<'_>> {
        self.inner.cached()
    }

    /// Whether the first and the last of these bytes, at least one, are in the page cache; the kernel reads ahead in order, so what
    /// lies between mostly is. False where the file system cannot say: then a read has to be one that may wait.
    pub fn is_resident(&self, position: u64, length: u64) -> io::Result<bool> {
        let ends = self.inner.unwaiting.has_ends(self.cached()?, position, length)?;
        if ends.is_none() && !self.inner.disk.lacks.unwaiting.replace(true) {
            tracing::warn!(
                path = %self.inner.path.display(),
                "the file system cannot say what is in its page cache (no RWF_NOWAIT): records that are not in memory are sent \
                 through a kernel thread, which is slower; ext4 and XFS can"
            );
        }
        Ok(ends == Some(true))
    }

    async fn write_all(&self, data: BlockSlice, mut position: u64, flags: ReadWriteFlags) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            let fd = Fd(self.inner.direct.as_raw_fd());
            let left = data.len() - done;
            // SAFETY: inside the slice.
            let memory = unsafe { data.as_ptr().add(done) };
            let write = opcode::Write::new(fd, memory, left as u32)
                .offset(position)
                .rw_flags(flags.bits().cast_signed());
            let resources = Rc::new((self.clone(), data.clone()));
            // SAFETY: the resources own the descriptor and the memory; filled bytes never change, and bytes beyond them
            // are of no consequence to this write (see `BlockSlice::as_ptr`).
            let (result, _) = unsafe { self.inner.disk.ring.submit(write.build(), resources) }.await;
            match result {
                // Direct I/O goes on at a block.
                Ok(written) if written as usize >= BLOCK_SIZE => {
                    let written = written as usize / BLOCK_SIZE * BLOCK_SIZE;
                    done += written;
                    position += written as u64;
                }
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn sync_data(self) -> io::Result<()> {
        let (began, covered) = (Instant::now(), self.inner.unflushed.take());
        self.flush_device(began, covered).await
    }

    /// fdatasync.
    async fn flush_device(&self, began: Instant, covered: u64) -> io::Result<()> {
        loop {
            let sync = opcode::Fsync::new(Fd(self.inner.direct.as_raw_fd())).flags(FsyncFlags::DATASYNC);
            // SAFETY: the resources own the descriptor; there is no memory.
            let (result, _) = unsafe { self.inner.disk.ring.submit(sync.build(), Rc::new(self.clone())) }.await;
            match result {
                Ok(_) => {
                    self.inner.disk.stats.flushes.record(began.elapsed(), covered);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Those with whom it can be flushed.
    fn together(&self) -> Option<Rc<Together>> {
        let find = || {
            // SAFETY: the file is open for as long as this lives.
            let file = unsafe { BorrowedFd::borrow_raw(self.inner.direct.as_raw_fd()) };
            let is_known = rustix::fs::fstatfs(file).is_ok_and(|file_system| together::is_known(&file_system));
            let device = rustix::fs::fstat(file).ok().filter(|_| is_known)?.st_dev;
            let mut all = self.inner.disk.together.borrow_mut();
            Some(Rc::clone(all.entry(device).or_default()))
        };
        self.inner.together.get_or_init(find).clone()
    }

    /// What the file system has to note of all its files: `syncfs`.
    async fn sync_file_system(&self) -> io::Result<()> {
        let path = self.inner.path.clone();
        let sync = move || {
            let directory = std::fs::File::open(path.parent().unwrap_or(&path))?;
            Ok(rustix::fs::syncfs(directory)?)
        };
        self.inner.disk.aside(sync).await
    }

    /// Flushes what a round covers.
    async fn flush_round(&self, covers: Covers) -> Outcome {
        let began = Instant::now();
        if covers.files > 1 && self.sync_file_system().await.is_err() {
            return Outcome::Apart;
        }
        Outcome::of(&self.flush_device(began, covers.bytes).await)
    }

    /// Begins to read what the buffer does not hold yet of `length` bytes from `position` on, past the page cache.
    fn begin_read(&self, buffer: BlockBuffer, position: u64, length: usize) -> Submitted<(DirectFile, BlockBuffer)> {
        let (filled, memory) = (buffer.filled(), buffer.spare());
        let left = (length - filled).min(buffer.room());
        let read = opcode::Read::new(Fd(self.inner.direct.as_raw_fd()), memory, left as u32);
        let mut read = read.offset(position + filled as u64).build();
        if buffer.is_untouched() {
            // The kernel maps the memory before it asks the disk: not on this thread, which has other things to do.
            read = read.flags(squeue::Flags::ASYNC);
        }
        let resources = Rc::new((self.clone(), buffer));
        // SAFETY: the resources own the descriptor and the memory, which is the buffer's own until the operation gives it back.
        unsafe { self.inner.disk.ring.submit(read, resources) }
    }

    async fn read_some(self, mut position: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(length);
        while out.len() < length {
            let fd = Fd(self.inner.cached()?.as_raw_fd());
            let left = length - out.len();
            let filled = out.len();
            let read =
                opcode::Read::new(fd, out.spare_capacity_mut().as_mut_ptr().cast(), left as u32).offset(position);
            let resources = Rc::new((self.clone(), out));
            // SAFETY: the resources own the descriptor and the vector, whose memory stays where it is and is not touched
            // until the operation gives it back.
            let (result, resources) = unsafe { self.inner.disk.ring.submit(read.build(), resources) }.await;
            let (_, buffer) = Rc::into_inner(resources).expect("the ring has let go of what it completed");
            out = buffer;
            match result {
                Ok(0) => break,
                Ok(count) => {
                    // SAFETY: the kernel has filled that many bytes of the spare capacity.
                    unsafe { out.set_len(filled + count as usize) };
                    position += u64::from(count);
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(out)
    }
}

/// The system's error as it was: glommio's own says only what kind it is of.
fn with_number(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

impl SegmentFile for DirectFile {
    fn write(&self, data: BlockSlice, position: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move {
            let (began, bytes) = (Instant::now(), data.len() as u64);
            file.write_all(data, position, ReadWriteFlags::empty()).await?;
            file.inner.disk.stats.writes.record(began.elapsed(), bytes);
            file.inner.unflushed.set(file.inner.unflushed.get() + bytes);
            Ok(())
        }
    }

    fn write_durable(&self, data: BlockSlice, position: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move {
            let (began, bytes) = (Instant::now(), data.len() as u64);
            file.write_all(data, position, ReadWriteFlags::DSYNC).await?;
            file.inner.disk.stats.flushes.record(began.elapsed(), bytes);
            Ok(())
        }
    }

    fn write_zeros(&self, mut position: u64, length: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move {
            let end = position + length;
            while position < end {
                let zeros = file.inner.disk.zeros((end - position) as usize);
                let written = zeros.len() as u64;
                file.write_all(zeros, position, ReadWriteFlags::empty()).await?;
                position += written;
            }
            Ok(())
        }
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        self.clone().sync_data()
    }

    fn sync_together(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move {
            let Some(together) = file.together() else {
                return file.sync_data().await;
            };
            let bytes = file.inner.unflushed.take();
            match together
                .flush(bytes, async |covers| file.flush_round(covers).await)
                .await
            {
                Outcome::Durable => Ok(()),
                Outcome::Apart => file.flush_device(Instant::now(), bytes).await,
                Outcome::Failed(number) => Err(number.map_or_else(
                    || io::Error::other("a flush of several files has failed"),
                    io::Error::from_raw_os_error,
                )),
            }
        }
    }

    fn read(&self, position: u64, length: usize) -> impl Future<Output = io::Result<Vec<u8>>> + 'static {
        self.clone().read_some(position, length)
    }

    fn read_into(
        &self,
        buffer: BlockBuffer,
        position: u64,
        length: usize,
    ) -> impl Future<Output = io::Result<BlockBuffer>> + 'static {
        let mut reading = self.begin_read(buffer, position, length);
        async move {
            loop {
                let (result, resources) = reading.await;
                let (file, buffer) = Rc::into_inner(resources).expect("the ring has let go of what it completed");
                match result {
                    Ok(count) => {
                        // SAFETY: the kernel has filled that many bytes, and is done.
                        unsafe { buffer.assume_filled(count as usize) };
                        // Direct I/O goes on at a block: a read that ends elsewhere has come to the end of the file.
                        let at_end = count == 0 || !buffer.filled().is_multiple_of(BLOCK_SIZE);
                        if at_end || buffer.filled() == length {
                            return Ok(buffer);
                        }
                    }
                    Err(error) if is_transient(&error) => {}
                    Err(error) => return Err(error),
                }
                reading = file.begin_read(buffer, position, length);
            }
        }
    }

    fn is_cached(&self, position: u64, length: u64) -> bool {
        // SAFETY: the file is open for as long as this lives.
        let file = unsafe { BorrowedFd::borrow_raw(self.inner.direct.as_raw_fd()) };
        // Whoever reads it will find out what is wrong.
        page_cache::holds(file, position, length).unwrap_or(false)
    }

    fn allocate(&self, position: u64, length: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move {
            let fd = Fd(file.inner.direct.as_raw_fd());
            let allocate = opcode::Fallocate::new(fd, length).offset(position);
            // SAFETY: the resources own the descriptor; there is no memory.
            let (result, _) = unsafe { file.inner.disk.ring.submit(allocate.build(), Rc::new(file.clone())) }.await;
            match result {
                // Such as ext3, or NFS before 4.2: the write that comes there finds out whether there is space.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    if !file.inner.disk.lacks.allocate.replace(true) {
                        tracing::warn!(
                            path = %file.inner.path.display(),
                            "the file system cannot reserve space (no fallocate): a full disk is noticed only when records are written"
                        );
                    }
                    Ok(())
                }
                result => result.map(drop),
            }
        }
    }

    fn truncate(&self, size: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move {
            let cut = {
                let file = file.clone();
                async move { file.inner.direct.truncate(size).await }
            };
            file.inner.disk.off_core(Haste::Background, cut).await?;
            file.sync_data().await
        }
    }

    fn is_shared(&self) -> bool {
        Rc::strong_count(&self.inner) > 1
    }

    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        let file = self.clone();
        async move {
            let _elsewhere = Elsewhere::begin();
            Ok(file.inner.direct.file_size().await?)
        }
    }
}

#[cfg(test)]
mod tests;
