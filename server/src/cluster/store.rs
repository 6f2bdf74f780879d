//! The topics of a single broker: made, altered, deleted, and found again after a crash.
//!
//! ```text
//! create: store "creating" ─► directories <topic>-<partition> ─► store "ready"
//! delete: store "deleting" ─► rename to <topic>-<partition>.<topic id>.deleted ─► remove ─► store without the topic
//! ```
//! Each arrow is durable before the next begins, so that [`TopicStore::open`] can finish whatever a crash cut short. A thread of
//! the control plane owns the store; cores see its [`ClusterImage`]. It opens no log and serves no request.

mod alter;
mod identity;
mod names;
mod recovery;
mod sealed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use headwater_engine::{Seldom, disk::Directory};
use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::{PartitionIndex, TopicId};
use headwater_protocol::topic::TopicName;
use serde::{Deserialize, Serialize};

pub use alter::TopicAlteration;
pub(crate) use identity::IDENTITY_FILE;
pub use identity::{Identity, ProducerIds};
use names::Listing;
pub(crate) use names::is_partition;
pub use recovery::Recovery;
pub use sealed::StoreError;

use crate::config::Config;
use crate::image::{ClusterImage, Topic, TopicState};
use crate::settings::{self, SettingError, TopicSettings};

/// Partitions that are removed before there is another look whether the broker stops.
const REMOVED_AT_ONCE: usize = 16;

/// Name of the file that lists the topics.
const TOPICS_FILE: &str = "topics.json";

/// What a client asks for when it creates a topic.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// The name.
    pub name: TopicName,
    /// Number of partitions; -1 is the broker's default.
    pub partitions: i32,
    /// Replicas of each partition; -1 is the broker's default.
    pub replication_factor: i16,
    /// Settings in Kafka's names.
    pub configs: Vec<(String, String)>,
}

/// Why a topic cannot be created, altered or deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// A topic of this name is there, or is still being deleted.
    #[error("the topic {name} exists already{}", if *deleting { ", and is being deleted" } else { "" })]
    Exists {
        /// The name.
        name: TopicName,
        /// It will be gone soon.
        deleting: bool,
    },
    /// There is no topic of this name.
    #[error("there is no topic {name}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The number of partitions is not possible.
    #[error("a topic cannot have {count} partitions; allowed is 1 to {max} (limits.partitions_per_topic_max)")]
    Partitions {
        /// What was asked for.
        count: i32,
        /// The limit.
        max: u32,
    },
    /// A partition that is there cannot be taken away.
    #[error(
        "the topic {name} has {has} partitions and cannot have {count}: they are only ever added; make another topic"
    )]
    FewerPartitions {
        /// The topic.
        name: TopicName,
        /// How many it has.
        has: u32,
        /// What was asked for.
        count: u32,
    },
    /// The broker has as much as it may.
    #[error("the broker holds {held} {what}; {asked} more would exceed {limit}")]
    Full {
        /// Topics or partitions.
        what: &'static str,
        /// How many it holds.
        held: u64,
        /// How many were asked for.
        asked: u64,
        /// The limit with its key.
        limit: String,
    },
    /// The replication factor is not possible.
    #[error("a replication factor of {factor} needs as many brokers; there is 1")]
    ReplicationFactor {
        /// What was asked for.
        factor: i16,
    },
    /// A setting is not valid.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// What has the name of the topic's directory is nobody's: its records are not the new topic's.
    #[error("{} is in the way: it belongs to no topic; move it away", path.display())]
    InTheWay {
        /// What it is.
        path: PathBuf,
    },
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TopicError {
    /// The code that a client gets.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Exists { .. } => ErrorCode::TopicAlreadyExists,
            Self::Unknown { .. } => ErrorCode::UnknownTopicOrPartition,
            Self::Partitions { .. } | Self::FewerPartitions { .. } => ErrorCode::InvalidPartitions,
            Self::Full { .. } => ErrorCode::PolicyViolation,
            Self::ReplicationFactor { .. } => ErrorCode::InvalidReplicationFactor,
            Self::Setting(_) => ErrorCode::InvalidConfig,
            Self::InTheWay { .. } | Self::Store(_) => ErrorCode::KafkaStorageError,
        }
    }
}

/// The topics and the broker's identity, as they are on disk.
pub struct TopicStore<D> {
    disk: D,
    directory: PathBuf,
    config: Arc<Config>,
    identity: Identity,
    image: Arc<ClusterImage>,
    /// Whoever waits for a long removal is told that the next start goes on with it.
    stopping: Arc<AtomicBool>,
    /// Says that what a failure left could not be removed: whoever asks again finds the same.
    left: Seldom,
}

impl<D: Directory> TopicStore<D> {
    /// Who this broker is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Set it to have a removal end soon, in the middle, when the broker stops.
    pub(crate) fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopping)
    }

    /// The topics as they are now.
    pub fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image)
    }

    /// The topic that [`create`](Self::create) would make, or why it would not. Changes nothing.
    pub fn check_create(&self, new: &NewTopic) -> Result<Topic, TopicError> {
        if let Some(topic) = self.image.topic(new.name.as_str()) {
            let deleting = topic.state == TopicState::Deleting;
            return Err(TopicError::Exists {
                name: topic.name.clone(),
                deleting,
            });
        }
        let limits = &self.config.limits;
        let max = limits.partitions_per_topic_max;
        let partition_count = match new.partitions {
            -1 => self.config.topics.partitions,
            count => u32::try_from(count)
                .ok()
                .filter(|count| (1..=max).contains(count))
                .ok_or(TopicError::Partitions { count, max })?,
        };
        if ![-1, 1].contains(&new.replication_factor) {
            return Err(TopicError::ReplicationFactor {
                factor: new.replication_factor,
            });
        }
        let topics = self.image.topics().len() as u64;
        room("topics", topics, 1, limits.topics_max, "limits.topics_max")?;
        let partitions = self.image.partition_count();
        room(
            "partitions",
            partitions,
            partition_count.into(),
            limits.partitions_max,
            "limits.partitions_max",
        )?;
        let overrides = settings::overrides(&new.configs)?;
        let settings = TopicSettings::of_new_topic(&overrides, &self.config)?;
        let (name, id, state) = (new.name.clone(), TopicId::random(), TopicState::Creating);
        Ok(Topic {
            name,
            id,
            partition_count,
            overrides,
            settings,
            state,
            becoming: None,
        })
    }

    /// Creates a topic. When it has returned `Ok`, the topic is there whatever happens. After an error it is not served;
    /// if the disk failed, a restart may finish it.
    pub async fn create(&mut self, new: &NewTopic) -> Result<Arc<Topic>, TopicError> {
        let topic = self.check_create(new)?;
        // Whatever has the right name would be taken for the topic's, with records that nobody sent to it.
        let listing = Listing::read(&self.disk, &self.directory).await?;
        let mut partitions = topic.partitions();
        if let Some(partition) = partitions.find(|partition| listing.kind(&topic, *partition).is_some()) {
            let path = self.directory.join(topic.partition_directory(partition));
            return Err(TopicError::InTheWay { path });
        }
        self.put(topic.clone()).await?;
        if let Err(error) = self.finish_create(&topic).await {
            // Nobody was told of it. If this fails too, it can be deleted by name, and a restart finishes one or the other.
            if let Err(error) = self.undo_create(&topic).await
                && let Some(unsaid) = self.left.may_speak(Instant::now())
            {
                tracing::warn!(topic = %topic.name, %error, unsaid, "a topic that could not be created could not be removed");
            }
            return Err(error.into());
        }
        let created = self.image.topic_by_id(topic.id);
        Ok(Arc::clone(
            created.expect("it was stored just now, and nobody else changes the image"),
        ))
    }

    async fn finish_create(&mut self, topic: &Topic) -> Result<(), StoreError> {
        self.make_directories(topic, topic.partitions()).await?;
        self.put(Topic {
            state: TopicState::Ready,
            ..topic.clone()
        })
        .await
    }

    async fn make_directories(
        &self,
        topic: &Topic,
        partitions: impl Iterator<Item = PartitionIndex>,
    ) -> Result<(), StoreError> {
        let paths = partitions.map(|partition| self.directory.join(topic.partition_directory(partition)));
        let made = self.disk.create_dirs(&paths.collect::<Vec<_>>()).await;
        made.map_err(StoreError::io("make partitions in", &self.directory))
    }

    async fn remove_directories(&self, names: impl Iterator<Item = String>) -> Result<(), StoreError> {
        let paths: Vec<PathBuf> = names.map(|name| self.directory.join(name)).collect();
        for paths in paths.chunks(REMOVED_AT_ONCE) {
            if self.stopping.load(Ordering::Relaxed) {
                return Err(StoreError::Stopping);
            }
            let removed = self.disk.remove_dirs_all(paths).await;
            removed.map_err(StoreError::io("remove partitions from", &self.directory))?;
        }
        Ok(())
    }

    async fn undo_create(&mut self, topic: &Topic) -> Result<(), StoreError> {
        self.put(Topic {
            state: TopicState::Deleting,
            ..topic.clone()
        })
        .await?;
        self.finish_delete(topic.id).await
    }

    /// Begins to delete a topic, in whatever state a failure has left it. When it has returned `Ok` the topic will be
    /// gone, also after a crash. The cores must close its partitions before [`finish_delete`](Self::finish_delete).
    pub async fn begin_delete(&mut self, name: &str) -> Result<Arc<Topic>, TopicError> {
        let Some(topic) = self.image.topic(name) else {
            return Err(TopicError::Unknown { name: name.to_owned() });
        };
        let topic = Topic {
            state: TopicState::Deleting,
            ..Topic::clone(topic)
        };
        self.put(topic.clone()).await?;
        Ok(Arc::new(topic))
    }

    /// Removes what a topic that is being deleted has on disk, and frees its name. Does nothing for any other. After an
    /// error the topic can be deleted again by name; a restart does it too. Large partitions take as long as the file
    /// system takes.
    pub async fn finish_delete(&mut self, id: TopicId) -> Result<(), StoreError> {
        let topic = self
            .image
            .topic_by_id(id)
            .filter(|topic| topic.state == TopicState::Deleting);
        let Some(topic) = topic.cloned() else { return Ok(()) };
        let listing = Listing::read(&self.disk, &self.directory).await?;
        // Whatever it is: a topic of the same name would be made over it.
        let there = topic
            .directories()
            .filter(|partition| listing.kind(&topic, *partition).is_some());
        let renamed = there.map(|partition| {
            let from = self.directory.join(topic.partition_directory(partition));
            (from, self.directory.join(names::deleted(&topic, partition)))
        });
        let renamed = self.disk.rename_all(&renamed.collect::<Vec<_>>()).await;
        renamed.map_err(StoreError::io("rename partitions in", &self.directory))?;
        let deleted = topic.directories().map(|partition| names::deleted(&topic, partition));
        self.remove_directories(deleted).await?;
        let others = self.image.topics().filter(|other| other.id != id).cloned();
        self.replace(others.collect()).await
    }

    /// Stores a topic, over its former self if there is one.
    async fn put(&mut self, topic: Topic) -> Result<(), StoreError> {
        let id = topic.id;
        let others = self.image.topics().filter(|other| other.id != id).cloned();
        let topics = others.chain([Arc::new(topic)]).collect();
        self.replace(topics).await
    }

    /// Whether files can be removed once the topic is stored like this.
    fn makes_room(&self, topic: &Topic) -> bool {
        let log_config = |topic: &Topic| topic.settings.log_config(&self.config);
        let keeps_less = |former: &Arc<Topic>| log_config(topic).keeps_less_than(&log_config(former));
        topic.state == TopicState::Deleting || self.image.topic_by_id(topic.id).is_some_and(keeps_less)
    }

    /// Stores these topics, and shows them.
    async fn replace(&mut self, topics: Vec<Arc<Topic>>) -> Result<(), StoreError> {
        let image = ClusterImage::new(self.image.version() + 1, topics);
        let makes_room =
            image.topics().len() < self.image.topics().len() || image.topics().any(|topic| self.makes_room(topic));
        let written = write_topics(&self.disk, &self.directory, &image, makes_room).await;
        // A failed write may have been done: the former topics are written back, and go on being served. If that fails
        // too, either may be on disk, and what is shown is the one that serves less: records that are acknowledged for
        // a topic which looks deleted on disk would be removed at the next start.
        let shown = written.is_ok()
            || (write_topics(&self.disk, &self.directory, &self.image, false)
                .await
                .is_err()
                && image.ready_count() < self.image.ready_count());
        if shown {
            self.image = Arc::new(image);
        }
        written
    }
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

#[derive(Serialize, Deserialize)]
struct StoredTopics {
    topics: Vec<StoredTopic>,
}

#[derive(Serialize, Deserialize)]
struct StoredTopic {
    name: String,
    id: uuid::Uuid,
    partitions: u32,
    configs: BTreeMap<String, String>,
    state: StoredState,
    /// Only while it is getting more partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    becoming: Option<StoredGrowth>,
}

#[derive(Serialize, Deserialize)]
struct StoredGrowth {
    partitions: u32,
    configs: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredState {
    Creating,
    Ready,
    Deleting,
}

/// Writes the topics; if it `makes_room`, into space that is kept for a full disk if need be.
async fn write_topics(
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
