//! The bench as a user runs it: real processes, a real disk, real sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod documents;
mod honesty;
#[cfg(feature = "kafka")]
mod kafka;
mod limits;
mod output;
mod readme;
mod runs;
mod support;
mod workloads;
