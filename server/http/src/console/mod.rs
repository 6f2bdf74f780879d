//! The console: pages for people, made here and readable without script. A script of a few hundred lines has figures move while somebody looks,
//! draws charts and shows records as they come; nothing is asked for while nobody does.
//!
//! ```text
//! address ─► Visit: whose client, which values ─► overview, topics, records, groups, brokers, charts, security ─► page ─► guard: headers
//!                                                     └─► headwater-client, or the broker's own metrics (figures)
//! ```
//! Brokers decide what a visitor may see. What others have written (names, keys, values, headers, settings) becomes HTML by `maud` alone,
//! which escapes it.

mod assets;
mod brokers;
mod charts;
mod figures;
mod format;
mod groups;
mod health;
mod overview;
mod page;
mod params;
mod records;
mod reset;
mod security;
#[cfg(test)]
mod tests;
mod topics;
mod visit;

use axum::Router;
use axum::middleware::map_response;
use axum::response::Redirect;
use axum::routing::get;

use self::page::Refusal;
use crate::service::Service;

pub use self::figures::MetricsText;
pub(crate) use self::visit::State;

/// Its paths.
pub(crate) fn router() -> Router<Service> {
    let missing = || async { Refusal::not_found("There is no such page.") };
    let wrong = || async {
        Refusal::new(
            axum::http::StatusCode::METHOD_NOT_ALLOWED,
            "That cannot be done with this page.",
        )
    };
    Router::new()
        .route("/console", get(overview::show))
        .route("/console/", get(|| async { Redirect::permanent("/console") }))
        .route("/console/topics", get(topics::list))
        .route("/console/topics/{topic}", get(topics::show))
        .route("/console/topics/{topic}/records", get(records::show))
        .route("/console/topics/{topic}/record", get(records::single))
        .route("/console/topics/{topic}/tail", get(records::tail))
        .route("/console/groups", get(groups::list))
        .route("/console/group", get(groups::show))
        .route("/console/group/lag", get(groups::lag))
        .route("/console/group/reset", get(reset::show).post(reset::apply))
        .route("/console/brokers", get(brokers::show))
        .route("/console/charts", get(charts::show))
        .route("/console/figures", get(charts::figures))
        .route("/console/security", get(security::show))
        .route("/console/assets/{name}", get(assets::serve))
        .route("/console/{*rest}", axum::routing::any(missing))
        .method_not_allowed_fallback(wrong)
        .layer(map_response(page::guard))
}
