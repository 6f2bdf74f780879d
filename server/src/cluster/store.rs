//! The topics of a single broker on disk: what the [`ClusterState`] says is written down before anybody sees it, done by the
//! [`Reconciler`], and found again after a crash.
//!
//! ```text
//! proposal ─► command ─► ClusterState::apply ─► topics.json ─► reconcile ─► Settle ─► topics.json
//! ```
//! Each arrow is durable before the next begins, so that [`TopicStore::open`] can finish whatever a crash cut short. A thread of
//! the control plane owns the store; cores see its [`ClusterImage`]. It opens no log and serves no request.

mod identity;
mod recovery;
pub(super) mod sealed;
mod stored;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use headwater_engine::{Seldom, disk::Directory};
use headwater_protocol::id::TopicId;

pub(crate) use identity::{IDENTITY_FILE, PRODUCER_ID_BLOCK};
pub use identity::{Identity, ProducerIds};
pub use recovery::Recovery;
pub use sealed::StoreError;

use super::error::TopicError;
use super::proposal;
use super::reconcile::{Reconciler, is_unsettled};
use super::state::{Change, ClusterState, Command};
use crate::config::Config;
use crate::image::settings::TopicSettings;
use crate::image::{ClusterImage, Topic, TopicState};
use crate::machine;
use crate::model::op::{NewTopic, TopicAlteration};

/// The topics and the broker's identity, as they are on disk.
pub struct TopicStore<D> {
    config: Arc<Config>,
    identity: Identity,
    state: ClusterState,
    /// A write has failed, and so has writing what was there before: the disk may have either.
    is_in_doubt: bool,
    reconciler: Reconciler<D>,
    /// Says that what a failure left could not be removed: whoever asks again finds the same.
    left: Seldom,
}

impl<D: Directory> TopicStore<D> {
    /// Who this broker is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Set it to have a removal end soon, in the middle, when the broker stops.
    pub(crate) fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.reconciler.stopping)
    }

    /// The topics as they are now.
    pub fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(self.state.image())
    }

    /// The topic that [`create`](Self::create) would make, or why it would not. Changes nothing.
    pub fn check_create(&self, new: &NewTopic) -> Result<Topic, TopicError> {
        self.check(proposal::create(new, self.state.image(), &self.config)?)
    }

    /// Creates a topic. When it has returned `Ok`, the topic is there whatever happens. After an error it is not served;
    /// if the disk failed, a restart may finish it.
    pub async fn create(&mut self, new: &NewTopic) -> Result<Arc<Topic>, TopicError> {
        let command = proposal::create(new, self.state.image(), &self.config)?;
        self.carry_out(command).await
    }

    /// The topic that [`alter`](Self::alter) would leave, or why it would not. Changes nothing.
    pub fn check_alter(&self, alteration: &TopicAlteration) -> Result<Topic, TopicError> {
        self.check(proposal::alter(alteration, self.state.image(), &self.config)?)
    }

    /// Alters a topic. When it has returned `Ok`, the change stays whatever happens. After an error the topic is served as it
    /// was; if the disk failed, a restart may finish the change.
    pub async fn alter(&mut self, alteration: &TopicAlteration) -> Result<Arc<Topic>, TopicError> {
        let command = proposal::alter(alteration, self.state.image(), &self.config)?;
        // A growth that failed, and whose traces could not be removed then.
        self.undo(command.topic()).await?;
        self.carry_out(command).await
    }

    /// What would become of a topic by this command.
    fn check(&self, command: Command) -> Result<Topic, TopicError> {
        let state = match self.state.image().topic_by_id(command.topic()) {
            // It is taken back first.
            Some(topic) => self.state.abandoned(topic).0,
            None => self.state.clone(),
        };
        let (_, change) = state.apply(command)?;
        let topic = change.after.expect("only a settled deletion leaves none");
        Ok(topic.becoming.as_deref().unwrap_or(&topic).clone())
    }

    /// Does what a command asks for from the first step to the last, or takes it back.
    async fn carry_out(&mut self, command: Command) -> Result<Arc<Topic>, TopicError> {
        let id = command.topic();
        let (next, change) = self.state.apply(command)?;
        if let Some(topic) = &change.after {
            self.reconciler.check_free(topic).await?;
        }
        self.store(next, &change).await?;
        if let Err(error) = self.settle(id).await {
            // Nobody was told of it. If this fails too, it can be deleted by name, and the next change or a restart sees to it.
            if let Err(error) = self.undo(id).await
                && let Some(unsaid) = self.left.may_speak(machine::now())
            {
                tracing::warn!(topic = %id, %error, unsaid, "what was begun for a topic and failed could not be taken back");
            }
            return Err(error.into());
        }
        let topic = self.state.image().topic_by_id(id);
        Ok(Arc::clone(
            topic.expect("it was stored just now, and nobody else changes the state"),
        ))
    }

    /// Does on disk what the topic's state asks for, and notes that it is done.
    async fn settle(&mut self, id: TopicId) -> Result<(), StoreError> {
        let topic = self.state.image().topic_by_id(id).cloned();
        let Some(topic) = topic.filter(|topic| is_unsettled(topic)) else {
            return Ok(());
        };
        self.reconciler.reconcile(&topic).await?;
        let (next, change) = self.state.settled(&topic);
        self.store(next, &change).await
    }

    /// Takes back what was begun for a topic and is not settled. Nothing of it was ever served. A deletion stands.
    async fn undo(&mut self, id: TopicId) -> Result<(), StoreError> {
        let topic = self.state.image().topic_by_id(id).cloned();
        let Some(topic) = topic.filter(|topic| is_unsettled(topic) && topic.state != TopicState::Deleting) else {
            return Ok(());
        };
        if topic.state == TopicState::Ready {
            // The disk may have the larger topic already, whose partitions must not go missing.
            self.settle_doubt().await?;
            self.reconciler.undo_growth(&topic).await?;
        }
        let (next, change) = self.state.abandoned(&topic);
        self.store(next, &change).await?;
        self.settle(id).await
    }

    /// Begins to delete a topic, in whatever state a failure has left it. When it has returned `Ok` the topic will be
    /// gone, also after a crash. The cores must close its partitions before [`finish_delete`](Self::finish_delete).
    pub async fn begin_delete(&mut self, name: &str) -> Result<Arc<Topic>, TopicError> {
        let Some(topic) = self.state.image().topic(name).cloned() else {
            return Err(TopicError::Unknown { name: name.to_owned() });
        };
        let (next, change) = self.state.apply(Command::Delete { id: topic.id })?;
        self.store(next, &change).await?;
        Ok(change.after.unwrap_or(topic))
    }

    /// Removes what a topic that is being deleted has on disk, and frees its name. Does nothing for any other. After an
    /// error the topic can be deleted again by name; a restart does it too. Large partitions take as long as the file
    /// system takes.
    pub async fn finish_delete(&mut self, id: TopicId) -> Result<(), StoreError> {
        let topic = self.state.image().topic_by_id(id);
        if topic.is_none_or(|topic| topic.state != TopicState::Deleting) {
            return Ok(());
        }
        self.settle(id).await
    }

    /// Whether files can be removed once the change is stored.
    fn makes_room(&self, change: &Change) -> bool {
        let log_config =
            |topic: &Topic| TopicSettings::in_force(&topic.overrides, &self.config).log_config(&self.config);
        match (&change.before, &change.after) {
            (_, None) => true,
            (_, Some(after)) if after.state == TopicState::Deleting => true,
            (Some(before), Some(after)) => log_config(after).keeps_less_than(&log_config(before)),
            (None, Some(_)) => false,
        }
    }

    /// Stores a state, and shows it.
    async fn store(&mut self, next: ClusterState, change: &Change) -> Result<(), StoreError> {
        if change.is_none() && !self.is_in_doubt {
            return Ok(());
        }
        let written = self.write(next.image(), self.makes_room(change)).await;
        // A failed write may have been done: the former topics are written back, and go on being served. If that fails
        // too, either may be on disk, and what is shown is the one that serves less: records that are acknowledged for
        // a topic which looks deleted on disk would be removed at the next start.
        self.is_in_doubt = written.is_err() && self.write(self.state.image(), false).await.is_err();
        let serves_less = next.image().ready_count() < self.state.image().ready_count();
        if written.is_ok() || (self.is_in_doubt && serves_less) {
            self.state = next;
        }
        written
    }

    /// The disk has the state that is shown, for certain.
    async fn settle_doubt(&mut self) -> Result<(), StoreError> {
        if self.is_in_doubt {
            self.write(self.state.image(), false).await?;
            self.is_in_doubt = false;
        }
        Ok(())
    }

    async fn write(&self, image: &ClusterImage, makes_room: bool) -> Result<(), StoreError> {
        let Reconciler { disk, directory, .. } = &self.reconciler;
        stored::write_topics(disk, directory, image, makes_room).await
    }
}
