//! The first exchange on a connection: what the broker speaks.

use headwater_kafka::{
    Message as _, Reader,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
};
use headwater_protocol::{error::ErrorCode, id::CoreId};

use super::{apis::SERVED, reply::Reply};
use crate::{ops::nodes::Places, session::protocol::Taken};

/// `ApiVersions` itself, and its newest version.
const API_VERSIONS: i16 = 18;
const VERSION_MAX: i16 = 5;

/// From this version on the range of a feature may begin at 0.
const ZERO_FROM: i16 = 4;

/// `REBOOTSTRAP_REQUIRED`: the client means another cluster, or another node, than it has reached.
const REBOOTSTRAP_REQUIRED: i16 = 129;

/// Says what the broker speaks. A client that asks at a newer version than is known is told so at the oldest one.
pub(super) fn answer(reply: Reply, body: &[u8]) -> Taken {
    let version = reply.version;
    if !(0..=VERSION_MAX).contains(&version) {
        let response = ApiVersionsResponse {
            error_code: ErrorCode::UnsupportedVersion.as_i16(),
            api_keys: offered().filter(|api| api.api_key == API_VERSIONS).collect(),
            ..ApiVersionsResponse::default()
        };
        reply.send(ErrorCode::UnsupportedVersion, |frame| response.write(frame, 0));
        return Taken::Done;
    }
    let request = match ApiVersionsRequest::read(&mut Reader::new(body), version) {
        Ok(request) => request,
        Err(error) => return Taken::Close(error.to_string()),
    };
    let error_code = judge(&reply, &request);
    let response = ApiVersionsResponse {
        error_code,
        api_keys: offered().filter(|_| error_code == 0).collect(),
        ..if error_code == 0 {
            features(version)
        } else {
            ApiVersionsResponse::default()
        }
    };
    reply.send(ErrorCode::from_i16(error_code), |frame| response.write(frame, version));
    Taken::Done
}

/// What clients ask the cluster for by a level: groups of type consumer, and transactions after each of which the producer's epoch rises.
const FEATURES: [(&str, i16); 2] = [("group.version", 1), ("transaction.version", 2)];

fn features(version: i16) -> ApiVersionsResponse<'static> {
    let supported = FEATURES.map(|(name, level)| SupportedFeatureKey {
        name: name.into(),
        min_version: 0,
        max_version: level,
    });
    let finalized = FEATURES.map(|(name, level)| FinalizedFeatureKey {
        name: name.into(),
        max_version_level: level,
        min_version_level: level,
    });
    ApiVersionsResponse {
        // Older clients take no range that begins at 0.
        supported_features: supported.into_iter().filter(|_| version >= ZERO_FROM).collect(),
        // It never changes.
        finalized_features_epoch: 0,
        finalized_features: finalized.into(),
        ..ApiVersionsResponse::default()
    }
}

fn offered() -> impl Iterator<Item = ApiVersion> {
    SERVED.iter().map(|row| ApiVersion {
        api_key: row.key.number(),
        min_version: row.version_min,
        max_version: row.version_max,
    })
}

/// 0, or what is wrong with who asks or with whom it means to ask (KIP-511, KIP-1242).
fn judge(reply: &Reply, request: &ApiVersionsRequest<'_>) -> i16 {
    let names = [&request.client_software_name, &request.client_software_version];
    if reply.version >= 3 && !names.iter().all(|name| is_name(name)) {
        return ErrorCode::InvalidRequest.as_i16();
    }
    let ops = &reply.sessions.ops;
    match &request.cluster_id {
        None if request.node_id == -1 => 0,
        None => ErrorCode::InvalidRequest.as_i16(),
        Some(cluster) if *cluster != ops.addresses.cluster_id => REBOOTSTRAP_REQUIRED,
        Some(_) => {
            let places = Places::of(ops);
            let own = |core| places.node(ops.core.config.broker.id, CoreId::new(core));
            let is_own = (0..ops.core.mesh.len() as u16).any(|core| own(core) == request.node_id);
            if is_own || request.node_id == -1 {
                0
            } else {
                REBOOTSTRAP_REQUIRED
            }
        }
    }
}

/// What a client may call its software: letters and digits, with dots and dashes between them.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
    is_plain(bytes.first()) && is_plain(bytes.last()) && bytes.iter().all(is_allowed)
}
