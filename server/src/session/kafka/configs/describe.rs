//! Settings as they are.

use std::collections::{BTreeMap, HashSet};

use headwater_kafka::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse,
    create_topics_response::CreatableTopicConfigs,
    describe_configs_request::DescribeConfigsResource,
    describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym},
};
use headwater_protocol::{
    error::ErrorCode,
    id::{CoreId, PartitionIndex},
};

use super::{
    broker::{BROKER_CONFIGS, BrokerConfig, Described, Origin},
    kinds::{BROKER, BROKER_LOGGER, FROM_BROKER, FROM_DEFAULT, FROM_TOPIC, Kind, TOPIC},
    topic::{Means, TOPIC_CONFIGS, TopicConfig},
};
use crate::{
    config::{Config, Knob},
    image::{Topic, settings},
    model::{
        access::{Operation, ResourceKind},
        id::PartitionId,
        refusal::Refusal,
    },
    ops::{access::THE_CLUSTER, nodes::Places},
    session::kafka::asking::{Asking, check_legal, find_topic},
};

/// What is asked for besides names and values.
#[derive(Clone, Copy)]
struct Besides {
    synonyms: bool,
    documentation: bool,
}

type Setting = DescribeConfigsResourceResult<'static>;

pub(in crate::session::kafka) async fn describe<'a>(
    asking: &Asking,
    request: DescribeConfigsRequest<'a>,
) -> DescribeConfigsResponse<'a> {
    let besides = Besides {
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    let mut response = DescribeConfigsResponse::default();
    for resource in request.resources {
        let described = match asking.may_go_on().await {
            Ok(()) => describe_one(asking, &resource, besides),
            Err(refusal) => Err(refusal),
        };
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

/// What the answer for one resource takes, about, in bytes.
fn size_of_described(described: &Result<Vec<Setting>, Refusal>) -> usize {
    let text = |text: &Option<headwater_kafka::Str<'_>>| text.as_ref().map_or(0, |text| text.len());
    let setting = |setting: &Setting| {
        let synonyms = setting.synonyms.len() * (size_of::<DescribeConfigsSynonym<'_>>() + 64);
        size_of_val(setting) + setting.name.len() + text(&setting.value) + text(&setting.documentation) + synonyms
    };
    let size = match described {
        Ok(settings) => settings.iter().map(setting).sum(),
        Err(refusal) => refusal.message.len(),
    };
    size + size_of::<DescribeConfigsResult<'_>>()
}

fn describe_one(
    asking: &Asking,
    resource: &DescribeConfigsResource<'_>,
    besides: Besides,
) -> Result<Vec<Setting>, Refusal> {
    let name = &*resource.resource_name;
    let all = match resource.resource_type {
        TOPIC => {
            asking.need(Operation::DescribeConfigs, (ResourceKind::Topic, name))?;
            check_legal(name)?;
            let image = asking.image();
            // Kafka has no words for it here.
            let topic = find_topic(&image, name).map_err(|code| Refusal::new(code, ""))?;
            of_topic(asking, topic, besides)
        }
        BROKER | BROKER_LOGGER if !asking.may(Operation::DescribeConfigs, THE_CLUSTER) => {
            return Err(asking
                .need_cluster(Operation::DescribeConfigs)
                .err()
                .unwrap_or_else(Refusal::stopping));
        }
        // There are no defaults for all brokers, and no loggers whose level could be set.
        BROKER if name.is_empty() => Vec::new(),
        BROKER => {
            check_is_own(asking, name, " or empty string,")?;
            of_broker(asking, besides)
        }
        BROKER_LOGGER => {
            check_is_own(asking, name, "")?;
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
    Ok(all.into_iter().filter(|setting| is_wanted(&setting.name)).collect())
}

/// A node is asked for its own settings, by its number.
fn check_is_own(asking: &Asking, name: &str, or: &str) -> Result<(), Refusal> {
    let refuse = |message| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let Ok(id) = name.parse::<i32>() else {
        return refuse(format!("Broker id must be an integer, but it is: {name}"));
    };
    match own_node(asking, id) {
        Ok(()) => Ok(()),
        Err(own) => refuse(format!("Unexpected broker id, expected {own}{or} but received {id}")),
    }
}

/// Whether a number is that of one of this broker's nodes; that of the one that was asked, if not.
pub(super) fn own_node(asking: &Asking, id: i32) -> Result<(), i32> {
    let core = &asking.ops().core;
    let places = Places::of(asking.ops());
    let node = |core_id| places.node(core.config.broker.id, core_id);
    if (0..core.mesh.len() as u16).any(|number| node(CoreId::new(number)) == id) {
        return Ok(());
    }
    Err(node(core.id))
}

/// A setting of a topic, with where it comes from.
struct Valued {
    config: &'static TopicConfig,
    value: String,
    /// Where the topic sets nothing.
    inherited: String,
    /// Where nobody sets anything.
    default: String,
    own: bool,
}

/// Every setting of a topic of such overrides, in the order of their names.
fn valued(overrides: &BTreeMap<String, String>, config: &Config, min_isr: u16) -> impl Iterator<Item = Valued> {
    let kept = settings::described(overrides, config, min_isr);
    let unconfigured = settings::described(&BTreeMap::new(), &Config::default(), min_isr);
    let mut kept = kept.into_iter().zip(unconfigured);
    let default = Config::default();
    let fixed_here: Vec<String> = TOPIC_CONFIGS.iter().map(|row| row.fixed(config)).collect();
    TOPIC_CONFIGS.iter().zip(fixed_here).filter_map(move |(config, fixed)| {
        if let Means::Fixed(_) = config.means {
            return Some(Valued {
                config,
                value: fixed.clone(),
                inherited: fixed,
                default: config.fixed(&default),
                own: false,
            });
        }
        // Both are in the order of their names; a test says so.
        let (kept, unconfigured) = kept.next()?;
        Some(Valued {
            config,
            value: kept.value,
            inherited: kept.inherited,
            default: unconfigured.value,
            own: kept.own,
        })
    })
}

impl Valued {
    fn source(&self) -> i8 {
        match self {
            Valued { own: true, .. } => FROM_TOPIC,
            _ if self.inherited == self.default => FROM_DEFAULT,
            _ => FROM_BROKER,
        }
    }

    /// Which values stand one over the other, the one in force first.
    fn synonyms(&self) -> Vec<DescribeConfigsSynonym<'static>> {
        let synonym = |name: &'static str, value: &str, source| DescribeConfigsSynonym {
            name: name.into(),
            value: Some(value.to_owned().into()),
            source,
        };
        let own = self.own.then(|| synonym(self.config.name, &self.value, FROM_TOPIC));
        let is_set = self.inherited != self.default;
        let broker = self.config.broker.filter(|_| is_set);
        let broker = broker.map(|name| synonym(name, &self.inherited, FROM_BROKER));
        let default = self.config.broker_default();
        let default = default.map(|name| synonym(name, &self.default, FROM_DEFAULT));
        own.into_iter().chain(broker).chain(default).collect()
    }

    fn described(self, besides: Besides) -> Setting {
        DescribeConfigsResourceResult {
            name: self.config.name.into(),
            config_source: self.source(),
            config_type: self.config.kind.number(),
            synonyms: if besides.synonyms { self.synonyms() } else { Vec::new() },
            documentation: besides.documentation.then(|| self.config.about().into()),
            value: Some(self.value.into()),
            ..DescribeConfigsResourceResult::default()
        }
    }
}

fn of_topic(asking: &Asking, topic: &Topic, besides: Besides) -> Vec<Setting> {
    let config = &asking.ops().core.config;
    let settings = valued(&topic.overrides, config, min_isr(asking, topic));
    settings.map(|setting| setting.described(besides)).collect()
}

/// How many replicas of its first partition must be in sync.
fn min_isr(asking: &Asking, topic: &Topic) -> u16 {
    let first = PartitionId {
        topic: topic.id,
        index: PartitionIndex::new(0),
    };
    let assignment = asking.ops().partitions.assignment();
    let replicas = assignment
        .as_ref()
        .and_then(|assignment| assignment.placements.get(first));
    replicas.map_or(1, |replicas| replicas.terms.min_isr)
}

/// The settings that a topic of such overrides and so many replicas has, or would have.
pub(in crate::session::kafka) fn of_created_topic(
    asking: &Asking,
    overrides: Vec<(String, String)>,
    replicas: i16,
) -> Vec<CreatableTopicConfigs<'static>> {
    let overrides = overrides.into_iter().collect();
    let min_isr = settings::terms(&overrides, replicas.unsigned_abs().into()).min_isr;
    let settings = valued(&overrides, &asking.ops().core.config, min_isr);
    let described = settings.map(|setting| CreatableTopicConfigs {
        name: setting.config.name.into(),
        config_source: setting.source(),
        value: Some(setting.value.into()),
        ..CreatableTopicConfigs::default()
    });
    described.collect()
}

/// Kafka's names for what they stand for here, and then this broker's own settings, all of which are read once at its start.
fn of_broker(asking: &Asking, besides: Besides) -> Vec<Setting> {
    let ops = asking.ops();
    let config = &*ops.core.config;
    let default = Config::default();
    let broker = Described::of(ops, &Places::of(ops), ops.core.id);
    let unconfigured = broker.unconfigured(&default);
    let of_kafka = BROKER_CONFIGS.iter().map(|row| {
        let (value, default) = (broker.value(row), unconfigured.value(row));
        let about = match row.origin {
            Origin::Configuration | Origin::Itself => "As in Kafka; it is read when the broker starts.",
            Origin::Fixed => "Cannot be changed here.",
        };
        of_row(row, (value, default), about, besides)
    });
    let own = Config::KNOBS.iter().map(|knob: &Knob| {
        let (value, default) = (knob.value(config).show(), knob.value(&default).show());
        let setting = (knob.name(), Kind::Text, value != default);
        read_only(
            setting,
            Some(value),
            Some(default),
            (&format!("{} {}", knob.doc, knob.advice), besides),
        )
    });
    of_kafka.chain(own).collect()
}

fn of_row(
    row: &BrokerConfig,
    (value, default): (Option<String>, Option<String>),
    about: &str,
    besides: Besides,
) -> Setting {
    let is_set = value != default || row.origin == Origin::Itself;
    let setting = (row.name.to_owned(), row.kind, is_set);
    read_only(setting, value, default, (about, besides))
}

fn read_only(
    (name, kind, is_set): (String, Kind, bool),
    value: Option<String>,
    default: Option<String>,
    (about, besides): (&str, Besides),
) -> Setting {
    let synonym = |value: Option<String>, source| DescribeConfigsSynonym {
        name: name.clone().into(),
        value: value.map(Into::into),
        source,
    };
    let synonyms = if besides.synonyms {
        let set = is_set.then(|| synonym(value.clone(), FROM_BROKER));
        let default = default.filter(|_| !is_set || value.is_some());
        set.into_iter()
            .chain(default.map(|default| synonym(Some(default), FROM_DEFAULT)))
            .collect()
    } else {
        Vec::new()
    };
    DescribeConfigsResourceResult {
        synonyms,
        name: name.into(),
        value: value.map(Into::into),
        read_only: true,
        config_source: if is_set { FROM_BROKER } else { FROM_DEFAULT },
        config_type: kind.number(),
        documentation: besides.documentation.then(|| about.trim().to_owned().into()),
        ..DescribeConfigsResourceResult::default()
    }
}
