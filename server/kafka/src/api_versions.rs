//! `ApiVersions`, the first request of a connection: what the broker offers. A client that asks at a version that the broker does
//! not know is told so at version 0, in a form that every client can read, and asks again.

use crate::api::ApiKey;
use crate::messages::ApiVersionsResponse;
use crate::messages::api_versions_response::ApiVersion;

/// Kafka's `UNSUPPORTED_VERSION`.
const UNSUPPORTED_VERSION: i16 = 35;

/// What is said to be offered of a request.
///
/// Of Produce that is more than is served, as Kafka does it: librdkafka compresses nothing for a broker that does not offer
/// version 0, though it asks at a later one (KAFKA-18659).
pub const fn offered(key: ApiKey) -> ApiVersion {
    let api = key.api();
    ApiVersion {
        api_key: key.number(),
        min_version: match key {
            ApiKey::Produce => 0,
            _ => api.version_min,
        },
        max_version: api.version_max,
    }
}

/// The answer that offers these requests. Features are for the caller to add.
pub fn response(keys: &[ApiKey]) -> ApiVersionsResponse<'static> {
    ApiVersionsResponse {
        api_keys: keys.iter().copied().map(offered).collect(),
        ..ApiVersionsResponse::default()
    }
}

/// The answer to a version that is not known, to be written at version 0.
pub fn unsupported_version() -> ApiVersionsResponse<'static> {
    ApiVersionsResponse {
        error_code: UNSUPPORTED_VERSION,
        ..response(&[ApiKey::ApiVersions])
    }
}
