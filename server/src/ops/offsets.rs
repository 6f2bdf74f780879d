//! Offsets by time, and the deletion of old records: questions about partitions that are not about their records.

use futures::future::join_all;
use headwater_engine::{EpochEnd, LogError};
use headwater_protocol::{
    error::ErrorCode,
    id::{LeaderEpoch, Offset, Timestamp},
};

use crate::{
    core::mesh::CoreMessage,
    model::{
        id::PartitionId,
        records::{Isolation, ListItem, ListedItem, Sought},
        refusal::Refusal,
    },
    partition::Partitions,
};

/// The timestamp that asks for the high watermark, or the last stable offset.
const LATEST: i64 = -1;
/// The timestamp that asks for the log start offset.
const EARLIEST: i64 = -2;

/// Asks each core for its partitions.
pub(crate) async fn list(partitions: &Partitions, items: Vec<ListItem>) -> Vec<ListedItem> {
    let core = &partitions.core;
    let parts = core.mesh.by_owner(items, |item| item.id);
    let answers = parts.into_iter().map(|(owner, items)| async move {
        if owner == core.id {
            return list_here(partitions, items).await;
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
pub(crate) async fn list_here(partitions: &Partitions, items: Vec<ListItem>) -> Vec<ListedItem> {
    let mut listed = Vec::with_capacity(items.len());
    for item in items {
        listed.push(list_one(partitions, item).await);
    }
    listed
}

async fn list_one(partitions: &Partitions, item: ListItem) -> ListedItem {
    let partition = match partitions.led(item.id) {
        Ok(partition) => partition,
        Err(refusal) => return not_listed(item.id, refusal.code),
    };
    let log = &partition.log;
    let offsets = log.offsets();
    let none = not_listed(item.id, ErrorCode::None);
    let at = |timestamp: i64, offset: Offset| ListedItem {
        timestamp,
        offset: offset.as_i64(),
        epoch: log
            .epoch_before(Offset::new(offset.get() + 1))
            .unwrap_or(LeaderEpoch::NONE),
        ..none
    };
    // What an earlier leader has shown must not seem to be gone.
    let is_known = partition.knows_watermark();
    let end = offsets.limit(item.isolation.limit());
    let sees_all = item.isolation == Isolation::Uncommitted;
    let is_below = |found: &Offset| sees_all || *found < log.offsets().last_stable;
    let later = not_listed(item.id, ErrorCode::OffsetNotAvailable);
    let found = |found: Result<Option<(Offset, Timestamp)>, LogError>| match found {
        Ok(Some((offset, timestamp))) if is_below(&offset) => at(timestamp.get(), offset),
        Ok(_) if !is_known => later,
        Ok(_) => none,
        Err(error) => {
            partitions.core.metrics.log_failed(&error);
            not_listed(item.id, error.code())
        }
    };
    match item.sought {
        Sought::Timestamp(LATEST) | Sought::LatestTimestamp if !is_known => later,
        Sought::Timestamp(LATEST) => at(-1, end),
        Sought::Timestamp(EARLIEST) => at(-1, offsets.start),
        Sought::Timestamp(timestamp) if timestamp < 0 => not_listed(item.id, ErrorCode::InvalidRequest),
        Sought::Timestamp(timestamp) => found(log.offset_for_timestamp(Timestamp::new(timestamp)).await),
        Sought::LatestTimestamp => found(log.offset_of_latest_timestamp().await),
        Sought::EndOfEpoch(epoch) => {
            let EpochEnd { epoch, end } = log.end_of_epoch(epoch);
            ListedItem {
                offset: end.as_i64(),
                epoch,
                ..none
            }
        }
    }
}

fn not_listed(id: PartitionId, error: ErrorCode) -> ListedItem {
    ListedItem {
        id,
        error,
        timestamp: -1,
        offset: -1,
        epoch: LeaderEpoch::NONE,
    }
}

/// Deletes records, on whichever core has them. Returns the log start offset.
pub(super) async fn delete(partitions: &Partitions, id: PartitionId, before: i64) -> Result<Offset, Refusal> {
    let core = &partitions.core;
    let owner = id.owner(core.mesh.len());
    if owner == core.id {
        return delete_here(partitions, id, before).await;
    }
    let asked = core
        .mesh
        .ask(owner, |reply| CoreMessage::DeleteRecords { id, before, reply });
    asked.await.unwrap_or_else(|| Err(Refusal::stopping()))
}

/// Deletes records of a partition of this core; -1 deletes up to the high watermark. Returns the log start offset.
pub(crate) async fn delete_here(partitions: &Partitions, id: PartitionId, before: i64) -> Result<Offset, Refusal> {
    let partition = partitions.led(id)?;
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
    let deleted = partition.log.delete_records(before).await;
    partition.has_less();
    deleted.map_err(|error| Refusal::because(error.code(), &error))
}
