//! What producers promise when single things go wrong.

mod ends;
mod sizes;

use std::time::Duration;

use futures::FutureExt;
use headwater_protocol::error::ErrorCode;
use headwater_protocol::frame::Api;
use tokio::time::{Instant, sleep};

use super::broker::{Harm, Partition};
use super::network::Network;
use super::{Broker, builder, one_broker};
use crate::producer::{Acks, Delivery, ProducerBuilder, TopicPartitions};
use crate::{Compression, Error, Offset, PartitionIndex, Producer, Record, Timestamp};

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) async fn send_numbered(producer: &Producer, range: std::ops::Range<u32>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for i in range {
        deliveries.push(producer.send(Record::to("t").value(&i.to_string())).await.unwrap());
    }
    deliveries
}

pub(super) fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}

/// A broker with the topic "t" of one partition, and a producer.
pub(super) async fn one_producer(
    configure: impl FnOnce(ProducerBuilder) -> ProducerBuilder,
) -> (std::sync::Arc<Broker>, Producer) {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    let producer = configure(client.producer()).build().await.unwrap();
    (broker, producer)
}

#[tokio::test(start_paused = true)]
async fn records_are_stored_in_order_and_each_learns_its_offset() {
    for compression in [Compression::None, Compression::Zstd] {
        let (broker, producer) = one_producer(|builder| builder.compression(compression)).await;
        let deliveries = send_numbered(&producer, 0..1000).await;
        for (i, delivery) in deliveries.into_iter().enumerate() {
            let metadata = delivery.await.unwrap();
            assert_eq!(metadata.offset, Some(Offset::new(i as u64)));
            assert_eq!((metadata.topic.as_str(), metadata.partition.get()), ("t", 0));
        }
        assert_eq!(broker.values("t", 0), numbered(0..1000));
    }
}

#[tokio::test(start_paused = true)]
async fn without_linger_a_single_record_waits_for_nothing() {
    let (_broker, producer) = one_producer(|builder| builder).await;
    let before = Instant::now();
    producer.send(Record::to("t").value("v")).await.unwrap().await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn records_that_linger_together_go_in_one_batch_when_the_time_is_over() {
    let linger = Duration::from_millis(100);
    let (broker, producer) = one_producer(|builder| builder.linger(linger)).await;
    let before = Instant::now();
    let mut deliveries = Vec::new();
    for i in 0..5 {
        deliveries.extend(send_numbered(&producer, i..i + 1).await);
        sleep(Duration::from_millis(10)).await;
    }
    deliveries.remove(0).await.unwrap();
    assert_eq!(before.elapsed(), linger);
    assert_eq!(broker.requests(Api::Produce), 1);
    assert_eq!(broker.values("t", 0), numbered(0..5));
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_and_a_flush_do_not_wait_for_the_linger() {
    let (broker, producer) = one_producer(|builder| builder.linger(60 * SECOND).batch_bytes(1024)).await;
    let before = Instant::now();
    let full = producer.send(Record::to("t").value(&"x".repeat(600))).await.unwrap();
    full.await.unwrap();
    drop(producer.send(Record::to("t").value("small")).await.unwrap());
    producer.flush().await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(broker.values("t", 0).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn under_load_batches_fill_without_linger() {
    let (broker, producer) = one_producer(|builder| builder.batch_bytes(16 << 10)).await;
    broker.harm(Harm {
        delay_max: Duration::from_millis(10),
        ..Harm::default()
    });
    for delivery in send_numbered(&producer, 0..10_000).await {
        delivery.await.unwrap();
    }
    let batches = broker.requests(Api::Produce);
    assert!(batches < 50, "{batches} batches for 100 KB");
    assert_eq!(broker.values("t", 0), numbered(0..10_000));
}

#[tokio::test(start_paused = true)]
async fn without_acks_a_record_is_delivered_once_written_and_its_offset_stays_unknown() {
    let (broker, producer) = one_producer(|builder| builder.acks(Acks::None)).await;
    let metadata = producer.send(Record::to("t").value("0")).await.unwrap().await.unwrap();
    assert_eq!(metadata.offset, None);
    producer.close().await.unwrap();
    sleep(SECOND).await;
    assert_eq!(broker.values("t", 0), ["0"]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_hangs_nobody() {
    let limit = 10 * SECOND;
    let (broker, producer) = one_producer(|builder| builder.delivery_timeout(limit).memory_max(256 << 10)).await;
    producer.partition_count("t").await.unwrap();
    broker.harm(Harm {
        silent: true,
        ..Harm::default()
    });
    let before = Instant::now();
    let delivery = producer.send(Record::to("t").value("v")).await.unwrap();
    let value = vec![0; 200 << 10];
    drop(producer.send(Record::to("t").value(&value)).await.unwrap());
    // No memory is left: the next one waits for what the timeout of the others sets free.
    let waiting = producer.send(Record::to("t").value(&value));
    let error = delivery.await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Timeout {
                operation: "deliver",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.is_retriable());
    assert_eq!(before.elapsed(), limit);
    drop(waiting.await);
    assert!(producer.flush().await.is_err());
    assert!(before.elapsed() <= 40 * SECOND, "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_comes_back_gets_everything_once_and_in_order() {
    let (broker, producer) = one_producer(|builder| builder).await;
    let mut deliveries = send_numbered(&producer, 0..100).await;
    broker.stop();
    deliveries.extend(send_numbered(&producer, 100..200).await);
    sleep(20 * SECOND).await;
    assert!((&mut deliveries[150]).now_or_never().is_none());
    broker.listen();
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    assert_eq!(broker.values("t", 0), numbered(0..200));
}

#[tokio::test(start_paused = true)]
async fn memory_and_the_window_bound_what_is_in_flight() {
    let memory_max = 1 << 20;
    let in_flight = 128 << 10;
    let (broker, producer) = one_producer(|builder| {
        builder
            .memory_max(memory_max)
            .batch_bytes(16 << 10)
            .in_flight_bytes_max(in_flight)
            .in_flight_batches_max(16)
    })
    .await;
    broker.harm(Harm {
        delay_max: Duration::from_millis(50),
        ..Harm::default()
    });
    let value = "x".repeat(1000);
    let mut refused = 0;
    let mut sent = 0;
    for _ in 0..5000 {
        match producer.try_send(&Record::to("t").value(&value)) {
            Ok(_) => sent += 1,
            Err(Error::WouldBlock(_)) => {
                refused += 1;
                drop(producer.send(Record::to("t").value(&value)).await.unwrap());
                sent += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(producer.memory_used() <= memory_max);
    }
    producer.flush().await.unwrap();
    assert!(refused > 0, "the memory was never spent");
    assert_eq!(broker.values("t", 0).len(), sent);
    let open_max = broker.state.lock().produce_bytes_open_max;
    assert!(open_max <= in_flight, "{open_max} bytes in flight");
    assert!(
        open_max > in_flight / 2,
        "only {open_max} bytes in flight: the window is not used"
    );
    assert_eq!(producer.memory_used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_send_that_waits_for_memory_does_not_wait_for_the_linger_of_others() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 3);
    let builder = client.producer().linger(60 * SECOND).memory_max(300 << 10);
    let producer = builder.build().await.unwrap();
    let before = Instant::now();
    for i in 0..9 {
        let record = Record::to("t").partition(PartitionIndex::new(i % 3));
        drop(producer.send(record.value(&vec![0; 90 << 10])).await.unwrap());
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
    producer.close().await.unwrap();
}

/// How many requests a record a millisecond for each partition makes in 40 ms, at a broker that takes 50 to answer.
async fn requests_beside_a_slow_broker(partitions: u16) -> usize {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", partitions);
    let producer = client.producer().build().await.unwrap();
    let send_to_each = async || {
        for i in 0..partitions {
            let record = Record::to("t").partition(PartitionIndex::new(i.into()));
            drop(producer.send(record.value("v")).await.unwrap());
        }
    };
    // The first batch of a partition goes alone.
    send_to_each().await;
    producer.flush().await.unwrap();
    broker.harm(Harm {
        slow: Duration::from_millis(50),
        ..Harm::default()
    });
    let before = broker.requests(Api::Produce);
    for _ in 0..40 {
        send_to_each().await;
        sleep(Duration::from_millis(1)).await;
    }
    producer.flush().await.unwrap();
    broker.requests(Api::Produce) - before
}

#[tokio::test(start_paused = true)]
async fn few_partitions_send_records_at_once_and_many_fill_batches_while_others_are_in_flight() {
    let few = requests_beside_a_slow_broker(3).await;
    assert!(few >= 3 * 4, "{few}");
    // One with the first record, one with those that came until it was acknowledged.
    let many = requests_beside_a_slow_broker(100).await;
    assert!(many <= 100 * 2 + 64 * 2, "{many}");
}

#[tokio::test(start_paused = true)]
async fn many_partitions_that_have_spent_the_memory_still_fill_their_batches() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 100);
    broker.harm(Harm {
        slow: Duration::from_millis(50),
        ..Harm::default()
    });
    let producer = client.producer().memory_max(2 << 20).build().await.unwrap();
    for i in 0..20_000 {
        let record = Record::to("t").partition(PartitionIndex::new(i % 100));
        drop(producer.send(record.value(&[0; 500])).await.unwrap());
    }
    producer.close().await.unwrap();
    let requests = broker.requests(Api::Produce);
    // Half of the memory is 20 records for each partition.
    assert!(requests <= 20_000 / 5, "{requests} batches for 20,000 records");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_topic_is_looked_for_until_the_metadata_timeout() {
    let (broker, client) = one_broker().await;
    let producer = client.producer().build().await.unwrap();
    let before = Instant::now();
    let error = producer.send(Record::to("nowhere").value("v")).await.unwrap_err();
    assert!(
        matches!(&error, Error::UnknownTopic(name) if name.as_str() == "nowhere"),
        "{error:?}"
    );
    assert!(
        before.elapsed() <= 2 * SECOND && before.elapsed() >= SECOND,
        "{:?}",
        before.elapsed()
    );
    assert!(matches!(
        producer.send(Record::to("no/where")).await,
        Err(Error::IllegalTopicName { .. })
    ));

    let record = Record::to("late").value("v");
    let late = producer.send(record);
    let create = async {
        sleep(SECOND).await;
        broker.create_topic("late", 1);
    };
    let (delivery, ()) = futures::join!(late, create);
    delivery.unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_does_not_exist_is_refused() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 2);
    let wrong = |_: &Record<'_>, topic: &TopicPartitions<'_>| PartitionIndex::new(topic.count().cast_signed());
    let producer = client.producer().partitioner(wrong).build().await.unwrap();
    let record = Record::to("t").value("v").partition(PartitionIndex::new(2));
    for record in [record, Record::to("t").value("v")] {
        let error = producer.send(record).await.unwrap_err();
        assert!(
            matches!(error, Error::UnknownPartition { partitions: 2, .. }),
            "{error:?}"
        );
    }
    // One that was added since is found.
    broker
        .state
        .lock()
        .topics
        .get_mut("t")
        .unwrap()
        .partitions
        .push(Partition::default());
    let record = Record::to("t").value("v").partition(PartitionIndex::new(2));
    producer.send(record).await.unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_moves_to_another_core_is_followed() {
    let network = Network::new();
    let broker = Broker::start(&network, 3);
    let client = builder(&network, 1).build().await.unwrap();
    broker.create_topic("t", 1);
    let producer = client.producer().build().await.unwrap();
    for core in [0, 2, 1] {
        broker.state.lock().topics.get_mut("t").unwrap().partitions[0].core = core;
        let start = u32::from(core) * 10;
        for delivery in send_numbered(&producer, start..start + 10).await {
            delivery.await.unwrap();
        }
    }
    let expected: Vec<_> = [numbered(0..10), numbered(20..30), numbered(10..20)].concat();
    assert_eq!(broker.values("t", 0), expected);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_created_anew_is_written_to_and_a_deleted_one_fails_in_time() {
    let (broker, producer) = one_producer(|builder| builder).await;
    send_numbered(&producer, 0..1).await.remove(0).await.unwrap();
    broker.create_topic("t", 1);
    send_numbered(&producer, 1..2).await.remove(0).await.unwrap();
    assert_eq!(broker.values("t", 0), ["1"]);

    broker.state.lock().topics.clear();
    let before = Instant::now();
    let error = send_numbered(&producer, 2..3).await.remove(0).await.unwrap_err();
    assert!(matches!(error, Error::UnknownTopic(_)), "{error:?}");
    assert!(before.elapsed() < 5 * SECOND, "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_fails_alone_and_those_behind_it_are_stored_once() {
    let (broker, producer) = one_producer(|builder| builder.batch_bytes(1024).linger(SECOND)).await;
    let errors = [ErrorCode::InvalidRecord].into();
    broker.harm(Harm {
        produce_errors: errors,
        delay_max: Duration::from_millis(20),
        ..Harm::default()
    });
    let deliveries = send_numbered(&producer, 0..500).await;
    let mut failed = 0;
    for delivery in deliveries {
        match delivery.await {
            Ok(_) => {}
            Err(Error::Broker {
                code: ErrorCode::InvalidRecord,
                ..
            }) => failed += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(failed > 0 && failed < 200, "{failed}");
    assert_eq!(broker.values("t", 0), numbered(failed..500));
    let flushed = producer.flush().await;
    assert!(
        matches!(
            flushed,
            Err(Error::Broker {
                code: ErrorCode::InvalidRecord,
                ..
            })
        ),
        "{flushed:?}"
    );
    assert!(producer.flush().await.is_ok(), "a failure is reported once");
}

#[tokio::test(start_paused = true)]
async fn after_a_delivery_timeout_later_records_are_stored_once_and_in_order() {
    let (broker, producer) = one_producer(|builder| builder.delivery_timeout(5 * SECOND).batch_bytes(1024)).await;
    send_numbered(&producer, 0..10).await.pop().unwrap().await.unwrap();
    broker.harm(Harm {
        refuse: 1.0,
        ..Harm::default()
    });
    let lost = send_numbered(&producer, 10..500).await;
    sleep(Duration::from_millis(4900)).await;
    let kept = send_numbered(&producer, 500..1000).await;
    for delivery in lost {
        assert!(matches!(delivery.await, Err(Error::Timeout { last: Some(_), .. })));
    }
    broker.harm(Harm::default());
    for delivery in kept {
        delivery.await.unwrap();
    }
    assert_eq!(broker.values("t", 0), [numbered(0..10), numbered(500..1000)].concat());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_has_forgotten_the_producer_stores_what_follows_once_and_in_order() {
    let (broker, producer) = one_producer(|builder| builder.batch_bytes(1024)).await;
    for round in 0..3 {
        let deliveries = send_numbered(&producer, round * 500..(round + 1) * 500).await;
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        broker.forget_producers();
    }
    assert_eq!(broker.values("t", 0), numbered(0..1500));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_delays_records_and_loses_none() {
    let (broker, producer) = one_producer(|builder| builder.batch_bytes(1024)).await;
    broker.harm(Harm {
        refuse: 1.0,
        ..Harm::default()
    });
    let deliveries = send_numbered(&producer, 0..1000).await;
    sleep(30 * SECOND).await;
    let tries = broker.requests(Api::Produce);
    assert!(
        tries < 200,
        "{tries} attempts in 30 s: the whole window is sent again and again"
    );
    broker.harm(Harm::default());
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    assert_eq!(broker.values("t", 0), numbered(0..1000));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_producer_sends_what_it_has_and_closing_it_takes_no_more() {
    let (broker, producer) = one_producer(|builder| builder.linger(60 * SECOND)).await;
    let deliveries = send_numbered(&producer, 0..10).await;
    drop(producer.clone());
    assert!(broker.values("t", 0).is_empty());
    drop(producer);
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    assert_eq!(broker.values("t", 0), numbered(0..10));

    let (broker, producer) = one_producer(|builder| builder.linger(60 * SECOND)).await;
    let _deliveries = send_numbered(&producer, 0..10).await;
    producer.clone().close().await.unwrap();
    assert_eq!(broker.values("t", 0), numbered(0..10));
    assert!(matches!(
        producer.send(Record::to("t").value("v")).await,
        Err(Error::Closed)
    ));
    assert!(matches!(
        producer.send(Record::to("new").value("v")).await,
        Err(Error::Closed | Error::UnknownTopic(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn headers_keys_and_timestamps_arrive() {
    let (broker, producer) = one_producer(|builder| builder).await;
    let time = Timestamp::new(1234);
    let record = Record::to("t").key("k").value("v").header("h", "x").timestamp(time);
    let metadata = producer.send(record).await.unwrap().await.unwrap();
    assert_eq!(metadata.timestamp, time);
    let batch = broker.state.lock().topics["t"].partitions[0].batches[0].clone();
    let set = headwater_protocol::batch::RecordSet::decode(&batch, 1 << 20).unwrap();
    let record = set.iter().next().unwrap().unwrap();
    assert_eq!(
        (record.key, record.value, record.timestamp),
        (Some(&b"k"[..]), Some(&b"v"[..]), time)
    );
    let header = record.headers.clone().next().unwrap();
    assert_eq!((header.key, header.value), ("h", Some(&b"x"[..])));
}

#[tokio::test(start_paused = true)]
async fn settings_that_contradict_each_other_are_refused_by_name() {
    let (_broker, client) = one_broker().await;
    let producer = || client.producer();
    for (builder, wrong) in [
        (producer().batch_bytes(10), "batch_bytes"),
        (producer().memory_max(1000), "memory_max"),
        (producer().in_flight_bytes_max(1000), "in_flight_bytes_max"),
        (producer().in_flight_batches_max(0), "in_flight_batches_max"),
        (producer().in_flight_batches_max(129), "in_flight_batches_max"),
        (producer().idempotent(true).acks(Acks::None), "idempotent"),
        (producer().delivery_timeout(SECOND).linger(SECOND), "delivery_timeout"),
        (producer().delivery_timeout(Duration::MAX), "delivery_timeout"),
    ] {
        let error = builder.build().await.unwrap_err();
        assert!(
            matches!(error, Error::Config { setting, .. } if setting == wrong),
            "{error:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_future_that_sends_a_record_is_small_as_each_is_moved() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    let producer = client.producer().build().await.unwrap();
    let size = std::mem::size_of_val(&producer.send(Record::to("t").value("v")));
    assert!(size <= 512, "{size} bytes");
}
