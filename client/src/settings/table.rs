//! The table of all settings.

use super::Part::{Client, Consumer, Group, Producer};
use super::Setting;
use super::value::{acks, assignor, bytes, count, duration, flag, isolation, mechanism, put, reset, start, text};
use crate::connection::credentials::{Credentials, SaslMechanism};

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "bootstrap",
        kafka: &["bootstrap.servers", "metadata.broker.list"],
        part: Client,
        default: "",
        meaning: "where to find the broker: one or more addresses, separated by commas",
        set: |client, value| put(&mut client.bootstrap, text(value).map(|list| vec![list])),
    },
    Setting {
        name: "client_id",
        kafka: &["client.id"],
        part: Client,
        default: "",
        meaning: "what the program calls itself: for the broker's log, and for the description of groups",
        set: |client, value| {
            put(
                &mut client.settings.connection.client_id,
                text(value).map(|id| Some(id.into())),
            )
        },
    },
    Setting {
        name: "user",
        kafka: &["sasl.username"],
        part: Client,
        default: "",
        meaning: "who the client is, where brokers ask for that (`security.sasl`)",
        set: |client, value| {
            let credentials = client.settings.connection.credentials.get_or_insert_default();
            put(&mut credentials.user, text(value).map(Into::into))
        },
    },
    Setting {
        name: "password",
        kafka: &["sasl.password"],
        part: Client,
        default: "",
        meaning: "its password; better in the environment or a file that only the program's user can read",
        set: |client, value| {
            let credentials = client.settings.connection.credentials.get_or_insert_default();
            put(&mut credentials.password, text(value).map(Into::into))
        },
    },
    Setting {
        name: "sasl_mechanism",
        kafka: &["sasl.mechanism", "sasl.mechanisms"],
        part: Client,
        default: "",
        meaning: "how it proves that it knows the password: `SCRAM-SHA-256`, which it is if nothing is said, `SCRAM-SHA-512`, or `PLAIN`, which brokers take only over encrypted connections unless they are told otherwise; `OAUTHBEARER` with `token_file`",
        set: |client, value| {
            let credentials = client.settings.connection.credentials.get_or_insert_default();
            put(&mut credentials.mechanism, mechanism(value))
        },
    },
    Setting {
        name: "token_file",
        kafka: &[],
        part: Client,
        default: "",
        meaning: "file with a token that shows who the client is, in the place of a user and a password; it is read again whenever a token is needed",
        set: |client, value| {
            let credentials = client.settings.connection.credentials.get_or_insert_default();
            credentials.mechanism = SaslMechanism::OauthBearer;
            let tokens = text(value).map(|path| Some(Credentials::of_token_file(path.into())));
            put(&mut credentials.tokens, tokens)
        },
    },
    Setting {
        name: "bootstrap_timeout",
        kafka: &[],
        part: Client,
        default: "1s",
        meaning: "how long the making of a client tries again when no address answers, as while a broker starts",
        set: |client, value| put(&mut client.settings.bootstrap_timeout, duration(value)),
    },
    Setting {
        name: "connect_timeout",
        kafka: &["socket.connection.setup.timeout.ms"],
        part: Client,
        default: "5s",
        meaning: "for one connection, with the name's resolution and the first exchange",
        set: |client, value| put(&mut client.settings.connection.connect_timeout, duration(value)),
    },
    Setting {
        name: "request_timeout",
        kafka: &["request.timeout.ms"],
        part: Client,
        default: "30s",
        meaning: "for one answer; then the connection counts as dead",
        set: |client, value| put(&mut client.settings.connection.request_timeout, duration(value)),
    },
    Setting {
        name: "call_timeout",
        kafka: &["default.api.timeout.ms"],
        part: Client,
        default: "60s",
        meaning: "for a call of administration, a seek, or the making of a producer or consumer, with all its attempts",
        set: |client, value| put(&mut client.settings.call_timeout, duration(value)),
    },
    Setting {
        name: "metadata_timeout",
        kafka: &[],
        part: Client,
        default: "5s",
        meaning: "how long a topic is looked for before it counts as unknown",
        set: |client, value| put(&mut client.settings.metadata_timeout, duration(value)),
    },
    Setting {
        name: "metadata_age_max",
        kafka: &["metadata.max.age.ms"],
        part: Client,
        default: "30s",
        meaning: "after so long at the latest, producers and consumers know of partitions that were added",
        set: |client, value| put(&mut client.settings.metadata_age_max, duration(value)),
    },
    Setting {
        name: "backoff_min",
        kafka: &["retry.backoff.ms"],
        part: Client,
        default: "20ms",
        meaning: "the shortest pause between attempts; each is a quarter longer than the one before",
        set: |client, value| put(&mut client.settings.backoff.min, duration(value)),
    },
    Setting {
        name: "backoff_max",
        kafka: &["retry.backoff.max.ms"],
        part: Client,
        default: "1s",
        meaning: "the longest pause between attempts",
        set: |client, value| put(&mut client.settings.backoff.max, duration(value)),
    },
    Setting {
        name: "frame_size_max",
        kafka: &[],
        part: Client,
        default: "64MiB",
        meaning: "the largest response to take",
        set: |client, value| put(&mut client.settings.connection.frame_size_max, bytes(value)),
    },
    Setting {
        name: "tls",
        kafka: &[],
        part: Client,
        default: "",
        meaning: "`true` encrypts every connection, and believes no broker that does not show a certificate for its host; it is what one of the \
                  settings below means already",
        set: |client, value| put(&mut client.settings.tls.is_on, flag(value).map(Some)),
    },
    Setting {
        name: "tls_ca",
        kafka: &["ssl.ca.location"],
        part: Client,
        default: "",
        meaning: "PEM file of the CAs that are trusted; without it those of the system",
        set: |client, value| put(&mut client.settings.tls.ca, text(value).map(|file| Some(file.into()))),
    },
    Setting {
        name: "tls_certificate",
        kafka: &["ssl.certificate.location"],
        part: Client,
        default: "",
        meaning: "PEM file of the certificate that the client shows, with those that lead to its CA behind it",
        set: |client, value| {
            put(
                &mut client.settings.tls.certificate,
                text(value).map(|file| Some(file.into())),
            )
        },
    },
    Setting {
        name: "tls_key",
        kafka: &["ssl.key.location"],
        part: Client,
        default: "",
        meaning: "PEM file of its private key",
        set: |client, value| put(&mut client.settings.tls.key, text(value).map(|file| Some(file.into()))),
    },
    Setting {
        name: "tls_server_name",
        kafka: &[],
        part: Client,
        default: "",
        meaning: "the name that the brokers' certificates must be for, where it is not the host that is connected to",
        set: |client, value| put(&mut client.settings.tls.server_name, text(value).map(Some)),
    },
    Setting {
        name: "acks",
        kafka: &["acks"],
        part: Producer,
        default: "all",
        meaning: "when a record counts as delivered: `all`, `1`, or `0`, which may lose records unnoticed",
        set: |client, value| put(&mut client.settings.defaults.producer.acks, acks(value)),
    },
    Setting {
        name: "linger",
        kafka: &["linger.ms"],
        part: Producer,
        default: "0ms",
        meaning: "how long a batch that is not full may wait; with 0 it waits only while others are under way",
        set: |client, value| put(&mut client.settings.defaults.producer.linger, duration(value)),
    },
    Setting {
        name: "batch_bytes",
        kafka: &["batch.size"],
        part: Producer,
        default: "256KiB",
        meaning: "size beyond which a batch does not grow",
        set: |client, value| put(&mut client.settings.defaults.producer.batch_bytes, bytes(value)),
    },
    Setting {
        name: "memory_max",
        kafka: &["buffer.memory"],
        part: Producer,
        default: "64MiB",
        meaning: "all batches together; then `send` waits",
        set: |client, value| put(&mut client.settings.defaults.producer.memory_max, bytes(value)),
    },
    Setting {
        name: "in_flight_bytes_max",
        kafka: &[],
        part: Producer,
        default: "8MiB",
        meaning: "of one partition, not acknowledged yet",
        set: |client, value| put(&mut client.settings.defaults.producer.in_flight_bytes_max, bytes(value)),
    },
    Setting {
        name: "in_flight_batches_max",
        kafka: &["max.in.flight.requests.per.connection"],
        part: Producer,
        default: "64",
        meaning: "of one partition, not acknowledged yet; at most 128",
        set: |client, value| {
            put(
                &mut client.settings.defaults.producer.in_flight_batches_max,
                count(value),
            )
        },
    },
    Setting {
        name: "compression",
        kafka: &["compression.type"],
        part: Producer,
        default: "none",
        meaning: "`none`, `gzip`, `snappy`, `lz4` or `zstd`",
        set: |client, value| {
            let read = value.parse().map_err(|unknown| format!("{unknown}"));
            put(&mut client.settings.defaults.producer.compression, read)
        },
    },
    Setting {
        name: "idempotent",
        kafka: &["enable.idempotence"],
        part: Producer,
        default: "",
        meaning: "whether the broker drops repetitions; `true` unless `acks` is `0`",
        set: |client, value| put(&mut client.settings.defaults.producer.idempotent, flag(value).map(Some)),
    },
    Setting {
        name: "delivery_timeout",
        kafka: &["delivery.timeout.ms"],
        part: Producer,
        default: "2m",
        meaning: "from `send` to the acknowledgement, with all retries",
        set: |client, value| put(&mut client.settings.defaults.producer.delivery_timeout, duration(value)),
    },
    Setting {
        name: "start",
        kafka: &[],
        part: Consumer,
        default: "latest",
        meaning: "where a consumer without a group begins: `earliest` or `latest`",
        set: |client, value| put(&mut client.settings.defaults.start, start(value)),
    },
    Setting {
        name: "offset_reset",
        kafka: &["auto.offset.reset"],
        part: Consumer,
        default: "earliest",
        meaning: "where to go on when a position is out of range, and where a group begins that has committed nothing: `earliest`, \
                  `latest`, or `none` for an error",
        set: |client, value| put(&mut client.settings.defaults.fetch.reset, reset(value)),
    },
    Setting {
        name: "isolation",
        kafka: &["isolation.level"],
        part: Consumer,
        default: "read_uncommitted",
        meaning: "whether records of transactions are seen before these are committed: `read_uncommitted` or `read_committed`",
        set: |client, value| put(&mut client.settings.defaults.fetch.isolation, isolation(value)),
    },
    Setting {
        name: "fetch_bytes_max",
        kafka: &["fetch.max.bytes"],
        part: Consumer,
        default: "8MiB",
        meaning: "of one response",
        set: |client, value| put(&mut client.settings.defaults.fetch.fetch_bytes_max, bytes(value)),
    },
    Setting {
        name: "partition_bytes_max",
        kafka: &["max.partition.fetch.bytes"],
        part: Consumer,
        default: "1MiB",
        meaning: "of one partition in one response",
        set: |client, value| put(&mut client.settings.defaults.fetch.partition_bytes_max, bytes(value)),
    },
    Setting {
        name: "fetch_bytes_min",
        kafka: &["fetch.min.bytes"],
        part: Consumer,
        default: "1",
        meaning: "for which the broker waits, up to `wait_max`",
        set: |client, value| put(&mut client.settings.defaults.fetch.fetch_bytes_min, bytes(value)),
    },
    Setting {
        name: "wait_max",
        kafka: &["fetch.max.wait.ms"],
        part: Consumer,
        default: "500ms",
        meaning: "how long the broker may wait for records",
        set: |client, value| put(&mut client.settings.defaults.fetch.wait_max, duration(value)),
    },
    Setting {
        name: "prefetch_bytes",
        kafka: &[],
        part: Consumer,
        default: "32MiB",
        meaning: "read ahead, over all partitions",
        set: |client, value| put(&mut client.settings.defaults.fetch.prefetch_bytes, bytes(value)),
    },
    Setting {
        name: "check_crcs",
        kafka: &["check.crcs"],
        part: Consumer,
        default: "true",
        meaning: "whether to verify checksums",
        set: |client, value| put(&mut client.settings.defaults.fetch.check_crcs, flag(value)),
    },
    Setting {
        name: "decompressed_bytes_max",
        kafka: &[],
        part: Consumer,
        default: "64MiB",
        meaning: "what the records of one compressed batch may take",
        set: |client, value| put(&mut client.settings.defaults.fetch.decompressed_bytes_max, bytes(value)),
    },
    Setting {
        name: "rack",
        kafka: &["client.rack"],
        part: Consumer,
        default: "",
        meaning: "where the consumer is: it reads from in-sync replicas whose `broker.rack` is the same, where there are any",
        set: |client, value| {
            put(
                &mut client.settings.defaults.fetch.rack,
                text(value).map(|rack| Some(rack.into())),
            )
        },
    },
    Setting {
        name: "group_id",
        kafka: &["group.id"],
        part: Group,
        default: "",
        meaning: "the group, for a program that asks for it: `Client::group_id`",
        set: |client, value| put(&mut client.settings.defaults.group_id, text(value).map(Some)),
    },
    Setting {
        name: "instance_id",
        kafka: &["group.instance.id"],
        part: Group,
        default: "",
        meaning: "makes the consumer a static member",
        set: |client, value| put(&mut client.settings.defaults.group.instance_id, text(value).map(Some)),
    },
    Setting {
        name: "assignor",
        kafka: &["partition.assignment.strategy"],
        part: Group,
        default: "sticky",
        meaning: "how partitions are spread: `sticky`, `range`, `round-robin`, or the names of Kafka's classes for them",
        set: |client, value| put(&mut client.settings.defaults.group.settings.assignor, assignor(value)),
    },
    Setting {
        name: "session_timeout",
        kafka: &["session.timeout.ms"],
        part: Group,
        default: "45s",
        meaning: "how long the group may hear nothing from a consumer",
        set: |client, value| {
            put(
                &mut client.settings.defaults.group.settings.session_timeout,
                duration(value),
            )
        },
    },
    Setting {
        name: "heartbeat_interval",
        kafka: &["heartbeat.interval.ms"],
        part: Group,
        default: "3s",
        meaning: "how often a consumer says that it is there",
        set: |client, value| {
            put(
                &mut client.settings.defaults.group.settings.heartbeat_interval,
                duration(value),
            )
        },
    },
    Setting {
        name: "rebalance_timeout",
        kafka: &["rebalance.timeout.ms"],
        part: Group,
        default: "5m",
        meaning: "how long a rebalance waits for a consumer to join again",
        set: |client, value| {
            put(
                &mut client.settings.defaults.group.settings.rebalance_timeout,
                duration(value),
            )
        },
    },
    Setting {
        name: "max_poll_interval",
        kafka: &["max.poll.interval.ms"],
        part: Group,
        default: "5m",
        meaning: "how long the program may take between two calls for records",
        set: |client, value| {
            put(
                &mut client.settings.defaults.group.settings.max_poll_interval,
                duration(value),
            )
        },
    },
    Setting {
        name: "auto_commit",
        kafka: &["enable.auto.commit"],
        part: Group,
        default: "true",
        meaning: "whether what was processed is committed at an interval and at the end",
        set: |client, value| put(&mut client.settings.defaults.group.commits, flag(value)),
    },
    Setting {
        name: "auto_commit_interval",
        kafka: &["auto.commit.interval.ms"],
        part: Group,
        default: "5s",
        meaning: "that interval",
        set: |client, value| {
            put(
                &mut client.settings.defaults.group.settings.auto_commit,
                duration(value).map(Some),
            )
        },
    },
];
