//! Connections of clients: accepted, read, answered, each on the core that accepted it.

mod channel;
mod connection;
mod entry;
mod frame;
mod in_flight;
mod kafka;
pub(crate) mod listener;
mod native;
mod order;
mod outbox;
mod peer;
mod protocol;
pub(crate) mod read_ahead;
mod replication;
mod sessions;
mod transfer;

pub(crate) use self::{
    replication::{Follows, run_errands},
    sessions::Sessions,
};
