//! One partition, case by case.

use headwater_protocol::error::ErrorCode;

use super::*;

use Durability::{Disk, Memory};

fn ineligible(id: i32) -> Vec<(PartitionId, ReplicaError)> {
    vec![(partition(0), ReplicaError::Ineligible(broker(id)))]
}

#[test]
fn a_broker_alone_leads_and_is_all_that_is_in_sync_and_does_again_after_a_crash() {
    let mut cluster = Cluster::new(1, 1, Disk);
    assert_eq!(cluster.told(), (Some(1), vec![1], vec![]));
    let epoch = cluster.replicas().leader_epoch;
    cluster.registers(|_| {}, 1);
    assert_eq!(cluster.told(), (None, vec![], vec![1]), "it has not asked to be let in");
    cluster.unfence(1);
    assert_eq!(cluster.told(), (Some(1), vec![1], vec![]));
    assert!(
        cluster.replicas().leader_epoch > epoch,
        "what it had not flushed may be written anew"
    );
}

#[test]
fn the_next_in_sync_replica_leads_when_the_leader_is_fenced_and_the_first_again_when_that_is_wanted() {
    let mut cluster = Cluster::new(3, 2, Disk);
    let prefer = Command::Elect {
        partitions: vec![partition(0)],
        how: Election::Preferred,
    };
    assert_eq!(cluster.refused(&prefer), ReplicaError::NotNeeded(broker(1)));
    cluster.fence(1);
    assert_eq!(cluster.told(), (Some(2), vec![2, 3], vec![]));
    cluster.unfence(1);
    assert_eq!(
        cluster.told(),
        (Some(2), vec![2, 3], vec![]),
        "it has to catch up first"
    );
    assert_eq!(cluster.refused(&prefer), ReplicaError::PreferredNotInSync(broker(1)));
    cluster.set_isr(&[2, 3, 1]);
    assert_eq!(cluster.told(), (Some(2), vec![1, 2, 3], vec![]));
    cluster.take(&prefer);
    assert_eq!(cluster.told(), (Some(1), vec![1, 2, 3], vec![]));
}

#[test]
fn who_leaves_when_too_few_are_in_sync_stays_eligible_and_who_left_before_does_not() {
    let mut cluster = Cluster::new(3, 2, Disk);
    cluster.fence(3);
    assert_eq!(cluster.told(), (Some(1), vec![1, 2], vec![]));
    cluster.fence(2);
    assert_eq!(cluster.told(), (Some(1), vec![1], vec![2]));
    cluster.fence(1);
    assert_eq!(cluster.told(), (None, vec![], vec![1, 2]));
    cluster.unfence(3);
    assert_eq!(
        cluster.told(),
        (None, vec![], vec![1, 2]),
        "it may lack what was acknowledged"
    );
    cluster.unfence(2);
    assert_eq!(cluster.told(), (Some(2), vec![2], vec![1]));
    cluster.set_isr(&[2, 3]);
    assert_eq!(
        cluster.told(),
        (Some(2), vec![2, 3], vec![]),
        "more may be acknowledged now"
    );
}

#[test]
fn all_brokers_crash_at_once_and_go_on_by_themselves_where_an_acknowledgement_means_the_disk() {
    for (durability, expected) in [(Disk, Some(3)), (Memory, None)] {
        let mut cluster = Cluster::new(3, 2, durability);
        for id in 1..=3 {
            cluster.registers(|_| {}, id);
        }
        for id in [3, 2, 1] {
            cluster.unfence(id);
        }
        assert_eq!(cluster.told().0, expected, "{durability:?}");
    }
}

#[test]
fn a_broker_that_stopped_cleanly_keeps_what_it_has_also_in_memory_and_one_whose_disk_is_another_does_not() {
    for (was_clean, store, expected) in [(true, 1, Some(1)), (false, 1, None), (true, 9, None)] {
        let mut cluster = Cluster::new(1, 1, Memory);
        cluster.registers(
            |registration| {
                registration.was_clean = was_clean;
                registration.store = Uuid::from_u128(store);
            },
            1,
        );
        cluster.unfence(1);
        assert_eq!(cluster.told().0, expected, "{was_clean} {store}");
    }
    let mut cluster = Cluster::new(2, 2, Disk);
    cluster.registers(|registration| registration.store = Uuid::from_u128(9), 2);
    assert_eq!(cluster.told(), (Some(1), vec![1], vec![]));
}

#[test]
fn a_leader_that_was_elected_by_order_is_told_apart_and_only_where_nobody_else_can_lead() {
    let mut cluster = Cluster::new(3, 2, Disk);
    let unclean = |id| Command::Elect {
        partitions: vec![partition(0)],
        how: Election::Unclean(broker(id)),
    };
    assert_eq!(cluster.refused(&unclean(2)), ReplicaError::HasLeader(broker(1)));
    cluster.fence(3);
    cluster.fence(2);
    cluster.fence(1);
    assert_eq!(cluster.refused(&unclean(3)), ReplicaError::CannotLead(broker(3)));
    cluster.unfence(3);
    let epoch = cluster.replicas().leader_epoch;
    cluster.take(&unclean(3));
    assert_eq!(cluster.told(), (Some(3), vec![3], vec![1, 2]));
    assert!(cluster.replicas().leader_epoch > epoch);
}

#[test]
fn in_sync_replicas_change_only_as_they_were_seen_and_only_by_the_leader_of_now() {
    let mut cluster = Cluster::new(3, 2, Disk);
    let seen = cluster.clone();
    cluster.set_isr(&[1, 2]);
    assert!(matches!(
        cluster.refused(&seen.wish(&[1, 3])),
        ReplicaError::Epoch { .. }
    ));
    cluster.fence(1);
    assert_eq!(
        cluster.refused(&seen.wish(&[1, 2, 3])),
        ReplicaError::NotLeader(broker(1))
    );
    cluster.unfence(1);
    let stale = cluster.wish(&[2, 1]);
    cluster.begins(1);
    assert_eq!(cluster.take(&stale).refused, ineligible(1), "it has begun anew");
    assert_eq!(cluster.told().1, [2]);
    assert!(
        matches!(cluster.refused(&stale), ReplicaError::Epoch { .. }),
        "it was answered already"
    );
    cluster.set_isr(&[2, 1]);
    cluster.begins(2);
    let refused = cluster.map.apply(&seen.wish(&[1])).unwrap_err();
    assert!(matches!(refused, ReplicaError::StaleIncarnation { .. }), "{refused}");
    for isr in [&[][..], &[2], &[1, 1], &[1, 4]] {
        let mut cluster = Cluster::new(3, 2, Disk);
        cluster.begins(4);
        let wish = cluster.wish(isr);
        assert!(matches!(cluster.refused(&wish), ReplicaError::Isr(_)), "{isr:?}");
    }
}

#[test]
fn a_log_that_has_failed_neither_leads_nor_is_in_sync_until_it_is_open_again() {
    let mut cluster = Cluster::new(2, 1, Disk);
    let report = |cluster: &Cluster, id, failed: &[i32], opened: &[i32]| Command::Report {
        from: broker(id),
        incarnation: cluster.incarnation(id),
        failed: failed.iter().copied().map(partition).collect(),
        opened: opened.iter().copied().map(partition).collect(),
    };
    let failed = report(&cluster, 1, &[0], &[]);
    cluster.take(&failed);
    assert_eq!(cluster.told(), (Some(2), vec![2], vec![]));
    let wish = cluster.wish(&[1, 2]);
    assert_eq!(cluster.take(&wish).refused, ineligible(1));
    let failed = report(&cluster, 2, &[0], &[]);
    cluster.take(&failed);
    assert_eq!(cluster.told(), (None, vec![], vec![2]));
    let opened = report(&cluster, 1, &[], &[0]);
    cluster.take(&opened);
    assert_eq!(cluster.told(), (None, vec![], vec![2]));
    let opened = report(&cluster, 2, &[], &[0]);
    cluster.take(&opened);
    assert_eq!(cluster.told(), (Some(2), vec![2], vec![]));
    let wish = cluster.wish(&[1, 2]);
    cluster.take(&wish);
    assert_eq!(cluster.told(), (Some(2), vec![1, 2], vec![]));
}

#[test]
fn who_has_lost_a_log_is_not_counted_on_any_more_unless_nobody_else_is_in_sync() {
    let mut cluster = Cluster::new(2, 2, Disk);
    let lost = |cluster: &Cluster, id| Command::Lost {
        from: broker(id),
        incarnation: cluster.incarnation(id),
        partitions: vec![partition(0)],
    };
    let fails = |cluster: &Cluster, id| Command::Report {
        from: broker(id),
        incarnation: cluster.incarnation(id),
        failed: vec![partition(0)],
        opened: vec![],
    };
    let lost_by_1 = lost(&cluster, 1);
    assert_eq!(
        cluster.refused(&lost_by_1),
        ReplicaError::NotLetOff(broker(1)),
        "it is open"
    );
    let failed = fails(&cluster, 1);
    cluster.take(&failed);
    assert_eq!(cluster.told(), (Some(2), vec![2], vec![1]));
    cluster.take(&lost_by_1);
    assert_eq!(cluster.told(), (Some(2), vec![2], vec![]));
    let failed = fails(&cluster, 2);
    cluster.take(&failed);
    let lost_by_2 = lost(&cluster, 2);
    assert_eq!(
        cluster.refused(&lost_by_2),
        ReplicaError::NotLetOff(broker(2)),
        "it is the last"
    );
    assert_eq!(cluster.told(), (None, vec![], vec![2]));
}

#[test]
fn a_log_that_has_failed_may_lack_what_was_acknowledged_where_memory_is_enough() {
    let mut cluster = Cluster::new(1, 1, Memory);
    for (failed, opened) in [(vec![partition(0)], vec![]), (vec![], vec![partition(0)])] {
        cluster.take(&Command::Report {
            from: broker(1),
            incarnation: cluster.incarnation(1),
            failed,
            opened,
        });
        assert_eq!(cluster.told(), (None, vec![], vec![]));
    }
}

#[test]
fn a_partition_moves_when_all_new_replicas_are_in_sync_and_stays_if_that_is_cancelled_before() {
    let reassign = |target: Option<&[i32]>| Command::Reassign {
        partitions: vec![(partition(0), target.map(brokers))],
    };
    let mut cluster = Cluster::new(2, 1, Disk);
    cluster.begins(3);
    cluster.begins(4);
    assert_eq!(cluster.refused(&reassign(None)), ReplicaError::NotReassigning);
    assert!(matches!(
        cluster.refused(&reassign(Some(&[3, 9]))),
        ReplicaError::Replicas(_)
    ));
    cluster.take(&reassign(Some(&[3, 2])));
    let replicas = cluster.replicas().clone();
    assert_eq!(
        (replicas.replicas, replicas.adding, replicas.removing),
        (brokers(&[3, 2, 1]), brokers(&[3]), brokers(&[1]))
    );
    assert_eq!(cluster.refused(&reassign(Some(&[4]))), ReplicaError::Reassigning);
    let before = cluster.clone();
    cluster.set_isr(&[1, 2, 3]);
    assert_eq!(
        cluster.told(),
        (Some(3), vec![3, 2], vec![]),
        "the leader goes, and another leads"
    );
    let epoch = cluster.replicas().leader_epoch;
    cluster.take(&reassign(Some(&[3, 4])));
    cluster.take(&reassign(None));
    assert_eq!(cluster.told().0, Some(3));
    assert!(
        cluster.replicas().leader_epoch > epoch,
        "what a replica says that has gone counts for nothing when it is back"
    );
    assert_eq!(cluster.replicas().replicas, brokers(&[3, 2]));

    let mut cluster = before;
    cluster.set_isr(&[1, 3]);
    cluster.fence(1);
    assert_eq!(cluster.told(), (Some(3), vec![3], vec![]));
    assert_eq!(cluster.refused(&reassign(None)), ReplicaError::OnlyNewInSync);
    cluster.set_isr(&[3, 2]);
    assert_eq!(
        cluster.replicas().replicas,
        brokers(&[3, 2]),
        "all that are to stay are in sync"
    );
    cluster.take(&reassign(Some(&[1, 4])));
    cluster.take(&reassign(None));
    assert_eq!(
        (cluster.told(), cluster.replicas().replicas.clone()),
        ((Some(3), vec![3, 2], vec![]), brokers(&[3, 2]))
    );
}

#[test]
fn fewer_in_sync_replicas_suffice_from_now_on_and_nobody_is_eligible_beside_them_any_more() {
    let mut cluster = Cluster::new(3, 2, Disk);
    cluster.fence(3);
    cluster.fence(2);
    assert_eq!(cluster.told(), (Some(1), vec![1], vec![2]));
    let epoch = cluster.replicas().epoch;
    cluster.take(&Command::SetTerms {
        topic: TOPIC,
        terms: terms(1, Disk),
    });
    assert_eq!(cluster.told(), (Some(1), vec![1], vec![]));
    assert!(
        cluster.replicas().epoch > epoch,
        "the leader's wishes of before do not hold"
    );
}

#[test]
fn a_broker_that_says_twice_who_it_is_counts_once_and_is_forgotten_when_nothing_is_left_of_it() {
    let mut cluster = Cluster::new(2, 1, Disk);
    let incarnation = cluster.incarnation(2);
    let before = cluster.clone();
    cluster.take(&Command::Register(registration(2, cluster.processes)));
    assert_eq!(cluster.map, before.map);
    let forget = Command::Forget { id: broker(2) };
    assert_eq!(
        cluster.map.apply(&forget).unwrap_err(),
        ReplicaError::StillUp(broker(2))
    );
    cluster.fence(2);
    assert!(matches!(
        cluster.map.apply(&forget).unwrap_err(),
        ReplicaError::StillHas { .. }
    ));
    cluster.take(&Command::Reassign {
        partitions: vec![(partition(0), Some(brokers(&[1])))],
    });
    cluster.take(&forget);
    assert_eq!(cluster.map.brokers().len(), 1);
    cluster.begins(2);
    assert!(cluster.incarnation(2) > incarnation, "also of one that was forgotten");
}

#[test]
fn registrations_that_are_of_no_use_are_refused() {
    let wrong: [fn(&mut Registration); 5] = [
        |registration| registration.id = broker(-1),
        |registration| registration.address.core_ports.clear(),
        |registration| registration.address.core_ports = vec![1; 5000],
        |registration| registration.address.host = "x".repeat(256),
        |registration| registration.rack = Some(String::new()),
    ];
    for wrong in wrong {
        let mut registration = registration(1, 1);
        wrong(&mut registration);
        let refused = ReplicaMap::default()
            .apply(&Command::Register(registration))
            .unwrap_err();
        assert!(matches!(refused, ReplicaError::Registration { .. }), "{refused}");
    }
}

#[test]
fn a_topic_gets_further_partitions_in_sync_with_whoever_is_up_and_goes_as_a_whole() {
    let mut cluster = Cluster::new(3, 2, Disk);
    cluster.fence(3);
    let extend = |replicas: &[i32]| Command::Extend {
        topic: TOPIC,
        replicas: vec![brokers(replicas)],
    };
    let applied = cluster.take(&extend(&[3, 2]));
    assert_eq!(applied.changed, [partition(1)].into());
    let replicas = cluster.map.replicas(partition(1)).unwrap();
    assert_eq!((replicas.leader, &replicas.isr), (Some(broker(2)), &brokers(&[2])));
    assert_eq!(replicas.terms, terms(2, Disk));
    for unusable in [&[][..], &[1, 1], &[1, 9], &[3]] {
        let refused = cluster.map.apply(&extend(unusable)).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidReplicaAssignment, "{refused}");
    }
    let applied = cluster.take(&Command::Remove { topic: TOPIC });
    assert_eq!(applied.changed, [partition(0), partition(1)].into());
    assert_eq!(cluster.map.partitions().count(), 0);
    for (command, code) in [
        (extend(&[1]), ErrorCode::UnknownTopicId),
        (Command::Remove { topic: TOPIC }, ErrorCode::UnknownTopicId),
        (
            Command::Cordon {
                id: broker(9),
                is_cordoned: true,
            },
            ErrorCode::BrokerIdNotRegistered,
        ),
    ] {
        assert_eq!(cluster.map.apply(&command).unwrap_err().code(), code);
    }
}

#[test]
fn a_topic_that_is_gone_is_remembered_until_nobody_has_anything_of_it_any_more() {
    let mut cluster = Cluster::new(3, 2, Disk);
    cluster.take(&Command::Remove { topic: TOPIC });
    let has = |cluster: &Cluster, id| cluster.map.gone(broker(id)).contains(&TOPIC);
    let clears = |id| Command::Cleared {
        from: broker(id),
        topics: vec![TOPIC],
    };
    assert!((1..=3).all(|id| has(&cluster, id)));
    cluster.take(&clears(1));
    assert_eq!([1, 2, 3].map(|id| has(&cluster, id)), [false, true, true]);
    cluster.fence(3);
    cluster.take(&Command::Forget { id: broker(3) });
    assert_eq!([1, 2, 3].map(|id| has(&cluster, id)), [false, true, false]);
    cluster.take(&clears(2));
    assert!(cluster.map.gone.is_empty());
    cluster.take(&clears(2));
}
