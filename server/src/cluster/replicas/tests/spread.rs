//! Where new partitions go.

use std::collections::BTreeMap;

use super::*;
use crate::cluster::replicas::{place, without};

fn some_brokers(count: i32, cores: usize, rack_of: impl Fn(i32) -> Option<i32>) -> Vec<Arc<Broker>> {
    let broker = |id| {
        let Registration {
            process,
            store,
            address,
            ..
        } = registration(id, 1);
        Arc::new(Broker {
            id: broker(id),
            process,
            store,
            incarnation: Incarnation::new(1),
            address: Address {
                core_ports: vec![1; cores],
                ..address
            },
            rack: rack_of(id).map(|rack| rack.to_string()),
            is_fenced: false,
            is_cordoned: false,
            kafka: None,
        })
    };
    (1..=count).map(broker).collect()
}

/// The most that one key has more than another, of all these keys.
fn spread<K: Ord>(keys: impl Iterator<Item = K>, things: impl Iterator<Item = K>) -> usize {
    let mut counts: BTreeMap<K, usize> = keys.map(|key| (key, 0)).collect();
    for thing in things {
        *counts.get_mut(&thing).unwrap() += 1;
    }
    counts.values().max().unwrap_or(&0) - counts.values().min().unwrap_or(&0)
}

#[test]
fn replicas_and_leaders_of_a_topic_are_spread_within_one_over_brokers_and_within_two_over_cores() {
    for (count, cores, factor) in (1..=9).flat_map(|count| {
        let cores = [1, 2, 3, 4, 8].into_iter();
        cores.flat_map(move |cores| (1..=count.min(5)).map(move |factor| (count, cores, factor as usize)))
    }) {
        let brokers = some_brokers(count, cores, |_| None);
        for partitions in (1..=40).chain([64, 100]) {
            let placed = place(TOPIC, &[], partitions, factor, brokers.iter()).unwrap();
            let shown = || format!("{count} brokers, {cores} cores, {factor} replicas, {partitions} partitions");
            let ids = || brokers.iter().map(|broker| broker.id);
            let on_core = |index: usize, broker: BrokerId| (broker, partition(index as i32).owner(cores));
            let all_cores = || {
                let on_all = |broker| (0..cores as i32).map(move |index| (broker, partition(index).owner(cores)));
                ids().flat_map(on_all)
            };
            for replicas in &placed {
                let mut distinct = replicas.clone();
                distinct.sort_unstable();
                distinct.dedup();
                assert_eq!(distinct.len(), factor, "{}", shown());
            }
            assert!(
                spread(ids(), placed.iter().flatten().copied()) <= 1,
                "replicas: {}",
                shown()
            );
            assert!(
                spread(ids(), placed.iter().map(|replicas| replicas[0])) <= 1,
                "leaders: {}",
                shown()
            );
            let leaders = placed
                .iter()
                .enumerate()
                .map(|(index, replicas)| on_core(index, replicas[0]));
            assert!(spread(all_cores(), leaders) <= 2, "leaders on cores: {}", shown());
            let replicas = placed.iter().enumerate();
            let replicas =
                replicas.flat_map(|(index, replicas)| replicas.iter().map(move |broker| on_core(index, *broker)));
            assert!(spread(all_cores(), replicas) <= 2, "replicas on cores: {}", shown());
        }
    }
}

#[test]
fn the_replicas_of_a_partition_are_in_as_many_racks_as_there_can_be() {
    for racks in 1..=4_i32 {
        for count in racks..=9 {
            let rack_of = |id| Some(id % racks);
            let brokers = some_brokers(count, 2, rack_of);
            for factor in 1..=count.min(5) {
                for replicas in place(TOPIC, &[], 30, factor as usize, brokers.iter()).unwrap() {
                    let racks_used = replicas.iter().map(|broker| rack_of(broker.get()).unwrap());
                    let all: Vec<i32> = racks_used.clone().collect();
                    let distinct: std::collections::BTreeSet<i32> = racks_used.collect();
                    assert_eq!(
                        distinct.len() as i32,
                        racks.min(factor),
                        "{racks} racks, {count} brokers: {all:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn further_partitions_go_where_the_topic_has_fewest_none_to_cordoned_brokers_and_to_fenced_ones_only_if_need_be() {
    let mut brokers = some_brokers(4, 2, |_| None);
    let first = place(TOPIC, &[], 5, 2, brokers.iter()).unwrap();
    let has: Vec<Arc<Replicas>> = first
        .iter()
        .map(|replicas| {
            Arc::new(Replicas::new(
                replicas.clone(),
                replicas.clone(),
                terms(1, Durability::Disk),
            ))
        })
        .collect();
    let more = place(TOPIC, &has, 7, 2, brokers.iter()).unwrap();
    let all = first.iter().chain(&more).flatten().copied();
    assert_eq!(spread((1..=4).map(broker), all), 0);
    Arc::make_mut(&mut brokers[0]).is_fenced = true;
    Arc::make_mut(&mut brokers[2]).is_cordoned = true;
    let placed = place(TOPIC, &[], 8, 2, brokers.iter()).unwrap();
    assert_eq!(spread([2, 4].into_iter().map(broker), placed.into_iter().flatten()), 0);
    for replicas in place(TOPIC, &[], 8, 3, brokers.iter()).unwrap() {
        assert_eq!(replicas[2], broker(1), "one that is not there is the last choice");
    }
    let refused = place(TOPIC, &[], 1, 4, brokers.iter()).unwrap_err();
    assert_eq!(refused, ReplicaError::TooFewBrokers { factor: 4, usable: 3 });
    for broker in &mut brokers {
        Arc::make_mut(broker).is_fenced = true;
    }
    assert!(place(TOPIC, &[], 1, 1, brokers.iter()).is_err(), "nobody could lead");
}

#[test]
fn of_three_replicas_two_must_be_in_sync_unless_the_topic_says_otherwise() {
    for (replicas, min_isr) in [(1, 1), (2, 1), (3, 2), (5, 2)] {
        assert_eq!(Terms::of_topic(None, Durability::Disk, replicas).min_isr, min_isr);
        assert_eq!(Terms::of_topic(Some(3), Durability::Disk, replicas).min_isr, 3);
    }
}

#[test]
fn a_broker_that_is_drained_has_nothing_left_and_what_it_had_is_spread_over_the_others() {
    let mut map = ReplicaMap::default();
    for id in 1..=4 {
        let registration = registration(id, 1);
        (map, _) = map.apply(&Command::Register(registration)).unwrap();
        let incarnation = map.broker(broker(id)).unwrap().incarnation;
        let id = broker(id);
        (map, _) = map.apply(&Command::Unfence { id, incarnation }).unwrap();
    }
    let replicas = place(TOPIC, &[], 24, 3, map.brokers()).unwrap();
    let terms = terms(2, Durability::Disk);
    let topic = TOPIC;
    (map, _) = map.apply(&Command::Place { topic, terms, replicas }).unwrap();
    let moves = without(broker(2), &map).unwrap();
    assert_eq!(moves.len(), 18);
    for (id, to) in &moves {
        let before = map.replicas(*id).unwrap();
        assert_eq!(to.len(), 3);
        assert!(!to.contains(&broker(2)), "{to:?}");
        for (old, new) in before.replicas.iter().zip(to) {
            assert!(old == new || *old == broker(2), "the others stay: {before:?}, {to:?}");
        }
    }
    let after = map.partitions().flat_map(|(id, before)| {
        let other = moves.iter().find(|(moved, _)| *moved == id);
        other.map_or(before.replicas.clone(), |(_, to)| to.clone())
    });
    assert_eq!(spread([1, 3, 4].into_iter().map(broker), after), 0);
    let id = broker(4);
    (map, _) = map.apply(&Command::Cordon { id, is_cordoned: true }).unwrap();
    assert_eq!(
        without(broker(2), &map).unwrap_err(),
        ReplicaError::TooFewBrokers { factor: 3, usable: 2 }
    );
}
