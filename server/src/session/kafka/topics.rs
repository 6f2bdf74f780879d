//! Topics are made, get partitions, and are deleted.

use std::collections::{HashMap, HashSet};

use headwater_kafka::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, create_partitions_request::CreatePartitionsTopic,
    create_partitions_response::CreatePartitionsTopicResult, create_topics_request::CreatableTopic,
    create_topics_response::CreatableTopicResult, delete_topics_request::DeleteTopicState,
    delete_topics_response::DeletableTopicResult,
};
use headwater_protocol::error::ErrorCode;

use super::{
    asking::{Asking, find_topic, find_topic_by_id, uuid_of},
    configs,
};
use crate::model::{
    op::{NewTopic, Op, Outcome, TopicAlteration, TopicDescription},
    refusal::Refusal,
};

/// From this version on a topic that is made is described in the answer.
const DESCRIBED_FROM: i16 = 5;

/// From this version on topics may be deleted by their ids.
const DELETED_BY_ID_FROM: i16 = 6;

fn refuse(code: ErrorCode, message: impl std::fmt::Display) -> Refusal {
    Refusal::new(code, message)
}

pub(super) async fn create<'a>(asking: &Asking, request: CreateTopicsRequest<'a>) -> CreateTopicsResponse<'a> {
    let mut response = CreateTopicsResponse::default();
    let mut named: HashMap<&str, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(&topic.name).or_default() += 1;
    }
    let twice: HashSet<String> = named
        .iter()
        .filter(|(_, count)| **count > 1)
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let mut told = HashSet::new();
    for topic in request.topics {
        let name = topic.name.clone();
        if twice.contains(&*name) && !told.insert(name.clone()) {
            continue;
        }
        let made = if twice.contains(&*name) {
            Err(refuse(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else if request.timeout_ms <= 0 {
            Err(refuse(ErrorCode::RequestTimedOut, "no time is given to make it"))
        } else {
            create_one(asking, topic, request.validate_only).await
        };
        response.topics.push(match made {
            Ok(made) => CreatableTopicResult { name, ..made },
            Err(refusal) => CreatableTopicResult {
                name,
                error_code: asking.tells(refusal.code),
                error_message: Some(refusal.message.into()),
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
    if !topic.assignments.is_empty() {
        let message = "which broker gets which partition is for the cluster to say: leave the assignment out";
        return Err(refuse(ErrorCode::InvalidReplicaAssignment, message));
    }
    let name = topic.name.into_owned();
    let configs = configs::of_new_topic(asking, topic.configs)?;
    let new = NewTopic {
        name: name.clone(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        configs: configs.clone(),
    };
    let Outcome::TopicCreated { id, partitions } = asking.perform(Op::CreateTopic(new, validate_only)).await? else {
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
    if let Ok(Outcome::Topic(described)) = asking.perform(Op::DescribeTopic(name)).await {
        made.replication_factor = replication_factor(&described);
    } else {
        made.replication_factor = topic.replication_factor.max(1);
    }
    made.configs = Some(configs::of_created_topic(asking, configs, made.replication_factor));
    Ok(made)
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
    let mut response = DeleteTopicsResponse::default();
    for topic in topics {
        let asked = DeletableTopicResult {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            ..DeletableTopicResult::default()
        };
        let named = name_of(asking, &topic);
        let deleted = match named {
            Ok((name, _)) if request.timeout_ms <= 0 => Err(refuse(
                ErrorCode::RequestTimedOut,
                format!("no time is given to delete {name}"),
            )),
            Ok((name, id)) => {
                let done = asking.perform(Op::DeleteTopic(name.clone())).await;
                done.map(|_| (name, id))
            }
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
                error_message: Some(refusal.message.into()),
                ..asked
            },
        });
    }
    response
}

fn name_of(asking: &Asking, topic: &DeleteTopicState<'_>) -> Result<(String, headwater_kafka::Uuid), Refusal> {
    let image = asking.image();
    let unknown = |code: ErrorCode| refuse(code, code.description());
    let found = match (&topic.name, topic.topic_id != [0; 16]) {
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
        (Some(name), false) => find_topic(&image, name),
        (None, true) => find_topic_by_id(&image, topic.topic_id),
    };
    found
        .map(|topic| (topic.name.to_string(), uuid_of(topic.id)))
        .map_err(unknown)
}

pub(super) async fn create_partitions<'a>(
    asking: &Asking,
    request: CreatePartitionsRequest<'a>,
) -> CreatePartitionsResponse<'a> {
    let mut response = CreatePartitionsResponse::default();
    for topic in request.topics {
        let name = topic.name.clone();
        let done = extend(asking, topic, request.validate_only).await;
        response.results.push(match done {
            Ok(()) => CreatePartitionsTopicResult {
                name,
                ..CreatePartitionsTopicResult::default()
            },
            Err(refusal) => CreatePartitionsTopicResult {
                name,
                error_code: asking.tells(refusal.code),
                error_message: Some(refusal.message.into()),
            },
        });
    }
    response
}

async fn extend(asking: &Asking, topic: CreatePartitionsTopic<'_>, validate_only: bool) -> Result<(), Refusal> {
    if topic.assignments.is_some() {
        let message = "which broker gets which partition is for the cluster to say: leave the assignments out";
        return Err(refuse(ErrorCode::InvalidReplicaAssignment, message));
    }
    let image = asking.image();
    let found = find_topic(&image, &topic.name).map_err(|code| refuse(code, code.description()))?;
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
    let alteration = TopicAlteration {
        name: topic.name.into_owned(),
        configs: Vec::new(),
        partitions: topic.count,
    };
    asking
        .perform(Op::AlterTopic(alteration, validate_only))
        .await
        .map(drop)
}
