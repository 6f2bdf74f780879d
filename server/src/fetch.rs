//! Fetch: name the records that are there, or wait until some are.
//!
//! A fetch waits for durable offsets to move, never by polling. Partitions of other cores are asked there; a native client
//! never needs that, because metadata sends it to the owner.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
    time::Instant,
};

use futures::future::{FutureExt, join_all, select_all};
use headwater_engine::{FetchError, LogRange, disk::DirectDisk};
use headwater_protocol::{
    error::ErrorCode,
    id::{CoreId, CorrelationId, Offset, PartitionIndex, TopicId},
    schema::{FetchRequest, FetchResponseT, FetchedPartitionT},
};

use crate::{
    core::Core,
    mesh::{CoreMessage, FetchCall, FetchItem, FetchedItem, PartitionId, Refusal, Reply},
    metrics::Stage,
    outbox::{Payload, Response},
    partition::Partition,
    remote::{self, RemoteRange},
    reply, runtime,
};

/// Reads a fetch request whose head has been verified; wishes beyond the limits are cut to them.
pub(crate) fn read(core: &Core, request: FetchRequest<'_>, now: Instant) -> Result<FetchCall, Refusal> {
    let limits = &core.config.limits;
    let wait = u64::from(request.max_wait_ms()).min(limits.fetch_wait_ms_max.get());
    let max_bytes = u64::from(request.max_bytes()).min(limits.fetch_size_bytes_max.bytes());
    let mut items = Vec::new();
    for partition in request.partitions().into_iter().flatten() {
        let index = PartitionIndex::try_from(partition.partition())
            .map_err(|error| Refusal::because(ErrorCode::InvalidRequest, &error))?;
        items.push(FetchItem {
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
        deadline: now + std::time::Duration::from_millis(wait),
    })
}

/// Answers a whole fetch request.
pub(crate) async fn answer(core: &Rc<Core>, correlation_id: CorrelationId, call: FetchCall) -> Response {
    let order: HashMap<PartitionId, usize> = call.items.iter().map(|item| item.id).zip(0..).collect();
    let began = Instant::now();
    let mut fetched = fetch(core, call).await;
    core.metrics.passed(Stage::FetchWait, began.elapsed());
    // The answer keeps the order of the question.
    fetched.sort_by_key(|item| order.get(&item.id));
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

async fn fetch(core: &Rc<Core>, call: FetchCall) -> Vec<FetchedItem<Payload>> {
    let groups = core.mesh.by_owner(call.items.clone(), |item| item.id);
    if groups.len() <= 1 {
        let owner = groups.keys().next().copied().unwrap_or(core.id);
        return fetch_from(core, owner, call).await;
    }
    // What is there now, of all cores, and only if that is not enough the first core that has more.
    let calls: Vec<(CoreId, FetchCall)> = groups
        .into_iter()
        .map(|(owner, items)| (owner, FetchCall { items, ..call.clone() }))
        .collect();
    let at_once = calls.iter().map(|(owner, call)| {
        let call = FetchCall {
            deadline: Instant::now(),
            ..call.clone()
        };
        fetch_from(core, *owner, call)
    });
    let found: Vec<FetchedItem<Payload>> = join_all(at_once).await.into_iter().flatten().collect();
    if is_enough(&found, call.min_bytes) || Instant::now() >= call.deadline {
        return found;
    }
    let waiting = calls
        .into_iter()
        .map(|(owner, call)| fetch_from(core, owner, call).boxed_local());
    let (mut news, _, _) = select_all(waiting).await;
    let renewed: HashSet<PartitionId> = news.iter().map(|item| item.id).collect();
    news.extend(found.into_iter().filter(|item| !renewed.contains(&item.id)));
    news
}

fn is_enough<R>(found: &[FetchedItem<R>], min_bytes: u64) -> bool
where
    FetchedItem<R>: Measure,
{
    found.iter().map(Measure::size).sum::<u64>() >= min_bytes || found.iter().any(|item| item.error != ErrorCode::None)
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

/// Has one core answer its part.
async fn fetch_from(core: &Rc<Core>, owner: CoreId, call: FetchCall) -> Vec<FetchedItem<Payload>> {
    if owner == core.id {
        let found = fetch_here(core, &call).await;
        return found
            .into_iter()
            .map(|item| with_records(item, Payload::Range))
            .collect();
    }
    let items = call.items.clone();
    match core.mesh.ask(owner, |reply| CoreMessage::Fetch { call, reply }).await {
        Some(found) => found
            .into_iter()
            .map(|item| with_records(item, Payload::Remote))
            .collect(),
        None => items
            .iter()
            .map(|item| failed(item.id, ErrorCode::NotLeaderOrFollower))
            .collect(),
    }
}

fn with_records<R, S>(item: FetchedItem<R>, wrap: impl FnOnce(R) -> S) -> FetchedItem<S> {
    let FetchedItem {
        id,
        error,
        high_watermark,
        log_start_offset,
        next_offset,
        records,
    } = item;
    FetchedItem {
        id,
        error,
        high_watermark,
        log_start_offset,
        next_offset,
        records: records.map(wrap),
    }
}

fn failed<R>(id: PartitionId, error: ErrorCode) -> FetchedItem<R> {
    FetchedItem {
        id,
        error,
        high_watermark: -1,
        log_start_offset: -1,
        next_offset: -1,
        records: None,
    }
}

/// Answers for a connection of another core, which then asks for the records as it can send them.
pub(crate) async fn answer_other_core(core: Rc<Core>, call: FetchCall, reply: Reply<Vec<FetchedItem<RemoteRange>>>) {
    let found = fetch_here(&core, &call).await.into_iter();
    let lent = found.map(|item| match core.partition(item.id) {
        Ok(partition) => with_records(item, |range| remote::lend(partition, range)),
        Err(refusal) => failed(item.id, refusal.code),
    });
    let _ = reply.send(lent.collect());
}

/// Waits until the partitions of this core have enough, or have an error, or the deadline has come.
async fn fetch_here(core: &Rc<Core>, call: &FetchCall) -> Vec<FetchedItem<LogRange<DirectDisk>>> {
    loop {
        let partitions: Vec<_> = call
            .items
            .iter()
            .filter_map(|item| core.partition(item.id).ok())
            .collect();
        // Before looking, so that nothing that becomes durable meanwhile is missed.
        let waits: Vec<_> = partitions.iter().map(|partition| partition.log.advanced()).collect();
        let found = look(core, call).await;
        if is_enough(&found, call.min_bytes) || waits.is_empty() || Instant::now() >= call.deadline {
            return found;
        }
        let news = std::pin::pin!(select_all(waits));
        let stopping = std::pin::pin!(core.stopping());
        let woken = futures::future::select(news, stopping);
        match runtime::until(call.deadline, woken).await {
            Some(futures::future::Either::Left(_)) => {}
            // At the deadline, and when the broker stops, with what is there.
            Some(futures::future::Either::Right(_)) | None => return look(core, call).await,
        }
    }
}

async fn look(core: &Core, call: &FetchCall) -> Vec<FetchedItem<LogRange<DirectDisk>>> {
    let mut left = call.max_bytes;
    let mut found = Vec::with_capacity(call.items.len());
    for item in &call.items {
        let answer = match core.partition(item.id) {
            // The first partition that has records gives at least one batch, however small the limits are.
            Ok(partition) if left > 0 => look_into(core, &partition, item, left).await,
            Ok(partition) => nothing(&partition, item.id),
            Err(refusal) => failed(item.id, refusal.code),
        };
        left = left.saturating_sub(answer.size());
        found.push(answer);
    }
    found
}

async fn look_into(
    core: &Core,
    partition: &Partition,
    item: &FetchItem,
    left: u64,
) -> FetchedItem<LogRange<DirectDisk>> {
    let Ok(offset) = Offset::try_from(item.offset) else {
        return failed_at(partition, item.id, ErrorCode::OffsetOutOfRange);
    };
    match partition.log.fetch(offset, item.max_bytes.min(left)).await {
        Ok(fetched) => {
            let bytes = fetched.range.as_ref().map_or(0, LogRange::len);
            partition.fetched_bytes.set(partition.fetched_bytes.get() + bytes);
            FetchedItem {
                id: item.id,
                error: ErrorCode::None,
                high_watermark: fetched.high_watermark.as_i64(),
                log_start_offset: fetched.log_start_offset.as_i64(),
                next_offset: fetched.range.as_ref().map_or(-1, |range| range.next_offset().as_i64()),
                records: fetched.range,
            }
        }
        Err(error) => {
            if let FetchError::Log(error) = &error {
                core.metrics.log_failed(error);
            }
            failed_at(partition, item.id, error.code())
        }
    }
}

/// An error, with the offsets that tell a client how to go on.
fn failed_at<R>(partition: &Partition, id: PartitionId, error: ErrorCode) -> FetchedItem<R> {
    FetchedItem {
        error,
        ..nothing(partition, id)
    }
}

fn nothing<R>(partition: &Partition, id: PartitionId) -> FetchedItem<R> {
    let offsets = partition.log.offsets();
    FetchedItem {
        id,
        error: ErrorCode::None,
        high_watermark: offsets.durable.as_i64(),
        log_start_offset: offsets.start.as_i64(),
        next_offset: -1,
        records: None,
    }
}
