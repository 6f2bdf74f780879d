//! What blocks: names and whole files, on glommio's blocking pool. What may wait (checkpoints, indexes, removals, compaction) goes
//! through a lane that leaves threads free for what somebody waits for, such as the file of the next segment.
//!
//! Owned by one core. The lane is first come, first served. Operations that wait for each other's outcome are in order; others may
//! overtake each other.

use std::{
    cell::Cell,
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    rc::Rc,
    sync::Arc,
};

use futures::FutureExt;

use super::{DirEntry, DirectDisk, Directory, Elsewhere, StdDirectory, is_full};
use crate::signal::Signal;

/// Threads that an executor's blocking pool should have for a [`DirectDisk`].
pub const BLOCKING_THREADS: usize = 8;

/// Of those, how many what may wait takes at most.
const BACKGROUND_MAX: usize = BLOCKING_THREADS - 2;

/// What is being done on the pool, and who waits for a turn.
#[derive(Debug, Default)]
pub(super) struct Blocking {
    background: Lane,
    /// Operations under way that nobody waits for any more.
    abandoned: Cell<usize>,
    settled: Signal,
}

/// How soon something that blocks has its turn.
#[derive(Debug, Clone, Copy)]
pub(super) enum Haste {
    /// Somebody waits for it: the file of the next segment, what a consumer reads.
    Urgent,
    /// It may wait.
    Background,
}

impl DirectDisk {
    /// Runs an operation on names where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        haste: Haste,
        operation: impl Fn(&StdDirectory) -> Option<io::Result<T>> + Clone + Send + 'static,
    ) -> io::Result<T> {
        self.files
            .with_descriptor(async || {
                let (names, operation) = (self.names.clone(), operation.clone());
                let done = on_pool(move || operation(&names));
                let done = self.off_core(haste, done).await;
                done.expect("a StdDirectory's futures are ready at once")
            })
            .await
    }

    /// Makes the names in the path's directory durable.
    pub(super) async fn sync_parent(&self, path: &Path) -> io::Result<()> {
        let path = path.to_path_buf();
        let sync = move |_: &StdDirectory| Some(StdDirectory::sync_parent(&path));
        self.blocking(Haste::Urgent, sync).await
    }

    /// Waits for work on the pool, which begins when its turn has come. It is done to its end in any case; if nobody waits for it
    /// any more, whatever comes later does, so that it finds the names as it would behind a pool of one thread.
    pub(super) async fn off_core<T: 'static>(&self, haste: Haste, work: impl Future<Output = T> + 'static) -> T {
        self.blocking.settled.until(|| self.blocking.abandoned.get() == 0).await;
        let waiting = Waiting {
            blocking: Rc::clone(&self.blocking),
            state: Rc::default(),
        };
        let (blocking, state) = (Rc::clone(&self.blocking), Rc::clone(&waiting.state));
        let elsewhere = Elsewhere::begin();
        let work = glommio::spawn_local(async move {
            let _elsewhere = elsewhere;
            let turn = match haste {
                Haste::Urgent => None,
                Haste::Background => Some(blocking.background.enter().await),
            };
            let done = work.await;
            drop(turn);
            if state.replace(WorkState::Done) == WorkState::Abandoned {
                blocking.abandoned.set(blocking.abandoned.get() - 1);
                blocking.settled.notify();
            }
            done
        });
        let done = work.detach().await;
        drop(waiting);
        done.expect("it is never cancelled")
    }
}

/// Does something on a thread of the pool. A panic there goes on here: it would end that thread alone, and who waits would do so for
/// ever.
async fn on_pool<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = glommio::executor().spawn_blocking(move || catch_unwind(AssertUnwindSafe(work)));
    done.await.unwrap_or_else(|panic| resume_unwind(panic))
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum WorkState {
    #[default]
    UnderWay,
    Abandoned,
    Done,
}

/// Somebody waits for work on the pool.
struct Waiting {
    blocking: Rc<Blocking>,
    state: Rc<Cell<WorkState>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.state.get() == WorkState::UnderWay {
            self.state.set(WorkState::Abandoned);
            self.blocking.abandoned.set(self.blocking.abandoned.get() + 1);
        }
    }
}

/// Lets in so many at a time.
#[derive(Debug, Default)]
struct Lane {
    /// Those who have come.
    come: Cell<u64>,
    /// Those who have left, or have given up waiting.
    gone: Cell<u64>,
    left: Signal,
}

impl Lane {
    /// Waits for a turn, which ends when the guard is dropped.
    async fn enter(&self) -> Turn<'_> {
        let number = self.come.replace(self.come.get() + 1);
        let turn = Turn { lane: self };
        self.left
            .until(|| number < self.gone.get() + BACKGROUND_MAX as u64)
            .await;
        turn
    }
}

#[derive(Debug)]
struct Turn<'a> {
    lane: &'a Lane,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.lane.gone.set(self.lane.gone.get() + 1);
        self.lane.left.notify();
    }
}

impl Directory for DirectDisk {
    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_path_buf();
        let create = move |names: &StdDirectory| names.create_dir(&path).now_or_never();
        self.blocking(Haste::Background, create).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = path.to_path_buf();
        let list = move |names: &StdDirectory| names.list(&path).now_or_never();
        self.blocking(Haste::Urgent, list).await
    }

    async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = path.to_path_buf();
        let read = move |names: &StdDirectory| names.read_file(&path).now_or_never();
        self.blocking(Haste::Urgent, read).await
    }

    /// Its flushes go through the ring, where many are under way at once: the file system then makes many files durable with one
    /// commit of its journal, as when a thousand partitions are closed.
    async fn replace_file(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        let (path, content) = (path.to_path_buf(), Arc::new(content));
        let begin = move |names: &StdDirectory| Some(names.begin_replacing(&path, &content));
        let (file, replacement) = self.blocking(Haste::Background, begin).await?;
        let flushed = self.flush_all(file).await;
        let finish = on_pool(move || replacement.finish(flushed));
        let directory = self.off_core(Haste::Background, finish).await?;
        self.flush_all(directory).await
    }

    async fn replace_file_to_make_room(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        match self.replace_file(path, content.clone()).await {
            Err(error) if is_full(&error) => {}
            replaced => return replaced,
        }
        let (path, content) = (path.to_path_buf(), Arc::new(content));
        let replace = move |names: &StdDirectory| {
            let replaced = names.replace_file_to_make_room(&path, content.to_vec());
            replaced.now_or_never()
        };
        self.blocking(Haste::Background, replace).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        let rename = move |names: &StdDirectory| names.rename(&from, &to).now_or_never();
        self.blocking(Haste::Urgent, rename).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = path.to_path_buf();
        let remove = move |names: &StdDirectory| names.remove_file(&path).now_or_never();
        self.blocking(Haste::Background, remove).await
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_path_buf();
        let remove = move |names: &StdDirectory| names.remove_dir_all(&path).now_or_never();
        self.blocking(Haste::Background, remove).await
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, pin::pin};

    use futures::future::{Either, FutureExt, select};

    use super::*;

    #[test]
    fn so_many_have_their_turn_at_once_and_the_others_in_the_order_in_which_they_came() {
        let lane = Lane::default();
        let mut waiting: VecDeque<_> = (0..3 * BACKGROUND_MAX).map(|_| Box::pin(lane.enter())).collect();
        let mut turns: VecDeque<_> = VecDeque::new();
        // They come when they are first polled.
        let mut admitted: Vec<_> = waiting.iter_mut().map(|enter| enter.as_mut().now_or_never()).collect();
        assert!(admitted[..BACKGROUND_MAX].iter().all(Option::is_some));
        assert!(admitted[BACKGROUND_MAX..].iter().all(Option::is_none));
        turns.extend(admitted.drain(..).flatten());
        waiting.drain(..BACKGROUND_MAX);
        // One that gives up lets nobody else in before their time.
        waiting.pop_front();
        assert!(waiting.iter_mut().all(|enter| enter.as_mut().now_or_never().is_none()));
        while let Some(mut next) = waiting.pop_front() {
            turns.pop_front();
            turns.push_back(next.as_mut().now_or_never().expect("a turn has ended"));
            assert!(waiting.iter_mut().all(|enter| enter.as_mut().now_or_never().is_none()));
        }
    }

    #[test]
    fn a_panic_on_a_thread_of_the_pool_is_one_of_the_core_that_waits_for_it() {
        let executor = glommio::LocalExecutorBuilder::default().make().unwrap();
        let said = executor.run(async {
            let waits = AssertUnwindSafe(on_pool(|| -> () { panic!("a bug") })).catch_unwind();
            let limit = glommio::timer::sleep(std::time::Duration::from_secs(30));
            match select(pin!(waits), pin!(limit)).await {
                Either::Left((ended, _)) => ended.unwrap_err().downcast_ref::<&str>().copied(),
                Either::Right(_) => Some("nothing, for ever"),
            }
        });
        assert_eq!(said, Some("a bug"));
    }
}
