//! How members speak with each other: over TCP, with TLS if `cluster.tls_certificate` is set, one request at a time on a connection, each
//! within a limit of time. Where there is a `cluster.secret` both prove first that they know it (`proof`).
//!
//! ```text
//! Dialer ─► Line ─ connect ─►  serve: greeting (a number that was never used)
//!             ◄───────────────
//!             ─ hello: cluster, who I am, whom I want, that number ─►  Standing: is it who it says, and one of us?
//!             ◄─────────────── welcome, or Refused
//!             ─ Request ─►  openraft ─► Response
//! ```
//! Every frame has a length that is compared with a limit before anything is kept of it, and a checksum. Whoever is not welcome has
//! changed nothing, and no request is looked at of one who has meanwhile ceased to be a member.

mod frame;
mod handshake;
mod line;
mod proof;
mod reach;
mod serve;
mod standing;
#[cfg(test)]
mod tests;
mod wire;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

pub(crate) use handshake::Refused;
pub(crate) use line::{CallError, Dialer, Line};
pub(crate) use reach::{ANSWER_MAX, Unheard};
#[cfg(test)]
pub(crate) use reach::{Answered, lets_in};
pub(crate) use serve::{Server, propose, serve};
pub(crate) use standing::Local;

use super::{
    order::{Outcome, PROPOSAL_LEN_MAX, Proposal},
    types::{LogId, SnapshotMeta, Types, Vote},
};

/// Bytes of a snapshot that are sent at once.
const PIECE_LEN: usize = 1 << 20;

/// The largest frame. It has room for all entries that are read at once, the largest of them, and what is around them.
const FRAME_LEN_MAX: usize = 4 << 20;

/// The largest snapshot.
const SNAPSHOT_LEN_MAX: u64 = 256 << 20;

/// What a member asks of another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    TransferLeader(TransferLeaderRequest<Types>),
    /// A snapshot of so many bytes follows in pieces, on this connection.
    SnapshotBegin {
        vote: Vote,
        meta: SnapshotMeta,
        len: u64,
    },
    /// The next piece of it, never empty.
    SnapshotPiece(Vec<u8>),
    /// To the leader: to be agreed on.
    Propose(Proposal),
    /// How far it is.
    Progress,
    /// To the leader: to hand the lead to who asks.
    HandOver,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    TransferLeader(TransferLeaderResponse<Types>),
    /// The next piece may come.
    SnapshotMore,
    /// It has the snapshot.
    Snapshot(SnapshotResponse<Types>),
    /// What has become of the proposal; none: it is not the leader, or no longer.
    Proposed(Option<Agreed>),
    Progress(Progress),
    Failed(Failure),
    /// The lead is on its way.
    HandedOver,
}

/// What has become of a proposal, and the entry from which on the members know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agreed {
    pub(crate) outcome: Outcome,
    pub(crate) at: LogId,
}

/// How far a member is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The last entry of its log that was agreed on, as far as it knows.
    pub(crate) committed: Option<LogId>,
    /// The last entry of its log.
    pub(crate) last: Option<u64>,
    /// The vote of a leader whose process it has found ended.
    pub(crate) deserted: Option<Vote>,
    /// What its log is in.
    pub(crate) store: super::id::StoreId,
}

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// Who asks is no member, or not the one that it was.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The member does nothing any more.
    #[error("the member has failed, and has to be started again: {reason}")]
    Ended {
        /// Why.
        reason: String,
    },
    /// The proposal is too large to be agreed on.
    #[error("this takes {len} bytes to write down, and {PROPOSAL_LEN_MAX} are allowed; ask for less at once")]
    TooLarge {
        /// Its length.
        len: usize,
    },
    /// It takes one snapshot at a time.
    #[error("the member is receiving another snapshot; try again")]
    Busy,
    /// The snapshot is not what was said.
    #[error("the snapshot cannot be taken: {reason}")]
    Snapshot {
        /// Why not.
        reason: String,
    },
}
