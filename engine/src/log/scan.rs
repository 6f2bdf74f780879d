//! Walks the batches of a segment file from front to back, with every check there is: for recovery, for rebuilding indexes, for
//! compaction, and for look-ups that must not be misled. Reads in windows, so memory stays bounded by the window and the largest batch: a length is believed only if it is
//! one that is allowed, or if the checksum of all that it spans holds.

use std::io;

use headwater_protocol::{
    batch::{BatchError, BatchHeader, BatchLimits, HEADER_LEN, RecordBatch},
    id::Offset,
};

use crate::{
    disk::{Disk, SegmentFile},
    segment::Segment,
};

/// Bytes that are read at a time by who reads a whole segment.
pub(super) const WINDOW: usize = 1 << 20;

/// First byte of a batch that its checksum covers.
const CRC_FROM: usize = 21;

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
    /// Bytes that are read at a time, if no more are wanted.
    read_bytes: usize,
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
                .max(self.read_bytes)
                .min(usize::try_from(self.size - position).unwrap_or(usize::MAX));
            self.bytes = self.file.read(position, length).await?;
            self.start = position;
        }
        Ok(&self.bytes[(position - self.start) as usize..])
    }

    /// Why a batch at `position` that claims `claimed` bytes, more than `allowed`, is not one. Takes no memory of that size.
    async fn doubt(&mut self, position: u64, claimed: usize, allowed: usize) -> io::Result<Option<String>> {
        let left = self.size - position;
        if claimed as u64 > left {
            let reason = format!("a batch claims {claimed} bytes, where {allowed} are allowed and {left} are left");
            return Ok(Some(reason));
        }
        let stored = BatchHeader::read(self.at(position, HEADER_LEN).await?).map(BatchHeader::crc);
        let (mut computed, mut done) = (0, CRC_FROM);
        while done < claimed {
            let piece = self.at(position + done as u64, (claimed - done).min(WINDOW)).await?;
            let piece = &piece[..piece.len().min(claimed - done)];
            if piece.is_empty() {
                break; // The file has become shorter.
            }
            computed = crc32c::crc32c_append(computed, piece);
            done += piece.len();
        }
        if stored == Ok(computed) {
            return Ok(None);
        }
        let reason =
            format!("a batch claims {claimed} bytes, where {allowed} are allowed, and its checksum does not hold");
        Ok(Some(reason))
    }
}

/// Where batches to be read lie, and what is expected of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    /// A batch boundary.
    pub(super) position: u64,
    /// Where to stop.
    pub(super) size: u64,
    /// Offset of the first batch, or, with holes, the least that it may have.
    pub(super) expected: Offset,
    /// Compaction may have taken out offsets.
    pub(super) has_holes: bool,
}

impl Stretch {
    /// A segment from its beginning up to `size`.
    pub(super) fn up_to<D: Disk>(segment: &Segment<D>, size: u64) -> Stretch {
        Stretch {
            position: 0,
            size,
            expected: segment.base_offset,
            has_holes: segment.has_holes.get(),
        }
    }

    fn follows(&self, offset: Offset) -> bool {
        offset == self.expected || (self.has_holes && offset > self.expected)
    }
}

/// Reads batch after batch of a stretch, each with every check there is.
pub(super) struct Reader<'a, F: SegmentFile> {
    window: Window<'a, F>,
    /// What has not been read yet.
    rest: Stretch,
    batch_size_max: usize,
}

impl<'a, F: SegmentFile> Reader<'a, F> {
    /// `batch_size_max` is what is allowed for new batches: longer ones may be there from when more was allowed. `read_bytes` are read
    /// at a time.
    pub(super) fn new(file: &'a F, stretch: Stretch, batch_size_max: usize, read_bytes: usize) -> Reader<'a, F> {
        Reader {
            window: Window {
                file,
                size: stretch.size,
                read_bytes,
                start: 0,
                bytes: Vec::new(),
            },
            rest: stretch,
            batch_size_max,
        }
    }

    /// Where the next batch begins, and which offset it has to have.
    pub(super) fn place(&self) -> (u64, Offset) {
        (self.rest.position, self.rest.expected)
    }

    /// The next batch, or why there is none: the place is then where it would begin.
    pub(super) async fn next(&mut self) -> io::Result<Result<RecordBatch<'_>, ScanEnd>> {
        let position = self.rest.position;
        if position >= self.rest.size {
            return Ok(Err(ScanEnd::EndOfFile));
        }
        let head = self.window.at(position, HEADER_LEN).await?;
        let wanted = match BatchHeader::read(head) {
            Ok(header) if !self.rest.follows(header.base_offset()) => {
                return Ok(Err(ScanEnd::Bad(format!(
                    "offset {} where {} has to follow",
                    header.base_offset(),
                    self.rest.expected
                ))));
            }
            Ok(header) => header.size(),
            Err(error) => return Ok(Err(unreadable(&mut self.window, position, &error).await?)),
        };
        if wanted > self.batch_size_max
            && let Some(reason) = self.window.doubt(position, wanted, self.batch_size_max).await?
        {
            return Ok(Err(ScanEnd::Bad(reason)));
        }
        let bytes = self.window.at(position, wanted).await?;
        // What was stored stays valid when the limit for new batches is lowered.
        match RecordBatch::parse(bytes, &BatchLimits { batch_size_max: wanted }) {
            Ok(batch) => {
                self.rest.expected = batch.next_offset();
                self.rest.position += wanted as u64;
                Ok(Ok(batch))
            }
            Err(error) => Ok(Err(ScanEnd::Bad(error.to_string()))),
        }
    }
}

/// Visits every good batch of the stretch, with the position where it begins.
pub(super) async fn scan<F: SegmentFile>(
    file: &F,
    stretch: Stretch,
    batch_size_max: usize,
    mut visit: impl FnMut(&RecordBatch<'_>, u64),
) -> io::Result<Scanned> {
    let mut reader = Reader::new(file, stretch, batch_size_max, WINDOW);
    loop {
        let (position, next_offset) = reader.place();
        match reader.next().await? {
            Ok(batch) => visit(&batch, position),
            Err(end) => {
                return Ok(Scanned {
                    position,
                    next_offset,
                    end,
                });
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready, rc::Rc};

    use futures::{FutureExt as _, executor::block_on};
    use headwater_protocol::{
        batch::{BatchBuilder, Compression},
        id::Timestamp,
    };

    use super::*;
    use crate::disk::ReadOnly;

    const SIZE: u64 = 1100 << 20;

    /// Batches, and then a gigabyte and more of the same byte. Notes the largest read.
    fn large_file(head: Vec<u8>, largest: Rc<Cell<usize>>) -> ReadOnly {
        let read = move |position: u64, length: usize| {
            largest.set(largest.get().max(length));
            let mut bytes = vec![1; length.min((SIZE - position) as usize)];
            let from = (position as usize).min(head.len());
            let count = (head.len() - from).min(bytes.len());
            bytes[..count].copy_from_slice(&head[from..from + count]);
            ready(Ok(bytes)).boxed_local()
        };
        let (size, read) = (SIZE, Rc::new(read));
        ReadOnly { size, read }
    }

    fn batch_of(base_offset: u64, value_len: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None, 16);
        let value = vec![7; value_len];
        builder.append(Timestamp::new(1), None, Some(&value), &[]).unwrap();
        let mut bytes = builder.build().bytes().to_vec();
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes
    }

    fn scanned(head: Vec<u8>, batch_size_max: usize) -> (Scanned, usize) {
        let largest = Rc::new(Cell::new(0));
        let file = large_file(head, Rc::clone(&largest));
        let stretch = Stretch {
            position: 0,
            size: SIZE,
            expected: Offset::ZERO,
            has_holes: false,
        };
        let found = block_on(scan(&file, stretch, batch_size_max, |_, _| {})).unwrap();
        (found, largest.get())
    }

    #[test]
    fn a_header_that_claims_a_gigabyte_costs_no_memory_and_is_reported() {
        for claimed in [1_u32 << 30, i32::MAX.cast_unsigned()] {
            let mut head = batch_of(0, 100);
            let position = head.len() as u64;
            let mut liar = batch_of(1, 100);
            liar[8..12].copy_from_slice(&claimed.to_be_bytes());
            head.extend_from_slice(&liar);
            let (found, largest) = scanned(head, 1 << 20);
            assert_eq!((found.position, found.next_offset.get()), (position, 1));
            assert!(largest <= WINDOW, "{largest} bytes were read at once");
            let ScanEnd::Bad(reason) = found.end else {
                panic!("{:?}", found.end)
            };
            let size = (claimed + 12).to_string();
            assert!(
                reason.contains(&size) && reason.contains("1048576 are allowed"),
                "{reason}"
            );
        }
    }

    #[test]
    fn a_batch_from_when_longer_ones_were_allowed_is_kept() {
        let mut head = batch_of(0, 3 * WINDOW);
        let position = head.len() as u64;
        assert_eq!(scanned(head.clone(), 1 << 20).0.position, position);
        head[position as usize - 1] ^= 1;
        assert_eq!(scanned(head, 1 << 20).0.position, 0);
    }
}
