//! What a service is told.

use std::{path::PathBuf, time::Duration};

use headwater_client::SaslMechanism;

use crate::console::MetricsText;

/// How brokers are reached, who may come, and how much of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The identity of the cluster.
    pub cluster_id: String,
    /// Where to find the cluster, `host:port` each.
    pub bootstrap: Vec<String>,
    /// How callers prove to brokers who they are; `None` where brokers ask nobody.
    pub mechanism: Option<SaslMechanism>,
    /// Where brokers show certificates.
    pub broker_tls: Option<BrokerTls>,
    /// Only this machine can connect: then nobody has reason to call it by a name that is not this machine's.
    pub is_local: bool,
    /// Origins of web pages whose scripts may use REST.
    pub allowed_origins: Vec<String>,
    /// Whether the console may change anything; it only shows otherwise.
    pub console_writes: bool,
    /// The metrics of the broker that this is a part of, for the console's charts.
    pub metrics: Option<MetricsText>,
    /// How much of everything.
    pub limits: Limits,
}

/// TLS towards brokers.
#[derive(Debug, Clone, Default)]
pub struct BrokerTls {
    /// PEM file of the CAs that are trusted; those of the system otherwise.
    pub ca: Option<PathBuf>,
    /// PEM files of the certificate that is shown, and of its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// How much callers may have.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at one time.
    pub connections: usize,
    /// Requests that are not answered yet.
    pub requests: usize,
    /// How long one may take, but for waiting for records.
    pub request_time: Duration,
    /// Bytes in the body of one.
    pub body_bytes: usize,
    /// Bytes of all bodies.
    pub memory_bytes: usize,
    /// Streams, and requests that wait for records.
    pub streams: usize,
    /// Members of groups that are kept between requests.
    pub consumers: usize,
    /// So long one is kept that is not asked for anything.
    pub consumer_idle: Duration,
    /// Users with connections of their own.
    pub users: usize,
    /// Answers that are kept for requests that may be repeated.
    pub idempotency_keys: usize,
    /// So long each is kept.
    pub idempotency_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            requests: 256,
            request_time: Duration::from_secs(30),
            body_bytes: 8 << 20,
            memory_bytes: 64 << 20,
            streams: 128,
            consumers: 256,
            consumer_idle: Duration::from_mins(5),
            users: 64,
            idempotency_keys: 10_000,
            idempotency_time: Duration::from_mins(10),
        }
    }
}
