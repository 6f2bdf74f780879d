//! What this broker has lost: directories of its partitions that are gone while the cluster counts on what was in them. One is not made
//! again before nobody does, or it would be taken for all that was acknowledged. So the broker says that it has lost it
//! ([`ReplicaCommand::Lost`](super::replicas::ReplicaCommand)) once others are in sync, and begins again with nothing.

use std::collections::{BTreeMap, BTreeSet};

use headwater_engine::disk::Directory;
use headwater_protocol::id::BrokerId;
use tokio::sync::watch;

use super::{own::Own, reconcile::Reconciler, replicas::ReplicaMap, store::StoreError};
use crate::image::{ClusterImage, PartitionId, Placements};

/// What is known of it.
#[derive(Default)]
pub(super) struct Lost {
    /// The partitions of this broker that are offline, and whether it is counted on for each.
    offline: BTreeMap<PartitionId, bool>,
    /// Those of them that have no directory, and that it is counted on for.
    gone: watch::Sender<BTreeSet<PartitionId>>,
}

impl Lost {
    /// Takes note of what has changed of this broker's partitions, after which the disk is to be looked at.
    pub(super) fn learns(&mut self, broker: BrokerId, own: &Own, now: &Placements) {
        self.offline
            .retain(|id, _| !own.has_lost || own.partitions.contains(id));
        for id in &own.changed {
            let replicas = now.get(*id).filter(|replicas| replicas.offline.contains(&broker));
            match replicas.map(|replicas| replicas.counts_on(broker)) {
                Some(is_counted_on) => self.offline.insert(*id, is_counted_on),
                None => self.offline.remove(id),
            };
        }
    }

    /// Looks which of them have no directory.
    pub(super) async fn look<D: Directory>(
        &self,
        reconciler: &Reconciler<D>,
        image: &ClusterImage,
    ) -> Result<(), StoreError> {
        let mut gone = BTreeSet::new();
        if self.offline.values().any(|is_counted_on| *is_counted_on) {
            let listing = reconciler.list().await?;
            let counted_on = self.offline.iter().filter(|(_, is_counted_on)| **is_counted_on);
            let is_gone = |id: &&PartitionId| {
                let topic = image.topic_by_id(id.topic);
                topic.is_some_and(|topic| topic.has(id.index) && listing.kind(topic, id.index).is_none())
            };
            gone = counted_on.map(|(id, _)| id).filter(is_gone).copied().collect();
        }
        for id in gone.difference(&self.gone.borrow()) {
            let topic = image.topic_by_id(id.topic).map(|topic| topic.name.as_str());
            tracing::error!(topic, partition = %id.index,
                "the directory of a partition is gone; it is made again once another replica is in sync: put it back if you can");
        }
        self.gone.send_replace(gone);
        Ok(())
    }

    /// Where it is shown what is lost.
    pub(super) fn shown(&self) -> watch::Receiver<BTreeSet<PartitionId>> {
        self.gone.subscribe()
    }
}

/// What a broker is to say that it has lost: it is counted on for it, and others have it.
pub(super) fn to_be_said(own: BrokerId, gone: &BTreeSet<PartitionId>, known: &ReplicaMap) -> Vec<PartitionId> {
    let is_elsewhere = |id: &&PartitionId| {
        known.replicas(**id).is_some_and(|replicas| {
            let is_counted_on = replicas.offline.contains(&own) && replicas.counts_on(own);
            is_counted_on && replicas.isr.iter().any(|member| *member != own)
        })
    };
    gone.iter().filter(is_elsewhere).copied().collect()
}
