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
        internal::OFFSETS_TOPIC,
        op::{GroupPlace, Outcome},
        refusal::Refusal,
    },
    ops::Ops,
};

/// Which core runs a group. Makes the internal topic if there is none yet.
pub(crate) async fn find(ops: &Ops, group: String) -> Result<Outcome, Refusal> {
    let core = &ops.core;
    let group = group_id(group, &core.config.groups)?;
    let owner = owner_of(ops, &group).await?;
    Ok(Outcome::GroupFound(GroupPlace {
        broker: core.config.broker.id,
        host: ops.addresses.host.clone(),
        core_port: ops.addresses.core_ports[usize::from(owner.get())],
    }))
}

async fn owner_of(ops: &Ops, group: &GroupId) -> Result<CoreId, Refusal> {
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
    let place = service::place_of(&ops.partitions.image(), group)
        .map_err(|refusal| Refusal::new(ErrorCode::CoordinatorNotAvailable, refusal.message))?;
    Ok(place.owner(ops.core.mesh.len()))
}

/// The groups of all cores.
pub(crate) async fn list(groups: &Service, states: Option<Vec<String>>) -> Result<Outcome, Refusal> {
    bounds::check_items("states", states.as_ref().map_or(0, Vec::len))?;
    let wanted = Wanted(states.map(Arc::from));
    let lists = join_all(
        groups
            .core
            .mesh
            .ids()
            .map(|owner| list_on(groups, owner, wanted.clone())),
    )
    .await;
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
