//! Groups of Kafka's clients.

mod consumers;

use headwater_kafka::{
    ApiKey, Str, Uuid,
    messages::{
        FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
        JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, OffsetCommitRequest, OffsetCommitResponse,
        OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse, join_group_request,
        leave_group_request, offset_commit_request, offset_fetch_request, sync_group_request,
    },
};

use super::wire::Wire;
use crate::support::{Site, run};

/// Both partitions of the topic `work`, as members of consumer groups write it.
const ASSIGNMENT: &[u8] = &[
    0, 0, 0, 0, 0, 1, 0, 4, b'w', b'o', b'r', b'k', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff,
];

/// Some responses borrow nothing from their bytes.
type Beat = HeartbeatResponse;

#[test]
fn a_member_joins_works_commits_and_leaves_and_the_next_one_goes_on_there() {
    run(async {
        let site = Site::new().set("groups.initial_rebalance_delay_ms", "0");
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        wire.create_topic("work", 2, &[]).await;
        let id = wire.topic("work").await.topic_id;
        let mut wire = find(&mut wire, &site).await;
        let member = joins(&mut wire).await;
        works(&mut wire, member.clone()).await;
        commits(&mut wire, member.clone(), id).await;
        leaves(&mut wire, &member).await;
        // Before there were ids, a member joined at once.
        let joined: JoinGroupResponse<'_> = wire.ask(ApiKey::JoinGroup, 2, &join("")).await;
        assert_eq!((joined.error_code, joined.generation_id), (0, 3));
        finds_what_was_committed(&mut wire, id).await;
        broker.stop();
    });
}

/// Connects to the node that has the group.
async fn find(wire: &mut Wire, site: &Site) -> Wire {
    let find = FindCoordinatorRequest {
        coordinator_keys: vec!["crew".into()],
        ..FindCoordinatorRequest::default()
    };
    let found: FindCoordinatorResponse<'_> = wire.ask(ApiKey::FindCoordinator, 6, &find).await;
    let place = &found.coordinators[0];
    assert_eq!((place.error_code, &*place.host), (0, &*site.address().ip().to_string()));
    // It is one of the nodes that metadata tells of.
    let brokers = wire.metadata(&[], false).await.brokers;
    assert!(
        brokers
            .iter()
            .any(|node| (node.node_id, node.port) == (place.node_id, place.port))
    );
    // Any node serves it; a client asks the one it was told.
    Wire::connect((site.address().ip(), place.port as u16).into()).await
}

fn join(member: &str) -> JoinGroupRequest<'static> {
    JoinGroupRequest {
        group_id: "crew".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member.to_owned().into(),
        protocol_type: "consumer".into(),
        protocols: vec![join_group_request::JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: vec![0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff].into(),
        }],
        ..JoinGroupRequest::default()
    }
}

/// In two steps.
async fn joins(wire: &mut Wire) -> Str<'static> {
    let told: JoinGroupResponse<'_> = wire.ask(ApiKey::JoinGroup, 9, &join("")).await;
    assert_eq!((told.error_code, told.generation_id), (79, -1));
    assert!(told.member_id.starts_with("probe-"), "{}", told.member_id);
    let member = told.member_id;
    let joined: JoinGroupResponse<'_> = wire.ask(ApiKey::JoinGroup, 9, &join(&member)).await;
    assert_eq!(
        (joined.error_code, joined.generation_id, &joined.leader),
        (0, 1, &member)
    );
    assert_eq!(
        (joined.members.len(), joined.protocol_name.as_deref()),
        (1, Some("range"))
    );
    member
}

async fn works(wire: &mut Wire, member: Str<'static>) {
    let mut sync = SyncGroupRequest {
        group_id: "crew".into(),
        generation_id: 1,
        member_id: member.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: vec![sync_group_request::SyncGroupRequestAssignment {
            member_id: member.clone(),
            assignment: ASSIGNMENT.into(),
        }],
        ..SyncGroupRequest::default()
    };
    let synced: SyncGroupResponse<'_> = wire.ask(ApiKey::SyncGroup, 5, &sync).await;
    assert_eq!((synced.error_code, &*synced.assignment), (0, ASSIGNMENT));
    sync.protocol_name = None;
    assert_eq!(
        wire.ask::<SyncGroupResponse<'_>>(ApiKey::SyncGroup, 5, &sync)
            .await
            .error_code,
        23
    );
    let beat = |generation| HeartbeatRequest {
        group_id: "crew".into(),
        generation_id: generation,
        member_id: member.clone(),
        ..HeartbeatRequest::default()
    };
    for (generation, code) in [(1, 0), (2, 22)] {
        assert_eq!(
            wire.ask::<Beat>(ApiKey::Heartbeat, 4, &beat(generation))
                .await
                .error_code,
            code
        );
    }
}

async fn commits(wire: &mut Wire, member: Str<'static>, id: Uuid) {
    // By name, and by id.
    for (version, topic, partition, code) in [
        (9, [0; 16], 0, 0),
        (10, id, 1, 0),
        (9, [0; 16], 7, 3),
        (10, [9; 16], 0, 100),
    ] {
        let commit = OffsetCommitRequest {
            group_id: "crew".into(),
            generation_id_or_member_epoch: 1,
            member_id: member.clone(),
            topics: vec![offset_commit_request::OffsetCommitRequestTopic {
                name: "work".into(),
                topic_id: topic,
                partitions: vec![offset_commit_request::OffsetCommitRequestPartition {
                    partition_index: partition,
                    committed_offset: 40 + i64::from(partition),
                    committed_metadata: None,
                    ..offset_commit_request::OffsetCommitRequestPartition::default()
                }],
            }],
            ..OffsetCommitRequest::default()
        };
        let told: OffsetCommitResponse<'_> = wire.ask(ApiKey::OffsetCommit, version, &commit).await;
        assert_eq!(told.topics[0].partitions[0].error_code, code, "{version} {partition}");
    }
}

async fn leaves(wire: &mut Wire, member: &str) {
    let leave = LeaveGroupRequest {
        group_id: "crew".into(),
        members: [member, "nobody"]
            .map(|member_id| leave_group_request::MemberIdentity {
                member_id: member_id.to_owned().into(),
                ..leave_group_request::MemberIdentity::default()
            })
            .into(),
        ..LeaveGroupRequest::default()
    };
    let left: LeaveGroupResponse<'_> = wire.ask(ApiKey::LeaveGroup, 5, &leave).await;
    assert_eq!(
        left.members.iter().map(|member| member.error_code).collect::<Vec<_>>(),
        [0, 25]
    );
}

async fn finds_what_was_committed(wire: &mut Wire, id: Uuid) {
    // Of one group, and of several.
    let one = OffsetFetchRequest {
        group_id: "crew".into(),
        topics: None,
        ..OffsetFetchRequest::default()
    };
    let told: OffsetFetchResponse<'_> = wire.ask(ApiKey::OffsetFetch, 7, &one).await;
    let offsets: Vec<i64> = told.topics[0]
        .partitions
        .iter()
        .map(|partition| partition.committed_offset)
        .collect();
    assert_eq!(offsets, [40, 41]);
    let group = |name: &str, topics| offset_fetch_request::OffsetFetchRequestGroup {
        group_id: name.to_owned().into(),
        topics,
        ..offset_fetch_request::OffsetFetchRequestGroup::default()
    };
    let topic = offset_fetch_request::OffsetFetchRequestTopics {
        topic_id: id,
        partition_indexes: vec![1, 0, 5],
        ..offset_fetch_request::OffsetFetchRequestTopics::default()
    };
    let several = OffsetFetchRequest {
        groups: vec![group("crew", Some(vec![topic])), group("nobody", None)],
        ..OffsetFetchRequest::default()
    };
    let told: OffsetFetchResponse<'_> = wire.ask(ApiKey::OffsetFetch, 10, &several).await;
    let found = &told.groups[0].topics[0];
    let offsets: Vec<i64> = found
        .partitions
        .iter()
        .map(|partition| partition.committed_offset)
        .collect();
    assert_eq!((found.topic_id, offsets), (id, vec![41, 40, -1]));
    assert_eq!((told.groups[1].error_code, told.groups[1].topics.len()), (0, 0));
}
