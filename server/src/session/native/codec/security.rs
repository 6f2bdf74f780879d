//! Who comes in, rules, users and quotas: heads into what is asked, and what was found into heads.

use headwater_protocol::{
    error::ErrorCode,
    schema::{
        AclFilterT, AclT, AlterQuotasRequest, CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest,
        DescribeQuotasRequest, DescribeUsersRequest, QuotaT, QuotaValueT, RemoveUserRequest, SetUserRequest,
        UserMechanismT, UserT,
    },
    scram::{ITERATIONS_MAX, ITERATIONS_MIN, Keys, Mechanism, SALT_LEN_MAX},
};

use super::read::read;
use crate::model::{
    access::{Acl, AclFilter, Operation, Pattern, PatternFilter, Permission, ResourceKind, UserDescription},
    op::Op,
    quota::{Entity, Name, Quota, QuotaAlteration, QuotaKey, Rate},
    refusal::Refusal,
};

/// What stands for any, in each field of a filter.
const ANY: i8 = 1;

/// A filter means the rules that are about something of its name.
const MATCH: i8 = 2;

fn wrong(what: &str, number: i8) -> Refusal {
    Refusal::new(
        ErrorCode::InvalidRequest,
        format!("{number} is no {what} that is known"),
    )
}

fn kind(number: i8) -> Result<ResourceKind, Refusal> {
    ResourceKind::numbered(number).ok_or_else(|| wrong("type of a resource", number))
}

fn pattern(number: i8) -> Result<Pattern, Refusal> {
    Pattern::numbered(number).ok_or_else(|| wrong("pattern", number))
}

fn operation(number: i8) -> Result<Operation, Refusal> {
    Operation::numbered(number).ok_or_else(|| wrong("operation", number))
}

fn permission(number: i8) -> Result<Permission, Refusal> {
    Permission::numbered(number).ok_or_else(|| wrong("permission", number))
}

fn acl(table: AclT) -> Result<Acl, Refusal> {
    Ok(Acl {
        kind: kind(table.kind)?,
        pattern: pattern(table.pattern)?,
        name: table.name.unwrap_or_default(),
        principal: table.principal.unwrap_or_default(),
        host: table.host.unwrap_or_default(),
        operation: operation(table.operation)?,
        permission: permission(table.permission)?,
    })
}

fn filter(table: Option<Box<AclFilterT>>) -> Result<AclFilter, Refusal> {
    fn any_or<T>(number: i8, read: fn(i8) -> Result<T, Refusal>) -> Result<Option<T>, Refusal> {
        Some(number).filter(|number| *number != ANY).map(read).transpose()
    }
    let table = *table.unwrap_or_default();
    Ok(AclFilter {
        kind: any_or(table.kind, kind)?,
        name: table.name,
        pattern: match table.pattern {
            ANY => PatternFilter::Any,
            MATCH => PatternFilter::Match,
            other => PatternFilter::Exactly(pattern(other)?),
        },
        principal: table.principal,
        host: table.host,
        operation: any_or(table.operation, operation)?,
        permission: any_or(table.permission, permission)?,
    })
}

pub(super) fn read_describe_acls(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<DescribeAclsRequest>(bytes)?.unpack();
    filter(head.filter).map(Op::DescribeAcls)
}

pub(super) fn read_create_acls(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<CreateAclsRequest>(bytes)?.unpack();
    let acls = head.acls.unwrap_or_default().into_iter().map(acl);
    acls.collect::<Result<_, _>>().map(Op::CreateAcls)
}

pub(super) fn read_delete_acls(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<DeleteAclsRequest>(bytes)?.unpack();
    filter(head.filter).map(|filter| Op::DeleteAcls(vec![filter]))
}

pub(super) fn read_describe_users(bytes: &[u8]) -> Result<Op, Refusal> {
    read::<DescribeUsersRequest>(bytes)?;
    Ok(Op::DescribeUsers(None))
}

fn mechanism(number: i8) -> Result<Mechanism, Refusal> {
    Mechanism::numbered(number).ok_or_else(|| {
        let message = format!("{number} is no mechanism; 1 is SCRAM-SHA-256, 2 SCRAM-SHA-512");
        Refusal::new(ErrorCode::UnsupportedSaslMechanism, message)
    })
}

pub(super) fn read_set_user(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<SetUserRequest>(bytes)?.unpack();
    let mechanism = mechanism(head.mechanism)?;
    let refuse = |message: String| Err(Refusal::new(ErrorCode::UnacceptableCredential, message));
    if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&head.iterations) {
        let iterations = head.iterations;
        return refuse(format!(
            "{iterations} iterations; allowed are {ITERATIONS_MIN} to {ITERATIONS_MAX}"
        ));
    }
    let (salt, salted) = (head.salt.unwrap_or_default(), head.salted_password.unwrap_or_default());
    if salt.len() > SALT_LEN_MAX || salted.len() != mechanism.key_len() {
        return refuse("the salt or the salted password has a length that it cannot have".to_owned());
    }
    let keys = Keys::of_salted(mechanism, &salted, salt, head.iterations);
    Ok(Op::SetUser(head.name.unwrap_or_default(), keys.into()))
}

pub(super) fn read_remove_user(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<RemoveUserRequest>(bytes)?.unpack();
    let of = match head.mechanism {
        0 => None,
        number => Some(mechanism(number)?),
    };
    Ok(Op::RemoveUser(head.name.unwrap_or_default(), of))
}

pub(super) fn acls(acls: impl IntoIterator<Item = Acl>) -> Vec<AclT> {
    let table = |acl: Acl| AclT {
        kind: acl.kind.number(),
        pattern: acl.pattern.number(),
        name: Some(acl.name),
        principal: Some(acl.principal),
        host: Some(acl.host),
        operation: acl.operation.number(),
        permission: acl.permission.number(),
    };
    acls.into_iter().map(table).collect()
}

pub(super) fn users(users: Vec<UserDescription>) -> Vec<UserT> {
    let mechanism = |(mechanism, iterations): (Mechanism, u32)| UserMechanismT {
        mechanism: mechanism.number(),
        iterations,
    };
    let user = |user: UserDescription| UserT {
        name: Some(user.name),
        mechanisms: Some(user.mechanisms.into_iter().map(mechanism).collect()),
    };
    users.into_iter().map(user).collect()
}

pub(super) fn read_describe_quotas(bytes: &[u8]) -> Result<Op, Refusal> {
    read::<DescribeQuotasRequest>(bytes)?;
    Ok(Op::DescribeQuotas)
}

pub(super) fn read_alter_quotas(bytes: &[u8]) -> Result<Op, Refusal> {
    let refuse = |why: String| Refusal::new(ErrorCode::InvalidRequest, why);
    let quota = *read::<AlterQuotasRequest>(bytes)?.unpack().quota.unwrap_or_default();
    let named = |name: Option<String>| {
        name.map(|name| match name.as_str() {
            "" => Name::Default,
            _ => Name::Is(name),
        })
    };
    let entity = Entity {
        user: named(quota.user),
        client: named(quota.client_id),
        ip: named(quota.ip),
    };
    let entity = entity.checked().map_err(refuse)?;
    let value = |value: QuotaValueT| {
        let key = entity.key(&value.key.unwrap_or_default())?;
        let Some(text) = value.value else {
            return Ok((key, None));
        };
        let number = text
            .parse()
            .map_err(|_wrong| format!("{} is no number", text.escape_debug()))?;
        Ok((key, Some(Rate::new(key, number)?)))
    };
    let values = quota.values.unwrap_or_default().into_iter().map(value);
    let values = values.collect::<Result<Vec<_>, String>>().map_err(refuse)?;
    Ok(Op::AlterQuotas(vec![QuotaAlteration { entity, values }]))
}

pub(super) fn quota(quota: Quota) -> QuotaT {
    let name = |name: Option<Name>| {
        name.map(|name| match name {
            Name::Default => String::new(),
            Name::Is(name) => name,
        })
    };
    let value = |(key, rate): (QuotaKey, Rate)| QuotaValueT {
        key: Some(key.name().to_owned()),
        value: Some(rate.get().to_string()),
    };
    QuotaT {
        user: name(quota.entity.user),
        client_id: name(quota.entity.client),
        ip: name(quota.entity.ip),
        values: Some(quota.values.into_iter().map(value).collect()),
    }
}
