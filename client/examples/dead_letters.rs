//! Records that cannot be handled: tried again a few times, then put aside with the reason, so that one does not hold up the rest.
//!
//! Needs the topics `orders` and `orders-dead`.
//! `cargo run --release -p headwater-client --example dead_letters`

use std::time::Duration;

use headwater_client::{Client, ConsumerRecord, Error, Record};

const ATTEMPTS: u32 = 3;

/// Handles so many records.
pub async fn run(
    client: &Client,
    records: usize,
    handle: impl Fn(&ConsumerRecord) -> Result<(), String>,
) -> Result<(), Error> {
    let producer = client.producer().build().await?;
    // All attempts on one record have to fit into `max_poll_interval` (5 min), or the group takes the consumer for dead.
    let mut consumer = client.group_consumer("orders").topics(["orders"]).build().await?;
    for _ in 0..records {
        let record = consumer.recv().await?;
        if let Err(reason) = attempt(&record, &handle).await {
            // Awaited, as the record counts as processed from the next `recv` on: until then it must be safe in one of the topics.
            put_aside(&producer, &record, &reason).await?;
        }
    }
    consumer.close().await?;
    producer.close().await
}

/// In place, so that records of a partition keep their order. Where that does not matter, a topic for retries holds up nobody.
async fn attempt(
    record: &ConsumerRecord,
    handle: &impl Fn(&ConsumerRecord) -> Result<(), String>,
) -> Result<(), String> {
    let mut pause = Duration::from_millis(20);
    for _ in 1..ATTEMPTS {
        if handle(record).is_ok() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    handle(record)
}

/// As it is, with where it came from and why: whoever mends the cause can send it back.
async fn put_aside(producer: &headwater_client::Producer, record: &ConsumerRecord, reason: &str) -> Result<(), Error> {
    let from = format!("{}-{} at {}", record.topic, record.partition, record.offset);
    let mut letter = Record::to("orders-dead").header("from", &from).header("reason", reason);
    // None is not the same as an empty one.
    if let Some(key) = &record.key {
        letter = letter.key(key);
    }
    if let Some(value) = &record.value {
        letter = letter.value(value);
    }
    producer.send(letter).await?.await.map(drop)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::builder().bootstrap(["127.0.0.1:9292"]);
    let client = client.set_from_env("HEADWATER_CLIENT_")?.build().await?;
    let handle = |record: &ConsumerRecord| match record.value.as_deref() {
        Some(value) if value.is_ascii() => Ok(()),
        _ => Err("not a text".to_owned()),
    };
    run(&client, usize::MAX, handle).await
}
