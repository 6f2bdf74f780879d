//! The records of a batch, decompressed once and read in place.
//!
//! ```text
//! record: length, attributes i8, timestamp delta, offset delta, key length, key, value length, value,
//!         header count, { key length, key, value length, value } …
//! ```
//!
//! Every number but the attributes is of variable length (see `varint`); length -1 is null. A [`RecordSet`] holds its
//! bytes by reference count, so that a record can outlive the response it came in without a copy.

#![expect(
    clippy::inline_always,
    reason = "else a field comes back in two halves and is read as a whole, which waits for both to be in the cache"
)]

use bytes::Bytes;

use super::compression::decompress;
use super::varint::{take_i32, take_i64};
use super::{BatchError, BatchHeader, BatchLimits, Compression, HEADER_LEN, RecordBatch, RecordFault, TimestampType};
use crate::id::{Offset, Timestamp};

/// Bytes in the shortest record: one for each of its seven fields.
pub(super) const RECORD_LEN_MIN: usize = 7;

/// What is in memory was let in already; a batch that goes on beyond it is cut off, whatever its size.
const UNLIMITED: BatchLimits = BatchLimits {
    batch_size_max: usize::MAX,
};

/// A batch, opened.
#[derive(Debug, Clone)]
pub struct RecordSet {
    header: [u8; HEADER_LEN],
    records: Bytes,
}

impl RecordSet {
    /// Checks the batch at the start of `batch` as [`RecordBatch::parse`] does, and opens it.
    ///
    /// `decompressed_size_max` limits, in bytes, what compressed records may become. Records that are not compressed
    /// are not copied.
    pub fn decode(batch: &Bytes, decompressed_size_max: usize) -> Result<Self, BatchError> {
        Self::open(&RecordBatch::parse(batch, &UNLIMITED)?, batch, decompressed_size_max)
    }

    /// [`RecordSet::decode`] without looking at the CRC, for a reader that has reason to trust the bytes. Damage that
    /// breaks the form is still an error; damage within a key or value is not noticed.
    pub fn decode_without_crc(batch: &Bytes, decompressed_size_max: usize) -> Result<Self, BatchError> {
        let parsed = RecordBatch::parse_without_crc(batch, UNLIMITED)?;
        Self::open(&parsed, batch, decompressed_size_max)
    }

    /// Opens a batch that was checked already and lies within `source`.
    ///
    /// # Panics
    /// When the batch does not lie within `source`.
    pub fn open(batch: &RecordBatch<'_>, source: &Bytes, decompressed_size_max: usize) -> Result<Self, BatchError> {
        let records = match batch.compression() {
            Compression::None => source.slice_ref(batch.records()),
            compression => decompress(compression, batch.records(), decompressed_size_max)?.into(),
        };
        Ok(Self {
            header: *batch.header().bytes(),
            records,
        })
    }

    /// The header of the batch.
    pub const fn header(&self) -> BatchHeader<'_> {
        BatchHeader::trusted(&self.header)
    }

    /// The records in order. Ends after the first that is malformed.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter::new(self.header(), &self.records)
    }

    /// The record at the cursor, which moves on past it: what [`RecordSet::iter`] does, for a walk that is interrupted.
    ///
    /// `cursor` starts at its default and belongs to this set alone.
    #[inline]
    pub fn next_record(&self, cursor: &mut RecordCursor) -> Option<Result<RecordView<'_>, BatchError>> {
        let rest = self.records.get(cursor.position..).unwrap_or_default();
        let RecordCursor {
            index,
            offset_delta_min,
            done,
            ..
        } = *cursor;
        let mut iter = RecordIter {
            rest,
            index,
            offset_delta_min,
            done,
            ..self.iter()
        };
        let record = iter.next();
        let position = self.records.len() - iter.rest.len();
        *cursor = RecordCursor {
            position,
            index: iter.index,
            offset_delta_min: iter.offset_delta_min,
            done: iter.done,
        };
        record
    }

    /// A key or value of one of these records that keeps the bytes alive, without a copy.
    ///
    /// # Panics
    /// When the slice is not part of these records.
    pub fn slice(&self, part: &[u8]) -> Bytes {
        self.records.slice_ref(part)
    }
}

impl<'a> IntoIterator for &'a RecordSet {
    type Item = Result<RecordView<'a>, BatchError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// How far a walk over the records of a [`RecordSet`] has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordCursor {
    /// In bytes of records.
    position: usize,
    index: u32,
    offset_delta_min: u32,
    done: bool,
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone)]
pub struct RecordView<'a> {
    /// Its number in the partition.
    pub offset: Offset,
    /// The producer's timestamp, or the time of the append if the batch has that.
    pub timestamp: Timestamp,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null, a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// The headers in order.
    pub headers: HeaderIter<'a>,
}

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeaderRef<'a> {
    /// The key; several headers may have the same.
    pub key: &'a str,
    /// The value; `None` is null.
    pub value: Option<&'a [u8]>,
}

/// Iterates over the records of a batch, checking each as it comes; ends after the first that is malformed.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
    base_offset: Offset,
    base_timestamp: Timestamp,
    /// The timestamp of every record, if the broker gave it.
    append_time: Option<Timestamp>,
    index: u32,
    count: u32,
    /// What the offset deltas lie below: more than the count, where compaction has taken records out.
    offset_count: u32,
    /// The smallest offset delta that the next record may have.
    offset_delta_min: u32,
    done: bool,
}

impl<'a> RecordIter<'a> {
    pub(super) fn new(header: BatchHeader<'_>, records: &'a [u8]) -> Self {
        let append_time = match header.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(header.max_timestamp()),
        };
        Self {
            rest: records,
            base_offset: header.base_offset(),
            base_timestamp: header.base_timestamp(),
            append_time,
            index: 0,
            count: header.record_count(),
            offset_count: header.offset_count(),
            offset_delta_min: 0,
            done: false,
        }
    }

    /// The next record, and whatever is there is taken for one: not beyond those that are counted.
    #[inline(always)]
    pub(super) fn take_record(&mut self) -> Result<RecordView<'a>, RecordFault> {
        let len = take_len(&mut self.rest)?;
        let mut body = take_bytes(&mut self.rest, len)?;
        let _attributes = take_bytes(&mut body, 1)?;
        let timestamp = self.timestamp(take_i64(&mut body)?)?;
        let offset = self.offset(take_i32(&mut body)?)?;
        let key = take_nullable(&mut body)?;
        let value = take_nullable(&mut body)?;
        let headers = HeaderIter::check(body)?;
        Ok(RecordView {
            offset,
            timestamp,
            key,
            value,
            headers,
        })
    }

    /// Whether nothing is left.
    pub(super) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    fn timestamp(&self, delta: i64) -> Result<Timestamp, RecordFault> {
        if let Some(append_time) = self.append_time {
            return Ok(append_time);
        }
        let timestamp = self.base_timestamp.get().checked_add(delta).map(Timestamp::new);
        timestamp
            .filter(|&timestamp| timestamp >= Timestamp::NONE)
            .ok_or(RecordFault::Timestamp)
    }

    #[inline]
    fn offset(&mut self, delta: i32) -> Result<Offset, RecordFault> {
        let delta = u32::try_from(delta)
            .ok()
            .filter(|delta| (self.offset_delta_min..self.offset_count).contains(delta));
        let delta = delta.ok_or(RecordFault::OffsetDelta)?;
        self.offset_delta_min = delta + 1;
        Ok(self.base_offset + u64::from(delta))
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let record = if self.index < self.count {
            self.take_record()
        } else if self.rest.is_empty() {
            self.done = true;
            return None;
        } else {
            Err(RecordFault::MoreRecords)
        };
        let index = self.index;
        self.index += 1;
        Some(record.map_err(|fault| {
            self.done = true;
            BatchError::BadRecord {
                base_offset: self.base_offset,
                index,
                fault,
            }
        }))
    }
}

/// Iterates over the headers of a record, which were checked with the record.
#[derive(Debug, Clone, Default)]
pub struct HeaderIter<'a> {
    rest: &'a [u8],
    count: usize,
}

impl<'a> HeaderIter<'a> {
    /// Checks that `body` is a header count, as many headers, and nothing else.
    #[inline(always)]
    fn check(mut body: &'a [u8]) -> Result<Self, RecordFault> {
        let count = take_len(&mut body)?;
        let headers = Self { rest: body, count };
        for _ in 0..count {
            take_header(&mut body)?;
        }
        if body.is_empty() {
            Ok(headers)
        } else {
            Err(RecordFault::TrailingBytes)
        }
    }
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = HeaderRef<'a>;

    fn next(&mut self) -> Option<HeaderRef<'a>> {
        self.count = self.count.checked_sub(1)?;
        // Cannot fail any more; were it to, the headers would end here.
        take_header(&mut self.rest).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for HeaderIter<'_> {}

fn take_header<'a>(input: &mut &'a [u8]) -> Result<HeaderRef<'a>, RecordFault> {
    let len = take_len(input)?;
    let key = std::str::from_utf8(take_bytes(input, len)?)?;
    Ok(HeaderRef {
        key,
        value: take_nullable(input)?,
    })
}

#[inline(always)]
fn take_nullable<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordFault> {
    match take_i32(input)? {
        -1 => Ok(None),
        len if len < 0 => Err(RecordFault::NegativeLength),
        len => take_bytes(input, len.cast_unsigned() as usize).map(Some),
    }
}

#[inline]
fn take_len(input: &mut &[u8]) -> Result<usize, RecordFault> {
    let len = take_i32(input)?;
    if len < 0 {
        Err(RecordFault::NegativeLength)
    } else {
        Ok(len.cast_unsigned() as usize)
    }
}

#[inline]
fn take_bytes<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8], RecordFault> {
    let (taken, rest) = input.split_at_checked(len).ok_or(RecordFault::Truncated)?;
    *input = rest;
    Ok(taken)
}
