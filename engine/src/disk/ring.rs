//! The auxiliary ring: an io_uring of our own beside glommio's, on the same thread, for what glommio does not offer:
//! writes of part of a buffer, `RWF_DSYNC`, poll on foreign descriptors, and submission at once instead of at the
//! executor's next turn.
//!
//! Completions are reaped whenever an operation is polled. When all tasks sleep, an eventfd wakes the executor through a
//! read on glommio's ring; a driver that knows that they sleep waits in this ring itself ([`Ring::wait`]), in one system call. Memory
//! that the kernel may touch is kept by the ring until the operation has completed, also when its future was dropped. Owned by one core.
//!
//! ```text
//! submit ─► waiting (more are under way than may be) ─► submission queue ─► the kernel ─► completion: the only result there is
//! ```
//!
//! An entry in the submission queue is the kernel's, whatever `io_uring_enter(2)` answers: where there is no memory for a
//! request the entry stays there and is taken later. So nothing but a completion ends an operation, and its key is used again only then.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    io,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd},
    pin::Pin,
    rc::{Rc, Weak},
    sync::atomic::{Ordering, fence},
    task::{Context, Poll, Waker},
    time::Duration,
};

use glommio::io::BufferedFile;
use io_uring::{
    IoUring, opcode, squeue,
    types::{Fd, SubmitArgs, Timespec},
};
use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};
use slab::Slab;

use super::elsewhere::Elsewhere;

/// Entries of the submission queue. Everything is submitted at once, so this only bounds a burst.
const ENTRIES: u32 = 256;

/// Entries of the completion queue: as many as operations may be under way, so that the kernel never has to find memory for
/// a completion that does not fit.
const COMPLETIONS: u32 = 65_536;

/// Most operations on files under way at once.
const FILE_OPERATIONS_MAX: usize = 4096;

/// Most sockets that are waited for at once, until they take more or their peers have gone. They have a share of their own, since a
/// peer that does not read keeps its place for as long as it likes, and must not keep that of a write.
const POLLS_MAX: usize = 12_288;

/// Most sockets of which it is waited at once for something to read.
const ARRIVALS_MAX: usize = COMPLETIONS as usize - FILE_OPERATIONS_MAX - POLLS_MAX;

/// How long after the kernel had no memory to take an operation it is asked again, if no completion comes before.
const PAUSE: Duration = Duration::from_millis(1);

/// Most prefetches under way at once. Each is memory of the kernel, which keeps as many as it is given.
const PREFETCHES_MAX: usize = 256;

/// An io_uring whose operations are futures. Clones are the same ring.
#[derive(Clone)]
pub struct Ring {
    inner: Rc<Inner>,
}

struct Inner {
    queues: RefCell<Queues>,
    operations: RefCell<Slab<Operation>>,
    /// Shared with each prefetch under way, which are counted by that.
    prefetches: Rc<()>,
    /// Reads the eventfd.
    watcher: RefCell<Option<glommio::Task<()>>>,
    /// Submits again after a [`PAUSE`], as long as `is_retrying`.
    retry: RefCell<Option<glommio::Task<()>>>,
    is_retrying: Cell<bool>,
    has_warned: Cell<bool>,
    /// The kernel writes to the eventfd that wakes it.
    tells_executor: Cell<bool>,
    is_closed: Cell<bool>,
    can_wait: bool,
}

/// The way to the kernel and back.
struct Queues {
    uring: IoUring,
    /// One for each [`Kind`].
    lanes: [Lane; 3],
    /// So many calls of `io_uring_enter(2)` find no memory, or fail with another error.
    #[cfg(test)]
    failures: (usize, rustix::io::Errno),
}

/// Operations that share a limit.
struct Lane {
    limit: usize,
    /// In the submission queue, or with the kernel.
    under_way: usize,
    /// In the order in which they were submitted.
    waiting: VecDeque<squeue::Entry>,
}

impl Lane {
    fn new(limit: usize) -> Lane {
        Lane {
            limit,
            under_way: 0,
            waiting: VecDeque::new(),
        }
    }
}

/// Which [`Lane`] an operation is in.
#[derive(Debug, Clone, Copy)]
enum Kind {
    File = 0,
    Poll = 1,
    Arrival = 2,
}

/// An operation whose result is not there yet, or was not taken yet.
struct Operation {
    kind: Kind,
    /// Buffers, files: whatever the kernel must find valid until the completion.
    resources: Option<Rc<dyn Any>>,
    waker: Option<Waker>,
    result: Option<i32>,
    /// The future was dropped: the result goes nowhere.
    abandoned: bool,
}

/// What became of an attempt to hand everything over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handed {
    /// The kernel has what it may have.
    Over,
    /// Some entries are still in the submission queue: it had no memory for them.
    NotAll,
}

impl Queues {
    /// Hands over what may be under way, in as few system calls as it takes.
    fn hand_over(&mut self) -> Handed {
        loop {
            self.fill();
            if self.uring.submission().is_empty() {
                return Handed::Over;
            }
            match self.enter() {
                // Perhaps it has taken only some of them.
                Ok(taken) if taken > 0 => {}
                Err(Errno::INTR) => {}
                Ok(_) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOMEM) => return Handed::NotAll,
                // What is queued can be neither handed over nor taken back, and nobody would ever be told.
                Err(error) => panic!("the io_uring of this core does not work any more (io_uring_enter: {error})"),
            }
        }
    }

    /// Moves what may go on into the submission queue. Returns whether there was room for all of it.
    fn fill(&mut self) -> bool {
        let mut queue = self.uring.submission();
        for lane in &mut self.lanes {
            while lane.under_way < lane.limit
                && !queue.is_full()
                && let Some(entry) = lane.waiting.pop_front()
            {
                // SAFETY: `submit`'s caller vouches for the entry, whose resources are kept until it has completed.
                unsafe { queue.push(&entry) }.expect("the queue is not full");
                lane.under_way += 1;
            }
        }
        !queue.is_full()
    }

    fn enter(&mut self) -> Result<usize, Errno> {
        #[cfg(test)]
        if let (failures @ 1.., error) = &mut self.failures {
            *failures -= 1;
            return Err(*error);
        }
        let entered = self.uring.submit();
        entered.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    fn has_waiting(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.waiting.is_empty())
    }
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
        let can_wait = uring.params().is_feature_ext_arg();
        let inner = Rc::new(Inner {
            queues: RefCell::new(Queues {
                uring,
                lanes: [FILE_OPERATIONS_MAX, POLLS_MAX, ARRIVALS_MAX].map(Lane::new),
                #[cfg(test)]
                failures: (0, Errno::AGAIN),
            }),
            operations: RefCell::default(),
            prefetches: Rc::default(),
            watcher: RefCell::default(),
            retry: RefCell::default(),
            is_retrying: Cell::default(),
            has_warned: Cell::default(),
            tells_executor: Cell::new(true),
            is_closed: Cell::default(),
            can_wait,
        });
        // SAFETY: the descriptor is open and owned by nobody else; the file closes it.
        let event = unsafe { BufferedFile::from_raw_fd(event.into_raw_fd()) };
        let watcher = glommio::spawn_local(watch(Rc::downgrade(&inner), event));
        inner.watcher.replace(Some(watcher));
        Ok(Ring { inner })
    }

    /// Ends the tasks of the ring, which glommio would leak, and its executor's memory with it: the last that
    /// is done with a ring before its executor ends. Operations are still submitted, but may never complete.
    pub async fn close(&self) {
        let _elsewhere = Elsewhere::begin();
        self.tell_executor(false);
        self.inner.is_closed.set(true);
        for task in [&self.inner.watcher, &self.inner.retry] {
            let task = task.take();
            if let Some(task) = task {
                task.cancel().await;
            }
        }
    }

    /// Submits an operation.
    ///
    /// # Safety
    /// Every pointer and descriptor in `entry` must stay valid for as long as `resources` is kept, and the memory behind the
    /// pointers must not be read (if the kernel writes it) or written (if the kernel reads it) before the completion. The kernel
    /// may take the entry later than now: a descriptor that the resources do not own may by then be another file's.
    pub(crate) unsafe fn submit<R: 'static>(&self, entry: squeue::Entry, resources: Rc<R>) -> Submitted<R> {
        // SAFETY: the caller's.
        unsafe { self.submit_as(Kind::File, entry, resources) }
    }

    /// # Safety
    /// As for [`submit`](Self::submit).
    unsafe fn submit_as<R: 'static>(&self, kind: Kind, entry: squeue::Entry, resources: Rc<R>) -> Submitted<R> {
        let operation = Operation {
            kind,
            resources: Some(resources.clone()),
            waker: None,
            result: None,
            abandoned: false,
        };
        let key = self.inner.operations.borrow_mut().insert(operation);
        let entry = entry.user_data(key as u64);
        self.inner.queues.borrow_mut().lanes[kind as usize]
            .waiting
            .push_back(entry);
        // Who waits for what has yet to come is in no hurry: it goes with whatever does next.
        if !matches!(kind, Kind::Arrival) || self.inner.tells_executor.get() {
            self.inner.hand_over();
        }
        Submitted {
            ring: self.clone(),
            key,
            resources: Some(resources),
            not_send: PhantomData,
        }
    }

    /// Resolves when a connection waits for this listening socket, or it has been shut down. A core has few of them, so they take
    /// places of operations on files: those of sockets may all be taken by peers that do nothing.
    pub async fn readable(&self, listener: BorrowedFd<'_>) -> io::Result<()> {
        let poll = opcode::PollAdd::new(Fd(listener.as_raw_fd()), POLLIN);
        // SAFETY: as in `writable`.
        unsafe { self.submit_as(Kind::File, poll.build(), Rc::new(())) }
            .await
            .0
            .map(drop)
    }

    /// Resolves when there is something to read from a socket, or its peer has gone. While somebody [waits](Self::wait) the kernel is told
    /// with the next operation, or by the wait.
    pub fn arrival(&self, socket: BorrowedFd<'_>) -> Arrival {
        let poll = opcode::PollAdd::new(Fd(socket.as_raw_fd()), POLLIN);
        // SAFETY: as in `writable`.
        Arrival(unsafe { self.submit_as(Kind::Arrival, poll.build(), Rc::new(())) })
    }

    /// Resolves when the descriptor can be written to, or has failed; the next write tells which.
    pub async fn writable(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let poll = opcode::PollAdd::new(Fd(fd.as_raw_fd()), POLLOUT);
        // SAFETY: there is no memory. Should the caller have gone, and the descriptor be another file's, when the kernel takes the
        // entry, it waits for that one, and tells nobody.
        unsafe { self.submit_as(Kind::Poll, poll.build(), Rc::new(())) }
            .await
            .0
            .map(drop)
    }

    /// Resolves when the peer of a socket sends nothing more: it has closed its side, or the whole connection.
    pub async fn hung_up(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let poll = opcode::PollAdd::new(Fd(socket.as_raw_fd()), POLLRDHUP);
        // SAFETY: as in `writable`.
        unsafe { self.submit_as(Kind::Poll, poll.build(), Rc::new(())) }
            .await
            .0
            .map(drop)
    }

    /// Has a kernel thread begin to read this part of a file into the page cache, and waits for nothing: what becomes of it shows
    /// when the bytes are needed. Returns whether it was begun: not if too many are under way.
    pub fn prefetch(&self, file: BorrowedFd<'_>, position: u64, length: u32) -> bool {
        let prefetches = &self.inner.prefetches;
        if Rc::strong_count(prefetches) > PREFETCHES_MAX {
            return false;
        }
        let advice = opcode::Fadvise::new(Fd(file.as_raw_fd()), i64::from(length), WILLNEED);
        // SAFETY: there is no memory. Should the descriptor be another file's when the kernel takes the entry, it reads some of that
        // one in vain.
        drop(unsafe { self.submit(advice.offset(position).build(), Rc::clone(prefetches)) });
        true
    }

    /// Takes all completions that are there and wakes who waits for them. Costs no system call, unless something waits for its turn.
    pub fn reap(&self) {
        self.inner.reap();
    }

    /// Whether [`wait`](Self::wait) may be used now: not where the kernel is too old, where it had no memory to take an operation, nor
    /// once the ring is closed.
    pub fn can_wait(&self) -> bool {
        self.inner.can_wait && !self.inner.is_retrying.get() && !self.inner.is_closed.get()
    }

    /// Hands over what there is, and holds the thread up until something has completed, or so much time has passed: in one system call.
    pub fn wait(&self, time: Duration) {
        self.tell_executor(false);
        if !self.inner.queues.borrow_mut().fill() {
            self.inner.hand_over();
        }
        if !self.can_wait() {
            return;
        }
        let time = Timespec::from(time);
        let entered = {
            let queues = self.inner.queues.borrow();
            let submitter = queues.uring.submitter();
            submitter.submit_with_args(1, &SubmitArgs::new().timespec(&time))
        };
        if let Err(error) = entered {
            match Errno::from_io_error(&error) {
                Some(Errno::TIME | Errno::INTR) => {}
                Some(Errno::AGAIN | Errno::BUSY | Errno::NOMEM) => self.inner.hand_over(),
                _ => panic!("the io_uring of this core does not work any more (io_uring_enter: {error})"),
            }
        }
    }

    /// Before the executor sleeps: it is to be told of completions. Returns whether it may sleep, as there is none yet.
    pub fn wakes_executor(&self) -> bool {
        self.tell_executor(true);
        self.is_quiet()
    }

    /// Hands over what there is. Returns whether there is no completion that was not reaped.
    pub fn is_quiet(&self) -> bool {
        self.inner.hand_over();
        self.inner.queues.borrow_mut().uring.completion().is_empty()
    }

    /// The ring keeps its eventfd: before Linux 5.18 taking it away waits until nothing is under way any more, which polls always are.
    fn tell_executor(&self, told: bool) {
        if self.inner.tells_executor.replace(told) == told {
            return;
        }
        let mut queues = self.inner.queues.borrow_mut();
        let completion = queues.uring.completion();
        if told {
            completion.enable_eventfd();
        } else {
            completion.disable_eventfd();
        }
        // Before it is looked whether there is a completion. The kernel may still have missed it by a hair: who sleeps has an alarm.
        fence(Ordering::SeqCst);
    }
}

/// Future of [`Ring::arrival`].
#[must_use = "futures do nothing unless awaited"]
pub struct Arrival(Submitted<()>);

impl Future for Arrival {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll(context).map(|(result, _)| result.map(drop))
    }
}

const POLLIN: u32 = rustix::event::PollFlags::IN.bits() as u32;
const POLLOUT: u32 = rustix::event::PollFlags::OUT.bits() as u32;
const POLLRDHUP: u32 = rustix::event::PollFlags::RDHUP.bits() as u32;
/// `POSIX_FADV_WILLNEED` of `posix_fadvise(2)`.
const WILLNEED: i32 = rustix::fs::Advice::WillNeed as i32;

impl Inner {
    fn reap(self: &Rc<Self>) {
        let mut woken = Vec::new();
        let has_turn = {
            let mut queues = self.queues.borrow_mut();
            let Queues { uring, lanes, .. } = &mut *queues;
            let mut operations = self.operations.borrow_mut();
            let mut has_place = false;
            for completion in uring.completion() {
                let key = completion.user_data() as usize;
                let operation = &mut operations[key];
                lanes[operation.kind as usize].under_way -= 1;
                has_place = true;
                if operation.abandoned {
                    operations.remove(key);
                    continue;
                }
                operation.result = Some(completion.result());
                operation.resources = None;
                woken.extend(operation.waker.take());
            }
            // What has completed gives back its place, and memory.
            has_place && (queues.has_waiting() || self.is_retrying.get())
        };
        if has_turn {
            self.hand_over();
        }
        for waker in woken {
            waker.wake();
        }
    }

    /// Hands over what may be; what the kernel had no memory for, again after a while.
    fn hand_over(self: &Rc<Self>) {
        let handed = self.queues.borrow_mut().hand_over();
        let is_open = self.watcher.borrow().is_some();
        if handed == Handed::NotAll && is_open && !self.is_retrying.replace(true) {
            if !self.has_warned.replace(true) {
                tracing::warn!(
                    "the kernel has no memory to take operations on files and sockets; they wait until it has"
                );
            }
            let retry = glommio::spawn_local(retry(Rc::downgrade(self)));
            self.retry.replace(Some(retry));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The kernel may still use memory that the operations keep. Better to lose that memory than to free it.
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

async fn retry(ring: Weak<Inner>) {
    loop {
        glommio::timer::sleep(PAUSE).await;
        let Some(ring) = ring.upgrade() else { return };
        if ring.queues.borrow_mut().hand_over() == Handed::Over {
            ring.is_retrying.set(false);
            return;
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
            return;
        }
        let kind = operations[self.key].kind;
        if !matches!(kind, Kind::File) {
            // Later the descriptor may be another file's.
            let waiting = &mut self.ring.inner.queues.borrow_mut().lanes[kind as usize].waiting;
            let place = waiting
                .iter()
                .rposition(|entry| entry.get_user_data() == self.key as u64);
            if let Some(place) = place {
                waiting.remove(place);
                operations.remove(self.key);
                return;
            }
        }
        operations[self.key].abandoned = true;
    }
}

#[cfg(test)]
mod tests;
