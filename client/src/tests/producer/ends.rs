//! Many records at once, records whose end nobody awaits, and what a producer and its client count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::FutureExt;
use headwater_protocol::error::ErrorCode;
use tokio::time::sleep;

use super::{SECOND, numbered, one_producer, send_numbered};
use crate::runtime::sync::Mutex;
use crate::tests::broker::Harm;
use crate::tests::one_broker;
use crate::{Error, Offset, PartitionIndex, Record};

#[tokio::test(start_paused = true)]
async fn records_that_are_sent_together_are_stored_in_their_order_and_one_that_is_refused_keeps_out_no_other() {
    let (broker, producer) = one_producer(|builder| builder.memory_max(64 << 10).batch_bytes(4 << 10)).await;
    broker.create_topic("u", 1);
    let large = "x".repeat(1 << 20);
    let values = numbered(0..5000);
    let mut records: Vec<_> = values.iter().map(|value| Record::to("t").value(value)).collect();
    records.insert(2500, Record::to("t").value(&large));
    records.insert(10, Record::to("nowhere").value("lost"));
    records.insert(11, Record::to("nowhere").value("lost"));
    records.push(Record::to("u").value("other"));
    let sent = producer.send_all(records).await;
    assert!(matches!(sent[10], Err(Error::UnknownTopic(_))) && matches!(sent[11], Err(Error::UnknownTopic(_))));
    assert!(matches!(sent[2502], Err(Error::RecordTooLarge { .. })));
    assert_eq!(sent.len(), 5004);
    for (next, delivery) in sent.into_iter().flatten().take(5000).enumerate() {
        assert_eq!(delivery.await.unwrap().offset, Some(Offset::new(next as u64)));
    }
    assert_eq!(broker.values("t", 0), values);
    assert_eq!(broker.values("u", 0), ["other"]);
}

#[tokio::test(start_paused = true)]
async fn records_that_are_sent_together_and_given_up_while_they_wait_for_memory_are_all_left_out() {
    let (broker, producer) = one_producer(|builder| builder.memory_max(64 << 10).batch_bytes(4 << 10)).await;
    producer.partition_count("t").await.unwrap();
    broker.harm(Harm {
        silent: true,
        ..Harm::default()
    });
    let filler = "x".repeat(1000);
    let mut before = 0;
    while producer.try_send(&Record::to("t").value(&filler)).is_ok() {
        before += 1;
    }
    let values = numbered(0..50);
    let records = || values.iter().map(|value| Record::to("t").value(value));
    assert!(
        producer.send_all(records()).now_or_never().is_none(),
        "there is no memory"
    );
    broker.harm(Harm::default());
    for sent in producer.send_all(records()).await {
        sent.unwrap().await.unwrap();
    }
    assert_eq!(broker.values("t", 0)[before..], values);
}

#[tokio::test(start_paused = true)]
async fn records_that_are_sent_together_wait_for_memory_once_however_many_partitions_they_go_to() {
    let memory_max = (64 << 10) + (2 << 10);
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 9);
    let builder = client.producer().memory_max(memory_max).batch_bytes(4 << 10);
    let producer = builder.build().await.unwrap();
    producer.partition_count("t").await.unwrap();
    broker.harm(Harm {
        silent: true,
        ..Harm::default()
    });
    let to = |partition| Record::to("t").partition(PartitionIndex::new(partition));
    while producer.try_send(&to(0).value(&[0; 1000])).is_ok() {}
    let free = memory_max - producer.memory_used();
    assert!(
        free < 4 << 10,
        "there is room for {free} bytes, and none for a batch in each partition"
    );
    let sent = producer
        .send_all((1..9).map(|partition| to(partition).value("small")))
        .now_or_never();
    assert!(sent.expect("there is room for the records").iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_records_that_nobody_awaits_is_counted_and_told() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let reports = Arc::clone(&told);
    let (broker, producer) = one_producer(|builder| {
        builder.on_delivery(move |report| {
            let code = report.error.and_then(Error::code);
            let told = (report.topic.to_owned(), report.records, report.first_offset, code);
            reports.lock().push(told);
        })
    })
    .await;
    producer.send_and_forget(Record::to("t").value("stored")).await;
    producer.flush().await.unwrap();
    broker.harm(Harm {
        produce_errors: [ErrorCode::InvalidRecord].into(),
        ..Harm::default()
    });
    producer
        .send_and_forget(Record::to("t").value("refused by the broker"))
        .await;
    assert_eq!(
        producer.flush().await.unwrap_err().code(),
        Some(ErrorCode::InvalidRecord)
    );
    producer.send_and_forget(Record::to("nowhere").value("not taken")).await;
    assert!(matches!(producer.flush().await, Err(Error::UnknownTopic(_))));
    producer.flush().await.unwrap();

    let t = || "t".to_owned();
    let expected = [
        (t(), 1, Some(Offset::ZERO), None),
        (t(), 1, None, Some(ErrorCode::InvalidRecord)),
        ("nowhere".to_owned(), 1, None, Some(ErrorCode::UnknownTopicOrPartition)),
    ];
    assert_eq!(*told.lock(), expected);
    let counted = producer.statistics();
    assert_eq!((counted.records, counted.records_acknowledged), (2, 1));
    assert_eq!((counted.records_failed, counted.records_refused), (1, 1));
    assert_eq!(counted.records_in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_record_is_in_one_report_and_a_callback_that_panics_stops_nothing() {
    let reported = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&reported);
    let (broker, producer) = one_producer(|builder| {
        builder.batch_bytes(2 << 10).on_delivery(move |report| {
            let before = count.fetch_add(report.records, Ordering::Relaxed);
            assert_eq!(report.first_offset, Some(Offset::new(u64::from(before))));
            assert!(before > 0, "on purpose");
        })
    })
    .await;
    broker.harm(Harm {
        produce_errors: [ErrorCode::KafkaStorageError].into(),
        ..Harm::default()
    });
    // Whoever awaits a delivery finds it reported.
    let mut deliveries = send_numbered(&producer, 0..2000).await;
    deliveries.pop().unwrap().await.unwrap();
    assert_eq!(reported.load(Ordering::Relaxed), 2000);
    assert_eq!(broker.values("t", 0), numbered(0..2000));
}

#[tokio::test(start_paused = true)]
async fn retries_splits_and_what_is_in_flight_are_counted_and_latencies_are_those_of_records() {
    let (broker, producer) = one_producer(|builder| builder.linger(SECOND)).await;
    // Connected, as connecting would be slow as well.
    producer.send(Record::to("t").value("0")).await.unwrap().await.unwrap();
    broker.harm(Harm {
        produce_errors: [ErrorCode::UnknownTopicOrPartition].into(),
        slow: SECOND,
        ..Harm::default()
    });
    broker.limit("t", 1500, false);
    let deliveries = send_numbered(&producer, 1..300).await;
    sleep(SECOND * 3 / 2).await;
    let counted = producer.statistics();
    assert_eq!((counted.records, counted.records_in_flight()), (300, 299));
    assert!(counted.memory_used > 0 && counted.bytes_sent > 0);
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    let counted = producer.statistics();
    assert_eq!((counted.records, counted.records_acknowledged), (300, 300));
    assert!(counted.retries >= 1 && counted.splits >= 1, "{counted:?}");
    assert!(counted.batches_sent > counted.retries && counted.bytes_sent > counted.bytes_acknowledged);
    assert_eq!(counted.latency.count, 300);
    assert!(
        counted.latency.p50 >= 3 * SECOND,
        "linger and two attempts of a second each: {counted:?}"
    );
    assert_eq!(counted.memory_used, 0);
}

#[tokio::test(start_paused = true)]
async fn what_passes_between_client_and_broker_is_counted_by_address_over_lost_connections() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    let producer = client.producer().build().await.unwrap();
    let send = async || producer.send(Record::to("t").value("v")).await.unwrap().await.unwrap();
    let at = |index: usize| client.statistics().addresses[index].clone();
    send().await;
    assert_eq!(at(0).address.to_string(), "broker:9000");
    let core = at(1);
    assert_eq!((core.connects, core.losses, core.in_flight), (1, 0, 0));
    assert!(core.is_connected && core.requests >= 2 && core.round_trip.count == core.requests);
    broker.stop();
    sleep(SECOND).await;
    assert!(!at(1).is_connected && at(1).losses == 1);
    let refused = producer.send(Record::to("t").value("v")).await.unwrap();
    sleep(SECOND).await;
    assert!(at(1).connect_failures + at(0).connect_failures >= 1);
    broker.listen();
    refused.await.unwrap();
    let again = at(1);
    assert_eq!((again.connects, again.losses), (2, 1));
    assert!(again.is_connected && again.requests > core.requests, "{again:?}");

    broker.harm(Harm {
        silent: true,
        ..Harm::default()
    });
    drop(producer.send(Record::to("t").value("v")).await.unwrap());
    sleep(SECOND).await;
    assert_eq!((at(1).in_flight, producer.statistics().records_in_flight()), (1, 1));
}
