//! Where to begin in partitions that the group has assigned, and which topics a pattern means.

use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::Offset;
use headwater_protocol::topic::TopicName;
use regex::Regex;

use super::PartitionCounts;
use super::ledger::Ledger;
use super::membership::Place;
use super::route::Route;
use crate::admin::CommittedOffset;
use crate::cluster::Cluster;
use crate::consumer::builder::{Isolation, OffsetReset, Start};
use crate::consumer::start_offset;
use crate::consumer::state::{Assignment, State};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::requests::{self, TopicImage};

/// The broker's own topics begin so, and no pattern means them.
const INTERNAL: &str = "__";

/// A partition with its first offset.
#[derive(Debug)]
pub(super) struct Begin {
    assignment: Assignment,
    committed: Option<Offset>,
    /// There is none, and the application has to say where to begin.
    is_open: bool,
}

impl Begin {
    pub(super) fn place(&self) -> Place {
        (self.assignment.topic.clone(), self.assignment.partition)
    }

    /// Lets the partition be read. Returns its place in the fetcher's state.
    pub(super) fn add(self, place: &Place, ledger: &mut Ledger, fetch: &mut State) -> usize {
        let offset = self.assignment.offset;
        let index = fetch.add(self.assignment);
        // Nothing is committed before the application has said where to begin.
        let committed = if self.is_open { Some(offset) } else { self.committed };
        ledger.add(place.clone(), index, offset, committed);
        if self.is_open {
            let (topic, partition) = place.clone();
            let error = Error::NoCommittedOffset { topic, partition };
            fetch.halt(index, offset, error.clone());
            ledger.news.push_back(error);
        }
        index
    }
}

/// What the group has committed for these partitions, again and again until the deadline.
pub(super) async fn committed(
    route: &Route,
    deadline: Deadline,
    places: &[Place],
) -> Result<Vec<CommittedOffset>, Error> {
    let request = &requests::fetch_offsets_of(&route.group_id, places);
    let attempt = || route.ask(request, Duration::ZERO, requests::read_fetch_offsets);
    deadline.retry(route.cluster.backoff(), attempt).await
}

/// Finds the first offsets of partitions, which are in order. Of a partition that was not there when the consumer began, the
/// newest record is none to skip to.
pub(super) async fn find_starts(
    route: &Route,
    places: &[Place],
    (reset, isolation): (OffsetReset, Isolation),
    began_with: &PartitionCounts,
) -> Result<Vec<Begin>, Error> {
    let cluster = &route.cluster;
    let deadline = cluster.deadline("find out where to begin");
    let committed = committed(route, deadline, places).await?;
    let committed = &committed;
    let begins = places.iter().map(|(topic, partition)| async move {
        let image = deadline.run(cluster.await_topic(topic)).await?;
        let found = committed
            .iter()
            .find(|offset| offset.topic == *topic && offset.partition == *partition)
            .map(|offset| offset.offset);
        let is_new = began_with.get(topic).is_none_or(|&count| partition.as_usize() >= count);
        let offset = match (found, reset) {
            (Some(offset), _) => offset,
            (None, OffsetReset::Error) => Offset::ZERO,
            (None, OffsetReset::Latest) if !is_new => {
                start_offset(cluster, deadline, topic, *partition, Start::Latest, isolation).await?
            }
            (None, _) => start_offset(cluster, deadline, topic, *partition, Start::Earliest, isolation).await?,
        };
        Ok(Begin {
            assignment: Assignment {
                topic: topic.clone(),
                partition: *partition,
                topic_id: image.id,
                offset,
            },
            committed: found,
            is_open: found.is_none() && reset == OffsetReset::Error,
        })
    });
    futures::future::try_join_all(begins).await
}

/// The topics whose names match.
pub(super) async fn matching_topics(cluster: Arc<Cluster>, pattern: Regex) -> Result<PartitionCounts, Error> {
    let deadline = cluster.deadline("look for topics");
    let all = requests::metadata(None::<std::iter::Empty<&TopicName>>);
    let image = cluster.ask_any(deadline, &all, requests::read_metadata).await?;
    let is_meant = |name: &TopicName| !name.as_str().starts_with(INTERNAL) && pattern.is_match(name.as_str());
    let there = image.topics.into_iter().filter(|(name, _)| is_meant(name));
    let count =
        |(name, image): (TopicName, Result<Arc<TopicImage>, ErrorCode>)| Some((name, image.ok()?.partitions.len()));
    Ok(there.filter_map(count).collect())
}
