//! Reads what a partition of an internal topic has to say, when it is led here anew.

use std::pin::pin;

use bytes::Bytes;
use futures::future::select;
use headwater_engine::{FetchError, Log, ReadLimit};
use headwater_protocol::{
    batch::{BatchError, BatchHeader, BatchLimits, Batches, RecordSet, RecordView},
    error::ErrorCode,
    id::Offset,
};

use crate::{
    core::Core,
    machine::{self, Disk},
    metrics::CoreMetrics,
};

/// Read at a time.
const READ_BYTES: u64 = 1 << 20;

/// The broker's own batches are not compressed; this only bounds what others may have left there.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Log(#[from] headwater_engine::LogError),
    #[error("a batch at or behind offset {offset} is damaged: {source}")]
    Batch { offset: Offset, source: BatchError },
}

impl LoadError {
    pub(super) fn count(&self, metrics: &CoreMetrics) {
        match self {
            LoadError::Log(error) | LoadError::Fetch(FetchError::Log(error)) => metrics.log_failed(error),
            LoadError::Batch { .. } => metrics.damaged(),
            LoadError::Fetch(_) => {}
        }
    }

    pub(super) fn code(&self) -> ErrorCode {
        match self {
            LoadError::Fetch(error) => error.code(),
            LoadError::Log(error) => error.code(),
            LoadError::Batch { source, .. } => source.code(),
        }
    }
}

/// What a new leader has taken over may not be on enough replicas yet; it is of the coordinator all the same, and never taken back. False
/// if it is not for this broker to wait for any more.
pub(super) async fn all_is_committed(core: &Core, log: &Log<Disk>, is_current: impl Fn() -> bool) -> bool {
    let end = log.offsets().end;
    loop {
        let moved = log.advanced(ReadLimit::HighWatermark);
        if !is_current() || core.is_stopping() {
            return false;
        }
        if log.offsets().high_watermark >= end {
            return true;
        }
        select(moved, pin!(core.stopping())).await;
    }
}

/// Shows every record in its order, and counts them.
pub(super) async fn read(
    log: &Log<Disk>,
    mut each: impl FnMut(BatchHeader<'_>, &RecordView<'_>),
) -> Result<u64, LoadError> {
    let mut offset = log.offsets().start;
    let mut count = 0;
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
                each(batch.header(), &record.map_err(damaged)?);
                count += 1;
            }
        }
        machine::yield_now().await;
    }
    Ok(count)
}
