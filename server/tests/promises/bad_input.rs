//! Whatever comes over a socket gets its named error or a closed connection; no panic, no memory for what is only claimed,
//! and others are not disturbed.

use std::sync::Arc;

use headwater_client::{ErrorCode, TopicId};
use headwater_protocol::{
    batch::{BatchBuilder, Compression, HEADER_LEN},
    frame::{self, Api, FrameHeader},
    head::Head,
    id::{CorrelationId, Timestamp},
    schema::{
        ConfigT, CreateTopicRequestT, DeleteRecordsRequestT, DeleteTopicRequestT, DescribeTopicRequestT,
        FetchPartitionT, FetchRequestT, InitProducerIdRequestT, ListOffsetsPartitionT, ListOffsetsRequestT,
        MetadataRequestT, ProduceRequestT,
    },
};
use rand::{RngExt as _, rngs::SmallRng};
use tokio::io::AsyncWriteExt as _;

use crate::support::{
    Broker, Kind, Load, Raw, Reply, Seed, Site, batch, fetch, list_offsets, numbered_batch, produce, read_topic, run,
};

/// What well-behaved clients use meanwhile.
const KIND: Kind = Kind {
    topic: "well-behaved",
    partitions: 2,
    value_lens: &[100, 2_000],
};

/// Records of well-behaved clients, before and after.
const RECORDS: usize = 2_000;

/// The largest frame that the broker takes here, in bytes after the size field.
const FRAME_SIZE_MAX: u32 = 2 << 20;

/// What memory may vary by under the load of this file.
const SLACK_BYTES: u64 = 24 << 20;

/// A broker, a topic to be bad to, and well-behaved clients.
struct Setting {
    site: Site,
    broker: Broker,
    /// Its only partition is owned by either core.
    topic: TopicId,
    load: Load,
    resident_bytes: u64,
}

impl Setting {
    async fn new() -> Setting {
        Setting::at(Site::new()).await
    }

    async fn at(site: Site) -> Setting {
        let broker = site.start();
        let client = site.client_with_topic(KIND.topic, KIND.partitions.into()).await;
        let victim = headwater_client::NewTopic::new("victim").partitions(1);
        let topic = client.admin().create_topic(victim).await.unwrap().id;
        let load = Load::start([client], KIND, 0).await;
        let mut setting = Setting {
            site,
            broker,
            topic,
            load,
            resident_bytes: 0,
        };
        setting.others_go_on().await;
        setting.resident_bytes = setting.broker.resident_bytes();
        setting
    }

    async fn others_go_on(&self) {
        let goal = self.load.ledger.count() + RECORDS as u64;
        self.load.allow(RECORDS);
        self.load.ledger.await_count(goal).await;
    }

    fn check_memory(&self) {
        let (resident, before) = (self.broker.resident_bytes(), self.resident_bytes);
        assert!(
            resident.saturating_sub(before) <= SLACK_BYTES,
            "{before} bytes of memory have become {resident}"
        );
    }

    async fn connect(&self) -> Raw {
        Raw::connect(self.site.address()).await
    }

    async fn end(self) {
        self.others_go_on().await;
        self.check_memory();
        let client = self.site.client().await;
        let log = read_topic(&client, KIND.topic).await;
        self.load.finish().await.check_complete(&log);
        self.broker.stop();
    }
}

/// A connection that has answered a bad request must go on to answer a good one.
async fn assert_alive(raw: &mut Raw) {
    let reply = raw.call(&MetadataRequestT { topics: None }, &[]).await;
    assert_eq!(reply.metadata().error, 0);
}

/// Sends a frame of these parts.
async fn call(raw: &mut Raw, api: u16, version: u16, head: &[u8], payload: &[u8]) -> Reply {
    let id = raw.next_id();
    let header = FrameHeader::new(api, version, id, head.len(), payload.len()).unwrap();
    raw.stream
        .write_all(&[&header.encode()[..], head, payload].concat())
        .await
        .unwrap();
    let reply = raw.receive().await.expect("the broker answers");
    assert_eq!(reply.header.correlation_id, id);
    reply
}

#[test]
fn a_request_that_is_not_understood_is_refused_and_the_connection_goes_on() {
    run(async {
        let setting = Setting::new().await;
        let mut raw = setting.connect().await;
        for api in [Api::Error as u16, 11, 999, u16::MAX] {
            assert_eq!(
                call(&mut raw, api, 0, &[], &[]).await.refusal(),
                ErrorCode::UnsupportedVersion
            );
        }
        let garbage: Vec<u8> = (0..=255).collect();
        for api in Api::REQUESTS {
            let api = api.as_u16();
            for version in [1, u16::MAX] {
                assert_eq!(
                    call(&mut raw, api, version, &[], &[]).await.refusal(),
                    ErrorCode::UnsupportedVersion
                );
            }
            for head in [&[][..], &[0], &[0xff; 64], &garbage] {
                let refusal = call(&mut raw, api, 0, head, &[]).await.refusal();
                assert_eq!(refusal, ErrorCode::InvalidRequest, "api {api}, head {head:?}");
            }
        }
        let head = headwater_protocol::head::encode(&MetadataRequestT { topics: None });
        let refusal = call(&mut raw, Api::Metadata as u16, 0, &head, b"payload")
            .await
            .refusal();
        assert_eq!(refusal, ErrorCode::InvalidRequest);
        assert_alive(&mut raw).await;
        setting.end().await;
    });
}

#[test]
fn a_frame_of_impossible_size_is_refused_and_the_connection_closed() {
    run(async {
        let setting = Setting::new().await;
        let sizes = [
            (0, 0),
            (11, 0),
            (12, 1),
            (100, 89),
            (FRAME_SIZE_MAX + 1, 0),
            (u32::MAX, 0),
            (u32::MAX, u32::MAX),
        ];
        for (size, head_size) in sizes {
            let mut raw = setting.connect().await;
            let mut header = [0; frame::HEADER_LEN];
            header[..4].copy_from_slice(&size.to_le_bytes());
            header[8..12].copy_from_slice(&7_u32.to_le_bytes());
            header[12..].copy_from_slice(&head_size.to_le_bytes());
            raw.stream.write_all(&header).await.unwrap();
            let reply = raw.receive().await.expect("the broker says why");
            assert_eq!(
                (reply.refusal(), reply.header.correlation_id.get()),
                (ErrorCode::InvalidRequest, 7)
            );
            assert!(
                raw.receive().await.is_none(),
                "where the next frame would begin is not known"
            );
        }
        setting.end().await;
    });
}

#[test]
fn a_frame_that_ends_early_ends_its_connection() {
    run(async {
        let setting = Setting::new().await;
        let whole = frame::encode_head(&MetadataRequestT { topics: None }, 0, CorrelationId::new(7), 0);
        for len in 1..whole.len() {
            let mut raw = setting.connect().await;
            raw.stream.write_all(&whole[..len]).await.unwrap();
            raw.stream.shutdown().await.unwrap();
            assert!(
                raw.receive().await.is_none(),
                "answered after {len} bytes of {}",
                whole.len()
            );
        }
        setting.end().await;
    });
}

#[test]
fn batches_that_are_not_whole_and_valid_are_refused_by_name() {
    run(async {
        let setting = Setting::new().await;
        let mut raw = setting.connect().await;
        let good = batch(&[b"value"]);
        let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut batch = good.clone();
            change(&mut batch);
            batch
        };
        let with_crc = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut batch = damaged(change);
            let crc = crc32c::crc32c(&batch[21..]);
            batch[17..21].copy_from_slice(&crc.to_be_bytes());
            batch
        };
        let length = |length: i32| damaged(&|batch| batch[8..12].copy_from_slice(&length.to_be_bytes()));
        let mut late = BatchBuilder::new(Compression::None, 0);
        let in_a_year = Timestamp::new(Timestamp::now().get() + 365 * 24 * 3_600_000);
        late.append(in_a_year, None, Some(b"value"), &[]).unwrap();
        let numbered = numbered_batch(&[b"value"], 1_000_000, 0, 0);
        let cases: Vec<(&str, Vec<u8>, ErrorCode)> = vec![
            ("nothing", Vec::new(), ErrorCode::InvalidRecord),
            ("a byte", vec![1], ErrorCode::CorruptMessage),
            (
                "half a header",
                good[..HEADER_LEN / 2].to_vec(),
                ErrorCode::CorruptMessage,
            ),
            ("a header", good[..HEADER_LEN].to_vec(), ErrorCode::CorruptMessage),
            (
                "all but a byte",
                good[..good.len() - 1].to_vec(),
                ErrorCode::CorruptMessage,
            ),
            ("a byte more", [&good[..], &[0]].concat(), ErrorCode::CorruptMessage),
            (
                "a bad second",
                [&good[..], &good[..70]].concat(),
                ErrorCode::CorruptMessage,
            ),
            ("length -1", length(-1), ErrorCode::CorruptMessage),
            ("length 0", length(0), ErrorCode::CorruptMessage),
            ("too short", length(48), ErrorCode::CorruptMessage),
            ("length max", length(i32::MAX), ErrorCode::MessageTooLarge),
            (
                "a flipped bit",
                damaged(&|batch| *batch.last_mut().unwrap() ^= 4),
                ErrorCode::CorruptMessage,
            ),
            (
                "another CRC",
                damaged(&|batch| batch[17] ^= 1),
                ErrorCode::CorruptMessage,
            ),
            (
                "magic 1",
                damaged(&|batch| batch[16] = 1),
                ErrorCode::UnsupportedForMessageFormat,
            ),
            (
                "magic 3",
                damaged(&|batch| batch[16] = 3),
                ErrorCode::UnsupportedForMessageFormat,
            ),
            (
                "codec 7",
                with_crc(&|batch| batch[22] |= 7),
                ErrorCode::UnsupportedCompressionType,
            ),
            (
                "control",
                with_crc(&|batch| batch[22] |= 0x20),
                ErrorCode::InvalidRecord,
            ),
            (
                "a transaction",
                with_crc(&|batch| batch[22] |= 0x10),
                ErrorCode::InvalidRecord,
            ),
            (
                "the broker's time",
                with_crc(&|batch| batch[22] |= 0x08),
                ErrorCode::InvalidTimestamp,
            ),
            (
                "no records",
                with_crc(&|batch| batch[57..61].fill(0)),
                ErrorCode::InvalidRecord,
            ),
            (
                "2 of 1 records",
                with_crc(&|batch| batch[60] = 2),
                ErrorCode::InvalidRecord,
            ),
            (
                "billions of records",
                with_crc(&|batch| {
                    batch[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
                    batch[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
                }),
                ErrorCode::InvalidRecord,
            ),
            (
                "a time below zero",
                with_crc(&|batch| batch[27] = 0x80),
                ErrorCode::InvalidTimestamp,
            ),
            (
                "a time in a year",
                late.build().bytes().to_vec(),
                ErrorCode::InvalidTimestamp,
            ),
            (
                "no epoch",
                numbered_batch(&[b"value"], 1, -1, 0),
                ErrorCode::InvalidRecord,
            ),
            (
                "no sequence",
                numbered_batch(&[b"value"], 1, 0, -1),
                ErrorCode::InvalidRecord,
            ),
            (
                "two at once",
                [&numbered[..], &numbered].concat(),
                ErrorCode::InvalidRecord,
            ),
            (
                "an unknown producer",
                numbered_batch(&[b"value"], 2, 0, 9),
                ErrorCode::UnknownProducerId,
            ),
            (
                "larger than allowed",
                batch(&[&vec![0; 1 << 20]]),
                ErrorCode::MessageTooLarge,
            ),
        ];
        for (case, payload, expected) in cases {
            let response = raw.call(&produce(setting.topic, 0), &payload).await.produce();
            assert_eq!(
                ErrorCode::from_i16(response.error),
                expected,
                "{case}: {:?}",
                response.message
            );
            assert!(response.message.is_some_and(|message| !message.is_empty()), "{case}");
            assert_eq!(response.base_offset, -1, "{case}");
        }
        // Nothing of all this was stored.
        let response = raw.call(&produce(setting.topic, 0), &good).await.produce();
        assert_eq!((response.error, response.base_offset), (0, 0));
        setting.end().await;
    });
}

#[test]
fn sequences_of_an_idempotent_producer_that_do_not_follow_are_refused_by_name() {
    run(async {
        let setting = Setting::new().await;
        let mut raw = setting.connect().await;
        let granted = raw
            .call(&InitProducerIdRequestT::default(), &[])
            .await
            .init_producer_id();
        let id = granted.producer_id;
        let steps = [
            (1, 0, ErrorCode::None, 0),
            // A new epoch begins at 0, and fences off the old one.
            (1, 1, ErrorCode::None, 1),
            (1, 1, ErrorCode::None, 1),
            (1, 3, ErrorCode::OutOfOrderSequenceNumber, -1),
            (0, 2, ErrorCode::InvalidProducerEpoch, -1),
            (2, 1, ErrorCode::OutOfOrderSequenceNumber, -1),
            (2, 0, ErrorCode::None, 2),
            (1, 2, ErrorCode::InvalidProducerEpoch, -1),
        ];
        for (epoch, sequence, code, offset) in steps {
            let payload = numbered_batch(&[b"value"], id, epoch, sequence);
            let response = raw.call(&produce(setting.topic, 0), &payload).await.produce();
            let found = (ErrorCode::from_i16(response.error), response.base_offset);
            assert_eq!(found, (code, offset), "epoch {epoch}, sequence {sequence}");
        }
        setting.end().await;
    });
}

#[test]
fn what_is_asked_of_what_is_not_there_is_refused_by_name() {
    run(async {
        let setting = Setting::new().await;
        let (topic, good) = (setting.topic, batch(&[b"value"]));
        let mut raw = setting.connect().await;
        let unknown = TopicId::random();
        let mut produced =
            async |request: ProduceRequestT| ErrorCode::from_i16(raw.call(&request, &good).await.produce().error);
        assert_eq!(produced(produce(unknown, 0)).await, ErrorCode::UnknownTopicId);
        for partition in [-1, 1, i32::MAX, i32::MIN] {
            assert_eq!(
                produced(produce(topic, partition)).await,
                ErrorCode::UnknownTopicOrPartition
            );
        }
        for acks in [2, -2, i16::MAX, i16::MIN] {
            let request = ProduceRequestT {
                acks,
                ..produce(topic, 0)
            };
            assert_eq!(produced(request).await, ErrorCode::InvalidRequiredAcks);
        }
        let nameless = ProduceRequestT {
            topic_id: None,
            ..produce(topic, 0)
        };
        assert_eq!(produced(nameless).await, ErrorCode::InvalidRequest);
        for offset in [-1, 1, i64::MAX, i64::MIN] {
            let fetched = raw.call(&fetch(topic, &[(0, offset)], 1_000, 1), &[]).await.fetch();
            let partition = &fetched.partitions.unwrap()[0];
            assert_eq!(ErrorCode::from_i16(partition.error), ErrorCode::OffsetOutOfRange);
            let deletion = DeleteRecordsRequestT {
                topic_id: Some(topic.into()),
                partition: 0,
                offset: if offset == -1 { -2 } else { offset },
            };
            let deleted = raw.call(&deletion, &[]).await.delete_records();
            assert_eq!(ErrorCode::from_i16(deleted.error), ErrorCode::OffsetOutOfRange);
        }
        for timestamp in [-3, i64::MIN] {
            let listed = raw
                .call(&list_offsets(topic, &[(0, timestamp)]), &[])
                .await
                .list_offsets();
            assert_eq!(
                ErrorCode::from_i16(listed.partitions.unwrap()[0].error),
                ErrorCode::InvalidRequest
            );
        }
        for (topic, partition, code) in [
            (unknown, 0, ErrorCode::UnknownTopicId),
            (topic, 1, ErrorCode::UnknownTopicOrPartition),
            (topic, i32::MAX, ErrorCode::UnknownTopicOrPartition),
        ] {
            let fetched = raw.call(&fetch(topic, &[(partition, 0)], 1_000, 1), &[]).await.fetch();
            assert_eq!(ErrorCode::from_i16(fetched.partitions.unwrap()[0].error), code);
            let listed = raw
                .call(&list_offsets(topic, &[(partition, -1)]), &[])
                .await
                .list_offsets();
            assert_eq!(ErrorCode::from_i16(listed.partitions.unwrap()[0].error), code);
        }
        assert_eq!(
            raw.call(&fetch(topic, &[(-1, 0)], 0, 1), &[]).await.refusal(),
            ErrorCode::InvalidRequest
        );
        assert_eq!(
            raw.call(&list_offsets(topic, &[(-1, 0)]), &[]).await.refusal(),
            ErrorCode::InvalidRequest
        );
        setting.end().await;
    });
}

#[test]
fn names_that_no_topic_can_have_are_refused_and_not_repeated_at_length() {
    run(async {
        let setting = Setting::new().await;
        let mut raw = setting.connect().await;
        let long = "long".repeat(1 << 18);
        // Each of these bytes takes six when it is quoted.
        let unprintable = "\u{1}".repeat(1 << 20);
        let parent = format!("../{}", "a".repeat(20));
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "é",
            "a\0",
            &parent,
            &"x".repeat(250),
            &long,
            &unprintable,
        ] {
            let create = CreateTopicRequestT {
                name: Some(name.to_owned()),
                ..CreateTopicRequestT::default()
            };
            let reply = raw.call(&create, &[]).await;
            assert_eq!(
                ErrorCode::from_i16(reply.create_topic().error),
                ErrorCode::InvalidTopicException,
                "{name:.20}"
            );
            assert_short(&reply);
            let delete = DeleteTopicRequestT {
                name: create.name.clone(),
            };
            let reply = raw.call(&delete, &[]).await;
            assert_ne!(reply.delete_topic().error, 0);
            assert_short(&reply);
            let describe = DescribeTopicRequestT {
                name: create.name.clone(),
            };
            let reply = raw.call(&describe, &[]).await;
            assert_ne!(reply.describe_topic().error, 0);
            assert_short(&reply);
            let metadata = MetadataRequestT {
                topics: Some(vec![name.to_owned()]),
            };
            let topics = raw.call(&metadata, &[]).await.metadata().topics.unwrap();
            assert_eq!(ErrorCode::from_i16(topics[0].error), ErrorCode::InvalidTopicException);
            for (key, value) in [(name, ""), ("segment.bytes", name)] {
                let config = ConfigT {
                    name: Some(key.to_owned()),
                    value: Some(value.to_owned()),
                };
                let create = CreateTopicRequestT {
                    name: Some("configured".to_owned()),
                    configs: Some(vec![config]),
                    ..CreateTopicRequestT::default()
                };
                let reply = raw.call(&create, &[]).await;
                assert_eq!(
                    ErrorCode::from_i16(reply.create_topic().error),
                    ErrorCode::InvalidConfig,
                    "{name:.20}"
                );
                assert_short(&reply);
            }
        }
        let names = setting.site.client().await.admin().topics().await.unwrap();
        assert_eq!(names.len(), 2);
        setting.end().await;
    });
}

/// An error quotes what it is about only as far as a person would read it.
fn assert_short(reply: &Reply) {
    assert!(
        reply.header.frame_len() < 4_096,
        "an error of {} bytes",
        reply.header.frame_len()
    );
}

#[test]
fn a_length_that_is_only_claimed_costs_no_memory_and_keeps_nobody_waiting() {
    run(async {
        let setting = Setting::new().await;
        let mut claims = Vec::new();
        // The largest frames first, then small ones: together they would take all the memory there is for reading.
        for (number, size) in (0..200_u16).map(|number| (number, if number < 40 { FRAME_SIZE_MAX } else { 2_000 })) {
            let mut raw = Raw::connect(setting.site.core_address(number % 2)).await;
            let payload = size as usize - (frame::HEADER_LEN - 4) - 64;
            let header = FrameHeader::new(Api::Produce as u16, 0, raw.next_id(), 64, payload).unwrap();
            let mut claim = header.encode().to_vec();
            // From nothing at all to more than a connection's first buffer holds.
            claim.resize(claim.len() + usize::from(number) * 4, 0);
            raw.stream.write_all(&claim).await.unwrap();
            claims.push(raw);
        }
        setting.others_go_on().await;
        setting.check_memory();
        drop(claims);
        setting.end().await;
    });
}

#[test]
fn a_request_of_very_many_parts_is_answered_or_refused_before_long() {
    /// In 16 bytes or more each they nearly fill the frame.
    const PARTS: i32 = 1_000_000;
    run(async {
        let site = Site::new()
            .set("limits.frame_size_bytes_max", "32MiB")
            .set("limits.requests_in_flight_bytes_max", "32MiB")
            .set("cores.connection_bytes_max", "128MiB")
            .set("cores.in_flight_bytes_max", "128MiB");
        let setting = Setting::at(site).await;
        let mut raw = setting.connect().await;
        let fetched = |partition| FetchPartitionT {
            topic_id: setting.topic.into(),
            partition,
            max_bytes: 1,
            offset: 0,
        };
        let fetch = FetchRequestT {
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: 1,
            partitions: Some((0..PARTS).map(fetched).collect()),
        };
        let listed = |partition| ListOffsetsPartitionT {
            topic_id: setting.topic.into(),
            partition,
            timestamp: 0,
        };
        let list = ListOffsetsRequestT {
            partitions: Some((0..PARTS).map(listed).collect()),
        };
        let metadata = MetadataRequestT {
            topics: Some(vec!["no-such-topic".to_owned(); PARTS as usize]),
        };
        ask(&mut raw, &fetch).await;
        ask(&mut raw, &list).await;
        ask(&mut raw, &metadata).await;
        setting.others_go_on().await;
        drop(raw);
        setting.load.finish().await;
        setting.broker.stop();
    });
}

async fn ask<H: Head>(raw: &mut Raw, request: &H) {
    raw.call(request, &[]).await;
}

#[test]
fn random_bytes_and_damaged_requests_leave_the_broker_as_it_was() {
    let seed = Seed::of("random_bytes_and_damaged_requests_leave_the_broker_as_it_was");
    run(async {
        let setting = Arc::new(Setting::new().await);
        let mut random = seed.random();
        let valid = valid_requests(setting.topic);
        for number in 0..600 {
            let mut raw = setting.connect().await;
            let bytes = if number % 4 == 0 {
                (0..random.random_range(1..3_000)).map(|_| random.random()).collect()
            } else {
                damage(valid[random.random_range(0..valid.len())].clone(), &mut random)
            };
            // It may be closed at the first byte.
            let _ = raw.stream.write_all(&bytes).await;
            if random.random_ratio(1, 2) {
                // The rest of a frame that is cut off never comes.
                let _ = raw.stream.shutdown().await;
                drop(raw.receive().await);
            }
        }
        let setting = Arc::into_inner(setting).unwrap();
        setting.end().await;
    });
}

/// One of each kind; nothing that would hurt the well-behaved.
fn valid_requests(topic: TopicId) -> Vec<Vec<u8>> {
    fn framed<H: Head>(head: &H, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame::encode_head(head, 0, CorrelationId::new(1), payload.len());
        bytes.extend_from_slice(payload);
        bytes
    }
    let name = || Some("victim-2".to_owned());
    let create = CreateTopicRequestT {
        name: name(),
        partitions: 1,
        ..CreateTopicRequestT::default()
    };
    let deletion = DeleteRecordsRequestT {
        topic_id: Some(topic.into()),
        partition: 0,
        offset: 0,
    };
    let metadata = MetadataRequestT {
        topics: Some(vec!["a".to_owned(), "b".to_owned()]),
    };
    vec![
        framed(&metadata, &[]),
        framed(&create, &[]),
        framed(&DeleteTopicRequestT { name: name() }, &[]),
        framed(&DescribeTopicRequestT { name: name() }, &[]),
        framed(&InitProducerIdRequestT::default(), &[]),
        framed(&produce(topic, 0), &batch(&[b"value", b"another"])),
        framed(&produce(topic, 0), &numbered_batch(&[b"value"], 1, 0, 0)),
        framed(&fetch(topic, &[(0, 0), (0, 1)], 0, 1), &[]),
        framed(&list_offsets(topic, &[(0, 0), (0, -1)]), &[]),
        framed(&deletion, &[]),
    ]
}

/// Flips bits, cuts, repeats or inserts; in the frame's header less often than elsewhere, where it would end everything.
fn damage(mut bytes: Vec<u8>, random: &mut SmallRng) -> Vec<u8> {
    for _ in 0..random.random_range(1..4) {
        let from = if random.random_ratio(1, 3) {
            0
        } else {
            frame::HEADER_LEN
        };
        let at = random.random_range(from.min(bytes.len() - 1)..bytes.len());
        match random.random_range(0..4) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => bytes.truncate(at.max(1)),
            _ => {
                let copy = bytes[at..].to_vec();
                bytes.extend(copy);
            }
        }
    }
    bytes
}
