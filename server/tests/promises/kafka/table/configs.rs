//! E5, E6, E9 to E11, E13: settings of topics and brokers.

use headwater_kafka::{
    ApiKey,
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, CreateTopicsRequest, CreateTopicsResponse, DescribeConfigsRequest,
        DescribeConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        alter_configs_request,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        create_topics_response::CreatableTopicResult,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
};

use super::Look;
use crate::kafka::wire::Wire;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// E9: name, default, kind.
#[rustfmt::skip]
const KAFKAS: &[(&str, &str, i8)] = &[
    ("cleanup.policy", "delete", 7), ("compression.gzip.level", "-1", 3), ("compression.lz4.level", "9", 3),
    ("compression.type", "producer", 2), ("compression.zstd.level", "3", 3), ("delete.retention.ms", "86400000", 5),
    ("errors.deadletterqueue.group.enable", "false", 1), ("file.delete.delay.ms", "60000", 5),
    ("flush.messages", "9223372036854775807", 5), ("flush.ms", "9223372036854775807", 5),
    ("follower.replication.throttled.replicas", "", 7), ("index.interval.bytes", "4096", 3),
    ("leader.replication.throttled.replicas", "", 7), ("local.retention.bytes", "-2", 5), ("local.retention.ms", "-2", 5),
    ("max.compaction.lag.ms", "9223372036854775807", 5), ("max.decompressed.message.bytes", "2147483639", 3),
    ("max.message.bytes", "1048588", 3), ("message.timestamp.after.max.ms", "3600000", 5),
    ("message.timestamp.before.max.ms", "9223372036854775807", 5), ("message.timestamp.type", "CreateTime", 2),
    ("min.cleanable.dirty.ratio", "0.5", 6), ("min.compaction.lag.ms", "0", 5), ("min.insync.replicas", "1", 3),
    ("preallocate", "false", 1), ("remote.copy.lag.bytes", "-1", 5), ("remote.copy.lag.ms", "0", 5),
    ("remote.log.copy.disable", "false", 1), ("remote.log.delete.on.disable", "false", 1), ("remote.storage.enable", "false", 1),
    ("retention.bytes", "-1", 5), ("retention.ms", "604800000", 5), ("segment.bytes", "1073741824", 3),
    ("segment.index.bytes", "10485760", 3), ("segment.jitter.ms", "0", 5), ("segment.ms", "604800000", 5),
    ("unclean.leader.election.enable", "false", 1),
];

/// Values that are others here: of a default, and because the sites of the tests are small.
const OTHERS: &[(&str, &str)] = &[
    ("max.decompressed.message.bytes", "67108864"),
    ("max.message.bytes", "1048576"),
    ("segment.bytes", "16777216"),
];

/// E5, E13: a setting of a new topic, and what is said of it.
#[rustfmt::skip]
const NEW: &[(&str, &str, i16, &str)] = &[
    ("nope.config", "1", 40, "Unknown topic config name: nope.config"),
    ("message.format.version", "3.0", 40, "Unknown topic config name: message.format.version"),
    ("retention.ms", "abc", 40, "Invalid value abc for configuration retention.ms: Not a number of type LONG"),
    ("retention.ms", "", 40, "Invalid value  for configuration retention.ms: Not a number of type LONG"),
    ("retention.ms", "-2", 40, "Invalid value -2 for configuration retention.ms: Value must be at least -1"),
    ("cleanup.policy", "foo", 40, "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete"),
    ("compression.type", "brotli", 40, "Invalid value brotli for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer"),
    ("segment.bytes", "1", 40, "Invalid value 1 for configuration segment.bytes: Value must be at least 1048576"),
    ("remote.storage.enable", "true", 40, "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."),
    ("min.insync.replicas", "0", 40, "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1"),
];

/// E11: what is done to a setting, what is said, and what it is then, if it is the topic's own.
type Change = (
    &'static str,
    i8,
    Option<&'static str>,
    i16,
    Option<&'static str>,
    Option<&'static str>,
);

#[rustfmt::skip]
const CHANGES: &[Change] = &[
    ("retention.ms", APPEND, Some("1"), 40, Some("Can't APPEND to key retention.ms because its type is not LIST."), None),
    ("retention.ms", SUBTRACT, Some("1"), 40, Some("Can't SUBTRACT to key retention.ms because its type is not LIST."), None),
    ("cleanup.policy", APPEND, Some("compact"), 0, None, Some("delete,compact")),
    ("cleanup.policy", APPEND, Some("compact"), 0, None, Some("delete,compact")),
    ("cleanup.policy", SUBTRACT, Some("compact"), 0, None, Some("delete")),
    ("cleanup.policy", SUBTRACT, Some("delete"), 0, None, Some("")),
    ("cleanup.policy", SUBTRACT, Some("delete"), 0, None, Some("")),
    ("cleanup.policy", DELETE, None, 0, None, None),
    ("nope.key", SET, Some("1"), 40, Some("Unknown topic config name: nope.key"), None),
    ("nope.key", DELETE, None, 0, None, None),
    ("segment.ms", DELETE, None, 0, None, None),
    ("retention.ms", SET, Some("x"), 40, Some("Invalid value x for configuration retention.ms: Not a number of type LONG"), None),
    ("retention.ms", SET, None, 42, Some("Null value not supported for : retention.ms"), None),
    ("retention.ms", 9, Some("1"), -1, None, None),
    ("retention.ms", SET, Some("3600000"), 0, None, Some("3600000")),
    ("message.timestamp.after.max.ms", SET, Some("9223372036854775807"), 0, None, Some("9223372036854775807")),
    ("message.timestamp.before.max.ms", SET, Some("1000"), 0, None, Some("1000")),
    ("compression.type", SET, Some("producer"), 0, None, None),
];

fn resource(kind: i8, name: &str) -> DescribeConfigsResource<'static> {
    DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.to_owned().into(),
        configuration_keys: None,
    }
}

async fn described(wire: &mut Wire, resource: DescribeConfigsResource<'static>) -> DescribeConfigsResult<'static> {
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: false,
    };
    let mut response: DescribeConfigsResponse<'_> = wire.ask(ApiKey::DescribeConfigs, 4, &request).await;
    response.results.remove(0)
}

async fn altered(
    wire: &mut Wire,
    resources: &[(i8, &str, Vec<AlterableConfig<'static>>)],
) -> Vec<(i16, Option<String>)> {
    let resources = resources.iter().map(|(kind, name, configs)| AlterConfigsResource {
        resource_type: *kind,
        resource_name: (*name).to_owned().into(),
        configs: configs.clone(),
    });
    let request = IncrementalAlterConfigsRequest {
        resources: resources.collect(),
        validate_only: false,
    };
    let response: IncrementalAlterConfigsResponse<'_> = wire.ask(ApiKey::IncrementalAlterConfigs, 1, &request).await;
    let told = response.responses.into_iter();
    told.map(|told| (told.error_code, told.error_message.map(|message| message.to_string())))
        .collect()
}

fn change(name: &str, operation: i8, value: Option<&str>) -> AlterableConfig<'static> {
    AlterableConfig {
        name: name.to_owned().into(),
        config_operation: operation,
        value: value.map(|value| value.to_owned().into()),
    }
}

async fn created(
    wire: &mut Wire,
    name: &str,
    configs: &[(&str, Option<&str>)],
    validate_only: bool,
) -> CreatableTopicResult<'static> {
    let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
        name: (*name).to_owned().into(),
        value: value.map(|value| value.to_owned().into()),
    });
    let topic = CreatableTopic {
        name: name.to_owned().into(),
        num_partitions: 1,
        replication_factor: 1,
        configs: configs.collect(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 10_000,
        validate_only,
    };
    let mut response: CreateTopicsResponse<'_> = wire.ask(ApiKey::CreateTopics, 7, &request).await;
    response.topics.remove(0)
}

pub async fn look(wire: &mut Wire, look: &mut Look) {
    news(wire, look).await;
    topics(wire, look).await;
    changes(wire, look).await;
    replacements(wire, look).await;
    brokers(wire, look).await;
}

async fn news(wire: &mut Wire, look: &mut Look) {
    for (name, value, code, message) in NEW {
        let made = created(wire, "e5", &[(name, Some(value))], false).await;
        let seen = (made.error_code, made.error_message.unwrap_or_default().to_string());
        look.same("E5", name, seen, (*code, (*message).to_owned()));
    }
    let made = created(wire, "e5", &[("retention.ms", None)], false).await;
    let seen = (made.error_code, made.error_message.unwrap_or_default().to_string());
    look.same(
        "E5",
        "no value",
        seen,
        (
            40,
            "Null value not supported for topic configs: retention.ms".to_owned(),
        ),
    );
    let made = created(
        wire,
        "e5-twice",
        &[("retention.ms", Some("1000")), ("retention.ms", Some("2000"))],
        false,
    )
    .await;
    look.same("E5", "a setting twice", made.error_code, 0);
    let made = created(wire, "e5-few", &[("min.insync.replicas", Some("2"))], false).await;
    look.other("E13", "more in sync than there are replicas", made.error_code, (0, 40));
    // All that Kafka has may be set to what it is.
    let all: Vec<_> = KAFKAS
        .iter()
        .filter(|(name, ..)| !OTHERS.iter().any(|(other, _)| other == name))
        .collect();
    let all: Vec<_> = all.iter().map(|(name, value, _)| (*name, Some(*value))).collect();
    let made = created(wire, "e5-all", &all, false).await;
    look.same(
        "E5",
        "every setting as it is",
        (made.error_code, made.error_message),
        (0, None),
    );
    // E6: whether it is made or not.
    for validate_only in [true, false] {
        let made = created(wire, "e6", &[("retention.ms", Some("1000"))], validate_only).await;
        let configs = made.configs.unwrap();
        look.same("E6", "the code", made.error_code, 0);
        look.other("E6", "how many", configs.len(), (KAFKAS.len(), KAFKAS.len() + 1));
        look.same(
            "E6",
            "their order",
            configs.is_sorted_by_key(|config| config.name.to_string()),
            true,
        );
        let own: Vec<_> = configs
            .iter()
            .filter(|config| ![4, 5].contains(&config.config_source))
            .collect();
        let own: Vec<_> = own
            .iter()
            .map(|config| (&*config.name, config.value.as_deref(), config.config_source))
            .collect();
        look.same(
            "E6",
            "what it sets itself",
            own,
            vec![("retention.ms", Some("1000"), 1)],
        );
    }
}

async fn topics(wire: &mut Wire, look: &mut Look) {
    let seen = described(wire, resource(TOPIC, "e6")).await;
    look.same(
        "E9",
        "the code",
        (seen.error_code, seen.error_message.as_deref() == Some("")),
        (0, true),
    );
    for (name, default, kind) in KAFKAS {
        let setting = seen.configs.iter().find(|setting| setting.name == *name);
        let setting = setting.unwrap_or_else(|| panic!("{name} is described"));
        let flags = (setting.config_type, setting.read_only, setting.is_sensitive);
        look.same("E9", name, flags, (*kind, false, false));
        let value = setting.value.as_deref().unwrap_or_default();
        match OTHERS.iter().find(|(other, _)| other == name) {
            None if *name == "retention.ms" => look.same("E9", name, value, "1000"),
            None => look.same("E9", name, value, default),
            Some((_, ours)) => look.other("E9", name, value, (default, ours)),
        }
    }
    look.other("E9", "how many", seen.configs.len(), (KAFKAS.len(), KAFKAS.len() + 1));
    let synonyms = |settings: &[DescribeConfigsResourceResult<'_>], name: &str| -> Vec<(String, String, i8)> {
        let setting = settings.iter().find(|setting| setting.name == name).unwrap();
        let synonyms = setting.synonyms.iter();
        synonyms
            .map(|synonym| {
                (
                    synonym.name.to_string(),
                    synonym.value.as_deref().unwrap_or_default().to_owned(),
                    synonym.source,
                )
            })
            .collect()
    };
    let own = |name: &str, value: &str, source| (name.to_owned(), value.to_owned(), source);
    look.same(
        "E9",
        "synonyms of its own",
        synonyms(&seen.configs, "retention.ms"),
        vec![own("retention.ms", "1000", 1)],
    );
    look.same("E9", "no synonyms", synonyms(&seen.configs, "segment.ms"), vec![]);
    let segments = ["16777216", "1073741824"].into_iter().zip([4, 5]);
    let segments: Vec<_> = segments
        .map(|(value, source)| own("log.segment.bytes", value, source))
        .collect();
    look.same(
        "E9",
        "synonyms of the configuration",
        synonyms(&seen.configs, "segment.bytes"),
        segments,
    );
    let policy = vec![own("log.cleanup.policy", "delete", 5)];
    look.same("E9", "synonyms", synonyms(&seen.configs, "cleanup.policy"), policy);
    let some = DescribeConfigsResource {
        configuration_keys: Some(["retention.ms", "nope", "retention.ms"].map(Into::into).into()),
        ..resource(TOPIC, "e6")
    };
    look.same("E9", "some keys", described(wire, some).await.configs.len(), 1);
    let none = DescribeConfigsResource {
        configuration_keys: Some(Vec::new()),
        ..resource(TOPIC, "e6")
    };
    let all = described(wire, none).await.configs.len();
    look.same("E9", "an empty list of keys", all, seen.configs.len());
    for (name, code, message) in [
        ("nope", 3, ""),
        (
            "a b",
            17,
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
        ),
        ("..", 17, "Topic name is invalid: '..' is not allowed"),
        ("", 17, "Topic name is invalid: the empty string is not allowed"),
    ] {
        let seen = described(wire, resource(TOPIC, name)).await;
        let seen = (
            seen.error_code,
            seen.error_message.unwrap_or_default().to_string(),
            seen.configs.len(),
        );
        look.same("E9", name, seen, (code, message.to_owned(), 0));
    }
}

async fn changes(wire: &mut Wire, look: &mut Look) {
    wire.create_topic("e11", 1, &[]).await;
    for (name, operation, value, code, message, then) in CHANGES {
        let told = altered(wire, &[(TOPIC, "e11", vec![change(name, *operation, *value)])]).await;
        let what = format!("{name} {operation} {value:?}");
        look.same("E11", &what, told[0].clone(), (*code, message.map(str::to_owned)));
        let seen = described(wire, resource(TOPIC, "e11")).await.configs;
        let own = seen
            .into_iter()
            .find(|setting| setting.name == *name && setting.config_source == 1);
        let own = own.map(|setting| setting.value.unwrap_or_default().to_string());
        look.same("E11", &what, own, then.map(str::to_owned));
    }
    let set = |name: &str, value: &str| change(name, SET, Some(value));
    // All of a resource, or nothing.
    let told = altered(
        wire,
        &[(
            TOPIC,
            "e11",
            vec![set("segment.ms", "60000"), set("segment.bytes", "x")],
        )],
    )
    .await;
    let seen = described(wire, resource(TOPIC, "e11")).await.configs;
    let source = seen
        .iter()
        .find(|setting| setting.name == "segment.ms")
        .unwrap()
        .config_source;
    look.same("E11", "one good, one bad", (told[0].0, source), (40, 5));
    let twice = vec![set("retention.ms", "1"), set("retention.ms", "2")];
    let told = altered(wire, &[(TOPIC, "e11", twice)]).await;
    look.same(
        "E11",
        "a key twice",
        told[0].clone(),
        (42, Some("Error due to duplicate config keys".to_owned())),
    );
    let told = altered(wire, &[(TOPIC, "e11", vec![]), (TOPIC, "e11", vec![])]).await;
    let once = (42, Some("Each resource must appear at most once.".to_owned()));
    look.same("E11", "a resource twice", told, vec![once.clone(), once]);
    let told = altered(
        wire,
        &[
            (TOPIC, "nope", vec![set("retention.ms", "1000")]),
            (TOPIC, "e11", vec![]),
        ],
    )
    .await;
    look.same(
        "E11",
        "an unknown topic, and nothing to do",
        told,
        vec![(3, Some("The topic 'nope' does not exist.".to_owned())), (0, None)],
    );
    let told = altered(wire, &[(TOPIC, "e11", vec![set("compression.type", "zstd")])]).await;
    look.other("E11", "what cannot be otherwise", told[0].0, (0, 40));
}

/// The whole of a topic's settings at once.
async fn replacements(wire: &mut Wire, look: &mut Look) {
    let mut replaced = async |configs: &[(&str, &str)], validate_only| {
        let configs = configs
            .iter()
            .map(|(name, value)| alter_configs_request::AlterableConfig {
                name: (*name).to_owned().into(),
                value: Some((*value).to_owned().into()),
            });
        let request = AlterConfigsRequest {
            resources: vec![alter_configs_request::AlterConfigsResource {
                resource_type: TOPIC,
                resource_name: "e11".into(),
                configs: configs.collect(),
            }],
            validate_only,
        };
        let response: AlterConfigsResponse<'_> = wire.ask(ApiKey::AlterConfigs, 2, &request).await;
        let seen = described(wire, resource(TOPIC, "e11")).await.configs.into_iter();
        let own = seen.filter(|setting| setting.config_source == 1);
        let own: Vec<_> = own
            .map(|setting| (setting.name.to_string(), setting.value.unwrap().to_string()))
            .collect();
        (response.responses[0].error_code, own)
    };
    let segments = || vec![("segment.ms".to_owned(), "60000".to_owned())];
    look.same(
        "E11",
        "all anew",
        replaced(&[("segment.ms", "60000"), ("preallocate", "false")], false).await,
        (0, segments()),
    );
    look.same("E11", "only looked at", replaced(&[], true).await, (0, segments()));
    look.same(
        "E11",
        "one is unknown",
        replaced(&[("nope", "1")], false).await,
        (40, segments()),
    );
    look.same("E11", "none any more", replaced(&[], false).await, (0, vec![]));
}

#[expect(clippy::too_many_lines, reason = "a table of what a broker describes")]
async fn brokers(wire: &mut Wire, look: &mut Look) {
    let node = wire.metadata(&[], false).await.brokers[0].node_id.to_string();
    let seen = described(wire, resource(BROKER, &node)).await;
    let value = |name: &str| {
        let setting = seen.configs.iter().find(|setting| setting.name == name);
        setting.map(|setting| {
            (
                setting.value.as_deref().unwrap_or_default().to_owned(),
                setting.config_type,
            )
        })
    };
    // Name, kind, Kafka's default where ours is the same.
    for (name, kind, kafkas) in [
        ("auto.create.topics.enable", 1, "true"),
        ("auto.leader.rebalance.enable", 1, "true"),
        ("connections.max.idle.ms", 5, "600000"),
        ("delete.topic.enable", 1, "true"),
        ("group.consumer.assignment.interval.ms", 3, "1000"),
        ("group.consumer.assignors", 7, "uniform,range"),
        ("group.consumer.heartbeat.interval.ms", 3, "5000"),
        ("group.consumer.session.timeout.ms", 3, "45000"),
        ("group.max.session.timeout.ms", 3, "1800000"),
        ("group.min.session.timeout.ms", 3, "6000"),
        ("log.cleaner.enable", 1, "true"),
        ("log.cleaner.min.cleanable.ratio", 6, "0.5"),
        ("log.cleanup.policy", 7, "delete"),
        ("log.message.timestamp.after.max.ms", 5, "3600000"),
        ("log.retention.bytes", 5, "-1"),
        ("num.partitions", 3, "1"),
        ("offset.metadata.max.bytes", 3, "4096"),
        ("offsets.retention.minutes", 3, "10080"),
        ("offsets.topic.num.partitions", 3, "50"),
        ("offsets.topic.segment.bytes", 3, "104857600"),
        ("producer.id.expiration.ms", 3, "86400000"),
        ("unclean.leader.election.enable", 1, "false"),
    ] {
        look.same("E10", name, value(name), Some((kafkas.to_owned(), kind)));
    }
    look.same("E10", "its number", value("node.id"), Some((node.clone(), 3)));
    let is_told = |name: &str| value(name).is_some();
    look.other(
        "E10",
        "threads, which there are none of",
        is_told("num.io.threads"),
        (true, false),
    );
    let delay = value("group.initial.rebalance.delay.ms").map(|(value, _)| value);
    look.other(
        "F13",
        "the first join waits",
        delay,
        (Some("3000".to_owned()), Some("0".to_owned())),
    );
    look.same(
        "F13",
        "partitions of the offsets",
        value("offsets.topic.num.partitions").unwrap().0,
        "50".to_owned(),
    );
    look.other(
        "E10",
        "the cluster's defaults",
        described(wire, resource(BROKER, "")).await.configs.len(),
        (1, 0),
    );
    for (kind, name, message) in [
        (
            BROKER,
            "7",
            format!("Unexpected broker id, expected {node} or empty string, but received 7"),
        ),
        (BROKER, "abc", "Broker id must be an integer, but it is: abc".to_owned()),
        (
            LOGGER,
            "7",
            format!("Unexpected broker id, expected {node} but received 7"),
        ),
    ] {
        let seen = described(wire, resource(kind, name)).await;
        let seen = (seen.error_code, seen.error_message.unwrap_or_default().to_string());
        look.same("E10", name, seen, (42, message));
    }
    look.same(
        "E10",
        "an unknown type",
        described(wire, resource(99, "x")).await.error_code,
        42,
    );
    let set = |name: &str| vec![change(name, SET, Some("4"))];
    for (kind, name, message) in [
        (
            BROKER,
            "7",
            format!("Unexpected broker id, expected {node}, but received 7"),
        ),
        (BROKER, "abc", "Node id must be an integer, but it is: abc".to_owned()),
        (99, "x", "Unknown resource type 99".to_owned()),
    ] {
        let told = altered(wire, &[(kind, name, set("num.partitions"))]).await;
        look.same("E11", name, told[0].clone(), (42, Some(message)));
    }
    let told = altered(wire, &[(BROKER, &node, set("num.partitions"))]).await;
    let starts = told[0]
        .1
        .as_deref()
        .unwrap_or_default()
        .starts_with("Cannot update these configs dynamically: [num.partitions]");
    look.same("E11", "what is read at the start", (told[0].0, starts), (42, true));
    let told = altered(wire, &[(BROKER, &node, set("nope"))]).await;
    look.other("E11", "an unknown setting of a broker", told[0].0, (0, 42));
}
