//! The examples of the client do what they say, each on a broker of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater_client::{Client, ConsumerRecord, NewTopic, Record, Start};
use tokio::time::timeout;

use super::embedded_broker::{self, TestBroker};

/// Declares an example as a module, whose `main` nobody calls here.
macro_rules! example {
    ($name:ident, $path:literal) => {
        #[path = $path]
        #[allow(dead_code, reason = "the program around it is not run")]
        mod $name;
    };
}

example!(at_least_once, "../../../../client/examples/at_least_once.rs");
example!(dead_letters, "../../../../client/examples/dead_letters.rs");
example!(group, "../../../../client/examples/group.rs");
example!(low_latency, "../../../../client/examples/low_latency.rs");
example!(shutdown, "../../../../client/examples/shutdown.rs");

const DIRECTORY: &str = env!("CARGO_TARGET_TMPDIR");

/// Only ends what hangs.
const LIMIT: Duration = Duration::from_mins(2);

async fn broker(topics: &[(&str, i32)]) -> (TestBroker, Client) {
    let broker = TestBroker::start(DIRECTORY).unwrap();
    let client = Client::connect(&broker.address()).await.unwrap();
    for &(name, partitions) in topics {
        let topic = NewTopic::new(name).partitions(partitions);
        client.admin().create_topic(topic).await.unwrap();
    }
    (broker, client)
}

async fn send(client: &Client, topic: &str, values: &[String]) {
    let producer = client.producer().build().await.unwrap();
    let records = values.iter().map(|value| Record::to(topic).key(value).value(value));
    drop(producer.send_all(records).await);
    producer.close().await.unwrap();
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("order {number}")).collect()
}

async fn receive(client: &Client, topic: &str, count: usize) -> Vec<ConsumerRecord> {
    let consumer = client.consumer().topics([topic]).start(Start::Earliest);
    let mut consumer = consumer.build().await.unwrap();
    let mut received = Vec::new();
    while received.len() < count {
        received.extend(consumer.recv_many(count - received.len()).await.unwrap());
    }
    received
}

fn text(record: &ConsumerRecord) -> String {
    String::from_utf8(record.value.as_deref().unwrap().to_vec()).unwrap()
}

/// How many records the group has yet to do.
async fn lag(client: &Client, group: &str) -> u64 {
    let lags = client.admin().groups().lag(group).await.unwrap();
    lags.iter().map(|partition| partition.lag().unwrap()).sum()
}

#[tokio::test]
async fn low_latency_sends_each_record_and_tells_how_long_they_took() {
    let (_broker, client) = broker(&[("pings", 1)]).await;
    let latency = timeout(LIMIT, low_latency::run(&client, 50)).await.unwrap().unwrap();
    assert_eq!(latency.count, 50);
    assert!(latency.p50 > Duration::ZERO && latency.p50 <= latency.p99);
}

#[tokio::test]
async fn at_least_once_writes_an_invoice_for_each_order_and_commits_all() {
    let (_broker, client) = broker(&[("orders", 4), ("invoices", 4)]).await;
    send(&client, "orders", &numbered(1000)).await;
    timeout(LIMIT, at_least_once::run(&client, 1000))
        .await
        .unwrap()
        .unwrap();
    let invoices: BTreeSet<_> = receive(&client, "invoices", 1000).await.iter().map(text).collect();
    assert_eq!(invoices.len(), 1000);
    assert_eq!(lag(&client, "invoicing").await, 0);
}

#[tokio::test]
async fn two_members_of_a_group_handle_every_record_once() {
    let (_broker, client) = broker(&[("orders", 4)]).await;
    send(&client, "orders", &numbered(100)).await;
    let handled = timeout(LIMIT, group::run(&client, 100)).await.unwrap().unwrap();
    let orders: BTreeSet<_> = handled.iter().map(|(_, record)| text(record)).collect();
    assert_eq!((handled.len(), orders.len()), (100, 100));
    assert_eq!(lag(&client, "workers").await, 0);
}

#[tokio::test]
async fn records_that_cannot_be_handled_are_put_aside_with_the_reason_and_hold_up_no_other() {
    let (_broker, client) = broker(&[("orders", 1), ("orders-dead", 1)]).await;
    send(&client, "orders", &numbered(20)).await;
    let handled = std::sync::Mutex::new(Vec::new());
    let handle = |record: &ConsumerRecord| {
        let (order, mut handled) = (text(record), handled.lock().unwrap());
        let attempts = handled.iter().filter(|other| **other == order).count();
        handled.push(order.clone());
        match order.as_str() {
            "order 3" => Err("it is the third".to_owned()),
            "order 5" if attempts < 2 => Err("not yet".to_owned()),
            _ => Ok(()),
        }
    };
    timeout(LIMIT, dead_letters::run(&client, 20, handle))
        .await
        .unwrap()
        .unwrap();
    let expected: Vec<_> = numbered(20)
        .into_iter()
        .flat_map(|order| {
            let attempts = if ["order 3", "order 5"].contains(&order.as_str()) {
                3
            } else {
                1
            };
            vec![order; attempts]
        })
        .collect();
    assert_eq!(*handled.lock().unwrap(), expected);
    let letters = receive(&client, "orders-dead", 1).await;
    assert_eq!(
        (text(&letters[0]).as_str(), letters[0].key.as_deref()),
        ("order 3", Some(&b"order 3"[..]))
    );
    let headers = &letters[0].headers;
    assert_eq!(headers[0].value.as_deref(), Some(&b"orders-0 at 3"[..]));
    assert_eq!(headers[1].value.as_deref(), Some(&b"it is the third"[..]));
    assert_eq!(
        client
            .admin()
            .describe_topic("orders-dead")
            .await
            .unwrap()
            .partitions
            .len(),
        1
    );
    assert_eq!(lag(&client, "orders").await, 0);
}

#[tokio::test]
async fn a_program_that_is_told_to_stop_finishes_what_it_has_and_nothing_is_done_again() {
    let (_broker, client) = broker(&[("orders", 2), ("invoices", 1)]).await;
    send(&client, "orders", &numbered(10)).await;
    let stop = async { drop(receive(&client, "invoices", 10).await) };
    timeout(LIMIT, Box::pin(shutdown::run(&client, stop)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(lag(&client, "copying").await, 0);
    send(&client, "orders", &["one more".to_owned()]).await;
    let stop = async { drop(receive(&client, "invoices", 11).await) };
    timeout(LIMIT, Box::pin(shutdown::run(&client, stop)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(text(&receive(&client, "invoices", 11).await[10]), "one more");
}

#[tokio::test]
async fn a_test_with_a_broker_of_its_own_passes_and_leaves_nothing_over() {
    let directory = tempfile::tempdir_in(DIRECTORY).unwrap();
    let run = embedded_broker::run(directory.path().to_str().unwrap());
    timeout(LIMIT, run).await.unwrap().unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
