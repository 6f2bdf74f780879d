//! Who asks, and from where: names and passwords, and which web pages may send them.

use std::{net::IpAddr, ops::Deref, sync::Arc};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use headwater_client::ErrorCode;

use crate::{
    problem::Problem,
    service::Service,
    sessions::{Credentials, Session},
};

/// The session of whoever asks.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) Arc<Session>);

impl Deref for Caller {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl FromRequestParts<Service> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Caller, Problem> {
        service.sessions.of(credentials(&parts.headers)?).await.map(Caller)
    }
}

/// HTTP Basic authentication (RFC 7617). What cannot be read is not repeated.
fn credentials(headers: &HeaderMap) -> Result<Option<Credentials>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let wrong = || {
        Problem::new(
            ErrorCode::UnsupportedSaslMechanism,
            "what the Authorization header says cannot be read",
        )
        .next("send a user's name and password by HTTP Basic authentication, as `curl --user NAME` does")
    };
    let text = value.to_str().map_err(|_other| wrong())?;
    let (scheme, encoded) = text.split_once(' ').ok_or_else(wrong)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(wrong());
    }
    let decoded = STANDARD.decode(encoded.trim()).map_err(|_not_base64| wrong())?;
    let decoded = String::from_utf8(decoded).map_err(|_not_text| wrong())?;
    let (user, password) = decoded.split_once(':').ok_or_else(wrong)?;
    Ok(Some(Credentials {
        user: user.to_owned(),
        password: password.to_owned(),
    }))
}

/// Refuses what a web page of another origin would have a browser do (CSRF), and lets those do it that the configuration names (CORS).
///
/// Browsers remember the passwords of Basic authentication and send them along with whatever a page asks for.
pub(crate) async fn cross_origin(State(service): State<Service>, request: Request, next: Next) -> Response {
    let allowed = &service.settings.allowed_origins;
    if service.settings.is_local && !is_this_machine(request.headers(), allowed) {
        return stranger().into_response();
    }
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return if is_safe(request.method()) || !is_cross_site(request.headers()) {
            next.run(request).await
        } else {
            refused().into_response()
        };
    };
    let is_allowed = origin
        .to_str()
        .is_ok_and(|origin| allowed.iter().any(|own| own.eq_ignore_ascii_case(origin)));
    if !is_allowed && !is_own(&origin, request.headers()) {
        return if is_safe(request.method()) {
            // The browser keeps the answer from the page.
            next.run(request).await
        } else {
            refused().into_response()
        };
    }
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight && is_allowed {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    if is_allowed {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if is_preflight {
            for (name, value) in [
                (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, PATCH, DELETE"),
                (
                    header::ACCESS_CONTROL_ALLOW_HEADERS,
                    "authorization, content-type, accept, idempotency-key, last-event-id",
                ),
                (header::ACCESS_CONTROL_MAX_AGE, "600"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
    }
    response
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Browsers say so themselves; nobody else does.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
}

/// A page of this very address.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    host.zip(origin)
        .is_some_and(|(host, (_, origin))| host.eq_ignore_ascii_case(origin))
}

/// A page whose name leads to this machine (DNS rebinding) would be of the same origin, by that name.
fn is_this_machine(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(host) = headers.get(header::HOST) else {
        return true;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| is_port(port))
        .map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let is_named = allowed.iter().any(|origin| {
        origin
            .split_once("://")
            .is_some_and(|(_, own)| own.eq_ignore_ascii_case(host))
    });
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost") || is_named
}

fn stranger() -> Problem {
    Problem::new(
        ErrorCode::PolicyViolation,
        "the name in the Host header is not one of this machine",
    )
    .next("call it localhost or by its address, or name the origin of that host in http.allowed_origins")
}

fn refused() -> Problem {
    Problem::new(
        ErrorCode::PolicyViolation,
        "a web page of another origin may not do this",
    )
    .next("name the page's origin in http.allowed_origins")
}
