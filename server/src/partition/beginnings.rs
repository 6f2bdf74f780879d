//! Where idempotent producers must begin that a partition does not know, if it is not to be at their first sequence number.
//!
//! Kafka lets such a producer begin anywhere, as what was known of it may have been forgotten. But a producer sends on while a batch of
//! it is refused: what comes behind that one must not be taken in before it. So what was refused is remembered, for as long as a
//! producer may try again, however much else is refused meanwhile. Where there are more producers than are remembered one by one, all
//! that their partitions do not know begin at zero there for that time: a client does so by itself, under its next epoch, once it was
//! refused. Where there are too many of these partitions, that holds for all.
//!
//! Guaranteed is: for ten minutes after the last refusal of a batch on this core nothing that came behind it is taken in before it.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use headwater_engine::Begins;
use headwater_protocol::{
    batch::BatchHeader,
    id::{ProducerEpoch, ProducerId, Sequence},
};

use crate::{machine, model::id::PartitionId};

/// Producers give a batch up after two minutes by default.
const REMEMBERED: Duration = Duration::from_mins(10);

/// So many producers are remembered one by one, and so many partitions beyond them.
const COUNT_MAX: usize = 1024;

/// What was refused on this core.
#[derive(Debug, Default)]
pub(crate) struct Beginnings {
    /// From the oldest on.
    refused: RefCell<VecDeque<Refused>>,
    /// Partitions of which producers were refused that are not remembered, and when the last of them was.
    crowded: RefCell<HashMap<PartitionId, Instant>>,
    /// The same of those partitions that are not remembered either.
    all: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Refused {
    id: PartitionId,
    producer: ProducerId,
    /// Of the first batch that was refused.
    epoch: ProducerEpoch,
    sequence: Sequence,
    /// When one was refused last.
    at: Instant,
}

fn is_remembered(at: Instant) -> bool {
    machine::since(at) < REMEMBERED
}

impl Beginnings {
    /// Where the producer of a batch may begin.
    pub(crate) fn of(&self, id: PartitionId, batch: BatchHeader<'_>) -> Begins {
        let producer = batch.producer_id();
        if producer == ProducerId::NONE {
            return Begins::Anywhere;
        }
        // In another epoch its numbers begin again.
        match self.find(id, producer) {
            Some((epoch, sequence)) if epoch == batch.producer_epoch() => Begins::At(sequence),
            _ if self.is_crowded(id) => Begins::At(Sequence::ZERO),
            _ => Begins::Anywhere,
        }
    }

    /// What was refused first of a producer, and that is remembered.
    fn find(&self, id: PartitionId, producer: ProducerId) -> Option<(ProducerEpoch, Sequence)> {
        let refused = self.refused.borrow();
        let found = refused
            .iter()
            .find(|refused| (refused.id, refused.producer) == (id, producer) && is_remembered(refused.at));
        found.map(|refused| (refused.epoch, refused.sequence))
    }

    fn is_crowded(&self, id: PartitionId) -> bool {
        let of_it = self.crowded.borrow().get(&id).copied();
        of_it.into_iter().chain(self.all.get()).any(is_remembered)
    }

    /// A batch was refused.
    pub(crate) fn refuse(&self, id: PartitionId, batch: BatchHeader<'_>) {
        let producer = batch.producer_id();
        if producer == ProducerId::NONE {
            return;
        }
        let sequence = match self.of(id, batch) {
            Begins::At(first) => first,
            _ => batch.base_sequence(),
        };
        self.forget(id, batch);
        let mut refused = self.refused.borrow_mut();
        if refused.len() == COUNT_MAX
            && let Some(oldest) = refused.pop_front().filter(|oldest| is_remembered(oldest.at))
        {
            self.crowds(&oldest);
        }
        refused.push_back(Refused {
            id,
            producer,
            epoch: batch.producer_epoch(),
            sequence,
            at: machine::now(),
        });
    }

    /// One is not remembered by itself any more.
    fn crowds(&self, Refused { id, at, .. }: &Refused) {
        let mut crowded = self.crowded.borrow_mut();
        if !crowded.contains_key(id) && crowded.len() == COUNT_MAX {
            crowded.retain(|_, at| is_remembered(*at));
        }
        if crowded.contains_key(id) || crowded.len() < COUNT_MAX {
            crowded.insert(*id, *at);
        } else {
            self.all.set(Some(*at));
        }
    }

    /// A batch was taken in.
    pub(crate) fn forget(&self, id: PartitionId, batch: BatchHeader<'_>) {
        if batch.producer_id() == ProducerId::NONE {
            return;
        }
        let mut refused = self.refused.borrow_mut();
        refused.retain(|refused| (refused.id, refused.producer) != (id, batch.producer_id()));
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::{
        batch::{BatchBuilder, Compression},
        id::{PartitionIndex, Timestamp, TopicId},
    };

    use super::*;

    fn partition(index: i32) -> PartitionId {
        PartitionId {
            topic: TopicId::new(uuid::Uuid::from_u128(1)),
            index: PartitionIndex::new(index),
        }
    }

    /// A batch of a producer, with this number.
    fn batch(producer: i64, sequence: i32) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None, 64);
        builder.append(Timestamp::new(1), None, Some(b"a"), &[]).unwrap();
        let (epoch, sequence) = (ProducerEpoch::new(0), Sequence::new(sequence));
        builder.set_producer(ProducerId::new(producer), epoch, sequence);
        builder.build().bytes().to_vec()
    }

    fn refuse(beginnings: &Beginnings, id: PartitionId, producer: i64, sequence: i32) {
        beginnings.refuse(id, BatchHeader::read(&batch(producer, sequence)).unwrap());
    }

    fn begins(beginnings: &Beginnings, id: PartitionId, producer: i64) -> Begins {
        beginnings.of(id, BatchHeader::read(&batch(producer, 9)).unwrap())
    }

    #[test]
    fn who_was_refused_begins_with_that_and_however_many_are_refused_with_nothing_behind_it() {
        let at = |sequence| Begins::At(Sequence::new(sequence));
        let beginnings = Beginnings::default();
        refuse(&beginnings, partition(0), 1, 3);
        refuse(&beginnings, partition(0), 1, 4);
        assert_eq!(begins(&beginnings, partition(0), 1), at(3));
        assert_eq!(begins(&beginnings, partition(0), 2), Begins::Anywhere);
        for producer in 0..COUNT_MAX as i64 {
            refuse(&beginnings, partition(1), 100 + producer, 5);
        }
        // It is not remembered by itself any more. Another of its partition begins at zero as well, others anywhere.
        assert_eq!(begins(&beginnings, partition(0), 1), at(0));
        assert_eq!(begins(&beginnings, partition(0), 2), at(0));
        assert_eq!(begins(&beginnings, partition(1), 2), Begins::Anywhere);
        // What comes behind the batch that is forgotten is no beginning.
        refuse(&beginnings, partition(0), 1, 4);
        assert_eq!(begins(&beginnings, partition(0), 1), at(0));
        // More partitions than are remembered: nobody who is not known begins anywhere.
        for index in 0..2 * COUNT_MAX as i32 + 2 {
            refuse(&beginnings, partition(10 + index), 1, 5);
        }
        assert_eq!(begins(&beginnings, partition(9_999), 2), at(0));
        assert!(beginnings.refused.borrow().len() <= COUNT_MAX && beginnings.crowded.borrow().len() <= COUNT_MAX);
    }
}
