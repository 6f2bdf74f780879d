//! Leaders are elected: those that are preferred, or, where nobody can lead without losing records, any that is up.

use std::collections::BTreeMap;

use headwater_kafka::messages::{
    ElectLeadersRequest, ElectLeadersResponse,
    elect_leaders_response::{PartitionResult, ReplicaElectionResult},
};
use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, PartitionIndex},
};

use super::super::asking::{Asking, check_name, find_topic, partition_of};
use crate::{
    image::{Assignment, TopicState},
    model::{
        access::Operation,
        id::PartitionId,
        op::{Op, Outcome, TopicPartitions},
        refusal::Refusal,
    },
};

/// What is elected.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// From this version on there is an error of the whole.
const TOP_LEVEL_FROM: i16 = 1;

/// What has become of each partition of each topic, in the order of their names.
type Results = BTreeMap<String, BTreeMap<i32, Option<Refusal>>>;

pub(in crate::session::kafka) async fn elect(
    asking: &Asking,
    request: ElectLeadersRequest<'_>,
) -> ElectLeadersResponse<'static> {
    let mut results = Results::new();
    let is_of_all = request.topic_partitions.is_none();
    let asked = request.topic_partitions.map_or_else(
        || all(asking),
        |topics| {
            let topics = topics.into_iter();
            topics
                .map(|topic| (topic.topic.into_owned(), topic.partitions))
                .collect()
        },
    );
    let mut error = ErrorCode::None;
    if let Err(refusal) = asking.need_cluster(Operation::Alter) {
        let told = |(topic, partitions): (String, Vec<i32>)| {
            let told = partitions.into_iter().map(|index| (index, Some(refusal.clone())));
            (topic, told.collect())
        };
        // Of all partitions nobody learns which there are.
        let results = asked.into_iter().filter(|_| !is_of_all).map(told).collect();
        return respond(asking, refusal.code, results);
    }
    if [PREFERRED, UNCLEAN].contains(&request.election_type) {
        let is_unclean = request.election_type == UNCLEAN;
        let mut to_elect: BTreeMap<Option<BrokerId>, Vec<TopicPartitions>> = BTreeMap::new();
        for (topic, partitions) in asked {
            let told = results.entry(topic.clone()).or_default();
            for index in partitions {
                let candidate = match asking.part().await {
                    Ok(()) => candidate(asking, (&topic, index), is_unclean),
                    Err(code) => Err(in_kafkas_words(code)),
                };
                let refusal = match candidate {
                    Ok(candidate) => {
                        to_elect.entry(candidate).or_default().push(TopicPartitions {
                            topic: topic.clone(),
                            partitions: vec![index],
                        });
                        None
                    }
                    Err(refusal) => Some(refusal),
                };
                told.insert(index, refusal);
            }
        }
        for (candidate, partitions) in to_elect {
            error = one_order(asking, candidate, partitions, &mut results)
                .await
                .err()
                .unwrap_or(error);
        }
    } else {
        error = ErrorCode::InvalidRequest;
        let message = format!("Unknown election type {}", request.election_type);
        for (topic, partitions) in asked {
            let told = results.entry(topic).or_default();
            told.extend(
                partitions
                    .into_iter()
                    .map(|index| (index, Some(Refusal::new(error, &message)))),
            );
        }
    }
    if is_of_all {
        // Of all partitions those are told of that had not the right leader.
        let is_needed = |refusal: &Option<Refusal>| {
            refusal
                .as_ref()
                .is_none_or(|refusal| refusal.code != ErrorCode::ElectionNotNeeded)
        };
        for told in results.values_mut() {
            told.retain(|_, refusal| is_needed(refusal));
        }
    }
    respond(asking, error, results)
}

/// Every partition that there is.
fn all(asking: &Asking) -> Vec<(String, Vec<i32>)> {
    let image = asking.image();
    let topics = image.topics().filter(|topic| topic.state == TopicState::Ready);
    topics
        .map(|topic| {
            let partitions = topic.partitions().map(PartitionIndex::get);
            (topic.name.to_string(), partitions.collect())
        })
        .collect()
}

/// Who is to lead, if it is not the preferred leader; or why nobody is elected.
fn candidate(asking: &Asking, (topic, index): (&str, i32), is_unclean: bool) -> Result<Option<BrokerId>, Refusal> {
    let unknown = |message: String| Refusal::new(ErrorCode::UnknownTopicOrPartition, message);
    check_name(topic).map_err(in_kafkas_words)?;
    let image = asking.image();
    let found = find_topic(&image, topic).map_err(|_code| unknown(format!("No such topic as {topic}")))?;
    let id = partition_of(found, index).map_err(|_code| unknown(format!("No such partition as {topic}-{index}")))?;
    let Some(assignment) = asking.ops().partitions.assignment() else {
        // A broker that is alone leads everything.
        return Err(in_kafkas_words(ErrorCode::ElectionNotNeeded));
    };
    if is_unclean {
        last_resort(&assignment, id).map(Some)
    } else {
        Ok(None)
    }
}

/// The first replica that is up, of a partition that nobody leads.
fn last_resort(assignment: &Assignment, id: PartitionId) -> Result<BrokerId, Refusal> {
    let replicas = assignment.placements.get(id);
    let replicas = replicas.ok_or_else(|| in_kafkas_words(ErrorCode::EligibleLeadersNotAvailable))?;
    if replicas.leader.is_some() {
        return Err(in_kafkas_words(ErrorCode::ElectionNotNeeded));
    }
    let can_lead = |broker: &&BrokerId| {
        let is_up = assignment.brokers.get(broker).is_some_and(|broker| !broker.is_fenced);
        is_up && !replicas.offline.contains(broker)
    };
    let first = replicas.replicas.iter().find(can_lead);
    first
        .copied()
        .ok_or_else(|| in_kafkas_words(ErrorCode::EligibleLeadersNotAvailable))
}

/// What Kafka says where it says nothing more.
fn in_kafkas_words(code: ErrorCode) -> Refusal {
    let message = match code {
        ErrorCode::ElectionNotNeeded => "Leader election not needed for topic partition.",
        ErrorCode::PreferredLeaderNotAvailable => "The preferred leader was not available.",
        ErrorCode::EligibleLeadersNotAvailable => "Eligible topic partition leaders are not available.",
        other => other.description(),
    };
    Refusal::new(code, message)
}

/// Elects one broker, or the preferred leaders. An error if nothing could be asked for.
async fn one_order(
    asking: &Asking,
    candidate: Option<BrokerId>,
    partitions: Vec<TopicPartitions>,
    results: &mut Results,
) -> Result<(), ErrorCode> {
    match asking.perform(Op::ElectLeaders(Some(partitions), candidate)).await {
        Ok(Outcome::LeadersElected(refused)) => {
            for refused in refused {
                let told = results.entry(refused.partition.topic).or_default();
                told.insert(refused.partition.index, Some(in_kafkas_words(refused.why.code)));
            }
            Ok(())
        }
        Ok(_) => Err(ErrorCode::UnknownServerError),
        Err(refusal) => Err(refusal.code),
    }
}

fn respond(asking: &Asking, error: ErrorCode, results: Results) -> ElectLeadersResponse<'static> {
    let partition = |(partition_id, refusal): (i32, Option<Refusal>)| {
        let code = refusal.as_ref().map_or(error, |refusal| refusal.code);
        PartitionResult {
            partition_id,
            error_code: asking.tells(code),
            error_message: refusal.map(|refusal| refusal.message.into()),
        }
    };
    let topics = results.into_iter().map(|(topic, partitions)| ReplicaElectionResult {
        topic: topic.into(),
        partition_result: partitions.into_iter().map(partition).collect(),
    });
    ElectLeadersResponse {
        replica_election_results: topics.collect(),
        error_code: if asking.version >= TOP_LEVEL_FROM {
            asking.tells(error)
        } else {
            0
        },
        ..ElectLeadersResponse::default()
    }
}
