//! Requests about groups in the native protocol: heads into calls, replies into heads. Membership is here.
//!
//! Lengths are held to the limits of the configuration before a group sees them.

mod admin;
mod offsets;

pub(crate) use admin::{delete_group, describe_group, find_group, list_groups};
pub(crate) use offsets::{commit, delete_offsets, fetch_offsets};

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use headwater_protocol::{
    error::ErrorCode,
    id::CorrelationId,
    schema::{
        HeartbeatRequestT, HeartbeatResponseT, JoinGroupRequestT, JoinGroupResponseT, JoinedMemberT,
        LeaveGroupRequestT, LeaveGroupResponseT, SyncGroupRequestT, SyncGroupResponseT,
    },
};

use crate::{
    config::GroupsSection,
    coordinator::service,
    core::Core,
    model::{
        group::{
            Answer, Client, Generation, GroupId, Identity, InstanceId, Join, MemberId, Protocol, Reply, Request, Sync,
            Timeouts,
        },
        refusal::Refusal,
    },
    session::{native::reply, outbox::Response},
};

/// Reads the name of a group.
fn group_id(id: Option<String>, config: &GroupsSection) -> Result<GroupId, Refusal> {
    let id = id.unwrap_or_default();
    if id.is_empty() {
        return Err(Refusal::new(ErrorCode::InvalidGroupId, "the group id is empty"));
    }
    check_id("group id", &id, config).map_err(|refusal| Refusal::new(ErrorCode::InvalidGroupId, refusal.message))?;
    Ok(GroupId::new(id))
}

fn check_id(what: &str, id: &str, config: &GroupsSection) -> Result<(), Refusal> {
    let max = config.id_bytes_max;
    if id.len() as u64 <= max.bytes() {
        return Ok(());
    }
    let message = format!(
        "a {what} of {} bytes; at most {max} are allowed (groups.id_bytes_max)",
        id.len()
    );
    Err(Refusal::new(ErrorCode::InvalidRequest, message))
}

fn check_metadata(what: &str, len: usize, config: &GroupsSection) -> Result<(), Refusal> {
    let max = config.metadata_bytes_max;
    if len as u64 <= max.bytes() {
        return Ok(());
    }
    let message = format!("{what} of {len} bytes; at most {max} are allowed (groups.metadata_bytes_max)");
    Err(Refusal::new(ErrorCode::InvalidRequest, message))
}

fn instance_id(id: Option<String>, config: &GroupsSection) -> Result<Option<InstanceId>, Refusal> {
    let Some(id) = id else { return Ok(None) };
    if id.is_empty() {
        return Err(Refusal::new(ErrorCode::InvalidRequest, "the instance id is empty"));
    }
    check_id("instance id", &id, config)?;
    Ok(Some(InstanceId::new(id)))
}

fn identity(generation: i32, member: Option<String>, instance: Option<String>) -> Identity {
    Identity {
        generation: Generation::new(generation),
        member: MemberId::new(member.unwrap_or_default()),
        instance: instance.map(InstanceId::new),
    }
}

/// Asks the group that a request was read for.
async fn ask(core: &Rc<Core>, call: Result<(GroupId, Request), Refusal>) -> Reply {
    let (group, request) = call?;
    service::call(core, group, request).await
}

/// The answer was to another request: there is a bug.
fn unexpected(answer: &Answer) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownServerError,
        format!("an unexpected answer: {answer:?}"),
    )
}

/// Becomes or stays a member.
pub(crate) async fn join(core: Rc<Core>, id: CorrelationId, client: Client, head: JoinGroupRequestT) -> Response {
    let known = head.member_id.clone();
    let reply = ask(&core, read_join(&core, client, head)).await;
    let refused = |refusal: Refusal, member_id| JoinGroupResponseT {
        error: refusal.code as i16,
        message: Some(refusal.message),
        member_id,
        ..JoinGroupResponseT::default()
    };
    let head = match reply {
        Ok(Answer::Joined(joined)) => JoinGroupResponseT {
            error: 0,
            message: None,
            generation: joined.generation.get(),
            protocol_type: Some(joined.protocol_type),
            protocol_name: Some(joined.protocol),
            leader: Some(joined.leader.to_string()),
            member_id: Some(joined.member.to_string()),
            skip_assignment: joined.skip_assignment,
            members: Some(joined.members.into_iter().map(joined_member).collect()),
        },
        Ok(Answer::MemberIdRequired(id)) => refused(
            crate::model::group::refusal(ErrorCode::MemberIdRequired),
            Some(id.to_string()),
        ),
        Ok(other) => refused(unexpected(&other), known),
        Err(refusal) => refused(refusal, known),
    };
    Response::of(reply::head(id, &head))
}

fn joined_member((id, instance, metadata): (MemberId, Option<InstanceId>, Bytes)) -> JoinedMemberT {
    JoinedMemberT {
        member_id: Some(id.to_string()),
        instance_id: instance.map(|instance| instance.to_string()),
        metadata: Some(metadata.into()),
    }
}

fn read_join(core: &Core, client: Client, head: JoinGroupRequestT) -> Result<(GroupId, Request), Refusal> {
    let config = &core.config.groups;
    let group = group_id(head.group_id, config)?;
    let instance = instance_id(head.instance_id, config)?;
    let protocol_type = head.protocol_type.unwrap_or_default();
    check_id("protocol type", &protocol_type, config)?;
    let mut protocols = Vec::new();
    let mut size = 0;
    for offer in head.protocols.unwrap_or_default() {
        let protocol = Protocol {
            name: offer.name.unwrap_or_default(),
            metadata: offer.metadata.unwrap_or_default().into(),
        };
        check_id("protocol name", &protocol.name, config)?;
        size += protocol.name.len() + protocol.metadata.len();
        check_metadata("protocols", size, config)?;
        protocols.push(protocol);
    }
    let millis = |value: i32| Duration::from_millis(value.max(0).cast_unsigned().into());
    let session = millis(head.session_timeout_ms);
    let rebalance = Some(millis(head.rebalance_timeout_ms)).filter(|timeout| !timeout.is_zero());
    let name = instance.as_ref().map_or(client.id.as_str(), InstanceId::as_str);
    let join = Join {
        member: head.member_id.filter(|id| !id.is_empty()).map(MemberId::new),
        fresh: MemberId::new(format!("{name}-{}", uuid::Uuid::new_v4())),
        instance,
        client,
        timeouts: Timeouts {
            session,
            rebalance: rebalance.unwrap_or(session),
        },
        protocol_type,
        protocols,
        in_two_steps: true,
    };
    Ok((group, Request::Join(join)))
}

/// Hands in or asks for an assignment.
pub(crate) async fn sync(core: Rc<Core>, id: CorrelationId, head: SyncGroupRequestT) -> Response {
    let head = match ask(&core, read_sync(&core, head)).await {
        Ok(Answer::Synced(synced)) => SyncGroupResponseT {
            error: 0,
            message: None,
            protocol_type: Some(synced.protocol_type),
            protocol_name: Some(synced.protocol),
            assignment: Some(synced.assignment.into()),
        },
        other => {
            let refusal = refusal_of(other);
            SyncGroupResponseT {
                error: refusal.code as i16,
                message: Some(refusal.message),
                ..SyncGroupResponseT::default()
            }
        }
    };
    Response::of(reply::head(id, &head))
}

fn refusal_of(reply: Reply) -> Refusal {
    match reply {
        Ok(answer) => unexpected(&answer),
        Err(refusal) => refusal,
    }
}

fn read_sync(core: &Core, head: SyncGroupRequestT) -> Result<(GroupId, Request), Refusal> {
    let config = &core.config.groups;
    let group = group_id(head.group_id, config)?;
    let mut assignments = Vec::new();
    for assigned in head.assignments.unwrap_or_default() {
        let assignment = Bytes::from(assigned.assignment.unwrap_or_default());
        check_metadata("an assignment", assignment.len(), config)?;
        assignments.push((MemberId::new(assigned.member_id.unwrap_or_default()), assignment));
    }
    let sync = Sync {
        who: identity(head.generation, head.member_id, head.instance_id),
        protocol_type: head.protocol_type.filter(|name| !name.is_empty()),
        protocol: head.protocol_name.filter(|name| !name.is_empty()),
        assignments,
    };
    Ok((group, Request::Sync(sync)))
}

/// A member is alive.
pub(crate) async fn heartbeat(core: Rc<Core>, id: CorrelationId, head: HeartbeatRequestT) -> Response {
    let who = identity(head.generation, head.member_id, head.instance_id);
    let call = group_id(head.group_id, &core.config.groups).map(|group| (group, Request::Heartbeat(who)));
    let head = match ask(&core, call).await {
        Ok(Answer::Alive) => HeartbeatResponseT::default(),
        other => {
            let refusal = refusal_of(other);
            HeartbeatResponseT {
                error: refusal.code as i16,
                message: Some(refusal.message),
            }
        }
    };
    Response::of(reply::head(id, &head))
}

/// Members leave.
pub(crate) async fn leave(core: Rc<Core>, id: CorrelationId, head: LeaveGroupRequestT) -> Response {
    let members = head.members.unwrap_or_default().into_iter().map(|member| {
        let instance = member.instance_id.filter(|id| !id.is_empty()).map(InstanceId::new);
        (MemberId::new(member.member_id.unwrap_or_default()), instance)
    });
    let request = Request::Leave(members.collect());
    let call = group_id(head.group_id, &core.config.groups).map(|group| (group, request));
    let head = match ask(&core, call).await {
        Ok(Answer::Left(codes)) => LeaveGroupResponseT {
            error: 0,
            message: None,
            members: Some(codes.into_iter().map(|code| code as i16).collect()),
        },
        other => {
            let refusal = refusal_of(other);
            LeaveGroupResponseT {
                error: refusal.code as i16,
                message: Some(refusal.message),
                members: None,
            }
        }
    };
    Response::of(reply::head(id, &head))
}
