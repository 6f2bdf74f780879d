//! Topics: answered from the cluster image, or passed on to the control plane.

use std::sync::Arc;

use futures::future::join_all;
use headwater_protocol::{
    error::ErrorCode,
    id::{LeaderEpoch, TopicId},
    topic::TopicName,
};

use super::Ops;
use crate::{
    cluster::ControlHandle,
    core::{Core, mesh::CoreMessage},
    image::{
        Assignment, Broker, Topic, TopicState,
        settings::{self, TopicSettings},
    },
    model::{
        id::PartitionId,
        internal,
        op::{
            BrokerPlace, Leader, LogDescription, Metadata, NewTopic, Outcome, PartitionDescription, TopicAlteration,
            TopicDescription, TopicMetadata, TopicPlaces, TopicSetting,
        },
        refusal::Refusal,
        replicas::ReplicasDescription,
    },
    partition::Partitions,
};

/// Epoch of every leader of a broker that is alone: it is elected once.
pub(super) const LEADER_EPOCH: LeaderEpoch = LeaderEpoch::new(0);

/// Where the named topics are, or all of them.
pub(super) fn metadata(ops: &Ops, names: Option<Vec<String>>) -> Metadata {
    let Ops {
        partitions, addresses, ..
    } = ops;
    let image = partitions.image();
    let ready = |topic: &&Arc<Topic>| topic.state == TopicState::Ready;
    let topics = match names {
        None => image
            .topics()
            .filter(ready)
            .map(|topic| places(partitions, topic))
            .collect(),
        Some(names) => names
            .into_iter()
            .map(|name| match image.topic(&name).filter(ready) {
                Some(topic) => places(partitions, topic),
                None => unknown(name),
            })
            .collect(),
    };
    let alone = || BrokerPlace {
        broker: partitions.core.config.broker.id,
        host: addresses.host.clone(),
        port: addresses.port,
        core_ports: addresses.core_ports.clone(),
    };
    let brokers = match partitions.assignment() {
        Some(assignment) => assignment
            .brokers
            .values()
            .filter(|broker| !broker.is_fenced)
            .map(place)
            .collect(),
        None => vec![alone()],
    };
    Metadata { brokers, topics }
}

pub(super) fn place(broker: &Arc<Broker>) -> BrokerPlace {
    BrokerPlace {
        broker: broker.id,
        host: broker.address.host.clone(),
        port: broker.address.port,
        core_ports: broker.address.core_ports.clone(),
    }
}

fn unknown(name: String) -> TopicMetadata {
    let error = match TopicName::new(&name) {
        Ok(_) => ErrorCode::UnknownTopicOrPartition,
        Err(_invalid) => ErrorCode::InvalidTopicException,
    };
    TopicMetadata {
        name,
        topic: Err(error),
    }
}

fn places(partitions: &Partitions, topic: &Arc<Topic>) -> TopicMetadata {
    let assignment = partitions.assignment();
    let leader = |index| {
        let id = PartitionId { topic: topic.id, index };
        leader(&partitions.core, assignment.as_deref(), id)
    };
    let settings = TopicSettings::in_force(&topic.overrides, &partitions.core.config);
    TopicMetadata {
        name: topic.name.to_string(),
        topic: Ok(TopicPlaces {
            id: topic.id,
            leaders: topic.partitions().map(leader).collect(),
            batch_size_max: settings.batch_size_bytes_max.bytes(),
        }),
    }
}

fn leader(core: &Core, assignment: Option<&Assignment>, id: PartitionId) -> Leader {
    let Some(assignment) = assignment else {
        return Leader {
            partition: id.index,
            epoch: LEADER_EPOCH,
            place: Some((core.config.broker.id, id.owner(core.mesh.len()))),
        };
    };
    let replicas = assignment.placements.get(id);
    Leader {
        partition: id.index,
        epoch: replicas.map_or(LeaderEpoch::NONE, |replicas| replicas.leader_epoch),
        place: assignment.leader_of(id).map(|(broker, core)| (broker.id, core)),
    }
}

pub(super) fn replicas(core: &Core, assignment: Option<&Assignment>, id: PartitionId) -> ReplicasDescription {
    let Some(assignment) = assignment else {
        let own = vec![core.config.broker.id];
        return ReplicasDescription {
            replicas: own.clone(),
            isr: own,
            min_isr: 1,
            ..ReplicasDescription::default()
        };
    };
    let Some(replicas) = assignment.placements.get(id).cloned() else {
        return ReplicasDescription::default();
    };
    ReplicasDescription {
        replicas: replicas.replicas,
        isr: replicas.isr,
        elr: replicas.elr,
        offline: replicas.offline,
        adding: replicas.adding,
        removing: replicas.removing,
        partition_epoch: replicas.epoch.get(),
        min_isr: replicas.terms.min_isr,
    }
}

/// Creates a topic, or only says if it could be.
pub(super) async fn create(control: &ControlHandle, new: NewTopic, validate_only: bool) -> Result<Outcome, Refusal> {
    check_not_internal(&new.name)?;
    let topic = control.create_topic(new, validate_only).await?;
    Ok(Outcome::TopicCreated {
        id: topic.id,
        partitions: topic.partition_count,
    })
}

fn check_not_internal(topic: &str) -> Result<(), Refusal> {
    if internal::is_internal(topic) {
        let message = format!("the topic {topic} belongs to the broker");
        return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
    }
    Ok(())
}

/// Alters a topic, or only says if it could be.
pub(super) async fn alter(
    control: &ControlHandle,
    alteration: TopicAlteration,
    validate_only: bool,
) -> Result<Outcome, Refusal> {
    check_not_internal(&alteration.name)?;
    let topic = control.alter_topic(alteration, validate_only).await?;
    Ok(Outcome::TopicAltered {
        partitions: topic.partition_count,
    })
}

/// Deletes a topic and its records; `only`: if it is this one.
pub(super) async fn delete(control: &ControlHandle, name: String, only: Option<TopicId>) -> Result<Outcome, Refusal> {
    check_not_internal(&name)?;
    control.delete_topic(name, only).await?;
    Ok(Outcome::TopicDeleted)
}

/// Everything about one topic.
pub(super) async fn describe(partitions: &Partitions, name: &str) -> Result<Outcome, Refusal> {
    let core = &partitions.core;
    let image = partitions.image();
    let topic = image.topic(name).filter(|topic| topic.state == TopicState::Ready);
    let topic = topic.ok_or_else(|| {
        let message = format!("there is no topic {name:?}");
        Refusal::new(ErrorCode::UnknownTopicOrPartition, message)
    })?;
    let ids = topic.partitions().map(|index| PartitionId { topic: topic.id, index });
    let parts = core.mesh.by_owner(ids.collect(), |id| *id);
    let answers = parts.into_iter().map(|(owner, ids)| async move {
        if owner == core.id {
            return describe_here(partitions, &ids);
        }
        let asked = core.mesh.ask(owner, |reply| CoreMessage::Describe { ids, reply });
        asked.await.unwrap_or_default()
    });
    let mut described: Vec<PartitionDescription> = join_all(answers).await.into_iter().flatten().collect();
    described.sort_by_key(|partition| partition.leader.partition);
    let min_isr = described.first().map_or(1, |partition| partition.replicas.min_isr);
    let setting = |setting: settings::Described| TopicSetting {
        name: setting.name.to_owned(),
        value: setting.value,
        own: setting.own,
    };
    Ok(Outcome::Topic(TopicDescription {
        name: topic.name.to_string(),
        id: topic.id,
        configs: settings::described(&topic.overrides, &core.config, min_isr)
            .into_iter()
            .map(setting)
            .collect(),
        partitions: described,
    }))
}

/// Describes partitions of this core.
pub(crate) fn describe_here(partitions: &Partitions, ids: &[PartitionId]) -> Vec<PartitionDescription> {
    let assignment = partitions.assignment();
    let describe = |id: &PartitionId| {
        let log = partitions.get(*id).map(|partition| {
            let offsets = partition.log.offsets();
            let (segments, size_bytes) = partition.log.size();
            LogDescription {
                start: offsets.start,
                high_watermark: offsets.high_watermark,
                end: offsets.end,
                segments,
                size_bytes,
            }
        });
        PartitionDescription {
            id: *id,
            leader: leader(&partitions.core, assignment.as_deref(), *id),
            replicas: replicas(&partitions.core, assignment.as_deref(), *id),
            log: log.map_err(|refusal| refusal.code),
        }
    };
    ids.iter().map(describe).collect()
}
