//! The coordinator quorum: who belongs to it, and how that changes.

use headwater_protocol::id::BrokerId;

use super::Admin;
use crate::error::Error;
use crate::requests;

/// The coordinator quorum, as the broker knows it that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuorumDescription {
    /// Identity of the cluster.
    pub cluster_id: String,
    /// The active coordinator; `None` if nobody is, as far as the broker knows.
    pub active: Option<BrokerId>,
    /// Its term.
    pub term: u64,
    /// The members in the order of their numbers.
    pub members: Vec<QuorumMember>,
}

/// A member of the quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuorumMember {
    /// Its number.
    pub id: BrokerId,
    /// Where the others reach it: host and port, or nothing if it has no others.
    pub address: String,
    /// Whether it is one of those of whom a majority agrees.
    pub is_voter: bool,
    /// The last entry that it knows to be agreed on, or why it does not answer.
    pub committed: Result<u64, String>,
}

impl Admin {
    /// The members of the coordinator quorum, and how they are.
    pub async fn describe_quorum(&self) -> Result<QuorumDescription, Error> {
        let deadline = self.cluster.deadline("describe quorum");
        self.cluster
            .ask_any(deadline, &requests::describe_quorum(), requests::read_describe_quorum)
            .await
    }

    /// Makes those that run at these addresses members of the quorum, all in one change, once each has what was agreed on.
    ///
    /// # Errors
    /// [`Error::Broker`] if one does not answer, or is a member already. Nobody becomes a member then.
    pub async fn add_quorum_members(&self, members: &[(BrokerId, String)]) -> Result<(), Error> {
        let deadline = self.cluster.deadline("add quorum members");
        let request = requests::add_quorum_members(members);
        self.cluster
            .ask_any(deadline, &request, requests::read_add_quorum_members)
            .await
    }

    /// Takes a member out of the quorum, whether it runs or not. One that runs has to be stopped.
    ///
    /// # Errors
    /// [`Error::Broker`] if it is no member.
    pub async fn remove_quorum_member(&self, member: BrokerId) -> Result<(), Error> {
        let deadline = self.cluster.deadline("remove quorum member");
        let request = requests::remove_quorum_member(member);
        self.cluster
            .ask_any(deadline, &request, requests::read_remove_quorum_member)
            .await
    }
}
