//! The topics of a broker: what somebody asks for is agreed on before anybody sees it, done on disk by the [`Reconciler`], and found
//! again after a crash.
//!
//! ```text
//! proposal ─► command ─► quorum: ClusterState::apply ─► reconcile ─► quorum: settled
//! ```
//! Each arrow is durable before the next begins, so that [`TopicStore::open`] can finish whatever a crash cut short. A thread of
//! the control plane owns the store; cores see its [`ClusterImage`]. It opens no log and serves no request.

pub(super) mod error;
mod former;
mod identity;
mod placed;
mod recovery;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use headwater_engine::{Seldom, disk::Directory};
use headwater_protocol::{error::ErrorCode, id::TopicId};
use tokio::sync::watch;

pub use error::StoreError;
pub use identity::Identity;
pub use recovery::Recovery;
pub(crate) use recovery::{beginning, is_in_use};

use super::error::TopicError;
use super::proposal;
use super::quorum::{Order, QuorumHandle};
use super::reconcile::{Reconciler, is_unsettled};
use super::state::{ClusterState, Command};
use crate::config::Config;
use crate::core::lease::Lease;
use crate::image::{ClusterImage, Topic, TopicState};
use crate::machine;
use crate::model::access::AccessChange;
use crate::model::op::{NewTopic, TopicAlteration};
use crate::model::refusal::Refusal;

/// Name of the file in which the quorum's member of this broker keeps what it knows.
pub(crate) const QUORUM_FILE: &str = "quorum.redb";

/// The topics and the broker's identity.
pub struct TopicStore<D> {
    config: Arc<Config>,
    identity: Identity,
    quorum: QuorumHandle,
    /// Up to which version of the image this broker has what it asks for, if it is one of several. None: it is alone.
    followed: Option<watch::Receiver<u64>>,
    /// Nobody knows whether the last order was or will be done, and this is shown until that is known.
    doubt: Option<Arc<ClusterImage>>,
    reconciler: Reconciler<D>,
    /// Says that what a failure left could not be removed: whoever asks again finds the same.
    left: Seldom,
}

impl<D: Directory> TopicStore<D> {
    /// Who this broker is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Until when the active coordinator counts on this broker.
    pub(crate) fn lease(&self) -> Arc<Lease> {
        self.quorum.lease()
    }

    /// The way to the quorum.
    pub(crate) fn quorum(&self) -> QuorumHandle {
        self.quorum.clone()
    }

    /// Set it to have a removal end soon, in the middle, when the broker stops.
    pub(crate) fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.reconciler.stopping)
    }

    /// The topics as they are now.
    pub fn image(&self) -> Arc<ClusterImage> {
        self.doubt.clone().unwrap_or_else(|| self.quorum.image())
    }

    /// The topic that [`create`](Self::create) would make, or why it would not. Changes nothing.
    pub fn check_create(&self, new: &NewTopic) -> Result<Topic, TopicError> {
        self.check(proposal::create(new, &self.image(), &self.config, self.brokers())?)
    }

    /// Creates a topic. When it has returned `Ok`, the topic is there whatever happens. After an error it is not served;
    /// if the disk failed, a restart may finish it.
    pub async fn create(&mut self, new: &NewTopic) -> Result<Arc<Topic>, TopicError> {
        if !self.is_alone() {
            self.catch_up().await?;
            let command = proposal::create(new, &self.image(), &self.config, self.brokers())?;
            return self
                .place(command, new.replication_factor, new.assignments.as_deref())
                .await;
        }
        if let Some(topic) = self.image().topic(&new.name) {
            // A creation that failed, and could not be taken back then.
            self.undo(topic.id).await?;
        }
        let command = proposal::create(new, &self.image(), &self.config, 1)?;
        self.carry_out(command).await
    }

    /// The topic that [`alter`](Self::alter) would leave, or why it would not. Changes nothing.
    pub async fn check_alter(&mut self, alteration: &TopicAlteration) -> Result<Topic, TopicError> {
        self.catch_up().await?;
        let replicas = |topic| self.replicas_of(topic);
        self.check(proposal::alter(alteration, &self.image(), &self.config, replicas)?)
    }

    /// Alters a topic. When it has returned `Ok`, the change stays whatever happens. After an error the topic is served as it
    /// was; if the disk failed, a restart may finish the change.
    pub async fn alter(&mut self, alteration: &TopicAlteration) -> Result<Arc<Topic>, TopicError> {
        if !self.is_alone() {
            return self.alter_placed(alteration).await;
        }
        if let Some(topic) = self.image().topic(&alteration.name) {
            // A growth that failed, and whose traces could not be removed then.
            self.undo(topic.id).await?;
        }
        let command = proposal::alter(alteration, &self.image(), &self.config, |_| 1)?;
        self.carry_out(command).await
    }

    /// What would become of a topic by this command.
    fn check(&self, command: Command) -> Result<Topic, TopicError> {
        let state = match self.image().topic_by_id(command.topic()) {
            // It is taken back first.
            Some(topic) => self.state().abandoned(topic).0,
            None => self.state(),
        };
        let (_, change) = state.apply(command)?;
        let topic = change.after.expect("only a settled deletion leaves none");
        Ok(topic.becoming.as_deref().unwrap_or(&topic).clone())
    }

    /// Does what a command asks for from the first step to the last, or takes it back.
    async fn carry_out(&mut self, command: Command) -> Result<Arc<Topic>, TopicError> {
        let id = command.topic();
        let (next, change) = self.state().apply(command.clone())?;
        let topic = change.after.as_ref().expect("only a settled deletion leaves none");
        let wanted = topic.becoming.as_ref().unwrap_or(topic);
        self.reconciler.check_free(topic).await?;
        if !change.is_none()
            && let Err(error) = self.agree_and_settle(Order::Topic(command), next, id).await
        {
            // Nobody was told of it.
            self.take_back(id).await;
            // The quorum may have agreed after all.
            if self.doubt.is_some() || !self.has(id, |topic| is_same(topic, wanted)) {
                return Err(error.into());
            }
        }
        let image = self.image();
        let topic = image.topic_by_id(id);
        Ok(Arc::clone(
            topic.expect("it was agreed on just now, and nobody else asks for changes"),
        ))
    }

    /// Takes back what failed. If this fails too, the topic can be deleted by name, and the next change or a restart sees to it.
    async fn take_back(&mut self, id: TopicId) {
        if let Err(error) = self.undo(id).await
            && let Some(unsaid) = self.left.may_speak(machine::now())
        {
            tracing::warn!(topic = %id, %error, unsaid, "what was begun for a topic and failed could not be taken back");
        }
    }

    fn has(&self, id: TopicId, is_it: impl FnOnce(&Topic) -> bool) -> bool {
        self.image().topic_by_id(id).is_some_and(|topic| is_it(topic))
    }

    async fn agree_and_settle(&mut self, order: Order, next: ClusterState, id: TopicId) -> Result<(), StoreError> {
        self.agree(order, next).await?;
        self.settle(id).await
    }

    /// Does on disk what the topic's state asks for, and says that it is done.
    async fn settle(&mut self, id: TopicId) -> Result<(), StoreError> {
        let topic = self.image().topic_by_id(id).cloned();
        let Some(topic) = topic.filter(|topic| is_unsettled(topic)) else {
            return Ok(());
        };
        self.reconciler.reconcile(&topic).await?;
        let (next, _) = self.state().settled(&topic);
        self.agree(Order::Settled(topic), next).await
    }

    /// Takes back what was begun for a topic and is not settled. Nothing of it was ever served. A deletion stands.
    async fn undo(&mut self, id: TopicId) -> Result<(), StoreError> {
        // It may be done already, and then its partitions must not go missing.
        self.settle_doubt().await?;
        let topic = self.image().topic_by_id(id).cloned();
        let Some(topic) = topic.filter(|topic| is_unsettled(topic) && topic.state != TopicState::Deleting) else {
            return Ok(());
        };
        if topic.state == TopicState::Ready {
            self.reconciler.undo_growth(&topic).await?;
        }
        let (next, _) = self.state().abandoned(&topic);
        self.agree(Order::Abandoned(topic), next).await?;
        self.settle(id).await
    }

    /// Begins to delete a topic, in whatever state a failure has left it. When it has returned `Ok` the topic will be
    /// gone, also after a crash. The cores must close its partitions before [`finish_delete`](Self::finish_delete). `only`: the topic
    /// that is meant; another that has its name by now stays.
    pub async fn begin_delete(&mut self, name: &str, only: Option<TopicId>) -> Result<Arc<Topic>, TopicError> {
        self.catch_up().await?;
        let topic = self.image().topic(name).cloned();
        let Some(topic) = topic.filter(|topic| only.is_none_or(|only| topic.id == only)) else {
            return Err(TopicError::Unknown { name: name.to_owned() });
        };
        let command = Command::Delete { id: topic.id };
        if !self.is_alone() {
            return self.place(command, -1, None).await;
        }
        let (next, change) = self.state().apply(command.clone())?;
        if !change.is_none() || self.doubt.is_some() {
            self.agree(Order::Topic(command), next).await?;
        }
        Ok(change.after.unwrap_or(topic))
    }

    /// Removes what a topic that is being deleted has on disk, and frees its name. Does nothing for any other. After an
    /// error the topic can be deleted again by name; a restart does it too. Large partitions take as long as the file
    /// system takes.
    pub async fn finish_delete(&mut self, id: TopicId) -> Result<(), StoreError> {
        let image = self.image();
        let topic = image.topic_by_id(id);
        if topic.is_none_or(|topic| topic.state != TopicState::Deleting) {
            return Ok(());
        }
        self.settle(id).await
    }

    /// Changes who may do what, and returns when this broker shows it. An error of the quorum: nobody knows whether it is done.
    pub(crate) async fn change_access(&mut self, change: AccessChange) -> Result<(), Refusal> {
        let said = |error: StoreError| match error {
            StoreError::Quorum { code, reason } => Refusal::new(code, reason),
            other => Refusal::because(ErrorCode::KafkaStorageError, &other),
        };
        self.settle_doubt().await.map_err(said)?;
        match self.quorum.propose(Order::Access(change)).await {
            Ok(outcome) => outcome.refusal().map_or(Ok(()), Err)?,
            Err(refusal) => {
                // What is shown stays what it was until it is known.
                self.doubt = Some(self.image());
                return Err(refusal);
            }
        }
        let version = self.image().version();
        if let Some(followed) = &mut self.followed {
            // It ends before this only if the broker stops.
            let _ = followed.wait_for(|shown| *shown >= version).await;
        }
        Ok(())
    }

    /// Has the quorum agree on an order that leads to this state.
    async fn agree(&mut self, order: Order, next: ClusterState) -> Result<(), StoreError> {
        match self.quorum.propose(order).await {
            Ok(outcome) => {
                self.doubt = None;
                outcome.refusal().map_or(Ok(()), |refusal| Err(refused(refusal)))
            }
            Err(refusal) => {
                // What serves less is shown: records that are acknowledged for a topic whose deletion is agreed on, after all, would be
                // removed at the next start.
                let now = self.image();
                let serves_less = next.image().ready_count() < now.ready_count();
                self.doubt = Some(if serves_less { Arc::clone(next.image()) } else { now });
                Err(refused(refusal))
            }
        }
    }

    /// Tells the quorum that this broker is there. Whatever was asked for before is decided when that is, and shows in the image.
    async fn register(&mut self) -> Result<(), StoreError> {
        let outcome = self.quorum.register().await.map_err(refused)?;
        self.doubt = None;
        outcome.refusal().map_or(Ok(()), |refusal| Err(refused(refusal)))
    }

    async fn settle_doubt(&mut self) -> Result<(), StoreError> {
        match self.doubt {
            Some(_) => self.register().await,
            None => Ok(()),
        }
    }

    fn state(&self) -> ClusterState {
        ClusterState::of(self.image())
    }
}

/// Whether the topic is served as it was wanted.
fn is_same(topic: &Topic, wanted: &Topic) -> bool {
    topic.state == TopicState::Ready
        && topic.becoming.is_none()
        && (topic.partition_count, &topic.overrides) == (wanted.partition_count, &wanted.overrides)
}

fn refused(refusal: Refusal) -> StoreError {
    StoreError::Quorum {
        code: refusal.code,
        reason: refusal.message,
    }
}
