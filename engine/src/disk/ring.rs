//! The auxiliary ring: an io_uring of our own beside glommio's, on the same thread, for what glommio does not offer:
//! writes of part of a buffer, `RWF_DSYNC`, splice, poll on foreign descriptors, and submission at once instead of at the
//! executor's next turn.
//!
//! Completions are reaped whenever an operation is polled; when all tasks sleep, an eventfd wakes the executor through a
//! read on glommio's ring. Memory that the kernel may touch is kept by the ring until the operation has completed, also when
//! its future was dropped. Owned by one core.

use std::{
    any::Any,
    cell::RefCell,
    future::Future,
    io,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd},
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
};

use glommio::io::BufferedFile;
use io_uring::{IoUring, opcode, squeue, types::Fd};
use rustix::event::{EventfdFlags, eventfd};
use slab::Slab;

/// Entries of the submission queue. Everything is submitted at once, so this only bounds a burst.
const ENTRIES: u32 = 256;

/// Entries of the completion queue; the kernel keeps what does not fit and hands it over later.
const COMPLETIONS: u32 = 4096;

/// Most prefetches under way at once. Each is memory of the kernel, which keeps as many as it is given.
const PREFETCHES_MAX: usize = 256;

/// An io_uring whose operations are futures. Clones are the same ring.
#[derive(Clone)]
pub struct Ring {
    inner: Rc<Inner>,
}

struct Inner {
    uring: RefCell<IoUring>,
    operations: RefCell<Slab<Operation>>,
    /// Shared with each prefetch under way, which are counted by that.
    prefetches: Rc<()>,
    /// Reads the eventfd.
    watcher: RefCell<Option<glommio::Task<()>>>,
}

/// An operation that the kernel has, or whose result nobody has taken yet.
struct Operation {
    /// Buffers, files: whatever the kernel must find valid until the completion.
    resources: Option<Rc<dyn Any>>,
    waker: Option<Waker>,
    result: Option<i32>,
    /// The future was dropped: the result goes nowhere.
    abandoned: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("operations", &self.inner.operations.borrow().len())
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// Makes a ring and the task that watches its eventfd. Call it on a glommio executor.
    pub fn new() -> io::Result<Ring> {
        let uring = IoUring::builder().setup_cqsize(COMPLETIONS).build(ENTRIES)?;
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        uring.submitter().register_eventfd(event.as_raw_fd())?;
        let inner = Rc::new(Inner {
            uring: RefCell::new(uring),
            operations: RefCell::default(),
            prefetches: Rc::default(),
            watcher: RefCell::default(),
        });
        // SAFETY: the descriptor is open and owned by nobody else; the file closes it.
        let event = unsafe { BufferedFile::from_raw_fd(event.into_raw_fd()) };
        let watcher = glommio::spawn_local(watch(Rc::downgrade(&inner), event));
        inner.watcher.replace(Some(watcher));
        Ok(Ring { inner })
    }

    /// Ends the task that watches the eventfd, which glommio would leak, and its executor's memory with it: the last that
    /// is done with a ring before its executor ends. Operations are still submitted, but may never complete.
    pub async fn close(&self) {
        let watcher = self.inner.watcher.take();
        if let Some(watcher) = watcher {
            watcher.cancel().await;
        }
    }

    /// Submits an operation.
    ///
    /// # Safety
    /// Every pointer and descriptor in `entry` must stay valid for as long as `resources` is kept, and the memory behind the
    /// pointers must not be read (if the kernel writes it) or written (if the kernel reads it) before the completion.
    pub(crate) unsafe fn submit<R: 'static>(&self, entry: squeue::Entry, resources: Rc<R>) -> Submitted<R> {
        let operation = Operation {
            resources: Some(resources.clone()),
            waker: None,
            result: None,
            abandoned: false,
        };
        let key = self.inner.operations.borrow_mut().insert(operation);
        let entry = entry.user_data(key as u64);
        if let Err(error) = self.push(&entry) {
            self.inner.operations.borrow_mut()[key].result = Some(-error.raw_os_error().unwrap_or(EIO));
        }
        Submitted {
            ring: self.clone(),
            key,
            resources: Some(resources),
            not_send: PhantomData,
        }
    }

    fn push(&self, entry: &squeue::Entry) -> io::Result<()> {
        let mut uring = self.inner.uring.borrow_mut();
        loop {
            // SAFETY: `submit`'s caller vouches for the entry.
            if unsafe { uring.submission().push(entry) }.is_ok() {
                break;
            }
            uring.submit()?;
        }
        loop {
            match uring.submit() {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel has no room for more completions: reap, and try again.
                Err(error) if error.raw_os_error() == Some(EBUSY) => {
                    drop(uring);
                    self.reap();
                    uring = self.inner.uring.borrow_mut();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Resolves when the descriptor can be written to, or has failed; the next write tells which.
    pub async fn writable(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let poll = opcode::PollAdd::new(Fd(fd.as_raw_fd()), POLLOUT);
        // SAFETY: there is no memory, and the kernel takes a reference to the file when it is submitted, which is now.
        unsafe { self.submit(poll.build(), Rc::new(())) }.await.0.map(drop)
    }

    /// Has a kernel thread begin to read this part of a file into the page cache, and waits for nothing: what becomes of it shows
    /// when the bytes are needed. Returns whether it was begun: not if too many are under way.
    pub fn prefetch(&self, file: BorrowedFd<'_>, position: u64, length: u32) -> bool {
        let prefetches = &self.inner.prefetches;
        if Rc::strong_count(prefetches) > PREFETCHES_MAX {
            return false;
        }
        let advice = opcode::Fadvise::new(Fd(file.as_raw_fd()), i64::from(length), WILLNEED);
        // SAFETY: there is no memory, and the kernel takes a reference to the file when it is submitted, which is now.
        drop(unsafe { self.submit(advice.offset(position).build(), Rc::clone(prefetches)) });
        true
    }

    /// Moves up to `length` bytes of a file, from `position` on, into a pipe without copying them, waiting for the disk on a
    /// kernel thread if they are not in the page cache. Returns how many it moved.
    pub async fn splice_to_pipe(
        &self,
        file: BorrowedFd<'_>,
        position: u64,
        pipe: BorrowedFd<'_>,
        length: u32,
    ) -> io::Result<u32> {
        let position = position.cast_signed();
        let splice = opcode::Splice::new(Fd(file.as_raw_fd()), position, Fd(pipe.as_raw_fd()), -1, length);
        // SAFETY: there is no memory of ours, and the kernel takes references to both files when it is submitted.
        unsafe { self.submit(splice.build(), Rc::new(())) }.await.0
    }

    /// Takes all completions that are there and wakes who waits for them. Costs no system call.
    pub fn reap(&self) {
        self.inner.reap();
    }
}

const POLLOUT: u32 = rustix::event::PollFlags::OUT.bits() as u32;
/// `POSIX_FADV_WILLNEED` of `posix_fadvise(2)`.
const WILLNEED: i32 = rustix::fs::Advice::WillNeed as i32;
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
const EBUSY: i32 = rustix::io::Errno::BUSY.raw_os_error();

impl Inner {
    fn reap(&self) {
        let mut woken = Vec::new();
        {
            let mut uring = self.uring.borrow_mut();
            let mut operations = self.operations.borrow_mut();
            for completion in uring.completion() {
                let key = completion.user_data() as usize;
                let Some(operation) = operations.get_mut(key) else {
                    continue;
                };
                if operation.abandoned {
                    operations.remove(key);
                    continue;
                }
                operation.result = Some(completion.result());
                operation.resources = None;
                woken.extend(operation.waker.take());
            }
        }
        for waker in woken {
            waker.wake();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The kernel may still write into memory that the operations keep. Better to lose that memory than to free it.
        let operations = std::mem::take(self.operations.get_mut());
        if operations.iter().any(|(_, operation)| operation.result.is_none()) {
            std::mem::forget(operations);
        }
    }
}

async fn watch(ring: Weak<Inner>, event: BufferedFile) {
    loop {
        if let Err(error) = event.read_at(0, 8).await {
            tracing::error!(%error, "cannot read the auxiliary ring's eventfd; completions wait for the next poll");
            return;
        }
        match ring.upgrade() {
            Some(ring) => ring.reap(),
            None => return,
        }
    }
}

/// A submitted operation: resolves to the kernel's result and the resources.
#[must_use = "the operation runs anyway, but its result is lost"]
pub(crate) struct Submitted<R> {
    ring: Ring,
    key: usize,
    resources: Option<Rc<R>>,
    not_send: PhantomData<Rc<()>>,
}

impl<R> Unpin for Submitted<R> {}

impl<R: 'static> Future for Submitted<R> {
    type Output = (io::Result<u32>, Rc<R>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.ring.reap();
        let result = {
            let mut operations = self.ring.inner.operations.borrow_mut();
            let operation = &mut operations[self.key];
            match operation.result {
                None => {
                    operation.waker = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Some(result) => {
                    operations.remove(self.key);
                    result
                }
            }
        };
        let resources = self.resources.take().expect("a future is not polled after it is ready");
        let result = if result < 0 {
            Err(io::Error::from_raw_os_error(-result))
        } else {
            Ok(result.cast_unsigned())
        };
        Poll::Ready((result, resources))
    }
}

impl<R> Drop for Submitted<R> {
    fn drop(&mut self) {
        if self.resources.is_none() {
            return; // Resolved.
        }
        let mut operations = self.ring.inner.operations.borrow_mut();
        if operations[self.key].result.is_some() {
            operations.remove(self.key);
        } else {
            operations[self.key].abandoned = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd as _, time::Duration};

    use super::*;

    #[test]
    fn only_so_many_prefetches_are_under_way_and_more_can_begin_when_they_have_ended() {
        let running = glommio::LocalExecutorBuilder::default().spawn(|| async {
            let ring = Ring::new().unwrap();
            let file = File::open(std::env::current_exe().unwrap()).unwrap();
            let begun = (0..1000).filter(|_| ring.prefetch(file.as_fd(), 0, 4096)).count();
            assert_eq!(begun, PREFETCHES_MAX);
            let begins_again = async {
                while !ring.prefetch(file.as_fd(), 0, 4096) {
                    glommio::timer::sleep(Duration::from_millis(1)).await;
                }
                Ok(())
            };
            let limit = Duration::from_secs(10);
            assert!(glommio::timer::timeout(limit, begins_again).await.is_ok());
            ring.close().await;
        });
        running.unwrap().join().unwrap();
    }
}
