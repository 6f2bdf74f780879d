//! What runs the tasks of a core: one task of its executor, which polls all others and knows when all of them wait.
//!
//! ```text
//! tasks that are ready -> (none) -> wait in the auxiliary ring: one system call hands over what was asked and sleeps
//!                                -> or leave it to glommio, if it has something to do
//! ```
//! glommio sleeps in about eight system calls, as it sets and cancels timers of its own each time that it goes around, and a memory
//! barrier across all CPUs. So it is left out of the way of requests: sockets and records go through the auxiliary ring, deadlines
//! are kept here, and glommio has its turn when something of its own is under way ([`Elsewhere`]), and now and then.
//!
//! Owned by one core. Wakers may be used on any thread: see [`Bell`].

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, future::LocalBoxFuture, stream::FuturesUnordered};
use glommio::timer::Timer;
use headwater_engine::disk::{Elsewhere, Ring};
use rustix::io::Errno;

use super::{bell::Bell, timers::Timers};

/// glommio has a turn at least this often while the core is at work,
const TURN_EVERY: Duration = Duration::from_millis(100);

/// and this often while something of its own is under way.
const TURN_EVERY_UNDER_WAY: Duration = Duration::from_millis(2);

/// When glommio comes back from its turn: it looks at its rings only when no task of its own is ready.
const TURN: Duration = Duration::from_micros(20);

/// The same, for when it goes to sleep nonetheless, see the watchdog. Shorter than its preemption timer.
const GUARD: Duration = Duration::from_millis(50);

/// While tasks are always ready, what they wait for of sockets is handed over at least this often.
const HAND_OVER_EVERY: Duration = Duration::from_micros(200);

/// The core sleeps for no longer than this, whatever is due.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What may wait has one part in so many of the time while requests have the rest.
const BACKGROUND_PART: u32 = 20;

thread_local! {
    static DRIVER: OnceCell<Rc<Driver>> = const { OnceCell::new() };
}

/// Tasks that have their turns together.
#[derive(Default)]
struct Tasks {
    /// Started since the others were polled.
    new: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
    all: RefCell<FuturesUnordered<LocalBoxFuture<'static, ()>>>,
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.new.borrow_mut().push(Box::pin(task));
    }

    /// Polls those that were woken. If it stops before it has come to all of them, the context's waker says so.
    fn poll(&self, context: &mut Context<'_>) {
        let mut all = self.all.borrow_mut();
        all.extend(self.new.borrow_mut().drain(..));
        while let Poll::Ready(Some(())) = all.poll_next_unpin(context) {}
    }

    fn has_new(&self) -> bool {
        !self.new.borrow().is_empty()
    }

    /// Ends them where they wait.
    fn end(&self) {
        drop(self.all.take());
        drop(self.new.take());
    }
}

/// The driver of one core.
pub(super) struct Driver {
    foreground: Tasks,
    background: Tasks,
    /// When the background has its next turn though others are ready.
    background_due: Cell<Instant>,
    pub(super) timers: Rc<Timers>,
    bell: Arc<Bell>,
    waker: Waker,
    /// Where it waits, once there is one.
    ring: RefCell<Option<Ring>>,
    spin: Duration,
    began: Instant,
    asleep: Cell<Duration>,
    /// Since when glommio has had it.
    left: Cell<Option<Instant>>,
    /// Have glommio come back.
    alarms: RefCell<Vec<Timer>>,
}

/// What to do when there was nothing to do.
#[derive(Debug, PartialEq, Eq)]
enum Rested {
    /// Look again.
    GoOn,
    /// glommio is to go on.
    Leave,
}

impl Driver {
    /// That of the core that runs on this thread.
    pub(super) fn with<T>(use_it: impl FnOnce(&Driver) -> T) -> T {
        DRIVER.with(|driver| use_it(driver.get().expect("tasks and timers are a core's")))
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.foreground.spawn(task);
    }

    pub(super) fn spawn_background(&self, task: impl Future<Output = ()> + 'static) {
        self.background.spawn(task);
    }

    /// From now on it waits in this ring.
    pub(super) fn waits_in(&self, ring: &Ring) -> Result<(), Errno> {
        let (ring, bell) = (ring.clone(), Arc::clone(&self.bell));
        bell.open()?;
        self.ring.replace(Some(ring.clone()));
        self.spawn(async move {
            while let Some(event) = bell.event()
                && ring.readable(event).await.is_ok()
            {
                bell.answer();
            }
        });
        Ok(())
    }

    /// The ring is to be closed.
    pub(super) fn leaves_ring(&self) {
        self.ring.take();
    }

    /// For how long tasks have run.
    pub(super) fn busy(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.asleep.get())
    }

    fn new(spin: Duration) -> Driver {
        let bell = Arc::<Bell>::default();
        Driver {
            foreground: Tasks::default(),
            background: Tasks::default(),
            background_due: Cell::new(Instant::now()),
            timers: Rc::default(),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
            ring: RefCell::default(),
            spin,
            began: Instant::now(),
            asleep: Cell::default(),
            left: Cell::default(),
            alarms: RefCell::default(),
        }
    }

    /// Runs tasks until there is output, or glommio is to have its turn.
    fn run<T>(&self, executor: &mut Context<'_>, output: &Cell<Option<T>>) -> Poll<T> {
        let began = Instant::now();
        self.bell.is_awake();
        self.alarms.take();
        if let Some(left) = self.left.take() {
            self.slept(began - left);
        }
        let mut context = Context::from_waker(&self.waker);
        let mut handed_over = began;
        loop {
            self.bell.hush();
            if let Some(ring) = &*self.ring.borrow() {
                ring.reap();
            }
            let now = Instant::now();
            self.timers.fire(now);
            self.foreground.poll(&mut context);
            if let Some(output) = output.take() {
                return Poll::Ready(output);
            }
            self.run_background(&mut context);
            let every = if Elsewhere::is_under_way() {
                TURN_EVERY_UNDER_WAY
            } else {
                TURN_EVERY
            };
            if now - began >= every || Elsewhere::take_nudge() {
                self.give_turn(executor);
                return Poll::Pending;
            }
            if !self.is_needed() {
                if self.rest(executor) == Rested::Leave {
                    return Poll::Pending;
                }
            } else if now - handed_over >= HAND_OVER_EVERY {
                handed_over = now;
                if let Some(ring) = &*self.ring.borrow() {
                    ring.is_quiet();
                }
            }
        }
    }

    /// Whether some task is ready.
    fn is_needed(&self) -> bool {
        self.bell.has_rung() || self.foreground.has_new() || self.background.has_new()
    }

    fn run_background(&self, context: &mut Context<'_>) {
        let others_wait = self.bell.has_rung() || self.foreground.has_new();
        let began = Instant::now();
        if others_wait && began < self.background_due.get() {
            return;
        }
        self.background.poll(context);
        let now = Instant::now();
        self.background_due.set(now + (now - began) * (BACKGROUND_PART - 1));
    }

    fn slept(&self, time: Duration) {
        self.asleep.set(self.asleep.get() + time);
    }

    /// No task is ready.
    fn rest(&self, executor: &mut Context<'_>) -> Rested {
        let ring = self.ring.borrow();
        let ring = ring.as_ref();
        match ring.filter(|ring| ring.can_wait() && !Elsewhere::is_under_way()) {
            Some(ring) => {
                self.wait_in(ring);
                Rested::GoOn
            }
            None => self.leave(executor, ring),
        }
    }

    /// Waits until something happens.
    fn wait_in(&self, ring: &Ring) {
        if (!self.spin.is_zero() && self.spin_beside(ring)) || !self.bell.sleeps() {
            return;
        }
        let began = Instant::now();
        let due = self.timers.next();
        let left = due.map(|due| due.saturating_duration_since(began));
        ring.wait(left.map_or(SLEEP_MAX, |left| left.min(SLEEP_MAX)));
        self.bell.is_awake();
        self.slept(began.elapsed());
    }

    /// Looks again and again for a while. Returns whether there is something to do.
    fn spin_beside(&self, ring: &Ring) -> bool {
        let began = Instant::now();
        while began.elapsed() < self.spin {
            if self.bell.has_rung() || !ring.is_quiet() || self.timers.next().is_some_and(|due| due <= Instant::now()) {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// glommio does what it has to do, and comes back.
    fn give_turn(&self, executor: &mut Context<'_>) {
        if let Some(ring) = &*self.ring.borrow() {
            ring.wakes_executor();
        }
        self.bell.is_with(executor.waker());
        let mut alarms = [TURN, GUARD].map(Timer::new);
        for alarm in &mut alarms {
            if Pin::new(alarm).poll(executor).is_ready() {
                executor.waker().wake_by_ref();
            }
        }
        self.alarms.replace(Vec::from(alarms));
        self.left.set(Some(Instant::now()));
    }

    /// Has glommio sleep, or go on with what is its own.
    fn leave(&self, executor: &mut Context<'_>, ring: Option<&Ring>) -> Rested {
        if ring.is_some_and(|ring| !ring.wakes_executor()) {
            return Rested::GoOn;
        }
        self.bell.is_with(executor.waker());
        if self.bell.has_rung() {
            self.bell.is_awake();
            return Rested::GoOn;
        }
        let now = Instant::now();
        let latest = now + SLEEP_MAX;
        let due = self.timers.next().map_or(latest, |due| due.min(latest));
        let mut alarm = Timer::new(due.saturating_duration_since(now));
        if Pin::new(&mut alarm).poll(executor).is_ready() {
            self.bell.is_awake();
            return Rested::GoOn;
        }
        self.alarms.replace(vec![alarm]);
        self.left.set(Some(now));
        Rested::Leave
    }
}

/// Runs a core's first task and all that it starts, until it has ended. What is left then ends where it waits.
pub(super) async fn drive<F>(spin: Duration, first: F) -> F::Output
where
    F: Future<Output: 'static> + 'static,
{
    let driver = DRIVER.with(|driver| Rc::clone(driver.get_or_init(|| Rc::new(Driver::new(spin)))));
    let output = Rc::new(Cell::new(None));
    let told = Rc::clone(&output);
    driver.spawn(async move { told.set(Some(first.await)) });
    let ended = poll_fn(|executor| driver.run(executor, &output)).await;
    driver.bell.forget_executor();
    driver.leaves_ring();
    driver.foreground.end();
    driver.background.end();
    ended
}

/// After a panic: the kernel may still have work and memory of the tasks. Better to lose them than to end them half done.
pub(super) fn lose() {
    DRIVER.with(|driver| {
        if let Some(driver) = driver.get() {
            std::mem::forget(Rc::clone(driver));
        }
    });
}

/// Lets other tasks run.
pub(super) async fn yield_now() {
    let mut has_yielded = false;
    let yielding = poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    });
    pin!(yielding).await;
}

#[cfg(test)]
mod tests;
