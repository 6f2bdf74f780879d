//! A look at every record of a batch before the batch is taken in, so that whatever is taken in can be read.
//!
//! What a batch counts is believed only when its records have been walked over, and under compression only opening it tells. That
//! takes time in proportion to what is in it, so the walk gives way after each piece. Nothing of it is kept.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::compression::Decoder;
use super::records::RecordIter;
use super::{BatchError, Compression, RecordBatch, RecordFault};
use crate::id::Timestamp;

/// Bytes that are decompressed at a time: 20 to 160 us, by codec.
const PIECE_BYTES: usize = 64 << 10;

/// Records that are looked at at a time: about 100 us.
const PIECE_RECORDS: u32 = 8192;

/// What a walk over the records of a batch has found, for whoever has rules for them. Numbers of records are from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Those without a key.
    pub keyless: Keyless,
    /// The first record with the earliest timestamp of those that have one; none if no record has.
    pub earliest: Option<(u32, Timestamp)>,
    /// The first record with the latest timestamp, which may be "none".
    pub latest: (u32, Timestamp),
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            keyless: Keyless::default(),
            earliest: None,
            latest: (0, Timestamp::NONE),
        }
    }
}

/// Records without a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keyless {
    /// How many there are.
    pub count: u32,
    first: [u32; Keyless::NAMED_MAX],
}

impl Keyless {
    /// So many are told by their numbers.
    pub const NAMED_MAX: usize = 3;

    /// The numbers of the first ones.
    pub fn first(&self) -> &[u32] {
        &self.first[..Self::NAMED_MAX.min(self.count as usize)]
    }

    fn note(&mut self, index: u32) {
        if let Some(place) = self.first.get_mut(self.count as usize) {
            *place = index;
        }
        self.count += 1;
    }
}

impl RecordBatch<'_> {
    /// Walks over every record: each well-formed, offsets dense, as many as are counted, and nothing behind them.
    ///
    /// Compressed records are decompressed for this, to at most `decompressed_size_max` bytes. `give_way` is awaited before
    /// that, and between two pieces of work of about 0.1 ms.
    pub async fn check_records(
        &self,
        decompressed_size_max: usize,
        give_way: impl AsyncFn(),
    ) -> Result<Seen, BatchError> {
        let mut opened = Vec::new();
        let records = match self.compression() {
            Compression::None => self.records(),
            compression => {
                give_way().await;
                let mut decoder = Decoder::new(compression, self.records(), decompressed_size_max)?;
                while decoder.more(&mut opened, PIECE_BYTES)? {
                    give_way().await;
                }
                &opened
            }
        };
        let mut walk = Walk {
            batch: self,
            records: RecordIter::new(self.header(), records),
            index: 0,
            seen: Seen::default(),
        };
        while walk.go_on()? {
            give_way().await;
        }
        Ok(walk.seen)
    }

    /// [`RecordBatch::check_records`] in one go. If `keys_required` (compacted topics), each record must have a key.
    pub fn validate_records(&self, decompressed_size_max: usize, keys_required: bool) -> Result<(), BatchError> {
        let check = pin!(self.check_records(decompressed_size_max, async || ()));
        let Poll::Ready(checked) = check.poll(&mut Context::from_waker(Waker::noop())) else {
            unreachable!("nothing is waited for");
        };
        match checked?.keyless.first() {
            [index, ..] if keys_required => Err(self.bad_record(*index, RecordFault::NoKey)),
            _ => Ok(()),
        }
    }

    /// What is wrong with the record of this number.
    pub fn bad_record(&self, index: u32, fault: RecordFault) -> BatchError {
        BatchError::BadRecord {
            base_offset: self.base_offset(),
            index,
            fault,
        }
    }
}

struct Walk<'a> {
    batch: &'a RecordBatch<'a>,
    records: RecordIter<'a>,
    index: u32,
    seen: Seen,
}

impl Walk<'_> {
    /// Looks at the next records. Returns whether there are more.
    fn go_on(&mut self) -> Result<bool, BatchError> {
        let count = self.batch.record_count();
        let until = count.min(self.index.saturating_add(PIECE_RECORDS));
        let seen = &mut self.seen;
        while self.index < until {
            let index = self.index;
            let record = self.records.take_record();
            let record = record.map_err(|fault| self.batch.bad_record(index, fault))?;
            if record.offset != self.batch.base_offset() + u64::from(index) {
                return Err(self.batch.bad_record(index, RecordFault::OffsetDelta));
            }
            if record.key.is_none() {
                seen.keyless.note(index);
            }
            let timestamp = record.timestamp;
            if timestamp > seen.latest.1 {
                seen.latest = (index, timestamp);
            }
            if timestamp.is_some() && seen.earliest.is_none_or(|(_, earliest)| timestamp < earliest) {
                seen.earliest = Some((index, timestamp));
            }
            self.index += 1;
        }
        if self.index == count && !self.records.is_at_end() {
            return Err(self.batch.bad_record(count, RecordFault::MoreRecords));
        }
        Ok(self.index < count)
    }
}
