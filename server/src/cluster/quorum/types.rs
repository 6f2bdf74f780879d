//! The types with which openraft is used. What a runtime is needed for is written for any ([`QuorumTypes`]), so that the same code
//! runs with tokio and in a simulation.

use openraft::{
    RaftTypeConfig, impls::leader_id_std::LeaderId as StdLeaderId, storage::SnapshotMeta as Meta, vote::RaftLeaderId,
};

use super::{
    id::{Member, NodeId},
    order::{Outcome, Proposal},
};

openraft::declare_raft_types!(
    /// With tokio.
    pub(crate) Types:
        D = Proposal,
        R = Outcome,
        NodeId = NodeId,
        Node = Member,
        LeaderId = LeaderId,
        Vote = Vote,
        Entry = Entry,
        AsyncRuntime = openraft::impls::TokioRuntime,
);

/// One leader in a term.
pub(crate) type LeaderId = StdLeaderId<u64, NodeId>;
type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
type Payload = openraft::EntryPayload<Proposal, NodeId, Member>;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, Payload>;
pub(crate) type Membership = openraft::StoredMembership<CommittedLeaderId, NodeId, Member>;
pub(crate) type SnapshotMeta = Meta<CommittedLeaderId, NodeId, Member>;
pub(crate) type Snapshot = openraft::storage::Snapshot<CommittedLeaderId, NodeId, Member, bytes::Bytes>;

/// Our types, with any runtime.
pub(crate) trait QuorumTypes:
    RaftTypeConfig<
        D = Proposal,
        R = Outcome,
        NodeId = NodeId,
        Node = Member,
        Term = u64,
        LeaderId = LeaderId,
        Vote = Vote,
        Entry = Entry,
    >
{
}

impl<C> QuorumTypes for C where
    C: RaftTypeConfig<
            D = Proposal,
            R = Outcome,
            NodeId = NodeId,
            Node = Member,
            Term = u64,
            LeaderId = LeaderId,
            Vote = Vote,
            Entry = Entry,
        >
{
}
