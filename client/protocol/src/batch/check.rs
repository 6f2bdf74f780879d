//! A look at every record of a batch before the batch is taken in, so that whatever is taken in can be read.
//!
//! What a batch counts is believed only when its records have been walked over, and under compression only opening it tells. That
//! takes time in proportion to what is in it, so the walk gives way after each piece. Nothing of it is kept.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::compression::Decoder;
use super::records::RecordIter;
use super::{BatchError, Compression, RecordBatch, RecordFault};

/// Bytes that are decompressed at a time: 20 to 160 us, by codec.
const PIECE_BYTES: usize = 64 << 10;

/// Records that are looked at at a time: about 100 us.
const PIECE_RECORDS: u32 = 8192;

impl RecordBatch<'_> {
    /// Walks over every record: each well-formed, offsets dense, as many as are counted, and nothing behind them. Returns the
    /// number of the first one without a key, from 0, if there is one.
    ///
    /// Compressed records are decompressed for this, to at most `decompressed_size_max` bytes. `give_way` is awaited before
    /// that, and between two pieces of work of about 0.1 ms.
    pub async fn check_records(
        &self,
        decompressed_size_max: usize,
        give_way: impl AsyncFn(),
    ) -> Result<Option<u32>, BatchError> {
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
            keyless: None,
        };
        while walk.go_on()? {
            give_way().await;
        }
        Ok(walk.keyless)
    }

    /// [`RecordBatch::check_records`] in one go. If `keys_required` (compacted topics), each record must have a key.
    pub fn validate_records(&self, decompressed_size_max: usize, keys_required: bool) -> Result<(), BatchError> {
        let check = pin!(self.check_records(decompressed_size_max, async || ()));
        let Poll::Ready(checked) = check.poll(&mut Context::from_waker(Waker::noop())) else {
            unreachable!("nothing is waited for");
        };
        match checked? {
            Some(index) if keys_required => Err(self.bad_record(index, RecordFault::NoKey)),
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
    keyless: Option<u32>,
}

impl Walk<'_> {
    /// Looks at the next records. Returns whether there are more.
    fn go_on(&mut self) -> Result<bool, BatchError> {
        let count = self.batch.record_count();
        let until = count.min(self.index.saturating_add(PIECE_RECORDS));
        while self.index < until {
            let index = self.index;
            let record = self.records.take_record();
            let record = record.map_err(|fault| self.batch.bad_record(index, fault))?;
            if record.offset != self.batch.base_offset() + u64::from(index) {
                return Err(self.batch.bad_record(index, RecordFault::OffsetDelta));
            }
            if record.key.is_none() && self.keyless.is_none() {
                self.keyless = Some(index);
            }
            self.index += 1;
        }
        if self.index == count && !self.records.is_at_end() {
            return Err(self.batch.bad_record(count, RecordFault::MoreRecords));
        }
        Ok(self.index < count)
    }
}
