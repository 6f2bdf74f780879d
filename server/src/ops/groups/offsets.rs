//! Requests about committed offsets.

use std::{collections::HashMap, rc::Rc};

use headwater_protocol::{
    error::ErrorCode,
    id::PartitionIndex,
    topic::{TopicName, TopicNameError},
};

use super::group_id;
use crate::{
    coordinator::{Service, service},
    image::TopicState,
    model::{
        bounds,
        group::{CommitItem, Identity, Request},
        id::PartitionId,
        op::{OffsetToCommit, Outcome, TopicPartitions},
        records::ListItem,
        refusal::Refusal,
    },
    ops::offsets,
    partition::Partitions,
};

/// Commits offsets of a group, none of them beyond the end of its partition.
pub(crate) async fn commit(
    groups: &Rc<Service>,
    group: String,
    who: Identity,
    offsets: Vec<OffsetToCommit>,
) -> Result<Outcome, Refusal> {
    let group = group_id(group, &groups.config)?;
    let items = with_ends(&groups.partitions, offsets).await;
    service::call(groups, group, Request::Commit(who, items))
        .await
        .map(Outcome::Group)
}

async fn with_ends(partitions: &Partitions, offsets: Vec<OffsetToCommit>) -> Vec<CommitItem> {
    let places: Vec<Option<PartitionId>> = offsets.iter().map(|offset| place(partitions, offset)).collect();
    let known = places.iter().flatten().map(|id| ListItem {
        id: *id,
        timestamp: offsets::LATEST,
    });
    let ends: HashMap<PartitionId, Result<i64, ErrorCode>> = offsets::list(partitions, known.collect())
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
    let item = |(offset, place): (OffsetToCommit, Option<PartitionId>)| CommitItem {
        topic: offset.topic,
        partition: offset.partition,
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata,
        end: place
            .and_then(|place| ends.get(&place).copied())
            .unwrap_or(Err(ErrorCode::UnknownTopicOrPartition)),
    };
    offsets.into_iter().zip(places).map(item).collect()
}

fn place(partitions: &Partitions, offset: &OffsetToCommit) -> Option<PartitionId> {
    let image = partitions.image();
    let topic = image
        .topic(&offset.topic)
        .filter(|topic| topic.state == TopicState::Ready)?;
    let index = PartitionIndex::try_from(offset.partition)
        .ok()
        .filter(|index| topic.has(*index))?;
    Some(PartitionId { topic: topic.id, index })
}

/// Every partition with its topic's name, which must be no longer than one can be: it is repeated for each.
fn places(topics: Vec<TopicPartitions>) -> Result<Vec<(String, i32)>, Refusal> {
    bounds::check_items("partitions", topics.iter().map(|topic| topic.partitions.len()).sum())?;
    let mut places = Vec::new();
    for TopicPartitions { topic, partitions } in topics {
        if topic.len() > TopicName::LEN_MAX {
            let error = TopicNameError::TooLong { len: topic.len() };
            return Err(Refusal::because(ErrorCode::InvalidTopicException, &error));
        }
        places.extend(partitions.into_iter().map(|partition| (topic.clone(), partition)));
    }
    Ok(places)
}

/// Committed offsets of a group.
pub(crate) async fn fetch(
    groups: &Rc<Service>,
    group: String,
    topics: Option<Vec<TopicPartitions>>,
) -> Result<Outcome, Refusal> {
    let group = group_id(group, &groups.config)?;
    let places = topics.map(places).transpose()?;
    service::call(groups, group, Request::Offsets(places))
        .await
        .map(Outcome::Group)
}

/// Forgets committed offsets of a group.
pub(crate) async fn forget(
    groups: &Rc<Service>,
    group: String,
    topics: Vec<TopicPartitions>,
) -> Result<Outcome, Refusal> {
    let group = group_id(group, &groups.config)?;
    let places = places(topics)?;
    service::call(groups, group, Request::ForgetOffsets(places))
        .await
        .map(Outcome::Group)
}
