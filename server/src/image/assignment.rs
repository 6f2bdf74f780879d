//! What one broker is told of the cluster's brokers and replicas at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_protocol::id::{BrokerId, CoreId};

use super::{
    broker::{Broker, Member},
    replicas::Replicas,
};
use crate::model::id::PartitionId;

/// Who a broker is in its cluster, who else is there, and who has which partition: a picture that is replaced as a whole. A broker
/// that has none is alone, and has all partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The broker that is told, as the process that is registered.
    pub own: Member,
    /// All brokers.
    pub brokers: BTreeMap<BrokerId, Arc<Broker>>,
    /// The replicas of partitions. Nobody has one that is not here.
    pub partitions: BTreeMap<PartitionId, Replicas>,
}

impl Assignment {
    /// Whether it is the process that is told that is registered. Another one has taken its place otherwise, or it is not known yet:
    /// what is decided then is not decided for it.
    pub(crate) fn is_of_this_process(&self) -> bool {
        let registered = self.brokers.get(&self.own.broker);
        registered.is_some_and(|registered| registered.incarnation == self.own.incarnation)
    }

    /// The replicas of a partition, as far as this process has a part in them.
    pub(crate) fn replicas(&self, id: PartitionId) -> Option<&Replicas> {
        self.partitions.get(&id).filter(|_| self.is_of_this_process())
    }

    /// The broker, and its core, that leads a partition while somebody does.
    pub(crate) fn leader_of(&self, id: PartitionId) -> Option<(&Arc<Broker>, CoreId)> {
        let leader = self.partitions.get(&id)?.leader?;
        let broker = self.brokers.get(&leader)?;
        let cores = broker.address.core_ports.len();
        (cores > 0).then(|| (broker, id.owner(cores)))
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::id::{PartitionIndex, TopicId};
    use uuid::Uuid;

    use super::*;
    use crate::image::{Address, Durability, Incarnation, Terms};

    #[test]
    fn what_is_decided_for_another_process_is_not_for_this_one() {
        let id = BrokerId::new(1);
        let registered = |incarnation| Broker {
            id,
            process: Uuid::nil(),
            incarnation: Incarnation::new(incarnation),
            store: Uuid::nil(),
            address: Address {
                host: "localhost".to_owned(),
                port: 1,
                core_ports: vec![2, 3],
            },
            rack: None,
            is_fenced: false,
            is_cordoned: false,
        };
        let terms = Terms {
            min_isr: 1,
            durability: Durability::Disk,
        };
        let partition = PartitionId {
            topic: TopicId::new(Uuid::from_u128(1)),
            index: PartitionIndex::new(0),
        };
        let told_to = |incarnation| Assignment {
            own: Member {
                broker: id,
                incarnation: Incarnation::new(incarnation),
            },
            brokers: [(id, Arc::new(registered(5)))].into(),
            partitions: [(partition, Replicas::new(vec![id], vec![id], terms))].into(),
        };
        assert!(told_to(5).replicas(partition).is_some());
        assert!(told_to(4).replicas(partition).is_none(), "it has begun anew since");
        assert_eq!(told_to(4).leader_of(partition).unwrap().1, partition.owner(2));
    }
}
