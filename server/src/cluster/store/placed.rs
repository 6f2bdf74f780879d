//! Topics in a cluster of several brokers: a change is agreed on in one step, together with who has what is new. What it asks for on
//! disk each broker does for itself when it sees it ([`membership`](crate::cluster::membership)).

use std::sync::Arc;

use headwater_engine::disk::Directory;
use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, TopicId},
};
use tokio::sync::watch;

use super::{StoreError, TopicStore, refused};
use crate::{
    cluster::{
        error::TopicError,
        proposal,
        quorum::Order,
        reconcile::Reconciler,
        replicas::{self, Placement},
        state::Command,
    },
    image::Topic,
    model::op::TopicAlteration,
};

/// So often an alteration is decided while others are altering the same topic: of those who try at once one succeeds each time.
const TRIES_MAX: u32 = 100;

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
    /// error of the quorum: nobody knows whether it is done, or will be. `assigned`: who is to have the partitions that are new.
    pub(super) async fn place(
        &mut self,
        command: Command,
        factor: i16,
        assigned: Option<&[Vec<BrokerId>]>,
    ) -> Result<Arc<Topic>, TopicError> {
        let id = command.topic();
        let before = self.image().topic_by_id(id).cloned();
        let placement = self.placement(&command, factor, assigned)?;
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

    /// Has an alteration agreed on. What another broker has changed meanwhile stays: it is decided again with that.
    pub(super) async fn alter_placed(&mut self, alteration: &TopicAlteration) -> Result<Arc<Topic>, TopicError> {
        let mut tries = 0;
        loop {
            self.catch_up().await?;
            let replicas = |topic| self.replicas_of(topic);
            let command = proposal::alter(alteration, &self.image(), &self.config, replicas)?;
            tries += 1;
            match self.place(command, -1, alteration.assignments.as_deref()).await {
                Err(error) if error.code() == ErrorCode::CoordinatorLoadInProgress && tries < TRIES_MAX => {}
                done => return done,
            }
        }
    }

    /// Who is to have the partitions that a command makes.
    fn placement(
        &self,
        command: &Command,
        factor: i16,
        assigned: Option<&[Vec<BrokerId>]>,
    ) -> Result<Placement, TopicError> {
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
            return Ok(Placement::default());
        }
        if let Some(assigned) = assigned {
            // Whether they can be had is decided when it is agreed on.
            return Ok(Placement {
                replicas: assigned.to_vec(),
            });
        }
        let factor = match self.replicas_of(topic) {
            0 => proposal::factor(factor, map.brokers().len(), &self.config)?,
            // As many as the others.
            others => others,
        };
        let placed = replicas::place(topic, has, new, factor, map.brokers());
        let replicas = placed.map_err(|error| StoreError::Quorum {
            code: error.code(),
            reason: error.to_string(),
        })?;
        Ok(Placement { replicas })
    }

    /// Brokers of its cluster, whether they are there or not.
    pub(super) fn brokers(&self) -> usize {
        self.quorum.replicas().brokers().len().max(1)
    }

    /// Replicas of each partition of a topic; 0 if it is not placed, and 1 if this broker is alone.
    pub(super) fn replicas_of(&self, topic: TopicId) -> usize {
        if self.is_alone() {
            return 1;
        }
        let map = self.quorum.replicas();
        map.replicas_of(topic).first().map_or(0, |first| first.target().count())
    }
}
