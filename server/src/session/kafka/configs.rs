//! Settings of topics are described and altered; those of brokers are described.

use std::collections::HashSet;

use headwater_kafka::{
    Str,
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, alter_configs_response,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
        incremental_alter_configs_request::AlterableConfig,
        incremental_alter_configs_response::AlterConfigsResourceResponse,
    },
};
use headwater_protocol::{error::ErrorCode, id::CoreId};

use super::{
    asking::Asking,
    topics::{FROM_DEFAULT, FROM_TOPIC, is_ignored},
};
use crate::{
    model::{
        op::{Op, Outcome, TopicAlteration, TopicDescription},
        refusal::Refusal,
    },
    ops::nodes::Places,
};

/// What has settings.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;

/// Where the value of a broker's setting comes from.
const FROM_BROKER: i8 = 4;

/// Kinds of values.
const BOOLEAN: i8 = 1;
const STRING: i8 = 2;
const INT: i8 = 3;
const LONG: i8 = 5;
const DOUBLE: i8 = 6;
const LIST: i8 = 7;

/// What is done to a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// The one setting that is a list.
const CLEANUP_POLICY: &str = "cleanup.policy";

/// The kind of a topic's setting.
fn kind_of(name: &str) -> i8 {
    match name {
        CLEANUP_POLICY => LIST,
        "min.cleanable.dirty.ratio" => DOUBLE,
        "segment.bytes" | "max.message.bytes" | "min.insync.replicas" => INT,
        "unclean.leader.election.enable" | "preallocate" => BOOLEAN,
        name => match name.rsplit('.').next() {
            Some("ms" | "bytes") => LONG,
            _ => STRING,
        },
    }
}

/// Settings of Kafka's topics that are so anyway.
const FIXED: [(&str, &str); 3] = [
    ("compression.type", "producer"),
    ("preallocate", "false"),
    ("unclean.leader.election.enable", "false"),
];

pub(super) async fn describe<'a>(asking: &Asking, request: DescribeConfigsRequest<'a>) -> DescribeConfigsResponse<'a> {
    let mut response = DescribeConfigsResponse::default();
    for resource in request.resources {
        let described = describe_one(asking, &resource).await;
        asking.adds(size_of_described(&described) + resource.resource_name.len());
        let result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            error_message: Some("".into()),
            ..DescribeConfigsResult::default()
        };
        response.results.push(match described {
            Ok(configs) => DescribeConfigsResult { configs, ..result },
            Err(refusal) => DescribeConfigsResult {
                error_code: asking.tells(refusal.code),
                error_message: Some(refusal.message.into()),
                ..result
            },
        });
    }
    response
}

type Described = Result<Vec<DescribeConfigsResourceResult<'static>>, Refusal>;

/// What the answer for one resource takes, about, in bytes.
fn size_of_described(described: &Described) -> usize {
    let config = |config: &DescribeConfigsResourceResult<'_>| {
        size_of_val(config) + config.name.len() + config.value.as_ref().map_or(0, |value| value.len())
    };
    let size = match described {
        Ok(configs) => configs.iter().map(config).sum(),
        Err(refusal) => refusal.message.len(),
    };
    size + size_of::<DescribeConfigsResult<'_>>()
}

/// The next of the resources of a request, as [`Asking::part`].
async fn part(asking: &Asking) -> Result<(), Refusal> {
    let refuse = |code| Refusal::new(code, "too much is asked for at once");
    asking.part().await.map_err(refuse)
}

async fn describe_one(asking: &Asking, resource: &DescribeConfigsResource<'_>) -> Described {
    part(asking).await?;
    let all = match resource.resource_type {
        TOPIC => topic_configs(described(asking, &resource.resource_name).await?),
        // There are no defaults for all brokers, and no loggers whose level could be set.
        BROKER if resource.resource_name.is_empty() => Vec::new(),
        BROKER => {
            check_is_own(asking, &resource.resource_name)?;
            broker_configs(asking).await?
        }
        BROKER_LOGGER => {
            check_is_own(asking, &resource.resource_name)?;
            Vec::new()
        }
        other => {
            let message = format!("resources of type {other} have no settings here");
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
    };
    let wanted = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
    let wanted: Option<HashSet<&str>> = wanted.map(|keys| keys.iter().map(AsRef::as_ref).collect());
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|keys| keys.contains(name));
    Ok(all.into_iter().filter(|config| is_wanted(&config.name)).collect())
}

async fn described(asking: &Asking, topic: &str) -> Result<TopicDescription, Refusal> {
    match asking.perform(Op::DescribeTopic(topic.to_owned())).await? {
        Outcome::Topic(described) => Ok(described),
        _ => Err(Refusal::new(
            ErrorCode::UnknownServerError,
            "the topic is not described",
        )),
    }
}

fn config(name: &str, value: String, (source, kind): (i8, i8)) -> DescribeConfigsResourceResult<'static> {
    DescribeConfigsResourceResult {
        name: name.to_owned().into(),
        value: Some(value.into()),
        config_source: source,
        config_type: kind,
        documentation: None,
        ..DescribeConfigsResourceResult::default()
    }
}

fn topic_configs(described: TopicDescription) -> Vec<DescribeConfigsResourceResult<'static>> {
    let own = described.configs.into_iter().map(|setting| {
        let source = if setting.own { FROM_TOPIC } else { FROM_DEFAULT };
        let kind = kind_of(&setting.name);
        config(&setting.name, setting.value, (source, kind))
    });
    let fixed = FIXED.iter().map(|(name, value)| {
        let source = (FROM_DEFAULT, kind_of(name));
        config(name, (*value).to_owned(), source)
    });
    let mut configs: Vec<_> = own.chain(fixed).collect();
    configs.sort_by(|one, other| one.name.cmp(&other.name));
    configs
}

/// A node is asked for its own settings, by its number.
fn check_is_own(asking: &Asking, name: &str) -> Result<(), Refusal> {
    let refuse = |message| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let Ok(id) = name.parse::<i32>() else {
        return refuse(format!("Broker id must be an integer, but it is: {name}"));
    };
    let core = &asking.ops().core;
    let places = Places::of(asking.ops());
    let is_own = |number| places.node(core.config.broker.id, CoreId::new(number)) == id;
    if (0..core.mesh.len() as u16).any(is_own) {
        return Ok(());
    }
    let own = places.node(core.config.broker.id, core.id);
    refuse(format!(
        "Unexpected broker id, expected {own} or empty string, but received {id}"
    ))
}

/// Kafka's names for what they stand for here, and then this broker's own settings, all of which are read once at its start.
async fn broker_configs(asking: &Asking) -> Result<Vec<DescribeConfigsResourceResult<'static>>, Refusal> {
    let config_of = &asking.ops().core.config;
    let kafka = [
        (
            "auto.create.topics.enable",
            config_of.kafka.auto_create_topics.to_string(),
            BOOLEAN,
        ),
        (
            "default.replication.factor",
            config_of.topics.replication_factor.to_string(),
            INT,
        ),
        ("log.dirs", config_of.log.directory.to_string_lossy().into_owned(), LIST),
        (
            "message.max.bytes",
            config_of.log.batch_size_bytes_max.bytes().to_string(),
            INT,
        ),
        ("num.partitions", config_of.topics.partitions.to_string(), INT),
        (
            "offsets.topic.num.partitions",
            config_of.groups.offsets_partitions.to_string(),
            INT,
        ),
        (
            "socket.request.max.bytes",
            config_of.limits.frame_size_bytes_max.bytes().to_string(),
            INT,
        ),
    ];
    let Outcome::Broker(broker) = asking.perform(Op::DescribeBroker).await? else {
        return Err(Refusal::new(
            ErrorCode::UnknownServerError,
            "the broker is not described",
        ));
    };
    let kafka = kafka
        .into_iter()
        .map(|(name, value, kind)| config(name, value, (FROM_BROKER, kind)));
    let own = broker
        .configs
        .into_iter()
        .map(|(name, value)| config(&name, value, (FROM_BROKER, STRING)));
    let read_only = |config| DescribeConfigsResourceResult {
        read_only: true,
        ..config
    };
    Ok(kafka.chain(own).map(read_only).collect())
}

/// Which settings of a topic become what; none: what follows the broker.
type Changes = Vec<(String, Option<String>)>;

async fn change(asking: &Asking, topic: Str<'_>, configs: Changes, validate_only: bool) -> Result<(), Refusal> {
    let alteration = TopicAlteration {
        name: topic.into_owned(),
        configs,
        partitions: -1,
    };
    asking
        .perform(Op::AlterTopic(alteration, validate_only))
        .await
        .map(drop)
}

fn check_is_topic(resource_type: i8) -> Result<(), Refusal> {
    match resource_type {
        TOPIC => Ok(()),
        BROKER | BROKER_LOGGER => Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "settings of a broker are read when it starts: change its configuration, and start it again",
        )),
        other => Err(Refusal::new(
            ErrorCode::InvalidRequest,
            format!("Unknown resource type {other}"),
        )),
    }
}

pub(super) async fn alter_incrementally<'a>(
    asking: &Asking,
    request: IncrementalAlterConfigsRequest<'a>,
) -> IncrementalAlterConfigsResponse<'a> {
    let mut response = IncrementalAlterConfigsResponse::default();
    for resource in request.resources {
        let name = resource.resource_name.clone();
        let may = part(asking).await.and_then(|()| check_is_topic(resource.resource_type));
        let done = match may {
            Ok(()) => match changes(asking, &name, resource.configs).await {
                Ok(changes) => change(asking, name.clone(), changes, request.validate_only).await,
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        let (code, message) = told(done);
        asking.adds(name.len() + message.as_ref().map_or(0, String::len));
        response.responses.push(AlterConfigsResourceResponse {
            error_code: asking.tells(code),
            error_message: message.map(Into::into),
            resource_type: resource.resource_type,
            resource_name: name,
        });
    }
    response
}

fn told(done: Result<(), Refusal>) -> (ErrorCode, Option<String>) {
    match done {
        Ok(()) => (ErrorCode::None, None),
        Err(refusal) => (refusal.code, Some(refusal.message)),
    }
}

/// What the changes come to.
async fn changes(asking: &Asking, topic: &str, configs: Vec<AlterableConfig<'_>>) -> Result<Changes, Refusal> {
    let refuse = |code, message: String| Err(Refusal::new(code, message));
    let mut seen = HashSet::new();
    let mut changes = Changes::new();
    for config in configs {
        let name = config.name.into_owned();
        if !seen.insert(name.clone()) {
            return refuse(
                ErrorCode::InvalidRequest,
                "Error due to duplicate config keys".to_owned(),
            );
        }
        match (config.config_operation, config.value) {
            (DELETE, _) => changes.push((name, None)),
            (SET..=SUBTRACT, None) => {
                return refuse(
                    ErrorCode::InvalidRequest,
                    format!("Null value not supported for : {name}"),
                );
            }
            (SET, Some(value)) if is_ignored(&name, &value) => {}
            (SET, Some(value)) => changes.push((name, Some(value.into_owned()))),
            (operation @ (APPEND | SUBTRACT), Some(value)) => {
                if name != CLEANUP_POLICY {
                    let word = if operation == APPEND { "APPEND" } else { "SUBTRACT" };
                    let message = format!("Can't {word} to key {name} because its type is not LIST.");
                    return refuse(ErrorCode::InvalidConfig, message);
                }
                let now = described(asking, topic).await?.configs.into_iter();
                let now = now
                    .filter(|setting| setting.name == name)
                    .map(|setting| setting.value)
                    .next();
                let list = list_after(&now.unwrap_or_default(), operation == APPEND, &value);
                changes.push((name, Some(list)));
            }
            (operation, _) => {
                let message = format!("there is no operation {operation}");
                return refuse(ErrorCode::UnknownServerError, message);
            }
        }
    }
    Ok(changes)
}

/// A list with these elements too, or without them.
fn list_after(now: &str, append: bool, elements: &str) -> String {
    let named: Vec<&str> = elements.split(',').collect();
    let now = now.split(',').filter(|element| !element.is_empty());
    let mut list: Vec<&str> = now.filter(|element| append || !named.contains(element)).collect();
    if append {
        list.extend(named.into_iter().filter(|element| !element.is_empty()));
        let mut seen = HashSet::new();
        list.retain(|element| seen.insert(*element));
    }
    list.join(",")
}

/// All that a topic sets for itself is what is named here: the rest follows the broker again.
pub(super) async fn alter<'a>(asking: &Asking, request: AlterConfigsRequest<'a>) -> AlterConfigsResponse<'a> {
    let mut response = AlterConfigsResponse::default();
    for resource in request.resources {
        let name = resource.resource_name;
        let configs = resource.configs.into_iter().map(|config| (config.name, config.value));
        let may = part(asking).await.and_then(|()| check_is_topic(resource.resource_type));
        let done = match may {
            Ok(()) => replace(asking, name.clone(), configs.collect(), request.validate_only).await,
            Err(refusal) => Err(refusal),
        };
        let (code, message) = told(done);
        asking.adds(name.len() + message.as_ref().map_or(0, String::len));
        response
            .responses
            .push(alter_configs_response::AlterConfigsResourceResponse {
                error_code: asking.tells(code),
                error_message: message.map(Into::into),
                resource_type: resource.resource_type,
                resource_name: name,
            });
    }
    response
}

async fn replace(
    asking: &Asking,
    topic: Str<'_>,
    configs: Vec<(Str<'_>, Option<Str<'_>>)>,
    validate_only: bool,
) -> Result<(), Refusal> {
    let own = described(asking, &topic)
        .await?
        .configs
        .into_iter()
        .filter(|setting| setting.own);
    let mut changes: Changes = Vec::new();
    for (name, value) in configs {
        let Some(value) = value else {
            let message = format!("Null value not supported for : {name}");
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        };
        if !is_ignored(&name, &value) {
            changes.push((name.into_owned(), Some(value.into_owned())));
        }
    }
    for setting in own {
        if !changes.iter().any(|(name, _)| *name == setting.name) {
            changes.push((setting.name, None));
        }
    }
    change(asking, topic, changes, validate_only).await
}
