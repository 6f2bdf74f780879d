//! Groups as a whole: where they are, which there are, what they are like.

use headwater_kafka::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, ListGroupsRequest, ListGroupsResponse,
    delete_groups_response::DeletableGroupResult,
    describe_groups_response::{DescribedGroup, DescribedGroupMember},
    find_coordinator_response::Coordinator,
    list_groups_response::ListedGroup,
};
use headwater_protocol::error::ErrorCode;

use super::asking::Asking;
use crate::model::{
    access::ResourceKind,
    group::{Answer, DescribedMember, Description, Kind, Request},
    nodes::Node,
    op::{Op, Outcome},
    refusal::Refusal,
};

/// What a key is that a coordinator is asked for.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// From this version on several coordinators are asked for.
const SEVERAL_FROM: i16 = 4;

/// From this version on a group that is not there is an error.
const UNKNOWN_IS_ERROR_FROM: i16 = 6;

pub(super) async fn find<'a>(asking: &Asking, request: FindCoordinatorRequest<'a>) -> FindCoordinatorResponse<'a> {
    if asking.version >= SEVERAL_FROM {
        let mut coordinators = Vec::new();
        for key in request.coordinator_keys {
            let found = find_one(asking, request.key_type, &key).await;
            asking.adds(size_of::<Coordinator<'_>>() + key.len() + found.0.host.len() + found.2.len());
            coordinators.push(Coordinator {
                key,
                error_code: asking.tells(found.1),
                error_message: Some(found.2.into()),
                node_id: found.0.id,
                host: found.0.host.into(),
                port: found.0.port,
            });
        }
        return FindCoordinatorResponse {
            coordinators,
            ..FindCoordinatorResponse::default()
        };
    }
    let (place, code, message) = find_one(asking, request.key_type, &request.key).await;
    FindCoordinatorResponse {
        error_code: asking.tells(code),
        error_message: Some(if code.is_none() { "NONE".into() } else { message.into() }),
        node_id: place.id,
        host: place.host.into(),
        port: place.port,
        ..FindCoordinatorResponse::default()
    }
}

/// Where a coordinator is; nowhere is -1.
struct Place {
    id: i32,
    host: String,
    port: i32,
}

async fn find_one(asking: &Asking, kind: i8, key: &str) -> (Place, ErrorCode, String) {
    let nowhere = |refusal: Refusal| {
        let place = Place {
            id: -1,
            host: String::new(),
            port: -1,
        };
        (place, refusal.code, refusal.message)
    };
    if let Err(code) = asking.part().await {
        return nowhere(Refusal::new(code, "too much is asked for at once"));
    }
    let asked = match kind {
        GROUP => asking.perform(Op::FindGroup(key.to_owned())).await,
        TRANSACTION => asking.perform(Op::FindTransaction(key.to_owned())).await,
        other => {
            let message = format!("there are no coordinators of type {other}");
            Err(Refusal::new(ErrorCode::InvalidRequest, message))
        }
    };
    match asked {
        Ok(Outcome::GroupFound(found)) => match found.node {
            Some(Node { id, host, port, .. }) => {
                let port = port.into();
                (Place { id, host, port }, ErrorCode::None, String::new())
            }
            None => nowhere(Refusal::new(
                ErrorCode::CoordinatorNotAvailable,
                "the broker that has it does not speak Kafka's protocol",
            )),
        },
        Ok(_) => nowhere(Refusal::stopping()),
        Err(refusal) => nowhere(refusal),
    }
}

pub(super) async fn list(asking: &Asking, request: ListGroupsRequest<'_>) -> ListGroupsResponse<'static> {
    let kinds = request.types_filter;
    let is_wanted =
        |kind: Kind| kinds.is_empty() || kinds.iter().any(|wanted| wanted.eq_ignore_ascii_case(kind.name()));
    let states = request.states_filter;
    let states = (!states.is_empty()).then(|| states.into_iter().map(headwater_kafka::Str::into_owned).collect());
    // Of a broker whose cores are nodes, each is asked.
    let is_own = asking.sessions.core.config.kafka.core_nodes;
    let listed = match asking.perform(Op::ListGroups(states, is_own)).await {
        Ok(Outcome::Groups(listed)) => listed,
        done => {
            let code = done.err().map_or(ErrorCode::UnknownServerError, |refusal| refusal.code);
            return ListGroupsResponse {
                error_code: asking.tells(code),
                ..ListGroupsResponse::default()
            };
        }
    };
    let group = |listed: crate::model::group::Listed| ListedGroup {
        group_id: listed.group.to_string().into(),
        protocol_type: listed.protocol_type.into(),
        group_state: listed.state.into(),
        group_type: listed.kind.name().into(),
    };
    ListGroupsResponse {
        groups: listed
            .into_iter()
            .filter(|listed| is_wanted(listed.kind))
            .map(group)
            .collect(),
        ..ListGroupsResponse::default()
    }
}

pub(super) async fn describe<'a>(asking: &Asking, request: DescribeGroupsRequest<'a>) -> DescribeGroupsResponse<'a> {
    let mut response = DescribeGroupsResponse::default();
    for group in request.groups {
        let asked = match asking.part().await {
            Ok(()) => {
                let asked = Op::Group(group.clone().into_owned(), Request::Describe);
                asking.perform(asked).await
            }
            Err(code) => Err(Refusal::new(code, "too much is asked for at once")),
        };
        let told = match asked {
            Ok(Outcome::Group(Answer::Described(described))) if described.kind != Kind::Classic => {
                nobody(asking, format!("Group {group} is not a classic group."))
            }
            Ok(Outcome::Group(Answer::Described(described))) => DescribedGroup {
                authorized_operations: asking
                    .operations(request.include_authorized_operations, (ResourceKind::Group, &group)),
                ..description(described)
            },
            Err(refusal) if refusal.code == ErrorCode::GroupIdNotFound => {
                nobody(asking, format!("Group {group} not found."))
            }
            done => {
                let code = done.err().map_or(ErrorCode::UnknownServerError, |refusal| refusal.code);
                DescribedGroup {
                    error_code: asking.tells(code),
                    ..DescribedGroup::default()
                }
            }
        };
        asking.adds(size_of_group(&told) + group.len());
        response.groups.push(DescribedGroup {
            group_id: group,
            ..told
        });
    }
    response
}

/// What the answer for one group takes, about, in bytes.
fn size_of_group(told: &DescribedGroup<'_>) -> usize {
    let members = told.members.iter().map(|member| {
        let names = member.member_id.len() + member.client_id.len() + member.client_host.len();
        size_of_val(member) + names + member.member_metadata.len() + member.member_assignment.len()
    });
    let message = told.error_message.as_deref().unwrap_or_default();
    size_of_val(told) + message.len() + members.sum::<usize>()
}

/// A group that is not there, or not one of this protocol.
fn nobody(asking: &Asking, why: String) -> DescribedGroup<'static> {
    let dead = DescribedGroup {
        group_state: "Dead".into(),
        ..DescribedGroup::default()
    };
    if asking.version < UNKNOWN_IS_ERROR_FROM {
        return dead;
    }
    DescribedGroup {
        error_code: asking.tells(ErrorCode::GroupIdNotFound),
        error_message: Some(why.into()),
        ..dead
    }
}

fn description(described: Description) -> DescribedGroup<'static> {
    let is_stable = described.state == "Stable";
    let member = |member: DescribedMember| DescribedGroupMember {
        member_id: member.id.to_string().into(),
        group_instance_id: member.instance.map(|instance| instance.to_string().into()),
        client_id: member.client.id.into(),
        client_host: format!("/{}", member.client.host).into(),
        member_metadata: Vec::from(member.metadata).into(),
        member_assignment: Vec::from(member.assignment).into(),
    };
    DescribedGroup {
        group_state: described.state.into(),
        protocol_type: described.protocol_type.into(),
        protocol_data: if is_stable {
            described.protocol.into()
        } else {
            "".into()
        },
        members: described.members.into_iter().map(member).collect(),
        ..DescribedGroup::default()
    }
}

pub(super) async fn delete<'a>(asking: &Asking, request: DeleteGroupsRequest<'a>) -> DeleteGroupsResponse<'a> {
    let mut response = DeleteGroupsResponse::default();
    for group in request.groups_names {
        let done = asking
            .perform(Op::Group(group.clone().into_owned(), Request::Delete))
            .await;
        let code = done.map_or_else(|refusal| refusal.code, |_| ErrorCode::None);
        response.results.push(DeletableGroupResult {
            group_id: group,
            error_code: asking.tells(code),
            ..DeletableGroupResult::default()
        });
    }
    response
}
