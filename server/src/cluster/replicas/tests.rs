//! What holds of replicas whatever is asked for, and what becomes of a partition in each case that has a name.

mod balance;
mod cases;
mod invariants;
mod spread;

use std::sync::Arc;

use headwater_protocol::id::{BrokerId, PartitionIndex, TopicId};
use uuid::Uuid;

use super::{Election, IsrChange, Registration, ReplicaCommand as Command, ReplicaError, ReplicaMap, state::Applied};
use crate::{
    image::{Address, Broker, Durability, Incarnation, Replicas, Terms},
    model::id::PartitionId,
};

const TOPIC: TopicId = TopicId::new(Uuid::from_u128(7));

fn broker(id: i32) -> BrokerId {
    BrokerId::new(id)
}

fn brokers(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(broker).collect()
}

fn partition(index: i32) -> PartitionId {
    PartitionId {
        topic: TOPIC,
        index: PartitionIndex::new(index),
    }
}

fn terms(min_isr: u16, durability: Durability) -> Terms {
    Terms { min_isr, durability }
}

fn registration(id: i32, process: u128) -> Registration {
    Registration {
        id: broker(id),
        process: Uuid::from_u128(process),
        store: Uuid::from_u128(id as u128),
        opened: 1,
        was_clean: false,
        address: Address {
            host: "localhost".to_owned(),
            port: 9000,
            core_ports: vec![9001, 9002],
        },
        rack: None,
    }
}

/// What each command makes of a state, and panics where it is refused.
#[derive(Debug, Clone, Default)]
struct Cluster {
    map: ReplicaMap,
    processes: u128,
}

impl Cluster {
    /// Brokers 1 to `count`, all up, and one partition on them in this order.
    fn new(count: i32, min_isr: u16, durability: Durability) -> Cluster {
        let mut cluster = Cluster::default();
        for id in 1..=count {
            cluster.begins(id);
        }
        let command = Command::Place {
            topic: TOPIC,
            terms: terms(min_isr, durability),
            replicas: vec![(1..=count).map(broker).collect()],
        };
        cluster.take(&command);
        cluster
    }

    fn take(&mut self, command: &Command) -> Applied {
        let (next, applied) = self.map.apply(command).unwrap();
        self.map = next;
        applied
    }

    /// Why the command is refused for the partition.
    fn refused(&mut self, command: &Command) -> ReplicaError {
        let mut applied = self.take(command);
        assert!(applied.changed.is_empty(), "{applied:?}");
        applied.refused.pop().unwrap().1
    }

    fn incarnation(&self, id: i32) -> Incarnation {
        self.map.broker(broker(id)).unwrap().incarnation
    }

    fn registers(&mut self, change: impl FnOnce(&mut Registration), id: i32) {
        self.processes += 1;
        let mut registration = registration(id, self.processes);
        change(&mut registration);
        self.take(&Command::Register(registration));
    }

    /// A new process of the broker is up.
    fn begins(&mut self, id: i32) {
        self.registers(|_| {}, id);
        self.unfence(id);
    }

    fn fence(&mut self, id: i32) {
        let incarnation = self.incarnation(id);
        let id = broker(id);
        self.take(&Command::Fence { id, incarnation });
    }

    fn unfence(&mut self, id: i32) {
        let incarnation = self.incarnation(id);
        let id = broker(id);
        self.take(&Command::Unfence { id, incarnation });
    }

    fn replicas(&self) -> &Replicas {
        self.map.replicas(partition(0)).unwrap()
    }

    /// What the leader asks for.
    fn wish(&self, isr: &[i32]) -> Command {
        let replicas = self.replicas();
        let from = replicas.leader.unwrap_or(broker(0));
        let joining = isr.iter().filter(|id| !replicas.is_in_sync(broker(**id)));
        let change = IsrChange {
            id: partition(0),
            leader_epoch: replicas.leader_epoch,
            epoch: replicas.epoch,
            stay: brokers(isr).into_iter().filter(|id| replicas.is_in_sync(*id)).collect(),
            join: joining.map(|id| (broker(*id), self.incarnation(*id))).collect(),
        };
        Command::Alter {
            from,
            incarnation: self.incarnation(from.get()),
            changes: vec![change],
        }
    }

    fn set_isr(&mut self, isr: &[i32]) {
        let wish = self.wish(isr);
        let applied = self.take(&wish);
        assert_eq!(applied.refused, []);
    }

    /// Leader, in-sync and eligible replicas.
    fn told(&self) -> (Option<i32>, Vec<i32>, Vec<i32>) {
        let numbers = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.get()).collect();
        let replicas = self.replicas();
        (
            replicas.leader.map(BrokerId::get),
            numbers(&replicas.isr),
            numbers(&replicas.elr),
        )
    }
}

fn up(map: &ReplicaMap, id: BrokerId) -> bool {
    map.broker(id).is_some_and(|broker: &Arc<Broker>| !broker.is_fenced)
}
