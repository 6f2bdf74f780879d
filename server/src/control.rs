//! The control thread: an ordinary thread with a tokio runtime, for everything that is not about records.
//!
//! It owns the topic store, hands out producer ids, and publishes each change as a new cluster image, which every core has
//! applied before the client is answered. Cores send requests over a channel and are never waited for by anything else here,
//! so a slow disk delays an administrator and no producer.

use std::{
    net::TcpListener,
    sync::Arc,
    thread::{self, JoinHandle},
};

use futures::{channel::oneshot, future::join_all};
use headwater_engine::disk::StdDirectory;
use headwater_protocol::{error::ErrorCode, id::ProducerId};
use tokio::sync::mpsc;

use crate::{
    config::Config,
    image::{ClusterImage, Topic},
    mesh::{CoreMessage, Mesh, Refusal, Reply},
    metrics,
    topics::{NewTopic, ProducerIdBlock, TopicAlteration, TopicError, TopicStore},
};

/// Requests that wait for the control thread; further ones are refused.
const QUEUE_MAX: usize = 4096;

enum Request {
    CreateTopic {
        new: NewTopic,
        validate_only: bool,
        reply: Reply<Result<Arc<Topic>, Refusal>>,
    },
    AlterTopic {
        alteration: TopicAlteration,
        validate_only: bool,
        reply: Reply<Result<Arc<Topic>, Refusal>>,
    },
    DeleteTopic {
        name: String,
        reply: Reply<Result<(), Refusal>>,
    },
    NewProducerId {
        reply: Reply<Result<ProducerId, Refusal>>,
    },
}

/// The way to the control thread, for every core.
#[derive(Clone)]
pub(crate) struct ControlHandle {
    requests: mpsc::Sender<Request>,
}

impl ControlHandle {
    /// Creates a topic; it can be used on every core when this returns.
    pub(crate) async fn create_topic(&self, new: NewTopic, validate_only: bool) -> Result<Arc<Topic>, Refusal> {
        self.ask(|reply| Request::CreateTopic {
            new,
            validate_only,
            reply,
        })
        .await
    }

    /// Alters a topic; the change is in force on every core when this returns.
    pub(crate) async fn alter_topic(
        &self,
        alteration: TopicAlteration,
        validate_only: bool,
    ) -> Result<Arc<Topic>, Refusal> {
        self.ask(|reply| Request::AlterTopic {
            alteration,
            validate_only,
            reply,
        })
        .await
    }

    /// Deletes a topic; its records are gone when this returns.
    pub(crate) async fn delete_topic(&self, name: String) -> Result<(), Refusal> {
        self.ask(|reply| Request::DeleteTopic { name, reply }).await
    }

    /// A producer id that has never been handed out.
    pub(crate) async fn new_producer_id(&self) -> Result<ProducerId, Refusal> {
        self.ask(|reply| Request::NewProducerId { reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<Result<T, Refusal>>) -> Request) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        match self.requests.try_send(request(reply)) {
            Ok(()) => answer.await.unwrap_or_else(|_canceled| Err(Refusal::stopping())),
            Err(mpsc::error::TrySendError::Full(_)) => {
                let message = "too many administrative requests wait already; try again";
                Err(Refusal::new(ErrorCode::CoordinatorLoadInProgress, message))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refusal::stopping()),
        }
    }
}

/// The queue of requests, until [`Control::start`] works on it.
pub(crate) struct ControlQueue {
    requests: mpsc::Receiver<Request>,
}

/// Makes the way to the control thread before the thread itself.
pub(crate) fn channel() -> (ControlHandle, ControlQueue) {
    let (sender, requests) = mpsc::channel(QUEUE_MAX);
    (ControlHandle { requests: sender }, ControlQueue { requests })
}

/// The control thread. Dropping it lets it finish what it is doing and ends it.
#[derive(Debug)]
pub(crate) struct Control {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts the thread. The cores must have applied the store's image already.
    pub(crate) fn start(
        store: TopicStore<StdDirectory>,
        mesh: Mesh,
        queue: ControlQueue,
        metrics: Option<(TcpListener, Arc<Config>)>,
    ) -> std::io::Result<Control> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let worker = Worker {
            store,
            mesh,
            producer_ids: None,
        };
        let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
            if let Some((listener, config)) = metrics {
                let mesh = worker.mesh.clone();
                runtime.spawn(async move {
                    if let Err(error) = metrics::http::serve(listener, mesh, config).await {
                        tracing::error!(%error, "metrics are no longer served");
                    }
                });
            }
            runtime.block_on(worker.run(queue.requests, stopped));
        })?;
        Ok(Control {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control thread has panicked");
        }
    }
}

struct Worker {
    store: TopicStore<StdDirectory>,
    mesh: Mesh,
    producer_ids: Option<ProducerIdBlock>,
}

impl Worker {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, mut stop: tokio::sync::oneshot::Receiver<()>) {
        loop {
            let request = tokio::select! {
                biased;
                _ = &mut stop => return,
                request = requests.recv() => request,
            };
            let Some(request) = request else { return };
            // A client that has left no longer wants the answer; what it asked for stands.
            match request {
                Request::CreateTopic {
                    new,
                    validate_only,
                    reply,
                } => {
                    let _ = reply.send(self.create(new, validate_only).await);
                }
                Request::AlterTopic {
                    alteration,
                    validate_only,
                    reply,
                } => {
                    let _ = reply.send(self.alter(&alteration, validate_only).await);
                }
                Request::DeleteTopic { name, reply } => {
                    let _ = reply.send(self.delete(&name).await);
                }
                Request::NewProducerId { reply } => {
                    let _ = reply.send(self.producer_id().await);
                }
            }
        }
    }

    async fn create(&mut self, new: NewTopic, validate_only: bool) -> Result<Arc<Topic>, Refusal> {
        if validate_only {
            return match self.store.check_create(&new) {
                Ok(topic) => Ok(Arc::new(topic)),
                Err(error) => Err(Refusal::because(error.code(), &error)),
            };
        }
        let topic = self
            .store
            .create(&new)
            .await
            .map_err(|error| Refusal::because(error.code(), &error))?;
        publish(&self.mesh, self.store.image()).await;
        tracing::info!(topic = %topic.name, partitions = topic.partition_count, "a topic was created");
        Ok(topic)
    }

    async fn alter(&mut self, alteration: &TopicAlteration, validate_only: bool) -> Result<Arc<Topic>, Refusal> {
        let refusal = |error: TopicError| Refusal::because(error.code(), &error);
        if validate_only {
            return self.store.check_alter(alteration).map(Arc::new).map_err(refusal);
        }
        let topic = self.store.alter(alteration).await.map_err(refusal)?;
        publish(&self.mesh, self.store.image()).await;
        tracing::info!(topic = %topic.name, partitions = topic.partition_count, overrides = ?topic.overrides, "a topic was altered");
        Ok(topic)
    }

    async fn delete(&mut self, name: &str) -> Result<(), Refusal> {
        let topic = self
            .store
            .begin_delete(name)
            .await
            .map_err(|error| Refusal::because(error.code(), &error))?;
        // The cores let go of the partitions before their files are removed.
        publish(&self.mesh, self.store.image()).await;
        let finished = self.store.finish_delete(topic.id).await;
        finished.map_err(|error| Refusal::because(ErrorCode::KafkaStorageError, &error))?;
        publish(&self.mesh, self.store.image()).await;
        tracing::info!(topic = %topic.name, "a topic was deleted");
        Ok(())
    }

    async fn producer_id(&mut self) -> Result<ProducerId, Refusal> {
        loop {
            if let Some(id) = self.producer_ids.as_mut().and_then(Iterator::next) {
                return Ok(id);
            }
            let block = self.store.reserve_producer_ids().await;
            self.producer_ids = Some(block.map_err(|error| Refusal::because(ErrorCode::KafkaStorageError, &error))?);
        }
    }
}

/// Sends an image to every core and waits until all have applied it.
pub(crate) async fn publish(mesh: &Mesh, image: Arc<ClusterImage>) {
    let apply = |core| {
        mesh.ask(core, |reply| CoreMessage::Apply {
            image: Arc::clone(&image),
            reply,
        })
    };
    join_all(mesh.ids().map(apply)).await;
}
