//! Records and batches at the limits of a topic: what fits is stored, whatever its neighbours are, and what does not is named.

use std::time::Duration;

use headwater_protocol::batch::BatchBuilder;
use headwater_protocol::error::ErrorCode;
use headwater_protocol::frame::Api;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{numbered, one_producer, send_numbered};
use crate::producer::{Acks, Delivery};
use crate::tests::broker::Harm;
use crate::tests::one_broker;
use crate::{Compression, Error, Producer, Record, Timestamp};

/// Values that compression makes smaller, and one that it does not.
fn texts() -> [Vec<u8>; 2] {
    let noise = (0..3000_u32).map(|number| (number.wrapping_mul(2_654_435_761).rotate_left(number % 31) >> 7) as u8);
    [b"a book ".repeat(500), noise.collect()]
}

/// Bytes of the batch that holds this value alone, as it is sent.
fn size_of(value: &[u8], compression: Compression) -> usize {
    let mut builder = BatchBuilder::new(compression, 0);
    builder.append(Timestamp::new(1), None, Some(value), &[]).unwrap();
    let lone = BatchBuilder::lone_size(None, Some(value), &[]);
    assert_eq!(builder.len(), lone);
    // What compression makes larger goes as it is, if only that fits.
    builder.build().bytes().len()
}

async fn end_of(producer: &Producer, value: &[u8]) -> Result<(), Error> {
    let record = Record::to("t").value(value).timestamp(Timestamp::new(1));
    producer.send(record).await?.await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_client_and_broker_agree_to_the_byte() {
    for tells in [true, false] {
        for compression in Compression::ALL {
            for value in texts() {
                let size = size_of(&value, compression).min(size_of(&value, Compression::None));
                let (broker, client) = one_broker().await;
                broker.create_topic("t", 1);
                for (limit, fits) in [(size - 1, false), (size, true), (size + 1, true)] {
                    broker.limit("t", limit, tells);
                    client
                        .cluster
                        .refresh(&[crate::TopicName::new("t").unwrap()])
                        .await
                        .unwrap();
                    let producer = client.producer().compression(compression).build().await.unwrap();
                    let end = end_of(&producer, &value).await;
                    assert_eq!(end.is_ok(), fits, "{compression}, {size} bytes under {limit}: {end:?}");
                    if let Err(error) = end {
                        assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
                        let told = matches!(error, Error::RecordTooLarge { size_max, .. } if size_max == limit);
                        assert_eq!(told, tells, "{error:?}");
                    }
                }
                assert_eq!(broker.state.lock().topics["t"].partitions[0].batches.len(), 2);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_a_topic_takes_less_than_a_batch_ordinary_records_go_in_batches_that_fit() {
    for acks in [Acks::All, Acks::None] {
        for compression in [Compression::None, Compression::Lz4] {
            let (broker, producer) = one_producer(|builder| builder.acks(acks).compression(compression)).await;
            broker.limit("t", 1500, true);
            let deliveries = send_numbered(&producer, 0..2000).await;
            for delivery in deliveries {
                delivery.await.unwrap();
            }
            producer.close().await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(broker.values("t", 0), numbered(0..2000));
        }
    }
}

/// A lone large record among many small ones: the deliveries in order.
async fn send_with_a_large_one(producer: &Producer, large: &str) -> Vec<Delivery> {
    let mut deliveries = send_numbered(producer, 0..500).await;
    deliveries.push(producer.send(Record::to("t").value(large)).await.unwrap());
    deliveries.extend(send_numbered(producer, 500..1000).await);
    deliveries
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_that_is_refused_for_its_size_only_the_record_that_is_too_large_fails() {
    let mut random = SmallRng::seed_from_u64(0);
    let noise: String = (0..2000)
        .map(|_| char::from(random.random_range(b'a'..=b'z')))
        .collect();
    for (tells, idempotent) in [(true, true), (false, true), (true, false), (false, false)] {
        for compression in Compression::ALL {
            let (broker, producer) = one_producer(|builder| {
                let builder = builder.compression(compression).idempotent(idempotent);
                builder.batch_bytes(8 << 10).linger(Duration::from_millis(5))
            })
            .await;
            // It is known with its old limit, and batches of that are on their way.
            producer.partition_count("t").await.unwrap();
            broker.harm(Harm {
                delay_max: Duration::from_millis(20),
                ..Harm::default()
            });
            broker.limit("t", 600, tells);
            let mut failed = Vec::new();
            for (number, delivery) in send_with_a_large_one(&producer, &noise).await.into_iter().enumerate() {
                match delivery.await {
                    Ok(metadata) => {
                        let before = number - failed.len();
                        assert_eq!(metadata.offset.unwrap().get() as usize, before, "{compression}");
                    }
                    Err(error) => failed.push((number, error)),
                }
            }
            let [(500, error)] = &failed[..] else {
                panic!("{compression}: {failed:?}")
            };
            assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
            assert_eq!(matches!(error, Error::RecordTooLarge { .. }), tells, "{error}");
            assert_eq!(broker.values("t", 0), numbered(0..1000), "{compression}");
            assert_eq!(producer.memory_used(), 0);
            assert!(producer.flush().await.is_err(), "a flush tells of it");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_known_to_be_too_large_is_refused_before_it_meets_others() {
    let (broker, producer) = one_producer(|builder| builder).await;
    broker.limit("t", 1000, true);
    let before = broker.requests(Api::Produce);
    let error = producer
        .send(Record::to("t").value(&"x".repeat(2000)))
        .await
        .unwrap_err();
    let Error::RecordTooLarge { topic, size, size_max } = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        (topic.as_str(), size, size_max),
        ("t", size_of(&[b'x'; 2000], Compression::None), 1000)
    );
    assert_eq!(broker.requests(Api::Produce), before);
    send_numbered(&producer, 0..1).await.remove(0).await.unwrap();
    producer.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_all_parts_of_a_batch_that_is_split() {
    let (broker, producer) = one_producer(|builder| builder.linger(Duration::from_secs(1))).await;
    producer.partition_count("t").await.unwrap();
    broker.limit("t", 400, true);
    drop(send_numbered(&producer, 0..500).await);
    producer.flush().await.unwrap();
    assert_eq!(broker.values("t", 0), numbered(0..500));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_raised_is_known_before_a_record_is_refused_for_the_old_one() {
    let (broker, producer) = one_producer(|builder| builder).await;
    broker.limit("t", 1000, true);
    let large = "x".repeat(2000);
    producer.send(Record::to("t").value(&large)).await.unwrap_err();
    broker.limit("t", 4000, true);
    producer
        .send(Record::to("t").value(&large))
        .await
        .unwrap()
        .await
        .unwrap();
}
