//! Opening the store: who the data directory belongs to, which topics it holds, and what a crash left unfinished.
//!
//! Never makes a partition of a ready topic anew: what is missing is reported, and what belongs to nobody is left alone.

use std::path::Path;
use std::sync::Arc;

use headwater_engine::{
    Seldom,
    disk::{Directory, EntryKind},
};
use headwater_protocol::id::PartitionIndex;
use headwater_protocol::topic::TopicName;

use super::TopicStore;
use super::identity::{IDENTITY_FILE, Identity, PRODUCER_IDS_FILE, ProducerIds};
use super::sealed::StoreError;
use super::stored::{TOPICS_FILE, read_topics, write_topics};
use crate::cluster::names::Listing;
use crate::cluster::reconcile::Reconciler;
use crate::cluster::state::ClusterState;
use crate::config::Config;
use crate::image::{ClusterImage, Topic, TopicState};

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
        let mut store = Self {
            config,
            identity,
            state: ClusterState::new(0, topics),
            is_in_doubt: false,
            reconciler: Reconciler {
                disk,
                directory,
                stopping: Arc::default(),
            },
            left: Seldom::default(),
        };
        let recovery = store.recover(&listing).await?;
        Ok((store, producer_ids, recovery))
    }

    async fn recover(&mut self, listing: &Listing) -> Result<Recovery, StoreError> {
        let mut recovery = Recovery::default();
        let image = self.image();
        for topic in image.topics() {
            self.reconciler.check_untouched(topic, listing).await?;
            self.settle(topic.id).await?;
            let settled = match topic.state {
                TopicState::Creating => Some(&mut recovery.created),
                TopicState::Deleting => Some(&mut recovery.deleted),
                TopicState::Ready => topic.becoming.is_some().then_some(&mut recovery.grown),
            };
            if let Some(settled) = settled {
                settled.push(topic.name.clone());
            }
            if topic.state == TopicState::Ready {
                let is_lost = |partition: &_| listing.kind(topic, *partition) != Some(EntryKind::Directory);
                let lost = topic.partitions().filter(is_lost);
                recovery
                    .missing
                    .extend(lost.map(|partition| (Arc::clone(topic), partition)));
            }
        }
        // Most of them went with their topic just now; the rest belongs to topics that are long gone.
        self.reconciler.remove_deleted(listing).await?;
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
