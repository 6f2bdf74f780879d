//! Members of consumer groups that REST keeps for its callers between their requests.
//!
//! Each is a consumer of the client library, which says by itself that it is there, for as long as its caller asks now and then. One
//! that nobody has asked for anything in `http.consumer_idle_ms` leaves its group, and so do all when the broker stops.

mod shapes;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::{FutureExt as _, future::join_all};
use headwater_client::{ConsumerRecord, ErrorCode, GroupConsumer, HeaderRef, OffsetReset};
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, timeout, timeout_at},
};

pub(crate) use self::shapes::CommitOffset;
use self::shapes::{AssignedPartition, Assignment, Begin, Commit, Join, Joined, PollQuery, PolledSchema};
use super::{
    data::{Format, ShownRecord},
    extract::{Json, Path, Query},
    records::read::{Much, ReadQuery},
    written::Written,
};
use crate::{caller::Caller, problem::Problem, service::Service, settings::Limits};

/// So much longer than it is kept a member may go without being asked, before its consumer leaves by itself.
const POLL_MARGIN: Duration = Duration::from_mins(1);

/// Fetched ahead for a member.
const AHEAD_BYTES: usize = 1 << 20;

/// Leaving is not waited for longer than this.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// A consumer that has not left.
struct Working {
    consumer: GroupConsumer,
    /// What went wrong behind records that were handed out; the next request is told.
    untold: Option<Problem>,
}

/// One that is kept.
struct Kept {
    user: Option<Arc<str>>,
    group: String,
    /// When it was asked for something the last time.
    used: Arc<Mutex<Instant>>,
    /// Empty when it has left.
    consumer: Arc<tokio::sync::Mutex<Option<Working>>>,
}

/// Those that are kept, by what they are called.
pub(crate) struct Members {
    kept: Mutex<HashMap<String, Kept>>,
    count_max: usize,
    idle: Duration,
}

/// A member for one request. It counts as used until then.
struct Held {
    working: OwnedMutexGuard<Option<Working>>,
    used: Arc<Mutex<Instant>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Kept {
    fn idle(&self) -> Duration {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl Members {
    pub(crate) fn new(limits: &Limits) -> Members {
        Members {
            kept: Mutex::default(),
            count_max: limits.consumers,
            idle: limits.consumer_idle,
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn full() -> Problem {
        Problem::busy(
            "there are as many consumers as may be kept",
            "leave groups that are done with, wait until idle ones have left, or raise http.consumers_max",
        )
    }

    /// The member of that name, if it is the caller's. Nobody else has it until this is dropped.
    fn of(&self, caller: &Caller, group: &str, member: &str) -> Result<Held, Problem> {
        let kept = self.kept();
        let found = kept
            .get(member)
            .filter(|kept| kept.user.as_ref() == caller.user() && kept.group == group);
        let absent = || {
            Problem::new(
                ErrorCode::UnknownMemberId,
                "this broker keeps no such member of the group for this user",
            )
        };
        let found = found.ok_or_else(absent)?;
        let busy = |_used| {
            Problem::new(
                ErrorCode::RebalanceInProgress,
                "another request of this member is under way",
            )
            .next("wait for its answer: a member does one thing at a time")
        };
        Ok(Held {
            working: Arc::clone(&found.consumer).try_lock_owned().map_err(busy)?,
            used: Arc::clone(&found.used),
        })
    }

    /// Members leave that nobody has asked for anything in too long.
    pub(crate) async fn tidy(&self) {
        let expired: Vec<Kept> = {
            let mut kept = self.kept();
            let is_over = |kept: &mut Kept| kept.idle() >= self.idle && Arc::strong_count(&kept.consumer) == 1;
            kept.extract_if(|_, kept| is_over(kept)).map(|(_, kept)| kept).collect()
        };
        leave(expired).await;
    }

    /// All leave.
    pub(crate) async fn leave_all(&self) {
        let all: Vec<Kept> = self.kept().drain().map(|(_, kept)| kept).collect();
        leave(all).await;
    }
}

async fn leave(members: Vec<Kept>) {
    let leaving = members.into_iter().map(async |kept| {
        if let Ok(mut held) = kept.consumer.try_lock()
            && let Some(working) = held.take()
        {
            // Its session ends it otherwise.
            let _ = timeout(LEAVE_MAX, working.consumer.close()).await;
        }
    });
    join_all(leaving).await;
}

/// Joins a group.
///
/// The member has partitions a moment later; `poll` waits for that.
#[utoipa::path(post, path = "/v1/groups/{group}/members", tag = "consumers", operation_id = "join",
    params(("group" = String, Path, description = "The group, which is made if there is none")), request_body = Join,
    responses((status = 201, description = "The member", body = Joined)))]
pub(crate) async fn join(
    State(service): State<Service>,
    caller: Caller,
    Path(group): Path<String>,
    join: Json<Join>,
) -> Result<Response, Problem> {
    let members = &service.rest.members;
    if members.kept().len() >= members.count_max {
        return Err(Members::full());
    }
    let Join {
        topics,
        start,
        auto_commit_ms,
        session_timeout_ms,
    } = join.value;
    let reset = match start {
        Begin::Earliest => OffsetReset::Earliest,
        Begin::Latest => OffsetReset::Latest,
    };
    let mut builder = caller
        .client()
        .group_consumer(&group)
        .topics(topics)
        .offset_reset(reset)
        .auto_commit(auto_commit_ms.map(Duration::from_millis))
        .max_poll_interval(members.idle + POLL_MARGIN)
        .fetching(|consumer| {
            let piece = AHEAD_BYTES as u32 / 4;
            consumer
                .prefetch_bytes(AHEAD_BYTES)
                .fetch_bytes_max(AHEAD_BYTES as u32)
                .partition_bytes_max(piece)
        });
    if let Some(timeout) = session_timeout_ms {
        let timeout = Duration::from_millis(timeout);
        builder = builder
            .session_timeout(timeout)
            .heartbeat_interval(Duration::from_secs(3).min(timeout / 3));
    }
    let consumer = builder.build().await?;
    let random: [u8; 18] = rand::random();
    let member = URL_SAFE_NO_PAD.encode(random);
    let new = Kept {
        user: caller.user().cloned(),
        group: group.clone(),
        used: Arc::new(Mutex::new(Instant::now())),
        consumer: Arc::new(tokio::sync::Mutex::new(Some(Working { consumer, untold: None }))),
    };
    {
        let mut kept = members.kept();
        if kept.len() >= members.count_max {
            return Err(Members::full());
        }
        kept.insert(member.clone(), new);
    }
    let location = HeaderValue::try_from(format!("/v1/groups/{}/members/{member}", encoded(&group)));
    let idle_ms = members.idle.as_millis() as u64;
    let mut response = (StatusCode::CREATED, axum::Json(Joined { group, member, idle_ms })).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// As a part of a path.
pub(crate) fn encoded(text: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(&byte) {
            encoded.push(char::from(byte));
        } else {
            let [high, low] = [byte >> 4, byte & 0xf].map(|half| b"0123456789ABCDEF"[usize::from(half)]);
            encoded.extend(['%', char::from(high), char::from(low)]);
        }
    }
    encoded
}

/// The consumer of a member that has not left.
fn there(held: &mut Held) -> Result<&mut Working, Problem> {
    let left = || Problem::new(ErrorCode::UnknownMemberId, "this member has left its group");
    held.working.as_mut().ok_or_else(left)
}

/// Hands out records of the partitions that a member has.
///
/// What a request before has handed out counts as processed when this one comes. A member without partitions is given none.
#[utoipa::path(get, path = "/v1/groups/{group}/members/{member}/records", tag = "consumers", operation_id = "poll",
    params(("group" = String, Path, description = "The group"), ("member" = String, Path, description = "The member"), PollQuery),
    responses((status = 200, description = "The records", body = PolledSchema)))]
pub(crate) async fn poll(
    State(service): State<Service>,
    caller: Caller,
    Path((group, member)): Path<(String, String)>,
    Query(query): Query<PollQuery>,
) -> Result<Response, Problem> {
    let PollQuery {
        max,
        max_bytes,
        wait_ms,
        format,
    } = query;
    let much = ReadQuery {
        max,
        max_bytes,
        wait_ms,
        ..ReadQuery::default()
    };
    let much = much.much(&service)?;
    let mut held = service.rest.members.of(&caller, &group, &member)?;
    let _waiting = if much.wait.is_zero() {
        None
    } else {
        Some(service.admission.stream()?)
    };
    let mut charge = service.admission.begin_answer(much.bytes)?;
    let polled = tokio::select! {
        polled = hand_out(there(&mut held)?, much, format, || service.admission.go_on(&mut charge, much.bytes)) => polled?,
        () = service.stopping() => br#"{"records":[]}"#.to_vec(),
    };
    Ok(Written::json(polled, charge).into_response())
}

/// `grow` says how many bytes there is memory for.
async fn hand_out(
    working: &mut Working,
    much: Much,
    format: Format,
    mut grow: impl FnMut() -> usize,
) -> Result<Vec<u8>, Problem> {
    if let Some(problem) = working.untold.take() {
        return Err(problem);
    }
    let consumer = &mut working.consumer;
    let deadline = Instant::now() + much.wait;
    let (mut written, mut count, mut bytes) = (br#"{"records":["#.to_vec(), 0, 0);
    let mut bytes_max = 1;
    while count < much.records && bytes < bytes_max {
        let next = if count == 0 {
            timeout_at(deadline, consumer.recv()).await.ok()
        } else {
            consumer.recv().now_or_never()
        };
        match next {
            Some(Ok(record)) => {
                if count == 0 {
                    bytes_max = grow();
                } else {
                    written.push(b',');
                }
                bytes += write(&mut written, &record, format);
                count += 1;
            }
            Some(Err(error)) if count > 0 => {
                working.untold = Some(error.into());
                break;
            }
            Some(Err(error)) => return Err(error.into()),
            None => break,
        }
    }
    written.extend_from_slice(b"]}");
    Ok(written)
}

/// Writes a record, and says what it takes.
fn write(written: &mut Vec<u8>, record: &ConsumerRecord, format: Format) -> usize {
    let headers = record.headers.iter().map(|header| HeaderRef {
        key: &header.name,
        value: header.value.as_deref(),
    });
    let before = written.len();
    let shown = ShownRecord {
        topic: record.topic.as_str(),
        partition: record.partition.get(),
        offset: record.offset.get(),
        timestamp: record.timestamp.get(),
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers,
        format,
    };
    if let Err(error) = serde_json::to_writer(&mut *written, &shown) {
        unreachable!("texts and numbers are always JSON: {error}");
    }
    written.len() - before
}

/// Commits what was processed.
#[utoipa::path(post, path = "/v1/groups/{group}/members/{member}/commit", tag = "consumers", operation_id = "commit",
    params(("group" = String, Path, description = "The group"), ("member" = String, Path, description = "The member")),
    request_body = Commit, responses((status = 204, description = "It is committed, and durable")))]
pub(crate) async fn commit(
    State(service): State<Service>,
    caller: Caller,
    Path((group, member)): Path<(String, String)>,
    commit: Json<Commit>,
) -> Result<StatusCode, Problem> {
    let mut held = service.rest.members.of(&caller, &group, &member)?;
    let consumer = &there(&mut held)?.consumer;
    match commit.value.offsets {
        None => consumer.commit().await?,
        Some(offsets) => {
            let offsets: Result<Vec<_>, Problem> = offsets.into_iter().map(CommitOffset::read).collect();
            consumer.commit_offsets(&offsets?).await?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Shows which partitions a member has.
#[utoipa::path(get, path = "/v1/groups/{group}/members/{member}", tag = "consumers", operation_id = "assignment",
    params(("group" = String, Path, description = "The group"), ("member" = String, Path, description = "The member")),
    responses((status = 200, description = "Its partitions", body = Assignment)))]
pub(crate) async fn assignment(
    State(service): State<Service>,
    caller: Caller,
    Path((group, member)): Path<(String, String)>,
) -> Result<axum::Json<Assignment>, Problem> {
    let mut held = service.rest.members.of(&caller, &group, &member)?;
    let positions = there(&mut held)?.consumer.positions().into_iter();
    let partitions = positions.map(|at| AssignedPartition {
        topic: at.topic.to_string(),
        partition: at.partition.get(),
        next_offset: at.position.get(),
    });
    Ok(axum::Json(Assignment {
        partitions: partitions.collect(),
    }))
}

/// Leaves a group. What was handed out and not committed comes again, to another member.
#[utoipa::path(delete, path = "/v1/groups/{group}/members/{member}", tag = "consumers", operation_id = "leave",
    params(("group" = String, Path, description = "The group"), ("member" = String, Path, description = "The member")),
    responses((status = 204, description = "It has left")))]
pub(crate) async fn leave_group(
    State(service): State<Service>,
    caller: Caller,
    Path((group, member)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let members = &service.rest.members;
    let mut held = members.of(&caller, &group, &member)?;
    let left = held.working.take();
    members.kept().remove(&member);
    drop(held);
    if let Some(working) = left {
        let closed = timeout(LEAVE_MAX, working.consumer.close()).await;
        let late = |_late| {
            Problem::new(
                ErrorCode::RequestTimedOut,
                "the group has not answered in time; the member is gone here",
            )
        };
        closed.map_err(late)??;
    }
    Ok(StatusCode::NO_CONTENT)
}
