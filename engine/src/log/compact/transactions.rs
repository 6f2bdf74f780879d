//! What a compaction has to know of transactions: which batches were aborted, and of which transactions something stays.
//!
//! Owned by one pass. Only what lies below the last stable offset is compacted, so every transaction in it has ended. What was aborted
//! supersedes nothing, and goes. A marker stays while anything of its transaction does: else that would be open for ever for
//! whoever reads the log again. Then it gets a delete horizon as a tombstone does, so that a reader who has fetched something of
//! the transaction meets its end; and while it is there, so is what the index of aborted transactions says of it.

use std::collections::{HashMap, HashSet};

use headwater_protocol::{
    batch::{BatchHeader, EndMarker, RecordSet},
    id::Offset,
};

use crate::transactions::Aborted;

/// The transactions of the segments that a pass goes over.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Of each producer, in the order of the log.
    aborted: HashMap<i64, Vec<Aborted>>,
    /// By their markers.
    by_marker: HashMap<Offset, Aborted>,
    /// Producers of whose transaction something stays, as far as the pass has come.
    stays: HashSet<i64>,
}

impl Ends {
    pub(super) fn new(aborted: Vec<Aborted>) -> Ends {
        let mut ends = Ends::default();
        for one in aborted {
            ends.by_marker.insert(one.last_offset, one);
            ends.aborted.entry(one.producer_id.get()).or_default().push(one);
        }
        ends
    }

    /// Whether the batch is part of a transaction that was aborted.
    pub(super) fn is_aborted(&self, header: BatchHeader<'_>) -> bool {
        if !header.is_transactional() || header.is_control() {
            return false;
        }
        let of_producer = self.aborted.get(&header.producer_id().get());
        let of_producer = of_producer.map_or(&[][..], Vec::as_slice);
        let base_offset = header.base_offset();
        let at = of_producer.partition_point(|aborted| aborted.last_offset < base_offset);
        of_producer
            .get(at)
            .is_some_and(|aborted| aborted.first_offset <= base_offset)
    }

    /// Records of a batch stay.
    pub(super) fn note_stays(&mut self, header: BatchHeader<'_>) {
        if header.is_transactional() && !header.is_control() {
            self.stays.insert(header.producer_id().get());
        }
    }

    /// Here is a marker. Returns whether something of its transaction has stayed.
    pub(super) fn end(&mut self, marker: &RecordSet) -> bool {
        let id = marker.header().producer_id().get();
        EndMarker::of(marker).is_some() && self.stays.remove(&id)
    }

    /// What the index says of the marker at this offset.
    pub(super) fn at_marker(&self, offset: Offset) -> Option<Aborted> {
        self.by_marker.get(&offset).copied()
    }
}
