//! Who the members are, and how that changes: on the leader, so that one that is asked for a change takes the lead first.

pub(super) mod change;
pub(super) mod succession;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::{join_all, select_ok};
use headwater_protocol::{error::ErrorCode, id::BrokerId};
use openraft::{Raft, type_config::TypeConfigExt as _};

use self::change::Party;
use super::{
    applier::Applier,
    id::{Member, NodeId},
    member::Quorum,
    peer::{self, CallError, Local, Progress, Request, Response},
    types::Types,
};
use crate::model::quorum::{QuorumDescription, QuorumMember};

/// Within this time a change of the members is agreed on, and a newcomer has got the log.
const CHANGE_MAX: Duration = Duration::from_mins(1);
/// A member that is there answers within this time.
const PROGRESS_MAX: Duration = Duration::from_secs(2);
/// So long a leader that stops waits for another.
const TRANSFER_MAX: Duration = Duration::from_secs(3);

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
    /// It is none.
    #[error("{node} is no member of the quorum")]
    Stranger {
        /// Who is none.
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
    /// Nobody leads, or whoever does gives it away to nobody.
    #[error("this member has not got the lead of the quorum, which a change of the members needs; try again")]
    NoLead,
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

impl ChangeError {
    /// The code that a client gets.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::NotLeader { .. } | Self::NoLead | Self::Behind { .. } => ErrorCode::CoordinatorNotAvailable,
            Self::Known { .. } | Self::CannotLead { .. } | Self::Stranger { .. } => ErrorCode::InvalidRequest,
            Self::NotThere { .. } | Self::Late | Self::Refused { .. } => ErrorCode::KafkaStorageError,
        }
    }
}

impl Quorum {
    /// The members, and how they are.
    pub(crate) async fn describe(&self) -> QuorumDescription {
        let membership = self.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let describe = async |(node, member): (&NodeId, &Member)| {
            let committed = if *node == self.identity().node {
                Ok(self.applied())
            } else {
                self.ask(*node, member).await.map(|progress| progress.committed)
            };
            QuorumMember {
                id: BrokerId::from(*node),
                address: member.address.clone(),
                is_voter: voters.contains(node),
                committed: match committed {
                    Ok(committed) => Ok(committed.map_or(0, |entry| entry.index)),
                    Err(error) => Err(error.to_string()),
                },
            }
        };
        QuorumDescription {
            cluster_id: self.identity().cluster.to_string(),
            active: self.leader().map(BrokerId::from),
            term: (self.look())().term,
            members: join_all(membership.nodes().map(describe)).await,
        }
    }

    /// Makes those that run at these addresses voters, all at once.
    pub(crate) async fn add_newcomers(&self, addresses: BTreeMap<NodeId, String>) -> Result<(), ChangeError> {
        self.take_lead().await?;
        let mut members = BTreeMap::new();
        for (node, address) in addresses {
            let progress = self.ask_newcomer(node, &address).await;
            let store = progress.map_err(|source| ChangeError::NotThere { source })?.store;
            members.insert(node, Member { store, address });
        }
        self.add(&members).await
    }

    /// Takes a member out, wherever this is asked for.
    pub(crate) async fn remove_member(&self, node: NodeId) -> Result<(), ChangeError> {
        if self.membership().get_node(&node).is_none() {
            return Err(ChangeError::Stranger { node });
        }
        self.take_lead().await?;
        self.remove(node).await
    }

    /// Has the leader hand the lead to this member.
    async fn take_lead(&self) -> Result<(), ChangeError> {
        let own = self.identity().node;
        if self.leader() == Some(own) {
            return Ok(());
        }
        let mut line = self.line_to_leader().ok_or(ChangeError::NoLead)?;
        let asked = line.call(&Request::HandOver, PROGRESS_MAX).await;
        asked.map_err(|source| ChangeError::NotThere { source })?;
        let wait = self.raft.wait(Some(TRANSFER_MAX));
        let led = wait.current_leader(own, "it takes the lead").await;
        led.map(drop).map_err(|_timeout| ChangeError::NoLead)
    }

    /// What a member that is to be added has on disk, and how far it is.
    pub(crate) async fn ask_newcomer(&self, node: NodeId, address: &str) -> Result<Progress, CallError> {
        Self::progress(&mut self.newcomers_line(node, address), node).await
    }

    /// How far a member is.
    pub(crate) async fn ask(&self, node: NodeId, member: &Member) -> Result<Progress, CallError> {
        Self::progress(&mut self.members_line(node, member), node).await
    }

    /// Makes them voters, all at once, as soon as each has the log. They must run. If one does not get it in time they are left as
    /// learners, who are not counted, and nothing is lost.
    pub(crate) async fn add(&self, members: &BTreeMap<NodeId, Member>) -> Result<(), ChangeError> {
        change::add(self, members, CHANGE_MAX).await
    }

    /// Takes a member out, alive or not. One that runs is to be stopped afterwards: nobody talks to it any more.
    pub(crate) async fn remove(&self, node: NodeId) -> Result<(), ChangeError> {
        change::remove(self, node, CHANGE_MAX).await
    }

    /// Hands leadership to another voter, whichever is the first to be ready for it.
    pub(super) async fn hand_over(&self) -> Result<(), ChangeError> {
        let own = self.local.identity().node;
        let membership = self.membership();
        let others = membership.voter_ids().filter(|voter| *voter != own);
        let ready = others.map(|voter| Box::pin(async move { self.may_lead(voter).await.map(|()| voter) }));
        let ready: Vec<_> = ready.collect();
        if ready.is_empty() {
            return Ok(());
        }
        let (heir, _) = select_ok(ready).await?;
        self.transfer_leadership(heir).await
    }

    /// Waits until another voter is there and has all that was agreed on.
    async fn may_lead(&self, voter: NodeId) -> Result<(), ChangeError> {
        let membership = self.membership();
        let is_voter = membership.voter_ids().any(|known| known == voter);
        let member = membership.get_node(&voter).filter(|_| is_voter);
        let member = member.ok_or(ChangeError::CannotLead { node: voter })?;
        let Some(applied) = self.applied() else {
            return Ok(());
        };
        let deadline = Types::now() + TRANSFER_MAX;
        change::wait_for(self, (voter, member), applied, deadline).await
    }

    /// Hands leadership to another voter.
    pub(crate) async fn transfer_leadership(&self, to: NodeId) -> Result<(), ChangeError> {
        // openraft would give leadership away to one that is not there, too.
        self.may_lead(to).await?;
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
}

impl Party for Quorum {
    type Types = Types;
    type Line = peer::Line;

    fn raft(&self) -> &Raft<Types, Applier> {
        &self.raft
    }

    fn local(&self) -> &Local {
        &self.local
    }

    fn members_line(&self, node: NodeId, member: &Member) -> peer::Line {
        self.dialer.line(node, member)
    }

    fn newcomers_line(&self, node: NodeId, address: &str) -> peer::Line {
        self.dialer.line_to_newcomer(node, address)
    }

    async fn progress(line: &mut peer::Line, node: NodeId) -> Result<Progress, CallError> {
        match line.call(&Request::Progress, PROGRESS_MAX).await? {
            Response::Progress(progress) => Ok(progress),
            _ => Err(CallError::Nonsense { node }),
        }
    }
}
