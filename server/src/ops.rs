//! What a request asks of the broker, done: on the core that took it, or by asking the cores that own the partitions.

pub(crate) mod admin;
pub(crate) mod fetch;
pub(crate) mod forwarded;
pub(crate) mod groups;
pub(crate) mod offsets;
pub(crate) mod produce;
