//! Membership of groups: to join, to be told what is assigned, to stay, to leave.

use std::time::Duration;

use bytes::Bytes;
use headwater_kafka::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse, join_group_response::JoinGroupResponseMember,
    leave_group_request::MemberIdentity, leave_group_response::MemberResponse,
};
use headwater_protocol::error::ErrorCode;

use super::asking::Asking;
use crate::model::{
    group::{Answer, Generation, Identity, InstanceId, Joined, MemberId, Protocol, Request, Sync, Timeouts},
    op::{Joining, Op, Outcome},
    refusal::Refusal,
};

/// From this version on a new member is told its id first, and joins with it (KIP-394).
const TWO_STEPS_FROM: i16 = 4;

/// From this version on the name of a protocol may be null.
const NULL_PROTOCOL_FROM: i16 = 7;

/// From this version on several members may leave in one request.
const SEVERAL_LEAVE_FROM: i16 = 3;

/// From this version on a member says which protocol it means.
const PROTOCOL_CHECKED_FROM: i16 = 5;

/// The most protocols that one member may offer.
const PROTOCOLS_MAX: usize = 64;

pub(super) async fn join(asking: &Asking, request: JoinGroupRequest<'_>) -> JoinGroupResponse<'static> {
    let millis = |value: i32| Duration::from_millis(value.max(0).cast_unsigned().into());
    let session = millis(request.session_timeout_ms);
    let rebalance = Some(millis(request.rebalance_timeout_ms)).filter(|timeout| !timeout.is_zero());
    let member = request.member_id.into_owned();
    let refused = |code, member: String| JoinGroupResponse {
        error_code: asking.tells(code),
        protocol_name: (asking.version < NULL_PROTOCOL_FROM).then(|| "".into()),
        member_id: member.into(),
        ..JoinGroupResponse::default()
    };
    if request.protocols.len() > PROTOCOLS_MAX {
        return refused(ErrorCode::InconsistentGroupProtocol, member);
    }
    let joining = Joining {
        member: Some(member.clone()).filter(|id| !id.is_empty()).map(MemberId::new),
        instance: instance(request.group_instance_id),
        timeouts: Timeouts {
            session,
            rebalance: rebalance.unwrap_or(session),
        },
        protocol_type: request.protocol_type.into_owned(),
        protocols: request
            .protocols
            .into_iter()
            .map(|offer| Protocol {
                name: offer.name.into_owned(),
                metadata: offer.metadata.into_owned().into(),
            })
            .collect(),
        in_two_steps: asking.version >= TWO_STEPS_FROM,
    };
    let done = asking
        .perform(Op::JoinGroup(request.group_id.into_owned(), joining))
        .await;
    match done {
        Ok(Outcome::Group(Answer::Joined(joined))) => has_joined(asking, joined),
        Ok(Outcome::Group(Answer::MemberIdRequired(member))) => {
            refused(ErrorCode::MemberIdRequired, member.to_string())
        }
        Ok(Outcome::NotJoined(refusal, known)) => refused(refusal.code, known.unwrap_or_default()),
        Ok(_) => refused(ErrorCode::UnknownServerError, member),
        Err(refusal) => refused(refusal.code, member),
    }
}

fn instance(id: Option<headwater_kafka::Str<'_>>) -> Option<InstanceId> {
    id.map(|id| InstanceId::new(&*id))
}

fn has_joined(asking: &Asking, joined: Joined) -> JoinGroupResponse<'static> {
    let member = |(id, instance, metadata): (MemberId, Option<InstanceId>, Bytes)| JoinGroupResponseMember {
        member_id: id.to_string().into(),
        group_instance_id: instance.map(|instance| instance.to_string().into()),
        metadata: Vec::from(metadata).into(),
    };
    JoinGroupResponse {
        generation_id: joined.generation.get(),
        protocol_type: Some(joined.protocol_type.into()),
        protocol_name: Some(joined.protocol.into()),
        leader: joined.leader.to_string().into(),
        // Older clients that lead assign whatever they are told.
        skip_assignment: joined.skip_assignment && asking.version >= 9,
        member_id: joined.member.to_string().into(),
        members: joined.members.into_iter().map(member).collect(),
        ..JoinGroupResponse::default()
    }
}

fn identity(generation: i32, member: &str, instance: Option<InstanceId>) -> Identity {
    Identity {
        generation: Generation::new(generation),
        member: MemberId::new(member),
        instance,
    }
}

pub(super) async fn sync(asking: &Asking, request: SyncGroupRequest<'_>) -> SyncGroupResponse<'static> {
    let is_checked = asking.version >= PROTOCOL_CHECKED_FROM;
    let checked = |name: Option<headwater_kafka::Str<'_>>| is_checked.then(|| name.unwrap_or_default().into_owned());
    let instance = instance(request.group_instance_id);
    let sync = Sync {
        who: identity(request.generation_id, &request.member_id, instance),
        protocol_type: checked(request.protocol_type),
        protocol: checked(request.protocol_name),
        assignments: request
            .assignments
            .into_iter()
            .map(|assigned| {
                let assignment = Bytes::from(assigned.assignment.into_owned());
                (MemberId::new(&*assigned.member_id), assignment)
            })
            .collect(),
    };
    let refused = |code| SyncGroupResponse {
        error_code: asking.tells(code),
        ..SyncGroupResponse::default()
    };
    match asking
        .perform(Op::Group(request.group_id.into_owned(), Request::Sync(sync)))
        .await
    {
        Ok(Outcome::Group(Answer::Synced(synced))) => SyncGroupResponse {
            protocol_type: Some(synced.protocol_type.into()),
            protocol_name: Some(synced.protocol.into()),
            assignment: Vec::from(synced.assignment).into(),
            ..SyncGroupResponse::default()
        },
        Ok(_) => refused(ErrorCode::UnknownServerError),
        Err(refusal) => refused(refusal.code),
    }
}

pub(super) async fn heartbeat(asking: &Asking, request: HeartbeatRequest<'_>) -> HeartbeatResponse {
    let instance = instance(request.group_instance_id);
    let who = identity(request.generation_id, &request.member_id, instance);
    let done = asking
        .perform(Op::Group(request.group_id.into_owned(), Request::Heartbeat(who)))
        .await;
    let code = done.map_or_else(|refusal| refusal.code, |_| ErrorCode::None);
    HeartbeatResponse {
        error_code: asking.tells(code),
        ..HeartbeatResponse::default()
    }
}

pub(super) async fn leave(asking: &Asking, request: LeaveGroupRequest<'_>) -> LeaveGroupResponse<'static> {
    let are_several = asking.version >= SEVERAL_LEAVE_FROM;
    let members = if are_several {
        request.members
    } else {
        vec![MemberIdentity {
            member_id: request.member_id,
            ..MemberIdentity::default()
        }]
    };
    let named = members.iter().map(|member| {
        let instance = instance(member.group_instance_id.clone());
        (MemberId::new(&*member.member_id), instance)
    });
    let leave = Request::Leave(named.collect());
    let done = match asking.perform(Op::Group(request.group_id.into_owned(), leave)).await {
        Ok(Outcome::Group(Answer::Left(codes))) => Ok(codes),
        Ok(_) => Err(Refusal::stopping()),
        Err(refusal) => Err(refusal),
    };
    let codes = match done {
        Ok(codes) => codes,
        Err(refusal) => {
            return LeaveGroupResponse {
                error_code: asking.tells(refusal.code),
                ..LeaveGroupResponse::default()
            };
        }
    };
    if !are_several {
        let code = codes.first().copied().unwrap_or(ErrorCode::None);
        return LeaveGroupResponse {
            error_code: asking.tells(code),
            ..LeaveGroupResponse::default()
        };
    }
    let left = members.into_iter().zip(codes).map(|(member, code)| MemberResponse {
        member_id: member.member_id.into_owned().into(),
        group_instance_id: member.group_instance_id.map(|id| id.into_owned().into()),
        error_code: asking.tells(code),
    });
    LeaveGroupResponse {
        members: left.collect(),
        ..LeaveGroupResponse::default()
    }
}
