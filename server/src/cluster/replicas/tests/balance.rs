//! Replicas go on to where there are fewer: there is an end to it, each step gains, and nothing becomes less safe.

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::id::PartitionIndex;
use proptest::prelude::*;

use super::*;
use crate::cluster::replicas::{next_moves, under_way};

const BROKERS: i32 = 7;

/// A topic of each, whose partitions are on these brokers.
#[derive(Debug, Clone)]
struct Setting {
    /// The rack of each broker.
    racks: Vec<Option<u8>>,
    fenced: BTreeSet<i32>,
    cordoned: BTreeSet<i32>,
    topics: Vec<Vec<Vec<i32>>>,
}

fn any_setting() -> impl Strategy<Value = Setting> {
    let count = 2..=BROKERS;
    count.prop_flat_map(|count| {
        let racks = prop_oneof![
            1 => Just(vec![None; count as usize]),
            2 => prop::collection::vec(prop::option::weighted(0.9, 0..3_u8), count as usize),
        ];
        let few = || prop::collection::btree_set(1..=count, 0..=(count as usize - 1) / 2);
        // The first brokers have most of it.
        let replicas = (1..=count, 1..=count, 1..=count, 1..=3_usize).prop_map(|(a, b, c, factor)| {
            let mut distinct: Vec<i32> = vec![a.min(b), b, c.min(a)];
            let mut seen = BTreeSet::new();
            distinct.retain(|id| seen.insert(*id));
            distinct.truncate(factor);
            distinct
        });
        let topics = prop::collection::vec(prop::collection::vec(replicas, 1..20), 1..4);
        (racks, few(), few(), topics).prop_map(|(racks, fenced, cordoned, topics)| Setting {
            racks,
            fenced,
            cordoned,
            topics,
        })
    })
}

impl Setting {
    fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::default();
        for (id, rack) in (1..).zip(&self.racks) {
            cluster.registers(|new| new.rack = rack.map(|rack| rack.to_string()), id);
            cluster.unfence(id);
        }
        for (number, partitions) in (1..).zip(&self.topics) {
            cluster.take(&Command::Place {
                topic: TopicId::new(Uuid::from_u128(number)),
                terms: terms(1, Durability::Disk),
                replicas: partitions.iter().map(|ids| brokers(ids)).collect(),
            });
        }
        self.fenced.iter().for_each(|id| cluster.fence(*id));
        for id in &self.cordoned {
            let id = broker(*id);
            cluster.take(&Command::Cordon { id, is_cordoned: true });
        }
        cluster
    }
}

impl Cluster {
    fn usable(&self) -> Vec<BrokerId> {
        let usable = self
            .map
            .brokers()
            .filter(|broker| !broker.is_fenced && !broker.is_cordoned);
        usable.map(|broker| broker.id).collect()
    }

    /// What usable brokers have, and are to lead, when all moves are done.
    fn counts(&self) -> [BTreeMap<BrokerId, i64>; 2] {
        let none: BTreeMap<BrokerId, i64> = self.usable().into_iter().map(|id| (id, 0)).collect();
        let mut counts = [none.clone(), none];
        for (_, replicas) in self.map.partitions() {
            for (place, id) in replicas.target().enumerate() {
                for counts in counts.iter_mut().take(if place == 0 { 2 } else { 1 }) {
                    counts.entry(id).and_modify(|count| *count += 1);
                }
            }
        }
        counts
    }

    /// How uneven it is: replicas first.
    fn unevenness(&self) -> [i64; 2] {
        self.counts()
            .map(|counts| counts.values().map(|count| count * count).sum())
    }

    fn racks(&self, ids: &[BrokerId]) -> usize {
        let racks = ids.iter().filter_map(|id| self.map.broker(*id).unwrap().rack.clone());
        racks.collect::<BTreeSet<_>>().len()
    }

    /// Whoever is taken in has caught up.
    fn arrives(&mut self, id: PartitionId) {
        let replicas = self.map.replicas(id).unwrap().clone();
        let from = replicas.leader.unwrap();
        let join = replicas.adding.iter().map(|id| (*id, self.incarnation(id.get())));
        let change = IsrChange {
            id,
            leader_epoch: replicas.leader_epoch,
            epoch: replicas.epoch,
            stay: replicas.isr.clone(),
            join: join.collect(),
        };
        let incarnation = self.incarnation(from.get());
        let changes = vec![change];
        self.take(&Command::Alter {
            from,
            incarnation,
            changes,
        });
    }

    /// Checks what is proposed, and has it begun.
    fn begin(&mut self, moves: &[(PartitionId, Vec<BrokerId>)]) {
        let usable = self.usable();
        for (id, target) in moves {
            let before = self.map.replicas(*id).unwrap().clone();
            assert!(
                before.adding.is_empty() && before.isr.len() == before.replicas.len(),
                "it is whole"
            );
            assert_eq!(target.len(), before.replicas.len());
            let distinct: BTreeSet<&BrokerId> = target.iter().collect();
            assert_eq!(distinct.len(), target.len());
            for new in target.iter().filter(|id| !before.has(**id)) {
                assert!(usable.contains(new), "{new} gets nothing");
            }
            assert!(
                self.racks(target) >= self.racks(&before.replicas),
                "{before:?}: {target:?}"
            );
        }
        let partitions = moves.iter().map(|(id, target)| (*id, Some(target.clone())));
        let unevenness = self.unevenness();
        let applied = self.take(&Command::Reassign {
            partitions: partitions.collect(),
        });
        assert_eq!(applied.refused, []);
        assert!(self.unevenness() < unevenness, "every step gains: {moves:?}");
    }
}

proptest! {
    #[test]
    fn brokers_come_to_have_as_many_each_by_steps_that_all_gain_and_then_nothing_moves(
        setting in any_setting(),
        at_once in 1..4_usize,
        ends in prop::collection::vec(any::<bool>(), 1..200),
    ) {
        let mut cluster = setting.cluster();
        let mut ends = ends.into_iter().cycle();
        let all: usize = setting.topics.iter().flatten().map(Vec::len).sum();
        for step in 0.. {
            // Each replica goes at most to every broker, and is to lead there once.
            prop_assert!(step <= 2 * all * BROKERS as usize + 2, "there is no end to it");
            let more = at_once - under_way(&cluster.map).min(at_once);
            let moves = next_moves(&cluster.map, more);
            prop_assert!(moves.len() <= more);
            if !moves.is_empty() {
                cluster.begin(&moves);
            }
            let moving: Vec<PartitionId> = cluster.map.partitions()
                .filter(|(_, replicas)| !replicas.adding.is_empty()).map(|(id, _)| id).collect();
            if moves.is_empty() && moving.is_empty() {
                break;
            }
            for id in moving {
                if moves.is_empty() || ends.next().unwrap() {
                    cluster.arrives(id);
                }
            }
        }
        let [replicas, _] = cluster.counts();
        let spread = |counts: &BTreeMap<BrokerId, i64>| {
            counts.values().max().unwrap_or(&0) - counts.values().min().unwrap_or(&0)
        };
        let slack = |counts: &BTreeMap<BrokerId, i64>| {
            (counts.values().sum::<i64>() / counts.len() as i64 / 10).max(1)
        };
        // Neither racks nor anybody who is away stand against it.
        let is_free = setting.racks.iter().all(Option::is_none) && setting.fenced.is_empty() && setting.cordoned.is_empty();
        if is_free {
            prop_assert!(spread(&replicas) <= slack(&replicas), "{replicas:?}");
        }
    }
}

#[test]
fn a_broker_that_joins_gets_its_share_of_each_topic_and_of_the_leaders_and_no_more_moves_than_that() {
    let racks = vec![None; 4];
    let of_topic = || (0..12).map(|index| vec![1 + index % 3, 1 + (index + 1) % 3]).collect();
    let setting = Setting {
        racks,
        fenced: BTreeSet::new(),
        cordoned: BTreeSet::new(),
        topics: vec![of_topic(), of_topic()],
    };
    let mut cluster = setting.cluster();
    let mut count = 0;
    loop {
        let moves = next_moves(&cluster.map, 2);
        if moves.is_empty() {
            break;
        }
        count += moves.len();
        cluster.begin(&moves);
        for (id, _) in moves {
            if !cluster.map.replicas(id).unwrap().adding.is_empty() {
                cluster.arrives(id);
            }
        }
    }
    let [replicas, preferred] = cluster.counts();
    let new = broker(4);
    assert_eq!(replicas.values().sum::<i64>(), 48);
    assert!((11..=12).contains(&replicas[&new]), "{replicas:?}");
    assert!((5..=6).contains(&preferred[&new]), "{preferred:?}");
    assert!(count <= 12, "{count} moves");
    for number in 1..=2 {
        let topic = TopicId::new(Uuid::from_u128(number));
        let has = cluster
            .map
            .replicas_of(topic)
            .iter()
            .filter(|replicas| replicas.has(new));
        assert!((5..=6).contains(&has.count()));
    }
    let index = PartitionIndex::new(0);
    let id = PartitionId {
        topic: TopicId::new(Uuid::from_u128(1)),
        index,
    };
    assert_eq!(next_moves(&cluster.map, 9), [], "{:?}", cluster.map.replicas(id));
}
