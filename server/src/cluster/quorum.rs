//! The coordinator quorum: one, three or five members that hold what the cluster knows, in a log that a majority has on disk. A
//! broker alone is a quorum of one and runs the same code.
//!
//! ```text
//! QuorumHandle ─► QuorumThread ─► Quorum::propose ─► openraft ─► Store (redb, a thread of its own) ─► majority ─► Applier ─► Arc<ClusterImage>
//!                                     │ (not the leader)  └────► Dialer ─► peers, who answer through `peer::serve`
//!                                     └► the leader
//! ```
//! openraft decides; what it decides with is here: `store` keeps its log and vote, `applier` applies what was agreed on to the `state`, `peer` is
//! how members speak with each other, `member` is one of them, running, `sessions` and `spread` see to the brokers when it is the active
//! coordinator, and `succession` watches that one when it is another. All of it is the control thread's, but for the disk.

mod applier;
mod codec;
mod forming;
mod handle;
mod id;
mod member;
mod members;
mod order;
mod peer;
mod sessions;
mod spread;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod thread;
mod types;

pub(crate) use handle::QuorumHandle;
pub(crate) use id::{Cluster, Identity, NodeId, StoreId};
pub(crate) use order::{Order, Outcome};
pub(crate) use state::{PRODUCER_ID_BLOCK, PRODUCER_ID_MAX, State};
pub(crate) use store::{Beginning, Store};
#[cfg(test)]
pub(crate) use tests::{
    local::LocalLog,
    shared::{Agreement, PEER_PORT},
};
pub(crate) use thread::{Joined, QuorumThread, Seat};
