//! Users and rules (ACLs), in the words of the command line.

use axum::http::StatusCode;
use headwater_client::{AclFilter, AclOperation, AclPattern, AclPermission, AclResource};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    data::bounded,
    extract::{Json, Path, Query},
    page::{Page, PageQuery},
};
use crate::{caller::Caller, problem::Problem};

/// Rules in one request.
const RULES_MAX: usize = 1000;

/// Times that a password is hashed: more would hold up others here. `headwater user add` does it on its own machine.
const ITERATIONS_MAX: u32 = 50_000;

/// A rule: whether somebody may do something.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acl {
    /// What it is about: `topic`, `group`, `cluster`, `transactional-id`, `user`.
    #[schema(example = "topic", pattern = "^(topic|group|cluster|transactional-id|user)$")]
    resource: String,
    /// How the name is meant: `literal`, which it is if nothing is said, or `prefixed`.
    #[serde(default = "literal")]
    #[schema(pattern = "^(literal|prefixed)$")]
    pattern: String,
    /// The name; `*` for all of a literal one, `kafka-cluster` for the cluster.
    #[schema(example = "orders")]
    name: String,
    /// Who, such as `User:alice`; `User:*` is everybody.
    #[schema(example = "User:alice")]
    principal: String,
    /// From where: an address, a range, or `*`, which it is if nothing is said.
    #[serde(default = "anywhere")]
    host: String,
    /// What for: `read`, `write`, `create`, `delete`, `alter`, `describe`, `describe-configs`, `alter-configs`, `all` and others.
    #[schema(
        example = "read",
        pattern = "^(all|read|write|create|delete|alter|describe|cluster-action|describe-configs|alter-configs|idempotent-write|create-tokens|describe-tokens|two-phase-commit)$"
    )]
    operation: String,
    /// `allow`, which it is if nothing is said, or `deny`.
    #[serde(default = "allow")]
    #[schema(pattern = "^(allow|deny)$")]
    permission: String,
}

fn literal() -> String {
    AclPattern::Literal.name().to_owned()
}

fn anywhere() -> String {
    "*".to_owned()
}

fn allow() -> String {
    AclPermission::Allow.name().to_owned()
}

/// Rules to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAcls {
    /// The rules, 1000 at most.
    #[serde(deserialize_with = "bounded::<_, _, RULES_MAX>")]
    #[schema(min_items = 1, max_items = 1000)]
    acls: Vec<Acl>,
}

/// Rules.
#[derive(Serialize, ToSchema)]
pub(crate) struct Acls {
    /// The rules.
    acls: Vec<Acl>,
}

/// Which rules are meant: those that have all that is said.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AclQuery {
    /// What they are about.
    #[param(pattern = "^(topic|group|cluster|transactional-id|user)$")]
    resource: Option<String>,
    /// How their names are meant.
    #[param(pattern = "^(literal|prefixed)$")]
    pattern: Option<String>,
    /// Their name.
    name: Option<String>,
    /// Whom they are about.
    principal: Option<String>,
    /// From where.
    host: Option<String>,
    /// What for.
    #[param(
        pattern = "^(all|read|write|create|delete|alter|describe|cluster-action|describe-configs|alter-configs|idempotent-write|create-tokens|describe-tokens|two-phase-commit)$"
    )]
    operation: Option<String>,
    /// `allow` or `deny`.
    #[param(pattern = "^(allow|deny)$")]
    permission: Option<String>,
}

/// Finds what has this name, or says which names there are.
fn named<T: Copy + 'static>(what: &str, name: &str, all: &[T], of: fn(T) -> &'static str) -> Result<T, Problem> {
    let found = all.iter().copied().find(|known| of(*known) == name);
    found.ok_or_else(|| {
        let all: Vec<&str> = all.iter().map(|known| of(*known)).collect();
        Problem::invalid(format!("{what} is {name:?}; allowed are {}", all.join(", ")))
    })
}

fn resource(name: &str) -> Result<AclResource, Problem> {
    named("resource", name, AclResource::ALL, AclResource::name)
}

fn pattern(name: &str) -> Result<AclPattern, Problem> {
    named("pattern", name, AclPattern::ALL, AclPattern::name)
}

fn operation(name: &str) -> Result<AclOperation, Problem> {
    named("operation", name, AclOperation::ALL, AclOperation::name)
}

fn permission(name: &str) -> Result<AclPermission, Problem> {
    named("permission", name, AclPermission::ALL, AclPermission::name)
}

impl Acl {
    fn read(self) -> Result<headwater_client::Acl, Problem> {
        Ok(headwater_client::Acl {
            resource: resource(&self.resource)?,
            pattern: pattern(&self.pattern)?,
            operation: operation(&self.operation)?,
            permission: permission(&self.permission)?,
            name: self.name,
            principal: self.principal,
            host: self.host,
        })
    }
}

impl From<headwater_client::Acl> for Acl {
    fn from(acl: headwater_client::Acl) -> Acl {
        Acl {
            resource: acl.resource.name().to_owned(),
            pattern: acl.pattern.name().to_owned(),
            name: acl.name,
            principal: acl.principal,
            host: acl.host,
            operation: acl.operation.name().to_owned(),
            permission: acl.permission.name().to_owned(),
        }
    }
}

impl From<Vec<headwater_client::Acl>> for Acls {
    fn from(acls: Vec<headwater_client::Acl>) -> Acls {
        Acls {
            acls: acls.into_iter().map(Acl::from).collect(),
        }
    }
}

impl AclQuery {
    fn read(self) -> Result<AclFilter, Problem> {
        Ok(AclFilter {
            resource: self.resource.as_deref().map(resource).transpose()?,
            pattern: self.pattern.as_deref().map(pattern).transpose()?,
            operation: self.operation.as_deref().map(operation).transpose()?,
            permission: self.permission.as_deref().map(permission).transpose()?,
            name: self.name,
            principal: self.principal,
            host: self.host,
        })
    }
}

/// Lists rules.
#[utoipa::path(get, path = "/v1/acls", tag = "security", operation_id = "list_acls", params(AclQuery),
    responses((status = 200, description = "The rules that are meant", body = Acls)))]
pub(crate) async fn acls(caller: Caller, Query(query): Query<AclQuery>) -> Result<axum::Json<Acls>, Problem> {
    let acls = caller.client().admin().acls(&query.read()?).await?;
    Ok(axum::Json(acls.into()))
}

/// Makes rules; those that there are already stay.
#[utoipa::path(post, path = "/v1/acls", tag = "security", operation_id = "create_acls", request_body = NewAcls,
    responses((status = 204, description = "They hold on every core")))]
pub(crate) async fn create_acls(caller: Caller, new: Json<NewAcls>) -> Result<StatusCode, Problem> {
    let acls: Result<Vec<_>, Problem> = new.value.acls.into_iter().map(Acl::read).collect();
    caller.client().admin().create_acls(&acls?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes rules, those that have all that is said. Something must be said.
#[utoipa::path(delete, path = "/v1/acls", tag = "security", operation_id = "delete_acls", params(AclQuery),
    responses((status = 200, description = "The rules that are gone", body = Acls)))]
pub(crate) async fn delete_acls(caller: Caller, Query(query): Query<AclQuery>) -> Result<axum::Json<Acls>, Problem> {
    let filter = query.read()?;
    if filter == AclFilter::default() {
        return Err(Problem::invalid("this would remove every rule: say which are meant"));
    }
    let acls = caller.client().admin().delete_acls(&filter).await?;
    Ok(axum::Json(acls.into()))
}

/// A user that has a password.
#[derive(Serialize, ToSchema)]
pub(crate) struct User {
    /// Its name.
    name: String,
    /// By which mechanisms it can prove who it is.
    mechanisms: Vec<Mechanism>,
}

/// How a user can prove who it is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Mechanism {
    /// Its name in SASL.
    #[schema(example = "SCRAM-SHA-256")]
    name: &'static str,
    /// How often the password was hashed.
    iterations: u32,
}

/// A password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    /// The password. It is salted and hashed before the cluster has it.
    #[schema(min_length = 1, format = Password)]
    password: String,
    /// How often it is hashed; 4096 if it is not said.
    #[schema(minimum = 4096, maximum = 50_000)]
    iterations: Option<u32>,
}

/// Lists the users that have passwords.
#[utoipa::path(get, path = "/v1/users", tag = "security", operation_id = "list_users", params(PageQuery),
    responses((status = 200, description = "A page of them, by name", body = Page<User>)))]
pub(crate) async fn users(caller: Caller, Query(page): Query<PageQuery>) -> Result<axum::Json<Page<User>>, Problem> {
    let mut users = caller.client().admin().users().await?;
    users.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let show = |user: headwater_client::User| User {
        name: user.name,
        mechanisms: user
            .mechanisms
            .into_iter()
            .map(|(name, iterations)| Mechanism { name, iterations })
            .collect(),
    };
    page.cut(users, |user| &user.name, show).map(axum::Json)
}

/// Gives a user a password, and makes the user if there is none of that name.
#[utoipa::path(put, path = "/v1/users/{user}", tag = "security", operation_id = "set_user",
    params(("user" = String, Path, description = "Its name")), request_body = NewPassword,
    responses((status = 204, description = "The user can come in with it")))]
pub(crate) async fn set_user(
    caller: Caller,
    Path(user): Path<String>,
    new: Json<NewPassword>,
) -> Result<StatusCode, Problem> {
    let NewPassword { password, iterations } = new.value;
    if password.is_empty() {
        return Err(Problem::invalid("the password is empty"));
    }
    if iterations.is_some_and(|count| count > ITERATIONS_MAX) {
        let problem = Problem::invalid(format!("iterations may be {ITERATIONS_MAX} at most here"));
        return Err(problem.next("`headwater user password --iterations` takes more"));
    }
    caller.client().admin().set_user(&user, &password, iterations).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a user's passwords away: it is out. Rules about it stay.
#[utoipa::path(delete, path = "/v1/users/{user}", tag = "security", operation_id = "remove_user",
    params(("user" = String, Path, description = "Its name")),
    responses((status = 204, description = "It is out")))]
pub(crate) async fn remove_user(caller: Caller, Path(user): Path<String>) -> Result<StatusCode, Problem> {
    caller.client().admin().remove_user(&user).await?;
    Ok(StatusCode::NO_CONTENT)
}
