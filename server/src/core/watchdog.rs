//! One ordinary thread that keeps cores awake and notices when one is stuck.
//!
//! glommio 0.9.0 can park an executor that has runnable tasks, when its preemption timer fires before the first of them runs;
//! nothing inside the executor can notice that. So this thread wakes every core that has work, every few milliseconds, with a
//! std waker, and counts how often the core does not answer in time: those stalls are logged, and a metric.
//!
//! While no core has work it sleeps, and the first core that gets some wakes it: a broker that nobody uses costs next to nothing.

use std::{
    future::poll_fn,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
    },
    task::Poll,
    thread::{self, Thread},
    time::{Duration, Instant},
};

use futures::task::AtomicWaker;

use crate::{
    core::mesh::Mesh,
    failure::{Part, StopError},
    machine,
};

/// How often a core with work is woken.
const INTERVAL: Duration = Duration::from_millis(5);

/// Silence of a core that has work, in intervals, that counts as a stall.
const STALL_INTERVALS: u32 = 20;

/// It falls asleep after so many intervals in which no core had work, so that little work now and then does not wake it each time.
const IDLE_INTERVALS: u32 = 20;

/// What the watchdog and one core share.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Pieces of work under way. Written by the core alone.
    work: AtomicUsize,
    /// The watchdog is asleep, or about to be.
    is_unwatched: AtomicBool,
    /// The watchdog.
    watcher: OnceLock<Thread>,
    beats: AtomicU64,
    /// Written by the watchdog alone.
    stalls: AtomicU64,
    stalled_ms: AtomicU64,
    waker: AtomicWaker,
}

impl Activity {
    /// Says that the core has work until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Working {
        // One writer: a load and a store are enough.
        let before = self.work.load(Ordering::Relaxed);
        self.work.store(before + 1, Ordering::Relaxed);
        if before == 0 {
            // Either the watchdog sees the work before it falls asleep, or it is seen here that it does.
            fence(Ordering::SeqCst);
            if self.is_unwatched.load(Ordering::Relaxed) {
                self.wake_watcher();
            }
        }
        Working {
            activity: Arc::clone(self),
        }
    }

    #[cold]
    fn wake_watcher(&self) {
        self.is_unwatched.store(false, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
    }

    /// Resolves when the watchdog wakes the core.
    pub(crate) async fn beat(&self) {
        let mut first = true;
        poll_fn(|context| {
            self.waker.register(context.waker());
            if std::mem::take(&mut first) {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether any work is under way.
    pub(crate) fn has_work(&self) -> bool {
        self.work.load(Ordering::Relaxed) > 0
    }

    /// How often the core did not answer in time, and for how long in all.
    pub(crate) fn stalls(&self) -> (u64, Duration) {
        let stalled = Duration::from_millis(self.stalled_ms.load(Ordering::Relaxed));
        (self.stalls.load(Ordering::Relaxed), stalled)
    }

    fn count_stall(&self, stalled_ms: u64) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
        self.stalled_ms.fetch_add(stalled_ms, Ordering::Relaxed);
    }
}

/// Work under way on a core.
#[derive(Debug)]
pub(crate) struct Working {
    activity: Arc<Activity>,
}

impl Drop for Working {
    fn drop(&mut self) {
        let work = &self.activity.work;
        work.store(work.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Watchdog {
    stop: Arc<AtomicBool>,
    cores: Vec<Arc<Activity>>,
    part: Part,
}

impl Watchdog {
    pub(crate) fn start(cores: Vec<Arc<Activity>>, mesh: &Mesh) -> std::io::Result<Watchdog> {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, watched) = (Arc::clone(&stop), cores.clone());
        let part = Part::start("watchdog", mesh.alarm(), move || {
            watch(&watched, &told);
            Ok(())
        })?;
        Ok(Watchdog { stop, cores, part })
    }

    /// Ends it.
    pub(crate) fn end(self, deadline: Instant) -> Result<(), StopError> {
        self.stop.store(true, Ordering::SeqCst);
        // One of the cores is enough.
        self.cores.iter().take(1).for_each(|core| core.wake_watcher());
        self.part.join(deadline)
    }
}

fn watch(cores: &[Arc<Activity>], stop: &AtomicBool) {
    for activity in cores {
        // Nobody else is its watchdog.
        let _ = activity.watcher.set(thread::current());
    }
    let (mut silent, mut idle) = (vec![(0_u64, 0_u32); cores.len()], 0);
    while !stop.load(Ordering::Relaxed) {
        idle += 1;
        if idle > IDLE_INTERVALS {
            sleep_until_there_is_work(cores, stop);
            idle = 0;
        }
        machine::pause_thread(INTERVAL);
        if cores.iter().any(|activity| activity.has_work()) {
            idle = 0;
        }
        for (core, (activity, (beats_before, intervals))) in cores.iter().zip(&mut silent).enumerate() {
            let beats = activity.beats.load(Ordering::Relaxed);
            let has_work = activity.has_work();
            if beats != *beats_before || !has_work {
                if *intervals >= STALL_INTERVALS {
                    let stalled_ms = INTERVAL.as_millis() as u64 * u64::from(*intervals);
                    activity.count_stall(stalled_ms);
                    tracing::warn!(core, stalled_ms, "a core was stalled");
                }
                (*beats_before, *intervals) = (beats, 0);
            } else {
                *intervals += 1;
            }
            if has_work {
                activity.waker.wake();
            }
        }
    }
}

fn sleep_until_there_is_work(cores: &[Arc<Activity>], stop: &AtomicBool) {
    let set_unwatched = |is_unwatched| {
        for activity in cores {
            activity.is_unwatched.store(is_unwatched, Ordering::Relaxed);
        }
    };
    set_unwatched(true);
    fence(Ordering::SeqCst);
    if !cores.iter().any(|activity| activity.has_work()) && !stop.load(Ordering::SeqCst) {
        // It may end for no reason: then there is a look for nothing.
        thread::park();
    }
    set_unwatched(false);
}

#[cfg(test)]
mod tests {
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Beats(AtomicUsize);

    impl Wake for Beats {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn await_until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what} does not come");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn it_sleeps_while_no_core_has_work_and_the_first_that_has_some_wakes_it() {
        let cores: Vec<Arc<Activity>> = vec![Arc::default(), Arc::default()];
        let stop: Arc<AtomicBool> = Arc::default();
        let beats = Arc::new(Beats::default());
        let watching = thread::spawn({
            let (cores, stop) = (cores.clone(), Arc::clone(&stop));
            move || watch(&cores, &stop)
        });
        let sleeps = || cores.iter().all(|core| core.is_unwatched.load(Ordering::Relaxed));
        for _ in 0..2 {
            await_until("sleep", sleeps);
            let before = beats.0.load(Ordering::Relaxed);
            cores[1].waker.register(&Waker::from(Arc::clone(&beats)));
            let working = cores[1].begin();
            await_until("a beat", || beats.0.load(Ordering::Relaxed) > before);
            drop(working);
        }
        await_until("sleep", sleeps);
        stop.store(true, Ordering::SeqCst);
        cores[0].wake_watcher();
        watching.join().unwrap();
    }
}
