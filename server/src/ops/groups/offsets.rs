//! Requests about committed offsets.

use std::{collections::HashMap, rc::Rc};

use headwater_protocol::{
    error::ErrorCode,
    id::{CorrelationId, LeaderEpoch, PartitionIndex},
    schema::{
        CommittedOffsetT, OffsetCommitRequestT, OffsetCommitResponseT, OffsetDeleteRequestT, OffsetDeleteResponseT,
        OffsetFetchRequestT, OffsetFetchResponseT, TopicPartitionsT,
    },
    topic::{TopicName, TopicNameError},
};

use super::{Answer, GroupId, Request, ask, group_id, identity, refusal_of};
use crate::{
    core::Core,
    image::TopicState,
    model::{
        bounds,
        group::{CommitItem, Committed},
        id::PartitionId,
        records::ListItem,
        refusal::Refusal,
    },
    ops::offsets,
    session::{native::reply, outbox::Response},
};

/// Commits offsets of a group, none of them beyond the end of its partition.
pub(crate) async fn commit(core: Rc<Core>, id: CorrelationId, head: OffsetCommitRequestT) -> Response {
    let head = match ask(&core, read_commit(&core, head).await).await {
        Ok(Answer::Committed(codes)) => OffsetCommitResponseT {
            error: 0,
            message: None,
            errors: Some(codes.into_iter().map(|code| code as i16).collect()),
        },
        other => {
            let refusal = refusal_of(other);
            OffsetCommitResponseT {
                error: refusal.code as i16,
                message: Some(refusal.message),
                errors: None,
            }
        }
    };
    Response::of(reply::head(id, &head))
}

async fn read_commit(core: &Core, head: OffsetCommitRequestT) -> Result<(GroupId, Request), Refusal> {
    let group = group_id(head.group_id, &core.config.groups)?;
    let who = identity(head.generation, head.member_id, head.instance_id);
    let offsets = head.offsets.unwrap_or_default();
    let places: Vec<Option<PartitionId>> = offsets.iter().map(|offset| place(core, offset)).collect();
    let known = places.iter().flatten().map(|id| ListItem {
        id: *id,
        timestamp: offsets::LATEST,
    });
    let ends: HashMap<PartitionId, Result<i64, ErrorCode>> = offsets::list(core, known.collect())
        .await
        .into_iter()
        .map(|end| {
            (
                end.id,
                if end.error.is_none() {
                    Ok(end.offset)
                } else {
                    Err(end.error)
                },
            )
        })
        .collect();
    let item = |(offset, place): (CommittedOffsetT, Option<PartitionId>)| CommitItem {
        topic: offset.topic.unwrap_or_default(),
        partition: offset.partition,
        offset: offset.offset,
        leader_epoch: LeaderEpoch::new(offset.leader_epoch),
        metadata: offset.metadata.unwrap_or_default(),
        end: place
            .and_then(|place| ends.get(&place).copied())
            .unwrap_or(Err(ErrorCode::UnknownTopicOrPartition)),
    };
    let items = offsets.into_iter().zip(places).map(item).collect();
    Ok((group, Request::Commit(who, items)))
}

fn place(core: &Core, offset: &CommittedOffsetT) -> Option<PartitionId> {
    let image = core.image();
    let topic = image
        .topic(offset.topic.as_deref()?)
        .filter(|topic| topic.state == TopicState::Ready)?;
    let index = PartitionIndex::try_from(offset.partition)
        .ok()
        .filter(|index| topic.has(*index))?;
    Some(PartitionId { topic: topic.id, index })
}

/// Every partition with its topic's name, which must be no longer than one can be: it is repeated for each.
fn places(topics: Vec<TopicPartitionsT>) -> Result<Vec<(String, i32)>, Refusal> {
    let count = topics.iter().map(|topic| topic.partitions.as_ref().map_or(0, Vec::len));
    bounds::check_items("partitions", count.sum())?;
    let mut places = Vec::new();
    for topic in topics {
        let name = topic.topic.unwrap_or_default();
        if name.len() > TopicName::LEN_MAX {
            let error = TopicNameError::TooLong { len: name.len() };
            return Err(Refusal::because(ErrorCode::InvalidTopicException, &error));
        }
        let partitions = topic.partitions.unwrap_or_default().into_iter();
        places.extend(partitions.map(|partition| (name.clone(), partition)));
    }
    Ok(places)
}

/// Committed offsets of a group.
pub(crate) async fn fetch_offsets(core: Rc<Core>, id: CorrelationId, head: OffsetFetchRequestT) -> Response {
    let places = head.topics.map(places).transpose();
    let call = group_id(head.group_id, &core.config.groups)
        .and_then(|group| places.map(|places| (group, Request::Offsets(places))));
    let head = match ask(&core, call).await {
        Ok(Answer::Offsets(offsets)) => OffsetFetchResponseT {
            error: 0,
            message: None,
            offsets: Some(offsets.into_iter().map(committed).collect()),
        },
        other => {
            let refusal = refusal_of(other);
            OffsetFetchResponseT {
                error: refusal.code as i16,
                message: Some(refusal.message),
                offsets: None,
            }
        }
    };
    Response::of(reply::head(id, &head))
}

fn committed((topic, partition, committed): (String, i32, Option<Committed>)) -> CommittedOffsetT {
    let topic = Some(topic);
    let Some(committed) = committed else {
        return CommittedOffsetT {
            topic,
            partition,
            ..CommittedOffsetT::default()
        };
    };
    CommittedOffsetT {
        topic,
        partition,
        offset: committed.offset,
        leader_epoch: committed.leader_epoch.get(),
        metadata: Some(committed.metadata),
        error: 0,
    }
}

/// Forgets committed offsets of a group.
pub(crate) async fn delete_offsets(core: Rc<Core>, id: CorrelationId, head: OffsetDeleteRequestT) -> Response {
    let places = places(head.topics.unwrap_or_default());
    let call = group_id(head.group_id, &core.config.groups)
        .and_then(|group| places.map(|places| (group, Request::ForgetOffsets(places))));
    let head = match ask(&core, call).await {
        Ok(Answer::Forgotten(codes)) => OffsetDeleteResponseT {
            error: 0,
            message: None,
            errors: Some(codes.into_iter().map(|code| code as i16).collect()),
        },
        other => {
            let refusal = refusal_of(other);
            OffsetDeleteResponseT {
                error: refusal.code as i16,
                message: Some(refusal.message),
                errors: None,
            }
        }
    };
    Response::of(reply::head(id, &head))
}
