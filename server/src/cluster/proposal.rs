//! What clients ask for becomes a command, if this broker's limits and defaults have room for it. Changes nothing.

use headwater_protocol::id::TopicId;
use headwater_protocol::topic::TopicName;

use super::error::TopicError;
use super::state::{Command, Shape};
use crate::config::Config;
use crate::image::settings::{self, TopicSettings};
use crate::image::{ClusterImage, Topic, TopicState};
use crate::machine;
use crate::model::op::{NewTopic, TopicAlteration};

/// How many replicas each partition of a new topic gets, in a cluster of so many brokers.
pub(super) fn factor(asked: i16, brokers: usize, config: &Config) -> Result<usize, TopicError> {
    let factor = match asked {
        -1 => usize::from(config.topics.replication_factor).min(brokers),
        asked => usize::try_from(asked).unwrap_or(0),
    };
    if (1..=brokers).contains(&factor) {
        Ok(factor)
    } else {
        Err(TopicError::ReplicationFactor { factor: asked, brokers })
    }
}

/// The command that creates the topic, under a new id, in a cluster of so many brokers.
pub(super) fn create(
    new: &NewTopic,
    image: &ClusterImage,
    config: &Config,
    brokers: usize,
) -> Result<Command, TopicError> {
    let name = TopicName::new(&new.name)?;
    if let Some(topic) = image.topic(name.as_str()) {
        return Err(TopicError::exists(topic));
    }
    let limits = &config.limits;
    let max = limits.partitions_per_topic_max;
    let partition_count = match new.partitions {
        -1 => config.topics.partitions,
        count => u32::try_from(count)
            .ok()
            .filter(|count| (1..=max).contains(count))
            .ok_or(TopicError::Partitions { count, max })?,
    };
    let factor = factor(new.replication_factor, brokers, config)?;
    let topics = image.topics().len() as u64;
    room("topics", topics, 1, limits.topics_max, "limits.topics_max")?;
    room_for_partitions(partition_count, image, config)?;
    let overrides = settings::overrides(&new.configs)?;
    TopicSettings::of_new_topic(&overrides, config)?;
    settings::check_min_isr(&overrides, factor)?;
    Ok(Command::Create {
        name,
        id: TopicId::new(machine::uuid()),
        partition_count,
        overrides,
    })
}

/// The command that alters the topic, which has so many replicas.
pub(super) fn alter(
    alteration: &TopicAlteration,
    image: &ClusterImage,
    config: &Config,
    replicas: impl FnOnce(TopicId) -> usize,
) -> Result<Command, TopicError> {
    let topic = image.topic(&alteration.name);
    let Some(topic) = topic.filter(|topic| topic.state == TopicState::Ready) else {
        let name = alteration.name.clone();
        return Err(TopicError::Unknown { name });
    };
    let partition_count = altered_partition_count(topic, alteration.partitions, image, config)?;
    let overrides = settings::altered(&topic.overrides, &alteration.configs, alteration.is_all)?;
    let changed = alteration.configs.iter().map(|(key, _)| key.as_str());
    TopicSettings::of_altered_topic(&overrides, changed, config)?;
    settings::check_min_isr(&overrides, replicas(topic.id))?;
    Ok(Command::Alter {
        id: topic.id,
        before: Some(Shape::from(&**topic)),
        partition_count,
        overrides,
    })
}

fn altered_partition_count(
    topic: &Topic,
    asked: i32,
    image: &ClusterImage,
    config: &Config,
) -> Result<u32, TopicError> {
    let has = topic.partition_count;
    if asked == -1 {
        return Ok(has);
    }
    let max = config.limits.partitions_per_topic_max;
    let count = u32::try_from(asked).ok().filter(|count| *count > 0);
    // The limit may have been lowered below what the topic has.
    let count = count.filter(|count| *count <= max.max(has));
    let count = count.ok_or(TopicError::Partitions { count: asked, max })?;
    if count < has {
        let name = topic.name.clone();
        return Err(TopicError::FewerPartitions { name, has, count });
    }
    if count > has {
        room_for_partitions(count - has, image, config)?;
    }
    Ok(count)
}

fn room_for_partitions(more: u32, image: &ClusterImage, config: &Config) -> Result<(), TopicError> {
    let (held, max) = (image.partition_count(), config.limits.partitions_max);
    room("partitions", held, more.into(), max, "limits.partitions_max")
}

/// Refuses what would exceed a limit.
fn room(what: &'static str, held: u64, asked: u64, max: u32, key: &str) -> Result<(), TopicError> {
    if held + asked <= u64::from(max) {
        return Ok(());
    }
    Err(TopicError::Full {
        what,
        held,
        asked,
        limit: format!("{max} ({key})"),
    })
}
