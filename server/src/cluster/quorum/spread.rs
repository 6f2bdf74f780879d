//! What the active coordinator spreads over the brokers by itself, as it is set to: leadership, and replicas.

mod balance;
mod leaders;

use std::convert::Infallible;

use super::member::Quorum;
use crate::config::Balance;

/// Spreads it whenever this member is the active coordinator.
pub(super) async fn watch(quorum: &Quorum, balance: Balance) -> Infallible {
    tokio::select! {
        never = leaders::watch(quorum), if balance != Balance::Off => match never {},
        never = balance::watch(quorum), if balance == Balance::Replicas => match never {},
        never = std::future::pending() => never,
    }
}
