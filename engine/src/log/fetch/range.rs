//! What a fetch has named: whoever sends it takes the bytes from the tail buffer while they are there, else from the file.

use std::{path::Path, time::Instant};

use headwater_protocol::id::Offset;

use crate::{
    disk::{Disk, HeldBytes, SegmentFile},
    error::LogError,
    log::Log,
    segment::Sight,
};

/// A contiguous range of whole batches in one segment.
#[derive(Debug)]
pub struct LogRange<D: Disk> {
    pub(super) segment: Sight<D>,
    pub(super) position: u64,
    pub(super) length: u64,
    /// Offset after the last record.
    pub(super) next_offset: Offset,
    /// Where the durable part of the segment ended when the range was named.
    pub(super) durable_end: u64,
}

impl<D: Disk> Clone for LogRange<D> {
    fn clone(&self) -> Self {
        LogRange {
            segment: self.segment.clone(),
            ..*self
        }
    }
}

impl<D: Disk> LogRange<D> {
    /// Tells the range's segment apart from all others of this process.
    pub fn segment_number(&self) -> u64 {
        self.segment.id.number()
    }

    /// Where the range begins, in bytes of the segment file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// The offset after the last record: where the next fetch begins.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Bytes of the segment file up to which a reader that goes on may be read ahead for: what is only in a journal is in memory.
    pub fn durable_end(&self) -> u64 {
        self.durable_end.min(self.segment.durable.get())
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Moves the start forward over what has been sent.
    pub fn advance(&mut self, bytes: u64) {
        assert!(bytes <= self.length, "advanced {bytes} bytes of {}", self.length);
        self.position += bytes;
        self.length -= bytes;
    }

    /// The part of the range that its first bytes make up, perhaps with part of a batch at its end.
    #[must_use]
    pub fn first(&self, bytes: u64) -> LogRange<D> {
        LogRange {
            length: self.length.min(bytes),
            ..self.clone()
        }
    }

    /// The segment file's name; it may be another file's by now.
    pub fn path(&self) -> &Path {
        &self.segment.path
    }

    /// Whether the bytes in the file are still those that were named: [`LogError::Truncated`] if not. Ask again after each await.
    pub fn check(&self) -> Result<(), LogError> {
        self.segment.check()
    }

    /// The part of the range, from its start, that can be read from the file: what is not durable yet is in memory only.
    #[must_use]
    pub fn on_disk(&self) -> LogRange<D> {
        self.first(self.segment.durable.get().saturating_sub(self.position))
    }

    /// The first bytes of the range as far as one piece of memory holds them, or `None` if they are only on disk (any
    /// more). Hold the slice only while it is being sent: it keeps the memory from being used again.
    pub fn in_memory(&self) -> Option<HeldBytes> {
        self.check().ok()?;
        self.segment.tail_slice(self.position, self.position + self.length)
    }

    /// Whether the first byte was read into memory for consumers, or is being read. If so it stays for a while.
    pub fn is_read(&self, now: Instant) -> bool {
        self.segment.cold.holds(self.segment.id, self.position, now)
    }

    /// Begins to read `[position, position + length)` of the segment file into memory, whose end may lie beyond the range's, as
    /// far as that is durable and not there yet. Returns whether there was memory for all of it.
    pub fn begin_read(&self, file: &D::File, position: u64, length: u64, now: Instant) -> bool {
        let (segment, durable_end) = (&self.segment, self.durable_end());
        self.check().is_ok() && segment.cold.begin(file, segment.id, position, length, durable_end, now)
    }

    /// The first bytes of the range as far as one piece of memory holds them, once they have been read; `None` if nobody has
    /// begun to read them, or they cannot be read. Hold them only while they are being sent.
    pub async fn read(&self, now: Instant) -> Option<HeldBytes> {
        let (segment, end) = (&self.segment, self.position + self.length);
        self.check().ok()?;
        let bytes = segment.cold.bytes(segment.id, self.position, end, now).await;
        self.check().ok().and(bytes)
    }

    /// The segment file, opened if need be. What is not [`on_disk`](Self::on_disk) must not be read from it.
    pub async fn file(&self, disk: &D) -> Result<D::File, LogError> {
        self.segment.still(self.segment.open(disk).await)
    }
}

impl<D: Disk> Log<D> {
    /// The bytes of a range in memory of their own: for requests that came through another core, and for tests.
    pub async fn read(&self, range: &LogRange<D>) -> Result<Vec<u8>, LogError> {
        let mut range = range.clone();
        let mut out = Vec::with_capacity(usize::try_from(range.len()).unwrap_or(0));
        while !range.is_empty() {
            let before = out.len();
            if let Some(slice) = range.in_memory() {
                out.extend_from_slice(&slice);
            } else {
                let file = range.file(&self.disk).await?;
                let length = range.on_disk().length;
                let read = file.read(range.position, length as usize).await;
                let read = range
                    .segment
                    .still(read.map_err(LogError::io("read", &range.segment.path)));
                out.extend_from_slice(&read?);
            }
            if out.len() == before {
                return Err(self.corrupt(&range.segment, range.position, "the file ends before its last batch"));
            }
            range.advance((out.len() - before) as u64);
        }
        Ok(out)
    }
}
