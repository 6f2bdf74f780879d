//! The thread on which a member runs. It never waits for the disk: the store has a thread for that.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures::{
    FutureExt as _, StreamExt as _, channel::oneshot, executor::block_on, future::FusedFuture as _,
    stream::FuturesUnordered,
};
use tokio::sync::mpsc;

use super::{
    handle::{QuorumHandle, Wish},
    member::{Quorum, StartError},
};
use crate::{
    failure::{Part, StopError},
    machine,
    model::refusal::Refusal,
};

/// So long a member may take to end.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A member that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct QuorumThread {
    /// There until it is stopped.
    running: Option<(oneshot::Sender<()>, Part)>,
}

impl QuorumThread {
    /// Starts the member whose store is there. If a thread of it panics, `tell` tells.
    pub(crate) fn start(
        store: &Path,
        tell: impl Fn(StopError) + Clone + Send + 'static,
    ) -> Result<(QuorumThread, QuorumHandle), StartError> {
        let store = store.to_owned();
        let (stop, stopped) = oneshot::channel();
        let (tell_started, started) = oneshot::channel();
        let thread = |source| StartError::Thread { source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(thread)?;
        let tell_of_writer = tell.clone();
        let run = async move || {
            let quorum = match Quorum::start(&store, None, tell_of_writer).await {
                Ok(quorum) => quorum,
                Err(error) => {
                    let _ = tell_started.send(Err(error));
                    return Ok(());
                }
            };
            let (handle, wishes) = QuorumHandle::new(quorum.identity().clone(), quorum.incarnation(), quorum.images());
            let _ = tell_started.send(Ok(handle));
            grant(&quorum, wishes, stopped).await;
            let ended = quorum.stop(machine::now() + STOP_MAX).await;
            ended.map_err(|error| error.to_string())
        };
        let part = Part::start("quorum", tell, move || runtime.block_on(run())).map_err(thread)?;
        let quorum = QuorumThread {
            running: Some((stop, part)),
        };
        let handle = block_on(started).unwrap_or(Err(StartError::Gone))?;
        Ok((quorum, handle))
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

/// Has agreed on what is wished for, as much at once as there is, until it is to stop.
async fn grant(quorum: &Quorum, mut wishes: mpsc::Receiver<Wish>, stopped: oneshot::Receiver<()>) {
    let mut under_way = FuturesUnordered::new();
    let mut stopped = stopped.fuse();
    while !stopped.is_terminated() {
        tokio::select! {
            biased;
            _ = &mut stopped => {}
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            Some(Wish { order, reply }) = wishes.recv() => under_way.push(async {
                let outcome = quorum.propose(order).await;
                // Who asked may have gone.
                let _ = reply.send(outcome.map_err(|error| Refusal::because(error.code(), &error)));
            }),
        }
    }
}
