//! What administration promises.

use std::time::Duration;

use headwater_protocol::error::ErrorCode;
use headwater_protocol::frame::Api;
use tokio::time::Instant;

use super::broker::Harm;
use super::network::Network;
use super::{Broker, builder, one_broker};
use crate::{Client, Error, NewTopic, Offset, OffsetSpec, PartitionIndex, Record, Sign, Timestamp, TopicAlteration};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn topics_are_created_listed_and_deleted() {
    let (_broker, client) = one_broker().await;
    let admin = client.admin();
    for name in ["b", "a"] {
        let created = admin.create_topic(NewTopic::new(name).partitions(3)).await.unwrap();
        assert_eq!(created.partitions, 3);
    }
    let exists = admin.create_topic(NewTopic::new("a")).await.unwrap_err();
    assert_eq!(exists.code(), Some(ErrorCode::TopicAlreadyExists));
    assert!(!exists.is_retriable());
    let topics = admin.topics().await.unwrap();
    let listed: Vec<_> = topics
        .iter()
        .map(|topic| (topic.name.as_str(), topic.partitions))
        .collect();
    assert_eq!(listed, [("a", 3), ("b", 3)]);
    admin.delete_topic("a").await.unwrap();
    assert_eq!(admin.topics().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_missing_topic_is_an_error_at_once_and_an_illegal_name_never_leaves_the_client() {
    let (broker, client) = one_broker().await;
    let admin = client.admin();
    let before = Instant::now();
    assert!(matches!(
        admin.delete_topic("nowhere").await,
        Err(Error::UnknownTopic(_))
    ));
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert!(matches!(
        admin.delete_topic("a b").await,
        Err(Error::IllegalTopicName { .. })
    ));
    assert!(matches!(
        admin.create_topic(NewTopic::new("")).await,
        Err(Error::IllegalTopicName { .. })
    ));
    assert_eq!(broker.requests(Api::DeleteTopic), 1);
    assert_eq!(broker.requests(Api::CreateTopic), 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_altered_as_a_whole_and_its_new_partitions_are_written_to() {
    let (broker, client) = one_broker().await;
    let admin = client.admin();
    broker.create_topic("t", 2);
    let producer = client.producer().build().await.unwrap();
    assert_eq!(producer.partition_count("t").await.unwrap(), 2);
    let change = TopicAlteration::of("t")
        .set("retention.ms", 1000)
        .reset("segment.ms")
        .partitions(4);
    assert_eq!(admin.alter_topic(change.clone().validate_only(true)).await.unwrap(), 4);
    assert_eq!(broker.state.lock().altered, []);
    assert_eq!(admin.alter_topic(change).await.unwrap(), 4);
    let altered = broker.state.lock().altered.clone();
    let expected = [("retention.ms", Some("1000")), ("segment.ms", None)];
    assert_eq!(
        altered,
        expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
    );
    assert_eq!(admin.create_partitions("t", 5).await.unwrap(), 5);
    let record = Record::to("t").value("v").partition(PartitionIndex::new(4));
    producer.send(record).await.unwrap().await.unwrap();
    let fewer = admin.create_partitions("t", 1).await.unwrap_err();
    assert_eq!(fewer.code(), Some(ErrorCode::InvalidPartitions));
    let unknown = admin.create_partitions("nowhere", 1).await;
    assert!(matches!(unknown, Err(Error::UnknownTopic(_))));
}

#[tokio::test(start_paused = true)]
async fn a_broker_says_how_it_is_set_and_keeps_its_secrets() {
    let (_broker, client) = one_broker().await;
    let described = client.admin().describe_broker().await.unwrap();
    assert_eq!((described.id.get(), &*described.version), (1, "1.2.3"));
    let settings = described.settings.iter();
    let settings: Vec<_> = settings
        .map(|setting| (&*setting.name, setting.value.as_deref()))
        .collect();
    assert_eq!(settings, [("log.level", Some("low")), ("secret", None)]);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_the_broker_refuses_is_an_error_that_says_so() {
    let (_broker, client) = one_broker().await;
    let error = client.admin().describe_topic("t").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnsupportedVersion));
    assert!(!error.is_retriable());
}

#[tokio::test(start_paused = true)]
async fn offsets_are_looked_up_at_the_core_that_owns_the_partition() {
    let network = Network::new();
    let broker = Broker::start(&network, 2);
    let client = builder(&network, 1).build().await.unwrap();
    broker.create_topic("t", 2);
    let producer = client.producer().build().await.unwrap();
    for i in 0..5 {
        let time = Timestamp::new(1000 * i);
        let record = Record::to("t")
            .value("v")
            .partition(PartitionIndex::new(1))
            .timestamp(time);
        producer.send(record).await.unwrap().await.unwrap();
    }
    let admin = client.admin();
    let [zero, five] = [Offset::ZERO, Offset::new(5)].map(Some);
    assert_eq!(admin.list_offsets("t", OffsetSpec::Latest).await.unwrap(), [zero, five]);
    assert_eq!(
        admin.list_offsets("t", OffsetSpec::Earliest).await.unwrap(),
        [zero, zero]
    );
    let at = |time| OffsetSpec::Timestamp(Timestamp::new(time));
    let one = PartitionIndex::new(1);
    assert_eq!(
        admin.list_offset("t", one, at(2500)).await.unwrap(),
        Some(Offset::new(3))
    );
    assert_eq!(admin.list_offset("t", one, at(9999)).await.unwrap(), None);
    let wrong = admin.list_offset("t", PartitionIndex::new(2), OffsetSpec::Latest).await;
    assert!(
        matches!(wrong, Err(Error::UnknownPartition { partitions: 2, .. })),
        "{wrong:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_by_its_timeout_whatever_the_broker_does() {
    let network = Network::new();
    let broker = Broker::start(&network, 1);
    let limits = builder(&network, 1)
        .call_timeout(10 * SECOND)
        .request_timeout(3 * SECOND);
    let client = limits.clone().build().await.unwrap();
    broker.harm(Harm {
        silent: true,
        ..Harm::default()
    });
    let before = Instant::now();
    let error = client.admin().topics().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Timeout {
                operation: "list topics",
                last: Some(_),
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.is_retriable());
    assert!(before.elapsed() <= 10 * SECOND, "{:?}", before.elapsed());

    let before = Instant::now();
    let error = limits.clone().build().await.unwrap_err();
    let sign = Sign::Silent;
    assert!(
        matches!(error, Error::NotHeadwater { sign: told, .. } if told == sign),
        "{error:?}"
    );
    assert!(before.elapsed() <= 10 * SECOND, "{:?}", before.elapsed());
    broker.stop();
    let error = limits.build().await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(matches!(client.admin().topics().await, Err(Error::Timeout { .. })));
}

#[tokio::test(start_paused = true)]
async fn any_broker_of_the_bootstrap_list_will_do() {
    let network = Network::new();
    let _broker = Broker::start(&network, 1);
    let builder = builder(&network, 1).bootstrap(["gone:1, gone:2"]);
    builder.build().await.unwrap().admin().topics().await.unwrap();
    assert!(matches!(
        Client::builder().build().await,
        Err(Error::Config {
            setting: "bootstrap",
            ..
        })
    ));
    assert!(matches!(
        Client::builder()
            .bootstrap(["a"])
            .call_timeout(Duration::MAX)
            .build()
            .await,
        Err(Error::Config {
            setting: "call_timeout",
            ..
        })
    ));
    assert!(matches!(
        Client::connect("no port").await,
        Err(Error::Config {
            setting: "bootstrap",
            ..
        })
    ));
}
