//! Groups and committed offsets, as far as administration has to do with them.

use headwater_protocol::error::ErrorCode;
use headwater_protocol::group::{Assignment, Subscription, TopicPartitions};
use headwater_protocol::id::{LeaderEpoch, Offset, PartitionIndex};
use headwater_protocol::topic::TopicName;
use headwater_protocol::{head, schema};

use super::{ResponseError, field, partition_error};
use crate::address::Address;
use crate::admin::{CommittedOffset, GroupDescription, GroupListing, GroupMember, GroupState, MemberPartitions};
use crate::error::Error;

pub(crate) fn find_group(group_id: &str) -> schema::FindGroupRequestT {
    schema::FindGroupRequestT {
        group_id: Some(group_id.to_owned()),
    }
}

/// The listener of the core that runs the group.
pub(crate) fn read_find_group(bytes: &[u8]) -> Result<Address, ResponseError> {
    let response = head::decode_response::<schema::FindGroupResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let host = response.host().ok_or_else(|| field("a group without a host"))?;
    Ok(Address::new(host, response.core_port()))
}

/// In any state.
pub(crate) fn list_groups() -> schema::ListGroupsRequestT {
    schema::ListGroupsRequestT { states: None }
}

pub(crate) fn read_list_groups(bytes: &[u8]) -> Result<Vec<GroupListing>, ResponseError> {
    let response = head::decode_response::<schema::ListGroupsResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let listing = |group: schema::ListedGroup<'_>| GroupListing {
        group_id: group.group_id().unwrap_or_default().to_owned(),
        protocol_type: group.protocol_type().unwrap_or_default().to_owned(),
        state: GroupState::from(group.state().unwrap_or_default()),
        members: group.members() as usize,
    };
    Ok(response.groups().unwrap_or_default().iter().map(listing).collect())
}

pub(crate) fn describe_group(group_id: &str) -> schema::DescribeGroupRequestT {
    schema::DescribeGroupRequestT {
        group_id: Some(group_id.to_owned()),
    }
}

pub(crate) fn read_describe_group(group_id: &str, bytes: &[u8]) -> Result<GroupDescription, ResponseError> {
    let response = head::decode_response::<schema::DescribeGroupResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    Ok(GroupDescription {
        group_id: group_id.to_owned(),
        state: GroupState::from(response.state().unwrap_or_default()),
        protocol_type: response.protocol_type().unwrap_or_default().to_owned(),
        protocol_name: response.protocol_name().unwrap_or_default().to_owned(),
        generation: response.generation(),
        members: response
            .members()
            .unwrap_or_default()
            .iter()
            .map(|member| read_member(&member))
            .collect(),
    })
}

/// What members say of themselves is theirs alone: it need not be in Kafka's form.
fn read_member(member: &schema::DescribedMember<'_>) -> GroupMember {
    let assignment = match member.assignment().unwrap_or_default().bytes() {
        // It has none while the group rebalances.
        [] => Some(Vec::new()),
        bytes => Assignment::decode(bytes).ok().and_then(read_assignment),
    };
    let subscription = Subscription::decode(member.metadata().unwrap_or_default().bytes());
    GroupMember {
        member_id: member.member_id().unwrap_or_default().to_owned(),
        instance_id: member.instance_id().map(str::to_owned),
        client_id: member.client_id().unwrap_or_default().to_owned(),
        client_host: member.client_host().unwrap_or_default().to_owned(),
        subscription: subscription.ok().map(|subscription| subscription.topics),
        assignment,
    }
}

fn read_assignment(assignment: Assignment) -> Option<Vec<MemberPartitions>> {
    let of_topic = |TopicPartitions { topic, partitions }| {
        let partitions: Result<Vec<_>, _> = partitions.into_iter().map(PartitionIndex::try_from).collect();
        let mut partitions = partitions.ok()?;
        partitions.sort_unstable();
        Some(MemberPartitions { topic, partitions })
    };
    assignment.partitions.into_iter().map(of_topic).collect()
}

pub(crate) fn delete_group(group_id: &str) -> schema::DeleteGroupRequestT {
    schema::DeleteGroupRequestT {
        group_id: Some(group_id.to_owned()),
    }
}

pub(crate) fn read_delete_group(bytes: &[u8]) -> Result<(), ResponseError> {
    let response = head::decode_response::<schema::DeleteGroupResponse<'_>>(bytes)?;
    Ok(Error::check(response.error(), response.message())?)
}

/// Of every partition that has a committed offset.
pub(crate) fn fetch_offsets(group_id: &str) -> schema::OffsetFetchRequestT {
    schema::OffsetFetchRequestT {
        group_id: Some(group_id.to_owned()),
        topics: None,
    }
}

pub(crate) fn read_fetch_offsets(bytes: &[u8]) -> Result<Vec<CommittedOffset>, ResponseError> {
    let response = head::decode_response::<schema::OffsetFetchResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let mut offsets = Vec::new();
    for committed in response.offsets().unwrap_or_default() {
        partition_error(committed.error())?;
        let name = committed.topic().and_then(|name| TopicName::new(name).ok());
        let topic = name.ok_or_else(|| field("a committed offset of a topic with an illegal name"))?;
        let partition = PartitionIndex::try_from(committed.partition())?;
        if committed.offset() == -1 {
            continue;
        }
        offsets.push(CommittedOffset {
            topic,
            partition,
            offset: Offset::try_from(committed.offset())?,
            leader_epoch: Some(LeaderEpoch::new(committed.leader_epoch())).filter(|epoch| epoch.get() >= 0),
            metadata: committed.metadata().unwrap_or_default().to_owned(),
        });
    }
    Ok(offsets)
}

/// The commit of a consumer that assigns itself.
pub(crate) fn commit_offsets(group_id: &str, offsets: &[CommittedOffset]) -> schema::OffsetCommitRequestT {
    let offset = |offset: &CommittedOffset| schema::CommittedOffsetT {
        topic: Some(offset.topic.to_string()),
        partition: offset.partition.get(),
        offset: offset.offset.as_i64(),
        leader_epoch: offset.leader_epoch.map_or(-1, LeaderEpoch::get),
        metadata: Some(offset.metadata.clone()),
        error: 0,
    };
    schema::OffsetCommitRequestT {
        group_id: Some(group_id.to_owned()),
        generation: -1,
        member_id: None,
        instance_id: None,
        offsets: Some(offsets.iter().map(offset).collect()),
    }
}

/// One code for each of `count` offsets.
pub(crate) fn read_commit_offsets(bytes: &[u8], count: usize) -> Result<Vec<ErrorCode>, ResponseError> {
    let response = head::decode_response::<schema::OffsetCommitResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    codes(response.errors(), count)
}

/// `partitions` in order, so that those of a topic are together.
pub(crate) fn delete_offsets(
    group_id: &str,
    partitions: &[(TopicName, PartitionIndex)],
) -> schema::OffsetDeleteRequestT {
    let topics = partitions
        .chunk_by(|(one, _), (other, _)| one == other)
        .map(|of_topic| schema::TopicPartitionsT {
            topic: of_topic.first().map(|(topic, _)| topic.to_string()),
            partitions: Some(of_topic.iter().map(|(_, partition)| partition.get()).collect()),
        });
    schema::OffsetDeleteRequestT {
        group_id: Some(group_id.to_owned()),
        topics: Some(topics.collect()),
    }
}

/// One code for each of `count` partitions.
pub(crate) fn read_delete_offsets(bytes: &[u8], count: usize) -> Result<Vec<ErrorCode>, ResponseError> {
    let response = head::decode_response::<schema::OffsetDeleteResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    codes(response.errors(), count)
}

fn codes(errors: Option<flatbuffers::Vector<'_, i16>>, count: usize) -> Result<Vec<ErrorCode>, ResponseError> {
    let errors = errors.unwrap_or_default();
    if errors.len() != count {
        return Err(field("another number of errors than of partitions"));
    }
    Ok(errors.iter().map(ErrorCode::from_i16).collect())
}
