//! What a topic's state asks for on disk is done: its directories are made, or taken away. Decides nothing, and keeps nothing but
//! where the data are: every step finds out from the disk what is left of it, so that it can be repeated after a failure or a crash.
//!
//! ```text
//! Creating, or becoming larger: directories <topic>-<partition>
//! Deleting: rename to <topic>-<partition>.<topic id>.deleted ─► remove
//! ```
//! A directory that says that it belongs to another topic is set aside instead: <topic>-<partition>.<its topic id>.aside.
//!
//! Each arrow is durable before the next begins. It opens no log: that is the cores', which are shown a topic when it is ready, and
//! have closed its partitions before they are taken away.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use headwater_engine::disk::{DirEntry, Directory, EntryKind};
use headwater_engine::{LogError, Owner};
use headwater_protocol::id::{PartitionIndex, TopicId};

use super::error::TopicError;
use super::names::{self, Listing};
use super::store::error::StoreError;
use crate::image::{Topic, TopicState};

/// Partitions that are removed before there is another look whether the broker stops.
const REMOVED_AT_ONCE: usize = 16;

/// Partitions whose directories the topic's state asks for.
pub(super) fn to_make(topic: &Topic) -> impl Iterator<Item = PartitionIndex> + use<> {
    let made = match topic.state {
        TopicState::Creating => 0,
        TopicState::Ready => topic.partition_count as usize,
        TopicState::Deleting => usize::MAX,
    };
    topic.directories().skip(made)
}

/// Whether the topic's state asks for something on disk.
pub(super) fn is_unsettled(topic: &Topic) -> bool {
    topic.state != TopicState::Ready || topic.becoming.is_some()
}

/// The hands of the control plane in one data directory.
#[derive(Clone)]
pub(super) struct Reconciler<D> {
    pub(super) disk: D,
    pub(super) directory: PathBuf,
    /// Whoever waits for a long removal is told that the next start goes on with it.
    pub(super) stopping: Arc<AtomicBool>,
}

impl<D: Directory> Reconciler<D> {
    /// Makes the disk what the topic's state says. Of one that is being deleted the cores must have closed the partitions; large ones
    /// take as long as the file system takes.
    pub(super) async fn reconcile(&self, topic: &Topic) -> Result<(), StoreError> {
        if topic.state == TopicState::Deleting {
            return self.remove(topic).await;
        }
        let paths: Vec<PathBuf> = to_make(topic).map(|partition| self.path(topic, partition)).collect();
        let made = self.disk.create_dirs(&paths).await;
        made.map_err(StoreError::io("make partitions in", &self.directory))
    }

    /// Makes those directories of a topic's partitions that are not there. What has the name of one, and says that it belongs to another
    /// topic, is set aside; whatever else has the name of one stays, and is for the core to judge that opens it.
    pub(super) async fn make(&self, topic: &Topic, partitions: &[PartitionIndex]) -> Result<(), StoreError> {
        let listing = self.list().await?;
        let (mut aside, mut made) = (Vec::new(), Vec::new());
        for partition in partitions {
            let path = self.path(topic, *partition);
            let kind = listing.kind(topic, *partition);
            let others = self.others(topic, *partition, kind, &path).await?;
            if kind.is_none() || others.is_some() {
                made.push(path.clone());
            }
            aside.extend(others.map(|to| (path, to)));
        }
        let renamed = self.disk.rename_all(&aside).await;
        renamed.map_err(StoreError::io("set aside what is in the way in", &self.directory))?;
        let made = self.disk.create_dirs(&made).await;
        made.map_err(StoreError::io("make partitions in", &self.directory))
    }

    /// Takes away what there is of a topic that is gone. The cores must have closed its partitions.
    pub(super) async fn remove(&self, topic: &Topic) -> Result<(), StoreError> {
        self.remove_partitions(topic, &topic.directories().collect::<Vec<_>>())
            .await
    }

    /// Takes away partitions of a topic. The cores must have closed them.
    pub(super) async fn remove_partitions(
        &self,
        topic: &Topic,
        partitions: &[PartitionIndex],
    ) -> Result<(), StoreError> {
        let listing = self.list().await?;
        let partitions = partitions.iter().copied();
        // Whatever it is: a topic of the same name would be made over it.
        let there = partitions
            .clone()
            .filter(|partition| listing.kind(topic, *partition).is_some());
        let deleted = |partition| self.directory.join(names::deleted(topic, partition));
        let mut renamed = Vec::new();
        for partition in there {
            let path = self.path(topic, partition);
            let to = match self
                .others(topic, partition, listing.kind(topic, partition), &path)
                .await?
            {
                Some(aside) => aside,
                None => deleted(partition),
            };
            renamed.push((path, to));
        }
        let renamed = self.disk.rename_all(&renamed).await;
        renamed.map_err(StoreError::io("rename partitions in", &self.directory))?;
        self.remove_all(partitions.map(deleted)).await
    }

    /// Takes away directories that say that they belong to topics of which the quorum says that they are gone, and those of which a
    /// crash came before they could say anything: there is nothing in them.
    pub(super) async fn remove_of<'a>(
        &self,
        gone: &BTreeSet<TopicId>,
        directories: impl Iterator<Item = (&'a str, &'a str, PartitionIndex)>,
    ) -> Result<(), StoreError> {
        let (mut renamed, mut empty) = (Vec::new(), Vec::new());
        for (name, topic, partition) in directories {
            let path = self.directory.join(name);
            let Ok(owner) = Owner::read(&self.disk, &path).await else {
                continue;
            };
            let Some(owner) = owner else {
                // One that does not say whose it is, is nobody's.
                if self.is_empty(&path).await {
                    tracing::info!(path = %path.display(), "an empty directory that is no topic's is removed");
                    empty.push(path);
                }
                continue;
            };
            if gone.contains(&owner.topic) {
                let to = self.directory.join(names::deleted_of(topic, partition, owner.topic));
                tracing::info!(path = %path.display(), "a partition of a topic that was deleted meanwhile is removed");
                renamed.push((path, to));
            }
        }
        let moved = self.disk.rename_all(&renamed).await;
        moved.map_err(StoreError::io("rename partitions in", &self.directory))?;
        for path in empty {
            // Nothing waits for it, and nobody may be able to remove it.
            if let Err(error) = self.remove_all([path].into_iter()).await {
                tracing::warn!(%error, "an empty directory that is no topic's stays");
            }
        }
        self.remove_all(renamed.into_iter().map(|(_, to)| to)).await
    }

    /// Whether there is nothing in a directory but what was not finished.
    async fn is_empty(&self, path: &Path) -> bool {
        let entries = self.disk.list(path).await;
        let is_unfinished = |entry: &DirEntry| {
            entry.kind == EntryKind::File && Path::new(&entry.name).extension().is_some_and(|found| found == "tmp")
        };
        entries.is_ok_and(|entries| entries.iter().all(is_unfinished))
    }

    /// Where what has the name of a partition is set aside, if it says that it belongs to another topic.
    async fn others(
        &self,
        topic: &Topic,
        partition: PartitionIndex,
        kind: Option<EntryKind>,
        path: &Path,
    ) -> Result<Option<PathBuf>, StoreError> {
        if kind != Some(EntryKind::Directory) {
            return Ok(None);
        }
        let owner = match Owner::read(&self.disk, path).await {
            // It has the topic's name, and says nothing else.
            Err(LogError::Corrupt { .. }) => None,
            read => read.map_err(|error| StoreError::io("read the owner of", path)(std::io::Error::other(error)))?,
        };
        let Some(owner) = owner.filter(|owner| owner.topic != topic.id) else {
            return Ok(None);
        };
        let aside = self.directory.join(names::aside(topic, partition, owner.topic));
        tracing::warn!(path = %path.display(), %owner, aside = %aside.display(),
            "a directory of another topic is set aside; look into it, and remove it if it is not needed");
        Ok(Some(aside))
    }

    /// Takes away what a topic has got beyond what it was. That was never served, and holds nothing.
    pub(super) async fn undo_growth(&self, topic: &Topic) -> Result<(), StoreError> {
        self.remove_all(to_make(topic).map(|partition| self.path(topic, partition)))
            .await
    }

    /// Takes away directories whose topics are gone.
    pub(super) async fn remove_deleted(&self, listing: &Listing) -> Result<(), StoreError> {
        self.remove_all(listing.deleted().map(|name| self.directory.join(name)))
            .await
    }

    async fn remove_all(&self, paths: impl Iterator<Item = PathBuf>) -> Result<(), StoreError> {
        let paths: Vec<PathBuf> = paths.collect();
        for paths in paths.chunks(REMOVED_AT_ONCE) {
            if self.stopping.load(Ordering::Relaxed) {
                return Err(StoreError::Stopping);
            }
            let removed = self.disk.remove_dirs_all(paths).await;
            removed.map_err(StoreError::io("remove partitions from", &self.directory))?;
        }
        Ok(())
    }

    /// Refuses a topic if something has the name of a directory that is to be made: it would be taken for the topic's, with records
    /// that nobody sent to it.
    pub(super) async fn check_free(&self, topic: &Topic) -> Result<(), TopicError> {
        if to_make(topic).next().is_none() {
            return Ok(());
        }
        let listing = self.list().await?;
        match to_make(topic).find(|partition| listing.kind(topic, *partition).is_some()) {
            None => Ok(()),
            Some(partition) => Err(TopicError::InTheWay {
                path: self.path(topic, partition),
            }),
        }
    }

    /// Of partitions that were being made when the broker ended, and have never been served, there is nothing but empty directories;
    /// anything else was put there by somebody, and is not the topic's.
    pub(super) async fn check_untouched(&self, topic: &Topic, listing: &Listing) -> Result<(), StoreError> {
        for partition in to_make(topic) {
            let path = self.path(topic, partition);
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

    pub(super) async fn list(&self) -> Result<Listing, StoreError> {
        Listing::read(&self.disk, &self.directory).await
    }

    fn path(&self, topic: &Topic, partition: PartitionIndex) -> PathBuf {
        self.directory.join(topic.partition_directory(partition))
    }
}
