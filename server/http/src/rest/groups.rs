//! Consumer groups from outside: who is in them, how far behind they are, and where they go on.

use axum::http::StatusCode;
use headwater_client::{
    CommittedOffset, ErrorCode, GroupDescription, GroupListing, Offset, OffsetSpec, PartitionIndex, PartitionLag,
    Timestamp, TopicName,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    data::bounded,
    extract::{Json, Path, Query},
    members::CommitOffset,
    page::{Page, PageQuery},
};
use crate::{caller::Caller, problem::Problem};

/// Partitions in one request.
const OFFSETS_MAX: usize = 10_000;

/// A group in a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct Group {
    /// Its id.
    group: String,
    /// How far it is in its life, in Kafka's words.
    #[schema(example = "Stable")]
    state: String,
    /// What its members are, such as `consumer`.
    protocol_type: String,
    /// How many members it has.
    members: usize,
}

impl From<GroupListing> for Group {
    fn from(group: GroupListing) -> Group {
        Group {
            state: group.state.to_string(),
            group: group.group_id,
            protocol_type: group.protocol_type,
            members: group.members,
        }
    }
}

/// A group.
#[derive(Serialize, ToSchema)]
pub(crate) struct DescribedGroup {
    /// Its id.
    group: String,
    /// How far it is in its life, in Kafka's words.
    state: String,
    /// What its members are.
    protocol_type: String,
    /// How partitions are assigned.
    protocol_name: String,
    /// One more for each rebalance.
    generation: i32,
    /// Its members.
    members: Vec<Member>,
}

/// A member of a group.
#[derive(Serialize, ToSchema)]
pub(crate) struct Member {
    /// Its id, given by the broker. It is not what REST calls a member that it keeps.
    member_id: String,
    /// Its own id, if it is a static member.
    instance_id: Option<String>,
    /// What its client calls itself.
    client_id: String,
    /// Where it runs.
    client_host: String,
    /// The partitions that it has; none if what it says is not Kafka's form.
    assignment: Option<Vec<MemberPartition>>,
}

/// A partition that a member has.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberPartition {
    /// The topic.
    topic: String,
    /// The partition.
    partition: i32,
}

impl From<GroupDescription> for DescribedGroup {
    fn from(group: GroupDescription) -> DescribedGroup {
        let members = group.members.into_iter().map(|member| {
            let flat = |topics: Vec<headwater_client::MemberPartitions>| {
                let all = topics.into_iter().flat_map(|of| {
                    let topic = of.topic;
                    let partitions = of.partitions.into_iter();
                    partitions.map(move |partition| MemberPartition {
                        topic: topic.clone(),
                        partition: partition.get(),
                    })
                });
                all.collect()
            };
            Member {
                member_id: member.member_id,
                instance_id: member.instance_id,
                client_id: member.client_id,
                client_host: member.client_host,
                assignment: member.assignment.map(flat),
            }
        });
        DescribedGroup {
            state: group.state.to_string(),
            members: members.collect(),
            group: group.group_id,
            protocol_type: group.protocol_type,
            protocol_name: group.protocol_name,
            generation: group.generation,
        }
    }
}

/// How far a group is in a partition.
#[derive(Serialize, ToSchema)]
pub(crate) struct Lag {
    /// The topic.
    topic: String,
    /// The partition.
    partition: i32,
    /// The offset of the record that the group would process next; none if nothing is committed.
    committed: Option<u64>,
    /// The first offset that is there; none if the partition is not.
    start_offset: Option<u64>,
    /// That of the record that becomes visible next.
    end_offset: Option<u64>,
    /// Records between the two; none if that is not known.
    lag: Option<u64>,
    /// The id of the member that has the partition.
    member_id: Option<String>,
}

impl From<PartitionLag> for Lag {
    fn from(lag: PartitionLag) -> Lag {
        Lag {
            lag: lag.lag(),
            topic: lag.topic.to_string(),
            partition: lag.partition.get(),
            committed: lag.committed.map(Offset::get),
            start_offset: lag.log_start.map(Offset::get),
            end_offset: lag.log_end.map(Offset::get),
            member_id: lag.member_id,
        }
    }
}

/// Where a group is to go on. Give `offsets`, or `topic` and one of `to` and `time`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reset {
    /// Offset by offset, 10000 at most.
    #[serde(default, deserialize_with = "some_bounded")]
    #[schema(max_items = 10_000, nullable = false)]
    offsets: Option<Vec<CommitOffset>>,
    /// All partitions of this topic.
    topic: Option<String>,
    /// To their first record, or behind their last.
    to: Option<Edge>,
    /// To their first record that is as late as this, in milliseconds since 1970; behind the last if none is.
    #[schema(minimum = 0)]
    time: Option<i64>,
    /// Only say what would be set.
    #[serde(default)]
    validate_only: bool,
}

fn some_bounded<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<CommitOffset>>, D::Error> {
    bounded::<_, _, OFFSETS_MAX>(deserializer).map(Some)
}

/// One end of a partition.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Edge {
    /// The first record.
    Earliest,
    /// Behind the last.
    Latest,
}

/// An offset that was set, or would be.
#[derive(Serialize, ToSchema)]
pub(crate) struct SetOffset {
    /// The topic.
    topic: String,
    /// The partition.
    partition: i32,
    /// The offset of the record that the group processes next.
    offset: u64,
}

/// Lists groups.
#[utoipa::path(get, path = "/v1/groups", tag = "groups", operation_id = "list_groups", params(PageQuery),
    responses((status = 200, description = "A page of them, by id", body = Page<Group>)))]
pub(crate) async fn list(caller: Caller, Query(page): Query<PageQuery>) -> Result<axum::Json<Page<Group>>, Problem> {
    let groups = caller.client().admin().groups().list().await?;
    page.cut(groups, |group| &group.group_id, Group::from).map(axum::Json)
}

/// Describes a group and its members.
#[utoipa::path(get, path = "/v1/groups/{group}", tag = "groups", operation_id = "describe_group",
    params(("group" = String, Path, description = "The group")),
    responses((status = 200, description = "The group", body = DescribedGroup)))]
pub(crate) async fn describe(caller: Caller, Path(group): Path<String>) -> Result<axum::Json<DescribedGroup>, Problem> {
    let described = caller.client().admin().groups().describe(&group).await?;
    Ok(axum::Json(described.into()))
}

/// Deletes a group that has no members, with its committed offsets.
#[utoipa::path(delete, path = "/v1/groups/{group}", tag = "groups", operation_id = "delete_group",
    params(("group" = String, Path, description = "The group")),
    responses((status = 204, description = "It is gone")))]
pub(crate) async fn delete(caller: Caller, Path(group): Path<String>) -> Result<StatusCode, Problem> {
    caller.client().admin().groups().delete(&group).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists what a group has committed, and how far behind it is.
#[utoipa::path(get, path = "/v1/groups/{group}/offsets", tag = "groups", operation_id = "group_offsets",
    params(("group" = String, Path, description = "The group")),
    responses((status = 200, description = "Its offsets", body = Vec<Lag>)))]
pub(crate) async fn offsets(caller: Caller, Path(group): Path<String>) -> Result<axum::Json<Vec<Lag>>, Problem> {
    let lags = caller.client().admin().groups().lag(&group).await?;
    Ok(axum::Json(lags.into_iter().map(Lag::from).collect()))
}

/// Sets where a group goes on that has no members. A group that is not there is made.
#[utoipa::path(put, path = "/v1/groups/{group}/offsets", tag = "groups", operation_id = "reset_offsets",
    params(("group" = String, Path, description = "The group")), request_body = Reset,
    responses((status = 200, description = "What was set, or would be", body = Vec<SetOffset>)))]
pub(crate) async fn reset(
    caller: Caller,
    Path(group): Path<String>,
    reset: Json<Reset>,
) -> Result<axum::Json<Vec<SetOffset>>, Problem> {
    let (validate_only, offsets) = (reset.value.validate_only, reset.value.wanted(&caller).await?);
    if !validate_only {
        caller.client().admin().groups().reset_offsets(&group, &offsets).await?;
    }
    let set = offsets.into_iter().map(|offset| SetOffset {
        topic: offset.topic.to_string(),
        partition: offset.partition.get(),
        offset: offset.offset.get(),
    });
    Ok(axum::Json(set.collect()))
}

impl Reset {
    /// The offsets that are meant.
    async fn wanted(self, caller: &Caller) -> Result<Vec<CommittedOffset>, Problem> {
        let unclear = || Problem::invalid("give offsets, or topic and one of to and time");
        let (topic, spec) = match (self.offsets, self.topic, self.to, self.time) {
            (Some(offsets), None, None, None) if !offsets.is_empty() => {
                return offsets.into_iter().map(CommitOffset::read).collect();
            }
            (None, Some(topic), Some(Edge::Earliest), None) => (topic, OffsetSpec::Earliest),
            (None, Some(topic), Some(Edge::Latest), None) => (topic, OffsetSpec::Latest),
            (None, Some(topic), None, Some(time)) if time >= 0 => (topic, OffsetSpec::Timestamp(Timestamp::new(time))),
            _ => return Err(unclear()),
        };
        let admin = caller.client().admin();
        let name = TopicName::new(&topic)
            .map_err(|error| Problem::new(ErrorCode::InvalidTopicException, error.to_string()))?;
        let found = admin.list_offsets(&topic, spec).await?;
        let ends = match spec {
            OffsetSpec::Timestamp(_) => admin.list_offsets(&topic, OffsetSpec::Latest).await?,
            _ => Vec::new(),
        };
        let set = found.into_iter().enumerate().map(|(number, offset)| {
            let end = || ends.get(number).copied().flatten();
            let offset = offset.or_else(end).unwrap_or_default();
            CommittedOffset::new(name.clone(), PartitionIndex::new(number as i32), offset)
        });
        Ok(set.collect())
    }
}
