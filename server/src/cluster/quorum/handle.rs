//! The way to the quorum for those who are not on its thread.

use std::{collections::BTreeMap, sync::Arc};

use futures::channel::oneshot;
use headwater_protocol::id::BrokerId;
use tokio::sync::mpsc;

use super::{
    applier::Shown,
    id::{Identity, Incarnation, NodeId},
    order::{Order, Outcome, Registration},
};
use crate::{
    cluster::replicas::{ReplicaCommand, ReplicaMap},
    core::{lease::Lease, mesh::Reply},
    image::ClusterImage,
    metrics::LookAtQuorum,
    model::{id::PartitionId, quorum::QuorumDescription, refusal::Refusal},
};

/// What somebody wants of the member.
pub(crate) enum Wish {
    /// That an order is agreed on.
    Order(Order, Reply<Result<Outcome, Refusal>>),
    /// To know who the members are.
    Describe(Reply<Result<QuorumDescription, Refusal>>),
    /// That others become members, each with its address.
    Add(BTreeMap<NodeId, String>, Reply<Result<(), Refusal>>),
    /// That one is no member any more.
    Remove(NodeId, Reply<Result<(), Refusal>>),
}

/// Orders that wait for the thread. It takes them at once, however long they are under way then.
const WISHES_MAX: usize = 64;

/// The way to the member of this broker.
#[derive(Clone)]
pub(crate) struct QuorumHandle {
    identity: Identity,
    incarnation: Incarnation,
    wishes: mpsc::Sender<Wish>,
    shown: Shown,
    look: LookAtQuorum,
    lease: Arc<Lease>,
}

impl QuorumHandle {
    /// The way to a member, and where what is wished for arrives.
    pub(super) fn new(
        identity: Identity,
        incarnation: Incarnation,
        shown: Shown,
        look: LookAtQuorum,
        lease: Arc<Lease>,
    ) -> (QuorumHandle, mpsc::Receiver<Wish>) {
        let (wishes, arrived) = mpsc::channel(WISHES_MAX);
        let handle = QuorumHandle {
            identity,
            incarnation,
            wishes,
            shown,
            look,
            lease,
        };
        (handle, arrived)
    }

    /// Who the member is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How often its store was opened.
    pub(crate) fn opened(&self) -> u64 {
        self.incarnation.0
    }

    /// How the member is.
    pub(crate) fn look(&self) -> LookAtQuorum {
        Arc::clone(&self.look)
    }

    /// Until when the active coordinator counts on this broker.
    pub(crate) fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.lease)
    }

    /// The cluster as this member knows it.
    pub(crate) fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.shown.images.borrow())
    }

    /// Its brokers and replicas, not older than the image.
    pub(crate) fn replicas(&self) -> ReplicaMap {
        self.shown.replicas.borrow().clone()
    }

    /// Where both are shown.
    pub(crate) fn shown(&self) -> Shown {
        self.shown.clone()
    }

    /// Has a change of brokers or replicas agreed on. Done or refused, it shows when this returns; otherwise nobody knows.
    pub(crate) async fn change_replicas(&self, command: ReplicaCommand) -> Result<(), Refusal> {
        let outcome = self.propose(Order::Replicas(command)).await?;
        outcome.refusal().map_or(Ok(()), Err)
    }

    /// The same, of partitions by name: for which of them it is refused, and why.
    pub(crate) async fn change_partitions(
        &self,
        command: ReplicaCommand,
    ) -> Result<Vec<(PartitionId, Refusal)>, Refusal> {
        let outcome = self.propose(Order::Replicas(command)).await?;
        match outcome.refusal() {
            Some(refusal) => Err(refusal),
            None => Ok(outcome.refused_partitions()),
        }
    }

    /// Has an order agreed on, and returns when it shows in the image. An error: nobody knows whether it is done, or will be.
    pub(crate) async fn propose(&self, order: Order) -> Result<Outcome, Refusal> {
        self.wish(|reply| Wish::Order(order, reply)).await
    }

    /// Who the members are, and how.
    pub(crate) async fn describe(&self) -> Result<QuorumDescription, Refusal> {
        self.wish(Wish::Describe).await
    }

    /// Makes those that run at these addresses members, all in one change.
    pub(crate) async fn add(&self, members: Vec<(BrokerId, String)>) -> Result<(), Refusal> {
        let members = members.into_iter().map(|(id, address)| (NodeId::from(id), address));
        self.wish(|reply| Wish::Add(members.collect(), reply)).await
    }

    /// Takes a member out.
    pub(crate) async fn remove(&self, member: BrokerId) -> Result<(), Refusal> {
        self.wish(|reply| Wish::Remove(member.into(), reply)).await
    }

    async fn wish<T>(&self, wish: impl FnOnce(Reply<Result<T, Refusal>>) -> Wish) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        if self.wishes.send(wish(reply)).await.is_err() {
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
