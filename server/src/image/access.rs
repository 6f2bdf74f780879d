//! Who may do what, and the keys of users: what the quorum has agreed on, and what follows of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use headwater_protocol::{
    error::ErrorCode,
    scram::{Keys, Mechanism},
};

use crate::model::{
    access::{
        ANY, AccessChange, Acl, EVERYBODY, Hidden, Operation, Pattern, Permission, Range, ResourceKind, StoredKeys,
        UserDescription,
    },
    refusal::Refusal,
};

/// The most rules that there may be.
const ACLS_MAX: usize = 20_000;

/// The most users that there may be.
const USERS_MAX: usize = 20_000;

/// The rules of a kind of resource, by what they name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OfKind {
    literal: HashMap<String, Vec<Acl>>,
    prefixed: BTreeMap<String, Vec<Acl>>,
}

/// The rules, and the users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccessRules {
    acls: BTreeSet<Acl>,
    users: BTreeMap<String, Vec<StoredKeys>>,
    /// There while there are users.
    secret: Hidden,
    by_kind: HashMap<ResourceKind, OfKind>,
}

impl AccessRules {
    /// As they were written down.
    pub(crate) fn new(
        acls: impl IntoIterator<Item = Acl>,
        users: BTreeMap<String, Vec<StoredKeys>>,
        secret: Hidden,
    ) -> AccessRules {
        let acls: BTreeSet<Acl> = acls.into_iter().collect();
        let mut by_kind: HashMap<ResourceKind, OfKind> = HashMap::new();
        for acl in &acls {
            let of_kind = by_kind.entry(acl.kind).or_default();
            let named = match acl.pattern {
                Pattern::Literal => of_kind.literal.entry(acl.name.clone()).or_default(),
                Pattern::Prefixed => of_kind.prefixed.entry(acl.name.clone()).or_default(),
            };
            named.push(acl.clone());
        }
        AccessRules {
            acls,
            users,
            secret,
            by_kind,
        }
    }

    /// What is told of names that nobody has is made of this, if there are users.
    pub(crate) fn secret(&self) -> &Hidden {
        &self.secret
    }

    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.acls.is_empty() && self.users.is_empty()
    }

    /// All rules in order.
    pub(crate) fn acls(&self) -> impl ExactSizeIterator<Item = &Acl> {
        self.acls.iter()
    }

    /// All users with their keys, as they are written down.
    pub(crate) fn users(&self) -> &BTreeMap<String, Vec<StoredKeys>> {
        &self.users
    }

    /// A user, as it is told of.
    pub(crate) fn user(&self, name: &str) -> Option<UserDescription> {
        let keys = self.users.get(name)?;
        let mechanisms = keys.iter();
        Some(UserDescription {
            name: name.to_owned(),
            mechanisms: mechanisms
                .filter_map(|keys| Some((keys.mechanism()?, keys.iterations())))
                .collect(),
        })
    }

    /// The keys of a user for a mechanism.
    pub(crate) fn keys(&self, user: &str, mechanism: Mechanism) -> Option<Keys> {
        let keys = self.users.get(user)?;
        keys.iter().find(|keys| keys.mechanism() == Some(mechanism))?.keys()
    }

    /// The rules after a change; or why it cannot be.
    pub(crate) fn after(&self, change: &AccessChange) -> Result<AccessRules, Refusal> {
        let (mut acls, mut users, mut secret) = (self.acls.clone(), self.users.clone(), self.secret.clone());
        match change {
            AccessChange::AddAcls(added) => {
                acls.extend(added.iter().cloned());
                room("rules", acls.len(), ACLS_MAX)?;
            }
            AccessChange::RemoveAcls(removed) => {
                for acl in removed {
                    acls.remove(acl);
                }
            }
            AccessChange::SetUser {
                user,
                keys,
                secret: new,
            } => {
                if users.is_empty() {
                    secret.clone_from(new);
                }
                let held = users.entry(user.clone()).or_default();
                held.retain(|other| other.mechanism() != keys.mechanism());
                held.push(keys.clone());
                room("users", users.len(), USERS_MAX)?;
            }
            AccessChange::RemoveUser { user, mechanism } => {
                let mechanism = mechanism.map(Mechanism::numbered);
                let unknown = || Refusal::new(ErrorCode::ResourceNotFound, NO_SUCH_USER);
                let held = users.get_mut(user).ok_or_else(unknown)?;
                let before = held.len();
                held.retain(|keys| mechanism.is_some_and(|mechanism| keys.mechanism() != mechanism));
                if held.len() == before {
                    return Err(unknown());
                }
                if held.is_empty() {
                    users.remove(user);
                }
                if users.is_empty() {
                    secret = Hidden::default();
                }
            }
            // They are apart.
            AccessChange::AlterQuotas(_) => {}
        }
        Ok(AccessRules::new(acls, users, secret))
    }

    /// Whether the rules let somebody do this: a rule that denies it wins, and without one that allows it it is denied.
    pub(crate) fn allow(
        &self,
        (principal, host): (&str, &str),
        operation: Operation,
        (kind, name): (ResourceKind, &str),
    ) -> bool {
        let host: Option<IpAddr> = host.parse().ok();
        let is_of = |acl: &&Acl| {
            (acl.principal == principal || acl.principal == EVERYBODY)
                && (acl.host == ANY
                    || host
                        .zip(Range::read(&acl.host))
                        .is_some_and(|(host, range)| range.has(host)))
        };
        let mut is_allowed = false;
        for acl in self.about(kind, name).filter(is_of) {
            match acl.permission {
                Permission::Deny if is_same(acl.operation, operation) => return false,
                Permission::Deny => {}
                Permission::Allow => is_allowed |= implies(acl.operation, operation),
            }
        }
        is_allowed
    }

    /// Whether somebody may do this to anything of a kind, as far as nothing denies all of it.
    pub(crate) fn allow_any(&self, asker: (&str, &str), operation: Operation, kind: ResourceKind) -> bool {
        let mut named = self
            .acls
            .iter()
            .filter(|acl| acl.kind == kind && acl.permission == Permission::Allow);
        // Of a prefix, the name that is as long as it stands for all that are longer.
        named.any(|acl| self.allow(asker, operation, (kind, if acl.name == ANY { "" } else { &acl.name })))
    }

    fn about<'a>(&'a self, kind: ResourceKind, name: &'a str) -> impl Iterator<Item = &'a Acl> {
        let of_kind = self.by_kind.get(&kind);
        of_kind.into_iter().flat_map(move |of_kind| {
            let literal = [name, ANY].into_iter().filter_map(|named| of_kind.literal.get(named));
            // What begins the name is not after it in the order, and not before its first letter.
            let first = name.chars().next().map_or(0, char::len_utf8);
            let prefixed = of_kind
                .prefixed
                .range::<str, _>((
                    std::ops::Bound::Included(&name[..first]),
                    std::ops::Bound::Included(name),
                ))
                .filter(move |(prefix, _)| name.starts_with(prefix.as_str()))
                .map(|(_, acls)| acls);
            literal.chain(prefixed).flatten()
        })
    }
}

/// Kafka's words.
const NO_SUCH_USER: &str = "Attempt to delete a user credential that does not exist";

fn room(what: &str, count: usize, max: usize) -> Result<(), Refusal> {
    if count <= max {
        return Ok(());
    }
    let message = format!("there would be {count} {what}; {max} are allowed");
    Err(Refusal::new(ErrorCode::PolicyViolation, message))
}

fn is_same(rule: Operation, operation: Operation) -> bool {
    rule == Operation::All || rule == operation
}

/// Who may do something to it may also look at it.
fn implies(rule: Operation, operation: Operation) -> bool {
    use Operation as Op;
    is_same(rule, operation)
        || match operation {
            Op::Describe => matches!(rule, Op::Read | Op::Write | Op::Delete | Op::Alter),
            Op::DescribeConfigs => rule == Op::AlterConfigs,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(text: &str) -> Acl {
        let mut words = text.split(' ');
        let mut next = || words.next().unwrap();
        let permission = if next() == "allow" {
            Permission::Allow
        } else {
            Permission::Deny
        };
        let principal = format!("User:{}", next());
        let host = next().to_owned();
        let operation = next();
        let operation = Operation::ALL.iter().copied().find(|known| known.name() == operation);
        let kind = next();
        let kind = ResourceKind::ALL.iter().copied().find(|known| known.name() == kind);
        let name = next();
        let (pattern, name) = match name.strip_suffix("...") {
            Some(prefix) => (Pattern::Prefixed, prefix),
            None => (Pattern::Literal, name),
        };
        let acl = Acl {
            kind: kind.unwrap(),
            pattern,
            name: name.to_owned(),
            principal,
            host,
            operation: operation.unwrap(),
            permission,
        };
        assert_eq!(acl.check(), Ok(()), "{text}");
        acl
    }

    fn rules(texts: &[&str]) -> AccessRules {
        AccessRules::new(texts.iter().copied().map(acl), BTreeMap::new(), Hidden::default())
    }

    #[test]
    fn a_rule_that_denies_wins_and_nothing_is_allowed_without_one() {
        use Operation::{Alter, AlterConfigs, Delete, Describe, DescribeConfigs, Read, Write};
        let cases: &[(&[&str], Operation, &str, bool)] = &[
            (&[], Describe, "orders", false),
            (&["allow alice * read topic orders"], Read, "orders", true),
            (&["allow alice * read topic orders"], Read, "orders2", false),
            (&["allow alice * read topic orders"], Describe, "orders", true),
            (&["allow alice * read topic orders"], Write, "orders", false),
            (&["allow bob * read topic orders"], Read, "orders", false),
            (&["allow * * read topic orders"], Read, "orders", true),
            (&["allow alice * read topic *"], Read, "orders", true),
            (&["allow alice * read topic ord..."], Read, "orders", true),
            (&["allow alice * read topic orders..."], Read, "orders", true),
            (&["allow alice * read topic ors..."], Read, "orders", false),
            (
                &["allow alice * read topic o...", "deny alice * read topic ord..."],
                Read,
                "orders",
                false,
            ),
            (
                &["allow alice * read topic o...", "deny alice * write topic ord..."],
                Read,
                "orders",
                true,
            ),
            (&["allow alice * all topic orders"], Delete, "orders", true),
            (
                &["allow alice * all topic orders", "deny * * all topic *"],
                Delete,
                "orders",
                false,
            ),
            (
                &["allow alice * all topic orders", "deny alice * describe topic *"],
                Read,
                "orders",
                true,
            ),
            (
                &["allow alice * all topic orders", "deny alice * describe topic *"],
                Describe,
                "orders",
                false,
            ),
            (
                &["allow alice * alter-configs topic orders"],
                DescribeConfigs,
                "orders",
                true,
            ),
            (&["allow alice * alter-configs topic orders"], Alter, "orders", false),
            (&["allow alice * alter topic orders"], AlterConfigs, "orders", false),
            (&["allow alice * read group orders"], Read, "orders", false),
            (&["allow alice 10.1.0.0/16 read topic orders"], Read, "orders", true),
            (&["allow alice 10.2.0.0/16 read topic orders"], Read, "orders", false),
            (&["allow alice 10.1.2.3 read topic orders"], Read, "orders", true),
            (
                &[
                    "allow alice * read topic orders",
                    "deny alice 10.1.2.3 read topic orders",
                ],
                Read,
                "orders",
                false,
            ),
        ];
        for (texts, operation, name, expected) in cases {
            let asker = ("User:alice", "10.1.2.3");
            let is_allowed = rules(texts).allow(asker, *operation, (ResourceKind::Topic, name));
            assert_eq!(is_allowed, *expected, "{texts:?} {operation:?} {name}");
        }
    }

    #[test]
    fn something_is_allowed_if_a_rule_allows_it_that_none_denies() {
        for (texts, expected) in [
            (&["allow alice * write topic orders"][..], true),
            (&["allow alice * read topic orders"], false),
            (
                &["allow alice * write topic orders", "deny alice * write topic *"],
                false,
            ),
            (
                &["allow alice * write topic or...", "deny alice * write topic orders"],
                true,
            ),
            (&["allow alice * write topic *"], true),
        ] {
            let rules = rules(texts);
            let is_allowed = rules.allow_any(("User:alice", "::1"), Operation::Write, ResourceKind::Topic);
            assert_eq!(is_allowed, expected, "{texts:?}");
        }
    }

    #[test]
    fn changes_lead_from_rules_to_rules_and_users_lose_the_keys_that_they_have() {
        let one = acl("allow alice * read topic orders");
        let none = AccessRules::default();
        let some = none
            .after(&AccessChange::AddAcls(vec![one.clone(), one.clone()]))
            .unwrap();
        assert_eq!(some.acls().len(), 1);
        assert_eq!(some.after(&AccessChange::RemoveAcls(vec![one])).unwrap(), none);
        let keys = |mechanism| StoredKeys::from(Keys::of_password(mechanism, "secret", vec![1; 16], 4096));
        let set = |mechanism| AccessChange::SetUser {
            user: "alice".to_owned(),
            keys: keys(mechanism),
            secret: Hidden(vec![7]),
        };
        let remove = |mechanism: Option<Mechanism>| AccessChange::RemoveUser {
            user: "alice".to_owned(),
            mechanism: mechanism.map(Mechanism::number),
        };
        let both = none.after(&set(Mechanism::Sha256)).unwrap();
        let both = both
            .after(&set(Mechanism::Sha512))
            .unwrap()
            .after(&set(Mechanism::Sha256))
            .unwrap();
        assert_eq!(both.user("alice").unwrap().mechanisms.len(), 2);
        let one = both.after(&remove(Some(Mechanism::Sha256))).unwrap();
        assert!(one.keys("alice", Mechanism::Sha256).is_none() && one.keys("alice", Mechanism::Sha512).is_some());
        assert!(one.after(&remove(Some(Mechanism::Sha256))).is_err());
        assert_eq!(one.after(&remove(Some(Mechanism::Sha512))).unwrap(), none);
        assert_eq!(both.after(&remove(None)).unwrap(), none);
        assert!(none.after(&remove(None)).is_err());
    }
}
