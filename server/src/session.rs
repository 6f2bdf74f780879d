//! Connections of clients: accepted, read, answered, each on the core that accepted it.

pub(crate) mod connection;
pub(crate) mod in_flight;
pub(crate) mod listener;
pub(crate) mod native;
pub(crate) mod outbox;
pub(crate) mod read_ahead;
pub(crate) mod transfer;
