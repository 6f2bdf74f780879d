//! Recycled files: a segment that retention lets go becomes the file of a later segment of the same partition, because blocks that
//! were written before take writes and flushes at twice the speed of reserved ones. Nothing is zeroed but what is said below.
//!
//! Owned by its log. Invariant, on which recovery relies to tell old bytes from new ones: a spare holds whole batches of this
//! partition with offsets below the base offset of the segment that it becomes, and nothing else. It holds, because only a
//! sealed segment is recycled, which was cut to its extent, so that nothing of an earlier use or of a truncation is left in
//! it; because the segment lay wholly below the log start offset, which no truncation goes below; and because a new segment
//! begins at the end of the log. Spares are known in memory only: opening a log removes what it finds of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use futures::stream::{self, StreamExt, TryStreamExt};
use headwater_protocol::{
    batch::{BatchHeader, HEADER_LEN},
    id::Offset,
};

use super::{Log, files::remove_index};
use crate::{
    disk::{BLOCK_SIZE, Disk, SegmentFile},
    error::LogError,
    moment::Moment,
    segment::{Segment, Stage, segment_path},
};

/// Extension of a spare's name.
pub(super) const EXTENSION: &str = "recycled";

/// Spares of one partition: one for the next segment, and one for when retention comes late.
const SPARES_MAX: usize = 2;

/// Time since a segment was last filled after which a partition is not busy, and keeps no spare.
const BUSY: Duration = Duration::from_mins(5);

/// Bytes that a device writes whole or not at all, however a write is torn.
const SECTOR_SIZE: u64 = 512;

/// First bytes of a batch that its checksum does not cover, with the checksum itself.
const UNCOVERED_BYTES: u64 = 21;

/// Writes under way at once while a file is being made a spare.
const WRITES_IN_FLIGHT: usize = 8;

/// A file that waits to become a segment.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    size: u64,
    /// Offset after the last batch in it.
    next_offset: Offset,
}

/// The spares of a log, and what has to be known of its segments to make spares of them.
///
/// A seam is a sector boundary within the first [`UNCOVERED_BYTES`] of a batch. Where a batch of the new segment begins at the
/// same byte as one of the old, a torn write could put the new base offset in front of an old batch whose checksum holds, and
/// recovery would take it for a new one. So the block behind each seam is zeroed before the file is used again.
#[derive(Debug, Default)]
pub(super) struct Spares {
    files: Vec<Spare>,
    /// Blocks with a seam, of each segment that was begun since the log was opened. `None`: too many.
    seams: BTreeMap<Offset, Option<Vec<u32>>>,
    /// Monotonic time at which a segment was last filled.
    filled: Option<Duration>,
    /// A segment was filled since somebody asked.
    is_due: bool,
    /// The disk was full at the last look: it has no room for spares.
    is_short: bool,
}

impl Spares {
    /// A segment is begun.
    pub(super) fn begin(&mut self, base_offset: Offset) {
        self.seams.insert(base_offset, Some(Vec::new()));
    }

    /// A segment is full.
    pub(super) fn filled(&mut self, now: Moment) {
        self.filled = Some(now.monotonic);
        self.is_due = true;
    }

    /// A batch begins at `position` of the segment.
    pub(super) fn note(&mut self, base_offset: Offset, position: u64, segment_size: u64) {
        let boundary = (position + 1).next_multiple_of(SECTOR_SIZE);
        if boundary >= position + UNCOVERED_BYTES {
            return;
        }
        let Some(known) = self.seams.get_mut(&base_offset) else {
            return;
        };
        let Some(blocks) = known else { return };
        let block = u32::try_from(boundary / BLOCK_SIZE as u64).expect("a segment is at most 2 GiB");
        if blocks.last() == Some(&block) {
            return;
        }
        blocks.push(block);
        // Where batches are so small, zeroing would cost more than it gains.
        if blocks.len() as u64 > (segment_size / BLOCK_SIZE as u64 / 64).max(16) {
            *known = None;
        }
    }

    /// The segment is not what was appended any more: it will be no spare.
    pub(super) fn forget(&mut self, base_offset: Offset) {
        self.seams.remove(&base_offset);
    }

    /// `now` by the monotonic clock.
    fn is_busy(&self, now: Duration) -> bool {
        self.filled.is_some_and(|filled| now.saturating_sub(filled) <= BUSY)
    }

    fn wants_more(&self, now: Duration) -> bool {
        self.files.len() < SPARES_MAX && !self.is_short && self.is_busy(now)
    }

    /// A spare for the segment that begins at `base_offset`.
    fn take(&mut self, base_offset: Offset) -> Option<Spare> {
        let spare = self.files.pop()?;
        assert!(
            spare.next_offset <= base_offset,
            "old offsets up to {} in a segment that begins at {base_offset}",
            spare.next_offset
        );
        Some(spare)
    }

    /// Bytes of memory held.
    pub(super) fn size(&self) -> usize {
        let blocks = self.seams.values().flatten().map(Vec::capacity).sum::<usize>();
        blocks * size_of::<u32>()
    }

    /// The disk has taken something.
    pub(super) fn has_room(&mut self) {
        self.is_short = false;
    }
}

impl<D: Disk> Log<D> {
    /// Whether a segment was filled since this was asked last: retention may now find one to delete, and with it a file for the
    /// segment after the next. Always false if files are not recycled.
    pub fn take_filled(&self) -> bool {
        let filled = std::mem::take(&mut self.state.borrow_mut().spares.is_due);
        filled && self.recycles()
    }

    /// What compaction leaves of a segment is a new file each time, and its seams are not known.
    fn recycles(&self) -> bool {
        self.config().recycle && self.config().compaction.is_none()
    }

    /// Makes a spare of the segment, which lies wholly below the log start offset, instead of removing it. Returns whether it
    /// did; if not, or if it failed, the segment's files are as good as before for being removed.
    pub(super) async fn recycle(&self, segment: &Rc<Segment<D>>) -> Result<bool, LogError> {
        let Some(blocks) = self.fit_for_recycling(segment) else {
            return Ok(false);
        };
        segment.file.close();
        remove_index(&self.disk, &self.directory, segment.base_offset).await?;
        let path = segment_path(&self.directory, segment.base_offset, EXTENSION);
        let mut made = self.disk.rename(&segment.path, &path).await;
        if made.is_ok() {
            made = self.zero(&path, blocks).await;
        }
        let spare = Spare {
            path,
            size: segment.end(),
            next_offset: segment.extent.get().next_offset,
        };
        let is_wanted = {
            let state = self.state.borrow();
            assert!(spare.next_offset <= state.start, "a segment in use becomes a spare");
            made.is_ok() && !state.spares.is_short
        };
        if is_wanted {
            self.state.borrow_mut().spares.files.push(spare);
        } else {
            tracing::debug!(path = %segment.path.display(), ?made, "a file is not recycled");
            // If not even the rename was made, the caller removes it under its old name.
            self.remove_spare(&spare).await?;
        }
        Ok(is_wanted)
    }

    /// The blocks to be zeroed in the segment's file, if it may and should become a spare.
    fn fit_for_recycling(&self, segment: &Rc<Segment<D>>) -> Option<Vec<u32>> {
        let mut state = self.state.borrow_mut();
        // Asked once: what fails on the way is not tried again.
        let mut blocks = state.spares.seams.remove(&segment.base_offset).flatten()?;
        // Some were noted for batches that have been truncated since.
        blocks.retain(|block| u64::from(*block) * (BLOCK_SIZE as u64) < segment.end());
        blocks.sort_unstable();
        blocks.dedup();
        // The state holds it, and the caller. Under anybody else's eyes its bytes must not change.
        let is_unseen = Rc::strong_count(segment) == 2;
        // Only then was it cut to its size.
        let is_whole = segment.stage.get() == Stage::Sealed && segment.end() >= self.config().segment_size_bytes / 2;
        let last_append = state.last_append.unwrap_or_default();
        let is_wanted = self.recycles() && state.spares.wants_more(last_append);
        (is_unseen && is_whole && is_wanted).then_some(blocks)
    }

    async fn zero(&self, path: &Path, blocks: Vec<u32>) -> std::io::Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let file = self.disk.open(path, false).await?;
        stream::iter(blocks)
            .map(|block| file.write_zeros(u64::from(block) * BLOCK_SIZE as u64, BLOCK_SIZE as u64))
            .buffer_unordered(WRITES_IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        file.sync().await
    }

    /// Gives a segment that has no byte on disk the file of a spare, if there is one. Returns how many bytes it has.
    pub(super) async fn reuse(&self, segment: &Segment<D>) -> std::io::Result<Option<u64>> {
        if segment.durable.get() > 0 || segment.prepared.get() > 0 {
            return Ok(None);
        }
        let spare = self.state.borrow_mut().spares.take(segment.base_offset);
        let Some(spare) = spare else { return Ok(None) };
        match self.disk.rename(&spare.path, &segment.path).await {
            Ok(()) => Ok(Some(spare.size)),
            Err(error) => {
                // Perhaps it was made: then the log's end is fenced or cut back, and this finds nothing.
                let _ = self.remove_spare(&spare).await;
                Err(error)
            }
        }
    }

    /// The disk is full: gives up the spares.
    pub(super) async fn is_short(&self) {
        self.state.borrow_mut().spares.is_short = true;
        if let Err(error) = self.drop_spares().await {
            tracing::warn!(%error, "a recycled file could not be removed");
        }
    }

    /// Gives up what a partition that is not busy does not need.
    pub(super) async fn drop_idle_spares(&self, now: Moment) -> Result<(), LogError> {
        if self.state.borrow().spares.is_busy(now.monotonic) {
            return Ok(());
        }
        self.state.borrow_mut().spares.seams.clear();
        self.drop_spares().await
    }

    pub(super) async fn drop_spares(&self) -> Result<(), LogError> {
        loop {
            let spare = self.state.borrow_mut().spares.files.pop();
            let Some(spare) = spare else { return Ok(()) };
            self.remove_spare(&spare).await?;
        }
    }

    async fn remove_spare(&self, spare: &Spare) -> Result<(), LogError> {
        let removed = self.disk.remove_file(&spare.path).await;
        removed.map_err(LogError::io("remove", &spare.path))
    }
}

/// Whether what follows the last batch, at `position`, is what a recycled file held before, behind a last write that was whole:
/// padding up to the next block, or right at a block an older batch. Anything else is a torn write.
pub(super) async fn is_earlier_use<F: SegmentFile>(
    file: &F,
    position: u64,
    base_offset: Offset,
) -> std::io::Result<bool> {
    let in_block = (position % BLOCK_SIZE as u64) as usize;
    if in_block == 0 {
        let head = file.read(position, HEADER_LEN).await?;
        return Ok(BatchHeader::read(&head).is_ok_and(|header| header.base_offset() < base_offset));
    }
    let padding = file.read(position, BLOCK_SIZE - in_block).await?;
    Ok(padding.iter().all(|byte| *byte == 0))
}
