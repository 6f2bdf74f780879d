//! Records of groups and transactional ids as record batches of their internal topics.

use std::rc::Rc;

use headwater_engine::Ticket;
use headwater_protocol::{
    batch::{BatchBuilder, Compression},
    error::ErrorCode,
    id::{Sequence, Timestamp},
};

use super::{groups::record::Record, transactions::record::Record as Transaction};
use crate::{
    core::{Core, warn_seldom},
    machine,
    model::transaction::Producer,
    partition::Partition,
};

/// Larger batches than this are not made, in bytes, unless one record is.
const BATCH_BYTES: usize = 256 << 10;

/// A record of an internal topic.
pub(super) trait Keyed {
    fn key(&self) -> Vec<u8>;
    /// None: it deletes.
    fn value(&self) -> Option<Vec<u8>>;
}

impl Keyed for Record {
    fn key(&self) -> Vec<u8> {
        self.key()
    }

    fn value(&self) -> Option<Vec<u8>> {
        self.value()
    }
}

impl Keyed for Transaction {
    fn key(&self) -> Vec<u8> {
        self.key()
    }

    fn value(&self) -> Option<Vec<u8>> {
        self.value()
    }
}

/// Appends all records, or none; as part of the producer's transaction, if they are of one.
pub(super) fn append(
    core: &Rc<Core>,
    partition: &Rc<Partition>,
    records: &[impl Keyed],
    of: Option<Producer>,
) -> Result<Ticket, ErrorCode> {
    // What is another broker's is in the log, or soon will be.
    if partition.led().is_err() {
        return Err(ErrorCode::NotCoordinator);
    }
    let batch_size_max = partition.log.config().batch.batch_size_max;
    let payload = encode(records, of, machine::wall(), batch_size_max)?;
    let appended = partition.append(core, &payload).map_err(|error| {
        warn_seldom!(directory = %partition.log.directory().display(), %error, "records of a coordinator cannot be appended");
        error.code()
    })?;
    Ok(partition.log.committed(&appended))
}

/// The records in as few batches as their size allows. Only a record that is too large alone makes one too large.
fn encode(
    records: &[impl Keyed],
    of: Option<Producer>,
    now: Timestamp,
    batch_size_max: usize,
) -> Result<Vec<u8>, ErrorCode> {
    let target = BATCH_BYTES.min(batch_size_max);
    let mut payload = Vec::new();
    let begin = || {
        let mut batch = BatchBuilder::new(Compression::None, 0);
        if let Some(producer) = of {
            batch.set_producer(producer.id, producer.epoch, Sequence::NONE);
            batch.set_transactional();
        }
        batch
    };
    let mut batch = begin();
    for record in records {
        let (key, value) = (record.key(), record.value());
        let size = BatchBuilder::record_size_max(Some(&key), value.as_deref(), &[]);
        if !batch.is_empty() && batch.len() + size > target {
            let full = std::mem::replace(&mut batch, begin());
            payload.extend_from_slice(full.build().bytes());
        }
        let added = batch.append(now, Some(&key), value.as_deref(), &[]);
        added.map_err(|error| error.code())?;
    }
    if !batch.is_empty() {
        payload.extend_from_slice(batch.build().bytes());
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use headwater_protocol::batch::{BatchLimits, Batches, RecordSet};

    use super::*;
    use crate::model::group::GroupId;

    #[test]
    fn no_batch_is_larger_than_the_log_takes_and_no_record_is_missing() {
        let record = |partition| Record::Offset {
            group: GroupId::new("g"),
            topic: "t".repeat(200),
            partition,
            value: None,
        };
        let records: Vec<Record> = (0..1_000).map(record).collect();
        for batch_size_max in [1_000, 64 << 10, 1 << 20] {
            let payload = bytes::Bytes::from(encode(&records, None, Timestamp::new(7), batch_size_max).unwrap());
            let mut read = Vec::new();
            for batch in Batches::new(&payload, &BatchLimits { batch_size_max }) {
                for record in &RecordSet::open(&batch.unwrap(), &payload, 0).unwrap() {
                    let record = record.unwrap();
                    read.extend(Record::decode(record.key.unwrap(), record.value).unwrap());
                }
            }
            assert!(read == records, "{} of {} records", read.len(), records.len());
        }
    }
}
