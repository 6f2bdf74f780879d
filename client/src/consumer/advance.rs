//! How a consumer's position moves: by records, or over offsets of which there is none to hand out.
//!
//! A reader with an end has reached it when its position has, not when it has been handed a certain record: the last offsets
//! may hold none, or be gone before they were read.

use std::collections::BTreeMap;

use headwater_protocol::id::{Offset, PartitionIndex};
use headwater_protocol::topic::TopicName;

use super::Records;

/// What a consumer comes to next; from [`Consumer::advance`](crate::Consumer::advance).
#[derive(Debug, Clone)]
pub enum Advance {
    /// The records of a batch.
    Records(Records),
    /// A partition's position has moved without a record.
    Skip(Skip),
}

/// A move of a partition's position over offsets of which no record is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skip {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// The position before.
    pub from: Offset,
    /// The position now. Before `from` if the log ends there, or with [`SkipCause::Recreated`].
    pub to: Offset,
    /// Why.
    pub cause: SkipCause,
}

impl Skip {
    /// Offsets that were passed over; 0 if the position has gone back.
    pub fn offsets(&self) -> u64 {
        self.to.distance_from(self.from).unwrap_or(0)
    }
}

/// Why a position moves without a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipCause {
    /// There is no record at these offsets: compaction has taken it out, or they are the broker's own markers; or it belongs to a
    /// transaction that was aborted, for [`Isolation::ReadCommitted`](crate::Isolation::ReadCommitted).
    NoRecord,
    /// The records were deleted, by retention or on demand, before this consumer came to them.
    Deleted,
    /// The position was out of range, and [`OffsetReset`](crate::OffsetReset) says to go on at `to`.
    Reset,
    /// The topic was deleted and created anew; `to` is a position in the new one.
    Recreated,
}

/// How many offsets of a partition a consumer has passed since it was made without handing out a record of them; from
/// [`Consumer::skipped`](crate::Consumer::skipped).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// As [`SkipCause::NoRecord`]; also those within batches.
    pub no_record: u64,
    /// As [`SkipCause::Deleted`]: what this reader has lost.
    pub deleted: u64,
    /// As [`SkipCause::Reset`].
    pub reset: u64,
}

/// What has been skipped, by partition.
#[derive(Debug, Default)]
pub(super) struct Totals(BTreeMap<(TopicName, PartitionIndex), Skipped>);

impl Totals {
    pub(super) fn add(&mut self, topic: &TopicName, partition: PartitionIndex, cause: SkipCause, offsets: u64) {
        let place = (topic.clone(), partition);
        let skipped = self.0.entry(place).or_insert_with(|| Skipped {
            topic: topic.clone(),
            partition,
            no_record: 0,
            deleted: 0,
            reset: 0,
        });
        match cause {
            SkipCause::NoRecord => skipped.no_record += offsets,
            SkipCause::Deleted => skipped.deleted += offsets,
            SkipCause::Reset => skipped.reset += offsets,
            SkipCause::Recreated => {}
        }
    }

    pub(super) fn all(&self) -> Vec<Skipped> {
        self.0.values().cloned().collect()
    }
}
