//! Fetch: name the records that are there, or wait until some are.
//!
//! The connection's core plans: it asks the cores that own the partitions one after the other, each with the room that the
//! response still has, so that `max_bytes` and `min_bytes` hold for the whole of it. A native client never needs more than
//! one, because metadata sends it to the owner. A fetch that found too little waits for high watermarks to move, never by
//! polling, and not for longer than somebody waits for it or than others can spare the memory that it holds.
//!
//! A leader that is told the consumer's rack names an in-sync replica there, if it is not there itself, and gives no records (KIP-392).
//! A follower answers those alone whom a leader has sent, while it is in sync and hears from the leader, and up to the watermark that
//! it knows: who asks for what lies beyond waits, or, beyond the end of its log, is told that the offset is out of range.

use std::{
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use futures::future::{Either, FutureExt, select, select_all};
use headwater_engine::{EpochEnd, FetchError, LogRange};
use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, CoreId, LeaderEpoch, Offset},
};

use crate::{
    core::{
        Core,
        mesh::{CoreMessage, Reply},
        remote::RemoteRange,
    },
    machine::{self, Disk},
    metrics::Stage,
    model::{
        id::PartitionId,
        records::{FetchCall, FetchItem, FetchedItem, Isolation, Reads, Room, Seen},
    },
    partition::{Partition, Partitions, lend},
};

/// So long a fetch waits undisturbed. Then it is answered as soon as a request waits for memory, or for its own to be answered.
const PATIENCE: Duration = Duration::from_millis(100);

/// After so many partitions other tasks have a turn.
const PARTITIONS_AT_ONCE: usize = 128;

/// Whole batches that a fetch has found.
#[derive(Debug)]
pub(crate) enum Records {
    /// In a log of this core.
    Here(LogRange<Disk>),
    /// In a log of another core.
    Elsewhere(RemoteRange),
}

/// Somebody who waits for records.
pub(crate) trait Waits {
    /// Resolves when nobody waits any more.
    async fn ended(&self);

    /// Resolves when others need what the wait holds.
    async fn in_the_way(&self);
}

/// What a fetch has to look at: all of it here, or the part of each core.
enum Parts {
    Here(Vec<FetchItem>),
    Spread(Vec<(CoreId, Vec<FetchItem>)>),
}

/// Finds records, in the order of the request; wishes beyond the limits are cut to them.
pub(crate) async fn fetch(partitions: &Partitions, waits: &impl Waits, call: FetchCall) -> Vec<FetchedItem<Records>> {
    let core = &partitions.core;
    let began = machine::now();
    let limits = &core.config.limits;
    let wait = call.wait.min(Duration::from_millis(limits.fetch_wait_ms_max.get()));
    let deadline = began + wait;
    let max_bytes = call.max_bytes.min(limits.fetch_size_bytes_max.bytes());
    let min_bytes = call.min_bytes.min(max_bytes);
    let mut is_over = call.items.is_empty() || wait.is_zero();
    let parts = by_owner(partitions, call.items);
    let found = loop {
        let found = look(partitions, &parts, Room::new(max_bytes)).await;
        if is_over || is_enough(&found, min_bytes) {
            break found;
        }
        // What was found is let go: a fetch that waits holds no records.
        let news = news(partitions, &parts, seen(&parts, found));
        is_over = !is_worth_waiting_for(waits, deadline, news).await;
    };
    core.metrics.passed(Stage::FetchWait, machine::since(began));
    found
}

/// How far each partition was read. Both are in the order of the request.
fn seen(parts: &Parts, found: Vec<FetchedItem<Records>>) -> Vec<Seen> {
    let mut by_follower: Vec<u32> = match parts {
        Parts::Here(items) => followed(items).collect(),
        Parts::Spread(parts) => parts.iter().flat_map(|(_, items)| followed(items)).collect(),
    };
    by_follower.sort_unstable();
    let isolation = match parts {
        Parts::Here(items) => items.first(),
        Parts::Spread(parts) => parts.iter().flat_map(|(_, items)| items).next(),
    };
    // All of a request have the same.
    let isolation = isolation.map(|item| item.isolation).unwrap_or_default();
    let seen = found.into_iter().map(|item| Seen {
        id: item.id,
        end: match isolation {
            Isolation::Uncommitted => item.high_watermark,
            Isolation::Committed => item.last_stable,
        },
        isolation,
        by_follower: by_follower.binary_search(&item.place).is_ok(),
    });
    seen.collect()
}

/// The places of partitions that a follower may answer for.
fn followed(items: &[FetchItem]) -> impl Iterator<Item = u32> {
    let followed = items.iter().filter(|item| item.reads == Reads::Follower);
    followed.map(|item| item.place)
}

/// The part of each core, the one with the first partition first: as the client rotates its partitions, every one of them comes
/// first in time.
fn by_owner(partitions: &Partitions, items: Vec<FetchItem>) -> Parts {
    if items.iter().all(|item| partitions.is_here(item.id)) {
        return Parts::Here(items);
    }
    let mut parts: Vec<_> = partitions
        .core
        .mesh
        .by_owner(items, |item| item.id)
        .into_iter()
        .collect();
    parts.sort_by_key(|(_, items)| items[0].place);
    Parts::Spread(parts)
}

/// What is there now, in the order of the request.
async fn look(partitions: &Partitions, parts: &Parts, room: Room) -> Vec<FetchedItem<Records>> {
    let parts = match parts {
        Parts::Here(items) => return look_here(partitions, items, room, |_, range| Records::Here(range)).await,
        Parts::Spread(parts) => parts,
    };
    let mut found = Vec::with_capacity(parts.iter().map(|(_, items)| items.len()).sum());
    for (owner, items) in parts {
        let room = room.without(found.iter().map(|item: &FetchedItem<_>| item.size).sum());
        found.extend(if *owner == partitions.core.id {
            look_here(partitions, items, room, |_, range| Records::Here(range)).await
        } else {
            look_there(&partitions.core, *owner, items, room).await
        });
    }
    found.sort_by_key(|item| item.place);
    found
}

async fn look_there(core: &Core, owner: CoreId, items: &[FetchItem], room: Room) -> Vec<FetchedItem<Records>> {
    let asked = items.to_vec();
    let asked = core.mesh.ask(owner, |reply| CoreMessage::Fetch {
        items: asked,
        room,
        reply,
    });
    match asked.await {
        Some(found) => found.into_iter().map(|item| item.map(Records::Elsewhere)).collect(),
        None => items
            .iter()
            .map(|item| failed(item, ErrorCode::NotLeaderOrFollower))
            .collect(),
    }
}

/// Whether there is news before the time is over: the client's, the connection's, which the broker's own end is one of, or, after a
/// while, because others wait for memory or the connection for room.
async fn is_worth_waiting_for(waits: &impl Waits, deadline: Instant, news: impl Future<Output = ()>) -> bool {
    let (news, ended) = (pin!(news), pin!(waits.ended()));
    let mut wait = select(news, ended);
    let undisturbed = deadline.min(machine::now() + PATIENCE);
    let waited = match machine::until(undisturbed, &mut wait).await {
        None if undisturbed < deadline => {
            let in_the_way = pin!(waits.in_the_way());
            match machine::until(deadline, select(wait, in_the_way)).await {
                Some(Either::Left((waited, _))) => Some(waited),
                _ => None,
            }
        }
        waited => waited,
    };
    matches!(waited, Some(Either::Left(_)))
}

/// Resolves when one of the partitions has more than was seen of it, or is gone.
async fn news(partitions: &Partitions, parts: &Parts, seen: Vec<Seen>) {
    if let Parts::Here(_) = parts {
        return news_here(partitions, &seen).await;
    }
    let core = &partitions.core;
    let parts = core.mesh.by_owner(seen, |seen| seen.id);
    let news = parts.into_iter().map(|(owner, seen)| {
        if owner == core.id {
            async move { news_here(partitions, &seen).await }.boxed_local()
        } else {
            let asked = core.mesh.ask(owner, |reply| CoreMessage::AwaitNews { seen, reply });
            // A core that has ended has no news, and whoever looks learns that.
            asked.map(drop).boxed_local()
        }
    });
    select_all(news).await;
}

/// The same for partitions of this core.
async fn news_here(partitions: &Partitions, seen: &[Seen]) {
    if let [seen] = seen {
        return news_of(partitions, seen).await;
    }
    loop {
        let open = seen
            .iter()
            .map(|seen| partitions.readable(seen.id, seen.by_follower).ok());
        let Some(open) = open.collect::<Option<Vec<_>>>() else {
            return;
        };
        // Before looking, so that nothing that becomes durable meanwhile is missed.
        let moves: Vec<_> = open
            .iter()
            .zip(seen)
            .map(|(partition, seen)| partition.log.advanced(seen.isolation.limit()))
            .collect();
        let has_moved = |(partition, seen): (&Rc<Partition>, &Seen)| has_moved(partition, seen);
        if open.iter().zip(seen).any(has_moved) {
            return;
        }
        select_all(moves).await;
    }
}

/// The same for one, which is all that most fetches ask for: without a list of those who wait.
async fn news_of(partitions: &Partitions, seen: &Seen) {
    loop {
        let Ok(partition) = partitions.readable(seen.id, seen.by_follower) else {
            return;
        };
        let moves = partition.log.advanced(seen.isolation.limit());
        if has_moved(&partition, seen) {
            return;
        }
        moves.await;
    }
}

/// Whether a partition has more, or less, than was seen of it.
fn has_moved(partition: &Partition, seen: &Seen) -> bool {
    partition.log.offsets().limit(seen.isolation.limit()).as_i64() != seen.end
}

/// Answers a connection of another core, which then asks for the records as it can send them.
pub(crate) async fn answer_other_core(
    partitions: Rc<Partitions>,
    items: Vec<FetchItem>,
    room: Room,
    reply: Reply<Vec<FetchedItem<RemoteRange>>>,
) {
    let lent = look_here(&partitions, &items, room, |partition, range| {
        lend::lend(Rc::clone(partition), range)
    });
    let _ = reply.send(lent.await);
}

/// Resolves when there is news for another core, or this one stops.
pub(crate) async fn news_for_other_core(partitions: Rc<Partitions>, seen: Vec<Seen>) {
    let (news, stopping) = (pin!(news_here(&partitions, &seen)), pin!(partitions.core.stopping()));
    select(news, stopping).await;
}

fn is_enough<R>(found: &[FetchedItem<R>], min_bytes: u64) -> bool {
    let available: u64 = found.iter().map(|item| item.available).sum();
    available >= min_bytes
        || found
            .iter()
            .any(|item| item.error != ErrorCode::None || item.preferred.is_some() || item.diverging.is_some())
}

fn failed<R>(item: &FetchItem, error: ErrorCode) -> FetchedItem<R> {
    nothing_of(item.place, item.id, error)
}

/// Of a partition there is nothing but why.
pub(crate) fn nothing_of<R>(place: u32, id: PartitionId, error: ErrorCode) -> FetchedItem<R> {
    FetchedItem {
        place,
        id,
        error,
        high_watermark: -1,
        last_stable: -1,
        log_start_offset: -1,
        next_offset: -1,
        size: 0,
        records: None,
        available: 0,
        preferred: None,
        diverging: None,
        aborted: Vec::new(),
    }
}

/// What partitions of this core have now, as far as there is room for it; `name` gives the records to whoever asks.
async fn look_here<R>(
    partitions: &Partitions,
    items: &[FetchItem],
    mut room: Room,
    name: impl Fn(&Rc<Partition>, LogRange<Disk>) -> R,
) -> Vec<FetchedItem<R>> {
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        let answer = match partitions.readable(item.id, item.reads == Reads::Follower) {
            Ok(partition) => match preferred(partitions, &partition, item) {
                None if room.takes(1) => {
                    let answer = look_into(&partitions.core, &partition, item, room).await;
                    answer.map(|range| name(&partition, range))
                }
                preferred => FetchedItem {
                    preferred,
                    ..nothing(&partition, item)
                },
            },
            Err(refusal) => failed(item, refusal.code),
        };
        room = room.without(answer.size);
        found.push(answer);
        if found.len().is_multiple_of(PARTITIONS_AT_ONCE) {
            machine::yield_now().await;
        }
    }
    found
}

/// Who is to be asked instead of this broker.
fn preferred(partitions: &Partitions, partition: &Partition, item: &FetchItem) -> Option<(BrokerId, CoreId)> {
    let (Reads::Near { rack, speaks_kafka }, Ok(offset)) = (&item.reads, Offset::try_from(item.offset)) else {
        return None;
    };
    let assignment = partitions.assignment()?;
    let is_understood = |broker: BrokerId| {
        let broker = assignment.brokers.get(&broker);
        !speaks_kafka || broker.is_some_and(|broker| broker.kafka.is_some())
    };
    assignment.nearest(item.id, rack, |broker| {
        is_understood(broker) && partition.has_sent(broker, offset)
    })
}

async fn look_into(core: &Core, partition: &Partition, item: &FetchItem, room: Room) -> FetchedItem<LogRange<Disk>> {
    let Ok(offset) = Offset::try_from(item.offset) else {
        return failed_at(partition, item, ErrorCode::OffsetOutOfRange);
    };
    if let Some(diverging) = item.last_epoch.and_then(|epoch| diverging(partition, offset, epoch)) {
        return FetchedItem {
            diverging: Some(diverging),
            ..nothing(partition, item)
        };
    }
    let bytes_max = item.max_bytes.min(room.bytes());
    let fetched = match partition.log.fetch(offset, bytes_max, item.isolation.limit()).await {
        Ok(fetched) => fetched,
        Err(error) => {
            if let FetchError::Log(error) = &error {
                core.metrics.log_failed(error);
            }
            // Others may have acknowledged more since, if this broker was cut off or stood still, and the reader may have that.
            let is_sure = partition.standing().is_none() || core.lease.holds();
            return failed_at(
                partition,
                item,
                match error.code() {
                    ErrorCode::OffsetOutOfRange if !is_sure => ErrorCode::NotLeaderOrFollower,
                    other => other,
                },
            );
        }
    };
    let end = match item.isolation {
        Isolation::Uncommitted => fetched.high_watermark,
        Isolation::Committed => fetched.last_stable,
    };
    // Batches are whole and a range ends with its segment: it may be short of the limit, and no more could be given for waiting.
    let available = fetched.range.as_ref().map_or(0, |range| {
        let has_more = range.next_offset() < end || !room.takes(range.len());
        if has_more {
            range.len().max(bytes_max)
        } else {
            range.len()
        }
    });
    let records = fetched.range.filter(|range| room.takes(range.len()));
    let mut aborted = Vec::new();
    if let Some(range) = records.as_ref().filter(|_| item.isolation == Isolation::Committed) {
        aborted = match partition.log.aborted(offset, range.next_offset()).await {
            Ok(aborted) => aborted,
            Err(error) => {
                core.metrics.log_failed(&error);
                return failed_at(partition, item, error.code());
            }
        };
    }
    let size = records.as_ref().map_or(0, LogRange::len);
    partition.fetched_bytes.set(partition.fetched_bytes.get() + size);
    if item.reads == Reads::Follower && partition.led().is_err() {
        core.metrics.read_as_follower(size);
    }
    FetchedItem {
        high_watermark: fetched.high_watermark.as_i64(),
        last_stable: fetched.last_stable.as_i64(),
        log_start_offset: fetched.log_start_offset.as_i64(),
        next_offset: records.as_ref().map_or(-1, |range| range.next_offset().as_i64()),
        size,
        records,
        available,
        aborted,
        ..failed(item, ErrorCode::None)
    }
}

/// Where the log of whoever fetches from this offset on differs, if the record before it has this epoch there.
fn diverging(partition: &Partition, offset: Offset, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
    let log = &partition.log;
    let offsets = log.offsets();
    let known = match log.latest_epoch() {
        Some(latest) if latest > epoch => log.end_of_epoch(epoch),
        // The epoch goes on, or nothing was written in it yet.
        _ => EpochEnd {
            epoch,
            end: offsets.end,
        },
    };
    // What is gone is out of range, whatever it was.
    let differs = offset >= offsets.start && (known.epoch < epoch || known.end < offset);
    differs.then_some((known.epoch, known.end))
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
        high_watermark: offsets.high_watermark.as_i64(),
        last_stable: offsets.last_stable.as_i64(),
        log_start_offset: offsets.start.as_i64(),
        ..failed(item, ErrorCode::None)
    }
}
