//! Creates a topic, produces three records, and consumes everything that the topic holds.
//!
//! `cargo run --release -p headwater-client --example hello -- 127.0.0.1:9292`

use headwater_client::{Client, Error, ErrorCode, NewTopic, Record, Start};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9292".to_owned());
    let client = Client::connect(&address).await?;
    match client
        .admin()
        .create_topic(NewTopic::new("greetings").partitions(1))
        .await
    {
        Err(Error::Broker {
            code: ErrorCode::TopicAlreadyExists,
            ..
        }) => println!("the topic is there already"),
        created => println!("created the topic with {} partition", created?.partitions),
    }

    let producer = client.producer().build().await?;
    for name in ["Ada", "Grace", "Barbara"] {
        let value = format!("hello, {name}");
        let delivery = producer.send(Record::to("greetings").key(name).value(&value)).await?;
        // Resolves once the record is on stable storage.
        let stored = delivery.await?;
        // Only a producer that wants no acknowledgement is not told the offset.
        let offset = stored
            .offset
            .map_or_else(|| "unknown".to_owned(), |offset| offset.to_string());
        println!("stored {value:?} in partition {} at offset {offset}", stored.partition);
    }
    producer.close().await?;

    let mut consumer = client
        .consumer()
        .topics(["greetings"])
        .start(Start::Earliest)
        .build()
        .await?;
    while let Some(record) = consumer.recv_timeout(std::time::Duration::from_secs(1)).await? {
        println!(
            "{}: {}",
            record.offset,
            String::from_utf8_lossy(record.value.as_deref().unwrap_or_default())
        );
    }
    Ok(())
}
