//! Flush: from the tail buffer to stable storage, in groups.
//!
//! [`Plan`] decides (no I/O, no await), [`Log::flush`] acts. Full writes go out as the tail fills, several at a time, and what is left
//! beside the first of them; one fdatasync at a time covers all writes that had completed when it began; what arrives meanwhile rides on
//! the next. A lone small write makes itself durable (`RWF_DSYNC`), into blocks that were filled with zeros ahead of it. Two writes never
//! cover the same block: a partial last block is waited for, and so are zeros.
//!
//! With a journal a few bytes go there first, and to the segment later ([`journaled`](super::journaled)).
//!
//! A failed write or flush is final. If the disk is full, what is not durable is dropped and the file cut back, so that
//! stale bytes can never be taken for records later; any other failure fences the log and cuts off what is in doubt.

mod plan;

use std::{cell::Cell, io, pin::pin, rc::Rc, sync::Arc};

use futures::{
    FutureExt,
    future::{Either, LocalBoxFuture, select},
    stream::{FuturesUnordered, StreamExt},
};

use self::plan::{Plan, Step};
use super::{DurablePoint, Log, files::remove_segment_files, journaled::Goal};
use crate::{
    disk::{BLOCK_SIZE, Disk, SegmentFile, is_full, is_out_of_files},
    error::LogError,
    segment::{Segment, Stage},
};

/// Largest write in bytes: large enough for the disk's throughput, small enough for several to be under way.
const WRITE_BYTES_MAX: u64 = 512 << 10;

/// A failed operation on a segment.
#[derive(Debug)]
pub(super) struct Failure {
    operation: &'static str,
    pub(super) source: io::Error,
}

impl Failure {
    fn of(operation: &'static str) -> impl FnOnce(io::Error) -> Failure {
        move |source| Failure { operation, source }
    }
}

type Running = LocalBoxFuture<'static, (Step, io::Result<()>)>;

impl<D: Disk> Log<D> {
    /// Drives writes and flushes until everything that was appended, also meanwhile, is durable.
    ///
    /// One call works at a time; another waits for it. Poll it to its end: if it is dropped while operations are under way,
    /// nobody knows what they have done, and the log is fenced. After [`LogError::OutOfFiles`] call it again some time later.
    pub async fn flush(&self) -> Result<(), LogError> {
        let _entered = self.flush_gate.enter().await;
        loop {
            if let Some(fence) = self.fence() {
                return Err(fence);
            }
            if self.journaled.is_some() && !self.needs_flush() {
                return Ok(());
            }
            if self.flush_into_journal().await {
                continue;
            }
            let _entered = self.file_gate.enter().await;
            if let Some(fence) = self.fence() {
                return Err(fence);
            }
            let Some(segment) = self.first_to_write() else {
                return Ok(());
            };
            let goal = self.goal_of(&segment);
            match self.write_segment(&segment, goal).await {
                Err(Stopped::OutOfFiles(error)) => return Err(error),
                Err(Stopped::Failed { failure, abandoned }) => {
                    let error = self.fail(&segment, failure).await;
                    abandoned.finished.set(true);
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
    }

    /// The first segment of which something is not in its file.
    pub(super) fn first_to_write(&self) -> Option<Rc<Segment<D>>> {
        let state = self.state.borrow();
        state
            .segments
            .iter()
            .rev()
            .skip_while(|segment| segment.end() == 0) // Just rolled: the one before may have more to write.
            .take_while(|segment| !segment.is_durable())
            .last()
            .cloned()
    }

    /// Writes a segment to its file as far as the goal.
    pub(super) async fn write_segment(&self, segment: &Rc<Segment<D>>, goal: Goal) -> Result<(), Stopped<'_, D>> {
        let abandoned = self.fence_if_dropped();
        let opened = self.file_for_writing(segment).await;
        let flushed = match opened {
            Ok(file) => self.flush_segment(segment, file, goal).await,
            // Nothing was begun.
            Err(failure) if is_out_of_files(&failure.source) => {
                abandoned.finished.set(true);
                let path = segment.path.clone();
                return Err(Stopped::OutOfFiles(LogError::OutOfFiles { path }));
            }
            Err(failure) => Err(failure),
        };
        if let Err(failure) = flushed {
            return Err(Stopped::Failed { failure, abandoned });
        }
        abandoned.finished.set(true);
        if segment.await_sealing(&self.memory.unsealed) {
            self.state.borrow_mut().has_unsealed = true;
        }
        Ok(())
    }

    async fn flush_segment(&self, segment: &Rc<Segment<D>>, file: D::File, mut goal: Goal) -> Result<(), Failure> {
        let mut plan = Plan::new(self.flush_config(goal), segment.durable.get());
        let mut running: FuturesUnordered<Running> = FuturesUnordered::new();
        loop {
            let appended = self.appended.wait();
            goal.look_at(segment);
            while let Some(step) = self.next_step(&mut plan, segment, goal) {
                running.push(start(step, segment, &file, goal));
            }
            if running.is_empty() {
                return Ok(());
            }
            let Either::Left((completed, _)) = select(running.next(), pin!(appended)).await else {
                continue;
            };
            let Some((step, result)) = completed else { continue };
            if matches!(step, Step::Prepare { .. } | Step::Zero { .. }) {
                segment.preparing.set(false);
            }
            match (step, result) {
                // Space that could not be reserved is found missing by the write that needs it.
                (Step::Prepare { .. }, Err(error)) => {
                    tracing::debug!(path = %segment.path.display(), %error, "cannot reserve space ahead");
                }
                (Step::Prepare { to, .. }, Ok(())) => {
                    segment.prepared.set(to);
                    plan.done(step);
                }
                (Step::Zero { to, .. }, result) => {
                    // Nothing depends on them; what they failed for, the write that comes there finds.
                    if let Err(error) = result {
                        tracing::debug!(path = %segment.path.display(), %error, "cannot write zeros ahead");
                    }
                    segment.zeroed.set(to);
                    plan.done(step);
                }
                (_, Ok(())) => {
                    if plan.done(step) {
                        self.made_durable(segment, plan.durable, goal);
                    }
                }
                (_, Err(source)) => {
                    // Nothing else may be under way when the outcome is settled.
                    while running.next().await.is_some() {}
                    segment.preparing.set(false);
                    let operation = if matches!(step, Step::Sync { .. }) {
                        "flush"
                    } else {
                        "write"
                    };
                    return Err(Failure { operation, source });
                }
            }
        }
    }

    fn next_step(&self, plan: &mut Plan, segment: &Segment<D>, goal: Goal) -> Option<Step> {
        let end = goal.position(segment);
        let is_active = segment.stage.get() == Stage::Active;
        let size_max = self.config().segment_size_bytes;
        let prepare = || plan.next_prepare(end, segment.prepared.get(), size_max, goal.may_wait());
        if let Some(step) = is_active.then(prepare).flatten() {
            return Some(step);
        }
        // Before the next write: a steady stream of small ones would else put it off until much is not covered.
        if let Some(step) = plan.next_sync() {
            return Some(step);
        }
        if plan.issued < end {
            let chunk_end = segment.tail.borrow().chunk_end(plan.issued).unwrap_or(end);
            let full_end = chunk_end.min((plan.issued + 1).next_multiple_of(WRITE_BYTES_MAX));
            if let Some(step) = plan.next_write(end, full_end) {
                return Some(step);
            }
        }
        let zero = || plan.next_zero(segment.zeroed.get(), segment.prepared.get());
        is_active.then(zero).flatten()
    }

    pub(super) fn fence_if_dropped(&self) -> FenceIfDropped<'_, D> {
        FenceIfDropped {
            log: self,
            finished: Cell::new(false),
        }
    }

    async fn file_for_writing(&self, segment: &Segment<D>) -> Result<D::File, Failure> {
        if let Some(file) = segment.file.get() {
            return Ok(file);
        }
        if let Some(size) = self.reuse(segment).await.map_err(Failure::of("open"))? {
            let written_before = size.next_multiple_of(BLOCK_SIZE as u64);
            segment.prepared.set(written_before);
            segment.zeroed.set(written_before);
        }
        let file = self.disk.open(&segment.path, true).await.map_err(Failure::of("open"))?;
        segment.file.put(file.clone(), self.disk.open_files());
        Ok(file)
    }

    /// Everything of the segment below `position` is on stable storage in its file: acknowledge what is not yet.
    fn made_durable(&self, segment: &Segment<D>, position: u64, goal: Goal) {
        assert!(
            position > segment.durable.get() && position <= segment.end(),
            "durable position moves back or too far"
        );
        segment.durable.set(position);
        let is_complete = segment.stage.get() != Stage::Active && segment.is_durable();
        let mut state = self.state.borrow_mut();
        if let Some(reached) = state.pending.settle(segment.base_offset, position) {
            assert!(reached.offset >= state.durable.offset, "the durable offset moves back");
            state.durable = reached;
            state.watermark.made_durable(reached.offset);
        }
        state.filed = state.filed_by(segment, position, goal);
        state.settle_transactions();
        // Not `position`: it may lie within an append, and if that fails the block where the append began is needed again.
        let filed = state.filed.position;
        segment.tail.borrow_mut().made_durable(filed, is_complete);
        state.step_over_segment_end();
        state.changed();
        state.spares.has_room();
        state.check();
        let filed = state.filed.offset;
        drop(state);
        if let Some(journaled) = &self.journaled {
            journaled.filed(filed);
        }
        self.advanced.notify();
    }

    /// Settles the outcome of a failure: drops what is not durable if the disk is full, else fences the log.
    async fn fail(&self, segment: &Rc<Segment<D>>, failure: Failure) -> LogError {
        let path = segment.path.clone();
        // What is dropped may be with others already, who would take what comes in its place for the same.
        let is_alone = !self.state.borrow().watermark.is_held();
        // Nor may recovery bring it back.
        let is_in_doubt = self
            .journaled
            .as_ref()
            .is_some_and(|journaled| journaled.journal.is_in_doubt(journaled.owner));
        if is_full(&failure.source) && is_alone && !is_in_doubt {
            self.is_short().await;
            let error = LogError::DiskFull { path };
            let durable = self.state.borrow().durable;
            return self.cut_back(durable, None, &error).await.err().unwrap_or(error);
        }
        self.fence_after(segment, failure).await
    }

    /// Fences the log after a failure on this segment.
    pub(super) async fn fence_after(&self, segment: &Segment<D>, failure: Failure) -> LogError {
        let error = LogError::Fenced {
            operation: failure.operation,
            path: segment.path.clone(),
            source: Arc::new(failure.source),
        };
        self.fence_with(error.clone());
        self.forget_doubtful(segment).await;
        error
    }

    /// Cuts off what a failed flush has left in doubt: it may read back now and yet be lost with the power, whatever is flushed
    /// later, so the next process must not find it and build on it. What is durable stays.
    async fn forget_doubtful(&self, segment: &Segment<D>) {
        let filed = self.state.borrow().filed;
        if let Some(file) = segment.file.get()
            && filed.segment == segment.base_offset
            && let Err(error) = file.truncate(filed.position).await
        {
            tracing::warn!(path = %segment.path.display(), %error, "cannot cut off what is in doubt after the failure");
        }
    }

    pub(super) fn fence_with(&self, error: LogError) {
        tracing::error!(directory = %self.directory.display(), %error, "the log is fenced");
        self.fail_for_good(error);
    }

    /// Nothing will be appended or become durable any more: tells all who wait.
    pub(super) fn fail_for_good(&self, error: LogError) {
        let mut state = self.state.borrow_mut();
        let durable = state.durable.offset;
        state.pending.fail_after(durable, &error);
        state.watermark.fail(&error);
        state.fence = Some(error);
        drop(state);
        self.advanced.notify();
        self.appended.notify();
    }

    /// Drops everything at and after `end` from memory and disk. `block` is the partial block below `end` when it is no
    /// longer in memory. If that fails the log is fenced: what is still in the files must not come to lie behind later records.
    pub(super) async fn cut_back(
        &self,
        end: DurablePoint,
        block: Option<Vec<u8>>,
        error: &LogError,
    ) -> Result<(), LogError> {
        let kept = {
            let mut state = self.state.borrow_mut();
            let first_removed = state
                .segments
                .partition_point(|segment| segment.base_offset <= end.segment);
            let removed: Vec<_> = state.segments.drain(first_removed..).collect();
            let kept = Rc::clone(state.active());
            for segment in removed {
                segment.cut();
                state.dropped.push(segment.base_offset);
            }
            if end.offset < state.durable.offset || end.position < kept.named.get() {
                kept.cut();
                kept.named.set(end.position);
            }
            if state.filed.offset < end.offset {
                // What is not in its file stays in memory.
                kept.tail.borrow_mut().truncate(end.position);
            } else {
                state.filed = end;
                let start = end.position / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
                let in_memory = || kept.tail_slice(start, end.position).map(|slice| slice.to_vec());
                let block = block.or_else(in_memory).unwrap_or_default();
                assert_eq!(
                    start + block.len() as u64,
                    end.position,
                    "the partial block is in memory"
                );
                kept.tail.borrow_mut().restart(start, &block);
            }
            let filed = state.filed;
            kept.cold.forget(kept.id, end.position);
            // It takes appends from now on, which its index has to be told of.
            let mut index = kept.index.borrow_mut();
            index
                .as_mut()
                .expect("the index of what is cut is in memory")
                .truncate(end.position);
            drop(index);
            let mut extent = kept.extent.get();
            extent.end = end.position;
            extent.next_offset = end.offset;
            kept.extent.set(extent);
            let in_file = if filed.segment == end.segment {
                filed.position
            } else {
                0
            };
            kept.durable.set(kept.durable.get().min(in_file));
            kept.prepared.set(0);
            kept.zeroed.set(0);
            kept.stage.set(Stage::Active);
            kept.waiting.take();
            state.durable = end;
            state.producers.truncate(end.offset);
            state.transactions.truncate(end.offset);
            kept.transactions.truncate(end.offset);
            state.epochs.truncate(end.offset);
            state.pending.fail_after(end.offset, error);
            state.watermark.truncate(end.offset, error);
            state.changed();
            state.check();
            kept
        };
        let cut = self.cut_files(&kept).await;
        if let Err(cause) = &cut {
            self.fence_with(cause.clone());
        }
        cut
    }

    async fn cut_files(&self, kept: &Segment<D>) -> Result<(), LogError> {
        // It takes appends already, and if it is rolled meanwhile it must not be sealed, which cuts it too.
        kept.preparing.set(true);
        let cut = self.cut_file(kept).await;
        kept.preparing.set(false);
        cut
    }

    async fn cut_file(&self, kept: &Segment<D>) -> Result<(), LogError> {
        self.remove_dropped().await?;
        let filed = self.state.borrow().filed;
        if filed.segment != kept.base_offset {
            // The one before is not all in its file: of this one nothing is to be found in a file.
            return match kept.open(&self.disk).await {
                Ok(file) => file.truncate(0).await.map_err(LogError::io("truncate", &kept.path)),
                Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            };
        }
        let file = match self.file_for_writing(kept).await {
            Ok(file) => file,
            // Nothing in it is needed, and perhaps it could not even be made.
            Err(_) if filed.position == 0 => {
                return remove_segment_files(&self.disk, &self.directory, kept.base_offset).await;
            }
            Err(failure) => return Err(LogError::io(failure.operation, &kept.path)(failure.source)),
        };
        file.truncate(filed.position)
            .await
            .map_err(LogError::io("truncate", &kept.path))
    }
}

fn start<D: Disk>(step: Step, segment: &Segment<D>, file: &D::File, goal: Goal) -> Running {
    let blocks = |from, to| segment.tail.borrow().blocks(from, to);
    let block_start = |from| from / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
    let operation = match step {
        Step::Prepare { from, to } => {
            segment.preparing.set(true);
            file.allocate(from, to - from).boxed_local()
        }
        Step::Zero { from, to } => {
            segment.preparing.set(true);
            file.write_zeros(from, to - from).boxed_local()
        }
        Step::Write { from, to } => file.write(blocks(from, to), block_start(from)).boxed_local(),
        Step::WriteDurable { from, to } => file.write_durable(blocks(from, to), block_start(from)).boxed_local(),
        Step::Sync { .. } if goal.may_wait() => file.sync_together().boxed_local(),
        Step::Sync { .. } => file.sync().boxed_local(),
    };
    operation.map(move |result| (step, result)).boxed_local()
}

/// Why a segment was not written as far as it was to be.
pub(super) enum Stopped<'a, D: Disk> {
    /// Nothing was begun.
    OutOfFiles(LogError),
    /// Until its outcome is settled, the log is fenced if nobody does.
    Failed {
        failure: Failure,
        abandoned: FenceIfDropped<'a, D>,
    },
}

pub(super) struct FenceIfDropped<'a, D: Disk> {
    log: &'a Log<D>,
    pub(super) finished: Cell<bool>,
}

impl<D: Disk> Drop for FenceIfDropped<'_, D> {
    fn drop(&mut self) {
        if !self.finished.get() {
            let source = Arc::new(io::Error::new(io::ErrorKind::Interrupted, "the flush was dropped"));
            let path = self.log.directory.clone();
            self.log.fence_with(LogError::Fenced {
                operation: "flush",
                path,
                source,
            });
        }
    }
}
