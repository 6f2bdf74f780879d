//! Brokers and replicas: what the cluster knows of them, and what operators have it agree on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, PartitionIndex},
};

use super::{Ops, topics};
use crate::{
    cluster::{
        QuorumHandle,
        replicas::{self, Election, Features, Levels, ReplicaCommand},
    },
    image::{Assignment, Broker, ClusterImage, PartitionId},
    model::{
        op::{BrokerPlace, Outcome, TopicPartitions},
        refusal::Refusal,
        replicas::{BrokerList, ListedBroker, NamedPartition, PartitionMove, RefusedPartition, ReplicaCounts},
    },
};

/// Partitions of one order: what has become of it names those that were refused, with a reason each.
const PARTITIONS_PER_ORDER: usize = 100;

/// All brokers. One that is alone is the only one, and has everything.
pub(super) fn list(ops: &Ops, quorum: &QuorumHandle) -> BrokerList {
    let replicas = quorum.replicas();
    let features = replicas.features();
    let list = match ops.partitions.assignment() {
        Some(assignment) => listed(&assignment, features),
        None => alone(ops),
    };
    BrokerList {
        feature_level: features.finalised(),
        ..list
    }
}

fn alone(ops: &Ops) -> BrokerList {
    let partitions = ops.partitions.image().partition_count() as usize;
    let addresses = &ops.addresses;
    let broker = ListedBroker {
        place: BrokerPlace {
            broker: ops.core.config.broker.id,
            host: addresses.host.clone(),
            port: addresses.port,
            core_ports: addresses.core_ports.clone(),
        },
        rack: None,
        incarnation: 0,
        is_fenced: false,
        is_cordoned: false,
        counts: ReplicaCounts {
            replicas: partitions,
            in_sync: partitions,
            leads: partitions,
            preferred: partitions,
        },
        feature_levels: Levels::OWN.into(),
    };
    BrokerList {
        brokers: vec![broker],
        partitions,
        ..BrokerList::default()
    }
}

fn listed(assignment: &Assignment, features: &Features) -> BrokerList {
    let mut counts: BTreeMap<BrokerId, ReplicaCounts> = BTreeMap::new();
    let mut list = BrokerList {
        partitions: assignment.placements.iter().count(),
        ..BrokerList::default()
    };
    for (_, replicas) in assignment.placements.iter() {
        for broker in &replicas.replicas {
            let counts = counts.entry(*broker).or_default();
            counts.replicas += 1;
            counts.in_sync += usize::from(replicas.is_in_sync(*broker));
            counts.leads += usize::from(replicas.leader == Some(*broker));
            counts.preferred += usize::from(replicas.replicas.first() == Some(broker));
        }
        list.leaderless += usize::from(replicas.leader.is_none());
        list.under_min_isr += usize::from(!replicas.has_quorum());
        list.under_replicated += usize::from(replicas.isr.len() < replicas.replicas.len());
    }
    let broker = |(id, broker): (&BrokerId, &Arc<Broker>)| ListedBroker {
        place: topics::place(broker),
        rack: broker.rack.clone(),
        incarnation: broker.incarnation.get(),
        is_fenced: broker.is_fenced,
        is_cordoned: broker.is_cordoned,
        counts: counts.get(id).copied().unwrap_or_default(),
        feature_levels: features.supported(*id).into(),
    };
    list.brokers = assignment.brokers.iter().map(broker).collect();
    list
}

pub(super) async fn cordon(quorum: &QuorumHandle, id: BrokerId, is_cordoned: bool) -> Result<Outcome, Refusal> {
    let cordoned = quorum.change_replicas(ReplicaCommand::Cordon { id, is_cordoned }).await;
    cordoned.map(|()| Outcome::BrokerCordoned)
}

pub(super) async fn forget(quorum: &QuorumHandle, id: BrokerId) -> Result<Outcome, Refusal> {
    let forgotten = quorum.change_replicas(ReplicaCommand::Forget { id }).await;
    forgotten.map(|()| Outcome::BrokerForgotten)
}

pub(super) async fn finalise(quorum: &QuorumHandle, level: u16) -> Result<Outcome, Refusal> {
    let finalised = quorum.change_replicas(ReplicaCommand::Finalise { level }).await;
    finalised.map(|()| Outcome::FeaturesFinalised)
}

/// Has the replicas of a broker moved to others, and keeps it from getting new ones.
pub(super) async fn drain(quorum: &QuorumHandle, id: BrokerId) -> Result<Outcome, Refusal> {
    cordon(quorum, id, true).await?;
    let moves = replicas::without(id, &quorum.replicas()).map_err(|error| Refusal::because(error.code(), &error))?;
    let count = moves.len();
    let image = quorum.image();
    let moves = moves.into_iter().map(|(partition, to)| (partition, Some(to)));
    let mut refused = move_partitions(quorum, &image, moves.collect()).await?;
    match refused.pop() {
        Some(refused) => Err(refused.why),
        None => Ok(Outcome::BrokerDrains(count)),
    }
}

/// Has the preferred leaders lead, or one that may lack records.
pub(super) async fn elect(
    quorum: &QuorumHandle,
    topics: Option<Vec<TopicPartitions>>,
    unclean: Option<BrokerId>,
) -> Result<Outcome, Refusal> {
    let image = quorum.image();
    let (partitions, mut refused) = match (topics, unclean) {
        (Some(topics), _) => named(&image, topics.iter().flat_map(names)),
        (None, None) => {
            let map = quorum.replicas();
            let elsewhere = map
                .partitions()
                .filter(|(_, replicas)| replicas.leader != replicas.replicas.first().copied());
            (elsewhere.map(|(id, _)| id).collect(), Vec::new())
        }
        (None, Some(_)) => {
            let message = "an unclean election may lose records: name the partitions that it is for";
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
    };
    let how = unclean.map_or(Election::Preferred, Election::Unclean);
    for partitions in partitions.chunks(PARTITIONS_PER_ORDER) {
        let partitions = partitions.to_vec();
        let order = ReplicaCommand::Elect { partitions, how };
        refused.extend(refusals(&image, quorum.change_partitions(order).await?));
    }
    Ok(Outcome::LeadersElected(refused))
}

/// Has partitions moved to other brokers, or stay where they are.
pub(super) async fn reassign(quorum: &QuorumHandle, moves: Vec<PartitionMove>) -> Result<Outcome, Refusal> {
    let image = quorum.image();
    let mut known = Vec::new();
    let mut refused = Vec::new();
    for PartitionMove { partition, replicas } in moves {
        match find(&image, &partition) {
            Ok(id) => known.push((id, replicas)),
            Err(why) => refused.push(RefusedPartition { partition, why }),
        }
    }
    refused.extend(move_partitions(quorum, &image, known).await?);
    Ok(Outcome::PartitionsMove(refused))
}

async fn move_partitions(
    quorum: &QuorumHandle,
    image: &ClusterImage,
    moves: Vec<(PartitionId, Option<Vec<BrokerId>>)>,
) -> Result<Vec<RefusedPartition>, Refusal> {
    let mut refused = Vec::new();
    for moves in moves.chunks(PARTITIONS_PER_ORDER) {
        let partitions = moves.to_vec();
        let order = ReplicaCommand::Reassign { partitions };
        refused.extend(refusals(image, quorum.change_partitions(order).await?));
    }
    Ok(refused)
}

fn names(topic: &TopicPartitions) -> impl Iterator<Item = NamedPartition> {
    let named = |index: &i32| NamedPartition {
        topic: topic.topic.clone(),
        index: *index,
    };
    topic.partitions.iter().map(named)
}

/// Those that are there, once each, and what is said of the others.
fn named(
    image: &ClusterImage,
    partitions: impl Iterator<Item = NamedPartition>,
) -> (Vec<PartitionId>, Vec<RefusedPartition>) {
    let (mut known, mut refused) = (BTreeSet::new(), Vec::new());
    for partition in partitions {
        match find(image, &partition) {
            Ok(id) => drop(known.insert(id)),
            Err(why) => refused.push(RefusedPartition { partition, why }),
        }
    }
    (known.into_iter().collect(), refused)
}

fn find(image: &ClusterImage, partition: &NamedPartition) -> Result<PartitionId, Refusal> {
    let NamedPartition { topic: name, index } = partition;
    let topic = image.topic(name).zip(PartitionIndex::try_from(*index).ok());
    let topic = topic.filter(|(topic, index)| topic.has(*index));
    let id = topic.map(|(topic, index)| PartitionId { topic: topic.id, index });
    id.ok_or_else(|| {
        let message = format!("there is no partition {index} of a topic {name:?}");
        Refusal::new(ErrorCode::UnknownTopicOrPartition, message)
    })
}

fn refusals(image: &ClusterImage, refused: Vec<(PartitionId, Refusal)>) -> impl Iterator<Item = RefusedPartition> {
    refused.into_iter().map(|(id, why)| {
        let topic = image.topic_by_id(id.topic);
        let partition = NamedPartition {
            topic: topic.map_or_else(|| id.topic.to_string(), |topic| topic.name.to_string()),
            index: id.index.get(),
        };
        RefusedPartition { partition, why }
    })
}
