//! Produce, fetch, and the offsets of records.

use headwater_protocol::head;
use headwater_protocol::id::{BrokerId, CoreId, Offset, PartitionIndex, Timestamp, TopicId};
use headwater_protocol::schema;

use super::{ResponseError, field, partition_error};
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
    /// The offset after the last record that consumers may see; `None` where the broker gave none.
    pub(crate) high_watermark: Option<Offset>,
    /// After the last record; `None` without records.
    pub(crate) next_offset: Option<Offset>,
    /// Whom to ask instead.
    pub(crate) preferred: Option<(BrokerId, CoreId)>,
}

pub(crate) fn read_fetch(bytes: &[u8]) -> Result<Vec<Fetched>, ResponseError> {
    let response = head::decode_response::<schema::FetchResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let partitions = response.partitions().unwrap_or_default();
    let mut preferred = response.preferred().unwrap_or_default().iter().peekable();
    (0..)
        .zip(partitions)
        .map(|(index, wire)| {
            let preferred = preferred.next_if(|preferred| preferred.index() == index);
            Ok(Fetched {
                topic: TopicId::from(wire.topic_id()),
                partition: PartitionIndex::try_from(wire.partition())?,
                result: partition_error(wire.error()),
                records_size: wire.records_size() as usize,
                log_start_offset: Offset::try_from(wire.log_start_offset()).ok(),
                high_watermark: Offset::try_from(wire.high_watermark()).ok(),
                next_offset: Offset::try_from(wire.next_offset()).ok(),
                preferred: preferred.map(|named| (BrokerId::new(named.broker()), CoreId::new(named.core()))),
            })
        })
        .collect()
}

pub(crate) fn list_offsets(topic: TopicId, partition: PartitionIndex, time: Timestamp) -> schema::ListOffsetsRequestT {
    let partition = schema::ListOffsetsPartitionT {
        topic_id: topic.into(),
        partition: partition.get(),
        timestamp: time.get(),
    };
    schema::ListOffsetsRequestT {
        partitions: Some(vec![partition]),
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
