//! `topics.json`: the topics as they are written down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use headwater_engine::disk::Directory;
use headwater_protocol::id::TopicId;
use headwater_protocol::topic::TopicName;
use serde::{Deserialize, Serialize};

use super::sealed::{self, StoreError};
use crate::config::Config;
use crate::image::settings::TopicSettings;
use crate::image::{ClusterImage, Topic, TopicState};

/// Name of the file that lists the topics.
pub(super) const TOPICS_FILE: &str = "topics.json";

#[derive(Serialize, Deserialize)]
pub(super) struct StoredTopics {
    pub(super) topics: Vec<StoredTopic>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredTopic {
    pub(super) name: String,
    pub(super) id: uuid::Uuid,
    pub(super) partitions: u32,
    pub(super) configs: BTreeMap<String, String>,
    pub(super) state: StoredState,
    /// Only while it is getting more partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) becoming: Option<StoredGrowth>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredGrowth {
    partitions: u32,
    configs: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StoredState {
    Creating,
    Ready,
    Deleting,
}

/// Writes the topics; if it `makes_room`, into space that is kept for a full disk if need be.
pub(super) async fn write_topics(
    disk: &impl Directory,
    directory: &Path,
    image: &ClusterImage,
    makes_room: bool,
) -> Result<(), StoreError> {
    let topics = image.topics().map(|topic| StoredTopic {
        name: topic.name.as_str().to_owned(),
        id: *topic.id.as_uuid(),
        partitions: topic.partition_count,
        configs: topic.overrides.clone(),
        state: match topic.state {
            TopicState::Creating => StoredState::Creating,
            TopicState::Ready => StoredState::Ready,
            TopicState::Deleting => StoredState::Deleting,
        },
        becoming: topic.becoming.as_ref().map(|larger| StoredGrowth {
            partitions: larger.partition_count,
            configs: larger.overrides.clone(),
        }),
    });
    let stored = StoredTopics {
        topics: topics.collect(),
    };
    let path = directory.join(TOPICS_FILE);
    if makes_room {
        sealed::write_to_make_room(disk, &path, &stored).await
    } else {
        sealed::write(disk, &path, &stored).await
    }
}

/// Reads the topics; None if there is no list.
pub(super) async fn read_topics(
    disk: &impl Directory,
    directory: &Path,
    config: &Config,
) -> Result<Option<Vec<Arc<Topic>>>, StoreError> {
    let path = directory.join(TOPICS_FILE);
    let Some(stored) = sealed::read::<StoredTopics>(disk, &path).await? else {
        return Ok(None);
    };
    let corrupt = |reason: String| StoreError::Corrupt {
        path: path.clone(),
        reason,
    };
    let mut seen = BTreeSet::new();
    let mut topics = Vec::with_capacity(stored.topics.len());
    for stored in stored.topics {
        let topic = read_topic(stored, config).map_err(corrupt)?;
        if !seen.insert(topic.id.to_string()) || !seen.insert(topic.name.to_string()) {
            return Err(corrupt(format!(
                "the topic {} ({}) is there twice",
                topic.name, topic.id
            )));
        }
        topics.push(Arc::new(topic));
    }
    Ok(Some(topics))
}

/// Limits on numbers of topics and partitions are not applied: they may have been lowered, and the topics are there.
fn read_topic(stored: StoredTopic, config: &Config) -> Result<Topic, String> {
    let name = TopicName::new(&stored.name).map_err(|error| error.to_string())?;
    if !(1..=i32::MAX.cast_unsigned()).contains(&stored.partitions) {
        return Err(format!("the topic {name} has {} partitions", stored.partitions));
    }
    let check = |configs: &_| {
        TopicSettings::check(configs, config)
            .map_err(|error| format!("the topic {name} has a setting that is not valid: {error}"))
    };
    check(&stored.configs)?;
    let state = match stored.state {
        StoredState::Creating => TopicState::Creating,
        StoredState::Ready => TopicState::Ready,
        StoredState::Deleting => TopicState::Deleting,
    };
    let becoming = match stored.becoming {
        None => None,
        Some(larger) if (stored.partitions..=i32::MAX.cast_unsigned()).contains(&larger.partitions) => {
            check(&larger.configs)?;
            Some(Arc::new(Topic {
                name: name.clone(),
                id: TopicId::new(stored.id),
                partition_count: larger.partitions,
                overrides: larger.configs,
                state,
                becoming: None,
            }))
        }
        Some(StoredGrowth { partitions, .. }) => {
            return Err(format!(
                "the topic {name} has {} partitions and is to get {partitions}",
                stored.partitions
            ));
        }
    };
    Ok(Topic {
        name,
        id: TopicId::new(stored.id),
        partition_count: stored.partitions,
        overrides: stored.configs,
        state,
        becoming,
    })
}
