//! HTTP for people and for programs in any language: REST, and the console. It is a client of the cluster like any other.
//!
//! ```text
//! Listener ─► Bounded: connections, slow heads, slow readers ─► axum: limits ─► Caller: whose client? ─► rest, console
//!                                                                                  │
//!                                       Sessions: one client for each user ◄───────┘──► headwater-client ─► brokers
//! ```
//! Nothing here decides who may do what, who leads a partition, or what is stored twice: a caller's name and password become those of
//! a client, and brokers decide. [`Service::serve`] runs on a runtime of its own, away from the quorum's heartbeats.

#![allow(
    clippy::struct_field_names,
    reason = "fields are called what they are called in JSON"
)]

mod admission;
mod caller;
mod console;
mod door;
mod problem;
mod rest;
mod service;
mod sessions;
mod settings;

pub use console::MetricsText;
pub use service::Service;
pub use settings::{BrokerTls, Limits, Settings};
