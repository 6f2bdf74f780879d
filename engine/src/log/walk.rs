//! A walk over the durable batches of a segment, for whoever must not be misled by damage: each is checked before anything of it is
//! believed, and what is wrong is named. Owned by whoever walks; ends when the log is truncated.

use bytes::Bytes;

use super::{
    Log,
    scan::{Reader, ScanEnd, Stretch},
};
use crate::{disk::Disk, error::LogError, segment::Segment};

/// Bytes that are read at a time by who wants a batch or two.
pub(super) const LOOK_BYTES: usize = 16 << 10;

pub(super) struct Walk<'a, D: Disk> {
    log: &'a Log<D>,
    segment: &'a Segment<D>,
    reader: Reader<'a, D::File>,
    truncations: u64,
}

impl<'a, D: Disk> Walk<'a, D> {
    /// Over all of a segment that takes no more appends. `read_bytes` are read at a time.
    pub(super) fn over_all(
        log: &'a Log<D>,
        segment: &'a Segment<D>,
        file: &'a D::File,
        read_bytes: usize,
    ) -> Walk<'a, D> {
        let stretch = Stretch::up_to(segment, segment.end());
        Walk::over(log, segment, file, stretch, read_bytes)
    }

    /// Over a stretch of it that is durable.
    pub(super) fn over(
        log: &'a Log<D>,
        segment: &'a Segment<D>,
        file: &'a D::File,
        stretch: Stretch,
        read_bytes: usize,
    ) -> Walk<'a, D> {
        let batch_size_max = log.config().batch.batch_size_max;
        Walk {
            log,
            segment,
            reader: Reader::new(file, stretch, batch_size_max, read_bytes),
            truncations: log.state.borrow().compaction.truncations,
        }
    }

    /// Where the next batch begins.
    pub(super) fn position(&self) -> u64 {
        self.reader.place().0
    }

    /// Whether the log was truncated since the walk began, which then has ended early.
    pub(super) fn is_cut(&self) -> bool {
        self.log.state.borrow().compaction.truncations != self.truncations
    }

    /// The next batch; `None` at the end, and if the log was truncated meanwhile.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, LogError> {
        let position = self.position();
        let taken = self.reader.next().await;
        if self.log.state.borrow().compaction.truncations != self.truncations {
            return Ok(None);
        }
        let reason = match taken.map_err(LogError::io("read", &self.segment.path))? {
            Ok(batch) if batch.next_offset() <= self.segment.extent.get().next_offset => {
                return Ok(Some(Bytes::copy_from_slice(batch.bytes())));
            }
            Ok(batch) => format!("offset {} in a segment that ends before it", batch.last_offset()),
            Err(ScanEnd::EndOfFile) => return Ok(None),
            Err(ScanEnd::Reserved) => "there are zeros in the place of a batch".to_owned(),
            Err(ScanEnd::Bad(reason)) => reason,
        };
        Err(self.log.corrupt(self.segment, position, &reason))
    }
}
