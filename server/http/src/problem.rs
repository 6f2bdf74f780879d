//! Errors as callers see them: Problem JSON (RFC 9457), with the codes of the native protocol and what to do next.

use axum::{
    extract::rejection::{JsonRejection, PathRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use headwater_client::{Error, ErrorCode};
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong. The media type is `application/problem+json`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Names the kind of problem: `urn:headwater:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// One sentence on problems of this kind.
    title: &'static str,
    /// The status of the response.
    #[schema(example = 404)]
    status: u16,
    /// The name of the code, as in the native protocol and Kafka's.
    #[schema(example = "UNKNOWN_TOPIC_OR_PARTITION")]
    code: &'static str,
    /// Its number there.
    error_code: i16,
    /// What went wrong this time.
    detail: String,
    /// Whether the same request may succeed later.
    retriable: bool,
    /// What to do.
    next: &'static str,
}

impl Problem {
    /// With the status, the words and the advice that belong to the code.
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Problem {
        Problem {
            kind: format!("urn:headwater:problem:{}", code.name()),
            title: code.description(),
            status: status_of(code).as_u16(),
            code: code.name(),
            error_code: code.as_i16(),
            detail: detail.into(),
            retriable: code.is_retriable(),
            next: next_after(code),
        }
    }

    /// A request that makes no sense.
    pub(crate) fn invalid(detail: impl Into<String>) -> Problem {
        Problem::new(ErrorCode::InvalidRequest, detail)
    }

    /// Something else than the usual status.
    pub(crate) fn status(mut self, status: StatusCode) -> Problem {
        self.status = status.as_u16();
        self
    }

    /// Something else than the usual advice.
    pub(crate) fn next(mut self, next: &'static str) -> Problem {
        self.next = next;
        self
    }

    /// There is too much of something at the moment.
    pub(crate) fn busy(detail: impl Into<String>, next: &'static str) -> Problem {
        Problem::new(ErrorCode::ThrottlingQuotaExceeded, detail)
            .status(StatusCode::SERVICE_UNAVAILABLE)
            .next(next)
    }

    /// The body is longer than it may be.
    pub(crate) fn too_large(max: usize) -> Problem {
        Problem::new(ErrorCode::MessageTooLarge, format!("a body may have {max} bytes"))
            .next("send less in one request, or raise http.body_bytes_max")
    }

    /// Nobody has said who it is.
    pub(crate) fn nobody() -> Problem {
        Problem::new(
            ErrorCode::SaslAuthenticationFailed,
            "this cluster asks its callers who they are",
        )
        .next("send a user's name and password by HTTP Basic authentication, as `curl --user NAME` does")
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn http_status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    use ErrorCode as E;
    match code {
        E::SaslAuthenticationFailed | E::IllegalSaslState | E::UnsupportedSaslMechanism => StatusCode::UNAUTHORIZED,
        E::TopicAuthorizationFailed
        | E::GroupAuthorizationFailed
        | E::ClusterAuthorizationFailed
        | E::TransactionalIdAuthorizationFailed
        | E::PolicyViolation
        | E::SecurityDisabled => StatusCode::FORBIDDEN,
        E::UnknownTopicOrPartition
        | E::UnknownTopicId
        | E::GroupIdNotFound
        | E::ResourceNotFound
        | E::UnknownMemberId
        | E::BrokerIdNotRegistered => StatusCode::NOT_FOUND,
        E::TopicAlreadyExists
        | E::NonEmptyGroup
        | E::GroupSubscribedToTopic
        | E::DuplicateResource
        | E::IllegalGeneration
        | E::RebalanceInProgress
        | E::FencedInstanceId
        | E::FencedMemberEpoch
        | E::StaleMemberEpoch
        | E::ReassignmentInProgress
        | E::ElectionNotNeeded
        | E::NoReassignmentInProgress => StatusCode::CONFLICT,
        E::OffsetOutOfRange => StatusCode::RANGE_NOT_SATISFIABLE,
        E::MessageTooLarge | E::RecordListTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        E::ThrottlingQuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        E::RequestTimedOut => StatusCode::GATEWAY_TIMEOUT,
        E::NetworkException
        | E::LeaderNotAvailable
        | E::NotLeaderOrFollower
        | E::BrokerNotAvailable
        | E::ReplicaNotAvailable
        | E::CoordinatorLoadInProgress
        | E::CoordinatorNotAvailable
        | E::NotCoordinator
        | E::NotEnoughReplicas
        | E::NotEnoughReplicasAfterAppend
        | E::NotController
        | E::KafkaStorageError
        | E::OffsetNotAvailable
        | E::GroupMaxSizeReached
        | E::PreferredLeaderNotAvailable
        | E::EligibleLeadersNotAvailable => StatusCode::SERVICE_UNAVAILABLE,
        E::UnknownServerError | E::None | E::CorruptMessage | E::LogDirNotFound => StatusCode::INTERNAL_SERVER_ERROR,
        E::UnsupportedVersion => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn next_after(code: ErrorCode) -> &'static str {
    use ErrorCode as E;
    match code {
        E::SaslAuthenticationFailed => {
            "check the user's name and password; `headwater user list` shows the users there are"
        }
        E::TopicAuthorizationFailed | E::GroupAuthorizationFailed | E::ClusterAuthorizationFailed => {
            "ask an administrator for a rule that allows it: docs/security.md says which"
        }
        E::UnknownTopicOrPartition | E::UnknownTopicId => {
            "GET /v1/topics lists the topics there are, GET /v1/topics/{topic} its partitions"
        }
        E::GroupIdNotFound => "GET /v1/groups lists the groups there are",
        E::UnknownMemberId => "join the group again: POST /v1/groups/{group}/members",
        E::TopicAlreadyExists => "take another name, or go on with the topic that is there",
        E::NonEmptyGroup | E::GroupSubscribedToTopic => {
            "stop the members of the group first; GET /v1/groups/{group} shows them"
        }
        E::OffsetOutOfRange => "GET /v1/topics/{topic} shows the first and the last offset of each partition",
        E::MessageTooLarge | E::RecordListTooLarge => "send smaller records, or raise max.message.bytes of the topic",
        E::InvalidConfig => "GET /v1/topics/{topic}/config shows every setting of a topic with its value",
        E::InvalidTopicException => "a topic's name is 1 to 249 of the letters a-z A-Z 0-9 . _ -",
        E::InvalidRecord => "a compacted topic needs a key on every record",
        E::InvalidRequest => "GET /openapi.json describes every request; /docs lets one try them",
        E::ThrottlingQuotaExceeded => "try again after the time that Retry-After says",
        E::KafkaStorageError => "look at the broker's disk and its log, then try again",
        E::UnknownServerError => "the broker's log tells more",
        _ if code.is_retriable() => "try again in a moment",
        _ => "change the request; the broker's log may tell more",
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let code = code_of(&error);
        let mut detail = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            detail = format!("{detail}: {error}");
            source = error.source();
        }
        Problem::new(code, detail)
    }
}

/// The code of an error, also of one that has none on the wire.
fn code_of(error: &Error) -> ErrorCode {
    match error {
        // Behind the time that was up may be the reason.
        Error::Timeout { last: Some(last), .. } => match code_of(last) {
            ErrorCode::UnknownServerError | ErrorCode::NetworkException => ErrorCode::RequestTimedOut,
            code => code,
        },
        Error::Timeout { .. } => ErrorCode::RequestTimedOut,
        Error::IllegalTopicName { .. } => ErrorCode::InvalidTopicException,
        Error::IllegalRecord { .. } => ErrorCode::InvalidRecord,
        Error::Config { .. } | Error::UnknownSetting { .. } | Error::ForeignSetting { .. } => ErrorCode::InvalidRequest,
        Error::WouldBlock(_) => ErrorCode::ThrottlingQuotaExceeded,
        Error::PollIntervalExceeded { .. } => ErrorCode::UnknownMemberId,
        Error::NoLeader { .. } => ErrorCode::LeaderNotAvailable,
        Error::NoCommittedOffset { .. } => ErrorCode::OffsetOutOfRange,
        Error::Authentication { .. } => ErrorCode::SaslAuthenticationFailed,
        Error::Unsupported { .. } => ErrorCode::UnsupportedVersion,
        Error::CorruptBatch { .. } | Error::CorruptLog { .. } => ErrorCode::CorruptMessage,
        Error::Connect { .. } | Error::NotHeadwater { .. } | Error::Disconnected { .. } | Error::Closed => {
            ErrorCode::NetworkException
        }
        error => error.code().unwrap_or(ErrorCode::UnknownServerError),
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Problem {
        Problem::invalid(rejection.body_text()).status(rejection.status())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Problem {
        Problem::invalid(rejection.body_text()).status(rejection.status())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        Problem::invalid(rejection.body_text()).status(rejection.status())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.http_status();
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"headwater\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
