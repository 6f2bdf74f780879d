//! Partitions move to other brokers.

use std::collections::{BTreeMap, BTreeSet};

use headwater_kafka::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
    list_partition_reassignments_response::{OngoingPartitionReassignment, OngoingTopicReassignment},
};
use headwater_protocol::{error::ErrorCode, id::BrokerId};

use super::{
    super::asking::{Asking, check_name, find_topic, partition_of},
    assigned,
};
use crate::{
    image::Replicas,
    model::{
        access::Operation,
        id::PartitionId,
        op::{Op, Outcome},
        refusal::Refusal,
        replicas::{NamedPartition, PartitionMove, RefusedPartition},
    },
    ops::nodes::Places,
};

/// From this version on a change of the number of replicas may be forbidden.
const FACTOR_FROM: i16 = 1;

/// A partition by its topic's name, and what has become of it.
type Told = BTreeMap<(String, i32), Option<Refusal>>;

pub(in crate::session::kafka) async fn alter<'a>(
    asking: &Asking,
    request: AlterPartitionReassignmentsRequest<'a>,
) -> AlterPartitionReassignmentsResponse<'a> {
    if let Err(refusal) = asking.need_cluster(Operation::Alter) {
        return AlterPartitionReassignmentsResponse {
            error_code: asking.tells(refusal.code),
            error_message: Some(refusal.message.into()),
            ..AlterPartitionReassignmentsResponse::default()
        };
    }
    let may_change = asking.version < FACTOR_FROM || request.allow_replication_factor_change;
    let mut told = Told::new();
    let mut moves = BTreeMap::new();
    for topic in request.topics.iter().filter(|topic| check_name(&topic.name).is_ok()) {
        for partition in &topic.partitions {
            if let Err(code) = asking.part().await {
                return AlterPartitionReassignmentsResponse {
                    error_code: asking.tells(code),
                    ..AlterPartitionReassignmentsResponse::default()
                };
            }
            let key = (topic.name.to_string(), partition.partition_index);
            let refusal = match wanted(asking, &key, partition.replicas.as_deref(), may_change) {
                Ok(Wanted::There) => None,
                Ok(Wanted::Back) => {
                    moves.insert(key.clone(), None);
                    None
                }
                Ok(Wanted::On(brokers)) => {
                    moves.insert(key.clone(), Some(brokers));
                    None
                }
                Err(refusal) => Some(refusal),
            };
            told.insert(key, refusal);
        }
    }
    if let Err(refusal) = move_all(asking, moves, &mut told).await {
        return AlterPartitionReassignmentsResponse {
            error_code: asking.tells(refusal.code),
            error_message: Some(refusal.message.into()),
            ..AlterPartitionReassignmentsResponse::default()
        };
    }
    let mut responses = Vec::new();
    for topic in request.topics {
        let unknown = check_name(&topic.name).err();
        let unknown = unknown.map(|code| Refusal::new(code, code.description()));
        let partition = |index: i32| {
            let refusal = unknown
                .clone()
                .or_else(|| told.get(&(topic.name.to_string(), index)).cloned().flatten());
            ReassignablePartitionResponse {
                partition_index: index,
                error_code: asking.tells(refusal.as_ref().map_or(ErrorCode::None, |refusal| refusal.code)),
                error_message: refusal.map(|refusal| refusal.message.into()),
            }
        };
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        responses.push(ReassignableTopicResponse {
            partitions: indexes.map(partition).collect(),
            name: topic.name,
        });
    }
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        responses,
        ..AlterPartitionReassignmentsResponse::default()
    }
}

/// Where a partition is to be.
enum Wanted {
    /// Where it is.
    There,
    /// Where it was before its move, which is given up.
    Back,
    /// On these brokers.
    On(Vec<BrokerId>),
}

fn wanted(
    asking: &Asking,
    (topic, index): &(String, i32),
    nodes: Option<&[i32]>,
    may_change: bool,
) -> Result<Wanted, Refusal> {
    let unknown = |message: String| Refusal::new(ErrorCode::UnknownTopicOrPartition, message);
    let image = asking.image();
    let found = find_topic(&image, topic).map_err(|_code| unknown(format!("Unable to find a topic named {topic}.")))?;
    let id =
        partition_of(found, *index).map_err(|_code| unknown(format!("Unable to find partition {topic}:{index}.")))?;
    let places = Places::of(asking.ops());
    let nothing = Refusal::new(
        ErrorCode::NoReassignmentInProgress,
        "No partition reassignment is in progress.",
    );
    let Some(nodes) = nodes else {
        return match asking.ops().partitions.assignment() {
            Some(_) => Ok(Wanted::Back),
            None => Err(nothing),
        };
    };
    let to = assigned(&places, nodes, None)?;
    let Some(assignment) = asking.ops().partitions.assignment() else {
        // A broker that is alone has everything.
        return Ok(Wanted::There);
    };
    let has = assignment
        .placements
        .get(id)
        .map_or(0, |replicas| replicas.target().count());
    if !may_change && has != to.len() {
        let message = format!("The replication factor is changed from {has} to {}", to.len());
        return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message));
    }
    Ok(Wanted::On(to))
}

/// A move takes the place of one that is under way.
async fn move_all(
    asking: &Asking,
    moves: BTreeMap<(String, i32), Option<Vec<BrokerId>>>,
    told: &mut Told,
) -> Result<(), Refusal> {
    let order = |(topic, index): &(String, i32), replicas: Option<Vec<BrokerId>>| PartitionMove {
        partition: NamedPartition {
            topic: topic.clone(),
            index: *index,
        },
        replicas,
    };
    let refused = reassign(asking, moves.iter().map(|(key, to)| order(key, to.clone())).collect()).await?;
    let mut again = BTreeSet::new();
    for RefusedPartition { partition, why } in refused {
        let key = (partition.topic, partition.index);
        let is_under_way = why.code == ErrorCode::ReassignmentInProgress;
        if is_under_way && moves.get(&key).is_some_and(Option::is_some) {
            again.insert(key);
        } else {
            told.insert(key, Some(in_kafkas_words(why)));
        }
    }
    for is_given_up in [true, false] {
        let to = |key: &(String, i32)| {
            if is_given_up {
                None
            } else {
                moves.get(key).cloned().flatten()
            }
        };
        let moves = again.iter().map(|key| order(key, to(key))).collect();
        for RefusedPartition { partition, why } in reassign(asking, moves).await? {
            // It may have come to its end meanwhile.
            if !is_given_up || why.code != ErrorCode::NoReassignmentInProgress {
                let key = (partition.topic, partition.index);
                again.remove(&key);
                told.insert(key, Some(in_kafkas_words(why)));
            }
        }
    }
    Ok(())
}

fn in_kafkas_words(why: Refusal) -> Refusal {
    match why.code {
        code @ ErrorCode::NoReassignmentInProgress => Refusal::new(code, "No partition reassignment is in progress."),
        _ => why,
    }
}

async fn reassign(asking: &Asking, moves: Vec<PartitionMove>) -> Result<Vec<RefusedPartition>, Refusal> {
    if moves.is_empty() {
        return Ok(Vec::new());
    }
    match asking.perform(Op::ReassignPartitions(moves)).await? {
        Outcome::PartitionsMove(refused) => Ok(refused),
        _ => Err(Refusal::stopping()),
    }
}

pub(in crate::session::kafka) async fn list(
    asking: &Asking,
    request: ListPartitionReassignmentsRequest<'_>,
) -> ListPartitionReassignmentsResponse<'static> {
    if let Err(refusal) = asking.need_cluster(Operation::Describe) {
        return ListPartitionReassignmentsResponse {
            error_code: asking.tells(refusal.code),
            error_message: Some(refusal.message.into()),
            ..ListPartitionReassignmentsResponse::default()
        };
    }
    let Some(assignment) = asking.ops().partitions.assignment() else {
        return ListPartitionReassignmentsResponse::default();
    };
    let image = asking.image();
    let places = Places::of(asking.ops());
    let wanted: Option<BTreeSet<PartitionId>> = request.topics.map(|topics| {
        let mut wanted = BTreeSet::new();
        for topic in topics {
            let Ok(found) = find_topic(&image, &topic.name) else {
                continue;
            };
            let indexes = topic.partition_indexes.iter();
            wanted.extend(indexes.filter_map(|index| partition_of(found, *index).ok()));
        }
        wanted
    });
    let is_moving = |replicas: &Replicas| !replicas.adding.is_empty() || !replicas.removing.is_empty();
    let mut topics: BTreeMap<String, Vec<OngoingPartitionReassignment>> = BTreeMap::new();
    for (id, replicas) in assignment.placements.iter() {
        let is_wanted = wanted.as_ref().is_none_or(|wanted| wanted.contains(&id));
        let Some(topic) = image.topic_by_id(id.topic).filter(|_| is_wanted && is_moving(replicas)) else {
            continue;
        };
        let nodes = |brokers: &[BrokerId]| brokers.iter().map(|broker| places.node_of(*broker, id)).collect();
        topics
            .entry(topic.name.to_string())
            .or_default()
            .push(OngoingPartitionReassignment {
                partition_index: id.index.get(),
                replicas: nodes(&replicas.replicas),
                adding_replicas: nodes(&replicas.adding),
                removing_replicas: nodes(&replicas.removing),
            });
    }
    let topics = topics.into_iter().map(|(name, partitions)| OngoingTopicReassignment {
        name: name.into(),
        partitions,
    });
    ListPartitionReassignmentsResponse {
        topics: topics.collect(),
        ..ListPartitionReassignmentsResponse::default()
    }
}
