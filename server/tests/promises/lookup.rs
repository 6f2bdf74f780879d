//! Finding records: by offset, by time, at either end, and where the log begins after the oldest have been deleted.

use headwater_client::{
    Client, Error, ErrorCode, NewTopic, Offset, OffsetReset, OffsetSpec, PartitionIndex, Record, Start, Timestamp,
};

use crate::support::{Site, read_topic, run};

const ONLY: PartitionIndex = PartitionIndex::new(0);
/// Time of the first record; each is a second later than the one before.
const NOON_MS: i64 = 1_700_000_000_000;
const RECORDS: u64 = 500;

/// A topic of many small segments with a record for every second.
async fn fill(client: &Client) {
    let new = NewTopic::new("t")
        .config("segment.bytes", 65_536)
        .config("retention.ms", -1);
    client.admin().create_topic(new).await.unwrap();
    let producer = client.producer().batch_bytes(4 << 10).build().await.unwrap();
    for number in 0..RECORDS {
        let value = [number.to_le_bytes(); 125].concat();
        let time = Timestamp::new(NOON_MS + number as i64 * 1_000);
        drop(
            producer
                .send(Record::to("t").value(&value).timestamp(time))
                .await
                .unwrap(),
        );
    }
    producer.close().await.unwrap();
}

#[test]
fn a_record_is_found_by_its_time_also_after_a_crash() {
    run(async {
        let site = Site::new();
        let mut broker = site.start();
        let client = site.client().await;
        fill(&client).await;
        let found = async |ms: i64| {
            let time = OffsetSpec::Timestamp(Timestamp::new(NOON_MS + ms));
            client
                .admin()
                .list_offset("t", ONLY, time)
                .await
                .unwrap()
                .map(Offset::get)
        };
        for restarted in [false, true] {
            if restarted {
                broker.kill();
                broker = site.start();
            }
            for number in (0..RECORDS).step_by(37) {
                let ms = number as i64 * 1_000;
                assert_eq!(found(ms).await, Some(number));
                assert_eq!(found(ms - 999).await, Some(number));
                assert_eq!(found(ms + 1).await, Some(number + 1).filter(|next| *next < RECORDS));
            }
            assert_eq!(found(-NOON_MS).await, Some(0));
            assert_eq!(found(RECORDS as i64 * 1_000).await, None);
        }
        broker.stop();
    });
}

#[test]
fn a_consumer_starts_where_it_is_told_to() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let client = site.client().await;
        fill(&client).await;
        let late = Timestamp::new(NOON_MS + 77_500);
        let starts = [
            (Start::Earliest, 0),
            (Start::Offset(Offset::new(123)), 123),
            (Start::Timestamp(late), 78),
            (Start::Latest, RECORDS),
        ];
        let mut consumer = client.consumer().topics(["t"]).build().await.unwrap();
        for (start, expected) in starts {
            consumer.seek("t", ONLY, start).await.unwrap();
            assert_eq!(consumer.position("t", ONLY), Some(Offset::new(expected)));
            let producer = client.producer().build().await.unwrap();
            if expected == RECORDS {
                drop(
                    producer
                        .send(Record::to("t").value(&RECORDS.to_le_bytes()))
                        .await
                        .unwrap(),
                );
                producer.close().await.unwrap();
            }
            let record = consumer.recv().await.unwrap();
            assert_eq!(record.offset.get(), expected);
            assert_eq!(record.value.unwrap()[..8], expected.to_le_bytes());
        }
        broker.stop();
    });
}

#[test]
fn the_log_starts_where_records_have_been_deleted_up_to_for_good() {
    run(async {
        let site = Site::new();
        let mut broker = site.start();
        let client = site.client().await;
        let admin = client.admin();
        fill(&client).await;
        let beyond = admin
            .delete_records("t", ONLY, Some(Offset::new(RECORDS + 1)))
            .await
            .unwrap_err();
        assert_eq!(beyond.code(), Some(ErrorCode::OffsetOutOfRange));
        // Within the first segment: no file goes.
        let mut start = Offset::new(3);
        assert_eq!(admin.delete_records("t", ONLY, Some(start)).await.unwrap(), start);
        // It does not move back.
        assert_eq!(
            admin.delete_records("t", ONLY, Some(Offset::new(1))).await.unwrap(),
            start
        );
        for (crash, delete_all) in [(false, false), (true, true), (true, false)] {
            if crash {
                broker.kill();
                broker = site.start();
            }
            assert_eq!(
                admin.list_offset("t", ONLY, OffsetSpec::Earliest).await.unwrap(),
                Some(start)
            );
            let early = OffsetSpec::Timestamp(Timestamp::new(NOON_MS));
            let first = (start.get() < RECORDS).then_some(start);
            assert_eq!(admin.list_offset("t", ONLY, early).await.unwrap(), first);
            let stored = read_topic(&client, "t").await.swap_remove(0);
            assert!(stored.iter().map(|record| record.offset).eq(start.get()..RECORDS));
            let consumer = client.consumer().topics(["t"]).start(Start::Offset(Offset::new(2)));
            let mut consumer = consumer.offset_reset(OffsetReset::Error).build().await.unwrap();
            let error = consumer.recv().await.unwrap_err();
            assert!(
                matches!(error, Error::OffsetOutOfRange { log_start, .. } if log_start == Some(start)),
                "{error}"
            );
            if delete_all {
                // Whatever consumers can see.
                start = admin.delete_records("t", ONLY, None).await.unwrap();
                assert_eq!(start, Offset::new(RECORDS));
            }
        }
        broker.stop();
    });
}
