//! What the broker uses of glommio: tasks, timers and turns of one core's executor. Nothing above names glommio.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use futures::future::{Either, select};
use glommio::{Latency, Shares, TaskQueueHandle};

/// Task queues of a core; each gets time by its shares while others have work too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queues {
    /// Retention, checkpoints, sealing: whatever may wait.
    background: TaskQueueHandle,
}

impl Queues {
    pub(crate) fn new() -> Queues {
        let executor = glommio::executor();
        let background = executor.create_task_queue(Shares::Static(50), Latency::NotImportant, "background");
        Queues { background }
    }

    /// Starts a task that gives way to requests.
    pub(crate) fn spawn_background(self, task: impl Future<Output = ()> + 'static) {
        match glommio::spawn_local_into(task, self.background) {
            Ok(task) => {
                task.detach();
            }
            Err(error) => unreachable!("the queue is never removed: {error}"),
        }
    }
}

/// Starts a task on this core; it runs until it ends or the core does.
pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(task).detach();
}

/// Sleeps without holding up the core.
pub(crate) async fn sleep(duration: Duration) {
    glommio::timer::sleep(duration).await;
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
    let left = deadline.saturating_duration_since(Instant::now());
    let timer = std::pin::pin!(glommio::timer::sleep(left));
    match select(std::pin::pin!(future), timer).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
