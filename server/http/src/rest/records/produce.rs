//! Records in.
//!
//! All of a request go to the producer of its user at once, and are numbered there against duplicates: what the client sends again is
//! stored once. The answer comes when all in-sync replicas have them on stable storage.

use std::{borrow::Cow, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use headwater_client::{Error, HeaderRef, PartitionIndex, Record, RecordMetadata, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::raw::{self, RawQuery};
use crate::{
    admission::Whole,
    caller::Caller,
    problem::Problem,
    rest::{
        data::{Data, DataSchema, bounded},
        extract::{Path, Query, is_json, media_type, not_json, read_json, whole},
        idempotency::{Answer, Answers},
    },
    service::Service,
    sessions::Session,
};

/// Records in one request.
pub(crate) const RECORDS_MAX: usize = 10_000;

/// Headers of one record.
pub(crate) const HEADERS_MAX: usize = 256;

/// Records to be stored.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRecords<'a> {
    /// The records in order, 10000 at most.
    #[serde(borrow, deserialize_with = "bounded::<_, _, RECORDS_MAX>")]
    #[schema(min_items = 1, max_items = 10_000)]
    records: Vec<NewRecord<'a>>,
}

/// A record to be stored.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRecord<'a> {
    /// The key; records with the same one go to the same partition.
    #[serde(borrow)]
    #[schema(value_type = Option<DataSchema>)]
    pub(crate) key: Option<Data<'a>>,
    /// The value; none in a compacted topic deletes the key.
    #[serde(borrow)]
    #[schema(value_type = Option<DataSchema>)]
    pub(crate) value: Option<Data<'a>>,
    /// The headers in order, 256 at most.
    #[serde(borrow, default, deserialize_with = "bounded::<_, _, HEADERS_MAX>")]
    #[schema(max_items = 256)]
    pub(crate) headers: Vec<NewHeader<'a>>,
    /// The partition; chosen by the key if it is not said.
    #[schema(minimum = 0)]
    pub(crate) partition: Option<i32>,
    /// When it was, in milliseconds since 1970; now if it is not said.
    #[schema(minimum = 0)]
    pub(crate) timestamp: Option<i64>,
}

/// A header of a record to be stored.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewHeader<'a> {
    /// The name; several may have the same.
    #[serde(borrow)]
    #[schema(value_type = String)]
    pub(crate) name: Cow<'a, str>,
    /// The value.
    #[schema(value_type = Option<DataSchema>)]
    #[serde(borrow, default)]
    pub(crate) value: Option<Data<'a>>,
}

/// What became of records, in the order of the request.
#[derive(Serialize, ToSchema)]
pub(crate) struct Stored {
    records: Vec<StoredRecord>,
}

/// What became of a record.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum StoredRecord {
    /// It is stored.
    Stored {
        /// The partition.
        partition: i32,
        /// Its number there; none in the rare case that the broker only remembers that it had the record before.
        offset: Option<u64>,
        /// When it was, in milliseconds since 1970.
        timestamp: i64,
    },
    /// It is not, or that is not known.
    Failed {
        /// Why not.
        error: Problem,
    },
}

/// Stores records: a batch as JSON, or one record whose value is the body.
///
/// With a `Content-Type` of `application/json` the body is a batch. With any other, such as `application/octet-stream`, it is the value of
/// one record; `key`, `partition` and `timestamp` are behind the question mark, and a header `Headwater-Header-NAME` of the request
/// becomes the header `name` of the record. A request with an `Idempotency-Key` that is repeated is answered as before.
#[utoipa::path(post, path = "/v1/topics/{topic}/records", tag = "records", operation_id = "produce",
    params(("topic" = String, Path, description = "The topic"), RawQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "Names the request, so that it may be repeated")),
    request_body(content((NewRecords<'static> = "application/json"), ("application/octet-stream"))),
    responses((status = 200, description = "All are stored", body = Stored),
        (status = 207, description = "Some are stored", body = Stored)))]
pub(crate) async fn to_topic(
    State(service): State<Service>,
    caller: Caller,
    Path(topic): Path<String>,
    Query(query): Query<RawQuery>,
    request: Request,
) -> Result<Response, Problem> {
    produce(service, caller, (topic, None), query, request).await
}

/// Stores records in one partition; as `produce` otherwise.
#[utoipa::path(post, path = "/v1/topics/{topic}/partitions/{partition}/records", tag = "records",
    operation_id = "produce_to_partition",
    params(("topic" = String, Path, description = "The topic"), ("partition" = i32, Path, description = "The partition"), RawQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "Names the request, so that it may be repeated")),
    request_body(content((NewRecords<'static> = "application/json"), ("application/octet-stream"))),
    responses((status = 200, description = "All are stored", body = Stored),
        (status = 207, description = "Some are stored", body = Stored)))]
pub(crate) async fn to_partition(
    State(service): State<Service>,
    caller: Caller,
    Path((topic, partition)): Path<(String, i32)>,
    Query(query): Query<RawQuery>,
    request: Request,
) -> Result<Response, Problem> {
    produce(service, caller, (topic, Some(partition)), query, request).await
}

/// What a request would have stored, free of the request.
struct Wanted {
    topic: String,
    partition: Option<i32>,
    query: RawQuery,
    headers: HeaderMap,
    body: Whole,
}

async fn produce(
    service: Service,
    Caller(session): Caller,
    (topic, partition): (String, Option<i32>),
    query: RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    if matches!(
        media_type(&headers).as_deref(),
        None | Some("application/x-www-form-urlencoded" | "multipart/form-data")
    ) {
        return Err(not_json(&headers).next(
            "send JSON as curl does with --json, or the bytes of one record with -H 'Content-Type: application/octet-stream'",
        ));
    }
    let key = Answers::key(&headers)?.map(str::to_owned);
    let body = whole(request, &service).await?;
    let bytes = body.bytes.clone();
    let wanted = Wanted {
        topic,
        partition,
        query,
        headers,
        body,
    };
    let Some(key) = key else {
        return Ok(wanted.store(&session).await.into_response());
    };
    let named = (
        session.user().cloned(),
        wanted.topic.clone(),
        wanted.partition,
        wanted.query.clone(),
        key,
    );
    let make = async move { wanted.store(&session).await };
    service.rest.answers.once(named, &bytes, make).await
}

impl Wanted {
    async fn store(self, session: &Arc<Session>) -> Answer {
        match self.try_store(session).await {
            Ok(answer) => answer,
            Err(problem) => problem.into(),
        }
    }

    async fn try_store(&self, session: &Session) -> Result<Answer, Problem> {
        let records = if is_json(&self.headers) {
            self.query.must_be_empty()?;
            let batch: NewRecords<'_> = read_json(&self.body.bytes)?;
            batch.records
        } else {
            vec![raw::record(&self.query, &self.headers, &self.body.bytes)?]
        };
        if records.is_empty() {
            return Err(Problem::invalid("there is no record in the request"));
        }
        let ends = store(session, (&self.topic, self.partition), &records).await?;
        answer(ends)
    }
}

/// Stores records, and says what became of each.
pub(crate) async fn store(
    session: &Session,
    (topic, partition): (&str, Option<i32>),
    records: &[NewRecord<'_>],
) -> Result<Vec<Result<RecordMetadata, Error>>, Problem> {
    let producer = session.producer().await?;
    // A topic that is not there is told once, not of each record.
    producer.partition_count(topic).await?;
    let mut wanted = Vec::with_capacity(records.len());
    for (number, record) in records.iter().enumerate() {
        let mut made = Record::to(topic);
        if let Some(Data(key)) = &record.key {
            made = made.key(key.as_ref());
        }
        if let Some(Data(value)) = &record.value {
            made = made.value(value.as_ref());
        }
        if let Some(timestamp) = record.timestamp {
            made = made.timestamp(Timestamp::new(timestamp));
        }
        match (partition, record.partition) {
            (Some(path), Some(own)) if path != own => {
                return Err(Problem::invalid(format!(
                    "record {number} names partition {own}, and the path partition {path}"
                )));
            }
            (Some(partition), _) | (None, Some(partition)) if partition < 0 => {
                return Err(Problem::invalid(format!(
                    "record {number}: there is no partition {partition}"
                )));
            }
            (Some(partition), _) | (None, Some(partition)) => made = made.partition(PartitionIndex::new(partition)),
            (None, None) => {}
        }
        let headers: Vec<HeaderRef<'_>> = record.headers.iter().map(NewHeader::view).collect();
        wanted.push((made, headers));
    }
    let mut records = Vec::with_capacity(wanted.len());
    for (record, headers) in &wanted {
        records.push(record.clone().headers(headers));
    }
    let sent = producer.send_all(records).await;
    let mut ends = Vec::with_capacity(sent.len());
    for sent in sent {
        ends.push(match sent {
            Ok(delivery) => delivery.await,
            Err(error) => Err(error),
        });
    }
    Ok(ends)
}

impl NewHeader<'_> {
    fn view(&self) -> HeaderRef<'_> {
        HeaderRef {
            key: &self.name,
            value: self.value.as_ref().map(|Data(bytes)| bytes.as_ref()),
        }
    }
}

/// Where none is stored, the first error is the answer. One that tells of some is final: the request done again would store them twice.
fn answer(mut ends: Vec<Result<RecordMetadata, Error>>) -> Result<Answer, Problem> {
    if ends.iter().all(Result::is_err) {
        ends.swap_remove(0)?;
    }
    let status = if ends.iter().all(Result::is_ok) {
        StatusCode::OK
    } else {
        StatusCode::MULTI_STATUS
    };
    let records = ends.into_iter().map(StoredRecord::from).collect();
    Ok(Answer::json(status, &Stored { records }))
}

impl From<Result<RecordMetadata, Error>> for StoredRecord {
    fn from(end: Result<RecordMetadata, Error>) -> StoredRecord {
        match end {
            Ok(stored) => StoredRecord::Stored {
                partition: stored.partition.get(),
                offset: stored.offset.map(headwater_client::Offset::get),
                timestamp: stored.timestamp.get(),
            },
            Err(error) => StoredRecord::Failed { error: error.into() },
        }
    }
}
