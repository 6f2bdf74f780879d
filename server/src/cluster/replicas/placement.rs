//! Which brokers are to have the replicas of new partitions: spread over racks first, then evenly over brokers, then over their cores.
//!
//! This proposes, and is no part of what every broker must decide alike: it may be improved from one version to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_protocol::id::{BrokerId, CoreId, PartitionIndex, TopicId};

use super::{error::ReplicaError, state::ReplicaMap};
use crate::{
    image::{Broker, Replicas},
    model::id::PartitionId,
};

/// Replicas that brokers and cores have of one topic.
#[derive(Default)]
struct Load {
    replicas: BTreeMap<BrokerId, usize>,
    leaders: BTreeMap<BrokerId, usize>,
    replicas_on_core: BTreeMap<(BrokerId, CoreId), usize>,
    leaders_on_core: BTreeMap<(BrokerId, CoreId), usize>,
}

impl Load {
    /// The first of them leads.
    fn add(&mut self, replicas: &[&Broker], id: PartitionId) {
        for broker in replicas {
            *self.replicas.entry(broker.id).or_default() += 1;
            *self.replicas_on_core.entry(core_of(broker, id)).or_default() += 1;
        }
        if let Some(leader) = replicas.first() {
            *self.leaders.entry(leader.id).or_default() += 1;
            *self.leaders_on_core.entry(core_of(leader, id)).or_default() += 1;
        }
    }
}

fn count<K: Ord>(counts: &BTreeMap<K, usize>, of: &K) -> usize {
    counts.get(of).copied().unwrap_or(0)
}

/// The core of the broker that owns the partition there.
fn core_of(broker: &Broker, id: PartitionId) -> (BrokerId, CoreId) {
    (broker.id, id.owner(broker.address.core_ports.len()))
}

/// The replicas of `count` further partitions of a topic that has those of `has`, the preferred leader of each first. Brokers that are
/// cordoned get none, and those that are fenced only where there are too few others: a partition then begins with fewer in sync.
pub(crate) fn place<'a>(
    topic: TopicId,
    has: &[Arc<Replicas>],
    count: usize,
    factor: usize,
    brokers: impl Iterator<Item = &'a Arc<Broker>>,
) -> Result<Vec<Vec<BrokerId>>, ReplicaError> {
    let brokers = around(topic, brokers.filter(|broker| !broker.is_cordoned));
    if factor == 0 || brokers.len() < factor || brokers.iter().all(|broker| broker.is_fenced) {
        return Err(ReplicaError::TooFewBrokers {
            factor,
            usable: brokers.len(),
        });
    }
    let id_of = |index: usize| PartitionId {
        topic,
        // The number of partitions is limited far below i32::MAX.
        index: PartitionIndex::new(index as i32),
    };
    let by_id: BTreeMap<BrokerId, &Broker> = brokers.iter().map(|broker| (broker.id, *broker)).collect();
    let mut load = Load::default();
    for (index, replicas) in has.iter().enumerate() {
        // Others get nothing more, whatever they have.
        let usable = replicas.replicas.iter().filter_map(|id| by_id.get(id).copied());
        load.add(&usable.collect::<Vec<_>>(), id_of(index));
    }
    let mut indexes: Vec<usize> = (has.len()..has.len() + count).collect();
    // One core after the other, or partitions that follow one another on a broker might all have the same core there.
    let cores = brokers.iter().map(|broker| broker.address.core_ports.len()).max();
    indexes.sort_by_key(|index| id_of(*index).owner(cores.unwrap_or(1)));
    let mut placed = vec![Vec::new(); count];
    for index in indexes {
        let replicas = choose(&brokers, Vec::new(), factor, &load, id_of(index));
        load.add(&replicas, id_of(index));
        placed[index - has.len()] = replicas.into_iter().map(|broker| broker.id).collect();
    }
    Ok(placed)
}

/// Where the partitions are to be that a broker has, or is to have, when it has none of them any more: another takes its place in each.
pub(crate) fn without(leaving: BrokerId, map: &ReplicaMap) -> Result<Vec<(PartitionId, Vec<BrokerId>)>, ReplicaError> {
    let mut moves = Vec::new();
    let mut load = Load::default();
    for (id, replicas) in map.partitions() {
        load.add(&known(replicas.target(), map), id);
    }
    let is_usable = |broker: &&Arc<Broker>| broker.id != leaving && !broker.is_fenced && !broker.is_cordoned;
    for (id, replicas) in map.partitions() {
        let target: Vec<BrokerId> = replicas.target().collect();
        let Some(place) = target.iter().position(|broker| *broker == leaving) else {
            continue;
        };
        let stay = known(target.iter().copied().filter(|broker| *broker != leaving), map);
        let brokers = around(id.topic, map.brokers().filter(is_usable));
        let others = stay.len();
        let mut chosen = choose(&brokers, stay, others + 1, &load, id);
        let Some(new) = chosen.pop().filter(|_| chosen.len() == others) else {
            return Err(ReplicaError::TooFewBrokers {
                factor: others + 1,
                usable: others,
            });
        };
        load.add(&[new], id);
        let mut target = target;
        target[place] = new.id;
        moves.push((id, target));
    }
    Ok(moves)
}

fn known(brokers: impl Iterator<Item = BrokerId>, map: &ReplicaMap) -> Vec<&Broker> {
    brokers
        .filter_map(|id| map.broker(id))
        .map(|broker| &**broker)
        .collect()
}

/// The brokers in an order in which racks alternate, from where the topic says: small topics are not all in the same place.
fn around<'a>(topic: TopicId, brokers: impl Iterator<Item = &'a Arc<Broker>>) -> Vec<&'a Broker> {
    let mut places: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    let mut brokers: Vec<(usize, &Broker)> = brokers
        .map(|broker| {
            let place = places.entry(broker.rack.as_deref()).or_default();
            *place += 1;
            (*place, &**broker)
        })
        .collect();
    brokers.sort_by_key(|(place, broker)| (*place, broker.rack.as_deref(), broker.id));
    let (high, low) = topic.as_uuid().as_u64_pair();
    if !brokers.is_empty() {
        let start = (high ^ low) % brokers.len() as u64;
        brokers.rotate_left(start as usize);
    }
    brokers.into_iter().map(|(_, broker)| broker).collect()
}

/// The replicas of one partition, besides those that stay: first its leader, where fewest are led, then the others, where fewest are.
fn choose<'a>(
    brokers: &[&'a Broker],
    mut chosen: Vec<&'a Broker>,
    factor: usize,
    load: &Load,
    id: PartitionId,
) -> Vec<&'a Broker> {
    while chosen.len() < factor {
        let is_free = |broker: &&&Broker| !chosen.iter().any(|other| other.id == broker.id);
        let next = brokers.iter().filter(is_free).min_by_key(|broker| {
            let in_rack = |other: &&&Broker| broker.rack.is_some() && other.rack == broker.rack;
            let in_rack = chosen.iter().filter(in_rack).count();
            let (leads, has) = (count(&load.leaders, &broker.id), count(&load.replicas, &broker.id));
            let leads_on_core = count(&load.leaders_on_core, &core_of(broker, id));
            let has_on_core = count(&load.replicas_on_core, &core_of(broker, id));
            let counts = if chosen.is_empty() {
                [leads, has, leads_on_core, has_on_core]
            } else {
                // Of two with as many, the one that leads more: the other will lead the next.
                [in_rack, has, has_on_core, usize::MAX - leads]
            };
            (broker.is_fenced, counts)
        });
        let Some(next) = next else { break };
        chosen.push(next);
    }
    chosen
}
