//! What operators and their tools ask: of replicas and who leads them, of logs and producers, of the quorum.

mod assigned;
pub(super) mod brokers;
pub(super) mod elections;
pub(super) mod log_dirs;
pub(super) mod partitions;
pub(super) mod producers;
pub(super) mod reassignments;
pub(super) mod resources;

pub(super) use self::assigned::assigned;
