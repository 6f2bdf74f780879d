//! Makes the groups of a partition from its records, when the partition has been opened.

use std::rc::Rc;

use headwater_protocol::{batch::HEADER_LEN, error::ErrorCode, id::PartitionIndex};

use super::{
    groups::{record::Record, shard::Shard},
    replay::{self, LoadError},
    service::{Service, Stay, perform},
};
use crate::{
    machine,
    model::{refusal::Refusal, transaction::End},
    partition::{Partition, backoff::Backoff},
};

/// What a batch of one record has besides its key and value: the header of the batch, lengths and numbers of the record.
const RECORD_OVERHEAD_BYTES: usize = HEADER_LEN + 64;

/// Reads the partition, and lets its groups be asked. What fails is tried again, until the partition is opened anew or the core
/// stops.
pub(super) async fn load(service: Rc<Service>, (index, stay): (PartitionIndex, Stay), partition: Rc<Partition>) {
    let core = &service.core;
    let (mut backoff, mut has_failed) = (Backoff::default(), false);
    loop {
        let began = machine::now();
        let Err(error) = attempt(&service, (index, stay), &partition).await else {
            if has_failed && service.is_current(index, stay) {
                tracing::info!(partition = %index, "groups could be read");
            }
            return;
        };
        error.count(&core.metrics);
        if !service.is_current(index, stay) {
            return;
        }
        if let Some(slot) = service.slots.borrow_mut().get_mut(&index) {
            slot.shard = Err(Refusal::because(ErrorCode::CoordinatorNotAvailable, &error));
        }
        if !std::mem::replace(&mut has_failed, true) {
            tracing::error!(partition = %index, directory = %partition.log.directory().display(), %error, "groups cannot be read; it is tried again");
        }
        let again = machine::now() + backoff.delay(error.code(), machine::since(began));
        let has_stopped = machine::until(again, core.stopping()).await.is_some();
        if has_stopped || !service.is_current(index, stay) {
            return;
        }
    }
}

async fn attempt(
    service: &Rc<Service>,
    (index, stay): (PartitionIndex, Stay),
    partition: &Partition,
) -> Result<(), LoadError> {
    let _working = service.core.working();
    let topics = Rc::clone(&service.topics.borrow());
    let mut shard = Shard::new(
        Rc::clone(&service.config),
        topics,
        Rc::clone(&service.population),
        service.now(),
    );
    let batch_size_max = partition.log.config().batch.batch_size_max;
    shard.hold_records_to(batch_size_max.saturating_sub(RECORD_OVERHEAD_BYTES));
    let is_current = || service.is_current(index, stay);
    if !replay::all_is_committed(&service.core, &partition.log, is_current).await {
        return Ok(());
    }
    let records = read(service, partition, &mut shard).await;
    if !service.is_current(index, stay) {
        return Ok(());
    }
    tracing::debug!(partition = %index, records = records?, "groups were read");
    let topics = Rc::clone(&service.topics.borrow());
    let effects = shard.replayed(topics, service.now());
    if let Some(slot) = service.slots.borrow_mut().get_mut(&index) {
        slot.shard = Ok(shard);
    }
    perform(service, index, effects);
    service.shard_is_new();
    Ok(())
}

/// Shows the shard every record, and says how many there are.
async fn read(service: &Service, partition: &Partition, shard: &mut Shard) -> Result<u64, LoadError> {
    let log = &partition.log;
    let (mut left_out, mut first_left_out) = (0_u64, None);
    let count = replay::read(log, |batch, record| {
        let Some(key) = record.key else { return };
        if batch.is_control() {
            if let Some(end) = end_of(key) {
                shard.replay_end(batch.producer_id(), end);
            }
            return;
        }
        let of = batch.is_transactional().then(|| batch.producer_id());
        match Record::decode(key, record.value) {
            Ok(Some(known)) => shard.replay(known, of, service.now()),
            Ok(None) => {}
            Err(error) => {
                left_out += 1;
                first_left_out.get_or_insert((record.offset, error));
            }
        }
    });
    let count = count.await?;
    if let Some((offset, error)) = first_left_out {
        tracing::error!(%offset, %error, count = left_out, directory = %log.directory().display(), "records of groups cannot be read and are left out; the first is named");
    }
    Ok(count)
}

/// How a transaction has ended, by the key of a control record (`ControlRecordType.json`); `None` of other control records.
fn end_of(key: &[u8]) -> Option<End> {
    match key {
        [0, 0, 0, 0] => Some(End::Abort),
        [0, 0, 0, 1] => Some(End::Commit),
        _ => None,
    }
}
