//! The segments of a log that is opened: which of them the checkpoint vouches for, and what is in the others.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    ops::Range,
    path::Path,
    rc::Rc,
};

use headwater_protocol::{batch::RecordBatch, id::Offset};

use super::{Cut, Opening};
use crate::{
    checkpoint::{Checkpoint, SegmentFacts},
    disk::{BLOCK_SIZE, BlockBuffer, Disk, SegmentFile, is_full},
    error::LogError,
    index::Index,
    journal::Aside,
    log::{
        files::read_index,
        recycle::is_earlier_use,
        scan::{ScanEnd, Stretch, WINDOW, scan},
    },
    moment::Since,
    producers::Kept,
    segment::{Extent, Segment, Stage, segment_path},
    transactions::{Aborted, aborted::EXTENSION},
};

impl<D: Disk> Opening<'_, D> {
    pub(super) async fn open_segments(
        &mut self,
        files: &BTreeMap<Offset, u64>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<VecDeque<Rc<Segment<D>>>, LogError> {
        let mut segments: VecDeque<Rc<Segment<D>>> = VecDeque::new();
        let (start, recovery, facts) = match checkpoint {
            Some(checkpoint) => (
                checkpoint.log_start_offset,
                Some(checkpoint.recovery),
                checkpoint.segments,
            ),
            None => (0, None, Vec::new()),
        };
        let facts: BTreeMap<u64, SegmentFacts> = facts.into_iter().map(|facts| (facts.base_offset, facts)).collect();
        // A segment below the log start offset may have been removed since the checkpoint was written.
        let needed = |facts: &SegmentFacts| {
            let is_settled = recovery.is_some_and(|recovery| facts.base_offset < recovery.segment);
            facts.size > 0 && !(is_settled && facts.next_offset <= start)
        };
        let is_there = |facts: &SegmentFacts| files.contains_key(&Offset::new(facts.base_offset));
        if let Some(lost) = facts.values().find(|facts| needed(facts) && !is_there(facts)) {
            return Err(self.corrupt(Offset::new(lost.base_offset), 0, "the file is missing"));
        }
        let mut following = files.keys().skip(1).copied();
        for (&base_offset, &size) in files {
            let next = following.next();
            let known = facts.get(&base_offset.get()).copied();
            let is_settled = recovery.is_some_and(|recovery| base_offset.get() < recovery.segment);
            // Of a segment that goes on behind the recovery point, the checkpoint does not know the end.
            if is_settled && known.is_some_and(|known| known.next_offset <= start) && next.is_some() {
                // Retention was interrupted between the checkpoint and the removal.
                self.remove(base_offset).await?;
                continue;
            }
            if is_settled && known.is_none() {
                self.remove(base_offset).await?;
                continue;
            }
            if let Some(before) = segments.back()
                && !before.reaches(base_offset)
            {
                let reason = format!(
                    "it begins at offset {base_offset}, but the one before it ends at {}",
                    before.extent.get().next_offset
                );
                return Err(self.corrupt(base_offset, 0, &reason));
            }
            let segment = match known {
                Some(known) if is_settled => self.trust(known, size)?,
                _ => self.scan_segment(base_offset, size, known, next).await?,
            };
            segment.has_holes.set(self.compaction.has_holes(base_offset));
            segments.push_back(Rc::new(segment));
        }
        Ok(segments)
    }

    /// A segment that the checkpoint vouches for.
    fn trust(&self, known: SegmentFacts, size: u64) -> Result<Segment<D>, LogError> {
        let base_offset = Offset::new(known.base_offset);
        if size < known.size {
            let reason = format!("the file has {size} bytes of {} that were durable", known.size);
            return Err(self.corrupt(base_offset, size, &reason));
        }
        let segment = Segment::new(
            self.directory,
            base_offset,
            self.memory,
            self.config.index_interval_bytes,
        );
        segment.extent.set(known.extent());
        segment.durable.set(known.size);
        note_facts(&segment, known);
        // Not cut to size yet if the crash came first; maintenance will see to it.
        segment.stage.set(if size == known.size {
            Stage::Sealed
        } else {
            Stage::Rolled
        });
        *segment.index.borrow_mut() = None;
        Ok(segment)
    }

    /// Scans a segment from where the checkpoint's knowledge of it ends, and cuts it if no other is `next`.
    async fn scan_segment(
        &mut self,
        base_offset: Offset,
        size: u64,
        known: Option<SegmentFacts>,
        next: Option<Offset>,
    ) -> Result<Segment<D>, LogError> {
        let segment = Segment::new(
            self.directory,
            base_offset,
            self.memory,
            self.config.index_interval_bytes,
        );
        let path = segment.path.clone();
        let mut extent = segment.extent.get();
        let mut index = Index::new(base_offset, self.config.index_interval_bytes);
        if let Some(known) = known.filter(|known| known.size > size) {
            let reason = format!("the file has {size} bytes of {} that were durable", known.size);
            return Err(self.corrupt(base_offset, size, &reason));
        }
        if let Some(known) = known
            && let Some(stored) = self.read_index(base_offset, known.size).await
        {
            index = stored;
            extent = known.extent();
        }
        match known {
            Some(known) => note_facts(&segment, known),
            None => segment.transactions.open_since.set(self.transactions.open_since()),
        }
        let is_last = next.is_none();
        // What a journal has kept need not be in the last segment yet: in its place there may be what was never acknowledged. Where
        // compaction was, all of it is there, and some of it encoded again.
        let may_differ = is_last && !self.compaction.has_holes(base_offset);
        let kept = self.aside.as_ref().filter(|_| may_differ);
        let kept = kept.map_or_else(|| Ok(Vec::new()), Aside::batches);
        let kept =
            kept.map_err(|reason| self.corrupt(base_offset, 0, &format!("what its journal has kept: {reason}")))?;
        let mut other: Option<(u64, Offset)> = None;
        let (producers, epochs) = (&mut self.producers, &mut self.epochs);
        let (transactions, mut aborted) = (&mut self.transactions, Vec::new());
        // Batches that the checkpoint knows of are in its epochs and its producer state already.
        let noted = known.map_or(base_offset, |known| Offset::new(known.next_offset));
        let (mut times, mut next_offset) = (extent.times, extent.next_offset);
        let mut scanned = extent;
        if extent.end < size {
            let file = segment.open(self.disk).await?;
            let batch_size_max = self.config.batch.batch_size_max;
            let note = |batch: &RecordBatch<'_>, position| {
                if other.is_none() && is_other(&kept, batch) {
                    other = Some((position, next_offset));
                }
                if other.is_some() {
                    return;
                }
                times.note(batch.max_timestamp(), Since::UNKNOWN);
                index.add(batch.base_offset(), position, times.max_timestamp);
                if batch.base_offset() >= noted {
                    // A hole before it is its epoch's.
                    epochs.note(batch.leader_epoch(), next_offset.max(noted));
                    producers.note(batch, batch.base_offset(), Since::UNKNOWN, Kept::ALL_FILED);
                    if batch.is_transactional() || batch.is_control() {
                        segment.transactions.has_any.set(true);
                        aborted.extend(transactions.note(batch, batch.base_offset()));
                    }
                }
                next_offset = batch.next_offset();
            };
            let stretch = Stretch {
                position: extent.end,
                size,
                expected: extent.next_offset,
                has_holes: self.compaction.has_holes(base_offset),
            };
            let found = scan(&file, stretch, batch_size_max, note);
            let mut found = found.await.map_err(LogError::io("read", &path))?;
            if let Some((position, offset)) = other {
                (found.position, found.next_offset) = (position, offset);
                found.end = ScanEnd::Bad("a batch in the place of the one that was acknowledged".to_owned());
            }
            self.report.scanned_bytes += found.position - extent.end;
            scanned = Extent {
                end: found.position,
                next_offset: found.next_offset,
                times,
            };
            if known.is_some_and(|known| found.position < known.size) {
                let reason = format!("a batch that was durable does not read back: {:?}", found.end);
                return Err(self.corrupt(base_offset, found.position, &reason));
            }
            match found.end {
                ScanEnd::EndOfFile | ScanEnd::Reserved => segment.prepared.set(size),
                ScanEnd::Bad(reason) if is_last => self.cut(&segment, &file, scanned, size, reason).await?,
                // It is whole; what follows is from before its file was recycled, and will be cut when it is sealed.
                ScanEnd::Bad(_) if next == Some(found.next_offset) => segment.prepared.set(size),
                ScanEnd::Bad(reason) => return Err(self.corrupt(base_offset, found.position, &reason)),
            }
            if is_last && found.position > extent.end {
                self.secure(&file, &path, extent.end..found.position).await?;
            }
        }
        if let Some(known) = known.filter(|known| self.compaction.has_holes(base_offset) && known.size <= scanned.end) {
            // A truncation into a hole has left no batch that says so.
            scanned.next_offset = scanned.next_offset.max(Offset::new(known.next_offset));
        }
        self.add_aborted(&segment, known, aborted).await;
        segment.extent.set(scanned);
        segment.durable.set(scanned.end);
        *segment.index.borrow_mut() = Some(index);
        segment.stage.set(if is_last { Stage::Active } else { Stage::Rolled });
        Ok(segment)
    }

    /// Makes what was found certain to be on the disk, before it is served.
    async fn secure(&self, file: &D::File, path: &Path, found: Range<u64>) -> Result<(), LogError> {
        match write_again(file, found.start, found.end).await {
            // Where it takes room to write in place (copy on write), serving what there is comes before this; but what a
            // journal has kept must be certain to be here before it is forgotten there.
            Err(error) if is_full(&error) && self.aside.is_none() => {}
            written => written.map_err(LogError::io("write again", path))?,
        }
        file.sync().await.map_err(LogError::io("flush", path))
    }

    /// Adds the aborted transactions that a scan has found to those that are known of the segment.
    async fn add_aborted(&self, segment: &Segment<D>, known: Option<SegmentFacts>, found: Vec<Aborted>) {
        let transactions = &segment.transactions;
        if !transactions.is_loaded() {
            let path = segment_path(self.directory, segment.base_offset, EXTENSION);
            let end = known.map_or(segment.base_offset, |known| Offset::new(known.next_offset));
            let file = self.disk.read_file(&path).await.ok();
            match file.and_then(|file| transactions.decode(segment.base_offset, end, &file)) {
                Some(stored) => transactions.put(stored, false),
                // All are found when the log is open, and can look at what lies before.
                None => return transactions.count_is(-1),
            }
        }
        for aborted in found {
            transactions.add(aborted);
        }
    }

    async fn cut(
        &mut self,
        segment: &Segment<D>,
        file: &D::File,
        end: Extent,
        size: u64,
        reason: String,
    ) -> Result<(), LogError> {
        let path = segment.path.clone();
        let earlier_use = self.config.recycle
            && is_earlier_use(file, end.end, segment.base_offset)
                .await
                .map_err(LogError::io("read", &path))?;
        // What is cut must not come back as records behind new ones, so this is durable before anything is appended.
        file.truncate(end.end).await.map_err(LogError::io("truncate", &path))?;
        if earlier_use {
            self.report.earlier_use_bytes = size - end.end;
            return Ok(());
        }
        let cut = Cut {
            path,
            position: end.end,
            offset: end.next_offset,
            bytes: size - end.end,
            reason,
        };
        tracing::warn!(path = %cut.path.display(), position = cut.position, offset = %cut.offset, bytes = cut.bytes, reason = cut.reason,
            "the end of the log was not whole and has been cut; it had never been acknowledged");
        self.report.cut = Some(cut);
        Ok(())
    }

    async fn read_index(&self, base_offset: Offset, size: u64) -> Option<Index> {
        let interval = self.config.index_interval_bytes;
        let read = read_index(
            self.disk,
            self.directory,
            base_offset,
            size,
            interval,
            &self.memory.indexes,
        )
        .await;
        if read.is_none() {
            self.memory.indexes.one_rebuilt();
        }
        read
    }
}

/// What the checkpoint says of a segment's transactions.
fn note_facts<D: Disk>(segment: &Segment<D>, known: SegmentFacts) {
    let transactions = &segment.transactions;
    transactions.open_since.set(known.open_since.map(Offset::new));
    transactions.has_any.set(known.transactional);
    transactions.count_is(known.aborted);
}

/// Whether the journal has kept another batch for its place.
fn is_other(kept: &[RecordBatch<'_>], batch: &RecordBatch<'_>) -> bool {
    let at = kept.binary_search_by_key(&batch.base_offset(), |kept| kept.base_offset());
    at.is_ok_and(|at| kept[at].bytes() != batch.bytes())
}

/// Has the disk take in again what reads back from `from` to `to`; stable after a flush.
///
/// If only the process died, what it had not flushed reads back and could yet be lost with the power. Nor would a flush alone do: one
/// that failed for the process before leaves bytes that read back, and that no later flush makes stable.
async fn write_again<F: SegmentFile>(file: &F, from: u64, to: u64) -> io::Result<()> {
    let mut position = from - from % BLOCK_SIZE as u64;
    while position < to {
        let bytes = file.read(position, WINDOW.min((to - position) as usize)).await?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let buffer = Rc::new(BlockBuffer::new(bytes.len().next_multiple_of(BLOCK_SIZE)));
        buffer.append(&bytes);
        file.write(buffer.blocks(0, bytes.len()), position).await?;
        position += bytes.len() as u64;
    }
    Ok(())
}
