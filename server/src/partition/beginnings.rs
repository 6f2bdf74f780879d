//! Where idempotent producers must begin that a partition does not know, if it is not to be at their first sequence number.
//!
//! Kafka lets such a producer begin anywhere, as what was known of it may have been forgotten. But a producer sends on while a batch of
//! it is refused: what comes behind that one must not be taken in before it. So what was refused is remembered, for as long as a
//! producer may try again.

use std::{
    cell::RefCell,
    collections::VecDeque,
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

/// Beyond these the oldest are forgotten.
const COUNT_MAX: usize = 1024;

/// What was refused on this core.
#[derive(Debug, Default)]
pub(crate) struct Beginnings {
    refused: RefCell<VecDeque<Refused>>,
}

#[derive(Debug)]
struct Refused {
    id: PartitionId,
    producer: ProducerId,
    /// Of the first batch that was refused.
    epoch: ProducerEpoch,
    sequence: Sequence,
    at: Instant,
}

impl Beginnings {
    /// Where the producer of a batch may begin.
    pub(crate) fn of(&self, id: PartitionId, batch: BatchHeader<'_>) -> Begins {
        let producer = batch.producer_id();
        if producer == ProducerId::NONE {
            return Begins::Anywhere;
        }
        let refused = self.refused.borrow();
        let found = refused
            .iter()
            .find(|refused| (refused.id, refused.producer) == (id, producer));
        // In another epoch its numbers begin again.
        let counts =
            |refused: &&Refused| refused.epoch == batch.producer_epoch() && machine::since(refused.at) < REMEMBERED;
        let found = found.filter(counts);
        found.map_or(Begins::Anywhere, |refused| Begins::At(refused.sequence))
    }

    /// A batch was refused.
    pub(crate) fn refuse(&self, id: PartitionId, batch: BatchHeader<'_>) {
        if batch.producer_id() == ProducerId::NONE || matches!(self.of(id, batch), Begins::At(_)) {
            return;
        }
        self.forget(id, batch);
        let mut refused = self.refused.borrow_mut();
        if refused.len() == COUNT_MAX {
            refused.pop_front();
        }
        refused.push_back(Refused {
            id,
            producer: batch.producer_id(),
            epoch: batch.producer_epoch(),
            sequence: batch.base_sequence(),
            at: machine::now(),
        });
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
