//! One record whose value is the body of the request, as it is: what else there is to a record stands in the query and the headers.

use std::borrow::Cow;

use axum::http::HeaderMap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use utoipa::IntoParams;

use super::produce::{HEADERS_MAX, NewHeader, NewRecord};
use crate::{problem::Problem, rest::data::Data};

/// Headers of a request that begin so are headers of the record.
const HEADER_PREFIX: &str = "headwater-header-";

/// What there is to a record whose value is the body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RawQuery {
    /// Of a body that is one record: its key, as text.
    key: Option<String>,
    /// Of a body that is one record: its key, in base64.
    key_base64: Option<String>,
    /// Of a body that is one record: its partition.
    #[param(minimum = 0)]
    partition: Option<i32>,
    /// Of a body that is one record: when it was, in milliseconds since 1970.
    #[param(minimum = 0)]
    timestamp: Option<i64>,
}

impl RawQuery {
    /// A batch says all of this itself.
    pub(super) fn must_be_empty(&self) -> Result<(), Problem> {
        if *self == RawQuery::default() {
            Ok(())
        } else {
            Err(Problem::invalid(
                "key, key_base64, partition and timestamp are for a body that is one record; each record of a batch has its own",
            ))
        }
    }
}

/// The record that a request is.
pub(super) fn record<'a>(
    query: &'a RawQuery,
    headers: &'a HeaderMap,
    body: &'a [u8],
) -> Result<NewRecord<'a>, Problem> {
    let key = match (&query.key, &query.key_base64) {
        (Some(_), Some(_)) => return Err(Problem::invalid("give key or key_base64, not both")),
        (Some(text), None) => Some(Cow::Borrowed(text.as_bytes())),
        (None, Some(encoded)) => {
            let decoded = STANDARD.decode(encoded);
            let decoded = decoded.map_err(|error| Problem::invalid(format!("key_base64 cannot be read: {error}")))?;
            Some(Cow::Owned(decoded))
        }
        (None, None) => None,
    };
    let of_record = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(HEADER_PREFIX)?;
        Some(NewHeader {
            name: Cow::Borrowed(name),
            value: Some(Data(Cow::Borrowed(value.as_bytes()))),
        })
    });
    let of_record: Vec<NewHeader<'_>> = of_record.take(HEADERS_MAX + 1).collect();
    if of_record.len() > HEADERS_MAX {
        return Err(Problem::invalid(format!("a record may have {HEADERS_MAX} headers")));
    }
    Ok(NewRecord {
        key: key.map(Data),
        value: Some(Data(Cow::Borrowed(body))),
        headers: of_record,
        partition: query.partition,
        timestamp: query.timestamp,
    })
}
