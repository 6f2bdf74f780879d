//! The Headwater broker: partitions pinned to cores, a thin protocol, durable by default.
//!
//! The path of a request, on one core from end to end:
//!
//! ```text
//! listener -> connection -> frame -> dispatch, codec -+-> ops::produce -> Partition -> headwater_engine::Log -> disk
//!                  ^                                  +-> ops::fetch ---> Partition -> LogRange --+
//!                  |                                  +-> ops::perform                            |
//!                  +--- transfer <--- outbox <--------+-------------------------------------------+
//! ```
//!
//! The rooms and their order are in `rooms`. [`broker`] starts and stops everything; [`config`], [`check`] say what it is told, and
//! what the machine must offer; [`failure`], what becomes of it all when a part fails.

mod admin_http;
pub mod broker;
pub mod check;
pub mod cluster;
pub mod commands;
pub mod config;
mod coordinator;
mod core;
pub mod failure;
pub mod image;
mod machine;
mod metrics;
mod model;
mod ops;
mod partition;
#[cfg(test)]
mod rooms;
mod session;
#[cfg(test)]
mod simulation;
mod tls;
mod tokens;

pub use broker::{Broker, StartError};
pub use config::Config;
pub use failure::StopError;

/// The commit that this was built from, if the build knew.
pub const COMMIT: Option<&str> = option_env!("HEADWATER_COMMIT");

/// The version that this is, and the commit if the build knew it.
pub const VERSION: &str = env!("HEADWATER_VERSION");
