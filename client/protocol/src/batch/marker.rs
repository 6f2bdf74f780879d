//! Markers: the control batches that end a transaction in a partition.
//!
//! ```text
//! one record   key: version i16 = 0, type i16 (0 abort, 1 commit)   value: version i16 = 0, coordinator epoch i32
//! ```
//!
//! Kafka's `EndTransactionMarker` and `ControlRecordType`. Only brokers make them; from a client they are refused by
//! [`RecordBatch::check_from_client`]. Compaction may leave one without its record: it then ends nothing any more, and only tells
//! of the producer's epoch.

use bytes::{Buf, Bytes};

use super::header::{self, put};
use super::{BatchBuilder, Compression, RecordBatch, RecordSet};
use crate::id::{ProducerEpoch, ProducerId, Sequence, Timestamp};

const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// Bytes of the two fields of a key, and of a value.
const KEY_LEN: usize = 4;
const VALUE_LEN: usize = 6;

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Readers of what is committed skip its records.
    Abort,
    /// They see its records.
    Commit,
}

/// What a marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndMarker {
    /// Whose transaction ends.
    pub producer_id: ProducerId,
    /// The producer's epoch from here on.
    pub producer_epoch: ProducerEpoch,
    /// How it ends.
    pub outcome: Outcome,
    /// The epoch of the coordinator that has decided it.
    pub coordinator_epoch: i32,
}

impl EndMarker {
    /// The whole batch.
    ///
    /// # Panics
    /// Never: one short record always fits.
    pub fn encode(&self, now: Timestamp) -> Vec<u8> {
        let kind = match self.outcome {
            Outcome::Abort => ABORT,
            Outcome::Commit => COMMIT,
        };
        let key = [VERSION.to_be_bytes(), kind.to_be_bytes()].concat();
        let mut value = VERSION.to_be_bytes().to_vec();
        value.extend_from_slice(&self.coordinator_epoch.to_be_bytes());
        let mut builder = BatchBuilder::new(Compression::None, 128);
        let now = now.max(Timestamp::NONE);
        builder
            .append(now, Some(&key), Some(&value), &[])
            .expect("a record of ten bytes fits");
        builder.set_producer(self.producer_id, self.producer_epoch, Sequence::NONE);
        let mut batch = builder.build().into_bytes();
        let attributes = header::TRANSACTIONAL_BIT | header::CONTROL_BIT;
        put(&mut batch, header::ATTRIBUTES, attributes.to_be_bytes());
        header::set_crc(&mut batch);
        batch
    }

    /// What the batch says, if it is a marker that ends a transaction.
    pub fn read(batch: &RecordBatch<'_>) -> Option<EndMarker> {
        if !batch.is_control() || batch.record_count() == 0 {
            return None;
        }
        // A marker is never compressed.
        let records = RecordSet::decode_without_crc(&Bytes::copy_from_slice(batch.bytes()), 0);
        EndMarker::of(&records.ok()?)
    }

    /// The same of a batch that was opened.
    pub fn of(records: &RecordSet) -> Option<EndMarker> {
        let header = records.header();
        if !header.is_control() {
            return None;
        }
        let record = records.iter().next()?.ok()?;
        let (mut key, mut value) = (record.key?, record.value?);
        if key.len() < KEY_LEN || value.len() < VALUE_LEN {
            return None;
        }
        let _version = key.get_i16();
        let outcome = match key.get_i16() {
            ABORT => Outcome::Abort,
            COMMIT => Outcome::Commit,
            _ => return None,
        };
        let _version = value.get_i16();
        Some(EndMarker {
            producer_id: header.producer_id(),
            producer_epoch: header.producer_epoch(),
            outcome,
            coordinator_epoch: value.get_i32(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchError, BatchLimits};

    const MARKER: EndMarker = EndMarker {
        producer_id: ProducerId::new(11),
        producer_epoch: ProducerEpoch::new(3),
        outcome: Outcome::Commit,
        coordinator_epoch: 5,
    };

    #[test]
    fn a_marker_is_kafkas_byte_for_byte() {
        let bytes = MARKER.encode(Timestamp::new(1000));
        // A real broker's is 78 bytes: 61 of header, and a record of 16 with its length before it.
        assert_eq!(bytes.len(), 78);
        assert_eq!(bytes[21..23], [0, 0x30], "transactional and control");
        assert_eq!(bytes[53..57], [0xff; 4], "no sequence");
        assert_eq!(bytes[61..], [32, 0, 0, 0, 8, 0, 0, 0, 1, 12, 0, 0, 0, 0, 0, 5, 0]);
    }

    #[test]
    fn a_marker_reads_back_and_is_refused_from_a_client() {
        for outcome in [Outcome::Abort, Outcome::Commit] {
            let marker = EndMarker { outcome, ..MARKER };
            let bytes = marker.encode(Timestamp::new(1000));
            let limits = BatchLimits {
                batch_size_max: 1 << 10,
            };
            let batch = RecordBatch::parse(&bytes, &limits).unwrap();
            assert_eq!(EndMarker::read(&batch), Some(marker));
            assert_eq!(batch.check_from_client(), Err(BatchError::ControlBatch));
            let emptied = crate::batch::emptied(batch.header());
            let emptied = RecordBatch::parse(&emptied, &limits).unwrap();
            assert!(emptied.is_control());
            assert_eq!(EndMarker::read(&emptied), None);
        }
    }
}
