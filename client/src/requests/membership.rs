//! Membership of a group: joining, syncing, heartbeats, leaving, and the commits and look-ups of a member.

use headwater_protocol::error::ErrorCode;
use headwater_protocol::group::{Assignment, CONSUMER};
use headwater_protocol::id::PartitionIndex;
use headwater_protocol::topic::TopicName;
use headwater_protocol::{head, schema};

use super::{ResponseError, field};
use crate::admin::CommittedOffset;
use crate::error::Error;

/// A member as it names itself to its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Empty until the group has given one.
    pub(crate) member_id: String,
    pub(crate) generation: i32,
    pub(crate) instance_id: Option<String>,
}

/// What a member wants when it joins.
#[derive(Debug, Clone)]
pub(crate) struct JoinWish {
    pub(crate) session_ms: i32,
    pub(crate) rebalance_ms: i32,
    pub(crate) protocol: &'static str,
    /// A subscription in the form of the members.
    pub(crate) metadata: Vec<u8>,
}

/// What came of a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Joined {
    /// Join again with this id.
    AsMember(String),
    Generation {
        member_id: String,
        generation: i32,
    },
}

pub(crate) fn join_group(group_id: &str, who: &Identity, wish: &JoinWish) -> schema::JoinGroupRequestT {
    schema::JoinGroupRequestT {
        group_id: Some(group_id.to_owned()),
        member_id: Some(who.member_id.clone()),
        instance_id: who.instance_id.clone(),
        session_timeout_ms: wish.session_ms,
        rebalance_timeout_ms: wish.rebalance_ms,
        protocol_type: Some(CONSUMER.to_owned()),
        protocols: Some(vec![schema::GroupProtocolT {
            name: Some(wish.protocol.to_owned()),
            metadata: Some(wish.metadata.clone()),
        }]),
        reason: None,
    }
}

pub(crate) fn read_join_group(bytes: &[u8]) -> Result<Joined, ResponseError> {
    let response = head::decode_response::<schema::JoinGroupResponse<'_>>(bytes)?;
    let member_id = response.member_id().unwrap_or_default().to_owned();
    if ErrorCode::from_i16(response.error()) == ErrorCode::MemberIdRequired && !member_id.is_empty() {
        return Ok(Joined::AsMember(member_id));
    }
    Error::check(response.error(), response.message())?;
    if member_id.is_empty() {
        return Err(field("a member without an id"));
    }
    let generation = response.generation();
    Ok(Joined::Generation { member_id, generation })
}

pub(crate) fn sync_group(group_id: &str, who: &Identity) -> schema::SyncGroupRequestT {
    schema::SyncGroupRequestT {
        group_id: Some(group_id.to_owned()),
        generation: who.generation,
        member_id: Some(who.member_id.clone()),
        instance_id: who.instance_id.clone(),
        ..Default::default()
    }
}

/// The partitions that the member gets.
pub(crate) fn read_sync_group(bytes: &[u8]) -> Result<Vec<(TopicName, PartitionIndex)>, ResponseError> {
    let response = head::decode_response::<schema::SyncGroupResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let assignment = match response.assignment().unwrap_or_default().bytes() {
        [] => Assignment::default(),
        bytes => Assignment::decode(bytes).map_err(|error| {
            tracing::debug!(%error, "an assignment cannot be read");
            field("an assignment that is not Kafka's ConsumerProtocolAssignment")
        })?,
    };
    let mut places = Vec::new();
    for of_topic in assignment.partitions {
        let topic = TopicName::new(&of_topic.topic).map_err(|error| {
            tracing::debug!(%error, "an assignment cannot be read");
            field("an assigned topic with an illegal name")
        })?;
        for partition in of_topic.partitions {
            places.push((topic.clone(), PartitionIndex::try_from(partition)?));
        }
    }
    Ok(places)
}

pub(crate) fn heartbeat(group_id: &str, who: &Identity) -> schema::HeartbeatRequestT {
    schema::HeartbeatRequestT {
        group_id: Some(group_id.to_owned()),
        generation: who.generation,
        member_id: Some(who.member_id.clone()),
        instance_id: who.instance_id.clone(),
    }
}

pub(crate) fn read_heartbeat(bytes: &[u8]) -> Result<(), ResponseError> {
    let response = head::decode_response::<schema::HeartbeatResponse<'_>>(bytes)?;
    Ok(Error::check(response.error(), response.message())?)
}

pub(crate) fn leave_group(group_id: &str, who: &Identity) -> schema::LeaveGroupRequestT {
    schema::LeaveGroupRequestT {
        group_id: Some(group_id.to_owned()),
        members: Some(vec![schema::LeavingMemberT {
            member_id: Some(who.member_id.clone()),
            instance_id: who.instance_id.clone(),
            reason: None,
        }]),
    }
}

/// A member that the group does not know has left as well.
pub(crate) fn read_leave_group(bytes: &[u8]) -> Result<(), ResponseError> {
    let response = head::decode_response::<schema::LeaveGroupResponse<'_>>(bytes)?;
    Ok(Error::check(response.error(), response.message())?)
}

/// The commit of a member.
pub(crate) fn commit_as(group_id: &str, who: &Identity, offsets: &[CommittedOffset]) -> schema::OffsetCommitRequestT {
    schema::OffsetCommitRequestT {
        generation: who.generation,
        member_id: Some(who.member_id.clone()),
        instance_id: who.instance_id.clone(),
        ..super::commit_offsets(group_id, offsets)
    }
}

/// What is committed for these partitions, which are in order, so that those of a topic are together.
pub(crate) fn fetch_offsets_of(
    group_id: &str,
    partitions: &[(TopicName, PartitionIndex)],
) -> schema::OffsetFetchRequestT {
    schema::OffsetFetchRequestT {
        topics: super::delete_offsets(group_id, partitions).topics,
        ..super::fetch_offsets(group_id)
    }
}
