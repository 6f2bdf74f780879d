//! Any commands in any order, with a note beside the state of who truly has what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::id::LeaderEpoch;
use proptest::prelude::*;

use super::*;

/// Brokers and partitions that commands speak of.
const BROKERS: i32 = 5;
const PARTITIONS: i32 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// A new process; whether the one before it ended cleanly, and whether the disk is another.
    Register(i32, bool, bool),
    Fence(i32),
    Unfence(i32),
    Cordon(i32, bool),
    /// The leader of a partition wants this one in sync, or out of it, as it saw the partition so many steps ago.
    Alter(i32, i32, bool, usize),
    Fail(i32, i32),
    Open(i32, i32),
    Prefer(i32),
    Order(i32, i32),
    Move(i32, Vec<i32>),
    Stay(i32),
    Terms(u16, bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let broker = || 1..=BROKERS;
    let partition = || 0..PARTITIONS;
    prop_oneof![
        2 => (broker(), any::<bool>(), prop::bool::weighted(0.1)).prop_map(|(id, clean, new)| Step::Register(id, clean, new)),
        2 => broker().prop_map(Step::Fence),
        5 => broker().prop_map(Step::Unfence),
        1 => (broker(), any::<bool>()).prop_map(|(id, is_cordoned)| Step::Cordon(id, is_cordoned)),
        8 => (partition(), broker(), prop::bool::weighted(0.7), prop_oneof![3 => Just(0), 1 => 1..4_usize])
            .prop_map(|(index, id, joins, ago)| Step::Alter(index, id, joins, ago)),
        1 => (partition(), broker()).prop_map(|(index, id)| Step::Fail(index, id)),
        2 => (partition(), broker()).prop_map(|(index, id)| Step::Open(index, id)),
        2 => partition().prop_map(Step::Prefer),
        1 => (partition(), broker()).prop_map(|(index, id)| Step::Order(index, id)),
        2 => (partition(), prop::collection::vec(broker(), 1..4)).prop_map(|(index, ids)| Step::Move(index, ids)),
        1 => partition().prop_map(Step::Stay),
        1 => (1..4_u16, any::<bool>()).prop_map(|(min_isr, memory)| Step::Terms(min_isr, memory)),
    ]
}

struct World {
    /// The states so far, the one of now last.
    past: Vec<ReplicaMap>,
    processes: u128,
    /// Who has all that was acknowledged, for each partition.
    complete: BTreeMap<PartitionId, BTreeSet<BrokerId>>,
    leaders: BTreeMap<(PartitionId, LeaderEpoch), Option<BrokerId>>,
}

impl World {
    fn new() -> World {
        let mut cluster = Cluster::default();
        (1..=BROKERS).for_each(|id| cluster.begins(id));
        let replicas = [&[1, 2, 3][..], &[2, 3, 4], &[5]].map(brokers).to_vec();
        cluster.take(&Command::Place {
            topic: TOPIC,
            terms: terms(2, Durability::Disk),
            replicas,
        });
        let complete = cluster
            .map
            .partitions()
            .map(|(id, replicas)| (id, replicas.isr.iter().copied().collect()));
        World {
            complete: complete.collect(),
            processes: cluster.processes,
            leaders: BTreeMap::new(),
            past: vec![cluster.map],
        }
    }

    fn now(&self) -> &ReplicaMap {
        &self.past[self.past.len() - 1]
    }

    fn command(&mut self, step: &Step) -> Option<Command> {
        let map = self.now();
        let incarnation = |id| map.broker(broker(id)).unwrap().incarnation;
        Some(match step {
            Step::Register(id, was_clean, is_new) => {
                let store = map.broker(broker(*id)).unwrap().store;
                self.processes += 1;
                let store = if *is_new {
                    Uuid::from_u128(1000 + self.processes)
                } else {
                    store
                };
                Command::Register(Registration {
                    was_clean: *was_clean,
                    store,
                    ..registration(*id, self.processes)
                })
            }
            Step::Fence(id) => Command::Fence {
                id: broker(*id),
                incarnation: incarnation(*id),
            },
            Step::Unfence(id) => Command::Unfence {
                id: broker(*id),
                incarnation: incarnation(*id),
            },
            Step::Cordon(id, is_cordoned) => Command::Cordon {
                id: broker(*id),
                is_cordoned: *is_cordoned,
            },
            Step::Alter(index, id, joins, ago) => {
                let seen = &self.past[self.past.len().saturating_sub(1 + ago)];
                let replicas = seen.replicas(partition(*index)).unwrap();
                let from = replicas.leader?;
                let of = |id: BrokerId| (id, seen.broker(id).unwrap().incarnation);
                let (stay, join) = if *joins {
                    (replicas.isr.clone(), vec![of(broker(*id))])
                } else {
                    let others = replicas.isr.iter().filter(|member| **member != broker(*id));
                    (others.copied().collect(), vec![])
                };
                let change = IsrChange {
                    id: partition(*index),
                    leader_epoch: replicas.leader_epoch,
                    epoch: replicas.epoch,
                    stay,
                    join,
                };
                Command::Alter {
                    from,
                    incarnation: of(from).1,
                    changes: vec![change],
                }
            }
            Step::Fail(index, id) => report(*id, incarnation(*id), Some(*index), None),
            Step::Open(index, id) => report(*id, incarnation(*id), None, Some(*index)),
            Step::Prefer(index) => Command::Elect {
                partitions: vec![partition(*index)],
                how: Election::Preferred,
            },
            Step::Order(index, id) => Command::Elect {
                partitions: vec![partition(*index)],
                how: Election::Unclean(broker(*id)),
            },
            Step::Move(index, target) => Command::Reassign {
                partitions: vec![(partition(*index), Some(brokers(target)))],
            },
            Step::Stay(index) => Command::Reassign {
                partitions: vec![(partition(*index), None)],
            },
            Step::Terms(min_isr, is_memory) => {
                let durability = if *is_memory {
                    Durability::Memory
                } else {
                    Durability::Disk
                };
                Command::SetTerms {
                    topic: TOPIC,
                    terms: terms(*min_isr, durability),
                }
            }
        })
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let Some(command) = self.command(step) else {
            return Ok(());
        };
        let applied = self.now().apply(&command);
        prop_assert_eq!(&applied, &self.now().apply(&command), "not always the same");
        let Ok((next, applied)) = applied else { return Ok(()) };
        for (id, after) in next.partitions() {
            let before = self.now().replicas(id).unwrap();
            prop_assert_eq!(before != after, applied.changed.contains(&id));
            check_step(before, after)?;
        }
        self.past.push(next);
        self.note(step);
        let map = self.past.last().unwrap();
        for (id, replicas) in map.partitions() {
            check_state(map, replicas)?;
            let leader = self
                .leaders
                .entry((id, replicas.leader_epoch))
                .or_insert(replicas.leader);
            prop_assert_eq!(*leader, replicas.leader, "two leaders in one epoch");
            let complete = &self.complete[&id];
            for broker in replicas.isr.iter().chain(&replicas.elr) {
                prop_assert!(
                    complete.contains(broker),
                    "broker {} lacks what was acknowledged: {:?}",
                    broker,
                    replicas
                );
            }
        }
        Ok(())
    }

    /// What a step has done to what brokers truly have.
    fn note(&mut self, step: &Step) {
        let map = self.past.last().unwrap();
        for (id_of, complete) in &mut self.complete {
            let replicas = map.replicas(*id_of).unwrap();
            match step {
                Step::Register(id, was_clean, is_new)
                    if *is_new || (!was_clean && replicas.terms.durability == Durability::Memory) =>
                {
                    complete.remove(&broker(*id));
                }
                Step::Fail(_, id) if replicas.terms.durability == Durability::Memory => {
                    let before = self.past[self.past.len() - 2].replicas(*id_of).unwrap();
                    if replicas.offline.contains(&broker(*id)) && !before.offline.contains(&broker(*id)) {
                        complete.remove(&broker(*id));
                    }
                }
                // Whoever joins has caught up; what others have beyond one that leads by order is given up.
                Step::Alter(..) | Step::Order(..) => complete.extend(&replicas.isr),
                _ => {}
            }
            // As much as can be is acknowledged at once.
            if replicas.has_quorum() {
                *complete = replicas.isr.iter().copied().collect();
            }
        }
    }
}

fn report(id: i32, incarnation: Incarnation, failed: Option<i32>, opened: Option<i32>) -> Command {
    Command::Report {
        from: broker(id),
        incarnation,
        failed: failed.into_iter().map(partition).collect(),
        opened: opened.into_iter().map(partition).collect(),
    }
}

fn check_step(before: &Replicas, after: &Replicas) -> Result<(), TestCaseError> {
    let grew = after.leader_epoch > before.leader_epoch;
    prop_assert!(after.leader_epoch >= before.leader_epoch);
    let has_lost_one = before.replicas.iter().any(|broker| !after.has(*broker));
    let is_led_anew = after.leader != before.leader || has_lost_one;
    prop_assert_eq!(grew, is_led_anew, "{:?} {:?}", before, after);
    let expected = before.epoch.get() + u64::from(after != before);
    prop_assert_eq!(after.epoch.get(), expected);
    Ok(())
}

fn check_state(map: &ReplicaMap, replicas: &Replicas) -> Result<(), TestCaseError> {
    let place = |broker: &BrokerId| replicas.replicas.iter().position(|replica| replica == broker);
    for list in [&replicas.isr, &replicas.elr] {
        let places: Vec<Option<usize>> = list.iter().map(place).collect();
        prop_assert!(
            places.iter().all(Option::is_some) && places.is_sorted(),
            "{:?}",
            replicas
        );
    }
    let distinct: BTreeSet<_> = replicas.isr.iter().chain(&replicas.elr).collect();
    prop_assert_eq!(distinct.len(), replicas.isr.len() + replicas.elr.len());
    let usable = |broker: &BrokerId| up(map, *broker) && !replicas.offline.contains(broker);
    prop_assert!(replicas.isr.iter().all(usable), "{:?}", replicas);
    prop_assert!(!replicas.has_quorum() || replicas.elr.is_empty(), "{:?}", replicas);
    if let Some(leader) = replicas.leader {
        prop_assert!(replicas.is_in_sync(leader), "{:?}", replicas);
    } else {
        prop_assert!(replicas.isr.is_empty(), "{:?}", replicas);
        prop_assert!(!replicas.elr.iter().any(usable), "somebody could lead: {:?}", replicas);
    }
    let is_replica = |broker: &&BrokerId| replicas.has(**broker);
    let moving = || replicas.adding.iter().chain(&replicas.removing);
    prop_assert!(moving().chain(&replicas.offline).all(|broker| is_replica(&broker)));
    prop_assert!(!replicas.adding.iter().any(|broker| replicas.removing.contains(broker)));
    let is_done = replicas.target().all(|broker| replicas.is_in_sync(broker));
    prop_assert!(
        !is_done || moving().next().is_none(),
        "the others should have gone: {:?}",
        replicas
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whoever_leads_or_may_lead_has_all_that_was_acknowledged_and_an_epoch_has_one_leader(
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step)?;
        }
    }
}
