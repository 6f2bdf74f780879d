//! Idempotence: what each producer has appended to one partition, so that a batch that is sent again is not stored again.
//!
//! The rules are Kafka's (KIP-98, KIP-360) but for two numbers: the window holds the last [`WINDOW`] batches instead of
//! five, so that a producer can keep megabytes in flight, and a producer that is not known must begin at sequence 0, unless whoever
//! appends knows that no first batch of it was rejected ([`Begins`]). State is rebuilt from the checkpoint and the log.
//!
//! Markers of transactions are remembered among the batches: one raises the producer's epoch, and a truncation takes that back.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use headwater_protocol::{
    batch::{EndMarker, RecordBatch, TimestampType},
    id::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::MarkerError,
    log::{Begins, ProducerConfig},
    moment::{Moment, Since},
    transactions::MarkerEpoch,
};

/// Batches of one producer that are remembered: twice what a client keeps in flight by default.
pub const WINDOW: usize = 128;

/// Why a batch of an idempotent producer is not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// A newer instance of the producer has written since.
    #[error("producer {producer} has epoch {current}, the batch has the older epoch {got}")]
    StaleEpoch {
        /// The producer id.
        producer: i64,
        /// Epoch in force.
        current: i16,
        /// Epoch of the batch.
        got: i16,
    },
    /// An earlier batch is missing.
    #[error("producer {producer} must go on with sequence {expected}, the batch begins at {got}")]
    OutOfOrder {
        /// The producer id.
        producer: i64,
        /// Sequence that would be next.
        expected: i32,
        /// First sequence of the batch.
        got: i32,
    },
    /// Nothing is known of the producer here (any more), and the batch is not its first.
    #[error("producer {producer} is not known on this partition, so it must begin at sequence 0, not {got}")]
    Unknown {
        /// The producer id.
        producer: i64,
        /// First sequence of the batch.
        got: i32,
    },
    /// Stored before, but so long ago that its offset is no longer known.
    #[error("producer {producer}: sequence {got} was stored before and is older than the window of {WINDOW} batches")]
    Duplicate {
        /// The producer id.
        producer: i64,
        /// First sequence of the batch.
        got: i32,
    },
}

/// How far back what is remembered of a producer can be needed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    /// Checkpoints go back to here.
    pub(crate) filed: Offset,
    /// Truncations go back to here.
    pub(crate) high_watermark: Offset,
}

impl Kept {
    /// Nothing goes back.
    pub(crate) const ALL_FILED: Kept = Kept {
        filed: Offset::MAX,
        high_watermark: Offset::MAX,
    };
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    /// It is in the log already, at these offsets.
    Duplicate(Original),
}

/// Where a batch is that was appended before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Original {
    pub(crate) base_offset: Offset,
    pub(crate) next_offset: Offset,
    /// The timestamp that the broker gave to its records.
    pub(crate) append_time: Option<Timestamp>,
}

/// A batch; or a marker, which has no sequences: `first` is then what the next batch has, and `last` comes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    first: i32,
    last: i32,
    /// Of the producer. In a checkpoint all have the same.
    #[serde(skip)]
    epoch: i16,
    base_offset: u64,
    next_offset: u64,
    /// Milliseconds since the epoch, -1 if the producer's timestamps were kept.
    #[serde(default = "no_append_time", skip_serializing_if = "is_no_append_time")]
    append_time_ms: i64,
}

const fn no_append_time() -> i64 {
    Timestamp::NONE.get()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_no_append_time(append_time_ms: &i64) -> bool {
    *append_time_ms == no_append_time()
}

/// The epoch of no coordinator.
const fn no_coordinator() -> i32 {
    -1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_no_coordinator(epoch: &i32) -> bool {
    *epoch == no_coordinator()
}

impl Stored {
    fn is_marker(&self) -> bool {
        self.last == self.first - 1
    }

    /// The sequence that follows.
    fn next(&self) -> i32 {
        Sequence::new(self.last).plus(1).get().max(0)
    }

    fn original(&self) -> Original {
        let append_time = Timestamp::new(self.append_time_ms);
        Original {
            base_offset: Offset::new(self.base_offset),
            next_offset: Offset::new(self.next_offset),
            append_time: append_time.is_some().then_some(append_time),
        }
    }
}

/// One producer's state, as it also stands in the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Producer {
    id: i64,
    epoch: i16,
    /// The only first sequence that is accepted next.
    next: i32,
    /// When the last batch was appended.
    #[serde(rename = "last_seen_ms")]
    last_seen: Since,
    /// Of the coordinator that has ended a transaction of it last.
    #[serde(default = "no_coordinator", skip_serializing_if = "is_no_coordinator")]
    coordinator_epoch: i32,
    /// There were batches of an earlier epoch, of which nothing is remembered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    has_former: bool,
    window: VecDeque<Stored>,
}

/// What a partition knows of one of its producers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The sequence of its last record, or -1 if its batches are too long ago.
    pub last_sequence: i32,
    /// When its last batch was appended.
    pub last_append: Timestamp,
    /// Epoch of the coordinator that has ended its last transaction here; -1 if none has.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction.
    pub transaction_start: Option<Offset>,
}

/// All producers of one partition.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    /// Shared with the snapshot of a checkpoint that is being written: a change to one that is shared changes a copy.
    by_id: HashMap<i64, Arc<Producer>>,
}

/// All producers of one partition at one moment. It costs the core little, whatever there is to remember; another thread makes of it
/// what a checkpoint says.
#[derive(Debug)]
pub(crate) struct Snapshot(Vec<Arc<Producer>>);

impl Snapshot {
    /// The state as of `durable`, in the order of ids.
    pub(crate) fn as_of(&self, durable: Offset) -> Vec<Producer> {
        let mut producers: Vec<Producer> = self.0.iter().filter_map(|producer| producer.as_of(durable)).collect();
        producers.sort_unstable_by_key(|producer| producer.id);
        producers
    }
}

impl Producers {
    pub(crate) fn from_checkpoint(producers: Vec<Producer>) -> Producers {
        let known = |mut producer: Producer| {
            for stored in &mut producer.window {
                stored.epoch = producer.epoch;
            }
            (producer.id, Arc::new(producer))
        };
        Producers {
            by_id: producers.into_iter().map(known).collect(),
        }
    }

    /// What is known now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.by_id.values().cloned().collect())
    }

    /// All that there are, in the order of their ids. `transaction_start` knows where each has an open transaction.
    pub(crate) fn active(&self, transaction_start: impl Fn(ProducerId) -> Option<Offset>) -> Vec<ActiveProducer> {
        let active = self.by_id.values().map(|producer| ActiveProducer {
            id: ProducerId::new(producer.id),
            epoch: ProducerEpoch::new(producer.epoch),
            last_sequence: producer.window.back().map_or(-1, |last| last.last),
            last_append: producer.last_seen.clock(),
            coordinator_epoch: producer.coordinator_epoch,
            transaction_start: transaction_start(ProducerId::new(producer.id)),
        });
        let mut active: Vec<ActiveProducer> = active.collect();
        active.sort_unstable_by_key(|producer| producer.id.get());
        active
    }

    /// Decides about a batch without changing anything. Batches without a producer id are always appended.
    pub(crate) fn check(&self, batch: &RecordBatch<'_>, begins: Begins) -> Result<Verdict, SequenceError> {
        let (id, got) = (batch.producer_id(), batch.base_sequence().get());
        if id == ProducerId::NONE {
            return Ok(Verdict::Append);
        }
        let Some(producer) = self.by_id.get(&id.get()) else {
            return if begins.allows(batch.base_sequence()) {
                Ok(Verdict::Append)
            } else {
                Err(SequenceError::Unknown {
                    producer: id.get(),
                    got,
                })
            };
        };
        let epoch = batch.producer_epoch().get();
        if epoch < producer.epoch {
            return Err(SequenceError::StaleEpoch {
                producer: id.get(),
                current: producer.epoch,
                got: epoch,
            });
        }
        if begins == Begins::Unnumbered {
            return Ok(Verdict::Append);
        }
        let expected = if epoch > producer.epoch { 0 } else { producer.next };
        if got == expected {
            return Ok(Verdict::Append);
        }
        if epoch > producer.epoch {
            return Err(SequenceError::OutOfOrder {
                producer: id.get(),
                expected,
                got,
            });
        }
        producer.look_back(got, batch.last_sequence().get(), begins)
    }

    /// Decides about a marker without changing anything. `is_open`: there is a transaction for it to end.
    pub(crate) fn check_marker(&self, marker: &EndMarker, rule: MarkerEpoch, is_open: bool) -> Result<(), MarkerError> {
        let (id, got) = (marker.producer_id.get(), marker.producer_epoch.get());
        let Some(producer) = self.by_id.get(&id) else {
            return Ok(());
        };
        // One that comes again when nothing is open ends nothing.
        let is_late = rule == MarkerEpoch::Raised && is_open && got == producer.epoch;
        if got < producer.epoch || is_late {
            return Err(SequenceError::StaleEpoch {
                producer: id,
                current: producer.epoch,
                got,
            }
            .into());
        }
        if marker.coordinator_epoch < producer.coordinator_epoch {
            return Err(MarkerError::FencedCoordinator {
                producer: id,
                current: producer.coordinator_epoch,
                got: marker.coordinator_epoch,
            });
        }
        Ok(())
    }

    /// Epoch of the coordinator that has ended the producer's last transaction; -1 if none has.
    pub(crate) fn coordinator_epoch(&self, id: ProducerId) -> i32 {
        let producer = self.by_id.get(&id.get());
        producer.map_or(no_coordinator(), |producer| producer.coordinator_epoch)
    }

    /// Notes a batch or a marker that has been appended (or was found in the log, then at no known time) at `base_offset`. What may
    /// yet be gone back to is kept even if it is more than the window.
    pub(crate) fn note(&mut self, batch: &RecordBatch<'_>, base_offset: Offset, appended: Since, kept: Kept) {
        let id = batch.producer_id();
        if id == ProducerId::NONE {
            return;
        }
        let epoch = batch.producer_epoch();
        let producer = self
            .by_id
            .entry(id.get())
            .or_insert_with(|| Arc::new(Producer::new(id, epoch)));
        let producer = Arc::make_mut(producer);
        if producer.epoch != epoch.get() {
            (producer.epoch, producer.next) = (epoch.get(), 0);
        }
        let (mut first, mut last) = (batch.base_sequence().get(), batch.last_sequence().get());
        if batch.is_control() {
            (first, last) = (producer.next, producer.next - 1);
            let marker = EndMarker::read(batch);
            producer.coordinator_epoch = marker.map_or(producer.coordinator_epoch, |marker| marker.coordinator_epoch);
        }
        let append_time_ms = match batch.timestamp_type() {
            TimestampType::CreateTime => no_append_time(),
            TimestampType::LogAppendTime => batch.max_timestamp().get(),
        };
        producer.window.push_back(Stored {
            first,
            last,
            epoch: epoch.get(),
            base_offset: base_offset.get(),
            next_offset: base_offset.get() + u64::from(batch.offset_count()),
            append_time_ms,
        });
        producer.next = producer.window.back().map_or(0, Stored::next);
        producer.forget(kept);
        producer.last_seen = appended;
    }

    /// Forgets what was appended at or after `end`; the producers must send those batches again, in order. A producer of
    /// whom nothing is left although there was more, beyond the window, is not known any more.
    pub(crate) fn truncate(&mut self, end: Offset) {
        self.by_id.retain(|_, producer| Arc::make_mut(producer).truncate(end));
    }

    /// Producers that have more in the log than is remembered, and of whom a truncation to `end` would leave nothing.
    pub(crate) fn lost_by(&self, end: Offset) -> HashSet<ProducerId> {
        let is_lost = |producer: &Producer| {
            let oldest = producer.window.front();
            oldest.is_some_and(|oldest| oldest.base_offset >= end.get() && (oldest.first != 0 || producer.has_former))
        };
        let lost = self.by_id.values().filter(|producer| is_lost(producer));
        lost.map(|producer| ProducerId::new(producer.id)).collect()
    }

    /// Takes in what was found of producers that are not known.
    pub(crate) fn adopt(&mut self, found: Producers) {
        for (id, producer) in found.by_id {
            self.by_id.entry(id).or_insert(producer);
        }
    }

    /// Forgets producers that have been silent for longer than the expiry, and, beyond the largest count, the longest silent. The
    /// silence of those that recovery has found counts from the first look on: their own timestamps say nothing about it.
    /// Those with an open transaction stay.
    pub(crate) fn expire(&mut self, now: Moment, config: ProducerConfig, is_open: impl Fn(ProducerId) -> bool) {
        let expiry = Duration::from_millis(config.expiry_ms);
        let silence = |producer: &mut Arc<Producer>| Arc::make_mut(producer).last_seen.age(now);
        let is_open = |id: i64| is_open(ProducerId::new(id));
        self.by_id
            .retain(|id, producer| silence(producer) <= expiry || is_open(*id));
        let excess = self.by_id.len().saturating_sub(config.count_max);
        if excess > 0 {
            let by_id = self.by_id.iter_mut().filter(|(id, _)| !is_open(**id));
            let mut silent: Vec<(Duration, i64)> = by_id.map(|(id, producer)| (silence(producer), *id)).collect();
            silent.sort_unstable_by_key(|(silence, id)| (Reverse(*silence), *id));
            for (_, id) in &silent[..excess.min(silent.len())] {
                self.by_id.remove(id);
            }
        }
    }

    /// Base offsets of what each producer's state can be found by again: of its last batch, and of a marker that has come after it.
    pub(crate) fn last_batches(&self) -> HashSet<(ProducerId, Offset)> {
        let last = |producer: &Arc<Producer>| {
            let id = ProducerId::new(producer.id);
            let place = |stored: &Stored| (id, Offset::new(stored.base_offset));
            let of_epoch = || {
                producer
                    .window
                    .iter()
                    .rev()
                    .filter(|stored| stored.epoch == producer.epoch)
            };
            let batch = of_epoch().find(|stored| !stored.is_marker()).map(place);
            let marker = of_epoch().next().filter(|stored| stored.is_marker()).map(place);
            [batch, marker]
        };
        self.by_id.values().flat_map(last).flatten().collect()
    }

    pub(crate) fn knows(&self, id: ProducerId) -> bool {
        self.by_id.contains_key(&id.get())
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}

impl Producer {
    fn new(id: ProducerId, epoch: ProducerEpoch) -> Producer {
        Producer {
            id: id.get(),
            epoch: epoch.get(),
            next: 0,
            last_seen: Since::UNKNOWN,
            coordinator_epoch: no_coordinator(),
            has_former: false,
            window: VecDeque::new(),
        }
    }

    /// The state as of `durable`, if anything was known then.
    fn as_of(&self, durable: Offset) -> Option<Producer> {
        let mut producer = self.clone();
        let is_known = producer.truncate(durable);
        producer.forget(Kept::ALL_FILED);
        (is_known && (!producer.window.is_empty() || producer.next != 0)).then_some(producer)
    }

    /// Forgets what nothing goes back to any more: all but the last of earlier epochs, and what is beyond the window.
    fn forget(&mut self, kept: Kept) {
        let Kept { filed, high_watermark } = kept;
        let is_below = |at: Option<&Stored>, end: Offset| at.is_some_and(|stored| stored.next_offset <= end.get());
        let all_below = filed.min(high_watermark);
        let epoch = self.epoch;
        while self.window.front().is_some_and(|front| front.epoch != epoch) && is_below(self.window.get(1), all_below) {
            self.window.pop_front();
            self.has_former = true;
        }
        while is_below(self.window.get(WINDOW), filed) {
            self.window.pop_front();
        }
    }

    /// Drops what lies at or after `end`. Returns whether the state is still known.
    fn truncate(&mut self, end: Offset) -> bool {
        let is_empty = self.window.is_empty();
        while let Some(stored) = self.window.pop_back_if(|stored| stored.base_offset >= end.get()) {
            (self.epoch, self.next) = (stored.epoch, stored.first);
            if let Some(last) = self.window.back() {
                (self.epoch, self.next) = (last.epoch, last.next());
            }
        }
        // Before the oldest that is remembered, only an epoch's first batch has no other.
        is_empty || !self.window.is_empty() || (self.next == 0 && !self.has_former)
    }

    /// A batch that does not go on where the last one ended: sent before, or ahead of one that is missing. What lies before all that is
    /// remembered was stored only if the producer had to begin with its first sequence number.
    fn look_back(&self, first: i32, last: i32, begins: Begins) -> Result<Verdict, SequenceError> {
        let of_epoch = |stored: &&Stored| stored.epoch == self.epoch;
        let window = || self.window.iter().rev().take_while(of_epoch).take(WINDOW);
        if let Some(stored) = window().find(|stored| stored.first == first && stored.last == last) {
            return Ok(Verdict::Duplicate(stored.original()));
        }
        // Sequences wrap: half of their range lies behind `next`, the other half ahead.
        let behind = Sequence::new(self.next).distance(Sequence::new(first)) < 1 << 30;
        let producer = self.id;
        if behind && begins == Begins::AtZero && window().last().is_some_and(|oldest| is_before(first, oldest.first)) {
            Err(SequenceError::Duplicate { producer, got: first })
        } else {
            Err(SequenceError::OutOfOrder {
                producer,
                expected: self.next,
                got: first,
            })
        }
    }
}

fn is_before(sequence: i32, other: i32) -> bool {
    sequence != other && Sequence::new(other).distance(Sequence::new(sequence)) < 1 << 30
}
