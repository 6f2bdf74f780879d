//! Kafka's clients, as they are: each runs its scenario (`tests/clients`) against one broker, and against three of which one is
//! killed while it produces. A scenario is its own judge, and says which of its steps failed.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use headwater_client::{Acl, AclOperation, AclPattern, AclPermission, AclResource};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::support::{Authority, Cluster, Issuer, Site, await_list, run_within};

/// The folder that `tests/clients/install` has made, from the root of the workspace.
const FOLDER: &str = "HEADWATER_CLIENTS";
/// A scenario ends by itself before this.
const LIMIT: Duration = Duration::from_secs(90);
/// Those that share topics in groups of the newer protocol (KIP-848) with `GROUP_PROTOCOL=consumer`.
const NEWER_GROUPS: &[&str] = &["confluent-kafka-python", "java"];
const LOOK: Duration = Duration::from_millis(20);
/// Clients that run at the same time.
const AT_ONCE: usize = 4;
/// The programs that documents show: they are small, and do not wait for a broker to be killed.
const QUICKSTART: &str = "quickstart";
/// Programs that come in over TLS: they need a broker that lets nobody else in.
const SECURE: &str = "secure";

#[test]
fn the_programs_that_documents_show_are_those_that_are_run() {
    let shown = [
        include_str!("../../../README.md"),
        include_str!("../../../docs/languages.md"),
    ]
    .concat();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(QUICKSTART);
    let mut programs = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let Some(extension) = path.extension().and_then(OsStr::to_str) else {
            continue;
        };
        let language = if extension == "py" { "python" } else { extension };
        let name = path.file_name().unwrap().display();
        let block = shown.split_once(&format!("```{language} {name}\n"));
        let (program, _) = block
            .and_then(|(_, rest)| rest.split_once("```"))
            .unwrap_or_else(|| panic!("nothing shows {name}"));
        assert_eq!(program, fs::read_to_string(&path).unwrap(), "{name}");
        programs += 1;
    }
    assert!(programs > 0);
}

#[test]
fn kafkas_clients_work_with_one_broker() {
    let Some(clients) = Client::installed("kafkas_clients_work_with_one_broker") else {
        return;
    };
    let limit = LIMIT * (1 + u32::try_from(clients.len().div_ceil(AT_ONCE)).unwrap());
    run_within(limit, async {
        let site = site();
        let _broker = site.start();
        let bootstrap = kafka_address(&site);
        // Some at once, each with topics and groups of its own: all would be slower than what they allow a broker.
        for clients in clients.chunks(AT_ONCE) {
            let start = |client: &Client| Scenario::start(client, &bootstrap, &[]);
            let scenarios: Vec<Scenario> = clients.iter().map(start).collect();
            for scenario in scenarios {
                scenario.succeeds().await;
            }
        }
    });
    say(&clients, "one broker");
}

#[test]
fn kafkas_clients_share_topics_in_groups_of_the_newer_protocol() {
    let Some(mut clients) = Client::installed("kafkas_clients_share_topics_in_groups_of_the_newer_protocol") else {
        return;
    };
    clients.retain(|client| NEWER_GROUPS.contains(&client.name.as_str()));
    run_within(2 * LIMIT, async {
        let site = site();
        let _broker = site.start();
        let bootstrap = kafka_address(&site);
        let environment = [("GROUP_PROTOCOL", "consumer".to_owned())];
        let start = |client: &Client| Scenario::start(client, &bootstrap, &environment);
        let scenarios: Vec<Scenario> = clients.iter().map(start).collect();
        for scenario in scenarios {
            scenario.succeeds().await;
        }
    });
    say(&clients, "one broker, in groups of the newer protocol");
}

#[test]
fn kafkas_clients_work_with_three_brokers_of_which_one_is_killed() {
    let Some(mut clients) = Client::installed("kafkas_clients_work_with_three_brokers_of_which_one_is_killed") else {
        return;
    };
    clients.retain(|client| client.name != QUICKSTART);
    let (some, others) = clients.split_at(clients.len() / 2);
    let limit = LIMIT * (1 + u32::try_from(others.len()).unwrap());
    run_within(limit, async {
        tokio::join!(lose_a_broker_each(some), lose_a_broker_each(others));
    });
    say(&clients, "three brokers, of which one was killed for each");
}

#[test]
fn kafkas_clients_come_in_over_tls_with_a_password_or_a_token() {
    let test = "kafkas_clients_come_in_over_tls_with_a_password_or_a_token";
    let Some(all) = Client::all(test) else { return };
    let Some(secure) = all.into_iter().find(|client| client.name == SECURE) else {
        tell(&format!("{test} is SKIPPED: {SECURE} is not installed"));
        return;
    };
    run_within(2 * LIMIT, async {
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = |name: &str| temporary.path().join(name).display().to_string();
        let (password, issuer) = ("a-password-of-some-length", Issuer::new());
        fs::write(path("admin"), password).unwrap();
        fs::write(path("jwks"), issuer.keys()).unwrap();
        fs::write(path("token"), issuer.token("robot", "headwater", 600)).unwrap();
        let site = site();
        let authority = Authority::new(&temporary.path().join("ca"), "Test CA");
        let shown = authority.issue("broker", &[&site.address().ip().to_string()]);
        let site = site
            .set("kafka.tls_certificate", shown.certificate())
            .set("kafka.tls_key", shown.key())
            .set("security.sasl", "SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER")
            .set("security.authorizer", "true")
            .set("security.admin_password", &format!("file:{}", path("admin")))
            .set("security.token_jwks", &format!("file:{}", path("jwks")))
            .set("security.token_issuers", Issuer::NAME)
            .set("security.token_audience", "headwater");
        let _broker = site.start();
        let builder = headwater_client::Client::builder().bootstrap([site.address().to_string()]);
        let admin = builder.user("admin", password).build().await.unwrap().admin();
        admin.set_user("alice", password, None).await.unwrap();
        let may_all = |user: &str, resource| Acl {
            resource,
            pattern: AclPattern::Prefixed,
            name: SECURE.to_owned(),
            principal: format!("User:{user}"),
            host: "*".to_owned(),
            operation: AclOperation::All,
            permission: AclPermission::Allow,
        };
        let users = ["alice", "robot"].into_iter();
        let of_all = users.flat_map(|user| [AclResource::Topic, AclResource::Group].map(|kind| may_all(user, kind)));
        admin.create_acls(&of_all.collect::<Vec<Acl>>()).await.unwrap();
        let environment = [
            ("TLS_CA", authority.file().display().to_string()),
            ("SASL_USER", "alice".to_owned()),
            ("SASL_PASSWORD", password.to_owned()),
            ("TOKEN_FILE", path("token")),
        ];
        let scenario = Scenario::start(&secure, &kafka_address(&site), &environment);
        scenario.succeeds().await;
    });
}

/// One after the other, as each has a broker killed in the middle of what it produces.
async fn lose_a_broker_each(clients: &[Client]) {
    let mut cluster = Cluster::of([site(), site(), site()]);
    for (number, client) in clients.iter().enumerate() {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let signal = directory.path().join("now");
        let environment = [
            ("REPLICAS", "3".to_owned()),
            ("FAILOVER_FILE", signal.display().to_string()),
        ];
        let mut scenario = Scenario::start(client, &bootstrap(&cluster.sites), &environment);
        let victim = number % 3;
        scenario.await_so("it produces", |_| signal.exists()).await;
        cluster.kill(victim);
        // It goes on without that broker until it has produced everything.
        let before = scenario.steps();
        scenario
            .await_so("it has produced", |scenario| scenario.steps() > before)
            .await;
        cluster.start_one(victim);
        scenario.succeeds().await;
        let client = cluster.client().await;
        await_list(&client, "all are there and in sync", |list| {
            list.under_replicated == 0 && list.brokers.iter().filter(|broker| !broker.is_fenced).count() == 3
        })
        .await;
    }
}

/// Speaks Kafka's protocol, on ports that are the same after a restart, and makes topics as the clients do that cannot ask for partitions.
fn site() -> Site {
    let site = Site::new();
    let address = kafka_address(&site);
    site.set("kafka.listen", &address)
        .set("kafka.core_port_base", "9400")
        .set("topics.partitions", "3")
        // A member that was killed is given up, and partitions move, as soon as in groups of the classic protocol.
        .set("groups.consumer_session_timeout_ms", "6s")
        .set("groups.consumer_heartbeat_interval_ms", "500ms")
}

fn kafka_address(site: &Site) -> String {
    format!("{}:9092", site.address().ip())
}

fn bootstrap(sites: &[Site]) -> String {
    let addresses: Vec<String> = sites.iter().map(kafka_address).collect();
    addresses.join(",")
}

/// Tells past the harness, which would keep it to itself.
fn tell(line: &str) {
    // Nobody may be listening.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn say(clients: &[Client], what: &str) {
    let names: Vec<&str> = clients.iter().map(|client| client.name.as_str()).collect();
    tell(&format!(
        "{} of Kafka's clients ran against {what}: {}",
        names.len(),
        names.join(", ")
    ));
}

/// One that is installed.
struct Client {
    name: String,
    program: PathBuf,
}

impl Client {
    /// All that work with a broker that asks nobody who it is; nothing if this test is not wanted here.
    fn installed(test: &str) -> Option<Vec<Client>> {
        let mut clients = Client::all(test)?;
        clients.retain(|client| client.name != SECURE);
        Some(clients)
    }

    /// All that there are.
    fn all(test: &str) -> Option<Vec<Client>> {
        let Some(folder) = std::env::var_os(FOLDER) else {
            tell(&format!(
                "{test} is SKIPPED: {FOLDER} is not set: server/tests/clients/README.md says how to install the clients"
            ));
            return None;
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let clients = entries.map(|entry| {
            let entry = entry.unwrap();
            Client {
                name: entry.file_name().into_string().unwrap(),
                program: entry.path().join("run"),
            }
        });
        let mut clients: Vec<Client> = clients.filter(|client| client.program.exists()).collect();
        clients.sort_by(|one, other| one.name.cmp(&other.name));
        assert!(!clients.is_empty(), "no client is installed in {}", folder.display());
        Some(clients)
    }
}

/// A client at work. It is killed when it is dropped, with all that it has started.
struct Scenario {
    name: String,
    process: Child,
    started: Instant,
    /// What it says is in there.
    directory: TempDir,
}

impl Scenario {
    fn start(client: &Client, bootstrap: &str, environment: &[(&str, String)]) -> Scenario {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let file = |name: &str| Stdio::from(File::create(directory.path().join(name)).unwrap());
        let mut command = Command::new(&client.program);
        command.args([bootstrap, &client.name]).stdin(Stdio::null());
        command.stdout(file("stdout")).stderr(file("stderr")).process_group(0);
        // A developer's own must not have a broker killed that nobody kills.
        command.env_remove("REPLICAS").env_remove("FAILOVER_FILE");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let process = command.spawn();
        Scenario {
            name: client.name.clone(),
            process: process.unwrap_or_else(|error| panic!("{}: {error}", client.program.display())),
            started: Instant::now(),
            directory,
        }
    }

    fn said(&self, name: &str) -> String {
        let said = fs::read(self.directory.path().join(name)).unwrap();
        String::from_utf8_lossy(&said).into_owned()
    }

    /// How many of its steps have ended.
    fn steps(&self) -> usize {
        self.said("stdout").lines().count()
    }

    async fn await_so(&mut self, what: &str, is_so: impl Fn(&Scenario) -> bool) {
        while !is_so(self) {
            if let Some(status) = self.process.try_wait().unwrap() {
                self.fail(&format!("has ended ({status}) before {what}"));
            }
            self.look_later(what).await;
        }
    }

    async fn succeeds(mut self) {
        let status: ExitStatus = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            self.look_later("it ends").await;
        };
        if !status.success() || self.steps() == 0 {
            self.fail(&format!("has failed ({status})"));
        }
        for line in self.said("stdout").lines().filter(|line| line.starts_with("!!!")) {
            tell(line);
        }
    }

    async fn look_later(&self, what: &str) {
        if self.started.elapsed() > LIMIT {
            self.fail(&format!("takes too long: not so: {what}"));
        }
        tokio::time::sleep(LOOK).await;
    }

    fn fail(&self, how: &str) -> ! {
        let (stdout, stderr) = (self.said("stdout"), self.said("stderr"));
        // Clients may repeat for seconds that they cannot connect.
        let last: Vec<&str> = stderr.lines().rev().take(30).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        panic!("{} {how}:\n{stdout}{}", self.name, last.join("\n"));
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        // It may have ended, and all that it has started.
        let _ = kill_process_group(Pid::from_child(&self.process), Signal::KILL);
        let _ = self.process.wait();
    }
}
