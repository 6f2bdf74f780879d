//! A replica that is taken out and in again counts by what it says from then on, whichever of both its leader and it have seen.

use headwater_protocol::id::{BrokerId, LeaderEpoch};

use super::{
    world::{Message, PARTITION, World},
    *,
};
use crate::cluster::replicas::ReplicaCommand as Command;

/// Where the leader is, whoever goes and comes back, and whoever takes its place meanwhile.
const LEADER: usize = 0;
const MOVED: usize = 2;
const OTHER: usize = 3;

/// Four brokers, a partition on the first three of which holds a record that all of them have said to have.
fn three_of_four() -> World {
    let is_it = |world: &World| world.nodes.len() == 4 && world.replicas().replicas.len() == 3;
    let mut world = (0..1_000).map(World::new).find(is_it).unwrap();
    world.has_faults = false;
    (0..3).for_each(|place| world.learn(place));
    world.append(LEADER);
    go_on(&mut world, &[LEADER, 1, MOVED]);
    assert_eq!((world.replicas().isr.len(), world.nodes[MOVED].log.durable), (3, 1));
    world
}

/// These brokers work until nothing more comes of it.
fn go_on(world: &mut World, places: &[usize]) {
    for _ in 0..8 {
        for place in places {
            world.learn(*place);
            world.flush(*place);
            world.fetch(*place);
        }
        while !world.mail.is_empty() {
            world.deliver();
        }
    }
}

fn moves_to(world: &mut World, target: [usize; 3]) {
    let target = target.map(|place| world.nodes[place].id).to_vec();
    let partitions = vec![(PARTITION, Some(target))];
    world.decide(&Command::Reassign { partitions });
}

fn epoch(world: &mut World) -> LeaderEpoch {
    match world.nodes[MOVED].role() {
        Some(Role::Follows(follower)) => follower.epoch(),
        other => panic!("it follows, and is {other:?}"),
    }
}

/// Takes the replica out, and in again when that is done; returns a fetch of its that is on its way all that time.
fn out_and_in(world: &mut World, sees_it: bool) -> Message {
    world.fetch(MOVED);
    let late = world.mail.pop().unwrap();
    moves_to(world, [LEADER, 1, OTHER]);
    go_on(world, &[LEADER, 1, OTHER]);
    assert!(!world.replicas().has(world.nodes[MOVED].id));
    if sees_it {
        world.learn(MOVED);
        assert_eq!(world.nodes[MOVED].log.end(), 0, "others have it");
    }
    moves_to(world, [LEADER, 1, MOVED]);
    late
}

#[test]
fn what_a_replica_said_before_it_went_counts_for_nothing_when_it_is_back() {
    let mut world = three_of_four();
    let late = out_and_in(&mut world, true);
    world.learn(LEADER);
    world.mail = vec![late];
    world.deliver();
    go_on(&mut world, &[LEADER]);
    let moved: BrokerId = world.nodes[MOVED].id;
    assert!(!world.replicas().is_in_sync(moved), "it has nothing");
    go_on(&mut world, &[LEADER, 1, MOVED]);
    assert!(world.replicas().is_in_sync(moved) && world.nodes[MOVED].log.end() == 1);
}

#[test]
fn a_replica_that_has_not_seen_that_it_was_gone_has_something_to_say() {
    let mut world = three_of_four();
    let before = epoch(&mut world);
    out_and_in(&mut world, false);
    world.learn(MOVED);
    assert!(
        epoch(&mut world) > before,
        "it would say nothing before something is appended"
    );
}
