use proptest::{collection::vec, prelude::*};

use super::*;

fn topics(counts: &[u32]) -> Topics {
    let name = |index: usize| format!("t{index}");
    counts
        .iter()
        .enumerate()
        .map(|(index, count)| (name(index), *count))
        .collect()
}

fn member(name: usize, wishes: &[usize]) -> (MemberId, Subscription) {
    let subscription = Subscription {
        topics: wishes.iter().map(|topic| format!("t{topic}")).collect(),
        ..Subscription::default()
    };
    (MemberId::new(format!("m{name}")), subscription)
}

/// Assigns until nobody has to give anything up, as members do.
fn settle(members: &mut [(MemberId, Subscription)], topics: &Topics) -> Vec<Vec<TopicPartitions>> {
    for generation in 1..=2 {
        let assigned = Assignor::Sticky.assign(members, topics);
        for ((_, member), (_, partitions)) in members.iter_mut().zip(assigned) {
            member.generation += generation;
            member.owned_partitions = partitions;
        }
    }
    members
        .iter()
        .map(|(_, member)| member.owned_partitions.clone())
        .collect()
}

fn places(partitions: &[TopicPartitions]) -> BTreeSet<(String, i32)> {
    let places = partitions
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|one| (topic.topic.clone(), *one)));
    places.collect()
}

fn all(topics: &Topics, wanted: impl IntoIterator<Item = usize>) -> BTreeSet<(String, i32)> {
    let names = wanted.into_iter().map(|topic| format!("t{topic}"));
    names
        .flat_map(|topic| (0..topics.count(&topic).cast_signed()).map(move |partition| (topic.clone(), partition)))
        .collect()
}

proptest! {
    #[test]
    fn each_assignor_gives_every_partition_to_one_member_that_wants_it(
        counts in vec(0..9_u32, 1..5),
        wishes in vec(vec(0..5_usize, 0..4), 1..7),
    ) {
        let topics = topics(&counts);
        let mut members: Vec<_> = wishes.iter().enumerate().map(|(name, wish)| member(name, wish)).collect();
        for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky] {
            let assigned = assignor.assign(&members, &topics);
            let mut seen = BTreeSet::new();
            for ((_, subscription), (_, partitions)) in members.iter().zip(&assigned) {
                for place in places(partitions) {
                    prop_assert!(subscription.topics.contains(&place.0));
                    prop_assert!(seen.insert(place));
                }
            }
            prop_assert_eq!(seen, all(&topics, wishes.iter().flatten().copied().collect::<BTreeSet<_>>()));
        }
        settle(&mut members, &topics);
    }

    #[test]
    fn when_one_of_n_members_leaves_only_its_partitions_move(
        counts in vec(0..12_u32, 1..4),
        count in 2..9_usize,
        leaver in 0..8_usize,
    ) {
        let topics = topics(&counts);
        let wish: Vec<usize> = (0..counts.len()).collect();
        let mut members: Vec<_> = (0..count).map(|name| member(name, &wish)).collect();
        settle(&mut members, &topics);
        members.remove(leaver % count);
        let before: Vec<_> = members.iter().map(|(_, member)| places(&member.owned_partitions)).collect();
        // At once, without anybody giving up anything.
        let assigned = Assignor::Sticky.assign(&members, &topics);
        for (before, (_, after)) in before.iter().zip(&assigned) {
            prop_assert!(before.is_subset(&places(after)), "{before:?} {after:?}");
        }
        let loads: Vec<usize> = assigned.iter().map(|(_, partitions)| places(partitions).len()).collect();
        prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
        prop_assert_eq!(loads.iter().sum::<usize>(), all(&topics, wish).len());
    }

    #[test]
    fn when_one_member_comes_it_gets_its_share_and_nothing_else_moves(
        partitions in 1..40_u32,
        count in 1..9_usize,
    ) {
        let topics = topics(&[partitions]);
        let mut members: Vec<_> = (0..count).map(|name| member(name, &[0])).collect();
        settle(&mut members, &topics);
        let before: Vec<_> = members.iter().map(|(_, member)| places(&member.owned_partitions)).collect();
        members.push(member(count, &[0]));
        let withheld = Assignor::Sticky.assign(&members, &topics);
        for place in before.iter().flatten() {
            prop_assert!(!places(&withheld[count].1).contains(place), "it is still another's");
        }
        let after = settle(&mut members, &topics);
        let share = partitions as usize / (count + 1);
        prop_assert_eq!(places(&after[count]).len(), share);
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(places(after).is_subset(before), "what moved, moved to the new member");
        }
    }
}

#[test]
fn range_and_round_robin_are_kafkas() {
    let topics = topics(&[3, 3]);
    let members = [member(0, &[0, 1]), member(1, &[0, 1])];
    let names = |assignor: Assignor| -> Vec<Vec<(String, i32)>> {
        let assigned = assignor.assign(&members, &topics);
        assigned
            .iter()
            .map(|(_, partitions)| places(partitions).into_iter().collect())
            .collect()
    };
    let place = |topic: &str, partition| (topic.to_owned(), partition);
    assert_eq!(
        names(Assignor::Range),
        [
            vec![place("t0", 0), place("t0", 1), place("t1", 0), place("t1", 1)],
            vec![place("t0", 2), place("t1", 2)]
        ]
    );
    assert_eq!(
        names(Assignor::RoundRobin),
        [
            vec![place("t0", 0), place("t0", 2), place("t1", 1)],
            vec![place("t0", 1), place("t1", 0), place("t1", 2)]
        ]
    );
}

#[test]
fn claims_that_make_no_sense_harm_nobody() {
    let topics = topics(&[2]);
    let mut members = vec![member(0, &[0]), member(1, &[0])];
    for (_, member) in &mut members {
        member.owned_partitions = vec![
            TopicPartitions {
                topic: "t0".to_owned(),
                partitions: vec![0, 0, 1, 7, -1, i32::MAX],
            },
            TopicPartitions {
                topic: "gone".to_owned(),
                partitions: vec![0],
            },
        ];
    }
    // Both claim both: neither gets them until they have been given up.
    let assigned = Assignor::Sticky.assign(&members, &topics);
    assert!(assigned.iter().all(|(_, partitions)| partitions.is_empty()));
    members[0].1.owned_partitions.clear();
    let assigned = Assignor::Sticky.assign(&members, &topics);
    assert_eq!(places(&assigned[0].1).len() + places(&assigned[1].1).len(), 1);
}
