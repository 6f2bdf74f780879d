//! Makes the groups of a partition from its records, when the partition has been opened.

use std::{pin::pin, rc::Rc};

use bytes::Bytes;
use futures::future::select;
use headwater_engine::{FetchError, ReadLimit};
use headwater_protocol::{
    batch::{BatchError, BatchLimits, Batches, HEADER_LEN, RecordSet},
    error::ErrorCode,
    id::{Offset, PartitionIndex},
};

use super::{
    groups::{record::Record, shard::Shard},
    service::{Service, Stay, perform},
};
use crate::{
    machine,
    metrics::CoreMetrics,
    model::refusal::Refusal,
    partition::{Partition, backoff::Backoff},
};

/// Read at a time.
const READ_BYTES: u64 = 1 << 20;

/// The broker's own batches are not compressed; this only bounds what others may have left there.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// What a batch of one record has besides its key and value: the header of the batch, lengths and numbers of the record.
const RECORD_OVERHEAD_BYTES: usize = HEADER_LEN + 64;

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Log(#[from] headwater_engine::LogError),
    #[error("a batch at or behind offset {offset} is damaged: {source}")]
    Batch { offset: Offset, source: BatchError },
}

impl LoadError {
    fn count(&self, metrics: &CoreMetrics) {
        match self {
            LoadError::Log(error) | LoadError::Fetch(FetchError::Log(error)) => metrics.log_failed(error),
            LoadError::Batch { .. } => metrics.damaged(),
            LoadError::Fetch(_) => {}
        }
    }

    fn code(&self) -> ErrorCode {
        match self {
            LoadError::Fetch(error) => error.code(),
            LoadError::Log(error) => error.code(),
            LoadError::Batch { source, .. } => source.code(),
        }
    }
}

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
    if !all_is_committed(service, (index, stay), partition).await {
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

/// What a new leader has taken over may not be on enough replicas yet; it is of the groups all the same, and never taken back. False
/// if it is not for this broker to wait for any more.
async fn all_is_committed(service: &Service, (index, stay): (PartitionIndex, Stay), partition: &Partition) -> bool {
    let log = &partition.log;
    let end = log.offsets().end;
    loop {
        let moved = log.advanced(ReadLimit::HighWatermark);
        if !service.is_current(index, stay) || service.core.is_stopping() {
            return false;
        }
        if log.offsets().high_watermark >= end {
            return true;
        }
        select(moved, pin!(service.core.stopping())).await;
    }
}

async fn read(service: &Service, partition: &Partition, shard: &mut Shard) -> Result<u64, LoadError> {
    let log = &partition.log;
    let mut offset = log.offsets().start;
    let mut count = 0;
    let (mut left_out, mut first_left_out) = (0_u64, None);
    let limits = BatchLimits {
        batch_size_max: usize::MAX,
    };
    while let Some(range) = log.fetch(offset, READ_BYTES, ReadLimit::HighWatermark).await?.range {
        let bytes = Bytes::from(log.read(&range).await?);
        // Not where the last batch says that it ends: its checksum does not cover where it begins.
        let from = std::mem::replace(&mut offset, range.next_offset());
        let damaged = |source| LoadError::Batch { offset: from, source };
        for batch in Batches::new(&bytes, &limits) {
            let batch = batch.map_err(damaged)?;
            for record in &RecordSet::open(&batch, &bytes, DECOMPRESSED_BYTES_MAX).map_err(damaged)? {
                let record = record.map_err(damaged)?;
                match record.key.map(|key| Record::decode(key, record.value)) {
                    Some(Ok(Some(known))) => shard.replay(known, service.now()),
                    Some(Err(error)) => {
                        left_out += 1;
                        first_left_out.get_or_insert((record.offset, error));
                    }
                    Some(Ok(None)) | None => {}
                }
                count += 1;
            }
        }
        machine::yield_now().await;
    }
    if let Some((offset, error)) = first_left_out {
        tracing::error!(%offset, %error, count = left_out, directory = %log.directory().display(), "records of groups cannot be read and are left out; the first is named");
    }
    Ok(count)
}
