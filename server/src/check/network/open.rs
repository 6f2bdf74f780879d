//! What is open to others that should not be: one table of it, for the start and for `headwater-server check`. `docs/security.md` lists the
//! codes; a test compares the two.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use serde::Serialize;

use super::tls::ports;
use crate::{
    check::{
        facts::{Facts, OpenFacts, SecretFile},
        finding::Finding,
    },
    config::{AuditLevel, Config, SaslMechanism},
    machine,
    tls::{Port, Tls, Wanted},
};

/// A certificate that ends sooner than this is to be renewed, in seconds.
const RENEW_BEFORE: i64 = 30 * 24 * 60 * 60;

/// Something that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Open {
    /// What kind of opening it is; it stays the same from version to version.
    pub code: &'static str,
    /// What is open, a clause.
    pub what: String,
    /// What to do, a clause in the imperative.
    pub remedy: String,
}

impl Open {
    /// Whether it gives secrets away, or clients are about to be turned away: the rest may be meant so.
    pub(in crate::check) fn is_urgent(&self) -> bool {
        matches!(
            self.code,
            "plain-password" | "plain-token" | "file-readable" | "file-owner" | "certificate-expired"
        )
    }
}

impl OpenFacts {
    pub(in crate::check) fn look(config: &Config) -> OpenFacts {
        let security = &config.security;
        let (cluster, admin) = (&config.cluster, &security.admin_password);
        let places = [
            ("security.admin_password", admin),
            ("cluster.secret", &cluster.secret),
            ("cluster.secret_previous", &cluster.secret_previous),
        ];
        let secrets = places
            .into_iter()
            .filter_map(|(key, place)| Some((key.to_owned(), place.file()?.to_owned())));
        let all = [Port::Native, Port::Kafka, Port::Peers, Port::Metrics, Port::Http];
        let keys = all
            .into_iter()
            .filter_map(|port| Wanted::of(config, port))
            .flat_map(|wanted| {
                let setting = wanted.key("tls_key");
                let pairs: Vec<_> = wanted.pairs().map(|(_, key)| (setting.clone(), key)).collect();
                pairs
            });
        let mut files: Vec<SecretFile> = secrets.chain(keys).filter_map(SecretFile::look).collect();
        files.dedup_by(|one, other| one.path == other.path);
        OpenFacts {
            unreadable: admin.fetch().err(),
            files,
            user: rustix::process::geteuid().as_raw(),
            expiries: Tls::read(config).map(|tls| tls.expiries()).unwrap_or_default(),
            now: machine::wall().get() / 1000,
        }
    }
}

impl SecretFile {
    fn look((key, path): (String, PathBuf)) -> Option<SecretFile> {
        let look = std::fs::metadata(&path).ok()?;
        Some(SecretFile {
            key,
            path,
            mode: look.mode() & 0o7777,
            owner: look.uid(),
        })
    }
}

/// The item of it.
pub(in crate::check) fn item(facts: &Facts, config: &Config) -> Finding {
    let open = open(&facts.open, config);
    let codes: Vec<&str> = open.iter().map(|open| open.code).collect();
    let value = if codes.is_empty() {
        "nothing".to_owned()
    } else {
        codes.join(", ")
    };
    let finding = Finding::new(value, "nothing");
    if let Some(why) = &facts.open.unreadable {
        return finding
            .forbids(format!("security.admin_password cannot be read: {why}"))
            .advice("put the password there, or set security.admin_password to none");
    }
    let Some(first) = open.iter().find(|open| open.is_urgent()).or(open.first()) else {
        return finding;
    };
    let why = match open.len() - 1 {
        0 => first.what.clone(),
        others => format!("{}, and {others} more of what is open", first.what),
    };
    let finding = if first.is_urgent() {
        finding.must(why)
    } else {
        finding.better(why)
    };
    finding.advice(first.remedy.clone())
}

/// All that is open.
pub(in crate::check) fn open(facts: &OpenFacts, config: &Config) -> Vec<Open> {
    let mut all = of_ports(config);
    all.extend(of_files(facts));
    all.extend(of_certificates(facts));
    all
}

fn of_ports(config: &Config) -> Vec<Open> {
    let mut open = Vec::new();
    let mut say = |code, what: String, remedy: &str| {
        open.push(Open {
            code,
            what,
            remedy: remedy.to_owned(),
        });
    };
    let security = &config.security;
    let asks_by_sasl = !security.sasl.is_empty();
    let sends_passwords = security.plain_without_tls && security.sasl.has(SaslMechanism::Plain);
    let mut clients_come = false;
    for (port, address) in ports(config).filter(|(_, address)| !address.ip().is_loopback()) {
        let wanted = Wanted::of(config, port);
        let (is_encrypted, asks_by_certificate) = (wanted.is_some(), wanted.is_some_and(|wanted| wanted.asks()));
        let section = port.section();
        let shown = format!("{section}.listen ({address})");
        if !is_encrypted {
            say(
                "no-tls",
                format!("what passes over {shown} can be read and changed by whoever is between"),
                &format!("set {section}.tls_certificate and {section}.tls_key, as docs/operate.md says"),
            );
        }
        match port {
            Port::Native | Port::Kafka | Port::Http => {
                clients_come = true;
                if !asks_by_sasl && !asks_by_certificate {
                    let certificates = if port == Port::Http {
                        "http.tls_client_ca".to_owned()
                    } else {
                        format!("{section}.tls_client_auth to required")
                    };
                    say(
                        "nobody-asked",
                        format!("whoever reaches {shown} is let in, and is not asked who it is"),
                        &format!("set security.sasl, or {certificates}"),
                    );
                }
                if !is_encrypted && port != Port::Http && security.sasl.has(SaslMechanism::OauthBearer) {
                    say(
                        "plain-token",
                        format!(
                            "clients send their tokens as they are over {shown}, and whoever hears one can show it too"
                        ),
                        &format!("set {section}.tls_certificate and {section}.tls_key"),
                    );
                }
                if !is_encrypted && port == Port::Http && asks_by_sasl {
                    say(
                        "plain-password",
                        format!("clients send their passwords as they are over {shown}"),
                        "set http.tls_certificate and http.tls_key",
                    );
                } else if !is_encrypted && sends_passwords {
                    say(
                        "plain-password",
                        format!("clients may send their passwords as they are over {shown}"),
                        "set security.plain_without_tls to false, or TLS on this port",
                    );
                }
            }
            Port::Peers if !is_encrypted && !config.cluster.secret.is_some() => say(
                "open-peers",
                format!("whoever reaches {shown}, or the ports of brokers, may say that it is a broker"),
                "set cluster.secret, cluster.tls_certificate or both, the same way on every broker",
            ),
            Port::Metrics if !asks_by_certificate => say(
                "open-http",
                format!("whoever reaches {shown} may read names of topics and groups, and figures"),
                "set metrics.tls_client_ca, or let it listen to this machine only",
            ),
            Port::Peers | Port::Metrics => {}
        }
    }
    if security.audit != AuditLevel::Off && !security.authorizer {
        say(
            "audit-of-nothing",
            "nothing is decided, and nothing written down: security.audit is on, and security.authorizer off"
                .to_owned(),
            "set security.authorizer, or security.audit to off",
        );
    }
    if clients_come && !security.authorizer {
        say(
            "no-authorizer",
            "whoever is let in may do everything".to_owned(),
            "set security.authorizer, and rules for those who need any, as docs/security.md says",
        );
    }
    open
}

fn of_files(facts: &OpenFacts) -> impl Iterator<Item = Open> {
    facts.files.iter().flat_map(|file| {
        let SecretFile { key, path, mode, owner } = file;
        let path = path.display();
        let readable = (mode & 0o077 != 0).then(|| Open {
            code: "file-readable",
            what: format!("others than its owner may use {path} ({key}, mode {mode:03o})"),
            remedy: format!("run `chmod 600 {path}`"),
        });
        // What root owns nobody else changes.
        let foreign = ![facts.user, 0].contains(owner);
        let foreign = foreign.then(|| Open {
            code: "file-owner",
            what: format!("{path} ({key}) belongs to user {owner}, who can read and change it"),
            remedy: format!("run `chown {} {path}` as root", facts.user),
        });
        readable.into_iter().chain(foreign)
    })
}

fn of_certificates(facts: &OpenFacts) -> impl Iterator<Item = Open> {
    facts.expiries.iter().filter_map(|(section, not_after)| {
        let left = not_after - facts.now;
        let what = match left {
            ..=0 => "has expired, and clients refuse it".to_owned(),
            1..=RENEW_BEFORE => format!("expires in {} days", left / (24 * 60 * 60)),
            _ => return None,
        };
        Some(Open {
            code: if left <= 0 {
                "certificate-expired"
            } else {
                "certificate-expires"
            },
            what: format!("a certificate of {section}.tls_certificate {what}"),
            remedy: "get another of its CA, and put it into the same file: it is read again".to_owned(),
        })
    })
}

/// The codes that there are.
#[cfg(test)]
pub(in crate::check) const CODES: &[&str] = &[
    "no-tls",
    "nobody-asked",
    "no-authorizer",
    "audit-of-nothing",
    "plain-password",
    "plain-token",
    "open-peers",
    "open-http",
    "file-readable",
    "file-owner",
    "certificate-expired",
    "certificate-expires",
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::SocketAddr, path::Path};

    use super::*;
    use crate::config::{HttpAddress, KafkaListen, PeerListen, SaslMechanisms, SecretPlace, Value as _};

    fn codes(facts: &OpenFacts, change: impl FnOnce(&mut Config)) -> Vec<&'static str> {
        let mut config = Config::default();
        change(&mut config);
        let open = open(facts, &config);
        for Open { what, remedy, .. } in &open {
            assert!(!what.ends_with('.') && !remedy.ends_with('.'), "{what}: {remedy}");
        }
        open.iter().map(|open| open.code).collect()
    }

    fn everywhere(port: u16) -> SocketAddr {
        ([0, 0, 0, 0], port).into()
    }

    /// The ports of clients.
    fn reached(config: &mut Config) {
        config.broker.listen = everywhere(9292);
        config.kafka.listen = KafkaListen::default();
        config.kafka.listen.read("off").unwrap();
    }

    fn offers(config: &mut Config, mechanisms: &str) {
        let mut sasl = SaslMechanisms::default();
        sasl.read(mechanisms).unwrap();
        config.security.sasl = sasl;
    }

    #[test]
    fn each_opening_is_named_and_nothing_else() {
        let none = OpenFacts::default();
        assert_eq!(codes(&none, |_| {}), [] as [&str; 0]);
        assert_eq!(codes(&none, reached), ["no-tls", "nobody-asked", "no-authorizer"]);
        let asked = |config: &mut Config| {
            reached(config);
            offers(config, "SCRAM-SHA-256,PLAIN");
            config.security.authorizer = true;
        };
        assert_eq!(codes(&none, asked), ["no-tls"]);
        let plain = |config: &mut Config| {
            asked(config);
            config.security.plain_without_tls = true;
        };
        assert_eq!(codes(&none, plain), ["no-tls", "plain-password"]);
        let tokens = |config: &mut Config| {
            asked(config);
            offers(config, "OAUTHBEARER");
        };
        assert_eq!(codes(&none, tokens), ["no-tls", "plain-token"]);
        let secure = |config: &mut Config| {
            plain(config);
            config.broker.tls_certificate.read("c.pem").unwrap();
            config.broker.tls_key.read("c.key").unwrap();
        };
        assert_eq!(codes(&none, secure), [] as [&str; 0]);
        let peers = |config: &mut Config| {
            let mut listen = PeerListen::default();
            listen.read("10.0.0.1:9293").unwrap();
            config.cluster.listen = Some(listen);
        };
        assert_eq!(codes(&none, peers), ["no-tls", "open-peers"]);
        let with_secret = |config: &mut Config| {
            peers(config);
            config.cluster.secret = SecretPlace::Environment("SECRET".to_owned());
        };
        assert_eq!(codes(&none, with_secret), ["no-tls"]);
        let http = |config: &mut Config| config.metrics.listen = Some(HttpAddress::new(everywhere(9644)));
        assert_eq!(codes(&none, http), ["no-tls", "open-http"]);
    }

    #[test]
    fn files_of_secrets_are_for_the_broker_alone_and_certificates_end() {
        let file = |mode, owner| OpenFacts {
            files: vec![SecretFile {
                key: "cluster.secret".to_owned(),
                path: Path::new("/etc/s").to_owned(),
                mode,
                owner,
            }],
            user: 1000,
            ..OpenFacts::default()
        };
        assert_eq!(codes(&file(0o600, 1000), |_| {}), [] as [&str; 0]);
        assert_eq!(codes(&file(0o400, 0), |_| {}), [] as [&str; 0]);
        assert_eq!(codes(&file(0o640, 1000), |_| {}), ["file-readable"]);
        assert_eq!(codes(&file(0o600, 1001), |_| {}), ["file-owner"]);
        let ends = |not_after| OpenFacts {
            expiries: vec![("broker", not_after)],
            now: 1_000_000_000,
            ..OpenFacts::default()
        };
        assert_eq!(codes(&ends(1_000_000_000), |_| {}), ["certificate-expired"]);
        assert_eq!(codes(&ends(1_000_100_000), |_| {}), ["certificate-expires"]);
        assert_eq!(codes(&ends(1_100_000_000), |_| {}), [] as [&str; 0]);
    }

    #[test]
    fn the_page_lists_the_codes_that_there_are() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md");
        let page = std::fs::read_to_string(page).unwrap();
        let section = page.split("## What is open\n").nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let listed: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        assert_eq!(listed, CODES.iter().copied().collect());
    }
}
