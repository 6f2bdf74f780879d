//! Requests about committed offsets of many partitions.

use std::rc::Rc;

use headwater_protocol::{
    error::ErrorCode,
    topic::{TopicName, TopicNameError},
};

use super::group_id;
use crate::{
    coordinator::{Service, service},
    model::{
        bounds,
        group::{Identity, Request},
        op::{Outcome, TopicPartitions},
        refusal::Refusal,
    },
};

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
    who: Option<Identity>,
    topics: Option<Vec<TopicPartitions>>,
) -> Result<Outcome, Refusal> {
    let group = group_id(group, &groups.config)?;
    let places = topics.map(places).transpose()?;
    service::call(groups, group, Request::Offsets(who, places))
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
