//! Headwater's storage engine: a durable log on direct I/O, embeddable without any network.

pub mod disk;
