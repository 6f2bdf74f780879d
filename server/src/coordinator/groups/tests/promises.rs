//! Random joins, leaves, kills, pauses, restarts, crashes and failing disks; the world checks itself at every step.

use std::{collections::BTreeSet, time::Duration};

use super::{
    node::Doing,
    world::{GROUP, World},
    *,
};
use crate::coordinator::groups::group::Phase;

/// Far beyond all sessions and rebalances.
const CALM: Duration = Duration::from_mins(5);

#[test]
fn no_partition_has_two_owners_and_a_group_comes_to_rest_when_faults_stop() {
    for_each_seed(
        "no_partition_has_two_owners_and_a_group_comes_to_rest_when_faults_stop",
        2_000,
        |seed| {
            let mut world = World::new(seed);
            world.run(Duration::from_mins(2), |_| false);
            world.end_faults();
            let end = world.now + CALM;
            world.run(end, is_at_rest);
            assert!(is_at_rest(&world), "the group does not come to rest: {:?}", world.nodes);
        },
    );
}

/// Every node that runs is a member and works, and together they own everything that they subscribe to.
fn is_at_rest(world: &World) -> bool {
    let alive: Vec<_> = world.nodes.iter().filter(|node| node.is_alive).collect();
    let Some(shard) = &world.shard else { return false };
    let Some(group) = shard.group_named(GROUP) else {
        return alive.is_empty();
    };
    if alive.is_empty() {
        return group.phase == Phase::Empty;
    }
    let works = |node: &&&node::Node| node.doing == Doing::Works && node.generation == group.generation;
    let all_work = alive.iter().filter(works).count() == alive.len();
    let topics: BTreeSet<&String> = alive.iter().flat_map(|node| &node.topics).collect();
    let wanted: usize = topics.iter().map(|topic| world.topics.count(topic) as usize).sum();
    let owned: usize = alive.iter().map(|node| node.owned.len()).sum();
    // With an assignment of their own, the members must themselves look for new partitions.
    let is_complete = owned == wanted || world.protocol == "own";
    group.phase == Phase::Stable && group.roster.members.len() == alive.len() && all_work && is_complete
}
