//! Whole clients against a simulated broker, in memory and with the clock held still.
//!
//! The broker keeps the native protocol's rules (sequences, long polls, one core for each partition) and does harm on
//! demand: it cuts connections, delays and reorders responses, answers errors, falls silent. Random harm comes from a
//! seed, which a failure prints.

mod admin;
mod broker;
mod connection;
mod consumer;
mod groups;
mod leaving;
mod network;
mod producer;
mod random;
mod said;
mod settings;
mod strangers;

use std::sync::Arc;
use std::time::Duration;

use broker::Broker;
use network::Network;

use crate::client::{Client, ClientBuilder};

/// Where the simulated broker listens.
const BOOTSTRAP: &str = "broker:9000";

fn builder(network: &Arc<Network>, seed: u64) -> ClientBuilder {
    let connector = Arc::clone(network);
    Client::builder()
        .bootstrap([BOOTSTRAP])
        .simulated(connector, seed)
        .metadata_timeout(Duration::from_secs(2))
}

/// A broker with one core, and a client of it.
async fn one_broker() -> (Arc<Broker>, Client) {
    let network = Network::new();
    let broker = Broker::start(&network, 1);
    let client = builder(&network, 1).build().await.unwrap();
    (broker, client)
}
