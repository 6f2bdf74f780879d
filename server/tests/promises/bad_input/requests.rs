//! Requests for what is not there or cannot be.

use headwater_client::{ErrorCode, TopicId};
use headwater_protocol::schema::{
    ConfigT, CreateTopicRequestT, DeleteRecordsRequestT, DeleteTopicRequestT, DescribeTopicRequestT, MetadataRequestT,
    ProduceRequestT,
};

use super::Setting;
use crate::support::{Reply, batch, fetch, list_offsets, produce, run};

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
