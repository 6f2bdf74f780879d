//! Connections of clients: accepted, read, answered, each on the core that accepted it.

mod connection;
mod in_flight;
pub(crate) mod listener;
mod native;
mod outbox;
mod peer;
pub(crate) mod read_ahead;
mod replication;
mod sessions;
mod transfer;

pub(crate) use self::{replication::Follows, sessions::Sessions};
