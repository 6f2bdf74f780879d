//! Administration of consumer groups: who is in them, what they have committed, how far behind they are.
//!
//! What concerns one group goes to the core that runs it, which each call finds anew. A group without members is changed from
//! outside by the commit of a consumer that assigns itself: generation -1 and no member.

mod types;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use headwater_protocol::error::ErrorCode;
use headwater_protocol::head::Head;
use headwater_protocol::id::{Offset, PartitionIndex};
use headwater_protocol::topic::TopicName;

use super::{OffsetSpec, list_offset};
use crate::cluster::Cluster;
use crate::consumer::Isolation;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::requests::{self, ResponseError};

pub use types::{
    CommittedOffset, GroupDescription, GroupListing, GroupMember, GroupState, MemberPartitions, PartitionLag,
};

/// The administration of consumer groups; from [`Admin::groups`](crate::Admin::groups).
///
/// ```no_run
/// # async fn example(client: headwater_client::Client) -> Result<(), headwater_client::Error> {
/// let groups = client.admin().groups();
/// for group in groups.list().await? {
///     let behind: u64 = groups.lag(&group.group_id).await?.iter().filter_map(|lag| lag.lag()).sum();
///     println!("{} is {} and {behind} records behind", group.group_id, group.state);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Groups {
    cluster: Arc<Cluster>,
}

impl Groups {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    /// Lists the groups of all brokers, in the order of their ids.
    pub async fn list(&self) -> Result<Vec<GroupListing>, Error> {
        let deadline = self.cluster.deadline("list groups");
        let no_topics = requests::metadata(Some(std::iter::empty()));
        let image = self
            .cluster
            .ask_any(deadline, &no_topics, requests::read_metadata)
            .await?;
        let mut groups = Vec::new();
        for broker in &image.brokers {
            let attempt = || async move {
                let connection = self.cluster.connect(broker).await?;
                let frame = connection.call(&requests::list_groups()).await?;
                connection.read(&frame, requests::read_list_groups)
            };
            groups.extend(deadline.retry(self.cluster.backoff(), attempt).await?);
        }
        groups.sort_unstable_by(|a, b| a.group_id.cmp(&b.group_id));
        Ok(groups)
    }

    /// Describes a group and its members.
    ///
    /// # Errors
    /// [`Error::Broker`] with `GROUP_ID_NOT_FOUND` if there is no such group.
    pub async fn describe(&self, group_id: &str) -> Result<GroupDescription, Error> {
        let deadline = self.cluster.deadline("describe group");
        self.describe_by(deadline, group_id).await
    }

    async fn describe_by(&self, deadline: Deadline, group_id: &str) -> Result<GroupDescription, Error> {
        let read = |bytes: &[u8]| requests::read_describe_group(group_id, bytes);
        let described = self
            .ask(deadline, group_id, &requests::describe_group(group_id), read)
            .await?;
        // Kafka's brokers describe what they do not know as dead.
        if described.state == GroupState::Dead && described.members.is_empty() {
            return Err(Error::Broker {
                code: ErrorCode::GroupIdNotFound,
                message: Arc::from(format!("there is no group {group_id:?}")),
            });
        }
        Ok(described)
    }

    /// Deletes a group that has no members, with its committed offsets.
    ///
    /// # Errors
    /// [`Error::Broker`] with `NON_EMPTY_GROUP` while it has members, with `GROUP_ID_NOT_FOUND` if there is none. A lost
    /// connection can make a deletion that succeeded look like the latter.
    pub async fn delete(&self, group_id: &str) -> Result<(), Error> {
        let deadline = self.cluster.deadline("delete group");
        let request = requests::delete_group(group_id);
        self.ask(deadline, group_id, &request, requests::read_delete_group)
            .await
    }

    /// What a group has committed, in the order of topics and partitions; nothing for a group that does not exist.
    pub async fn committed_offsets(&self, group_id: &str) -> Result<Vec<CommittedOffset>, Error> {
        let deadline = self.cluster.deadline("fetch committed offsets");
        self.committed_by(deadline, group_id).await
    }

    async fn committed_by(&self, deadline: Deadline, group_id: &str) -> Result<Vec<CommittedOffset>, Error> {
        let request = requests::fetch_offsets(group_id);
        let mut offsets = self
            .ask(deadline, group_id, &request, requests::read_fetch_offsets)
            .await?;
        offsets.sort_unstable_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(offsets)
    }

    /// How far a group is behind, in each partition that it has committed an offset for or that one of its members has.
    ///
    /// # Errors
    /// [`Error::Broker`] with `GROUP_ID_NOT_FOUND` if there is no such group.
    pub async fn lag(&self, group_id: &str) -> Result<Vec<PartitionLag>, Error> {
        let deadline = self.cluster.deadline("look up the lag of a group");
        let description = self.describe_by(deadline, group_id).await?;
        let committed = self.committed_by(deadline, group_id).await?;
        let mut found: BTreeMap<(TopicName, PartitionIndex), PartitionLag> = BTreeMap::new();
        for CommittedOffset {
            topic,
            partition,
            offset,
            ..
        } in committed
        {
            let lag = PartitionLag::new(&topic, partition);
            found.entry((topic, partition)).or_insert(lag).committed = Some(offset);
        }
        for member in description.members {
            for of_topic in member.assignment.into_iter().flatten() {
                // What no topic can be called has no records to be behind.
                let Ok(topic) = TopicName::new(&of_topic.topic) else {
                    continue;
                };
                for partition in of_topic.partitions {
                    let lag = PartitionLag::new(&topic, partition);
                    let lag = found.entry((topic.clone(), partition)).or_insert(lag);
                    lag.member_id = Some(member.member_id.clone());
                }
            }
        }
        let mut topics: Vec<TopicName> = found.keys().map(|(topic, _)| topic.clone()).collect();
        topics.dedup();
        if !topics.is_empty() {
            deadline
                .retry(self.cluster.backoff(), || self.cluster.refresh(&topics))
                .await?;
        }
        let lags = found.into_values().map(async |mut lag| {
            (lag.log_start, lag.log_end) = self.ends(deadline, &lag.topic, lag.partition).await?.unzip();
            Ok(lag)
        });
        futures::future::try_join_all(lags).await
    }

    /// Where a partition begins and ends; `None` if it is not there.
    async fn ends(
        &self,
        deadline: Deadline,
        topic: &TopicName,
        partition: PartitionIndex,
    ) -> Result<Option<(Offset, Offset)>, Error> {
        match self.cluster.known_topic(topic) {
            Ok(image) if partition.as_usize() < image.partitions.len() => {}
            Ok(_) | Err(Error::UnknownTopic(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        let look_up = |spec| list_offset(&self.cluster, deadline, topic, partition, spec, Isolation::default());
        let (start, end) = futures::try_join!(look_up(OffsetSpec::Earliest), look_up(OffsetSpec::Latest))?;
        Ok(start.zip(end))
    }

    /// Sets committed offsets of a group that has no members, which is made if there is none.
    ///
    /// # Errors
    /// [`Error::Broker`] with `UNKNOWN_MEMBER_ID` or `NON_EMPTY_GROUP` while the group has members. The error of the first
    /// partition that was refused, which its message names; the others have been set.
    pub async fn reset_offsets(&self, group_id: &str, offsets: &[CommittedOffset]) -> Result<(), Error> {
        let deadline = self.cluster.deadline("reset offsets");
        let request = requests::commit_offsets(group_id, offsets);
        let read = |bytes: &[u8]| requests::read_commit_offsets(bytes, offsets.len());
        let errors = self.ask(deadline, group_id, &request, read).await?;
        let partitions = offsets.iter().map(|offset| (&offset.topic, offset.partition));
        first_refusal(partitions, &errors)
    }

    /// Forgets what a group has committed for these partitions. Nobody in the group may be subscribed to their topics.
    ///
    /// # Errors
    /// [`Error::Broker`] with `GROUP_SUBSCRIBED_TO_TOPIC` while somebody is. The error of the first partition that was
    /// refused, which its message names; the others have been forgotten.
    pub async fn delete_offsets(
        &self,
        group_id: &str,
        partitions: &[(TopicName, PartitionIndex)],
    ) -> Result<(), Error> {
        let deadline = self.cluster.deadline("delete offsets");
        // In the order in which the request has them, and the answer its errors.
        let mut partitions = partitions.to_vec();
        partitions.sort_unstable();
        let request = requests::delete_offsets(group_id, &partitions);
        let read = |bytes: &[u8]| requests::read_delete_offsets(bytes, partitions.len());
        let errors = self.ask(deadline, group_id, &request, read).await?;
        first_refusal(partitions.iter().map(|(topic, partition)| (topic, *partition)), &errors)
    }

    /// Asks the core that runs the group, which is looked for before every attempt.
    async fn ask<H: Head, T>(
        &self,
        deadline: Deadline,
        group_id: &str,
        request: &H,
        read: impl Fn(&[u8]) -> Result<T, ResponseError>,
    ) -> Result<T, Error> {
        let read = &read;
        let attempt = || async move {
            let any = self.cluster.any().await?;
            let frame = any.call(&requests::find_group(group_id)).await?;
            let address = any.read(&frame, requests::read_find_group)?;
            let connection = self.cluster.connect(&address).await?;
            let frame = connection.call(request).await?;
            connection.read(&frame, read)
        };
        deadline.retry(self.cluster.backoff(), attempt).await
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups").finish_non_exhaustive()
    }
}

/// The first error in a list of one for each partition.
fn first_refusal<'a>(
    partitions: impl Iterator<Item = (&'a TopicName, PartitionIndex)>,
    errors: &[ErrorCode],
) -> Result<(), Error> {
    let refused = partitions.zip(errors).find(|(_, code)| **code != ErrorCode::None);
    let Some(((topic, partition), code)) = refused else {
        return Ok(());
    };
    Err(Error::Broker {
        code: *code,
        message: Arc::from(format!(
            "partition {partition} of topic {topic}: {}",
            code.description()
        )),
    })
}
