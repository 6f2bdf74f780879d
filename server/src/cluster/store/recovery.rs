//! The first start, and every other: who the data directory belongs to, which topics it holds, and what a crash left unfinished.
//!
//! Never makes a partition of a ready topic anew: what is missing is reported, and what belongs to nobody is left alone.

use std::path::Path;
use std::sync::Arc;

use headwater_engine::{
    Seldom,
    disk::{Directory, EntryKind},
};
use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::PartitionIndex;
use headwater_protocol::topic::TopicName;

use super::error::StoreError;
use super::former;
use super::identity::Identity;
use super::{QUORUM_FILE, TopicStore};
use crate::cluster::names::Listing;
use crate::cluster::quorum::{self, Beginning, QuorumHandle, State};
use crate::cluster::reconcile::Reconciler;
use crate::config::Config;
use crate::image::{Topic, TopicState};

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

/// For whom a data directory without a quorum's store gets one, and what it begins with: what a broker before the quorum has left, or
/// nothing; or none, if it is to become a member of a quorum with others. The directory is made if it is missing. None: the store is there.
pub(crate) async fn beginning(
    disk: &impl Directory,
    config: &Config,
) -> Result<Option<(quorum::Identity, Option<Beginning>)>, StoreError> {
    let directory = &config.log.directory;
    let made = disk.create_dir(directory).await;
    made.map_err(StoreError::io("create", directory))?;
    let listing = Listing::read(disk, directory).await?;
    if listing.names().any(|name| name == QUORUM_FILE) {
        return Ok(None);
    }
    let former = former::read(disk, config).await?;
    if let (None, Some((partition, ..))) = (&former, listing.partitions().next()) {
        return Err(StoreError::Missing {
            path: directory.join(QUORUM_FILE),
            evidence: format!("it holds {partition}"),
        });
    }
    let members = &config.cluster.members;
    if members.len() > 1 {
        // What it knows alone, the others would not.
        return match former {
            Some(_) => Err(StoreError::Alone {
                path: directory.clone(),
            }),
            None => Ok(Some((Identity::new(config).of_new_member(), None))),
        };
    }
    let (identity, state) = former.unwrap_or_else(|| (Identity::new(config), State::default()));
    let address = members.address(config.broker.id).map(ToString::to_string);
    let address = address.unwrap_or_default();
    Ok(Some((identity.of_new_member(), Some(Beginning { state, address }))))
}

/// Whether a broker has ever used the directory.
pub(crate) fn is_in_use(directory: &Path) -> bool {
    [QUORUM_FILE, former::IDENTITY_FILE]
        .iter()
        .any(|name| directory.join(name).exists())
}

impl<D: Directory> TopicStore<D> {
    /// Opens the topics in the configured data directory, as the quorum knows them, and finishes what a crash cut short.
    pub(crate) async fn open(
        disk: D,
        config: Arc<Config>,
        quorum: QuorumHandle,
    ) -> Result<(Self, Recovery), StoreError> {
        let directory = config.log.directory.clone();
        let identity = Identity::of_member(quorum.identity(), &config)?;
        let listing = Listing::read(&disk, &directory).await?;
        former::remove(&disk, &directory, &listing).await?;
        let mut store = Self {
            config,
            identity,
            quorum,
            followed: None,
            doubt: None,
            reconciler: Reconciler {
                disk,
                directory,
                stopping: Arc::default(),
            },
            left: Seldom::default(),
        };
        store.join().await?;
        let recovery = store.recover(&listing).await?;
        Ok((store, recovery))
    }

    /// Tells the quorum that this broker is there, however long it takes until a majority is, and until others can share what they have.
    async fn join(&mut self) -> Result<(), StoreError> {
        let mut replicas = self.quorum.shown().replicas;
        loop {
            replicas.mark_unchanged();
            match self.register().await {
                Err(StoreError::Quorum {
                    code: ErrorCode::CoordinatorLoadInProgress,
                    reason,
                }) => {
                    tracing::warn!(%reason, "the broker waits for another one");
                    // It shows when that is let in. If the quorum ends, so does the next attempt.
                    let _ = replicas.changed().await;
                }
                Err(StoreError::Quorum {
                    code: ErrorCode::CoordinatorNotAvailable,
                    reason,
                }) => tracing::warn!(%reason, "the broker waits for the quorum"),
                registered => return registered,
            }
        }
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
