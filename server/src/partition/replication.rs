//! How the replicas of a partition become the same, and what may be acknowledged meanwhile. Decisions alone: no I/O, no clock.
//!
//! ```text
//! follower: Follower::fetch ── Fetch ──► leader: Leader::fetched ── Answer ──► follower: Follower::answered ─► Act
//!           what it has, received and durable         │                                 append, truncate, begin again
//!                                                     ├─► watermark: what each in-sync replica has
//!                                                     └─► wish ──► coordinator: who is to be in sync ──► learn
//! ```
//! What makes it safe:
//! 1. A fetch counts only in the epoch of the leader that it reaches, and only if the follower's log is the leader's up to there: it
//!    names the epoch of its last record, and the leader has records of that epoch as far (KIP-101, KIP-279).
//! 2. The watermark moves to what all in-sync replicas have, those that are perhaps in sync by now included, and only while as many
//!    are in sync as the terms ask for, those that are perhaps in sync not included.
//! 3. Who joins has all that any leader before can have acknowledged: the log of this leader up to where it was when it began.
//! 4. Whose log has failed does not lead before the coordinator knows: what was sent to others and not flushed would be written twice,
//!    and what was counted and not flushed is gone.

mod carry;
mod follower;
mod leader;
mod message;
mod news;
mod replica;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    carry::{Taken, of_follower, of_leader, read_from, state_of, take_answer},
    leader::{Lag, Peer},
    message::{Answer, Fetch, FetchRefused, Held, Place, Progress},
    news::News,
    replica::{Replica, Role},
};

/// A follower that has not caught up for so long is not in sync: as Kafka's `replica.lag.time.max.ms` is by default.
pub(crate) const LAG_MAX: std::time::Duration = std::time::Duration::from_secs(30);
