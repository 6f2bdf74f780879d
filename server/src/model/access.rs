//! Who asks, what may be allowed or denied to whom, and the keys of users: Kafka's terms and numbers. Data only; what follows of it
//! decides [`AccessRules`](crate::image::AccessRules).

use std::{fmt, net::IpAddr, rc::Rc};

use headwater_protocol::scram::{Keys, Mechanism};
use serde::{Deserialize, Serialize};

use super::quota::QuotaAlteration;

/// The name of the cluster, as a resource.
pub(crate) const CLUSTER: &str = "kafka-cluster";

/// What every name or principal of a kind is called in a rule.
pub(crate) const ANY: &str = "*";

/// The principal of everybody.
pub(crate) const EVERYBODY: &str = "User:*";

/// Bytes in a name of a rule.
pub(crate) const NAME_LEN_MAX: usize = 512;

/// Who somebody is, as `User:alice`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Principal(Rc<str>);

impl Principal {
    /// A user of this name.
    pub(crate) fn user(name: &str) -> Principal {
        Principal(format!("User:{name}").into())
    }

    /// Somebody who has not said who it is.
    pub(crate) fn anonymous() -> Principal {
        Principal::user("ANONYMOUS")
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who asks, and from where.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) principal: Principal,
    pub(crate) host: String,
    /// Both in one, for those who remember what was decided.
    pub(crate) key: String,
}

impl Asker {
    pub(crate) fn new(principal: Principal, host: &str) -> Asker {
        Asker {
            key: format!("{principal}\n{host}"),
            principal,
            host: host.to_owned(),
        }
    }
}

macro_rules! numbered {
    ($(#[$doc:meta])* $Name:ident { $($(#[$variant_doc:meta])* $Variant:ident = $number:literal, $text:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub(crate) enum $Name { $($(#[$variant_doc])* $Variant,)+ }

        impl $Name {
            pub(crate) const ALL: &[$Name] = &[$($Name::$Variant),+];

            /// Kafka's number.
            pub(crate) const fn number(self) -> i8 {
                match self { $($Name::$Variant => $number,)+ }
            }

            /// The one with this number.
            pub(crate) fn numbered(number: i8) -> Option<$Name> {
                Self::ALL.iter().copied().find(|known| known.number() == number)
            }

            /// Kafka's name, as tools write it.
            pub(crate) const fn name(self) -> &'static str {
                match self { $($Name::$Variant => $text,)+ }
            }
        }
    };
}

numbered! {
    /// What is done.
    Operation {
        /// Any of them.
        All = 2, "all";
        Read = 3, "read";
        Write = 4, "write";
        Create = 5, "create";
        Delete = 6, "delete";
        Alter = 7, "alter";
        Describe = 8, "describe";
        ClusterAction = 9, "cluster-action";
        DescribeConfigs = 10, "describe-configs";
        AlterConfigs = 11, "alter-configs";
        IdempotentWrite = 12, "idempotent-write";
        CreateTokens = 13, "create-tokens";
        DescribeTokens = 14, "describe-tokens";
        TwoPhaseCommit = 15, "two-phase-commit";
    }
}

numbered! {
    /// What it is done to.
    ResourceKind {
        Topic = 2, "topic";
        Group = 3, "group";
        Cluster = 4, "cluster";
        TransactionalId = 5, "transactional-id";
        User = 7, "user";
    }
}

numbered! {
    /// How the name of a rule is meant.
    Pattern {
        /// That name, or `*` for all.
        Literal = 3, "literal";
        /// All that begin with it.
        Prefixed = 4, "prefixed";
    }
}

numbered! {
    /// What a rule says.
    Permission {
        Deny = 2, "deny";
        Allow = 3, "allow";
    }
}

impl ResourceKind {
    /// What can be done to such a resource, as in Kafka.
    pub(crate) const fn operations(self) -> &'static [Operation] {
        use Operation as Op;
        match self {
            ResourceKind::Topic => &[
                Op::Read,
                Op::Write,
                Op::Create,
                Op::Delete,
                Op::Alter,
                Op::Describe,
                Op::DescribeConfigs,
                Op::AlterConfigs,
            ],
            ResourceKind::Group => &[
                Op::Read,
                Op::Delete,
                Op::Describe,
                Op::DescribeConfigs,
                Op::AlterConfigs,
            ],
            ResourceKind::Cluster => &[
                Op::Create,
                Op::Alter,
                Op::Describe,
                Op::ClusterAction,
                Op::DescribeConfigs,
                Op::AlterConfigs,
                Op::IdempotentWrite,
            ],
            ResourceKind::TransactionalId => &[Op::Write, Op::Describe, Op::TwoPhaseCommit],
            ResourceKind::User => &[Op::CreateTokens, Op::DescribeTokens],
        }
    }
}

/// A rule: whether somebody may do something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Acl {
    pub(crate) kind: ResourceKind,
    pub(crate) pattern: Pattern,
    pub(crate) name: String,
    pub(crate) principal: String,
    /// An address, a range of them (`10.0.0.0/8`), or `*`.
    pub(crate) host: String,
    pub(crate) operation: Operation,
    pub(crate) permission: Permission,
}

impl Acl {
    /// Why there can be no such rule.
    pub(crate) fn check(&self) -> Result<(), String> {
        let texts = [
            ("resource's name", &self.name),
            ("principal", &self.principal),
            ("host", &self.host),
        ];
        for (what, text) in texts {
            if text.is_empty() {
                return Err(format!("the {what} is empty"));
            }
            if text.len() > NAME_LEN_MAX || text.contains(char::is_control) {
                return Err(format!(
                    "the {what} is longer than {NAME_LEN_MAX} bytes, or has control characters"
                ));
            }
        }
        if self.kind == ResourceKind::Cluster && (self.name != CLUSTER || self.pattern != Pattern::Literal) {
            return Err(format!("the cluster is named {CLUSTER} in rules"));
        }
        if !self.principal.contains(':') {
            return Err(format!(
                "{} is no principal: they are written as User:alice",
                self.principal
            ));
        }
        if self.host != ANY && Range::read(&self.host).is_none() {
            return Err(format!(
                "{} is neither an address, nor a range of them, nor *",
                self.host
            ));
        }
        if self.operation != Operation::All && !self.kind.operations().contains(&self.operation) {
            let (operation, kind) = (self.operation.name(), self.kind.name());
            return Err(format!("{operation} is nothing that can be done to a {kind}"));
        }
        Ok(())
    }
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Acl {
            principal, host, name, ..
        } = self;
        let (permission, operation) = (self.permission.name(), self.operation.name());
        let (kind, pattern) = (self.kind.name(), self.pattern.name());
        write!(
            f,
            "{permission} {principal} from {host} to {operation} {kind} {name} ({pattern})"
        )
    }
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    address: IpAddr,
    bits: u8,
}

impl Range {
    /// One address, or as many as `10.0.0.0/8` says.
    pub(crate) fn read(text: &str) -> Option<Range> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= all)?,
            None => all,
        };
        Some(Range { address, bits })
    }

    /// Whether an address is one of them. An IPv4 address may come in the clothes of IPv6.
    pub(crate) fn has(self, address: IpAddr) -> bool {
        let (same, all) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(one), IpAddr::V4(other)) => ((one.to_bits() ^ other.to_bits()).leading_zeros(), 32),
            (IpAddr::V6(one), IpAddr::V6(other)) => ((one.to_bits() ^ other.to_bits()).leading_zeros(), 128),
            _ => return false,
        };
        same.min(all) >= u32::from(self.bits)
    }
}

/// Which rules are meant; `None` is any.
#[derive(Debug, Clone, Default)]
pub(crate) struct AclFilter {
    pub(crate) kind: Option<ResourceKind>,
    pub(crate) name: Option<String>,
    pub(crate) pattern: PatternFilter,
    pub(crate) principal: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) operation: Option<Operation>,
    pub(crate) permission: Option<Permission>,
}

/// How the name of a filter is meant.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum PatternFilter {
    /// The rule has that name, whatever its pattern.
    #[default]
    Any,
    /// The rule is about something of that name.
    Match,
    Exactly(Pattern),
}

impl AclFilter {
    /// Whether a rule is meant.
    pub(crate) fn has(&self, acl: &Acl) -> bool {
        let is_named = self.name.as_deref().is_none_or(|name| match self.pattern {
            PatternFilter::Match => match acl.pattern {
                Pattern::Literal => acl.name == name || acl.name == ANY,
                Pattern::Prefixed => name.starts_with(&acl.name),
            },
            PatternFilter::Any | PatternFilter::Exactly(_) => acl.name == name,
        });
        let is_pattern = match self.pattern {
            PatternFilter::Exactly(pattern) => acl.pattern == pattern,
            PatternFilter::Any | PatternFilter::Match => true,
        };
        is_named
            && is_pattern
            && self.kind.is_none_or(|kind| acl.kind == kind)
            && self
                .principal
                .as_ref()
                .is_none_or(|principal| acl.principal == *principal)
            && self.host.as_ref().is_none_or(|host| acl.host == *host)
            && self.operation.is_none_or(|operation| acl.operation == operation)
            && self.permission.is_none_or(|permission| acl.permission == permission)
    }
}

/// What is kept of a user's password, as it is written down.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredKeys {
    mechanism: i8,
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl fmt::Debug for StoredKeys {
    /// Nothing that is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredKeys({}, {} iterations)", self.mechanism, self.iterations)
    }
}

impl From<Keys> for StoredKeys {
    fn from(keys: Keys) -> StoredKeys {
        StoredKeys {
            mechanism: keys.mechanism.number(),
            iterations: keys.iterations,
            salt: keys.salt,
            stored_key: keys.stored_key,
            server_key: keys.server_key,
        }
    }
}

impl StoredKeys {
    /// Of which mechanism they are; a newer broker may have written others.
    pub(crate) fn mechanism(&self) -> Option<Mechanism> {
        Mechanism::numbered(self.mechanism)
    }

    pub(crate) fn iterations(&self) -> u32 {
        self.iterations
    }

    /// As an exchange needs them.
    pub(crate) fn keys(&self) -> Option<Keys> {
        Some(Keys {
            mechanism: self.mechanism()?,
            iterations: self.iterations,
            salt: self.salt.clone(),
            stored_key: self.stored_key.clone(),
            server_key: self.server_key.clone(),
        })
    }
}

/// Bytes that nobody is shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hidden(pub(crate) Vec<u8>);

impl fmt::Debug for Hidden {
    /// Nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

/// What is to become of rules, users and quotas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AccessChange {
    AddAcls(Vec<Acl>),
    RemoveAcls(Vec<Acl>),
    /// A user gets these keys in the place of those of the same mechanism.
    SetUser {
        user: String,
        keys: StoredKeys,
        /// Random: of the first user it is kept, and what is told of names that nobody has is made of it, so that it is the same wherever
        /// and whenever somebody asks.
        secret: Hidden,
    },
    /// A user loses the keys of a mechanism, by Kafka's number, or all.
    RemoveUser {
        user: String,
        mechanism: Option<i8>,
    },
    /// Entities get other quotas.
    AlterQuotas(Vec<QuotaAlteration>),
}

/// A user, as it is told of.
#[derive(Debug, Clone)]
pub(crate) struct UserDescription {
    pub(crate) name: String,
    /// Each mechanism with its iterations.
    pub(crate) mechanisms: Vec<(Mechanism, u32)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_the_addresses_that_begin_like_it() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.200.3.4", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("fd00::/16", "fd00:1::2", "fd01::"),
            ("192.168.1.0/24", "::ffff:192.168.1.9", "::ffff:192.168.2.9"),
        ] {
            let read = Range::read(range).unwrap();
            assert!(read.has(inside.parse().unwrap()), "{range} {inside}");
            assert!(!read.has(outside.parse().unwrap()), "{range} {outside}");
        }
        for wrong in ["", "10", "10.0.0.0/33", "10.0.0.0/x", "host", "10.0.0.0/"] {
            assert_eq!(Range::read(wrong), None, "{wrong}");
        }
    }
}
