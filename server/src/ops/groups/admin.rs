//! Requests about groups as a whole: which core runs one, and which there are.

use std::sync::Arc;

use futures::future::join_all;
use headwater_protocol::{error::ErrorCode, id::CoreId};

use super::group_id;
use crate::{
    coordinator::{internal, service},
    core::{Core, mesh::CoreMessage},
    model::{
        bounds::{self, AnswerSize},
        group::{GroupId, Listed, Wanted},
        op::{GroupPlace, Outcome},
        refusal::Refusal,
    },
};

/// Which core runs a group. Makes the internal topic if there is none yet.
pub(crate) async fn find(core: &Core, group: String) -> Result<Outcome, Refusal> {
    let group = group_id(group, &core.config.groups)?;
    let owner = owner_of(core, &group).await?;
    Ok(Outcome::GroupFound(GroupPlace {
        broker: core.config.broker.id,
        host: core.addresses.host.clone(),
        core_port: core.addresses.core_ports[usize::from(owner.get())],
    }))
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
pub(crate) async fn list(core: &Core, states: Option<Vec<String>>) -> Result<Outcome, Refusal> {
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
    Ok(Outcome::Groups(groups))
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
