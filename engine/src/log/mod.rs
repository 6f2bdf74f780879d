//! The log of one partition: `append` fixes the order, `flush` makes it durable, `fetch` reads it.
//!
//! A log belongs to one core (not `Send`) and is passive: it makes no task, timer or channel, and asks no clock. Its futures
//! are polled by whoever owns it, so the same code runs on io_uring and on a simulated disk. State is only borrowed between
//! awaits. Invariant: log start offset <= durable offset, high watermark <= log end offset; log start offset <= last stable offset <=
//! high watermark.

mod append;
mod compact;
mod config;
mod fetch;
mod files;
mod flush;
mod journaled;
mod recovery;
mod recycle;
mod replica;
mod scan;
mod ticket;
mod transactions;
mod upkeep;
mod walk;
mod watermark;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use headwater_protocol::id::{LeaderEpoch, Offset};

pub use append::{Appended, Begins, Vetted, VettedBytes};
pub use compact::CompactionReport;
pub use config::{CompactionConfig, FlushConfig, LogConfig, ProducerConfig};
pub use fetch::{Fetched, LogRange};
pub use recovery::{Cut, Recovery};
pub use ticket::Ticket;
pub use watermark::{LogOffsets, ReadLimit};

use crate::{
    disk::Disk,
    epochs::{EpochEnd, EpochTable},
    error::LogError,
    memory::Memory,
    producers::{ActiveProducer, Producers},
    segment::{Segment, Stage},
    seldom::Seldom,
    signal::Signal,
    transactions::Transactions,
};

/// The records of a batch are at most this large, in bytes, when it is opened: what consumers take by default.
pub const DECOMPRESSED_SIZE_MAX: usize = 64 << 20;

/// Where the durable part of the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DurablePoint {
    /// Base offset of the segment.
    segment: Offset,
    /// Byte in the segment.
    position: u64,
    offset: Offset,
}

#[derive(Debug)]
struct State<D: Disk> {
    /// Oldest first, never empty; the last takes the appends.
    segments: VecDeque<Rc<Segment<D>>>,
    start: Offset,
    durable: DurablePoint,
    /// How far the durable part is in the segments' files: what lies between is in the journal, and in memory. Without a journal the
    /// same. Both are in one segment, or `durable` is where the next one begins.
    filed: DurablePoint,
    watermark: watermark::Watermark,
    /// What is stamped into batches.
    leader_epoch: LeaderEpoch,
    epochs: EpochTable,
    producers: Producers,
    transactions: Transactions,
    spares: recycle::Spares,
    compaction: compact::Progress<D>,
    /// Base offsets of segments that a truncation has dropped and whose files may be there, in order. More is only appended when
    /// there are none.
    dropped: Vec<Offset>,
    pending: ticket::Pending,
    fence: Option<LogError>,
    /// Counts what has changed of all that a checkpoint tells, and what had when the last one was written was begun.
    changes: u64,
    saved_changes: u64,
    /// Segments have come to wait for being sealed.
    has_unsealed: bool,
    /// Monotonic time of the last append, if there was one since the log was opened.
    last_append: Option<Duration>,
}

impl<D: Disk> State<D> {
    fn active(&self) -> &Rc<Segment<D>> {
        self.segments.back().expect("a log has at least one segment")
    }

    fn end(&self) -> Offset {
        self.active().extent.get().next_offset
    }

    /// The segment that holds `offset`, or the active one at the end of the log.
    fn segment_of(&self, offset: Offset) -> &Rc<Segment<D>> {
        let after = self.segments.partition_point(|segment| segment.base_offset <= offset);
        &self.segments[after.saturating_sub(1)]
    }

    /// Where the durable part of a segment ends.
    fn durable_end_of(&self, segment: &Segment<D>) -> u64 {
        if segment.base_offset == self.durable.segment {
            self.durable.position
        } else {
            segment.end()
        }
    }

    /// Whether nothing will happen to the segment any more but that it is deleted or compacted: a truncation goes no deeper than the
    /// high watermark, unless replicas are lost.
    fn is_final(&self, segment: &Segment<D>) -> bool {
        segment.is_at_rest() && segment.extent.get().next_offset <= self.watermark.offset()
    }

    /// The active segment is full or old: the next append begins a new one.
    fn roll(&mut self, directory: &Path, memory: &Memory, interval_bytes: u32) {
        let next = {
            let active = Rc::clone(self.active());
            active.stage.set(Stage::Rolled);
            self.has_unsealed |= active.await_sealing(&memory.unsealed);
            if active.is_durable() {
                active.tail.borrow_mut().made_durable(active.end(), true);
            }
            Segment::new(directory, active.extent.get().next_offset, memory, interval_bytes)
        };
        next.has_holes.set(self.compaction.record.has_holes(next.base_offset));
        next.transactions.open_since.set(self.transactions.open_since());
        self.spares.begin(next.base_offset);
        self.segments.push_back(Rc::new(next));
        self.step_over_segment_end();
        self.changed();
    }

    /// The first batch of an epoch follows.
    #[cold]
    fn begin_epoch(&mut self, epoch: LeaderEpoch, offset: Offset) {
        let latest = self.epochs.latest();
        assert!(
            latest.is_none_or(|latest| latest < epoch),
            "epoch {epoch} cannot follow {latest:?}"
        );
        self.epochs.note(epoch, offset);
    }

    /// What the last checkpoint tells is not all there is any more.
    fn changed(&mut self) {
        self.changes += 1;
    }

    /// A durable point at the end of a rolled segment is the same as one at the start of the next.
    fn step_over_segment_end(&mut self) {
        self.durable = self.stepped_over(self.durable);
        self.filed = self.stepped_over(self.filed);
    }

    /// Where the next segment begins, if the point is the end of one that has a next.
    fn stepped_over(&self, point: DurablePoint) -> DurablePoint {
        let index = self
            .segments
            .partition_point(|segment| segment.base_offset < point.segment);
        match self.segments.get(index + 1) {
            Some(next) if point.position == self.segments[index].end() => DurablePoint {
                segment: next.base_offset,
                position: 0,
                offset: next.base_offset,
            },
            _ => point,
        }
    }

    /// The segment that a point lies in.
    fn segment_at(&self, point: DurablePoint) -> &Rc<Segment<D>> {
        let index = self
            .segments
            .partition_point(|segment| segment.base_offset < point.segment);
        &self.segments[index]
    }

    fn check(&self) {
        let (start, durable, end) = (self.start, self.durable.offset, self.end());
        let watermark = self.watermark.offset();
        assert!(
            start <= watermark && watermark <= end,
            "high watermark {watermark} outside of the log, {start} to {end}"
        );
        assert!(durable <= end, "durable offset {durable} beyond {end}");
        let filed = self.filed.offset;
        assert!(
            filed <= durable,
            "filed up to {filed}, beyond the durable offset {durable}"
        );
        assert!(
            self.watermark.is_held() || watermark >= durable,
            "high watermark {watermark} of one replica below its durable offset {durable}"
        );
    }
}

/// A partitioned log's one partition, on one disk.
#[derive(Debug)]
pub struct Log<D: Disk> {
    disk: D,
    directory: PathBuf,
    /// Replaced as a whole by [`reconfigure`](Self::reconfigure).
    config: RefCell<Rc<LogConfig>>,
    memory: Memory,
    state: RefCell<State<D>>,
    /// Something was appended, or never will be again.
    appended: Signal,
    /// The durable offset or the high watermark has moved, or will never move again.
    advanced: Signal,
    /// The core's journal, if it has one.
    journaled: Option<journaled::Journaled<D>>,
    /// One flush at a time.
    flush_gate: Gate,
    /// One at a time writes to the segments' files. Entered after the others.
    file_gate: Gate,
    /// One change of the structure (seal, retention, truncation, checkpoint) at a time.
    upkeep_gate: Gate,
    compactor: compact::Compactor,
    /// Says that durable bytes do not read back: whoever wants them may ask again at once.
    unreadable: Seldom,
}

impl<D: Disk> Log<D> {
    /// The offsets as they are now.
    pub fn offsets(&self) -> LogOffsets {
        let state = self.state.borrow();
        LogOffsets {
            start: state.start,
            high_watermark: state.watermark.offset(),
            last_stable: state.last_stable(),
            durable: state.durable.offset,
            end: state.end(),
        }
    }

    /// Whether something was appended that is not durable.
    pub fn needs_flush(&self) -> bool {
        let state = self.state.borrow();
        state.fence.is_none() && state.durable.offset < state.end()
    }

    /// The failure that fenced the log, if there was one.
    pub fn fence(&self) -> Option<LogError> {
        self.state.borrow().fence.clone()
    }

    /// Whether it takes no appends since a write or flush failed.
    pub fn is_fenced(&self) -> bool {
        let state = self.state.borrow();
        let fence = state.fence.as_ref();
        fence.is_some_and(|fence| !matches!(fence, LogError::Retired { .. }))
    }

    /// Number of segments and their bytes.
    pub fn size(&self) -> (usize, u64) {
        let state = self.state.borrow();
        (
            state.segments.len(),
            state.segments.iter().map(|segment| segment.end()).sum(),
        )
    }

    /// Bytes from a record to the end of the log, as far as indexes in memory tell: where there is none, records are taken to be of the
    /// same size.
    pub fn bytes_from(&self, offset: Offset) -> u64 {
        let state = self.state.borrow();
        let mut bytes = 0;
        for segment in state.segments.iter().rev() {
            bytes += segment.bytes_from(offset);
            if segment.base_offset <= offset {
                break;
            }
        }
        bytes
    }

    /// Bytes of memory held: tail buffers (counted in [`TailMemory`](crate::TailMemory) too) and indexes.
    pub fn memory_used(&self) -> usize {
        let state = self.state.borrow();
        let of_segment = |segment: &Rc<Segment<D>>| {
            size_of::<Segment<D>>()
                + segment.tail.borrow().size()
                + segment.index.borrow().as_ref().map_or(0, crate::index::Index::size)
                + segment.transactions.size()
        };
        size_of::<Self>() + state.spares.size() + state.segments.iter().map(of_segment).sum::<usize>()
    }

    /// Producers that are remembered.
    pub fn producer_count(&self) -> usize {
        self.state.borrow().producers.len()
    }

    /// What is known of producers that number their batches.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        let state = self.state.borrow();
        state.producers.active(|id| state.transactions.first_of(id))
    }

    /// Where the log lives.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The configuration in force.
    pub fn config(&self) -> Rc<LogConfig> {
        Rc::clone(&self.config.borrow())
    }

    /// Has another configuration from now on: the next append, roll and retention go by it. What is stored stays as it is,
    /// also where it is larger than what would be allowed now. `index_interval_bytes` must be the same, as the indexes in
    /// memory have it.
    pub fn reconfigure(&self, config: LogConfig) {
        config.check();
        let mut current = self.config.borrow_mut();
        assert!(
            config.index_interval_bytes == current.index_interval_bytes,
            "the interval of an open log's indexes cannot change"
        );
        *current = Rc::new(config);
    }

    /// The epoch that is stamped into batches from now on: the one in which this replica leads.
    ///
    /// # Panics
    /// If the log has a later one: whoever leads has been elected after all that is in it.
    pub fn set_leader_epoch(&self, epoch: LeaderEpoch) {
        let mut state = self.state.borrow_mut();
        let latest = state.epochs.latest().unwrap_or(LeaderEpoch::NONE);
        assert!(epoch >= latest, "epoch {epoch} cannot follow epoch {latest}");
        state.leader_epoch = epoch;
    }

    /// The epoch of the newest records, durable or not; `None` if the log has never had any. A follower asks its leader for it.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.state.borrow().epochs.latest()
    }

    /// The epoch of the last record before this offset, as far as the log goes back.
    pub fn epoch_before(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.state.borrow().epochs.before(offset)
    }

    /// A leader's answer to a follower that asks where this epoch ends.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> EpochEnd {
        let state = self.state.borrow();
        state.epochs.end_of(epoch, state.end())
    }
}

/// An asynchronous mutex without data.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: Cell<bool>,
    opened: Signal,
}

impl Gate {
    pub(crate) async fn enter(&self) -> Entered<'_> {
        self.opened.until(|| !self.closed.get()).await;
        self.closed.set(true);
        Entered { gate: self }
    }
}

#[derive(Debug)]
pub(crate) struct Entered<'a> {
    gate: &'a Gate,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.gate.closed.set(false);
        self.gate.opened.notify();
    }
}
