//! What the command line promises: the real program, run against a real broker.
//!
//! Tests begin in the order of their names: those that wait longest come first.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod as_documented;
mod clusters;
mod completion;
mod groups;
mod help;
mod logs;
mod outages;
mod records;
mod rolling;
mod scripts;
mod selection;
mod status;
mod support;
mod terminal;
mod topics;
