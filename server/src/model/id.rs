//! Which partition is meant, and which core owns it.

use headwater_protocol::id::{CoreId, PartitionIndex, TopicId};
use serde::{Deserialize, Serialize};

use super::plain;

/// A partition, for ever: a topic of the same name made later has another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The topic.
    #[serde(with = "plain")]
    pub topic: TopicId,
    /// Its number among the topic's partitions.
    #[serde(with = "plain")]
    pub index: PartitionIndex,
}

impl PartitionId {
    /// The core that owns the partition. Depends only on the ids and the number of cores, so that every core and every
    /// restart agrees; a topic's partitions are spread evenly.
    pub(crate) fn owner(self, cores: usize) -> CoreId {
        let (high, low) = self.topic.as_uuid().as_u64_pair();
        let start = high ^ low;
        let core = start.wrapping_add(self.index.as_usize() as u64) % cores as u64;
        CoreId::new(u16::try_from(core).expect("the number of cores fits a core id"))
    }

    /// A partition of a topic of the tests, which is the same each time.
    #[cfg(test)]
    pub(crate) fn of_test(index: i32) -> PartitionId {
        PartitionId {
            topic: TopicId::new(uuid::Uuid::from_u128(1)),
            index: PartitionIndex::new(index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_a_topic_are_spread_evenly_and_stably() {
        let topic = TopicId::random();
        for cores in 1..=9_usize {
            let owner = |index| {
                PartitionId {
                    topic,
                    index: PartitionIndex::new(index),
                }
                .owner(cores)
            };
            let mut counts = vec![0; cores];
            for index in 0..(cores as i32 * 3) {
                counts[usize::from(owner(index).get())] += 1;
                assert_eq!(owner(index), owner(index));
            }
            assert!(counts.iter().all(|count| *count == 3), "{counts:?}");
        }
    }
}
