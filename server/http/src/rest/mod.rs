//! REST: `/v1`, and the calls of Confluent's REST that scripts use most.
//!
//! Each file has its operations with the shapes that they take and give, and each operation its description (`#[utoipa::path]`), of which
//! `/openapi.json` is made. `PATHS` is the only list of paths that is served; a test compares the two.

mod cluster;
mod confluent;
mod data;
mod extract;
mod groups;
mod idempotency;
mod members;
mod openapi;
mod page;
mod partitions;
mod records;
mod security;
#[cfg(test)]
mod tests;
mod topics;
mod written;

use std::time::Duration;

use axum::{
    Router,
    http::StatusCode,
    routing::{get, post, put},
};
use headwater_client::ErrorCode;

use self::{idempotency::Answers, members::Members};
use crate::{problem::Problem, service::Service, settings::Limits};

/// How often is looked for what nobody needs any more.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// What REST keeps between requests.
pub(crate) struct State {
    answers: Answers,
    members: Members,
}

impl State {
    pub(crate) fn new(limits: &Limits) -> State {
        State {
            answers: Answers::new(limits),
            members: Members::new(limits),
        }
    }

    /// Every member leaves its group.
    pub(crate) async fn leave_all(&self) {
        self.members.leave_all().await;
    }
}

/// Forgets what nobody needs any more, for as long as it is polled.
pub(crate) async fn tidy(service: Service) {
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        service.sessions.tidy();
        service.rest.answers.tidy();
        service.rest.members.tidy().await;
    }
}

macro_rules! paths {
    ($($path:literal => $methods:expr;)+) => {
        /// All paths.
        #[cfg(test)]
        const PATHS: &[&str] = &[$($path),+];

        /// All paths, and what is done there.
        pub(crate) fn router() -> Router<Service> {
            Router::new()$(.route($path, $methods))+
        }
    };
}

paths! {
    "/openapi.json" => get(openapi::json);
    "/docs" => get(openapi::page);
    "/docs/page.js" => get(openapi::script);
    "/docs/page.css" => get(openapi::style);
    "/v1/topics" => get(topics::list).post(topics::create);
    "/v1/topics/{topic}" => get(topics::describe).patch(topics::alter).delete(topics::delete);
    "/v1/topics/{topic}/config" => get(topics::config);
    "/v1/topics/{topic}/records" => post(records::produce::to_topic);
    "/v1/topics/{topic}/partitions" => get(partitions::list);
    "/v1/topics/{topic}/partitions/{partition}" => get(partitions::describe);
    "/v1/topics/{topic}/partitions/{partition}/offsets" => get(partitions::offsets);
    "/v1/topics/{topic}/partitions/{partition}/records" =>
        get(records::read::read).post(records::produce::to_partition).delete(partitions::delete_records);
    "/v1/topics/{topic}/partitions/{partition}/records/{offset}" => get(records::one::read_one);
    "/v1/groups" => get(groups::list);
    "/v1/groups/{group}" => get(groups::describe).delete(groups::delete);
    "/v1/groups/{group}/offsets" => get(groups::offsets).put(groups::reset);
    "/v1/groups/{group}/members" => post(members::join);
    "/v1/groups/{group}/members/{member}" => get(members::assignment).delete(members::leave_group);
    "/v1/groups/{group}/members/{member}/records" => get(members::poll);
    "/v1/groups/{group}/members/{member}/commit" => post(members::commit);
    "/v1/cluster" => get(cluster::show);
    "/v1/brokers" => get(cluster::brokers);
    "/v1/brokers/{broker}" => get(cluster::broker).patch(cluster::change);
    "/v1/broker" => get(cluster::own);
    "/v1/acls" => get(security::acls).post(security::create_acls).delete(security::delete_acls);
    "/v1/users" => get(security::users);
    "/v1/users/{user}" => put(security::set_user).delete(security::remove_user);
    "/kafka/v3/clusters" => get(confluent::clusters);
    "/kafka/v3/clusters/{cluster}/topics" => get(confluent::topics);
    "/kafka/v3/clusters/{cluster}/topics/{topic}/records" => post(confluent::produce);
}

/// There is nothing at that path.
pub(crate) async fn not_found() -> Problem {
    Problem::new(ErrorCode::ResourceNotFound, "there is nothing at this path")
        .next("GET /openapi.json lists every path")
}

/// The path is there, and the method is not one of its own.
pub(crate) async fn method_not_allowed() -> Problem {
    Problem::invalid("this path does not have this method")
        .status(StatusCode::METHOD_NOT_ALLOWED)
        .next("GET /openapi.json lists the methods of every path")
}
