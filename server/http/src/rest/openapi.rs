//! The description of REST, made of the operations themselves, and a page to try them.

use std::sync::LazyLock;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Content, ObjectBuilder, Ref, RefOr, ResponseBuilder,
        path::{Operation, ParameterIn},
        schema::Type,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use super::{cluster, confluent, data::Format, groups, members, partitions, records, security, topics};
use crate::problem::Problem;

#[derive(OpenApi)]
#[openapi(
    info(title = "Headwater", description = "Records, topics, groups and the cluster over HTTP. docs/rest.md has examples."),
    components(schemas(Problem, Format)),
    modifiers(&Common),
    tags(
        (name = "records", description = "Records in and out"),
        (name = "consumers", description = "Members of groups that are kept between requests"),
        (name = "topics", description = "Topics and their settings"),
        (name = "partitions", description = "Partitions and their offsets"),
        (name = "groups", description = "Consumer groups, from outside"),
        (name = "cluster", description = "Brokers and the coordinator quorum"),
        (name = "security", description = "Users and rules"),
        (name = "kafka", description = "What scripts use most of Confluent's REST v3"),
    ),
    paths(
        records::produce::to_topic, records::produce::to_partition, records::read::read, records::one::read_one,
        members::join, members::assignment, members::poll, members::commit, members::leave_group,
        topics::list, topics::create, topics::describe, topics::alter, topics::delete, topics::config,
        partitions::list, partitions::describe, partitions::offsets, partitions::delete_records,
        groups::list, groups::describe, groups::delete, groups::offsets, groups::reset,
        cluster::show, cluster::brokers, cluster::broker, cluster::change, cluster::own,
        security::acls, security::create_acls, security::delete_acls, security::users, security::set_user, security::remove_user,
        confluent::clusters, confluent::topics, confluent::produce,
    )
)]
struct Description;

/// What all operations have in common: how a caller says who it is, and what errors look like.
struct Common;

impl Modify for Common {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let problem = ResponseBuilder::new()
            .description("Why not")
            .content("application/problem+json", content)
            .build();
        for path in api.paths.paths.values_mut() {
            for operation in operations(path) {
                narrow(operation);
                operation
                    .responses
                    .responses
                    .insert("default".to_owned(), RefOr::T(problem.clone()));
            }
        }
        let components = api.components.get_or_insert_default();
        let basic = SecurityScheme::Http(Http::new(HttpAuthScheme::Basic));
        components.add_security_scheme("user", basic);
        // Where nobody is asked who it is, nobody need say so.
        api.security = Some(vec![
            SecurityRequirement::default(),
            SecurityRequirement::new("user", Vec::<String>::new()),
        ]);
    }
}

fn operations(path: &mut utoipa::openapi::PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut path.get,
        &mut path.put,
        &mut path.post,
        &mut path.delete,
        &mut path.patch,
    ]
    .into_iter()
    .filter_map(Option::as_mut)
}

/// What names and numbers in paths and headers may be.
fn narrow(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        let text = ObjectBuilder::new().schema_type(Type::String);
        let number = ObjectBuilder::new().schema_type(Type::Integer);
        let schema = match (parameter.name.as_str(), &parameter.parameter_in) {
            ("topic", ParameterIn::Path) => text.pattern(Some("^[a-zA-Z0-9._-]{1,249}$")),
            ("partition" | "broker", ParameterIn::Path) => number.minimum(Some(0_i32)).maximum(Some(i32::MAX)),
            ("Idempotency-Key", ParameterIn::Header) => text.pattern(Some("^[!-~]{1,255}$")),
            _ => continue,
        };
        parameter.schema = Some(schema.into());
    }
}

/// The description as JSON.
static JSON: LazyLock<String> = LazyLock::new(|| Description::openapi().to_json().unwrap_or_default());

/// What the page may do: nothing that is not of this very broker.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

fn asset(kind: &'static str, content: &'static str) -> Response {
    let mut response = content.into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// `/openapi.json`
pub(crate) async fn json() -> Response {
    asset("application/json", &JSON)
}

/// `/docs`
pub(crate) async fn page() -> Response {
    asset("text/html; charset=utf-8", include_str!("docs/page.html"))
}

/// `/docs/page.js`
pub(crate) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("docs/page.js"))
}

/// `/docs/page.css`
pub(crate) async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("docs/page.css"))
}
