//! Opening the store: who the data directory belongs to, which topics it holds, and what a crash left unfinished.
//!
//! Never makes a partition of a ready topic anew: what is missing is reported, and what belongs to nobody is left alone.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use headwater_engine::{
    Seldom,
    disk::{Directory, EntryKind},
};
use headwater_protocol::id::{PartitionIndex, TopicId};
use headwater_protocol::topic::TopicName;

use super::identity::{IDENTITY_FILE, Identity, PRODUCER_IDS_FILE, ProducerIds};
use super::names::Listing;
use super::sealed::{self, StoreError};
use super::{StoredGrowth, StoredState, StoredTopic, StoredTopics, TOPICS_FILE, TopicStore, write_topics};
use crate::config::Config;
use crate::image::{ClusterImage, Topic, TopicState};
use crate::settings::TopicSettings;

/// What was found when the store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Topics whose creation was finished.
    pub created: Vec<TopicName>,
    /// Topics whose deletion was finished.
    pub deleted: Vec<TopicName>,
    /// Topics that got the partitions that they were to get.
    pub grown: Vec<TopicName>,
    /// Partitions of ready topics that have no directory, whatever has its name now. They must not be opened: that would make
    /// them empty.
    pub missing: Vec<(Arc<Topic>, PartitionIndex)>,
    /// What looks like partitions of topics that do not exist. It is left alone.
    pub orphans: Vec<String>,
}

impl<D: Directory> TopicStore<D> {
    /// Opens the store in the configured data directory, which is made if it is missing, and finishes what a crash cut
    /// short. The allocation of producer ids, which lies there too, goes ways of its own from here on.
    pub async fn open(disk: D, config: Arc<Config>) -> Result<(Self, ProducerIds<D>, Recovery), StoreError> {
        let directory = config.log.directory.clone();
        disk.create_dir(&directory)
            .await
            .map_err(StoreError::io("create", &directory))?;
        let listing = Listing::read(&disk, &directory).await?;
        remove_temporary_files(&disk, &directory, &listing).await?;
        let (identity, producer_ids, topics) = match Identity::read(&disk, &directory, &config.broker).await? {
            Some(identity) => {
                let missing = |file| missing(&directory, file, format!("{IDENTITY_FILE} is there"));
                let ids = ProducerIds::read(&disk, &directory).await?;
                let ids = ids.ok_or_else(|| missing(PRODUCER_IDS_FILE))?;
                let topics = read_topics(&disk, &directory, &config).await?;
                (identity, ids, topics.ok_or_else(|| missing(TOPICS_FILE))?)
            }
            None => initialize(&disk, &directory, &config, &listing).await?,
        };
        let image = Arc::new(ClusterImage::new(0, topics));
        let mut store = Self {
            disk,
            directory,
            config,
            identity,
            image,
            stopping: Arc::default(),
            left: Seldom::default(),
        };
        let recovery = store.recover(&listing).await?;
        Ok((store, producer_ids, recovery))
    }

    async fn recover(&mut self, listing: &Listing) -> Result<Recovery, StoreError> {
        let mut recovery = Recovery::default();
        let image = self.image();
        for topic in image.topics() {
            match topic.state {
                TopicState::Creating => {
                    self.check_untouched(topic, topic.partitions(), listing).await?;
                    self.finish_create(topic).await?;
                    recovery.created.push(topic.name.clone());
                }
                TopicState::Deleting => {
                    self.finish_delete(topic.id).await?;
                    recovery.deleted.push(topic.name.clone());
                }
                TopicState::Ready => {
                    if let Some(larger) = &topic.becoming {
                        let added = larger.partitions().skip(topic.partition_count as usize);
                        self.check_untouched(larger, added, listing).await?;
                        self.finish_grow(topic).await?;
                        recovery.grown.push(topic.name.clone());
                    }
                    let is_lost = |partition: &_| listing.kind(topic, *partition) != Some(EntryKind::Directory);
                    let lost = topic.partitions().filter(is_lost);
                    recovery
                        .missing
                        .extend(lost.map(|partition| (Arc::clone(topic), partition)));
                }
            }
        }
        // Most of them went with their topic just now; the rest belongs to topics that are long gone.
        self.remove_directories(listing.deleted().map(str::to_owned)).await?;
        let is_nobodys = |topic, partition| {
            image
                .topic(topic)
                .is_none_or(|topic: &Arc<Topic>| !topic.directories().any(|own| own == partition))
        };
        let orphans = listing
            .partitions()
            .filter(|(_, topic, partition)| is_nobodys(topic, *partition));
        recovery.orphans = orphans.map(|(name, ..)| name.to_owned()).collect();
        Ok(recovery)
    }

    /// Of partitions that were being made, and have never been served, there is nothing but empty directories; anything else was
    /// put there by somebody, and is not the topic's.
    async fn check_untouched(
        &self,
        topic: &Topic,
        partitions: impl Iterator<Item = PartitionIndex>,
        listing: &Listing,
    ) -> Result<(), StoreError> {
        for partition in partitions {
            let path = self.directory.join(topic.partition_directory(partition));
            let is_untouched = match listing.kind(topic, partition) {
                None => true,
                Some(EntryKind::Directory) => {
                    let listed = self.disk.list(&path).await;
                    listed.map_err(StoreError::io("list", &path))?.is_empty()
                }
                Some(_) => false,
            };
            if !is_untouched {
                let topic = topic.name.clone();
                return Err(StoreError::InTheWay { path, topic });
            }
        }
        Ok(())
    }
}

/// Makes the metadata files of a data directory that has no identity; the identity comes last.
async fn initialize<D: Directory>(
    disk: &D,
    directory: &Path,
    config: &Config,
    listing: &Listing,
) -> Result<(Identity, ProducerIds<D>, Vec<Arc<Topic>>), StoreError> {
    // A crash during a first start leaves files without a topic; anything else was somebody's.
    let partition = listing.partitions().next();
    let topic = read_topics(disk, directory, config)
        .await?
        .and_then(|topics| topics.into_iter().next());
    let evidence = partition.map(|(name, ..)| format!("it holds {name}"));
    let evidence = evidence.or_else(|| topic.map(|topic| format!("{TOPICS_FILE} names the topic {}", topic.name)));
    if let Some(evidence) = evidence {
        return Err(missing(directory, IDENTITY_FILE, evidence));
    }
    write_topics(disk, directory, &ClusterImage::default(), false).await?;
    let producer_ids = ProducerIds::create(disk, directory).await?;
    let identity = Identity::create(disk, directory, &config.broker).await?;
    Ok((identity, producer_ids, Vec::new()))
}

fn missing(directory: &Path, file: &str, evidence: String) -> StoreError {
    StoreError::Missing {
        path: directory.join(file),
        evidence,
    }
}

async fn remove_temporary_files(disk: &impl Directory, directory: &Path, listing: &Listing) -> Result<(), StoreError> {
    let temporary = [IDENTITY_FILE, PRODUCER_IDS_FILE, TOPICS_FILE].map(|name| format!("{name}.tmp"));
    for name in listing
        .names()
        .filter(|name| temporary.iter().any(|temporary| temporary == name))
    {
        let path = directory.join(name);
        disk.remove_file(&path).await.map_err(StoreError::io("remove", &path))?;
    }
    Ok(())
}

async fn read_topics(
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
    let settings = |configs: &_| {
        TopicSettings::of_existing_topic(configs, config)
            .map_err(|error| format!("the topic {name} has a setting that is not valid: {error}"))
    };
    let state = match stored.state {
        StoredState::Creating => TopicState::Creating,
        StoredState::Ready => TopicState::Ready,
        StoredState::Deleting => TopicState::Deleting,
    };
    let becoming = match stored.becoming {
        None => None,
        Some(larger) if (stored.partitions..=i32::MAX.cast_unsigned()).contains(&larger.partitions) => {
            Some(Arc::new(Topic {
                name: name.clone(),
                id: TopicId::new(stored.id),
                partition_count: larger.partitions,
                settings: settings(&larger.configs)?,
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
        settings: settings(&stored.configs)?,
        name,
        id: TopicId::new(stored.id),
        partition_count: stored.partitions,
        overrides: stored.configs,
        state,
        becoming,
    })
}
