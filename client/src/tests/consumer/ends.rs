//! Readers with an end get there, whatever became of the last records, and are told what they have not read.

use bytes::Bytes;
use headwater_protocol::batch::{RecordSet, emptied, rebuild};
use tokio::time::{sleep, timeout};

use super::{P0, SECOND, consumer, delete_before, fill, next, of_all, offsets};
use crate::tests::{Broker, one_broker};
use crate::{Advance, Consumer, Offset, OffsetReset, Skip, SkipCause, Start, TopicName};

/// What compaction would do to partition 0 of "t": of the records only these stay. Batches without one go as a whole, or stay
/// empty, in turns.
fn compact(broker: &Broker, keep: impl Fn(u64) -> bool) {
    let mut state = broker.state.lock();
    let log = &mut state.topics.get_mut("t").unwrap().partitions[0];
    let count = log.batches.len();
    let batches = std::mem::take(&mut log.batches);
    for (number, batch) in batches.into_iter().enumerate() {
        let set = RecordSet::decode(&batch, 1 << 20).unwrap();
        let kept = rebuild(&set, None, |record| keep(record.offset.get())).unwrap();
        let is_empty = RecordSet::decode(&Bytes::from(kept.clone()), 1 << 20)
            .unwrap()
            .iter()
            .next()
            .is_none();
        if !is_empty {
            log.batches.push(kept.into());
        } else if number % 2 == 1 || number + 1 == count {
            log.batches.push(emptied(set.header()).into());
        }
    }
}

/// Reads partition 0 of "t" to this offset: the records' offsets, and what came between them.
async fn read_to(consumer: &mut Consumer, end: u64) -> (Vec<u64>, Vec<Skip>) {
    let (mut read, mut skips) = (Vec::new(), Vec::new());
    let reading = async {
        while consumer.position("t", P0).unwrap().get() < end {
            match consumer.advance().await.unwrap() {
                Advance::Records(records) => read.extend(records.iter().map(|record| record.unwrap().offset.get())),
                Advance::Skip(skip) => skips.push(skip),
            }
        }
    };
    timeout(60 * SECOND, reading).await.expect("the end is reached");
    (read, skips)
}

fn skip(from: u64, to: u64, cause: SkipCause) -> Skip {
    Skip {
        topic: TopicName::new("t").unwrap(),
        partition: P0,
        from: Offset::new(from),
        to: Offset::new(to),
        cause,
    }
}

/// Without a record, deleted, skipped by the reset policy.
fn skipped(consumer: &Consumer) -> (u64, u64, u64) {
    match &consumer.skipped()[..] {
        [] => (0, 0, 0),
        [one] => (one.no_record, one.deleted, one.reset),
        more => panic!("{more:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_whose_last_offsets_hold_no_record_is_reached() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    fill(&broker, "t", 0, 10);
    // Whole batches are gone in the middle, others are empty, and the last record is not at the last offset of its batch.
    compact(&broker, |offset| offset < 5 || (60..63).contains(&offset));
    let mut consumer = of_all(&client).await;
    let (read, skips) = read_to(&mut consumer, 100).await;
    assert_eq!(read, [0, 1, 2, 3, 4, 60, 61, 62]);
    assert!(
        skips
            .iter()
            .all(|skip| skip.cause == SkipCause::NoRecord && skip.from < skip.to)
    );
    assert_eq!(skips.last().unwrap().to, Offset::new(100));
    assert_eq!(skipped(&consumer), (92, 0, 0));
    // What comes now is read as ever.
    fill(&broker, "t", 0, 1);
    assert_eq!(next(&mut consumer).await, 100);
}

#[tokio::test(start_paused = true)]
async fn the_position_is_behind_what_holds_no_record_as_soon_as_the_last_record_was_handed_out() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    fill(&broker, "t", 0, 2);
    compact(&broker, |offset| offset < 8 || offset == 13);
    let start = client.consumer().topics(["t"]).start(Offset::new(6));
    let mut consumer = start.build().await.unwrap();
    assert_eq!(offsets(&mut consumer, 2).await, [6, 7]);
    assert_eq!(consumer.position("t", P0), Some(Offset::new(10)));
    assert_eq!(next(&mut consumer).await, 13);
    assert_eq!(consumer.position("t", P0), Some(Offset::new(20)));
    // Of the offsets from 6 on.
    assert_eq!(skipped(&consumer), (2 + 9, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn records_that_were_deleted_before_they_were_read_are_told_and_end_no_reader_late() {
    let (broker, _client, mut consumer) = consumer(1, 100, |builder| {
        // One batch at a time, so that the reader is overtaken.
        builder.partition_bytes_max(1).prefetch_bytes(1)
    })
    .await;
    assert_eq!(offsets(&mut consumer, 10).await.len(), 10);
    sleep(SECOND).await;
    let kept = 1000 - 30;
    delete_before(&broker, kept);
    let (read, skips) = read_to(&mut consumer, 1000).await;
    let [deleted] = &skips[..] else { panic!("{skips:?}") };
    assert_eq!((deleted.to.get(), deleted.cause), (kept, SkipCause::Deleted));
    let before = (10..deleted.from.get()).chain(kept..1000);
    assert_eq!(read, before.collect::<Vec<_>>());
    assert_eq!(skipped(&consumer), (0, kept - deleted.from.get(), 0));

    // All that was there, and the end with it.
    delete_before(&broker, 1000);
    consumer.seek("t", P0, Offset::new(990)).await.unwrap();
    let (read, skips) = read_to(&mut consumer, 995).await;
    assert_eq!(
        (&read[..], &skips[..]),
        (&[][..], &[skip(990, 1000, SkipCause::Deleted)][..])
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_reset_policy_passes_over_is_told_apart_from_what_was_deleted() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    fill(&broker, "t", 0, 5);
    delete_before(&broker, 20);
    let builder = client.consumer().topics(["t"]).start(Offset::new(7));
    let mut consumer = builder.offset_reset(OffsetReset::Latest).build().await.unwrap();
    let (read, skips) = read_to(&mut consumer, 50).await;
    assert_eq!(read, [0; 0]);
    assert_eq!(skips, [skip(7, 20, SkipCause::Deleted), skip(20, 50, SkipCause::Reset)]);
    assert_eq!(skipped(&consumer), (0, 13, 30));
    // Behind the end of the log there is nothing to pass over, only back to go.
    consumer.seek("t", P0, Offset::new(70)).await.unwrap();
    let Advance::Skip(back) = consumer.advance().await.unwrap() else {
        panic!("a record")
    };
    assert_eq!(back, skip(70, 50, SkipCause::Reset));
    assert_eq!(skipped(&consumer), (0, 13, 30));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_created_anew_is_told_between_the_records_of_the_two() {
    let (broker, _client, mut consumer) = consumer(1, 2, |builder| builder).await;
    assert_eq!(offsets(&mut consumer, 20).await.len(), 20);
    broker.create_topic("t", 1);
    fill(&broker, "t", 0, 1);
    let Advance::Skip(anew) = consumer.advance().await.unwrap() else {
        panic!("a record")
    };
    assert_eq!(anew, skip(20, 0, SkipCause::Recreated));
    assert_eq!(offsets(&mut consumer, 10).await, (0..10).collect::<Vec<_>>());
    assert_eq!(skipped(&consumer), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn receiving_records_alone_passes_over_what_holds_none() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    fill(&broker, "t", 0, 10);
    compact(&broker, |offset| offset % 30 == 4);
    let builder = client.consumer().topics(["t"]).start(Start::Earliest);
    let mut consumer = builder.build().await.unwrap();
    assert_eq!(offsets(&mut consumer, 2).await, [4, 34]);
    assert_eq!(consumer.recv_batch().await.unwrap().iter().count(), 1);
    assert_eq!(next(&mut consumer).await, 94);
    assert!(consumer.recv_timeout(SECOND).await.unwrap().is_none());
}
