//! How the records of one producer ended: counted, told to its callback, and the first failure kept for the next flush.
//!
//! Shared by the senders of all partitions; each event is one batch.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use headwater_protocol::id::{Offset, PartitionIndex};

use super::delivery::{Completer, Delivered};
use crate::error::Error;
use crate::runtime::sync::Mutex;
use crate::statistics::{ProducerStatistics, SharedTimings};

/// How a batch of records ended; for [`ProducerBuilder::on_delivery`](crate::ProducerBuilder::on_delivery).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DeliveryReport<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition; `None` for a record that was refused before it was put into one.
    pub partition: Option<PartitionIndex>,
    /// How many records they are; they followed each other in the partition's order of `send`.
    pub records: u32,
    /// The offset of the first of them, and with it those of the others. `None` after a failure, and where a
    /// [`RecordMetadata`](crate::RecordMetadata) has none.
    pub first_offset: Option<Offset>,
    /// Why they were not delivered; `None` if they were.
    pub error: Option<&'a Error>,
}

/// Takes reports. Called on the task that sends the partition's records.
pub(super) type OnDelivery = Arc<dyn Fn(&DeliveryReport<'_>) + Send + Sync>;

#[derive(Default)]
pub(super) struct Tally {
    /// The first failure since the last flush.
    failure: Mutex<Option<Error>>,
    on_delivery: Option<OnDelivery>,
    /// Batches in flight or about to be.
    open: AtomicUsize,
    records: AtomicU64,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_acknowledged: AtomicU64,
    batches_sent: AtomicU64,
    retries: AtomicU64,
    splits: AtomicU64,
    latency: SharedTimings,
}

impl Tally {
    pub(super) fn new(on_delivery: Option<OnDelivery>) -> Self {
        Self {
            on_delivery,
            ..Self::default()
        }
    }

    /// The first failure since this was last asked for.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failure.lock().take()
    }

    /// Takes note that a partition has `now` batches open where it had `before`. Returns how many all of them have.
    pub(super) fn count_open(&self, before: usize, now: usize) -> usize {
        let change = now.wrapping_sub(before);
        self.open.fetch_add(change, Ordering::Relaxed).wrapping_add(change)
    }

    pub(super) fn on_closed(&self, records: u32) {
        add(&self.records, u64::from(records));
    }

    pub(super) fn on_sent(&self, bytes: usize, is_repetition: bool) {
        add(&self.batches_sent, 1);
        add(&self.bytes_sent, bytes as u64);
        if is_repetition {
            add(&self.retries, 1);
        }
    }

    pub(super) fn on_split(&self) {
        add(&self.splits, 1);
    }

    /// Ends a batch well. Its callers are told last, so that they find it counted.
    pub(super) fn deliver(
        &self,
        batch: &Completer,
        delivered: Delivered,
        (records, bytes): (u32, usize),
        took: Duration,
    ) {
        add(&self.acknowledged, u64::from(records));
        add(&self.bytes_acknowledged, bytes as u64);
        self.latency.note(took, u64::from(records));
        self.report(&DeliveryReport {
            topic: batch.topic().as_str(),
            partition: Some(batch.partition()),
            records,
            first_offset: delivered.base_offset,
            error: None,
        });
        batch.complete(Ok(delivered));
    }

    /// Ends a batch badly. Its callers are told last, so that a flush that waits for it finds the failure.
    pub(super) fn fail(&self, batch: &Completer, records: u32, error: Error) {
        tracing::warn!(%error, records, "records were not delivered");
        add(&self.failed, u64::from(records));
        self.note_failure(&error);
        self.report(&DeliveryReport {
            topic: batch.topic().as_str(),
            partition: Some(batch.partition()),
            records,
            first_offset: None,
            error: Some(&error),
        });
        batch.complete(Err(error));
    }

    /// A record was not taken, and nobody was told.
    pub(super) fn refuse(&self, topic: &str, partition: Option<PartitionIndex>, error: &Error) {
        add(&self.refused, 1);
        self.note_failure(error);
        self.report(&DeliveryReport {
            topic,
            partition,
            records: 1,
            first_offset: None,
            error: Some(error),
        });
    }

    fn note_failure(&self, error: &Error) {
        self.failure.lock().get_or_insert_with(|| error.clone());
    }

    fn report(&self, report: &DeliveryReport<'_>) {
        if let Some(on_delivery) = &self.on_delivery {
            guarded(|| on_delivery(report));
        }
    }

    pub(super) fn statistics(&self, memory_used: usize) -> ProducerStatistics {
        // The ends first: else one that comes in between would be an end of nothing.
        let (acknowledged, failed) = (get(&self.acknowledged), get(&self.failed));
        ProducerStatistics {
            records: get(&self.records),
            records_acknowledged: acknowledged,
            records_failed: failed,
            records_refused: get(&self.refused),
            bytes_sent: get(&self.bytes_sent),
            bytes_acknowledged: get(&self.bytes_acknowledged),
            batches_sent: get(&self.batches_sent),
            retries: get(&self.retries),
            splits: get(&self.splits),
            memory_used,
            latency: self.latency.snapshot(),
        }
    }
}

/// Calls into the application. A panic there must not end the task that sends a partition's records, or those that follow would
/// never end.
pub(super) fn guarded(call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("a delivery callback has panicked; records are sent on");
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.statistics(0).fmt(f)
    }
}
