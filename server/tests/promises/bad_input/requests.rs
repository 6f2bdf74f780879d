//! Requests for what is not there or cannot be.

use headwater_client::{ErrorCode, TopicId};
use headwater_protocol::schema::{
    ConfigT, CreateTopicRequestT, DeleteRecordsRequestT, DeleteTopicRequestT, DescribeTopicRequestT, MetadataRequestT,
    ProduceRequestT,
};

use super::Setting;
use crate::support::{Raw, Reply, batch, fetch, list_offsets, produce, run};

#[test]
fn a_produce_request_for_what_is_not_there_is_refused_by_name() {
    run(async {
        let setting = Setting::new().await;
        let mut raw = setting.connect().await;
        let request = produce(setting.topic, 0);
        let mut cases = vec![
            (produce(TopicId::random(), 0), ErrorCode::UnknownTopicId),
            (
                ProduceRequestT {
                    topic_id: None,
                    ..request.clone()
                },
                ErrorCode::InvalidRequest,
            ),
        ];
        cases.extend([-1, 1, i32::MAX, i32::MIN].map(|partition| {
            let request = request.clone();
            (
                ProduceRequestT { partition, ..request },
                ErrorCode::UnknownTopicOrPartition,
            )
        }));
        cases.extend([2, -2, i16::MAX, i16::MIN].map(|acks| {
            let request = request.clone();
            (ProduceRequestT { acks, ..request }, ErrorCode::InvalidRequiredAcks)
        }));
        for (request, code) in cases {
            let response = raw.call(&request, &batch(&[b"value"])).await.produce();
            assert_eq!(ErrorCode::from_i16(response.error), code, "{request:?}");
        }
        setting.end().await;
    });
}

#[test]
fn offsets_times_and_partitions_that_are_not_there_are_refused_by_name() {
    run(async {
        let setting = Setting::new().await;
        let (topic, unknown) = (setting.topic, TopicId::random());
        let mut raw = setting.connect().await;
        for offset in [-1, 1, i64::MAX, i64::MIN] {
            assert_eq!(fetched(&mut raw, topic, 0, offset).await, ErrorCode::OffsetOutOfRange);
            let deletion = DeleteRecordsRequestT {
                topic_id: Some(topic.into()),
                partition: 0,
                // -1 is the high watermark.
                offset: if offset == -1 { -2 } else { offset },
            };
            let deleted = raw.call(&deletion, &[]).await.delete_records();
            assert_eq!(ErrorCode::from_i16(deleted.error), ErrorCode::OffsetOutOfRange);
        }
        for timestamp in [-3, i64::MIN] {
            assert_eq!(listed(&mut raw, topic, 0, timestamp).await, ErrorCode::InvalidRequest);
        }
        for (topic, partition, code) in [
            (unknown, 0, ErrorCode::UnknownTopicId),
            (topic, 1, ErrorCode::UnknownTopicOrPartition),
            (topic, i32::MAX, ErrorCode::UnknownTopicOrPartition),
        ] {
            assert_eq!(fetched(&mut raw, topic, partition, 0).await, code);
            assert_eq!(listed(&mut raw, topic, partition, -1).await, code);
        }
        let negative = raw.call(&fetch(topic, &[(-1, 0)], 0, 1), &[]).await;
        assert_eq!(negative.refusal(), ErrorCode::InvalidRequest);
        let negative = raw.call(&list_offsets(topic, &[(-1, 0)]), &[]).await;
        assert_eq!(negative.refusal(), ErrorCode::InvalidRequest);
        setting.end().await;
    });
}

/// The error of the one partition in the answer to a fetch that could wait.
async fn fetched(raw: &mut Raw, topic: TopicId, partition: i32, offset: i64) -> ErrorCode {
    let response = raw.call(&fetch(topic, &[(partition, offset)], 3_600_000, 1), &[]).await;
    ErrorCode::from_i16(response.fetch().partitions.unwrap()[0].error)
}

async fn listed(raw: &mut Raw, topic: TopicId, partition: i32, timestamp: i64) -> ErrorCode {
    let response = raw.call(&list_offsets(topic, &[(partition, timestamp)]), &[]).await;
    ErrorCode::from_i16(response.list_offsets().partitions.unwrap()[0].error)
}

#[test]
fn names_that_no_topic_can_have_are_refused_and_not_repeated_at_length() {
    run(async {
        let setting = Setting::new().await;
        let mut raw = setting.connect().await;
        let (too_long, very_long) = ("x".repeat(250), "long".repeat(1 << 18));
        // Each of these bytes takes six when it is quoted.
        let unprintable = "\u{1}".repeat(1 << 20);
        let parent = "../aaaaaaaaaaaaaaaaaaaa";
        let names = [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "é",
            "a\0",
            parent,
            &too_long,
            &very_long,
            &unprintable,
        ];
        for name in names {
            assert_illegal(&mut raw, name).await;
            assert_invalid_config(&mut raw, name, "").await;
            assert_invalid_config(&mut raw, "segment.bytes", name).await;
        }
        let topics = setting.site.client().await.admin().topics().await.unwrap();
        assert_eq!(topics.len(), 2, "something was created");
        setting.end().await;
    });
}

async fn assert_illegal(raw: &mut Raw, text: &str) {
    let name = || Some(text.to_owned());
    let create = CreateTopicRequestT {
        name: name(),
        ..CreateTopicRequestT::default()
    };
    let reply = raw.call(&create, &[]).await;
    let code = ErrorCode::from_i16(reply.create_topic().error);
    assert_eq!(code, ErrorCode::InvalidTopicException, "{text:.20}");
    assert_short(&reply);
    let reply = raw.call(&DeleteTopicRequestT { name: name() }, &[]).await;
    assert_ne!(reply.delete_topic().error, 0);
    assert_short(&reply);
    let reply = raw.call(&DescribeTopicRequestT { name: name() }, &[]).await;
    assert_ne!(reply.describe_topic().error, 0);
    assert_short(&reply);
    let metadata = MetadataRequestT {
        topics: Some(vec![text.to_owned()]),
    };
    let topics = raw.call(&metadata, &[]).await.metadata().topics.unwrap();
    assert_eq!(ErrorCode::from_i16(topics[0].error), ErrorCode::InvalidTopicException);
}

async fn assert_invalid_config(raw: &mut Raw, key: &str, value: &str) {
    let config = ConfigT {
        name: Some(key.to_owned()),
        value: Some(value.to_owned()),
        own: false,
    };
    let create = CreateTopicRequestT {
        name: Some("configured".to_owned()),
        configs: Some(vec![config]),
        ..CreateTopicRequestT::default()
    };
    let reply = raw.call(&create, &[]).await;
    let code = ErrorCode::from_i16(reply.create_topic().error);
    assert_eq!(code, ErrorCode::InvalidConfig, "{key:.20} = {value:.20}");
    assert_short(&reply);
}

/// An error quotes what it is about only as far as a person would read it.
fn assert_short(reply: &Reply) {
    let size = reply.header.frame_len();
    assert!(size < 4_096, "an error of {size} bytes");
}
