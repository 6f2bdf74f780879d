//! Names of Kafka's clients that have no meaning here, and what to do instead.

/// Names, those that end with a dot standing for all that begin so, and what takes their place.
pub(super) const FOREIGN: &[(&[&str], &str)] = &[
    (
        &[
            "key.serializer",
            "value.serializer",
            "key.deserializer",
            "value.deserializer",
        ],
        "records are bytes: encode and decode them in the program",
    ),
    (
        &["retries", "retry.backoff.jitter"],
        "a producer tries again until delivery.timeout.ms is over, with growing pauses (retry.backoff.ms)",
    ),
    (
        &[
            "reconnect.backoff.ms",
            "reconnect.backoff.max.ms",
            "socket.connection.setup.timeout.max.ms",
        ],
        "the pauses between attempts to connect are those of retry.backoff.ms and retry.backoff.max.ms",
    ),
    (
        &["max.block.ms"],
        "send waits for memory for as long as delivery.timeout.ms says",
    ),
    (
        &["max.request.size", "message.max.bytes"],
        "how large a record may be is the topic's max.message.bytes, which a producer learns from the broker",
    ),
    (
        &["max.poll.records"],
        "the program says with each call how many records it takes: recv_many",
    ),
    (
        &["send.buffer.bytes", "receive.buffer.bytes"],
        "the system sizes the buffers of sockets",
    ),
    (&["connections.max.idle.ms"], "connections stay open"),
    (
        &[
            "partitioner.class",
            "partitioner.ignore.keys",
            "partitioner.adaptive.partitioning.enable",
            "partitioner.availability.timeout.ms",
        ],
        "a partitioner is chosen in the program: ProducerBuilder::partitioner",
    ),
    (
        &[
            "security.protocol",
            "security.providers",
            "ssl.keystore.",
            "ssl.truststore.",
            "ssl.protocol",
            "ssl.enabled.protocols",
            "ssl.provider",
            "ssl.providers",
            "ssl.cipher.suites",
            "ssl.endpoint.identification.algorithm",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.certificate.pem",
            "ssl.ca.pem",
            "ssl.crl.location",
            "ssl.engine.",
            "ssl.keymanager.algorithm",
            "ssl.trustmanager.algorithm",
            "ssl.secure.random.implementation",
            "ssl.curves.list",
            "ssl.sigalgs.list",
        ],
        "connections are encrypted by `tls`, with PEM files: `tls_ca`, `tls_certificate`, `tls_key`",
    ),
    (
        &[
            "sasl.jaas.config",
            "sasl.client.callback.handler.class",
            "sasl.kerberos.",
            "sasl.login.",
            "sasl.oauthbearer.",
        ],
        "a user and a password are given by sasl.username and sasl.password, or a client shows who it is by a token, `token_file`, or a certificate, `tls_certificate`",
    ),
    (
        &["transactional.id", "transaction.timeout.ms"],
        "producers have no transactions",
    ),
    (
        &[
            "metric.reporters",
            "metrics.",
            "enable.metrics.push",
            "auto.include.jmx.reporter",
            "statistics.interval.ms",
        ],
        "look at Producer::statistics and Client::statistics, as often as you like",
    ),
    (
        &["interceptor.classes"],
        "wrap the calls, or be told of the end of records: ProducerBuilder::on_delivery",
    ),
    (
        &["allow.auto.create.topics"],
        "topics are created by Admin::create_topic only",
    ),
    (&["exclude.internal.topics"], "patterns never mean internal topics"),
    (
        &[
            "client.dns.lookup",
            "group.protocol",
            "group.remote.assignor",
            "metadata.max.idle.ms",
            "metadata.recovery.strategy",
        ],
        "there is nothing to choose here",
    ),
];

/// Whether one of the names is the `wanted` one, which is in its normal form.
pub(super) fn matches(names: &[&str], wanted: &str) -> bool {
    names.iter().any(|name| {
        let known = super::normal(name);
        if name.ends_with('.') {
            wanted.starts_with(&known)
        } else {
            wanted == known
        }
    })
}
