//! From one topic into another, so that no crash loses a record: what was read is committed once what came of it is durable.
//!
//! Needs the topics `orders` and `invoices`: `headwater topic create orders --partitions 4`.
//! `cargo run --release -p headwater-client --example at_least_once`

use headwater_client::{Client, ConsumerRecord, Error, Record};

/// Writes invoices for so many orders.
pub async fn run(client: &Client, orders: usize) -> Result<(), Error> {
    let producer = client.producer().build().await?;
    // An automatic commit would take an order for done when the next ones are asked for, whatever has become of its invoice.
    let consumer = client.group_consumer("invoicing").topics(["orders"]).auto_commit(None);
    let mut consumer = consumer.build().await?;
    let mut done = 0;
    while done < orders {
        // As many as there are: one wait for the disk serves all of them.
        let received = consumer.recv_many(500).await?;
        let invoices: Vec<_> = received.iter().map(invoice).collect();
        let records = received.iter().zip(&invoices).map(|(order, invoice)| {
            // The same key, so that invoices of a customer keep the order of the orders.
            let key = order.key.as_deref().unwrap_or_default();
            Record::to("invoices").key(key).value(invoice)
        });
        for sent in producer.send_all(records).await {
            sent?.await?;
        }
        // After a crash before this line these orders come again, and their invoices are written twice. Whoever reads invoices
        // tells them by the order's place, which is in them.
        consumer.commit().await?;
        done += received.len();
    }
    consumer.close().await?;
    producer.close().await
}

fn invoice(order: &ConsumerRecord) -> String {
    let what = String::from_utf8_lossy(order.value.as_deref().unwrap_or_default());
    format!("order {}-{}: {what}", order.partition, order.offset)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::builder().bootstrap(["127.0.0.1:9292"]);
    let client = client.set_from_env("HEADWATER_CLIENT_")?.build().await?;
    run(&client, usize::MAX).await
}
