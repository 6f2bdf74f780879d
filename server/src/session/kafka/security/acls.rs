//! Rules about who may do what: described, made, removed.

use headwater_kafka::{
    Str,
    messages::{
        CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
        DescribeAclsResponse,
        create_acls_request::AclCreation,
        create_acls_response::AclCreationResult,
        delete_acls_request::DeleteAclsFilter,
        delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl},
        describe_acls_response::{AclDescription, DescribeAclsResource},
    },
};
use headwater_protocol::error::ErrorCode;

use super::super::asking::Asking;
use crate::model::{
    access::{Acl, AclFilter, Operation, Pattern, PatternFilter, Permission, ResourceKind},
    op::{Op, Outcome},
    refusal::Refusal,
};

/// What stands for any, in each field of a filter.
const ANY: i8 = 1;

/// A filter means the rules that are about something of its name.
const MATCH: i8 = 2;

pub(in crate::session::kafka) async fn describe(
    asking: &Asking,
    request: DescribeAclsRequest<'_>,
) -> DescribeAclsResponse<'static> {
    let filter = filter(
        (request.resource_type_filter, request.pattern_type_filter),
        request.resource_name_filter,
        (request.principal_filter, request.host_filter),
        (request.operation, request.permission_type),
    );
    let described = match filter {
        Ok(filter) => asking.perform(Op::DescribeAcls(filter)).await,
        Err(refusal) => Err(refusal),
    };
    let acls = match described {
        Ok(Outcome::Acls(acls)) => acls,
        done => {
            let refusal = done.err().unwrap_or_else(Refusal::stopping);
            return DescribeAclsResponse {
                error_code: asking.tells(refusal.code),
                error_message: Some(refusal.message.into()),
                ..DescribeAclsResponse::default()
            };
        }
    };
    let mut resources: Vec<DescribeAclsResource<'static>> = Vec::new();
    for acl in acls {
        let (resource_type, pattern_type) = (acl.kind.number(), acl.pattern.number());
        let is_same = |last: &DescribeAclsResource<'_>| {
            (last.resource_type, last.pattern_type) == (resource_type, pattern_type) && *last.resource_name == acl.name
        };
        // They are in the order of their resources.
        if !resources.last().is_some_and(is_same) {
            resources.push(DescribeAclsResource {
                resource_type,
                resource_name: acl.name.into(),
                pattern_type,
                acls: Vec::new(),
            });
        }
        if let Some(last) = resources.last_mut() {
            last.acls.push(AclDescription {
                principal: acl.principal.into(),
                host: acl.host.into(),
                operation: acl.operation.number(),
                permission_type: acl.permission.number(),
            });
        }
    }
    DescribeAclsResponse {
        resources,
        ..DescribeAclsResponse::default()
    }
}

pub(in crate::session::kafka) async fn create(
    asking: &Asking,
    request: CreateAclsRequest<'_>,
) -> CreateAclsResponse<'static> {
    let read: Vec<Result<Acl, Refusal>> = request.creations.into_iter().map(acl).collect();
    let good: Vec<Acl> = read.iter().flatten().cloned().collect();
    // Whoever may not is told that, whatever is wrong with the rules.
    let done = asking.perform(Op::CreateAcls(good)).await.map(drop);
    let result = |read: Result<Acl, Refusal>| match (&done, read) {
        (Ok(()), Ok(_)) => AclCreationResult::default(),
        (Err(refusal), _) => refused(asking, refusal.clone()),
        (Ok(()), Err(refusal)) => refused(asking, refusal),
    };
    CreateAclsResponse {
        results: read.into_iter().map(result).collect(),
        ..CreateAclsResponse::default()
    }
}

fn refused(asking: &Asking, refusal: Refusal) -> AclCreationResult<'static> {
    AclCreationResult {
        error_code: asking.tells(refusal.code),
        error_message: Some(refusal.message.into()),
    }
}

fn acl(creation: AclCreation<'_>) -> Result<Acl, Refusal> {
    let unknown = |what: &str, number: i8| {
        let message = format!("{number} is no {what} that a rule can have");
        Refusal::new(ErrorCode::InvalidRequest, message)
    };
    let acl = Acl {
        kind: ResourceKind::numbered(creation.resource_type)
            .ok_or_else(|| unknown("type of a resource", creation.resource_type))?,
        pattern: Pattern::numbered(creation.resource_pattern_type)
            .ok_or_else(|| unknown("type of a pattern", creation.resource_pattern_type))?,
        name: creation.resource_name.into_owned(),
        principal: creation.principal.into_owned(),
        host: creation.host.into_owned(),
        operation: Operation::numbered(creation.operation).ok_or_else(|| unknown("operation", creation.operation))?,
        permission: Permission::numbered(creation.permission_type)
            .ok_or_else(|| unknown("permission", creation.permission_type))?,
    };
    acl.check()
        .map_err(|why| Refusal::new(ErrorCode::InvalidRequest, why))?;
    Ok(acl)
}

pub(in crate::session::kafka) async fn delete(
    asking: &Asking,
    request: DeleteAclsRequest<'_>,
) -> DeleteAclsResponse<'static> {
    let read = |asked: DeleteAclsFilter<'_>| {
        filter(
            (asked.resource_type_filter, asked.pattern_type_filter),
            asked.resource_name_filter,
            (asked.principal_filter, asked.host_filter),
            (asked.operation, asked.permission_type),
        )
    };
    let read: Vec<Result<AclFilter, Refusal>> = request.filters.into_iter().map(read).collect();
    let good: Vec<AclFilter> = read.iter().flatten().cloned().collect();
    let done = match asking.perform(Op::DeleteAcls(good)).await {
        Ok(Outcome::AclsDeleted(deleted)) => Ok(deleted),
        done => Err(done.err().unwrap_or_else(Refusal::stopping)),
    };
    let mut deleted = done.as_ref().map(|deleted| deleted.iter());
    let result = |read: Result<AclFilter, Refusal>| {
        let told = match (&mut deleted, read) {
            (Ok(deleted), Ok(_)) => Ok(deleted.next().cloned().unwrap_or_default()),
            (Err(refusal), _) => Err(refusal.clone()),
            (Ok(_), Err(refusal)) => Err(refusal),
        };
        match told {
            Ok(acls) => DeleteAclsFilterResult {
                matching_acls: acls.into_iter().map(matching).collect(),
                ..DeleteAclsFilterResult::default()
            },
            Err(refusal) => DeleteAclsFilterResult {
                error_code: asking.tells(refusal.code),
                error_message: Some(refusal.message.into()),
                ..DeleteAclsFilterResult::default()
            },
        }
    };
    DeleteAclsResponse {
        filter_results: read.into_iter().map(result).collect(),
        ..DeleteAclsResponse::default()
    }
}

fn matching(acl: Acl) -> DeleteAclsMatchingAcl<'static> {
    DeleteAclsMatchingAcl {
        resource_type: acl.kind.number(),
        resource_name: acl.name.into(),
        pattern_type: acl.pattern.number(),
        principal: acl.principal.into(),
        host: acl.host.into(),
        operation: acl.operation.number(),
        permission_type: acl.permission.number(),
        ..DeleteAclsMatchingAcl::default()
    }
}

fn filter(
    (kind, pattern): (i8, i8),
    name: Option<Str<'_>>,
    (principal, host): (Option<Str<'_>>, Option<Str<'_>>),
    (operation, permission): (i8, i8),
) -> Result<AclFilter, Refusal> {
    let unknown = |what: &str, number: i8| {
        let message = format!("{number} is no {what} that a filter can have");
        Refusal::new(ErrorCode::InvalidRequest, message)
    };
    let pattern = match pattern {
        ANY => PatternFilter::Any,
        MATCH => PatternFilter::Match,
        other => {
            let known = Pattern::numbered(other).ok_or_else(|| unknown("type of a pattern", other))?;
            PatternFilter::Exactly(known)
        }
    };
    let any_or = |number: i8| Some(number).filter(|number| *number != ANY);
    let kind =
        any_or(kind).map(|number| ResourceKind::numbered(number).ok_or_else(|| unknown("type of a resource", number)));
    let operation =
        any_or(operation).map(|number| Operation::numbered(number).ok_or_else(|| unknown("operation", number)));
    let permission =
        any_or(permission).map(|number| Permission::numbered(number).ok_or_else(|| unknown("permission", number)));
    Ok(AclFilter {
        kind: kind.transpose()?,
        name: name.map(Str::into_owned),
        pattern,
        principal: principal.map(Str::into_owned),
        host: host.map(Str::into_owned),
        operation: operation.transpose()?,
        permission: permission.transpose()?,
    })
}
