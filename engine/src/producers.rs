//! Idempotence: what each producer has appended to one partition, so that a batch that is sent again is not stored again.
//!
//! The rules are Kafka's (KIP-98, KIP-360) but for two numbers: the window holds the last [`WINDOW`] batches instead of
//! five, so that a producer can keep megabytes in flight, and a producer that is not known must begin at sequence 0, so
//! that a rejected first batch can never be overtaken by its successor. State is rebuilt from the checkpoint and the log.

use std::collections::{HashMap, VecDeque};

use headwater_protocol::{
    batch::RecordBatch,
    id::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp},
};
use serde::{Deserialize, Serialize};

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

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    /// It is in the log already, at these offsets.
    Duplicate {
        base_offset: Offset,
        next_offset: Offset,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    first: i32,
    last: i32,
    base_offset: u64,
    next_offset: u64,
}

/// One producer's state, as it also stands in the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Producer {
    id: i64,
    epoch: i16,
    /// The only first sequence that is accepted next.
    next: i32,
    /// Milliseconds since the epoch, by the broker's clock, of the last batch.
    last_seen_ms: i64,
    window: VecDeque<Stored>,
}

/// All producers of one partition.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    by_id: HashMap<i64, Producer>,
}

impl Producers {
    pub(crate) fn from_snapshot(producers: Vec<Producer>) -> Producers {
        Producers {
            by_id: producers.into_iter().map(|producer| (producer.id, producer)).collect(),
        }
    }

    /// The state as of `durable`, in the order of ids.
    pub(crate) fn snapshot(&self, durable: Offset) -> Vec<Producer> {
        let mut producers: Vec<Producer> = self
            .by_id
            .values()
            .filter_map(|producer| producer.as_of(durable))
            .collect();
        producers.sort_by_key(|producer| producer.id);
        producers
    }

    /// Decides about a batch without changing anything. Batches without a producer id are always appended.
    pub(crate) fn check(&self, batch: &RecordBatch<'_>) -> Result<Verdict, SequenceError> {
        let (id, got) = (batch.producer_id(), batch.base_sequence().get());
        if id == ProducerId::NONE {
            return Ok(Verdict::Append);
        }
        let Some(producer) = self.by_id.get(&id.get()) else {
            return if got == 0 {
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
        producer.look_back(got, batch.last_sequence().get())
    }

    /// Notes a batch that has been appended (or was found in the log, then at no known time) at `base_offset`. Batches
    /// beyond `durable` are kept even if they are more than the window, because they may yet be dropped.
    pub(crate) fn note(&mut self, batch: &RecordBatch<'_>, base_offset: Offset, now: Timestamp, durable: Offset) {
        let id = batch.producer_id();
        if id == ProducerId::NONE {
            return;
        }
        let epoch = batch.producer_epoch();
        let producer = self.by_id.entry(id.get()).or_insert_with(|| Producer::new(id, epoch));
        if producer.epoch != epoch.get() {
            *producer = Producer::new(id, epoch);
        }
        producer.window.push_back(Stored {
            first: batch.base_sequence().get(),
            last: batch.last_sequence().get(),
            base_offset: base_offset.get(),
            next_offset: base_offset.get() + u64::from(batch.offset_count()),
        });
        let is_enough = |at: Option<&Stored>| at.is_some_and(|stored| stored.next_offset <= durable.get());
        while is_enough(producer.window.get(WINDOW)) {
            producer.window.pop_front();
        }
        producer.next = batch.last_sequence().plus(1).get();
        producer.last_seen_ms = now.get();
    }

    /// Forgets what was appended at or after `end`; the producers must send those batches again, in order. A producer of
    /// whom nothing is left although there was more, beyond the window, is not known any more.
    pub(crate) fn truncate(&mut self, end: Offset) {
        self.by_id.retain(|_, producer| producer.truncate(end));
    }

    /// Forgets producers that have been silent for longer than `expiry_ms`, and, beyond `count_max`, the longest silent.
    pub(crate) fn expire(&mut self, now: Timestamp, expiry_ms: u64, count_max: usize) {
        let oldest = now.get().saturating_sub(expiry_ms.cast_signed());
        for producer in self.by_id.values_mut().filter(|producer| producer.last_seen_ms < 0) {
            // Found by recovery, which does not know the time: the silence counts from now on. The producer's own
            // timestamps say nothing about it.
            producer.last_seen_ms = now.get();
        }
        self.by_id.retain(|_, producer| producer.last_seen_ms >= oldest);
        if self.by_id.len() > count_max {
            let mut seen: Vec<(i64, i64)> = self.by_id.values().map(|p| (p.last_seen_ms, p.id)).collect();
            seen.sort_unstable();
            for (_, id) in &seen[..seen.len() - count_max] {
                self.by_id.remove(id);
            }
        }
    }

    /// Base offset of the last batch of each producer that is known.
    pub(crate) fn last_batches(&self) -> HashMap<ProducerId, Offset> {
        let last = |producer: &Producer| {
            let stored = producer.window.back()?;
            Some((ProducerId::new(producer.id), Offset::new(stored.base_offset)))
        };
        self.by_id.values().filter_map(last).collect()
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
            last_seen_ms: 0,
            window: VecDeque::new(),
        }
    }

    /// The state as of `durable`, if anything was known then.
    fn as_of(&self, durable: Offset) -> Option<Producer> {
        let mut producer = self.clone();
        let is_known = producer.truncate(durable);
        while producer.window.len() > WINDOW {
            producer.window.pop_front();
        }
        (is_known && (!producer.window.is_empty() || producer.next != 0)).then_some(producer)
    }

    /// Drops what lies at or after `end`. Returns whether the state is still known.
    fn truncate(&mut self, end: Offset) -> bool {
        let is_empty = self.window.is_empty();
        while let Some(stored) = self.window.pop_back_if(|stored| stored.base_offset >= end.get()) {
            self.next = stored.first;
        }
        // Before the oldest that is remembered, only an epoch's first batch has no other.
        is_empty || !self.window.is_empty() || self.next == 0
    }

    /// A batch that does not go on where the last one ended: sent before, or ahead of one that is missing.
    fn look_back(&self, first: i32, last: i32) -> Result<Verdict, SequenceError> {
        let window = || self.window.iter().rev().take(WINDOW);
        if let Some(stored) = window().find(|stored| stored.first == first && stored.last == last) {
            let (base_offset, next_offset) = (Offset::new(stored.base_offset), Offset::new(stored.next_offset));
            return Ok(Verdict::Duplicate {
                base_offset,
                next_offset,
            });
        }
        // Sequences wrap: half of their range lies behind `next`, the other half ahead.
        let behind = Sequence::new(self.next).distance(Sequence::new(first)) < 1 << 30;
        let producer = self.id;
        if behind
            && window()
                .next_back()
                .is_some_and(|oldest| is_before(first, oldest.first))
        {
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
