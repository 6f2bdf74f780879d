//! A world that exists in memory only, and is a function of one seed: an executor that decides which task runs next, a clock that
//! moves when nothing else can, disks that lose what was not flushed, and a network that delays, cuts and forgets.
//!
//! ```text
//! World ── agenda: what happens when ─► timers, disks' operations, packets
//!       └─ tasks, each of a process ──► polled in an order drawn from the seed, with the process as where they are
//! Process: one run of a broker or a client, on a host, with a clock of its own that may be slow, fast, or wrong
//! ```
//! While a task is polled, [`here`] is its process: that is how the functions of `machine` find the world. Where there is none, they
//! mean the real machine, so tests of both kinds live in one build.

pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod hashing;
pub(crate) mod host;
pub(crate) mod net;
pub(crate) mod seam;
pub(crate) mod socket;
mod tasks;
pub(crate) mod world;

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use rand::distr::{Distribution, StandardUniform};

use self::clock::Sleep;
pub(crate) use self::{
    hashing::Hashing,
    tasks::TaskId,
    world::{ProcessId, Stuck, World},
};

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// The process that runs at the moment, and its world.
#[derive(Clone)]
pub(crate) struct Here {
    pub(crate) world: Rc<World>,
    pub(crate) process: ProcessId,
}

/// Where the code that asks runs; `None` on the real machine.
pub(crate) fn here() -> Option<Here> {
    HERE.with_borrow(Clone::clone)
}

/// Whether the code that asks runs in a simulated world.
pub(crate) fn is_running() -> bool {
    HERE.with_borrow(Option::is_some)
}

/// Lets other tasks run.
pub(crate) async fn yield_now() {
    let mut is_first = true;
    poll_fn(|context| {
        if std::mem::take(&mut is_first) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

impl Here {
    /// Does something as this process.
    pub(crate) fn within<T>(&self, what: impl FnOnce() -> T) -> T {
        let before = HERE.replace(Some(self.clone()));
        let _back = Back(before);
        what()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) -> TaskId {
        self.world.spawn(self.process, task)
    }

    pub(crate) fn sleep(&self, duration: Duration) -> Sleep {
        let rate = self.world.clock(self.process).rate;
        Sleep::new(&self.world, duration.div_f64(rate))
    }

    pub(crate) fn random<T>(&self) -> T
    where
        StandardUniform: Distribution<T>,
    {
        self.world.random()
    }
}

/// Where the thread was before.
struct Back(Option<Here>);

impl Drop for Back {
    fn drop(&mut self) {
        HERE.set(self.0.take());
    }
}
