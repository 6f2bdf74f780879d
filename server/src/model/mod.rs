//! What a request asks and what became of it: data that every part of the broker speaks in, and that crosses cores. It uses nothing
//! else of the broker.

pub(crate) mod access;
pub(crate) mod bounds;
pub(crate) mod consumer;
pub(crate) mod group;
pub(crate) mod id;
pub(crate) mod internal;
pub(crate) mod nodes;
pub(crate) mod op;
pub(crate) mod plain;
pub(crate) mod quorum;
pub(crate) mod quota;
pub(crate) mod records;
pub(crate) mod refusal;
pub(crate) mod replicas;
pub(crate) mod transaction;
