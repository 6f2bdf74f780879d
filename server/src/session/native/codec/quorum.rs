//! The coordinator quorum: heads into what is asked, and what was found into heads.

use headwater_protocol::{
    error::ErrorCode,
    id::BrokerId,
    schema::{
        AddQuorumMembersRequest, DescribeQuorumRequest, DescribeQuorumResponseT, QuorumMemberT,
        RemoveQuorumMemberRequest,
    },
};

use super::read::read;
use crate::model::{
    op::Op,
    quorum::{QuorumDescription, QuorumMember},
    refusal::Refusal,
};

/// Nobody adds more at once.
const MEMBERS_MAX: usize = 8;

/// The longest host and port.
const ADDRESS_LEN_MAX: usize = 300;

pub(super) fn read_describe(bytes: &[u8]) -> Result<Op, Refusal> {
    read::<DescribeQuorumRequest>(bytes)?;
    Ok(Op::DescribeQuorum)
}

pub(super) fn read_add(bytes: &[u8]) -> Result<Op, Refusal> {
    let invalid = |message: String| Refusal::new(ErrorCode::InvalidRequest, message);
    let members = read::<AddQuorumMembersRequest>(bytes)?.members().unwrap_or_default();
    if !(1..=MEMBERS_MAX).contains(&members.len()) {
        let count = members.len();
        return Err(invalid(format!(
            "{count} members cannot be added; allowed are 1 to {MEMBERS_MAX} at once"
        )));
    }
    let member = |member: headwater_protocol::schema::NewQuorumMember<'_>| {
        let address = member.address().unwrap_or_default();
        if address.is_empty() || address.len() > ADDRESS_LEN_MAX {
            return Err(invalid("a member needs an address: its host and port".to_owned()));
        }
        Ok((id(member.id())?, address.to_owned()))
    };
    Ok(Op::AddQuorumMembers(
        members.iter().map(member).collect::<Result<_, _>>()?,
    ))
}

pub(super) fn read_remove(bytes: &[u8]) -> Result<Op, Refusal> {
    Ok(Op::RemoveQuorumMember(id(
        read::<RemoveQuorumMemberRequest>(bytes)?.id()
    )?))
}

pub(super) fn id(number: i32) -> Result<BrokerId, Refusal> {
    if number < 0 {
        return Err(Refusal::new(
            ErrorCode::InvalidRequest,
            format_args!("no member has the number {number}"),
        ));
    }
    Ok(BrokerId::new(number))
}

pub(super) fn quorum(described: QuorumDescription) -> DescribeQuorumResponseT {
    let member = |member: QuorumMember| {
        let (committed_index, message) = match member.committed {
            Ok(index) => (index.cast_signed(), None),
            Err(why) => (-1, Some(why)),
        };
        QuorumMemberT {
            id: member.id.get(),
            address: Some(member.address),
            is_voter: member.is_voter,
            committed_index,
            message,
        }
    };
    DescribeQuorumResponseT {
        cluster_id: Some(described.cluster_id),
        active_id: described.active.map_or(-1, BrokerId::get),
        term: described.term,
        members: Some(described.members.into_iter().map(member).collect()),
        ..DescribeQuorumResponseT::default()
    }
}
