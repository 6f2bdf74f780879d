//! The broker's own assignors: who gets which partitions of the topics that a group subscribes to.
//!
//! `range` and `roundrobin` are Kafka's, for members that give up everything before they join. `sticky` leaves partitions
//! where they are as far as balance allows, and gives a partition that another member still owns to nobody: its owner gives
//! it up and joins again, and then it is free (KIP-429). All are deterministic. A topic that does not exist has no partitions.

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::group::{SERVER_RANGE, SERVER_ROUND_ROBIN, SERVER_STICKY, Subscription, TopicPartitions};

use super::topics::Topics;
use crate::model::group::MemberId;

/// A partition, by the name of its topic.
type Place<'a> = (&'a str, i32);

/// One of the broker's assignors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Assignor {
    Range,
    RoundRobin,
    Sticky,
}

impl Assignor {
    /// The assignor that a protocol stands for; `None` if the members assign.
    pub(super) fn of(protocol: &str) -> Option<Assignor> {
        match protocol {
            SERVER_RANGE => Some(Assignor::Range),
            SERVER_ROUND_ROBIN => Some(Assignor::RoundRobin),
            SERVER_STICKY => Some(Assignor::Sticky),
            _ => None,
        }
    }

    /// The partitions of each member, in the order of the members.
    pub(super) fn assign(
        self,
        members: &[(MemberId, Subscription)],
        topics: &Topics,
    ) -> Vec<(MemberId, Vec<TopicPartitions>)> {
        let wishes: Vec<BTreeSet<&str>> = members
            .iter()
            .map(|(_, subscription)| subscription.topics.iter().map(String::as_str).collect())
            .collect();
        let shares = match self {
            Assignor::Range => range(&wishes, topics),
            Assignor::RoundRobin => round_robin(&wishes, topics),
            Assignor::Sticky => {
                let claims = Claims::of(members, &wishes, topics);
                let mut shares = sticky(&wishes, &claims, topics);
                for (member, share) in shares.iter_mut().enumerate() {
                    share.retain(|place| claims.is_free_for(*place, member));
                }
                shares
            }
        };
        let ids = members.iter().map(|(id, _)| id.clone());
        ids.zip(shares.into_iter().map(by_topic)).collect()
    }
}

fn by_topic(places: BTreeSet<Place<'_>>) -> Vec<TopicPartitions> {
    let mut topics: Vec<TopicPartitions> = Vec::new();
    for (topic, partition) in places {
        match topics.last_mut().filter(|last| last.topic == topic) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(TopicPartitions {
                topic: topic.to_owned(),
                partitions: vec![partition],
            }),
        }
    }
    topics
}

fn partitions<'a>(topic: &'a str, topics: &Topics) -> impl Iterator<Item = Place<'a>> + use<'a> {
    (0..topics.count(topic).cast_signed()).map(move |partition| (topic, partition))
}

/// Who wants each topic.
fn subscribers<'a>(wishes: &[BTreeSet<&'a str>]) -> BTreeMap<&'a str, Vec<usize>> {
    let mut subscribers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (member, wish) in wishes.iter().enumerate() {
        for topic in wish {
            subscribers.entry(topic).or_default().push(member);
        }
    }
    subscribers
}

/// Of each topic neighbouring partitions to each subscriber, one more to the first.
fn range<'a>(wishes: &[BTreeSet<&'a str>], topics: &Topics) -> Vec<BTreeSet<Place<'a>>> {
    let mut shares = vec![BTreeSet::new(); wishes.len()];
    for (topic, members) in subscribers(wishes) {
        let count = topics.count(topic) as usize;
        let (each, more) = (count / members.len(), count % members.len());
        let mut left = partitions(topic, topics);
        for (place, member) in members.into_iter().enumerate() {
            shares[member].extend(left.by_ref().take(each + usize::from(place < more)));
        }
    }
    shares
}

/// All partitions in turn, each to the next member that wants it.
fn round_robin<'a>(wishes: &[BTreeSet<&'a str>], topics: &Topics) -> Vec<BTreeSet<Place<'a>>> {
    let mut shares = vec![BTreeSet::new(); wishes.len()];
    let mut turns = (0..wishes.len()).cycle();
    for (topic, _) in subscribers(wishes) {
        for place in partitions(topic, topics) {
            // There is one: the topic has a subscriber.
            if let Some(member) = turns.find(|member| wishes[*member].contains(topic)) {
                shares[member].insert(place);
            }
        }
    }
    shares
}

/// What members say that they own.
struct Claims<'a> {
    /// For each partition who claims it and since which generation. A later generation knows better.
    claims: BTreeMap<Place<'a>, Vec<(i32, usize)>>,
}

impl<'a> Claims<'a> {
    fn of(members: &'a [(MemberId, Subscription)], wishes: &[BTreeSet<&'a str>], topics: &Topics) -> Claims<'a> {
        let mut claims: BTreeMap<Place<'a>, Vec<(i32, usize)>> = BTreeMap::new();
        let wanted: BTreeSet<&str> = wishes.iter().flatten().copied().collect();
        for (member, (_, subscription)) in members.iter().enumerate() {
            for owned in &subscription.owned_partitions {
                let exists = |partition: &i32| (0..topics.count(&owned.topic).cast_signed()).contains(partition);
                if wanted.contains(owned.topic.as_str()) {
                    for partition in owned.partitions.iter().copied().filter(exists) {
                        let claim = (subscription.generation, member);
                        claims.entry((&owned.topic, partition)).or_default().push(claim);
                    }
                }
            }
        }
        Claims { claims }
    }

    /// Nobody else owns the partition.
    fn is_free_for(&self, place: Place<'_>, member: usize) -> bool {
        let claims = self.claims.get(&place);
        claims.is_none_or(|claims| claims.iter().all(|(_, claimant)| *claimant == member))
    }
}

/// Every partition to a member that wants it, with its owner if that leaves no member two ahead of another that could take it.
fn sticky<'a>(wishes: &[BTreeSet<&'a str>], claims: &Claims<'a>, topics: &Topics) -> Vec<BTreeSet<Place<'a>>> {
    let mut shares: Vec<BTreeSet<Place<'a>>> = vec![BTreeSet::new(); wishes.len()];
    for (place, claimants) in &claims.claims {
        let willing = claimants.iter().filter(|(_, member)| wishes[*member].contains(place.0));
        if let Some((_, owner)) = willing.max_by_key(|(generation, member)| (*generation, std::cmp::Reverse(*member))) {
            shares[*owner].insert(*place);
        }
    }
    // Topics that few want come first: the others can make up for them.
    let mut wanted: Vec<_> = subscribers(wishes).into_iter().collect();
    wanted.sort_by_key(|(topic, members)| (members.len(), *topic));
    let mut loads: BTreeSet<(usize, usize)> = shares.iter().map(BTreeSet::len).zip(0..).collect();
    let owned: BTreeSet<Place<'a>> = shares.iter().flatten().copied().collect();
    for (topic, _) in &wanted {
        for place in partitions(topic, topics).filter(|place| !owned.contains(place)) {
            let least = loads
                .iter()
                .find(|(_, member)| wishes[*member].contains(topic))
                .copied();
            if let Some((load, member)) = least {
                shares[member].insert(place);
                loads.remove(&(load, member));
                loads.insert((load + 1, member));
            }
        }
    }
    while let Some((from, to, place)) = improvement(wishes, &shares, &loads, claims) {
        for (member, load) in [(from, shares[from].len() - 1), (to, shares[to].len() + 1)] {
            loads.remove(&(shares[member].len(), member));
            loads.insert((load, member));
        }
        shares[from].remove(&place);
        shares[to].insert(place);
    }
    shares
}

/// A partition that a member can hand to one with at least two fewer; rather one that is nobody's yet. Each such step makes
/// the sum of the squares of the loads smaller, so they come to an end.
fn improvement<'a>(
    wishes: &[BTreeSet<&'a str>],
    shares: &[BTreeSet<Place<'a>>],
    loads: &BTreeSet<(usize, usize)>,
    claims: &Claims<'a>,
) -> Option<(usize, usize, Place<'a>)> {
    for (most, from) in loads.iter().rev() {
        for (_, to) in loads.iter().take_while(|(least, _)| least + 2 <= *most) {
            let movable = shares[*from]
                .iter()
                .rev()
                .filter(|(topic, _)| wishes[*to].contains(topic));
            // false comes before true.
            if let Some(place) = movable.min_by_key(|place| claims.claims.contains_key(place)) {
                return Some((*from, *to, *place));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
