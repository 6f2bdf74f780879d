//! Writing the batches that stay into a new file.
//!
//! Owned by one compaction. The file that is written has a name of its own until it is whole and durable; opening a log removes
//! what it finds of such files.

use std::{path::PathBuf, rc::Rc};

use headwater_protocol::{batch::BatchHeader, id::Offset};

use super::super::Log;
use crate::{
    disk::{BLOCK_SIZE, BlockBuffer, Disk, OpenFiles, SegmentFile},
    error::LogError,
    index::Index,
    moment::Since,
    segment::{Extent, Segment, Times, segment_path},
    transactions::Aborted,
};

/// Extension of a file that is being written.
pub(in crate::log) const EXTENSION: &str = "cleaned";

/// Bytes of one write.
const WRITE_BYTES: usize = 256 << 10;

/// A segment in the making.
#[derive(Debug)]
pub(super) struct Output<D: Disk> {
    pub(super) path: PathBuf,
    base_offset: Offset,
    file: D::File,
    buffer: Rc<BlockBuffer>,
    /// Bytes that are in the file.
    written: u64,
    times: Times,
    index: Index,
    /// An emptied batch that has to follow if nothing else does, so that the segment ends at the offset where it ended.
    last: Option<Vec<u8>>,
    /// Of the markers in it.
    pub(super) aborted: Vec<Aborted>,
    /// There is something of transactions in it.
    pub(super) has_transactions: bool,
    /// It is not just a copy.
    pub(super) differs: bool,
}

impl<D: Disk> Output<D> {
    /// Begins the file, which is made anew if it is there.
    pub(super) async fn begin(log: &Log<D>, base_offset: Offset) -> Result<Output<D>, LogError> {
        let path = segment_path(&log.directory, base_offset, EXTENSION);
        let removed = log.disk.remove_file(&path).await;
        removed.map_err(LogError::io("remove", &path))?;
        let file = log.disk.open(&path, true).await.map_err(LogError::io("open", &path))?;
        Ok(Output {
            path,
            base_offset,
            file,
            buffer: Rc::new(BlockBuffer::new(WRITE_BYTES)),
            written: 0,
            times: Times::NONE,
            index: Index::new(base_offset, log.config().index_interval_bytes),
            last: None,
            aborted: Vec::new(),
            has_transactions: false,
            differs: false,
        })
    }

    pub(super) fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// Bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.written + self.buffer.filled() as u64
    }

    /// Appends a batch.
    pub(super) async fn put(&mut self, batch: &[u8]) -> Result<(), LogError> {
        self.differs |= self.last.take().is_some();
        if let Ok(header) = BatchHeader::read(batch) {
            self.times.note(header.max_timestamp(), Since::UNKNOWN);
            let (size, max_timestamp) = (self.size(), self.times.max_timestamp);
            self.index.add(header.base_offset(), size, max_timestamp);
        }
        let mut rest = batch;
        while !rest.is_empty() {
            rest = &rest[self.buffer.append(rest)..];
            if self.buffer.room() == 0 {
                self.write().await?;
            }
        }
        Ok(())
    }

    /// Leaves a batch out. `emptied` is what has to be written if it turns out to be the last, as that is it what it was before
    /// already if it had no records.
    pub(super) fn skip(&mut self, emptied: Vec<u8>, had_records: bool) {
        self.differs |= had_records || self.last.is_some();
        self.last = Some(emptied);
    }

    async fn write(&mut self) -> Result<(), LogError> {
        let filled = self.buffer.filled();
        if filled == 0 {
            return Ok(());
        }
        let written = self.file.write(self.buffer.blocks(0, filled), self.written).await;
        written.map_err(LogError::io("write", &self.path))?;
        self.written += filled as u64;
        match Rc::get_mut(&mut self.buffer) {
            Some(buffer) => buffer.reset(),
            None => self.buffer = Rc::new(BlockBuffer::new(WRITE_BYTES)),
        }
        Ok(())
    }

    /// Makes all of it durable, and cuts the file to its size.
    pub(super) async fn finish(&mut self) -> Result<(), LogError> {
        if let Some(last) = self.last.take() {
            self.put(&last).await?;
        }
        self.write().await?;
        self.file.sync().await.map_err(LogError::io("flush", &self.path))?;
        if !self.written.is_multiple_of(BLOCK_SIZE as u64) {
            let cut = self.file.truncate(self.written).await;
            cut.map_err(LogError::io("truncate", &self.path))?;
        }
        Ok(())
    }

    /// Puts the file, once finished, into a segment, which has no name yet and ends where the `last` ended that it was made of.
    pub(super) fn fill(self, segment: &Segment<D>, last: Extent, files: &Rc<OpenFiles>) {
        segment.extent.set(Extent {
            end: self.written,
            next_offset: last.next_offset,
            times: Times {
                appended: last.times.appended,
                ..self.times
            },
        });
        segment.durable.set(self.written);
        segment.retire();
        segment.has_holes.set(true);
        segment.transactions.put(self.aborted, false);
        segment.transactions.has_any.set(self.has_transactions);
        *segment.index.borrow_mut() = Some(self.index);
        segment.file.put(self.file, files);
    }
}
