//! What consumers promise while nothing goes wrong, and where they begin.

mod ends;
mod faults;
mod positions;
mod topics;
mod transactions;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use headwater_protocol::batch::{BatchBuilder, stamp};
use headwater_protocol::frame::Api;
use headwater_protocol::id::LeaderEpoch;
use tokio::time::{Instant, sleep};

use super::broker::Harm;
use super::network::Network;
use super::{Broker, builder, one_broker};
use crate::consumer::ConsumerBuilder;
use crate::{Client, Compression, Consumer, Error, Offset, OffsetReset, PartitionIndex, Start, Timestamp};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const P0: PartitionIndex = PartitionIndex::new(0);
pub(super) const P1: PartitionIndex = PartitionIndex::new(1);

/// Appends batches of ten records each, whose values are their offsets, timestamped 1000 ms per record.
pub(super) fn fill(broker: &Broker, topic: &str, partition: usize, batches: u64) {
    let mut state = broker.state.lock();
    let log = &mut state.topics.get_mut(topic).unwrap().partitions[partition];
    for _ in 0..batches {
        let mut builder = BatchBuilder::new(Compression::Lz4, 0);
        let base = log.next_offset;
        for offset in base..base + 10 {
            let time = Timestamp::new(offset as i64 * 1000);
            builder
                .append(time, None, Some(offset.to_string().as_bytes()), &[])
                .unwrap();
        }
        let mut bytes = builder.build().bytes().to_vec();
        stamp(&mut bytes, Offset::new(base), LeaderEpoch::new(0));
        log.batches.push(Bytes::from(bytes));
        log.next_offset += 10;
    }
    drop(state);
    broker.wake_fetches();
}

/// Moves the log start of partition 0 of "t".
pub(super) fn delete_before(broker: &Broker, offset: u64) {
    let mut state = broker.state.lock();
    let log = &mut state.topics.get_mut("t").unwrap().partitions[0];
    log.log_start = offset;
    log.batches.retain(|batch| {
        headwater_protocol::batch::BatchHeader::read(batch)
            .unwrap()
            .next_offset()
            .get()
            > offset
    });
}

/// A broker with the topic "t", its partitions filled alike, and a consumer of it.
pub(super) async fn consumer(
    partitions: u16,
    batches: u64,
    configure: impl FnOnce(ConsumerBuilder) -> ConsumerBuilder,
) -> (Arc<Broker>, Client, Consumer) {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", partitions);
    (0..usize::from(partitions)).for_each(|partition| fill(&broker, "t", partition, batches));
    let consumer = configure(client.consumer().topics(["t"]).start(Start::Earliest))
        .build()
        .await
        .unwrap();
    (broker, client, consumer)
}

/// A consumer of all that "t" has.
pub(super) async fn of_all(client: &Client) -> Consumer {
    let builder = client.consumer().topics(["t"]).start(Start::Earliest);
    builder.build().await.unwrap()
}

pub(super) async fn offsets(consumer: &mut Consumer, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    for _ in 0..count {
        offsets.push(consumer.recv().await.unwrap().offset.get());
    }
    offsets
}

pub(super) async fn next(consumer: &mut Consumer) -> u64 {
    offsets(consumer, 1).await[0]
}

#[tokio::test(start_paused = true)]
async fn all_records_of_all_partitions_come_in_order_and_partitions_take_turns() {
    let network = Network::new();
    let broker = Broker::start(&network, 2);
    let client = builder(&network, 1).build().await.unwrap();
    broker.create_topic("t", 4);
    (0..4).for_each(|partition| fill(&broker, "t", partition, 10));
    let mut consumer = of_all(&client).await;
    // Let all of them arrive first, so that the turns are the consumer's own.
    sleep(SECOND).await;
    let mut got: HashMap<i32, Vec<u64>> = HashMap::new();
    for i in 0..400 {
        let record = consumer.recv().await.unwrap();
        assert_eq!(record.value.unwrap(), record.offset.to_string().as_bytes());
        got.entry(record.partition.get()).or_default().push(record.offset.get());
        let lengths = got.values().map(Vec::len);
        assert!(
            i < 40 || lengths.clone().max().unwrap() - lengths.min().unwrap() <= 10,
            "unfair: {got:?}"
        );
    }
    assert!(got.values().all(|offsets| offsets.iter().copied().eq(0..100)));
    assert!(consumer.recv_timeout(SECOND).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_consumer_starts_where_it_is_told_also_within_a_batch() {
    for (start, first) in [
        (Start::Earliest, 0),
        (Start::Offset(Offset::new(33)), 33),
        (Start::Timestamp(Timestamp::new(41_000)), 40),
    ] {
        let (_broker, _client, mut consumer) = consumer(1, 10, |builder| builder.start(start)).await;
        assert_eq!(consumer.position("t", P0), Some(Offset::new(first)));
        assert_eq!(
            offsets(&mut consumer, 20).await,
            (first..first + 20).collect::<Vec<_>>(),
            "{start:?}"
        );
        assert_eq!(consumer.position("t", P0), Some(Offset::new(first + 20)));
    }
    for start in [Start::Latest, Start::Timestamp(Timestamp::new(i64::MAX))] {
        let (broker, _client, mut consumer) = consumer(1, 10, |builder| builder.start(start)).await;
        assert!(consumer.recv_timeout(SECOND).await.unwrap().is_none(), "{start:?}");
        fill(&broker, "t", 0, 1);
        assert_eq!(next(&mut consumer).await, 100, "{start:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_seek_drops_what_was_fetched_and_what_is_on_its_way() {
    let (broker, _client, mut consumer) = consumer(1, 10, |builder| builder).await;
    broker.harm(Harm {
        delay_max: Duration::from_millis(50),
        ..Harm::default()
    });
    assert_eq!(offsets(&mut consumer, 15).await, (0..15).collect::<Vec<_>>());
    for target in [77, 3, 50, 99, 0, 42] {
        consumer.seek("t", P0, Offset::new(target)).await.unwrap();
        assert_eq!(consumer.position("t", P0), Some(Offset::new(target)));
        assert_eq!(next(&mut consumer).await, target);
    }
    consumer.seek("t", P0, Start::Earliest).await.unwrap();
    assert_eq!(next(&mut consumer).await, 0);
    consumer
        .seek("t", P0, Start::Timestamp(Timestamp::new(20_000)))
        .await
        .unwrap();
    assert_eq!(next(&mut consumer).await, 20);
    consumer.seek("t", P0, Start::Latest).await.unwrap();
    assert!(consumer.recv_timeout(SECOND).await.unwrap().is_none());
    assert!(matches!(
        consumer.seek("t", P1, Offset::ZERO).await,
        Err(Error::UnknownPartition { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_seek_does_not_wait_for_the_long_poll_before_it() {
    let (_broker, _client, mut consumer) = consumer(1, 1, |builder| builder.wait_max(60 * SECOND)).await;
    assert_eq!(offsets(&mut consumer, 10).await.len(), 10);
    sleep(SECOND).await;
    let before = Instant::now();
    consumer.seek("t", P0, Offset::ZERO).await.unwrap();
    assert_eq!(next(&mut consumer).await, 0);
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn out_of_range_follows_the_policy() {
    for (reset, first) in [(OffsetReset::Earliest, 25), (OffsetReset::Latest, 50)] {
        let (broker, client) = one_broker().await;
        broker.create_topic("t", 1);
        fill(&broker, "t", 0, 5);
        delete_before(&broker, 25);
        let builder = client
            .consumer()
            .topics(["t"])
            .start(Start::Offset(Offset::new(7)))
            .offset_reset(reset);
        let mut consumer = builder.build().await.unwrap();
        sleep(SECOND).await;
        fill(&broker, "t", 0, 1);
        assert_eq!(next(&mut consumer).await, first, "{reset:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn out_of_range_is_an_error_behind_what_was_fetched_before_and_a_seek_cures_it() {
    let (broker, _client, mut consumer) = consumer(2, 5, |builder| {
        builder.offset_reset(OffsetReset::Error).partition_bytes_max(1)
    })
    .await;
    let first = offsets(&mut consumer, 20).await;
    delete_before(&broker, 45);
    let mut rest = Vec::new();
    let error = loop {
        match consumer.recv().await {
            Ok(record) => rest.push((record.partition, record.offset.get())),
            Err(error) => break error,
        }
    };
    let Error::OffsetOutOfRange {
        partition: P0,
        log_start,
        offset,
        ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(log_start, Some(Offset::new(45)));
    assert!(!error.is_retriable());
    let of_first: Vec<u64> = rest
        .iter()
        .filter(|(partition, _)| *partition == P0)
        .map(|(_, offset)| *offset)
        .collect();
    assert!(of_first.iter().all(|&before| before < offset.get()));
    // The other partition goes on.
    while first.len() + rest.len() - of_first.len() < 60 {
        let record = consumer.recv().await.unwrap();
        assert_eq!(record.partition, P1);
        rest.push((record.partition, record.offset.get()));
        if record.offset.get() == 49 {
            break;
        }
    }
    consumer.seek("t", P0, Start::Earliest).await.unwrap();
    let record = consumer.recv().await.unwrap();
    assert_eq!((record.partition, record.offset.get()), (P0, 45));
}

#[tokio::test(start_paused = true)]
async fn with_nothing_left_that_could_come_the_error_is_repeated() {
    let (broker, _client, mut consumer) = consumer(1, 5, |builder| builder.offset_reset(OffsetReset::Error)).await;
    delete_before(&broker, 50);
    consumer.seek("t", P0, Offset::new(3)).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(consumer.recv().await, Err(Error::OffsetOutOfRange { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_consumer_polls_rarely_and_gets_a_new_record_at_once() {
    let (broker, _client, mut consumer) = consumer(2, 0, |builder| builder).await;
    sleep(10 * SECOND).await;
    let fetches = broker.requests(Api::Fetch);
    assert!(
        (19..=22).contains(&fetches),
        "{fetches} fetches in 10 s of long polls of 500 ms"
    );
    let before = Instant::now();
    let received = consumer.recv();
    let append = async { fill(&broker, "t", 1, 1) };
    let (received, ()) = futures::join!(received, append);
    assert_eq!(received.unwrap().offset, Offset::ZERO);
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_partition_with_records_never_waits_for_the_long_poll_of_one_without() {
    let (broker, _client, mut consumer) =
        consumer(2, 0, |builder| builder.partition_bytes_max(100).wait_max(60 * SECOND)).await;
    sleep(SECOND).await;
    fill(&broker, "t", 0, 100);
    let before = Instant::now();
    assert_eq!(offsets(&mut consumer, 1000).await, (0..1000).collect::<Vec<_>>());
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_stops_receiving_fetches_no_more_than_its_bounds() {
    let (broker, _client, mut consumer) = consumer(8, 1000, |builder| {
        builder
            .partition_bytes_max(2000)
            .fetch_bytes_max(4000)
            .prefetch_bytes(8000)
    })
    .await;
    sleep(10 * SECOND).await;
    let fetches = broker.requests(Api::Fetch);
    sleep(10 * SECOND).await;
    assert_eq!(
        broker.requests(Api::Fetch),
        fetches,
        "a consumer that is full keeps fetching"
    );
    let queued = consumer.queued_bytes();
    assert!((8000..12_000 + 200).contains(&queued), "{queued}");
    assert_eq!(offsets(&mut consumer, 80_000).await.len(), 80_000);
}

#[tokio::test(start_paused = true)]
async fn batches_single_records_and_streams_mix_without_loss() {
    let (_broker, _client, mut consumer) = consumer(1, 5, |builder| builder).await;
    let of_batch =
        |records: &crate::Records| -> Vec<u64> { records.iter().map(|record| record.unwrap().offset.get()).collect() };
    assert_eq!(
        of_batch(&consumer.recv_batch().await.unwrap()),
        (0..10).collect::<Vec<_>>()
    );
    assert_eq!(offsets(&mut consumer, 3).await, [10, 11, 12]);
    assert_eq!(
        of_batch(&consumer.recv_batch().await.unwrap()),
        (13..20).collect::<Vec<_>>()
    );
    let streamed: Vec<_> = consumer
        .stream()
        .take(5)
        .map(|record| record.unwrap().offset.get())
        .collect()
        .await;
    assert_eq!(streamed, [20, 21, 22, 23, 24]);
    // All records of a batch taken one by one: the next batch is the next one.
    assert_eq!(offsets(&mut consumer, 5).await, [25, 26, 27, 28, 29]);
    assert_eq!(
        of_batch(&consumer.recv_batch().await.unwrap()),
        (30..40).collect::<Vec<_>>()
    );
    let owned: Vec<_> = consumer
        .into_stream()
        .take(10)
        .map(|record| record.unwrap().offset.get())
        .collect()
        .await;
    assert_eq!(owned, (40..50).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn receiving_may_be_cancelled_without_loss() {
    let (broker, _client, mut consumer) = consumer(1, 0, |builder| builder).await;
    broker.harm(Harm {
        delay_max: Duration::from_millis(20),
        ..Harm::default()
    });
    let mut got = Vec::new();
    for i in 0..200 {
        if i % 10 == 0 {
            fill(&broker, "t", 0, 1);
        }
        if let Some(record) = consumer.recv_timeout(Duration::from_millis(i % 7)).await.unwrap() {
            got.push(record.offset.get());
        }
    }
    while got.len() < 200 {
        got.push(next(&mut consumer).await);
    }
    assert_eq!(got, (0..200).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn only_assigned_partitions_are_read() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 3);
    (0..3).for_each(|partition| fill(&broker, "t", partition, 1));
    let builder = client.consumer().assign("t", [P1, P1]).start(Start::Earliest);
    let mut consumer = builder.build().await.unwrap();
    for _ in 0..10 {
        assert_eq!(consumer.recv().await.unwrap().partition, P1);
    }
    assert!(consumer.recv_timeout(10 * SECOND).await.unwrap().is_none());
    let wrong = client
        .consumer()
        .assign("t", [PartitionIndex::new(3)])
        .build()
        .await
        .unwrap_err();
    assert!(
        matches!(wrong, Error::UnknownPartition { partitions: 3, .. }),
        "{wrong:?}"
    );
}
