//! Quotas: described and altered, as Kafka's tools do.

use std::collections::{BTreeMap, BTreeSet};

use headwater_kafka::{
    Str,
    messages::{
        AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
        alter_client_quotas_request::{self as asked, OpData},
        alter_client_quotas_response as told,
        describe_client_quotas_request::ComponentData,
        describe_client_quotas_response::{EntityData, EntryData, ValueData},
    },
};
use headwater_protocol::error::ErrorCode;

use super::super::asking::Asking;
use crate::model::{
    access::Operation,
    op::{Op, Outcome},
    quota::{Entity, Name, Quota, QuotaAlteration, QuotaKey, Rate, address},
    refusal::Refusal,
};

const USER: &str = "user";
const CLIENT: &str = "client-id";
const IP: &str = "ip";

/// How a filter means a name.
const EXACTLY: i8 = 0;
const DEFAULT: i8 = 1;
const ANY: i8 = 2;

pub(in crate::session::kafka) async fn describe(
    asking: &Asking,
    request: DescribeClientQuotasRequest<'_>,
) -> DescribeClientQuotasResponse<'static> {
    let described = match asking.perform(Op::DescribeQuotas).await {
        Ok(Outcome::Quotas(quotas)) => Filter::read(request.components, request.strict).map(|filter| (quotas, filter)),
        done => Err(done.err().unwrap_or_else(Refusal::stopping)),
    };
    match described {
        Ok((quotas, filter)) => DescribeClientQuotasResponse {
            error_message: Some("".into()),
            entries: Some(
                quotas
                    .iter()
                    .filter(|quota| filter.has(&quota.entity))
                    .map(entry)
                    .collect(),
            ),
            ..DescribeClientQuotasResponse::default()
        },
        Err(refusal) => DescribeClientQuotasResponse {
            error_code: asking.tells(refusal.code),
            error_message: Some(refusal.message.into()),
            entries: None,
            ..DescribeClientQuotasResponse::default()
        },
    }
}

/// The parts of an entity, by their types; `None` is a default.
fn parts(entity: &Entity) -> impl Iterator<Item = (&'static str, Option<&str>)> {
    let parts = [(USER, &entity.user), (CLIENT, &entity.client), (IP, &entity.ip)];
    parts.into_iter().filter_map(|(kind, name)| {
        Some(match name.as_ref()? {
            Name::Default => (kind, None),
            Name::Is(name) => (kind, Some(name.as_str())),
        })
    })
}

fn entry(quota: &Quota) -> EntryData<'static> {
    let entity = parts(&quota.entity).map(|(kind, name)| EntityData {
        entity_type: kind.into(),
        entity_name: name.map(|name| name.to_owned().into()),
    });
    let value = |(key, rate): &(QuotaKey, Rate)| ValueData {
        key: key.name().into(),
        value: rate.get(),
    };
    EntryData {
        entity: entity.collect(),
        values: quota.values.iter().map(value).collect(),
    }
}

/// Which entities are meant.
struct Filter {
    /// By type; `None` is the default.
    exactly: BTreeMap<String, Option<String>>,
    any: BTreeSet<String>,
    is_strict: bool,
}

impl Filter {
    /// Refuses what cannot be meant, in Kafka's words.
    fn read(components: Vec<ComponentData<'_>>, is_strict: bool) -> Result<Filter, Refusal> {
        let wrong = |message: String| Err(Refusal::new(ErrorCode::InvalidRequest, message));
        let mut filter = Filter {
            exactly: BTreeMap::new(),
            any: BTreeSet::new(),
            is_strict,
        };
        for component in components {
            let kind = component.entity_type.into_owned();
            if kind.is_empty() {
                return wrong("Invalid empty entity type.".to_owned());
            }
            if filter.names(&kind) {
                return wrong(format!(
                    "Entity type {kind} cannot appear more than once in the filter."
                ));
            }
            if ![USER, CLIENT, IP].contains(&kind.as_str()) {
                let message = format!("Unsupported entity type {kind}");
                return Err(Refusal::new(ErrorCode::UnsupportedVersion, message));
            }
            match (component.match_type, component.r#match.map(Str::into_owned)) {
                (EXACTLY, Some(name)) => {
                    let kept = if kind == IP { address(&name) } else { None };
                    filter.exactly.insert(kind, Some(kept.unwrap_or(name)));
                }
                (EXACTLY, None) => {
                    return wrong("Request specified MATCH_TYPE_EXACT, but set match string to null.".to_owned());
                }
                (DEFAULT, None) => {
                    filter.exactly.insert(kind, None);
                }
                (DEFAULT, Some(_)) => {
                    return wrong(
                        "Request specified MATCH_TYPE_DEFAULT, but also specified a match string.".to_owned(),
                    );
                }
                (ANY, None) => {
                    filter.any.insert(kind);
                }
                (ANY, Some(_)) => {
                    return wrong(
                        "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.".to_owned(),
                    );
                }
                (other, _) => return wrong(format!("Unknown match type {other}")),
            }
        }
        if filter.names(IP) && (filter.names(USER) || filter.names(CLIENT)) {
            let message = "Invalid entity filter component combination. IP filter component should not be used with user or \
                           clientId filter component.";
            return wrong(message.to_owned());
        }
        Ok(filter)
    }

    fn names(&self, kind: &str) -> bool {
        self.exactly.contains_key(kind) || self.any.contains(kind)
    }

    fn has(&self, entity: &Entity) -> bool {
        let parts: BTreeMap<&str, Option<&str>> = parts(entity).collect();
        if self.is_strict && parts.len() != self.exactly.len() + self.any.len() {
            return false;
        }
        let mut exactly = self.exactly.iter();
        exactly.all(|(kind, name)| parts.get(kind.as_str()) == Some(&name.as_deref()))
            && self.any.iter().all(|kind| parts.contains_key(kind.as_str()))
    }
}

pub(in crate::session::kafka) async fn alter(
    asking: &Asking,
    request: AlterClientQuotasRequest<'_>,
) -> AlterClientQuotasResponse<'static> {
    let read = request.entries.iter().map(alteration);
    let read: Vec<Result<QuotaAlteration, Refusal>> = read.collect();
    let good: Vec<QuotaAlteration> = read.iter().flatten().cloned().collect();
    // Whoever may not is told that, whatever is wrong with the quotas.
    let done = if request.validate_only {
        asking.need_cluster(Operation::AlterConfigs)
    } else {
        asking.perform(Op::AlterQuotas(good)).await.map(drop)
    };
    let told = |(entry, read): (asked::EntryData<'_>, Result<QuotaAlteration, Refusal>)| {
        let refusal = done.as_ref().err().cloned().or(read.err());
        told::EntryData {
            error_code: asking.tells(refusal.as_ref().map_or(ErrorCode::None, |refusal| refusal.code)),
            error_message: refusal.map(|refusal| refusal.message.into()),
            entity: entry
                .entity
                .into_iter()
                .map(|part| told::EntityData {
                    entity_type: part.entity_type.into_owned().into(),
                    entity_name: part.entity_name.map(|name| name.into_owned().into()),
                })
                .collect(),
        }
    };
    AlterClientQuotasResponse {
        entries: request.entries.into_iter().zip(read).map(told).collect(),
        ..AlterClientQuotasResponse::default()
    }
}

fn alteration(entry: &asked::EntryData<'_>) -> Result<QuotaAlteration, Refusal> {
    let wrong = |message: String| Refusal::new(ErrorCode::InvalidRequest, message);
    let mut entity = Entity::default();
    for part in &entry.entity {
        let kind: &str = &part.entity_type;
        let named = match kind {
            USER => &mut entity.user,
            CLIENT => &mut entity.client,
            IP => &mut entity.ip,
            other => return Err(wrong(format!("Unhandled client quota entity type: {other}"))),
        };
        if named.is_some() {
            return Err(wrong(format!(
                "Invalid client quota entity, duplicate entity entry {kind}"
            )));
        }
        let name = part.entity_name.as_ref();
        *named = Some(name.map_or(Name::Default, |name| Name::Is(name.to_string())));
    }
    let entity = entity.checked().map_err(wrong)?;
    let value = |op: &OpData<'_>| {
        let key = entity.key(&op.key)?;
        if op.remove {
            return Ok((key, None));
        }
        Ok((key, Some(Rate::new(key, op.value)?)))
    };
    let values = entry.ops.iter().map(value).collect::<Result<Vec<_>, String>>();
    let values = values.map_err(wrong)?;
    Ok(QuotaAlteration { entity, values })
}
