//! What a client was told by name is what its producers and consumers begin with.

use headwater_protocol::frame::Api;

use super::network::Network;
use super::{Broker, builder};
use crate::{Client, Error, Record};

async fn client(settings: &[(&str, &str)]) -> (std::sync::Arc<Broker>, Client) {
    let network = Network::new();
    let broker = Broker::start(&network, 1);
    broker.create_topic("t", 1);
    let builder = builder(&network, 1).set_all(settings.iter().copied()).unwrap();
    (broker, builder.build().await.unwrap())
}

fn refused<T>(built: Result<T, Error>) -> &'static str {
    match built {
        Err(Error::Config { setting, .. }) => setting,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was taken"),
    }
}

#[tokio::test(start_paused = true)]
async fn producers_and_consumers_begin_with_what_the_client_was_told_and_may_say_otherwise() {
    let (broker, client) = client(&[
        ("bootstrap.servers", "broker:9000"),
        ("linger.ms", "1000"),
        ("fetch.min.bytes", "1GiB"),
        ("session.timeout.ms", "1s"),
        ("group.id", "billing"),
    ])
    .await;
    let producer = client.producer().build().await.unwrap();
    for value in ["one", "two"] {
        drop(producer.send(Record::to("t").value(value)).await.unwrap());
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    }
    assert_eq!(broker.requests(Api::Produce), 0, "it lingers");
    producer.flush().await.unwrap();
    assert_eq!(broker.requests(Api::Produce), 1);

    let consumer = || client.consumer().topics(["t"]);
    assert_eq!(refused(consumer().build().await), "fetch_bytes_min");
    consumer().fetch_bytes_min(1).build().await.unwrap();
    assert_eq!(client.group_id(), Some("billing"));
    let group = client
        .group_consumer("billing")
        .topics(["t"])
        .fetching(|fetching| fetching.fetch_bytes_min(1));
    assert_eq!(refused(group.build().await), "heartbeat_interval");
}
