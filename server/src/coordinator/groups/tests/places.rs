//! Sets of partitions of the two topics of the simulation, a bit each: they are compared after every step.

use bytes::Bytes;
use headwater_protocol::group::{Assignment, TopicPartitions};

pub(super) const TOPICS: [&str; 2] = ["a", "b"];

/// Partitions that a topic may have.
const PER_TOPIC: u32 = 16;

/// A partition: the number of its bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u32);

impl Place {
    pub(super) fn new(topic: &str, partition: i32) -> Place {
        let partition = partition.cast_unsigned();
        assert!(partition < PER_TOPIC);
        let topic = TOPICS.iter().position(|known| *known == topic).unwrap() as u32;
        Place(topic * PER_TOPIC + partition)
    }

    pub(super) fn topic(self) -> &'static str {
        TOPICS[(self.0 / PER_TOPIC) as usize]
    }

    pub(super) fn partition(self) -> i32 {
        (self.0 % PER_TOPIC).cast_signed()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Places(u32);

impl Places {
    /// What a member is assigned.
    pub(super) fn of(assignment: &Bytes) -> Places {
        if assignment.is_empty() {
            return Places::default();
        }
        let mut places = Places::default();
        for TopicPartitions { topic, partitions } in Assignment::decode(assignment).unwrap().partitions {
            for partition in partitions {
                let place = Places(1 << Place::new(&topic, partition).0);
                assert!(
                    places.common(place).is_empty(),
                    "{topic}-{partition} is assigned twice to one member"
                );
                places = places.with(place);
            }
        }
        places
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(super) fn first(self) -> Option<Place> {
        (!self.is_empty()).then(|| Place(self.0.trailing_zeros()))
    }

    pub(super) fn common(self, other: Places) -> Places {
        Places(self.0 & other.0)
    }

    pub(super) fn with(self, other: Places) -> Places {
        Places(self.0 | other.0)
    }

    pub(super) fn contains_all(self, other: Places) -> bool {
        self.common(other) == other
    }

    pub(super) fn by_topic(self) -> Vec<TopicPartitions> {
        let all = (0..u32::BITS).filter(|bit| self.0 & 1 << bit != 0).map(Place);
        let mut by_topic: Vec<TopicPartitions> = Vec::new();
        for place in all {
            match by_topic.last_mut().filter(|last| last.topic == place.topic()) {
                Some(last) => last.partitions.push(place.partition()),
                None => by_topic.push(TopicPartitions {
                    topic: place.topic().to_owned(),
                    partitions: vec![place.partition()],
                }),
            }
        }
        by_topic
    }
}
