//! What one broker is told of the cluster's brokers and replicas at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_protocol::id::{BrokerId, CoreId};

use super::{
    broker::{Broker, Member},
    placements::Placements,
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
    pub placements: Placements,
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
        self.placements.get(id).filter(|_| self.is_of_this_process())
    }

    /// Whether this process is in sync with the leader of a partition, as far as it knows.
    pub(crate) fn is_in_sync(&self, id: PartitionId) -> bool {
        let is_fenced = |own: BrokerId| self.brokers.get(&own).is_none_or(|broker| broker.is_fenced);
        let own = self.own.broker;
        self.replicas(id).is_some_and(|replicas| replicas.is_in_sync(own)) && !is_fenced(own)
    }

    /// The broker, and its core, that a consumer in this rack is to read a partition from instead of the one that is told: an in-sync
    /// replica in the rack. `None` if that one is in the rack itself, or nobody is of whom `may_be` holds. Of several each has its share
    /// of the partitions.
    pub(crate) fn nearest(
        &self,
        id: PartitionId,
        rack: &str,
        may_be: impl Fn(BrokerId) -> bool,
    ) -> Option<(BrokerId, CoreId)> {
        let replicas = self.replicas(id)?;
        let in_rack = |broker: &BrokerId| {
            let broker = self.brokers.get(broker);
            broker.filter(|broker| broker.rack.as_deref() == Some(rack) && !broker.is_fenced)
        };
        if in_rack(&self.own.broker).is_some() {
            return None;
        }
        let near = replicas.isr.iter().filter(|broker| may_be(**broker));
        let near: Vec<&Arc<Broker>> = near.filter_map(in_rack).collect();
        let index = id.index.as_usize().checked_rem(near.len())?;
        let cores = near[index].address.core_ports.len();
        (cores > 0).then(|| (near[index].id, id.owner(cores)))
    }

    /// The broker, and its core, that leads a partition while somebody does.
    pub(crate) fn leader_of(&self, id: PartitionId) -> Option<(&Arc<Broker>, CoreId)> {
        let leader = self.placements.get(id)?.leader?;
        let broker = self.brokers.get(&leader)?;
        let cores = broker.address.core_ports.len();
        (cores > 0).then(|| (broker, id.owner(cores)))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::image::{Address, Durability, Incarnation, Placed, Terms};

    const TERMS: Terms = Terms {
        min_isr: 1,
        durability: Durability::Disk,
    };

    fn registered(id: i32, incarnation: u64, rack: Option<&str>) -> Broker {
        Broker {
            id: BrokerId::new(id),
            process: Uuid::nil(),
            incarnation: Incarnation::new(incarnation),
            store: Uuid::nil(),
            address: Address {
                host: "localhost".to_owned(),
                port: 1,
                core_ports: vec![2, 3],
            },
            rack: rack.map(str::to_owned),
            is_fenced: false,
            is_cordoned: false,
            kafka: None,
        }
    }

    /// A topic of so many partitions, all with these replicas.
    fn placed(replicas: &Replicas, count: usize) -> Placements {
        let placed = Placed {
            terms: TERMS,
            partitions: (0..count).map(|_| Arc::new(replicas.clone())).collect(),
        };
        [(PartitionId::of_test(0).topic, placed)].into_iter().collect()
    }

    #[test]
    fn a_consumer_is_sent_to_a_replica_in_its_rack_that_is_in_sync_and_has_what_it_asks_for() {
        let ids = [1, 2, 3, 4].map(BrokerId::new);
        let racks = [Some("a"), Some("b"), Some("b"), None];
        let brokers = ids.into_iter().zip(racks);
        let brokers = brokers.map(|(id, rack)| (id, Arc::new(registered(id.get(), 1, rack))));
        let mut told = Assignment {
            own: Member {
                broker: ids[0],
                incarnation: Incarnation::new(1),
            },
            brokers: brokers.collect(),
            placements: placed(&Replicas::new(ids.to_vec(), ids.to_vec(), TERMS), 4),
        };
        let all = |_| true;
        let nearest = |told: &Assignment, rack| {
            (0..4)
                .map(|index| told.nearest(PartitionId::of_test(index), rack, all))
                .collect()
        };
        let near: Vec<_> = nearest(&told, "b");
        let expected = [2, 3, 2, 3].map(BrokerId::new).into_iter().zip(0..);
        let expected: Vec<_> = expected
            .map(|(id, index)| Some((id, PartitionId::of_test(index).owner(2))))
            .collect();
        assert_eq!(near, expected, "each has its share");
        assert_eq!(
            told.nearest(PartitionId::of_test(0), "b", |id| id == ids[2]).unwrap().0,
            ids[2]
        );
        let nobody: [Vec<_>; 2] = ["a", "c"].map(|rack| nearest(&told, rack));
        assert!(
            nobody.iter().flatten().all(Option::is_none),
            "the leader is there, or nobody is"
        );
        Arc::make_mut(told.brokers.get_mut(&ids[1]).unwrap()).is_fenced = true;
        assert_eq!(
            told.nearest(PartitionId::of_test(0), "b", all).unwrap().0,
            ids[2],
            "fenced"
        );
        let isr = vec![ids[0], ids[1], ids[3]];
        told.placements
            .replace(PartitionId::of_test(0), Replicas::new(ids.to_vec(), isr, TERMS));
        assert_eq!(told.nearest(PartitionId::of_test(0), "b", all), None, "not in sync");
        assert!(told.is_in_sync(PartitionId::of_test(0)));
        Arc::make_mut(told.brokers.get_mut(&ids[0]).unwrap()).is_fenced = true;
        assert!(!told.is_in_sync(PartitionId::of_test(0)), "it is fenced");
    }

    #[test]
    fn what_is_decided_for_another_process_is_not_for_this_one() {
        let id = BrokerId::new(1);
        let partition = PartitionId::of_test(0);
        let told_to = |incarnation| Assignment {
            own: Member {
                broker: id,
                incarnation: Incarnation::new(incarnation),
            },
            brokers: [(id, Arc::new(registered(1, 5, None)))].into(),
            placements: placed(&Replicas::new(vec![id], vec![id], TERMS), 1),
        };
        assert!(told_to(5).replicas(partition).is_some());
        assert!(told_to(4).replicas(partition).is_none(), "it has begun anew since");
        assert_eq!(told_to(4).leader_of(partition).unwrap().1, partition.owner(2));
    }
}
