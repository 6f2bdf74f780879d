//! Users, and rules about who may do what.

use headwater_protocol::head;
use headwater_protocol::schema;
use headwater_protocol::scram::{Mechanism, Salting};

use super::{ResponseError, field};
use crate::admin::{Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, User};
use crate::error::Error;

/// What stands for any in a filter.
const ANY: i8 = 1;

fn table(acl: &Acl) -> schema::AclT {
    schema::AclT {
        kind: acl.resource.number(),
        pattern: acl.pattern.number(),
        name: Some(acl.name.clone()),
        principal: Some(acl.principal.clone()),
        host: Some(acl.host.clone()),
        operation: acl.operation.number(),
        permission: acl.permission.number(),
    }
}

fn acl(table: schema::Acl<'_>) -> Result<Acl, ResponseError> {
    let unknown = || field("a rule of a kind that this client does not know");
    Ok(Acl {
        resource: AclResource::numbered(table.kind()).ok_or_else(unknown)?,
        pattern: AclPattern::numbered(table.pattern()).ok_or_else(unknown)?,
        name: table.name().unwrap_or_default().to_owned(),
        principal: table.principal().unwrap_or_default().to_owned(),
        host: table.host().unwrap_or_default().to_owned(),
        operation: AclOperation::numbered(table.operation()).ok_or_else(unknown)?,
        permission: AclPermission::numbered(table.permission()).ok_or_else(unknown)?,
    })
}

fn filter_table(filter: &AclFilter) -> schema::AclFilterT {
    schema::AclFilterT {
        kind: filter.resource.map_or(ANY, AclResource::number),
        pattern: filter.pattern.map_or(ANY, AclPattern::number),
        name: filter.name.clone(),
        principal: filter.principal.clone(),
        host: filter.host.clone(),
        operation: filter.operation.map_or(ANY, AclOperation::number),
        permission: filter.permission.map_or(ANY, AclPermission::number),
    }
}

pub(crate) fn describe_acls(filter: &AclFilter) -> schema::DescribeAclsRequestT {
    schema::DescribeAclsRequestT {
        filter: Some(Box::new(filter_table(filter))),
    }
}

pub(crate) fn read_describe_acls(bytes: &[u8]) -> Result<Vec<Acl>, ResponseError> {
    let response = head::decode_response::<schema::DescribeAclsResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    response.acls().unwrap_or_default().iter().map(acl).collect()
}

pub(crate) fn create_acls(acls: &[Acl]) -> schema::CreateAclsRequestT {
    schema::CreateAclsRequestT {
        acls: Some(acls.iter().map(table).collect()),
    }
}

pub(crate) fn read_create_acls(bytes: &[u8]) -> Result<(), ResponseError> {
    let response = head::decode_response::<schema::CreateAclsResponse<'_>>(bytes)?;
    Ok(Error::check(response.error(), response.message())?)
}

pub(crate) fn delete_acls(filter: &AclFilter) -> schema::DeleteAclsRequestT {
    schema::DeleteAclsRequestT {
        filter: Some(Box::new(filter_table(filter))),
    }
}

pub(crate) fn read_delete_acls(bytes: &[u8]) -> Result<Vec<Acl>, ResponseError> {
    let response = head::decode_response::<schema::DeleteAclsResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    response.acls().unwrap_or_default().iter().map(acl).collect()
}

pub(crate) fn describe_users() -> schema::DescribeUsersRequestT {
    schema::DescribeUsersRequestT {}
}

pub(crate) fn read_describe_users(bytes: &[u8]) -> Result<Vec<User>, ResponseError> {
    let response = head::decode_response::<schema::DescribeUsersResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let user = |user: schema::User<'_>| User {
        name: user.name().unwrap_or_default().to_owned(),
        mechanisms: user
            .mechanisms()
            .unwrap_or_default()
            .iter()
            .filter_map(|known| Some((Mechanism::numbered(known.mechanism())?.name(), known.iterations())))
            .collect(),
    };
    Ok(response.users().unwrap_or_default().iter().map(user).collect())
}

/// The password is salted here, and never sent.
pub(crate) fn set_user(
    name: &str,
    password: &str,
    mechanism: Mechanism,
    iterations: u32,
    salt: Vec<u8>,
) -> schema::SetUserRequestT {
    schema::SetUserRequestT {
        name: Some(name.to_owned()),
        mechanism: mechanism.number(),
        iterations,
        salted_password: Some(Salting::new(mechanism, password, &salt, iterations).finish()),
        salt: Some(salt),
    }
}

pub(crate) fn read_set_user(bytes: &[u8]) -> Result<(), ResponseError> {
    let response = head::decode_response::<schema::SetUserResponse<'_>>(bytes)?;
    Ok(Error::check(response.error(), response.message())?)
}

pub(crate) fn remove_user(name: &str) -> schema::RemoveUserRequestT {
    schema::RemoveUserRequestT {
        name: Some(name.to_owned()),
        mechanism: 0,
    }
}

pub(crate) fn read_remove_user(bytes: &[u8]) -> Result<(), ResponseError> {
    let response = head::decode_response::<schema::RemoveUserResponse<'_>>(bytes)?;
    Ok(Error::check(response.error(), response.message())?)
}
