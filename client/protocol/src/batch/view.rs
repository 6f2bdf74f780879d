//! Whole, checked batches over borrowed bytes.
//!
//! [`RecordBatch::parse`] is the only way to get a [`RecordBatch`]; whoever has one need not check again. It does not
//! look at the records: that is [`RecordSet`]'s work, and [`RecordBatch::check_records`]'s before a batch is taken in.

use std::ops::Deref;

use super::header::crc_of;
use super::records::RECORD_LEN_MIN;
use super::{BatchError, BatchHeader, Compression, HEADER_LEN, TimestampType};

#[cfg(doc)]
use super::RecordSet;

/// What a batch may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Largest batch in bytes, header included.
    pub batch_size_max: usize,
}

/// One whole record batch, checked.
#[derive(Debug, Clone, Copy)]
pub struct RecordBatch<'a> {
    header: BatchHeader<'a>,
    bytes: &'a [u8],
}

impl<'a> RecordBatch<'a> {
    /// Checks and takes the batch at the start of `bytes`, which may go on after it.
    ///
    /// Checked are what [`BatchHeader::read`] checks, the limits, that the batch is whole, its CRC, and that the records
    /// it counts could fit. [`BatchError::Truncated`] says how many bytes it takes to go on.
    pub fn parse(bytes: &'a [u8], limits: &BatchLimits) -> Result<Self, BatchError> {
        let batch = Self::parse_without_crc(bytes, *limits)?;
        let (stored, computed) = (batch.header.crc(), crc_of(batch.bytes));
        if computed == stored {
            Ok(batch)
        } else {
            Err(BatchError::BadCrc { stored, computed })
        }
    }

    /// [`RecordBatch::parse`] but for the CRC: for reading on only, never for what is stored or handed on.
    pub(super) fn parse_without_crc(bytes: &'a [u8], limits: BatchLimits) -> Result<Self, BatchError> {
        let header = BatchHeader::read(bytes)?;
        let size = header.size();
        if size > limits.batch_size_max {
            return Err(BatchError::TooLarge {
                size,
                max: limits.batch_size_max,
            });
        }
        let Some(bytes) = bytes.get(..size) else {
            return Err(BatchError::Truncated {
                need: size,
                have: bytes.len(),
            });
        };
        // A batch of few bytes must not use up billions of offsets. Under compression only opening it could tell.
        let records_len_min = header.record_count() as usize * RECORD_LEN_MIN;
        if header.compression() == Compression::None && records_len_min > size - HEADER_LEN {
            let (count, last_offset_delta) = header.counts();
            return Err(BatchError::BadCount {
                count,
                last_offset_delta,
            });
        }
        Ok(Self { header, bytes })
    }

    /// The bytes of this batch and no more.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The header.
    pub const fn header(&self) -> BatchHeader<'a> {
        self.header
    }

    /// The bytes after the header: the records, perhaps compressed.
    pub(super) fn records(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// Checks what holds for batches from clients only: a record for each offset, no control batch, timestamps their own, and
    /// a sequence and an epoch with every producer id.
    pub fn check_from_client(&self) -> Result<(), BatchError> {
        if self.record_count() != self.offset_count() {
            let (count, last_offset_delta) = self.counts();
            return Err(BatchError::BadCount {
                count,
                last_offset_delta,
            });
        }
        if self.delete_horizon().is_some() {
            return Err(BatchError::HorizonFromClient);
        }
        if self.is_control() {
            return Err(BatchError::ControlBatch);
        }
        if self.timestamp_type() == TimestampType::LogAppendTime {
            return Err(BatchError::AppendTimeFromClient);
        }
        let (id, epoch, sequence) = (self.producer_id(), self.producer_epoch(), self.base_sequence());
        if id.is_some() && (epoch.get() < 0 || sequence.get() < 0) {
            return Err(BatchError::BadProducer {
                id: id.get(),
                epoch: epoch.get(),
                sequence: sequence.get(),
            });
        }
        Ok(())
    }
}

impl<'a> Deref for RecordBatch<'a> {
    type Target = BatchHeader<'a>;

    fn deref(&self) -> &BatchHeader<'a> {
        &self.header
    }
}

/// Iterates over batches that follow one another; ends after the first that is not whole and right.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    rest: &'a [u8],
    limits: BatchLimits,
}

impl<'a> Batches<'a> {
    /// Starts at the first byte of the first batch.
    pub const fn new(bytes: &'a [u8], limits: &BatchLimits) -> Self {
        Self {
            rest: bytes,
            limits: *limits,
        }
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<RecordBatch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = RecordBatch::parse(self.rest, &self.limits);
        self.rest = batch.as_ref().map_or(&[], |batch| &self.rest[batch.size()..]);
        Some(batch)
    }
}
