//! What a request says, or a problem that says why it cannot be read.

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use headwater_client::ErrorCode;
use serde::de::DeserializeOwned;

use crate::{
    admission::{Charge, Whole},
    problem::Problem,
    service::Service,
};

/// What the path names.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Service> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Path<T>, Problem> {
        let axum::extract::Path(path) = axum::extract::Path::from_request_parts(parts, service).await?;
        Ok(Path(path))
    }
}

/// What stands behind the question mark.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<Service> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _service: &Service) -> Result<Query<T>, Problem> {
        let axum::extract::Query(query) = axum::extract::Query::try_from_uri(&parts.uri)?;
        Ok(Query(query))
    }
}

/// A body of JSON.
pub(crate) struct Json<T> {
    pub(crate) value: T,
    /// What the body takes, until the request is answered.
    pub(crate) _charge: Charge,
}

impl<T: DeserializeOwned> FromRequest<Service> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Service) -> Result<Json<T>, Problem> {
        if !is_json(request.headers()) {
            return Err(not_json(request.headers()));
        }
        let whole = whole(request, service).await?;
        Ok(Json {
            value: read_json(&whole.bytes)?,
            _charge: whole.charge,
        })
    }
}

/// Reads the body of a request.
pub(crate) async fn whole(request: Request, service: &Service) -> Result<Whole, Problem> {
    let limits = &service.settings.limits;
    service.admission.read(request.into_body(), limits).await
}

/// Reads JSON, or says where it is not as it should be.
pub(crate) fn read_json<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| Problem::invalid(format!("the body is not as it should be: {error}")))
}

/// The media type of the body, without its parameters, in small letters.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default();
    Some(essence.trim().to_ascii_lowercase())
}

/// Whether the body says that it is JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|kind| kind == "application/json" || kind.ends_with("+json"))
}

/// The body is something else than JSON.
pub(crate) fn not_json(headers: &HeaderMap) -> Problem {
    let said = media_type(headers).unwrap_or_else(|| "nothing".to_owned());
    Problem::new(
        ErrorCode::InvalidRequest,
        format!("the Content-Type of the body is {said}"),
    )
    .status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    .next("send JSON with `Content-Type: application/json`, as curl does with --json")
}

/// Whether the caller would have this media type, by name.
pub(crate) fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let all = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(',')).any(|range| {
        range
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .eq_ignore_ascii_case(wanted)
    })
}
