//! Settings of topics are set, also of new ones.

use std::collections::{BTreeMap, HashMap, HashSet};

use headwater_kafka::{
    Str,
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        alter_configs_response, create_topics_request::CreatableTopicConfig,
        incremental_alter_configs_request::AlterableConfig,
        incremental_alter_configs_response::AlterConfigsResourceResponse,
    },
};
use headwater_protocol::error::ErrorCode;

use super::{
    describe::own_node,
    kinds::{BROKER, BROKER_LOGGER, Kind, TOPIC},
    topic::{Means, TopicConfig},
};
use crate::{
    config::Config,
    model::{
        op::{Op, TopicAlteration},
        refusal::Refusal,
    },
    session::kafka::asking::{Asking, find_topic},
};

/// What is done to a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Which settings of a topic become what; none: what follows the broker.
type Changes = Vec<(String, Option<String>)>;

fn refuse<T>(code: ErrorCode, message: impl std::fmt::Display) -> Result<T, Refusal> {
    Err(Refusal::new(code, message))
}

/// A setting that there is.
fn known(name: &str) -> Result<&'static TopicConfig, Refusal> {
    match TopicConfig::named(name) {
        Some(config) => Ok(config),
        None => refuse(
            ErrorCode::InvalidConfig,
            format_args!("Unknown topic config name: {name}"),
        ),
    }
}

/// What the cluster is told of the settings of a new topic.
pub(in crate::session::kafka) fn of_new_topic(
    asking: &Asking,
    configs: Vec<CreatableTopicConfig<'_>>,
) -> Result<Vec<(String, String)>, Refusal> {
    // Of one that is named twice the last counts.
    let mut told = BTreeMap::new();
    for CreatableTopicConfig { name, value } in configs {
        let Some(value) = value else {
            let message = format_args!("Null value not supported for topic configs: {name}");
            return refuse(ErrorCode::InvalidConfig, message);
        };
        if known(&name)?.takes(&value, &asking.ops().core.config)? {
            told.insert(name.into_owned(), value.into_owned());
        }
    }
    Ok(told.into_iter().collect())
}

pub(in crate::session::kafka) async fn alter_incrementally<'a>(
    asking: &Asking,
    request: IncrementalAlterConfigsRequest<'a>,
) -> IncrementalAlterConfigsResponse<'a> {
    let named = request.resources.iter();
    let twice = Twice::of(named.map(|resource| (resource.resource_type, &*resource.resource_name)));
    let mut response = IncrementalAlterConfigsResponse::default();
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name);
        // Of a broker nobody has set what nobody can set, and what is deleted is as it was.
        let set = resource
            .configs
            .iter()
            .filter(|config| config.config_operation != DELETE);
        let keys = set.map(|config| &*config.name);
        let may = may_alter(asking, &twice, (kind, &name), keys).await;
        let done = match may {
            Ok(()) if kind != TOPIC => Ok(()),
            Ok(()) => match changes(asking, &name, resource.configs) {
                Ok(changes) => change(asking, name.clone(), changes, request.validate_only).await,
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        let (error_code, error_message) = told(asking, &name, done);
        response.responses.push(AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: kind,
            resource_name: name,
        });
    }
    response
}

/// All that a topic sets for itself is what is named here: the rest follows the broker again.
pub(in crate::session::kafka) async fn alter<'a>(
    asking: &Asking,
    request: AlterConfigsRequest<'a>,
) -> AlterConfigsResponse<'a> {
    let named = request.resources.iter();
    let twice = Twice::of(named.map(|resource| (resource.resource_type, &*resource.resource_name)));
    let mut response = AlterConfigsResponse::default();
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let keys = resource.configs.iter().map(|config| &*config.name);
        let may = may_alter(asking, &twice, (kind, &name), keys).await;
        let configs = resource.configs.into_iter().map(|config| (config.name, config.value));
        let done = match may {
            Ok(()) if kind != TOPIC => Ok(()),
            Ok(()) => match replacement(asking, &name, configs) {
                Ok(changes) => change(asking, name.clone(), changes, request.validate_only).await,
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        let (error_code, error_message) = told(asking, &name, done);
        let told = alter_configs_response::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: kind,
            resource_name: name,
        };
        response.responses.push(told);
    }
    response
}

/// Resources that a request names more than once.
struct Twice(HashSet<(i8, String)>);

impl Twice {
    fn of<'a>(named: impl Iterator<Item = (i8, &'a str)>) -> Twice {
        let mut counts: HashMap<(i8, &str), usize> = HashMap::new();
        for resource in named {
            *counts.entry(resource).or_default() += 1;
        }
        let twice = counts.into_iter().filter(|(_, count)| *count > 1);
        Twice(twice.map(|((kind, name), _)| (kind, name.to_owned())).collect())
    }
}

/// Whether this may have its settings changed, as far as that is known without them.
async fn may_alter(
    asking: &Asking,
    twice: &Twice,
    (kind, name): (i8, &str),
    keys: impl Iterator<Item = &str>,
) -> Result<(), Refusal> {
    asking.may_go_on().await?;
    if twice.0.contains(&(kind, name.to_owned())) {
        return refuse(ErrorCode::InvalidRequest, "Each resource must appear at most once.");
    }
    match kind {
        TOPIC => Ok(()),
        BROKER | BROKER_LOGGER => {
            if !name.is_empty() {
                check_is_own(asking, name)?;
            }
            let keys: Vec<&str> = keys.collect();
            if keys.is_empty() {
                return Ok(());
            }
            let message = format!(
                "Cannot update these configs dynamically: [{}]: change the broker's configuration, and start it again",
                keys.join(", ")
            );
            refuse(ErrorCode::InvalidRequest, message)
        }
        other => refuse(ErrorCode::InvalidRequest, format_args!("Unknown resource type {other}")),
    }
}

fn check_is_own(asking: &Asking, name: &str) -> Result<(), Refusal> {
    let Ok(id) = name.parse() else {
        let message = format_args!("Node id must be an integer, but it is: {name}");
        return refuse(ErrorCode::InvalidRequest, message);
    };
    match own_node(asking, id) {
        Ok(()) => Ok(()),
        Err(own) => {
            let message = format_args!("Unexpected broker id, expected {own}, but received {id}");
            refuse(ErrorCode::InvalidRequest, message)
        }
    }
}

fn told<'a>(asking: &Asking, name: &str, done: Result<(), Refusal>) -> (i16, Option<Str<'a>>) {
    let (code, message) = match done {
        Ok(()) => (ErrorCode::None, None),
        Err(refusal) => (
            refusal.code,
            Some(refusal.message).filter(|message| !message.is_empty()),
        ),
    };
    asking.adds(name.len() + message.as_ref().map_or(0, String::len));
    (asking.tells(code), message.map(Into::into))
}

async fn change(asking: &Asking, topic: Str<'_>, configs: Changes, validate_only: bool) -> Result<(), Refusal> {
    if configs.is_empty() {
        return Ok(());
    }
    let alteration = TopicAlteration {
        name: topic.into_owned(),
        configs,
        partitions: -1,
        assignments: None,
    };
    let altered = asking.perform(Op::AlterTopic(alteration, validate_only)).await;
    altered.map(drop)
}

/// What a topic sets for itself.
fn own(asking: &Asking, topic: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let image = asking.image();
    match find_topic(&image, topic) {
        Ok(topic) => Ok(topic.overrides.clone()),
        Err(code) => refuse(code, format_args!("The topic '{topic}' does not exist.")),
    }
}

/// What the changes come to.
fn changes(asking: &Asking, topic: &str, configs: Vec<AlterableConfig<'_>>) -> Result<Changes, Refusal> {
    let own = own(asking, topic)?;
    let broker = &asking.ops().core.config;
    let mut seen = HashSet::new();
    let mut changes = Changes::new();
    for config in configs {
        let name = config.name.into_owned();
        if !seen.insert(name.clone()) {
            return refuse(ErrorCode::InvalidRequest, "Error due to duplicate config keys");
        }
        let value = match (config.config_operation, config.value) {
            (DELETE, _) => {
                // Nobody has set what nobody can set.
                if TopicConfig::named(&name).is_some_and(|config| !matches!(config.means, Means::Fixed(_))) {
                    changes.push((name, None));
                }
                continue;
            }
            (SET..=SUBTRACT, None) => {
                let message = format_args!("Null value not supported for : {name}");
                return refuse(ErrorCode::InvalidRequest, message);
            }
            (SET, Some(value)) => value.into_owned(),
            (operation @ (APPEND | SUBTRACT), Some(value)) => {
                let now = listed(&name, own.get(&name), operation, broker)?;
                list_after(&now, operation == APPEND, &value)
            }
            // Kafka has no words for it.
            _ => return refuse(ErrorCode::UnknownServerError, ""),
        };
        if known(&name)?.takes(&value, broker)? {
            changes.push((name, Some(value)));
        }
    }
    Ok(changes)
}

/// What a list has now.
fn listed(name: &str, own: Option<&String>, operation: i8, broker: &Config) -> Result<String, Refusal> {
    match TopicConfig::named(name) {
        Some(config) if config.kind == Kind::List => Ok(own.cloned().unwrap_or_else(|| config.fixed(broker))),
        _ => {
            let word = if operation == APPEND { "APPEND" } else { "SUBTRACT" };
            let message = format_args!("Can't {word} to key {name} because its type is not LIST.");
            refuse(ErrorCode::InvalidConfig, message)
        }
    }
}

/// A list with these elements too, or without them.
fn list_after(now: &str, append: bool, elements: &str) -> String {
    let parts = |list: &'_ str| -> Vec<String> {
        let parts = list.split(',').map(str::trim).filter(|element| !element.is_empty());
        parts.map(str::to_owned).collect()
    };
    let named = parts(elements);
    let mut list = parts(now);
    list.retain(|element| append || !named.contains(element));
    if append {
        list.extend(named);
        let mut seen = HashSet::new();
        list.retain(|element| seen.insert(element.clone()));
    }
    list.join(",")
}

fn replacement<'a>(
    asking: &Asking,
    topic: &str,
    configs: impl Iterator<Item = (Str<'a>, Option<Str<'a>>)>,
) -> Result<Changes, Refusal> {
    let own = own(asking, topic)?;
    let mut changes: BTreeMap<String, Option<String>> = own.into_keys().map(|name| (name, None)).collect();
    for (name, value) in configs {
        let Some(value) = value else {
            let message = format_args!("Null value not supported for : {name}");
            return refuse(ErrorCode::InvalidRequest, message);
        };
        if known(&name)?.takes(&value, &asking.ops().core.config)? {
            changes.insert(name.into_owned(), Some(value.into_owned()));
        }
    }
    Ok(changes.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_added_once_in_their_order_and_taken_out() {
        for (now, append, elements, after) in [
            ("delete", true, "compact", "delete,compact"),
            ("delete,compact", true, "compact", "delete,compact"),
            ("delete,compact", false, "delete", "compact"),
            ("compact", false, "compact", ""),
            ("compact", false, "delete", "compact"),
            ("", true, " delete , compact ", "delete,compact"),
        ] {
            assert_eq!(list_after(now, append, elements), after, "{now} {append} {elements}");
        }
    }
}
