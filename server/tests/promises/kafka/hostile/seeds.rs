//! What the fuzzer of Kafka's listener begins with: of each api a request that says something, at each version.

use headwater_kafka::{
    ApiKey, Message,
    messages::{
        AlterConfigsRequest, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest,
        DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
        DescribeGroupsRequest, FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest,
        InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest,
        MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
        RequestHeader, SyncGroupRequest, alter_configs_request, create_partitions_request,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_topics_request::DeleteTopicState,
        describe_configs_request::DescribeConfigsResource,
        incremental_alter_configs_request,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        sync_group_request::SyncGroupRequestAssignment,
    },
};

use headwater_protocol::{
    batch::{BatchBuilder, Compression, set_producer},
    id::{ProducerEpoch, ProducerId, Sequence, Timestamp},
};

use super::conversation::TOPIC_ID;
use crate::kafka::records::{fetch, produce};

/// A conversation with its name: mostly that of an api, of which it has a frame for each version.
pub type Conversation = (&'static str, Vec<u8>);

/// The topic that requests are about.
const TOPIC: &str = "fuzz";

/// A frame for each of these versions at which the request can be said.
fn at<'a>(key: ApiKey, versions: impl IntoIterator<Item = i16>, request: &impl Message<'a>) -> Vec<u8> {
    let frame = |version: i16| {
        let head = RequestHeader {
            request_api_key: key.number(),
            request_api_version: version,
            correlation_id: i32::from(version),
            client_id: Some("fuzz".into()),
        };
        let mut frame = vec![0; 4];
        head.write(&mut frame, key.request_header_version(version)).ok()?;
        request.write(&mut frame, version).ok()?;
        let size = frame.len() as i32 - 4;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        Some(frame)
    };
    versions.into_iter().filter_map(frame).flatten().collect()
}

fn each<'a>(key: ApiKey, request: &impl Message<'a>) -> Vec<u8> {
    let api = key.api();
    at(key, api.version_min..=api.version_max, request)
}

/// All of them.
pub fn all() -> Vec<Conversation> {
    [records(), groups(), topics(), settings(), hostile()].concat()
}

/// A batch of these values, whose bytes are the same at any time.
fn batch(values: &[&[u8]]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    for value in values {
        builder
            .append(Timestamp::new(1_700_000_000_000), None, Some(value), &[])
            .unwrap();
    }
    builder.build().bytes().to_vec()
}

fn numbered_batch(value: &[u8], sequence: i32) -> Vec<u8> {
    let mut batch = batch(&[value]);
    set_producer(
        &mut batch,
        ProducerId::new(7),
        ProducerEpoch::new(0),
        Sequence::new(sequence),
    );
    batch
}

fn records() -> Vec<Conversation> {
    let topic = (TOPIC, TOPIC_ID);
    let produced = |records| produce(topic, 0, -1, records);
    let numbered = [numbered_batch(b"a", 0), numbered_batch(b"b", 1)].concat();
    let compressed = {
        let mut batch = batch(&[b"not compressed"]);
        batch[22] = 3;
        batch
    };
    let list = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: TOPIC.into(),
            partitions: [-1, -2, -3, 0]
                .map(|timestamp| ListOffsetsPartition {
                    timestamp,
                    current_leader_epoch: -1,
                    ..ListOffsetsPartition::default()
                })
                .to_vec(),
        }],
        ..ListOffsetsRequest::default()
    };
    let delete = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: TOPIC.into(),
            partitions: vec![DeleteRecordsPartition {
                partition_index: 0,
                offset: 1,
            }],
        }],
        timeout_ms: 1_000,
    };
    let epochs = OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: vec![OffsetForLeaderTopic {
            topic: TOPIC.into(),
            partitions: vec![OffsetForLeaderPartition {
                partition: 0,
                current_leader_epoch: -1,
                leader_epoch: 0,
            }],
        }],
    };
    let init = InitProducerIdRequest {
        transaction_timeout_ms: 1_000,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    };
    let transaction = InitProducerIdRequest {
        transactional_id: Some("t".into()),
        ..init.clone()
    };
    let mut read = fetch(topic, &[(0, 0), (1, 0)]);
    read.max_wait_ms = 10;
    read.min_bytes = 1;
    vec![
        ("Produce", each(ApiKey::Produce, &produced(batch(&[b"a", b"b", b""])))),
        ("Produce-numbered", at(ApiKey::Produce, [3, 9, 13], &produced(numbered))),
        (
            "Produce-compressed",
            at(ApiKey::Produce, [7, 13], &produced(compressed)),
        ),
        ("Produce-nothing", at(ApiKey::Produce, [3, 13], &produced(Vec::new()))),
        (
            "Produce-untold",
            at(ApiKey::Produce, [5, 13], &produce(topic, 1, 0, batch(&[b"a"]))),
        ),
        ("Fetch", each(ApiKey::Fetch, &read)),
        ("ListOffsets", each(ApiKey::ListOffsets, &list)),
        ("DeleteRecords", each(ApiKey::DeleteRecords, &delete)),
        ("OffsetForLeaderEpoch", each(ApiKey::OffsetForLeaderEpoch, &epochs)),
        ("InitProducerId", each(ApiKey::InitProducerId, &init)),
        (
            "InitProducerId-transaction",
            at(ApiKey::InitProducerId, [0, 5], &transaction),
        ),
    ]
}

fn groups() -> Vec<Conversation> {
    let join = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 6_000,
        rebalance_timeout_ms: 6_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: vec![0, 0, 0, 0, 0, 1, 0, 4, b'f', b'u', b'z', b'z', 0xff, 0xff, 0xff, 0xff].into(),
        }],
        ..JoinGroupRequest::default()
    };
    let sync = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: "m".into(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: "m".into(),
            assignment: vec![0; 8].into(),
        }],
        ..SyncGroupRequest::default()
    };
    let beat = HeartbeatRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: "m".into(),
        ..HeartbeatRequest::default()
    };
    let leave = LeaveGroupRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        members: vec![MemberIdentity {
            member_id: "m".into(),
            ..MemberIdentity::default()
        }],
    };
    let commit = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC.into(),
            topic_id: TOPIC_ID,
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: 7,
                committed_metadata: Some("m".into()),
                ..OffsetCommitRequestPartition::default()
            }],
        }],
        ..OffsetCommitRequest::default()
    };
    let committed = OffsetFetchRequest {
        group_id: "g".into(),
        topics: Some(vec![OffsetFetchRequestTopic {
            name: TOPIC.into(),
            partition_indexes: vec![0, 1],
        }]),
        groups: vec![OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: TOPIC.into(),
                topic_id: TOPIC_ID,
                partition_indexes: vec![0, 1],
            }]),
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    let forget = OffsetDeleteRequest {
        group_id: "g".into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: TOPIC.into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    let find = FindCoordinatorRequest {
        key: "g".into(),
        coordinator_keys: vec!["g".into(), "h".into()],
        ..FindCoordinatorRequest::default()
    };
    let describe = DescribeGroupsRequest {
        groups: vec!["g".into(), "nobody".into()],
        ..DescribeGroupsRequest::default()
    };
    let delete = DeleteGroupsRequest {
        groups_names: vec!["h".into()],
    };
    vec![
        ("JoinGroup", each(ApiKey::JoinGroup, &join)),
        ("SyncGroup", each(ApiKey::SyncGroup, &sync)),
        ("Heartbeat", each(ApiKey::Heartbeat, &beat)),
        ("LeaveGroup", each(ApiKey::LeaveGroup, &leave)),
        ("OffsetCommit", each(ApiKey::OffsetCommit, &commit)),
        ("OffsetFetch", each(ApiKey::OffsetFetch, &committed)),
        ("OffsetDelete", each(ApiKey::OffsetDelete, &forget)),
        ("FindCoordinator", each(ApiKey::FindCoordinator, &find)),
        ("DescribeGroups", each(ApiKey::DescribeGroups, &describe)),
        ("ListGroups", each(ApiKey::ListGroups, &ListGroupsRequest::default())),
        ("DeleteGroups", each(ApiKey::DeleteGroups, &delete)),
    ]
}

fn topics() -> Vec<Conversation> {
    let create = |name: &'static str| CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.into(),
            num_partitions: 2,
            replication_factor: -1,
            configs: vec![CreatableTopicConfig {
                name: "retention.ms".into(),
                value: Some("3600000".into()),
            }],
            ..CreatableTopic::default()
        }],
        timeout_ms: 1_000,
        validate_only: false,
    };
    let delete = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some("other".into()),
            ..DeleteTopicState::default()
        }],
        topic_names: vec!["other".into()],
        timeout_ms: 1_000,
    };
    let grow = CreatePartitionsRequest {
        topics: vec![create_partitions_request::CreatePartitionsTopic {
            name: TOPIC.into(),
            count: 3,
            assignments: None,
        }],
        timeout_ms: 1_000,
        validate_only: true,
    };
    let metadata = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(TOPIC.into()),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    let by_id = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            topic_id: TOPIC_ID,
            name: None,
        }]),
        ..metadata.clone()
    };
    let everything = MetadataRequest {
        topics: None,
        ..metadata.clone()
    };
    let cluster = DescribeClusterRequest {
        endpoint_type: 1,
        ..DescribeClusterRequest::default()
    };
    let hello = ApiVersionsRequest {
        client_software_name: "fuzz".into(),
        client_software_version: "1".into(),
        ..ApiVersionsRequest::default()
    };
    vec![
        ("CreateTopics", each(ApiKey::CreateTopics, &create(TOPIC))),
        ("CreateTopics-other", at(ApiKey::CreateTopics, [2, 7], &create("other"))),
        ("DeleteTopics", each(ApiKey::DeleteTopics, &delete)),
        ("CreatePartitions", each(ApiKey::CreatePartitions, &grow)),
        ("Metadata", each(ApiKey::Metadata, &metadata)),
        ("Metadata-by-id", at(ApiKey::Metadata, [10, 12, 13], &by_id)),
        ("Metadata-of-all", at(ApiKey::Metadata, [1, 13], &everything)),
        ("DescribeCluster", each(ApiKey::DescribeCluster, &cluster)),
        ("ApiVersions", each(ApiKey::ApiVersions, &hello)),
    ]
}

fn settings() -> Vec<Conversation> {
    /// As Kafka numbers what has settings.
    const OF_TOPIC: i8 = 2;
    let resource = |kind, name: &'static str| DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configuration_keys: None,
    };
    let describe = DescribeConfigsRequest {
        resources: vec![resource(OF_TOPIC, TOPIC), resource(4, "0")],
        include_synonyms: true,
        include_documentation: true,
    };
    let alter = AlterConfigsRequest {
        resources: vec![alter_configs_request::AlterConfigsResource {
            resource_type: OF_TOPIC,
            resource_name: TOPIC.into(),
            configs: vec![alter_configs_request::AlterableConfig {
                name: "retention.ms".into(),
                value: Some("7200000".into()),
            }],
        }],
        validate_only: false,
    };
    let increment = IncrementalAlterConfigsRequest {
        resources: vec![incremental_alter_configs_request::AlterConfigsResource {
            resource_type: OF_TOPIC,
            resource_name: TOPIC.into(),
            configs: vec![incremental_alter_configs_request::AlterableConfig {
                name: "retention.ms".into(),
                config_operation: 0,
                value: Some("7200000".into()),
            }],
        }],
        validate_only: false,
    };
    vec![
        ("DescribeConfigs", each(ApiKey::DescribeConfigs, &describe)),
        ("AlterConfigs", each(ApiKey::AlterConfigs, &alter)),
        (
            "IncrementalAlterConfigs",
            each(ApiKey::IncrementalAlterConfigs, &increment),
        ),
    ]
}

/// What no client says.
fn hostile() -> Vec<Conversation> {
    let good = || at(ApiKey::Metadata, [12], &MetadataRequest::default());
    let sized = |size: i32, rest: &[u8]| [&size.to_be_bytes()[..], rest].concat();
    let asks = |api: u8, version: u8| sized(11, &[0, api, 0, version, 0, 0, 0, 7, 0xff, 0xff, 0]);
    let cut = good()[..good().len() - 3].to_vec();
    vec![
        ("nothing", Vec::new()),
        ("size-0", sized(0, &[])),
        ("size-negative", sized(-1, &[0; 20])),
        ("size-most", sized(i32::MAX, &[0; 20])),
        ("size-too-small", [good(), sized(7, &[0; 7])].concat()),
        ("size-too-large", [sized(200, &good()), good()].concat()),
        ("cut", [good(), cut].concat()),
        ("unknown-api", [good(), asks(200, 0), good()].concat()),
        ("unknown-version", [good(), asks(3, 99), good()].concat()),
        ("version-of-the-future", [asks(18, 99), good()].concat()),
        ("not-served", asks(26, 0)),
        (
            "array-of-very-many",
            sized(16, &[0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0, 0]),
        ),
        (
            "varint-without-end",
            sized(
                17,
                &[
                    0, 3, 0, 9, 0, 0, 0, 7, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
                ],
            ),
        ),
        (
            "tags-of-very-many",
            sized(14, &[0, 18, 0, 3, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ),
        ("http", b"GET /metrics HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec()),
        (
            "tls",
            [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0xa5; 60]].concat(),
        ),
        ("zeros", vec![0; 64]),
    ]
}
