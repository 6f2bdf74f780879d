//! Tasks of one core: those that serve requests, those that run as long as the core does, and work on threads that may block.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::Future,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use futures::future::{Either, join_all, select};
use glommio::{Latency, Shares, TaskQueueHandle};
use headwater_engine::disk::BLOCKING_THREADS;

/// Tasks that run for as long as the core does. glommio leaks a task that is not at its end when its executor is, with all
/// that it holds, so these are ended before.
#[derive(Default)]
pub(crate) struct Daemons {
    tasks: RefCell<Vec<glommio::Task<()>>>,
    background: OnceCell<TaskQueueHandle>,
}

impl Daemons {
    /// Starts one.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().push(glommio::spawn_local(task));
    }

    /// Starts one that gives way to requests: retention, checkpoints, sealing, whatever may wait.
    pub(crate) fn spawn_background(&self, task: impl Future<Output = ()> + 'static) {
        let queue = self.background.get_or_init(|| {
            glommio::executor().create_task_queue(Shares::Static(50), Latency::NotImportant, "background")
        });
        match glommio::spawn_local_into(task, *queue) {
            Ok(task) => self.tasks.borrow_mut().push(task),
            Err(error) => unreachable!("the queue is never removed: {error}"),
        }
    }

    /// Ends all of them where they wait, and returns when they and what they held are gone.
    pub(crate) async fn end(&self) {
        let tasks = self.tasks.take();
        for task in tasks {
            task.cancel().await;
        }
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
    glommio::spawn_local(counted(task)).detach();
}

/// Tasks of this core that were started by [`spawn`] and have not ended.
pub(crate) fn tasks() -> usize {
    TASKS.get()
}

/// Waits until the threads for what would block the core have done all that they were given. One that is at work beyond the end of
/// the executor panics.
pub(crate) async fn blocking_threads_rest() {
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
    glommio::timer::sleep(duration).await;
}

/// Does what may wait for the kernel on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    glommio::executor().spawn_blocking(work).await
}

/// Lets other tasks run, those that wait for the disk above all.
pub(crate) async fn yield_now() {
    glommio::executor().yield_task_queue_now().await;
}

/// For how long this core has run tasks.
pub(crate) fn busy() -> Duration {
    glommio::executor().executor_stats().total_runtime()
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
