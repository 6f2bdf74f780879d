//! Records out, a page at a time: from an offset or a time on, waiting for them if there are none yet.

use std::time::Duration;

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use headwater_client::{
    Advance, Consumer, ErrorCode, Offset, OffsetReset, OffsetSpec, PartitionIndex, RecordView, Start, Timestamp,
};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::{IntoParams, ToSchema};

use super::stream;
use crate::{
    caller::Caller,
    problem::Problem,
    rest::{
        data::{Format, RecordSchema, ShownRecord, size},
        extract::{Path, Query, accepts},
        written::Written,
    },
    service::Service,
    sessions::Session,
};

const RECORDS_DEFAULT: usize = 100;

const RECORDS_MAX: usize = 10_000;

const BYTES_DEFAULT: usize = 1 << 20;

/// Longest that a request waits for records.
pub(crate) const WAIT_MAX_MS: u64 = 60_000;

/// Bytes that a compressed batch may take.
const DECOMPRESSED_MAX: usize = 32 << 20;

/// An answer has this part of the memory for bodies.
const MEMORY_PART: usize = 16;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// At the first record that is there.
    Earliest,
    /// Behind the last.
    Latest,
    /// At this one.
    Offset(u64),
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            number => {
                let number: Result<u64, _> = number.parse();
                let fits = number.ok().filter(|number| i64::try_from(*number).is_ok());
                fits.map(Self::Offset)
                    .ok_or_else(|| serde::de::Error::custom("an offset is a number, `earliest` or `latest`"))
            }
        }
    }
}

/// From where, how much, and how it is shown.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadQuery {
    /// The first offset: a number, `earliest` (which it is if nothing is said) or `latest`.
    #[param(value_type = Option<String>, example = "earliest")]
    pub(crate) offset: Option<Position>,
    /// Instead of an offset: from the first record on that is as late as this, in milliseconds since 1970.
    #[param(minimum = 0)]
    pub(crate) time: Option<i64>,
    /// Records at most, 100 if it is not said.
    #[param(minimum = 1, maximum = 10_000)]
    pub(crate) max: Option<usize>,
    /// Bytes of records at most, 1 MiB if it is not said; one record is given however large. A sixteenth of `http.memory_bytes_max` is
    /// the most there is.
    #[param(minimum = 1)]
    pub(crate) max_bytes: Option<usize>,
    /// How long to wait for a record if there is none yet, in milliseconds.
    #[param(minimum = 0, maximum = 60_000)]
    pub(crate) wait_ms: Option<u64>,
    /// How bytes are shown: `text`, `json` or `base64`.
    #[param(value_type = Option<Format>)]
    #[serde(default)]
    pub(crate) format: Format,
}

/// How much is wanted, within what there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Much {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    pub(crate) wait: Duration,
}

impl ReadQuery {
    pub(crate) fn much(&self, service: &Service) -> Result<Much, Problem> {
        let records = self.max.unwrap_or(RECORDS_DEFAULT);
        if !(1..=RECORDS_MAX).contains(&records) {
            return Err(Problem::invalid(format!(
                "max is {records}; allowed is 1 to {RECORDS_MAX}"
            )));
        }
        let wait = self.wait_ms.unwrap_or(0);
        if wait > WAIT_MAX_MS {
            return Err(Problem::invalid(format!(
                "wait_ms is {wait}; allowed is 0 to {WAIT_MAX_MS}"
            )));
        }
        let bytes_max = service.settings.limits.memory_bytes / MEMORY_PART;
        Ok(Much {
            records,
            bytes: self.max_bytes.unwrap_or(BYTES_DEFAULT).clamp(1, bytes_max.max(1)),
            wait: Duration::from_millis(wait),
        })
    }

    /// Where a consumer begins.
    pub(crate) fn start(&self) -> Result<Start, Problem> {
        match (self.offset, self.time) {
            (Some(_), Some(_)) => Err(Problem::invalid("give offset or time, not both")),
            (None, Some(time)) if time < 0 => Err(Problem::invalid("time is before 1970")),
            (None, Some(time)) => Ok(Start::Timestamp(Timestamp::new(time))),
            (Some(Position::Offset(offset)), None) => Ok(Start::Offset(Offset::new(offset))),
            (Some(Position::Latest), None) => Ok(Start::Latest),
            (Some(Position::Earliest) | None, None) => Ok(Start::Earliest),
        }
    }
}

/// Records of one partition.
#[derive(ToSchema)]
#[schema(as = Records)]
#[allow(dead_code, reason = "it describes what is written piece by piece")]
pub(crate) struct RecordsSchema {
    /// The records in order.
    records: Vec<RecordSchema>,
    /// To be sent as `offset` for what comes next.
    next_offset: u64,
    /// The first offset that readers do not see yet, when the request came.
    high_watermark: u64,
}

/// Reads records of a partition.
///
/// With `Accept: text/event-stream` they come as Server-Sent Events for as long as the caller listens: one event for each record, whose id
/// is its offset and whose data is the record as JSON. `Last-Event-ID`, which browsers send by themselves when they connect again, goes
/// on behind that offset. An event `problem` says why a stream ends.
#[utoipa::path(get, path = "/v1/topics/{topic}/partitions/{partition}/records", tag = "records", operation_id = "read",
    params(("topic" = String, Path, description = "The topic"), ("partition" = i32, Path, description = "The partition"), ReadQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "Of a stream: the last offset that was seen")),
    responses((status = 200, description = "The records", content((RecordsSchema = "application/json"), (String = "text/event-stream")))))]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path((topic, partition)): Path<(String, i32)>,
    Query(query): Query<ReadQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = Place::new(topic, partition)?;
    if accepts(&headers, "text/event-stream") {
        return stream::open(service, caller, place, &query, &headers).await;
    }
    let (much, start) = (query.much(&service)?, query.start()?);
    let _waiting = if much.wait.is_zero() {
        None
    } else {
        Some(service.admission.stream()?)
    };
    let page = read_page(&service, &caller, &place, (start, much, query.format)).await?;
    Ok(page.into_response())
}

/// A partition, as the path names it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) topic: String,
    pub(crate) partition: PartitionIndex,
}

impl Place {
    pub(crate) fn new(topic: String, partition: i32) -> Result<Place, Problem> {
        if partition < 0 {
            return Err(Problem::invalid(format!("there is no partition {partition}")));
        }
        Ok(Place {
            topic,
            partition: PartitionIndex::new(partition),
        })
    }
}

async fn read_page(
    service: &Service,
    session: &Session,
    place: &Place,
    (start, much, format): (Start, Much, Format),
) -> Result<Written, Problem> {
    let admin = session.client().admin();
    let end = admin
        .list_offset(&place.topic, place.partition, OffsetSpec::Latest)
        .await?
        .unwrap_or_default();
    let mut consumer = consumer(session, place, start, much).await?;
    let mut charge = service.admission.begin_answer(much.bytes)?;
    let mut list = List::new(much, format);
    let began = Instant::now();
    let (answer_by, wait_until) = (began + service.settings.limits.request_time, began + much.wait);
    let mut position = consumer.position(&place.topic, place.partition).unwrap_or_default();
    while !list.is_full() {
        // An offset behind the end is for the broker to refuse.
        let is_there = position < end || (list.is_empty() && position > end);
        let deadline = if is_there {
            answer_by
        } else if list.is_empty() && Instant::now() < wait_until {
            wait_until
        } else {
            break;
        };
        let advanced = tokio::select! {
            advanced = timeout_at(deadline, consumer.advance()) => advanced,
            () = service.stopping() => break,
        };
        match advanced {
            Ok(Ok(Advance::Records(records))) => {
                position = records.next_offset();
                if list.is_empty() {
                    list.bytes_left = service.admission.go_on(&mut charge, much.bytes);
                }
                for record in &records {
                    let record = record?;
                    if !list.push(&place.topic, place.partition, &record) {
                        position = record.offset;
                        break;
                    }
                }
            }
            Ok(Ok(Advance::Skip(skip))) => position = skip.to,
            // What came before is given first; the next request meets it again.
            Ok(Err(_later)) if !list.is_empty() => break,
            Ok(Err(error)) => return Err(error.into()),
            Err(_late) if !is_there || !list.is_empty() => break,
            Err(_late) => return Err(unanswered(&consumer)),
        }
    }
    let (next, end) = (position.get(), end.get());
    let written = list.close(&format!(r#","next_offset":{next},"high_watermark":{end}}}"#));
    Ok(Written::json(written, charge))
}

/// Why nothing came.
fn unanswered(consumer: &Consumer) -> Problem {
    let late = || Problem::new(ErrorCode::RequestTimedOut, "no records came in time");
    consumer.retrying_after().map_or_else(late, Problem::from)
}

/// Reads one partition, and not much ahead.
pub(crate) async fn consumer(session: &Session, place: &Place, start: Start, much: Much) -> Result<Consumer, Problem> {
    let bytes = much.bytes.clamp(4 << 10, 1 << 20);
    let consumer = session
        .client()
        .consumer()
        .assign(place.topic.as_str(), [place.partition])
        .start(start)
        .offset_reset(OffsetReset::Error)
        .fetch_bytes_max(bytes as u32)
        .partition_bytes_max(bytes as u32)
        .prefetch_bytes(bytes)
        .decompressed_bytes_max(DECOMPRESSED_MAX);
    Ok(consumer.build().await?)
}

/// A list of records that is being written, and how much more fits.
struct List {
    written: Vec<u8>,
    count: usize,
    records_left: usize,
    bytes_left: usize,
    format: Format,
}

impl List {
    fn new(much: Much, format: Format) -> List {
        List {
            written: br#"{"records":["#.to_vec(),
            count: 0,
            records_left: much.records,
            bytes_left: much.bytes,
            format,
        }
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Nothing more fits.
    fn is_full(&self) -> bool {
        self.records_left == 0 || self.bytes_left == 0
    }

    /// Writes a record, if it fits; the first one does.
    fn push(&mut self, topic: &str, partition: PartitionIndex, record: &RecordView<'_>) -> bool {
        let size = size(record).max(1);
        if self.is_full() || (self.count > 0 && size > self.bytes_left) {
            self.bytes_left = 0;
            return false;
        }
        if self.count > 0 {
            self.written.push(b',');
        }
        write(&mut self.written, topic, partition, record, self.format);
        self.count += 1;
        self.records_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(size);
        true
    }

    /// Ends the list, and with this the object that it is in.
    fn close(mut self, rest: &str) -> Vec<u8> {
        self.written.push(b']');
        self.written.extend_from_slice(rest.as_bytes());
        self.written
    }
}

/// Writes a record as JSON.
pub(crate) fn write(
    written: &mut Vec<u8>,
    topic: &str,
    partition: PartitionIndex,
    record: &RecordView<'_>,
    format: Format,
) {
    let shown = ShownRecord {
        topic,
        partition: partition.get(),
        offset: record.offset.get(),
        timestamp: record.timestamp.get(),
        key: record.key,
        value: record.value,
        headers: record.headers.clone(),
        format,
    };
    if let Err(error) = serde_json::to_writer(written, &shown) {
        unreachable!("texts and numbers are always JSON: {error}");
    }
}
