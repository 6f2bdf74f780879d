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
//! - `core`, `runtime`, `watchdog`: one pinned executor per core and what keeps it awake; `mesh`: what crosses cores.
//! - `control`, [`topics`], [`image`]: the control plane, the topics on disk, and the picture of them that cores share.
//! - `compaction`: which partition is compacted next, and how fast.
//! - [`failure`]: what becomes of it all when a part fails.
//! - `budget`: back-pressure. When memory is spent, sockets are not read.

mod admin;
mod backoff;
mod bounds;
pub mod broker;
mod budget;
pub mod check;
mod closing;
mod compaction;
pub mod config;
mod connection;
mod control;
mod core;
mod dispatch;
pub mod failure;
mod fetch;
mod forwarded;
mod frames;
mod groups;
pub mod image;
mod listener;
mod mesh;
mod metrics;
mod offsets;
mod outbox;
mod partition;
mod produce;
mod read_ahead;
mod remote;
mod reopen;
mod reply;
mod runtime;
mod sockets;
mod tick;
pub mod topics;
mod transfer;
mod watchdog;

pub use broker::{Broker, StartError};
pub use config::Config;
pub use failure::StopError;

/// The commit that this was built from, if the build knew.
pub const COMMIT: Option<&str> = option_env!("HEADWATER_COMMIT");

/// The version that this is, and the commit if the build knew it.
pub const VERSION: &str = env!("HEADWATER_VERSION");
