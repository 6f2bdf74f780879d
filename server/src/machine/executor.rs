//! The executor of one core, on the thread that calls.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Duration,
};

use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};
use headwater_engine::disk::BLOCKING_THREADS;

use super::{driver, sockets};

/// glommio's preemption timer: long, because a timer that fires before the first task can park the executor.
const PREEMPT_TIMER: Duration = Duration::from_millis(100);

/// glommio's own buffers, which are pinned in memory: the least that it takes, as nothing larger than an event is read into them.
/// Records have memory of the core's (`engine/src/disk/pool.rs`).
const IO_MEMORY: usize = 64 << 10;

/// Runs an executor until the future that it is given has ended. Kept to a CPU if that is given; polls for `spin` before it sleeps.
/// After a panic the core's peers find their connections closed, and the panic goes on.
pub(crate) fn run_core<F>(cpu: Option<u16>, spin: Duration, run: impl FnOnce() -> F) -> Result<(), String>
where
    F: Future<Output = Result<(), String>> + 'static,
{
    let placement = cpu.map_or(Placement::Unbound, |cpu| Placement::Fixed(usize::from(cpu)));
    let builder = LocalExecutorBuilder::new(placement)
        .spin_before_park(spin)
        .preempt_timer(PREEMPT_TIMER)
        .io_memory(IO_MEMORY)
        // A pinned core pins its blocking pool to itself as well, unless told otherwise.
        .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS));
    let executor = builder.make().map_err(|error| error.to_string())?;
    let ran = catch_unwind(AssertUnwindSafe(|| executor.run(driver::drive(spin, run()))));
    ran.unwrap_or_else(|panic| {
        sockets::shut_down_all();
        // The kernel may still have work and memory of its tasks: better to lose them than to end them half done.
        driver::lose();
        std::mem::forget(executor);
        resume_unwind(panic)
    })
}
