//! Users, and rules about who may do what (ACLs), in Kafka's terms.

use headwater_protocol::scram::{ITERATIONS_MIN, Mechanism, SALT_LEN};

use super::Admin;
use crate::error::Error;
use crate::requests;
use crate::runtime;

macro_rules! numbered {
    ($(#[$doc:meta])* $Name:ident { $($(#[$variant_doc:meta])* $Variant:ident = $number:literal, $text:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $Name { $($(#[$variant_doc])* $Variant,)+ }

        impl $Name {
            /// All of them.
            pub const ALL: &[$Name] = &[$($Name::$Variant),+];

            /// Its name, as tools write it.
            pub const fn name(self) -> &'static str {
                match self { $($Name::$Variant => $text,)+ }
            }

            /// The one of this name.
            pub fn named(name: &str) -> Option<$Name> {
                Self::ALL.iter().copied().find(|known| known.name() == name)
            }

            pub(crate) const fn number(self) -> i8 {
                match self { $($Name::$Variant => $number,)+ }
            }

            pub(crate) fn numbered(number: i8) -> Option<$Name> {
                Self::ALL.iter().copied().find(|known| known.number() == number)
            }
        }
    };
}

numbered! {
    /// What a rule is about.
    AclResource {
        /// A topic.
        Topic = 2, "topic";
        /// A consumer group.
        Group = 3, "group";
        /// The cluster as a whole; its name is `kafka-cluster`.
        Cluster = 4, "cluster";
        /// A transactional id.
        TransactionalId = 5, "transactional-id";
        /// A user.
        User = 7, "user";
    }
}

numbered! {
    /// How the name of a rule is meant.
    AclPattern {
        /// That name, or `*` for all.
        Literal = 3, "literal";
        /// All that begin with it.
        Prefixed = 4, "prefixed";
    }
}

numbered! {
    /// What a rule is for.
    AclOperation {
        /// Everything.
        All = 2, "all";
        /// Records and offsets are read, a group is joined.
        Read = 3, "read";
        /// Records are written.
        Write = 4, "write";
        /// Topics are made.
        Create = 5, "create";
        /// Topics, records, groups are deleted.
        Delete = 6, "delete";
        /// Topics get partitions; of the cluster: whatever administrators do.
        Alter = 7, "alter";
        /// It is looked at. Whoever may read, write, delete or alter may.
        Describe = 8, "describe";
        /// What brokers do among themselves.
        ClusterAction = 9, "cluster-action";
        /// Settings are looked at.
        DescribeConfigs = 10, "describe-configs";
        /// Settings are changed.
        AlterConfigs = 11, "alter-configs";
        /// Records are numbered, so that none is stored twice.
        IdempotentWrite = 12, "idempotent-write";
        /// Delegation tokens are made.
        CreateTokens = 13, "create-tokens";
        /// Delegation tokens are looked at.
        DescribeTokens = 14, "describe-tokens";
        /// Transactions are committed in two phases.
        TwoPhaseCommit = 15, "two-phase-commit";
    }
}

numbered! {
    /// What a rule says.
    AclPermission {
        /// No, whatever other rules say.
        Deny = 2, "deny";
        /// Yes, unless another rule denies it.
        Allow = 3, "allow";
    }
}

/// A rule: whether somebody may do something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Acl {
    /// What it is about.
    pub resource: AclResource,
    /// How the name is meant.
    pub pattern: AclPattern,
    /// The name; `*` for all of a literal one.
    pub name: String,
    /// Who, such as `User:alice`; `User:*` is everybody.
    pub principal: String,
    /// From where: an address, a range of them such as `10.0.0.0/8`, or `*`.
    pub host: String,
    /// What for.
    pub operation: AclOperation,
    /// Yes or no.
    pub permission: AclPermission,
}

/// Which rules are meant: those that have all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AclFilter {
    /// What they are about.
    pub resource: Option<AclResource>,
    /// How their names are meant.
    pub pattern: Option<AclPattern>,
    /// Their name.
    pub name: Option<String>,
    /// Whom they are about.
    pub principal: Option<String>,
    /// From where.
    pub host: Option<String>,
    /// What for.
    pub operation: Option<AclOperation>,
    /// Yes or no.
    pub permission: Option<AclPermission>,
}

/// A user that has a password.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// Its name.
    pub name: String,
    /// By which mechanisms it can prove who it is, each with how often its password was hashed.
    pub mechanisms: Vec<(&'static str, u32)>,
}

impl Admin {
    /// The rules that are meant, all of them for the default.
    pub async fn acls(&self, filter: &AclFilter) -> Result<Vec<Acl>, Error> {
        let deadline = self.cluster.deadline("list acls");
        let request = requests::describe_acls(filter);
        self.cluster
            .ask_any(deadline, &request, requests::read_describe_acls)
            .await
    }

    /// Makes rules; those that there are already stay.
    pub async fn create_acls(&self, acls: &[Acl]) -> Result<(), Error> {
        let deadline = self.cluster.deadline("create acls");
        let request = requests::create_acls(acls);
        self.cluster
            .ask_any(deadline, &request, requests::read_create_acls)
            .await
    }

    /// Removes the rules that are meant, all of them for the default, and returns them.
    pub async fn delete_acls(&self, filter: &AclFilter) -> Result<Vec<Acl>, Error> {
        let deadline = self.cluster.deadline("delete acls");
        let request = requests::delete_acls(filter);
        self.cluster
            .ask_any(deadline, &request, requests::read_delete_acls)
            .await
    }

    /// The users that have passwords.
    pub async fn users(&self) -> Result<Vec<User>, Error> {
        let deadline = self.cluster.deadline("list users");
        self.cluster
            .ask_any(deadline, &requests::describe_users(), requests::read_describe_users)
            .await
    }

    /// Gives a user a password in the place of the one that it has, for SCRAM-SHA-256 and SCRAM-SHA-512. It is salted here, and hashed so
    /// many times, 4096 at least and 1000000 at most; the broker never learns it.
    ///
    /// # Errors
    /// [`Error::Broker`] if the name or the number cannot be.
    pub async fn set_user(&self, name: &str, password: &str, iterations: Option<u32>) -> Result<(), Error> {
        let deadline = self.cluster.deadline("set user");
        for mechanism in Mechanism::ALL {
            let salt: Vec<u8> = [runtime::random(), runtime::random()]
                .iter()
                .flat_map(|random| random.to_le_bytes())
                .collect();
            debug_assert_eq!(salt.len(), SALT_LEN);
            let iterations = iterations.unwrap_or(ITERATIONS_MIN);
            let request = requests::set_user(name, password, mechanism, iterations, salt);
            self.cluster
                .ask_any(deadline, &request, requests::read_set_user)
                .await?;
        }
        Ok(())
    }

    /// Takes a user's passwords away: it is out, also on connections that are open. Rules about it stay.
    ///
    /// # Errors
    /// [`Error::Broker`] if there is no such user.
    pub async fn remove_user(&self, name: &str) -> Result<(), Error> {
        let deadline = self.cluster.deadline("remove user");
        let request = requests::remove_user(name);
        self.cluster
            .ask_any(deadline, &request, requests::read_remove_user)
            .await
    }
}
