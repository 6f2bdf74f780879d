//! Tests of a program against a real broker in the same process: no network but the loopback, no port to choose, nothing left over.
//!
//! `cargo run --release -p headwater-server --example embedded_broker`

use std::error::Error;
use std::net::SocketAddr;

use headwater_client::{Client, NewTopic, Record, Start};
use headwater_server::config::ByteSize;
use headwater_server::{Broker, Config};
use tempfile::TempDir;

/// A broker with a data directory of its own; both are gone when it is dropped.
pub struct TestBroker {
    // Dropped first, as it writes to the directory.
    broker: Broker,
    _directory: TempDir,
}

impl TestBroker {
    /// Starts it in a new directory within `parent`, which had better be on a real disk: the broker needs direct I/O.
    pub fn start(parent: &str) -> Result<Self, Box<dyn Error>> {
        let directory = tempfile::tempdir_in(parent)?;
        let mut config = Config::default();
        directory.path().clone_into(&mut config.log.directory);
        // Any free port, so that tests can run side by side.
        config.broker.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        // One core, that leaves the CPUs to others and takes memory only as needed.
        config.cores.count = 1;
        config.cores.pin = false;
        config.cores.tail_buffer_bytes_max = ByteSize::new(64 << 20);
        // Groups whose first member waits for nobody, and whose offsets are soon made room for.
        let config = config.with([
            ("groups.initial_rebalance_delay_ms", "0"),
            ("groups.offsets_partitions", "1"),
        ])?;
        let broker = Broker::start(config)?;
        Ok(Self {
            broker,
            _directory: directory,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        self.broker.addr().to_string()
    }
}

/// What such a test looks like.
pub async fn run(parent: &str) -> Result<(), Box<dyn Error>> {
    let broker = TestBroker::start(parent)?;
    let client = Client::connect(&broker.address()).await?;
    client
        .admin()
        .create_topic(NewTopic::new("orders").partitions(1))
        .await?;
    let producer = client.producer().build().await?;
    producer.send(Record::to("orders").value("a book")).await?.await?;
    let consumer = client.consumer().topics(["orders"]).start(Start::Earliest);
    let record = consumer.build().await?.recv().await?;
    assert_eq!(record.value.as_deref(), Some(&b"a book"[..]));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run(".").await
}
