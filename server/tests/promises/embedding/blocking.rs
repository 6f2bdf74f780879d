//! The blocking client, against a broker in this process.

use std::sync::mpsc;
use std::time::Duration;

use headwater_client::blocking::{Client, Producer};
use headwater_client::{Error, NewTopic, Offset, OffsetSpec, PartitionIndex, Record, Start};

use super::embedded_broker::TestBroker;

/// Only ends what hangs.
const LIMIT: Duration = Duration::from_mins(2);

/// More operations than a task of tokio may do before it has to yield.
const MANY: usize = 1000;

fn broker() -> (TestBroker, Client) {
    let broker = TestBroker::start(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let client = Client::connect(&broker.address()).unwrap();
    let topic = client.admin().create_topic(NewTopic::new("t").partitions(1)).unwrap();
    assert_eq!(topic.partitions, 1);
    (broker, client)
}

/// Fails if it takes longer than [`LIMIT`].
fn within_the_limit(call: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        call();
        done.send(()).unwrap();
    });
    assert_ne!(
        is_done.recv_timeout(LIMIT),
        Err(mpsc::RecvTimeoutError::Timeout),
        "it hangs"
    );
    thread.join().unwrap();
}

fn send_numbered(producer: &Producer, count: usize) {
    for number in 0..count {
        let sent = producer.send(Record::to("t").value(&number.to_string())).unwrap();
        let stored = sent.wait().unwrap();
        assert_eq!(stored.offset, Some(Offset::new(number as u64)));
    }
}

#[test]
fn without_a_runtime_records_go_to_a_topic_and_come_back() {
    within_the_limit(|| {
        let (_broker, client) = broker();
        let producer = client
            .producer(|builder| builder.linger(Duration::from_millis(1)))
            .unwrap();
        let values: Vec<_> = (0..MANY).map(|number| number.to_string()).collect();
        let sent = producer.send_all(values.iter().map(|value| Record::to("t").value(value)));
        for (offset, sent) in (0..).zip(sent) {
            assert_eq!(sent.unwrap().wait().unwrap().offset, Some(Offset::new(offset)));
        }
        producer.send_and_forget(Record::to("t").value("last"));
        producer.close().unwrap();
        assert_eq!(producer.statistics().records_acknowledged, MANY as u64 + 1);

        let mut consumer = client
            .consumer(|builder| builder.topics(["t"]).start(Start::Earliest))
            .unwrap();
        let mut received = Vec::new();
        while received.len() < MANY {
            received.extend(consumer.recv_many(MANY - received.len()).unwrap());
        }
        for (record, value) in received.iter().zip(&values) {
            assert_eq!(record.value.as_deref(), Some(value.as_bytes()));
        }
        assert_eq!(consumer.recv().unwrap().value.as_deref(), Some(&b"last"[..]));
        assert!(consumer.recv_timeout(Duration::from_millis(1)).unwrap().is_none());
        let end = Offset::new(MANY as u64 + 1);
        assert_eq!(
            client.admin().list_offsets("t", OffsetSpec::Latest).unwrap(),
            [Some(end)]
        );
    });
}

#[test]
fn a_group_consumer_commits_and_the_next_goes_on_behind_it() {
    within_the_limit(|| {
        let (_broker, client) = broker();
        let producer = client.producer(|builder| builder).unwrap();
        send_numbered(&producer, 10);
        for expected in 0..10_u64 {
            let mut consumer = client.group_consumer("g", |builder| builder.topics(["t"])).unwrap();
            assert_eq!(consumer.recv().unwrap().offset, Offset::new(expected));
            consumer.close().unwrap();
        }
    });
}

#[test]
fn errors_are_those_of_the_asynchronous_client() {
    within_the_limit(|| {
        assert!(matches!(Client::connect(""), Err(Error::Config { .. })));
        let (broker, _client) = broker();
        let builder = headwater_client::Client::builder().bootstrap([broker.address()]);
        let client = Client::build(builder.call_timeout(Duration::from_millis(500))).unwrap();
        let mut consumer = client.consumer(|builder| builder.topics(["t"])).unwrap();
        let partition = PartitionIndex::new(7);
        assert!(matches!(
            consumer.pause("t", partition),
            Err(Error::UnknownPartition { .. })
        ));
        drop(broker);
        assert!(client.admin().topics().is_err());
    });
}

#[test]
fn within_an_asynchronous_task_any_number_of_calls_works() {
    within_the_limit(|| {
        let (_broker, client) = broker();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let task = tokio::spawn(async move {
                let producer = client.producer(|builder| builder).unwrap();
                send_numbered(&producer, MANY / 10);
                let mut consumer = client.consumer(|builder| builder.topics(["t"])).unwrap();
                for _ in 0..MANY {
                    assert!(consumer.recv_timeout(Duration::ZERO).unwrap().is_none());
                }
                // The last of its handles, and its runtime with it.
                drop((producer, consumer, client));
            });
            task.await.unwrap();
        });
    });
}

#[test]
fn what_a_program_calls_itself_is_told_of_the_members_of_its_groups() {
    within_the_limit(|| {
        let (broker, client) = broker();
        send_numbered(&client.producer(|builder| builder).unwrap(), 1);
        let named = |id: &str| {
            let builder = headwater_client::Client::builder().bootstrap([broker.address()]);
            Client::build(builder.client_id(id))
        };
        for too_long_or_short in ["", &"x".repeat(129)] {
            let refused = named(too_long_or_short);
            assert!(
                matches!(
                    refused,
                    Err(Error::Config {
                        setting: "client_id",
                        ..
                    })
                ),
                "{refused:?}"
            );
        }
        let longest = "x".repeat(128);
        let called = [named("billing 1"), named(&longest), Ok(client.clone())];
        for (number, (client, expected)) in called
            .into_iter()
            .zip(["billing 1", &longest, "headwater-client"])
            .enumerate()
        {
            let (client, group) = (client.unwrap(), number.to_string());
            let mut consumer = client.group_consumer(&group, |builder| builder.topics(["t"])).unwrap();
            consumer.recv().unwrap();
            let groups = client.asynchronous().admin().groups();
            let told = client.wait(groups.describe(&group)).unwrap();
            assert_eq!(told.members[0].client_id, expected);
        }
    });
}
