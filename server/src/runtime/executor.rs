//! The thread of one core, on which its executor runs.

use std::{future::Future, io, time::Duration};

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};
use headwater_engine::disk::BLOCKING_THREADS;

/// glommio's preemption timer: long, because a timer that fires before the first task can park the executor.
const PREEMPT_TIMER: Duration = Duration::from_millis(100);

/// A thread that runs an executor until the future that it was started with has ended.
pub(crate) struct CoreThread(ExecutorJoinHandle<io::Result<()>>);

impl CoreThread {
    /// Starts one, kept to a CPU if that is given, which polls for `spin` before it sleeps.
    pub(crate) fn start<F>(
        name: &str,
        cpu: Option<u16>,
        spin: Duration,
        run: impl FnOnce() -> F + Send + 'static,
    ) -> Result<CoreThread, String>
    where
        F: Future<Output = io::Result<()>> + 'static,
    {
        let placement = cpu.map_or(Placement::Unbound, |cpu| Placement::Fixed(usize::from(cpu)));
        let builder = LocalExecutorBuilder::new(placement)
            .name(name)
            .spin_before_park(spin)
            .preempt_timer(PREEMPT_TIMER)
            // A pinned core pins its blocking pool to itself as well, unless told otherwise.
            .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS));
        builder.spawn(run).map(CoreThread).map_err(|error| error.to_string())
    }

    /// Waits for its end, and says what went wrong.
    pub(crate) fn join(self) -> Result<(), String> {
        let ended = self.0.join().map_err(|error| error.to_string())?;
        ended.map_err(|error| error.to_string())
    }
}
