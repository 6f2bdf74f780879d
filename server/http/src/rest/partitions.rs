//! Partitions: who has them, how far they go, and the deletion of old records.

use headwater_client::{BrokerId, ErrorCode, Offset, OffsetSpec, PartitionDescription, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    extract::{Path, Query},
    records::read::Place,
};
use crate::{caller::Caller, problem::Problem};

/// A partition.
#[derive(Serialize, ToSchema)]
pub(crate) struct Partition {
    /// Its number.
    partition: i32,
    /// The broker that leads it; none if nobody does.
    leader: Option<i32>,
    /// The leader's term of office.
    leader_epoch: i32,
    /// The core of that broker that owns it.
    core: u16,
    /// The brokers that have it. The first leads it when it can.
    replicas: Vec<i32>,
    /// Those that are in sync.
    isr: Vec<i32>,
    /// The first offset that is there.
    start_offset: u64,
    /// The first offset that readers do not see yet.
    high_watermark: u64,
    /// The offset that the next record gets.
    end_offset: u64,
    /// Bytes of its segments on the leader's disk.
    size_bytes: u64,
    /// Why it cannot be served; offsets mean nothing then.
    error: Option<Problem>,
}

pub(crate) fn numbers(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.get()).collect()
}

impl From<PartitionDescription> for Partition {
    fn from(partition: PartitionDescription) -> Partition {
        Partition {
            partition: partition.partition.get(),
            leader: Some(partition.leader.get()).filter(|leader| *leader >= 0),
            leader_epoch: partition.leader_epoch.get(),
            core: partition.core.get(),
            replicas: numbers(&partition.replicas.replicas),
            isr: numbers(&partition.replicas.isr),
            start_offset: partition.log_start_offset.get(),
            high_watermark: partition.high_watermark.get(),
            end_offset: partition.log_end_offset.get(),
            size_bytes: partition.size_bytes,
            error: partition.error.map(Problem::from),
        }
    }
}

/// Offsets of a partition.
#[derive(Serialize, ToSchema)]
pub(crate) struct Offsets {
    /// The first that is there.
    earliest: u64,
    /// That of the record that becomes visible next.
    latest: u64,
    /// That of the first record that is as late as `time` says; none if no record is, or no time was said.
    at: Option<u64>,
}

/// Which time is meant.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TimeQuery {
    /// A time, in milliseconds since 1970.
    #[param(minimum = 0)]
    time: Option<i64>,
}

/// Which records are meant.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct BeforeQuery {
    /// The first offset that stays.
    before: u64,
}

/// Where a partition begins.
#[derive(Serialize, ToSchema)]
pub(crate) struct Start {
    /// The first offset that is there.
    start_offset: u64,
}

/// Lists the partitions of a topic.
#[utoipa::path(get, path = "/v1/topics/{topic}/partitions", tag = "partitions", operation_id = "list_partitions",
    params(("topic" = String, Path, description = "The topic")),
    responses((status = 200, description = "Its partitions", body = Vec<Partition>)))]
pub(crate) async fn list(caller: Caller, Path(topic): Path<String>) -> Result<axum::Json<Vec<Partition>>, Problem> {
    let described = caller.client().admin().describe_topic(&topic).await?;
    Ok(axum::Json(
        described.partitions.into_iter().map(Partition::from).collect(),
    ))
}

/// Describes a partition.
#[utoipa::path(get, path = "/v1/topics/{topic}/partitions/{partition}", tag = "partitions", operation_id = "describe_partition",
    params(("topic" = String, Path, description = "The topic"), ("partition" = i32, Path, description = "The partition")),
    responses((status = 200, description = "The partition", body = Partition)))]
pub(crate) async fn describe(
    caller: Caller,
    Path((topic, partition)): Path<(String, i32)>,
) -> Result<axum::Json<Partition>, Problem> {
    let described = caller.client().admin().describe_topic(&topic).await?;
    let mut partitions = described.partitions.into_iter();
    let found = partitions.find(|found| found.partition.get() == partition);
    let absent = || {
        let detail = format!("topic {topic} has no partition {partition}");
        Problem::new(ErrorCode::UnknownTopicOrPartition, detail)
    };
    found.map(|found| axum::Json(found.into())).ok_or_else(absent)
}

/// Looks up offsets of a partition.
#[utoipa::path(get, path = "/v1/topics/{topic}/partitions/{partition}/offsets", tag = "partitions", operation_id = "offsets",
    params(("topic" = String, Path, description = "The topic"), ("partition" = i32, Path, description = "The partition"), TimeQuery),
    responses((status = 200, description = "The offsets", body = Offsets)))]
pub(crate) async fn offsets(
    caller: Caller,
    Path((topic, partition)): Path<(String, i32)>,
    Query(query): Query<TimeQuery>,
) -> Result<axum::Json<Offsets>, Problem> {
    let Place { topic, partition } = Place::new(topic, partition)?;
    let admin = caller.client().admin();
    let look_up = async |spec| admin.list_offset(&topic, partition, spec).await;
    let at = match query.time {
        Some(time) if time < 0 => return Err(Problem::invalid("time is before 1970")),
        Some(time) => look_up(OffsetSpec::Timestamp(Timestamp::new(time))).await?,
        None => None,
    };
    Ok(axum::Json(Offsets {
        earliest: look_up(OffsetSpec::Earliest).await?.unwrap_or_default().get(),
        latest: look_up(OffsetSpec::Latest).await?.unwrap_or_default().get(),
        at: at.map(Offset::get),
    }))
}

/// Deletes the records before an offset.
#[utoipa::path(delete, path = "/v1/topics/{topic}/partitions/{partition}/records", tag = "partitions", operation_id = "delete_records",
    params(("topic" = String, Path, description = "The topic"), ("partition" = i32, Path, description = "The partition"), BeforeQuery),
    responses((status = 200, description = "They are gone", body = Start)))]
pub(crate) async fn delete_records(
    caller: Caller,
    Path((topic, partition)): Path<(String, i32)>,
    Query(query): Query<BeforeQuery>,
) -> Result<axum::Json<Start>, Problem> {
    let Place { topic, partition } = Place::new(topic, partition)?;
    if query.before > i64::MAX as u64 {
        return Err(Problem::invalid("before is too large"));
    }
    let before = Some(Offset::new(query.before));
    let start = caller
        .client()
        .admin()
        .delete_records(&topic, partition, before)
        .await?;
    Ok(axum::Json(Start {
        start_offset: start.get(),
    }))
}
