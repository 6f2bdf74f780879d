//! A full disk refuses records and nothing else, and takes them again when there is room.
//!
//! Where no disk can be mounted for it, the tests say so and prove nothing; the engine's own tests fill a simulated disk.

use std::time::Instant;

use headwater_client::{ErrorCode, NewTopic, OffsetSpec, Producer, Record, TopicAlteration};
use headwater_protocol::schema::CreateTopicRequestT;

use crate::support::{
    Ballast, Kind, Load, Raw, Site, SmallDisk, batch, check, fetch, list_offsets, pause, produce, read_topic, run,
    values,
};

const KIND: Kind = Kind {
    topic: "t",
    partitions: 2,
    value_lens: &[4_000],
};

fn disk() -> Option<SmallDisk> {
    SmallDisk::new("disk_full", "loop")
}

fn site(disk: &SmallDisk) -> Site {
    Site::at(&disk.directory())
        .set("log.segment_size_bytes", "2MiB")
        .set("log.checkpoint_interval_ms", "50ms")
}

#[test]
fn a_full_disk_refuses_records_by_name_serves_what_it_has_and_takes_more_when_there_is_room() {
    let Some(disk) = disk() else { return };
    run(async {
        let site = site(&disk).cores(1);
        let mut broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        let mut raw = Raw::connect(site.address()).await;
        let mut stored = 0_u64;
        for restarted in [false, true] {
            let ballast = disk.fill(6 << 20);
            let refused = loop {
                let payload = batch(&[&[stored.to_le_bytes(); 1_000].concat()]);
                let response = raw.call(&produce(topic, 0), &payload).await.produce();
                if response.error != 0 {
                    break response;
                }
                assert_eq!(response.base_offset as u64, stored);
                stored += 1;
            };
            assert_eq!(ErrorCode::from_i16(refused.error), ErrorCode::KafkaStorageError);
            assert!(ErrorCode::from_i16(refused.error).is_retriable());
            assert!(refused.message.unwrap().contains("no space"));
            if restarted {
                broker.kill();
                broker = site.start();
                raw = Raw::connect(site.address()).await;
            }
            // Nothing of what was refused, all of what was acknowledged.
            let listed = raw.call(&list_offsets(topic, &[(0, -1)]), &[]).await.list_offsets();
            assert_eq!(listed.partitions.unwrap()[0].offset as u64, stored);
            for offset in (0..stored).step_by(50) {
                let reply = raw.call(&fetch(topic, &[(0, offset as i64)], 0, 1), &[]).await;
                assert_eq!(values(&reply.payload)[0][..8], offset.to_le_bytes());
            }
            ballast.free();
            let response = raw
                .call(&produce(topic, 0), &batch(&[&[stored.to_le_bytes(); 1_000].concat()]))
                .await
                .produce();
            assert_eq!((response.error, response.base_offset as u64), (0, stored));
            stored += 1;
        }
        assert_eq!(read_topic(&client, "t").await[0].len() as u64, stored);
        broker.stop();
    });
}

/// How often somebody was told that records were refused.
async fn refused(site: &Site) -> u64 {
    let told = |name: &str| name.starts_with("headwater_errors_total") && name.contains("KAFKA_STORAGE_ERROR");
    let samples = site.scrape().await.into_iter();
    samples.filter(|(name, _)| told(name)).map(|(_, count)| count).sum()
}

#[test]
fn producers_go_on_by_themselves_after_a_full_disk_has_room_again_and_nothing_is_lost_or_doubled() {
    let Some(disk) = disk() else { return };
    run(async {
        let site = site(&disk).with_metrics();
        let mut broker = site.start();
        let checker = site.client_with_topic(KIND.topic, KIND.partitions.into()).await;
        let load = Load::start([site.client().await, site.client().await], KIND, 0).await;
        for crash in [false, true, false] {
            let ballast = disk.fill(4 << 20);
            let before = refused(&site).await;
            load.allow(3_000);
            while refused(&site).await == before {
                pause().await;
            }
            broker.await_line("records were refused");
            let acknowledged = load.ledger.acknowledged();
            check(&acknowledged, &read_topic(&checker, KIND.topic).await);
            if crash {
                broker.kill();
                broker = site.start();
                check(&acknowledged, &read_topic(&checker, KIND.topic).await);
            }
            ballast.free();
            let goal = load.ledger.count() + 1_000;
            load.ledger.await_count(goal).await;
        }
        let ledger = load.finish().await;
        ledger.check_complete(&read_topic(&checker, KIND.topic).await);
        broker.stop();
    });
}

/// The last topic that could be made may have no room for its partition, which is opened when there is some.
const OFFLINE: &str = "a partition is offline; opening it is tried again";

/// Fills the disk until not even a topic can be made.
async fn fill_up(disk: &SmallDisk, site: &Site) -> Vec<Ballast> {
    let mut ballasts = vec![disk.fill(0)];
    // A client would try again for a long time.
    let mut raw = Raw::connect(site.address()).await;
    // Sealing gives a little back at times, until there is no room for another.
    for number in 0.. {
        let another = CreateTopicRequestT {
            name: Some(format!("another-{number}")),
            ..CreateTopicRequestT::default()
        };
        let made = raw.call(&another, &[]).await.create_topic();
        if made.error != 0 {
            assert_eq!(
                ErrorCode::from_i16(made.error),
                ErrorCode::KafkaStorageError,
                "{made:?}"
            );
            break;
        }
        ballasts.push(disk.fill(0));
    }
    ballasts
}

async fn send(producer: &Producer, topic: &str, count: usize) {
    for _ in 0..count {
        let delivery = producer.send(Record::to(topic).value(&vec![0; 20_000])).await;
        drop(delivery.unwrap());
    }
    producer.flush().await.unwrap();
}

#[test]
fn a_topic_can_be_deleted_to_make_room_on_a_full_disk() {
    let Some(disk) = disk() else { return };
    run(async {
        let broker_site = site(&disk);
        let broker = broker_site.start().expect_errors(OFFLINE);
        let client = broker_site.client_with_topic("large", 1).await;
        let new = NewTopic::new("small").partitions(1);
        client.admin().create_topic(new).await.unwrap();
        let producer = client.producer().build().await.unwrap();
        send(&producer, "large", 200).await;
        let ballasts = fill_up(&disk, &broker_site).await;
        client.admin().delete_topic("large").await.unwrap();
        send(&producer, "small", 1).await;
        producer.close().await.unwrap();
        ballasts.into_iter().for_each(Ballast::free);
        broker.stop();
    });
}

#[test]
fn a_topic_that_is_to_keep_less_makes_room_on_a_full_disk_without_waiting_for_the_next_look() {
    let Some(disk) = disk() else { return };
    run(async {
        let site = site(&disk).set("log.retention_check_interval_ms", "1d");
        let broker = site.start().expect_errors(OFFLINE);
        let client = site.client().await;
        let new = NewTopic::new("t").partitions(1).config("segment.bytes", 1 << 20);
        client.admin().create_topic(new).await.unwrap();
        let producer = client.producer().build().await.unwrap();
        send(&producer, "t", 400).await;
        let ballasts = fill_up(&disk, &site).await;
        let less = TopicAlteration::of("t").set("retention.bytes", 1 << 20);
        client.admin().alter_topic(less).await.unwrap();
        // More than what was left on the disk; producers wait until there is room.
        send(&producer, "t", 100).await;
        let first = client.admin().list_offsets("t", OffsetSpec::Earliest).await.unwrap()[0];
        assert!(first.unwrap().get() > 0);
        producer.close().await.unwrap();
        ballasts.into_iter().for_each(Ballast::free);
        broker.stop();
    });
}

#[test]
fn batches_that_a_full_disk_refuses_are_all_counted_and_seldom_logged() {
    const REFUSED: u64 = 100;
    let Some(disk) = disk() else { return };
    run(async {
        let site = site(&disk).cores(1).with_metrics();
        let broker = site.start().expect_errors(OFFLINE);
        let client = site.client_with_topic("t", 1).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        let began = Instant::now();
        let ballasts = fill_up(&disk, &site).await;
        let mut raw = Raw::connect(site.address()).await;
        let payload = batch(&[&vec![7; 300_000]]);
        let mut refused = 0;
        while refused < REFUSED {
            refused += u64::from(raw.call(&produce(topic, 0), &payload).await.produce().error != 0);
        }
        let counted = site.scrape().await["headwater_produce_refused_total{core=\"0\",reason=\"disk_full\"}"];
        assert_eq!(counted, REFUSED);
        let is_said = |line: &&String| line.contains("records were refused");
        let said = broker.lines().iter().filter(is_said).count() as u64;
        let most = 1 + began.elapsed().as_secs() / 10;
        assert!((1..=most).contains(&said), "{said} lines, where {most} are enough");
        ballasts.into_iter().for_each(Ballast::free);
        broker.stop();
    });
}

#[test]
fn retention_makes_room_on_a_full_disk_by_itself() {
    let Some(disk) = disk() else { return };
    run(async {
        let site = site(&disk).set("log.retention_check_interval_ms", "50ms");
        let broker = site.start();
        let client = site.client().await;
        let new = NewTopic::new("t").config("segment.bytes", 1 << 20);
        client.admin().create_topic(new).await.unwrap();
        let producer = client.producer().batch_bytes(64 << 10).build().await.unwrap();
        let value = |number: u64| [number.to_le_bytes(); 500].concat();
        let first_ballast = disk.fill(12 << 20);
        for number in 0..2_000 {
            drop(producer.send(Record::to("t").value(&value(number))).await.unwrap());
        }
        producer.flush().await.unwrap();
        // Not even a checkpoint finds room now; and only the next broker knows that less is to be kept.
        broker.kill();
        let last_ballast = disk.fill(0);
        let site = site.set("log.retention_bytes", "3MiB");
        let broker = site.start();
        // Several times what fits; producers wait until there is room.
        let mut deliveries = Vec::new();
        for number in 2_000..7_000 {
            deliveries.push(producer.send(Record::to("t").value(&value(number))).await.unwrap());
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        first_ballast.free();
        last_ballast.free();
        broker.stop();
    });
}
