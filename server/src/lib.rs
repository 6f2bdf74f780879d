//! The Headwater broker: partitions pinned to cores, a thin protocol, durable by default.
//!
//! The path of a request, on one core from end to end:
//!
//! ```text
//! listener -> connection -> frames -> dispatch -+-> produce -> partition -> headwater_engine::Log -> disk
//!                  ^                            +-> fetch ---> partition -> LogRange --+
//!                  |                            +-> offsets, admin                     |
//!                  +--- transfer <--- outbox <-----------------------------------------+
//! ```
//!
//! - [`broker`]: starts and stops everything; [`config`], [`check`]: what it is told, and what the machine must offer.
//! - `core`, `machine`, `watchdog`: one pinned executor per core and what keeps it awake; `mesh`: what crosses cores.
//! - [`cluster`], [`image`]: the control plane, the topics on disk, and the picture of them that cores share; [`settings`]: what a
//!   topic can set for itself.
//! - `compaction`: which partition is compacted next, and how fast.
//! - [`failure`]: what becomes of it all when a part fails.
//! - `budget`: back-pressure. When memory is spent, sockets are not read.

pub mod broker;
pub mod check;
pub mod cluster;
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
mod session;
pub mod settings;

pub use broker::{Broker, StartError};
pub use config::Config;
pub use failure::StopError;

/// The commit that this was built from, if the build knew.
pub const COMMIT: Option<&str> = option_env!("HEADWATER_COMMIT");

/// The version that this is, and the commit if the build knew it.
pub const VERSION: &str = env!("HEADWATER_VERSION");
