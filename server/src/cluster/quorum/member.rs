//! A member, running: openraft over its store, its peers and its state.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use headwater_protocol::error::ErrorCode;
use openraft::{
    Config, Raft, RaftMetrics, SnapshotPolicy, async_runtime::watch::WatchReceiver as _,
    type_config::TypeConfigExt as _,
};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    applier::{Applier, Shown},
    codec::CodecError,
    id::{Identity, Incarnation, NodeId},
    order::{Order, Outcome, Proposal},
    peer::{self, Agreed, Dialer, Failure, Local, Request, Response, Server},
    store::{LogStore, Store, StoreError},
    types::{LogId, Membership, Types, Vote},
};
use crate::{
    failure::{Part, StopError},
    machine,
    metrics::{LookAtQuorum, QuorumFigures},
    tls::Tls,
};

/// How often a leader says that it is there. Disks pause for up to 180 ms, and a round trip has a flush in it.
const HEARTBEAT_MS: u64 = 250;
/// A leader that was not heard of for the longer of these, which is its lease, and then for a time between the two is given up: another
/// leads after 1.1 to 1.3 s, which is several heartbeats, and several times what a disk pauses for.
pub(super) const ELECTION_MS: (u64, u64) = (450, 650);
/// A piece of a snapshot has arrived within this time, or the snapshot is begun again.
const SNAPSHOT_PIECE_MS: u64 = 10_000;
/// So many entries after the last snapshot there is another.
const ENTRIES_PER_SNAPSHOT: u64 = 1000;
/// Entries that are kept behind a snapshot, for members that are a little behind.
const ENTRIES_KEPT: u64 = 500;

/// Within this time an order is agreed on, or nobody knows what becomes of it. It is longer than an election beside a busy disk. Two of
/// them, as what may be half done is taken back, must take less than the 10 s for which a shutdown waits, and the command line.
pub(super) const PROPOSE_MAX: Duration = Duration::from_secs(3);
/// So long a member that stops looks for another that can lead. It may have waited for [`PROPOSE_MAX`] twice just before.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// A pause before an order is proposed again.
pub(super) const PROPOSE_PAUSE: Duration = Duration::from_millis(50);
/// An active coordinator that a majority has not answered for so long, or that has not answered itself, may have been followed by another.
const ANSWERED_MAX: Duration = Duration::from_secs(3);
/// Orders that are on their way to the leader at one time. Others wait.
const FORWARDED_MAX: usize = 16;

/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StartError {
    /// Its store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its last snapshot cannot be read.
    #[error("the last snapshot of the quorum's state cannot be read: {source}")]
    Snapshot {
        /// Why not.
        source: CodecError,
    },
    /// openraft refuses.
    #[error("the quorum cannot start: {reason}")]
    Raft {
        /// Why.
        reason: String,
    },
    /// Its thread cannot be started.
    #[error("cannot start the quorum's thread: {source}")]
    Thread {
        /// Why not.
        source: io::Error,
    },
    /// Its thread has ended.
    #[error("the quorum's thread has ended before it was ready")]
    Gone,
    /// Its peers could not reach it.
    #[error("cannot listen for the quorum's members: {source}")]
    Listen {
        /// Why not.
        source: io::Error,
    },
}

/// Why an order is not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProposeError {
    /// This member cannot.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// No majority of the members agrees in time.
    #[error("a majority of the quorum's members does not answer; try again. It may still be done")]
    NoMajority,
}

impl ProposeError {
    /// The code that a client gets.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Failed(Failure::TooLarge { .. }) => ErrorCode::PolicyViolation,
            Self::Failed(_) => ErrorCode::KafkaStorageError,
            Self::NoMajority => ErrorCode::CoordinatorNotAvailable,
        }
    }
}

/// A member of the quorum. What it does for others it does until it is stopped.
pub(crate) struct Quorum {
    pub(super) raft: Raft<Types, Applier>,
    pub(super) local: Arc<Local>,
    pub(super) dialer: Dialer,
    shown: Shown,
    forwarded: Semaphore,
    server: Option<JoinHandle<()>>,
    writer: Part,
}

impl Quorum {
    /// Starts the member whose store is there. It is what it was; one that has never been a member waits until it is made one. Without
    /// a listener it cannot have peers. If a thread of it panics, `tell` tells.
    pub(crate) async fn start(
        store: &Path,
        listener: Option<std::net::TcpListener>,
        tls: Arc<Tls>,
        tell: impl FnOnce(StopError) + Send + 'static,
    ) -> Result<Quorum, StartError> {
        let open = |listener: std::net::TcpListener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        let listener = listener.map(open).transpose();
        let listener = listener.map_err(|source| StartError::Listen { source })?;
        let (store, writer) = Store::open(store, tell)?;
        let identity = store.identity().clone();
        let local = Arc::new(Local::new(identity.clone(), store.incarnation(), tls));
        let dialer = Dialer::new(Arc::clone(&local));
        let (applier, shown) = Applier::new(store.clone()).map_err(|source| StartError::Snapshot { source })?;
        let refused = |reason: String| StartError::Raft { reason };
        let config = config(identity.cluster.to_string()).validate();
        let config = Arc::new(config.map_err(|error| refused(error.to_string()))?);
        let raft = Raft::new(identity.node, config, dialer.clone(), LogStore(store), applier).await;
        let raft = raft.map_err(|error| refused(error.to_string()))?;
        local.watch::<Types>(raft.metrics());
        elect_if_alone(&raft, identity.node).await.map_err(refused)?;
        let server = listener.map(|listener| {
            let server = Arc::new(Server::new(Arc::clone(&local), raft.clone(), dialer.clone()));
            tokio::spawn(peer::serve(server, listener))
        });
        Ok(Quorum {
            raft,
            local,
            dialer,
            shown,
            forwarded: Semaphore::new(FORWARDED_MAX),
            server,
            writer,
        })
    }

    /// How often this member was started.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.local.incarnation()
    }

    /// Who this is.
    pub(crate) fn identity(&self) -> &Identity {
        self.local.identity()
    }

    /// What it shows of the state.
    pub(crate) fn shown(&self) -> Shown {
        self.shown.clone()
    }

    /// Who leads, as far as this member knows. Only calls that are answered show that it can.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.metrics(|metrics| metrics.current_leader)
    }

    /// When a majority last confirmed that this member leads; none if it does not.
    pub(super) fn confirmed(&self) -> Option<Instant> {
        let own = self.local.identity().node;
        self.metrics(|metrics| {
            let is_leader = metrics.current_leader == Some(own);
            let is_alone = metrics.membership_config.voter_ids().eq([own]);
            let now = machine::now();
            let acked = metrics.last_quorum_acked.map(|acked| Types::now() - acked.into_inner());
            let acked = acked.and_then(|age| now.checked_sub(age));
            // Who is alone asks nobody.
            let confirmed = if is_alone { Some(now) } else { acked };
            confirmed.filter(|_| is_leader)
        })
    }

    /// How it is, for anybody to look.
    pub(crate) fn look(&self) -> LookAtQuorum {
        let own = self.local.identity().node;
        let (metrics, local) = (self.raft.metrics(), Arc::clone(&self.local));
        Arc::new(move || {
            let metrics = metrics.borrow_watched();
            let voters = metrics.membership_config.voter_ids().count() as u64;
            let is_active = metrics.current_leader == Some(own);
            let hears_active = match metrics.current_leader {
                // Who leads it goes on to say for ever if nobody can be elected.
                Some(leader) if !is_active => local.has_heard(leader, ANSWERED_MAX),
                Some(_) if voters > 1 => {
                    let acked = metrics.last_quorum_acked;
                    acked.is_some_and(|at| Types::now() - at.into_inner() <= ANSWERED_MAX)
                }
                leader => leader.is_some(),
            };
            QuorumFigures {
                is_up: metrics.running_state.is_ok(),
                is_active,
                hears_active,
                term: metrics.current_term,
                log_index: metrics.last_log_index.unwrap_or_default(),
                applied_index: metrics.last_applied.map_or(0, |applied| applied.index),
                voters,
            }
        })
    }

    /// The members, as far as this one knows.
    pub(crate) fn membership(&self) -> Arc<Membership> {
        self.local.membership()
    }

    /// The last entry that is part of the image.
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.metrics(|metrics| metrics.last_applied)
    }

    fn metrics<T>(&self, read: impl FnOnce(&RaftMetrics<Types>) -> T) -> T {
        read(&self.raft.metrics().borrow_watched())
    }

    /// Resolves when it has failed, as after a write to its store that did, and says why.
    pub(super) async fn has_failed(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(error) = &metrics.borrow_watched().running_state {
                return error.to_string();
            }
            if metrics.changed().await.is_err() {
                return "it has ended without a word".to_owned();
            }
        }
    }

    /// Has the members agree on an order, and says what has become of it when this member's image shows it.
    pub(crate) async fn propose(&self, order: Order) -> Result<Outcome, ProposeError> {
        let proposal = Proposal::new(order);
        let proposed = timeout(PROPOSE_MAX, async {
            loop {
                // Under the same id, so that it is done once whatever became of the last attempt.
                if let Some(Agreed { outcome, at }) = self.attempt(&proposal).await? {
                    let is_shown = |metrics: &RaftMetrics<Types>| metrics.last_applied >= Some(at);
                    let wait = self.raft.wait(Some(PROPOSE_MAX));
                    let shown = wait.metrics(is_shown, "it is shown").await;
                    return shown.map(|_| outcome).map_err(|_late| ProposeError::NoMajority);
                }
                sleep(PROPOSE_PAUSE).await;
            }
        });
        proposed.await.unwrap_or(Err(ProposeError::NoMajority))
    }

    /// Proposes it where it can be agreed on. None: nobody knows what became of it.
    async fn attempt(&self, proposal: &Proposal) -> Result<Option<Agreed>, ProposeError> {
        let own = (self.identity().node, &self.dialer);
        if let Some(agreed) = peer::propose(&self.raft, own, proposal.clone()).await? {
            return Ok(Some(agreed));
        }
        let Some(mut line) = self.line_to_leader() else {
            return Ok(None);
        };
        // It is never closed.
        let _permit = self.forwarded.acquire().await;
        match line.call(&Request::Propose(proposal.clone()), PROPOSE_MAX).await {
            Ok(Response::Proposed(agreed)) => Ok(agreed),
            Ok(_) => Ok(None),
            Err(error) => {
                tracing::debug!(%error, "the leader of the quorum has not taken an order");
                Ok(None)
            }
        }
    }

    pub(super) fn line_to_leader(&self) -> Option<peer::Line> {
        let leader = self.leader().filter(|leader| *leader != self.local.identity().node)?;
        self.line_to(leader)
    }

    /// The way to a member; none if it is none any more.
    pub(super) fn line_to(&self, node: NodeId) -> Option<peer::Line> {
        Some(self.dialer.line(node, self.membership().get_node(&node)?))
    }

    /// Who leads, as far as this member knows, and the vote by which it does.
    pub(super) fn led_by(&self) -> Option<(NodeId, Vote)> {
        self.metrics(|metrics| metrics.current_leader.map(|leader| (leader, metrics.vote)))
    }

    /// The last entry of its log.
    pub(super) fn last_index(&self) -> Option<u64> {
        self.metrics(|metrics| metrics.last_log_index)
    }

    /// Ends it; another takes the lead before, if one can. An error if the store was not closed in order by the deadline.
    pub(crate) async fn stop(self, deadline: Instant) -> Result<(), StopError> {
        if self.leader() == Some(self.local.identity().node) {
            match timeout(HAND_OVER_MAX, self.hand_over()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "leadership of the quorum is handed to nobody"),
                Err(_late) => {
                    tracing::debug!("leadership of the quorum is handed to nobody: no other member answers in time");
                }
            }
        }
        self.end(deadline).await
    }

    /// Ends it without a word to the others.
    pub(super) async fn end(self, deadline: Instant) -> Result<(), StopError> {
        if let Some(server) = &self.server {
            server.abort();
        }
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the quorum has not ended in order");
        }
        let writer = self.writer;
        // The last of those who have the store, so that its thread ends.
        drop(self.raft);
        if let Some(server) = self.server {
            let _ = server.await;
        }
        tokio::task::spawn_blocking(move || writer.join(deadline))
            .await
            .unwrap_or_else(|error| {
                Err(StopError::Failed {
                    what: "quorum-store".to_owned(),
                    reason: error.to_string(),
                })
            })
    }
}

#[cfg(test)]
impl Quorum {
    /// The images, each of which is later than the one before.
    pub(super) fn images(&self) -> tokio::sync::watch::Receiver<Arc<crate::image::ClusterImage>> {
        self.shown.images.clone()
    }

    /// The last entry that the log has forgotten.
    pub(super) fn purged(&self) -> Option<LogId> {
        self.metrics(|metrics| metrics.purged)
    }
}

/// Has the only voter there is lead at once, and not at the next tick.
async fn elect_if_alone(raft: &Raft<Types, Applier>, own: NodeId) -> Result<(), String> {
    // Until openraft answers, it does not show whom it knows.
    let known = raft.is_initialized().await;
    known.map_err(|error| error.to_string())?;
    let membership = Arc::clone(&raft.metrics().borrow_watched().membership_config);
    if membership.voter_ids().eq([own]) {
        let asked = raft.trigger().elect(false).await;
        asked.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// How openraft works here.
pub(super) fn config(cluster_name: String) -> Config {
    Config {
        cluster_name,
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        install_snapshot_timeout: SNAPSHOT_PIECE_MS,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(ENTRIES_PER_SNAPSHOT),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        purge_batch_size: ENTRIES_KEPT / 2,
        enable_pre_vote: Some(true),
        // A leader sends its entries while it flushes them itself. Of one that has crashed followers may have entries that it has not,
        // and were it to go on in the same term, it would give others the same numbers: what was agreed on would be lost, or differ.
        enable_leader_restore: Some(false),
        ..Config::default()
    }
}
