//! Records, their offsets and their producers: heads into what is asked, and what became of it into heads.

use std::{sync::Arc, time::Duration};

use flatbuffers::FlatBufferBuilder;
use headwater_protocol::{
    error::ErrorCode,
    frame::Api,
    head::{Head, ResponseHead},
    id::{PartitionIndex, ProducerEpoch, ProducerId, TopicId},
    schema::{
        AbortedTransaction, DeleteRecordsRequest, FetchRequest, FetchResponse, FetchResponseArgs, FetchedPartition,
        InitProducerIdRequest, ListOffsetsRequest, ListOffsetsResponseT, ListedOffsetT, PreferredReplica,
        ProduceRequest, ProduceResponseT, Uuid,
    },
};

use super::read::read;
use crate::{
    model::{
        id::PartitionId,
        op::Op,
        records::{
            Acks, FetchCall, FetchItem, FetchedItem, Isolation, ListItem, ListedItem, Produce, Produced, Reads, Sought,
        },
        refusal::Refusal,
    },
    ops::fetch::Records,
    session::native::reply::Reply,
};

/// A produce request, read.
pub(in crate::session::native) struct Asked<'a> {
    /// The client wants to know what becomes of it.
    pub(in crate::session::native) is_answered: bool,
    pub(in crate::session::native) produce: Result<Produce<'a>, Refusal>,
}

/// No producer waits longer for replicas, which bounds for how long they keep what its request holds.
const REPLICAS_WAIT_MAX: Duration = Duration::from_mins(5);

pub(in crate::session::native) fn read_produce<'a>(bytes: &[u8], records: &'a [u8]) -> Result<Asked<'a>, Refusal> {
    let head = read::<ProduceRequest>(bytes)?;
    let acks = match head.acks() {
        0 => Ok(Acks::None),
        1 => Ok(Acks::Leader),
        -1 => Ok(Acks::All {
            within: Duration::from_millis(head.timeout_ms().into()).min(REPLICAS_WAIT_MAX),
        }),
        other => {
            let message = format!("acks is {other}; it may be 0 (none), 1 (leader) or -1 (all)");
            Err(Refusal::new(ErrorCode::InvalidRequiredAcks, message))
        }
    };
    let is_answered = acks != Ok(Acks::None);
    let produce = acks.and_then(|acks| {
        let id = partition_id(&head)?;
        Ok(Produce {
            id,
            acks,
            records,
            begins_anywhere: false,
            is_within: false,
        })
    });
    Ok(Asked { is_answered, produce })
}

fn partition_id(head: &ProduceRequest<'_>) -> Result<PartitionId, Refusal> {
    let topic = head.topic_id().map(TopicId::from);
    let topic = topic.ok_or_else(|| Refusal::new(ErrorCode::InvalidRequest, "a produce request names a topic id"))?;
    let index = PartitionIndex::try_from(head.partition())
        .map_err(|error| Refusal::because(ErrorCode::UnknownTopicOrPartition, &error))?;
    Ok(PartitionId { topic, index })
}

pub(in crate::session::native) fn produced(reply: Reply, produced: Result<Produced, Refusal>) {
    reply.head(&match produced {
        Ok(produced) => ProduceResponseT {
            error: ErrorCode::None as i16,
            message: None,
            base_offset: produced.base_offset.as_i64(),
            log_append_time: produced.append_time.get(),
            log_start_offset: produced.log_start_offset.as_i64(),
        },
        Err(refusal) => ProduceResponseT::failed(refusal.code, refusal.message),
    });
}

/// Bytes in the name of a rack, as for brokers.
const RACK_LEN_MAX: usize = 255;

pub(in crate::session::native) fn read_fetch(bytes: &[u8]) -> Result<FetchCall, Refusal> {
    let head = read::<FetchRequest>(bytes)?;
    let partitions = head.partitions();
    let mut items = Vec::with_capacity(partitions.map_or(0, |partitions| partitions.len()));
    let rack = head.rack();
    if rack.is_some_and(|rack| rack.len() > RACK_LEN_MAX) {
        let message = format!("the name of a rack is longer than {RACK_LEN_MAX} bytes");
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    let rack: Option<Arc<str>> = rack.map(Arc::from);
    let mut reads = head.reads().unwrap_or_default().iter();
    for (place, partition) in (0..).zip(partitions.into_iter().flatten()) {
        items.push(FetchItem {
            place,
            id: place_of(partition.topic_id(), partition.partition())?,
            offset: partition.offset(),
            max_bytes: u64::from(partition.max_bytes()),
            isolation: Isolation::of(head.isolation()),
            reads: match (reads.next(), &rack) {
                (Some(1), Some(rack)) => Reads::Near {
                    rack: Arc::clone(rack),
                    speaks_kafka: false,
                },
                (Some(2), _) => Reads::Follower,
                _ => Reads::Leader,
            },
            last_epoch: None,
        });
    }
    Ok(FetchCall {
        items,
        min_bytes: u64::from(head.min_bytes()),
        max_bytes: u64::from(head.max_bytes()),
        wait: Duration::from_millis(head.max_wait_ms().into()),
    })
}

fn place_of(topic: &Uuid, partition: i32) -> Result<PartitionId, Refusal> {
    let index =
        PartitionIndex::try_from(partition).map_err(|error| Refusal::because(ErrorCode::InvalidRequest, &error))?;
    Ok(PartitionId {
        topic: TopicId::from(topic),
        index,
    })
}

/// Answers a fetch request with the records that were found.
pub(in crate::session::native) fn fetched(reply: Reply, isolation: Isolation, mut found: Vec<FetchedItem<Records>>) {
    let failed = found.iter().find(|item| !item.error.is_none());
    let error = failed.map_or(ErrorCode::None, |item| item.error);
    let size = found.iter().map(|item| item.size).sum();
    let records = found.iter_mut().filter_map(|item| item.records.take()).collect();
    let head = Fetched {
        found: &found,
        isolation,
    };
    reply.send(&head, error, size, records);
}

/// The head of a fetch response, written without a copy between.
struct Fetched<'a> {
    found: &'a [FetchedItem<Records>],
    isolation: Isolation,
}

impl Head for Fetched<'_> {
    const API: Api = Api::Fetch;

    fn finish(&self, builder: &mut FlatBufferBuilder<'_>) {
        let partition = |item: &FetchedItem<Records>| {
            FetchedPartition::new(
                &Uuid::from(item.id.topic),
                item.id.index.get(),
                item.error as i16,
                item.size as u32,
                item.high_watermark,
                item.log_start_offset,
                item.next_offset,
            )
        };
        let partitions = builder.create_vector_from_iter(self.found.iter().map(partition));
        let preferred = (0..).zip(self.found).filter_map(|(index, item)| {
            let (broker, core) = item.preferred?;
            Some(PreferredReplica::new(index, broker.get(), core.get()))
        });
        let preferred: Vec<PreferredReplica> = preferred.collect();
        let aborted = (0..).zip(self.found).flat_map(|(index, item)| {
            item.aborted.iter().map(move |aborted| {
                let (first, last) = (aborted.first_offset.as_i64(), aborted.last_offset.as_i64());
                AbortedTransaction::new(index, aborted.producer_id.get(), first, last)
            })
        });
        let aborted: Vec<AbortedTransaction> = aborted.collect();
        let last_stable: Vec<i64> = match self.isolation {
            Isolation::Uncommitted => Vec::new(),
            Isolation::Committed => self.found.iter().map(|item| item.last_stable).collect(),
        };
        let head = FetchResponseArgs {
            error: ErrorCode::None as i16,
            message: None,
            partitions: Some(partitions),
            // Few fetches have any.
            preferred: (!preferred.is_empty()).then(|| builder.create_vector(&preferred)),
            isolation: self.isolation.number(),
            aborted: (!aborted.is_empty()).then(|| builder.create_vector(&aborted)),
            last_stable: (!last_stable.is_empty()).then(|| builder.create_vector(&last_stable)),
        };
        let root = FetchResponse::create(builder, &head);
        builder.finish_minimal(root);
    }
}

pub(super) fn read_list_offsets(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<ListOffsetsRequest>(bytes)?;
    let isolation = Isolation::of(head.isolation());
    let item = |partition: &headwater_protocol::schema::ListOffsetsPartition| {
        Ok(ListItem {
            id: place_of(partition.topic_id(), partition.partition())?,
            sought: Sought::Timestamp(partition.timestamp()),
            isolation,
        })
    };
    let items = head.partitions().into_iter().flatten().map(item);
    items.collect::<Result<Vec<_>, Refusal>>().map(Op::ListOffsets)
}

pub(super) fn listed(listed: Vec<ListedItem>) -> ListOffsetsResponseT {
    let partition = |item: ListedItem| ListedOffsetT {
        topic_id: item.id.topic.into(),
        partition: item.id.index.get(),
        error: item.error as i16,
        timestamp: item.timestamp,
        offset: item.offset,
    };
    ListOffsetsResponseT {
        partitions: Some(listed.into_iter().map(partition).collect()),
        ..ListOffsetsResponseT::default()
    }
}

pub(super) fn read_delete_records(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<DeleteRecordsRequest>(bytes)?;
    let topic = head
        .topic_id()
        .ok_or_else(|| Refusal::new(ErrorCode::InvalidRequest, "the request names no topic id"))?;
    Ok(Op::DeleteRecords(place_of(topic, head.partition())?, head.offset()))
}

pub(super) fn read_init_producer_id(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<InitProducerIdRequest>(bytes)?;
    let (id, epoch) = (head.producer_id(), head.producer_epoch());
    Ok(Op::InitProducerId(ProducerId::new(id), ProducerEpoch::new(epoch)))
}
