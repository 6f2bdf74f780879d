//! The bench as a user runs it: real processes, a real disk, real sockets.
//!
//! Tests begin in the order of their names: those that wait longest come first.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod as_documented;
mod cluster;
mod documents;
mod honesty;
#[cfg(feature = "kafka")]
mod kafka;
mod limits;
mod output;
mod runs;
mod support;
mod workloads;
