//! The checks of values: each against its range, then the limits against each other.
//!
//! A rule states which key must change, and names the other key with its value and source, so that the message is
//! enough to mend the configuration.

use std::collections::BTreeSet;

use headwater_engine::disk::BLOCK_SIZE;

use super::{
    ByteSize, ClientAuth, Config, KAFKA_NODES_OF_A_BROKER, Knob, Problem, Role, SaslMechanism, Sources, Value,
};

/// A produce or fetch frame carries a header and a head besides its records; heads are far smaller than this.
const FRAME_OVERHEAD_BYTES: u64 = 4096;

/// A core's budgets hold at least this many of the largest frames, or one client could take all of it.
const FRAMES_PER_CORE_MIN: u64 = 4;

/// A tail buffer that holds fewer of the largest batches or uncovered writes than this would stall on every flush.
const WRITES_PER_TAIL_MIN: u64 = 4;

impl Config {
    /// Everything that is wrong with the values.
    pub(super) fn problems(&self, sources: &Sources) -> Vec<Problem> {
        let mut rules = Rules {
            config: self,
            sources,
            problems: Vec::new(),
        };
        rules.ranges();
        // Rules on values out of range would only repeat what was said.
        if rules.problems.is_empty() {
            rules.addresses_and_cores();
            rules.cluster();
            rules.tls();
            rules.frames_and_memory();
            rules.disk();
            rules.topics();
            rules.groups();
            rules.security();
            rules.http();
            rules.tokens();
        }
        rules.problems
    }
}

impl Config {
    /// What is wrong with `broker.core_port_base` on this many cores.
    pub(crate) fn core_ports_rule(&self, cores: usize) -> Option<String> {
        let first = usize::from(self.broker.core_port_base);
        let last = first + cores - 1;
        let last_max = usize::from(u16::MAX);
        let shared = self.broker.listen.port();
        if first == 0 {
            None
        } else if last > last_max {
            let allowed = (last_max + 1).saturating_sub(cores);
            Some(format!("{cores} cores need as many ports; allowed is up to {allowed}"))
        } else if (first..=last).contains(&usize::from(shared)) {
            Some(format!(
                "the ports {first} to {last} of {cores} cores must not hold the port {shared} of broker.listen"
            ))
        } else {
            None
        }
    }
}

impl Config {
    /// The least that this budget of a core may be, by the limits that it must go with.
    pub(crate) fn core_budget_min(&self, name: &str) -> u64 {
        let frame = self.limits.frame_size_bytes_max.bytes();
        let batch = self.log.batch_size_bytes_max.bytes();
        let uncovered = self.flush.uncovered_bytes_max.bytes();
        match name {
            "cores.connection_bytes_max" | "cores.in_flight_bytes_max" => frame * FRAMES_PER_CORE_MIN,
            "cores.tail_buffer_bytes_max" => batch.max(uncovered) * WRITES_PER_TAIL_MIN,
            _ => 0,
        }
    }
}

struct Rules<'a> {
    config: &'a Config,
    sources: &'a Sources,
    problems: Vec<Problem>,
}

impl Rules<'_> {
    fn ranges(&mut self) {
        for knob in Config::KNOBS {
            if let Some(value) = knob.out_of_range(self.config) {
                let name = knob.name();
                let place = self.sources.of(&name);
                self.problems.push(Problem::OutOfRange {
                    name,
                    value,
                    place,
                    allowed: knob.allowed(self.config),
                });
            }
        }
    }

    fn addresses_and_cores(&mut self) {
        let cores = &self.config.cores;
        if !cores.set.is_empty() && cores.count > 0 && usize::from(cores.count) != cores.set.len() {
            let rule = format!(
                "{} lists {} CPUs; give only one of the two",
                self.named("cores.set"),
                cores.set.len()
            );
            self.conflict("cores.count", rule);
        }
        // With `count` 0 the number of cores is not known here; the checks of the machine look again.
        let count = cores.set.len().max(usize::from(cores.count)).max(1);
        if let Some(rule) = self.config.core_ports_rule(count) {
            self.conflict("broker.core_port_base", rule);
        }
        self.kafka(count);
    }

    fn kafka(&mut self, cores: usize) {
        let Some(listen) = self.config.kafka_listen() else {
            return;
        };
        let kafka = &self.config.kafka;
        if listen == self.config.broker.listen && listen.port() != 0 {
            let rule = format!(
                "{} has this address; a port speaks one protocol",
                self.named("broker.listen")
            );
            self.conflict("kafka.listen", rule);
        }
        let first = usize::from(kafka.core_port_base);
        let ports = first..first + cores;
        if first > 0 && (ports.end > usize::from(u16::MAX) + 1 || ports.contains(&usize::from(listen.port()))) {
            let rule =
                format!("the ports from {first} on of {cores} cores must exist, and not hold that of kafka.listen");
            self.conflict("kafka.core_port_base", rule);
        }
        let id_max = i32::MAX / KAFKA_NODES_OF_A_BROKER;
        if self.config.broker.id.get() > id_max {
            let rule =
                format!("nodes have numbers only up to broker {id_max}; use a lower number, or turn kafka.listen off");
            self.conflict("broker.id", rule);
        }
    }

    fn cluster(&mut self) {
        let Config { broker, cluster, .. } = self.config;
        let members = &cluster.members;
        if !matches!(members.len(), 0 | 1 | 3 | 5) {
            let rule = format!("these are {} members; allowed are 1, 3 or 5", members.len());
            self.conflict("cluster.members", rule);
        }
        if !members.is_empty() && members.address(broker.id).is_none() {
            let rule = format!(
                "{} is not among them; name all members, this one too",
                self.named("broker.id")
            );
            self.conflict("cluster.members", rule);
        }
        let addresses: BTreeSet<String> = members.iter().map(|(_, address)| address.to_string()).collect();
        if addresses.len() < members.len() {
            self.conflict("cluster.members", "each member needs an address of its own".to_owned());
        }
        let named = self.named("cluster.members");
        if members.len() > 1 && cluster.listen.is_none() {
            self.conflict(
                "cluster.listen",
                format!("the others of {named} must reach this one; name an address"),
            );
        }
        if members.is_empty() && cluster.listen.is_some() {
            let rule = format!("{named} names nobody who could call; name this member, and those there are");
            self.conflict("cluster.listen", rule);
        }
        if members.len() > 1 && broker.cluster_id.is_none() {
            self.conflict(
                "broker.cluster_id",
                format!("{named} need the same one; name it on each"),
            );
        }
        if members.len() < 2 && cluster.role == Role::Coordinator {
            self.conflict(
                "cluster.role",
                format!("{named} has no broker to hold anything for; use \"both\""),
            );
        }
    }

    fn tls(&mut self) {
        let Config {
            broker,
            kafka,
            cluster,
            metrics,
            http,
            ..
        } = self.config;
        for (section, certificates, keys) in [
            ("broker", &broker.tls_certificate, &broker.tls_key),
            ("kafka", &kafka.tls_certificate, &kafka.tls_key),
            ("cluster", &cluster.tls_certificate, &cluster.tls_key),
            ("metrics", &metrics.tls_certificate, &metrics.tls_key),
            ("http", &http.tls_certificate, &http.tls_key),
        ] {
            if certificates.len() != keys.len() {
                let named = self.named(&format!("{section}.tls_certificate"));
                let rule = format!("{named}; name one key for each certificate, in the same order");
                self.conflict(&format!("{section}.tls_key"), rule);
            }
        }
        for (section, certificates, cas, auth) in [
            (
                "broker",
                &broker.tls_certificate,
                &broker.tls_client_ca,
                broker.tls_client_auth,
            ),
            (
                "kafka",
                &kafka.tls_certificate,
                &kafka.tls_client_ca,
                kafka.tls_client_auth,
            ),
        ] {
            let key = format!("{section}.tls_client_auth");
            if auth == ClientAuth::None {
                continue;
            }
            if certificates.is_empty() {
                let named = self.named(&format!("{section}.tls_certificate"));
                self.conflict(&key, format!("{named}: without TLS nobody can show a certificate"));
            } else if cas.is_empty() {
                let named = self.named(&format!("{section}.tls_client_ca"));
                self.conflict(&key, format!("{named}; name the CA of the clients' certificates"));
            }
        }
        if cluster.tls_certificate.len() > 1 {
            self.conflict(
                "cluster.tls_certificate",
                "a broker has one certificate for the others".to_owned(),
            );
        }
        if cluster.tls_certificate.is_empty() != cluster.tls_ca.is_empty() {
            let named = self.named("cluster.tls_certificate");
            self.conflict("cluster.tls_ca", format!("{named}; set both, and the key, or neither"));
        }
        if cluster.secret_previous.is_some() && !cluster.secret.is_some() {
            let named = self.named("cluster.secret");
            self.conflict("cluster.secret_previous", format!("{named}; set that one too"));
        }
        // Followers connect to the port of clients.
        let several = cluster.members.len() > 1 && cluster.role == Role::Both;
        if several && cluster.tls_certificate.is_empty() != broker.tls_certificate.is_empty() {
            let named = self.named("broker.tls_certificate");
            let rule =
                format!("{named}, and brokers reach each other on that port too; set TLS on both, or on neither");
            self.conflict("cluster.tls_certificate", rule);
        }
    }

    fn http(&mut self) {
        let http = &self.config.http;
        let body = http.body_bytes_max.bytes();
        self.at_least(
            "http.memory_bytes_max",
            http.memory_bytes_max.bytes(),
            body,
            "http.body_bytes_max",
        );
        if http.streams_max >= http.requests_in_flight_max {
            let named = self.named("http.requests_in_flight_max");
            let rule = format!("{named}, which must be more, or those who wait for records would keep out all others");
            self.conflict("http.streams_max", rule);
        }
        if http.broker_certificate.len() != http.broker_key.len() || http.broker_certificate.len() > 1 {
            let rule = "name one certificate and one key, or neither".to_owned();
            self.conflict("http.broker_certificate", rule);
        }
        if http.broker_ca.len() > 1 {
            self.conflict("http.broker_ca", "name one file; it may hold several CAs".to_owned());
        }
    }

    fn frames_and_memory(&mut self) {
        let Config {
            cores,
            log,
            flush,
            limits,
            ..
        } = self.config;
        let batch = log.batch_size_bytes_max.bytes();
        let frame = limits.frame_size_bytes_max.bytes();
        self.at_least(
            "limits.frame_size_bytes_max",
            frame,
            batch + FRAME_OVERHEAD_BYTES,
            "log.batch_size_bytes_max",
        );
        let in_flight = limits.requests_in_flight_bytes_max.bytes();
        self.at_least(
            "limits.requests_in_flight_bytes_max",
            in_flight,
            frame,
            "limits.frame_size_bytes_max",
        );
        self.at_least(
            "limits.fetch_size_bytes_max",
            limits.fetch_size_bytes_max.bytes(),
            batch,
            "log.batch_size_bytes_max",
        );
        for (name, budget) in [
            ("cores.connection_bytes_max", cores.connection_bytes_max),
            ("cores.in_flight_bytes_max", cores.in_flight_bytes_max),
        ] {
            self.at_least(
                name,
                budget.bytes(),
                self.config.core_budget_min(name),
                "limits.frame_size_bytes_max",
            );
        }
        let tail = cores.tail_buffer_bytes_max.bytes();
        for (name, size) in [
            ("log.batch_size_bytes_max", batch),
            ("flush.uncovered_bytes_max", flush.uncovered_bytes_max.bytes()),
        ] {
            self.at_least("cores.tail_buffer_bytes_max", tail, size * WRITES_PER_TAIL_MIN, name);
        }
    }

    fn disk(&mut self) {
        let log = &self.config.log;
        let batch = log.batch_size_bytes_max.bytes();
        self.at_least(
            "log.segment_size_bytes",
            log.segment_size_bytes.bytes(),
            batch,
            "log.batch_size_bytes_max",
        );
        // Space is reserved in whole blocks of the disk.
        let block = BLOCK_SIZE as u64;
        if !log.prepare_step_bytes_max.bytes().is_multiple_of(block) {
            self.conflict(
                "log.prepare_step_bytes_max",
                format!("allowed are multiples of {}", ByteSize::new(block)),
            );
        }
    }

    fn security(&mut self) {
        let security = &self.config.security;
        if security.authorizer && security.super_users.iter().next().is_none() && !security.admin_password.is_some() {
            self.conflict(
                "security.authorizer",
                "nobody could allow anything to anybody: set security.super_users or security.admin_password"
                    .to_owned(),
            );
        }
    }

    fn tokens(&mut self) {
        let security = &self.config.security;
        if !security.sasl.has(SaslMechanism::OauthBearer) {
            return;
        }
        for (key, is_there) in [
            ("security.token_jwks", security.token_jwks.is_some()),
            ("security.token_issuers", !security.token_issuers.is_empty()),
            ("security.token_audience", !security.token_audience.is_empty()),
        ] {
            if !is_there {
                let named = self.named("security.sasl");
                self.conflict(key, format!("{named}; set it, as tokens are checked by it"));
            }
        }
    }

    fn topics(&mut self) {
        let Config { limits, topics, .. } = self.config;
        let per_topic = u64::from(limits.partitions_per_topic_max);
        self.at_least(
            "limits.partitions_per_topic_max",
            per_topic,
            u64::from(topics.partitions),
            "topics.partitions",
        );
        self.at_least(
            "limits.partitions_max",
            u64::from(limits.partitions_max),
            per_topic,
            "limits.partitions_per_topic_max",
        );
    }

    fn groups(&mut self) {
        let Config { groups, limits, .. } = self.config;
        self.at_least(
            "groups.session_timeout_ms_max",
            groups.session_timeout_ms_max.get(),
            groups.session_timeout_ms_min.get(),
            "groups.session_timeout_ms_min",
        );
        self.at_least(
            "groups.consumer_session_timeout_ms",
            groups.consumer_session_timeout_ms.get(),
            groups.consumer_heartbeat_interval_ms.get(),
            "groups.consumer_heartbeat_interval_ms",
        );
        self.at_least(
            "limits.partitions_per_topic_max",
            limits.partitions_per_topic_max.into(),
            groups.offsets_partitions.into(),
            "groups.offsets_partitions",
        );
        let metadata = groups.metadata_bytes_max.bytes();
        self.at_least(
            "limits.frame_size_bytes_max",
            limits.frame_size_bytes_max.bytes(),
            metadata + FRAME_OVERHEAD_BYTES,
            "groups.metadata_bytes_max",
        );
    }

    /// `name` must be at least `min`, which follows from the value of `other`.
    fn at_least(&mut self, name: &str, value: u64, min: u64, other: &str) {
        if value < min {
            let min = self.value(name).show_magnitude(min);
            let rule = format!("{} needs at least {min}", self.named(other));
            self.conflict(name, rule);
        }
    }

    fn conflict(&mut self, name: &str, rule: String) {
        let value = self.value(name).show();
        self.problems.push(Problem::Conflict {
            name: name.to_owned(),
            value,
            place: self.sources.of(name),
            rule,
        });
    }

    /// `name = value (from source)`, for the other key of a rule.
    fn named(&self, name: &str) -> String {
        format!("{name} = {} (from {})", self.value(name).show(), self.sources.of(name))
    }

    fn value(&self, name: &str) -> &dyn Value {
        Config::KNOBS
            .iter()
            .find(|knob| knob.name() == name)
            .map(|knob: &Knob| knob.value(self.config))
            .expect("rules name keys that exist: a test breaks each rule")
    }
}
