//! The frame around every page, and what is answered where there is none.
//!
//! A browser is told to run and to show nothing but what comes from here, and to let nobody else frame it: see [`guard`], which every
//! response passes. Pages have no script and no style of their own, so the policy needs no exception.

use std::fmt::Display;

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{Response as HttpResponse, StatusCode};
use axum::response::{IntoResponse, Response};
use headwater_client::{Error, ErrorCode};
use maud::{DOCTYPE, Markup, Render, html};

use super::assets;
use super::params::encode;

/// Where the pages are.
pub(super) const ROOT: &str = "/console";

/// What a handler answers.
pub(super) type Reply = Result<Response, Refusal>;

/// Scripts, styles, pictures and requests of this address only; forms go here only; nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Puts the headers on a response that keep a browser from doing what it was not told to do here.
pub(super) async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &'static str); 6] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: with that a browser does not say where a form comes from, which is looked at.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Pages show records: no cache keeps them.
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The parts that the navigation leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Overview,
    Topics,
    Groups,
    Brokers,
    Charts,
    Security,
    /// None of them.
    None,
}

const PARTS: [(Part, &str, &str); 6] = [
    (Part::Overview, "Overview", ""),
    (Part::Topics, "Topics", "/topics"),
    (Part::Groups, "Groups", "/groups"),
    (Part::Brokers, "Brokers", "/brokers"),
    (Part::Charts, "Charts", "/charts"),
    (Part::Security, "Security", "/security"),
];

/// A page of this part with this title.
pub(super) fn page(part: Part, title: &str, body: &Markup) -> Response {
    page_with(StatusCode::OK, part, title, body)
}

fn page_with(status: StatusCode, part: Part, title: &str, body: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Headwater" }
                link rel="icon" type="image/svg+xml" href=(assets::ICON.address());
                link rel="stylesheet" href=(assets::STYLE.address());
                script src=(assets::SCRIPT.address()) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the page" }
                header {
                    a.brand href=(ROOT) { "Headwater" }
                    nav aria-label="Parts of the console" {
                        @for (of, name, path) in PARTS {
                            a href={ (ROOT) (path) } aria-current=[(of == part).then_some("page")] { (name) }
                        }
                    }
                    p.pulse #pulse role="status" {}
                }
                main #main tabindex="-1" { (body) }
            }
        }
    };
    (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}

/// A part of a page that the script fetches again every so many seconds, while somebody looks.
pub(super) fn live(id: &str, seconds: u32, body: &Markup) -> Markup {
    html! { div id=(id) data-refresh=(seconds) { (body) } }
}

/// A table that scrolls within itself where it is wider than the screen, also by keys.
pub(super) fn table(caption: &str, columns: &[(&str, bool)], rows: &[Markup]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead { tr { @for (name, is_number) in columns { th scope="col" .n[*is_number] { (name) } } } }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
        @if rows.is_empty() { p.none { "None." } }
    }
}

/// Figures with their names, large.
pub(super) fn tiles(tiles: &[(&str, String, &str)]) -> Markup {
    html! {
        dl.tiles {
            @for (name, figure, note) in tiles {
                div { dt { (name) } dd { (figure) @if !note.is_empty() { small { (note) } } } }
            }
        }
    }
}

/// Pages of a list that is longer than one of them: links to the one before and the one after.
pub(super) fn pager(path: &str, at: usize, pages: usize) -> Markup {
    let separator = if path.contains('?') { '&' } else { '?' };
    let link = |page: usize, text: &str, rel: &str| html! { a href={ (path) (separator) "page=" (page) } rel=(rel) { (text) } };
    html! {
        @if pages > 1 {
            nav.pager aria-label="Pages" {
                @if at > 1 { (link(at - 1, "Previous", "prev")) }
                span { "Page " (at) " of " (pages) }
                @if at < pages { (link(at + 1, "Next", "next")) }
            }
        }
    }
}

/// One page of a list, its number, and how many there are.
pub(super) fn paged<T>(all: &[T], page: Option<usize>, size: usize) -> (&[T], usize, usize) {
    let pages = all.len().div_ceil(size).max(1);
    let at = page.unwrap_or(1).clamp(1, pages);
    let from = (at - 1) * size;
    (&all[from..all.len().min(from + size)], at, pages)
}

/// A link to a topic.
pub(super) fn topic_link(name: &str) -> Markup {
    html! { a href={ (ROOT) "/topics/" (encode(name)) } { (name) } }
}

/// What is answered instead of a page.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// What is wrong, as a sentence.
    pub(super) what: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { status, what }
    }

    pub(super) fn bad(what: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, what)
    }

    pub(super) fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }

    /// As a page of its own.
    fn page(&self) -> Response {
        let title = match self.status {
            StatusCode::BAD_REQUEST => "That cannot be asked for",
            StatusCode::UNAUTHORIZED => "Who are you?",
            StatusCode::FORBIDDEN => "Not allowed",
            StatusCode::NOT_FOUND => "Not there",
            StatusCode::CONFLICT => "Not any more",
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "Not now",
            _ => "The broker did not answer as hoped",
        };
        let body = html! { h1 { (title) } (self) p { a href=(ROOT) { "To the overview" } } };
        page_with(self.status, Part::None, title, &body)
    }
}

/// As a part of a page whose other parts can be shown.
impl Render for Refusal {
    fn render(&self) -> Markup {
        html! { p.problem role="alert" { (self.what) } }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.page();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"headwater\", charset=\"UTF-8\""),
            );
        }
        response
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::UnknownTopic(_) | Error::UnknownPartition { .. } => StatusCode::NOT_FOUND,
            Error::IllegalTopicName { .. } | Error::Config { .. } => StatusCode::BAD_REQUEST,
            Error::Authentication { .. } => StatusCode::UNAUTHORIZED,
            Error::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            _ => match error.code() {
                Some(
                    ErrorCode::TopicAuthorizationFailed
                    | ErrorCode::GroupAuthorizationFailed
                    | ErrorCode::ClusterAuthorizationFailed,
                ) => StatusCode::FORBIDDEN,
                Some(ErrorCode::GroupIdNotFound) => StatusCode::NOT_FOUND,
                Some(ErrorCode::NonEmptyGroup | ErrorCode::UnknownMemberId) => StatusCode::CONFLICT,
                _ => StatusCode::BAD_GATEWAY,
            },
        };
        Self::new(status, chain(&error))
    }
}

/// An error with those that it comes from.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said: &dyn Display = &cause;
        text = format!("{text}: {said}");
        source = cause.source();
    }
    text
}

/// JSON for the script.
pub(super) fn data(value: &serde_json::Value) -> Response {
    let body = Body::from(value.to_string());
    let mut response = HttpResponse::new(body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
