//! Reading the batches of a sealed segment one by one, and writing those that stay into a new file.
//!
//! Owned by one compaction. The file that is written has a name of its own until it is whole and durable; opening a log removes
//! what it finds of such files.

use std::{path::PathBuf, rc::Rc};

use bytes::Bytes;
use headwater_protocol::{
    batch::{BatchHeader, BatchLimits, HEADER_LEN, RecordBatch},
    id::{Offset, Timestamp},
};

use super::super::{Log, scan::Window};
use crate::{
    disk::{BLOCK_SIZE, BlockBuffer, Disk, SegmentFile},
    error::LogError,
    index::Index,
    segment::{Extent, Segment, segment_path},
};

/// Extension of a file that is being written.
pub(in crate::log) const EXTENSION: &str = "cleaned";

/// Bytes of one write.
const WRITE_BYTES: usize = 256 << 10;

/// A walk over the batches of a segment that is durable and takes no more appends.
pub(super) struct Walk<'a, D: Disk> {
    log: &'a Log<D>,
    segment: &'a Segment<D>,
    window: Window<'a, D::File>,
    position: u64,
    truncations: u64,
}

impl<'a, D: Disk> Walk<'a, D> {
    pub(super) fn new(log: &'a Log<D>, segment: &'a Segment<D>, file: &'a D::File) -> Walk<'a, D> {
        Walk {
            log,
            segment,
            window: Window::new(file, segment.end()),
            position: 0,
            truncations: log.state.borrow().compaction.truncations,
        }
    }

    /// The next batch, checked; `None` at the end of the segment, and if the log was truncated meanwhile.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, LogError> {
        if self.position >= self.window.size {
            return Ok(None);
        }
        let read = LogError::io("read", &self.segment.path);
        let taken = self.take().await;
        if self.log.state.borrow().compaction.truncations != self.truncations {
            return Ok(None);
        }
        let batch = match taken {
            Ok(Ok(batch)) => batch,
            Ok(Err(reason)) => return Err(self.log.corrupt(self.segment, self.position, &reason)),
            Err(error) => return Err(read(error)),
        };
        self.position += batch.len() as u64;
        Ok(Some(batch))
    }

    /// Or what is wrong with it.
    async fn take(&mut self) -> std::io::Result<Result<Bytes, String>> {
        let head = self.window.at(self.position, HEADER_LEN).await?;
        let size = match BatchHeader::read(head) {
            Ok(header) => header.size(),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let allowed = self.log.config().batch.batch_size_max;
        if size > allowed
            && let Some(reason) = self.window.doubt(self.position, size, allowed).await?
        {
            return Ok(Err(reason));
        }
        let bytes = self.window.at(self.position, size).await?;
        let parsed = RecordBatch::parse(bytes, &BatchLimits { batch_size_max: size });
        Ok(parsed
            .map(|batch| Bytes::copy_from_slice(batch.bytes()))
            .map_err(|error| error.to_string()))
    }
}

/// A segment in the making.
#[derive(Debug)]
pub(super) struct Output<D: Disk> {
    pub(super) path: PathBuf,
    base_offset: Offset,
    file: D::File,
    buffer: Rc<BlockBuffer>,
    /// Bytes that are in the file.
    written: u64,
    max_timestamp: Timestamp,
    index: Index,
    /// An emptied batch that has to follow if nothing else does, so that the segment ends at the offset where it ended.
    last: Option<Vec<u8>>,
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
            max_timestamp: Timestamp::NONE,
            index: Index::new(base_offset, log.config().index_interval_bytes),
            last: None,
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
            self.max_timestamp = self.max_timestamp.max(header.max_timestamp());
            self.index.add(header.base_offset(), self.size(), self.max_timestamp);
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

    /// Puts the file, once finished, into a segment, which has no name yet and ends at `next_offset`.
    pub(super) fn fill(self, segment: &Segment<D>, next_offset: Offset) {
        segment.extent.set(Extent {
            end: self.written,
            next_offset,
            max_timestamp: self.max_timestamp,
        });
        segment.durable.set(self.written);
        segment.retired.set(true);
        segment.has_holes.set(true);
        *segment.index.borrow_mut() = Some(self.index);
        *segment.file.borrow_mut() = Some(self.file);
    }
}
