//! What has changed for one broker from one state of the cluster to the next.

use std::collections::BTreeSet;

use headwater_protocol::id::{BrokerId, PartitionIndex, TopicId};

use crate::image::{PartitionId, Placements};

/// The partitions that this broker has, and what is another since the cores were shown something last: all that is looked at, unless
/// something is still owed. There may be many partitions, and changes of few of them.
#[derive(Default)]
pub(super) struct Own {
    pub(super) partitions: BTreeSet<PartitionId>,
    /// Those of them whose replicas have changed, also those that it has got.
    pub(super) changed: BTreeSet<PartitionId>,
    pub(super) has_lost: bool,
    pub(super) has_got: bool,
}

impl Own {
    /// Whether something of a topic has changed for this broker.
    pub(super) fn has_changed(&self, topic: TopicId) -> bool {
        let first = PartitionId {
            topic,
            index: PartitionIndex::new(0),
        };
        self.changed.range(first..).next().is_some_and(|id| id.topic == topic)
    }

    /// Takes note of what has changed for this broker.
    pub(super) fn learn(&mut self, own: BrokerId, now: &Placements, before: &Placements) {
        self.changed = now.changed_since(before);
        (self.has_lost, self.has_got) = (false, false);
        let partitions = &mut self.partitions;
        let (has_lost, has_got) = (&mut self.has_lost, &mut self.has_got);
        self.changed.retain(|id| {
            let has = now.get(*id).is_some_and(|replicas| replicas.has(own));
            if has {
                *has_got |= partitions.insert(*id);
            } else {
                *has_lost |= partitions.remove(id);
            }
            has
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::image::{Durability, Placed, Replicas, Terms};

    #[test]
    fn a_broker_learns_what_it_has_got_what_it_has_lost_and_what_of_its_own_has_changed() {
        let terms = Terms {
            min_isr: 1,
            durability: Durability::Disk,
        };
        let topic = TopicId::new(Uuid::from_u128(1));
        let id = |index| PartitionId {
            topic,
            index: PartitionIndex::new(index),
        };
        let replicas = |brokers: &[i32], in_sync: &[i32]| {
            let [brokers, in_sync] = [brokers, in_sync].map(|ids| ids.iter().copied().map(BrokerId::new).collect());
            Replicas::new(brokers, in_sync, terms)
        };
        let partitions = [&[1, 2][..], &[2, 3], &[1, 3]].map(|brokers| Arc::new(replicas(brokers, brokers)));
        let placed = Placed {
            terms,
            partitions: partitions.to_vec(),
        };
        let first: Placements = [(topic, placed)].into_iter().collect();
        let mut own = Own::default();
        let mut learn = |now: &Placements, before: &Placements| {
            own.learn(BrokerId::new(1), now, before);
            let changed: Vec<PartitionId> = own.changed.iter().copied().collect();
            (
                own.partitions.len(),
                changed,
                own.has_got,
                own.has_lost,
                own.has_changed(topic),
            )
        };
        let (none, both) = (vec![], vec![id(0), id(2)]);
        assert_eq!(learn(&first, &Placements::default()), (2, both, true, false, true));
        assert_eq!(learn(&first, &first), (2, none.clone(), false, false, false));
        let mut second = first.clone();
        second.replace(id(0), replicas(&[1, 2], &[2]));
        second.replace(id(1), replicas(&[2, 3], &[3]));
        assert_eq!(learn(&second, &first), (2, vec![id(0)], false, false, true));
        let mut third = second.clone();
        third.replace(id(0), replicas(&[2, 3], &[2]));
        assert_eq!(learn(&third, &second), (1, none, false, true, false));
    }
}
