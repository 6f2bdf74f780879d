//! A request may come to any core: one that does not own the partition passes it on, and the answer is the same.

use std::collections::HashMap;

use headwater_client::{Client, TopicId};
use headwater_protocol::{
    error::ErrorCode,
    schema::{DeleteRecordsRequestT, DescribeTopicRequestT, FetchResponseT, ProduceRequestT},
};

use crate::support::{Broker, Raw, Reply, Site, batch, fetch, list_offsets, produce, run, values};

/// A topic with one partition on each of two cores, and a connection to core 0.
struct Setting {
    broker: Broker,
    site: Site,
    client: Client,
    topic: TopicId,
    /// The partition of core 0.
    own: i32,
    /// The partition of core 1.
    other: i32,
    raw: Raw,
}

impl Setting {
    async fn new() -> Setting {
        Setting::at(Site::new()).await
    }

    async fn at(site: Site) -> Setting {
        let broker = site.start();
        let client = site.client_with_topic("t", 2).await;
        let topic = client.admin().describe_topic("t").await.unwrap();
        let of_core = |core| {
            let mut partitions = topic.partitions.iter();
            let partition = partitions.find(|partition| partition.core.get() == core).unwrap();
            partition.partition.get()
        };
        let raw = Raw::connect(site.core_address(0)).await;
        Setting {
            broker,
            client,
            topic: topic.id,
            own: of_core(0),
            other: of_core(1),
            raw,
            site,
        }
    }

    /// Appends through the core that owns the partition.
    async fn append(&self, partition: i32, value: &[u8]) {
        let core = u16::from(partition == self.other);
        let mut raw = Raw::connect(self.site.core_address(core)).await;
        let reply = raw.call(&produce(self.topic, partition), &batch(&[value])).await;
        assert_eq!(reply.produce().error, 0);
    }

    /// The values in a partition, from a fetch at this connection.
    async fn values(&mut self, partition: i32) -> Vec<Vec<u8>> {
        let reply = self
            .raw
            .call(&fetch(self.topic, &[(partition, 0)], 10_000, 1), &[])
            .await;
        values(&reply.payload)
    }
}

#[test]
fn produce_requests_to_any_core_are_appended_in_the_order_of_their_arrival() {
    run(async {
        let mut setting = Setting::new().await;
        let mut sent = HashMap::new();
        // To both partitions in turn over one connection, so that answers overtake each other.
        for number in 0..200_u32 {
            for partition in [setting.own, setting.other] {
                let value = number.to_le_bytes();
                let request = produce(setting.topic, partition);
                let id = setting.raw.send(&request, &batch(&[&value])).await;
                sent.insert(id, number);
            }
        }
        while !sent.is_empty() {
            let reply = setting.raw.receive().await.unwrap();
            let number = sent.remove(&reply.header.correlation_id).unwrap();
            let response = reply.produce();
            assert_eq!((response.error, response.base_offset), (0, number.into()));
        }
        let expected: Vec<Vec<u8>> = (0..200_u32).map(|number| number.to_le_bytes().to_vec()).collect();
        assert_eq!(setting.values(setting.own).await, expected);
        assert_eq!(setting.values(setting.other).await, expected);
        setting.broker.stop();
    });
}

#[test]
fn whichever_core_records_come_through_they_hold_to_the_tail_budget_of_their_own_and_keep_their_order() {
    /// What `Site` allows, one batch that was let in before it was reached, and a chunk that is not full.
    const TAIL_BYTES_MAX: u64 = (8 + 1 + 2) << 20;
    const CONNECTIONS: u8 = 6;
    const BATCHES: u8 = 6;
    run(async {
        // Nothing becomes durable until everything has come that may.
        let site = Site::new().with_metrics().set("flush.delay_us", "500000");
        let mut setting = Setting::at(site).await;
        let (topic, other) = (setting.topic, setting.other);
        let mut offset = 0;
        for core in [0, 1] {
            let address = setting.site.core_address(core);
            let producers = (0..CONNECTIONS).map(|connection| {
                tokio::spawn(async move {
                    let mut raw = Raw::connect(address).await;
                    for number in 0..BATCHES {
                        let mut value = vec![0; 900_000];
                        value[..2].copy_from_slice(&[connection, number]);
                        raw.send(&produce(topic, other), &batch(&[&value])).await;
                    }
                    for _ in 0..BATCHES {
                        assert_eq!(raw.receive().await.unwrap().produce().error, 0);
                    }
                })
            });
            let producers: Vec<_> = producers.collect();
            let mut most = 0;
            while !producers.iter().all(tokio::task::JoinHandle::is_finished) {
                let held = setting.site.scrape().await["headwater_tail_buffer_bytes{core=\"1\"}"];
                most = held.max(most);
            }
            for producer in producers {
                producer.await.unwrap();
            }
            assert!(
                most <= TAIL_BYTES_MAX,
                "through core {core}: {most} bytes in tail buffers of 8 MiB"
            );
            assert!(
                most >= 8 << 20,
                "through core {core}: the budget was not spent, with {most} bytes"
            );
            let mut next = [0; CONNECTIONS as usize];
            for _ in 0..CONNECTIONS * BATCHES {
                let reply = setting
                    .raw
                    .call(&fetch(topic, &[(other, offset)], 10_000, 1), &[])
                    .await;
                let value = &values(&reply.payload)[0];
                assert_eq!(value[1], next[usize::from(value[0])]);
                next[usize::from(value[0])] += 1;
                offset += 1;
            }
        }
        setting.broker.stop();
    });
}

#[test]
fn a_fetch_over_several_cores_is_answered_in_the_order_of_its_partitions() {
    run(async {
        let mut setting = Setting::new().await;
        setting.append(setting.own, b"own").await;
        setting.append(setting.other, b"other").await;
        for order in [[setting.own, setting.other], [setting.other, setting.own]] {
            let request = fetch(setting.topic, &order.map(|partition| (partition, 0)), 60_000, 1);
            let reply = setting.raw.call(&request, &[]).await;
            let mut answered = Vec::new();
            for (partition, records) in reply.fetched() {
                let expected: &[u8] = if partition == setting.own { b"own" } else { b"other" };
                assert_eq!(values(records), [expected]);
                answered.push(partition);
            }
            assert_eq!(answered, order);
        }
        setting.broker.stop();
    });
}

#[test]
fn a_fetch_that_waits_is_woken_by_an_append_on_another_core() {
    run(async {
        let mut setting = Setting::new().await;
        let both = [(setting.own, 0), (setting.other, 0)];
        for (round, asked) in [(0, &[(setting.other, 0)][..]), (1, &both)] {
            let asked: Vec<_> = asked.iter().map(|(partition, _)| (*partition, round)).collect();
            // It could wait for longer than the test may take.
            let request = fetch(setting.topic, &asked, 3_600_000, 1);
            let id = setting.raw.send(&request, &[]).await;
            // A round trip on the same connection: the fetch has been taken in.
            let question = list_offsets(setting.topic, &[(setting.other, -1)]);
            assert!(
                setting.raw.call_behind(&question).await.is_empty(),
                "nothing was there to fetch"
            );
            setting.append(setting.other, b"news").await;
            let reply = setting.raw.receive().await.unwrap();
            assert_eq!(reply.header.correlation_id, id);
            assert_eq!(values(&reply.payload), [b"news"]);
            // Behind this the second round begins.
            setting.append(setting.own, b"own").await;
        }
        setting.broker.stop();
    });
}

#[test]
fn offsets_deletions_and_descriptions_of_other_cores_are_answered() {
    run(async {
        let mut setting = Setting::new().await;
        for value in [b"0", b"1", b"2"] {
            setting.append(setting.own, value).await;
            setting.append(setting.other, value).await;
        }
        for address in [
            setting.site.core_address(0),
            setting.site.core_address(1),
            setting.site.address(),
        ] {
            let mut raw = Raw::connect(address).await;
            let questions = [
                (setting.own, -1),
                (setting.other, -1),
                (setting.own, 0),
                (setting.other, 0),
            ];
            let listed = raw
                .call(&list_offsets(setting.topic, &questions), &[])
                .await
                .list_offsets();
            let mut offsets: Vec<_> = listed
                .partitions
                .unwrap()
                .iter()
                .map(|p| (p.partition, p.error, p.offset))
                .collect();
            offsets.sort_unstable();
            let mut expected = vec![(setting.own, 0, 3), (setting.other, 0, 3)];
            expected.extend([(setting.own, 0, 0), (setting.other, 0, 0)]);
            expected.sort_unstable();
            assert_eq!(offsets, expected);
            let name = Some("t".to_owned());
            let described = raw.call(&DescribeTopicRequestT { name }, &[]).await.describe_topic();
            let described: Vec<_> = described
                .partitions
                .unwrap()
                .iter()
                .map(|p| (p.partition, p.high_watermark))
                .collect();
            assert_eq!(described, [(0, 3), (1, 3)]);
        }
        let request = DeleteRecordsRequestT {
            topic_id: Some(setting.topic.into()),
            partition: setting.other,
            offset: 2,
        };
        let deleted = setting.raw.call(&request, &[]).await.delete_records();
        assert_eq!((deleted.error, deleted.log_start_offset), (0, 2));
        let reply = setting
            .raw
            .call(&fetch(setting.topic, &[(setting.other, 1)], 0, 0), &[])
            .await;
        let FetchResponseT { partitions, .. } = reply.fetch();
        let partition = &partitions.unwrap()[0];
        assert_eq!(ErrorCode::from_i16(partition.error), ErrorCode::OffsetOutOfRange);
        assert_eq!((partition.log_start_offset, partition.high_watermark), (2, 3));
        setting.broker.stop();
    });
}

#[test]
fn errors_of_other_cores_are_the_same_as_those_of_the_own() {
    run(async {
        let mut setting = Setting::new().await;
        let mut damaged = batch(&[b"value"]);
        *damaged.last_mut().unwrap() ^= 1;
        for partition in [setting.own, setting.other] {
            let reply: Reply = setting.raw.call(&produce(setting.topic, partition), &damaged).await;
            assert_eq!(ErrorCode::from_i16(reply.produce().error), ErrorCode::CorruptMessage);
            let silent = ProduceRequestT {
                acks: 0,
                ..produce(setting.topic, partition)
            };
            let mut raw = Raw::connect(setting.site.core_address(0)).await;
            raw.send(&silent, &batch(&[b"value"])).await;
            raw.send(&silent, &damaged).await;
            assert!(
                raw.receive().await.is_none(),
                "without acknowledgements, an error ends the connection"
            );
        }
        assert_eq!(setting.values(setting.own).await, [b"value"]);
        assert_eq!(setting.values(setting.other).await, [b"value"]);
        assert_eq!(setting.client.admin().topics().await.unwrap().len(), 1);
        setting.broker.stop();
    });
}
