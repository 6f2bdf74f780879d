//! F and H: groups of the classic protocol, and what else a client may ask.

use headwater_kafka::{
    ApiKey,
    messages::{
        DeleteGroupsRequest, DeleteGroupsResponse, DescribeClusterRequest, DescribeClusterResponse,
        DescribeGroupsRequest, DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse,
        HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
        LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse,
        OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest,
        SyncGroupResponse, join_group_request, leave_group_request, offset_commit_request, offset_delete_request,
        offset_fetch_request,
    },
};

use super::Look;
use crate::kafka::wire::Wire;

fn join(group: &str) -> JoinGroupRequest<'static> {
    JoinGroupRequest {
        group_id: group.to_owned().into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![join_group_request::JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: vec![0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff].into(),
        }],
        ..JoinGroupRequest::default()
    }
}

/// F1: a first join, and the code.
type Join = (&'static str, i16, fn(&mut JoinGroupRequest<'_>), i16);

#[rustfmt::skip]
const JOINS: &[Join] = &[
    ("without a member's id", 9, |_| {}, 79),
    ("the same at version 4", 4, |_| {}, 79),
    ("a session of 1 s", 9, |join| join.session_timeout_ms = 1000, 26),
    ("a session of 5,999 ms", 9, |join| join.session_timeout_ms = 5999, 26),
    ("a session of 1,800,000 ms", 9, |join| join.session_timeout_ms = 1_800_000, 79),
    ("a session of a millisecond more", 9, |join| join.session_timeout_ms = 1_800_001, 26),
    ("a rebalance of -1", 9, |join| join.rebalance_timeout_ms = -1, 79),
    ("no protocols", 9, |join| join.protocols = Vec::new(), 23),
    ("no type", 9, |join| join.protocol_type = "".into(), 23),
    ("no name", 9, |join| join.group_id = "".into(), 24),
    ("an unknown member", 9, |join| join.member_id = "nobody".into(), 25),
];

pub async fn look(wire: &mut Wire, look: &mut Look) {
    wire.create_topic("f", 1, &[]).await;
    let find = FindCoordinatorRequest {
        coordinator_keys: vec!["f1".into()],
        ..FindCoordinatorRequest::default()
    };
    let found: FindCoordinatorResponse<'_> = wire.ask(ApiKey::FindCoordinator, 6, &find).await;
    let found = &found.coordinators[0];
    look.other("F7", "the first group of all", found.error_code, (15, 0));
    look.same("F7", "no message on success", found.error_message.as_deref(), Some(""));
    let topic = wire.topic("__consumer_offsets").await;
    look.same(
        "F7",
        "its topic",
        (topic.partitions.len(), topic.is_internal),
        (50, true),
    );
    for (what, version, change, code) in JOINS {
        let mut request = join("f1");
        change(&mut request);
        let seen: JoinGroupResponse<'_> = wire.ask(ApiKey::JoinGroup, *version, &request).await;
        look.same("F1", what, (seen.error_code, seen.generation_id), (*code, -1));
    }
    strangers(wire, look).await;
    offsets(wire, look).await;
    administration(wire, look).await;
    others(wire, look).await;
}

/// Those whom a group does not know.
async fn strangers(wire: &mut Wire, look: &mut Look) {
    for (group, code) in [("f2", 25), ("", 24)] {
        let beat = HeartbeatRequest {
            group_id: group.into(),
            generation_id: 1,
            member_id: "nobody".into(),
            ..HeartbeatRequest::default()
        };
        let seen: HeartbeatResponse = wire.ask(ApiKey::Heartbeat, 4, &beat).await;
        look.same("F2", "a heartbeat", seen.error_code, code);
        let sync = SyncGroupRequest {
            group_id: group.into(),
            generation_id: 1,
            member_id: "nobody".into(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            ..SyncGroupRequest::default()
        };
        let seen: SyncGroupResponse<'_> = wire.ask(ApiKey::SyncGroup, 5, &sync).await;
        look.same("F2", "an assignment", seen.error_code, code);
    }
    let leave = LeaveGroupRequest {
        group_id: "f2".into(),
        members: vec![leave_group_request::MemberIdentity {
            member_id: "nobody".into(),
            ..leave_group_request::MemberIdentity::default()
        }],
        ..LeaveGroupRequest::default()
    };
    let seen: LeaveGroupResponse<'_> = wire.ask(ApiKey::LeaveGroup, 5, &leave).await;
    look.same(
        "F2",
        "one leaves",
        (seen.error_code, seen.members[0].error_code),
        (0, 25),
    );
    let nobody = LeaveGroupRequest {
        members: Vec::new(),
        ..leave
    };
    let seen: LeaveGroupResponse<'_> = wire.ask(ApiKey::LeaveGroup, 5, &nobody).await;
    look.same("F2", "nobody leaves", (seen.error_code, seen.members.len()), (0, 0));
}

async fn offsets(wire: &mut Wire, look: &mut Look) {
    let id = wire.topic("f").await.topic_id;
    let largest = "m".repeat(4096);
    let longer = "m".repeat(4097);
    for (what, version, group, topic_id, partition, offset, metadata, code) in [
        ("of nobody, to a new group", 9, "f3", [0; 16], 0, 4, "", 0),
        ("an unknown partition", 9, "f3", [0; 16], 9, 4, "", 3),
        ("by id", 10, "f3", id, 0, 4, "", 0),
        ("by an unknown id", 10, "f3", [7; 16], 0, 4, "", 100),
        ("much metadata", 9, "f3", [0; 16], 0, 4, &*largest, 0),
        ("too much", 9, "f3", [0; 16], 0, 4, &*longer, 12),
        ("of another group", 9, "f3b", [0; 16], 0, 4, "", 0),
        ("the last", 9, "f3", [0; 16], 0, 4, "m", 0),
    ] {
        let commit = OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: -1,
            topics: vec![offset_commit_request::OffsetCommitRequestTopic {
                name: "f".into(),
                topic_id,
                partitions: vec![offset_commit_request::OffsetCommitRequestPartition {
                    partition_index: partition,
                    committed_offset: offset,
                    committed_metadata: Some(metadata.to_owned().into()),
                    ..offset_commit_request::OffsetCommitRequestPartition::default()
                }],
            }],
            ..OffsetCommitRequest::default()
        };
        let seen: OffsetCommitResponse<'_> = wire.ask(ApiKey::OffsetCommit, version, &commit).await;
        look.same("F3", what, seen.topics[0].partitions[0].error_code, code);
    }
    for (what, group, offset, ours) in [("offset -1", "f3", -1, 1), ("a group without a name", "", 4, 24)] {
        let commit = OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: -1,
            topics: vec![offset_commit_request::OffsetCommitRequestTopic {
                name: "f".into(),
                partitions: vec![offset_commit_request::OffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..offset_commit_request::OffsetCommitRequestPartition::default()
                }],
                ..offset_commit_request::OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        };
        let seen: OffsetCommitResponse<'_> = wire.ask(ApiKey::OffsetCommit, 9, &commit).await;
        look.other("F3", what, seen.topics[0].partitions[0].error_code, (0, ours));
    }
    for (what, group, named, told) in [
        ("all of an unknown group", "f4", false, vec![]),
        ("some of an unknown group", "f4", true, vec![(-1, String::new(), 0)]),
        ("all", "f3", false, vec![(4, "m".to_owned(), 0)]),
    ] {
        let topics = named.then(|| {
            vec![offset_fetch_request::OffsetFetchRequestTopics {
                name: "f".into(),
                partition_indexes: vec![0],
                ..offset_fetch_request::OffsetFetchRequestTopics::default()
            }]
        });
        let fetch = OffsetFetchRequest {
            groups: vec![offset_fetch_request::OffsetFetchRequestGroup {
                group_id: group.into(),
                topics,
                ..offset_fetch_request::OffsetFetchRequestGroup::default()
            }],
            ..OffsetFetchRequest::default()
        };
        let mut seen: OffsetFetchResponse<'_> = wire.ask(ApiKey::OffsetFetch, 9, &fetch).await;
        let group = seen.groups.remove(0);
        let partitions = group.topics.into_iter().flat_map(|topic| topic.partitions);
        let partitions: Vec<_> = partitions
            .map(|partition| {
                (
                    partition.committed_offset,
                    partition.metadata.unwrap_or_default().to_string(),
                    partition.error_code,
                )
            })
            .collect();
        look.same("F4", what, (group.error_code, partitions), (0, told));
    }
}

async fn administration(wire: &mut Wire, look: &mut Look) {
    let unknown = DescribeGroupsRequest {
        groups: vec!["f5".into()],
        ..DescribeGroupsRequest::default()
    };
    for (version, code) in [(5, 0), (6, 69)] {
        let seen: DescribeGroupsResponse<'_> = wire.ask(ApiKey::DescribeGroups, version, &unknown).await;
        let group = &seen.groups[0];
        look.same(
            "F5",
            "an unknown group",
            (group.error_code, &*group.group_state),
            (code, "Dead"),
        );
    }
    for (what, states, count) in [
        ("any", vec![], true),
        ("in other letters", vec!["eMPTY"], true),
        ("unknown", vec!["Odd"], false),
    ] {
        let list = ListGroupsRequest {
            states_filter: states.into_iter().map(Into::into).collect(),
            ..ListGroupsRequest::default()
        };
        let seen: ListGroupsResponse<'_> = wire.ask(ApiKey::ListGroups, 5, &list).await;
        let is_there = seen.groups.iter().any(|group| group.group_id == "f3");
        look.same("F5", what, (seen.error_code, is_there), (0, count));
    }
    for (what, group, partition, codes) in [
        ("no such partition", "f3", 9, (0, Some(0))),
        ("not subscribed", "f3", 0, (0, Some(0))),
        ("an unknown group", "f6", 0, (69, None)),
    ] {
        let delete = OffsetDeleteRequest {
            group_id: group.into(),
            topics: vec![offset_delete_request::OffsetDeleteRequestTopic {
                name: "f".into(),
                partitions: vec![offset_delete_request::OffsetDeleteRequestPartition {
                    partition_index: partition,
                }],
            }],
        };
        let seen: OffsetDeleteResponse<'_> = wire.ask(ApiKey::OffsetDelete, 0, &delete).await;
        let told = seen.topics.first().map(|topic| topic.partitions[0].error_code);
        if partition == 9 {
            look.other("F6", what, (seen.error_code, told), ((0, Some(3)), codes));
        } else {
            look.same("F6", what, (seen.error_code, told), codes);
        }
    }
    for (group, code) in [("f3b", 0), ("f5", 69)] {
        let delete = DeleteGroupsRequest {
            groups_names: vec![group.into()],
        };
        let seen: DeleteGroupsResponse<'_> = wire.ask(ApiKey::DeleteGroups, 2, &delete).await;
        look.same("F5", "deleted", seen.results[0].error_code, code);
    }
}

async fn others(wire: &mut Wire, look: &mut Look) {
    for (kind, code) in [(1, 0), (2, 114), (3, 115)] {
        let request = DescribeClusterRequest {
            endpoint_type: kind,
            ..DescribeClusterRequest::default()
        };
        let seen: DescribeClusterResponse<'_> = wire.ask(ApiKey::DescribeCluster, 2, &request).await;
        look.same("H6", "endpoints", seen.error_code, code);
    }
    // What only controllers and brokers ask of each other.
    for api in [52_i16, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82] {
        let mut body = [api.to_be_bytes(), 0_i16.to_be_bytes()].concat();
        body.extend([0, 0, 0, 7, 0xff, 0xff, 0]);
        let frame = [&(body.len() as i32).to_be_bytes()[..], &body].concat();
        let mut wire = Wire::connect(wire.peer()).await;
        wire.send_bytes(&frame).await;
        look.same("H9", "between brokers", wire.receive().await, None);
    }
}
