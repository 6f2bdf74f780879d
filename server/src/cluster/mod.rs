//! What the cluster knows of its topics, and the threads that see to it.
//!
//! ```text
//! control (threads, queues) ─► proposal (by this broker's limits) ─► state (decides; pure) ─► store (writes it down)
//!                                                                        image ◄──────────────┴─► reconcile (does it)
//! ```
//! Settings of a topic are kept by name: what is in force of them is found out where they are used, by the configuration of the
//! broker that uses them.

mod control;
mod error;
mod names;
mod proposal;
#[cfg_attr(not(test), expect(dead_code, reason = "no broker starts a quorum yet"))]
mod quorum;
mod reconcile;
mod state;
mod store;

pub(crate) use control::{Control, ControlHandle, ControlParts, channel, publish};
#[cfg(test)]
pub(crate) use control::{Stop, desks, stop};
pub use error::TopicError;
pub(crate) use names::is_partition;
pub(crate) use store::{IDENTITY_FILE, PRODUCER_ID_BLOCK};
pub use store::{Identity, ProducerIds, Recovery, StoreError, TopicStore};
