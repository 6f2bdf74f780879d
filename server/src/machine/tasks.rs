//! Tasks of one core: those that serve requests, those that run as long as the core does, and work on threads that may block.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use futures::future::{AbortHandle, Abortable, Either, join_all, select};
use headwater_engine::{
    Signal,
    disk::{BLOCKING_THREADS, Elsewhere},
};

use super::driver::{self, Driver};

/// Tasks that run for as long as the core does, and are ended before it is.
#[derive(Default)]
pub(crate) struct Daemons {
    handles: RefCell<Vec<AbortHandle>>,
    running: Rc<Running>,
}

/// How many of them have not ended.
#[derive(Default)]
struct Running {
    count: Cell<usize>,
    changed: Signal,
}

impl Daemons {
    /// Starts one.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let task = self.endable(task);
        Driver::with(|driver| driver.spawn(task));
    }

    /// Starts one that gives way to requests: retention, checkpoints, sealing, whatever may wait.
    pub(crate) fn spawn_background(&self, task: impl Future<Output = ()> + 'static) {
        let task = self.endable(task);
        Driver::with(|driver| driver.spawn_background(task));
    }

    fn endable(&self, task: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> + 'static {
        let (handle, registration) = AbortHandle::new_pair();
        self.handles.borrow_mut().push(handle);
        let running = Rc::clone(&self.running);
        running.count.set(running.count.get() + 1);
        async move {
            // Ended or not, it is gone, with what it held, before it is counted as such.
            let _ = Abortable::new(task, registration).await;
            running.count.set(running.count.get() - 1);
            running.changed.notify();
        }
    }

    /// Ends all of them where they wait, and returns when they and what they held are gone.
    pub(crate) async fn end(&self) {
        for handle in self.handles.take() {
            handle.abort();
        }
        self.running.changed.until(|| self.running.count.get() == 0).await;
    }
}

thread_local! {
    static TASKS: Cell<usize> = const { Cell::new(0) };
}

/// Counts a task until it has ended.
struct Counted;

impl Counted {
    fn new() -> Counted {
        TASKS.set(TASKS.get() + 1);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        TASKS.set(TASKS.get() - 1);
    }
}

/// The task, counted until it has ended.
pub(super) fn counted(task: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> + 'static {
    let counted = Counted::new();
    async move {
        task.await;
        drop(counted);
    }
}

/// Starts a task on this core; it runs until it ends or the core does.
pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    let task = counted(task);
    Driver::with(|driver| driver.spawn(task));
}

/// Tasks of this core that were started by [`spawn`] and have not ended.
pub(crate) fn tasks() -> usize {
    TASKS.get()
}

/// Waits until the threads for what would block the core have done all that they were given. One that is at work beyond the end of
/// the executor panics.
pub(crate) async fn blocking_threads_rest() {
    let _elsewhere = Elsewhere::begin();
    // They take one thing after the other, and each of these ends when all of them have come to one.
    let all = Arc::new(Barrier::new(BLOCKING_THREADS));
    let rests = (0..BLOCKING_THREADS).map(|_| {
        let all = Arc::clone(&all);
        glommio::executor().spawn_blocking(move || {
            all.wait();
        })
    });
    join_all(rests).await;
}

/// Sleeps without holding up the core.
pub(crate) async fn sleep(duration: Duration) {
    let timers = Driver::with(|driver| Rc::clone(&driver.timers));
    timers.sleep(duration).await;
}

/// Does what may wait for the kernel on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let _elsewhere = Elsewhere::begin();
    glommio::executor().spawn_blocking(work).await
}

/// Lets other tasks run, those that wait for the disk above all.
pub(crate) async fn yield_now() {
    driver::yield_now().await;
}

/// For how long this core has run tasks.
pub(crate) fn busy() -> Duration {
    Driver::with(Driver::busy)
}

/// Waits for the future, but not beyond the deadline.
pub(crate) async fn until<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let left = deadline.saturating_duration_since(super::now());
    let timer = std::pin::pin!(super::sleep(left));
    match select(std::pin::pin!(future), timer).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
