//! How much somebody may use of each broker: what the quorum has agreed on, and which of several quotas counts.

use std::{collections::BTreeMap, net::IpAddr};

use headwater_protocol::error::ErrorCode;

use crate::model::{
    quota::{Entity, Name, Quota, QuotaAlteration, QuotaKey, Rate},
    refusal::Refusal,
};

/// The most entities that may have quotas.
const ENTITIES_MAX: usize = 20_000;

/// The quotas of each entity that has some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QuotaRules {
    rules: BTreeMap<Entity, BTreeMap<QuotaKey, Rate>>,
}

/// What counts for somebody, and who shares it: all connections of the user, of the client id, or of both together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) rate: Rate,
    pub(crate) by_user: bool,
    pub(crate) by_client: bool,
}

impl QuotaRules {
    /// As they were written down.
    pub(crate) fn new(quotas: impl IntoIterator<Item = (Entity, Vec<(QuotaKey, Rate)>)>) -> QuotaRules {
        let rules = quotas.into_iter();
        QuotaRules {
            rules: rules
                .map(|(entity, values)| (entity, values.into_iter().collect()))
                .collect(),
        }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// All of them, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = Quota> + '_ {
        self.rules.iter().map(|(entity, values)| Quota {
            entity: entity.clone(),
            values: values.iter().map(|(key, rate)| (*key, *rate)).collect(),
        })
    }

    /// The quotas after a change; or why it cannot be.
    pub(crate) fn after(&self, alterations: &[QuotaAlteration]) -> Result<QuotaRules, Refusal> {
        let mut rules = self.rules.clone();
        for QuotaAlteration { entity, values } in alterations {
            let own = rules.entry(entity.clone()).or_default();
            for (key, rate) in values {
                match rate {
                    Some(rate) => own.insert(*key, *rate),
                    None => own.remove(key),
                };
            }
            if own.is_empty() {
                rules.remove(entity);
            }
        }
        if rules.len() > ENTITIES_MAX {
            let count = rules.len();
            let message = format!("there would be quotas of {count} entities; {ENTITIES_MAX} are allowed");
            return Err(Refusal::new(ErrorCode::PolicyViolation, message));
        }
        Ok(QuotaRules { rules })
    }

    /// What counts for a user with a client id, in Kafka's order: what is set for the user goes before what is set for each user, that
    /// before what is set for clients alone; and within each, what is more of it before what is less.
    pub(crate) fn limit(&self, key: QuotaKey, user: &str, client: &str) -> Option<Limit> {
        let (user, client) = (Some(Name::Is(user.to_owned())), Some(Name::Is(client.to_owned())));
        let default = Some(Name::Default);
        [
            (&user, &client),
            (&user, &default),
            (&user, &None),
            (&default, &client),
            (&default, &default),
            (&default, &None),
            (&None, &client),
            (&None, &default),
        ]
        .into_iter()
        .find_map(|(user, client)| {
            let entity = Entity {
                user: user.clone(),
                client: client.clone(),
                ip: None,
            };
            Some(Limit {
                rate: *self.rules.get(&entity)?.get(&key)?,
                by_user: user.is_some(),
                by_client: client.is_some(),
            })
        })
    }

    /// Connections of an address in a second.
    pub(crate) fn of_address(&self, address: IpAddr) -> Option<Rate> {
        let own = Name::Is(address.to_canonical().to_string());
        [own, Name::Default].into_iter().find_map(|ip| {
            let entity = Entity {
                ip: Some(ip),
                ..Entity::default()
            };
            let values = self.rules.get(&entity)?;
            values.get(&QuotaKey::ConnectionCreationRate).copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Option<Name> {
        match text {
            "-" => None,
            "default" => Some(Name::Default),
            name => Some(Name::Is(name.to_owned())),
        }
    }

    fn alteration(user: &str, client: &str, key: QuotaKey, value: Option<f64>) -> QuotaAlteration {
        QuotaAlteration {
            entity: Entity {
                user: name(user),
                client: name(client),
                ip: None,
            },
            values: vec![(key, value.map(|value| Rate::new(key, value).unwrap()))],
        }
    }

    #[test]
    fn of_several_quotas_the_one_counts_that_kafka_takes() {
        const KEY: QuotaKey = QuotaKey::ProducerByteRate;
        // From the first that counts to the last, each with whom the bucket is shared by.
        let order = [
            ("alice", "app", true, true),
            ("alice", "default", true, true),
            ("alice", "-", true, false),
            ("default", "app", true, true),
            ("default", "default", true, true),
            ("default", "-", true, false),
            ("-", "app", false, true),
            ("-", "default", false, true),
        ];
        let mut rules = QuotaRules::default();
        for (value, (user, client, ..)) in (1..).zip(order) {
            rules = rules
                .after(&[alteration(user, client, KEY, Some(f64::from(value)))])
                .unwrap();
        }
        for (value, (user, client, by_user, by_client)) in (1..).zip(order) {
            let limit = rules.limit(KEY, "alice", "app").unwrap();
            assert_eq!(
                (limit.rate.get(), limit.by_user, limit.by_client),
                (f64::from(value), by_user, by_client),
                "{user} {client}"
            );
            assert_eq!(rules.limit(QuotaKey::ConsumerByteRate, "alice", "app"), None);
            rules = rules.after(&[alteration(user, client, KEY, None)]).unwrap();
        }
        assert_eq!(rules, QuotaRules::default());
        // Each key for itself; another user, another client.
        let rules = rules
            .after(&[
                alteration("alice", "app", QuotaKey::ConsumerByteRate, Some(7.0)),
                alteration("default", "-", KEY, Some(8.0)),
            ])
            .unwrap();
        let rate = |key, user, client| rules.limit(key, user, client).map(|limit| limit.rate.get());
        assert_eq!(rate(QuotaKey::ConsumerByteRate, "alice", "app"), Some(7.0));
        assert_eq!(rate(KEY, "alice", "app"), Some(8.0));
        assert_eq!(rate(QuotaKey::ConsumerByteRate, "alice", "other"), None);
        assert_eq!(rate(KEY, "bob", ""), Some(8.0));
    }

    #[test]
    fn an_address_has_its_own_quota_or_that_of_each() {
        let of = |ip: &str, value| QuotaAlteration {
            entity: Entity {
                ip: name(ip),
                ..Entity::default()
            },
            values: vec![(
                QuotaKey::ConnectionCreationRate,
                Some(Rate::new(QuotaKey::ConnectionCreationRate, value).unwrap()),
            )],
        };
        let rules = QuotaRules::default().after(&[of("10.0.0.1", 3.0)]).unwrap();
        let rate = |rules: &QuotaRules, ip: &str| rules.of_address(ip.parse().unwrap()).map(Rate::get);
        assert_eq!(rate(&rules, "10.0.0.1"), Some(3.0));
        assert_eq!(rate(&rules, "::ffff:10.0.0.1"), Some(3.0));
        assert_eq!(rate(&rules, "10.0.0.2"), None);
        let rules = rules.after(&[of("default", 5.0)]).unwrap();
        assert_eq!(rate(&rules, "10.0.0.2"), Some(5.0));
        assert_eq!(rate(&rules, "10.0.0.1"), Some(3.0));
    }
}
