//! The assignors of groups of type consumer.
//!
//! `uniform`: members that could have the same get as many, one more or less, and as few partitions as possible change hands.
//! `range`: of each topic neighbouring partitions, one more to the first members, so that members that subscribe to the same topics get
//! the same numbers of each. Both are deterministic.

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::id::TopicId;

use crate::model::consumer::{ServerAssignor, Share, Spot};

/// The topics that a member wants, with how many partitions each has.
type Wish = BTreeMap<TopicId, u32>;

/// What each member is to have, given what it was to have before.
pub(super) fn assign(assignor: ServerAssignor, wishes: &[Wish], former: &[&Share]) -> Vec<Share> {
    match assignor {
        ServerAssignor::Range => range(wishes),
        ServerAssignor::Uniform => {
            let is_alike = wishes.windows(2).all(|pair| pair[0] == pair[1]);
            let kept = kept(wishes, former);
            match wishes.first() {
                Some(wish) if is_alike => alike(wish, kept),
                _ => various(wishes, kept),
            }
        }
    }
}

fn partitions(topic: TopicId, count: u32) -> impl Iterator<Item = Spot> {
    (0..count.cast_signed()).map(move |partition| (topic, partition))
}

/// Who wants each topic.
fn subscribers(wishes: &[Wish]) -> BTreeMap<(TopicId, u32), Vec<usize>> {
    let mut subscribers: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (member, wish) in wishes.iter().enumerate() {
        for (topic, count) in wish {
            subscribers.entry((*topic, *count)).or_default().push(member);
        }
    }
    subscribers
}

fn range(wishes: &[Wish]) -> Vec<Share> {
    let mut shares = vec![Share::new(); wishes.len()];
    for ((topic, count), members) in subscribers(wishes) {
        let (each, more) = (count as usize / members.len(), count as usize % members.len());
        let mut left = partitions(topic, count);
        for (place, member) in members.into_iter().enumerate() {
            shares[member].extend(left.by_ref().take(each + usize::from(place < more)));
        }
    }
    shares
}

/// What members had, as far as it is there and they still want it.
fn kept(wishes: &[Wish], former: &[&Share]) -> Vec<Share> {
    let still = |(wish, share): (&Wish, &&Share)| {
        let is_wanted = |spot: &&Spot| wish.get(&spot.0).is_some_and(|count| spot.1.cast_unsigned() < *count);
        share.iter().filter(is_wanted).copied().collect()
    };
    wishes.iter().zip(former).map(still).collect()
}

/// All want the same: each keeps up to its part of all, and what is left fills the parts of the others.
fn alike(wish: &Wish, mut shares: Vec<Share>) -> Vec<Share> {
    let all = wish.iter().flat_map(|(topic, count)| partitions(*topic, *count));
    let mut free: BTreeSet<Spot> = all.collect();
    let (each, mut more) = (free.len() / shares.len(), free.len() % shares.len());
    let mut quotas = vec![each; shares.len()];
    // One more for those who have it already, then for the others.
    for has_more in [true, false] {
        for (quota, share) in quotas.iter_mut().zip(&shares) {
            if more > 0 && *quota == each && (share.len() > each) == has_more {
                *quota += 1;
                more -= 1;
            }
        }
    }
    for (share, quota) in shares.iter_mut().zip(&quotas) {
        while share.len() > *quota {
            share.pop_last();
        }
        for spot in &*share {
            free.remove(spot);
        }
    }
    for (share, quota) in shares.iter_mut().zip(&quotas) {
        while share.len() < *quota
            && let Some(spot) = free.pop_first()
        {
            share.insert(spot);
        }
    }
    shares
}

/// Members want different topics: what nobody has goes to who has least, then each topic is levelled among those who want it, until
/// nothing moves. Each move makes the sum of the squares of the loads smaller, so it comes to an end.
fn various(wishes: &[Wish], mut shares: Vec<Share>) -> Vec<Share> {
    let subscribers = subscribers(wishes);
    // Topics that few want come first: the others can make up for them.
    let mut topics: Vec<_> = subscribers.iter().collect();
    topics.sort_by_key(|((topic, _), members)| (members.len(), *topic));
    let held: BTreeSet<Spot> = shares.iter().flatten().copied().collect();
    for ((topic, count), members) in &topics {
        let mut loads: BTreeSet<(usize, usize)> =
            members.iter().map(|member| (shares[*member].len(), *member)).collect();
        for spot in partitions(*topic, *count).filter(|spot| !held.contains(spot)) {
            let Some((load, member)) = loads.pop_first() else { break };
            shares[member].insert(spot);
            loads.insert((load + 1, member));
        }
    }
    loop {
        let mut moved = false;
        for ((topic, _), members) in &topics {
            moved |= level(*topic, members, &mut shares);
        }
        if !moved {
            return shares;
        }
    }
}

/// Moves partitions of a topic from members that have two more than others.
fn level(topic: TopicId, members: &[usize], shares: &mut [Share]) -> bool {
    let load = |shares: &[Share], member: usize| (shares[member].len(), member);
    let has_of = |shares: &[Share], member: usize| {
        let mut of_topic = shares[member].range((topic, i32::MIN)..=(topic, i32::MAX));
        of_topic.next_back().copied()
    };
    let mut all: BTreeSet<(usize, usize)> = members.iter().map(|member| load(shares, *member)).collect();
    let owners = members.iter().filter(|member| has_of(shares, **member).is_some());
    let mut owners: BTreeSet<(usize, usize)> = owners.map(|member| load(shares, *member)).collect();
    let mut moved = false;
    while let (Some((most, from)), Some((least, to))) = (owners.last().copied(), all.first().copied()) {
        if most < least + 2 {
            break;
        }
        let Some(spot) = has_of(shares, from) else {
            owners.remove(&(most, from));
            continue;
        };
        for (set, member) in [(&mut all, from), (&mut owners, from)] {
            set.remove(&(most, member));
        }
        all.remove(&(least, to));
        owners.remove(&(least, to));
        shares[from].remove(&spot);
        shares[to].insert(spot);
        all.extend([(most - 1, from), (least + 1, to)]);
        owners.insert((least + 1, to));
        if has_of(shares, from).is_some() {
            owners.insert((most - 1, from));
        }
        moved = true;
    }
    moved
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use uuid::Uuid;

    use super::*;

    fn topic(number: usize) -> TopicId {
        TopicId::new(Uuid::from_u128(number as u128))
    }

    /// Which of the topics each member wants.
    fn wishes(counts: &[u32], members: &[Vec<bool>]) -> Vec<Wish> {
        let wish = |wants: &Vec<bool>| {
            let topics = counts.iter().enumerate().zip(wants).filter(|(_, wanted)| **wanted);
            topics.map(|((number, count), _)| (topic(number), *count)).collect()
        };
        members.iter().map(wish).collect()
    }

    fn check(wishes: &[Wish], shares: &[Share]) {
        let mut all = Share::new();
        for (wish, share) in wishes.iter().zip(shares) {
            for spot in share {
                assert!(
                    wish.get(&spot.0).is_some_and(|count| spot.1.cast_unsigned() < *count),
                    "{spot:?} is not wanted"
                );
                assert!(all.insert(*spot), "{spot:?} is given twice");
            }
        }
        let wanted: Share = wishes
            .iter()
            .flatten()
            .flat_map(|(topic, count)| partitions(*topic, *count))
            .collect();
        assert_eq!(all, wanted, "all that is wanted is given");
    }

    fn none(count: usize) -> Vec<Share> {
        vec![Share::new(); count]
    }

    fn assigned(assignor: ServerAssignor, wishes: &[Wish], former: &[Share]) -> Vec<Share> {
        assign(assignor, wishes, &former.iter().collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn everything_is_given_once_and_uniform_levels_what_can_be_levelled(
            counts in vec(0..9_u32, 1..4),
            members in vec(vec(any::<bool>(), 3), 1..7),
            stay in vec(any::<bool>(), 7),
        ) {
            let all = wishes(&counts, &members);
            check(&all, &assigned(ServerAssignor::Range, &all, &none(all.len())));
            let first = assigned(ServerAssignor::Uniform, &all, &none(all.len()));
            check(&all, &first);
            // Nothing new: nothing moves.
            prop_assert_eq!(&assigned(ServerAssignor::Uniform, &all, &first), &first);
            // Some leave: nobody hands a partition to one that has as many or one less.
            let kept = |number: &usize| stay[*number];
            let left: Vec<usize> = (0..all.len()).filter(kept).collect();
            let (all, former): (Vec<_>, Vec<_>) = left.iter().map(|number| (all[*number].clone(), first[*number].clone())).unzip();
            let shares = assigned(ServerAssignor::Uniform, &all, &former);
            check(&all, &shares);
            for (from, share) in shares.iter().enumerate() {
                for (to, wish) in all.iter().enumerate() {
                    let movable = share.iter().any(|(topic, _)| wish.contains_key(topic));
                    prop_assert!(!movable || share.len() < shares[to].len() + 2, "{from} could give to {to}: {shares:?}");
                }
            }
        }

        #[test]
        fn uniform_leaves_partitions_where_they_are(count in 1..40_u32, members in 1..8_usize, more in 0..4_usize) {
            let wish = Wish::from([(topic(0), count)]);
            let before = assigned(ServerAssignor::Uniform, &vec![wish.clone(); members], &none(members));
            let all = members + more;
            let mut former = before.clone();
            former.resize(all, Share::new());
            let after = assigned(ServerAssignor::Uniform, &vec![wish; all], &former);
            let moved: usize = before.iter().zip(&after).map(|(before, after)| before.difference(after).count()).sum();
            let given: usize = after[members..].iter().map(Share::len).sum();
            prop_assert_eq!(moved, given, "only what the new ones get");
        }
    }

    #[test]
    fn range_gives_the_same_numbers_of_all_topics() {
        let wish = Wish::from([(topic(0), 5), (topic(1), 5)]);
        let shares = assigned(ServerAssignor::Range, &[wish.clone(), wish], &none(2));
        let numbers = |share: &Share, of| -> Vec<i32> {
            let of_topic = share.iter().filter(|(topic, _)| *topic == of);
            of_topic.map(|(_, partition)| *partition).collect()
        };
        for share in &shares {
            assert_eq!(numbers(share, topic(0)), numbers(share, topic(1)));
        }
        assert_eq!(numbers(&shares[0], topic(0)), [0, 1, 2]);
    }
}
