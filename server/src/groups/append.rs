//! Records of groups as record batches of the internal topic.

use std::rc::Rc;

use headwater_engine::Ticket;
use headwater_protocol::{
    batch::{BatchBuilder, Compression},
    error::ErrorCode,
    id::Timestamp,
};

use super::record::Record;
use crate::{core::Core, partition::Partition};

/// A batch is ended when it has become this large, in bytes.
const BATCH_BYTES: usize = 256 << 10;

/// Appends all records, or none.
pub(super) fn append(core: &Rc<Core>, partition: &Rc<Partition>, records: &[Record]) -> Result<Ticket, ErrorCode> {
    let appended = partition.append(core, &encode(records, Timestamp::now())?).map_err(|error| {
        tracing::warn!(directory = %partition.log.directory().display(), %error, "records of groups cannot be appended");
        error.code()
    })?;
    Ok(appended.durable)
}

/// The records in as few batches as their size allows.
fn encode(records: &[Record], now: Timestamp) -> Result<Vec<u8>, ErrorCode> {
    let mut payload = Vec::new();
    let mut batch = BatchBuilder::new(Compression::None, 0);
    for record in records {
        let (key, value) = (record.key(), record.value());
        let added = batch.append(now, Some(&key), value.as_deref(), &[]);
        added.map_err(|error| error.code())?;
        if batch.len() >= BATCH_BYTES {
            let full = std::mem::replace(&mut batch, BatchBuilder::new(Compression::None, 0));
            payload.extend_from_slice(full.build().bytes());
        }
    }
    if !batch.is_empty() {
        payload.extend_from_slice(batch.build().bytes());
    }
    Ok(payload)
}
