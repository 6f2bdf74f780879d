//! Groups and their committed offsets: heads into what is asked, and what a group answers into heads.

use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::{
    error::ErrorCode,
    head::ResponseHead as _,
    id::LeaderEpoch,
    schema::{
        CommittedOffsetT, DeleteGroupRequest, DeleteGroupResponseT, DescribeGroupRequest, DescribeGroupResponseT,
        DescribedMemberT, FindGroupRequest, HeartbeatRequest, HeartbeatResponseT, JoinGroupRequest, JoinGroupResponseT,
        JoinedMemberT, LeaveGroupRequest, LeaveGroupResponseT, ListGroupsRequest, ListGroupsResponseT, ListedGroupT,
        OffsetCommitRequest, OffsetCommitResponseT, OffsetDeleteRequest, OffsetDeleteResponseT, OffsetFetchRequest,
        OffsetFetchResponseT, SyncGroupRequest, SyncGroupResponseT, TopicPartitionsT,
    },
};

use super::read::read;
use crate::{
    model::{
        group::{
            Answer, CommitItem, Committed, DescribedMember, Description, Generation, Identity, InstanceId, Joined,
            Listed, MemberId, Protocol, Request, Sync, Synced, Timeouts,
        },
        op::{Joining, Op, TopicPartitions},
        refusal::Refusal,
    },
    session::native::reply::Reply,
};

pub(super) fn read_find(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<FindGroupRequest>(bytes)?;
    Ok(Op::FindGroup(head.group_id().unwrap_or_default().to_owned()))
}

pub(super) fn read_join(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<JoinGroupRequest>(bytes)?.unpack();
    let millis = |value: i32| Duration::from_millis(value.max(0).cast_unsigned().into());
    let session = millis(head.session_timeout_ms);
    let rebalance = Some(millis(head.rebalance_timeout_ms)).filter(|timeout| !timeout.is_zero());
    let protocols = head.protocols.unwrap_or_default().into_iter();
    let joining = Joining {
        member: head.member_id.filter(|id| !id.is_empty()).map(MemberId::new),
        instance: head.instance_id.map(InstanceId::new),
        timeouts: Timeouts {
            session,
            rebalance: rebalance.unwrap_or(session),
        },
        protocol_type: head.protocol_type.unwrap_or_default(),
        protocols: protocols
            .map(|offer| Protocol {
                name: offer.name.unwrap_or_default(),
                metadata: offer.metadata.unwrap_or_default().into(),
            })
            .collect(),
        in_two_steps: true,
    };
    Ok(Op::JoinGroup(head.group_id.unwrap_or_default(), joining))
}

pub(super) fn read_sync(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<SyncGroupRequest>(bytes)?.unpack();
    let assignments = head.assignments.unwrap_or_default().into_iter();
    let sync = Sync {
        who: identity(head.generation, head.member_id, head.instance_id),
        protocol_type: head.protocol_type.filter(|name| !name.is_empty()),
        protocol: head.protocol_name.filter(|name| !name.is_empty()),
        assignments: assignments
            .map(|assigned| {
                let member = MemberId::new(assigned.member_id.unwrap_or_default());
                (member, Bytes::from(assigned.assignment.unwrap_or_default()))
            })
            .collect(),
    };
    Ok(Op::Group(head.group_id.unwrap_or_default(), Request::Sync(sync)))
}

fn identity(generation: i32, member: Option<String>, instance: Option<String>) -> Identity {
    Identity {
        generation: Generation::new(generation),
        member: MemberId::new(member.unwrap_or_default()),
        instance: instance.map(InstanceId::new),
    }
}

pub(super) fn read_heartbeat(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<HeartbeatRequest>(bytes)?.unpack();
    let who = identity(head.generation, head.member_id, head.instance_id);
    Ok(Op::Group(head.group_id.unwrap_or_default(), Request::Heartbeat(who)))
}

pub(super) fn read_leave(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<LeaveGroupRequest>(bytes)?.unpack();
    let members = head.members.unwrap_or_default().into_iter().map(|member| {
        let instance = member.instance_id.filter(|id| !id.is_empty()).map(InstanceId::new);
        (MemberId::new(member.member_id.unwrap_or_default()), instance)
    });
    let request = Request::Leave(members.collect());
    Ok(Op::Group(head.group_id.unwrap_or_default(), request))
}

pub(super) fn read_commit(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<OffsetCommitRequest>(bytes)?.unpack();
    let who = identity(head.generation, head.member_id, head.instance_id);
    let item = |offset: CommittedOffsetT| CommitItem {
        topic: offset.topic.unwrap_or_default(),
        partition: offset.partition,
        offset: offset.offset,
        leader_epoch: LeaderEpoch::new(offset.leader_epoch),
        metadata: offset.metadata.unwrap_or_default(),
    };
    let items = head.offsets.unwrap_or_default().into_iter().map(item).collect();
    let request = Request::Commit(who, items);
    Ok(Op::Group(head.group_id.unwrap_or_default(), request))
}

pub(super) fn read_fetch(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<OffsetFetchRequest>(bytes)?.unpack();
    let topics = head.topics.map(topics);
    Ok(Op::FetchOffsets(head.group_id.unwrap_or_default(), None, topics))
}

pub(super) fn read_forget(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<OffsetDeleteRequest>(bytes)?.unpack();
    let topics = topics(head.topics.unwrap_or_default());
    Ok(Op::ForgetOffsets(head.group_id.unwrap_or_default(), topics))
}

pub(super) fn topics(topics: Vec<TopicPartitionsT>) -> Vec<TopicPartitions> {
    let topic = |topic: TopicPartitionsT| TopicPartitions {
        topic: topic.topic.unwrap_or_default(),
        partitions: topic.partitions.unwrap_or_default(),
    };
    topics.into_iter().map(topic).collect()
}

pub(super) fn read_list(bytes: &[u8]) -> Result<Op, Refusal> {
    Ok(Op::ListGroups(read::<ListGroupsRequest>(bytes)?.unpack().states, false))
}

pub(super) fn read_describe(bytes: &[u8]) -> Result<Op, Refusal> {
    let group = read::<DescribeGroupRequest>(bytes)?.group_id().unwrap_or_default();
    Ok(Op::Group(group.to_owned(), Request::Describe))
}

pub(super) fn read_delete(bytes: &[u8]) -> Result<Op, Refusal> {
    let group = read::<DeleteGroupRequest>(bytes)?.group_id().unwrap_or_default();
    Ok(Op::Group(group.to_owned(), Request::Delete))
}

pub(super) fn listed(groups: Vec<Listed>) -> ListGroupsResponseT {
    let group = |listed: Listed| ListedGroupT {
        group_id: Some(listed.group.to_string()),
        protocol_type: Some(listed.protocol_type),
        state: Some(listed.state.to_owned()),
        members: listed.members as u32,
    };
    ListGroupsResponseT {
        groups: Some(groups.into_iter().map(group).collect()),
        ..ListGroupsResponseT::default()
    }
}

/// Answers with what a group answers.
pub(super) fn tell(reply: Reply, answer: Answer) {
    match answer {
        Answer::MemberIdRequired(member) => reply.head(&JoinGroupResponseT {
            member_id: Some(member.to_string()),
            ..refused(ErrorCode::MemberIdRequired)
        }),
        Answer::Joined(joined) => reply.head(&join(joined)),
        Answer::Synced(Synced {
            protocol_type,
            protocol,
            assignment,
        }) => reply.head(&SyncGroupResponseT {
            protocol_type: Some(protocol_type),
            protocol_name: Some(protocol),
            assignment: Some(assignment.into()),
            ..SyncGroupResponseT::default()
        }),
        // This protocol does not ask for them.
        Answer::Reconciled(_) | Answer::DescribedConsumers(_) => {
            reply.head(&HeartbeatResponseT::default());
        }
        Answer::Alive => reply.head(&HeartbeatResponseT::default()),
        Answer::Left(codes) => reply.head(&LeaveGroupResponseT {
            members: Some(numbers(&codes)),
            ..LeaveGroupResponseT::default()
        }),
        Answer::Committed(codes) => reply.head(&OffsetCommitResponseT {
            errors: Some(numbers(&codes)),
            ..OffsetCommitResponseT::default()
        }),
        Answer::Offsets(offsets) => reply.head(&OffsetFetchResponseT {
            offsets: Some(offsets.into_iter().map(committed).collect()),
            ..OffsetFetchResponseT::default()
        }),
        Answer::Forgotten(codes) => reply.head(&OffsetDeleteResponseT {
            errors: Some(numbers(&codes)),
            ..OffsetDeleteResponseT::default()
        }),
        Answer::Described(described) => reply.head(&describe(described)),
        Answer::Unstable(_) | Answer::Marked => unreachable!("no api of this protocol asks for it"),
        Answer::Deleted => reply.head(&DeleteGroupResponseT::default()),
    }
}

fn refused(code: ErrorCode) -> JoinGroupResponseT {
    JoinGroupResponseT::failed(code, code.description().to_owned())
}

fn numbers(codes: &[ErrorCode]) -> Vec<i16> {
    codes.iter().map(|code| *code as i16).collect()
}

fn join(joined: Joined) -> JoinGroupResponseT {
    let member = |(id, instance, metadata): (MemberId, Option<InstanceId>, Bytes)| JoinedMemberT {
        member_id: Some(id.to_string()),
        instance_id: instance.map(|instance| instance.to_string()),
        metadata: Some(metadata.into()),
    };
    JoinGroupResponseT {
        generation: joined.generation.get(),
        protocol_type: Some(joined.protocol_type),
        protocol_name: Some(joined.protocol),
        leader: Some(joined.leader.to_string()),
        member_id: Some(joined.member.to_string()),
        skip_assignment: joined.skip_assignment,
        members: Some(joined.members.into_iter().map(member).collect()),
        ..JoinGroupResponseT::default()
    }
}

fn describe(described: Description) -> DescribeGroupResponseT {
    let member = |member: DescribedMember| DescribedMemberT {
        member_id: Some(member.id.to_string()),
        instance_id: member.instance.map(|instance| instance.to_string()),
        client_id: Some(member.client.id),
        client_host: Some(member.client.host),
        metadata: Some(member.metadata.into()),
        assignment: Some(member.assignment.into()),
    };
    DescribeGroupResponseT {
        state: Some(described.state.to_owned()),
        protocol_type: Some(described.protocol_type),
        protocol_name: Some(described.protocol),
        generation: described.generation.get(),
        members: Some(described.members.into_iter().map(member).collect()),
        ..DescribeGroupResponseT::default()
    }
}

fn committed((topic, partition, committed): (String, i32, Option<Committed>)) -> CommittedOffsetT {
    let none = CommittedOffsetT {
        topic: Some(topic),
        partition,
        ..CommittedOffsetT::default()
    };
    match committed {
        Some(committed) => CommittedOffsetT {
            offset: committed.offset,
            leader_epoch: committed.leader_epoch.get(),
            metadata: Some(committed.metadata),
            ..none
        },
        None => none,
    }
}
