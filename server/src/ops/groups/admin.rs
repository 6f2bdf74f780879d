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
        internal::OFFSETS_TOPIC,
        op::{GroupPlace, Outcome},
        refusal::Refusal,
    },
    ops::{Ops, nodes},
};

/// Which core runs a group. Makes the internal topic if there is none yet.
pub(crate) async fn find(ops: &Ops, group: String) -> Result<Outcome, Refusal> {
    let core = &ops.core;
    let group = group_id(group, &core.config.groups)?;
    let place = place_of(ops, &group).await?;
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
        let message = "nobody leads the partition that the group belongs to at the moment: ask again";
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
        let made = ops
            .control
            .create_topic(internal::new_topic(&ops.core.config), false)
            .await;
        // Another group may have been first.
        if let Err(refusal) = made
            && refusal.code != ErrorCode::TopicAlreadyExists
        {
            let message = format!("{} cannot be made: {}", OFFSETS_TOPIC, refusal.message);
            return Err(Refusal::new(ErrorCode::CoordinatorNotAvailable, message));
        }
    }
    service::place_of(&ops.partitions.image(), group)
        .map_err(|refusal| Refusal::new(ErrorCode::CoordinatorNotAvailable, refusal.message))
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
