//! Makes the transactional ids of a partition from its records, when the partition is led here anew.

use std::rc::Rc;

use headwater_protocol::{batch::HEADER_LEN, error::ErrorCode, id::PartitionIndex};

use super::{
    record::Record,
    service::{Stay, Transactions, perform},
    shard::Shard,
};
use crate::{
    coordinator::replay::{self, LoadError},
    machine,
    model::refusal::Refusal,
    partition::{Partition, backoff::Backoff},
};

/// What a batch of one record has besides its key and value: the header of the batch, lengths and numbers of the record.
const RECORD_OVERHEAD_BYTES: usize = HEADER_LEN + 64;

/// Reads the partition, and lets its ids be asked. What fails is tried again, until the stay is over or the core stops.
pub(super) async fn load(
    transactions: Rc<Transactions>,
    (index, stay): (PartitionIndex, Stay),
    partition: Rc<Partition>,
) {
    let core = &transactions.core;
    let (mut backoff, mut has_failed) = (Backoff::default(), false);
    loop {
        let began = machine::now();
        let Err(error) = attempt(&transactions, (index, stay), &partition).await else {
            return;
        };
        error.count(&core.metrics);
        let why = Refusal::because(ErrorCode::CoordinatorNotAvailable, &error);
        if !transactions.loaded(index, stay, Err(why)) {
            return;
        }
        if !std::mem::replace(&mut has_failed, true) {
            tracing::error!(partition = %index, directory = %partition.log.directory().display(), %error, "transactions cannot be read; it is tried again");
        }
        let again = machine::now() + backoff.delay(error.code(), machine::since(began));
        let has_stopped = machine::until(again, core.stopping()).await.is_some();
        if has_stopped || !transactions.is_current(index, stay) {
            return;
        }
    }
}

async fn attempt(
    transactions: &Rc<Transactions>,
    (index, stay): (PartitionIndex, Stay),
    partition: &Partition,
) -> Result<(), LoadError> {
    let core = &transactions.core;
    let _working = core.working();
    let (log, is_current) = (&partition.log, || transactions.is_current(index, stay));
    let Ok(epoch) = partition.led() else { return Ok(()) };
    if !replay::all_is_committed(core, log, is_current).await {
        return Ok(());
    }
    let record_bytes_max = log.config().batch.batch_size_max.saturating_sub(RECORD_OVERHEAD_BYTES);
    let config = Rc::clone(&transactions.config);
    let population = Rc::clone(&transactions.population);
    let mut shard = Shard::new(config, (record_bytes_max, epoch.get()), population, transactions.now());
    let (mut left_out, mut first_left_out) = (0_u64, None);
    let read = replay::read(log, |_, record| {
        match record.key.map(|key| Record::decode(key, record.value)) {
            Some(Ok(Some(known))) => shard.replay(known),
            Some(Err(error)) => {
                left_out += 1;
                first_left_out.get_or_insert((record.offset, error));
            }
            Some(Ok(None)) | None => {}
        }
    });
    let records = read.await?;
    if let Some((offset, error)) = first_left_out {
        tracing::error!(%offset, %error, count = left_out, directory = %log.directory().display(), "records of transactions cannot be read and are left out; the first is named");
    }
    tracing::debug!(partition = %index, records, "transactions were read");
    let effects = shard.replayed(transactions.now());
    if transactions.loaded(index, stay, Ok(shard)) {
        perform(transactions, index, effects);
    }
    Ok(())
}
