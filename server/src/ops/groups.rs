//! Requests about groups, before a group sees them: names and sizes are held to the limits of the configuration. Membership is here.

mod admin;
mod offsets;

pub(super) use admin::{find, found, list, make_topic};
pub(super) use offsets::{fetch, forget};

use std::rc::Rc;

use headwater_protocol::error::ErrorCode;

use crate::{
    config::GroupsSection,
    coordinator::{Service, service},
    machine,
    model::{
        consumer::ConsumerHeartbeat,
        group::{Client, GroupId, InstanceId, Join, MemberId, Request},
        op::{Joining, Outcome},
        refusal::Refusal,
    },
};

/// Reads the name of a group.
fn group_id(id: String, config: &GroupsSection) -> Result<GroupId, Refusal> {
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

/// Asks a group what it is to be asked as it is.
pub(super) async fn ask(groups: &Rc<Service>, group: String, request: Request) -> Result<Outcome, Refusal> {
    let group = group_id(group, &groups.config)?;
    if let Request::Sync(sync) = &request {
        for (_, assignment) in &sync.assignments {
            check_metadata("an assignment", assignment.len(), &groups.config)?;
        }
    }
    if let Request::ConsumerHeartbeat(beat) = &request {
        check_heartbeat(beat, &groups.config)?;
    }
    service::call(groups, group, request).await.map(Outcome::Group)
}

fn check_heartbeat(beat: &ConsumerHeartbeat, config: &GroupsSection) -> Result<(), Refusal> {
    check_id("member id", beat.member.as_str(), config)?;
    check_id(
        "instance id",
        beat.instance.as_ref().map_or("", InstanceId::as_str),
        config,
    )?;
    check_id("rack id", beat.rack.as_deref().unwrap_or_default(), config)?;
    let names = beat.topics.iter().flatten().map(String::len);
    let pattern = beat.pattern.as_ref().map_or(0, String::len);
    check_metadata("a subscription", names.sum::<usize>() + pattern, config)
}

/// Becomes or stays a member.
pub(super) async fn join(groups: &Rc<Service>, client: &Client, group: String, joining: Joining) -> Outcome {
    let known = joining.member.as_ref().map(MemberId::to_string);
    let joined = match check_joining(&joining, group, &groups.config) {
        Ok(group) => service::call(groups, group, Request::Join(newcomer(client, joining))).await,
        Err(refusal) => Err(refusal),
    };
    joined.map_or_else(|refusal| Outcome::NotJoined(refusal, known), Outcome::Group)
}

fn check_joining(joining: &Joining, group: String, config: &GroupsSection) -> Result<GroupId, Refusal> {
    let group = group_id(group, config)?;
    if let Some(instance) = &joining.instance {
        if instance.as_str().is_empty() {
            return Err(Refusal::new(ErrorCode::InvalidRequest, "the instance id is empty"));
        }
        check_id("instance id", instance.as_str(), config)?;
    }
    check_id("protocol type", &joining.protocol_type, config)?;
    let mut size = 0;
    for protocol in &joining.protocols {
        check_id("protocol name", &protocol.name, config)?;
        size += protocol.name.len() + protocol.metadata.len();
        check_metadata("protocols", size, config)?;
    }
    Ok(group)
}

fn newcomer(client: &Client, joining: Joining) -> Join {
    let name = joining.instance.as_ref().map_or(client.id.as_str(), InstanceId::as_str);
    Join {
        fresh: MemberId::new(format!("{name}-{}", machine::uuid())),
        member: joining.member,
        instance: joining.instance,
        client: client.clone(),
        timeouts: joining.timeouts,
        protocol_type: joining.protocol_type,
        protocols: joining.protocols,
        in_two_steps: joining.in_two_steps,
    }
}
