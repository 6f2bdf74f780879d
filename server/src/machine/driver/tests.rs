//! Whoever wakes a task of a core, and wherever the core sleeps meanwhile, it goes on.

use std::{cell::Cell, rc::Rc, sync::mpsc, thread, time::Duration};

use futures::{FutureExt as _, channel::oneshot, future::join_all};
use headwater_engine::disk::StdDirectory;

use super::Driver;
use crate::machine::{executor::run_core, open_disk, tasks};

/// Each wake-up that is lost costs a second, the longest that a core sleeps: 40 of them are more than this.
const LIMIT: Duration = Duration::from_secs(20);

const TIMES: u32 = 40;

/// Runs this on a core of its own.
fn on_core<F>(run: impl FnOnce() -> F + Send + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let (ended, is_ended) = mpsc::channel();
    let core = thread::spawn(move || {
        let ran = run_core(None, Duration::ZERO, || run().map(Ok));
        let _ = ended.send(ran);
    });
    let ended = is_ended.recv_timeout(LIMIT).expect("it takes for ever");
    ended.unwrap();
    core.join().unwrap();
}

/// Has another thread answer, which takes it a while.
async fn ask_thread() {
    let (reply, replied) = oneshot::channel();
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(2));
        reply.send(()).unwrap();
    });
    replied.await.unwrap();
    thread.join().unwrap();
}

#[test]
fn a_core_that_sleeps_in_its_ring_is_woken_by_other_threads_deadlines_and_the_blocking_pool() {
    on_core(async || {
        let disk = open_disk(StdDirectory::default()).unwrap();
        for _ in 0..TIMES {
            ask_thread().await;
            tasks::sleep(Duration::from_millis(1)).await;
            tasks::blocking(|| thread::sleep(Duration::from_millis(1))).await;
        }
        // The pool is at work: glommio has the core, and others are woken nonetheless.
        let pool = tasks::blocking(|| thread::sleep(Duration::from_millis(300)));
        let others = async {
            for _ in 0..TIMES {
                ask_thread().await;
                tasks::sleep(Duration::from_millis(1)).await;
            }
        };
        futures::join!(pool, others);
        crate::machine::close_disk(&disk).await;
        tasks::sleep(Duration::from_millis(1)).await;
    });
}

#[test]
fn what_is_in_the_background_has_turns_beside_what_is_always_ready_and_daemons_end_where_they_wait() {
    on_core(async || {
        let _disk = open_disk(StdDirectory::default()).unwrap();
        let daemons = tasks::Daemons::default();
        let (held, turns) = (Rc::new(()), Rc::<Cell<u32>>::default());
        let (holds, counts) = (Rc::clone(&held), Rc::clone(&turns));
        daemons.spawn_background(async move {
            loop {
                assert!(Rc::strong_count(&holds) > 1);
                counts.set(counts.get() + 1);
                tasks::yield_now().await;
            }
        });
        let holds = Rc::clone(&held);
        daemons.spawn(async move {
            tasks::sleep(Duration::MAX).await;
            drop(holds);
        });
        while turns.get() < TIMES {
            tasks::yield_now().await;
        }
        daemons.end().await;
        assert_eq!(Rc::strong_count(&held), 1, "they are gone with what they held");
        let (told, is_told) = oneshot::channel();
        tasks::spawn(async move { told.send(()).unwrap() });
        join_all([is_told]).await;
        assert!(Driver::with(Driver::busy) > Duration::ZERO);
    });
}
