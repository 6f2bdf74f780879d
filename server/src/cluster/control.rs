//! The control plane: ordinary threads for everything that is not about records.
//!
//! ```text
//! topics         owns the topic store; changes are made one after the other, and each is published as a new cluster image, which
//!                every core has applied before the client is answered
//! producer-ids   hands out producer ids of blocks that were reserved, and has the next reserved before the last is used up
//! membership     in a cluster of several brokers: has this one do what the quorum has agreed on, and tells that what its cores wish
//! metrics        a tokio runtime that serves HTTP, and never waits for a disk
//! ```
//! Each has a queue of its own, so that none waits for what another does. A slow disk delays an administrator and no producer. What they
//! want agreed on they ask the [quorum's thread](super::quorum) for.

mod id_blocks;
mod topics;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use futures::{FutureExt as _, channel::oneshot, executor::block_on, future::Shared};
use headwater_engine::disk::Directory;
use headwater_protocol::{
    error::ErrorCode,
    id::{ProducerId, TopicId},
};
use tokio::sync::mpsc;

use self::{
    id_blocks::IdBlocks,
    topics::{TopicRequest, TopicWorker},
};
use super::{TopicStore, membership::Membership, quorum::QuorumHandle};
use crate::{
    admin_http::{self, LookAtCluster},
    config::Config,
    core::mesh::{Mesh, Reply},
    failure::{Part, StopError},
    image::Topic,
    metrics::LookAtQuorum,
    model::{
        access::AccessChange,
        op::{NewTopic, TopicAlteration},
        refusal::Refusal,
    },
    tls::Tls,
};

/// Requests that wait in one queue; further ones are refused.
const QUEUE_MAX: usize = 4096;

type ProducerIdReply = Reply<Result<ProducerId, Refusal>>;

/// Dropped to end all who have the other side.
pub(crate) type Stop = oneshot::Sender<()>;

/// Resolves when the broker stops. Whoever waits is woken in the same order each time, which not every channel promises.
pub(crate) type Stopped = Shared<oneshot::Receiver<()>>;

/// Both sides.
pub(crate) fn stop() -> (Stop, Stopped) {
    let (stop, stopped) = oneshot::channel();
    (stop, stopped.shared())
}

/// The way to the control plane, for every core.
#[derive(Clone)]
pub(crate) struct ControlHandle {
    topics: mpsc::Sender<TopicRequest>,
    producer_ids: mpsc::Sender<ProducerIdReply>,
    quorum: QuorumHandle,
}

impl ControlHandle {
    /// The way to the quorum.
    pub(crate) fn quorum(&self) -> &QuorumHandle {
        &self.quorum
    }

    /// Creates a topic; it can be used on every core when this returns.
    pub(crate) async fn create_topic(&self, new: NewTopic, validate_only: bool) -> Result<Arc<Topic>, Refusal> {
        let request = |reply| TopicRequest::Create {
            new,
            validate_only,
            reply,
        };
        ask(&self.topics, request).await
    }

    /// Alters a topic; the change is in force on every core when this returns.
    pub(crate) async fn alter_topic(
        &self,
        alteration: TopicAlteration,
        validate_only: bool,
    ) -> Result<Arc<Topic>, Refusal> {
        let request = |reply| TopicRequest::Alter {
            alteration,
            validate_only,
            reply,
        };
        ask(&self.topics, request).await
    }

    /// Deletes a topic, if it is the one that is named, where one is; its records are gone when this returns.
    pub(crate) async fn delete_topic(&self, name: String, only: Option<TopicId>) -> Result<(), Refusal> {
        ask(&self.topics, |reply| TopicRequest::Delete { name, only, reply }).await
    }

    /// Changes who may do what; every core goes by it when this returns.
    pub(crate) async fn change_access(&self, change: AccessChange) -> Result<(), Refusal> {
        ask(&self.topics, |reply| TopicRequest::Access { change, reply }).await
    }

    /// A producer id that has never been handed out.
    pub(crate) async fn new_producer_id(&self) -> Result<ProducerId, Refusal> {
        ask(&self.producer_ids, |reply| reply).await
    }
}

async fn ask<R, T>(
    queue: &mpsc::Sender<R>,
    request: impl FnOnce(Reply<Result<T, Refusal>>) -> R,
) -> Result<T, Refusal> {
    let (reply, answer) = oneshot::channel();
    match queue.try_send(request(reply)) {
        Ok(()) => answer.await.unwrap_or_else(|_canceled| Err(Refusal::stopping())),
        Err(mpsc::error::TrySendError::Full(_)) => {
            let message = "too many administrative requests wait already; try again";
            Err(Refusal::new(ErrorCode::CoordinatorLoadInProgress, message))
        }
        Err(mpsc::error::TrySendError::Closed(_)) => Err(Refusal::stopping()),
    }
}

/// The queues of requests, until [`Control::start`] works on them.
pub(crate) struct ControlQueues {
    topics: mpsc::Receiver<TopicRequest>,
    producer_ids: mpsc::Receiver<ProducerIdReply>,
}

/// What the control plane works with.
pub(crate) struct ControlParts<D> {
    pub(crate) store: TopicStore<D>,
    pub(crate) mesh: Mesh,
    pub(crate) queues: ControlQueues,
}

/// Makes the way to the control plane of this store before its threads.
pub(crate) fn channel<D: Directory>(store: &TopicStore<D>) -> (ControlHandle, ControlQueues) {
    let (topic_sender, topics) = mpsc::channel(QUEUE_MAX);
    let (id_sender, producer_ids) = mpsc::channel(QUEUE_MAX);
    let handle = ControlHandle {
        topics: topic_sender,
        producer_ids: id_sender,
        quorum: store.quorum(),
    };
    (handle, ControlQueues { topics, producer_ids })
}

/// The threads.
#[derive(Debug)]
pub(crate) struct Control {
    stop: Stop,
    /// What the topic store looks at during a long removal.
    stopping: Arc<AtomicBool>,
    parts: Vec<Part>,
}

impl Control {
    /// Starts the threads. The cores must have applied the store's image already. A broker that is one of several has a membership.
    pub(crate) fn start<D: Directory + Send>(
        control: ControlParts<D>,
        membership: Option<Membership<D>>,
        metrics: Option<(TcpListener, Arc<Config>, Arc<Tls>)>,
    ) -> io::Result<Control> {
        let mesh = control.mesh.clone();
        let (stop, stopped) = stop();
        let stopping = control.store.stopping();
        let look = (control.store.quorum().look(), membership.as_ref().map(Membership::look));
        let mut parts = Vec::from_iter(metrics_part(&mesh, look, metrics, stopped.clone())?);
        let mut start = |name, work: Box<dyn FnOnce() + Send>| {
            parts.push(Part::start(name, mesh.alarm(), || {
                work();
                Ok(())
            })?);
            io::Result::Ok(())
        };
        if let Some(membership) = membership {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            let stopped = stopped.clone();
            start(
                "membership",
                Box::new(move || runtime.block_on(membership.run(stopped))),
            )?;
        }
        let (topics, ids) = desks(control, stopped);
        start("topics", Box::new(move || block_on(topics())))?;
        start("producer-ids", Box::new(move || block_on(ids())))?;
        Ok(Control { stop, stopping, parts })
    }

    /// Starts what a member of the quorum needs that has no topics.
    pub(crate) fn start_without_topics(
        mesh: &Mesh,
        quorum: LookAtQuorum,
        metrics: Option<(TcpListener, Arc<Config>, Arc<Tls>)>,
    ) -> io::Result<Control> {
        let (stop, stopped) = stop();
        Ok(Control {
            stop,
            stopping: Arc::default(),
            parts: Vec::from_iter(metrics_part(mesh, (quorum, None), metrics, stopped)?),
        })
    }

    /// Lets each finish what it is doing, and ends it; a long removal is left for the next start.
    pub(crate) fn end(self, deadline: Instant) -> Vec<Result<(), StopError>> {
        self.stopping.store(true, Ordering::Relaxed);
        drop(self.stop);
        self.parts.into_iter().map(|part| part.join(deadline)).collect()
    }
}

/// The work of the control plane until the broker stops: changes of topics, and producer ids. Each may be done on a thread, or as a
/// task.
pub(crate) fn desks<D: Directory>(
    control: ControlParts<D>,
    stopped: Stopped,
) -> (impl AsyncFnOnce(), impl AsyncFnOnce()) {
    let ControlParts { store, mesh, queues } = control;
    let mut blocks = IdBlocks::new(store.quorum());
    let changes = Requests {
        queue: queues.topics,
        stopped: stopped.clone(),
    };
    let mut wishes = Requests {
        queue: queues.producer_ids,
        stopped,
    };
    let hand_out = async move || {
        while let Some(reply) = wishes.next().await {
            let id = blocks.next_id().await;
            // A client that has left no longer wants it.
            let _ = reply.send(id);
        }
    };
    (async move || TopicWorker { store, mesh }.run(changes).await, hand_out)
}

/// A queue, until the broker stops.
struct Requests<R> {
    queue: mpsc::Receiver<R>,
    stopped: Stopped,
}

impl<R> Requests<R> {
    async fn next(&mut self) -> Option<R> {
        tokio::select! {
            biased;
            _ = &mut self.stopped => None,
            request = self.queue.recv() => request,
        }
    }
}

/// The thread that serves metrics, if they are wanted.
fn metrics_part(
    mesh: &Mesh,
    look: (LookAtQuorum, Option<LookAtCluster>),
    metrics: Option<(TcpListener, Arc<Config>, Arc<Tls>)>,
    stopped: Stopped,
) -> io::Result<Option<Part>> {
    let Some((listener, config, tls)) = metrics else {
        return Ok(None);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = serve_metrics((listener, tls), mesh.clone(), look, config, stopped);
    let part = Part::start("metrics", mesh.alarm(), move || {
        runtime.block_on(serve);
        Ok(())
    });
    part.map(Some)
}

async fn serve_metrics(
    door: (TcpListener, Arc<Tls>),
    mesh: Mesh,
    look: (LookAtQuorum, Option<LookAtCluster>),
    config: Arc<Config>,
    stopped: Stopped,
) {
    tokio::select! {
        _ = stopped => {}
        served = admin_http::serve(door, mesh, look, config) => {
            if let Err(error) = served {
                tracing::error!(%error, "metrics are no longer served");
            }
        }
    }
}
