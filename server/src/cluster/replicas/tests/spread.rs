//! Where new partitions go.

use std::collections::BTreeMap;

use super::*;
use crate::cluster::replicas::{Factor, place};

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
fn further_partitions_go_where_the_topic_has_fewest_and_none_to_brokers_that_are_fenced_or_cordoned() {
    let mut brokers = some_brokers(4, 2, |_| None);
    let first = place(TOPIC, &[], 5, 2, brokers.iter()).unwrap();
    let has: Vec<Replicas> = first
        .iter()
        .map(|replicas| Replicas::new(replicas.clone(), replicas.clone(), terms(1, Durability::Disk)))
        .collect();
    let more = place(TOPIC, &has, 7, 2, brokers.iter()).unwrap();
    let all = first.iter().chain(&more).flatten().copied();
    assert_eq!(spread((1..=4).map(broker), all), 0);
    Arc::make_mut(&mut brokers[0]).is_fenced = true;
    Arc::make_mut(&mut brokers[2]).is_cordoned = true;
    let placed = place(TOPIC, &[], 8, 2, brokers.iter()).unwrap();
    assert_eq!(spread([2, 4].into_iter().map(broker), placed.into_iter().flatten()), 0);
    let refused = place(TOPIC, &[], 1, 3, brokers.iter()).unwrap_err();
    assert_eq!(refused, ReplicaError::TooFewBrokers { factor: 3, usable: 2 });
}

#[test]
fn a_topic_that_asks_for_nothing_gets_three_replicas_of_which_two_must_be_in_sync_or_what_there_is() {
    let expected = [(1, 1, 1), (2, 2, 1), (3, 3, 2), (9, 3, 2)];
    for (brokers, replicas, min_isr) in expected {
        assert_eq!(Factor::default_for(brokers), Factor { replicas, min_isr });
    }
}
