//! Batches with records taken out: what compaction leaves of them.
//!
//! As Kafka's cleaner (`MemoryRecords.filterTo`), the batch keeps its base offset, last offset delta, leader epoch, producer,
//! sequence and codec, and each record its offset delta and timestamp. Only brokers make such batches: from a client they are
//! refused by [`RecordBatch::check_from_client`](super::RecordBatch::check_from_client).

use super::builder::RecordParts;
use super::compression::compress;
use super::header::{self, put};
use super::{BatchError, BatchHeader, Compression, HEADER_LEN, RecordSet, RecordView, TimestampType};
use crate::id::Timestamp;

/// The batch that holds of these records those that `keep` says: an [`emptied`] one, if it keeps none.
///
/// `delete_horizon` is written where the base timestamp stands, and its attribute bit with it (KIP-534); the timestamps of the
/// records stay the same. Fails where a record is malformed.
pub fn rebuild(
    set: &RecordSet,
    delete_horizon: Option<Timestamp>,
    mut keep: impl FnMut(&RecordView<'_>) -> bool,
) -> Result<Vec<u8>, BatchError> {
    let header = set.header();
    let mut base_timestamp = delete_horizon;
    let mut max_timestamp = Timestamp::NONE;
    let (mut records, mut count) = (Vec::new(), 0);
    for record in set {
        let record = record?;
        if !keep(&record) {
            continue;
        }
        let base = *base_timestamp.get_or_insert(record.timestamp);
        max_timestamp = max_timestamp.max(record.timestamp);
        count += 1;
        let parts = RecordParts {
            timestamp_delta: record.timestamp.get() - base.get(),
            offset_delta: (record.offset.get() - header.base_offset().get()) as u32,
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        parts.put(&mut records);
    }
    let Some(base_timestamp) = base_timestamp.filter(|_| count > 0) else {
        return Ok(emptied(header));
    };
    if header.timestamp_type() == TimestampType::LogAppendTime {
        max_timestamp = header.max_timestamp();
    }
    let mut bytes = header.bytes().to_vec();
    compress(header.compression(), &records, &mut bytes);
    let attributes = header.attributes() & !header::DELETE_HORIZON_BIT;
    let horizon = delete_horizon.map_or(0, |_| header::DELETE_HORIZON_BIT);
    Ok(finish(
        bytes,
        attributes | horizon,
        base_timestamp,
        max_timestamp,
        count,
    ))
}

/// The batch without any of its records: it still says which offsets, producer and sequences there were.
pub fn emptied(header: BatchHeader<'_>) -> Vec<u8> {
    let dropped = header::COMPRESSION_BITS | header::DELETE_HORIZON_BIT;
    let attributes = (header.attributes() & !dropped) | i16::from(Compression::None.number());
    let bytes = header.bytes().to_vec();
    finish(bytes, attributes, Timestamp::NONE, header.max_timestamp(), 0)
}

/// Writes what has changed of the header in front of `bytes`.
fn finish(mut bytes: Vec<u8>, attributes: i16, base: Timestamp, max: Timestamp, count: i32) -> Vec<u8> {
    debug_assert!(bytes.len() >= HEADER_LEN);
    header::set_length_and_magic(&mut bytes);
    put(&mut bytes, header::ATTRIBUTES, attributes.to_be_bytes());
    put(&mut bytes, header::BASE_TIMESTAMP, base.get().to_be_bytes());
    put(&mut bytes, header::MAX_TIMESTAMP, max.get().to_be_bytes());
    put(&mut bytes, header::RECORD_COUNT, count.to_be_bytes());
    header::set_crc(&mut bytes);
    bytes
}
