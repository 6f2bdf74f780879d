//! The 61 bytes before the records: reading them, and the few fields that are written after a batch is made.
//!
//! [`BatchHeader`] borrows the bytes and reads a field when asked. [`BatchHeader::read`] checks all that can be checked
//! without the records, so that no accessor can fail; it does not check that the batch is whole, nor its CRC.

use super::{BatchError, Compression, HEADER_LEN, LENGTH_PREFIX, MAGIC};
use crate::id::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

const BASE_OFFSET: usize = 0;
const LENGTH: usize = 8;
const LEADER_EPOCH: usize = 12;
const MAGIC_AT: usize = 16;
const CRC: usize = 17;
pub(super) const ATTRIBUTES: usize = 21;
pub(super) const LAST_OFFSET_DELTA: usize = 23;
pub(super) const BASE_TIMESTAMP: usize = 27;
pub(super) const MAX_TIMESTAMP: usize = 35;
pub(super) const PRODUCER_ID: usize = 43;
pub(super) const PRODUCER_EPOCH: usize = 51;
pub(super) const BASE_SEQUENCE: usize = 53;
pub(super) const RECORD_COUNT: usize = 57;

pub(super) const COMPRESSION_BITS: i16 = 0x07;
const APPEND_TIME_BIT: i16 = 0x08;
pub(super) const TRANSACTIONAL_BIT: i16 = 0x10;
pub(super) const CONTROL_BIT: i16 = 0x20;
/// The base timestamp is not one, but the time from which compaction may drop tombstones (KIP-534).
pub(super) const DELETE_HORIZON_BIT: i16 = 0x40;

/// Where the timestamps of a batch come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// From the producer, each record its own.
    CreateTime,
    /// From the broker's clock at the append: all records have the batch's max timestamp.
    LogAppendTime,
}

/// The header of a record batch, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct BatchHeader<'a>(&'a [u8; HEADER_LEN]);

impl<'a> BatchHeader<'a> {
    /// Reads and checks the header at the start of `bytes`; neither the rest of the batch nor its CRC.
    ///
    /// For scans that find out where batches lie, and for walking bytes that were checked before.
    pub fn read(bytes: &'a [u8]) -> Result<Self, BatchError> {
        // Before anything else, as older forms of a batch may be shorter than this header.
        if let Some(&magic) = bytes.get(MAGIC_AT)
            && magic.cast_signed() != MAGIC
        {
            return Err(BatchError::BadMagic {
                magic: magic.cast_signed(),
            });
        }
        let Some(header) = bytes.first_chunk::<HEADER_LEN>().map(Self) else {
            return Err(BatchError::Truncated {
                need: HEADER_LEN,
                have: bytes.len(),
            });
        };
        header.check()?;
        Ok(header)
    }

    /// The header of bytes that [`BatchHeader::read`] has accepted before, or that were made here.
    pub(super) const fn trusted(bytes: &'a [u8; HEADER_LEN]) -> Self {
        Self(bytes)
    }

    fn check(self) -> Result<(), BatchError> {
        let length = self.i32_at(LENGTH);
        if length < (HEADER_LEN - LENGTH_PREFIX) as i32 {
            return Err(BatchError::BadLength { length });
        }
        let (count, last_offset_delta) = self.counts();
        // Compaction takes records out, all of them perhaps, and leaves the offsets of the batch as they are.
        if count < 0 || last_offset_delta < 0 || i64::from(count) > i64::from(last_offset_delta) + 1 {
            return Err(BatchError::BadCount {
                count,
                last_offset_delta,
            });
        }
        let base_offset = self.i64_at(BASE_OFFSET);
        if base_offset < 0 || base_offset.checked_add(i64::from(last_offset_delta) + 1).is_none() {
            return Err(BatchError::BadOffset { base_offset });
        }
        let codec = (self.attributes() & COMPRESSION_BITS) as u8;
        if Compression::from_number(codec).is_none() {
            return Err(BatchError::UnknownCompression { codec });
        }
        let (base, max) = (self.base_timestamp(), self.max_timestamp());
        // The broker's clock, or the delete horizon, may well be on the other side of the producer's clock.
        let ordered = self.timestamp_type() == TimestampType::LogAppendTime
            || self.attributes() & DELETE_HORIZON_BIT != 0
            || max >= base;
        if base < Timestamp::NONE || max < Timestamp::NONE || !ordered {
            return Err(BatchError::BadTimestamp { base, max });
        }
        Ok(())
    }

    /// Bytes in the whole batch, header included.
    #[inline]
    pub fn size(self) -> usize {
        LENGTH_PREFIX + self.i32_at(LENGTH).cast_unsigned() as usize
    }

    /// Record count and last offset delta, as they stand there.
    pub(super) fn counts(self) -> (i32, i32) {
        (self.i32_at(RECORD_COUNT), self.i32_at(LAST_OFFSET_DELTA))
    }

    /// The offset of the first record, as the batch was appended.
    #[inline]
    pub fn base_offset(self) -> Offset {
        Offset::new(self.i64_at(BASE_OFFSET).cast_unsigned())
    }

    /// The offset of the last record, as the batch was appended.
    #[inline]
    pub fn last_offset(self) -> Offset {
        self.base_offset() + u64::from(self.i32_at(LAST_OFFSET_DELTA).cast_unsigned())
    }

    /// The offset after the last record.
    #[inline]
    pub fn next_offset(self) -> Offset {
        self.base_offset() + u64::from(self.offset_count())
    }

    /// How many offsets the batch takes up; at least one. More than its records, if compaction has taken some out.
    #[inline]
    pub fn offset_count(self) -> u32 {
        self.i32_at(LAST_OFFSET_DELTA).cast_unsigned() + 1
    }

    /// The epoch of the leader that appended the batch.
    #[inline]
    pub fn leader_epoch(self) -> LeaderEpoch {
        LeaderEpoch::new(self.i32_at(LEADER_EPOCH))
    }

    /// The checksum that the batch says it has.
    #[inline]
    pub fn crc(self) -> u32 {
        self.i32_at(CRC).cast_unsigned()
    }

    /// The attribute bits, as they are.
    #[inline]
    pub fn attributes(self) -> i16 {
        i16::from_be_bytes(self.at(ATTRIBUTES))
    }

    /// How the records are compressed.
    #[inline]
    pub fn compression(self) -> Compression {
        let number = (self.attributes() & COMPRESSION_BITS) as u8;
        Compression::from_number(number).expect("the codec was checked when the header was read")
    }

    /// Where the timestamps come from.
    #[inline]
    pub fn timestamp_type(self) -> TimestampType {
        if self.attributes() & APPEND_TIME_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch is part of a transaction.
    #[inline]
    pub fn is_transactional(self) -> bool {
        self.attributes() & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch is a broker's own marker, which consumers skip.
    #[inline]
    pub fn is_control(self) -> bool {
        self.attributes() & CONTROL_BIT != 0
    }

    /// From when on compaction may drop the tombstones of this batch (KIP-534), in the broker's time; `None` if it has not
    /// yet seen that nothing older than them is left.
    #[inline]
    pub fn delete_horizon(self) -> Option<Timestamp> {
        (self.attributes() & DELETE_HORIZON_BIT != 0).then(|| self.base_timestamp())
    }

    /// The timestamp that the records' are relative to: the first record's, or the delete horizon.
    #[inline]
    pub fn base_timestamp(self) -> Timestamp {
        Timestamp::new(self.i64_at(BASE_TIMESTAMP))
    }

    /// The largest timestamp of the records, or the time of the append.
    #[inline]
    pub fn max_timestamp(self) -> Timestamp {
        Timestamp::new(self.i64_at(MAX_TIMESTAMP))
    }

    /// The idempotent producer that made the batch.
    #[inline]
    pub fn producer_id(self) -> ProducerId {
        ProducerId::new(self.i64_at(PRODUCER_ID))
    }

    /// The producer's epoch.
    #[inline]
    pub fn producer_epoch(self) -> ProducerEpoch {
        ProducerEpoch::new(i16::from_be_bytes(self.at(PRODUCER_EPOCH)))
    }

    /// The producer's sequence of the first record.
    #[inline]
    pub fn base_sequence(self) -> Sequence {
        Sequence::new(self.i32_at(BASE_SEQUENCE))
    }

    /// The producer's sequence of the last record, as the batch was appended.
    #[inline]
    pub fn last_sequence(self) -> Sequence {
        self.base_sequence().plus(self.offset_count() - 1)
    }

    /// How many records there are; none, if compaction has taken out all of them.
    #[inline]
    pub fn record_count(self) -> u32 {
        self.i32_at(RECORD_COUNT).cast_unsigned()
    }

    /// The header's bytes.
    pub(super) const fn bytes(self) -> &'a [u8; HEADER_LEN] {
        self.0
    }

    #[inline]
    fn i32_at(self, at: usize) -> i32 {
        i32::from_be_bytes(self.at(at))
    }

    #[inline]
    fn i64_at(self, at: usize) -> i64 {
        i64::from_be_bytes(self.at(at))
    }

    #[inline]
    fn at<const N: usize>(self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.0[at..at + N]);
        field
    }
}

/// Writes the offset and the leader epoch that the log gives to a batch. Both lie outside the CRC.
///
/// # Panics
/// When `batch` is shorter than a header: only checked batches are stamped.
pub fn stamp(batch: &mut [u8], base_offset: Offset, epoch: LeaderEpoch) {
    put(batch, BASE_OFFSET, base_offset.as_i64().to_be_bytes());
    put(batch, LEADER_EPOCH, epoch.get().to_be_bytes());
}

/// Stamps a batch with the broker's clock: the attribute bit, the max timestamp, and the CRC, which covers both.
///
/// `batch` is exactly one batch; the CRC is computed over all of it.
///
/// # Panics
/// When `batch` is shorter than a header: only checked batches are stamped.
pub fn set_append_time(batch: &mut [u8], now: Timestamp) {
    batch[ATTRIBUTES + 1] |= APPEND_TIME_BIT as u8;
    put(batch, MAX_TIMESTAMP, now.get().to_be_bytes());
    set_crc(batch);
}

/// Writes the largest timestamp of the records, where the batch says another, and computes the CRC anew.
///
/// `batch` is exactly one batch.
///
/// # Panics
/// When `batch` is shorter than a header: only checked batches are corrected.
pub fn set_max_timestamp(batch: &mut [u8], max: Timestamp) {
    put(batch, MAX_TIMESTAMP, max.get().to_be_bytes());
    set_crc(batch);
}

/// Names the idempotent producer of a batch that was built before, and computes the CRC anew.
///
/// `batch` is exactly one batch.
///
/// # Panics
/// When `batch` is shorter than a header: only built batches are numbered.
pub fn set_producer(batch: &mut [u8], id: ProducerId, epoch: ProducerEpoch, sequence: Sequence) {
    put_producer(batch, id, epoch, sequence);
    set_crc(batch);
}

/// [`set_producer`] for a batch whose CRC is yet to be computed.
pub(super) fn put_producer(batch: &mut [u8], id: ProducerId, epoch: ProducerEpoch, sequence: Sequence) {
    put(batch, PRODUCER_ID, id.get().to_be_bytes());
    put(batch, PRODUCER_EPOCH, epoch.get().to_be_bytes());
    put(batch, BASE_SEQUENCE, sequence.get().to_be_bytes());
}

/// Computes the CRC of the one batch that `batch` is.
pub(super) fn crc_of(batch: &[u8]) -> u32 {
    crc32c::crc32c(&batch[ATTRIBUTES..])
}

/// Writes the CRC that `batch` has.
pub(super) fn set_crc(batch: &mut [u8]) {
    let crc = crc_of(batch);
    put(batch, CRC, crc.to_be_bytes());
}

/// Writes the length and the magic byte of the one batch that `batch` is.
pub(super) fn set_length_and_magic(batch: &mut [u8]) {
    let length = i32::try_from(batch.len() - LENGTH_PREFIX).expect("the builder limits a batch to half of this");
    put(batch, LENGTH, length.to_be_bytes());
    put(batch, MAGIC_AT, MAGIC.to_be_bytes());
}

#[inline]
pub(super) fn put<const N: usize>(batch: &mut [u8], at: usize, field: [u8; N]) {
    batch[at..at + N].copy_from_slice(&field);
}
