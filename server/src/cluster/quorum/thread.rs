//! The thread on which a member runs. It never waits for the disk: the store has a thread for that.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, StreamExt as _, channel::oneshot, future::FusedFuture as _, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{
    forming,
    handle::{QuorumHandle, Wish},
    id::NodeId,
    member::{Quorum, StartError},
    members::{ChangeError, succession},
    sessions, spread,
};
use crate::{
    config::Balance,
    failure::{Part, StopError},
    machine,
    model::refusal::Refusal,
    tls::Tls,
};

/// So long a member may take to end.
const STOP_MAX: Duration = Duration::from_secs(10);

/// What a member is started with.
pub(crate) struct Seat {
    /// Its store, which is there.
    pub(crate) store: PathBuf,
    /// Where others reach it; nobody if there is none.
    pub(crate) listener: Option<TcpListener>,
    /// What it shows to them, and wants of them.
    pub(crate) tls: Arc<Tls>,
    /// Whom the first start makes a quorum of, each with its address; of no effect if this one belongs to a quorum.
    pub(crate) members: BTreeMap<NodeId, String>,
    /// What it spreads over the brokers when it is the active coordinator.
    pub(crate) balance: Balance,
}

/// The way to a member, as soon as it belongs to a quorum.
pub(crate) struct Joined(oneshot::Receiver<Result<QuorumHandle, StartError>>);

impl Joined {
    pub(crate) async fn wait(self) -> Result<QuorumHandle, StartError> {
        self.0.await.unwrap_or(Err(StartError::Gone))
    }
}

/// A member that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct QuorumThread {
    /// There until it is stopped.
    running: Option<(oneshot::Sender<()>, Part)>,
}

impl QuorumThread {
    /// Starts a member, and says when it belongs to a quorum. If a thread of it panics, or its log has failed, `tell` tells: nothing
    /// that is agreed on is heard of here any more, until it is started again.
    pub(crate) fn start(
        seat: Seat,
        tell: impl Fn(StopError) + Clone + Send + 'static,
    ) -> Result<(QuorumThread, Joined), StartError> {
        let (stop, mut stopped) = oneshot::channel();
        let (tell_joined, joined) = oneshot::channel();
        let thread = |source| StartError::Thread { source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(thread)?;
        let (tell_of_writer, tell_of_failure) = (tell.clone(), tell.clone());
        let run = async move || {
            let quorum = match Quorum::start(&seat.store, seat.listener, seat.tls, tell_of_writer).await {
                Ok(quorum) => quorum,
                Err(error) => {
                    let _ = tell_joined.send(Err(error));
                    return Ok(());
                }
            };
            let has_joined = tokio::select! {
                biased;
                _ = &mut stopped => None,
                result = forming::become_member(&quorum, &seat.members) => Some(result),
            };
            if let Some(result) = has_joined {
                let (identity, incarnation) = (quorum.identity().clone(), quorum.incarnation());
                let (handle, wishes) = QuorumHandle::new(
                    identity,
                    incarnation,
                    quorum.shown(),
                    quorum.look(),
                    Arc::clone(quorum.local.lease()),
                );
                let _ = tell_joined.send(result.map(|()| handle));
                tokio::select! {
                    () = serve(&quorum, wishes, stopped) => {}
                    never = sessions::watch(&quorum) => match never {},
                    never = spread::watch(&quorum, seat.balance) => match never {},
                    never = succession::watch(&quorum) => match never {},
                    reason = quorum.has_failed() => tell_of_failure(StopError::Failed {
                        what: "the quorum's member".to_owned(),
                        reason,
                    }),
                }
            }
            let ended = quorum.stop(machine::now() + STOP_MAX).await;
            ended.map_err(|error| error.to_string())
        };
        let part = Part::start("quorum", tell, move || runtime.block_on(run())).map_err(thread)?;
        let quorum = QuorumThread {
            running: Some((stop, part)),
        };
        Ok((quorum, Joined(joined)))
    }

    /// Ends the member, and closes its store.
    pub(crate) fn end(mut self, deadline: Instant) -> Result<(), StopError> {
        self.stop(deadline)
    }

    fn stop(&mut self, deadline: Instant) -> Result<(), StopError> {
        self.running.take().map_or(Ok(()), |(stop, part)| {
            drop(stop);
            part.join(deadline)
        })
    }
}

impl Drop for QuorumThread {
    fn drop(&mut self) {
        if let Err(error) = self.stop(machine::now() + STOP_MAX) {
            tracing::warn!(%error, "the quorum has not ended in order");
        }
    }
}

/// Does what is wished for, as much at once as there is, until it is to stop.
async fn serve(quorum: &Quorum, mut wishes: mpsc::Receiver<Wish>, stopped: oneshot::Receiver<()>) {
    let mut under_way = FuturesUnordered::new();
    let mut stopped = stopped.fuse();
    while !stopped.is_terminated() {
        tokio::select! {
            biased;
            _ = &mut stopped => {}
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            Some(wish) = wishes.recv() => under_way.push(grant(quorum, wish)),
        }
    }
}

/// Does one thing. Who asked for it may have gone.
async fn grant(quorum: &Quorum, wish: Wish) {
    let refused = |error: ChangeError| Refusal::because(error.code(), &error);
    match wish {
        Wish::Order(order, reply) => {
            let outcome = quorum.propose(order).await;
            let _ = reply.send(outcome.map_err(|error| Refusal::because(error.code(), &error)));
        }
        Wish::Describe(reply) => {
            let _ = reply.send(Ok(quorum.describe().await));
        }
        Wish::Add(members, reply) => {
            let _ = reply.send(quorum.add_newcomers(members).await.map_err(refused));
        }
        Wish::Remove(node, reply) => {
            let _ = reply.send(quorum.remove_member(node).await.map_err(refused));
        }
    }
}
