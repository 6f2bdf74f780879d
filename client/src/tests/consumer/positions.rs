//! What consumers tell of where they are, and receiving many records at once.

use std::time::Duration;

use headwater_protocol::error::ErrorCode;
use tokio::time::sleep;

use super::{P0, SECOND, consumer, fill};
use crate::tests::broker::Harm;
use crate::{Consumer, Error, Hold, Offset, PartitionPosition};

/// Lets what is fetched arrive.
async fn settle() {
    sleep(SECOND).await;
}

fn at(consumer: &Consumer, partition: usize) -> PartitionPosition {
    consumer.positions().swap_remove(partition)
}

fn lag(consumer: &Consumer) -> [Option<u64>; 2] {
    [0, 1].map(|partition| at(consumer, partition).lag())
}

#[tokio::test(start_paused = true)]
async fn the_lag_of_each_partition_falls_as_records_are_received_and_grows_as_they_are_written() {
    let (broker, _client, mut consumer) = consumer(2, 3, |builder| builder).await;
    assert_eq!(lag(&consumer), [None, None], "nothing was heard yet");
    settle().await;
    assert_eq!(lag(&consumer), [Some(30), Some(30)]);
    for _ in 0..5 {
        assert_eq!(consumer.recv().await.unwrap().partition, P0);
    }
    assert_eq!(at(&consumer, 0).position, Offset::new(5));
    assert_eq!(lag(&consumer), [Some(25), Some(30)]);
    assert_eq!(consumer.recv_many(1000).await.unwrap().len(), 55);
    assert_eq!(lag(&consumer), [Some(0), Some(0)]);
    fill(&broker, "t", 1, 2);
    settle().await;
    assert_eq!(lag(&consumer), [Some(0), Some(20)]);
    assert_eq!(at(&consumer, 1).high_watermark, Some(Offset::new(50)));
    assert!(at(&consumer, 1).queued_bytes > 0 && at(&consumer, 0).queued_bytes == 0);
}

#[tokio::test(start_paused = true)]
async fn what_holds_a_partition_up_is_told() {
    let (broker, _client, mut consumer) =
        consumer(2, 20, |builder| builder.partition_bytes_max(100).prefetch_bytes(400)).await;
    settle().await;
    assert!(
        consumer.positions().iter().all(|at| at.hold == Some(Hold::QueueFull)),
        "{:?}",
        consumer.positions()
    );
    consumer.pause("t", P0).unwrap();
    assert_eq!(at(&consumer, 0).hold, Some(Hold::Paused));
    assert_eq!(at(&consumer, 1).hold, Some(Hold::QueueFull));
    while at(&consumer, 1).lag() != Some(0) {
        consumer.recv_many(50).await.unwrap();
    }
    consumer.resume("t", P0).unwrap();
    while at(&consumer, 0).lag() != Some(0) {
        consumer.recv_many(50).await.unwrap();
    }
    settle().await;
    assert_eq!([at(&consumer, 0).hold, at(&consumer, 1).hold], [None, None]);

    broker.harm(Harm {
        fetch_errors: [ErrorCode::KafkaStorageError; 1000].into(),
        ..Harm::default()
    });
    fill(&broker, "t", 0, 1);
    fill(&broker, "t", 1, 1);
    // Pauses between attempts grow to a second: it is in one nearly always.
    let mut failing = false;
    for _ in 0..50 {
        sleep(Duration::from_millis(217)).await;
        failing |= at(&consumer, 0).hold == Some(Hold::Failing);
    }
    assert!(failing);
    broker.harm(Harm {
        fetch_errors: [ErrorCode::TopicAuthorizationFailed; 4].into(),
        ..Harm::default()
    });
    settle().await;
    settle().await;
    assert_eq!(at(&consumer, 0).hold, Some(Hold::Failed));
    broker.harm(Harm::default());
    consumer.seek("t", P0, Offset::new(200)).await.unwrap();
    settle().await;
    assert_eq!(at(&consumer, 0).hold, None);
}

#[tokio::test(start_paused = true)]
async fn receiving_many_waits_for_the_first_record_only_and_takes_no_more_than_asked_for() {
    let (broker, _client, mut consumer) = consumer(1, 2, |builder| builder).await;
    assert!(consumer.recv_many(0).await.unwrap().is_empty());
    let mut got = consumer.recv_many(7).await.unwrap();
    assert!((1..=7).contains(&got.len()));
    settle().await;
    while got.len() < 20 {
        got.extend(consumer.recv_many(7).await.unwrap());
    }
    assert!(got.iter().map(|record| record.offset.get()).eq(0..20));
    let waiting = tokio::spawn(async move { consumer.recv_many(1000).await });
    settle().await;
    assert!(!waiting.is_finished());
    fill(&broker, "t", 0, 1);
    let got = waiting.await.unwrap().unwrap();
    assert!(got.iter().map(|record| record.offset.get()).eq(20..30));
}

#[tokio::test(start_paused = true)]
async fn an_error_behind_received_records_withholds_none_of_them_and_is_told_next() {
    let (broker, _client, mut consumer) = consumer(1, 2, |builder| builder).await;
    {
        let mut state = broker.state.lock();
        let log = &mut state.topics.get_mut("t").unwrap().partitions[0];
        let mut damaged = log.batches[1].to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        log.damaged.insert(1, damaged.into());
    }
    settle().await;
    let got = consumer.recv_many(100).await.unwrap();
    assert!(got.iter().map(|record| record.offset.get()).eq(0..10));
    assert!(matches!(
        consumer.recv_many(100).await,
        Err(Error::CorruptBatch { offset, .. }) if offset.get() == 10
    ));
    assert_eq!(at(&consumer, 0).hold, Some(Hold::Failed));
}

#[tokio::test(start_paused = true)]
async fn the_watermark_of_a_topic_that_was_made_anew_is_the_new_ones() {
    let (broker, _client, mut consumer) = consumer(1, 5, |builder| builder).await;
    settle().await;
    assert_eq!(consumer.recv_many(100).await.unwrap().len(), 50);
    broker.create_topic("t", 1);
    fill(&broker, "t", 0, 1);
    for _ in 0..10 {
        settle().await;
    }
    assert_eq!(at(&consumer, 0).high_watermark, Some(Offset::new(10)));
}
