//! Requests about groups as a whole: find, list, describe, delete.

use std::{rc::Rc, sync::Arc};

use futures::future::join_all;
use headwater_protocol::{
    error::ErrorCode,
    id::{CoreId, CorrelationId},
    schema::{
        DeleteGroupResponseT, DescribeGroupResponseT, DescribedMemberT, FindGroupResponseT, ListGroupsRequestT,
        ListGroupsResponseT, ListedGroupT,
    },
};

use super::{Answer, GroupId, Request, ask, group_id, refusal_of};
use crate::{
    coordinator::{internal, service},
    core::{Core, mesh::CoreMessage},
    model::{
        bounds::{self, AnswerSize},
        group::{DescribedMember, Listed, Wanted},
        refusal::Refusal,
    },
    session::{native::reply, outbox::Response},
};

/// Which core runs a group. Makes the internal topic if there is none yet.
pub(crate) async fn find_group(core: Rc<Core>, id: CorrelationId, group: Option<String>) -> Response {
    let owner = match group_id(group, &core.config.groups) {
        Ok(group) => owner_of(&core, &group).await,
        Err(refusal) => Err(refusal),
    };
    let head = match owner {
        Ok(owner) => FindGroupResponseT {
            error: 0,
            message: None,
            broker_id: core.config.broker.id.get(),
            host: Some(core.addresses.host.clone()),
            core_port: core.addresses.core_ports[usize::from(owner.get())],
        },
        Err(refusal) => FindGroupResponseT {
            error: refusal.code as i16,
            message: Some(refusal.message),
            ..FindGroupResponseT::default()
        },
    };
    Response::of(reply::head(id, &head))
}

async fn owner_of(core: &Core, group: &GroupId) -> Result<CoreId, Refusal> {
    if service::place_of(&core.image(), group).is_err() {
        let made = core
            .control
            .create_topic(internal::new_topic(&core.config), false)
            .await;
        // Another group may have been first.
        if let Err(refusal) = made
            && refusal.code != ErrorCode::TopicAlreadyExists
        {
            let message = format!("{} cannot be made: {}", internal::OFFSETS_TOPIC, refusal.message);
            return Err(Refusal::new(ErrorCode::CoordinatorNotAvailable, message));
        }
    }
    let place = service::place_of(&core.image(), group)
        .map_err(|refusal| Refusal::new(ErrorCode::CoordinatorNotAvailable, refusal.message))?;
    Ok(place.owner(core.mesh.len()))
}

/// The groups of all cores.
pub(crate) async fn list_groups(core: Rc<Core>, id: CorrelationId, head: ListGroupsRequestT) -> Response {
    let head = match list_on_all(&core, head.states).await {
        Ok(groups) => ListGroupsResponseT {
            error: 0,
            message: None,
            groups: Some(groups.into_iter().map(listed_group).collect()),
        },
        Err(refusal) => ListGroupsResponseT {
            error: refusal.code as i16,
            message: Some(refusal.message),
            groups: None,
        },
    };
    Response::of(reply::head(id, &head))
}

async fn list_on_all(core: &Core, states: Option<Vec<String>>) -> Result<Vec<Listed>, Refusal> {
    bounds::check_items("states", states.as_ref().map_or(0, Vec::len))?;
    let wanted = Wanted(states.map(Arc::from));
    let lists = join_all(core.mesh.ids().map(|owner| list_on(core, owner, wanted.clone()))).await;
    let (mut groups, mut size) = (Vec::new(), AnswerSize::default());
    for list in lists {
        for group in list? {
            group.count(&mut size)?;
            groups.push(group);
        }
    }
    groups.sort_by(|one, other| one.group.cmp(&other.group));
    Ok(groups)
}

async fn list_on(core: &Core, owner: CoreId, wanted: Wanted) -> Result<Vec<Listed>, Refusal> {
    if owner == core.id {
        return core.groups.list(&wanted);
    }
    let asked = core
        .mesh
        .ask(owner, |reply| CoreMessage::ListGroups { wanted, reply })
        .await;
    asked.unwrap_or_else(|| Err(Refusal::stopping()))
}

fn listed_group(listed: Listed) -> ListedGroupT {
    ListedGroupT {
        group_id: Some(listed.group.to_string()),
        protocol_type: Some(listed.protocol_type),
        state: Some(listed.state.to_owned()),
        members: listed.members as u32,
    }
}

/// State and members of a group.
pub(crate) async fn describe_group(core: Rc<Core>, id: CorrelationId, group: Option<String>) -> Response {
    let call = group_id(group, &core.config.groups).map(|group| (group, Request::Describe));
    let head = match ask(&core, call).await {
        Ok(Answer::Described(described)) => DescribeGroupResponseT {
            error: 0,
            message: None,
            state: Some(described.state.to_owned()),
            protocol_type: Some(described.protocol_type),
            protocol_name: Some(described.protocol),
            generation: described.generation.get(),
            members: Some(described.members.into_iter().map(described_member).collect()),
        },
        other => {
            let refusal = refusal_of(other);
            DescribeGroupResponseT {
                error: refusal.code as i16,
                message: Some(refusal.message),
                ..DescribeGroupResponseT::default()
            }
        }
    };
    Response::of(reply::head(id, &head))
}

fn described_member(member: DescribedMember) -> DescribedMemberT {
    DescribedMemberT {
        member_id: Some(member.id.to_string()),
        instance_id: member.instance.map(|instance| instance.to_string()),
        client_id: Some(member.client.id),
        client_host: Some(member.client.host),
        metadata: Some(member.metadata.into()),
        assignment: Some(member.assignment.into()),
    }
}

/// Deletes an empty group.
pub(crate) async fn delete_group(core: Rc<Core>, id: CorrelationId, group: Option<String>) -> Response {
    let call = group_id(group, &core.config.groups).map(|group| (group, Request::Delete));
    let head = match ask(&core, call).await {
        Ok(Answer::Deleted) => DeleteGroupResponseT::default(),
        other => {
            let refusal = refusal_of(other);
            DeleteGroupResponseT {
                error: refusal.code as i16,
                message: Some(refusal.message),
            }
        }
    };
    Response::of(reply::head(id, &head))
}
