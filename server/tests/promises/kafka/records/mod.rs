//! Records are taken in and given out as Kafka does it.

mod codecs;
mod leaving;
mod sessions;

use std::time::{Duration, Instant};

use headwater_kafka::{
    ApiKey, Uuid,
    messages::{
        CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse, FetchRequest,
        FetchResponse, InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse,
        MetadataRequest, MetadataResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProduceRequest,
        ProduceResponse, create_topics_request::CreatableTopic, delete_records_request, fetch_request,
        fetch_response::PartitionData, list_offsets_request, offset_for_leader_epoch_request, produce_request,
        produce_response::PartitionProduceResponse,
    },
};

use super::wire::Wire;
use crate::support::{Site, batch, numbered_batch, run, stored_values};

/// A produce request for one partition.
pub fn produce(topic: (&str, Uuid), partition: i32, acks: i16, records: Vec<u8>) -> ProduceRequest<'static> {
    let partition = produce_request::PartitionProduceData {
        index: partition,
        records: Some(records.into()),
    };
    ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![produce_request::TopicProduceData {
            name: topic.0.to_owned().into(),
            topic_id: topic.1,
            partition_data: vec![partition],
        }],
        ..ProduceRequest::default()
    }
}

/// A fetch request for partitions of one topic, each from an offset on.
pub fn fetch(topic: (&str, Uuid), partitions: &[(i32, i64)]) -> FetchRequest<'static> {
    let partitions = partitions
        .iter()
        .map(|(partition, offset)| fetch_request::FetchPartition {
            partition: *partition,
            fetch_offset: *offset,
            partition_max_bytes: 1 << 20,
            ..fetch_request::FetchPartition::default()
        });
    FetchRequest {
        max_bytes: 1 << 20,
        isolation_level: 1,
        topics: vec![fetch_request::FetchTopic {
            topic: topic.0.to_owned().into(),
            topic_id: topic.1,
            partitions: partitions.collect(),
        }],
        ..FetchRequest::default()
    }
}

impl Wire {
    pub async fn produced(&mut self, version: i16, request: &ProduceRequest<'_>) -> PartitionProduceResponse<'static> {
        let mut response: ProduceResponse<'_> = self.ask(ApiKey::Produce, version, request).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    pub async fn fetched(&mut self, version: i16, request: &FetchRequest<'_>) -> Vec<PartitionData<'static>> {
        let mut response: FetchResponse<'_> = self.ask(ApiKey::Fetch, version, request).await;
        assert_eq!((response.error_code, response.session_id), (0, 0));
        response.responses.remove(0).partitions
    }
}

#[test]
fn records_are_judged_as_kafka_judges_them() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        wire.create_topic("b1", 3, &[("max.message.bytes", "2000")]).await;
        let known = wire.topic("b1").await;
        let (topic, nobody) = (("b1", known.topic_id), ("b1", [7; 16]));
        let good = || batch(&[b"a", b"b"]);
        let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
            let mut batch = good();
            edit(&mut batch);
            batch
        };
        let of = |records: Vec<u8>| produce(topic, 0, -1, records);
        let cases: Vec<(&str, i16, ProduceRequest<'_>, i16)> = vec![
            ("acks=2", 12, produce(topic, 0, 2, good()), 21),
            ("acks=-2", 3, produce(topic, 0, -2, good()), 21),
            ("an unknown topic", 12, produce(("nope", [0; 16]), 0, -1, good()), 3),
            ("no such partition", 12, produce(topic, 7, -1, good()), 3),
            ("a negative partition", 13, produce(topic, -1, -1, good()), 3),
            ("an unknown id", 13, produce(nobody, 0, -1, good()), 100),
            ("magic 1", 12, of(edited(&|batch| batch[16] = 1)), 87),
            ("magic 3", 12, of(edited(&|batch| batch[16] = 3)), 2),
            ("nothing", 12, of(Vec::new()), 87),
            (
                "a bad checksum",
                12,
                of(edited(&|batch| *batch.last_mut().unwrap() ^= 1)),
                2,
            ),
            ("too large", 12, of(batch(&[&[1; 3000]])), 10),
            ("zstd before it is known", 6, of(edited(&|batch| batch[22] = 4)), 76),
            (
                "a topic of the broker's own",
                12,
                produce(("__consumer_offsets", [0; 16]), 0, -1, good()),
                3,
            ),
        ];
        for (what, version, request, expected) in cases {
            let told = wire.produced(version, &request).await;
            assert_eq!((told.error_code, told.base_offset), (expected, -1), "{what}");
        }
        // None of them left anything behind.
        for (version, offset) in [(3, 0), (9, 2), (13, 4)] {
            let told = wire.produced(version, &of(good())).await;
            assert_eq!((told.error_code, told.base_offset), (0, offset));
        }
        // The last batches of a producer are known again, and answered as they were.
        let init: InitProducerIdResponse = wire
            .ask(
                ApiKey::InitProducerId,
                5,
                &InitProducerIdRequest {
                    transactional_id: None,
                    ..InitProducerIdRequest::default()
                },
            )
            .await;
        let numbered = |sequence| {
            produce(
                topic,
                1,
                -1,
                numbered_batch(&[b"x"], init.producer_id, init.producer_epoch, sequence),
            )
        };
        for (sequence, expected) in [
            (0, (0, 0)),
            (1, (0, 1)),
            (1, (0, 1)),
            (0, (0, 0)),
            (3, (45, -1)),
            (2, (0, 2)),
        ] {
            let told = wire.produced(12, &numbered(sequence)).await;
            assert_eq!((told.error_code, told.base_offset), expected, "sequence {sequence}");
        }
        // Who wants no answer gets none, and the end of the connection if the records are refused.
        wire.send(ApiKey::Produce, 12, &produce(topic, 2, 0, good())).await;
        let told = wire.produced(12, &produce(topic, 2, 1, good())).await;
        assert_eq!((told.error_code, told.base_offset), (0, 2));
        wire.send(ApiKey::Produce, 12, &produce(topic, 9, 0, good())).await;
        assert_eq!(wire.receive().await, None);
        broker.stop();
    });
}

#[test]
fn records_are_found_as_kafka_finds_them_at_every_version() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        wire.create_topic("c", 3, &[]).await;
        let topic = ("c", wire.topic("c").await.topic_id);
        for partition in 0..3 {
            for _ in 0..2 {
                wire.produced(13, &produce(topic, partition, 1, batch(&[b"a", b"b", b"c"])))
                    .await;
            }
        }
        // By name and by id, of cores that this connection belongs to, and of others: bytes, records, bytes, records.
        for version in 4..=18 {
            let found = wire.fetched(version, &fetch(topic, &[(0, 4), (1, 0), (2, 6)])).await;
            let offsets = |found: &PartitionData<'_>| -> Vec<u64> {
                let stored = stored_values(found.records.as_deref().expect("records are never null"));
                stored.into_iter().map(|(offset, _)| offset).collect()
            };
            // The whole batch that the offset lies in; and at the end nothing.
            assert_eq!(offsets(&found[0]), [3, 4, 5], "version {version}");
            assert_eq!(offsets(&found[1]), [0, 1, 2, 3, 4, 5], "version {version}");
            assert!(found[2].records.as_ref().unwrap().is_empty());
            for partition in &found {
                let seen = (
                    partition.error_code,
                    partition.high_watermark,
                    partition.last_stable_offset,
                );
                assert_eq!(seen, (0, 6, 6), "version {version}");
                assert_eq!(partition.aborted_transactions.as_deref(), Some(&[][..]));
            }
        }
        let code = async |wire: &mut Wire, request: FetchRequest<'_>, version| {
            let partition = wire.fetched(version, &request).await.remove(0);
            assert!(partition.records.unwrap().is_empty());
            partition.error_code
        };
        assert_eq!(code(&mut wire, fetch(topic, &[(0, 7)]), 18).await, 1, "beyond the end");
        assert_eq!(code(&mut wire, fetch(topic, &[(0, -1)]), 18).await, 1);
        assert_eq!(code(&mut wire, fetch(topic, &[(9, 0)]), 18).await, 3);
        assert_eq!(code(&mut wire, fetch(("c", [0; 16]), &[(0, 0)]), 18).await, 100);
        assert_eq!(code(&mut wire, fetch(("nope", [0; 16]), &[(0, 0)]), 12).await, 3);
        let mut known_too_well = fetch(topic, &[(0, 0)]);
        known_too_well.topics[0].partitions[0].current_leader_epoch = 5;
        assert_eq!(code(&mut wire, known_too_well, 18).await, 75);
        let mut replica = fetch(topic, &[(0, 0)]);
        replica.replica_id = 1;
        assert_eq!(code(&mut wire, replica, 12).await, 6);
        // Only the first partition gets a batch that is larger than what is asked for.
        let mut tiny = fetch(topic, &[(0, 0), (1, 0)]);
        tiny.max_bytes = 1;
        let found = wire.fetched(18, &tiny).await;
        let sizes: Vec<bool> = found
            .iter()
            .map(|found| found.records.as_ref().unwrap().is_empty())
            .collect();
        assert_eq!(sizes, [false, true]);
        // C13, C14: who knows another leader than there is learns it at once, and of what is not there with the rest.
        let mut fenced = fetch(topic, &[(0, 6), (1, 6)]);
        fenced.max_wait_ms = 60_000;
        fenced.min_bytes = 1;
        fenced.topics[0].partitions[1].current_leader_epoch = 5;
        assert_eq!(wire.fetched(18, &fenced).await[1].error_code, 75);
        let mut unknown = fetch(topic, &[(0, 6), (9, 0)]);
        (unknown.max_wait_ms, unknown.min_bytes) = (300, 1);
        let began = Instant::now();
        assert_eq!(wire.fetched(18, &unknown).await[1].error_code, 3);
        assert!(began.elapsed() >= Duration::from_millis(300));
        // C15: whose log differs is told where.
        for (last_epoch, offset, expected) in [(5, 6, (1, -1, -1)), (0, 3, (0, -1, -1)), (0, 20, (0, 0, 6))] {
            let mut differs = fetch(topic, &[(0, offset)]);
            (differs.max_wait_ms, differs.min_bytes) = (60_000, 1);
            differs.topics[0].partitions[0].last_fetched_epoch = last_epoch;
            let told = wire.fetched(18, &differs).await.remove(0);
            let diverges = (told.diverging_epoch.epoch, told.diverging_epoch.end_offset);
            assert_eq!(
                (told.error_code, diverges.0, diverges.1),
                expected,
                "{last_epoch} {offset}"
            );
        }
        // One that is named twice is answered once, as it is named last.
        let twice = wire.fetched(18, &fetch(topic, &[(0, 0), (1, 0), (0, 6)])).await;
        let found: Vec<_> = twice
            .iter()
            .map(|found| (found.partition_index, found.records.as_ref().unwrap().is_empty()))
            .collect();
        assert_eq!(found, [(0, true), (1, false)]);
        broker.stop();
    });
}

#[test]
fn offsets_are_told_as_kafka_tells_them() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        wire.create_topic("d", 1, &[]).await;
        let topic = ("d", wire.topic("d").await.topic_id);
        for _ in 0..5 {
            wire.produced(13, &produce(topic, 0, 1, batch(&[b"a", b"b"]))).await;
        }
        let list = async |wire: &mut Wire, version, timestamp, epoch| {
            let partition = list_offsets_request::ListOffsetsPartition {
                timestamp,
                current_leader_epoch: epoch,
                ..list_offsets_request::ListOffsetsPartition::default()
            };
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![list_offsets_request::ListOffsetsTopic {
                    name: "d".into(),
                    partitions: vec![partition],
                }],
                ..ListOffsetsRequest::default()
            };
            let mut response: ListOffsetsResponse<'_> = wire.ask(ApiKey::ListOffsets, version, &request).await;
            let found = response.topics.remove(0).partitions.remove(0);
            (found.error_code, found.offset, found.leader_epoch)
        };
        for (version, timestamp, epoch, expected) in [
            (11, -1, -1, (0, 10, 0)),
            (1, -1, -1, (0, 10, -1)),
            (11, -2, 0, (0, 0, 0)),
            (11, -4, -1, (0, 0, 0)),
            (6, -3, -1, (35, -1, -1)),
            (7, -4, -1, (35, -1, -1)),
            (11, -5, -1, (0, -1, -1)),
            (11, -6, -1, (0, -1, -1)),
            (10, -6, -1, (35, -1, -1)),
            (11, -7, -1, (35, -1, -1)),
            (11, 0, -1, (0, 0, 0)),
            (11, i64::MAX, -1, (0, -1, -1)),
            (11, -1, 5, (75, -1, -1)),
        ] {
            assert_eq!(
                list(&mut wire, version, timestamp, epoch).await,
                expected,
                "{timestamp} at {version}"
            );
        }
        a_partition_that_is_named_twice_is_refused_once(&mut wire).await;
        let end = async |wire: &mut Wire, epoch| {
            let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition {
                leader_epoch: epoch,
                ..offset_for_leader_epoch_request::OffsetForLeaderPartition::default()
            };
            let request = OffsetForLeaderEpochRequest {
                topics: vec![offset_for_leader_epoch_request::OffsetForLeaderTopic {
                    topic: "d".into(),
                    partitions: vec![partition],
                }],
                ..OffsetForLeaderEpochRequest::default()
            };
            let mut response: OffsetForLeaderEpochResponse<'_> =
                wire.ask(ApiKey::OffsetForLeaderEpoch, 4, &request).await;
            let found = response.topics.remove(0).partitions.remove(0);
            (found.error_code, found.leader_epoch, found.end_offset)
        };
        for (epoch, expected) in [(0, (0, 0, 10)), (1, (0, -1, -1)), (-1, (0, -1, -1))] {
            assert_eq!(end(&mut wire, epoch).await, expected, "epoch {epoch}");
        }
        let delete = async |wire: &mut Wire, offset| {
            let partition = delete_records_request::DeleteRecordsPartition {
                partition_index: 0,
                offset,
            };
            let request = DeleteRecordsRequest {
                topics: vec![delete_records_request::DeleteRecordsTopic {
                    name: "d".into(),
                    partitions: vec![partition],
                }],
                timeout_ms: 1000,
            };
            let mut response: DeleteRecordsResponse<'_> = wire.ask(ApiKey::DeleteRecords, 2, &request).await;
            let told = response.topics.remove(0).partitions.remove(0);
            (told.error_code, told.low_watermark)
        };
        for (offset, expected) in [(3, (0, 3)), (2, (0, 3)), (11, (1, -1)), (-2, (1, -1)), (-1, (0, 10))] {
            assert_eq!(delete(&mut wire, offset).await, expected, "before {offset}");
        }
        broker.stop();
    });
}

#[test]
fn topics_are_made_when_they_are_named_or_asked_for() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        assert_eq!(wire.metadata(&["auto"], false).await.topics[0].error_code, 3);
        let made = wire.metadata(&["auto", "a b"], true).await;
        assert_eq!(
            made.topics.iter().map(|topic| topic.error_code).collect::<Vec<_>>(),
            [0, 17]
        );
        assert_eq!(made.topics[0].partitions.len(), 1);
        // Each core is a node, and a partition is led by the one that owns it.
        let nodes: Vec<i32> = made.brokers.iter().map(|broker| broker.node_id).collect();
        assert_eq!(nodes, [0, 1]);
        assert!(nodes.contains(&made.topics[0].partitions[0].leader_id) && nodes.contains(&made.controller_id));
        let all: MetadataResponse<'_> = wire
            .ask(
                ApiKey::Metadata,
                1,
                &MetadataRequest {
                    topics: None,
                    ..MetadataRequest::default()
                },
            )
            .await;
        assert_eq!(all.topics.len(), 1);
        let topic = |name: &str, partitions: i32| CreatableTopic {
            name: name.to_owned().into(),
            num_partitions: partitions,
            replication_factor: -1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![
                topic("e", 2),
                topic("auto", 1),
                topic("f", 0),
                topic("..", 1),
                topic("g", 1),
                topic("g", 1),
            ],
            timeout_ms: 10_000,
            validate_only: false,
        };
        let made: CreateTopicsResponse<'_> = wire.ask(ApiKey::CreateTopics, 7, &request).await;
        let codes: Vec<_> = made
            .topics
            .iter()
            .map(|topic| (&*topic.name, topic.error_code))
            .collect();
        assert_eq!(codes, [("e", 0), ("auto", 36), ("f", 37), ("..", 17), ("g", 42)]);
        assert_eq!(
            (made.topics[0].num_partitions, made.topics[0].replication_factor),
            (2, 1)
        );
        assert!(
            made.topics[0]
                .configs
                .as_ref()
                .unwrap()
                .iter()
                .any(|config| config.name == "retention.ms")
        );
        broker.stop();
    });
}

/// D5.
async fn a_partition_that_is_named_twice_is_refused_once(wire: &mut Wire) {
    let latest = list_offsets_request::ListOffsetsPartition {
        timestamp: -1,
        ..list_offsets_request::ListOffsetsPartition::default()
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![list_offsets_request::ListOffsetsTopic {
            name: "d".into(),
            partitions: vec![latest.clone(), latest],
        }],
        ..ListOffsetsRequest::default()
    };
    let twice: ListOffsetsResponse<'_> = wire.ask(ApiKey::ListOffsets, 11, &request).await;
    let codes: Vec<_> = twice.topics[0]
        .partitions
        .iter()
        .map(|found| (found.error_code, found.offset))
        .collect();
    assert_eq!(codes, [(42, -1)]);
}
