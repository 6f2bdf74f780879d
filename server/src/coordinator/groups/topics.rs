//! Which topics there are, and how many partitions each has: what assignments are made of, and what a change of may call for new ones.

use std::collections::BTreeMap;

use headwater_protocol::id::TopicId;

use crate::image::{ClusterImage, TopicState};

/// The topics that are served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Topics {
    /// The id and the number of partitions of each.
    by_name: BTreeMap<String, (TopicId, u32)>,
    names: BTreeMap<TopicId, String>,
}

impl Topics {
    pub(crate) fn of(image: &ClusterImage) -> Topics {
        let ready = image.topics().filter(|topic| topic.state == TopicState::Ready);
        ready
            .map(|topic| (topic.name.to_string(), (topic.id, topic.partition_count)))
            .collect()
    }

    /// 0 if there is no such topic.
    pub(crate) fn count(&self, topic: &str) -> u32 {
        self.by_name.get(topic).map_or(0, |(_, count)| *count)
    }

    /// The id and the number of partitions.
    pub(crate) fn find(&self, topic: &str) -> Option<(TopicId, u32)> {
        self.by_name.get(topic).copied()
    }

    pub(crate) fn name(&self, topic: TopicId) -> Option<&str> {
        self.names.get(&topic).map(String::as_str)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

impl FromIterator<(String, (TopicId, u32))> for Topics {
    fn from_iter<I: IntoIterator<Item = (String, (TopicId, u32))>>(topics: I) -> Topics {
        let by_name: BTreeMap<String, (TopicId, u32)> = topics.into_iter().collect();
        let names = by_name.iter().map(|(name, (id, _))| (*id, name.clone())).collect();
        Topics { by_name, names }
    }
}

/// With an id that is made of the name.
#[cfg(test)]
impl FromIterator<(String, u32)> for Topics {
    fn from_iter<I: IntoIterator<Item = (String, u32)>>(topics: I) -> Topics {
        let with_id = |(name, count): (String, u32)| {
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(name.bytes()).for_each(|(slot, byte)| *slot = byte);
            let id = TopicId::new(uuid::Uuid::from_bytes(bytes));
            (name, (id, count))
        };
        topics.into_iter().map(with_id).collect()
    }
}
