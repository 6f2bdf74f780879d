//! One pass over the log: which records stay, and into which segments they go.
//!
//! Owned by one compaction. From the oldest segment to the newest, so that whenever it ends early no record is gone whose
//! successor is not there, and no tombstone while something older than it is. Batches keep their base offset, last offset delta,
//! producer and sequence; one without records stays, empty, while it is the last of an idempotent producer, or of a segment. What becomes
//! of transactions is said in `transactions.rs`.

use std::{cell::RefCell, collections::HashSet, ops::AsyncFn, rc::Rc};

use bytes::Bytes;
use headwater_protocol::{
    batch::{self, BatchHeader, RecordSet, RecordView},
    id::{Offset, ProducerId, Timestamp},
};

use super::{
    super::{scan::WINDOW, walk::Walk},
    Run, is_long,
    map::OffsetMap,
    output::Output,
    transactions::Ends,
};
use crate::{disk::Disk, error::LogError, segment::Segment};

/// Most segments that become one at a time: each is held open.
const SOURCES_MAX: usize = 32;

/// One pass.
pub(super) struct Pass<'a, D: Disk, P> {
    pub(super) run: &'a Run<'a, D, P>,
    pub(super) map: OffsetMap,
    /// From this offset on the map knows nothing, and all stays.
    pub(super) mapped_to: Offset,
    /// Where the state of each idempotent producer can be rebuilt from.
    pub(super) last_batches: HashSet<(ProducerId, Offset)>,
    /// What it has met of transactions.
    pub(super) ends: RefCell<Ends>,
    /// The earliest delete horizon of the tombstones, and markers, that stay.
    pub(super) horizon: RefCell<Option<Timestamp>>,
}

/// What becomes of a batch.
enum Fate {
    Stays,
    Changes(Vec<u8>),
    Goes {
        /// What it would be without records.
        emptied: Vec<u8>,
        had_records: bool,
    },
}

/// What a batch holds, seen from its records that stay.
struct Sifted {
    kept: Vec<bool>,
    has_tombstones: bool,
}

impl<D: Disk, P: AsyncFn(u64)> Pass<'_, D, P> {
    /// Rewrites these segments, and puts each in its place. Returns whether it came to its end: not if the log is being closed,
    /// or if segments have gone meanwhile.
    pub(super) async fn rewrite(&self, segments: Vec<Rc<Segment<D>>>) -> Result<bool, LogError> {
        let mut group: Vec<Rc<Segment<D>>> = Vec::new();
        let mut output: Option<Output<D>> = None;
        for segment in segments {
            let is_enough = |output: &Output<D>| !self.fits(output, &group, &segment);
            if output.as_ref().is_some_and(is_enough)
                && let Some(full) = output.take()
                && !self.settle(full, &std::mem::take(&mut group)).await?
            {
                return Ok(false);
            }
            let mut open = match output.take() {
                Some(open) => open,
                None => Output::begin(self.run.log, segment.base_offset).await?,
            };
            if let Err(error) = self.copy(&segment, &mut open).await {
                self.discard(&open).await;
                return Err(error);
            }
            group.push(segment);
            output = Some(open);
            if self.run.is_over() {
                break;
            }
        }
        match output {
            Some(last) => self.settle(last, &group).await,
            None => Ok(true),
        }
    }

    /// Whether the segment can go into the same file as those before it.
    fn fits(&self, output: &Output<D>, group: &[Rc<Segment<D>>], segment: &Segment<D>) -> bool {
        let distance = segment.extent.get().next_offset.get() - output.base_offset().get();
        output.size() + segment.end() <= self.run.log.config().segment_size_bytes
            // An index entry has four bytes for it.
            && distance <= u64::from(i32::MAX.cast_unsigned())
            && group.len() < SOURCES_MAX
    }

    /// Puts what was written in the place of the group, if it is any different. Returns whether the pass can go on.
    async fn settle(&self, mut output: Output<D>, group: &[Rc<Segment<D>>]) -> Result<bool, LogError> {
        if self.run.is_over() || (group.len() == 1 && !output.differs) {
            self.discard(&output).await;
            return Ok(!self.run.is_over());
        }
        if let Err(error) = output.finish().await {
            self.discard(&output).await;
            return Err(error);
        }
        let path = output.path.clone();
        let swapped = self.run.log.swap_in(output, group, self.run.truncations).await;
        if matches!(swapped, Ok(true)) {
            self.run.tally.borrow_mut().replaced_segments += group.len() as u64;
        } else if self.run.log.state.borrow().compaction.swap.is_none() {
            self.remove(&path).await;
        }
        swapped
    }

    async fn discard(&self, output: &Output<D>) {
        self.remove(&output.path).await;
    }

    async fn remove(&self, path: &std::path::Path) {
        // Opening the log would remove it, as would the next attempt.
        if let Err(error) = self.run.log.disk.remove_file(path).await {
            tracing::debug!(path = %path.display(), %error, "a file of a compaction that came to nothing is left");
        }
    }

    /// Copies what stays of a segment.
    async fn copy(&self, segment: &Segment<D>, output: &mut Output<D>) -> Result<(), LogError> {
        let log = self.run.log;
        let Some(file) = self.run.open(segment).await? else {
            return Ok(());
        };
        let mut walk = Walk::over_all(log, segment, &file, WINDOW);
        while let Some(batch) = walk.next().await? {
            let before = output.size();
            match self.sift(&batch).await {
                Fate::Stays => {
                    self.note_stays(&batch, output);
                    output.put(&batch).await?;
                }
                Fate::Changes(batch) => {
                    self.note_stays(&batch, output);
                    output.put(&batch).await?;
                    output.differs = true;
                }
                Fate::Goes { emptied, had_records } => output.skip(emptied, had_records),
            }
            let (read, written) = (batch.len() as u64, output.size() - before);
            {
                let mut tally = self.run.tally.borrow_mut();
                tally.read_bytes += read;
                tally.written_bytes += written;
            }
            self.run.pace(read + written).await;
            if self.run.is_over() {
                break;
            }
        }
        Ok(())
    }

    /// A batch is about to be written.
    fn note_stays(&self, batch: &[u8], output: &mut Output<D>) {
        let Ok(header) = BatchHeader::read(batch) else { return };
        if header.record_count() == 0 {
            return;
        }
        let mut ends = self.ends.borrow_mut();
        ends.note_stays(header);
        if header.is_control() {
            output.aborted.extend(ends.at_marker(header.base_offset()));
        }
        output.has_transactions |= header.is_transactional() || header.is_control();
    }

    async fn sift(&self, bytes: &Bytes) -> Fate {
        let Some(records) = self.run.decode(bytes).await else {
            return Fate::Stays;
        };
        let header = records.header();
        if header.is_control() {
            return self.sift_marker(&records);
        }
        if self.ends.borrow().is_aborted(header) && header.next_offset() <= self.mapped_to {
            let count = header.record_count() as usize;
            let mut tally = self.run.tally.borrow_mut();
            tally.records += count as u64;
            tally.removed_records += count as u64;
            return self.empty(header, count);
        }
        let Some(sifted) = self.sifted(&records).await else {
            return Fate::Stays;
        };
        let (count, kept) = (sifted.kept.len(), sifted.kept.iter().filter(|kept| **kept).count());
        {
            let mut tally = self.run.tally.borrow_mut();
            tally.records += count as u64;
            tally.removed_records += (count - kept) as u64;
        }
        if kept == 0 {
            return self.empty(header, count);
        }
        let horizon = self.horizon_of(header, sifted.has_tombstones);
        if kept == count && horizon == header.delete_horizon() {
            return Fate::Stays;
        }
        let mut kept = sifted.kept.into_iter();
        let mut write_anew = move || batch::rebuild(&records, horizon, |_| kept.next().unwrap_or(true));
        let rebuilt = if is_long(bytes) {
            self.run.log.disk.aside(write_anew).await
        } else {
            write_anew()
        };
        rebuilt.map_or(Fate::Stays, Fate::Changes)
    }

    /// A marker goes when nothing of its transaction is left, and its delete horizon has passed since.
    fn sift_marker(&self, records: &RecordSet) -> Fate {
        let header = records.header();
        let has_more = self.ends.borrow_mut().end(records);
        if has_more || header.next_offset() > self.mapped_to {
            return Fate::Stays;
        }
        let count = header.record_count() as usize;
        let is_past = |horizon: Timestamp| self.run.now.clock >= horizon;
        if count == 0 || header.delete_horizon().is_some_and(is_past) {
            return self.empty(header, count);
        }
        let horizon = self.horizon_of(header, true);
        if horizon == header.delete_horizon() {
            return Fate::Stays;
        }
        batch::rebuild(records, horizon, |_| true).map_or(Fate::Stays, Fate::Changes)
    }

    /// Which records stay. `None` if they cannot be read: only what was stored before the topic was compacted.
    async fn sifted(&self, records: &RecordSet) -> Option<Sifted> {
        let horizon = records.header().delete_horizon();
        let mut sifted = Sifted {
            kept: Vec::new(),
            has_tombstones: false,
        };
        for (record, count) in records.iter().zip(1..) {
            let record = record.ok()?;
            let stays = self.stays(&record, horizon);
            sifted.has_tombstones |= stays && record.value.is_none();
            sifted.kept.push(stays);
            self.run.give_way(count).await;
        }
        Some(sifted)
    }

    fn stays(&self, record: &RecordView<'_>, horizon: Option<Timestamp>) -> bool {
        if record.offset >= self.mapped_to {
            return true;
        }
        // Stored before the topic was compacted, and the last of no key.
        let Some(key) = record.key else { return false };
        let last = self.map.get(self.map.hash(key));
        let is_last = last.is_none_or(|last| record.offset.get() >= last);
        is_last && (record.value.is_some() || horizon.is_none_or(|horizon| self.run.now.clock < horizon))
    }

    /// The delete horizon of a batch that stays.
    fn horizon_of(&self, header: BatchHeader<'_>, has_tombstones: bool) -> Option<Timestamp> {
        let mut horizon = header.delete_horizon();
        if !has_tombstones {
            return horizon;
        }
        let latest = self.run.horizon_max();
        // When this pass is over, nothing older than its tombstones is left.
        if horizon.is_none() && header.next_offset() <= self.mapped_to {
            horizon = Some(latest);
        }
        horizon = horizon.map(|horizon| horizon.min(latest));
        if let Some(horizon) = horizon {
            let mut earliest = self.horizon.borrow_mut();
            *earliest = Some(earliest.map_or(horizon, |earliest| earliest.min(horizon)));
        }
        horizon
    }

    fn empty(&self, header: BatchHeader<'_>, count: usize) -> Fate {
        let place = (header.producer_id(), header.base_offset());
        let is_last = self.last_batches.contains(&place);
        match (is_last, count) {
            (true, 0) => Fate::Stays,
            (true, _) => Fate::Changes(batch::emptied(header)),
            (false, _) => Fate::Goes {
                emptied: batch::emptied(header),
                had_records: count > 0,
            },
        }
    }
}
