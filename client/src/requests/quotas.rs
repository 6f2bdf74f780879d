//! What users, clients and addresses may use.

use headwater_protocol::{head, schema};

use super::ResponseError;
use crate::admin::{Quota, QuotaEntity, QuotaKey, QuotaName};
use crate::error::Error;

fn name(name: Option<&QuotaName>) -> Option<String> {
    name.map(|name| match name {
        QuotaName::Default => String::new(),
        QuotaName::Is(name) => name.clone(),
    })
}

fn named(name: Option<&str>) -> Option<QuotaName> {
    name.map(|name| match name {
        "" => QuotaName::Default,
        name => QuotaName::Is(name.to_owned()),
    })
}

pub(crate) fn describe_quotas() -> schema::DescribeQuotasRequestT {
    schema::DescribeQuotasRequestT {}
}

pub(crate) fn read_describe_quotas(bytes: &[u8]) -> Result<Vec<Quota>, ResponseError> {
    let response = head::decode_response::<schema::DescribeQuotasResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let quota = |quota: schema::Quota<'_>| Quota {
        entity: QuotaEntity {
            user: named(quota.user()),
            client_id: named(quota.client_id()),
            ip: named(quota.ip()),
        },
        // What a newer broker can limit besides is left out.
        values: quota
            .values()
            .unwrap_or_default()
            .iter()
            .filter_map(|value| Some((QuotaKey::named(value.key()?)?, value.value()?.parse().ok()?)))
            .collect(),
    };
    Ok(response.quotas().unwrap_or_default().iter().map(quota).collect())
}

pub(crate) fn alter_quotas(entity: &QuotaEntity, values: &[(QuotaKey, Option<f64>)]) -> schema::AlterQuotasRequestT {
    let value = |(key, value): &(QuotaKey, Option<f64>)| schema::QuotaValueT {
        key: Some(key.name().to_owned()),
        value: value.map(|value| value.to_string()),
    };
    schema::AlterQuotasRequestT {
        quota: Some(Box::new(schema::QuotaT {
            user: name(entity.user.as_ref()),
            client_id: name(entity.client_id.as_ref()),
            ip: name(entity.ip.as_ref()),
            values: Some(values.iter().map(value).collect()),
        })),
    }
}

pub(crate) fn read_alter_quotas(bytes: &[u8]) -> Result<(), ResponseError> {
    let response = head::decode_response::<schema::AlterQuotasResponse<'_>>(bytes)?;
    Ok(Error::check(response.error(), response.message())?)
}
