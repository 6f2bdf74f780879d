//! Topics are made, get partitions, and are deleted.

use std::collections::{BTreeMap, HashSet};

use headwater_kafka::{
    Str, Uuid,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
        DeleteTopicsRequest, DeleteTopicsResponse,
        create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
        create_partitions_response::CreatePartitionsTopicResult,
        create_topics_request::CreatableTopic,
        create_topics_response::CreatableTopicResult,
        delete_topics_request::DeleteTopicState,
        delete_topics_response::DeletableTopicResult,
    },
};
use headwater_protocol::{error::ErrorCode, id::BrokerId};

use super::{
    asking::{Asking, check_legal, find_topic, find_topic_by_id, topic_id, uuid_of},
    configs,
    operators::assigned,
};
use crate::{
    image::Topic,
    model::{
        access::{Operation, ResourceKind},
        op::{NewTopic, Op, Outcome, TopicAlteration, TopicDescription},
        refusal::Refusal,
    },
    ops::{access::THE_CLUSTER, nodes::Places},
};

/// Most partitions that one request may ask for, as in Kafka.
const PARTITIONS_MAX: usize = 10_000;

/// From this version on a topic that is made is described in the answer.
const DESCRIBED_FROM: i16 = 5;

/// From this version on topics may be deleted by their ids.
const DELETED_BY_ID_FROM: i16 = 6;

fn refuse(code: ErrorCode, message: impl std::fmt::Display) -> Refusal {
    Refusal::new(code, message)
}

/// The words of a refusal, if it has any: Kafka has none for some.
fn words(refusal: Refusal) -> Option<Str<'static>> {
    Some(refusal.message)
        .filter(|message| !message.is_empty())
        .map(Into::into)
}

/// Refuses what is to be done in no time.
fn check_time(timeout_ms: i32) -> Result<(), Refusal> {
    if timeout_ms > 0 {
        return Ok(());
    }
    Err(refuse(ErrorCode::RequestTimedOut, ""))
}

/// Those that are named more than once.
fn named_twice<'a>(names: impl Iterator<Item = &'a str>) -> HashSet<String> {
    let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
    for name in names {
        if !seen.insert(name) {
            twice.insert(name.to_owned());
        }
    }
    twice
}

pub(super) async fn create<'a>(asking: &Asking, request: CreateTopicsRequest<'a>) -> CreateTopicsResponse<'a> {
    let mut response = CreateTopicsResponse::default();
    let twice = named_twice(request.topics.iter().map(|topic| &*topic.name));
    let by_default = asking.sessions.core.config.topics.partitions as usize;
    let counts = request.topics.iter().map(|topic| match topic.assignments.len() {
        0 if topic.num_partitions == -1 => by_default,
        0 => usize::try_from(topic.num_partitions).unwrap_or(0),
        assigned => assigned,
    });
    let is_too_much = counts.fold(0, usize::saturating_add) > PARTITIONS_MAX;
    let mut told = HashSet::new();
    for topic in request.topics {
        let name = topic.name.clone();
        if twice.contains(&*name) && !told.insert(name.clone()) {
            continue;
        }
        let made = if is_too_much {
            let message = "Excessively large number of partitions per request.";
            Err(refuse(ErrorCode::PolicyViolation, message))
        } else if twice.contains(&*name) {
            Err(refuse(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else {
            match check_time(request.timeout_ms) {
                Ok(()) => create_one(asking, topic, request.validate_only).await,
                Err(refusal) => Err(refusal),
            }
        };
        response.topics.push(match made {
            Ok(made) => CreatableTopicResult { name, ..made },
            Err(refusal) => CreatableTopicResult {
                name,
                error_code: asking.tells(refusal.code),
                error_message: words(refusal),
                configs: Some(Vec::new()),
                ..CreatableTopicResult::default()
            },
        });
    }
    response
}

async fn create_one<'a>(
    asking: &Asking,
    topic: CreatableTopic<'_>,
    validate_only: bool,
) -> Result<CreatableTopicResult<'a>, Refusal> {
    if !asking.may(Operation::Create, THE_CLUSTER) {
        let may = asking.need(Operation::Create, (ResourceKind::Topic, &topic.name));
        may.map_err(|refusal| refuse(refusal.code, "Authorization failed."))?;
    }
    check_legal(&topic.name)?;
    if find_topic(&asking.image(), &topic.name).is_ok() {
        let message = format!("Topic '{}' already exists.", topic.name);
        return Err(refuse(ErrorCode::TopicAlreadyExists, message));
    }
    let wanted = wanted(asking, &topic)?;
    let name = topic.name.into_owned();
    let configs = configs::of_new_topic(asking, topic.configs)?;
    let new = NewTopic {
        name: name.clone(),
        configs: configs.clone(),
        ..wanted
    };
    let created = asking.perform(Op::CreateTopic(new, validate_only)).await;
    let created = created.map_err(|refusal| {
        let factor = topic.replication_factor;
        if refusal.code != ErrorCode::InvalidReplicationFactor || factor == -1 {
            return refusal;
        }
        let assignment = asking.ops().partitions.assignment();
        let brokers = assignment.map_or(1, |assignment| assignment.brokers.len());
        let message = format!(
            "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached because only {brokers} broker(s) are registered or some brokers have all their log directories cordoned."
        );
        refuse(refusal.code, message)
    })?;
    let Outcome::TopicCreated { id, partitions } = created else {
        return Err(refuse(
            ErrorCode::UnknownServerError,
            "it is not known what has become of it",
        ));
    };
    let mut made = CreatableTopicResult {
        topic_id: uuid_of(id),
        error_message: None,
        num_partitions: partitions.cast_signed(),
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    };
    if asking.version < DESCRIBED_FROM {
        return Ok(made);
    }
    if !asking.may(Operation::DescribeConfigs, (ResourceKind::Topic, &name)) {
        return Ok(CreatableTopicResult {
            topic_config_error_code: ErrorCode::TopicAuthorizationFailed.as_i16(),
            num_partitions: -1,
            replication_factor: -1,
            configs: None,
            ..made
        });
    }
    if let Ok(Outcome::Topic(described)) = asking.perform(Op::DescribeTopic(name)).await {
        made.replication_factor = replication_factor(&described);
    } else {
        let assigned = topic.assignments.first().map(|first| first.broker_ids.len() as i16);
        made.replication_factor = assigned.unwrap_or(topic.replication_factor).max(1);
    }
    made.configs = Some(configs::of_created_topic(asking, configs, made.replication_factor));
    Ok(made)
}

/// How many partitions and replicas a topic is to have, and which brokers, if it says so.
fn wanted(asking: &Asking, topic: &CreatableTopic<'_>) -> Result<NewTopic, Refusal> {
    let (partitions, factor) = (topic.num_partitions, topic.replication_factor);
    if topic.assignments.is_empty() {
        if partitions == 0 || partitions < -1 {
            let message = "Number of partitions was set to an invalid non-positive value.";
            return Err(refuse(ErrorCode::InvalidPartitions, message));
        }
        if factor == 0 || factor < -1 {
            let message = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(refuse(ErrorCode::InvalidReplicationFactor, message));
        }
        return Ok(NewTopic {
            name: String::new(),
            partitions,
            replication_factor: factor,
            configs: Vec::new(),
            assignments: None,
        });
    }
    let given = match (partitions, factor) {
        (-1, -1) => None,
        (_, -1) => Some("numPartitions was"),
        _ => Some("replication factor was"),
    };
    if let Some(given) = given {
        let message = format!("A manual partition assignment was specified, but {given} not set to -1.");
        return Err(refuse(ErrorCode::InvalidRequest, message));
    }
    let places = Places::of(asking.ops());
    let mut by_index = BTreeMap::new();
    let mut factor = None;
    for assignment in &topic.assignments {
        let index = assignment.partition_index;
        if by_index.contains_key(&index) {
            let message = format!("Found multiple manual partition assignments for partition {index}");
            return Err(refuse(ErrorCode::InvalidReplicaAssignment, message));
        }
        let brokers = assigned(&places, &assignment.broker_ids, factor)?;
        factor = Some(brokers.len());
        by_index.insert(index, brokers);
    }
    if !by_index.keys().copied().eq(0..by_index.len() as i32) {
        let message = "partitions should be a consecutive 0-based integer sequence";
        return Err(refuse(ErrorCode::InvalidReplicaAssignment, message));
    }
    Ok(NewTopic {
        name: String::new(),
        partitions: by_index.len() as i32,
        replication_factor: factor.map_or(-1, |factor| factor as i16),
        configs: Vec::new(),
        assignments: Some(by_index.into_values().collect()),
    })
}

fn replication_factor(described: &TopicDescription) -> i16 {
    let first = described.partitions.first();
    first.map_or(1, |partition| partition.replicas.replicas.len() as i16)
}

pub(super) async fn delete<'a>(asking: &Asking, request: DeleteTopicsRequest<'a>) -> DeleteTopicsResponse<'a> {
    let topics = if asking.version >= DELETED_BY_ID_FROM {
        request.topics
    } else {
        let named = request.topic_names.into_iter().map(|name| DeleteTopicState {
            name: Some(name),
            ..DeleteTopicState::default()
        });
        named.collect()
    };
    let named = topics.iter().filter_map(|topic| topic.name.as_deref());
    let twice = named_twice(named);
    let ids: HashSet<Uuid> = topics.iter().map(|topic| topic.topic_id).collect();
    let supplied = |topic: &DeleteTopicState<'_>| {
        let named = topic
            .name
            .as_deref()
            .and_then(|name| find_topic(&asking.image(), name).ok().map(|topic| topic.id));
        named
            .map(uuid_of)
            .filter(|id| topic.topic_id == [0; 16] && ids.contains(id))
    };
    let supplied: HashSet<Uuid> = topics.iter().filter_map(supplied).collect();
    let mut told = HashSet::new();
    let mut response = DeleteTopicsResponse::default();
    for topic in topics {
        let asked = DeletableTopicResult {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            ..DeletableTopicResult::default()
        };
        let is_twice = topic.name.as_deref().is_some_and(|name| twice.contains(name));
        let named = if is_twice {
            Err(refuse(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else {
            name_of(asking, &topic)
        };
        let id = named.as_ref().ok().map(|(_, id)| *id);
        let is_supplied = id.is_some_and(|id| supplied.contains(&id));
        if (is_twice && !told.insert((topic.name.clone(), [0; 16]))) || (is_supplied && topic.name.is_none()) {
            continue;
        }
        let deleted = match named {
            Ok(_) if is_supplied => Err(refuse(
                ErrorCode::InvalidRequest,
                "The provided topic name maps to an ID that was already supplied.",
            )),
            Ok((name, id)) => match check_time(request.timeout_ms) {
                Ok(()) => {
                    let only = topic.name.is_none().then(|| topic_id(id));
                    let done = asking.perform(Op::DeleteTopic(name.clone(), only)).await;
                    match (done, only) {
                        // Another topic has its name by now.
                        (Err(refusal), Some(_)) if refusal.code == ErrorCode::UnknownTopicOrPartition => {
                            Err(not_hosted(ErrorCode::UnknownTopicId, "topic ID"))
                        }
                        (done, _) => done.map(|_| (name, id)),
                    }
                }
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        response.responses.push(match deleted {
            Ok((name, topic_id)) => DeletableTopicResult {
                name: Some(name.into()),
                topic_id,
                ..asked
            },
            Err(refusal) => DeletableTopicResult {
                error_code: asking.tells(refusal.code),
                error_message: words(refusal),
                ..asked
            },
        });
    }
    response
}

fn name_of(asking: &Asking, topic: &DeleteTopicState<'_>) -> Result<(String, Uuid), Refusal> {
    let image = asking.image();
    if let Some(name) = &topic.name {
        let may = asking.need(Operation::Delete, (ResourceKind::Topic, name));
        may.map_err(|refusal| refuse(refusal.code, "Topic authorization failed."))?;
    }
    let (found, unknown) = match (&topic.name, topic.topic_id != [0; 16]) {
        (None, false) => {
            return Err(refuse(
                ErrorCode::InvalidRequest,
                "Neither topic name nor id were specified.",
            ));
        }
        (Some(_), true) => {
            return Err(refuse(
                ErrorCode::InvalidRequest,
                "You may not specify both topic name and topic id.",
            ));
        }
        (Some(name), false) => (find_topic(&image, name), "topic-partition"),
        (None, true) => (find_topic_by_id(&image, topic.topic_id), "topic ID"),
    };
    found
        .map(|topic| (topic.name.to_string(), uuid_of(topic.id)))
        .map_err(|code| not_hosted(code, unknown))
}

fn not_hosted(code: ErrorCode, unknown: &str) -> Refusal {
    refuse(code, format!("This server does not host this {unknown}."))
}

pub(super) async fn create_partitions<'a>(
    asking: &Asking,
    request: CreatePartitionsRequest<'a>,
) -> CreatePartitionsResponse<'a> {
    let mut response = CreatePartitionsResponse::default();
    let twice = named_twice(request.topics.iter().map(|topic| &*topic.name));
    let image = asking.image();
    let more = request.topics.iter().map(|topic| {
        let has = find_topic(&image, &topic.name).map_or(0, |topic| topic.partition_count);
        usize::try_from(i64::from(topic.count) - i64::from(has)).unwrap_or(0)
    });
    let is_too_much = more.fold(0, usize::saturating_add) > PARTITIONS_MAX;
    let mut told = HashSet::new();
    for topic in request.topics {
        let name = topic.name.clone();
        if twice.contains(&*name) && !told.insert(name.clone()) {
            continue;
        }
        let done = if twice.contains(&*name) {
            Err(refuse(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else if is_too_much {
            let message = "Excessively large number of additional partitions per request.";
            Err(refuse(ErrorCode::PolicyViolation, message))
        } else {
            match check_time(request.timeout_ms) {
                Ok(()) => extend(asking, topic, request.validate_only).await,
                Err(refusal) => Err(refusal),
            }
        };
        response.results.push(match done {
            Ok(()) => CreatePartitionsTopicResult {
                name,
                ..CreatePartitionsTopicResult::default()
            },
            Err(refusal) => CreatePartitionsTopicResult {
                name,
                error_code: asking.tells(refusal.code),
                error_message: words(refusal),
            },
        });
    }
    response
}

async fn extend(asking: &Asking, topic: CreatePartitionsTopic<'_>, validate_only: bool) -> Result<(), Refusal> {
    let may = asking.need(Operation::Alter, (ResourceKind::Topic, &topic.name));
    may.map_err(|refusal| refuse(refusal.code, ""))?;
    let image = asking.image();
    let found = find_topic(&image, &topic.name).map_err(|code| refuse(code, ""))?;
    let now = found.partition_count.cast_signed();
    if topic.count <= now {
        let name = &topic.name;
        let message = if topic.count == now {
            format!("Topic already has {now} partition(s).")
        } else {
            format!(
                "The topic {name} currently has {now} partition(s); {} would not be an increase.",
                topic.count
            )
        };
        return Err(refuse(ErrorCode::InvalidPartitions, message));
    }
    let assignments = match &topic.assignments {
        None => None,
        Some(assignments) => Some(further(asking, found, topic.count - now, assignments)?),
    };
    let alteration = TopicAlteration {
        name: topic.name.into_owned(),
        configs: Vec::new(),
        is_all: false,
        partitions: topic.count,
        assignments,
    };
    asking
        .perform(Op::AlterTopic(alteration, validate_only))
        .await
        .map(drop)
}

/// Who is to have further partitions.
fn further(
    asking: &Asking,
    topic: &Topic,
    more: i32,
    assignments: &[CreatePartitionsAssignment],
) -> Result<Vec<Vec<BrokerId>>, Refusal> {
    let count = assignments.len();
    if usize::try_from(more) != Ok(count) {
        let message =
            format!("Attempted to add {more} additional partition(s), but only {count} assignment(s) were specified.");
        return Err(refuse(ErrorCode::InvalidReplicaAssignment, message));
    }
    let places = Places::of(asking.ops());
    let assignment = asking.ops().partitions.assignment();
    let assignment = assignment.as_ref();
    let replicas = assignment.and_then(|assignment| assignment.placements.topic(topic.id));
    let first = replicas.and_then(|replicas| replicas.partitions.first());
    let factor = first.map_or(1, |first| first.target().count());
    let assigned = |partition: &CreatePartitionsAssignment| assigned(&places, &partition.broker_ids, Some(factor));
    assignments.iter().map(assigned).collect()
}
