//! The partitions of a core: which there are, brought in line with the cluster image, and what state each is in.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use futures::{StreamExt as _, stream};
use headwater_engine::{Log, LogConfig, Owner, Signal, disk::Directory as _};
use headwater_protocol::error::ErrorCode;

use super::served::Partition;
use crate::{
    core::Core,
    image::{ClusterImage, Topic, TopicState, settings::TopicSettings},
    machine::HashMap,
    model::{id::PartitionId, internal, refusal::Refusal},
};

/// Partitions that are opened, and recovered, at the same time: enough to keep the disk busy.
const OPENED_AT_ONCE: usize = 8;

/// A partition that this core owns.
#[derive(Debug, Clone)]
pub(crate) enum Owned {
    Online(Rc<Partition>),
    /// It could not be opened; why.
    Offline(Refusal),
}

/// Partitions of a core by their state.
#[derive(Debug, Default)]
pub(crate) struct PartitionCounts {
    /// They can be read.
    pub(crate) open: usize,
    /// Of those, they take no records since a write or flush failed.
    pub(crate) fenced: usize,
    /// Of those, they are not compacted since compaction found bytes that do not read back.
    pub(crate) damaged: usize,
    /// They could not be opened.
    pub(crate) unopened: usize,
}

/// The partitions of one core, and the cluster as it is known there.
pub(crate) struct Partitions {
    pub(crate) core: Rc<Core>,
    image: RefCell<Arc<ClusterImage>>,
    owned: RefCell<HashMap<PartitionId, Owned>>,
    /// The partition that is being opened again, whose directory must not go meanwhile.
    opening: Cell<Option<PartitionId>>,
    opened: Signal,
}

impl Partitions {
    /// None yet.
    pub(crate) fn new(core: &Rc<Core>) -> Rc<Partitions> {
        Rc::new(Partitions {
            core: Rc::clone(core),
            image: RefCell::default(),
            owned: RefCell::default(),
            opening: Cell::new(None),
            opened: Signal::default(),
        })
    }

    /// The cluster as it is known now.
    pub(crate) fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image.borrow())
    }

    /// Whether a partition belongs to this core.
    pub(crate) fn is_here(&self, id: PartitionId) -> bool {
        id.owner(self.core.mesh.len()) == self.core.id
    }

    /// The partition, if this core has it open.
    pub(crate) fn get(&self, id: PartitionId) -> Result<Rc<Partition>, Refusal> {
        match self.owned.borrow().get(&id) {
            Some(Owned::Online(partition)) => Ok(Rc::clone(partition)),
            Some(Owned::Offline(why)) => Err(why.clone()),
            None => Err(self.why_not_here(id)),
        }
    }

    fn why_not_here(&self, id: PartitionId) -> Refusal {
        match self.image.borrow().topic_by_id(id.topic) {
            Some(topic) if topic.state == TopicState::Deleting => {
                Refusal::new(ErrorCode::UnknownTopicId, "the topic is being deleted")
            }
            None => Refusal::new(ErrorCode::UnknownTopicId, "no topic has this id (any more)"),
            Some(topic) if !topic.has(id.index) => {
                let message = format!("topic {} has no partition {}", topic.name, id.index);
                Refusal::new(ErrorCode::UnknownTopicOrPartition, message)
            }
            Some(_) => Refusal::new(
                ErrorCode::NotLeaderOrFollower,
                "the partition is not open here at the moment",
            ),
        }
    }

    /// Brings the open partitions in line with the image.
    pub(crate) async fn apply(&self, image: Arc<ClusterImage>) {
        if image.version() < self.image.borrow().version() {
            return;
        }
        *self.image.borrow_mut() = Arc::clone(&image);
        let is_gone = |id: &PartitionId| {
            let topic = image.topic_by_id(id.topic);
            topic.is_none_or(|topic| topic.state != TopicState::Ready)
        };
        let gone: Vec<_> = self.owned.borrow_mut().extract_if(|id, _| is_gone(id)).collect();
        for (id, owned) in gone {
            // Its files are removed when this has been applied, and their names may be used again.
            self.not_opening(id).await;
            if let Owned::Online(partition) = owned {
                partition.log.retire().await;
            }
        }
        let mut new = Vec::new();
        for topic in image.topics().filter(|topic| topic.state == TopicState::Ready) {
            let config = self.log_config(topic);
            for index in topic.partitions() {
                let id = PartitionId { topic: topic.id, index };
                if !self.is_here(id) {
                    continue;
                }
                let owned = self.owned.borrow().get(&id).cloned();
                match owned {
                    Some(Owned::Online(partition)) => {
                        if config.keeps_less_than(&partition.log.config()) {
                            partition.retains_early.set(true);
                            self.core.is_needed_early();
                        }
                        partition.log.reconfigure(config.clone());
                    }
                    Some(Owned::Offline(_)) => {}
                    None => new.push((topic, id)),
                }
            }
        }
        let opened = new
            .into_iter()
            .map(async |(topic, id)| (topic, id, self.open(topic, id).await));
        let mut opened = stream::iter(opened).buffer_unordered(OPENED_AT_ONCE);
        while let Some((topic, id, opened)) = opened.next().await {
            let owned = match opened {
                Ok(partition) => Owned::Online(partition),
                Err(why) => {
                    tracing::error!(topic = %topic.name, partition = %id.index, why = why.message,
                        "a partition is offline; opening it is tried again");
                    self.core.failed.notify();
                    Owned::Offline(why)
                }
            };
            self.owned.borrow_mut().insert(id, owned);
        }
    }

    fn log_config(&self, topic: &Topic) -> LogConfig {
        TopicSettings::in_force(&topic.overrides, &self.core.config).log_config(&self.core.config)
    }

    /// Opens a partition, with the settings that its topic has when it is open.
    pub(crate) async fn open(&self, topic: &Topic, id: PartitionId) -> Result<Rc<Partition>, Refusal> {
        let directory = self.core.config.log.directory.join(topic.partition_directory(id.index));
        // Opening would make it, empty, as if nothing had ever been acknowledged.
        let entries = self.core.disk.list(&directory).await.map_err(|error| {
            let message = format!("cannot read the partition's directory {}: {error}", directory.display());
            Refusal::new(ErrorCode::KafkaStorageError, message)
        })?;
        let owner = Owner {
            topic: id.topic,
            partition: id.index,
        };
        let claimed = owner.claim(&self.core.disk, &directory, &entries).await;
        claimed.map_err(|error| Refusal::because(error.code(), &error))?;
        let config = self.log_config(topic);
        let opened = Log::open(self.core.disk.clone(), directory, config, self.core.memory.clone()).await;
        let (log, recovery) = opened.map_err(|error| {
            self.core.metrics.log_failed(&error);
            Refusal::because(error.code(), &error)
        })?;
        if recovery.scanned_bytes > 0 || recovery.cut.is_some() {
            tracing::info!(topic = %topic.name, partition = %id.index, scanned_bytes = recovery.scanned_bytes,
                cut = ?recovery.cut, end = %log.offsets().end, "a partition was recovered");
        }
        if let Some(now) = self.image.borrow().topic_by_id(id.topic) {
            log.reconfigure(self.log_config(now));
        }
        Ok(Partition::new(log, internal::is_internal(topic.name.as_str())))
    }

    /// The partition, if it is this core's, and still there.
    pub(crate) fn owned(&self, id: PartitionId) -> Option<Owned> {
        self.owned.borrow().get(&id).cloned()
    }

    /// What has become of a partition, unless it has gone meanwhile.
    pub(crate) fn replace(&self, id: PartitionId, owned: Owned) {
        if let Some(former) = self.owned.borrow_mut().get_mut(&id) {
            *former = owned;
        }
    }

    /// Partitions that are offline or fenced, and why.
    pub(crate) fn failed_partitions(&self) -> HashMap<PartitionId, ErrorCode> {
        let code = |owned: &Owned| match owned {
            Owned::Online(partition) => partition.log.fence().map(|error| error.code()),
            Owned::Offline(why) => Some(why.code),
        };
        let partitions = self.owned.borrow();
        let failed = partitions.iter().filter_map(|(id, owned)| Some((*id, code(owned)?)));
        failed.collect()
    }

    /// The partition is being opened again until the guard is dropped.
    pub(crate) fn begin_opening(self: &Rc<Self>, id: PartitionId) -> Opening {
        self.opening.set(Some(id));
        Opening {
            partitions: Rc::clone(self),
        }
    }

    /// Resolves when this partition is not being opened again.
    async fn not_opening(&self, id: PartitionId) {
        self.opened.until(|| self.opening.get() != Some(id)).await;
    }

    /// The partitions that are open.
    pub(crate) fn online(&self) -> Vec<Rc<Partition>> {
        let online = |owned: &Owned| match owned {
            Owned::Online(partition) => Some(Rc::clone(partition)),
            Owned::Offline(_) => None,
        };
        self.owned.borrow().values().filter_map(online).collect()
    }

    /// The partitions that are open, with their ids.
    pub(crate) fn open_partitions(&self) -> Vec<(PartitionId, Rc<Partition>)> {
        let online = |(id, owned): (&PartitionId, &Owned)| match owned {
            Owned::Online(partition) => Some((*id, Rc::clone(partition))),
            Owned::Offline(_) => None,
        };
        self.owned.borrow().iter().filter_map(online).collect()
    }

    /// How many partitions are in which state.
    pub(crate) fn counts(&self) -> PartitionCounts {
        let mut counts = PartitionCounts::default();
        for owned in self.owned.borrow().values() {
            match owned {
                Owned::Online(partition) => {
                    counts.open += 1;
                    counts.fenced += usize::from(partition.log.is_fenced());
                    counts.damaged += usize::from(partition.is_damaged.get());
                }
                Owned::Offline(_) => counts.unopened += 1,
            }
        }
        counts
    }
}

/// A partition that is being opened again.
pub(crate) struct Opening {
    partitions: Rc<Partitions>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.partitions.opening.set(None);
        self.partitions.opened.notify();
    }
}
