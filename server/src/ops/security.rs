//! Rules, users and quotas: described from the cluster image, changed by the control plane.

use headwater_protocol::{error::ErrorCode, scram::Mechanism};

use super::Ops;
use crate::{
    machine,
    model::{
        access::{AccessChange, Acl, AclFilter, Hidden, StoredKeys},
        bounds,
        op::Outcome,
        quota::QuotaAlteration,
        refusal::Refusal,
    },
};

/// Rules of one order, which is bounded in bytes.
const ACLS_AT_ONCE: usize = 50;

/// Refuses what is about rules where none are gone by, in Kafka's words.
fn check_on(ops: &Ops, message: &str) -> Result<(), Refusal> {
    if ops.access.is_on() {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::SecurityDisabled, message))
}

/// The rules that are meant.
pub(super) fn describe_acls(ops: &Ops, filter: &AclFilter) -> Result<Outcome, Refusal> {
    check_on(ops, "No Authorizer is configured on the broker")?;
    let image = ops.partitions.image();
    let meant = image.access().acls().filter(|acl| filter.has(acl));
    Ok(Outcome::Acls(meant.cloned().collect()))
}

/// Makes rules; those that there are stay.
pub(super) async fn create_acls(ops: &Ops, acls: Vec<Acl>) -> Result<Outcome, Refusal> {
    check_on(ops, "No Authorizer is configured.")?;
    bounds::check_items("rules", acls.len())?;
    for acl in &acls {
        acl.check()
            .map_err(|why| Refusal::new(ErrorCode::InvalidRequest, why))?;
        tracing::info!(%acl, "a rule is made");
    }
    for some in acls.chunks(ACLS_AT_ONCE) {
        ops.control.change_access(AccessChange::AddAcls(some.to_vec())).await?;
    }
    Ok(Outcome::AclsCreated)
}

/// Takes the rules away that each filter means, and says which.
pub(super) async fn delete_acls(ops: &Ops, filters: Vec<AclFilter>) -> Result<Outcome, Refusal> {
    check_on(ops, "No Authorizer is configured.")?;
    bounds::check_items("filters", filters.len())?;
    let meant: Vec<Vec<Acl>> = {
        let image = ops.partitions.image();
        let acls = |filter: &AclFilter| image.access().acls().filter(|acl| filter.has(acl)).cloned().collect();
        filters.iter().map(acls).collect()
    };
    let removed: Vec<Acl> = meant.iter().flatten().cloned().collect();
    for acl in &removed {
        tracing::info!(%acl, "a rule is removed");
    }
    for some in removed.chunks(ACLS_AT_ONCE) {
        ops.control
            .change_access(AccessChange::RemoveAcls(some.to_vec()))
            .await?;
    }
    Ok(Outcome::AclsDeleted(meant))
}

/// These users, as far as they are there, or all.
pub(super) fn describe_users(ops: &Ops, names: Option<Vec<String>>) -> Outcome {
    let image = ops.partitions.image();
    let access = image.access();
    let users = match names {
        Some(names) => names.iter().filter_map(|name| access.user(name)).collect(),
        None => access.users().keys().filter_map(|name| access.user(name)).collect(),
    };
    Outcome::Users(users)
}

/// Gives a user the keys of a password.
pub(super) async fn set_user(ops: &Ops, user: String, keys: StoredKeys) -> Result<Outcome, Refusal> {
    let refuse = |message: &str| Err(Refusal::new(ErrorCode::UnacceptableCredential, message));
    if user.is_empty() {
        return refuse("Username must not be empty");
    }
    if user.len() > headwater_protocol::scram::USER_LEN_MAX || user.contains(char::is_control) {
        return refuse("the name of a user is too long, or has control characters");
    }
    if ops.access.is_admin(&user) {
        return refuse("this user is let in by security.admin_password: take that out of the configuration first");
    }
    tracing::info!(user, ?keys, "a user gets a password");
    let secret = Hidden(machine::random::<[u8; 32]>().to_vec());
    ops.control
        .change_access(AccessChange::SetUser { user, keys, secret })
        .await?;
    Ok(Outcome::UserSet)
}

/// Takes a user's keys of a mechanism away, or all.
pub(super) async fn remove_user(ops: &Ops, user: String, mechanism: Option<Mechanism>) -> Result<Outcome, Refusal> {
    tracing::info!(user, ?mechanism, "a user's password is removed");
    let mechanism = mechanism.map(Mechanism::number);
    ops.control
        .change_access(AccessChange::RemoveUser { user, mechanism })
        .await?;
    Ok(Outcome::UserRemoved)
}

/// All quotas.
pub(super) fn describe_quotas(ops: &Ops) -> Outcome {
    Outcome::Quotas(ops.partitions.image().quotas().all().collect())
}

/// Sets and removes quotas.
pub(super) async fn alter_quotas(ops: &Ops, alterations: Vec<QuotaAlteration>) -> Result<Outcome, Refusal> {
    bounds::check_items("entities", alterations.len())?;
    for alteration in &alterations {
        tracing::info!(entity = ?alteration.entity, values = ?alteration.values, "quotas are altered");
    }
    for some in alterations.chunks(ACLS_AT_ONCE) {
        let change = AccessChange::AlterQuotas(some.to_vec());
        ops.control.change_access(change).await?;
    }
    Ok(Outcome::QuotasAltered)
}
