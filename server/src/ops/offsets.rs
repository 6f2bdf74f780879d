//! Offsets by time, and the deletion of old records: questions about partitions that are not about their records.

use futures::future::join_all;
use headwater_protocol::{
    error::ErrorCode,
    id::{CorrelationId, Offset, PartitionIndex, Timestamp, TopicId},
    schema::{DeleteRecordsRequest, DeleteRecordsResponseT, ListOffsetsRequest, ListOffsetsResponseT, ListedOffsetT},
};

use crate::{
    core::{Core, mesh::CoreMessage},
    model::{
        id::PartitionId,
        records::{ListItem, ListedItem},
        refusal::Refusal,
    },
    session::{native::reply, outbox::Response},
};

/// The timestamp that asks for the high watermark.
pub(crate) const LATEST: i64 = -1;
/// The timestamp that asks for the log start offset.
const EARLIEST: i64 = -2;

/// Reads a list-offsets request whose head has been verified.
pub(crate) fn read_list(request: ListOffsetsRequest<'_>) -> Result<Vec<ListItem>, Refusal> {
    let mut items = Vec::new();
    for partition in request.partitions().into_iter().flatten() {
        let index = PartitionIndex::try_from(partition.partition())
            .map_err(|error| Refusal::because(ErrorCode::InvalidRequest, &error))?;
        let id = PartitionId {
            topic: TopicId::from(partition.topic_id()),
            index,
        };
        items.push(ListItem {
            id,
            timestamp: partition.timestamp(),
        });
    }
    Ok(items)
}

/// Answers a list-offsets request, asking other cores for their partitions.
pub(crate) async fn answer_list(core: &Core, correlation_id: CorrelationId, items: Vec<ListItem>) -> Response {
    let listed = list(core, items).await.into_iter();
    let partitions = listed.map(|item| ListedOffsetT {
        topic_id: item.id.topic.into(),
        partition: item.id.index.get(),
        error: item.error as i16,
        timestamp: item.timestamp,
        offset: item.offset,
    });
    let head = ListOffsetsResponseT {
        error: 0,
        message: None,
        partitions: Some(partitions.collect()),
    };
    Response::of(reply::head(correlation_id, &head))
}

/// Asks each core for its partitions.
pub(crate) async fn list(core: &Core, items: Vec<ListItem>) -> Vec<ListedItem> {
    let groups = core.mesh.by_owner(items, |item| item.id);
    let answers = groups.into_iter().map(|(owner, items)| async move {
        if owner == core.id {
            return list_here(core, items).await;
        }
        let failed: Vec<_> = items
            .iter()
            .map(|item| not_listed(item.id, ErrorCode::NotLeaderOrFollower))
            .collect();
        core.mesh
            .ask(owner, |reply| CoreMessage::ListOffsets { items, reply })
            .await
            .unwrap_or(failed)
    });
    join_all(answers).await.into_iter().flatten().collect()
}

/// Answers for partitions of this core.
pub(crate) async fn list_here(core: &Core, items: Vec<ListItem>) -> Vec<ListedItem> {
    let mut listed = Vec::with_capacity(items.len());
    for item in items {
        listed.push(list_one(core, item).await);
    }
    listed
}

async fn list_one(core: &Core, item: ListItem) -> ListedItem {
    let partition = match core.partition(item.id) {
        Ok(partition) => partition,
        Err(refusal) => return not_listed(item.id, refusal.code),
    };
    let offsets = partition.log.offsets();
    let found = |timestamp, offset: i64| ListedItem {
        id: item.id,
        error: ErrorCode::None,
        timestamp,
        offset,
    };
    match item.timestamp {
        LATEST => found(-1, offsets.high_watermark.as_i64()),
        EARLIEST => found(-1, offsets.start.as_i64()),
        timestamp if timestamp < 0 => not_listed(item.id, ErrorCode::InvalidRequest),
        timestamp => match partition.log.offset_for_timestamp(Timestamp::new(timestamp)).await {
            Ok(Some((offset, timestamp))) => found(timestamp.get(), offset.as_i64()),
            Ok(None) => found(-1, -1),
            Err(error) => {
                core.metrics.log_failed(&error);
                not_listed(item.id, error.code())
            }
        },
    }
}

fn not_listed(id: PartitionId, error: ErrorCode) -> ListedItem {
    ListedItem {
        id,
        error,
        timestamp: -1,
        offset: -1,
    }
}

/// Answers a delete-records request.
pub(crate) async fn answer_delete(core: &Core, correlation_id: CorrelationId, request: DeleteCall) -> Response {
    let DeleteCall { id, before } = request;
    let owner = id.owner(core.mesh.len());
    let deleted = if owner == core.id {
        delete_here(core, id, before).await
    } else {
        let asked = core
            .mesh
            .ask(owner, |reply| CoreMessage::DeleteRecords { id, before, reply })
            .await;
        asked.unwrap_or_else(|| Err(Refusal::stopping()))
    };
    let head = match deleted {
        Ok(start) => DeleteRecordsResponseT {
            error: 0,
            message: None,
            log_start_offset: start.as_i64(),
        },
        Err(refusal) => DeleteRecordsResponseT {
            error: refusal.code as i16,
            message: Some(refusal.message),
            log_start_offset: -1,
        },
    };
    Response::of(reply::head(correlation_id, &head))
}

/// A delete-records request, read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeleteCall {
    id: PartitionId,
    before: i64,
}

/// Reads a delete-records request whose head has been verified.
pub(crate) fn read_delete(request: DeleteRecordsRequest<'_>) -> Result<DeleteCall, Refusal> {
    let topic = request.topic_id().map(TopicId::from);
    let topic = topic.ok_or_else(|| Refusal::new(ErrorCode::InvalidRequest, "the request names no topic id"))?;
    let index = PartitionIndex::try_from(request.partition())
        .map_err(|error| Refusal::because(ErrorCode::InvalidRequest, &error))?;
    Ok(DeleteCall {
        id: PartitionId { topic, index },
        before: request.offset(),
    })
}

/// Deletes records of a partition of this core; -1 deletes up to the high watermark. Returns the log start offset.
pub(crate) async fn delete_here(core: &Core, id: PartitionId, before: i64) -> Result<Offset, Refusal> {
    let partition = core.partition(id)?;
    partition.check_not_internal()?;
    let offsets = partition.log.offsets();
    let before = if before == -1 {
        Ok(offsets.high_watermark)
    } else {
        Offset::try_from(before)
    };
    let before = before.map_err(|error| Refusal::because(ErrorCode::OffsetOutOfRange, &error))?;
    if before > offsets.high_watermark {
        let message = format!(
            "offset {before} is beyond the high watermark {}",
            offsets.high_watermark
        );
        return Err(Refusal::new(ErrorCode::OffsetOutOfRange, message));
    }
    partition
        .log
        .delete_records(before)
        .await
        .map_err(|error| Refusal::because(error.code(), &error))
}
