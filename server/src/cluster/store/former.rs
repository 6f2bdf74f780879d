//! What a data directory holds that was used before there was a quorum: `broker.json`, `topics.json` and `producer-ids.json`, each JSON
//! with a format version and a CRC-32C of its content. It is read once, and removed when the quorum's store has it.
//!
//! A file reads as what was written or not at all: an edit by hand, a disk that lies or a newer broker's format is an error that names
//! which.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use headwater_engine::disk::Directory;
use headwater_protocol::id::TopicId;
use headwater_protocol::topic::TopicName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::error::StoreError;
use super::identity::Identity;
use crate::cluster::names::Listing;
use crate::cluster::quorum::{PRODUCER_ID_MAX, State};
use crate::config::{ClusterId, Config};
use crate::image::settings::TopicSettings;
use crate::image::{Topic, TopicState};

/// Name of the identity file. It was written last: where it is, the others must be.
pub(super) const IDENTITY_FILE: &str = "broker.json";
const PRODUCER_IDS_FILE: &str = "producer-ids.json";
const TOPICS_FILE: &str = "topics.json";

/// The newest format.
const FORMAT_VERSION: u32 = 1;

#[derive(Deserialize)]
struct Sealed {
    format_version: u32,
    /// CRC-32C of `content`, byte for byte.
    crc32c: u32,
    content: Box<RawValue>,
}

#[derive(Deserialize)]
struct StoredIdentity {
    cluster_id: String,
    broker_id: i32,
}

#[derive(Deserialize)]
struct StoredProducerIds {
    /// First id that is in no block that may have been given out.
    next: i64,
}

/// What is there. None: nothing, but for what a first start may have left that did not come to its end.
pub(super) async fn read(disk: &impl Directory, config: &Config) -> Result<Option<(Identity, State)>, StoreError> {
    let directory = &config.log.directory;
    let path = directory.join(IDENTITY_FILE);
    let topics = read_topics(disk, directory, config).await?;
    let Some(stored) = read_file::<StoredIdentity>(disk, &path).await? else {
        let topic = topics.and_then(|topics| topics.into_iter().next());
        return match topic {
            Some(topic) => {
                let evidence = format!("{TOPICS_FILE} names the topic {}", topic.name);
                Err(StoreError::Missing { path, evidence })
            }
            None => Ok(None),
        };
    };
    let missing = |file| StoreError::Missing {
        path: directory.join(file),
        evidence: format!("{IDENTITY_FILE} is there"),
    };
    let cluster_id: ClusterId = stored.cluster_id.parse().map_err(|expected| StoreError::Corrupt {
        path,
        reason: format!("its cluster id is not {expected}"),
    })?;
    let identity = Identity::known(cluster_id, i64::from(stored.broker_id), config)?;
    let next_producer_id = read_producer_ids(disk, directory).await?;
    let next_producer_id = next_producer_id.ok_or_else(|| missing(PRODUCER_IDS_FILE))?;
    let topics = topics.ok_or_else(|| missing(TOPICS_FILE))?;
    Ok(Some((identity, State::new(topics, next_producer_id))))
}

/// Removes it all, once the quorum's store is there.
pub(super) async fn remove(disk: &impl Directory, directory: &Path, listing: &Listing) -> Result<(), StoreError> {
    for name in [IDENTITY_FILE, PRODUCER_IDS_FILE, TOPICS_FILE] {
        for name in [name, &format!("{name}.tmp")] {
            if listing.names().any(|found| found == name) {
                let path = directory.join(name);
                disk.remove_file(&path).await.map_err(StoreError::io("remove", &path))?;
            }
        }
    }
    Ok(())
}

async fn read_producer_ids(disk: &impl Directory, directory: &Path) -> Result<Option<i64>, StoreError> {
    let path = directory.join(PRODUCER_IDS_FILE);
    match read_file::<StoredProducerIds>(disk, &path).await? {
        Some(StoredProducerIds {
            next: next @ 0..=PRODUCER_ID_MAX,
        }) => Ok(Some(next)),
        Some(StoredProducerIds { next }) => Err(StoreError::Corrupt {
            path,
            reason: format!("it says that the next producer id is {next}"),
        }),
        None => Ok(None),
    }
}

/// Reads the file; None if there is none.
async fn read_file<T: DeserializeOwned>(disk: &impl Directory, path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match disk.read_file(path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    let corrupt = |reason: String| StoreError::Corrupt {
        path: path.to_owned(),
        reason,
    };
    let sealed: Sealed = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
    if sealed.format_version == 0 {
        return Err(corrupt("no broker writes format version 0".to_owned()));
    }
    if sealed.format_version > FORMAT_VERSION {
        return Err(StoreError::NewerFormat {
            path: path.to_owned(),
            found: sealed.format_version,
            newest: FORMAT_VERSION,
        });
    }
    let computed = crc32c::crc32c(sealed.content.get().as_bytes());
    if sealed.crc32c != computed {
        return Err(corrupt(format!(
            "its CRC-32C is {computed:#010x} and should be {:#010x}",
            sealed.crc32c
        )));
    }
    serde_json::from_str(sealed.content.get())
        .map(Some)
        .map_err(|error| corrupt(error.to_string()))
}

#[derive(Deserialize)]
struct StoredTopics {
    topics: Vec<StoredTopic>,
}

#[derive(Deserialize)]
struct StoredTopic {
    name: String,
    id: uuid::Uuid,
    partitions: u32,
    configs: BTreeMap<String, String>,
    state: StoredState,
    /// Only while it is getting more partitions.
    #[serde(default)]
    becoming: Option<StoredGrowth>,
}

#[derive(Deserialize)]
pub(super) struct StoredGrowth {
    partitions: u32,
    configs: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredState {
    Creating,
    Ready,
    Deleting,
}

/// Reads the topics; None if there is no list.
async fn read_topics(
    disk: &impl Directory,
    directory: &Path,
    config: &Config,
) -> Result<Option<Vec<Arc<Topic>>>, StoreError> {
    let path = directory.join(TOPICS_FILE);
    let Some(stored) = read_file::<StoredTopics>(disk, &path).await? else {
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
