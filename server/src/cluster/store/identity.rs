//! Who the data directory belongs to (`broker.json`), and which producer ids were given out (`producer-ids.json`).
//!
//! The identity is written last when a directory is first used: where it is, all other metadata files must be.

use std::ops::Range;
use std::path::{Path, PathBuf};

use headwater_engine::disk::Directory;
use headwater_protocol::id::BrokerId;
use serde::{Deserialize, Serialize};

use super::sealed::{self, StoreError};
use crate::{
    config::{BrokerSection, ClusterId},
    machine,
};

/// Name of the identity file.
pub(crate) const IDENTITY_FILE: &str = "broker.json";
/// Name of the producer id file.
pub(super) const PRODUCER_IDS_FILE: &str = "producer-ids.json";

/// Producer ids that are made durable at once. No id is given twice: a crash loses those that were reserved.
pub(crate) const PRODUCER_ID_BLOCK: i64 = 1000;
/// No count of blocks ever comes near it; a file that is beyond it is not ours.
const PRODUCER_ID_MAX: i64 = i64::MAX / 2;

/// Who a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its number there.
    pub broker_id: BrokerId,
}

#[derive(Serialize, Deserialize)]
struct StoredIdentity {
    cluster_id: String,
    broker_id: i32,
}

impl Identity {
    /// What the data directory says, which must agree with the configuration. None: it is new.
    pub(super) async fn read(
        disk: &impl Directory,
        directory: &Path,
        config: &BrokerSection,
    ) -> Result<Option<Self>, StoreError> {
        let path = directory.join(IDENTITY_FILE);
        let Some(stored) = sealed::read::<StoredIdentity>(disk, &path).await? else {
            return Ok(None);
        };
        let cluster_id: ClusterId = stored.cluster_id.parse().map_err(|expected| StoreError::Corrupt {
            path,
            reason: format!("its cluster id is not {expected}"),
        })?;
        let other = |owner: String, setting: String| StoreError::OtherBroker {
            path: directory.to_owned(),
            owner,
            setting,
        };
        if stored.broker_id != config.id.get() {
            let owner = format!("broker {}", stored.broker_id);
            return Err(other(owner, format!("broker.id is {}", config.id)));
        }
        match &config.cluster_id {
            Some(configured) if *configured != cluster_id => {
                let owner = format!("cluster {}", cluster_id.as_str());
                Err(other(owner, format!("broker.cluster_id is {}", configured.as_str())))
            }
            _ => Ok(Some(Self {
                cluster_id,
                broker_id: config.id,
            })),
        }
    }

    /// Gives a new data directory its identity.
    pub(super) async fn create(
        disk: &impl Directory,
        directory: &Path,
        config: &BrokerSection,
    ) -> Result<Self, StoreError> {
        let cluster_id = config
            .cluster_id
            .clone()
            .unwrap_or_else(|| ClusterId::from_uuid(machine::uuid()));
        let identity = Self {
            cluster_id,
            broker_id: config.id,
        };
        let stored = StoredIdentity {
            cluster_id: identity.cluster_id.as_str().to_owned(),
            broker_id: identity.broker_id.get(),
        };
        sealed::write(disk, &directory.join(IDENTITY_FILE), &stored).await?;
        Ok(identity)
    }
}

/// Reserves producer ids that nobody had before and nobody else gets, also after a crash.
#[derive(Debug)]
pub struct ProducerIds<D> {
    disk: D,
    path: PathBuf,
    /// First id that is in no block that may have been given out.
    next: i64,
}

#[derive(Serialize, Deserialize)]
struct StoredProducerIds {
    next: i64,
}

impl<D: Directory> ProducerIds<D> {
    fn new(disk: &D, path: PathBuf, next: i64) -> Self {
        Self {
            disk: disk.clone(),
            path,
            next,
        }
    }

    /// Starts from 0 in a new data directory.
    pub(super) async fn create(disk: &D, directory: &Path) -> Result<Self, StoreError> {
        let ids = Self::new(disk, directory.join(PRODUCER_IDS_FILE), 0);
        sealed::write(disk, &ids.path, &StoredProducerIds { next: 0 }).await?;
        Ok(ids)
    }

    /// Goes on after the last block. None: the file is missing.
    pub(super) async fn read(disk: &D, directory: &Path) -> Result<Option<Self>, StoreError> {
        let path = directory.join(PRODUCER_IDS_FILE);
        match sealed::read::<StoredProducerIds>(disk, &path).await? {
            Some(StoredProducerIds {
                next: next @ 0..=PRODUCER_ID_MAX,
            }) => Ok(Some(Self::new(disk, path, next))),
            Some(StoredProducerIds { next }) => Err(StoreError::Corrupt {
                path,
                reason: format!("it says that the next producer id is {next}"),
            }),
            None => Ok(None),
        }
    }

    /// The next block, which is durable before anybody gets an id of it.
    pub async fn reserve(&mut self) -> Result<Range<i64>, StoreError> {
        let block = self.next..self.next + PRODUCER_ID_BLOCK;
        sealed::write(&self.disk, &self.path, &StoredProducerIds { next: block.end }).await?;
        self.next = block.end;
        Ok(block)
    }
}
