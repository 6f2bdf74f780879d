//! What users, clients and addresses may use of each broker, in Kafka's terms.

use super::Admin;
use crate::error::Error;
use crate::requests;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum QuotaKey {
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
    /// All of them.
    pub const ALL: &[QuotaKey] = &[
        QuotaKey::ProducerByteRate,
        QuotaKey::ConsumerByteRate,
        QuotaKey::RequestPercentage,
        QuotaKey::ControllerMutationRate,
        QuotaKey::ConnectionCreationRate,
    ];

    /// Kafka's name, as tools write it.
    pub const fn name(self) -> &'static str {
        match self {
            QuotaKey::ProducerByteRate => "producer_byte_rate",
            QuotaKey::ConsumerByteRate => "consumer_byte_rate",
            QuotaKey::RequestPercentage => "request_percentage",
            QuotaKey::ControllerMutationRate => "controller_mutation_rate",
            QuotaKey::ConnectionCreationRate => "connection_creation_rate",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<QuotaKey> {
        Self::ALL.iter().copied().find(|known| known.name() == name)
    }
}

/// Who is meant by a part of an entity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum QuotaName {
    /// Each that has no quota of its own.
    Default,
    /// The one of this name.
    Is(String),
}

/// Whose a quota is: a user's, a client id's, a user's with a client id, or an address's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct QuotaEntity {
    /// The user; without a prefix.
    pub user: Option<QuotaName>,
    /// What clients call themselves.
    pub client_id: Option<QuotaName>,
    /// The address, alone.
    pub ip: Option<QuotaName>,
}

/// What somebody may use of each broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Quota {
    /// Who.
    pub entity: QuotaEntity,
    /// What, and how much.
    pub values: Vec<(QuotaKey, f64)>,
}

impl Admin {
    /// All quotas.
    pub async fn quotas(&self) -> Result<Vec<Quota>, Error> {
        let deadline = self.cluster.deadline("list quotas");
        self.cluster
            .ask_any(deadline, &requests::describe_quotas(), requests::read_describe_quotas)
            .await
    }

    /// Sets quotas of an entity, and removes those without a value. What is not named stays as it is.
    ///
    /// # Errors
    /// [`Error::Broker`] if there can be no such entity or value.
    pub async fn alter_quotas(&self, entity: &QuotaEntity, values: &[(QuotaKey, Option<f64>)]) -> Result<(), Error> {
        let deadline = self.cluster.deadline("alter quotas");
        let request = requests::alter_quotas(entity, values);
        self.cluster
            .ask_any(deadline, &request, requests::read_alter_quotas)
            .await
    }
}
