//! Readers of what changes under them: partitions that are added, records that compaction takes out.

use std::time::Duration;

use headwater_client::{
    Advance, Client, NewTopic, Offset, OffsetReset, PartitionIndex, Record, Start, TopicAlteration,
};

use crate::{
    group_consumer::{GROUP, Member, TOPIC, fill, site},
    support::run,
};

const ONLY: PartitionIndex = PartitionIndex::new(0);

/// Only paces a wait for something that comes.
const SOON: Duration = Duration::from_millis(50);

#[test]
fn a_group_that_begins_at_the_end_reads_partitions_that_come_later_from_their_first_record() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 1).await;
        fill(&site, &client, 0, 3).await;
        let mut member = Member::start(&client, |builder| builder.offset_reset(OffsetReset::Latest)).await;
        member.has(1).await;
        let admin = client.admin();
        admin
            .alter_topic(TopicAlteration::of(TOPIC).partitions(2))
            .await
            .unwrap();
        fill(&site, &client, 1, 2).await;
        for offset in 0..2 {
            let record = member.consumer.recv().await.unwrap();
            assert_eq!((record.partition.get(), record.offset.get()), (1, offset));
        }
        member.consumer.close().await.unwrap();
        broker.stop();
    });
}

/// Five records of which compaction leaves the first, in a log whose last offsets then hold none.
async fn emptied_at_its_end(client: &Client) {
    let topic = NewTopic::new(TOPIC).partitions(1).config("cleanup.policy", "compact");
    let soon = topic.config("segment.ms", 100).config("delete.retention.ms", 0);
    let new = soon.config("min.cleanable.dirty.ratio", 0);
    client.admin().create_topic(new).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    for (key, value) in [
        ("kept", Some("1")),
        ("a", Some("1")),
        ("b", Some("1")),
        ("a", None),
        ("b", None),
    ] {
        let record = Record::to(TOPIC).key(key);
        let record = match value {
            Some(value) => record.value(value),
            None => record,
        };
        producer.send(record).await.unwrap().await.unwrap();
    }
    loop {
        let consumer = client.consumer().assign(TOPIC, [ONLY]).start(Start::Earliest);
        let mut consumer = consumer.build().await.unwrap();
        let mut count = 0;
        while consumer.position(TOPIC, ONLY).unwrap().get() < 5 {
            if let Advance::Records(records) = consumer.advance().await.unwrap() {
                count += records.iter().count();
            }
        }
        if count == 1 {
            let skipped = consumer.skipped();
            assert_eq!((skipped[0].no_record, skipped[0].deleted), (4, 0));
            return;
        }
    }
}

#[test]
fn a_group_is_not_behind_when_the_last_offsets_hold_no_record() {
    run(async {
        let site = site()
            .set("compaction.check_interval_ms", "10ms")
            .set("log.retention_check_interval_ms", "10ms");
        let broker = site.start();
        let client = site.client().await;
        emptied_at_its_end(&client).await;
        let mut member = Member::start(&client, |builder| builder).await;
        member.has(1).await;
        assert_eq!(member.consumer.recv().await.unwrap().offset.get(), 0);
        while member.consumer.position(TOPIC, ONLY).unwrap().get() < 5 {
            assert_eq!(member.consumer.recv_timeout(SOON).await.unwrap(), None);
        }
        member.consumer.close().await.unwrap();
        let lag = client.admin().groups().lag(GROUP).await.unwrap();
        assert_eq!(lag[0].committed.map(Offset::get), Some(5));
        broker.stop();
    });
}
