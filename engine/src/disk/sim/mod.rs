//! A simulated disk for tests: it tears writes, loses what was not flushed, fails, fills up and crashes, all by seed.
//!
//! ```text
//! SimDisk ─ future ─► operation (under way) ─ complete, in an order drawn from the seed ─► file, names
//!                         └─ crash(): a new SimDisk with what is stable, and parts of the rest
//! ```
//! Owned by one thread. Knows no real time and no real files. Use it under [`SimExecutor`], which completes operations
//! one by one between polls and reports a deadlock when a waker was lost; under any other executor operations complete
//! as their futures are polled.

mod content;
mod executor;
mod faults;
mod file;
mod names;
mod operation;
mod tear;
#[cfg(test)]
mod tests;
mod world;

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    path::Path,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use rand::RngExt;

use self::{
    faults::When,
    file::FileRef,
    operation::{Operation, Output},
    world::{OpNumber, World},
};
use super::{BlockBuffer, BlockSlice, DirEntry, Directory, Disk, OpenFiles, SegmentFile, open_files::Descriptor};

pub use self::{
    executor::{Halt, SimExecutor},
    faults::{Fault, OpKind},
};

/// Descriptors of a disk on which they are few.
const FILES_FEW: usize = 2;

/// A disk that exists in memory only. Clones are the same disk. On every third, by seed, no more than two files stay open that
/// nobody uses; [`open_files`](Disk::open_files) sets another limit.
///
/// # What a crash leaves
/// All that was flushed, and names as the operations that returned left them. Of every other write each 512-byte sector
/// may or may not be there, in any order of writes; a size that was not flushed may be lost; an operation on names that
/// was under way is done or not done (of `remove_dir_all`, any part), and a `replace_file` may leave its `.tmp` file.
/// A write takes its data from memory at any time while it is under way.
///
/// # Failures
/// A failed write may have written any of its sectors. After a failed flush, what it covered may or may not be stable,
/// and no later flush changes that, although it can still be read. A failed operation on names may have been done.
///
/// # Rules for callers
/// Breaking one panics: whole, aligned blocks; no block in two writes at once; no cut of a file while what it cuts is
/// written or reserved; no file replaced twice at once.
#[derive(Debug, Clone)]
pub struct SimDisk {
    world: Rc<RefCell<World>>,
    files: Rc<OpenFiles>,
}

impl SimDisk {
    /// An empty disk. The same seed and the same use give the same run.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::from(World::new(seed), seed)
    }

    fn from(world: World, seed: u64) -> SimDisk {
        let files = OpenFiles::default();
        if seed.is_multiple_of(3) {
            // So that files are closed and opened again all the time.
            files.set_limit(FILES_FEW);
        }
        SimDisk {
            world: Rc::new(RefCell::new(world)),
            files: Rc::new(files),
        }
    }

    /// Sets how many bytes fit, in whole blocks of segment files and other files; `None` is without end. What is there
    /// already stays, even if it is more. A removed file takes room until its last handle is dropped.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world.borrow_mut().capacity = bytes;
    }

    /// Sets how many bytes beyond the capacity `replace_file_to_make_room` may use. What is used of them comes back when the
    /// disk is used less.
    pub fn set_reserve(&self, bytes: u64) {
        self.world.borrow_mut().reserve = bytes;
    }

    /// Bytes in use: each file's whole blocks up to its highest that was written or reserved.
    pub fn used(&self) -> u64 {
        self.world.borrow().used()
    }

    /// Lets operation number `nth` of this kind from now on (0 is the next) fail.
    pub fn fail_nth(&self, kind: OpKind, nth: u64, fault: Fault) {
        let mut world = self.world.borrow_mut();
        let number = world.faults.count(kind) + nth;
        world.faults.plan(kind, When::Number(number), fault);
    }

    /// Lets each operation of this kind fail with this probability (1.0: always).
    pub fn fail_randomly(&self, kind: OpKind, probability: f64, fault: Fault) {
        self.world
            .borrow_mut()
            .faults
            .plan(kind, When::Chance(probability), fault);
    }

    /// Forgets all planned failures.
    pub fn heal(&self) {
        self.world.borrow_mut().faults.heal();
    }

    /// Stops the machine in the middle of changing operation number `change` (0 is the first on this disk): that one and
    /// all others under way never complete, and under [`SimExecutor`] no task runs on. Under another executor every
    /// operation fails from then on.
    pub fn crash_at(&self, change: u64) {
        self.world.borrow_mut().faults.crash_at(change);
    }

    /// Whether the machine has stopped.
    pub fn is_crashed(&self) -> bool {
        self.world.borrow().crashed()
    }

    /// Stops the machine, if it is not stopped yet, and returns the disk as it is found when power is back.
    #[must_use]
    pub fn crash(&self, seed: u64) -> SimDisk {
        self.world.borrow_mut().power_off();
        self.image(seed)
    }

    /// The process that used the disk has died, but power was not lost: what was under way completes, and the disk goes on,
    /// for the next process, with all that was written, flushed or not. Undoes a [`crash_at`](Self::crash_at).
    #[must_use]
    pub fn kill(&self) -> SimDisk {
        self.world.borrow_mut().power_on();
        while self.complete_one() {}
        self.clone()
    }

    /// The disk as it would be found if power were lost now. This one runs on undisturbed.
    #[must_use]
    pub fn image(&self, seed: u64) -> SimDisk {
        SimDisk::from(self.world.borrow().after_crash(seed), seed)
    }

    /// The disk as it would be found if power were lost now, and with it all that a crash may take.
    #[must_use]
    pub fn certain_image(&self, seed: u64) -> SimDisk {
        SimDisk::from(self.world.borrow().certain(seed), seed)
    }

    /// Operations of this kind that have started.
    pub fn count(&self, kind: OpKind) -> u64 {
        self.world.borrow().faults.count(kind)
    }

    /// Changing operations that have started.
    pub fn changes(&self) -> u64 {
        self.world.borrow().faults.changes()
    }

    /// How often work was handed to another thread.
    pub fn asides(&self) -> u64 {
        self.world.borrow().asides
    }

    /// Operations under way.
    pub fn in_flight(&self) -> usize {
        self.world.borrow().in_flight()
    }

    /// From now on operations complete only in [`complete_one`](Self::complete_one): for an executor that decides when, as
    /// [`SimExecutor`] does.
    pub fn wait_to_be_told(&self) {
        self.world.borrow_mut().stepped = true;
    }

    /// The same disk as another core of the machine has it, with files that are open there.
    #[must_use]
    pub fn of_another_core(&self) -> SimDisk {
        let files = OpenFiles::default();
        files.set_limit(self.files.limit());
        SimDisk {
            world: Rc::clone(&self.world),
            files: Rc::new(files),
        }
    }

    /// Completes one operation, drawn from all that are under way. Returns false if there is none.
    pub fn complete_one(&self) -> bool {
        let (completed, waker) = self.world.borrow_mut().complete_one();
        if let Some(waker) = waker {
            waker.wake();
        }
        completed
    }

    fn operation(&self, operation: Operation) -> Pending {
        Pending::new(self, operation)
    }

    async fn replace(&self, path: &Path, content: Vec<u8>, makes_room: bool) -> io::Result<()> {
        let path = path.to_path_buf();
        let replacing = Operation::ReplaceFile {
            path,
            content,
            makes_room,
        };
        self.operation(replacing).await?;
        Ok(())
    }

    fn segment(&self, file: FileRef) -> SimFile {
        SimFile {
            disk: self.clone(),
            file,
            descriptor: Rc::new(self.files.count()),
        }
    }
}

/// An operation on its way, started when it is made or when it is first polled, as the seed has it.
struct Pending {
    disk: SimDisk,
    state: State,
}

enum State {
    Waiting(Option<Operation>),
    Started(OpNumber),
    Over,
}

impl Pending {
    fn new(disk: &SimDisk, operation: Operation) -> Pending {
        let at_once = disk.world.borrow_mut().rng.random_bool(0.5);
        let state = if at_once {
            State::Started(disk.world.borrow_mut().start(operation))
        } else {
            State::Waiting(Some(operation))
        };
        let disk = disk.clone();
        Pending { disk, state }
    }
}

impl Future for Pending {
    type Output = io::Result<Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let disk = self.disk.clone();
        let number = match &mut self.state {
            State::Waiting(operation) => {
                let operation = operation.take().expect("it is taken once, and the state changes");
                let number = disk.world.borrow_mut().start(operation);
                self.state = State::Started(number);
                number
            }
            State::Started(number) => *number,
            State::Over => panic!("polled after it was ready"),
        };
        let mut result = disk.world.borrow_mut().take_result(number, context.waker());
        if result.is_none() && !disk.world.borrow().stepped {
            // No executor drives the disk: polls do.
            if disk.world.borrow_mut().rng.random_bool(0.5) {
                disk.complete_one();
            }
            result = disk.world.borrow_mut().take_result(number, context.waker());
            if result.is_none() {
                context.waker().wake_by_ref();
            }
        }
        match result {
            Some(result) => {
                self.state = State::Over;
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // While a broken rule unwinds the disk may be borrowed; the result is nobody's then.
        if let (State::Started(number), Ok(mut world)) = (&self.state, self.disk.world.try_borrow_mut()) {
            world.abandon(*number);
        }
    }
}

impl Directory for SimDisk {
    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_path_buf();
        self.operation(Operation::CreateDir { path }).await?;
        Ok(())
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = path.to_path_buf();
        match self.operation(Operation::List { path }).await? {
            Output::Entries(entries) => Ok(entries),
            other => unreachable!("a list gives entries, not {other:?}"),
        }
    }

    async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = path.to_path_buf();
        Ok(bytes(self.operation(Operation::ReadFile { path }).await?))
    }

    async fn replace_file(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        self.replace(path, content, false).await
    }

    async fn replace_file_to_make_room(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        self.replace(path, content, true).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        self.operation(Operation::Rename { from, to }).await?;
        Ok(())
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = path.to_path_buf();
        self.operation(Operation::RemoveFile { path }).await?;
        Ok(())
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_path_buf();
        self.operation(Operation::RemoveDirAll { path }).await?;
        Ok(())
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &Path, create: bool) -> io::Result<SimFile> {
        let path = path.to_path_buf();
        let opened = self.files.with_descriptor(async || {
            let path = path.clone();
            self.operation(Operation::Open { path, create }).await
        });
        match opened.await? {
            Output::File(file) => Ok(self.segment(file)),
            other => unreachable!("open gives a file, not {other:?}"),
        }
    }

    fn open_files(&self) -> &Rc<OpenFiles> {
        &self.files
    }

    /// The core is free until it is done: others have a turn.
    async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.world.borrow_mut().asides += 1;
        let mut is_done = false;
        poll_fn(|context| {
            if std::mem::replace(&mut is_done, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        work()
    }
}

/// A segment file of a [`SimDisk`].
#[derive(Debug, Clone)]
pub struct SimFile {
    disk: SimDisk,
    file: FileRef,
    descriptor: Rc<Descriptor>,
}

impl SimFile {
    fn write_as(&self, kind: OpKind, data: BlockSlice, position: u64) -> Pending {
        self.disk.operation(Operation::Write {
            file: Rc::clone(&self.file),
            position,
            data,
            early: Vec::new(),
            kind,
        })
    }
}

impl SegmentFile for SimFile {
    fn write(&self, data: BlockSlice, position: u64) -> impl Future<Output = io::Result<()>> + 'static {
        done(self.write_as(OpKind::Write, data, position))
    }

    fn write_durable(&self, data: BlockSlice, position: u64) -> impl Future<Output = io::Result<()>> + 'static {
        done(self.write_as(OpKind::WriteDurable, data, position))
    }

    fn write_zeros(&self, position: u64, length: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let zeros = Rc::new(BlockBuffer::new(length as usize));
        zeros.append(&vec![0; length as usize]);
        done(self.write_as(OpKind::WriteZeros, zeros.blocks(0, length as usize), position))
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let covered = self.file.borrow().changes();
        let file = Rc::clone(&self.file);
        done(self.disk.operation(Operation::Sync { file, covered }))
    }

    fn read(&self, position: u64, length: usize) -> impl Future<Output = io::Result<Vec<u8>>> + 'static {
        let reading = self.disk.operation(Operation::Read {
            file: Rc::clone(&self.file),
            position,
            length,
            early: None,
        });
        async move { Ok(bytes(reading.await?)) }
    }

    fn allocate(&self, position: u64, length: u64) -> impl Future<Output = io::Result<()>> + 'static {
        done(self.disk.operation(Operation::Allocate {
            file: Rc::clone(&self.file),
            end: position + length,
        }))
    }

    fn truncate(&self, size: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = Rc::clone(&self.file);
        done(self.disk.operation(Operation::Truncate { file, size }))
    }

    fn is_shared(&self) -> bool {
        Rc::strong_count(&self.descriptor) > 1
    }

    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        let file = Rc::clone(&self.file);
        let asking = self.disk.operation(Operation::Size { file });
        async move {
            match asking.await? {
                Output::Size(size) => Ok(size),
                other => unreachable!("size gives a size, not {other:?}"),
            }
        }
    }
}

async fn done(operation: Pending) -> io::Result<()> {
    operation.await?;
    Ok(())
}

fn bytes(output: Output) -> Vec<u8> {
    match output {
        Output::Bytes(bytes) => bytes,
        other => unreachable!("a read gives bytes, not {other:?}"),
    }
}
