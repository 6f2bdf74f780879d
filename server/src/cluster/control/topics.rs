//! Changes to topics, one after the other: each is stored, published to every core, and then answered.

use std::sync::Arc;

use headwater_engine::disk::Directory;
use headwater_protocol::{error::ErrorCode, id::TopicId};

use super::Requests;
use crate::{
    cluster::{TopicError, TopicStore, assign::publish},
    core::mesh::{Mesh, Reply},
    image::Topic,
    model::{
        access::AccessChange,
        op::{NewTopic, TopicAlteration},
        refusal::Refusal,
    },
};

/// A change that somebody waits for.
pub(super) enum TopicRequest {
    Create {
        new: NewTopic,
        validate_only: bool,
        reply: Reply<Result<Arc<Topic>, Refusal>>,
    },
    Alter {
        alteration: TopicAlteration,
        validate_only: bool,
        reply: Reply<Result<Arc<Topic>, Refusal>>,
    },
    Delete {
        name: String,
        /// The topic must have this id.
        only: Option<TopicId>,
        reply: Reply<Result<(), Refusal>>,
    },
    Access {
        change: AccessChange,
        reply: Reply<Result<(), Refusal>>,
    },
}

/// Owns the topic store, on a thread that may wait for the disk and for the cores.
pub(super) struct TopicWorker<D> {
    pub(super) store: TopicStore<D>,
    pub(super) mesh: Mesh,
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn refusal(error: TopicError) -> Refusal {
    Refusal::because(error.code(), &error)
}

impl<D: Directory> TopicWorker<D> {
    pub(super) async fn run(mut self, mut requests: Requests<TopicRequest>) {
        while let Some(request) = requests.next().await {
            // A client that has left no longer wants the answer; what it asked for stands.
            match request {
                TopicRequest::Create {
                    new,
                    validate_only,
                    reply,
                } => {
                    let _ = reply.send(self.create(&new, validate_only).await);
                }
                TopicRequest::Alter {
                    alteration,
                    validate_only,
                    reply,
                } => {
                    let _ = reply.send(self.alter(&alteration, validate_only).await);
                }
                TopicRequest::Delete { name, only, reply } => {
                    let _ = reply.send(self.delete(&name, only).await);
                }
                TopicRequest::Access { change, reply } => {
                    let _ = reply.send(self.change_access(change).await);
                }
            }
        }
    }

    /// Shows the topics to the cores. In a cluster of several brokers its membership does, of whatever broker was asked for a change.
    async fn publish(&self) {
        if self.store.is_alone() {
            publish(&self.mesh, self.store.image()).await;
        }
    }

    async fn create(&mut self, new: &NewTopic, validate_only: bool) -> Result<Arc<Topic>, Refusal> {
        if validate_only {
            return self.store.check_create(new).map(Arc::new).map_err(refusal);
        }
        let topic = self.store.create(new).await.map_err(refusal)?;
        self.publish().await;
        tracing::info!(topic = %topic.name, partitions = topic.partition_count, "a topic was created");
        Ok(topic)
    }

    async fn alter(&mut self, alteration: &TopicAlteration, validate_only: bool) -> Result<Arc<Topic>, Refusal> {
        if validate_only {
            let checked = self.store.check_alter(alteration).await;
            return checked.map(Arc::new).map_err(refusal);
        }
        let topic = self.store.alter(alteration).await.map_err(refusal)?;
        self.publish().await;
        tracing::info!(topic = %topic.name, partitions = topic.partition_count, overrides = ?topic.overrides, "a topic was altered");
        Ok(topic)
    }

    async fn change_access(&mut self, change: AccessChange) -> Result<(), Refusal> {
        self.store.change_access(change).await?;
        self.publish().await;
        Ok(())
    }

    async fn delete(&mut self, name: &str, only: Option<TopicId>) -> Result<(), Refusal> {
        let begun = self.store.begin_delete(name, only).await;
        if matches!(begun, Ok(_) | Err(TopicError::Store(_))) {
            // The cores let go of the partitions before their files are removed; and also if nobody knows what becomes of them.
            self.publish().await;
        }
        let topic = begun.map_err(refusal)?;
        let finished = self.store.finish_delete(topic.id).await;
        finished.map_err(|error| Refusal::because(ErrorCode::KafkaStorageError, &error))?;
        self.publish().await;
        tracing::info!(topic = %topic.name, "a topic was deleted");
        Ok(())
    }
}
