//! Consumer groups and their committed offsets, run by the core that owns the group's partition of `__consumer_offsets`.
//!
//! ```text
//! ops::groups -> service -> Shard::step(event, now) -> Group -> effects: answers, records to append
//!                   ^                                                          |
//!                   +---- Written <---- durable <---- internal topic <---------+
//! ```
//!
//! All decisions are in `groups`, which do no I/O, keep no time and start no task: a simulator runs them as well.
//! A request that changes what must survive is answered when its records are durable. Groups speak Kafka's classic protocol
//! (KIP-62, 134, 345, 394, 429, 559, 814); `assign` adds the assignors of the broker's own.

mod append;
mod groups;
pub(crate) mod internal;
mod load;
mod replay;
pub(crate) mod service;
pub(crate) mod transactions;

pub(crate) use service::Service;
