//! Where a consumer's records go: counted, timed, and verified. One for each consumer; does no I/O.

use std::collections::HashMap;
use std::sync::Arc;

use headwater_client::PartitionIndex;

use super::clock::Moment;
use super::meter::{Meter, Recorder};
use super::wake::Told;
use crate::payload::Keys;
use crate::target::Position;
use crate::workload::{Findings, Stamp, StreamId, Verifier};

/// Most records of damaged batches that are passed one by one; beyond it the log is not worth reading.
const UNREADABLE_MAX: u64 = 100_000;

/// The receiving end of a consumer.
#[derive(Debug)]
pub struct Intake {
    meter: Arc<Meter>,
    verifier: Option<Verifier>,
    latency: Timing,
    /// Whoever polls the consumer has it note when it was told of records.
    told: Arc<Told>,
    late: Recorder,
    unreadable: u64,
    /// By partition: where to read on.
    next: Vec<Position>,
    batch: Batch,
}

/// Which records are timed, from when they were due until they were received.
#[derive(Debug)]
pub enum Timing {
    /// None.
    None,
    /// One in so many.
    Every(u64, Recorder),
}

/// What came since `begin`.
#[derive(Debug, Default)]
struct Batch {
    received: Moment,
    records: u64,
    bytes: u64,
}

impl Intake {
    /// Begins to read at `from`, by partition.
    pub fn new(meter: Arc<Meter>, from: &[Position], latency: Timing) -> Self {
        Self {
            late: meter.late(),
            meter,
            verifier: None,
            latency,
            told: Arc::default(),
            unreadable: 0,
            next: from.to_vec(),
            batch: Batch::default(),
        }
    }

    /// Verifies every record.
    pub fn verify(mut self, verifier: Verifier) -> Self {
        self.verifier = Some(verifier);
        self
    }

    /// What notes when the consumer was told of records; `None` if that does not matter.
    pub fn told(&self) -> Option<Arc<Told>> {
        matches!(self.latency, Timing::Every(..)).then(|| Arc::clone(&self.told))
    }

    /// A batch has arrived: now, or when the consumer was told so.
    #[inline]
    pub fn begin(&mut self) {
        let now = Moment::now();
        let received = self.told.moment().unwrap_or(now);
        if received < now && received >= self.meter.begin() {
            self.late.record(now.nanos_since(received));
        }
        self.batch = Batch {
            received,
            ..Batch::default()
        };
    }

    /// Takes the next record of the batch.
    #[inline]
    pub fn record(
        &mut self,
        partition: PartitionIndex,
        key: Option<&[u8]>,
        header: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        self.batch.records += 1;
        self.batch.bytes += value.map_or(0, <[u8]>::len) as u64;
        if self.verifier.is_none() && matches!(self.latency, Timing::None) {
            return;
        }
        // A record that has a key of its own has its stamp in a header.
        let in_header = header.and_then(Stamp::parse);
        let is_keyed = in_header.is_some();
        let stamp = in_header.or_else(|| key.and_then(Stamp::parse));
        if let (Timing::Every(every, recorder), Some(stamp)) = (&self.latency, stamp)
            && stamp.due >= self.meter.begin()
            && stamp.sequence.get().is_multiple_of(*every)
        {
            recorder.record(self.batch.received.nanos_since(stamp.due));
        }
        if let Some(verifier) = &mut self.verifier {
            verifier.check(partition, stamp, value);
            if is_keyed && !key.is_some_and(Keys::is_whole) {
                verifier.wrong_key();
            }
        }
    }

    /// The batch ends; the partition is read on at `next`.
    #[inline]
    pub fn end(&mut self, partition: PartitionIndex, next: Position) {
        let Batch {
            received,
            records,
            bytes,
        } = self.batch;
        self.meter.progress.add(records, bytes);
        if received >= self.meter.begin() {
            self.meter.count(records, bytes);
        }
        self.reached(partition, next);
    }

    /// So many records are there but cannot be told.
    pub fn unreadable(&mut self, partition: PartitionIndex, count: u64) {
        self.unreadable += count;
        if let Some(verifier) = &mut self.verifier {
            (0..count).for_each(|_| verifier.unreadable(partition));
        }
    }

    /// Whether reading goes on behind a damaged batch: only to count the damage.
    pub fn passes_damage(&self) -> bool {
        self.verifier.is_some() && self.unreadable < UNREADABLE_MAX
    }

    /// The partition is read on at `next`.
    pub fn reached(&mut self, partition: PartitionIndex, next: Position) {
        if let Some(place) = self.next.get_mut(partition.as_usize()) {
            *place = next;
        }
        self.meter.reached(Moment::now());
    }

    /// Whether everything before these positions has come.
    pub fn has_reached(&self, ends: &[Position]) -> bool {
        self.next.iter().zip(ends).all(|(next, end)| next >= end)
    }

    /// How many records could not be told.
    pub fn unreadable_count(&self) -> u64 {
        self.unreadable
    }

    /// What was found, given how many records of each stream were acknowledged, if that is known by now. `None` if
    /// nothing was verified.
    pub fn finish(self, acknowledged: Option<HashMap<StreamId, u64>>) -> Option<Findings> {
        let mut verifier = self.verifier?;
        if let Some(acknowledged) = acknowledged {
            verifier.expect(acknowledged);
        }
        Some(verifier.finish())
    }
}
