//! An end in order: nothing that was taken is lost, and what was done is not done again by whoever takes over.
//!
//! Needs the topics `orders` and `invoices`.
//! `cargo run --release -p headwater-client --example shutdown`, and then Ctrl-C.

use headwater_client::{Client, Error, Record};
use tokio::signal::unix::{SignalKind, signal};

/// Copies records until `stop` is ready.
pub async fn run(client: &Client, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let producer = client.producer().build().await?;
    let mut consumer = client.group_consumer("copying").topics(["orders"]).build().await?;
    let mut stop = std::pin::pin!(stop);
    loop {
        // Only the wait for a record is given up, which loses none; the record in hand is always finished.
        let record = tokio::select! {
            () = &mut stop => break,
            record = consumer.recv() => record?,
        };
        let value = record.value.as_deref().unwrap_or_default();
        producer.send(Record::to("invoices").value(value)).await?.await?;
    }
    // First what was taken, then the commit of what it came from: the other way round a crash in between would lose it.
    producer.close().await?;
    // Without this others would wait for the session timeout, and do again what was not committed.
    consumer.close().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::builder().bootstrap(["127.0.0.1:9292"]);
    let client = client.set_from_env("HEADWATER_CLIENT_")?.build().await?;
    // What service managers and containers send, and a terminal.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    };
    run(&client, stop).await?;
    Ok(())
}
