//! Requests about groups as a whole: which core runs one, and which there are.

use std::sync::Arc;

use futures::future::join_all;
use headwater_protocol::{error::ErrorCode, id::CoreId};

use super::group_id;
use crate::{
    coordinator::{Service, internal, service},
    core::mesh::CoreMessage,
    model::{
        bounds::{self, AnswerSize},
        group::{GroupId, Listed, Wanted},
        id::PartitionId,
        op::{GroupPlace, NewTopic, Outcome},
        refusal::Refusal,
    },
    ops::{Ops, nodes},
};

/// Which core runs a group. Makes the internal topic if there is none yet.
pub(crate) async fn find(ops: &Ops, group: String) -> Result<Outcome, Refusal> {
    let group = group_id(group, &ops.core.config.groups)?;
    let place = place_of(ops, &group).await?;
    found(ops, place)
}

/// Which core has what lies in this partition of an internal topic.
pub(in crate::ops) fn found(ops: &Ops, place: PartitionId) -> Result<Outcome, Refusal> {
    let core = &ops.core;
    let Some(assignment) = ops.partitions.assignment() else {
        let owner = place.owner(core.mesh.len());
        return Ok(Outcome::GroupFound(GroupPlace {
            broker: core.config.broker.id,
            host: ops.addresses.host.clone(),
            core_port: ops.addresses.core_ports[usize::from(owner.get())],
            node: nodes::node(ops, core.config.broker.id, owner),
        }));
    };
    let Some((broker, owner)) = assignment.leader_of(place) else {
        let message = "nobody leads the partition that it belongs to at the moment: ask again";
        return Err(Refusal::new(ErrorCode::CoordinatorNotAvailable, message));
    };
    Ok(Outcome::GroupFound(GroupPlace {
        broker: broker.id,
        host: broker.address.host.clone(),
        core_port: broker.address.core_ports[usize::from(owner.get())],
        node: nodes::node(ops, broker.id, owner),
    }))
}

/// The partition that a group belongs to.
async fn place_of(ops: &Ops, group: &GroupId) -> Result<PartitionId, Refusal> {
    if service::place_of(&ops.partitions.image(), group).is_err() {
        make_topic(ops, internal::new_topic(&ops.core.config)).await?;
    }
    service::place_of(&ops.partitions.image(), group)
        .map_err(|refusal| Refusal::new(ErrorCode::CoordinatorNotAvailable, refusal.message))
}

/// Makes an internal topic.
pub(in crate::ops) async fn make_topic(ops: &Ops, new: NewTopic) -> Result<(), Refusal> {
    let name = new.name.clone();
    let made = ops.control.create_topic(new, false).await;
    // Another may have been first.
    match made {
        Err(refusal) if refusal.code != ErrorCode::TopicAlreadyExists => {
            let message = format!("{name} cannot be made: {}", refusal.message);
            Err(Refusal::new(ErrorCode::CoordinatorNotAvailable, message))
        }
        Err(_) | Ok(_) => Ok(()),
    }
}

/// The groups of all cores, or of this one alone.
pub(crate) async fn list(groups: &Service, states: Option<Vec<String>>, is_own: bool) -> Result<Outcome, Refusal> {
    bounds::check_items("states", states.as_ref().map_or(0, Vec::len))?;
    let wanted = Wanted(states.map(Arc::from));
    let core = &groups.core;
    let asked = core.mesh.ids().filter(|id| !is_own || *id == core.id);
    let lists = join_all(asked.map(|owner| list_on(groups, owner, wanted.clone()))).await;
    let (mut found, mut size) = (Vec::new(), AnswerSize::default());
    for list in lists {
        for group in list? {
            group.count(&mut size)?;
            found.push(group);
        }
    }
    found.sort_by(|one, other| one.group.cmp(&other.group));
    Ok(Outcome::Groups(found))
}

async fn list_on(groups: &Service, owner: CoreId, wanted: Wanted) -> Result<Vec<Listed>, Refusal> {
    if owner == groups.core.id {
        return groups.list(&wanted);
    }
    let asked = groups
        .core
        .mesh
        .ask(owner, |reply| CoreMessage::ListGroups { wanted, reply })
        .await;
    asked.unwrap_or_else(|| Err(Refusal::stopping()))
}
