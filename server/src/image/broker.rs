//! A broker as the cluster knows it.

use std::{fmt, sync::Arc};

use headwater_protocol::id::{BrokerId, CoreId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{config::KAFKA_NODES_OF_A_BROKER, model::plain};

/// The number of a broker's process among all that have ever registered: whoever registers later has a higher one. What a process of
/// before still says is told from what the one of now says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(u64);

impl Incarnation {
    /// Wraps the number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One broker's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The broker.
    pub broker: BrokerId,
    /// Its process.
    pub incarnation: Incarnation,
}

/// Where a broker is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Name or address of the host.
    pub host: String,
    /// The port that all its cores share.
    pub port: u16,
    /// The port of each core; there is a core for each.
    pub core_ports: Vec<u16>,
}

/// Where clients of Kafka's protocol reach a broker: as one node, or each of its cores as a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaAddress {
    /// Name or address of the host.
    pub host: String,
    /// The port that all its cores share.
    pub port: u16,
    /// The port of each core, if each is a node.
    pub core_ports: Vec<u16>,
}

impl KafkaAddress {
    /// The number of the node that is this core of the broker, and its port. No other broker's node has that number, whether cores are
    /// nodes there or not, and however many it has or had.
    pub(crate) fn node(&self, broker: BrokerId, core: CoreId) -> (i32, u16) {
        match self.core_ports.get(usize::from(core.get())) {
            Some(port) => (first_node(broker).saturating_add(core.get().into()), *port),
            None => (first_node(broker), self.port),
        }
    }

    /// Every node that the broker is.
    pub(crate) fn nodes(&self, broker: BrokerId) -> impl Iterator<Item = (i32, u16)> + '_ {
        let count = self.core_ports.len().max(1) as u16;
        (0..count).map(move |core| self.node(broker, CoreId::new(core)))
    }
}

/// The number of a broker's first node, which is its only one if its cores are none.
pub(crate) fn first_node(broker: BrokerId) -> i32 {
    broker.get().saturating_mul(KAFKA_NODES_OF_A_BROKER)
}

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    /// Its number.
    #[serde(with = "plain")]
    pub id: BrokerId,
    /// Its process, as it was drawn when that began: who registers again under the same one is the same process.
    pub process: Uuid,
    /// The number of that process.
    pub incarnation: Incarnation,
    /// The identity of its data directory: with another one, nothing is there of what it had.
    pub store: Uuid,
    /// Where it is reached.
    pub address: Address,
    /// What fails together has the same one.
    pub rack: Option<String>,
    /// It leads nothing and is in sync with nobody.
    pub is_fenced: bool,
    /// It gets no further replicas.
    pub is_cordoned: bool,
    /// Where Kafka's clients reach it, if they do. It is written down apart.
    #[serde(skip)]
    pub kafka: Option<Arc<KafkaAddress>>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_brokers_have_a_node_of_one_number_whatever_their_cores_are_and_were() {
        let mut numbers: BTreeSet<i32> = BTreeSet::new();
        for broker in 0..4 {
            let of_cores = |count: u16| {
                let at = KafkaAddress {
                    host: "localhost".to_owned(),
                    port: 1,
                    core_ports: (0..count).collect(),
                };
                at.nodes(BrokerId::new(broker))
                    .map(|(id, _)| id)
                    .collect::<BTreeSet<i32>>()
            };
            // It was started with so many, or is one node.
            let own: BTreeSet<i32> = [0, 1, 2, KAFKA_NODES_OF_A_BROKER as u16]
                .into_iter()
                .flat_map(of_cores)
                .collect();
            assert_eq!(own.first(), Some(&first_node(BrokerId::new(broker))));
            let before = numbers.len();
            numbers.extend(&own);
            assert_eq!(numbers.len(), before + own.len());
        }
    }
}
