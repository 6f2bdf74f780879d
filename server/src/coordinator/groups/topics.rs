//! How many partitions each topic has: what assignments are made of, and what a change of may call for new ones.

use std::collections::BTreeMap;

use crate::image::{ClusterImage, TopicState};

/// The topics that are served, with the number of their partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Topics {
    counts: BTreeMap<String, u32>,
}

impl Topics {
    pub(crate) fn of(image: &ClusterImage) -> Topics {
        let ready = image.topics().filter(|topic| topic.state == TopicState::Ready);
        ready
            .map(|topic| (topic.name.to_string(), topic.partition_count))
            .collect()
    }

    /// 0 if there is no such topic.
    pub(crate) fn count(&self, topic: &str) -> u32 {
        self.counts.get(topic).copied().unwrap_or(0)
    }
}

impl FromIterator<(String, u32)> for Topics {
    fn from_iter<I: IntoIterator<Item = (String, u32)>>(topics: I) -> Topics {
        Topics {
            counts: topics.into_iter().collect(),
        }
    }
}
