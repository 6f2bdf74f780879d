//! The coordinator quorum.

use headwater_protocol::head;
use headwater_protocol::id::BrokerId;
use headwater_protocol::schema;

use super::ResponseError;
use crate::admin::{QuorumDescription, QuorumMember};
use crate::error::Error;

pub(crate) fn describe_quorum() -> schema::DescribeQuorumRequestT {
    schema::DescribeQuorumRequestT {}
}

pub(crate) fn read_describe_quorum(bytes: &[u8]) -> Result<QuorumDescription, ResponseError> {
    let response = head::decode_response::<schema::DescribeQuorumResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let member = |member: schema::QuorumMember<'_>| QuorumMember {
        id: BrokerId::new(member.id()),
        address: member.address().unwrap_or_default().to_owned(),
        is_voter: member.is_voter(),
        committed: u64::try_from(member.committed_index())
            .map_err(|_negative| member.message().unwrap_or("it does not answer").to_owned()),
    };
    Ok(QuorumDescription {
        cluster_id: response.cluster_id().unwrap_or_default().to_owned(),
        active: (response.active_id() >= 0).then(|| BrokerId::new(response.active_id())),
        term: response.term(),
        members: response.members().unwrap_or_default().iter().map(member).collect(),
    })
}

pub(crate) fn add_quorum_members(members: &[(BrokerId, String)]) -> schema::AddQuorumMembersRequestT {
    let member = |(id, address): &(BrokerId, String)| schema::NewQuorumMemberT {
        id: id.get(),
        address: Some(address.clone()),
    };
    schema::AddQuorumMembersRequestT {
        members: Some(members.iter().map(member).collect()),
    }
}

pub(crate) fn read_add_quorum_members(bytes: &[u8]) -> Result<(), ResponseError> {
    let response = head::decode_response::<schema::AddQuorumMembersResponse<'_>>(bytes)?;
    Ok(Error::check(response.error(), response.message())?)
}

pub(crate) fn remove_quorum_member(member: BrokerId) -> schema::RemoveQuorumMemberRequestT {
    schema::RemoveQuorumMemberRequestT { id: member.get() }
}

pub(crate) fn read_remove_quorum_member(bytes: &[u8]) -> Result<(), ResponseError> {
    let response = head::decode_response::<schema::RemoveQuorumMemberResponse<'_>>(bytes)?;
    Ok(Error::check(response.error(), response.message())?)
}
