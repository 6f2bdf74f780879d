//! Offsets of partitions, the deletion of old records, and ids of producers.

use std::collections::{BTreeMap, HashMap, HashSet};

use headwater_kafka::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest,
    ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    list_offsets_request::ListOffsetsPartition,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
};
use headwater_protocol::{
    error::ErrorCode,
    id::{LeaderEpoch, ProducerEpoch, ProducerId},
};

use super::{
    asking::{Asking, check_epoch, check_name, partition_of},
    transactions,
};
use crate::{
    model::{
        access::Operation,
        id::PartitionId,
        op::{Op, Outcome},
        records::{Isolation, ListItem, ListedItem, Sought},
    },
    ops::nodes::Places,
};

/// The timestamps that stand for something else, and from which version on they do.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const OF_LATEST_TIMESTAMP: (i64, i16) = (-3, 7);
const EARLIEST_LOCAL: (i64, i16) = (-4, 8);
/// Of records that were moved elsewhere, or will be: there are none.
const TIERED: [(i64, i16); 2] = [(-5, 9), (-6, 11)];

/// `read_committed`: the latest offset is the last stable one.
const READ_COMMITTED: i8 = 1;

/// From this version on offsets come with their epochs.
const EPOCHS_FROM: i16 = 4;

/// From this version on clients know that an offset is not available yet (KIP-207).
const NOT_AVAILABLE_FROM: i16 = 5;

/// What is asked of one partition, as far as it could be read.
enum Wanted {
    Ask(ListItem),
    /// It is known already.
    Told(ErrorCode),
}

pub(super) async fn list<'a>(asking: &Asking, request: ListOffsetsRequest<'a>) -> ListOffsetsResponse<'a> {
    // One that is named more than once is refused, once.
    let mut counts: HashMap<(&str, i32), usize> = HashMap::new();
    for topic in request.topics.iter().filter(|topic| check_name(&topic.name).is_ok()) {
        for partition in &topic.partitions {
            *counts.entry((&topic.name, partition.partition_index)).or_default() += 1;
        }
    }
    let twice: HashSet<(String, i32)> = counts
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|((topic, index), _)| (topic.to_owned(), index))
        .collect();
    let isolation = Isolation::of(u8::from(request.isolation_level == READ_COMMITTED));
    let mut items = Vec::new();
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let unknown = check_name(&topic.name).err();
        for partition in &topic.partitions {
            let found = if let Some(code) = unknown {
                Wanted::Told(code)
            } else if twice.is_empty() || !twice.contains(&(topic.name.to_string(), partition.partition_index)) {
                look_at(asking, &topic.name, partition, isolation)
            } else {
                Wanted::Told(ErrorCode::InvalidRequest)
            };
            if let Wanted::Ask(item) = &found {
                items.push(*item);
            }
            wanted.push(found);
        }
    }
    let listed = match asking.perform(Op::ListOffsets(items)).await {
        Ok(Outcome::Offsets(listed)) => listed,
        _ => Vec::new(),
    };
    let listed: HashMap<PartitionId, ListedItem> = listed.into_iter().map(|item| (item.id, item)).collect();
    let mut wanted = wanted.into_iter();
    let mut partition = |asked: ListOffsetsPartition| {
        let none = ListOffsetsPartitionResponse {
            partition_index: asked.partition_index,
            ..ListOffsetsPartitionResponse::default()
        };
        let told = |code| ListOffsetsPartitionResponse {
            error_code: asking.tells(code),
            ..none.clone()
        };
        match wanted.next() {
            Some(Wanted::Ask(item)) => match listed.get(&item.id) {
                Some(found) if found.error.is_none() => ListOffsetsPartitionResponse {
                    timestamp: found.timestamp,
                    offset: found.offset,
                    leader_epoch: if asking.version >= EPOCHS_FROM {
                        found.epoch.get()
                    } else {
                        -1
                    },
                    ..none
                },
                // Older clients do not know that code, and ask again after this one.
                Some(found) if found.error == ErrorCode::OffsetNotAvailable && asking.version < NOT_AVAILABLE_FROM => {
                    told(ErrorCode::LeaderNotAvailable)
                }
                found => told(found.map_or(ErrorCode::NotLeaderOrFollower, |found| found.error)),
            },
            Some(Wanted::Told(code)) => told(code),
            None => told(ErrorCode::UnknownServerError),
        }
    };
    let mut told_once = HashSet::new();
    let topics = request.topics.into_iter().map(|topic| {
        let mut is_first = |index: i32| {
            let key = (topic.name.to_string(), index);
            !twice.contains(&key) || told_once.insert(key)
        };
        let told = topic.partitions.into_iter().filter_map(|asked| {
            let index = asked.partition_index;
            let told = partition(asked);
            (twice.is_empty() || is_first(index)).then_some(told)
        });
        ListOffsetsTopicResponse {
            partitions: told.collect(),
            name: topic.name.clone(),
        }
    });
    ListOffsetsResponse {
        topics: topics.collect(),
        ..ListOffsetsResponse::default()
    }
}

/// A partition, of whose leader the client knows as much.
fn led(asking: &Asking, topic: &str, (index, epoch): (i32, i32)) -> Result<PartitionId, ErrorCode> {
    let image = asking.image();
    let id = partition_of(asking.find_topic(&image, topic, Operation::Describe)?, index)?;
    check_epoch(epoch, Places::of(asking.ops()).leader(id))?;
    Ok(id)
}

fn look_at(asking: &Asking, topic: &str, partition: &ListOffsetsPartition, isolation: Isolation) -> Wanted {
    let id = match led(
        asking,
        topic,
        (partition.partition_index, partition.current_leader_epoch),
    ) {
        Ok(id) => id,
        Err(code) => return Wanted::Told(code),
    };
    let is_one_of = |(timestamp, since): (i64, i16)| partition.timestamp == timestamp && asking.version >= since;
    let sought = match partition.timestamp {
        0.. | LATEST | EARLIEST => Sought::Timestamp(partition.timestamp),
        _ if is_one_of(OF_LATEST_TIMESTAMP) => Sought::LatestTimestamp,
        _ if is_one_of(EARLIEST_LOCAL) => Sought::Timestamp(EARLIEST),
        _ if TIERED.into_iter().any(is_one_of) => return Wanted::Told(ErrorCode::None),
        _ => return Wanted::Told(ErrorCode::UnsupportedVersion),
    };
    Wanted::Ask(ListItem { id, sought, isolation })
}

/// Where epochs end, for clients that look if what they have read is still there.
pub(super) async fn ends_of_epochs<'a>(
    asking: &Asking,
    request: OffsetForLeaderEpochRequest<'a>,
) -> OffsetForLeaderEpochResponse<'a> {
    let mut response = OffsetForLeaderEpochResponse::default();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for asked in topic.partitions {
            let index = asked.partition;
            let found = asking.part().await;
            let found = found.and_then(|()| led(asking, &topic.topic, (index, asked.current_leader_epoch)));
            let told = match found {
                Ok(id) => end_of_epoch(asking, id, asked.leader_epoch).await,
                Err(code) => Err(code),
            };
            let none = EpochEndOffset {
                partition: index,
                ..EpochEndOffset::default()
            };
            partitions.push(match told {
                Ok((leader_epoch, end_offset)) => EpochEndOffset {
                    leader_epoch,
                    end_offset,
                    ..none
                },
                Err(code) => EpochEndOffset {
                    error_code: asking.tells(code),
                    ..none
                },
            });
        }
        response.topics.push(OffsetForLeaderTopicResult {
            topic: topic.topic,
            partitions,
        });
    }
    response
}

/// The epoch that is known, and where it ends; an epoch that has not begun has no end.
async fn end_of_epoch(asking: &Asking, id: PartitionId, epoch: i32) -> Result<(i32, i64), ErrorCode> {
    let unknown = (-1, -1);
    let latest = Places::of(asking.ops()).leader(id).epoch;
    if epoch < 0 || epoch > latest.get() {
        return Ok(unknown);
    }
    let sought = Sought::EndOfEpoch(LeaderEpoch::new(epoch));
    let isolation = Isolation::Uncommitted;
    let item = ListItem { id, sought, isolation };
    match asking.perform(Op::ListOffsets(vec![item])).await {
        Ok(Outcome::Offsets(listed)) => match listed.first() {
            Some(found) if found.error.is_none() => Ok((found.epoch.get(), found.offset)),
            Some(found) => Err(found.error),
            None => Ok(unknown),
        },
        Ok(_) => Ok(unknown),
        Err(refusal) => Err(refusal.code),
    }
}

pub(super) async fn delete_records<'a>(
    asking: &Asking,
    request: DeleteRecordsRequest<'a>,
) -> DeleteRecordsResponse<'a> {
    let image = asking.image();
    let mut response = DeleteRecordsResponse::default();
    for topic in request.topics {
        let mut partitions = Vec::new();
        // Of one that is named twice the last counts.
        let asked: BTreeMap<i32, i64> = topic
            .partitions
            .iter()
            .map(|partition| (partition.partition_index, partition.offset))
            .collect();
        for (index, offset) in asked {
            let found = asking.part().await;
            let found = found.and_then(|()| {
                let topic = asking.find_topic(&image, &topic.name, Operation::Delete)?;
                partition_of(topic, index)
            });
            let deleted = match found {
                Ok(id) => {
                    let done = asking.perform(Op::DeleteRecords(id, offset)).await;
                    done.map_err(|refusal| refusal.code)
                }
                Err(code) => Err(code),
            };
            let (low_watermark, code) = match deleted {
                Ok(Outcome::RecordsDeleted(start)) => (start.as_i64(), ErrorCode::None),
                Ok(_) => (-1, ErrorCode::UnknownServerError),
                Err(code) => (-1, code),
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: index,
                low_watermark,
                error_code: asking.tells(code),
            });
        }
        response.topics.push(DeleteRecordsTopicResult {
            name: topic.name,
            partitions,
        });
    }
    response
}

pub(super) async fn init_producer_id(asking: &Asking, request: InitProducerIdRequest<'_>) -> InitProducerIdResponse {
    let refused = |code| InitProducerIdResponse {
        error_code: asking.tells(code),
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    match request.transactional_id.as_deref() {
        None => {}
        Some("") => return refused(ErrorCode::InvalidRequest),
        Some(id) => return transactions::init(asking, id, &request).await,
    }
    let (id, epoch) = (request.producer_id, request.producer_epoch);
    if (id == -1) != (epoch == -1) {
        return refused(ErrorCode::InvalidRequest);
    }
    let op = Op::InitProducerId(ProducerId::new(id), ProducerEpoch::new(epoch));
    match asking.perform(op).await {
        Ok(Outcome::Producer(id, epoch)) => InitProducerIdResponse {
            producer_id: id.get(),
            producer_epoch: epoch.get(),
            ..InitProducerIdResponse::default()
        },
        Ok(_) => refused(ErrorCode::UnknownServerError),
        Err(refusal) => refused(refusal.code),
    }
}
