//! The way to the quorum for those who are not on its thread.

use std::sync::Arc;

use futures::channel::oneshot;
use tokio::sync::{mpsc, watch};

use super::{
    id::{Identity, Incarnation},
    order::{Order, Outcome, Registration},
};
use crate::{core::mesh::Reply, image::ClusterImage, model::refusal::Refusal};

/// An order that somebody wants agreed on.
pub(crate) struct Wish {
    pub(super) order: Order,
    pub(super) reply: Reply<Result<Outcome, Refusal>>,
}

/// Orders that wait for the thread. It takes them at once, however long they are under way then.
const WISHES_MAX: usize = 64;

/// The way to the member of this broker.
#[derive(Clone)]
pub(crate) struct QuorumHandle {
    identity: Identity,
    incarnation: Incarnation,
    wishes: mpsc::Sender<Wish>,
    images: watch::Receiver<Arc<ClusterImage>>,
}

impl QuorumHandle {
    /// The way to a member, and where what is wished for arrives.
    pub(super) fn new(
        identity: Identity,
        incarnation: Incarnation,
        images: watch::Receiver<Arc<ClusterImage>>,
    ) -> (QuorumHandle, mpsc::Receiver<Wish>) {
        let (wishes, arrived) = mpsc::channel(WISHES_MAX);
        let handle = QuorumHandle {
            identity,
            incarnation,
            wishes,
            images,
        };
        (handle, arrived)
    }

    /// Who the member is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The cluster as this member knows it.
    pub(crate) fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.images.borrow())
    }

    /// Has an order agreed on, and returns when it shows in the image. An error: nobody knows whether it is done, or will be.
    pub(crate) async fn propose(&self, order: Order) -> Result<Outcome, Refusal> {
        let (reply, answer) = oneshot::channel();
        if self.wishes.send(Wish { order, reply }).await.is_err() {
            return Err(Refusal::stopping());
        }
        answer.await.unwrap_or_else(|_canceled| Err(Refusal::stopping()))
    }

    /// Says that this broker is there. When it is agreed on, so is all that was asked for before, or it never will be.
    pub(crate) async fn register(&self) -> Result<Outcome, Refusal> {
        let registration = Registration {
            broker: self.identity.node,
            store: self.identity.store,
            incarnation: self.incarnation,
        };
        self.propose(Order::Register(registration)).await
    }
}
