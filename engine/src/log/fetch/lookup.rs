//! Offsets by time. The index says where to begin, and from there on every batch is checked before its timestamps are believed: one
//! that damage makes look too early would be passed over, and a reader would begin behind records that it asked for.

use std::rc::Rc;

use bytes::Bytes;
use headwater_protocol::{
    batch::{BatchHeader, RecordSet},
    id::{Offset, Timestamp},
};

use super::with_index;
use crate::{
    disk::Disk,
    error::LogError,
    log::{
        DECOMPRESSED_SIZE_MAX, Log,
        scan::Stretch,
        walk::{LOOK_BYTES, Walk},
    },
    segment::{Segment, Sight},
};

impl<D: Disk> Log<D> {
    /// Offset and timestamp of the first record whose timestamp is `timestamp` or later, if it is durable and below the high watermark.
    pub async fn offset_for_timestamp(&self, timestamp: Timestamp) -> Result<Option<(Offset, Timestamp)>, LogError> {
        loop {
            match self.as_late(timestamp).await {
                // Where it looked, the log is another one by now.
                Err(LogError::Truncated) => {}
                found => {
                    let high_watermark = self.offsets().high_watermark;
                    return Ok(found?.filter(|(offset, _)| *offset < high_watermark));
                }
            }
        }
    }

    /// Offset and timestamp of the first record that has the latest timestamp of all, with the same bounds.
    pub async fn offset_of_latest_timestamp(&self) -> Result<Option<(Offset, Timestamp)>, LogError> {
        let latest = {
            let state = self.state.borrow();
            let extents = state.segments.iter().map(|segment| segment.extent.get());
            let kept = extents.filter(|extent| extent.next_offset > state.start);
            kept.map(|extent| extent.times.max_timestamp).max()
        };
        match latest.filter(|latest| *latest > Timestamp::NONE) {
            Some(latest) => self.offset_for_timestamp(latest).await,
            None => Ok(None),
        }
    }

    /// The same as [`offset_for_timestamp`](Self::offset_for_timestamp), in the log as it is now.
    async fn as_late(&self, timestamp: Timestamp) -> Result<Option<(Offset, Timestamp)>, LogError> {
        if self.state.borrow().has_unfiled() {
            // It is read from the files.
            self.file().await?;
        }
        let (start, segments) = {
            let state = self.state.borrow();
            let holds_some = |segment: &&Rc<Segment<D>>| segment.base_offset < state.filed.offset;
            let segments = state.segments.iter().take_while(holds_some).map(Sight::of);
            (state.start, segments.collect::<Vec<_>>())
        };
        for segment in segments {
            segment.check()?;
            let extent = segment.extent.get();
            if extent.times.max_timestamp < timestamp || extent.next_offset <= start {
                continue;
            }
            match self.as_late_in(&segment, timestamp, start).await {
                Ok(None) => {}
                // Retention has taken the segment meanwhile.
                Err(_) if extent.next_offset <= self.offsets().start => {}
                found => return found,
            }
        }
        Ok(None)
    }

    /// The same, in one segment.
    async fn as_late_in(
        &self,
        segment: &Sight<D>,
        timestamp: Timestamp,
        start: Offset,
    ) -> Result<Option<(Offset, Timestamp)>, LogError> {
        let size = self.state.borrow().filed_end_of(segment);
        self.load_index(segment).await?;
        let indexed = with_index(segment, |index| {
            // Both lie before what is wanted, and the later one is nearer.
            index.before_timestamp(timestamp).max(index.floor(start))
        });
        let (position, expected) = indexed.unwrap_or((0, segment.base_offset));
        let stretch = Stretch {
            position,
            expected,
            ..Stretch::up_to(segment, size)
        };
        let file = segment.still(segment.open(&self.disk).await)?;
        let mut walk = Walk::over(self, segment, &file, stretch, LOOK_BYTES);
        loop {
            let position = walk.position();
            let Some(batch) = segment.still(walk.next().await)? else {
                if walk.is_cut() {
                    return Err(LogError::Truncated);
                }
                return Ok(None);
            };
            let found = first_as_late(&batch, timestamp, start);
            if let Some(found) = found.map_err(|reason| self.corrupt(segment, position, &reason))? {
                return Ok(Some(found));
            }
        }
    }
}

/// The first record in a checked batch that is as late, from `start` on.
fn first_as_late(batch: &Bytes, timestamp: Timestamp, start: Offset) -> Result<Option<(Offset, Timestamp)>, String> {
    let header = BatchHeader::read(batch).map_err(|error| error.to_string())?;
    if header.max_timestamp() < timestamp || header.next_offset() <= start {
        return Ok(None);
    }
    let records = RecordSet::decode_without_crc(batch, DECOMPRESSED_SIZE_MAX).map_err(|error| error.to_string())?;
    for record in &records {
        let record = record.map_err(|error| error.to_string())?;
        if record.timestamp >= timestamp && record.offset >= start {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}
