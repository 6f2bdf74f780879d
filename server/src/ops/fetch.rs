//! Fetch: name the records that are there, or wait until some are.
//!
//! The connection's core plans: it asks the cores that own the partitions one after the other, each with the room that the
//! response still has, so that `max_bytes` and `min_bytes` hold for the whole of it. A native client never needs more than
//! one, because metadata sends it to the owner. A fetch that found too little waits for high watermarks to move, never by
//! polling, and not for longer than somebody waits for it or than others can spare the memory that it holds.

use std::{
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use futures::future::{Either, FutureExt, select, select_all};
use headwater_engine::{FetchError, LogRange, ReadLimit, disk::DirectDisk};
use headwater_protocol::{
    error::ErrorCode,
    id::{CoreId, CorrelationId, Offset, PartitionIndex, TopicId},
    schema::{FetchRequest, FetchResponseT, FetchedPartitionT},
};

use crate::{
    core::{
        Core,
        mesh::{CoreMessage, Reply},
        remote::{self, RemoteRange},
    },
    machine,
    metrics::Stage,
    model::{
        id::PartitionId,
        records::{FetchCall, FetchItem, FetchedItem, Room, Seen},
        refusal::Refusal,
    },
    partition::Partition,
    session::{
        connection::Connection,
        native::reply,
        outbox::{Payload, Response},
    },
};

/// So long a fetch waits undisturbed. Then it is answered as soon as a request waits for memory, or for its own to be answered.
const PATIENCE: Duration = Duration::from_millis(100);

/// After so many partitions other tasks have a turn.
const PARTITIONS_AT_ONCE: usize = 128;

/// Reads a fetch request whose head has been verified; wishes beyond the limits are cut to them.
pub(crate) fn read(core: &Core, request: FetchRequest<'_>, now: Instant) -> Result<FetchCall, Refusal> {
    let limits = &core.config.limits;
    let wait = u64::from(request.max_wait_ms()).min(limits.fetch_wait_ms_max.get());
    let max_bytes = u64::from(request.max_bytes()).min(limits.fetch_size_bytes_max.bytes());
    let mut items = Vec::with_capacity(request.partitions().map_or(0, |partitions| partitions.len()));
    for (place, partition) in (0..).zip(request.partitions().into_iter().flatten()) {
        let index = PartitionIndex::try_from(partition.partition())
            .map_err(|error| Refusal::because(ErrorCode::InvalidRequest, &error))?;
        items.push(FetchItem {
            place,
            id: PartitionId {
                topic: TopicId::from(partition.topic_id()),
                index,
            },
            offset: partition.offset(),
            max_bytes: u64::from(partition.max_bytes()),
        });
    }
    Ok(FetchCall {
        items,
        min_bytes: u64::from(request.min_bytes()).min(max_bytes),
        max_bytes,
        deadline: now + Duration::from_millis(wait),
    })
}

/// Answers a whole fetch request.
pub(crate) async fn answer(
    core: &Rc<Core>,
    connection: &Connection,
    correlation_id: CorrelationId,
    call: FetchCall,
) -> Response {
    let began = Instant::now();
    let fetched = fetch(core, connection, call).await;
    core.metrics.passed(Stage::FetchWait, began.elapsed());
    let mut payload = Vec::new();
    let mut partitions = Vec::with_capacity(fetched.len());
    for item in fetched {
        let records_size = item.records.as_ref().map_or(0, Payload::len);
        partitions.push(FetchedPartitionT {
            topic_id: item.id.topic.into(),
            partition: item.id.index.get(),
            error: item.error as i16,
            records_size: records_size as u32,
            high_watermark: item.high_watermark,
            log_start_offset: item.log_start_offset,
            next_offset: item.next_offset,
        });
        payload.extend(item.records);
    }
    let failed = partitions
        .iter()
        .find(|partition| partition.error != ErrorCode::None as i16);
    let failed = failed.map(|partition| ErrorCode::from_i16(partition.error));
    let head = FetchResponseT {
        error: ErrorCode::None as i16,
        message: None,
        partitions: Some(partitions),
    };
    let payload_len = payload.iter().map(Payload::len).sum();
    let response = Response::with(reply::head_of_payload(correlation_id, &head, payload_len), payload);
    Response {
        error: failed.unwrap_or(response.error),
        ..response
    }
}

async fn fetch(core: &Rc<Core>, connection: &Connection, call: FetchCall) -> Vec<FetchedItem<Payload>> {
    let FetchCall {
        items,
        min_bytes,
        max_bytes,
        deadline,
    } = call;
    let mut is_over = items.is_empty() || Instant::now() >= deadline;
    let parts = by_owner(core, items);
    loop {
        let found = look(core, &parts, Room::new(max_bytes)).await;
        if is_over || is_enough(&found, min_bytes) {
            return found;
        }
        // What was found is let go: a fetch that waits holds no records.
        let seen = found.into_iter().map(|item| Seen {
            id: item.id,
            high_watermark: item.high_watermark,
        });
        let news = news(core, seen.collect());
        is_over = !is_worth_waiting_for(core, connection, deadline, news).await;
    }
}

/// The part of each core, the one with the first partition first: as the client rotates its partitions, every one of them comes
/// first in time.
fn by_owner(core: &Core, items: Vec<FetchItem>) -> Vec<(CoreId, Vec<FetchItem>)> {
    let mut parts: Vec<_> = core.mesh.by_owner(items, |item| item.id).into_iter().collect();
    parts.sort_by_key(|(_, items)| items[0].place);
    parts
}

/// What is there now, in the order of the request.
async fn look(core: &Rc<Core>, parts: &[(CoreId, Vec<FetchItem>)], room: Room) -> Vec<FetchedItem<Payload>> {
    let mut found = Vec::with_capacity(parts.iter().map(|(_, items)| items.len()).sum());
    for (owner, items) in parts {
        let room = room.without(found.iter().map(Measure::size).sum());
        if *owner == core.id {
            let own = look_here(core, items, room).await;
            found.extend(own.into_iter().map(|item| with_records(item, Payload::Range)));
        } else {
            found.extend(look_there(core, *owner, items, room).await);
        }
    }
    if parts.len() > 1 {
        found.sort_by_key(|item| item.place);
    }
    found
}

async fn look_there(core: &Core, owner: CoreId, items: &[FetchItem], room: Room) -> Vec<FetchedItem<Payload>> {
    let asked = items.to_vec();
    let asked = core.mesh.ask(owner, |reply| CoreMessage::Fetch {
        items: asked,
        room,
        reply,
    });
    match asked.await {
        Some(found) => found
            .into_iter()
            .map(|item| with_records(item, Payload::Remote))
            .collect(),
        None => items
            .iter()
            .map(|item| failed(item, ErrorCode::NotLeaderOrFollower))
            .collect(),
    }
}

/// Whether there is news before the time is over: the client's, the broker's, the connection's, or, after a while, because others
/// wait for memory or the connection for room.
async fn is_worth_waiting_for(
    core: &Core,
    connection: &Connection,
    deadline: Instant,
    news: impl Future<Output = ()>,
) -> bool {
    let wanted = async {
        machine::sleep(PATIENCE).await;
        select(pin!(core.in_flight.contended()), pin!(connection.held_up())).await;
    };
    let (stopping, wanted) = (pin!(core.stopping()), pin!(wanted));
    let (ending, news) = (pin!(connection.ending()), pin!(news));
    let over = select(select(stopping, ending), wanted);
    matches!(
        machine::until(deadline, select(news, over)).await,
        Some(Either::Left(_))
    )
}

/// Resolves when one of the partitions has more than was seen of it, or is gone.
async fn news(core: &Rc<Core>, seen: Vec<Seen>) {
    let parts = core.mesh.by_owner(seen, |seen| seen.id);
    let news = parts.into_iter().map(|(owner, seen)| {
        if owner == core.id {
            async move { news_here(core, &seen).await }.boxed_local()
        } else {
            let asked = core.mesh.ask(owner, |reply| CoreMessage::AwaitNews { seen, reply });
            // A core that has ended has no news, and whoever looks learns that.
            asked.map(drop).boxed_local()
        }
    });
    select_all(news).await;
}

/// The same for partitions of this core.
async fn news_here(core: &Core, seen: &[Seen]) {
    loop {
        let open = seen.iter().map(|seen| core.partition(seen.id));
        let Ok(partitions) = open.collect::<Result<Vec<_>, Refusal>>() else {
            return;
        };
        // Before looking, so that nothing that becomes durable meanwhile is missed.
        let moves: Vec<_> = partitions
            .iter()
            .map(|partition| partition.log.advanced(ReadLimit::HighWatermark))
            .collect();
        let has_moved = |(partition, seen): (&Rc<Partition>, &Seen)| {
            partition.log.offsets().high_watermark.as_i64() != seen.high_watermark
        };
        if partitions.iter().zip(seen).any(has_moved) {
            return;
        }
        select_all(moves).await;
    }
}

/// Answers a connection of another core, which then asks for the records as it can send them.
pub(crate) async fn answer_other_core(
    core: Rc<Core>,
    items: Vec<FetchItem>,
    room: Room,
    reply: Reply<Vec<FetchedItem<RemoteRange>>>,
) {
    let found = look_here(&core, &items, room).await.into_iter().zip(&items);
    let lent = found.map(|(found, item)| match core.partition(item.id) {
        Ok(partition) => with_records(found, |range| remote::lend(partition, range)),
        Err(refusal) => failed(item, refusal.code),
    });
    let _ = reply.send(lent.collect());
}

/// Resolves when there is news for another core, or this one stops.
pub(crate) async fn news_for_other_core(core: Rc<Core>, seen: Vec<Seen>) {
    let (news, stopping) = (pin!(news_here(&core, &seen)), pin!(core.stopping()));
    select(news, stopping).await;
}

fn is_enough<R>(found: &[FetchedItem<R>], min_bytes: u64) -> bool {
    let available: u64 = found.iter().map(|item| item.available).sum();
    available >= min_bytes || found.iter().any(|item| item.error != ErrorCode::None)
}

/// The size of an answer's records in bytes, whatever holds them.
trait Measure {
    fn size(&self) -> u64;
}

impl Measure for FetchedItem<Payload> {
    fn size(&self) -> u64 {
        self.records.as_ref().map_or(0, Payload::len)
    }
}

impl Measure for FetchedItem<LogRange<DirectDisk>> {
    fn size(&self) -> u64 {
        self.records.as_ref().map_or(0, LogRange::len)
    }
}
fn with_records<R, S>(item: FetchedItem<R>, wrap: impl FnOnce(R) -> S) -> FetchedItem<S> {
    let FetchedItem {
        place,
        id,
        error,
        high_watermark,
        log_start_offset,
        next_offset,
        records,
        available,
    } = item;
    FetchedItem {
        place,
        id,
        error,
        high_watermark,
        log_start_offset,
        next_offset,
        records: records.map(wrap),
        available,
    }
}

fn failed<R>(item: &FetchItem, error: ErrorCode) -> FetchedItem<R> {
    FetchedItem {
        place: item.place,
        id: item.id,
        error,
        high_watermark: -1,
        log_start_offset: -1,
        next_offset: -1,
        records: None,
        available: 0,
    }
}

/// What partitions of this core have now, as far as there is room for it.
async fn look_here(core: &Core, items: &[FetchItem], mut room: Room) -> Vec<FetchedItem<LogRange<DirectDisk>>> {
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        let answer = match core.partition(item.id) {
            Ok(partition) if room.takes(1) => look_into(core, &partition, item, room).await,
            Ok(partition) => nothing(&partition, item),
            Err(refusal) => failed(item, refusal.code),
        };
        room = room.without(answer.size());
        found.push(answer);
        if found.len().is_multiple_of(PARTITIONS_AT_ONCE) {
            machine::yield_now().await;
        }
    }
    found
}

async fn look_into(
    core: &Core,
    partition: &Partition,
    item: &FetchItem,
    room: Room,
) -> FetchedItem<LogRange<DirectDisk>> {
    let Ok(offset) = Offset::try_from(item.offset) else {
        return failed_at(partition, item, ErrorCode::OffsetOutOfRange);
    };
    let bytes_max = item.max_bytes.min(room.bytes());
    let fetched = match partition.log.fetch(offset, bytes_max, ReadLimit::HighWatermark).await {
        Ok(fetched) => fetched,
        Err(error) => {
            if let FetchError::Log(error) = &error {
                core.metrics.log_failed(error);
            }
            return failed_at(partition, item, error.code());
        }
    };
    // Batches are whole and a range ends with its segment: it may be short of the limit, and no more could be given for waiting.
    let available = fetched.range.as_ref().map_or(0, |range| {
        let has_more = range.next_offset() < fetched.high_watermark || !room.takes(range.len());
        if has_more {
            range.len().max(bytes_max)
        } else {
            range.len()
        }
    });
    let records = fetched.range.filter(|range| room.takes(range.len()));
    let bytes = records.as_ref().map_or(0, LogRange::len);
    partition.fetched_bytes.set(partition.fetched_bytes.get() + bytes);
    FetchedItem {
        place: item.place,
        id: item.id,
        error: ErrorCode::None,
        high_watermark: fetched.high_watermark.as_i64(),
        log_start_offset: fetched.log_start_offset.as_i64(),
        next_offset: records.as_ref().map_or(-1, |range| range.next_offset().as_i64()),
        records,
        available,
    }
}

/// An error, with the offsets that tell a client how to go on.
fn failed_at<R>(partition: &Partition, item: &FetchItem, error: ErrorCode) -> FetchedItem<R> {
    FetchedItem {
        error,
        ..nothing(partition, item)
    }
}

fn nothing<R>(partition: &Partition, item: &FetchItem) -> FetchedItem<R> {
    let offsets = partition.log.offsets();
    FetchedItem {
        place: item.place,
        id: item.id,
        error: ErrorCode::None,
        high_watermark: offsets.high_watermark.as_i64(),
        log_start_offset: offsets.start.as_i64(),
        next_offset: -1,
        records: None,
        available: 0,
    }
}
