//! Dropping what is not the leader's: the end of the log, or all of it.
//!
//! ```text
//! truncate       checkpoint that ends there ─► files of later segments go, newest first ─► the last file is cut
//! begin again    checkpoint that says so    ─► all files go                             ─► checkpoint of an empty log
//! ```
//! Each arrow is durable before the next. What is dropped is gone when it is answered: nothing of it is ever read as records again,
//! whatever is written in its place. A failure on the way fences the log, and giving way to another one finishes it.

use std::{collections::HashSet, rc::Rc};

use headwater_protocol::{
    batch::{BatchLimits, RecordBatch},
    id::{Offset, ProducerId},
};

use crate::{
    checkpoint::{Checkpoint, Point, SegmentFacts},
    disk::{BLOCK_SIZE, Disk, SegmentFile},
    epochs::{CommonPoint, EpochEnd, EpochTable, common_point},
    error::LogError,
    log::{
        DurablePoint, Log,
        files::{remove_index, remove_segment_files},
        recycle::Spares,
        scan::{Stretch, WINDOW},
        upkeep::Purpose,
        walk::Walk,
    },
    moment::Since,
    producers::{Kept, Producers},
    segment::Segment,
    transactions::{Saved, Transactions},
};

impl<D: Disk> Log<D> {
    /// Drops every batch that ends after `to` (KIP-101: a follower that diverged from its leader). Tickets of dropped appends
    /// resolve with [`LogError::Truncated`].
    pub async fn truncate(&self, to: Offset) -> Result<(), LogError> {
        let _flush = self.flush_gate.enter().await;
        let _entered = self.upkeep_gate.enter().await;
        let offsets = self.offsets();
        if let Some(fence) = self.fence() {
            return Err(fence);
        }
        self.finish_swap().await?;
        let to = to.max(offsets.start);
        if to >= offsets.end {
            return Ok(());
        }
        let _file = self.file_gate.enter().await;
        self.settle_in_journal().await?;
        if to >= offsets.durable {
            let durable = self.state.borrow().durable;
            // Between the durable and the log end offset nothing is on disk for certain: all of it goes.
            return self.cut_back(durable, None, &LogError::Truncated).await;
        }
        let segment = Rc::clone(self.state.borrow().segment_of(to));
        let (position, offset) = self.batch_start(&segment, to).await?;
        let block_start = position / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
        // Opened before anything is done, so that a want of descriptors is found now.
        let file = segment.open(&self.disk).await?;
        let block = if position == block_start {
            Vec::new()
        } else {
            let read = file.read(block_start, (position - block_start) as usize).await;
            read.map_err(LogError::io("read", &segment.path))?
        };
        let end = DurablePoint {
            segment: segment.base_offset,
            position,
            offset,
        };
        self.recall_transactions(&segment, end).await?;
        remove_index(&self.disk, &self.directory, segment.base_offset).await?;
        // The checkpoint must never promise more than the files hold, and the last one may: it is written in any case.
        // The batch may begin below the log start offset, which then moves back with the end, as in Kafka.
        {
            let mut state = self.state.borrow_mut();
            state.start = state.start.min(offset);
            // A compaction that is under way has to end before anything is cut.
            state.compaction.truncations += 1;
            state.changed();
        }
        self.write_checkpoint_at(end, Purpose::MakesRoom).await?;
        let lost = self.state.borrow().producers.lost_by(end.offset);
        self.cut_back(end, Some(block), &LogError::Truncated).await?;
        self.cut_compaction(end.offset).await?;
        self.find_producers(lost).await
    }

    /// Looks for what is left in the log of these producers, from its end on, until there is something of each. What a truncation
    /// leaves may be older than all that is remembered.
    async fn find_producers(&self, mut lost: HashSet<ProducerId>) -> Result<(), LogError> {
        let segments: Vec<_> = self.state.borrow().segments.iter().rev().cloned().collect();
        let mut has_found = false;
        for segment in segments.iter().filter(|segment| segment.end() > 0) {
            if lost.is_empty() {
                break;
            }
            let mut found = Producers::default();
            let file = segment.open(&self.disk).await?;
            let stretch = Stretch::up_to(segment, segment.durable.get());
            let mut walk = Walk::over(self, segment, &file, stretch, WINDOW);
            while let Some(bytes) = walk.next().await? {
                let limits = BatchLimits {
                    batch_size_max: bytes.len(),
                };
                if let Ok(batch) = RecordBatch::parse(&bytes, &limits)
                    && lost.contains(&batch.producer_id())
                {
                    found.note(&batch, batch.base_offset(), Since::UNKNOWN, Kept::ALL_FILED);
                }
            }
            lost.retain(|id| !found.knows(*id));
            has_found |= found.len() > 0;
            let mut state = self.state.borrow_mut();
            state.producers.adopt(found);
            state.changed();
        }
        if has_found {
            self.write_checkpoint(Purpose::MakesRoom).await?;
        }
        Ok(())
    }

    /// Drops what this log does not have in common with its leader's, as far as the leader's answer tells where
    /// [`latest_epoch`](Self::latest_epoch) ends there, or the epoch that the last call has named. With
    /// [`CommonPoint::At`] it is done, durably, and the log goes on from its end; else nothing has changed yet.
    pub async fn truncate_to(&self, leader: EpochEnd) -> Result<CommonPoint, LogError> {
        let common = {
            let state = self.state.borrow();
            common_point(&state.epochs, state.end(), leader)
        };
        if let CommonPoint::At(offset) = common {
            self.truncate(offset).await?;
        }
        Ok(common)
    }

    /// Drops everything, and goes on at `start`: for a follower that has nothing in common with what its leader still has. After
    /// a crash meanwhile the log is as it was, or empty and at `start`.
    pub async fn begin_again_at(&self, start: Offset) -> Result<(), LogError> {
        let _flush = self.flush_gate.enter().await;
        let _entered = self.upkeep_gate.enter().await;
        if let Some(fence) = self.fence() {
            return Err(fence);
        }
        self.finish_swap().await?;
        let _file = self.file_gate.enter().await;
        self.settle_in_journal().await?;
        self.drop_spares().await?;
        // Even if this one fails it may be there: only a fence keeps more from being acknowledged that it would drop.
        self.state.borrow_mut().changed();
        let dropped = async {
            self.put_checkpoint(move || empty_at(start), Purpose::MakesRoom).await?;
            self.forget_all(start);
            self.remove_dropped().await?;
            self.write_checkpoint(Purpose::MakesRoom).await
        };
        if let Err(cause) = dropped.await {
            self.fence_with(cause.clone());
            return Err(cause);
        }
        self.advanced.notify();
        self.appended.notify();
        self.cut_compaction(start).await
    }

    /// The log has nothing any more, and goes on at `start`. Whose files are to go is noted.
    fn forget_all(&self, start: Offset) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let interval = self.config().index_interval_bytes;
        let first = Rc::new(Segment::new(&self.directory, start, &self.memory, interval));
        for segment in state.segments.drain(..) {
            segment.cut();
            state.dropped.push(segment.base_offset);
        }
        state.segments.push_back(first);
        let durable = state.durable.offset;
        state.pending.fail_after(durable, &LogError::Truncated);
        state.watermark.begin_at(start, &LogError::Truncated);
        state.start = start;
        state.durable = DurablePoint {
            segment: start,
            position: 0,
            offset: start,
        };
        state.filed = state.durable;
        state.epochs = EpochTable::default();
        state.producers = Producers::default();
        state.transactions = Transactions::default();
        state.spares = Spares::default();
        state.compaction.truncations += 1;
        state.changed();
        state.check();
    }

    /// Removes the files of segments that a truncation has dropped, the newest first, so that a crash in between never leaves a
    /// hole. What fails is left for the next call.
    pub(in crate::log) async fn remove_dropped(&self) -> Result<(), LogError> {
        loop {
            let Some(base_offset) = self.state.borrow().dropped.last().copied() else {
                return Ok(());
            };
            remove_segment_files(&self.disk, &self.directory, base_offset).await?;
            self.state.borrow_mut().dropped.pop();
        }
    }
}

/// What opening a log has to know before it drops all that it finds.
fn empty_at(start: Offset) -> Checkpoint {
    let start = start.get();
    Checkpoint {
        log_start_offset: start,
        recovery: Point {
            segment: start,
            position: 0,
            offset: start,
        },
        segments: vec![SegmentFacts {
            base_offset: start,
            size: 0,
            next_offset: start,
            max_timestamp: -1,
            appended: Since::UNKNOWN,
            untimed: false,
            open_since: None,
            aborted: 0,
            transactional: false,
        }],
        producers: Vec::new(),
        transactions: Saved::default(),
        epochs: Some(EpochTable::default()),
        high_watermark: None,
        begins_again: true,
    }
}
