//! What consumers promise when brokers do not answer, batches are damaged, and topics go.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use headwater_protocol::error::ErrorCode;
use tokio::time::Instant;

use super::{P0, P1, SECOND, consumer, fill, next, of_all, offsets};
use crate::tests::broker::Harm;
use crate::tests::network::Network;
use crate::tests::{Broker, builder, one_broker};
use crate::{Consumer, Error, Offset, PartitionIndex, Start};

/// Flips a bit of a batch of partition 0 of "t", and only that one.
fn flip(broker: &Broker, number: usize, bit: usize, is_gullible: bool) {
    let mut state = broker.state.lock();
    let partition = &mut state.topics.get_mut("t").unwrap().partitions[0];
    let mut bytes = partition.batches[number].to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    partition.damaged = HashMap::from([(number, Bytes::from(bytes))]);
    partition.is_gullible = is_gullible;
}

/// Flips a bit of a batch of partition 0 of "t", in this byte.
fn damage(broker: &Broker, batch: usize, byte: usize) {
    flip(broker, batch, byte * 8, false);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_whose_connection_has_died_unnoticed_is_sent_again_on_another() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    let mut consumer = of_all(&client).await;
    fill(&broker, "t", 0, 1);
    assert_eq!(offsets(&mut consumer, 10).await, (0..10).collect::<Vec<_>>());
    // Nothing but a fetch waits for an answer, and none comes.
    broker.harm(Harm {
        silent: true,
        ..Harm::default()
    });
    tokio::time::sleep(2 * SECOND).await;
    broker.harm(Harm::default());
    fill(&broker, "t", 0, 1);
    let next = tokio::time::timeout(60 * SECOND, consumer.recv()).await;
    assert_eq!(next.expect("it is waited for for ever").unwrap().offset.get(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_answer_is_reported_each_time_and_read_from_when_it_does() {
    let network = Network::new();
    let broker = Broker::start(&network, 1);
    let limits = builder(&network, 1)
        .call_timeout(20 * SECOND)
        .request_timeout(5 * SECOND);
    let client = limits.build().await.unwrap();
    broker.create_topic("t", 1);
    let mut consumer = of_all(&client).await;
    broker.harm(Harm {
        silent: true,
        ..Harm::default()
    });
    let before = Instant::now();
    for round in 1..=2 {
        let error = consumer.recv().await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Timeout {
                    operation: "fetch",
                    last: Some(_),
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.is_retriable());
        let elapsed = before.elapsed();
        assert!(
            elapsed >= round * 20 * SECOND && elapsed < round * 40 * SECOND,
            "{elapsed:?}"
        );
    }
    broker.stop();
    assert!(matches!(
        consumer.recv().await,
        Err(Error::Timeout { operation: "fetch", .. })
    ));
    broker.harm(Harm::default());
    broker.listen();
    fill(&broker, "t", 0, 1);
    assert_eq!(next(&mut consumer).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_batch_is_reported_and_can_be_passed_by_a_seek() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 2);
    (0..2).for_each(|partition| fill(&broker, "t", partition, 3));
    damage(&broker, 1, 61);
    let mut consumer = of_all(&client).await;
    let mut got: HashMap<PartitionIndex, Vec<u64>> = HashMap::new();
    let mut damaged = 0;
    while got.values().map(Vec::len).sum::<usize>() < 40 {
        match consumer.recv().await {
            Ok(record) => got.entry(record.partition).or_default().push(record.offset.get()),
            Err(Error::CorruptBatch {
                partition: P0, offset, ..
            }) => {
                assert_eq!(offset, Offset::new(10));
                damaged += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(damaged, 1);
    assert_eq!(consumer.position("t", P0), Some(Offset::new(10)));
    assert!(got[&P0].iter().copied().eq(0..10) && got[&P1].iter().copied().eq(0..30));
    consumer.seek("t", P0, Offset::new(20)).await.unwrap();
    assert_eq!(next(&mut consumer).await, 20);
}

/// What is received of the thirty records of "t", until an error.
async fn received(consumer: &mut Consumer) -> (Vec<u64>, Option<Error>) {
    let mut got = Vec::new();
    while got.len() < 30 {
        match consumer.recv_timeout(10 * SECOND).await {
            Ok(Some(record)) => got.push(record.offset.get()),
            Ok(None) => break,
            Err(error) => return (got, Some(error)),
        }
    }
    (got, None)
}

#[tokio::test(start_paused = true)]
async fn no_flipped_bit_of_a_batch_costs_a_record_without_an_error_that_names_the_place() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    fill(&broker, "t", 0, 3);
    for (number, is_gullible) in [(0, false), (1, false), (2, false), (0, true), (1, true), (2, true)] {
        let size = broker.state.lock().topics["t"].partitions[0].batches[number].len();
        for bit in (0..61 * 8).chain((61 * 8..size * 8).step_by(29)) {
            let byte = bit / 8;
            if byte < 8 && is_gullible && number == 2 {
                // Only the broker can know that the last batch is elsewhere, and this one does not.
                continue;
            }
            flip(&broker, number, bit, is_gullible);
            let (got, error) = received(&mut of_all(&client).await).await;
            let place = format!("bit {bit} of batch {number}, {is_gullible}: {got:?} {error:?}");
            if (12..16).contains(&byte) {
                assert!(
                    error.is_none() && got.into_iter().eq(0..30),
                    "the leader epoch is of no concern: {place}"
                );
                continue;
            }
            let first = number as u64 * 10;
            assert!(got.into_iter().eq(0..first), "{place}");
            let Some(Error::CorruptBatch {
                topic,
                partition,
                offset,
                ..
            }) = error
            else {
                panic!("{place}")
            };
            assert_eq!((topic.as_str(), partition, offset.get()), ("t", P0, first), "{place}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn damage_that_the_broker_finds_is_reported_at_once_and_with_its_place() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    fill(&broker, "t", 0, 2);
    broker.harm(Harm {
        fetch_errors: [ErrorCode::CorruptMessage].into(),
        ..Harm::default()
    });
    let mut consumer = of_all(&client).await;
    let error = consumer.recv().await.unwrap_err();
    let Error::CorruptBatch { partition, offset, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((*partition, *offset), (P0, Offset::ZERO));
    assert!(!error.is_retriable());
    consumer.seek("t", P0, Offset::new(10)).await.unwrap();
    assert_eq!(next(&mut consumer).await, 10);
}

#[tokio::test(start_paused = true)]
async fn without_checking_crcs_a_wrong_one_is_not_noticed() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    fill(&broker, "t", 0, 1);
    damage(&broker, 0, 17);
    let mut checking = of_all(&client).await;
    assert!(matches!(checking.recv().await, Err(Error::CorruptBatch { .. })));
    let trusting = client.consumer().topics(["t"]).start(Start::Earliest).check_crcs(false);
    let mut trusting = trusting.build().await.unwrap();
    assert_eq!(offsets(&mut trusting, 10).await.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_moves_is_followed_and_passing_errors_are_passed_over() {
    let network = Network::new();
    let broker = Broker::start(&network, 3);
    let client = builder(&network, 1).build().await.unwrap();
    broker.create_topic("t", 1);
    fill(&broker, "t", 0, 1);
    let mut consumer = of_all(&client).await;
    let mut expected = 0..;
    for core in [0, 2, 1] {
        broker.state.lock().topics.get_mut("t").unwrap().partitions[0].core = core;
        let errors = [ErrorCode::KafkaStorageError, ErrorCode::LeaderNotAvailable].into();
        broker.harm(Harm {
            fetch_errors: errors,
            ..Harm::default()
        });
        fill(&broker, "t", 0, 1);
        for _ in 0..10 {
            assert_eq!(Some(next(&mut consumer).await), expected.next());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_created_anew_is_read_from_its_start_and_a_deleted_one_is_reported() {
    let (broker, _client, mut consumer) = consumer(1, 2, |builder| builder).await;
    assert_eq!(offsets(&mut consumer, 20).await.len(), 20);
    broker.create_topic("t", 1);
    fill(&broker, "t", 0, 1);
    assert_eq!(offsets(&mut consumer, 10).await, (0..10).collect::<Vec<_>>());
    assert_eq!(consumer.position("t", P0), Some(Offset::new(10)));

    broker.state.lock().topics.clear();
    let before = Instant::now();
    let error = consumer.recv().await.unwrap_err();
    assert!(matches!(error, Error::UnknownTopic(_)), "{error:?}");
    assert!(before.elapsed() < 5 * SECOND, "{:?}", before.elapsed());
    broker.create_topic("t", 1);
    fill(&broker, "t", 0, 1);
    assert_eq!(next(&mut consumer).await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_refused_when_the_consumer_is_built() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    let consumer = || client.consumer().topics(["t"]);
    for builder in [
        client.consumer(),
        client.consumer().assign("t", []),
        consumer().partition_bytes_max(0),
        consumer().fetch_bytes_max(1 << 30),
        consumer().prefetch_bytes(10),
        consumer().fetch_bytes_min(16 << 20),
        consumer().wait_max(Duration::from_hours(1)),
    ] {
        let built = builder.clone().build().await;
        assert!(matches!(built, Err(Error::Config { .. })), "{builder:?}");
    }
    let unknown = client.consumer().topics(["nowhere"]).build().now_or_never();
    assert!(unknown.is_none());
    let unknown = client.consumer().topics(["nowhere"]).build().await.unwrap_err();
    assert!(matches!(unknown, Error::UnknownTopic(_)));
}
