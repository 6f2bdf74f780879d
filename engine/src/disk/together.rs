//! One flush for many files. A flush of each commits the file system's journal once for each; what partitions write behind the core's
//! journal is made durable by the hundred, so those who come while a flush is under way share the next.
//!
//! A round is `syncfs(2)`, which commits what the file system has to note of all files, and then an fdatasync of one of them, which has
//! the device write its cache even where nothing was to be noted. Together they are as good as an fdatasync of each on ext4 (`ext4_sync_fs`
//! commits the journal and flushes the device) and on XFS (`xfs_fs_sync_fs` forces the log, `xfs_file_fsync` flushes the
//! device); elsewhere, as on FUSE where `syncfs` need not reach the server, and when a `syncfs` fails, which may be for a
//! file of somebody else, each file is flushed by itself.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
};

use rustix::fs::StatFs;

use crate::signal::Signal;

/// `f_type` of the file systems on which a round is as good as a flush of each file: statfs(2).
const EXT4: u64 = 0xEF53;
const XFS: u64 = 0x5846_5342;

/// Whether rounds may be used on this file system.
pub(super) fn is_known(file_system: &StatFs) -> bool {
    matches!(file_system.f_type as u64, EXT4 | XFS)
}

/// What a round makes durable.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Covers {
    pub(super) files: usize,
    pub(super) bytes: u64,
}

/// What has become of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Durable,
    /// Not for all in one: each is to flush its own file, which tells of what concerns that one.
    Apart,
    /// The device was not flushed, which nobody can make good: the system's number of the error, if it has one.
    Failed(Option<i32>),
}

impl Outcome {
    /// Of the flush of one file.
    pub(super) fn of(flushed: &io::Result<()>) -> Outcome {
        match flushed {
            Ok(()) => Outcome::Durable,
            Err(error) => Outcome::Failed(error.raw_os_error()),
        }
    }
}

/// The rounds on one file system.
#[derive(Debug, Default)]
pub(super) struct Together {
    /// For those who come now.
    next: RefCell<Rc<Round>>,
    is_busy: Cell<bool>,
    idle: Signal,
}

#[derive(Debug, Default)]
struct Round {
    covers: Cell<Covers>,
    /// Once it is known.
    outcome: Cell<Option<Outcome>>,
    settled: Signal,
}

impl Together {
    /// Makes so many bytes that the caller has written to a file durable, with what others have who come before it begins. `flush` is run by
    /// the first of them.
    pub(super) async fn flush(&self, bytes: u64, flush: impl AsyncFnOnce(Covers) -> Outcome) -> Outcome {
        let round = Rc::clone(&self.next.borrow());
        let others = round.covers.get();
        round.covers.set(Covers {
            files: others.files + 1,
            bytes: others.bytes + bytes,
        });
        if others.files > 0 {
            round.settled.until(|| round.outcome.get().is_some()).await;
            return round.outcome.get().unwrap_or(Outcome::Apart);
        }
        let leading = Leading {
            together: self,
            round: &round,
            has_begun: Cell::new(false),
        };
        self.idle.until(|| !self.is_busy.get()).await;
        leading.begin();
        let outcome = flush(round.covers.get()).await;
        round.outcome.set(Some(outcome));
        outcome
    }
}

/// Whoever came first. When it is gone the others know what has become of the round.
struct Leading<'a> {
    together: &'a Together,
    round: &'a Rc<Round>,
    has_begun: Cell<bool>,
}

impl Leading<'_> {
    /// Who comes from here on may have written what this flush does not cover.
    fn begin(&self) {
        self.together.is_busy.set(true);
        self.together.next.take();
        self.has_begun.set(true);
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        if self.has_begun.get() {
            self.together.is_busy.set(false);
        } else {
            self.together.next.take();
        }
        if self.round.outcome.get().is_none() {
            self.round.outcome.set(Some(Outcome::Apart));
        }
        self.round.settled.notify();
        self.together.idle.notify();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures::{FutureExt, future::pending};

    use super::*;

    type Flushing<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

    async fn never(_: Covers) -> Outcome {
        pending().await
    }

    /// One that has joined and waits: for what is under way, or for the one before.
    fn waiting<'a>(together: &'a Together, flush: impl AsyncFnOnce(Covers) -> Outcome + 'a) -> Flushing<'a> {
        let mut flushing: Flushing<'a> = Box::pin(together.flush(7, flush));
        assert_eq!(flushing.as_mut().now_or_never(), None);
        flushing
    }

    #[test]
    fn who_comes_while_a_flush_is_under_way_shares_the_next() {
        for outcome in [Outcome::Durable, Outcome::Apart, Outcome::Failed(Some(5))] {
            let together = Together::default();
            let first = waiting(&together, never);
            let told = Cell::new(Covers::default());
            let second = waiting(&together, async |covers| {
                told.set(covers);
                outcome
            });
            let third = waiting(&together, never);
            drop(first);
            assert_eq!(second.now_or_never(), Some(outcome));
            assert_eq!(third.now_or_never(), Some(outcome));
            assert_eq!(told.get(), Covers { files: 2, bytes: 14 });
            let alone = together.flush(1, async |covers| {
                assert_eq!(covers.files, 1);
                Outcome::Durable
            });
            assert_eq!(alone.now_or_never(), Some(Outcome::Durable));
        }
    }

    #[test]
    fn who_comes_after_a_flush_has_begun_is_not_covered_by_it() {
        let together = Together::default();
        let first = waiting(&together, never);
        let second = waiting(&together, never);
        drop(first);
        let mut second = second;
        assert_eq!(second.as_mut().now_or_never(), None, "it flushes now");
        let late = waiting(&together, async |_| Outcome::Durable);
        drop(second);
        assert_eq!(late.now_or_never(), Some(Outcome::Durable));
    }

    #[test]
    fn nobody_waits_for_one_who_was_to_flush_and_is_gone() {
        let together = Together::default();
        let under_way = waiting(&together, never);
        let (leading, member) = (waiting(&together, never), waiting(&together, never));
        drop(leading);
        assert_eq!(member.now_or_never(), Some(Outcome::Apart), "it had not begun");
        drop(under_way);
        assert_eq!(
            together.flush(1, async |_| Outcome::Durable).now_or_never(),
            Some(Outcome::Durable)
        );
    }
}
