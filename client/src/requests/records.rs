//! Produce, fetch, and the offsets of records.

use std::sync::Arc;

use headwater_protocol::batch::BatchHeader;
use headwater_protocol::error::ErrorCode;
use headwater_protocol::head;
use headwater_protocol::id::{BrokerId, CoreId, Offset, PartitionIndex, ProducerId, Timestamp, TopicId};
use headwater_protocol::schema;

use super::{ResponseError, field, partition_error};
use crate::consumer::Isolation;
use crate::error::Error;
use crate::producer::Acks;

/// The timestamp that asks for the high watermark (Kafka's `ListOffsetsRequest.LATEST_TIMESTAMP`).
pub(crate) const LATEST_TIMESTAMP: Timestamp = Timestamp::new(-1);

pub(crate) fn produce(
    topic: TopicId,
    partition: PartitionIndex,
    acks: Acks,
    timeout_ms: u32,
) -> schema::ProduceRequestT {
    schema::ProduceRequestT {
        topic_id: Some(topic.into()),
        partition: partition.get(),
        acks: acks.wire(),
        timeout_ms,
    }
}

/// Where a batch ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Produced {
    /// Offset of its first record.
    pub(crate) base_offset: Offset,
    /// The broker's time, if the topic stamps records with it.
    pub(crate) append_time: Option<Timestamp>,
}

pub(crate) fn read_produce(bytes: &[u8]) -> Result<Produced, ResponseError> {
    let response = head::decode_response::<schema::ProduceResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let append_time = Timestamp::new(response.log_append_time());
    Ok(Produced {
        base_offset: Offset::try_from(response.base_offset())?,
        append_time: append_time.is_some().then_some(append_time),
    })
}

/// Which replica may answer for a partition, as the schema numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    Leader = 0,
    /// The leader, which may name one in the consumer's rack instead.
    Near = 1,
    /// A follower as well, which the leader has named.
    Follower = 2,
}

/// One partition to fetch from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchSlot {
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionIndex,
    pub(crate) offset: Offset,
    pub(crate) bytes_max: u32,
    pub(crate) reads: Reads,
}

/// For how many bytes a fetch waits, and for how long, and how many it takes; where the consumer is.
#[derive(Debug)]
pub(crate) struct FetchTerms<'a> {
    pub(crate) wait_ms_max: u32,
    pub(crate) bytes_min: u32,
    pub(crate) bytes_max: u32,
    pub(crate) rack: Option<&'a str>,
    pub(crate) isolation: Isolation,
}

pub(crate) fn fetch(slots: &[FetchSlot], terms: &FetchTerms<'_>) -> schema::FetchRequestT {
    let partitions = slots.iter().map(|slot| schema::FetchPartitionT {
        topic_id: slot.topic.into(),
        partition: slot.partition.get(),
        max_bytes: slot.bytes_max,
        offset: slot.offset.as_i64(),
    });
    schema::FetchRequestT {
        max_wait_ms: terms.wait_ms_max,
        min_bytes: terms.bytes_min,
        max_bytes: terms.bytes_max,
        partitions: Some(partitions.collect()),
        rack: terms.rack.map(str::to_owned),
        reads: terms
            .rack
            .map(|_rack| slots.iter().map(|slot| slot.reads as u8).collect()),
        isolation: terms.isolation.wire(),
    }
}

/// A transaction that was aborted: what its producer has appended from the first to the last offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    producer: ProducerId,
    first: Offset,
    last: Offset,
}

impl Aborted {
    /// Whether the batch is part of it.
    pub(crate) fn holds(&self, header: BatchHeader<'_>) -> bool {
        header.is_transactional()
            && header.producer_id() == self.producer
            && (self.first..=self.last).contains(&header.base_offset())
    }
}

/// One partition of a fetch response.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionIndex,
    pub(crate) result: Result<(), Error>,
    /// Bytes of records in the payload, after those of the partitions before it.
    pub(crate) records_size: usize,
    /// `None` where the broker gave none.
    pub(crate) log_start_offset: Option<Offset>,
    /// The offset after the last record that this consumer may see; `None` where the broker gave none.
    pub(crate) high_watermark: Option<Offset>,
    /// After the last record; `None` without records.
    pub(crate) next_offset: Option<Offset>,
    /// Whom to ask instead.
    pub(crate) preferred: Option<(BrokerId, CoreId)>,
    /// What is not to be handed out; none for who reads what is not committed.
    pub(crate) aborted: Arc<[Aborted]>,
}

pub(crate) fn read_fetch(bytes: &[u8], isolation: Isolation) -> Result<Vec<Fetched>, ResponseError> {
    let response = head::decode_response::<schema::FetchResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let partitions = response.partitions().unwrap_or_default();
    let mut preferred = response.preferred().unwrap_or_default().iter().peekable();
    let mut aborted = response.aborted().unwrap_or_default().iter().peekable();
    let last_stable = response.last_stable();
    // One that knows of no transactions would give whatever there is.
    let is_understood = response.isolation() == isolation.wire();
    let none: Arc<[Aborted]> = Arc::from([]);
    (0..)
        .zip(partitions)
        .map(|(index, wire)| {
            let preferred = preferred.next_if(|preferred| preferred.index() == index);
            let mut aborted_here = Vec::new();
            while let Some(one) = aborted.next_if(|one| one.index() == index) {
                aborted_here.push(Aborted {
                    producer: ProducerId::new(one.producer_id()),
                    first: Offset::try_from(one.first_offset())?,
                    last: Offset::try_from(one.last_offset())?,
                });
            }
            let end = match (isolation, last_stable) {
                (Isolation::ReadCommitted, Some(last_stable)) if (index as usize) < last_stable.len() => {
                    last_stable.get(index as usize)
                }
                _ => wire.high_watermark(),
            };
            let understood = if is_understood {
                Ok(())
            } else {
                let message = "the broker knows of no transactions: read_committed needs a newer one";
                Error::check(ErrorCode::UnsupportedVersion.as_i16(), Some(message))
            };
            Ok(Fetched {
                topic: TopicId::from(wire.topic_id()),
                partition: PartitionIndex::try_from(wire.partition())?,
                result: understood.and(partition_error(wire.error())),
                records_size: wire.records_size() as usize,
                log_start_offset: Offset::try_from(wire.log_start_offset()).ok(),
                high_watermark: Offset::try_from(end).ok(),
                next_offset: Offset::try_from(wire.next_offset()).ok(),
                preferred: preferred.map(|named| (BrokerId::new(named.broker()), CoreId::new(named.core()))),
                aborted: if aborted_here.is_empty() {
                    Arc::clone(&none)
                } else {
                    Arc::from(aborted_here)
                },
            })
        })
        .collect()
}

pub(crate) fn list_offsets(
    topic: TopicId,
    partition: PartitionIndex,
    time: Timestamp,
    isolation: Isolation,
) -> schema::ListOffsetsRequestT {
    let partition = schema::ListOffsetsPartitionT {
        topic_id: topic.into(),
        partition: partition.get(),
        timestamp: time.get(),
    };
    schema::ListOffsetsRequestT {
        partitions: Some(vec![partition]),
        isolation: isolation.wire(),
    }
}

/// The answer for one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) offset: Offset,
    pub(crate) timestamp: Timestamp,
}

/// `None`: no record is as late as the timestamp asked for.
pub(crate) fn read_list_offsets(bytes: &[u8]) -> Result<Option<Listed>, ResponseError> {
    let response = head::decode_response::<schema::ListOffsetsResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let partitions = response.partitions().unwrap_or_default();
    if partitions.len() != 1 {
        return Err(field(
            "not one partition in the answer to a list-offsets request for one",
        ));
    }
    let listed = partitions.get(0);
    partition_error(listed.error())?;
    let timestamp = Timestamp::new(listed.timestamp());
    Ok(Offset::try_from(listed.offset())
        .ok()
        .map(|offset| Listed { offset, timestamp }))
}

/// `before` of `None`: everything.
pub(crate) fn delete_records(
    topic: TopicId,
    partition: PartitionIndex,
    before: Option<Offset>,
) -> schema::DeleteRecordsRequestT {
    schema::DeleteRecordsRequestT {
        topic_id: Some(topic.into()),
        partition: partition.get(),
        offset: before.map_or(-1, Offset::as_i64),
    }
}

/// The log start offset after the deletion.
pub(crate) fn read_delete_records(bytes: &[u8]) -> Result<Offset, ResponseError> {
    let response = head::decode_response::<schema::DeleteRecordsResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    Ok(Offset::try_from(response.log_start_offset())?)
}
