//! Which replicas are to go where, so that brokers have about as many each, and are to lead about as many.
//!
//! This proposes, as `placement` does. A replica goes from a broker to one that has at least two fewer, so that each step makes the sum of
//! the squares smaller: there is an end to it, and no way back. A partition never gets into fewer racks, and only one moves that is whole.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use headwater_protocol::id::{BrokerId, TopicId};

use super::state::ReplicaMap;
use crate::{
    image::{Broker, Replicas},
    model::id::PartitionId,
};

/// Brokers are even enough while none has more than the mean divided by this more than another, or one more.
const UNEVEN_SHARE: usize = 10;

/// Where a partition is to be, the preferred leader first.
pub(crate) type Move = (PartitionId, Vec<BrokerId>);

/// What brokers have once all that is under way is done.
#[derive(Default)]
struct Counts {
    replicas: BTreeMap<BrokerId, usize>,
    preferred: BTreeMap<BrokerId, usize>,
    of_topic: BTreeMap<(TopicId, BrokerId), usize>,
}

impl Counts {
    /// Those of brokers that may have more. Others have what they have, whatever that is.
    fn of(map: &ReplicaMap) -> Counts {
        let usable = map.brokers().filter(|broker| is_usable(broker));
        let none: BTreeMap<BrokerId, usize> = usable.map(|broker| (broker.id, 0)).collect();
        let mut counts = Counts {
            replicas: none.clone(),
            preferred: none,
            of_topic: BTreeMap::new(),
        };
        for (id, replicas) in map.partitions() {
            counts.add(id.topic, replicas.target());
        }
        counts
    }

    fn add(&mut self, topic: TopicId, target: impl Iterator<Item = BrokerId>) {
        for (place, broker) in target.enumerate() {
            if let Some(count) = self.replicas.get_mut(&broker) {
                *count += 1;
                *self.of_topic.entry((topic, broker)).or_default() += 1;
            }
            if let Some(count) = self.preferred.get_mut(&broker).filter(|_| place == 0) {
                *count += 1;
            }
        }
    }

    fn remove(&mut self, topic: TopicId, target: &[BrokerId]) {
        for (place, broker) in target.iter().enumerate() {
            if let Some(count) = self.replicas.get_mut(broker) {
                *count -= 1;
                *self.of_topic.entry((topic, *broker)).or_default() -= 1;
            }
            if let Some(count) = self.preferred.get_mut(broker).filter(|_| place == 0) {
                *count -= 1;
            }
        }
    }

    fn topic(&self, topic: TopicId, broker: BrokerId) -> usize {
        self.of_topic.get(&(topic, broker)).copied().unwrap_or(0)
    }
}

/// How many more one broker may have than another.
fn slack(counts: &BTreeMap<BrokerId, usize>) -> usize {
    let all: usize = counts.values().sum();
    (all / counts.len().max(1) / UNEVEN_SHARE).max(1)
}

fn is_even(counts: &BTreeMap<BrokerId, usize>) -> bool {
    let (most, least) = (counts.values().max(), counts.values().min());
    most.zip(least)
        .is_none_or(|(most, least)| most - least <= slack(counts))
}

/// A broker that can be given replicas.
fn is_usable(broker: &Broker) -> bool {
    !broker.is_fenced && !broker.is_cordoned
}

/// All replicas are there and in sync, and nothing of it moves.
fn is_whole(replicas: &Replicas) -> bool {
    let stays = replicas.adding.is_empty() && replicas.removing.is_empty();
    stays && replicas.leader.is_some() && replicas.offline.is_empty() && replicas.isr.len() == replicas.replicas.len()
}

/// What is to be done next, at most so many partitions: replicas first, and where they are even, who is to lead.
pub(crate) fn next_moves(map: &ReplicaMap, most: usize) -> Vec<Move> {
    let mut counts = Counts::of(map);
    let mut moves: BTreeMap<PartitionId, Vec<BrokerId>> = BTreeMap::new();
    while moves.len() < most {
        let has_moved = |id: &PartitionId| moves.contains_key(id);
        let next = replica_move(map, &counts, has_moved);
        let Some((id, target)) = next.or_else(|| leader_move(map, &counts, has_moved)) else {
            break;
        };
        if let Some(before) = map.replicas(id) {
            counts.remove(id.topic, &before.replicas);
        }
        counts.add(id.topic, target.iter().copied());
        moves.insert(id, target);
    }
    moves.into_iter().collect()
}

/// Partitions that move now, and take a copy of their records.
pub(crate) fn under_way(map: &ReplicaMap) -> usize {
    let moves = map.partitions().filter(|(_, replicas)| !replicas.adding.is_empty());
    moves.count()
}

/// The replica that gains most where it goes.
fn replica_move(map: &ReplicaMap, counts: &Counts, has_moved: impl Fn(&PartitionId) -> bool) -> Option<Move> {
    if is_even(&counts.replicas) {
        return None;
    }
    let slack = slack(&counts.replicas);
    let mut emptiest: Vec<(usize, BrokerId)> = counts.replicas.iter().map(|(id, count)| (*count, *id)).collect();
    emptiest.sort_unstable();
    let mut best = None;
    for (id, replicas) in map.partitions() {
        if !is_whole(replicas) || has_moved(&id) {
            continue;
        }
        let before = &replicas.replicas;
        let racks = racks(map, before);
        for (place, from) in before.iter().enumerate() {
            let Some(has) = counts.replicas.get(from).copied() else {
                continue;
            };
            for (least, to) in &emptiest {
                let Some(gain) = has.checked_sub(*least).filter(|gain| *gain > slack) else {
                    break;
                };
                if before.contains(to) {
                    continue;
                }
                let mut target = before.clone();
                target[place] = *to;
                let Some(more_racks) = self::racks(map, &target).checked_sub(racks) else {
                    continue;
                };
                let of_topic = counts.topic(id.topic, *from) as i64 - counts.topic(id.topic, *to) as i64;
                // Who is to lead more goes on to where fewer are led.
                let leads_more = counts.preferred[from] > counts.preferred[to];
                let worth = (gain, more_racks, of_topic, leads_more == (place == 0), Reverse(id));
                if best.as_ref().is_none_or(|(known, _)| *known < worth) {
                    best = Some((worth, target));
                }
                break;
            }
        }
    }
    best.map(|((.., Reverse(id)), target)| (id, target))
}

/// The partition that another of its replicas had better lead. No records are copied for that.
fn leader_move(map: &ReplicaMap, counts: &Counts, has_moved: impl Fn(&PartitionId) -> bool) -> Option<Move> {
    if is_even(&counts.preferred) {
        return None;
    }
    let slack = slack(&counts.preferred);
    let mut best = None;
    for (id, replicas) in map.partitions() {
        let Some((first, others)) = replicas.replicas.split_first() else {
            continue;
        };
        let Some(has) = counts.preferred.get(first).copied() else {
            continue;
        };
        if !is_whole(replicas) || has_moved(&id) {
            continue;
        }
        for (place, other) in (1..).zip(others) {
            let least = counts.preferred.get(other);
            let gain = least
                .and_then(|least| has.checked_sub(*least))
                .filter(|gain| *gain > slack);
            let Some(gain) = gain else { continue };
            let worth = (gain, Reverse(id));
            if best.as_ref().is_none_or(|(known, _)| *known < worth) {
                let mut target = replicas.replicas.clone();
                target.swap(0, place);
                best = Some((worth, target));
            }
        }
    }
    best.map(|((_, Reverse(id)), target)| (id, target))
}

/// In how many racks these brokers are, as far as they have said.
fn racks(map: &ReplicaMap, brokers: &[BrokerId]) -> usize {
    let racks = brokers.iter().filter_map(|id| map.broker(*id)?.rack.as_deref());
    racks.collect::<BTreeSet<&str>>().len()
}
