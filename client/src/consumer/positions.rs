//! Where a consumer is in each of its partitions, how far behind it is, and what holds a partition up.

use headwater_protocol::id::{Offset, PartitionIndex};
use headwater_protocol::topic::TopicName;

/// How far a consumer is in one partition; from [`Consumer::positions`](crate::Consumer::positions) and
/// [`GroupConsumer::positions`](crate::GroupConsumer::positions).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionPosition {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset of the next record to receive.
    pub position: Offset,
    /// The offset after the last record that could be fetched, as of the last response: for
    /// [`Isolation::ReadCommitted`](crate::Isolation::ReadCommitted) the last stable offset. `None` before the first response; while
    /// nothing is fetched, as of a paused partition, it is as old as that.
    pub high_watermark: Option<Offset>,
    /// Bytes of batches that were fetched, or are arriving, and have not been received.
    pub queued_bytes: usize,
    /// Why nothing more is fetched of the partition now; `None` while it is.
    pub hold: Option<Hold>,
}

impl PartitionPosition {
    /// How many offsets lie between the position and the high watermark; `None` while that is not known. Where compaction has
    /// taken records out there are fewer records than offsets.
    pub fn lag(&self) -> Option<u64> {
        // A log that was cut back ends before the position: nothing is left to read.
        self.high_watermark
            .map(|end| end.distance_from(self.position).unwrap_or(0))
    }
}

/// Why nothing more is fetched of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hold {
    /// The application has paused it.
    Paused,
    /// The group gives it to another member, as soon as the application is done with what it has of it.
    Revoked,
    /// As much as may be fetched ahead waits to be received, of this partition or of all
    /// ([`prefetch_bytes`](crate::ConsumerBuilder::prefetch_bytes)).
    QueueFull,
    /// The last attempt has failed; the next follows after a pause.
    Failing,
    /// It has failed for good, with the error that was received: it waits for a seek.
    Failed,
}
