//! The matrix of Kafka's protocol.

use futures::{FutureExt as _, future::BoxFuture};
use headwater_client::{
    AclOperation::{Alter, AlterConfigs, ClusterAction, Create, Delete, Describe, DescribeConfigs, Read, Write},
    AclResource::{Cluster, Group, Topic, TransactionalId},
};
use headwater_kafka::ApiKey;
#[allow(clippy::wildcard_imports, reason = "each row has its own")]
use headwater_kafka::messages::*;

use super::{
    DENIALS, EXACT, Guarded, NOBODY, NOWHERE, Needs, THERE, codes, masked, password_of,
    sasl::{FAILED, enter},
    site,
};
use crate::{
    kafka::wire::Wire,
    support::{batch, run},
};

/// What comes of asking: the codes that are told, and all of it with the name masked. `None`: the connection is closed.
type Asked<'a> = BoxFuture<'a, Option<(Vec<i16>, String)>>;

struct Row {
    key: ApiKey,
    /// Those that the permission is about.
    needs: Needs,
    /// What whoever may not is told; nothing if it is told of nothing instead.
    denied: &'static [i16],
    /// It would change what the next rows need: who may, asks it of what is not there.
    destroys: bool,
    ask: for<'a> fn(&'a mut Wire, &'static str) -> Asked<'a>,
}

macro_rules! row {
    ($Key:ident $version:literal $Response:ty, $destroys:literal, |$name:ident| $request:expr, $needs:expr, $denied:expr) => {
        Row {
            key: ApiKey::$Key,
            needs: &$needs,
            denied: &$denied,
            destroys: $destroys,
            ask: |wire, $name| {
                async move {
                    let _ = $name;
                    let request = $request;
                    let id = wire.send(ApiKey::$Key, $version, &request).await;
                    let response: $Response = wire.try_response(ApiKey::$Key, $version, id).await?;
                    Some((codes(&response).into_iter().collect(), masked(&response, $name)))
                }
                .boxed()
            },
        }
    };
}

/// Those by which clients come in, or find out how.
const OPEN: [ApiKey; 3] = [ApiKey::ApiVersions, ApiKey::SaslHandshake, ApiKey::SaslAuthenticate];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row!(Produce 9 ProduceResponse<'_>, true, |name| ProduceRequest {
            acks: -1,
            topic_data: vec![produce_request::TopicProduceData {
                name: name.into(),
                partition_data: vec![produce_request::PartitionProduceData { index: 0, records: Some(batch(&[b"x"]).into()) }],
                ..Default::default()
            }],
            ..Default::default()
        }, [(Topic, Write)], [29]),
    row!(Fetch 12 FetchResponse<'_>, false, |name| FetchRequest {
            replica_id: -1,
            max_bytes: 1000,
            topics: vec![fetch_request::FetchTopic {
                topic: name.into(),
                partitions: vec![fetch_request::FetchPartition { partition_max_bytes: 1000, ..Default::default() }],
                ..Default::default()
            }],
            session_epoch: -1,
            ..Default::default()
        }, [(Topic, Read)], [29]),
    row!(ListOffsets 8 ListOffsetsResponse<'_>, false, |name| ListOffsetsRequest {
            replica_id: -1,
            topics: vec![list_offsets_request::ListOffsetsTopic {
                name: name.into(),
                partitions: vec![list_offsets_request::ListOffsetsPartition {
                    current_leader_epoch: -1,
                    timestamp: -1,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        }, [(Topic, Describe)], [29]),
    row!(Metadata 12 MetadataResponse<'_>, false, |name| MetadataRequest {
            topics: Some(vec![metadata_request::MetadataRequestTopic {
                name: Some(name.into()),
                ..Default::default()
            }]),
            allow_auto_topic_creation: true,
            ..Default::default()
        }, [(Topic, Describe)], [29]),
    row!(OffsetCommit 8 OffsetCommitResponse<'_>, false, |name| OffsetCommitRequest {
            group_id: name.into(),
            generation_id_or_member_epoch: -1,
            topics: vec![offset_commit_request::OffsetCommitRequestTopic {
                name: name.into(),
                partitions: vec![offset_commit_request::OffsetCommitRequestPartition::default()],
                ..Default::default()
            }],
            ..Default::default()
        }, [(Group, Read), (Topic, Read)], [30]),
    row!(OffsetFetch 8 OffsetFetchResponse<'_>, false, |name| OffsetFetchRequest {
            groups: vec![offset_fetch_request::OffsetFetchRequestGroup {
                group_id: name.into(),
                topics: Some(vec![offset_fetch_request::OffsetFetchRequestTopics {
                    name: name.into(),
                    partition_indexes: vec![0],
                    ..Default::default()
                }]),
                ..Default::default()
            }],
            ..Default::default()
        }, [(Group, Describe), (Topic, Describe)], [30]),
    row!(FindCoordinator 4 FindCoordinatorResponse<'_>, false, |name| FindCoordinatorRequest {
            coordinator_keys: vec![name.into()],
            ..Default::default()
        }, [(Group, Describe)], [30]),
    row!(JoinGroup 3 JoinGroupResponse<'_>, false, |name| JoinGroupRequest {
            group_id: name.into(),
            session_timeout_ms: 10,
            rebalance_timeout_ms: 10,
            protocol_type: "consumer".into(),
            protocols: vec![join_group_request::JoinGroupRequestProtocol { name: "range".into(), ..Default::default() }],
            ..Default::default()
        }, [(Group, Read)], [30]),
    row!(Heartbeat 4 HeartbeatResponse, false, |name| HeartbeatRequest { group_id: name.into(), ..Default::default() }, [(Group, Read)], [30]),
    row!(LeaveGroup 5 LeaveGroupResponse<'_>, false, |name| LeaveGroupRequest { group_id: name.into(), ..Default::default() }, [(Group, Read)], [30]),
    row!(SyncGroup 5 SyncGroupResponse<'_>, false, |name| SyncGroupRequest { group_id: name.into(), ..Default::default() }, [(Group, Read)], [30]),
    row!(DescribeGroups 5 DescribeGroupsResponse<'_>, false, |name| DescribeGroupsRequest { groups: vec![name.into()], ..Default::default() }, [(Group, Describe)], [30]),
    row!(ListGroups 5 ListGroupsResponse<'_>, false, |name| ListGroupsRequest::default(), [(Group, Describe)], []),
    row!(CreateTopics 7 CreateTopicsResponse<'_>, true, |name| CreateTopicsRequest {
            topics: vec![create_topics_request::CreatableTopic {
                name: name.into(),
                num_partitions: 1,
                replication_factor: 1,
                ..Default::default()
            }],
            timeout_ms: 10_000,
            validate_only: true,
        }, [(Topic, Create), (Topic, DescribeConfigs)], [29]),
    row!(DeleteTopics 5 DeleteTopicsResponse<'_>, true, |name| DeleteTopicsRequest {
            topic_names: vec![name.into()],
            timeout_ms: 10_000,
            ..Default::default()
        }, [(Topic, Delete)], [29]),
    row!(DeleteRecords 2 DeleteRecordsResponse<'_>, true, |name| DeleteRecordsRequest {
            topics: vec![delete_records_request::DeleteRecordsTopic {
                name: name.into(),
                partitions: vec![delete_records_request::DeleteRecordsPartition { offset: -1, ..Default::default() }],
            }],
            timeout_ms: 10_000,
        }, [(Topic, Delete)], [29]),
    row!(InitProducerId 4 InitProducerIdResponse, false, |name| InitProducerIdRequest { transactional_id: None,             producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        }, [(Topic, Write)], [31]),
    row!(InitProducerId 5 InitProducerIdResponse, false, |name| InitProducerIdRequest {
            transactional_id: Some(name.into()),
            transaction_timeout_ms: 1000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        }, [(TransactionalId, Write)], [53]),
    row!(FindCoordinator 6 FindCoordinatorResponse<'_>, false, |name| FindCoordinatorRequest {
            key_type: 1,
            coordinator_keys: vec![name.into()],
            ..Default::default()
        }, [(TransactionalId, Describe)], [53]),
    row!(AddPartitionsToTxn 3 AddPartitionsToTxnResponse<'_>, false, |name| AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: name.into(),
            v3_and_below_topics: vec![add_partitions_to_txn_request::AddPartitionsToTxnTopic { name: name.into(), partitions: vec![0] }],
            ..Default::default()
        }, [(TransactionalId, Write), (Topic, Write)], [53]),
    row!(AddOffsetsToTxn 3 AddOffsetsToTxnResponse, false, |name| AddOffsetsToTxnRequest {
            transactional_id: name.into(),
            group_id: name.into(),
            ..Default::default()
        }, [(TransactionalId, Write), (Group, Read)], [53]),
    row!(EndTxn 4 EndTxnResponse, false, |name| EndTxnRequest { transactional_id: name.into(), ..Default::default() }, [(TransactionalId, Write)], [53]),
    row!(WriteTxnMarkers 1 WriteTxnMarkersResponse<'_>, true, |name| WriteTxnMarkersRequest {
            markers: vec![write_txn_markers_request::WritableTxnMarker {
                topics: vec![write_txn_markers_request::WritableTxnMarkerTopic { name: name.into(), partition_indexes: vec![0] }],
                ..Default::default()
            }],
        }, [(Cluster, Alter)], [31]),
    row!(WriteTxnMarkers 2 WriteTxnMarkersResponse<'_>, true, |name| WriteTxnMarkersRequest {
            markers: vec![write_txn_markers_request::WritableTxnMarker {
                topics: vec![write_txn_markers_request::WritableTxnMarkerTopic { name: name.into(), partition_indexes: vec![0] }],
                ..Default::default()
            }],
        }, [(Cluster, ClusterAction)], [31]),
    row!(TxnOffsetCommit 3 TxnOffsetCommitResponse<'_>, false, |name| TxnOffsetCommitRequest {
            transactional_id: name.into(),
            group_id: name.into(),
            generation_id_or_member_epoch: -1,
            topics: vec![txn_offset_commit_request::TxnOffsetCommitRequestTopic {
                name: name.into(),
                partitions: vec![txn_offset_commit_request::TxnOffsetCommitRequestPartition::default()],
                ..Default::default()
            }],
            ..Default::default()
        }, [(TransactionalId, Write), (Group, Read), (Topic, Read)], [53]),
    row!(DescribeTransactions 0 DescribeTransactionsResponse<'_>, false, |name| DescribeTransactionsRequest { transactional_ids: vec![name.into()] }, [(TransactionalId, Describe)], [53]),
    row!(ListTransactions 2 ListTransactionsResponse<'_>, false, |name| ListTransactionsRequest { duration_filter: -1, ..Default::default() }, [(TransactionalId, Describe)], []),
    row!(OffsetForLeaderEpoch 4 OffsetForLeaderEpochResponse<'_>, false, |name| OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![offset_for_leader_epoch_request::OffsetForLeaderTopic {
                topic: name.into(),
                partitions: vec![offset_for_leader_epoch_request::OffsetForLeaderPartition {
                    current_leader_epoch: -1,
                    ..Default::default()
                }],
            }],
        }, [(Topic, Describe)], [29]),
    row!(DescribeAcls 3 DescribeAclsResponse<'_>, false, |name| DescribeAclsRequest {
            resource_type_filter: 1,
            pattern_type_filter: 1,
            operation: 1,
            permission_type: 1,
            ..Default::default()
        }, [(Cluster, Describe)], [31]),
    row!(CreateAcls 3 CreateAclsResponse<'_>, false, |name| CreateAclsRequest {
            creations: vec![create_acls_request::AclCreation {
                resource_type: 2,
                resource_name: name.into(),
                resource_pattern_type: 3,
                principal: "User:nobody".into(),
                host: "*".into(),
                operation: 2,
                permission_type: 3,
            }],
        }, [(Cluster, Alter)], [31]),
    row!(DeleteAcls 3 DeleteAclsResponse<'_>, false, |name| DeleteAclsRequest {
            filters: vec![delete_acls_request::DeleteAclsFilter {
                resource_type_filter: 1,
                pattern_type_filter: 1,
                operation: 1,
                permission_type: 1,
                ..Default::default()
            }],
        }, [(Cluster, Alter)], [31]),
    row!(DescribeConfigs 4 DescribeConfigsResponse<'_>, false, |name| DescribeConfigsRequest {
            resources: vec![describe_configs_request::DescribeConfigsResource {
                resource_type: 2,
                resource_name: name.into(),
                configuration_keys: None,
            }],
            ..Default::default()
        }, [(Topic, DescribeConfigs)], [29]),
    row!(AlterConfigs 2 AlterConfigsResponse<'_>, false, |name| AlterConfigsRequest {
            resources: vec![alter_configs_request::AlterConfigsResource {
                resource_type: 2,
                resource_name: name.into(),
                configs: vec![alter_configs_request::AlterableConfig {
                    name: "retention.ms".into(),
                    value: Some("7".into()),
                }],
            }],
            validate_only: true,
        }, [(Topic, AlterConfigs)], [29]),
    row!(DescribeLogDirs 4 DescribeLogDirsResponse<'_>, false, |name| DescribeLogDirsRequest { topics: None }, [(Cluster, Describe)], [31]),
    row!(CreatePartitions 3 CreatePartitionsResponse<'_>, false, |name| CreatePartitionsRequest {
            topics: vec![create_partitions_request::CreatePartitionsTopic {
                name: name.into(),
                count: 2,
                assignments: None,
            }],
            timeout_ms: 10_000,
            validate_only: true,
        }, [(Topic, Alter)], [29]),
    row!(DeleteGroups 2 DeleteGroupsResponse<'_>, true, |name| DeleteGroupsRequest { groups_names: vec![name.into()] }, [(Group, Delete)], [30]),
    row!(ElectLeaders 2 ElectLeadersResponse<'_>, false, |name| ElectLeadersRequest {
            topic_partitions: Some(vec![elect_leaders_request::TopicPartitions {
                topic: name.into(),
                partitions: vec![0],
            }]),
            ..Default::default()
        }, [(Cluster, Alter)], [31]),
    row!(IncrementalAlterConfigs 1 IncrementalAlterConfigsResponse<'_>, false, |name| IncrementalAlterConfigsRequest {
            resources: vec![incremental_alter_configs_request::AlterConfigsResource {
                resource_type: 2,
                resource_name: name.into(),
                configs: vec![incremental_alter_configs_request::AlterableConfig {
                    name: "retention.ms".into(),
                    value: Some("7".into()),
                    ..Default::default()
                }],
            }],
            validate_only: true,
        }, [(Topic, AlterConfigs)], [29]),
    row!(AlterPartitionReassignments 1 AlterPartitionReassignmentsResponse<'_>, false, |name| AlterPartitionReassignmentsRequest {
            topics: vec![alter_partition_reassignments_request::ReassignableTopic {
                name: name.into(),
                partitions: vec![alter_partition_reassignments_request::ReassignablePartition::default()],
            }],
            ..Default::default()
        }, [(Cluster, Alter)], [31]),
    row!(ListPartitionReassignments 0 ListPartitionReassignmentsResponse<'_>, false, |name| ListPartitionReassignmentsRequest { topics: None, ..Default::default() }, [(Cluster, Describe)], [31]),
    row!(OffsetDelete 0 OffsetDeleteResponse<'_>, true, |name| OffsetDeleteRequest {
            group_id: name.into(),
            topics: vec![offset_delete_request::OffsetDeleteRequestTopic {
                name: name.into(),
                partitions: vec![offset_delete_request::OffsetDeleteRequestPartition::default()],
            }],
        }, [(Group, Delete), (Topic, Read)], [30]),
    row!(DescribeClientQuotas 1 DescribeClientQuotasResponse<'_>, false, |name| DescribeClientQuotasRequest::default(), [(Cluster, DescribeConfigs)], [31]),
    row!(AlterClientQuotas 1 AlterClientQuotasResponse<'_>, false, |name| AlterClientQuotasRequest {
            entries: vec![alter_client_quotas_request::EntryData {
                entity: vec![alter_client_quotas_request::EntityData { entity_type: "user".into(), entity_name: Some("made".into()) }],
                ops: vec![alter_client_quotas_request::OpData { key: "producer_byte_rate".into(), value: 7.0, remove: false }],
            }],
            validate_only: false,
        }, [(Cluster, AlterConfigs)], [31]),
    row!(DescribeUserScramCredentials 0 DescribeUserScramCredentialsResponse<'_>, false, |name| DescribeUserScramCredentialsRequest { users: None }, [(Cluster, Describe)], [31]),
    row!(AlterUserScramCredentials 0 AlterUserScramCredentialsResponse<'_>, false, |name| AlterUserScramCredentialsRequest {
            deletions: vec![alter_user_scram_credentials_request::ScramCredentialDeletion {
                name: name.into(),
                mechanism: 1,
            }],
            ..Default::default()
        }, [(Cluster, Alter)], [31]),
    row!(DescribeQuorum 2 DescribeQuorumResponse<'_>, false, |name| DescribeQuorumRequest::default(), [(Cluster, Describe)], [31]),
    row!(DescribeCluster 2 DescribeClusterResponse<'_>, false, |name| DescribeClusterRequest { endpoint_type: 1, ..Default::default() }, [], []),
    row!(DescribeProducers 0 DescribeProducersResponse<'_>, false, |name| DescribeProducersRequest {
            topics: vec![describe_producers_request::TopicRequest {
                name: name.into(),
                partition_indexes: vec![0],
            }],
        }, [(Topic, Read)], [29]),
    row!(UnregisterBroker 0 UnregisterBrokerResponse<'_>, false, |name| UnregisterBrokerRequest { broker_id: 99 }, [(Cluster, Alter)], [31]),
    row!(ConsumerGroupHeartbeat 1 ConsumerGroupHeartbeatResponse<'_>, false, |name| ConsumerGroupHeartbeatRequest {
            group_id: name.into(),
            member_id: "m".into(),
            member_epoch: -1,
            rebalance_timeout_ms: -1,
            subscribed_topic_names: Some(vec![name.into()]),
            ..Default::default()
        }, [(Group, Read), (Topic, Describe)], [30]),
    row!(ConsumerGroupDescribe 1 ConsumerGroupDescribeResponse<'_>, false, |name| ConsumerGroupDescribeRequest { group_ids: vec![name.into()], ..Default::default() }, [(Group, Describe)], [30]),
    row!(ListConfigResources 1 ListConfigResourcesResponse<'_>, false, |name| ListConfigResourcesRequest::default(), [(Cluster, DescribeConfigs)], [31]),
    row!(DescribeTopicPartitions 0 DescribeTopicPartitionsResponse<'_>, false, |name| DescribeTopicPartitionsRequest {
            topics: vec![describe_topic_partitions_request::TopicRequest { name: name.into() }],
            response_partition_limit: 10,
            ..Default::default()
        }, [(Topic, Describe)], [29]),
];

async fn wire_of(guarded: &Guarded, user: &str) -> Wire {
    let mut wire = Wire::of(&guarded.site).await;
    let entered = enter(&mut wire, "SCRAM-SHA-256", user, &password_of(user)).await;
    assert_eq!(entered.error_code, 0, "{user}");
    wire
}

#[test]
fn each_api_of_kafkas_is_answered_to_whoever_may_ask_and_to_nobody_else() {
    run(async {
        let guarded = Guarded::start(site()).await;
        let mut wire = Wire::of(&guarded.site).await;
        let offered: ApiVersionsResponse<'_> = wire.ask(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default()).await;
        for range in offered.api_keys {
            let key = ApiKey::from_i16(range.api_key).unwrap();
            let has_row = ROWS.iter().any(|row| row.key == key);
            assert!(
                has_row || OPEN.contains(&key),
                "{key:?} is offered, and nobody says who may ask it"
            );
        }
        // The topic of groups is made with the first of them.
        guarded.allow(&[(Group, Describe)], THERE).await;
        for row in ROWS.iter().filter(|row| row.key == ApiKey::FindCoordinator) {
            let mut wire = wire_of(&guarded, EXACT).await;
            (row.ask)(&mut wire, THERE).await.unwrap();
        }
        guarded.allow_nothing().await;
        let before = guarded.state().await;
        for row in ROWS {
            let key = row.key;
            let mut wire = Wire::of(&guarded.site).await;
            assert_eq!((row.ask)(&mut wire, THERE).await, None, "{key:?} without credentials");
            let mut wire = Wire::of(&guarded.site).await;
            let refused = enter(&mut wire, "PLAIN", NOBODY, "wrong").await;
            assert_eq!(refused.error_code, FAILED);
            let asked = async {
                let request = std::panic::AssertUnwindSafe((row.ask)(&mut wire, THERE));
                request.catch_unwind().await.unwrap_or(None)
            };
            assert_eq!(asked.await, None, "{key:?} with wrong credentials");
            let mut wire = wire_of(&guarded, NOBODY).await;
            let (codes, there) = (row.ask)(&mut wire, THERE).await.unwrap();
            assert_eq!(codes, row.denied, "{key:?} without permission: {there}");
            let (_, nowhere) = (row.ask)(&mut wire, NOWHERE).await.unwrap();
            assert_eq!(there, nowhere, "{key:?} leaks what there is");
        }
        assert_eq!(guarded.state().await, before, "what is denied has no effect");
        for row in ROWS {
            let key = row.key;
            let name = if row.destroys { NOWHERE } else { THERE };
            guarded.allow(row.needs, name).await;
            let mut wire = wire_of(&guarded, EXACT).await;
            let (codes, told) = (row.ask)(&mut wire, name).await.unwrap();
            let denied: Vec<&i16> = codes.iter().filter(|code| DENIALS.contains(code)).collect();
            assert!(denied.is_empty(), "{key:?} with permission: {told}");
            guarded.allow_nothing().await;
            // One of several permissions is not enough.
            for (at, one) in row.needs.iter().enumerate().filter(|_| row.needs.len() > 1) {
                let others = row.needs.iter().enumerate().filter(|(other, _)| *other != at);
                let others: Vec<_> = others.map(|(_, other)| *other).collect();
                guarded.allow(others.leak(), name).await;
                let (codes, told) = (row.ask)(&mut wire, name).await.unwrap();
                let is_denied =
                    codes.iter().any(|code| DENIALS.contains(code)) || told.contains("config_error_code: 29");
                assert!(is_denied, "{key:?} without {one:?}: {told}");
                guarded.allow_nothing().await;
            }
        }
        guarded.stop();
    });
}
