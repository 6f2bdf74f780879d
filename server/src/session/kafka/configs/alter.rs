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
    model::{
        access::{Operation, ResourceKind},
        internal::is_internal,
        op::{Op, SettingChange, TopicAlteration},
        refusal::Refusal,
    },
    session::kafka::asking::{Asking, find_topic},
};

/// What is done to a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Which settings of a topic become what. What comes of it is decided where the topic is known as it is, not as it was shown here.
struct Changes {
    configs: Vec<(String, SettingChange)>,
    /// What is not among them follows the broker again.
    are_all: bool,
}

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
            Ok(()) => {
                change(asking, &name, request.validate_only, || {
                    changes(asking, resource.configs)
                })
                .await
            }
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
            Ok(()) => change(asking, &name, request.validate_only, || replacement(asking, configs)).await,
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
    match kind {
        TOPIC => asking.need(Operation::AlterConfigs, (ResourceKind::Topic, name))?,
        _ => asking.need_cluster(Operation::AlterConfigs)?,
    }
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

/// Makes the changes, or only says if they could be made. That the topic is missing counts before what is wrong with them.
async fn change(
    asking: &Asking,
    topic: &str,
    validate_only: bool,
    changes: impl FnOnce() -> Result<Changes, Refusal>,
) -> Result<(), Refusal> {
    check_is_there(asking, topic).await?;
    let Changes { configs, are_all } = changes()?;
    if configs.is_empty() && !are_all {
        return Ok(());
    }
    alter_topic(asking, topic, (configs, are_all), validate_only).await
}

async fn alter_topic(
    asking: &Asking,
    topic: &str,
    (configs, is_all): (Vec<(String, SettingChange)>, bool),
    validate_only: bool,
) -> Result<(), Refusal> {
    let alteration = TopicAlteration {
        name: topic.to_owned(),
        configs,
        is_all,
        partitions: -1,
        assignments: None,
    };
    let altered = asking.perform(Op::AlterTopic(alteration, validate_only)).await;
    altered.map(drop)
}

/// Refuses a topic that is not there. One that another broker has made may not have been shown to this one yet.
async fn check_is_there(asking: &Asking, topic: &str) -> Result<(), Refusal> {
    let Err(code) = find_topic(&asking.image(), topic).map(drop) else {
        return Ok(());
    };
    if code == ErrorCode::UnknownTopicOrPartition && !is_internal(topic) {
        match alter_topic(asking, topic, (Vec::new(), false), true).await {
            Err(refusal) if refusal.code == code => {}
            asked => return asked,
        }
    }
    refuse(code, format_args!("The topic '{topic}' does not exist."))
}

/// What is asked for of each setting.
fn changes(asking: &Asking, configs: Vec<AlterableConfig<'_>>) -> Result<Changes, Refusal> {
    let broker = &asking.ops().core.config;
    let mut seen = HashSet::new();
    let mut changes = Vec::new();
    for config in configs {
        let name = config.name.into_owned();
        if !seen.insert(name.clone()) {
            return refuse(ErrorCode::InvalidRequest, "Error due to duplicate config keys");
        }
        let operation = config.config_operation;
        let value = match (operation, config.value) {
            (DELETE, _) => {
                // Nobody has set what nobody can set.
                if TopicConfig::named(&name).is_some_and(|config| !matches!(config.means, Means::Fixed(_))) {
                    changes.push((name, SettingChange::Inherited));
                }
                continue;
            }
            (SET..=SUBTRACT, None) => {
                let message = format_args!("Null value not supported for : {name}");
                return refuse(ErrorCode::InvalidRequest, message);
            }
            (SET..=SUBTRACT, Some(value)) => value.into_owned(),
            // Kafka has no words for it.
            _ => return refuse(ErrorCode::UnknownServerError, ""),
        };
        if operation == SET {
            if known(&name)?.takes(&value, broker)? {
                changes.push((name, SettingChange::Value(value)));
            }
            continue;
        }
        // What is taken out may be anything.
        let added = if operation == APPEND { value.as_str() } else { "" };
        if list(&name, operation)?.takes(added, broker)? {
            let change = if operation == APPEND {
                SettingChange::With
            } else {
                SettingChange::Without
            };
            changes.push((name, change(value)));
        }
    }
    Ok(Changes {
        configs: changes,
        are_all: false,
    })
}

/// A setting that is a list.
fn list(name: &str, operation: i8) -> Result<&'static TopicConfig, Refusal> {
    match TopicConfig::named(name) {
        Some(config) if config.kind == Kind::List => Ok(config),
        _ => {
            let word = if operation == APPEND { "APPEND" } else { "SUBTRACT" };
            let message = format_args!("Can't {word} to key {name} because its type is not LIST.");
            refuse(ErrorCode::InvalidConfig, message)
        }
    }
}

fn replacement<'a>(
    asking: &Asking,
    configs: impl Iterator<Item = (Str<'a>, Option<Str<'a>>)>,
) -> Result<Changes, Refusal> {
    let mut changes = BTreeMap::new();
    for (name, value) in configs {
        let Some(value) = value else {
            let message = format_args!("Null value not supported for : {name}");
            return refuse(ErrorCode::InvalidRequest, message);
        };
        if known(&name)?.takes(&value, &asking.ops().core.config)? {
            changes.insert(name.into_owned(), SettingChange::Value(value.into_owned()));
        }
    }
    Ok(Changes {
        configs: changes.into_iter().collect(),
        are_all: true,
    })
}
