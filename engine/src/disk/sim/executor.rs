//! A single-threaded executor that drives tasks and a simulated disk by seed: which task runs next, and how many
//! operations complete in between.
//!
//! It wakes nobody by itself: when no task is ready and the disk has nothing under way, a wake-up was lost.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::SimDisk;

/// Why a future was not run to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The machine of the disk has stopped.
    #[error("the simulated machine has crashed")]
    Crashed,
    /// No task is ready and no operation is under way: a wake-up was lost, or tasks wait for each other.
    #[error("no task is ready and no operation is under way: a wake-up was lost, or tasks wait for each other")]
    Deadlock,
}

/// Remembers that its task was woken.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    flag: Arc<Flag>,
}

/// Runs tasks on a [`SimDisk`]. Clones are the same executor, so that tasks may spawn others.
#[derive(Clone)]
pub struct SimExecutor {
    shared: Rc<Shared>,
}

struct Shared {
    disk: SimDisk,
    rng: RefCell<StdRng>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    spawned: Cell<u64>,
    /// How often the disk goes first when a task is ready too: some seeds have a slow disk, some a fast one.
    disk_share: f64,
}

impl SimExecutor {
    /// An executor for this disk, whose operations from now on complete only when it says so.
    pub fn new(disk: &SimDisk, seed: u64) -> SimExecutor {
        disk.wait_to_be_told();
        let mut rng = StdRng::seed_from_u64(seed);
        let disk_share = [0.02, 0.2, 0.5, 0.9][rng.random_range(0..4)];
        SimExecutor {
            shared: Rc::new(Shared {
                disk: disk.clone(),
                rng: RefCell::new(rng),
                tasks: RefCell::new(BTreeMap::new()),
                spawned: Cell::new(0),
                disk_share,
            }),
        }
    }

    /// Adds a task. It runs during [`block_on`](Self::block_on) and [`turn`](Self::turn).
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let number = self.shared.spawned.get();
        self.shared.spawned.set(number + 1);
        let task = Task {
            future: Box::pin(future),
            flag: Arc::new(Flag(AtomicBool::new(true))),
        };
        self.shared.tasks.borrow_mut().insert(number, task);
    }

    /// Tasks that have not ended.
    pub fn tasks(&self) -> usize {
        self.shared.tasks.borrow().len()
    }

    /// Runs `future` to its end, and spawned tasks meanwhile; these are kept for later calls.
    ///
    /// # Errors
    /// When the machine crashes, or when nothing can go on.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> Result<T, Halt> {
        let mut future = pin!(future);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        loop {
            if self.shared.disk.is_crashed() {
                return Err(Halt::Crashed);
            }
            let others = self.shared.rng.borrow_mut().random_bool(0.5);
            if !others && flag.0.swap(false, Ordering::Relaxed) {
                if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Ok(value);
                }
            } else {
                match self.turn() {
                    Err(Halt::Deadlock) if flag.0.load(Ordering::Relaxed) => {}
                    result => result?,
                }
            }
        }
    }

    /// Runs spawned tasks until all have ended.
    ///
    /// # Errors
    /// When the machine crashes, or when nothing can go on.
    pub fn run(&self) -> Result<(), Halt> {
        while self.tasks() > 0 {
            self.turn()?;
        }
        Ok(())
    }

    /// Polls one ready task or completes one operation of the disk.
    ///
    /// # Errors
    /// When the machine has crashed, or when there is neither.
    pub fn turn(&self) -> Result<(), Halt> {
        if self.shared.disk.is_crashed() {
            return Err(Halt::Crashed);
        }
        let disk_first = self.shared.rng.borrow_mut().random_bool(self.shared.disk_share);
        if (disk_first && self.shared.disk.complete_one()) || self.poll_one() || self.shared.disk.complete_one() {
            return Ok(());
        }
        Err(Halt::Deadlock)
    }

    /// Polls one of the ready tasks, or, rarely, one that was not woken: futures must bear that too.
    fn poll_one(&self) -> bool {
        let Some((number, mut task)) = self.take_task() else {
            return false;
        };
        task.flag.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&task.flag));
        // The task is out of the list meanwhile: it may spawn others.
        let ended = task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if !ended {
            self.shared.tasks.borrow_mut().insert(number, task);
        }
        true
    }

    fn take_task(&self) -> Option<(u64, Task)> {
        let mut tasks = self.shared.tasks.borrow_mut();
        let mut rng = self.shared.rng.borrow_mut();
        let ready: Vec<u64> = tasks
            .iter()
            .filter(|(_, task)| task.flag.0.load(Ordering::Relaxed))
            .map(|(number, _)| *number)
            .collect();
        if ready.is_empty() {
            return None;
        }
        let all: Vec<u64> = tasks.keys().copied().collect();
        let from = if rng.random_bool(0.05) { &all } else { &ready };
        let number = from[rng.random_range(0..from.len())];
        tasks.remove_entry(&number)
    }
}
