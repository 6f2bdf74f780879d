//! The replicas of every partition, shared by the states of the cluster that follow one another and by all who are told of them: a change
//! makes anew what it changes, and the way to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use headwater_protocol::id::{PartitionIndex, TopicId};

use super::replicas::{Replicas, Terms};
use crate::model::id::PartitionId;

/// The replicas of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What an acknowledgement promises, also of partitions that are yet to come.
    pub terms: Terms,
    /// By the index of the partition.
    pub partitions: Vec<Arc<Replicas>>,
}

impl Placed {
    fn ids(&self, topic: TopicId) -> impl Iterator<Item = PartitionId> + use<> {
        // The number of partitions is limited far below i32::MAX.
        let indexes = 0..self.partitions.len() as i32;
        indexes.map(move |index| PartitionId {
            topic,
            index: PartitionIndex::new(index),
        })
    }
}

/// The replicas of all topics. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placements(Arc<BTreeMap<TopicId, Arc<Placed>>>);

impl Placements {
    /// Those of one topic.
    pub fn topic(&self, id: TopicId) -> Option<&Arc<Placed>> {
        self.0.get(&id)
    }

    /// Those of all topics, in order.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = (TopicId, &Arc<Placed>)> {
        self.0.iter().map(|(id, placed)| (*id, placed))
    }

    /// Those of one partition.
    pub fn get(&self, id: PartitionId) -> Option<&Replicas> {
        let placed = self.topic(id.topic)?;
        placed.partitions.get(id.index.as_usize()).map(AsRef::as_ref)
    }

    /// Those of every partition.
    pub fn iter(&self) -> impl Iterator<Item = (PartitionId, &Replicas)> {
        self.topics()
            .flat_map(|(topic, placed)| placed.ids(topic).zip(placed.partitions.iter().map(AsRef::as_ref)))
    }

    /// Those of one topic are these from now on.
    pub fn put(&mut self, topic: TopicId, placed: Placed) {
        Arc::make_mut(&mut self.0).insert(topic, Arc::new(placed));
    }

    /// Forgets a topic. Returns what it had.
    pub fn remove(&mut self, topic: TopicId) -> Option<Arc<Placed>> {
        self.topic(topic)?;
        Arc::make_mut(&mut self.0).remove(&topic)
    }

    /// Those of one partition, which is there, are these from now on.
    pub(crate) fn replace(&mut self, id: PartitionId, replicas: Replicas) {
        if let Some(placed) = Arc::make_mut(&mut self.0).get_mut(&id.topic) {
            Arc::make_mut(placed).partitions[id.index.as_usize()] = Arc::new(replicas);
        }
    }

    /// Partitions whose replicas are others than they were, also those that are new or gone. Looks at nothing that both share.
    pub fn changed_since(&self, before: &Placements) -> BTreeSet<PartitionId> {
        let mut changed = BTreeSet::new();
        if Arc::ptr_eq(&self.0, &before.0) {
            return changed;
        }
        for (topic, placed) in self.topics() {
            match before.topic(topic) {
                None => changed.extend(placed.ids(topic)),
                Some(same) if Arc::ptr_eq(same, placed) => {}
                Some(was) => {
                    let longer = if was.partitions.len() > placed.partitions.len() {
                        was
                    } else {
                        placed
                    };
                    let differs = |id: &PartitionId| {
                        let index = id.index.as_usize();
                        was.partitions.get(index) != placed.partitions.get(index)
                    };
                    changed.extend(longer.ids(topic).filter(differs));
                }
            }
        }
        let gone = before.topics().filter(|(topic, _)| self.topic(*topic).is_none());
        changed.extend(gone.flat_map(|(topic, placed)| placed.ids(topic)));
        changed
    }
}

impl FromIterator<(TopicId, Placed)> for Placements {
    fn from_iter<I: IntoIterator<Item = (TopicId, Placed)>>(topics: I) -> Placements {
        let topics = topics.into_iter();
        Placements(Arc::new(topics.map(|(id, placed)| (id, Arc::new(placed))).collect()))
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::id::BrokerId;
    use uuid::Uuid;

    use super::*;
    use crate::image::Durability;

    const TERMS: Terms = Terms {
        min_isr: 1,
        durability: Durability::Disk,
    };

    fn topic(number: u128) -> TopicId {
        TopicId::new(Uuid::from_u128(number))
    }

    fn partition(number: u128, index: i32) -> PartitionId {
        PartitionId {
            topic: topic(number),
            index: PartitionIndex::new(index),
        }
    }

    fn replicas(brokers: &[i32]) -> Replicas {
        let brokers: Vec<BrokerId> = brokers.iter().copied().map(BrokerId::new).collect();
        Replicas::new(brokers.clone(), brokers, TERMS)
    }

    fn placed(count: usize) -> Placed {
        Placed {
            terms: TERMS,
            partitions: (0..count).map(|_| Arc::new(replicas(&[1, 2]))).collect(),
        }
    }

    #[test]
    fn a_change_is_seen_where_it_is_and_all_else_is_shared() {
        let before: Placements = (1..=3).map(|number| (topic(number), placed(3))).collect();
        let mut after = before.clone();
        assert_eq!(after.changed_since(&before), BTreeSet::new());
        after.replace(partition(1, 2), replicas(&[2, 3]));
        after.replace(partition(1, 0), replicas(&[1, 2]));
        after.remove(topic(2)).unwrap();
        assert!(after.remove(topic(9)).is_none());
        after.put(topic(3), placed(4));
        after.put(topic(4), placed(1));
        let gone = (0..3).map(|index| partition(2, index));
        let changed: BTreeSet<_> = [partition(1, 2), partition(3, 3), partition(4, 0)]
            .into_iter()
            .chain(gone)
            .collect();
        assert_eq!(after.changed_since(&before), changed);
        assert_eq!(before.changed_since(&after), changed);
        assert_eq!(before.get(partition(1, 2)), Some(&replicas(&[1, 2])), "as it was");
        assert_eq!(after.iter().count(), 3 + 4 + 1);
        let shared = |id: PartitionId| Arc::as_ptr(&after.topic(id.topic).unwrap().partitions[id.index.as_usize()]);
        assert_eq!(
            shared(partition(1, 1)),
            Arc::as_ptr(&before.topic(topic(1)).unwrap().partitions[1])
        );
    }
}
