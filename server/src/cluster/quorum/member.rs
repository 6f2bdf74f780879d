//! A member, running: openraft over its store, its peers and its state.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use headwater_protocol::error::ErrorCode;
use openraft::{
    ChangeMembers, Config, Raft, RaftMetrics, SnapshotPolicy,
    async_runtime::watch::WatchReceiver as _,
    errors::{ClientWriteError, RaftError},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{sleep, timeout, timeout_at},
};

use super::{
    applier::Applier,
    codec::CodecError,
    id::{Identity, Incarnation, Member, NodeId},
    order::{Order, Outcome, Proposal},
    peer::{self, CallError, Dialer, Failure, Local, Progress, Request, Response, Server},
    store::{LogStore, Store, StoreError},
    types::{LogId, Membership, Types},
};
use crate::{
    failure::{Part, StopError},
    image::ClusterImage,
    machine,
};

/// How often a leader says that it is there. Disks pause for up to 180 ms, and a round trip has a flush in it.
const HEARTBEAT_MS: u64 = 250;
/// A leader that was not heard of for so long is given up.
const ELECTION_MS: (u64, u64) = (1000, 2000);
/// A piece of a snapshot has arrived within this time, or the snapshot is begun again.
const SNAPSHOT_PIECE_MS: u64 = 10_000;
/// So many entries after the last snapshot there is another.
const ENTRIES_PER_SNAPSHOT: u64 = 1000;
/// Entries that are kept behind a snapshot, for members that are a little behind.
const ENTRIES_KEPT: u64 = 500;

/// Within this time an order is agreed on, or nobody knows what becomes of it.
const PROPOSE_MAX: Duration = Duration::from_secs(10);
/// A pause before an order is proposed again.
const PROPOSE_PAUSE: Duration = Duration::from_millis(50);
/// Orders that are on their way to the leader at one time. Others wait.
const FORWARDED_MAX: usize = 16;
/// Within this time a change of the members is agreed on, and a newcomer has got the log.
const CHANGE_MAX: Duration = Duration::from_mins(1);
/// A member that is there answers within this time.
const PROGRESS_MAX: Duration = Duration::from_secs(2);
/// A pause before a member is asked again how far it is.
const PROGRESS_PAUSE: Duration = Duration::from_millis(50);
/// So long a leader that stops waits for another.
const TRANSFER_MAX: Duration = Duration::from_secs(3);

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

/// Why the members are as they were, or nobody knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ChangeError {
    /// It is not the leader's to do.
    #[error("member {} leads the quorum: ask that one", leader.map_or("(none)".to_owned(), |leader| leader.to_string()))]
    NotLeader {
        /// Who does, if it is known.
        leader: Option<NodeId>,
    },
    /// It is one already, and not as it is to be.
    #[error(
        "{node} is a member already, with another address, or with a store that it has lost: remove it first, then add it again"
    )]
    Known {
        /// The member.
        node: NodeId,
    },
    /// It does not answer.
    #[error("{source}; nothing was changed")]
    NotThere {
        /// What it says.
        source: CallError,
    },
    /// It has not got the log in time.
    #[error("member {node} has not got the log in time, and nothing was changed: see that it runs, and try again")]
    Behind {
        /// The member.
        node: NodeId,
    },
    /// Leadership cannot go there.
    #[error("member {node} cannot lead, as it is no voter")]
    CannotLead {
        /// The member.
        node: NodeId,
    },
    /// It took too long.
    #[error("the change was not agreed on within {} s; look at the members before you try again", CHANGE_MAX.as_secs())]
    Late,
    /// openraft refuses.
    #[error("the members cannot be changed: {reason}")]
    Refused {
        /// Why not.
        reason: String,
    },
}

/// A member of the quorum. What it does for others it does until it is stopped.
pub(crate) struct Quorum {
    raft: Raft<Types, Applier>,
    local: Arc<Local>,
    dialer: Dialer,
    images: watch::Receiver<Arc<ClusterImage>>,
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
        let local = Arc::new(Local::new(identity.clone(), store.incarnation()));
        let dialer = Dialer::new(Arc::clone(&local));
        let (applier, images) = Applier::new(store.clone()).map_err(|source| StartError::Snapshot { source })?;
        let refused = |reason: String| StartError::Raft { reason };
        let config = config(identity.cluster.to_string()).validate();
        let config = Arc::new(config.map_err(|error| refused(error.to_string()))?);
        let raft = Raft::new(identity.node, config, dialer.clone(), LogStore(store), applier).await;
        let raft = raft.map_err(|error| refused(error.to_string()))?;
        local.watch(raft.metrics());
        let server = listener.map(|listener| {
            let server = Arc::new(Server::new(Arc::clone(&local), raft.clone()));
            tokio::spawn(peer::serve(server, listener))
        });
        Ok(Quorum {
            raft,
            local,
            dialer,
            images,
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

    /// The images, each of which is later than the one before.
    pub(crate) fn images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.images.clone()
    }

    /// Who leads, as far as this member knows. Only calls that are answered show that it can.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.metrics(|metrics| metrics.current_leader)
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

    /// Has the members agree on an order, and says what has become of it. It is in this member's image only if this member leads.
    pub(crate) async fn propose(&self, order: Order) -> Result<Outcome, ProposeError> {
        let proposal = Proposal::new(order);
        let proposed = timeout(PROPOSE_MAX, async {
            loop {
                // Under the same id, so that it is done once whatever became of the last attempt.
                if let Some(outcome) = self.attempt(&proposal).await? {
                    return Ok(outcome);
                }
                sleep(PROPOSE_PAUSE).await;
            }
        });
        proposed.await.unwrap_or(Err(ProposeError::NoMajority))
    }

    /// Proposes it where it can be agreed on. None: nobody knows what became of it.
    async fn attempt(&self, proposal: &Proposal) -> Result<Option<Outcome>, ProposeError> {
        if let Some(outcome) = peer::propose(&self.raft, proposal.clone()).await? {
            return Ok(Some(outcome));
        }
        let Some(mut line) = self.line_to_leader() else {
            return Ok(None);
        };
        // It is never closed.
        let _permit = self.forwarded.acquire().await;
        match line.call(&Request::Propose(proposal.clone()), PROPOSE_MAX).await {
            Ok(Response::Proposed(outcome)) => Ok(outcome),
            Ok(_) => Ok(None),
            Err(error) => {
                tracing::debug!(%error, "the leader of the quorum has not taken an order");
                Ok(None)
            }
        }
    }

    fn line_to_leader(&self) -> Option<peer::Line> {
        let leader = self.leader().filter(|leader| *leader != self.local.identity().node)?;
        let membership = self.membership();
        Some(self.dialer.line(leader, membership.get_node(&leader)?))
    }

    /// What a member that is to be added has on disk, and how far it is.
    pub(crate) async fn ask_newcomer(&self, node: NodeId, address: &str) -> Result<Progress, CallError> {
        progress(&mut self.dialer.line_to_newcomer(node, address), node).await
    }

    /// How far a member is.
    pub(crate) async fn ask(&self, node: NodeId, member: &Member) -> Result<Progress, CallError> {
        progress(&mut self.dialer.line(node, member), node).await
    }

    /// Makes them voters, all at once, as soon as each has the log. They must run. If one does not get it in time they are left as
    /// learners, who are not counted, and nothing is lost.
    pub(crate) async fn add(&self, members: &BTreeMap<NodeId, Member>) -> Result<(), ChangeError> {
        self.add_within(members, CHANGE_MAX).await
    }

    /// The same within another time.
    pub(super) async fn add_within(
        &self,
        members: &BTreeMap<NodeId, Member>,
        within: Duration,
    ) -> Result<(), ChangeError> {
        let deadline = machine::now() + within;
        let membership = self.membership();
        let known = members.iter().find(|(node, member)| {
            let known = membership.get_node(node);
            known.is_some_and(|known| known != *member)
        });
        if let Some((node, _)) = known {
            return Err(ChangeError::Known { node: *node });
        }
        for (node, member) in members {
            let change = ChangeMembers::AddNodes(BTreeMap::from([(*node, member.clone())]));
            let known = self.change(change, deadline).await?;
            self.wait_for(*node, member, known, deadline).await?;
        }
        let voters: BTreeSet<NodeId> = members.keys().copied().collect();
        self.change(ChangeMembers::AddVoterIds(voters), deadline).await?;
        Ok(())
    }

    /// Takes a member out, alive or not. One that runs is to be stopped afterwards: nobody talks to it any more.
    pub(crate) async fn remove(&self, node: NodeId) -> Result<(), ChangeError> {
        let deadline = machine::now() + CHANGE_MAX;
        let is_voter = self.membership().voter_ids().any(|voter| voter == node);
        let nodes = BTreeSet::from([node]);
        let change = if is_voter {
            ChangeMembers::RemoveVoters(nodes)
        } else {
            ChangeMembers::RemoveNodes(nodes)
        };
        self.change(change, deadline).await?;
        Ok(())
    }

    async fn change(&self, change: ChangeMembers<NodeId, Member>, deadline: Instant) -> Result<LogId, ChangeError> {
        let changed = timeout_at(deadline.into(), self.raft.change_membership(change, false)).await;
        let changed = changed.map_err(|_elapsed| ChangeError::Late)?;
        changed.map(|written| written.log_id).map_err(|error| match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => ChangeError::NotLeader {
                leader: forward.leader_id,
            },
            error => ChangeError::Refused {
                reason: error.to_string(),
            },
        })
    }

    /// Waits until the member says itself that it has the entry: openraft believes of one that is not there that it has everything.
    async fn wait_for(
        &self,
        node: NodeId,
        member: &Member,
        entry: LogId,
        deadline: Instant,
    ) -> Result<(), ChangeError> {
        let mut line = self.dialer.line(node, member);
        loop {
            let answer = progress(&mut line, node).await;
            if answer.as_ref().is_ok_and(|progress| progress.committed >= Some(entry)) {
                return Ok(());
            }
            let is_late = machine::now() >= deadline;
            match answer {
                Ok(_) if is_late => return Err(ChangeError::Behind { node }),
                Err(source) if is_late || matches!(source, CallError::Refused { .. }) => {
                    return Err(ChangeError::NotThere { source });
                }
                _ => {}
            }
            sleep(PROGRESS_PAUSE).await;
        }
    }

    /// Hands leadership to another voter that is there and has all that was agreed on.
    pub(crate) async fn transfer_leadership(&self, to: NodeId) -> Result<(), ChangeError> {
        let deadline = machine::now() + TRANSFER_MAX;
        let membership = self.membership();
        let is_voter = membership.voter_ids().any(|voter| voter == to);
        let member = membership.get_node(&to).filter(|_| is_voter);
        let member = member.ok_or(ChangeError::CannotLead { node: to })?;
        // openraft would give leadership away to one that is not there, too.
        if let Some(applied) = self.applied() {
            self.wait_for(to, member, applied, deadline).await?;
        }
        let asked = self.raft.trigger().transfer_leader(to).await;
        asked.map_err(|error| ChangeError::Refused {
            reason: error.to_string(),
        })?;
        let led = self
            .raft
            .wait(Some(TRANSFER_MAX))
            .current_leader(to, "leadership is handed over")
            .await;
        led.map(drop).map_err(|_timeout| ChangeError::Late)
    }

    /// Ends it; another takes the lead before, if one can. An error if the store was not closed in order by the deadline.
    pub(crate) async fn stop(self, deadline: Instant) -> Result<(), StopError> {
        let own = self.local.identity().node;
        if self.leader() == Some(own) {
            let voters: Vec<NodeId> = self.membership().voter_ids().filter(|voter| *voter != own).collect();
            for voter in voters {
                match self.transfer_leadership(voter).await {
                    Ok(()) => break,
                    Err(error) => tracing::debug!(%error, "leadership is not handed to this member"),
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
    pub(super) fn raft(&self) -> &Raft<Types, Applier> {
        &self.raft
    }

    /// The last entry that the log has forgotten.
    pub(super) fn purged(&self) -> Option<LogId> {
        self.metrics(|metrics| metrics.purged)
    }
}

async fn progress(line: &mut peer::Line, node: NodeId) -> Result<Progress, CallError> {
    match line.call(&Request::Progress, PROGRESS_MAX).await? {
        Response::Progress(progress) => Ok(progress),
        _ => Err(CallError::Nonsense { node }),
    }
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
        ..Config::default()
    }
}
