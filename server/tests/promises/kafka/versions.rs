//! Every api that is offered is answered at every version that is, and in its form.

use headwater_kafka::{
    ApiKey,
    messages::{
        AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
        AlterClientQuotasRequest, AlterClientQuotasResponse, AlterConfigsRequest, AlterConfigsResponse,
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterUserScramCredentialsRequest,
        AlterUserScramCredentialsResponse, ApiVersionsRequest, ApiVersionsResponse, ConsumerGroupDescribeRequest,
        ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
        CreateAclsRequest, CreateAclsResponse, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
        CreateTopicsResponse, DeleteAclsRequest, DeleteAclsResponse, DeleteGroupsRequest, DeleteGroupsResponse,
        DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeAclsRequest,
        DescribeAclsResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse, DescribeClusterRequest,
        DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse, DescribeGroupsRequest,
        DescribeGroupsResponse, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeProducersRequest,
        DescribeProducersResponse, DescribeQuorumRequest, DescribeQuorumResponse, DescribeTopicPartitionsRequest,
        DescribeTopicPartitionsResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
        DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse, ElectLeadersRequest,
        ElectLeadersResponse, EndTxnRequest, EndTxnResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
        FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse, IncrementalAlterConfigsRequest,
        IncrementalAlterConfigsResponse, InitProducerIdRequest, InitProducerIdResponse, JoinGroupRequest,
        JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListConfigResourcesRequest,
        ListConfigResourcesResponse, ListGroupsRequest, ListGroupsResponse, ListOffsetsRequest, ListOffsetsResponse,
        ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, ListTransactionsRequest,
        ListTransactionsResponse, MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse,
        OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse,
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse,
        SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
        SyncGroupRequest, SyncGroupResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse, UnregisterBrokerRequest,
        UnregisterBrokerResponse, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
    },
};

use super::wire::Wire;
use crate::support::{Site, run};

macro_rules! ask {
    ($wire:ident, $key:ident, $version:ident, $($Api:ident $Request:ident $Response:ident),+ $(,)?) => {
        match $key {
            $(ApiKey::$Api => { $wire.ask::<$Response<'_>>($key, $version, &$Request::default()).await; })+
            other => panic!("{other:?} is offered, and not looked at"),
        }
    };
}

/// Some responses borrow nothing from their bytes.
type Init<'a> = InitProducerIdResponse;
type Beat<'a> = HeartbeatResponse;
type Added<'a> = AddOffsetsToTxnResponse;
type Ended<'a> = EndTxnResponse;

#[test]
fn every_version_that_is_offered_is_answered() {
    run(async {
        let site = Site::new().cores(1).set("groups.initial_rebalance_delay_ms", "0");
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        let offered: ApiVersionsResponse<'_> = wire.ask(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default()).await;
        for range in offered.api_keys {
            let key = ApiKey::from_i16(range.api_key).unwrap();
            for version in range.min_version.max(key.api().version_min)..=range.max_version {
                if key == ApiKey::Produce {
                    let request = ProduceRequest {
                        acks: -1,
                        ..ProduceRequest::default()
                    };
                    wire.ask::<ProduceResponse<'_>>(key, version, &request).await;
                    continue;
                }
                ask!(
                    wire, key, version,
                    Fetch FetchRequest FetchResponse,
                    ListOffsets ListOffsetsRequest ListOffsetsResponse,
                    Metadata MetadataRequest MetadataResponse,
                    OffsetCommit OffsetCommitRequest OffsetCommitResponse,
                    OffsetFetch OffsetFetchRequest OffsetFetchResponse,
                    FindCoordinator FindCoordinatorRequest FindCoordinatorResponse,
                    JoinGroup JoinGroupRequest JoinGroupResponse,
                    Heartbeat HeartbeatRequest Beat,
                    LeaveGroup LeaveGroupRequest LeaveGroupResponse,
                    SyncGroup SyncGroupRequest SyncGroupResponse,
                    DescribeGroups DescribeGroupsRequest DescribeGroupsResponse,
                    ListGroups ListGroupsRequest ListGroupsResponse,
                    ApiVersions ApiVersionsRequest ApiVersionsResponse,
                    CreateTopics CreateTopicsRequest CreateTopicsResponse,
                    DeleteTopics DeleteTopicsRequest DeleteTopicsResponse,
                    DeleteRecords DeleteRecordsRequest DeleteRecordsResponse,
                    InitProducerId InitProducerIdRequest Init,
                    OffsetForLeaderEpoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse,
                    AddPartitionsToTxn AddPartitionsToTxnRequest AddPartitionsToTxnResponse,
                    AddOffsetsToTxn AddOffsetsToTxnRequest Added,
                    EndTxn EndTxnRequest Ended,
                    WriteTxnMarkers WriteTxnMarkersRequest WriteTxnMarkersResponse,
                    TxnOffsetCommit TxnOffsetCommitRequest TxnOffsetCommitResponse,
                    DescribeTransactions DescribeTransactionsRequest DescribeTransactionsResponse,
                    ListTransactions ListTransactionsRequest ListTransactionsResponse,
                    DescribeConfigs DescribeConfigsRequest DescribeConfigsResponse,
                    AlterConfigs AlterConfigsRequest AlterConfigsResponse,
                    CreatePartitions CreatePartitionsRequest CreatePartitionsResponse,
                    DeleteGroups DeleteGroupsRequest DeleteGroupsResponse,
                    IncrementalAlterConfigs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
                    OffsetDelete OffsetDeleteRequest OffsetDeleteResponse,
                    DescribeCluster DescribeClusterRequest DescribeClusterResponse,
                    DescribeTopicPartitions DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse,
                    DescribeLogDirs DescribeLogDirsRequest DescribeLogDirsResponse,
                    ElectLeaders ElectLeadersRequest ElectLeadersResponse,
                    DescribeProducers DescribeProducersRequest DescribeProducersResponse,
                    AlterPartitionReassignments AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse,
                    ListPartitionReassignments ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse,
                    ListConfigResources ListConfigResourcesRequest ListConfigResourcesResponse,
                    DescribeQuorum DescribeQuorumRequest DescribeQuorumResponse,
                    UnregisterBroker UnregisterBrokerRequest UnregisterBrokerResponse,
                    ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse,
                    ConsumerGroupDescribe ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse,
                    SaslHandshake SaslHandshakeRequest SaslHandshakeResponse,
                    SaslAuthenticate SaslAuthenticateRequest SaslAuthenticateResponse,
                    DescribeAcls DescribeAclsRequest DescribeAclsResponse,
                    AlterClientQuotas AlterClientQuotasRequest AlterClientQuotasResponse,
                    DescribeClientQuotas DescribeClientQuotasRequest DescribeClientQuotasResponse,
                    CreateAcls CreateAclsRequest CreateAclsResponse,
                    DeleteAcls DeleteAclsRequest DeleteAclsResponse,
                    DescribeUserScramCredentials DescribeUserScramCredentialsRequest DescribeUserScramCredentialsResponse,
                    AlterUserScramCredentials AlterUserScramCredentialsRequest AlterUserScramCredentialsResponse,
                );
            }
        }
        broker.stop();
    });
}
