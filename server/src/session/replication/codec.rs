//! Fetches and answers, from heads and into heads. A number that has no meaning is refused before anything is done with the frame.

use flatbuffers::FlatBufferBuilder;
use headwater_engine::EpochEnd;
use headwater_protocol::{
    error::ErrorCode,
    head,
    id::{LeaderEpoch, Offset, PartitionIndex, TopicId},
    schema::{
        ReplicaAnswer, ReplicaFetch, ReplicaFetchRequest, ReplicaFetchRequestArgs, ReplicaFetchResponse,
        ReplicaFetchResponseArgs, Uuid,
    },
};

use super::{
    error::PeerError,
    frame::{Kind, begin, finished},
};
use crate::{
    model::id::PartitionId,
    partition::replication::{Answer, Fetch, Held, Place, Progress},
};

/// Partitions that a frame speaks of.
pub(super) const PARTITIONS_MAX: usize = 16 * 1024;

const RECORDS: u8 = 0;
const DIVERGING: u8 = 1;
const BEGIN_AGAIN: u8 = 2;
const REFUSED: u8 = 3;

/// What a follower says of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) id: PartitionId,
    pub(crate) fetch: Fetch,
    /// Bytes of records that it takes.
    pub(crate) max_bytes: u32,
}

/// What a leader says of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told<R> {
    pub(crate) id: PartitionId,
    /// Of the fetch.
    pub(crate) place: Place,
    pub(crate) answer: Result<Answer, ErrorCode>,
    /// The records, or their size in bytes.
    pub(crate) records: R,
}

/// A frame of fetches, as many as one may hold at the most.
pub(crate) fn write_fetches(asked: &[Asked]) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let rows = asked.iter().map(|asked| {
        let Fetch { place, held } = asked.fetch;
        ReplicaFetch::new(
            &Uuid::from(asked.id.topic),
            asked.id.index.get(),
            asked.max_bytes,
            place.leader_epoch.get(),
            place.last_epoch.get(),
            place.offset.as_i64(),
            held.received.as_i64(),
            held.durable.as_i64(),
        )
    });
    let rows: Vec<ReplicaFetch> = rows.collect();
    let fetches = Some(builder.create_vector(&rows));
    let root = ReplicaFetchRequest::create(&mut builder, &ReplicaFetchRequestArgs { fetches });
    begin(Kind::Fetch, &finished(builder, root), 0)
}

/// Reads the head of a frame of fetches.
pub(crate) fn read_fetches(head: &[u8], records: usize) -> Result<Vec<Asked>, PeerError> {
    if records > 0 {
        return Err(PeerError::Records { said: 0, has: records });
    }
    let request = head::decode::<ReplicaFetchRequest>(head)?;
    let rows = request.fetches().unwrap_or_default();
    check_count(rows.len())?;
    let asked = rows.iter().map(|row| {
        let place = place(row.leader_epoch(), row.offset(), row.last_epoch())?;
        let has = Held {
            received: Offset::try_from(row.received())?,
            durable: Offset::try_from(row.durable())?,
        };
        if has.durable > has.received || has.received > place.offset {
            return Err(PeerError::Contradiction(
                "a replica has more than it goes on from, or more durable than received",
            ));
        }
        Ok(Asked {
            id: partition(row.topic_id(), row.partition())?,
            fetch: Fetch { place, held: has },
            max_bytes: row.max_bytes(),
        })
    });
    asked.collect()
}

/// The beginning of a frame of answers; the records follow, in this order.
pub(crate) fn write_answers(told: &[Told<usize>]) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let rows: Vec<ReplicaAnswer> = told.iter().map(row).collect();
    let answers = Some(builder.create_vector(&rows));
    let root = ReplicaFetchResponse::create(&mut builder, &ReplicaFetchResponseArgs { answers });
    let records = told.iter().map(|told| told.records).sum();
    begin(Kind::Fetch, &finished(builder, root), records)
}

fn row(told: &Told<usize>) -> ReplicaAnswer {
    let zero = Offset::ZERO;
    let nowhere = EpochEnd {
        epoch: LeaderEpoch::NONE,
        end: zero,
    };
    let (kind, code, end) = match told.answer {
        Ok(Answer::Records(_)) => (RECORDS, ErrorCode::None, nowhere),
        Ok(Answer::Diverging(end)) => (DIVERGING, ErrorCode::None, end),
        Ok(Answer::BeginAgain { at }) => (BEGIN_AGAIN, ErrorCode::None, EpochEnd { end: at, ..nowhere }),
        Err(code) => (REFUSED, code, nowhere),
    };
    let progress = match told.answer {
        Ok(Answer::Records(progress)) => progress,
        _ => Progress {
            high_watermark: zero,
            log_start: zero,
            holes_below: zero,
        },
    };
    ReplicaAnswer::new(
        &Uuid::from(told.id.topic),
        told.id.index.get(),
        told.records as u32,
        told.place.leader_epoch.get(),
        told.place.last_epoch.get(),
        told.place.offset.as_i64(),
        progress.high_watermark.as_i64(),
        progress.log_start.as_i64(),
        progress.holes_below.as_i64(),
        end.end.as_i64(),
        end.epoch.get(),
        code.as_i16(),
        kind,
    )
}

/// Reads the head of a frame of answers, with the records that follow it.
pub(crate) fn read_answers<'a>(head: &[u8], records: &'a [u8]) -> Result<Vec<Told<&'a [u8]>>, PeerError> {
    let response = head::decode_response::<ReplicaFetchResponse>(head)?;
    let rows = response.answers().unwrap_or_default();
    check_count(rows.len())?;
    let said: u64 = rows.iter().map(|row| u64::from(row.records_size())).sum();
    if said != records.len() as u64 {
        return Err(PeerError::Records {
            said,
            has: records.len(),
        });
    }
    let mut rest = records;
    let told = rows.iter().map(|row| {
        let (records, after) = rest.split_at(row.records_size() as usize);
        rest = after;
        if row.kind() != RECORDS && !records.is_empty() {
            return Err(PeerError::Contradiction("records come with an answer that has none"));
        }
        Ok(Told {
            id: partition(row.topic_id(), row.partition())?,
            place: place(row.leader_epoch(), row.offset(), row.last_epoch())?,
            answer: answer(row)?,
            records,
        })
    });
    told.collect()
}

fn answer(row: &ReplicaAnswer) -> Result<Result<Answer, ErrorCode>, PeerError> {
    let end = Offset::try_from(row.end_offset())?;
    Ok(Ok(match row.kind() {
        RECORDS => Answer::Records(Progress {
            high_watermark: Offset::try_from(row.high_watermark())?,
            log_start: Offset::try_from(row.log_start_offset())?,
            holes_below: Offset::try_from(row.holes_below())?,
        }),
        DIVERGING => Answer::Diverging(EpochEnd {
            epoch: epoch(row.end_epoch(), 0)?,
            end,
        }),
        BEGIN_AGAIN => Answer::BeginAgain { at: end },
        REFUSED => return Ok(Err(ErrorCode::from_i16(row.error()))),
        _ => return Err(PeerError::Contradiction("an answer of an unknown kind")),
    }))
}

fn check_count(count: usize) -> Result<(), PeerError> {
    let max = PARTITIONS_MAX;
    if count > max {
        Err(PeerError::TooMany { count, max })
    } else {
        Ok(())
    }
}

fn partition(topic: &Uuid, index: i32) -> Result<PartitionId, PeerError> {
    let index = PartitionIndex::try_from(index)?;
    let topic = TopicId::from(topic);
    Ok(PartitionId { topic, index })
}

fn place(leader_epoch: i32, offset: i64, last_epoch: i32) -> Result<Place, PeerError> {
    let place = Place {
        leader_epoch: epoch(leader_epoch, 0)?,
        offset: Offset::try_from(offset)?,
        last_epoch: epoch(last_epoch, LeaderEpoch::NONE.get())?,
    };
    if place.last_epoch > place.leader_epoch {
        return Err(PeerError::Contradiction(
            "a log has records of a later epoch than that of its leader",
        ));
    }
    Ok(place)
}

fn epoch(number: i32, least: i32) -> Result<LeaderEpoch, PeerError> {
    if number < least {
        return Err(PeerError::Contradiction("a leader epoch is negative"));
    }
    Ok(LeaderEpoch::new(number))
}
