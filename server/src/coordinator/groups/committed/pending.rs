//! Offsets that were committed within transactions: they count once a transaction is committed, and never if it is aborted.
//!
//! Of two commits of one partition the later in the log stands, as in Kafka, whenever their transactions end. So what a later one
//! overtakes is forgotten.

use std::collections::BTreeMap;

use headwater_protocol::id::ProducerId;

use super::offsets::Place;
use crate::model::{group::Committed, transaction::End};

/// Those of a group.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    of: BTreeMap<ProducerId, BTreeMap<Place, (u64, Committed)>>,
    next: u64,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Every partition of which an offset is pending; some more than once.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        self.of.values().flat_map(BTreeMap::keys)
    }

    /// A commit within a producer's transaction is durable.
    pub(crate) fn add(&mut self, producer: ProducerId, place: Place, committed: Committed) {
        let number = self.next;
        self.next += 1;
        self.of.entry(producer).or_default().insert(place, (number, committed));
    }

    /// A later record says what there is to say of a partition.
    pub(crate) fn overtake(&mut self, place: &Place) {
        self.overtake_until(place, self.next);
    }

    fn overtake_until(&mut self, place: &Place, number: u64) {
        self.of.retain(|_, offsets| {
            if offsets.get(place).is_some_and(|(earlier, _)| *earlier < number) {
                offsets.remove(place);
            }
            !offsets.is_empty()
        });
    }

    /// The producer's transaction has ended: what counts from now on.
    pub(crate) fn end(&mut self, producer: ProducerId, end: End) -> Vec<(Place, Committed)> {
        let ended = self.of.remove(&producer).unwrap_or_default();
        if end == End::Abort {
            return Vec::new();
        }
        for (place, (number, _)) in &ended {
            self.overtake_until(place, *number);
        }
        ended
            .into_iter()
            .map(|(place, (_, committed))| (place, committed))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::id::LeaderEpoch;

    use super::*;
    use crate::model::group::Since;

    fn at(offset: i64) -> Committed {
        Committed {
            offset,
            leader_epoch: LeaderEpoch::NONE,
            metadata: String::new(),
            at: Since::UNKNOWN,
        }
    }

    fn place(index: i32) -> Place {
        ("t".to_owned(), index)
    }

    #[test]
    fn the_later_commit_stands_whenever_transactions_end() {
        let [one, two] = [1, 2].map(ProducerId::new);
        let mut pending = Pending::default();
        pending.add(one, place(0), at(10));
        pending.add(one, place(1), at(11));
        pending.add(two, place(0), at(20));
        assert_eq!(pending.end(two, End::Commit), [(place(0), at(20))]);
        assert_eq!(
            pending.end(one, End::Commit),
            [(place(1), at(11))],
            "the first was overtaken"
        );
        assert!(pending.is_empty());
        pending.add(one, place(0), at(30));
        pending.add(two, place(0), at(40));
        assert_eq!(pending.end(one, End::Commit), [(place(0), at(30))]);
        assert_eq!(pending.end(two, End::Commit), [(place(0), at(40))], "it is later");
        pending.add(one, place(0), at(50));
        pending.overtake(&place(0));
        assert!(pending.is_empty(), "a commit without a transaction came later");
        pending.add(one, place(0), at(60));
        assert_eq!(pending.end(one, End::Abort), []);
        assert!(pending.is_empty());
    }
}
