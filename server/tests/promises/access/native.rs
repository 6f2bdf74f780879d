//! The matrix of Headwater's own protocol.

use futures::{FutureExt as _, future::BoxFuture};
use headwater_client::{
    AclOperation::{Alter, AlterConfigs, Create, Delete, Describe, DescribeConfigs, Read, Write},
    AclResource::{Cluster, Group, Topic},
};
#[allow(clippy::wildcard_imports, reason = "each row has its own")]
use headwater_protocol::schema::*;
use headwater_protocol::{
    frame::Api,
    head,
    id::TopicId,
    scram::{ClientExchange, Mechanism},
};

use super::{DENIALS, EXACT, Guarded, NOBODY, NOWHERE, Needs, THERE, codes, masked, password_of, site};
use crate::support::{Raw, batch, run};

/// What comes of asking: the codes that are told, and all of it with the name masked.
type Asked<'a> = BoxFuture<'a, (Vec<i16>, String)>;

struct Row {
    api: Api,
    needs: Needs,
    /// What whoever may not is told; nothing if it is told of nothing instead.
    denied: &'static [i16],
    /// It would change what the next rows need: who may, asks it of what is not there.
    destroys: bool,
    ask: for<'a> fn(&'a mut Raw, &'static str, TopicId) -> Asked<'a>,
}

macro_rules! row {
    ($Api:ident $Response:ident, $destroys:literal, |$name:ident, $id:ident| $request:expr, $needs:expr, $denied:expr) => {
        Row {
            api: Api::$Api,
            needs: &$needs,
            denied: &$denied,
            destroys: $destroys,
            ask: |raw, $name, $id| {
                async move {
                    let _ = ($name, $id);
                    let request = $request;
                    let payload = if Api::$Api == Api::Produce {
                        batch(&[b"x"])
                    } else {
                        Vec::new()
                    };
                    let reply = raw.call(&request, &payload).await;
                    if Api::from_u16(reply.header.api) == Some(Api::Error) {
                        let refused = reply.error_response();
                        return (vec![refused.error], masked(&refused, $name));
                    }
                    let told = head::decode_response::<$Response<'_>>(reply.head()).unwrap().unpack();
                    (codes(&told).into_iter().collect(), masked(&told, $name))
                }
                .boxed()
            },
        }
    };
}

/// Those by which clients come in, or find out how.
const OPEN: [Api; 2] = [Api::ApiVersions, Api::Authenticate];

const OUTSIDE: i16 = 58;

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row!(Metadata MetadataResponse, false, |name, id| MetadataRequestT { topics: Some(vec![name.to_owned()]) }, [(Topic, Describe)], [29]),
    row!(CreateTopic CreateTopicResponse, false, |name, id| CreateTopicRequestT { name: Some(name.to_owned()), partitions: 1, replication_factor: 1, validate_only: true, ..Default::default() }, [(Topic, Create)], [29]),
    row!(DeleteTopic DeleteTopicResponse, true, |name, id| DeleteTopicRequestT { name: Some(name.to_owned()) }, [(Topic, Delete)], [29]),
    row!(DescribeTopic DescribeTopicResponse, false, |name, id| DescribeTopicRequestT { name: Some(name.to_owned()) }, [(Topic, Describe)], [29]),
    row!(InitProducerId InitProducerIdResponse, false, |name, id| InitProducerIdRequestT::default(), [(Topic, Write)], [31]),
    row!(Produce ProduceResponse, false, |name, id| ProduceRequestT { topic_id: Some(id.into()), ..Default::default() }, [(Topic, Write)], [29]),
    row!(Fetch FetchResponse, false, |name, id| FetchRequestT { partitions: Some(vec![FetchPartitionT { topic_id: id.into(), max_bytes: 1000, ..Default::default() }]), ..Default::default() }, [(Topic, Read)], [29]),
    row!(ListOffsets ListOffsetsResponse, false, |name, id| ListOffsetsRequestT { partitions: Some(vec![ListOffsetsPartitionT { topic_id: id.into(), timestamp: -1, ..Default::default() }]), isolation: 0 }, [(Topic, Describe)], [29]),
    row!(DeleteRecords DeleteRecordsResponse, false, |name, id| DeleteRecordsRequestT { topic_id: Some(id.into()), ..Default::default() }, [(Topic, Delete)], [29]),
    row!(AlterTopic AlterTopicResponse, false, |name, id| AlterTopicRequestT { name: Some(name.to_owned()), partitions: 2, validate_only: true, configs: Some(vec![ConfigT { name: Some("retention.ms".to_owned()), value: Some("7".to_owned()), ..Default::default() }]) }, [(Topic, Alter), (Topic, AlterConfigs)], [29]),
    row!(DescribeBroker DescribeBrokerResponse, false, |name, id| DescribeBrokerRequestT {}, [(Cluster, DescribeConfigs)], [31]),
    row!(FindGroup FindGroupResponse, false, |name, id| FindGroupRequestT { group_id: Some(name.to_owned()) }, [(Group, Describe)], [30]),
    row!(JoinGroup JoinGroupResponse, false, |name, id| JoinGroupRequestT { group_id: Some(name.to_owned()), protocol_type: Some("consumer".to_owned()), ..Default::default() }, [(Group, Read)], [30]),
    row!(SyncGroup SyncGroupResponse, false, |name, id| SyncGroupRequestT { group_id: Some(name.to_owned()), ..Default::default() }, [(Group, Read)], [30]),
    row!(Heartbeat HeartbeatResponse, false, |name, id| HeartbeatRequestT { group_id: Some(name.to_owned()), ..Default::default() }, [(Group, Read)], [30]),
    row!(LeaveGroup LeaveGroupResponse, false, |name, id| LeaveGroupRequestT { group_id: Some(name.to_owned()), ..Default::default() }, [(Group, Read)], [30]),
    row!(OffsetCommit OffsetCommitResponse, false, |name, id| OffsetCommitRequestT { group_id: Some(name.to_owned()), offsets: Some(vec![CommittedOffsetT { topic: Some(name.to_owned()), offset: 0, ..Default::default() }]), ..Default::default() }, [(Group, Read), (Topic, Read)], [30]),
    row!(OffsetFetch OffsetFetchResponse, false, |name, id| OffsetFetchRequestT { group_id: Some(name.to_owned()), topics: Some(vec![TopicPartitionsT { topic: Some(name.to_owned()), partitions: Some(vec![0]) }]) }, [(Group, Describe), (Topic, Describe)], [30]),
    row!(OffsetDelete OffsetDeleteResponse, true, |name, id| OffsetDeleteRequestT { group_id: Some(name.to_owned()), topics: Some(vec![TopicPartitionsT { topic: Some(name.to_owned()), partitions: Some(vec![0]) }]) }, [(Group, Delete), (Topic, Read)], [30]),
    row!(ListGroups ListGroupsResponse, false, |name, id| ListGroupsRequestT { states: None }, [(Group, Describe)], []),
    row!(DescribeGroup DescribeGroupResponse, false, |name, id| DescribeGroupRequestT { group_id: Some(name.to_owned()) }, [(Group, Describe)], [30]),
    row!(DeleteGroup DeleteGroupResponse, true, |name, id| DeleteGroupRequestT { group_id: Some(name.to_owned()) }, [(Group, Delete)], [30]),
    row!(DescribeQuorum DescribeQuorumResponse, false, |name, id| DescribeQuorumRequestT {}, [(Cluster, Describe)], [31]),
    row!(AddQuorumMembers AddQuorumMembersResponse, false, |name, id| AddQuorumMembersRequestT { members: Some(vec![NewQuorumMemberT { id: 0, address: Some("127.0.0.1:1".to_owned()) }]) }, [(Cluster, Alter)], [31]),
    row!(RemoveQuorumMember RemoveQuorumMemberResponse, false, |name, id| RemoveQuorumMemberRequestT { id: 99 }, [(Cluster, Alter)], [31]),
    row!(ListBrokers ListBrokersResponse, false, |name, id| ListBrokersRequestT {}, [(Cluster, Describe)], [31]),
    row!(CordonBroker CordonBrokerResponse, false, |name, id| CordonBrokerRequestT { id: 99, is_cordoned: true }, [(Cluster, Alter)], [31]),
    row!(ForgetBroker ForgetBrokerResponse, false, |name, id| ForgetBrokerRequestT { id: 99 }, [(Cluster, Alter)], [31]),
    row!(FinaliseFeatures FinaliseFeaturesResponse, false, |name, id| FinaliseFeaturesRequestT { level: 1 }, [(Cluster, Alter)], [31]),
    row!(DrainBroker DrainBrokerResponse, false, |name, id| DrainBrokerRequestT { id: 99 }, [(Cluster, Alter)], [31]),
    row!(ElectLeaders ElectLeadersResponse, false, |name, id| ElectLeadersRequestT { topics: Some(Vec::new()), ..Default::default() }, [(Cluster, Alter)], [31]),
    row!(ReassignPartitions ReassignPartitionsResponse, false, |name, id| ReassignPartitionsRequestT { moves: Some(Vec::new()) }, [(Cluster, Alter)], [31]),
    row!(DescribeAcls DescribeAclsResponse, false, |name, id| DescribeAclsRequestT { filter: None }, [(Cluster, Describe)], [31]),
    row!(CreateAcls CreateAclsResponse, false, |name, id| CreateAclsRequestT { acls: Some(vec![AclT { kind: 2, name: Some(name.to_owned()), principal: Some("User:nobody".to_owned()), host: Some("*".to_owned()), operation: 2, ..Default::default() }]) }, [(Cluster, Alter)], [31]),
    row!(DeleteAcls DeleteAclsResponse, false, |name, id| DeleteAclsRequestT { filter: None }, [(Cluster, Alter)], [31]),
    row!(DescribeUsers DescribeUsersResponse, false, |name, id| DescribeUsersRequestT {}, [(Cluster, Describe)], [31]),
    row!(SetUser SetUserResponse, false, |name, id| SetUserRequestT { name: Some("made".to_owned()), mechanism: 1, iterations: 4096, salt: Some(vec![1; 16]), salted_password: Some(vec![1; 32]) }, [(Cluster, Alter)], [31]),
    row!(DescribeQuotas DescribeQuotasResponse, false, |name, id| DescribeQuotasRequestT {}, [(Cluster, DescribeConfigs)], [31]),
    row!(AlterQuotas AlterQuotasResponse, false, |name, id| AlterQuotasRequestT { quota: Some(Box::new(QuotaT { user: Some("made".to_owned()), values: Some(vec![QuotaValueT { key: Some("producer_byte_rate".to_owned()), value: Some("7".to_owned()) }]), ..Default::default() })) }, [(Cluster, AlterConfigs)], [31]),
    row!(RemoveUser RemoveUserResponse, false, |name, id| RemoveUserRequestT { name: Some("made".to_owned()), mechanism: 0 }, [(Cluster, Alter)], [31]),
];

/// Whether it is in, and the code of why not.
async fn enter(raw: &mut Raw, user: &str, password: &str) -> i16 {
    let (mut exchange, first) = ClientExchange::begin(Mechanism::Sha512, user, password, "a-nonce");
    let message = |mechanism: Option<&str>, text: String| AuthenticateRequestT {
        mechanism: mechanism.map(str::to_owned),
        message: Some(text.into_bytes()),
    };
    let mut told = async |request: AuthenticateRequestT| {
        let reply = raw.call(&request, &[]).await;
        head::decode_response::<AuthenticateResponse<'_>>(reply.head())
            .unwrap()
            .unpack()
    };
    let challenge = told(message(Some("SCRAM-SHA-512"), first)).await;
    assert_eq!((challenge.error, challenge.is_done), (0, false));
    let last = exchange.answer(&challenge.challenge.unwrap()).unwrap();
    let verdict = told(message(None, last)).await;
    if verdict.error == 0 {
        assert!(verdict.is_done);
        exchange.check(&verdict.challenge.unwrap()).unwrap();
    }
    verdict.error
}

async fn raw_of(guarded: &Guarded, user: &str) -> Raw {
    let mut raw = Raw::connect(guarded.site.core_address(0)).await;
    assert_eq!(enter(&mut raw, user, &password_of(user)).await, 0, "{user}");
    raw
}

#[test]
fn each_api_of_headwaters_is_answered_to_whoever_may_ask_and_to_nobody_else() {
    run(async {
        let guarded = Guarded::start(site()).await;
        for api in Api::REQUESTS {
            let has_row = ROWS.iter().any(|row| row.api == *api);
            assert!(
                has_row || OPEN.contains(api),
                "{api:?} is offered, and nobody says who may ask it"
            );
        }
        guarded.allow(&[(Group, Describe)], THERE).await;
        let id = guarded.admin.describe_topic(THERE).await.unwrap().id;
        let unknown = TopicId::new(uuid::Uuid::from_u128(1));
        for row in ROWS.iter().filter(|row| row.api == Api::FindGroup) {
            let mut raw = raw_of(&guarded, EXACT).await;
            (row.ask)(&mut raw, THERE, id).await;
        }
        guarded.allow_nothing().await;
        let before = guarded.state().await;
        for row in ROWS {
            let api = row.api;
            let mut raw = Raw::connect(guarded.site.core_address(0)).await;
            let (codes, _) = (row.ask)(&mut raw, THERE, id).await;
            assert_eq!(codes, [OUTSIDE], "{api:?} without credentials");
            let mut raw = raw_of(&guarded, NOBODY).await;
            let (codes, there) = (row.ask)(&mut raw, THERE, id).await;
            assert_eq!(codes, row.denied, "{api:?} without permission: {there}");
            let (_, nowhere) = (row.ask)(&mut raw, NOWHERE, id).await;
            assert_eq!(there, nowhere, "{api:?} leaks what there is");
        }
        let mut raw = Raw::connect(guarded.site.core_address(0)).await;
        assert_eq!(enter(&mut raw, NOBODY, "wrong").await, OUTSIDE);
        assert!(
            raw.try_call(&ListBrokersRequestT {}).await.is_none(),
            "with wrong credentials"
        );
        assert_eq!(guarded.state().await, before, "what is denied has no effect");
        for row in ROWS {
            let api = row.api;
            let (name, id) = if row.destroys { (NOWHERE, unknown) } else { (THERE, id) };
            guarded.allow(row.needs, name).await;
            let mut raw = raw_of(&guarded, EXACT).await;
            let (codes, told) = (row.ask)(&mut raw, name, id).await;
            let is_denied = |codes: &[i16]| codes.iter().any(|code| DENIALS.contains(code));
            assert!(!is_denied(&codes), "{api:?} with permission: {told}");
            guarded.allow_nothing().await;
            for (at, one) in row.needs.iter().enumerate().filter(|_| row.needs.len() > 1) {
                let other = &row.needs[1 - at];
                guarded.allow(std::slice::from_ref(other), name).await;
                let (codes, told) = (row.ask)(&mut raw, name, id).await;
                assert!(is_denied(&codes), "{api:?} without {one:?}: {told}");
                guarded.allow_nothing().await;
            }
        }
        guarded.stop();
    });
}
