//! Everything off the path of records: rolling by age, sealing, retention, checkpoints, closing.
//!
//! The owner calls [`Log::maintain`] now and then from a background queue. One change of the structure runs at a time; each
//! is ordered so that a crash between any two steps loses nothing: first what a checkpoint promises is made true, then the
//! checkpoint is written, then what it no longer needs is removed.

use std::{io::ErrorKind, rc::Rc, time::Duration};

use futures::stream::{self, StreamExt};
use headwater_protocol::id::Offset;

use super::{
    DurablePoint, Log,
    files::{remove_segment_files, write_index},
};
use crate::{
    checkpoint::{self, Checkpoint, Point, SegmentFacts},
    disk::{BLOCK_SIZE, Disk, SegmentFile},
    error::LogError,
    index::Index,
    moment::Moment,
    segment::{Segment, Stage},
};

/// Time without an append after which a partition's tail buffer shrinks to its last block.
const IDLE: Duration = Duration::from_secs(10);

/// Segments that are sealed at the same time: their flushes share a commit of the file system's journal.
const SEALED_AT_ONCE: usize = 4;

/// What a checkpoint is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// So that there is less to recover.
    Routine,
    /// So that files can be removed: it may use the space that is kept for a full disk.
    MakesRoom,
}

impl<D: Disk> Log<D> {
    /// [`retain`](Self::retain) and then [`checkpoint`](Self::checkpoint).
    pub async fn maintain(&self, now: impl Into<Moment>) -> Result<(), LogError> {
        let now = now.into();
        self.retain(now).await?;
        self.checkpoint(now).await
    }

    /// Rolls the active segment if it is old, and deletes what retention lets go.
    pub async fn retain(&self, now: impl Into<Moment>) -> Result<(), LogError> {
        let now = now.into();
        let _entered = self.upkeep_gate.enter().await;
        if self.is_retired() {
            return Ok(());
        }
        self.finish_swap().await?;
        self.look_at_clock(now);
        self.roll_by_age(now);
        self.file_rolled().await;
        self.seal().await?;
        self.drop_idle_spares(now).await?;
        let start = self.retained_start(now);
        if start == self.offsets().start && self.first_below_start().is_none() {
            return Ok(());
        }
        self.advance_start(start).await
    }

    /// Writes the checkpoint if something changed, and frees memory that an idle partition does not need.
    pub async fn checkpoint(&self, now: impl Into<Moment>) -> Result<(), LogError> {
        let now = now.into();
        let _entered = self.upkeep_gate.enter().await;
        if self.is_retired() {
            return Ok(());
        }
        self.finish_swap().await?;
        if self.state.borrow().has_unfiled() && self.is_idle(now) {
            self.file_if_possible().await;
        }
        self.seal().await?;
        let producers = self.config().producers;
        {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let is_open = |id| state.transactions.first_of(id).is_some();
            state.producers.expire(now, producers, is_open);
        }
        self.write_checkpoint(Purpose::Routine).await?;
        self.store_indexes().await;
        self.free_idle_memory(now);
        Ok(())
    }

    /// Makes everything durable and leaves nothing to recover of what was appended before. What is appended meanwhile becomes durable
    /// later, if somebody flushes it, and opening the log finds it.
    pub async fn close(&self) -> Result<(), LogError> {
        self.halt_compaction().await;
        self.flush().await?;
        if self.state.borrow().has_unfiled() {
            self.file().await?;
        }
        // Held to the end: what a write puts behind the place where the file is cut would be cut off with it, and acknowledged.
        let _flush = self.flush_gate.enter().await;
        let _entered = self.upkeep_gate.enter().await;
        let _file = self.file_gate.enter().await;
        self.finish_swap().await?;
        self.seal().await?;
        let (active, filed) = {
            let state = self.state.borrow();
            (Rc::clone(state.active()), state.filed)
        };
        if active.base_offset == filed.segment && active.prepared.get() > filed.position {
            let file = active.open(&self.disk).await?;
            file.truncate(filed.position)
                .await
                .map_err(LogError::io("truncate", &active.path))?;
            active.prepared.set(0);
            active.zeroed.set(0);
        }
        self.write_checkpoint(Purpose::Routine).await
    }

    /// Gives the log up for good, because its topic is being deleted: waits for what is under way, and touches no file any
    /// more. When it has returned, another log may be made in a directory of the same name. Who waits for records is woken.
    pub async fn retire(&self) {
        self.halt_compaction().await;
        let _flush = self.flush_gate.enter().await;
        let _entered = self.upkeep_gate.enter().await;
        let _file = self.file_gate.enter().await;
        for segment in &self.state.borrow().segments {
            segment.retire();
        }
        if let (Err(error), Some(journaled)) = (self.leave_journal().await, &self.journaled) {
            tracing::warn!(directory = %self.directory.display(), %error, "the journal does not forget a log that was given up yet");
            journaled.journal.doubt(journaled.owner);
        }
        let directory = self.directory.clone();
        self.fail_for_good(LogError::Retired { directory });
    }

    /// Lets another log be opened in the place of this one, which a failure has fenced: cuts off what that has left in doubt,
    /// writes a checkpoint of what is durable, so that opening cannot doubt any of it, and touches no file any more. Who waits
    /// for records, or asks this one later, is told to ask again. After an error nothing has changed, and it may be tried again.
    ///
    /// No operation of a [`flush`](Self::flush) may be under way: the flush that failed was polled to its end.
    pub async fn give_way(&self) -> Result<(), LogError> {
        self.halt_compaction().await;
        let _flush = self.flush_gate.enter().await;
        let _entered = self.upkeep_gate.enter().await;
        let _file = self.file_gate.enter().await;
        if let Some(gone) = self.fence().filter(|_| self.is_retired()) {
            return Err(gone);
        }
        self.finish_swap().await?;
        self.set_aside_unfiled().await?;
        let filed = self.state.borrow().filed;
        let last = Rc::clone(self.state.borrow().segment_at(filed));
        match last.open(&self.disk).await {
            Ok(file) => file
                .truncate(filed.position)
                .await
                .map_err(LogError::io("truncate", &last.path))?,
            // It was never made.
            Err(LogError::Io { source, .. }) if filed.position == 0 && source.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.remove_dropped().await?;
        self.state.borrow_mut().changed();
        self.write_checkpoint_at(filed, Purpose::MakesRoom).await?;
        self.leave_journal().await?;
        for segment in &self.state.borrow().segments {
            segment.retire();
            segment.replaced.set(true);
        }
        let directory = self.directory.clone();
        self.fail_for_good(LogError::Replaced { directory });
        Ok(())
    }

    /// Whether another log may have its names.
    fn is_retired(&self) -> bool {
        matches!(self.fence(), Some(LogError::Retired { .. } | LogError::Replaced { .. }))
    }

    /// Moves the log start offset up to `before`, which is at most the high watermark and the durable offset, and deletes the segments wholly below
    /// it. Durable when it returns the log start offset in force.
    pub async fn delete_records(&self, before: Offset) -> Result<Offset, LogError> {
        let _entered = self.upkeep_gate.enter().await;
        if let Some(retired) = self.fence().filter(|_| self.is_retired()) {
            return Err(retired);
        }
        self.finish_swap().await?;
        self.seal().await?;
        let offsets = self.offsets();
        let before = before.min(offsets.durable).min(offsets.high_watermark);
        if before > self.state.borrow().filed.offset {
            // A checkpoint says nothing of what is not in the segments.
            self.file().await?;
        }
        self.advance_start(before).await?;
        Ok(self.offsets().start)
    }

    /// What the next process will find must be right by the clock as it is now: it may have been put right since an append.
    fn look_at_clock(&self, now: Moment) {
        let mut state = self.state.borrow_mut();
        let is_retimed = |segment: &Rc<Segment<D>>| {
            if segment.end() == 0 {
                return false;
            }
            let before = segment.extent.get().times.appended.clock();
            segment.age(now);
            let after = segment.extent.get().times.appended.clock();
            after != before
        };
        let retimed = state.segments.iter().filter(|segment| is_retimed(segment)).count();
        if retimed > 0 {
            state.changed();
        }
    }

    fn roll_by_age(&self, now: Moment) {
        let mut state = self.state.borrow_mut();
        let active = Rc::clone(state.active());
        if active.end() == 0 || state.fence.is_some() {
            return;
        }
        let config = self.config();
        let retention_ms = config.retention_ms.unwrap_or(u64::MAX);
        // Only what is sealed is compacted.
        let lag_ms_max = config.compaction.and_then(|compaction| compaction.lag_ms_max);
        let age_ms_max = config
            .segment_age_ms
            .min(retention_ms)
            .min(lag_ms_max.unwrap_or(u64::MAX));
        // How old a segment was is forgotten over a restart; its age counts from the first look at it.
        let began = active.began.get().unwrap_or(now.monotonic);
        active.began.set(Some(began));
        let is_old = now.monotonic.saturating_sub(began) >= Duration::from_millis(age_ms_max);
        let is_expired = active.age(now) > Duration::from_millis(retention_ms);
        if is_old || is_expired {
            state.roll(&self.directory, &self.memory, self.config().index_interval_bytes);
        }
    }

    /// Whether segments have come to wait for being sealed since this was asked last.
    pub fn take_unsealed(&self) -> bool {
        std::mem::take(&mut self.state.borrow_mut().has_unsealed)
    }

    /// Seals the segments that wait for it, which retention and checkpoints do too: when many are rolled, sooner.
    pub async fn seal_rolled(&self) -> Result<(), LogError> {
        let _entered = self.upkeep_gate.enter().await;
        if self.is_retired() {
            return Ok(());
        }
        self.seal().await
    }

    /// Cuts rolled segments to their size and writes their indexes, several at a time.
    pub(super) async fn seal(&self) -> Result<(), LogError> {
        let rolled: Vec<_> = {
            let state = self.state.borrow();
            let is_due = |segment: &&Rc<Segment<D>>| segment.stage.get() == Stage::Rolled && segment.is_at_rest();
            state.segments.iter().filter(is_due).cloned().collect()
        };
        let sealed = rolled.into_iter().map(|segment| self.seal_one(segment));
        let mut sealed = stream::iter(sealed).buffered(SEALED_AT_ONCE);
        let mut result = Ok(());
        while let Some(one) = sealed.next().await {
            result = result.and(one);
        }
        result
    }

    async fn seal_one(&self, segment: Rc<Segment<D>>) -> Result<(), LogError> {
        let _waiting = segment.waiting.take();
        let file = segment.open(&self.disk).await?;
        let cut = file.truncate(segment.end()).await;
        cut.map_err(LogError::io("truncate", &segment.path))?;
        self.store_index(&segment, segment.end()).await;
        self.store_aborted(&segment, Offset::MAX).await;
        segment.stage.set(Stage::Sealed);
        // Consumers open it again when they need it: ten thousand partitions must not hold ten thousand files.
        segment.file.close();
        self.state.borrow_mut().changed();
        Ok(())
    }

    /// Writes the indexes of sealed segments that could not be written before, or not be read.
    async fn store_indexes(&self) {
        let unstored: Vec<_> = {
            let state = self.state.borrow();
            let is_unstored = |segment: &&Rc<Segment<D>>| {
                let is_due = (!segment.index_stored.get() && segment.index.borrow().is_some())
                    || segment.transactions.needs_storing();
                is_due && segment.stage.get() == Stage::Sealed && !segment.retired.get()
            };
            state.segments.iter().filter(is_unstored).cloned().collect()
        };
        for segment in unstored {
            if !segment.index_stored.get() {
                self.store_index(&segment, segment.end()).await;
            }
            self.store_aborted(&segment, Offset::MAX).await;
        }
    }

    /// Writes the index of a segment as of `size`, if it is in memory. That it cannot be written stops nothing: it is made of the
    /// segment when it is needed.
    pub(super) async fn store_index(&self, segment: &Segment<D>, size: u64) {
        let encode = |index: &Index| [index.encode_offsets(size), index.encode_times(size)];
        let Some(files) = segment.index.borrow().as_ref().map(encode) else {
            return;
        };
        let written = write_index(&self.disk, &self.directory, segment.base_offset, files).await;
        segment.index_stored.set(written.is_ok());
        let Err(error) = written else { return };
        self.memory.indexes.one_not_written();
        if let Some(unsaid) = self.memory.indexes.said_not_written.may_speak(self.disk.now()) {
            tracing::warn!(%error, unsaid, "an index is not written; it is tried again");
        }
        if error.is_disk_full() {
            self.is_short().await;
        }
    }

    /// Where the log should begin by the rules of retention. Whole segments only.
    fn retained_start(&self, now: Moment) -> Offset {
        let state = self.state.borrow();
        let config = self.config();
        let retention = config.retention_ms.map(Duration::from_millis);
        let mut start = state.start;
        let mut total: u64 = state.segments.iter().map(|segment| segment.end()).sum();
        for segment in state.segments.iter().take_while(|segment| state.is_final(segment)) {
            let extent = segment.extent.get();
            let is_expired = retention.is_some_and(|retention| segment.age(now) > retention);
            let is_excess = config.retention_bytes.is_some_and(|bytes| total - extent.end >= bytes);
            if !is_expired && !is_excess {
                break;
            }
            total -= extent.end;
            start = start.max(extent.next_offset);
        }
        start
    }

    /// Moves the start, makes that durable, then removes the segments wholly below it. What fails is left for the next call.
    async fn advance_start(&self, start: Offset) -> Result<(), LogError> {
        {
            let mut state = self.state.borrow_mut();
            if start > state.start {
                state.start = start;
                let end = state.end();
                state.epochs.begin_at(start, end);
                state.changed();
                state.check();
            }
        }
        if self.first_below_start().is_none() {
            return self.write_checkpoint(Purpose::Routine).await;
        }
        self.write_checkpoint(Purpose::MakesRoom).await?;
        while let Some(segment) = self.first_below_start() {
            // Held here, and in the state.
            if !self.recycle(&segment).await? {
                self.remove_files(&segment, 2).await?;
            }
            self.state.borrow_mut().segments.pop_front();
        }
        Ok(())
    }

    /// The oldest segment, if the log start offset has left it behind.
    fn first_below_start(&self) -> Option<Rc<Segment<D>>> {
        let state = self.state.borrow();
        let is_below =
            |segment: &&Rc<Segment<D>>| segment.is_at_rest() && segment.extent.get().next_offset <= state.start;
        state.segments.front().filter(is_below).cloned()
    }

    /// Removes a segment's files. Fetches that have found something in it before, which are those who hold it besides the
    /// `holders` known here, go on reading its open file.
    pub(super) async fn remove_files(&self, segment: &Rc<Segment<D>>, holders: usize) -> Result<(), LogError> {
        if Rc::strong_count(segment) > holders {
            // One that cannot be opened (any more) cannot be read either; a fetch says what it finds.
            if let Err(error) = segment.open(&self.disk).await {
                tracing::debug!(%error, "a segment is removed while it is wanted");
            }
        }
        segment.retire();
        remove_segment_files(&self.disk, &self.directory, segment.base_offset).await
    }

    pub(super) async fn write_checkpoint(&self, purpose: Purpose) -> Result<(), LogError> {
        let filed = self.state.borrow().filed;
        self.write_checkpoint_at(filed, purpose).await
    }

    pub(super) async fn write_checkpoint_at(&self, end: DurablePoint, purpose: Purpose) -> Result<(), LogError> {
        // What changes from here on may be in it or not, and is for the next.
        let changes = self.state.borrow().changes;
        if changes == self.state.borrow().saved_changes {
            return Ok(());
        }
        let segment = Rc::clone(self.state.borrow().segment_of(end.offset));
        if segment.base_offset == end.segment && segment.end() > 0 && segment.stage.get() != Stage::Sealed {
            // Recovery can do without: it then scans the segment from its start.
            self.store_index(&segment, end.position).await;
            self.store_aborted(&segment, end.offset).await;
        }
        let (rest, producers) = {
            let state = self.state.borrow();
            (checkpoint_of(&state, end), state.producers.snapshot())
        };
        let complete = move || {
            let producers = producers.as_of(end.offset);
            Checkpoint { producers, ..rest }
        };
        self.put_checkpoint(complete, purpose).await?;
        self.state.borrow_mut().saved_changes = changes;
        Ok(())
    }

    /// Writes a checkpoint. It is made, and put into words, by another thread: of a thousand producers it is 8 MB of text, which would
    /// keep the core for 30 ms.
    pub(super) async fn put_checkpoint(
        &self,
        make: impl FnOnce() -> Checkpoint + Send + 'static,
        purpose: Purpose,
    ) -> Result<(), LogError> {
        let content = self.disk.aside(move || make().encode()).await;
        let path = self.directory.join(checkpoint::FILE_NAME);
        let written = match content {
            Ok(content) if purpose == Purpose::MakesRoom => self.disk.replace_file_to_make_room(&path, content).await,
            Ok(content) => self.disk.replace_file(&path, content).await,
            Err(error) => Err(error.into()),
        };
        written.map_err(LogError::io("write", &path))
    }

    /// Nothing was appended for a while.
    fn is_idle(&self, now: Moment) -> bool {
        let last = self.state.borrow().last_append;
        last.is_none_or(|last| now.monotonic.saturating_sub(last) >= IDLE)
    }

    /// Only what is in its file can be sealed.
    async fn file_rolled(&self) {
        let is_rolled = {
            let state = self.state.borrow();
            state.has_unfiled() && state.segment_at(state.filed).stage.get() != Stage::Active
        };
        if is_rolled {
            self.file_if_possible().await;
        }
    }

    /// [`file`](Self::file): what fails is tried again, and what makes room must not wait for it.
    async fn file_if_possible(&self) {
        if let Err(error) = self.file().await {
            tracing::debug!(directory = %self.directory.display(), %error, "what the journal holds is not in the segments yet");
        }
    }

    fn free_idle_memory(&self, now: Moment) {
        self.forget_sealed_indexes();
        let is_idle = self.is_idle(now);
        let state = self.state.borrow();
        let active = state.active();
        let is_used = self.flush_gate.closed.get() || self.file_gate.closed.get();
        if is_idle && active.is_durable() && !is_used {
            let mut tail = active.tail.borrow_mut();
            if tail.size() > BLOCK_SIZE {
                tail.shrink(active.end());
            }
            active.file.close();
        }
    }
}

/// What a checkpoint tells as of `end`, but for the producers.
pub(super) fn checkpoint_of<D: Disk>(state: &super::State<D>, end: DurablePoint) -> Checkpoint {
    let up_to_end = state
        .segments
        .iter()
        .take_while(|segment| segment.base_offset <= end.segment);
    let facts = up_to_end.map(|segment| {
        let extent = segment.extent.get();
        let (size, next_offset) = if segment.base_offset == end.segment {
            (end.position, end.offset)
        } else {
            (extent.end, extent.next_offset)
        };
        SegmentFacts {
            base_offset: segment.base_offset.get(),
            size,
            next_offset: next_offset.get(),
            max_timestamp: extent.times.max_timestamp.get(),
            appended: extent.times.appended,
            untimed: extent.times.untimed,
            open_since: segment.transactions.open_since.get().map(Offset::get),
            aborted: segment.transactions.count_to_store(next_offset),
            transactional: segment.transactions.has_any.get(),
        }
    });
    let high_watermark = if state.watermark.is_held() {
        state.watermark.offset().min(end.offset)
    } else {
        end.offset
    };
    Checkpoint {
        log_start_offset: state.start.get(),
        begins_again: false,
        recovery: Point {
            segment: end.segment.get(),
            position: end.position,
            offset: end.offset.get(),
        },
        segments: facts.collect(),
        producers: Vec::new(),
        transactions: state.transactions.as_of(end.offset, high_watermark),
        high_watermark: state.watermark.is_held().then(|| high_watermark.get()),
        epochs: Some(state.epochs.as_of(end.offset)),
    }
}
