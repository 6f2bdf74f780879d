//! What the cluster knows of its topics, and the threads that see to it.
//!
//! ```text
//! control (threads, queues) ─► proposal (by this broker's limits) ─► store ─► quorum (agrees) ─► state (decides; pure)
//!                                                                      ├─► reconcile (does it)        └─► image
//! ```
//! One of several brokers asks in one step for a topic and for who has it, and sees to its own part when that is agreed on:
//! ```text
//! store ─► quorum: state, replicas ─► membership ─► directories, assignment and image for the cores ─► wishes ─► quorum
//! ```
//! Settings of a topic are kept by name: what is in force of them is found out where they are used, by the configuration of the
//! broker that uses them.

mod assign;
mod control;
mod error;
mod lost;
mod made;
mod membership;
mod names;
mod own;
mod proposal;
mod quorum;
mod reconcile;
pub(crate) mod replicas;
mod state;
mod store;

pub(crate) use assign::{assign, publish, wishes};
pub(crate) use control::{Control, ControlHandle, ControlParts, channel};
#[cfg(test)]
pub(crate) use control::{Stop, desks, stop};
pub use error::TopicError;
pub(crate) use membership::Membership;
pub(crate) use names::is_partition;
#[cfg(test)]
pub(crate) use quorum::{Agreement, LocalLog, Order, PEER_PORT};
pub(crate) use quorum::{Joined, NodeId, QuorumHandle, QuorumThread, Seat, Store as QuorumStore};
pub use store::{Identity, Recovery, StoreError, TopicStore};
pub(crate) use store::{QUORUM_FILE, beginning, is_in_use};
