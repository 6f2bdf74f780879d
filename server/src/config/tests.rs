use std::collections::BTreeSet;
use std::io::Write as _;

use tempfile::NamedTempFile;

use super::*;

const SETTINGS: &str = include_str!("../../../docs/settings.md");

/// For each key a value that is not its default; together they are valid.
const OTHER_VALUES: &[(&str, &str)] = &[
    ("broker.id", "7"),
    ("broker.cluster_id", "test-cluster"),
    ("broker.listen", "[::1]:0"),
    ("broker.advertised_host", "log.example.com"),
    ("broker.rack", "room-2.row_1"),
    ("broker.core_port_base", "9300"),
    ("broker.tls_certificate", "/etc/tls/a.pem,/etc/tls/b.pem"),
    ("broker.tls_key", "/etc/tls/a.key,/etc/tls/b.key"),
    ("broker.tls_client_ca", "/etc/tls/ca.pem"),
    ("broker.tls_client_auth", "required"),
    ("broker.tls_principal_rules", "RULE:^CN=([^,]+).*$/$1/L,DEFAULT"),
    ("broker.core_dump", "true"),
    ("kafka.listen", "[::1]:9092"),
    ("kafka.core_nodes", "false"),
    ("kafka.core_port_base", "9400"),
    ("kafka.tls_certificate", "/etc/tls/a.pem,/etc/tls/b.pem"),
    ("kafka.tls_key", "/etc/tls/a.key,/etc/tls/b.key"),
    ("kafka.tls_client_ca", "/etc/tls/ca.pem"),
    ("kafka.tls_client_auth", "required"),
    ("kafka.tls_principal_rules", "RULE:^CN=([^,]+).*$/$1/L,DEFAULT"),
    ("kafka.auto_create_topics", "false"),
    ("cluster.role", "coordinator"),
    ("cluster.listen", "127.0.0.1:9293"),
    ("cluster.members", "7@[::1]:9293,8@two.example:9293,9@10.0.0.3:9293"),
    ("cluster.balance", "replicas"),
    ("cluster.tls_certificate", "/etc/tls/peer.pem"),
    ("cluster.tls_key", "/etc/tls/peer.key"),
    ("cluster.tls_ca", "/etc/tls/peers.pem"),
    ("cluster.secret", "file:/etc/headwater/secret"),
    ("cluster.secret_previous", "env:HEADWATER_FORMER_SECRET"),
    ("cluster.catch_up_bytes_per_second_max", "8MiB"),
    ("cores.count", "3"),
    ("cores.set", "0,2-3"),
    ("cores.pin", "false"),
    ("metrics.listen", "127.0.0.1:9644"),
    ("metrics.tls_certificate", "/etc/tls/a.pem,/etc/tls/b.pem"),
    ("metrics.tls_key", "/etc/tls/a.key,/etc/tls/b.key"),
    ("metrics.tls_client_ca", "/etc/tls/ca.pem"),
    ("metrics.series_max", "50"),
    ("metrics.tick_us", "100us"),
    ("cores.spin_before_park_us", "1ms"),
    ("cores.tail_buffer_bytes_max", "1GiB"),
    ("cores.prefault", "true"),
    ("cores.cold_read_bytes_max", "16MiB"),
    ("cores.read_ahead_bytes", "2MiB"),
    ("cores.connection_bytes_max", "67108865"),
    ("cores.in_flight_bytes_max", "1.5GiB"),
    ("cores.open_files_max", "4321"),
    ("log.directory", "/srv/\"quoted\" \\ data"),
    ("log.segment_size_bytes", "512MiB"),
    ("log.segment_age_ms", "1h 30m"),
    ("log.retention_ms", "unlimited"),
    ("log.retention_bytes", "1TiB"),
    ("log.retention_check_interval_ms", "1500ms"),
    ("log.recycle", "false"),
    ("log.index_interval_bytes", "64KiB"),
    ("log.batch_size_bytes_max", "1MiB"),
    ("log.checkpoint_interval_ms", "1m"),
    ("log.checkpoint_bytes_max", "256MiB"),
    ("log.prepare_step_bytes_max", "1MiB"),
    ("log.zero_ahead_bytes", "0"),
    ("log.timestamp_ahead_ms_max", "0"),
    ("journal.enabled", "true"),
    ("journal.size_bytes", "16MiB"),
    ("journal.batch_bytes_max", "16KiB"),
    ("compaction.dirty_ratio_min", "0.25"),
    ("compaction.lag_ms_min", "1s"),
    ("compaction.lag_ms_max", "1h"),
    ("compaction.delete_retention_ms", "0ms"),
    ("compaction.check_interval_ms", "100ms"),
    ("compaction.map_bytes_max", "1MiB"),
    ("compaction.bytes_per_second_max", "1GiB"),
    ("flush.delay_us", "250"),
    ("flush.writes_in_flight_max", "16"),
    ("flush.uncovered_bytes_max", "2MiB"),
    ("flush.single_write_bytes_max", "0"),
    ("producers.expiry_ms", "2d"),
    ("producers.count_max", "7"),
    ("limits.connections_max", "100"),
    ("limits.connection_idle_ms", "5s"),
    ("limits.frame_wait_ms_max", "5s"),
    ("limits.handshake_wait_ms_max", "5s"),
    ("limits.handshakes_max", "64"),
    ("limits.frame_size_bytes_max", "2MiB"),
    ("limits.requests_in_flight_max", "64"),
    ("limits.requests_in_flight_bytes_max", "4MiB"),
    ("limits.topics_max", "10"),
    ("limits.partitions_per_topic_max", "20"),
    ("limits.partitions_max", "200"),
    ("limits.fetch_wait_ms_max", "0"),
    ("limits.fetch_size_bytes_max", "8MiB"),
    ("limits.shutdown_grace_ms", "10m"),
    ("limits.shutdown_close_ms_max", "5m"),
    ("security.sasl", "SCRAM-SHA-256"),
    ("security.plain_without_tls", "true"),
    ("security.authorizer", "true"),
    ("security.super_users", "alice,bob"),
    ("security.admin_password", "env:HEADWATER_ADMIN"),
    ("security.reauthenticate_ms", "1h"),
    ("security.failure_wait_ms", "1s"),
    ("security.audit", "denied"),
    ("security.audit_topic", "true"),
    ("security.audit_interval_ms", "1s"),
    ("security.audit_retention_ms", "1d"),
    ("security.token_jwks", "https://issuer.example/jwks.json"),
    ("security.token_jwks_ca", "/etc/tls/issuer.pem"),
    ("security.token_refresh_ms", "1h"),
    ("security.token_issuers", "https://issuer.example"),
    ("security.token_audience", "headwater,kafka"),
    ("security.token_principal_claim", "email"),
    ("security.token_algorithms", "ES256"),
    ("security.token_leeway_ms", "5s"),
    ("topics.partitions", "12"),
    ("topics.replication_factor", "2"),
    ("groups.session_timeout_ms_min", "1s"),
    ("groups.session_timeout_ms_max", "2m"),
    ("groups.initial_rebalance_delay_ms", "3s"),
    ("groups.count_max", "100"),
    ("groups.members_max", "10"),
    ("groups.consumer_session_timeout_ms", "20s"),
    ("groups.consumer_heartbeat_interval_ms", "1s"),
    ("groups.consumer_assignment_interval_ms", "0"),
    ("groups.consumer_migration", "upgrade"),
    ("groups.id_bytes_max", "64"),
    ("groups.metadata_bytes_max", "1MiB"),
    ("groups.offset_metadata_bytes_max", "0"),
    ("groups.offsets_retention_ms", "1d"),
    ("groups.offsets_check_interval_ms", "1m"),
    ("groups.offsets_partitions", "8"),
    ("groups.offsets_segment_size_bytes", "1MiB"),
    ("http.listen", "127.0.0.1:9680"),
    ("http.tls_certificate", "/etc/tls/a.pem,/etc/tls/b.pem"),
    ("http.tls_key", "/etc/tls/a.key,/etc/tls/b.key"),
    ("http.tls_client_ca", "/etc/tls/ca.pem"),
    ("http.broker_ca", "/etc/tls/brokers.pem"),
    ("http.broker_certificate", "/etc/tls/rest.pem"),
    ("http.broker_key", "/etc/tls/rest.key"),
    ("http.allowed_origins", "https://dash.example.com,http://localhost:3000"),
    ("http.console_writes", "true"),
    ("http.connections_max", "100"),
    ("http.requests_in_flight_max", "50"),
    ("http.request_ms_max", "5s"),
    ("http.body_bytes_max", "1MiB"),
    ("http.memory_bytes_max", "16MiB"),
    ("http.streams_max", "20"),
    ("http.consumers_max", "30"),
    ("http.consumer_idle_ms", "1m"),
    ("http.users_max", "10"),
    ("http.idempotency_keys_max", "0"),
    ("http.idempotency_ms", "1m"),
    ("transactions.timeout_ms_max", "1m"),
    ("transactions.id_expiry_ms", "1d"),
    ("transactions.id_check_interval_ms", "1m"),
    ("transactions.ids_max", "100"),
    ("transactions.state_partitions", "8"),
    ("transactions.state_segment_size_bytes", "1MiB"),
    ("logging.format", "json"),
    ("logging.filter", "headwater_server=debug,info"),
];

fn flags(values: &[(&str, &str)]) -> Layers {
    let flags = values
        .iter()
        .map(|(name, value)| ("--set".to_owned(), (*name).to_owned(), (*value).to_owned()));
    Layers {
        flags: flags.collect(),
        ..Layers::default()
    }
}

fn variables(values: &[(&str, &str)]) -> Layers {
    let environment = values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Layers {
        environment: environment.collect(),
        ..Layers::default()
    }
}

fn file(text: &str) -> (Layers, NamedTempFile) {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    (
        Layers {
            file: Some(file.path().to_owned()),
            ..Layers::default()
        },
        file,
    )
}

fn error(layers: &Layers) -> String {
    layers.load().expect_err("the configuration is wrong").to_string()
}

#[test]
fn defaults_are_valid() {
    Config::default().validate().unwrap();
    assert_eq!(Layers::default().load().unwrap().config, Config::default());
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_defaults() {
    let (mut layers, _file) = file("[broker]\nid = 1\n[limits]\ntopics_max = 2\nconnections_max = 3\n");
    layers.environment = variables(&[("HEADWATER_BROKER_ID", "4"), ("HEADWATER_LIMITS_TOPICS_MAX", "5")]).environment;
    layers.flags = flags(&[("broker.id", "6")]).flags;
    let Effective { config, sources, .. } = layers.load().unwrap();
    assert_eq!(
        (
            config.broker.id.get(),
            config.limits.topics_max,
            config.limits.connections_max
        ),
        (6, 5, 3)
    );
    assert_eq!(sources.of("broker.id"), Source::Flag("--set".to_owned()));
    assert_eq!(
        sources.of("limits.topics_max"),
        Source::Environment("HEADWATER_LIMITS_TOPICS_MAX".to_owned())
    );
    assert!(matches!(
        sources.of("limits.connections_max"),
        Source::File { line: 5, .. }
    ));
    assert_eq!(sources.of("limits.partitions_max"), Source::Default);
}

#[test]
fn every_key_is_set_alike_by_file_environment_and_flag() {
    let named: BTreeSet<String> = OTHER_VALUES.iter().map(|(name, _)| (*name).to_owned()).collect();
    let keys: BTreeSet<String> = Config::KNOBS.iter().map(Knob::name).collect();
    assert_eq!(keys, named, "the table of other values lists every key that can change");

    let by_flag = flags(OTHER_VALUES).load().unwrap().config;
    let text = OTHER_VALUES
        .iter()
        .map(|(name, value)| format!("{name} = {}\n", toml::Value::from(*value)));
    let by_file = file(&text.collect::<String>()).0;
    // The temporary file is gone, which must be an error and not the defaults.
    assert!(error(&by_file).contains("cannot read the configuration file"));
    let text = OTHER_VALUES
        .iter()
        .map(|(name, value)| format!("{name} = {}\n", toml::Value::from(*value)));
    let (by_file, _file) = file(&text.collect::<String>());
    assert_eq!(by_file.load().unwrap().config, by_flag);
    let environment = OTHER_VALUES
        .iter()
        .map(|(name, value)| (format!("HEADWATER_{}", name.replace('.', "_")).to_uppercase(), *value));
    let environment: Vec<_> = environment.collect();
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    assert_eq!(variables(&environment).load().unwrap().config, by_flag);

    for knob in Config::KNOBS.iter().filter(|knob| named.contains(&knob.name())) {
        assert_ne!(
            knob.value(&by_flag).show(),
            knob.value(&Config::default()).show(),
            "{knob:?}"
        );
    }
}

#[test]
fn the_printed_configuration_reads_back_to_the_same() {
    for layers in [Layers::default(), flags(OTHER_VALUES)] {
        let effective = layers.load().unwrap();
        let text = effective.to_toml();
        let (layers, _file) = file(&text);
        let again = layers.load().unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(again.config, effective.config);
        for knob in Config::KNOBS {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("{} = ", knob.key)))
                .unwrap();
            let is_default = effective.sources.of(&knob.name()) == Source::Default;
            assert_eq!(line.ends_with("# from --set"), !is_default, "{line}");
            let texts = [knob.doc, knob.advice].into_iter().flat_map(|text| text.split(' '));
            assert!(texts.into_iter().all(|word| text.contains(word)), "{knob:?}");
        }
    }
}

#[test]
fn kafkas_usual_port_goes_with_the_brokers_usual_one() {
    let listens = |settings: &[(&str, &str)]| {
        flags(settings)
            .load()
            .unwrap()
            .config
            .kafka_listen()
            .map(|at| at.to_string())
    };
    assert_eq!(listens(&[]).as_deref(), Some("127.0.0.1:9092"));
    assert_eq!(
        listens(&[("broker.listen", "0.0.0.0:9292")]).as_deref(),
        Some("0.0.0.0:9092")
    );
    // Another broker on the same machine, or one of a test.
    assert_eq!(listens(&[("broker.listen", "127.0.0.1:9300")]), None);
    assert_eq!(listens(&[("kafka.listen", "off")]), None);
    let own = [("broker.listen", "127.0.0.1:0"), ("kafka.listen", "127.0.0.1:0")];
    assert_eq!(listens(&own).as_deref(), Some("127.0.0.1:0"));
    for (settings, wrong) in [
        ([("kafka.listen", "127.0.0.1:9292"), ("broker.id", "0")], "kafka.listen"),
        (
            [("kafka.core_port_base", "9092"), ("cores.count", "1")],
            "kafka.core_port_base",
        ),
        ([("broker.id", "2097152"), ("kafka.core_nodes", "true")], "broker.id"),
    ] {
        assert!(error(&flags(&settings)).contains(wrong), "{settings:?}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_valid_one() {
    let (layers, file) = file("\n[log]\nsegment_size = 1\n[brokr]\nid = 1\n");
    let message = error(&layers);
    let path = file.path().display();
    assert!(
        message.contains(&format!("log.segment_size (from {path}:3): there is no such key")),
        "{message}"
    );
    assert!(message.contains("did you mean log.segment_size_bytes?"), "{message}");
    assert!(
        message.contains(&format!("brokr (from {path}:4)")) && message.contains("[broker]?"),
        "{message}"
    );

    let message = error(&flags(&[("limit.topics_max", "1"), ("topics_max", "1")]));
    assert_eq!(
        message.matches("did you mean limits.topics_max?").count(),
        2,
        "{message}"
    );
    let message = error(&variables(&[("HEADWATER_LOG_RETENTION", "1")]));
    assert!(
        message.contains("did you mean HEADWATER_LOG_RETENTION_MS?"),
        "{message}"
    );
}

#[test]
fn variables_of_others_are_left_alone() {
    let others = variables(&[
        ("HEADWATER_BROKER_SERVICE_HOST", "10.0.0.1"),
        ("HEADWATER_BROKER_PORT", "tcp://10.0.0.1:9292"),
        ("HEADWATER_BROKER_PORT_9292_TCP_ADDR", "10.0.0.1"),
        ("HEADWATER_UNRELATED_NUMBER", "100"),
        ("HEADWATER_SERVER", "localhost:9292"),
        ("HEADWATER_CONFIG", "headwater.toml"),
        ("PATH", "/bin"),
    ]);
    let effective = others.load().unwrap();
    assert_eq!(effective.config, Config::default());
    assert_eq!(
        effective.warnings,
        ["the environment variable HEADWATER_UNRELATED_NUMBER means nothing to the broker"]
    );
}

#[test]
fn a_variable_without_its_section_is_warned_of_with_the_key_that_may_be_meant() {
    let layers = variables(&[("HEADWATER_RETENTION_MS", "1h"), ("HEADWATER_LISTEN", "localhost:1")]);
    let warnings = layers.load().unwrap().warnings.join("\n");
    for meant in ["HEADWATER_LOG_RETENTION_MS", "HEADWATER_BROKER_LISTEN"] {
        assert!(warnings.contains(&format!("did you mean {meant}?")), "{warnings}");
    }
}

#[test]
fn what_openraft_says_is_left_out_unless_it_is_asked_for() {
    for (text, expected) in [
        ("info", "openraft=error,info"),
        ("openraft=debug,warn", "openraft=debug,warn"),
    ] {
        let mut filter = LogFilter::default();
        filter.read(text).unwrap();
        assert_eq!(filter.env_filter().to_string(), expected);
    }
}

#[test]
fn localhost_is_an_address_to_listen_on() {
    let set = flags(&[("broker.listen", "localhost:1"), ("metrics.listen", "localhost:2")]);
    let config = set.load().unwrap().config;
    assert_eq!(config.broker.listen.to_string(), "127.0.0.1:1");
    assert_eq!(config.metrics.listen.unwrap().get().to_string(), "127.0.0.1:2");
}

#[test]
fn a_file_that_is_not_toml_is_named_with_the_line() {
    let (layers, file) = file("[log]\ndirectory = \n");
    let message = error(&layers);
    assert!(
        message.starts_with(&format!("{}:2: not valid TOML", file.path().display())),
        "{message}"
    );
}

#[test]
fn values_outside_their_range_are_refused_with_the_range() {
    for knob in Config::KNOBS {
        let Some(range) = &knob.range else { continue };
        let value = knob.value(&Config::default()).show_magnitude(0);
        assert!(!value.is_empty());
        for outside in [range.start().checked_sub(1), range.end().checked_add(1)]
            .into_iter()
            .flatten()
        {
            let text = knob.value(&Config::default()).show_magnitude(outside);
            let message = error(&flags(&[(&knob.name(), &text)]));
            // A number may be beyond its type already.
            let allowed = knob.allowed(&Config::default());
            let refused = message.contains(&format!("{} = {text} (from --set): allowed is {allowed}", knob.name()))
                || message.contains(&format!(
                    "{} = {text:?} (from --set): expected a whole number",
                    knob.name()
                ))
                // The range of a share is part of what it is.
                || message.contains(&format!(
                    "{} = {text:?} (from --set): expected a number from 0 to 1",
                    knob.name()
                ));
            assert!(refused, "{knob:?} takes {text}: {message}");
        }
    }
}

#[test]
fn text_that_is_no_value_is_refused_with_what_was_expected() {
    for (name, value, expected) in [
        ("broker.id", "-1", "a whole number"),
        ("broker.cluster_id", "a b", "\"auto\" or 1 to 64 letters"),
        (
            "broker.listen",
            "example.com:1",
            "an IP address (or localhost) and a port",
        ),
        (
            "broker.advertised_host",
            "host:9292",
            "a host name or an IP address, without a port",
        ),
        ("broker.advertised_host", "0.0.0.0", "a host name or an IP address"),
        ("broker.rack", "a rack", "\"none\" or 1 to 64 letters"),
        ("cluster.role", "broker", "\"both\" or \"coordinator\""),
        (
            "broker.tls_client_auth",
            "yes",
            "\"none\", \"requested\" or \"required\"",
        ),
        ("kafka.tls_principal_rules", "RULE:a", "a rule as DEFAULT or RULE:"),
        ("metrics.tls_key", "a,,b", "the name of a file"),
        ("cluster.listen", "127.0.0.1:0", "\"off\" or an address with a port"),
        ("cluster.members", "0@a", "numbers of brokers with host and port"),
        ("cluster.members", "0@a:1,0@b:1", "each once"),
        ("cluster.members", "0@::1:1", "numbers of brokers with host and port"),
        ("cluster.members", "0@a:0", "numbers of brokers with host and port"),
        ("cores.set", "3-1", "CPU numbers"),
        ("cores.set", "0-999999", "CPU numbers"),
        ("cores.pin", "yes", "true or false"),
        ("log.directory", "", "the path of a directory"),
        ("log.segment_size_bytes", "64Mib/s", "a size, such as 64MiB"),
        ("log.segment_size_bytes", "-5", "a size, such as 64MiB"),
        (
            "log.segment_size_bytes",
            "99999999999999999999",
            "a size, such as 64MiB",
        ),
        ("log.retention_ms", "soon", "\"unlimited\" or a time, such as 10ms"),
        ("log.retention_ms", "10us", "not a whole number"),
        ("http.allowed_origins", "*", "origins such as https://dash.example.com"),
        ("logging.format", "xml", "\"text\" or \"json\""),
        ("logging.filter", "a=b=c", "directives"),
    ] {
        let message = error(&flags(&[(name, value)]));
        let start = format!("{name} = {value:?} (from --set): expected ");
        assert!(message.starts_with(&start) && message.contains(expected), "{message}");
    }
}

#[test]
fn sizes_and_times_take_units_and_plain_numbers() {
    let (layers, _file) = file(
        "[log]\nsegment_size_bytes = 8_388_608\nretention_ms = -1\nretention_bytes = 0x10_0000\nsegment_age_ms = 60000\n\
         [cores]\nset = [1, 0]\ntail_buffer_bytes_max = \"100MB\"\n",
    );
    let config = layers.load().unwrap().config;
    assert_eq!(config.log.segment_size_bytes.bytes(), 8 << 20);
    assert_eq!(config.log.retention_ms, None);
    assert_eq!(config.log.retention_bytes, Some(ByteSize::new(1 << 20)));
    assert_eq!(config.log.segment_age_ms.duration(), std::time::Duration::from_mins(1));
    assert_eq!(config.cores.set.iter().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(config.cores.tail_buffer_bytes_max.bytes(), 100_000_000);
}

const THREE: (&str, &str) = ("cluster.members", "0@a:1,1@b:1,2@c:1");
const LISTEN: (&str, &str) = ("cluster.listen", "127.0.0.1:1");
const PEM: (&str, &str) = ("broker.tls_certificate", "a.pem");
const KEY: (&str, &str) = ("broker.tls_key", "a.key");
const CLUSTER: (&str, &str) = ("broker.cluster_id", "blue");

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn limits_are_checked_against_each_other() {
    let broken: &[(&[(&str, &str)], &str)] = &[
        (
            &[("cores.count", "1"), ("cores.set", "0,1")],
            "cores.count = 1 (from --set): cores.set = 0,1 (from --set)",
        ),
        (
            &[("broker.core_port_base", "65535"), ("cores.count", "2")],
            "allowed is up to 65534",
        ),
        (
            &[("broker.core_port_base", "9291"), ("cores.count", "2")],
            "must not hold the port 9292 of broker.listen",
        ),
        (
            &[("limits.frame_size_bytes_max", "4MiB")],
            "log.batch_size_bytes_max = 4MiB (from default) needs at least",
        ),
        (
            &[("limits.requests_in_flight_bytes_max", "4MiB")],
            "limits.frame_size_bytes_max = 8MiB (from default)",
        ),
        (
            &[("limits.fetch_size_bytes_max", "3MiB")],
            "log.batch_size_bytes_max = 4MiB (from default)",
        ),
        (&[("cores.connection_bytes_max", "31MiB")], "needs at least 32MiB"),
        (&[("cores.in_flight_bytes_max", "31MiB")], "needs at least 32MiB"),
        (
            &[("cores.tail_buffer_bytes_max", "15MiB")],
            "log.batch_size_bytes_max = 4MiB (from default) needs at least 16MiB",
        ),
        (
            &[("flush.uncovered_bytes_max", "32MiB")],
            "(from default): flush.uncovered_bytes_max = 32MiB (from --set)",
        ),
        (
            &[("log.segment_size_bytes", "1MiB")],
            "log.batch_size_bytes_max = 4MiB (from default) needs at least 4MiB",
        ),
        (
            &[("log.prepare_step_bytes_max", "100001")],
            "allowed are multiples of 4KiB",
        ),
        (
            &[("topics.partitions", "1001")],
            "topics.partitions = 1001 (from --set) needs at least 1001",
        ),
        (
            &[("limits.partitions_max", "999")],
            "limits.partitions_per_topic_max = 1000 (from default)",
        ),
        (
            &[("cluster.members", "0@a:1,1@b:1"), LISTEN, CLUSTER],
            "these are 2 members; allowed are 1, 3 or 5",
        ),
        (
            &[THREE, LISTEN, CLUSTER, ("broker.id", "3")],
            "broker.id = 3 (from --set) is not among them",
        ),
        (
            &[("cluster.members", "0@a:1,1@b:1,2@a:1"), LISTEN, CLUSTER],
            "each member needs an address of its own",
        ),
        (&[THREE, CLUSTER], "must reach this one; name an address"),
        (&[LISTEN], "names nobody who could call; name this member"),
        (&[THREE, LISTEN], "broker.cluster_id = auto (from default): "),
        (
            &[("cluster.role", "coordinator")],
            "has no broker to hold anything for; use \"both\"",
        ),
        (
            &[("broker.tls_certificate", "a.pem")],
            "name one key for each certificate",
        ),
        (
            &[("kafka.tls_client_auth", "required")],
            "without TLS nobody can show a certificate",
        ),
        (
            &[PEM, KEY, ("broker.tls_client_auth", "requested")],
            "name the CA of the clients' certificates",
        ),
        (&[("cluster.tls_ca", "ca.pem")], "set both, and the key, or neither"),
        (
            &[
                ("cluster.tls_certificate", "a.pem,b.pem"),
                ("cluster.tls_key", "a.key,b.key"),
                ("cluster.tls_ca", "ca.pem"),
            ],
            "a broker has one certificate for the others",
        ),
        (
            &[
                ("security.sasl", "OAUTHBEARER"),
                ("security.token_issuers", "a"),
                ("security.token_audience", "b"),
            ],
            "set it, as tokens are checked by it",
        ),
        (
            &[("cluster.secret_previous", "env:OLD")],
            "cluster.secret = none (from default); set that one too",
        ),
        (
            &[THREE, LISTEN, ("broker.cluster_id", "c"), PEM, KEY],
            "brokers reach each other on that port too",
        ),
        (
            &[("http.memory_bytes_max", "4MiB")],
            "http.body_bytes_max = 8MiB (from default) needs at least",
        ),
        (
            &[("http.requests_in_flight_max", "128")],
            "or those who wait for records would keep out all others",
        ),
        (
            &[("http.broker_certificate", "a.pem")],
            "one certificate and one key, or neither",
        ),
        (&[("http.broker_ca", "a.pem,b.pem")], "it may hold several CAs"),
    ];
    for (values, expected) in broken {
        let message = error(&flags(values));
        assert!(
            message.contains(expected) && message.lines().count() == 1,
            "{expected}: {message}"
        );
    }
}

#[test]
fn a_configuration_made_in_code_is_checked_too() {
    let mut config = Config::default();
    config.limits.frame_size_bytes_max = ByteSize::new(1 << 20);
    let message = config.validate().unwrap_err().to_string();
    assert!(
        message.contains("limits.frame_size_bytes_max = 1MiB (from program)"),
        "{message}"
    );
}

#[test]
fn all_problems_are_reported_together() {
    let error = flags(&[("broker.idd", "1"), ("cores.pin", "2"), ("topics.partitions", "0")])
        .load()
        .unwrap_err();
    assert_eq!(error.problems.len(), 3, "{error}");
}

#[test]
fn clients_are_told_a_host_they_can_reach() {
    let advertised = |listen: &str, host: &str| {
        flags(&[("broker.listen", listen), ("broker.advertised_host", host)])
            .load()
            .unwrap()
            .config
            .advertised_host()
    };
    assert_eq!(advertised("127.0.0.1:1", "auto"), "127.0.0.1");
    assert_eq!(advertised("0.0.0.0:1", "log.example.com"), "log.example.com");
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert_eq!(advertised("[::]:1", "auto"), own);
}

#[test]
fn the_page_of_settings_is_what_the_code_says() {
    assert!(
        reference() == SETTINGS,
        "docs/settings.md is not up to date: run `cargo run -p headwater-server --example settings > docs/settings.md`"
    );
}

#[test]
fn every_key_is_explained_and_has_a_row_of_its_own() {
    for knob in Config::KNOBS {
        assert!(
            !knob.doc.is_empty() && !knob.doc.contains('|') && !knob.advice.contains('|'),
            "{knob:?}"
        );
        let row = format!("| `{}` |", knob.name());
        assert_eq!(reference().matches(&row).count(), 1, "{knob:?}");
    }
}
