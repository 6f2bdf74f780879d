//! One ordinary thread that keeps cores awake and notices when one is stuck.
//!
//! glommio 0.9.0 can park an executor that has runnable tasks, when its preemption timer fires before the first of them runs;
//! nothing inside the executor can notice that. So this thread wakes every core that has work, every few milliseconds, with a
//! std waker, and counts how often the core does not answer in time: those stalls are logged, and a metric.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
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

/// What the watchdog and one core share.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Pieces of work under way. Written by the core alone.
    work: AtomicUsize,
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
        self.work
            .store(self.work.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Working {
            activity: Arc::clone(self),
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
    part: Part,
}

impl Watchdog {
    pub(crate) fn start(cores: Vec<Arc<Activity>>, mesh: &Mesh) -> std::io::Result<Watchdog> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let part = Part::start("watchdog", mesh.alarm(), move || {
            watch(&cores, &told);
            Ok(())
        })?;
        Ok(Watchdog { stop, part })
    }

    /// Ends it.
    pub(crate) fn end(self, deadline: Instant) -> Result<(), StopError> {
        self.stop.store(true, Ordering::Relaxed);
        self.part.join(deadline)
    }
}

fn watch(cores: &[Arc<Activity>], stop: &AtomicBool) {
    let mut silent = vec![(0_u64, 0_u32); cores.len()];
    while !stop.load(Ordering::Relaxed) {
        machine::pause_thread(INTERVAL);
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
