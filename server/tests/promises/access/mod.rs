//! Who may come in, and who may do what: each api of each protocol by somebody without credentials, with wrong ones, with right ones and
//! without permission, and with exactly the permission that it takes; secrets; what becomes of whoever is taken out.

mod attackers;
mod audit;
mod kafka;
mod native;
pub mod sasl;
mod secrets;
mod tokens;

use std::{collections::BTreeSet, fmt::Debug, fs};

use headwater_client::{Acl, AclOperation, AclPattern, AclPermission, AclResource, Admin, Client, NewTopic};

use crate::support::{Broker, Site};

/// In every password: it must be found nowhere.
const MARKER: &str = "hush-4711";

const ADMIN: &str = "admin";
/// May do nothing.
const NOBODY: &str = "nobody";
/// May do what the row of a table allows.
const EXACT: &str = "exact";

/// There, and not: of one length, so that answers can be compared.
const THERE: &str = "there-it-is";
const NOWHERE: &str = "nowhere-yet";

/// What a row of a table takes.
type Needs = &'static [(AclResource, AclOperation)];

/// Every code of a denial, by number.
const DENIALS: [i16; 6] = [29, 30, 31, 53, 54, 58];

fn password_of(user: &str) -> String {
    format!("{MARKER}-{user}")
}

/// A broker that asks who its clients are, and what they may do.
struct Guarded {
    site: Site,
    broker: Broker,
    admin: Admin,
}

fn site() -> Site {
    let site = Site::new().cores(1);
    let secret = site.directory().with_file_name("admin-secret");
    fs::write(&secret, password_of(ADMIN)).unwrap();
    let of_cluster = site.directory().with_file_name("cluster-secret");
    fs::write(&of_cluster, format!("{MARKER}-of-the-cluster")).unwrap();
    site.set("groups.initial_rebalance_delay_ms", "0")
        .set("groups.session_timeout_ms_min", "10ms")
        .set("groups.offsets_partitions", "1")
        .set("security.sasl", "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN")
        .set("security.plain_without_tls", "true")
        .set("security.authorizer", "true")
        .set("security.failure_wait_ms", "0")
        .set("security.admin_password", &format!("file:{}", secret.display()))
        .set("cluster.secret", &format!("file:{}", of_cluster.display()))
}

async fn client(site: &Site, user: &str, password: &str) -> Result<Client, headwater_client::Error> {
    Client::builder()
        .bootstrap([site.address().to_string()])
        .user(user, password)
        .build()
        .await
}

impl Guarded {
    /// With the users, and a topic and a group that are there.
    async fn start(site: Site) -> Guarded {
        let broker = site.start();
        let admin = client(&site, ADMIN, &password_of(ADMIN)).await.unwrap().admin();
        for user in [NOBODY, EXACT] {
            admin.set_user(user, &password_of(user), None).await.unwrap();
        }
        admin.create_topic(NewTopic::new(THERE).partitions(1)).await.unwrap();
        Guarded { site, broker, admin }
    }

    /// Has the user of the row be allowed this, about what is called so.
    async fn allow(&self, needs: Needs, name: &str) {
        let acls: Vec<Acl> = needs
            .iter()
            .map(|(resource, operation)| Acl {
                resource: *resource,
                pattern: AclPattern::Literal,
                name: match resource {
                    AclResource::Cluster => "kafka-cluster".to_owned(),
                    _ => name.to_owned(),
                },
                principal: format!("User:{EXACT}"),
                host: "*".to_owned(),
                operation: *operation,
                permission: AclPermission::Allow,
            })
            .collect();
        self.admin.create_acls(&acls).await.unwrap();
    }

    /// Takes all of it away again.
    async fn allow_nothing(&self) {
        self.admin
            .delete_acls(&headwater_client::AclFilter::default())
            .await
            .unwrap();
    }

    /// All that somebody could have changed.
    async fn state(&self) -> String {
        let topics = self.admin.topics().await.unwrap();
        let described = self.admin.describe_topic(THERE).await.unwrap();
        let acls = self.admin.acls(&headwater_client::AclFilter::default()).await.unwrap();
        let users = self.admin.users().await.unwrap();
        let quotas = self.admin.quotas().await.unwrap();
        let groups = self.admin.groups().list().await.unwrap();
        format!(
            "{:?} {:?} {:?} {acls:?} {users:?} {quotas:?} {groups:?}",
            topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(),
            described.configs,
            described
                .partitions
                .iter()
                .map(|partition| (partition.partition, partition.log_end_offset))
                .collect::<Vec<_>>(),
        )
    }

    /// Ends, and looks for secrets in what was logged.
    fn stop(self) {
        let lines = self.broker.lines();
        assert!(!lines.iter().any(|line| line.contains(MARKER)), "a secret was logged");
        self.broker.stop();
    }
}

/// The codes other than 0 in a message, however deep they are in it.
fn codes(message: &impl Debug) -> BTreeSet<i16> {
    let text = format!("{message:?}");
    let mut codes = BTreeSet::new();
    for field in ["error_code: ", "error: ", "errors: Some([", "members: Some(["] {
        for (at, _) in text.match_indices(field) {
            let rest = &text[at + field.len()..];
            let number: String = rest
                .chars()
                .take_while(|sign| sign.is_ascii_digit() || *sign == '-')
                .collect();
            codes.extend(number.parse::<i16>().ok().filter(|code| *code != 0));
        }
    }
    codes
}

/// What is told of something that is there must be what is told of something that is not.
fn masked(message: &impl Debug, name: &str) -> String {
    format!("{message:?}").replace(name, "NAME")
}
