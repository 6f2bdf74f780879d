//! The coordinator quorum, as somebody is told of it.

use headwater_protocol::id::BrokerId;

/// The quorum as one member knows it.
#[derive(Debug)]
pub(crate) struct QuorumDescription {
    pub(crate) cluster_id: String,
    /// Who leads.
    pub(crate) active: Option<BrokerId>,
    pub(crate) term: u64,
    pub(crate) members: Vec<QuorumMember>,
}

/// A member.
#[derive(Debug)]
pub(crate) struct QuorumMember {
    pub(crate) id: BrokerId,
    pub(crate) address: String,
    /// It is one of those of whom a majority agrees.
    pub(crate) is_voter: bool,
    /// The last entry that it knows to be agreed on, or why it does not say so.
    pub(crate) committed: Result<u64, String>,
}
