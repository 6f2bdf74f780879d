//! Transactions: which partitions each has, and how it ends, run by the core that owns the transactional id's partition of
//! `__transaction_state`.
//!
//! ```text
//! ops::transactions -> service -> Shard::step(event, now) -> Transaction -> effects: answers, records, markers
//!                        ^  ^                                                         |          |
//!                        |  +---- Written <---- durable <---- internal topic <--------+          |
//!                        +------- Marked <---- marking: partitions, here and of other brokers <--+
//! ```

pub(crate) mod load;
pub(crate) mod marking;
pub(super) mod record;
pub(crate) mod service;
mod shard;
#[cfg(test)]
mod tests;
mod transaction;

pub(crate) use service::Transactions;
