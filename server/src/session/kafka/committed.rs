//! Committed offsets of groups.

use std::collections::BTreeSet;

use headwater_kafka::{
    Str, Uuid,
    messages::{
        OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
        OffsetFetchResponse,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
};
use headwater_protocol::{error::ErrorCode, id::LeaderEpoch};

use super::asking::{Asking, check_name, find_topic, find_topic_by_id, uuid_of};
use crate::model::{
    access::{Operation, ResourceKind},
    group::{Answer, CommitItem, Committed, Generation, Identity, InstanceId, MemberId, Request},
    op::{Op, Outcome, TopicPartitions},
    refusal::Refusal,
};

/// From this version on topics have ids in the place of names.
const IDS_FROM: i16 = 10;

/// From this version on a request asks for several groups.
const GROUPS_FROM: i16 = 8;

/// From this version on members of groups of type consumer say in which epoch they are.
const EPOCHS_FROM: i16 = 9;

/// The name of a topic, by its id if it has one.
fn name_of<'a>(asking: &Asking, name: Str<'a>, id: Uuid, operation: Operation) -> Result<Str<'a>, ErrorCode> {
    let name = if asking.version < IDS_FROM {
        check_name(&name)?;
        name
    } else {
        let image = asking.image();
        find_topic_by_id(&image, id)?.name.to_string().into()
    };
    let may = asking.need(operation, (ResourceKind::Topic, &name));
    may.map(|()| name.clone()).map_err(|refusal| refusal.code)
}

/// A member of a group of type consumer must say in which epoch it is.
fn code_for(asking: &Asking, code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::StaleMemberEpoch if asking.version < EPOCHS_FROM => ErrorCode::UnsupportedVersion,
        code => code,
    }
}

pub(super) async fn commit<'a>(asking: &Asking, request: OffsetCommitRequest<'a>) -> OffsetCommitResponse<'a> {
    let mut items = Vec::new();
    let mut topics = Vec::new();
    let may = asking.need(Operation::Read, (ResourceKind::Group, &request.group_id));
    let may = may.map_err(|refusal| refusal.code);
    for topic in request.topics {
        // Whoever may do nothing to the group is told that.
        let named = match may {
            Ok(()) => name_of(asking, topic.name.clone(), topic.topic_id, Operation::Read),
            Err(code) => Err(code),
        };
        for partition in &topic.partitions {
            if let Ok(name) = &named {
                items.push(CommitItem {
                    topic: name.to_string(),
                    partition: partition.partition_index,
                    offset: partition.committed_offset,
                    leader_epoch: LeaderEpoch::new(partition.committed_leader_epoch),
                    metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
                });
            }
        }
        topics.push((named.err(), topic));
    }
    let who = Identity {
        generation: Generation::new(request.generation_id_or_member_epoch),
        member: MemberId::new(&*request.member_id),
        instance: request.group_instance_id.map(|id| InstanceId::new(&*id)),
    };
    let group = request.group_id.into_owned();
    let done = if items.is_empty() {
        Ok(Vec::new())
    } else {
        match asking.perform(Op::Group(group, Request::Commit(who, items))).await {
            Ok(Outcome::Group(Answer::Committed(codes))) => Ok(codes),
            Ok(_) => Err(ErrorCode::UnknownServerError),
            Err(refusal) => Err(code_for(asking, refusal.code)),
        }
    };
    let mut codes = done.as_ref().map(|codes| codes.iter().copied());
    let mut next = || match &mut codes {
        Ok(codes) => codes.next().unwrap_or(ErrorCode::UnknownServerError),
        Err(code) => **code,
    };
    let told = topics.into_iter().map(|(unknown, topic)| OffsetCommitResponseTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| OffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: asking.tells(unknown.unwrap_or_else(&mut next)),
            })
            .collect(),
    });
    OffsetCommitResponse {
        topics: told.collect(),
        ..OffsetCommitResponse::default()
    }
}

pub(super) async fn fetch<'a>(asking: &Asking, request: OffsetFetchRequest<'a>) -> OffsetFetchResponse<'a> {
    let mut response = OffsetFetchResponse::default();
    if asking.version >= GROUPS_FROM {
        for group in request.groups {
            let told = match asking.part().await {
                Ok(()) => fetch_group(asking, group, request.require_stable).await,
                Err(code) => OffsetFetchResponseGroup {
                    group_id: group.group_id,
                    error_code: asking.tells(code),
                    ..OffsetFetchResponseGroup::default()
                },
            };
            asking.adds(size_of_group(&told));
            response.groups.push(told);
        }
        return response;
    }
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..OffsetFetchRequestTopics::default()
        });
        topics.collect()
    });
    let group = OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics,
        ..OffsetFetchRequestGroup::default()
    };
    let told = fetch_group(asking, group, request.require_stable).await;
    response.error_code = told.error_code;
    response.topics = told.topics.into_iter().map(one_group_topic).collect();
    response
}

/// What the answer for one group takes, about, in bytes.
fn size_of_group(told: &OffsetFetchResponseGroup<'_>) -> usize {
    let topics = told.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let metadata = partition.metadata.as_deref().unwrap_or_default();
            size_of_val(partition) + metadata.len()
        });
        size_of_val(topic) + topic.name.len() + partitions.sum::<usize>()
    });
    size_of_val(told) + told.group_id.len() + topics.sum::<usize>()
}

/// As a response tells of one group.
fn one_group_topic(topic: OffsetFetchResponseTopics<'_>) -> OffsetFetchResponseTopic<'_> {
    let partitions = topic
        .partitions
        .into_iter()
        .map(|partition| OffsetFetchResponsePartition {
            partition_index: partition.partition_index,
            committed_offset: partition.committed_offset,
            committed_leader_epoch: partition.committed_leader_epoch,
            metadata: partition.metadata,
            error_code: partition.error_code,
        });
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: partitions.collect(),
    }
}

/// Of which partitions offsets wait for the end of a transaction, for those who want to know none that may change by it.
async fn unstable(asking: &Asking, group: &str, is_asked: bool) -> BTreeSet<(String, i32)> {
    if !is_asked {
        return BTreeSet::new();
    }
    let asked = Op::Group(group.to_owned(), Request::Unstable);
    match asking.perform(asked).await {
        Ok(Outcome::Group(Answer::Unstable(places))) => places,
        // What is wrong is told of the offsets.
        Ok(_) | Err(_) => BTreeSet::new(),
    }
}

async fn fetch_group<'a>(
    asking: &Asking,
    group: OffsetFetchRequestGroup<'a>,
    require_stable: bool,
) -> OffsetFetchResponseGroup<'a> {
    let mut response = OffsetFetchResponseGroup {
        group_id: group.group_id.clone(),
        ..OffsetFetchResponseGroup::default()
    };
    let member = group.member_id.unwrap_or_default();
    let is_member = !member.is_empty() || group.member_epoch >= 0;
    let who = is_member.then(|| Identity {
        generation: Generation::new(group.member_epoch),
        member: MemberId::new(&*member),
        instance: None,
    });
    if let Err(refusal) = asking.need(Operation::Describe, (ResourceKind::Group, &group.group_id)) {
        response.error_code = asking.tells(refusal.code);
        return response;
    }
    // Before the offsets: what is not unstable any more then is among them.
    let unstable = unstable(asking, &group.group_id, require_stable).await;
    let Some(topics) = group.topics else {
        match offsets(asking, group.group_id, who, None).await {
            Ok(offsets) => response.topics = all(asking, offsets, &unstable),
            Err(refusal) => response.error_code = asking.tells(refusal.code),
        }
        return response;
    };
    let mut asked = Vec::new();
    let mut named = Vec::new();
    for topic in topics {
        let name = name_of(asking, topic.name.clone(), topic.topic_id, Operation::Describe);
        if let Ok(name) = &name {
            asked.push(TopicPartitions {
                topic: name.to_string(),
                partitions: topic.partition_indexes.clone(),
            });
        }
        named.push((name.err(), topic));
    }
    let offsets = match offsets(asking, group.group_id, who, Some(asked)).await {
        Ok(offsets) => offsets,
        Err(refusal) => {
            response.error_code = asking.tells(refusal.code);
            return response;
        }
    };
    // They come in the order in which they were asked for.
    let mut offsets = offsets.into_iter();
    for (unknown, topic) in named {
        let partitions = topic.partition_indexes.into_iter().map(|index| match unknown {
            Some(code) => OffsetFetchResponsePartitions {
                error_code: asking.tells(code),
                ..partition(index, None)
            },
            None => match offsets.next() {
                Some((topic, at, committed)) => stable(asking, &unstable, &(topic, at), committed),
                None => partition(index, None),
            },
        });
        response.topics.push(OffsetFetchResponseTopics {
            name: topic.name,
            topic_id: topic.topic_id,
            partitions: partitions.collect(),
        });
    }
    response
}

type Offsets = Vec<(String, i32, Option<Committed>)>;

async fn offsets(
    asking: &Asking,
    group: Str<'_>,
    who: Option<Identity>,
    topics: Option<Vec<TopicPartitions>>,
) -> Result<Offsets, Refusal> {
    match asking
        .perform(Op::FetchOffsets(group.into_owned(), who, topics))
        .await?
    {
        Outcome::Group(Answer::Offsets(offsets)) => Ok(offsets),
        _ => Err(Refusal::new(ErrorCode::UnknownServerError, "no offsets were answered")),
    }
}

/// Every offset that is committed, by topic.
fn all(
    asking: &Asking,
    offsets: Offsets,
    unstable: &BTreeSet<(String, i32)>,
) -> Vec<OffsetFetchResponseTopics<'static>> {
    let image = asking.image();
    let mut topics: Vec<OffsetFetchResponseTopics<'static>> = Vec::new();
    for (name, index, committed) in offsets {
        if topics.last().is_none_or(|last| last.name != name) {
            let id = find_topic(&image, &name).map_or([0; 16], |topic| uuid_of(topic.id));
            topics.push(OffsetFetchResponseTopics {
                name: name.into(),
                topic_id: id,
                ..OffsetFetchResponseTopics::default()
            });
        }
        if let Some(last) = topics.last_mut() {
            let place = (last.name.to_string(), index);
            last.partitions.push(stable(asking, unstable, &place, committed));
        }
    }
    topics
}

/// No offset of a partition of which one waits for the end of a transaction: whoever asks comes again.
fn stable(
    asking: &Asking,
    unstable: &BTreeSet<(String, i32)>,
    place: &(String, i32),
    committed: Option<Committed>,
) -> OffsetFetchResponsePartitions<'static> {
    if unstable.contains(place) {
        return OffsetFetchResponsePartitions {
            error_code: asking.tells(ErrorCode::UnstableOffsetCommit),
            ..partition(place.1, None)
        };
    }
    partition(place.1, committed)
}

/// Without an offset it is -1.
fn partition(index: i32, committed: Option<Committed>) -> OffsetFetchResponsePartitions<'static> {
    let none = OffsetFetchResponsePartitions {
        partition_index: index,
        committed_offset: -1,
        metadata: Some("".into()),
        ..OffsetFetchResponsePartitions::default()
    };
    match committed {
        Some(committed) => OffsetFetchResponsePartitions {
            committed_offset: committed.offset,
            committed_leader_epoch: committed.leader_epoch.get(),
            metadata: Some(committed.metadata.into()),
            ..none
        },
        None => none,
    }
}

pub(super) async fn forget<'a>(asking: &Asking, request: OffsetDeleteRequest<'a>) -> OffsetDeleteResponse<'a> {
    let may = asking.need(Operation::Delete, (ResourceKind::Group, &request.group_id));
    if let Err(refusal) = may {
        return OffsetDeleteResponse {
            error_code: asking.tells(refusal.code),
            ..OffsetDeleteResponse::default()
        };
    }
    let refused = |name: &str| {
        let may = || {
            asking
                .need(Operation::Read, (ResourceKind::Topic, name))
                .map_err(|refusal| refusal.code)
        };
        check_name(name).and_then(|()| may()).err()
    };
    let refused: Vec<Option<ErrorCode>> = request.topics.iter().map(|topic| refused(&topic.name)).collect();
    let known = request
        .topics
        .iter()
        .zip(&refused)
        .filter(|(_, refused)| refused.is_none());
    let asked = known.map(|(topic, _)| topic).map(|topic| TopicPartitions {
        topic: topic.name.to_string(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| partition.partition_index)
            .collect(),
    });
    let asked = Op::ForgetOffsets(request.group_id.into_owned(), asked.collect());
    // As Kafka does it: of a group with which nothing is to be done nobody is told whether it is there.
    let is_nothing = !refused.is_empty() && refused.iter().all(Option::is_some);
    let codes = match asking.perform(asked).await {
        Ok(Outcome::Group(Answer::Forgotten(codes))) => codes,
        _ if is_nothing => Vec::new(),
        done => {
            let code = done.err().map_or(ErrorCode::UnknownServerError, |refusal| refusal.code);
            return OffsetDeleteResponse {
                error_code: asking.tells(code),
                ..OffsetDeleteResponse::default()
            };
        }
    };
    let mut codes = codes.into_iter();
    let mut response = OffsetDeleteResponse::default();
    for (topic, unknown) in request.topics.into_iter().zip(refused) {
        let partitions = topic.partitions.into_iter().map(|partition| {
            let code = unknown.or_else(|| codes.next());
            OffsetDeleteResponsePartition {
                partition_index: partition.partition_index,
                error_code: asking.tells(code.unwrap_or(ErrorCode::UnknownServerError)),
            }
        });
        response.topics.push(OffsetDeleteResponseTopic {
            partitions: partitions.collect(),
            name: topic.name,
        });
    }
    response
}
