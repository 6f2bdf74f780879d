//! How much somebody may use of each broker, in Kafka's terms. Data only; which of several quotas counts decides
//! [`QuotaRules`](crate::image::QuotaRules).

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::access::NAME_LEN_MAX;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum QuotaKey {
    /// Bytes of produce requests in a second.
    ProducerByteRate,
    /// Bytes of records that are fetched in a second.
    ConsumerByteRate,
    /// Time of a core that requests take, in percent of one core.
    RequestPercentage,
    /// Partitions that are made or deleted in a second.
    ControllerMutationRate,
    /// Connections that are made in a second; of addresses only.
    ConnectionCreationRate,
}

impl QuotaKey {
    pub(crate) const ALL: &[QuotaKey] = &[
        QuotaKey::ProducerByteRate,
        QuotaKey::ConsumerByteRate,
        QuotaKey::RequestPercentage,
        QuotaKey::ControllerMutationRate,
        QuotaKey::ConnectionCreationRate,
    ];

    /// Kafka's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            QuotaKey::ProducerByteRate => "producer_byte_rate",
            QuotaKey::ConsumerByteRate => "consumer_byte_rate",
            QuotaKey::RequestPercentage => "request_percentage",
            QuotaKey::ControllerMutationRate => "controller_mutation_rate",
            QuotaKey::ConnectionCreationRate => "connection_creation_rate",
        }
    }

    /// The most that it can be, where it must be a whole number.
    const fn whole_max(self) -> Option<f64> {
        match self {
            QuotaKey::ProducerByteRate | QuotaKey::ConsumerByteRate => Some(i64::MAX as f64),
            QuotaKey::ConnectionCreationRate => Some(i32::MAX as f64),
            QuotaKey::RequestPercentage | QuotaKey::ControllerMutationRate => None,
        }
    }
}

/// How much of it: a number above 0, which is kept by its bits so that it can be compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Rate(u64);

impl Rate {
    /// Or why it cannot be, in Kafka's words.
    pub(crate) fn new(key: QuotaKey, value: f64) -> Result<Rate, String> {
        let name = key.name();
        // That it is no number is no better.
        if value.is_nan() || value <= 0.0 {
            return Err(format!("Quota {name} must be greater than 0"));
        }
        if let Some(max) = key.whole_max() {
            if value > max {
                let kind = if key == QuotaKey::ConnectionCreationRate {
                    "INT"
                } else {
                    "LONG"
                };
                return Err(format!("Proposed value for {name} is too large for {kind}."));
            }
            if value.fract() != 0.0 {
                return Err(format!("{name} cannot be a fractional value."));
            }
        } else if value.is_infinite() {
            return Err(format!("Quota {name} must be finite"));
        }
        Ok(Rate(value.to_bits()))
    }

    pub(crate) fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Who is meant by a part of an entity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Name {
    /// Each that has no quota of its own.
    Default,
    Is(String),
}

/// Whose a quota is: a user's, a client id's, a user's with a client id, or an address's.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Entity {
    pub(crate) user: Option<Name>,
    pub(crate) client: Option<Name>,
    pub(crate) ip: Option<Name>,
}

impl Entity {
    /// The same as it is kept; or why there is no such entity, in Kafka's words.
    pub(crate) fn checked(mut self) -> Result<Entity, String> {
        if self == Entity::default() {
            return Err("Invalid empty client quota entity".to_owned());
        }
        for (what, name) in [("user", &self.user), ("client-id", &self.client), ("ip", &self.ip)] {
            let Some(Name::Is(name)) = name else { continue };
            if name.is_empty() {
                return Err(format!("Empty {what} not supported"));
            }
            if name.len() > NAME_LEN_MAX || name.contains(char::is_control) {
                return Err(format!(
                    "the {what} is longer than {NAME_LEN_MAX} bytes, or has control characters"
                ));
            }
        }
        if self.ip.is_some() && (self.user.is_some() || self.client.is_some()) {
            return Err(
                "Invalid quota entity combination, IP entity should not be combined with User or ClientId".to_owned(),
            );
        }
        if let Some(Name::Is(ip)) = &mut self.ip {
            *ip = address(ip).ok_or_else(|| format!("{ip} is not a valid IP or resolvable host."))?;
        }
        Ok(self)
    }

    /// Whether something can be limited for it.
    pub(crate) fn can_have(&self, key: QuotaKey) -> bool {
        self.ip.is_some() == (key == QuotaKey::ConnectionCreationRate)
    }

    /// What can be limited for it by this name; or why not, in Kafka's words.
    pub(crate) fn key(&self, name: &str) -> Result<QuotaKey, String> {
        let known = QuotaKey::ALL.iter().copied().find(|key| key.name() == name);
        known
            .filter(|key| self.can_have(*key))
            .ok_or_else(|| format!("Invalid configuration key {name}"))
    }
}

/// An address as it is kept, in the one of its forms that all have.
pub(crate) fn address(text: &str) -> Option<String> {
    let address: IpAddr = text.parse().ok()?;
    Some(address.to_canonical().to_string())
}

/// What is to become of the quotas of an entity; `None`: there is to be none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuotaAlteration {
    pub(crate) entity: Entity,
    pub(crate) values: Vec<(QuotaKey, Option<Rate>)>,
}

/// The quotas of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) entity: Entity,
    pub(crate) values: Vec<(QuotaKey, Rate)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_limited_is_refused_in_words_of_kafka() {
        let is = |name: &str| Some(Name::Is(name.to_owned()));
        let user = Entity {
            user: is("alice"),
            ..Entity::default()
        };
        let ip = |text| Entity {
            ip: is(text),
            ..Entity::default()
        };
        assert_eq!(user.clone().checked(), Ok(user.clone()));
        assert_eq!(ip("0:0:0:0:0:0:0:1").checked(), Ok(ip("::1")));
        assert_eq!(ip("::ffff:10.0.0.1").checked(), Ok(ip("10.0.0.1")));
        for (wrong, why) in [
            (Entity::default(), "Invalid empty client quota entity"),
            (ip("notanip!!"), "notanip!! is not a valid IP or resolvable host."),
            (
                Entity {
                    ip: Some(Name::Default),
                    ..user.clone()
                },
                "Invalid quota entity combination, IP entity should not be combined with User or ClientId",
            ),
            (
                Entity {
                    client: is(""),
                    ..Entity::default()
                },
                "Empty client-id not supported",
            ),
        ] {
            assert_eq!(wrong.checked(), Err(why.to_owned()));
        }
        assert_eq!(user.key("foo"), Err("Invalid configuration key foo".to_owned()));
        assert!(user.key("connection_creation_rate").is_err() && ip("::1").key("producer_byte_rate").is_err());
        let rate = |value| Rate::new(QuotaKey::ProducerByteRate, value).map(Rate::get);
        assert_eq!(rate(1024.0), Ok(1024.0));
        assert_eq!(
            rate(1.5),
            Err("producer_byte_rate cannot be a fractional value.".to_owned())
        );
        for wrong in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(
                rate(wrong),
                Err("Quota producer_byte_rate must be greater than 0".to_owned())
            );
        }
        assert!(rate(f64::INFINITY).is_err());
        let percentage = |value| Rate::new(QuotaKey::RequestPercentage, value).map(Rate::get);
        assert_eq!(percentage(12.5), Ok(12.5));
        assert!(percentage(f64::INFINITY).is_err());
    }
}
