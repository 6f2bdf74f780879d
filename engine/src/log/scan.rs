//! Walks the batches of a segment file from front to back, with every check there is: for recovery and for rebuilding
//! indexes. Reads in windows, so memory stays bounded by the window and the largest batch.

use std::io;

use headwater_protocol::{
    batch::{BatchError, BatchHeader, BatchLimits, HEADER_LEN, RecordBatch},
    id::Offset,
};

use crate::disk::SegmentFile;

const WINDOW: usize = 1 << 20;

/// Why a scan ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ScanEnd {
    /// At the end of the file.
    EndOfFile,
    /// Where the file is zeros from here to its end: space that was reserved and never written.
    Reserved,
    /// At bytes that are not the batch that has to come next.
    Bad(String),
}

/// Where a scan ended.
#[derive(Debug)]
pub(super) struct Scanned {
    /// End of the last good batch.
    pub(super) position: u64,
    /// Offset after the last good batch.
    pub(super) next_offset: Offset,
    pub(super) end: ScanEnd,
}

/// A stretch of the file in memory.
struct Window<'a, F: SegmentFile> {
    file: &'a F,
    size: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<F: SegmentFile> Window<'_, F> {
    /// At least `wanted` bytes from `position` on, unless the file ends before.
    async fn at(&mut self, position: u64, wanted: usize) -> io::Result<&[u8]> {
        let wanted = wanted.min(usize::try_from(self.size - position).unwrap_or(usize::MAX));
        let end = self.start + self.bytes.len() as u64;
        if position < self.start || position + wanted as u64 > end {
            let length = wanted
                .max(WINDOW)
                .min(usize::try_from(self.size - position).unwrap_or(usize::MAX));
            self.bytes = self.file.read(position, length).await?;
            self.start = position;
        }
        Ok(&self.bytes[(position - self.start) as usize..])
    }
}

/// Visits every good batch from `position` (a batch boundary, where `expected` begins) up to `size`.
pub(super) async fn scan<F: SegmentFile>(
    file: &F,
    position: u64,
    size: u64,
    expected: Offset,
    mut visit: impl FnMut(&RecordBatch<'_>, u64),
) -> io::Result<Scanned> {
    let mut window = Window {
        file,
        size,
        start: position,
        bytes: Vec::new(),
    };
    let mut at = Scanned {
        position,
        next_offset: expected,
        end: ScanEnd::EndOfFile,
    };
    while at.position < size {
        let head = window.at(at.position, HEADER_LEN).await?;
        let wanted = match BatchHeader::read(head) {
            Ok(header) if header.base_offset() != at.next_offset => {
                at.end = ScanEnd::Bad(format!(
                    "offset {} where {} has to follow",
                    header.base_offset(),
                    at.next_offset
                ));
                break;
            }
            Ok(header) => header.size(),
            Err(error) => {
                at.end = unreadable(&mut window, at.position, &error).await?;
                break;
            }
        };
        let bytes = window.at(at.position, wanted).await?;
        // What was stored stays valid when the limit for new batches is lowered.
        match RecordBatch::parse(bytes, &BatchLimits { batch_size_max: wanted }) {
            Ok(batch) => {
                visit(&batch, at.position);
                at.next_offset = batch.next_offset();
                at.position += wanted as u64;
            }
            Err(error) => {
                at.end = ScanEnd::Bad(error.to_string());
                break;
            }
        }
    }
    Ok(at)
}

async fn unreadable<F: SegmentFile>(
    window: &mut Window<'_, F>,
    mut position: u64,
    error: &BatchError,
) -> io::Result<ScanEnd> {
    while position < window.size {
        let bytes = window.at(position, WINDOW).await?;
        if bytes.is_empty() {
            break;
        }
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(ScanEnd::Bad(error.to_string()));
        }
        position += bytes.len() as u64;
    }
    Ok(ScanEnd::Reserved)
}
