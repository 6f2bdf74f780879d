//! TLS: which ports have it, and whether its files are as clients want them.

use crate::{
    check::{
        facts::{Facts, TlsFacts},
        finding::Finding,
    },
    config::{Config, HttpAddress, PeerListen},
    tls::{Port, Tls, Wanted, look},
};

impl TlsFacts {
    pub(in crate::check) fn look(config: &Config) -> TlsFacts {
        let ports = [Port::Native, Port::Kafka, Port::Peers, Port::Metrics, Port::Http];
        let wanted = ports.into_iter().filter_map(|port| Wanted::of(config, port));
        let pairs = wanted.flat_map(|wanted| wanted.pairs().collect::<Vec<_>>());
        let mut wrong: Vec<String> = pairs.flat_map(|(certificate, key)| look(&certificate, &key)).collect();
        wrong.dedup();
        TlsFacts {
            unusable: Tls::read(config).err().map(|error| error.to_string()),
            wrong,
        }
    }
}

pub(in crate::check) fn tls(facts: &Facts, config: &Config) -> Finding {
    let open = open_ports(config);
    let value = match (open.as_slice(), ports_with_tls(config).as_slice()) {
        ([], []) => "none, and no other machine reaches a port".to_owned(),
        ([], with) => format!("on {}", with.join(", ")),
        (open, []) => format!("none, and others reach {}", open.join(", ")),
        (open, with) => format!("on {}; others reach {}", with.join(", "), open.join(", ")),
    };
    let finding = Finding::new(value, "on every port that others reach");
    if let Some(unusable) = &facts.tls.unusable {
        return finding
            .forbids(format!(
                "What the settings of TLS and of secrets name cannot be used: {unusable}"
            ))
            .advice("give the files that the setting names");
    }
    if let [first, others @ ..] = facts.tls.wrong.as_slice() {
        let more = match others.len() {
            0 => String::new(),
            _ => format!(". Also: {}", others.join(". Also: ")),
        };
        return finding
            .must(format!("Of the files of TLS: {first}{more}"))
            .advice("see \"Make it safe\" in docs/operate.md");
    }
    // What is open is an item of its own.
    finding
}

/// Where each port is listened to, and whether that is with TLS.
pub(super) fn ports(config: &Config) -> impl Iterator<Item = (Port, std::net::SocketAddr)> {
    let addresses = [
        (Port::Native, Some(config.broker.listen)),
        (Port::Kafka, config.kafka_listen()),
        (Port::Peers, config.cluster.listen.map(PeerListen::get)),
        (Port::Metrics, config.metrics.listen.map(HttpAddress::get)),
        (Port::Http, config.http.listen.map(HttpAddress::get)),
    ];
    addresses
        .into_iter()
        .filter_map(|(port, address)| Some((port, address?)))
}

fn ports_with_tls(config: &Config) -> Vec<String> {
    let with = ports(config).filter(|(port, _)| Wanted::of(config, *port).is_some());
    with.map(|(port, _)| format!("{}.listen", port.section())).collect()
}

fn open_ports(config: &Config) -> Vec<String> {
    let open =
        ports(config).filter(|(port, address)| !address.ip().is_loopback() && Wanted::of(config, *port).is_none());
    open.map(|(port, address)| format!("{}.listen ({address})", port.section()))
        .collect()
}
