//! The shortest time from a record to its acknowledgement: one record at a time, on stable storage before the next.
//!
//! Needs the topic `pings`: `headwater topic create pings`.
//! `HEADWATER_CLIENT_BOOTSTRAP_SERVERS=127.0.0.1:9292 cargo run --release -p headwater-client --example low_latency`

use headwater_client::{Client, Error, Latencies, Record};

/// Sends so many records, and tells how long they took.
pub async fn run(client: &Client, records: usize) -> Result<Latencies, Error> {
    // The defaults are made for this: without `linger` a record leaves at once, and waits for others only while batches before it
    // are under way. `Acks::None` would be faster and promise nothing.
    let producer = client.producer().build().await?;
    // The first record would have to wait for the metadata.
    producer.partition_count("pings").await?;
    for number in 0..records {
        let delivery = producer.send(Record::to("pings").value(&number.to_le_bytes())).await?;
        // A program that has more to send meanwhile does not await each: `delivery.on_end(…)` calls it, on the sender's task.
        delivery.await?;
    }
    let latency = producer.statistics().latency;
    producer.close().await?;
    Ok(latency)
}

// Connections and producers are tasks of their own: on one thread nothing is handed from thread to thread.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let client = Client::builder().bootstrap(["127.0.0.1:9292"]);
    let client = client.set_from_env("HEADWATER_CLIENT_")?.build().await?;
    let latency = run(&client, 1000).await?;
    println!("{:?} in the middle, {:?} for 99 of 100", latency.p50, latency.p99);
    Ok(())
}
