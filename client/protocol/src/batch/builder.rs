//! Making batches: one buffer that grows by a record at a time and becomes the batch, without a copy.
//!
//! Used by producers. An append computes the exact size first, so that it either fits or leaves the batch as it was; it
//! allocates only when the buffer must grow. The CRC is computed once, over the finished batch.

use std::mem::MaybeUninit;

use bytes::Bytes;

use super::compression::compress;
use super::header::{self, put};
use super::{BatchError, BatchHeader, Compression, HEADER_LEN, HeaderRef, varint};
use crate::id::{ProducerEpoch, ProducerId, Sequence, Timestamp};

/// Largest batch that can be built, in bytes before compression. Half of what the length field can say, so that no codec
/// can take an incompressible batch beyond that.
pub(super) const SIZE_MAX: usize = 1 << 30;

/// A batch in the making.
#[derive(Debug)]
pub struct BatchBuilder {
    /// The header, filled in at the end, and the records, not compressed.
    buffer: Vec<u8>,
    compression: Compression,
    is_transactional: bool,
    count: u32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
}

impl BatchBuilder {
    /// An empty batch with room for `size_hint` bytes, header included.
    pub fn new(compression: Compression, size_hint: usize) -> Self {
        Self::in_buffer(compression, Vec::with_capacity(size_hint.max(HEADER_LEN)))
    }

    /// An empty batch in memory that was used before; what it holds is forgotten.
    pub fn in_buffer(compression: Compression, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(HEADER_LEN, 0);
        let mut builder = Self {
            buffer,
            compression,
            is_transactional: false,
            count: 0,
            base_timestamp: Timestamp::NONE,
            max_timestamp: Timestamp::NONE,
        };
        builder.set_producer(ProducerId::NONE, ProducerEpoch::NONE, Sequence::NONE);
        builder
    }

    /// Adds a record and returns its number in the batch, from 0.
    ///
    /// Fails with [`BatchError::TooLarge`] beyond 1 GiB, and with [`BatchError::BadTimestamp`] for a timestamp that is
    /// negative and not [`Timestamp::NONE`]; the batch is then as it was.
    pub fn append(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderRef<'_>],
    ) -> Result<u32, BatchError> {
        if timestamp < Timestamp::NONE {
            return Err(BatchError::BadTimestamp {
                base: self.base_timestamp,
                max: timestamp,
            });
        }
        let base = if self.count == 0 {
            timestamp
        } else {
            self.base_timestamp
        };
        let timestamp_delta = timestamp.get() - base.get();
        let index = self.count;
        let record = RecordParts {
            timestamp_delta,
            offset_delta: index,
            key,
            value,
            headers: headers.iter().copied(),
        };
        let before = self.buffer.len();
        let size = before.saturating_add(record.body_len()).saturating_add(varint::LEN_MAX);
        if size > SIZE_MAX {
            return Err(BatchError::TooLarge { size, max: SIZE_MAX });
        }
        record.put(&mut self.buffer);
        self.base_timestamp = base;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
        // The next record is most likely as long as this one.
        let added = self.buffer.len() - before;
        fetch_for_writing(self.buffer.spare_capacity_mut(), added);
        Ok(index)
    }

    /// The most bytes that a record can add to a batch, whatever its place in it; for a producer's own limits.
    pub fn record_size_max(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[HeaderRef<'_>]) -> usize {
        // The longest timestamp delta and the largest index there can be.
        let record = RecordParts {
            timestamp_delta: i64::MAX,
            offset_delta: u32::MAX / 2,
            key,
            value,
            headers: headers.iter().copied(),
        };
        record.body_len().saturating_add(varint::len(i64::from(i32::MAX)))
    }

    /// Bytes of a batch that holds this record alone, header included and before compression.
    pub fn lone_size(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[HeaderRef<'_>]) -> usize {
        let record = RecordParts {
            timestamp_delta: 0,
            offset_delta: 0,
            key,
            value,
            headers: headers.iter().copied(),
        };
        let body_len = record.body_len();
        let prefix_len = varint::len(i64::try_from(body_len).unwrap_or(i64::MAX));
        body_len.saturating_add(HEADER_LEN + prefix_len)
    }

    /// Bytes in the batch so far, header included and before compression.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes of memory that it takes.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gets memory for a batch of `bytes`, and no more. Without it an append that finds no room gets twice as much.
    pub fn grow_to(&mut self, bytes: usize) {
        self.buffer.reserve_exact(bytes.saturating_sub(self.buffer.len()));
    }

    /// Records in the batch so far.
    pub fn record_count(&self) -> u32 {
        self.count
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Names the idempotent producer before the batch is built, which saves [`EncodedBatch::set_producer`] its second
    /// pass over the bytes.
    pub fn set_producer(&mut self, id: ProducerId, epoch: ProducerEpoch, sequence: Sequence) {
        header::put_producer(&mut self.buffer, id, epoch, sequence);
    }

    /// Makes the batch part of its producer's transaction.
    pub fn set_transactional(&mut self) {
        self.is_transactional = true;
    }

    /// Finishes the batch: base offset 0, no leader epoch, compressed, with its CRC.
    ///
    /// # Panics
    /// When there is no record: a batch has at least one.
    pub fn build(self) -> EncodedBatch {
        assert!(self.count > 0, "a batch has at least one record");
        let mut bytes = self.buffer;
        if self.compression != Compression::None {
            let mut compressed = Vec::with_capacity(bytes.len() / 2 + HEADER_LEN);
            compressed.extend_from_slice(&bytes[..HEADER_LEN]);
            compress(self.compression, &bytes[HEADER_LEN..], &mut compressed);
            compressed.shrink_to_fit();
            bytes = compressed;
        }
        let count = self.count.cast_signed();
        header::set_length_and_magic(&mut bytes);
        header::stamp(&mut bytes, crate::id::Offset::ZERO, crate::id::LeaderEpoch::NONE);
        let transactional = if self.is_transactional {
            header::TRANSACTIONAL_BIT
        } else {
            0
        };
        let attributes = i16::from(self.compression.number()) | transactional;
        put(&mut bytes, header::ATTRIBUTES, attributes.to_be_bytes());
        put(&mut bytes, header::LAST_OFFSET_DELTA, (count - 1).to_be_bytes());
        put(
            &mut bytes,
            header::BASE_TIMESTAMP,
            self.base_timestamp.get().to_be_bytes(),
        );
        put(
            &mut bytes,
            header::MAX_TIMESTAMP,
            self.max_timestamp.get().to_be_bytes(),
        );
        put(&mut bytes, header::RECORD_COUNT, count.to_be_bytes());
        header::set_crc(&mut bytes);
        EncodedBatch { bytes }
    }
}

/// Bytes that are fetched ahead at most: behind these the processor sees for itself that memory is written in order.
const FETCH_AHEAD_MAX: usize = 4 << 10;

/// Has the processor get the first `len` bytes of memory that is written to soon, while it does something else.
///
/// Batches in flight are more than its caches hold, so a record is copied to memory that is not in them. Each atomic operation
/// after the copy, such as any lock, waits until all of it has been written: 74 of 726 ms of the client's CPU per GB of 1 KiB records.
fn fetch_for_writing(memory: &mut [MaybeUninit<u8>], len: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};

        const CACHE_LINE: usize = 64;
        let len = len.min(memory.len()).min(FETCH_AHEAD_MAX);
        for line in memory[..len].chunks(CACHE_LINE) {
            // SAFETY: A prefetch changes no memory and cannot fault, whatever the address; SSE is part of x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.as_ptr().cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (memory, len, FETCH_AHEAD_MAX);
}

/// A batch that is ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedBatch {
    bytes: Vec<u8>,
}

impl EncodedBatch {
    /// Names the idempotent producer, and computes the CRC anew.
    pub fn set_producer(&mut self, id: ProducerId, epoch: ProducerEpoch, sequence: Sequence) {
        header::set_producer(&mut self.bytes, id, epoch, sequence);
    }

    /// The batch.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of memory that it takes.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The batch, on its own.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The batch, to be shared; not copied.
    pub fn freeze(self) -> Bytes {
        self.bytes.into()
    }

    /// The header.
    pub fn header(&self) -> BatchHeader<'_> {
        BatchHeader::trusted(self.bytes.first_chunk().expect("a batch begins with its header"))
    }

    /// Records in the batch.
    pub fn record_count(&self) -> u32 {
        self.header().record_count()
    }

    /// The timestamp of the first record.
    pub fn first_timestamp(&self) -> Timestamp {
        self.header().base_timestamp()
    }

    /// The largest timestamp of the records.
    pub fn max_timestamp(&self) -> Timestamp {
        self.header().max_timestamp()
    }
}

/// A record as it is about to be written.
pub(super) struct RecordParts<'a, H> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: u32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: H,
}

impl<'a, H: ExactSizeIterator<Item = HeaderRef<'a>> + Clone> RecordParts<'a, H> {
    /// Bytes in the record after its length.
    #[inline]
    fn body_len(&self) -> usize {
        let numbers = varint::len(self.timestamp_delta)
            + varint::len(i64::from(self.offset_delta))
            + varint::len(self.headers.len() as i64);
        let fields = (1 + numbers)
            .saturating_add(nullable_len(self.key))
            .saturating_add(nullable_len(self.value));
        self.headers.clone().fold(fields, |len, header| {
            len.saturating_add(nullable_len(Some(header.key.as_bytes())))
                .saturating_add(nullable_len(header.value))
        })
    }

    /// Appends the record.
    #[inline]
    pub(super) fn put(self, out: &mut Vec<u8>) {
        let body_len = self.body_len();
        out.reserve(varint::LEN_MAX + body_len);
        varint::put(out, body_len as i64);
        // The attributes of a record: none are defined.
        out.push(0);
        varint::put(out, self.timestamp_delta);
        varint::put(out, i64::from(self.offset_delta));
        put_nullable(out, self.key);
        put_nullable(out, self.value);
        varint::put(out, self.headers.len() as i64);
        for header in self.headers {
            put_nullable(out, Some(header.key.as_bytes()));
            put_nullable(out, header.value);
        }
    }
}

#[inline]
fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::len(bytes.len() as i64) + bytes.len())
}

#[inline]
fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put(out, -1),
        Some(bytes) => {
            varint::put(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}
