//! Topics in a cluster of several brokers: a change is agreed on in one step, together with who has what is new. What it asks for on
//! disk each broker does for itself when it sees it ([`membership`](crate::cluster::membership)).

use std::sync::Arc;

use headwater_engine::disk::Directory;
use tokio::sync::watch;

use super::{StoreError, TopicStore, refused};
use crate::{
    cluster::{
        error::TopicError,
        quorum::Order,
        reconcile::Reconciler,
        replicas::{self, Factor, Placement, ReplicaError},
        state::Command,
    },
    image::{Durability, Terms, Topic},
};

impl<D: Directory> TopicStore<D> {
    /// Whether this broker has all partitions of all topics, and asks nobody.
    pub(crate) fn is_alone(&self) -> bool {
        self.followed.is_none()
    }

    /// Whether others may be in its cluster: they can reach it, or have been there.
    pub(crate) fn may_have_peers(&self) -> bool {
        self.config.cluster.listen.is_some() || self.quorum.replicas().brokers().len() > 0
    }

    /// What it has in common with those that fail with it.
    pub(in crate::cluster) fn rack(&self) -> Option<String> {
        self.config.broker.rack.as_ref().map(|rack| rack.as_str().to_owned())
    }

    /// It is one of several from now on; what it asks for is done here when this shows the version of the image.
    pub(in crate::cluster) fn joins(&mut self, followed: watch::Receiver<u64>) {
        self.followed = Some(followed);
    }

    /// Another pair of hands in the same directory.
    pub(in crate::cluster) fn reconciler(&self) -> Reconciler<D> {
        self.reconciler.clone()
    }

    /// What any broker was answered shows in the image when this returns: one that is alone is never behind.
    pub(super) async fn catch_up(&mut self) -> Result<(), StoreError> {
        if self.is_alone() {
            return Ok(());
        }
        self.register().await
    }

    /// Has a change agreed on, and returns the topic when it is done on this broker: as it is then, or as it was if it is gone. An
    /// error of the quorum: nobody knows whether it is done, or will be.
    pub(super) async fn place(&mut self, command: Command, factor: i16) -> Result<Arc<Topic>, TopicError> {
        let id = command.topic();
        let before = self.image().topic_by_id(id).cloned();
        let placement = self.placement(&command, factor).map_err(|error| StoreError::Quorum {
            code: error.code(),
            reason: error.to_string(),
        })?;
        let outcome = self.quorum.propose(Order::Placed(command, placement)).await;
        outcome
            .map_err(refused)?
            .refusal()
            .map_or(Ok(()), |refusal| Err(refused(refusal)))?;
        let image = self.image();
        if let Some(followed) = &mut self.followed {
            // It ends before this only if the broker stops.
            let _ = followed.wait_for(|version| *version >= image.version()).await;
        }
        let topic = image.topic_by_id(id).cloned().or(before);
        topic.ok_or_else(|| TopicError::unknown(id))
    }

    /// Who is to have the partitions that a command makes; none if it makes none.
    fn placement(&self, command: &Command, factor: i16) -> Result<Option<Placement>, ReplicaError> {
        let map = self.quorum.replicas();
        let topic = command.topic();
        let has = map.replicas_of(topic);
        let count = match command {
            Command::Create { partition_count, .. } | Command::Alter { partition_count, .. } => {
                *partition_count as usize
            }
            Command::Delete { .. } => 0,
        };
        let new = count.saturating_sub(has.len());
        if new == 0 {
            return Ok(None);
        }
        let factor = match (has.first(), usize::try_from(factor)) {
            // As many as the others.
            (Some(first), _) => Factor {
                replicas: first.target().count(),
                min_isr: first.terms.min_isr,
            },
            (None, Ok(replicas)) => Factor::of(replicas),
            (None, Err(_unsaid)) => Factor::default_for(map.brokers().len()),
        };
        let replicas = replicas::place(topic, has, new, factor.replicas, map.brokers())?;
        let terms = Terms {
            min_isr: factor.min_isr,
            durability: Durability::Disk,
        };
        Ok(Some(Placement { terms, replicas }))
    }
}
