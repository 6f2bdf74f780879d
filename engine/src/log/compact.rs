//! Compaction: of the records of each key only the last stays (`cleanup.policy=compact`), at the offset that it always had.
//!
//! ```text
//! compact: is it due? ─► map: the last offset of each key that is new ─► rewrite: segment by segment, without what is
//!          superseded ─► swap in ─► note how far it has come                   (several passes if the map is too small)
//! ```
//!
//! Like the rest of the log it is passive: its owner polls [`Log::compact`] from a background queue, and every piece of work asks
//! `pace` first. Only sealed segments are touched. Rules and names are those of Kafka's log cleaner (KIP-58, KIP-354, KIP-534), but
//! a tombstone gets its delete horizon only when no older record of its key is left, and compaction is due by itself when a
//! horizon has passed.

pub(super) mod map;
pub(super) mod output;
pub(super) mod progress;
mod rewrite;
pub(super) mod swap;
mod transactions;

use std::{
    cell::{Cell, RefCell},
    ops::AsyncFn,
    pin::pin,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::{Either, select};
use headwater_protocol::{
    batch::{BatchHeader, Compression, RecordSet},
    id::{Offset, Timestamp},
};

pub use progress::CompactionReport;
pub(super) use progress::{Compactor, Progress, Record};

use self::{map::OffsetMap, progress::Tally, rewrite::Pass, transactions::Ends};
use super::{
    CompactionConfig, DECOMPRESSED_SIZE_MAX, Log,
    scan::WINDOW,
    walk::{LOOK_BYTES, Walk},
};
use crate::{
    disk::Disk,
    error::LogError,
    moment::{Moment, age_of},
    segment::{Segment, Stage},
};

/// Records that are looked at between two looks at the time, about 0.1 ms.
const RECORDS_AT_ONCE: usize = 1024;

/// Bytes of a batch that are rewritten in about 0.1 ms.
const LONG_BYTES: usize = 64 << 10;

/// What a compaction was asked to do, and what it has done so far.
struct Run<'a, D: Disk, P> {
    log: &'a Log<D>,
    config: CompactionConfig,
    now: Moment,
    pace: &'a P,
    tally: Tally,
    /// Truncations before it began: what is not there any more supersedes nothing.
    truncations: u64,
    /// A segment was removed meanwhile.
    lost: Cell<bool>,
}

/// Sealed segments that may be compacted, oldest first.
struct Cleanable<D: Disk> {
    segments: Vec<Rc<Segment<D>>>,
    /// First offset that has not been compacted.
    first_dirty: Offset,
}

impl<D: Disk> Cleanable<D> {
    fn end(&self) -> Offset {
        let last = self.segments.last();
        last.map_or(self.first_dirty, |last| last.extent.get().next_offset)
    }

    fn dirty(&self) -> impl Iterator<Item = &Rc<Segment<D>>> {
        let is_dirty = |segment: &&Rc<Segment<D>>| segment.extent.get().next_offset > self.first_dirty;
        self.segments.iter().filter(is_dirty)
    }

    fn dirty_ratio(&self) -> f64 {
        let size = |segment: &Rc<Segment<D>>| segment.end();
        let (dirty, all): (u64, u64) = (self.dirty().map(size).sum(), self.segments.iter().map(size).sum());
        if all == 0 { 0.0 } else { dirty as f64 / all as f64 }
    }
}

impl<D: Disk> Log<D> {
    /// Share of the sealed segments, by bytes, that has not been compacted: which of many logs needs it most. 0 for a log that is
    /// not to be compacted.
    pub fn dirty_ratio(&self, now: impl Into<Moment>) -> f64 {
        let (config, now) = (self.config().compaction, now.into());
        config.map_or(0.0, |config| self.cleanable(&config, now).dirty_ratio())
    }

    /// Compacts the log if that is due.
    ///
    /// Takes `map_bytes_max` of memory at most for the offsets of keys, besides a few buffers and the largest batch. `pace` is
    /// called with a number of bytes that were read or written, batch by batch, and decides when the work goes on. Retention,
    /// checkpoints and truncation go on meanwhile; closing or retiring the log ends it early. If the future is dropped, what it
    /// has begun is finished or undone by the next maintenance. An error leaves the log as it was; with [`LogError::Corrupt`]
    /// there is no use in trying again. What a record has superseded does not come back if that record is truncated later.
    pub async fn compact(
        &self,
        now: impl Into<Moment>,
        map_bytes_max: usize,
        pace: impl AsyncFn(u64),
    ) -> Result<CompactionReport, LogError> {
        let now = now.into();
        let Some(config) = self.config().compaction else {
            return Ok(CompactionReport::default());
        };
        let _entered = self.compactor.gate.enter().await;
        let run = Run {
            log: self,
            config,
            now,
            pace: &pace,
            tally: RefCell::default(),
            truncations: self.state.borrow().compaction.truncations,
            lost: Cell::default(),
        };
        if run.is_over() {
            return Ok(CompactionReport::default());
        }
        {
            let _upkeep = self.upkeep_gate.enter().await;
            self.seal().await?;
            self.finish_swap().await?;
        }
        let end = self.cleanable(&config, now).end();
        if run.is_due().await? {
            while run.pass(map_bytes_max).await? < end && !run.is_over() {}
        }
        Ok(run.tally.take())
    }

    /// Ends a compaction that is under way, for good: there will be no other.
    pub(super) async fn halt_compaction(&self) {
        self.compactor.halted.set(true);
        self.compactor.halt.notify();
        let _entered = self.compactor.gate.enter().await;
    }

    fn cleanable(&self, config: &CompactionConfig, now: Moment) -> Cleanable<D> {
        let state = self.state.borrow();
        let first_dirty = state.compaction.record.clean_below().max(state.start);
        let lag_min = Duration::from_millis(config.lag_ms_min);
        let last_stable = state.last_stable();
        let is_cleanable = |segment: &&Rc<Segment<D>>| {
            let is_old = segment.age(now) >= lag_min;
            let is_final = segment.stage.get() == Stage::Sealed && state.is_final(segment);
            // What is in an open transaction may yet be aborted, and then supersedes nothing.
            let is_decided = segment.extent.get().next_offset <= last_stable;
            is_final && is_decided && (is_old || segment.extent.get().next_offset <= first_dirty)
        };
        Cleanable {
            segments: state.segments.iter().take_while(is_cleanable).cloned().collect(),
            first_dirty,
        }
    }

    /// The log was truncated to `end`.
    pub(super) async fn cut_compaction(&self, end: Offset) -> Result<(), LogError> {
        let (before, after) = {
            let mut state = self.state.borrow_mut();
            let before = state.compaction.record;
            state.compaction.record = before.cut(end);
            (before, state.compaction.record)
        };
        if after == before {
            return Ok(());
        }
        after.write(&self.disk, &self.directory).await
    }
}

impl<D: Disk, P: AsyncFn(u64)> Run<'_, D, P> {
    /// The log is being closed, or has failed, or has changed too much.
    fn is_over(&self) -> bool {
        let state = self.log.state.borrow();
        let is_truncated = state.compaction.truncations != self.truncations;
        self.lost.get() || self.log.compactor.halted.get() || state.fence.is_some() || is_truncated
    }

    async fn pace(&self, bytes: u64) {
        let halt = self.log.compactor.halt.wait();
        if self.is_over() {
            return;
        }
        let pace = pin!((self.pace)(bytes));
        if let Either::Right(_) = select(pace, halt).await {
            tracing::debug!(directory = %self.log.directory.display(), "a compaction ends early");
        }
    }

    async fn is_due(&self) -> Result<bool, LogError> {
        let cleanable = self.log.cleanable(&self.config, self.now);
        let record = self.log.state.borrow().compaction.record;
        if record.is_horizon_past(self.now.clock, self.horizon_max()) {
            return Ok(true);
        }
        let Some(first) = cleanable.dirty().next() else {
            return Ok(false);
        };
        if cleanable.dirty_ratio() >= self.config.dirty_ratio_min {
            return Ok(true);
        }
        let Some(lag_ms_max) = self.config.lag_ms_max else {
            return Ok(false);
        };
        let Some(file) = self.open(first).await? else {
            return Ok(false);
        };
        let Some(batch) = Walk::over_all(self.log, first, &file, LOOK_BYTES).next().await? else {
            return Ok(false);
        };
        let mut times = first.extent.get().times;
        let appended = times.appended.age(self.now);
        let oldest = BatchHeader::read(&batch)
            .map(|header| age_of(header.max_timestamp(), appended, self.now.clock))
            .unwrap_or_default();
        Ok(oldest >= Duration::from_millis(lag_ms_max))
    }

    /// No tombstone that is kept now is kept for longer.
    fn horizon_max(&self) -> Timestamp {
        let now = self.now.clock.get();
        Timestamp::new(now.saturating_add_unsigned(self.config.delete_retention_ms))
    }

    /// One pass: as many new keys as the map holds. Returns the offset up to which the log is compacted then.
    async fn pass(&self, map_bytes_max: usize) -> Result<Offset, LogError> {
        let cleanable = self.log.cleanable(&self.config, self.now);
        let last_batches = self.log.state.borrow().producers.last_batches();
        let keys = cleanable.end().get().saturating_sub(cleanable.first_dirty.get());
        let mut map = OffsetMap::new(map_bytes_max, keys);
        let ends = self.ends(&cleanable).await?;
        let mapped_to = self.fill(&mut map, &cleanable, &ends).await?;
        if self.is_over() {
            return Ok(Offset::MAX);
        }
        let mut segments = cleanable.segments;
        segments.retain(|segment| segment.base_offset < mapped_to);
        let pass = Pass {
            run: self,
            map,
            mapped_to,
            last_batches,
            ends: RefCell::new(ends),
            horizon: RefCell::default(),
        };
        self.tally.borrow_mut().passes += 1;
        if let Some(last) = segments.last() {
            let end = last.extent.get().next_offset;
            self.note(|record| record.with_holes_below(end)).await?;
        }
        if !pass.rewrite(segments).await? {
            return Ok(Offset::MAX);
        }
        let horizon = pass.horizon.take();
        self.note(|record| record.with_clean_below(mapped_to, horizon)).await?;
        Ok(mapped_to)
    }

    /// Which transactions were aborted that have something in these segments. All have ended.
    async fn ends(&self, cleanable: &Cleanable<D>) -> Result<Ends, LogError> {
        let (Some(first), end) = (cleanable.segments.first(), cleanable.end()) else {
            return Ok(Ends::default());
        };
        self.log.aborted(first.base_offset, end).await.map(Ends::new)
    }

    /// The segment's file, for this run alone; `None` if it was removed meanwhile, which ends the run.
    async fn open(&self, segment: &Segment<D>) -> Result<Option<D::File>, LogError> {
        match self.log.disk.open(&segment.path, false).await {
            Ok(file) => Ok(Some(file)),
            Err(_) if !self.is_there(segment) => {
                self.lost.set(true);
                Ok(None)
            }
            Err(error) => Err(LogError::io("open", &segment.path)(error)),
        }
    }

    fn is_there(&self, segment: &Segment<D>) -> bool {
        let state = self.log.state.borrow();
        state
            .segments
            .iter()
            .any(|known| std::ptr::eq(Rc::as_ptr(known), segment))
    }

    /// Notes the offsets of all keys from the first dirty offset on, as far as the map has room. Returns how far that was.
    async fn fill(&self, map: &mut OffsetMap, cleanable: &Cleanable<D>, ends: &Ends) -> Result<Offset, LogError> {
        for segment in cleanable.dirty() {
            let Some(file) = self.open(segment).await? else {
                return Ok(cleanable.first_dirty);
            };
            let mut walk = Walk::over_all(self.log, segment, &file, WINDOW);
            while let Some(batch) = walk.next().await? {
                self.pace(batch.len() as u64).await;
                if self.is_over() {
                    return Ok(cleanable.first_dirty);
                }
                self.tally.borrow_mut().read_bytes += batch.len() as u64;
                if BatchHeader::read(&batch).is_ok_and(|header| ends.is_aborted(header)) {
                    continue;
                }
                if let Some(full_at) = self.fill_from(map, &batch, cleanable.first_dirty).await {
                    return Ok(full_at);
                }
            }
        }
        Ok(cleanable.end())
    }

    /// Notes the keys of one batch. Returns the offset of the first record for which there was no room.
    async fn fill_from(&self, map: &mut OffsetMap, batch: &Bytes, first_dirty: Offset) -> Option<Offset> {
        let records = self.decode(batch).await?;
        if records.header().is_control() || records.header().next_offset() <= first_dirty {
            return None;
        }
        for (record, count) in records.iter().zip(1..) {
            // What cannot be read stays in the log as it is.
            let record = record.ok()?;
            if record.offset >= first_dirty
                && let Some(key) = record.key
                && !map.put(map.hash(key), record.offset.get())
            {
                return Some(record.offset);
            }
            self.give_way(count).await;
        }
        None
    }

    /// The records of a batch; `None` if they cannot be read.
    async fn decode(&self, batch: &Bytes) -> Option<RecordSet> {
        let batch = batch.clone();
        let is_long = is_long(&batch);
        // The walk has looked at its checksum.
        let decode = move || RecordSet::decode_without_crc(&batch, DECOMPRESSED_SIZE_MAX).ok();
        if is_long {
            self.log.disk.aside(decode).await
        } else {
            decode()
        }
    }

    /// Lets others go first now and then, in the middle of a batch with many records.
    async fn give_way(&self, records: usize) {
        if records.is_multiple_of(RECORDS_AT_ONCE) {
            self.pace(0).await;
        }
    }

    /// Writes down how far it has come, unless the log was truncated meanwhile.
    async fn note(&self, change: impl FnOnce(Record) -> Record) -> Result<(), LogError> {
        let _upkeep = self.log.upkeep_gate.enter().await;
        let before = self.log.state.borrow().compaction.record;
        let after = change(before);
        if self.is_over() || before == after {
            return Ok(());
        }
        after.write(&self.log.disk, &self.log.directory).await?;
        self.log.state.borrow_mut().compaction.record = after;
        Ok(())
    }
}

/// Whether it takes long to open a batch or to write it anew: of a compressed one it is not known how much there is in it.
fn is_long(batch: &[u8]) -> bool {
    let is_compressed = |header: BatchHeader<'_>| header.compression() != Compression::None;
    batch.len() > LONG_BYTES || BatchHeader::read(batch).is_ok_and(is_compressed)
}
