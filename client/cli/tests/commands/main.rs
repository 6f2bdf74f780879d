//! What the command line promises: the real program, run against a real broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clusters;
mod completion;
mod groups;
mod help;
mod logs;
mod outages;
mod readme;
mod records;
mod rolling;
mod scripts;
mod selection;
mod status;
mod support;
mod terminal;
mod topics;
