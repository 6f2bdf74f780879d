//! Requests about committed offsets.

use std::{collections::HashMap, rc::Rc};

use headwater_protocol::{
    error::ErrorCode,
    id::PartitionIndex,
    topic::{TopicName, TopicNameError},
};

use super::group_id;
use crate::{
    coordinator::service,
    core::Core,
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
};

/// Commits offsets of a group, none of them beyond the end of its partition.
pub(crate) async fn commit(
    core: &Rc<Core>,
    group: String,
    who: Identity,
    offsets: Vec<OffsetToCommit>,
) -> Result<Outcome, Refusal> {
    let group = group_id(group, &core.config.groups)?;
    let items = with_ends(core, offsets).await;
    service::call(core, group, Request::Commit(who, items))
        .await
        .map(Outcome::Group)
}

async fn with_ends(core: &Core, offsets: Vec<OffsetToCommit>) -> Vec<CommitItem> {
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

fn place(core: &Core, offset: &OffsetToCommit) -> Option<PartitionId> {
    let image = core.image();
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
    core: &Rc<Core>,
    group: String,
    topics: Option<Vec<TopicPartitions>>,
) -> Result<Outcome, Refusal> {
    let group = group_id(group, &core.config.groups)?;
    let places = topics.map(places).transpose()?;
    service::call(core, group, Request::Offsets(places))
        .await
        .map(Outcome::Group)
}

/// Forgets committed offsets of a group.
pub(crate) async fn forget(core: &Rc<Core>, group: String, topics: Vec<TopicPartitions>) -> Result<Outcome, Refusal> {
    let group = group_id(group, &core.config.groups)?;
    let places = places(topics)?;
    service::call(core, group, Request::ForgetOffsets(places))
        .await
        .map(Outcome::Group)
}
