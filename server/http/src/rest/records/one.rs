//! One record: as JSON, or its value as it is.

use std::time::Duration;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use headwater_client::{Advance, ErrorCode, Offset, OffsetSpec, RecordView, Records, Start};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use super::read::{Much, Place, consumer, write};
use crate::{
    admission::Charge,
    caller::Caller,
    problem::Problem,
    rest::{
        data::{Format, RecordSchema, size},
        extract::{Path, Query, accepts},
        written::Written,
    },
    service::Service,
};

/// How it is shown.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OneQuery {
    /// How bytes are shown: `text`, `json` or `base64`.
    #[param(value_type = Option<Format>)]
    #[serde(default)]
    format: Format,
}

/// Reads one record.
///
/// With `Accept: application/octet-stream` the answer is its value as it is; `Headwater-Timestamp` and `Headwater-Key-Base64` say the rest.
#[utoipa::path(get, path = "/v1/topics/{topic}/partitions/{partition}/records/{offset}", tag = "records", operation_id = "read_one",
    params(("topic" = String, Path, description = "The topic"), ("partition" = i32, Path, description = "The partition"),
        ("offset" = u64, Path, description = "Its number in the partition"), OneQuery),
    responses((status = 200, description = "The record", content((RecordSchema = "application/json"), ("application/octet-stream")))))]
pub(crate) async fn read_one(
    State(service): State<Service>,
    caller: Caller,
    Path((topic, partition, offset)): Path<(String, i32, u64)>,
    Query(query): Query<OneQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = Place::new(topic, partition)?;
    let offset = Offset::new(offset.min(i64::MAX as u64));
    let admin = caller.client().admin();
    let end = admin
        .list_offset(&place.topic, place.partition, OffsetSpec::Latest)
        .await?
        .unwrap_or_default();
    let absent = || {
        Problem::new(ErrorCode::OffsetOutOfRange, format!("there is no record {offset}"))
            .status(axum::http::StatusCode::NOT_FOUND)
    };
    if offset >= end {
        return Err(absent());
    }
    let much = Much {
        records: 1,
        bytes: 1 << 16,
        wait: Duration::ZERO,
    };
    let mut consumer = consumer(&caller, &place, Start::Offset(offset), much).await?;
    let deadline = Instant::now() + service.settings.limits.request_time;
    let late = |_late| Problem::new(ErrorCode::RequestTimedOut, "the record did not come in time");
    loop {
        let records = match timeout_at(deadline, consumer.advance()).await.map_err(late)? {
            Ok(Advance::Records(records)) => records,
            Ok(Advance::Skip(skip)) if skip.to <= offset && skip.to >= skip.from => continue,
            Ok(Advance::Skip(_)) | Err(headwater_client::Error::OffsetOutOfRange { .. }) => return Err(absent()),
            Err(error) => return Err(error.into()),
        };
        let Some(first) = records.iter().next() else { continue };
        let record = first?;
        if record.offset != offset {
            return Err(absent());
        }
        let charge = service.admission.charge(size(&record))?;
        if accepts(&headers, "application/octet-stream") {
            return Ok(raw(&records, &record, charge));
        }
        let mut written = Vec::new();
        write(&mut written, &place.topic, place.partition, &record, query.format);
        return Ok(Written::json(written, charge).into_response());
    }
}

/// The value, as it is. Browsers are not to take it for a page.
fn raw(records: &Records, record: &RecordView<'_>, charge: Charge) -> Response {
    let value = record.value.map(|value| records.slice(value)).unwrap_or_default();
    let mut response = Written::raw(value, charge).into_response();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(
        HeaderName::from_static("headwater-timestamp"),
        HeaderValue::from(record.timestamp.get()),
    );
    // A key that is too long for a header is left out.
    let key = record
        .key
        .filter(|key| key.len() <= 4096)
        .map(|key| STANDARD.encode(key));
    if let Some(Ok(key)) = key.map(HeaderValue::try_from) {
        headers.insert(HeaderName::from_static("headwater-key-base64"), key);
    }
    response
}
