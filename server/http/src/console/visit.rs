//! A visitor: whoever asks for a page, with the client that brokers know as theirs, and what stands in the address.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use headwater_client::{Client, Error};
use tokio::time::timeout;

use super::figures::Source;
use super::page::Refusal;
use super::params::Params;
use crate::caller::Caller;
use crate::problem::Problem;
use crate::service::Service;
use crate::settings::Settings;

/// So long a part of a page is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What all pages share.
pub(crate) struct State {
    /// Whether the console may change anything.
    pub(super) writes: bool,
    pub(super) figures: Source,
}

impl State {
    pub(crate) fn new(settings: &Settings) -> State {
        State {
            writes: settings.console_writes,
            figures: Source::new(settings.metrics.clone()),
        }
    }

    /// Whether something may be changed.
    pub(super) fn need_writes(&self) -> Result<(), Refusal> {
        if self.writes {
            return Ok(());
        }
        let what = "This console only shows. Set http.console_writes=true where it may change things.";
        Err(Refusal::new(StatusCode::FORBIDDEN, what))
    }
}

/// Somebody who asks for a page.
pub(super) struct Visit {
    pub(super) client: Client,
    pub(super) params: Params,
    pub(super) console: Service,
}

impl Visit {
    /// What all pages share.
    pub(super) fn console(&self) -> &State {
        &self.console.console
    }
}

/// A form that may change something: one of these pages has sent it, and the console may. That is looked at before anything else is.
pub(super) struct Change;

impl FromRequestParts<Service> for Change {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Change, Refusal> {
        need_own_page(&parts.headers)?;
        service.console.need_writes()?;
        Ok(Change)
    }
}

impl FromRequestParts<Service> for Visit {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Visit, Refusal> {
        let Caller(session) = Caller::from_request_parts(parts, service).await?;
        Ok(Visit {
            client: session.client().clone(),
            params: Params::read(parts.uri.query().unwrap_or_default())?,
            console: service.clone(),
        })
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal::new(problem.http_status(), problem.detail().to_owned())
    }
}

/// What a broker answers, or that it does not in time.
pub(super) async fn within<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Refusal> {
    let late = |_elapsed| {
        let what = format!(
            "There was no answer within {} s. Try again; the overview says which brokers are there.",
            ANSWER_MAX.as_secs()
        );
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, what)
    };
    Ok(timeout(ANSWER_MAX, answer).await.map_err(late)??)
}

/// Refuses a form that is not sent by one of these pages (CSRF). Browsers send the password of Basic authentication along with whatever
/// any page asks for; they also say where a form comes from, by one header or the other, and pages cannot change that.
fn need_own_page(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let own_site = text("sec-fetch-site").map(|site| site == "same-origin");
    let host = text(header::HOST.as_str());
    let own_origin = text(header::ORIGIN.as_str()).map(|origin| {
        let origin = origin.split_once("://").map(|(_, origin)| origin);
        origin
            .zip(host)
            .is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
    });
    // One of them has to be there, and none may say otherwise.
    match (own_site, own_origin) {
        (None, None) | (Some(false), _) | (_, Some(false)) => {
            let what = "This was not sent by a page of this console. Go to the page, and send it from there.";
            Err(Refusal::new(StatusCode::FORBIDDEN, what))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_a_page_of_this_very_address_may_send_a_form() {
        let host = ("host", "broker:8080");
        for own in [
            &[host, ("sec-fetch-site", "same-origin")][..],
            &[host, ("origin", "http://broker:8080")],
            &[
                host,
                ("origin", "https://BROKER:8080"),
                ("sec-fetch-site", "same-origin"),
            ],
        ] {
            need_own_page(&headers(own)).unwrap();
        }
        for foreign in [
            &[host][..],
            &[host, ("origin", "http://evil.example")],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://broker:8081")],
            &[host, ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "same-site")],
            &[host, ("sec-fetch-site", "none")],
            &[host, ("origin", "http://broker:8080"), ("sec-fetch-site", "cross-site")],
            &[("origin", "http://broker:8080")],
        ] {
            assert_eq!(
                need_own_page(&headers(foreign)).unwrap_err().status,
                StatusCode::FORBIDDEN,
                "{foreign:?}"
            );
        }
    }
}
