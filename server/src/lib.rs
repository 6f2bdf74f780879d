//! Under construction.

use std::net::SocketAddr;

pub mod check;
pub mod config;
pub mod image;
pub mod topics;

/// Stands in for the broker until the data path is merged: it never starts.
pub struct Broker {
    never: std::convert::Infallible,
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
#[error("the data path is not part of this build")]
pub struct StartError;

impl Broker {
    /// Starts a broker.
    pub fn start(_config: config::Config) -> Result<Self, StartError> {
        Err(StartError)
    }

    /// The shared address.
    pub fn addr(&self) -> SocketAddr {
        match self.never {}
    }

    /// Stops in order.
    pub fn shutdown(self) -> Result<(), StartError> {
        match self.never {}
    }

    /// Waits for SIGTERM or SIGINT, then stops in order.
    pub fn run_until_signal(self) -> Result<(), StartError> {
        match self.never {}
    }
}
