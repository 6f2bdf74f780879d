//! Leadership returns to where it belongs: a partition that another replica leads than the preferred one, though that is in sync, was
//! taken over when a broker went away. Once that has been back for a while the active coordinator has it lead again, or the brokers
//! that were not restarted would lead everything in the end.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use tokio::time::sleep;

use crate::{
    cluster::{
        quorum::{member::Quorum, order::Order},
        replicas::{Election, ReplicaCommand, ReplicaMap},
    },
    image::{PartitionId, Replicas},
};

/// A preferred leader that could lead at two looks in a row, this far apart, is there to stay.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Partitions that change their leader in one order, and until the next look: all of them at once would be felt.
const RETURNED_AT_ONCE: usize = 500;

/// Has leadership return whenever this member is the active coordinator.
pub(super) async fn watch(quorum: &Quorum) -> Infallible {
    let mut before = BTreeSet::new();
    loop {
        sleep(LOOK_EVERY).await;
        if quorum.leader() != Some(quorum.identity().node) {
            before.clear();
            continue;
        }
        let astray = astray(&quorum.shown().replicas.borrow());
        let partitions = due(&astray, &before);
        before = astray;
        if partitions.is_empty() {
            continue;
        }
        let (how, count) = (Election::Preferred, partitions.len());
        match quorum
            .propose(Order::Replicas(ReplicaCommand::Elect { partitions, how }))
            .await
        {
            Ok(_) => tracing::info!(partitions = count, "leadership returns to the preferred leaders"),
            Err(error) => tracing::debug!(%error, "leadership has not returned to the preferred leaders"),
        }
    }
}

/// Partitions that their preferred leader could lead, and does not.
fn astray(map: &ReplicaMap) -> BTreeSet<PartitionId> {
    let is_astray = |replicas: &Replicas| {
        let preferred = replicas.replicas.first().copied();
        let can_lead = preferred.is_some_and(|preferred| replicas.is_in_sync(preferred));
        can_lead && replicas.leader.is_some() && replicas.leader != preferred
    };
    let partitions = map.partitions().filter(|(_, replicas)| is_astray(replicas));
    partitions.map(|(id, _)| id).collect()
}

/// Those that were astray the last time too.
fn due(astray: &BTreeSet<PartitionId>, before: &BTreeSet<PartitionId>) -> Vec<PartitionId> {
    astray.intersection(before).take(RETURNED_AT_ONCE).copied().collect()
}

#[cfg(test)]
mod tests {
    use headwater_protocol::id::{BrokerId, PartitionIndex, TopicId};
    use uuid::Uuid;

    use super::*;
    use crate::{
        cluster::replicas::{IsrChange, Registration},
        image::{Address, Durability, Terms},
    };

    const HOME: BrokerId = BrokerId::new(1);
    const OTHER: BrokerId = BrokerId::new(2);

    fn decide(map: &mut ReplicaMap, command: &ReplicaCommand) {
        *map = map.apply(command).unwrap().0;
    }

    fn set_fenced(map: &mut ReplicaMap, id: BrokerId, is_fenced: bool) {
        let incarnation = map.broker(id).unwrap().incarnation;
        let command = if is_fenced {
            ReplicaCommand::Fence { id, incarnation }
        } else {
            ReplicaCommand::Unfence { id, incarnation }
        };
        decide(map, &command);
    }

    #[test]
    fn a_preferred_leader_leads_again_once_it_has_been_in_sync_for_a_while() {
        let mut map = ReplicaMap::default();
        for id in [HOME, OTHER] {
            let registration = Registration {
                id,
                process: Uuid::from_u128(id.get() as u128),
                store: Uuid::from_u128(id.get() as u128),
                opened: 1,
                was_clean: true,
                address: Address {
                    host: "localhost".to_owned(),
                    port: 1,
                    core_ports: vec![2],
                },
                rack: None,
            };
            decide(&mut map, &ReplicaCommand::Register(registration));
            set_fenced(&mut map, id, false);
        }
        let topic = TopicId::new(Uuid::from_u128(1));
        let id = PartitionId {
            topic,
            index: PartitionIndex::new(0),
        };
        decide(
            &mut map,
            &ReplicaCommand::Place {
                topic,
                terms: Terms::of_topic(None, Durability::Disk, 2),
                replicas: vec![vec![HOME, OTHER]],
            },
        );
        assert!(astray(&map).is_empty(), "it leads");
        set_fenced(&mut map, HOME, true);
        set_fenced(&mut map, HOME, false);
        assert!(astray(&map).is_empty(), "it is there, and may lack records");
        let now = map.replicas(id).unwrap().clone();
        assert_eq!(now.leader, Some(OTHER));
        let joins = IsrChange {
            id,
            leader_epoch: now.leader_epoch,
            epoch: now.epoch,
            stay: vec![OTHER],
            join: vec![(HOME, map.broker(HOME).unwrap().incarnation)],
        };
        let from = OTHER;
        let incarnation = map.broker(from).unwrap().incarnation;
        let changes = vec![joins];
        decide(
            &mut map,
            &ReplicaCommand::Alter {
                from,
                incarnation,
                changes,
            },
        );
        let first = astray(&map);
        assert_eq!(due(&first, &BTreeSet::new()), []);
        let partitions = due(&astray(&map), &first);
        assert_eq!(partitions, [id]);
        let how = Election::Preferred;
        decide(&mut map, &ReplicaCommand::Elect { partitions, how });
        assert_eq!(map.replicas(id).unwrap().leader, Some(HOME));
        assert!(astray(&map).is_empty());
    }
}
