//! What a request asks and what became of it: data that every part of the broker speaks in, and that crosses cores.

pub(crate) mod bounds;
pub(crate) mod group;
